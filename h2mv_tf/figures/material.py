"""Predictions and observations, reduced to what figures show.

Values are read chunk by chunk, each once for a reduction; what stays is a month, a cell
or a mean.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import dask
import numpy as np
import xarray as xr

from h2mv_tf import predictions
from h2mv_tf.data.splits import SEA, TEST
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation import regions, scales
from h2mv_tf.evaluation.blocks import SATURATING
from h2mv_tf.evaluation.scales import Pair
from h2mv_tf.figures.folder import Folder, Missing
from h2mv_tf.plots import Points
from h2mv_tf.plots.series import regional_means
from h2mv_tf.plots.sites import names
from h2mv_tf.plots.storage import STORES
from h2mv_tf.variables import ANOMALIES, VARIABLES

logger = logging.getLogger(__name__)

AVERAGED = (
    "swe",
    "soil_moisture",
    "groundwater",
    "evapotranspiration",
    "runoff",
    "fapar",
)
RATIOS = {
    "transpiration_fraction": ("transpiration", "evapotranspiration"),
    "runoff_ratio": ("runoff", "corrected_precipitation"),
}
POINTS = 300_000  # of a scatter; more are thinned
DEEP = 100.0  # mm of snow, where the predictions do not tell the configuration
COLUMNS = 6  # sites that have a column each


@dataclass(frozen=True)
class Material:
    """What figures are made of.

    Attributes:
        folder: Where it comes from.
        cells: `test`, or `all` land cells, of comparisons.
    """

    folder: Folder
    cells: str = "test"

    @cached_property
    def land(self) -> xr.DataArray:
        """The cells that have predictions (*space)."""
        dataset = self.folder.predictions
        space = predictions.space(dataset)
        data = next(
            (v for v in dataset.data_vars.values() if v.dims == space),
            None,
        )
        if data is None:
            data = next(iter(dataset.data_vars.values())).isel(time=0)
        return data.notnull().load()

    @cached_property
    def chosen(self) -> xr.DataArray:
        """The land cells of comparisons (cell,)."""
        role = flat(self.folder.predictions["role"], self.land)
        if self.cells == "all" or not (role == TEST).any():
            return role.copy(data=np.ones(role.shape, bool))
        return role == TEST

    @cached_property
    def roles(self) -> xr.DataArray:
        """Role of every cell (*space)."""
        role = self.folder.predictions["role"].load()
        if not (role != SEA).any():
            raise Missing("the predictions do not tell the roles of cells.")
        return role

    def regions(self, chosen: xr.DataArray) -> dict[str, xr.DataArray]:
        """Which of the chosen cells belong to each region, by its name.

        Args:
            chosen: Land cells (cell,).
        """
        whole = chosen.copy(data=np.ones(chosen.shape, bool)).isel(cell=chosen.values)
        if not predictions.is_grid(self.folder.predictions):
            if whole.size <= COLUMNS:
                number = np.arange(whole.size)
                sites = zip(names(whole), number, strict=True)
                return {name: whole.copy(data=number == n) for name, n in sites}
            return {"all sites": whole}
        found = {"globe": whole}
        try:
            climate = self.folder.scores["climate"]
        except (Missing, KeyError):
            return found
        climate = flat(climate, self.land).isel(cell=chosen.values)
        for number, name in regions.meanings(climate).items():
            inside = whole.copy(data=climate.values == number)
            if inside.any():
                found[name] = inside
        return found

    @cached_property
    def series(self) -> dict[str, xr.Dataset]:
        """Monthly regional series of each constraint, for `plots.seasonal_cycles`."""
        members = self.regions(self.chosen)
        area = self._area.isel(cell=self.chosen.values)
        found = {}
        for name, pair in self.pairs.items():
            dataset = xr.Dataset(
                {
                    "observed": regional_means(pair.observation, area, members),
                    "simulated": regional_means(pair.prediction, area, members),
                }
            )
            folds = [
                regional_means(self._pair(fold, name).prediction, area, members)
                for fold in self.folder.members
                if name in fold
            ]
            if folds:
                dataset["members"] = xr.concat(folds, "member")
            if dataset.observed.notnull().any():
                found[name] = dataset
        if not found:
            raise Missing("no month has both a prediction and an observation.")
        return found

    @cached_property
    def points(self) -> dict[str, Points]:
        """Pairs of each constraint: days of snow, months of the others."""
        found = {}
        for name, pair in self.pairs.items():
            if VARIABLES[name].cadence == "daily":
                pair = self._thinned_days(name) or pair
            both = np.isfinite(pair.observation.values)
            if both.any():
                found[name] = Points(
                    pair.observation.values[both], pair.prediction.values[both]
                )
        if not found:
            raise Missing("no month has both a prediction and an observation.")
        return found

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """Monthly pairs (time, cell) of each constraint at the chosen cells."""
        dataset, found = self.folder.predictions, {}
        for name in self.folder.store.constraints:
            if name not in dataset:
                continue
            try:
                found[name] = self._pair(dataset, name)
            except UserError as error:  # none in the period of the predictions
                logger.info("Without %s: %s", name, error)
        if not found:
            raise Missing("the store observes nothing that is predicted.")
        return found

    @cached_property
    def storage(self) -> xr.Dataset:
        """Monthly regional series of the stores and TWS, of all land cells."""
        every = self.chosen.copy(data=np.ones(self.chosen.shape, bool))
        members = self.regions(every)
        return xr.Dataset(
            {
                name: regional_means(self.monthly[name], self._area, members)
                for name in (*STORES, "tws")
            }
        )

    @cached_property
    def monthly(self) -> dict[str, xr.DataArray]:
        """Monthly means of the stores and TWS at all land cells (time, cell)."""
        dataset = self.folder.predictions
        lacking = {*STORES, "tws"} - set(dataset.data_vars)
        if lacking:
            raise Missing(f"the predictions lack {', '.join(sorted(lacking))}.")
        found = {}
        for name in (*STORES, "tws"):
            data = dataset[name]
            if scales.is_daily(data.time):
                data = data.resample(time="MS").mean()
            found[name] = flat(data.load(), self.land)
        return found

    @cached_property
    def means(self) -> xr.Dataset:
        """Means over time of states, fluxes and ratios; parameters (*space)."""
        dataset = self.folder.predictions
        ratios = {k: v for k, v in RATIOS.items() if set(v) <= set(dataset.data_vars)}
        needed = {*AVERAGED, *(name for pair in ratios.values() for name in pair)}
        needed &= set(dataset.data_vars)
        if not needed:
            raise Missing(f"the predictions have none of {', '.join(AVERAGED)}.")
        days = xr.ones_like(dataset.time, "float32")
        if not scales.is_daily(dataset.time):
            days = dataset.time.dt.days_in_month
        averaged = dataset[sorted(needed)].weighted(days).mean("time").compute()
        found = averaged[[name for name in AVERAGED if name in averaged]]
        if "soil_water_capacity" in dataset:
            found["soil_water_capacity"] = dataset.soil_water_capacity.load()
        for name, (part, whole) in ratios.items():
            found[name] = averaged[part] / averaged[whole].where(averaged[whole] > 0)
        return found.drop_vars("quantile", errors="ignore")

    @cached_property
    def _area(self) -> xr.DataArray:
        return flat(self.folder.predictions["cell_area"].load(), self.land)

    def _pair(self, dataset: xr.Dataset, name: str) -> Pair:
        """The monthly pairs of a constraint at the chosen cells, in memory."""
        lazy = self._compared(dataset, name)["monthly"]
        pair = Pair(*(self._chosen(data) for data in dask.compute(*lazy)))
        return scales.centred(pair) if name in ANOMALIES else pair

    def _thinned_days(self, name: str) -> Pair | None:
        lazy = self._compared(self.folder.predictions, name).get("daily")
        if lazy is None:
            return None
        days = lazy.observation.sizes["time"]
        step = -(-days * int(self.chosen.sum()) // POINTS)
        thin = (data.isel(time=slice(None, None, step)) for data in lazy)
        return Pair(*(self._chosen(data) for data in dask.compute(*thin)))

    def _compared(self, dataset: xr.Dataset, name: str) -> Mapping[str, Pair]:
        observed = self.folder.store.observed(name)
        predicted = dataset[name].drop_vars("quantile", errors="ignore")
        chunks = {dim: predicted.chunksizes[dim] for dim in self.land.dims}
        return scales.base_pairs(
            predicted,
            observed.chunk(time=-1, **chunks),
            saturation=self._saturation if name in SATURATING else None,
        )

    @cached_property
    def _saturation(self) -> float:
        """Snow beyond which observations say only "deep" [mm], as in the training."""
        objective = self.folder.configuration.get("objective", {})
        return float(objective.get("saturation", DEEP))

    def _chosen(self, data: xr.DataArray) -> xr.DataArray:
        return flat(data, self.land).isel(cell=self.chosen.values)


def flat(data: xr.DataArray, land: xr.DataArray) -> xr.DataArray:
    """The land cells of an array (..., cell).

    Args:
        data: (..., *space).
        land: Land mask (*space).
    """
    if "cell" not in data.dims:
        data = data.stack(cell=("lat", "lon"), create_index=False)
    return data.transpose(..., "cell").isel(cell=np.flatnonzero(land))
