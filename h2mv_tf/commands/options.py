"""Values of options that several verbs share."""

from h2mv_tf.errors import UserError

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
