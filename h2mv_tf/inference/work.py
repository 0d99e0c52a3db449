"""Reads, simulates and writes blocks of cells, and checks their water balance."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from h2mv_tf import predictions, restart
from h2mv_tf.cell import State
from h2mv_tf.data.check import refuse_forcing
from h2mv_tf.data.store import Block, Store
from h2mv_tf.data.writing import Arrays
from h2mv_tf.ensemble import statistics
from h2mv_tf.errors import UserError
from h2mv_tf.inference.job import Job
from h2mv_tf.inference.samples import Samples
from h2mv_tf.inference.simulator import INITIAL, Simulator
from h2mv_tf.predictions import QUANTILE, SERIES, SPREAD
from h2mv_tf.variables import BALANCE, CLOSED, DOMAIN, FORCING, VARIABLES


class Work:
    """Reads, simulates and writes blocks of cells.

    Args:
        simulator: Of a device of its own.
        job: What is asked for.
        store: Where the weather is.
        static: Static inputs of all land cells (cells, static inputs).
        arrays: Where to write.
        saved: Where to write the state at the end of the last day, if anywhere.
        initial: State to start from; by default that of the job.
        samples: What is simulated, where it is more than one model.
    """

    def __init__(
        self,
        simulator: Simulator,
        job: Job,
        store: Store,
        static: np.ndarray,
        arrays: Arrays,
        saved: Arrays | None = None,
        initial: xr.Dataset | None = None,
        samples: Samples | None = None,
    ):
        self.samples = samples
        self.simulator, self.job, self.store = simulator, job, store
        self.static, self.arrays, self.saved = static, arrays, saved
        self.initial = initial
        if job.initial_state is not None:
            self.initial = restart.load(job.initial_state)
        self.months = store.time.to_period("M").astype("int64").values

    def __call__(self, blocks: Sequence[Block]) -> list[Callable[[], None]]:
        """Simulates some blocks and begins to write them.

        Args:
            blocks: Without a chunk of the predictions that others write, too.

        Returns:
            What waits until they are written.

        Raises:
            UserError: The forcing or the initial state cannot be simulated with, or
                the water balance does not close.
        """
        cells = np.concatenate([block.cells for block in blocks])
        forcing = self._forcing(blocks)
        initial = self._initial(blocks, cells)
        parts = []
        for n in range(0, len(cells), self.job.cells):
            rows = slice(n, n + self.job.cells)
            if self.samples is not None:
                parts.append((self._sampled(cells[rows], forcing[rows]), {}))
                continue
            state = None if initial is None else State(*(x[rows] for x in initial))
            parts.append(self._simulated(cells[rows], forcing[rows], state))
        values, final = (_together(each) for each in zip(*parts, strict=True))
        waiting, first = [], 0
        for block in blocks:
            rows = slice(first, first + len(block.cells))
            waiting += [self._begin(name, v[rows], block) for name, v in values.items()]
            if self.saved is not None:
                waiting += [
                    self.saved.begin("", _on_block(v[rows], block), block.region, name)
                    for name, v in final.items()
                ]
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

    def _initial(self, blocks: Sequence[Block], cells: np.ndarray) -> State | None:
        """The state to start from, each (cells, ...), looked at as the forcing is."""
        if self.initial is None:
            return None
        land, parts = self.store.land, []
        for block in blocks:
            region = dict(zip(land.dims, block.region, strict=True))
            parts.append(restart.states(self.initial.isel(region), land[region]))
        state = State(*map(np.concatenate, zip(*parts, strict=True)))
        restart.refuse_impossible(
            state,
            self.simulator.capacity(self.static[cells]),
            lambda n: self.store.describe(cells[n]),
        )
        return state

    def _simulated(
        self, cells: np.ndarray, forcing: np.ndarray, state: State | None
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What is written of some cells, by name, (cells, steps) or (cells, ...).

        Returns:
            The predictions, and the state at the end of the last day.
        """
        values, final = self.simulator(forcing, self.static[cells], state)
        values |= self._balance(values, cells)
        return self._stepped(values), restart.arrays(final)

    def _stepped(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is written of a simulation, on the steps of the predictions."""
        return {
            name: self._monthly(values[name])
            if self.job.monthly and name in SERIES
            else values[name]
            for name in self.job.names
            if VARIABLES[name].kind != "constant"
        }

    def _sampled(self, cells: np.ndarray, forcing: np.ndarray) -> dict[str, np.ndarray]:
        """What is written of the samples of some cells, by name, cells first."""
        samples, found = self.samples, {}
        for chosen in samples.batches(self.job.draws):
            self.simulator.take(samples.members[samples.member[chosen[0]]])
            drawn = samples.drawn(chosen, cells)
            values, _ = self.simulator(forcing, self.static[cells], drawn=drawn)
            flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in values.items()}
            flat |= self._balance(flat, np.tile(cells, len(chosen)))
            for name, value in self._stepped(flat).items():
                by_sample = value.reshape(len(chosen), len(cells), *value.shape[1:])
                if name not in found:
                    found[name] = np.empty((len(samples), *by_sample.shape[1:]), "f4")
                found[name][chosen] = by_sample
        written = {}
        # One after the other, so that memory is free again.
        for name in list(found):
            written |= summary(name, found.pop(name), self.job)
        return written

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
        """Begins to write a variable of a block (cells, [samples or quantiles, steps]).

        In the array space comes last.
        """
        registered, suffix = predictions.without_suffix(name)
        stored, factor = (
            predictions.stored_name(registered, self.job.profile),
            predictions.stored_units(registered, self.job.profile)[1],
        )
        grid = _on_block(np.asarray(values * np.float32(factor), "float32"), block)
        before, space = values.ndim - 1, len(block.region)
        region = (*[slice(None)] * before, *block.region)
        dims = (*range(before, before + space), *range(before))
        return self.arrays.begin("", grid, region, stored + suffix, dims)


def summary(name: str, values: np.ndarray, job: Job) -> dict[str, np.ndarray]:
    """What is written of the samples of a variable, by name, cells first.

    Args:
        name: The variable.
        values: (samples, cells, ...), or (samples,) of what is global.
        job: Whether it is the samples themselves, or which quantiles.
    """
    cells = values.ndim > 1
    if job.realizations:
        if name in DOMAIN:  # the same of all samples of a member
            return {name: values.mean(axis=0, dtype="float64").astype("float32")}
        return {name: values.swapaxes(0, 1) if cells else values}
    mean, spread, levels = statistics(values, job.quantiles, worst=name in BALANCE)
    levels = levels.swapaxes(0, 1) if cells else levels
    return {name: mean, name + SPREAD: spread, name + QUANTILE: levels}


def _together(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of all cells, by name."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _on_block(values: np.ndarray, block: Block) -> np.ndarray:
    """Values (cells, ...) on the rectangle of a block, NaN at sea."""
    shape = [region.stop - region.start for region in block.region]
    grid = np.full((*shape, *values.shape[1:]), np.nan, values.dtype)
    grid.reshape(-1, *values.shape[1:])[block.place] = values
    return grid
