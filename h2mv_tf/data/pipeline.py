"""The stream: from a store to batches of windows.

Cells come pool by pool: a pool is as many blocks of the store as fit the buffer, or
everything where the series are held. While one pool is dealt out, in random order
of windows, the next one is read. Batches are dictionaries of tensors of one static
shape, so that nothing recompiles; the last batch is filled up with windows of
weight zero, which have no observations.
"""

import collections
import ctypes
import itertools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from h2mv_tf.data.series import Series, Tiles
from h2mv_tf.data.windows import Record, Windows
from h2mv_tf.errors import UserError

ALIGNMENT = 64  # bytes
AHEAD = 2  # batches that wait for the model
KEPT = AHEAD + 2  # epochs whose windows are known at a time
FILLING = (0.0, 0.0, 280.0)  # weather of windows that count for nothing


class Epoch(NamedTuple):
    """The windows of one epoch, in their order."""

    cell: np.ndarray  # (windows,)
    start: np.ndarray  # (windows,) first days
    pool: np.ndarray  # (windows,) ascending
    batches: int
    windows: int  # of all processes
    skipped: int  # windows without an observation, which are left out

    def after(self, batches: int, batch_size: int) -> "Epoch":
        """What is left of it when some batches are done."""
        done = batches * batch_size
        return self._replace(
            cell=self.cell[done:],
            start=self.start[done:],
            pool=self.pool[done:],
            batches=self.batches - batches,
        )


class _Memory:
    """Arrays that TensorFlow takes over without a copy, from memory used before.

    Fresh memory would cost more than to fill it: a fault for each page.
    """

    def __init__(self):
        self._free = collections.defaultdict(list)  # by size

    def array(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """An array without values; its memory is used again when nobody has it."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        free = self._free[size]
        memory = free.pop() if free else np.empty(size + ALIGNMENT, "uint8")
        offset = -memory.ctypes.data % ALIGNMENT
        # What all views of the array hold on to.
        owner = (ctypes.c_char * size).from_buffer(memory, offset)
        weakref.finalize(owner, free.append, memory).atexit = False
        return np.frombuffer(owner, dtype).reshape(shape)


class Stream:
    """Batches of windows of some cells.

    Args:
        source: The series of the land cells.
        record: What there is of them besides.
        cells: The land cells to stream.
        windows: What a sample is.
        batch_size: Windows in a batch.
        multiple: Fills batches up to a multiple of this many rows.
        dtype: Of the tensors.
        seed: Shuffles blocks and windows, and shifts the windows by up to a stride,
            anew in each epoch; without one they come in order.
        shard: This process' number and the number of all processes. Each streams
            its part of every batch, or, where the store is read, blocks of its own;
            all in the same number of batches.
    """

    def __init__(
        self,
        source: Series | Tiles,
        record: Record,
        cells: np.ndarray,
        windows: Windows,
        *,
        batch_size: int,
        multiple: int = 1,
        dtype: str = "float32",
        seed: int | None = None,
        shard: tuple[int, int] = (0, 1),
    ):
        self.source, self.record, self.cells = source, record, np.asarray(cells)
        self.windows, self.batch_size = windows, batch_size
        self._rows = -(-batch_size // multiple) * multiple
        self.dtype, self.seed, self.shard = np.dtype(dtype), seed, shard
        self._planned: dict[int, Epoch] = {}
        self._memory = _Memory()
        self._failure: UserError | None = None  # TensorFlow tells but its words

    def plan(self, number: int = 0) -> Epoch:
        """The windows of an epoch of this process.

        Args:
            number: Of the epoch; with the seed it decides the order.
        """
        number = 0 if self.seed is None else number
        if number not in self._planned:
            # One epoch is in use while the next ones are made.
            recent = {k: v for k, v in self._planned.items() if k > number - KEPT}
            self._planned = recent | {number: self._plan(number)}
        return self._planned[number]

    def cell_days(self, number: int = 0) -> int:
        """Days of all windows of an epoch of all processes, without spin-up.

        Args:
            number: Of the epoch.
        """
        return self.plan(number).windows * self.windows.days

    def epoch(self, number: int = 0) -> tf.data.Dataset:
        """The batches of one epoch.

        Args:
            number: Of the epoch; with the seed it decides the order.

        Returns:
            Dictionaries of `forcing` (batch, length, 3), `static` (batch, n),
            `month` (batch, length) with the column of each day's month or -1
            where the window does not hold the whole month, `targets` by name,
            (batch, length) or (batch, months), standard errors among them, `weight`
            (batch,), 0 where a window only fills the batch, and, but for `full`,
            `spin_up_forcing` (batch, spin_up, 3).
        """
        cardinality = tf.data.experimental.assert_cardinality(self.plan(number).batches)
        return self._dataset([number]).apply(cardinality)

    def epochs(self, numbers: Sequence[int], done: int = 0) -> Iterator[Iterator[dict]]:
        """The batches of several epochs, each to be used up before the next one.

        The first batches of an epoch are made while the one before it ends.

        Args:
            numbers: Of the epochs.
            done: Batches of the first of them that are left out.

        Raises:
            UserError: The store cannot be read any more.
        """
        batches = self._running(numbers, done)
        for number in numbers:
            yield itertools.islice(batches, self.plan(number).batches - done)
            done = 0

    def batches(self, number: int = 0) -> Iterator[dict]:
        """The batches of one epoch, one after the other, as of `epoch`.

        Args:
            number: Of the epoch.

        Raises:
            UserError: The store cannot be read any more.
        """
        yield from self._running([number])

    def windows_of(self, number: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Cells and first days of the windows of a batch, without those that fill it.

        Args:
            number: Of the epoch.
            batch: Of the batch in it.
        """
        plan = self.plan(number).after(batch, self.batch_size)
        return plan.cell[: self.batch_size], plan.start[: self.batch_size]

    def _running(self, numbers: Sequence[int], done: int = 0) -> Iterator[dict]:
        try:
            yield from self._dataset(numbers, done)
        except tf.errors.OpError as error:
            if self._failure is None:
                raise
            raise self._failure from error

    def _dataset(self, numbers: Sequence[int], done: int = 0) -> tf.data.Dataset:
        def generate() -> Iterator[dict]:
            left_out = itertools.chain([done], itertools.repeat(0))
            for number, batches in zip(numbers, left_out, strict=False):
                yield from self._told(number, batches)

        dataset = tf.data.Dataset.from_generator(
            generate, output_signature=self._signature()
        )
        options = tf.data.Options()
        # There is nothing to tune, and its thread may hold up the end of an epoch
        # for seconds.
        options.autotune.enabled = False
        return dataset.prefetch(AHEAD).with_options(options)

    def _plan(self, number: int) -> Epoch:
        generator = None
        if self.seed is not None:
            generator = np.random.default_rng([self.seed, number])
        plan = self.windows.plan(self.cells, self.record.observed, generator)
        blocks, block = np.unique(self.record.block[self.cells], return_inverse=True)
        order = np.arange(len(blocks))
        place = np.arange(len(plan.cell))
        if generator is not None:
            order = generator.permutation(order)
            place = generator.permutation(place)
        index, count = self.shard
        of_cell = np.zeros(len(self.record.block), int)
        of_cell[self.cells] = block
        of_window = of_cell[plan.cell]
        pool = np.zeros(len(blocks), int)
        if self.source.room is None:
            # A batch of all processes together is the one that a process alone has.
            dealt = np.argsort(np.argsort(place)) // self.batch_size % count
        else:
            held = np.bincount(block, minlength=len(blocks))
            process = np.empty(len(blocks), int)
            for n in range(count):
                share = order[n::count]
                process[share] = n
                pool[share] = _pools(held[share], self.source.room)
            dealt = process[of_window]
        own = np.flatnonzero(dealt == index)
        own = own[np.lexsort((place[own], pool[of_window[own]]))]
        return Epoch(
            cell=plan.cell[own],
            start=plan.start[own],
            pool=pool[of_window[own]],
            batches=-(-np.bincount(dealt, minlength=1).max() // self.batch_size),
            windows=len(plan.cell),
            skipped=plan.skipped,
        )

    def _told(self, number: int, done: int) -> Iterator[dict]:
        """The batches of an epoch that are left; keeps the error that ends them."""
        try:
            yield from self._batches(self.plan(number).after(done, self.batch_size))
        except UserError as error:
            self._failure = error
            raise

    def _batches(self, plan: Epoch) -> Iterator[dict]:
        """Deals out the pools, one being read while another is in use."""
        filling = 0
        batch = self._empty()
        for series, cell, start in self._pools(plan):
            done = 0
            while done < len(cell):
                some = slice(done, done + self.batch_size - filling)
                filled = filling + len(cell[some])
                self._fill(
                    batch, slice(filling, filled), series, cell[some], start[some]
                )
                done, filling = done + len(cell[some]), filled
                if filling == self.batch_size:
                    self._blank(batch, slice(filling, None))
                    yield batch
                    batch, filling = self._empty(), 0
        given = len(plan.cell) // self.batch_size
        for _ in range(plan.batches - given):
            self._blank(batch, slice(filling, None))
            yield batch
            batch, filling = self._empty(), 0

    def _pools(self, plan: Epoch) -> Iterator[tuple[Series, np.ndarray, np.ndarray]]:
        """The windows of each pool, and the series that hold its cells."""
        bounds = np.flatnonzero(np.diff(plan.pool, prepend=-1, append=-1))
        parts = [slice(*pair) for pair in itertools.pairwise(bounds)]
        if not len(plan.cell):
            return
        with ThreadPoolExecutor(1) as reader:

            def load(part: slice):
                return reader.submit(self.source.load, np.unique(plan.cell[part]))

            coming = load(parts[0])
            for part, following in itertools.zip_longest(parts, parts[1:]):
                series = coming.result()
                coming = load(following) if following is not None else None
                yield series, plan.cell[part], plan.start[part]
                del series  # before the pool after the next one is read

    def _fill(
        self,
        batch: dict,
        at: slice,
        series: Series,
        cell: np.ndarray,
        start: np.ndarray,
    ) -> None:
        """Writes windows into a batch."""
        rows, months = series.rows(cell), self.windows.months
        batch["static"][at] = self.record.static[cell]
        _copy_runs(batch["forcing"][at], series.forcing, rows, start)
        batch["month"][at] = self.windows.calendar(start)
        batch["weight"][at] = 1
        if not self.windows.full:
            self._fill_before(batch["spin_up_forcing"][at], series, rows, start)
        for name, values in series.observations.items():
            target = batch["targets"][name]
            if self.record.daily[name]:
                _copy_runs(target[at], values, rows, start)
                continue
            month = self.windows.month[start][:, None] + np.arange(months)
            inside = month < values.shape[1]
            found = values[rows[:, None], np.where(inside, month, 0)]
            target[at] = np.where(inside, found, np.nan)

    def _fill_before(
        self, into: np.ndarray, series: Series, rows: np.ndarray, start: np.ndarray
    ) -> None:
        """Writes the forcing of the spin-up days (windows, spin_up, 3)."""
        spin_up = self.windows.spin_up
        early = start < spin_up
        late = np.flatnonzero(~early)
        before = [into[n] for n in late]
        _copy_runs(before, series.forcing, rows[late], start[late] - spin_up)
        if early.any():
            days = self.windows.before(start[early])
            into[early] = series.forcing[rows[early][:, None], days]

    def _blank(self, batch: dict, at: slice) -> None:
        """Fills up a batch with windows that count for nothing."""
        cell, start = self.cells[:1], np.zeros(1, int)
        batch["static"][at] = self.record.static[cell]
        batch["month"][at] = self.windows.calendar(start)
        batch["weight"][at] = 0
        for name in ("forcing", "spin_up_forcing"):
            if name in batch:
                batch[name][at] = FILLING
        for target in batch["targets"].values():
            target[at] = np.nan

    def _empty(self) -> dict:
        """A batch without values."""
        return tf.nest.map_structure(
            lambda spec: self._memory.array(spec.shape, spec.dtype.as_numpy_dtype),
            self._signature(),
        )

    def _signature(self) -> dict:
        size, windows = self._rows, self.windows
        shapes = {
            "static": (size, self.record.static.shape[1]),
            "forcing": (size, windows.days, 3),
            "weight": (size,),
            "targets": {
                name: (size, windows.days if daily else windows.months)
                for name, daily in self.record.daily.items()
            },
        }
        if not windows.full:
            shapes["spin_up_forcing"] = (size, windows.spin_up, 3)
        specs = {
            name: {k: tf.TensorSpec(s, self.dtype) for k, s in shape.items()}
            if isinstance(shape, Mapping)
            else tf.TensorSpec(shape, self.dtype)
            for name, shape in shapes.items()
        }
        return specs | {"month": tf.TensorSpec((size, windows.days), "int32")}


def _pools(cells: np.ndarray, room: int) -> np.ndarray:
    """The pool of each block: as many in a row as have room for their cells."""
    pool, held, result = 0, 0, []
    for count in cells:
        if held and held + count > room:
            pool, held = pool + 1, 0
        held += count
        result.append(pool)
    return np.array(result, int)


def _copy_runs(
    into: Iterable[np.ndarray], values: np.ndarray, rows: np.ndarray, start: np.ndarray
) -> None:
    """Copies a run of days of a row into each array (days, ...)."""
    for run, row, first in zip(into, rows, start, strict=True):
        run[...] = values[row, first : first + len(run)]
