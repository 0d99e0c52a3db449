"""Inference: a trained model and a store become predictions, block by block.

    predict(Trained.of(RunFolder(Path("runs/first"))), store, "out.zarr")

Blocks of cells with all their days are read, spun up, simulated and written; each
device of the machine works on blocks of its own, so that memory does not depend on
the number of cells. The water balance of every cell and day is checked on the way.
"""

import concurrent.futures
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
import xarray as xr

from h2mv_tf import __version__, distribution, predictions
from h2mv_tf.data.check import refuse_forcing, refuse_static
from h2mv_tf.data.store import Block, Store
from h2mv_tf.data.writing import (
    ALONE,
    CHUNKS,
    Arrays,
    Shard,
    Writer,
    refuse_existing,
    tile_of,
    writing,
)
from h2mv_tf.errors import UserError
from h2mv_tf.model import H2MV
from h2mv_tf.predictions import MARK, SERIES, Profile
from h2mv_tf.run_folder import git_commit
from h2mv_tf.trained import Trained
from h2mv_tf.variables import BALANCE, FORCING, OUTPUTS, VARIABLES, find, names

logger = logging.getLogger(__name__)

CLOSED = 1e-3  # mm d-1, the largest residual that rounding explains
MOST_CELLS = 256  # of a device at a time; more are no faster
MEMORY = 2e9  # bytes, of the values in hand
COPIES = 4  # of the outputs of a block: of the device, in NumPy, and being written
# Worked out for the balance, whatever is asked for.
OF_BALANCE = (
    "water_balance_residual",
    "corrected_precipitation",
    "evapotranspiration",
    "runoff",
    "tws",
)
INITIAL = "initial_storage"
CONNECTING = 10  # seconds, to a dask scheduler


class Balance(NamedTuple):
    """How well the water balance closes over all cells that were simulated."""

    largest_residual: float  # of a cell and day [mm d-1]
    largest_closure: float  # of a cell over the whole period [mm]
    days: int

    @classmethod
    def of(cls, dataset: xr.Dataset, days: int) -> "Balance":
        """The balance of predictions.

        Args:
            dataset: Of `predictions.load`.
            days: That were simulated.
        """
        residual, closure = (float(abs(dataset[name]).max()) for name in BALANCE)
        return cls(residual, closure, days)


@dataclass(frozen=True)
class Job:
    """What is simulated and written, for whoever works on it.

    Attributes:
        names: Variables to write, in the order of the registry.
        profile: Whose names and units.
        monthly: Write means of months.
        spin_up: Passes over the series that bring the stores into motion.
        cells: That are simulated together.
    """

    names: tuple[str, ...]
    profile: Profile
    monthly: bool
    spin_up: int
    cells: int


class Simulator:
    """Simulates cells on one device, always as many at a time.

    Args:
        settings: Of the model's constructor.
        job: What is asked for.
        device: Name of the device.
    """

    # One for each device is kept: to compile it takes seconds, and models that differ
    # in their weights alone share it.
    _kept: ClassVar[dict[str, "Simulator"]] = {}

    def __init__(self, settings: Mapping, job: Job, device: str):
        self.cells, self.device = job.cells, device
        self._made_of = self._needed(settings, job)
        with tf.device(device):
            self.model = H2MV.from_config(dict(settings))
        outputs = [name for name in job.names if name in OUTPUTS]
        self._outputs = tuple(dict.fromkeys((*outputs, *OF_BALANCE)))
        self._spin_up = job.spin_up
        self._run = tf.function(self._run, jit_compile=True, autograph=False)

    @classmethod
    def of(cls, trained: Trained, job: Job, device: str) -> "Simulator":
        """The simulator of a model: that of the model before, where it fits.

        Args:
            trained: The model.
            job: What is asked for.
            device: Name of the device.
        """
        kept = cls._kept.get(device)
        if kept is None or kept._made_of != cls._needed(trained.settings, job):
            kept = cls._kept[device] = cls(trained.settings, job, device)
        kept.model.set_weights(trained.weights)
        return kept

    @staticmethod
    def _needed(settings: Mapping, job: Job) -> tuple:
        sizes = {k: v for k, v in settings.items() if k != "name"}
        return sizes, job.names, job.spin_up, job.cells

    def __call__(
        self, forcing: np.ndarray, static: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Simulates cells.

        Args:
            forcing: (cells, days, 3); as many cells as the job says, or fewer.
            static: (cells, static inputs).

        Returns:
            Outputs by name, (cells, days), (cells,) or (); and the storage at the
            start of the first day (cells,) [mm].
        """
        count = len(forcing)
        # Those that lack are the last one again: one shape, one program.
        rows = np.minimum(np.arange(self.cells), count - 1)
        with tf.device(self.device):
            values = self._run(tf.constant(forcing[rows]), tf.constant(static[rows]))
        arrays = {name: value.numpy() for name, value in values.items()}
        return {
            name: value[:count] if value.ndim else value
            for name, value in arrays.items()
        }

    def _run(self, forcing, static):
        state = None
        for _ in range(self._spin_up):
            state = self.model.spin_up(forcing, static, state)
        values, _ = self.model.simulate(forcing, static, state, self._outputs)
        storage = state.swe + state.soil_moisture + state.groundwater
        return values | {INITIAL: storage[:, 0]}


class Work:
    """Reads, simulates and writes blocks of cells.

    Args:
        simulator: Of a device of its own.
        job: What is asked for.
        store: Where the weather is.
        static: Static inputs of all land cells (cells, static inputs).
        arrays: Where to write.
    """

    def __init__(
        self,
        simulator: Simulator,
        job: Job,
        store: Store,
        static: np.ndarray,
        arrays: Arrays,
    ):
        self.simulator, self.job, self.store = simulator, job, store
        self.static, self.arrays = static, arrays
        self.months = store.time.to_period("M").astype("int64").values

    def __call__(self, blocks: Sequence[Block]) -> list[Callable[[], None]]:
        """Simulates some blocks and begins to write them.

        Args:
            blocks: Without a chunk of the predictions that others write, too.

        Returns:
            What waits until they are written.

        Raises:
            UserError: The forcing cannot be simulated with, or the water balance
                does not close.
        """
        cells = np.concatenate([block.cells for block in blocks])
        forcing = self._forcing(blocks)
        step = self.job.cells
        parts = [
            self._simulated(cells[n : n + step], forcing[n : n + step])
            for n in range(0, len(cells), step)
        ]
        values = {
            name: np.concatenate([part[name] for part in parts]) for name in parts[0]
        }
        waiting, first = [], 0
        for block in blocks:
            rows = slice(first, first + len(block.cells))
            waiting += [self._begin(name, v[rows], block) for name, v in values.items()]
            first += len(block.cells)
        return waiting

    def _forcing(self, blocks: Sequence[Block]) -> np.ndarray:
        """(cells, days, 3), looked at before the model does."""
        begun = [self.store.request((), block) for block in blocks]
        parts = []
        for block, wait in zip(blocks, begun, strict=True):
            read = wait()
            for name in FORCING:
                refuse_forcing(self.store, name, read[name], block.cells)
            parts.append(np.stack([read[name] for name in FORCING], axis=-1))
        return np.concatenate(parts)

    def _simulated(
        self, cells: np.ndarray, forcing: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What is written of some cells, by name, (cells, steps) or (cells,)."""
        job = self.job
        values = self.simulator(forcing, self.static[cells])
        values |= self._balance(values, cells)
        return {
            name: self._monthly(values[name])
            if job.monthly and name in SERIES
            else values[name]
            for name in job.names
            if VARIABLES[name].kind != "constant"
        }

    def _balance(
        self, values: Mapping[str, np.ndarray], cells: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The balance of each cell, of which no day may be open."""
        residual = np.abs(values["water_balance_residual"]).max(axis=1)
        gains = values["corrected_precipitation"].sum(axis=1, dtype="float64")
        for name in ("evapotranspiration", "runoff"):
            gains -= values[name].sum(axis=1, dtype="float64")
        growth = values["tws"][:, -1].astype("float64") - values[INITIAL]
        closure = gains - growth
        days = len(self.store.time)
        worst = int(np.argmax(np.maximum(residual, np.abs(closure) / days)))
        # The comparison is false of what is not a number.
        if not max(residual[worst], abs(closure[worst]) / days) <= CLOSED:
            raise UserError(
                f"The water balance of {self.store.describe(cells[worst])} is open: up "
                f"to {residual[worst]:.2g} mm on a day, and {closure[worst]:.2g} mm "
                f"over {days} days; at most {CLOSED:g} mm d-1 is rounding. Nothing was "
                "written. Look at the weights and the weather of this cell."
            )
        closing = dict(zip(BALANCE, (residual, closure), strict=True))
        return {name: value.astype("float32") for name, value in closing.items()}

    def _monthly(self, values: np.ndarray) -> np.ndarray:
        """Means of the days of each month (cells, months)."""
        first = np.flatnonzero(np.diff(self.months, prepend=-1))
        days = np.diff(first, append=len(self.months))
        sums = np.add.reduceat(values, first, axis=1, dtype="float64")
        return (sums / days).astype("float32")

    def _begin(self, name: str, values: np.ndarray, block: Block):
        """Begins to write a variable of a block."""
        shape = [region.stop - region.start for region in block.region]
        job = self.job
        _, factor = predictions.stored_units(name, job.profile)
        grid = np.full((*shape, *values.shape[1:]), np.nan, "float32")
        grid.reshape(-1, *values.shape[1:])[block.place] = values * np.float32(factor)
        region, dims = block.region, None
        if values.ndim > 1:  # time comes last here, and first in the array
            region = (slice(None), *region)
            dims = (*range(1, len(region)), 0)
        stored = predictions.stored_name(name, job.profile)
        return self.arrays.begin("", grid, region, stored, dims)


def predict(
    trained: Trained,
    store: Store,
    to: str | Path,
    *,
    variables: Sequence[str] | None = None,
    profile: Profile = "native",
    netcdf: bool = False,
    monthly: bool = False,
    spin_up: int = 1,
    memory: float = MEMORY,
    devices: distribution.Devices = "auto",
    shard: Shard = ALONE,
    cluster: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Balance | None:
    """Simulates the cells of a store, and writes what the model says of them.

    An interrupted call is continued by one of the same arguments.

    Args:
        trained: The model.
        store: Weather and static inputs; observations are not needed.
        to: What to make; must not exist.
        variables: Names of the registry; all by default. The water balance is
            always there.
        profile: Whose names and units.
        netcdf: Write a NetCDF file instead of a Zarr store.
        monthly: Write means of months instead of days.
        spin_up: Passes over the series that bring the stores into motion.
        memory: Bytes of the values in hand.
        devices: That share the work, as in `distribution.strategy`.
        shard: Which of the processes that write this store together this is.
        cluster: Address of a dask scheduler, whose workers do it.
        progress: Called with the number of cells that are done, and of all.

    Returns:
        How well the water balance closes; None where other shards are still at work.

    Raises:
        UserError: The model and the store do not fit, a variable is unknown, the
            path exists or cannot be written, or the water balance is open.
    """
    to = Path(to)
    refuse_existing(to)
    trained.require(store)
    static = store.static()
    refuse_static(store, static)
    asked = asked_for(variables)
    time = _steps(store, monthly)
    tile = tile_of(len(time), store.land.dims)
    blocks = store.cut(tile)
    mine = blocks[shard.index - 1 :: shard.count]
    hands = ["cluster"] if cluster else distribution.own_devices(devices)
    job = Job(
        names=asked,
        profile=profile,
        monthly=monthly,
        spin_up=spin_up,
        cells=_cells_at_once(store, mine, memory / len(hands)),
    )
    # How many cells are simulated together changes no number.
    plan = {
        "model": trained.digest,
        "store": str(store.path.resolve()),
        "period": [f"{time[0]}", f"{time[-1]}"],
        "cells": int(store.land.sum()),
        "job": [asked, profile, monthly, spin_up],
        "tile": tile,
        "version": __version__,
    }
    with writing(
        to,
        tile=tile,
        plan=plan,
        attributes={
            "title": "Predictions of H2MV, a hybrid model of the land water cycle",
            "days_simulated": len(store.time),
            **provenance(trained.attributes, store, profile, monthly),
        },
        shard=shard,
        parts=[_key(block) for block in blocks],
        finish=as_netcdf if netcdf else None,
    ) as writer:
        declare_all(writer, trained, store, time, job)
        todo = [block for block in mine if not writer.holds(_key(block))]
        if len(todo) < len(mine):
            ready = len(mine) - len(todo)
            logger.info("Continuing: %d of %d blocks are done.", ready, len(mine))
        groups = grouped(todo, job.cells)
        if cluster:
            done = _on_cluster(cluster, trained, job, store, writer.arrays, groups)
        else:
            works = [
                Work(
                    Simulator.of(trained, job, hand), job, store, static, writer.arrays
                )
                for hand in hands[: len(groups)]
            ]
            done = worked(works, groups)
        total = sum(len(block.cells) for block in mine)
        count = total - sum(len(block.cells) for block in todo)
        for group in done:
            for block in group:
                writer.finish(_key(block))
                count += len(block.cells)
            if progress is not None:
                progress(count, total)
    if not to.exists():
        return None
    return Balance.of(predictions.load(to), len(store.time))


def untrained(
    dataset: xr.Dataset,
    store: Store,
    to: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """What the model said before it was trained, of all that the store observes.

    Args:
        dataset: Predictions of the trained model, which know how it was made.
        store: Where they were made from.
        to: Zarr store to make.
        progress: As of `predict`.

    Raises:
        UserError: They do not know how the model was made.
    """
    trained = Trained.before_training(dataset.attrs)
    predict(trained, store, to, variables=store.constraints, progress=progress)
    return predictions.load(to)


def as_netcdf(store: Path, to: Path) -> None:
    """Writes predictions that are a Zarr store as a NetCDF file, chunk by chunk.

    Args:
        store: The Zarr store.
        to: The file.
    """
    with xr.open_zarr(store, consolidated=False, decode_cf=False) as dataset:
        encoding = {
            name: {
                "zlib": True,
                "complevel": 1,
                "chunksizes": data.encoding["chunks"],
            }
            for name, data in dataset.data_vars.items()
            if data.ndim
        }
        dataset.attrs.pop(CHUNKS, None)  # of the Zarr store
        dataset.drop_encoding().to_netcdf(to, engine="netcdf4", encoding=encoding)


def provenance(attributes: Mapping, store: Store, profile: str, monthly: bool) -> dict:
    """Attributes that tell where predictions come from.

    Args:
        attributes: Of the model.
        store: Where its weather is from.
        profile: Whose names and units they have.
        monthly: Whether they are means of months.
    """
    commit = git_commit()
    version = f"h2mv_tf {__version__}" + f" ({commit})" * (commit is not None)
    model = attributes.get("run", "untrained")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "source": version,
        "history": f"{now}: simulated by {version} with model {model} and {store.path}",
        "references": predictions.REFERENCES,
        "store": str(store.path),
        "frequency": "monthly" if monthly else "daily",
        MARK: profile,
        **attributes,
    }


def asked_for(variables: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the registry in its order, and those that are always there.

    Args:
        variables: In any vocabulary of the registry; None: all.

    Raises:
        UserError: A name is unknown.
    """
    if variables is None:
        return (*OUTPUTS, *BALANCE)
    found = {}
    for name in variables:
        variable = find(name, (*OUTPUTS, *BALANCE))
        if variable is None:
            raise UserError(
                f"The model has no variable '{name}'. Expected any of: "
                f"{', '.join(OUTPUTS)}."
            )
        found[variable.name] = True
    wanted = {*found, *predictions.ALWAYS}
    return tuple(name for name in (*OUTPUTS, *BALANCE) if name in wanted)


def declare_all(
    writer: Writer, trained: Trained, store: Store, time: pd.DatetimeIndex, job: Job
) -> None:
    """Makes the arrays of a job, and fills those that need no simulation."""
    template = predictions.template(
        store.land, time, job.names, profile=job.profile, monthly=job.monthly
    )
    roles = trained.role_of(store)
    predictions.declare(writer, store.land, template, roles, monthly=job.monthly)
    for name in names("constant"):
        if name in job.names:
            value = np.float32(trained.constants[name])
            stored = predictions.stored_name(name, job.profile)
            writer.put("", value, name=stored)


def _steps(store: Store, monthly: bool) -> pd.DatetimeIndex:
    if not monthly:
        return store.time
    return store.time.to_period("M").unique().to_timestamp()


def _cells_at_once(store: Store, blocks: Sequence[Block], memory: float) -> int:
    """Cells that a device simulates together."""
    numbers = len(store.time) * (len(SERIES) + len(FORCING))
    fitting = int(memory / (COPIES * numbers * np.dtype("float32").itemsize))
    there = sum(len(block.cells) for block in blocks)
    return max(min(MOST_CELLS, fitting, there), 1)


def grouped(blocks: Sequence[Block], cells: int) -> list[list[Block]]:
    """Blocks that are simulated together: about as many cells, or a single block."""
    groups, count = [], 0
    for block in blocks:
        if not groups or count + len(block.cells) > cells:
            groups.append([])
            count = 0
        groups[-1].append(block)
        count += len(block.cells)
    return groups


def _key(block: Block) -> tuple:
    return ("block", *block.region)


def worked(
    works: Sequence[Work], groups: Sequence[Sequence[Block]]
) -> Iterator[Sequence[Block]]:
    """Works on all devices of this process; gives the groups as they are written.

    Args:
        works: One for each device.
        groups: Blocks that are simulated together.
    """
    rest, taking, stop = iter(groups), threading.Lock(), threading.Event()
    done: queue.SimpleQueue = queue.SimpleQueue()

    def run(work: Work) -> None:
        before, waiting = None, []
        while not stop.is_set():
            with taking:
                group = next(rest, None)
            # One is written while the next is simulated.
            begun = work(group) if group else []
            for wait in waiting:
                wait()
            if before:
                done.put(before)
            if group is None:
                return
            before, waiting = group, begun

    with concurrent.futures.ThreadPoolExecutor(max(len(works), 1)) as pool:
        running = [pool.submit(run, work) for work in works]
        for future in running:
            future.add_done_callback(done.put)
        try:
            while running:
                finished = done.get()
                if isinstance(finished, concurrent.futures.Future):
                    running.remove(finished)
                    finished.result()
                else:
                    yield finished
        finally:
            stop.set()


def _on_cluster(
    address: str,
    trained: Trained,
    job: Job,
    store: Store,
    arrays: Arrays,
    groups: Sequence[Sequence[Block]],
) -> Iterator[Sequence[Block]]:
    """Has the workers of a dask cluster do it; gives the groups as they are written."""
    import distributed

    try:
        client = distributed.Client(address, timeout=CONNECTING, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"There is no dask scheduler at '{address}': {error}. Start one with `dask "
            "scheduler`, and its workers with `dask worker ADDRESS` where this package "
            "is installed and the same paths are there."
        ) from error
    with client, client.as_current():
        place = (store.path.resolve(), tuple(store.groups.items()))
        model = client.scatter(trained, broadcast=True)
        futures = {
            client.submit(
                _of_cluster,
                model,
                job,
                *place,
                arrays.store.resolve(),
                group,
                pure=False,
            ): group
            for group in groups
        }
        for future in distributed.as_completed(futures):
            future.result()
            yield futures[future]


def _of_cluster(
    trained: Trained,
    job: Job,
    path: Path,
    groups: tuple[tuple[str, str], ...],
    target: Path,
    blocks: Sequence[Block],
) -> None:
    """Works on some blocks in a process of a dask worker."""
    with _ONE_AT_A_TIME:
        key = (trained.digest, job, path, target)
        if key not in _WORK:
            _WORK.clear()
            store = Store.open(path, dict(groups))
            simulator = Simulator.of(trained, job, distribution.own_devices(1)[0])
            _WORK[key] = Work(simulator, job, store, store.static(), Arrays(target))
        for wait in _WORK[key](blocks):
            wait()


# Of a dask worker, which has one task after the other.
_ONE_AT_A_TIME = threading.Lock()
_WORK: dict[tuple, Work] = {}
