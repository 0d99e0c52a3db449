"""Values of options, as users write them."""

from typing import TYPE_CHECKING

from h2mv_tf.errors import UserError

if TYPE_CHECKING:
    from h2mv_tf.data.writing import Shard

LEAST_MEMORY = 50e6  # bytes


def size(text: str) -> float:
    """A size in bytes, of the words of --memory.

    Raises:
        UserError: They cannot be read, or are too little.
    """
    from dask.utils import parse_bytes

    try:
        size = parse_bytes(text)
    except ValueError:
        size = 0
    if size < LEAST_MEMORY:
        raise UserError(
            f"Cannot work in --memory '{text}'. Expected {LEAST_MEMORY / 1e6:g}MB or "
            "more, as 2GB."
        )
    return size


def shard(text: str) -> "Shard":
    """Which of several processes this is, of the words of --shard.

    Raises:
        UserError: They cannot be read.
    """
    from h2mv_tf.data.writing import Shard

    index, _, count = text.partition("/")
    try:
        found = Shard(int(index), int(count))
    except ValueError:
        found = Shard(0, 0)
    if not 1 <= found.index <= found.count:
        raise UserError(
            f"Cannot read --shard '{text}'. Expected i/n with i from 1 to n, as 1/4."
        )
    return found


def quantiles(text: str) -> tuple[float, ...]:
    """Quantiles in ascending order, of the words of --quantiles.

    Raises:
        UserError: They cannot be read.
    """
    try:
        levels = tuple(sorted({float(level) for level in text.split(",")}))
    except ValueError:
        levels = ()
    if not levels or not (levels[0] >= 0 and levels[-1] <= 1):
        raise UserError(
            f"Cannot read --quantiles '{text}'. Expected numbers from 0 to 1, as "
            "0.05,0.5,0.95."
        )
    return levels
