"""What is simulated, and how many cells at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from h2mv_tf import predictions
from h2mv_tf.data.store import Block, Store
from h2mv_tf.errors import UserError
from h2mv_tf.predictions import HELD, SERIES, Profile
from h2mv_tf.variables import FORCING, OUTPUTS, find

MOST_CELLS = 128  # of a device at a time; more are slower: a day leaves the cache
COPIES = 4  # of the outputs of a block: of the device, in NumPy, and being written


@dataclass(frozen=True)
class Job:
    """What is simulated and written, for whoever works on it.

    Attributes:
        names: Variables to write, in the order of the registry.
        profile: Whose names and units.
        monthly: Write means of months.
        spin_up: Passes over the series that bring the stores into motion; none from
            an initial state.
        cells: That are simulated together.
        initial_state: Restart file to start from.
        compiled: By XLA, which takes some ten seconds and is several times as fast.
        draws: Samples that are simulated together; 0 simulates no samples.
        quantiles: That samples are summarised by.
        realizations: Write the samples themselves.
    """

    names: tuple[str, ...]
    profile: Profile
    monthly: bool
    spin_up: int
    cells: int
    initial_state: Path | None = None
    compiled: bool = True
    draws: int = 0
    quantiles: tuple[float, ...] = ()
    realizations: bool = False


def asked_for(variables: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the registry in its order, and those that are always there.

    Args:
        variables: In any vocabulary of the registry; None: all.

    Raises:
        UserError: A name is unknown.
    """
    if variables is None:
        return HELD
    found = {}
    for name in variables:
        variable = find(name, HELD)
        if variable is None:
            raise UserError(
                f"The model has no variable '{name}'. Expected any of: "
                f"{', '.join(OUTPUTS)}."
            )
        found[variable.name] = True
    wanted = {*found, *predictions.ALWAYS}
    return tuple(name for name in HELD if name in wanted)


def cells_at_once(
    store: Store, blocks: Sequence[Block], memory: float, samples: int = 1
) -> int:
    """Cells that a device simulates together.

    Args:
        store: The store.
        blocks: That it works on.
        memory: Bytes of the values in hand.
        samples: Of each cell, which are held until all of them are simulated.
    """
    numbers = len(store.time) * (len(SERIES) + len(FORCING)) * samples
    fitting = int(memory / (COPIES * numbers * np.dtype("float32").itemsize))
    there = sum(len(block.cells) for block in blocks)
    if fitting < min(MOST_CELLS, there):  # a power of two, as the sides of a block are
        fitting = 1 << (max(fitting, 1).bit_length() - 1)
    return max(min(MOST_CELLS, fitting, there), 1)


def draws_at_once(cells: int, samples: int) -> int:
    """Samples that a device simulates together, so that few cells fill it, too.

    Args:
        cells: That it simulates together.
        samples: Of a member, at most; batches of them are of one size as nearly as
            can be, as one that is not full takes as long.
    """
    batches = math.ceil(samples / max(MOST_CELLS // cells, 1))
    return math.ceil(samples / batches)


def grouped(blocks: Sequence[Block], cells: int) -> list[list[Block]]:
    """Blocks that are simulated together.

    The largest first, each where it fits: a group that is not full takes as long.

    Args:
        blocks: Of the store.
        cells: Of a group, at most, unless a single block has more.
    """
    groups: list[list[Block]] = []
    room: list[int] = []
    for block in sorted(blocks, key=lambda block: -len(block.cells)):
        count = len(block.cells)
        place = next((n for n, free in enumerate(room) if free >= count), len(groups))
        if place == len(groups):
            groups.append([])
            room.append(cells)
        groups[place].append(block)
        room[place] -= count
    return groups
