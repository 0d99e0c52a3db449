"""What is done for the cells of one block, by one task of dask.

Space is cut into blocks of whole chunks. A task reads one variable after the other, so
that it holds a few series of its cells at a time, however many variables there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf.evaluation import emergent, regions, scales
from h2mv_tf.evaluation.balance import Balance
from h2mv_tf.evaluation.baselines import (
    SeasonalCycle,
    by_hemisphere,
    predicted,
    seasonal_cycle,
)
from h2mv_tf.evaluation.cutting import Block
from h2mv_tf.evaluation.scoring import Groups, group_sums, scored
from h2mv_tf.variables import ANOMALIES

# Series that are scored by one call: a call of the libraries takes its time, however
# few they are, and more do not fit a processor's cache.
TOGETHER = 400
H2MV, UNTRAINED, SEASONAL = "h2mv", "untrained", "mean seasonal cycle"
MODELS = (H2MV, UNTRAINED, SEASONAL)
SIMULATED, TRUE = "simulation", "truth"
OBSERVED = "observations"
# Beyond it an observation of satellites says no more than "deep"; as the objective.
SATURATING = ("swe",)


class Survey(NamedTuple):
    """What has to be known of all blocks before one can be scored."""

    climate: np.ndarray  # number of the region of each cell
    # By constraint, (region and hemisphere, slot): of `baselines.by_hemisphere`.
    cycles: dict[str, SeasonalCycle]


class Part(NamedTuple):
    """What a block contributes."""

    scores: dict[tuple, np.ndarray]  # (scale, metric, cell), by (against, model, name)
    counts: dict[tuple, np.ndarray]  # (scale, cell), by the same
    sums: dict[tuple, dict[str, xr.DataArray]]  # of `group_sums`, by the same
    emergent: dict[str, np.ndarray]  # (quantity, cell), of simulation and truth
    amounts: dict[str, dict[str, np.ndarray]]  # (group, 1) or (group, time), of each
    means: dict[str, dict[str, np.ndarray]]  # (cell,), time means of variables
    balance: tuple[np.ndarray, np.ndarray] | None


@dataclass(frozen=True)
class Sources:
    """The data sets of an evaluation, of which blocks are read.

    Attributes:
        space: Dimensions of space.
        predictions: Of the model.
        untrained: Of the untrained model, or None.
        observed: Observations by constraint.
        truth: Hidden truth by name, of the steps that the predictions cover.
        parameters: Hidden truth of cells that has no time.
        constants: By name, the values of simulation and truth for the whole globe.
        forcing: Net radiation, precipitation and air temperature.
        saturation: Beyond which snow is only deep [mm].
    """

    space: tuple[str, ...]
    predictions: xr.Dataset
    untrained: xr.Dataset | None
    observed: Mapping[str, xr.DataArray]
    truth: Mapping[str, xr.DataArray]
    parameters: Mapping[str, xr.DataArray]
    constants: Mapping[str, Mapping[str, float]]
    forcing: Mapping[str, xr.DataArray]
    saturation: float | None

    def read(self, data: xr.DataArray, block: Block) -> xr.DataArray:
        """The cells of a block (cell, time) or (cell,) in double precision."""
        region = dict(zip(self.space, block.region, strict=True))
        data = data.isel(region).transpose(..., *self.space)
        # By this task alone: it runs in a thread or process of a scheduler already.
        values = data.variable.compute(scheduler="synchronous").values
        values = values.reshape(*values.shape[: -len(self.space)], -1)[..., block.place]
        values = np.ascontiguousarray(values.T, "float64")
        values[np.isinf(values)] = np.nan
        time = {"time": data.time.values} if "time" in data.dims else {}
        return xr.DataArray(values, time, ("cell", "time")[: values.ndim])

    def survey(
        self,
        block: Block,
        climate: np.ndarray | None,
        codes: np.ndarray,
        area: np.ndarray,
        south: np.ndarray,
    ) -> Survey:
        """Regions of the cells, and the seasonal cycle of those that train.

        Args:
            block: The block.
            climate: Number of each cell's region (cell,), where it is known.
            codes: All numbers of regions.
            area: Of the training cells, 0 elsewhere (cell,).
            south: Whether they lie south of the equator (cell,).
        """
        if climate is None:
            climatology = (
                self.read(self.forcing[name], block).groupby("time.month").mean()
                for name in ("air_temperature", "precipitation")
            )
            climate = regions.climates(*climatology).values
        place = by_hemisphere(np.searchsorted(codes, climate), south)
        weights = area * (place == np.arange(2 * len(codes))[:, None])
        cycles = {}
        if area.any():
            for name, data in self.observed.items():
                cycles[name] = seasonal_cycle(
                    self.read(data, block), weights, anomalies=name in ANOMALIES
                )
        return Survey(climate, cycles)

    def part(
        self,
        block: Block,
        region: np.ndarray,
        groups: Groups,
        cycles: Mapping[str, np.ndarray],
    ) -> Part:
        """Everything that is worked out cell by cell.

        Args:
            block: The block.
            region: Place of each cell's region and hemisphere in `cycles` (cell,).
            groups: Of the cells.
            cycles: Mean seasonal cycle by constraint (region and hemisphere, slot).
        """
        part = Part({}, {}, {}, {}, {}, {SIMULATED: {}, TRUE: {}}, None)
        budgets = {SIMULATED: _Budget(), TRUE: _Budget()}
        balance = Balance(self.predictions.time)
        waiting: dict[str, scales.Pair] = {}
        for name in self._names():
            prediction = self.read(self.predictions[name], block)
            balance.add(name, prediction.values)
            budgets[SIMULATED].add(name, prediction)
            if name in self.observed:
                self._observed(part, block, name, prediction, region, groups, cycles)
            if name in self.truth:
                truth = self.read(self.truth[name], block)
                budgets[TRUE].add(name, truth)
                waiting[name] = scales.Pair(prediction, truth)
            if len(waiting) * len(block.cells) >= TOGETHER:
                _add_truths(part, waiting, groups)
                waiting = {}
        _add_truths(part, waiting, groups)
        for name, data in self.parameters.items():
            of_both = self.predictions[name], data
            _add_means(part, name, *(self.read(array, block) for array in of_both))
        self._emergent(part, block, budgets, groups)
        return part._replace(balance=balance.result())

    def _names(self) -> list[str]:
        """Series that anything asks for, each read once."""
        needed = {*self.observed, *self.truth, *emergent.FLUXES, *emergent.STORES}
        return [n for n in self.predictions.data_vars if n in needed]

    def _observed(self, part, block, name, prediction, region, groups, cycles) -> None:
        observation = self.read(self.observed[name], block)
        # All models on the same steps: those that the predictions have.
        observation = observation.where(prediction.notnull().any("time"))
        anomalies = name in ANOMALIES
        series = {H2MV: prediction}
        if self.untrained is not None:
            values = self.read(self.untrained[name], block)
            series[UNTRAINED] = scales.on_steps(values, prediction.time)
        if name in cycles:
            steps = scales.steps_of(prediction.time, observation.time)
            series[SEASONAL] = predicted(cycles[name], region, steps)
        pairs = [
            scales.base_pairs(
                values,
                observation,
                anomalies=anomalies,
                saturation=self.saturation if name in SATURATING else None,
            )
            for values in series.values()
        ]
        together = {}
        for scale in pairs[0]:
            of_models = zip(*(of_model[scale] for of_model in pairs), strict=True)
            together[scale] = scales.Pair(*map(_stacked, of_models))
        keys = [(OBSERVED, model, name) for model in series]
        _add(part, keys, together, groups, anomalies=anomalies)

    def _emergent(self, part, block, budgets, groups) -> None:
        energy = emergent.available_energy(
            self.read(self.forcing["net_radiation"], block)
        )
        for of, budget in budgets.items():
            if budget.time is None:
                continue
            steps = scales.covered(energy.time, budget.time)
            if steps.any():
                covered = energy.isel(time=steps)
                budget.amounts[emergent.ENERGY] = emergent.amount(covered)
            found = emergent.quantities(budget.amounts, budget.stores)
            part.emergent[of] = _on_cells(found, len(block.cells))
            part.amounts[of] = budget.sums(groups)


class _Budget:
    """Amounts and stores of the cells of a block."""

    def __init__(self):
        self.amounts: dict[str, xr.DataArray] = {}
        self.stores: dict[str, xr.DataArray] = {}
        self.time: xr.DataArray | None = None

    def add(self, name: str, series: xr.DataArray) -> None:
        if name in emergent.FLUXES:
            self.amounts[name] = emergent.amount(series)
            self.time = series.time
        if name in emergent.STORES:
            months = scales.whole_months(series.time)
            self.stores[name] = scales.monthly_means(series, months)
            self.time = series.time

    def sums(self, groups: Groups) -> dict[str, np.ndarray]:
        """Area-weighted sums by name, of the cells in which no variable has a gap."""
        arrays = {n: a.values[:, None] for n, a in self.amounts.items()}
        arrays |= {n: a.values for n, a in self.stores.items()}
        sound = np.all([np.isfinite(a).all(axis=1) for a in arrays.values()], axis=0)
        return {
            n: groups.sums(np.where(sound[:, None], a, 0)) for n, a in arrays.items()
        }


def _add_truths(part: Part, pairs: Mapping[str, scales.Pair], groups) -> None:
    """Scores variables against the truth, all at once."""
    if not pairs:
        return
    stacked = (_stacked(arrays) for arrays in zip(*pairs.values(), strict=True))
    together = scales.base_pairs(*stacked)
    keys = [(TRUE, H2MV, name) for name in pairs]
    of_names = _add(part, keys, together, groups)
    for name, base in zip(pairs, of_names, strict=True):
        _add_means(part, name, *base["monthly"])


def _add(
    part: Part,
    keys: Sequence[tuple],
    together: Mapping[str, scales.Pair],
    groups: Groups,
    *,
    anomalies: bool = False,
) -> list[dict[str, scales.Pair]]:
    """Scores series that are stacked, and gives those of each key."""
    scores, counts = scored(together, anomalies)
    cells = len(groups.index)
    of_keys = []
    for n, key in enumerate(keys):
        rows = slice(n * cells, (n + 1) * cells)
        base = {
            scale: scales.Pair(*(array.isel(cell=rows) for array in pair))
            for scale, pair in together.items()
        }
        part.scores[key], part.counts[key] = scores[..., rows], counts[..., rows]
        part.sums[key] = group_sums(base, groups)
        of_keys.append(base)
    return of_keys


def _stacked(arrays: Sequence[xr.DataArray]) -> xr.DataArray:
    """Arrays of the same steps (cell, time), one below the other."""
    values = np.concatenate([array.values for array in arrays])
    return xr.DataArray(values, {"time": arrays[0].time.values}, ("cell", "time"))


def _add_means(part: Part, name: str, *arrays: xr.DataArray) -> None:
    for of, array in zip((SIMULATED, TRUE), arrays, strict=True):
        array = array.mean("time") if "time" in array.dims else array
        part.means[of][name] = array.values


def _on_cells(found: xr.DataArray, cells: int) -> np.ndarray:
    """(quantity, cell), also where no variable was there."""
    return np.broadcast_to(
        found.values.reshape(found.shape[0], -1), (len(found), cells)
    )
