"""Series: the days of the land cells, held in memory, on disk, or read as needed.

`Series` holds cells, in memory or mapped from a file; `Tiles` reads them block by
block, a pool of blocks at a time. The stream takes either.
"""

import collections
import itertools
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import psutil

from h2mv_tf.data.store import Block, Store
from h2mv_tf.errors import UserError
from h2mv_tf.variables import FORCING

logger = logging.getLogger(__name__)

AHEAD_BYTES = 8e6  # of series that are read before they are asked for
MEMORY_SHARE = 0.6  # of what is free, for the series
ITEM = np.dtype("float32").itemsize


@dataclass(frozen=True)
class Series:
    """Cells with all their days.

    Attributes:
        forcing: (rows, days, 3) in the registry's order and units.
        observations: Of each constraint, and standard errors, (rows, days) or
            (rows, months), NaN: missing.
        cells: The land cell of each row, ascending; all of them by default.
    """

    forcing: np.ndarray
    observations: Mapping[str, np.ndarray]
    cells: np.ndarray | None = None

    room = None  # cells that are held at a time; None: all

    @classmethod
    def allocate(
        cls, steps: Mapping[str, int], days: int, cells: np.ndarray | int, disk: bool
    ) -> "Series":
        """Makes room for cells.

        Args:
            steps: Days or months of each constraint and standard error.
            days: Of the forcing.
            cells: Land cells, ascending, or the number of all of them.
            disk: Keep it in a temporary file instead of memory.

        Raises:
            UserError: The disk has no room.
        """
        rows, subset = (cells, None) if isinstance(cells, int) else (len(cells), cells)

        def empty(*shape: int) -> np.ndarray:
            shape = (rows, *shape)
            return _mapped(shape) if disk else np.empty(shape, "float32")

        return cls(
            forcing=empty(days, len(FORCING)),
            observations={name: empty(count) for name, count in steps.items()},
            cells=subset,
        )

    @property
    def on_disk(self) -> bool:
        """Whether it is kept in files instead of memory."""
        return isinstance(self.forcing, np.memmap)

    def rows(self, cells: np.ndarray) -> np.ndarray:
        """The rows of land cells."""
        return cells if self.cells is None else np.searchsorted(self.cells, cells)

    def load(self, cells: np.ndarray) -> "Series":
        """A series that holds these cells: this one does."""
        return self

    def put(self, block: Block, values: Mapping[str, np.ndarray]) -> None:
        """Takes in what was read of a block, of `read`."""
        own = slice(None)  # of the cells of the block; without a copy where all are
        if self.cells is not None:
            held = np.isin(block.cells, self.cells)
            own = own if held.all() else held
        rows = self.rows(block.cells[own])
        for name, series in values.items():
            if name in self.observations:
                self.observations[name][rows] = series[own]
            else:
                self.forcing[rows, :, FORCING.index(name)] = series[own]


@dataclass(frozen=True)
class Tiles:
    """Cells that are read from a store whenever they are asked for.

    Attributes:
        store: The store.
        constraints: Names of the constraints, and of standard errors.
        room: Cells that are held at a time.
    """

    store: Store
    constraints: tuple[str, ...]
    room: int

    def load(self, cells: np.ndarray) -> Series:
        """Reads the blocks that hold these cells, in parallel.

        Args:
            cells: Land cells.

        Raises:
            UserError: A chunk cannot be read.
        """
        cells = np.sort(cells)
        steps = steps_of(self.store, self.constraints)
        series = Series.allocate(steps, len(self.store.time), cells, disk=False)
        wanted = [b for b in self.store.blocks if np.isin(b.cells, cells).any()]
        for block, values in read(self.store, self.constraints, wanted):
            series.put(block, values)
        return series


def source(
    store: Store,
    constraints: Sequence[str],
    *,
    cache: Literal["memory", "disk", "none"],
    buffer: int,
) -> Series | Tiles:
    """Where the stream takes its cells from: room for them, or the store.

    Args:
        store: The store.
        constraints: Names of the constraints, and of standard errors.
        cache: Where to hold the series. What does not fit memory is read.
        buffer: MB of series that are held where the store is read.

    Raises:
        UserError: The disk has no room.
    """
    cells = len(store.cells.lat)
    needed = cells * cell_bytes(store, constraints)
    free = psutil.virtual_memory().available
    if cache == "memory" and needed > MEMORY_SHARE * free:
        logger.warning(
            "The series take %.1f GB, of %.1f GB that are free: they are read from the "
            "store in each epoch (data.cache: none).",
            needed / 1e9,
            free / 1e9,
        )
        cache = "none"
    if cache == "none":
        # One pool is dealt out while the next one is read.
        room = int(buffer * 1e6 / 2 / cell_bytes(store, constraints))
        return Tiles(store, tuple(constraints), max(room, 1))
    steps = steps_of(store, constraints)
    return Series.allocate(steps, len(store.time), cells, disk=cache == "disk")


def read(
    store: Store, constraints: Sequence[str], wanted: Sequence[Block]
) -> Iterator[tuple[Block, dict[str, np.ndarray]]]:
    """Reads blocks in parallel, a few ahead.

    Args:
        store: Where from.
        constraints: Names of the constraints, and of standard errors.
        wanted: Blocks of the store.

    Yields:
        Each block, and its forcing and observations by name.

    Raises:
        UserError: A chunk cannot be read.
    """
    largest = max((len(block.cells) for block in wanted), default=1)
    count = int(AHEAD_BYTES / (largest * cell_bytes(store, constraints)))
    rest = iter(wanted)
    ahead = collections.deque(
        (block, store.request(constraints, block))
        for block in itertools.islice(rest, max(count, 1))
    )
    while ahead:
        block, wait = ahead.popleft()
        values = wait()
        following = itertools.islice(rest, 1)
        ahead.extend((b, store.request(constraints, b)) for b in following)
        yield block, values


def steps_of(store: Store, constraints: Sequence[str]) -> dict[str, int]:
    """Days or months that each of `constraints` has on the forcing's calendar."""
    return {name: len(store.calendar(name).place) for name in constraints}


def cell_bytes(store: Store, constraints: Sequence[str]) -> int:
    """Memory that the series of a cell take."""
    steps = steps_of(store, constraints)
    return ITEM * (len(store.time) * len(FORCING) + sum(steps.values()))


def _mapped(shape: tuple[int, ...]) -> np.ndarray:
    """An array in a file without a name, which goes with the process however it ends.

    Its room on the disk is there from the start.
    """
    size = int(np.prod(shape)) * ITEM
    try:
        with tempfile.TemporaryFile() as file:
            # A sparse file would end the process where the disk is full.
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
            return np.memmap(file, "float32", "r+", shape=shape)
    except OSError as error:
        raise UserError(
            f"Cannot keep {size / 1e9:.2g} GB in '{tempfile.gettempdir()}': "
            f"{error.strerror}. Point TMPDIR to a larger disk, or choose data.cache: "
            "none."
        ) from error
