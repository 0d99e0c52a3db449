"""From cells to maps, and to regions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from h2mv_tf.data.splits import TEST
from h2mv_tf.evaluation import emergent
from h2mv_tf.evaluation.metrics import metrics
from h2mv_tf.evaluation.scoring import Groups, scored_means

CELLS = ("test", "all")
MEAN_SERIES, MEAN, MEDIAN = "mean series", "mean", "median"
STATISTICS = (MEAN_SERIES, MEAN, MEDIAN)


@dataclass(frozen=True)
class Domain:
    """The land cells, and the sets of them that are summed up.

    Attributes:
        land: Land mask, (lat, lon) or (cell,).
        area: Of each land cell.
        role: Of each land cell, 11: it tests.
        position: Place of its region among `names`; 0 is none.
        names: Names of the regions, the first being that of cells without one.
    """

    land: xr.DataArray
    area: np.ndarray
    role: np.ndarray
    position: np.ndarray
    names: tuple[str, ...]

    @cached_property
    def test(self) -> np.ndarray:
        """Whether each land cell tests."""
        return self.role == TEST

    @cached_property
    def regions(self) -> dict[str, int | None]:
        """Place of each region that has a cell, by name; None is everywhere."""
        everywhere = "globe" if self.land.ndim > 1 else "all sites"
        present = np.unique(self.position)
        return {everywhere: None} | {self.names[p]: int(p) for p in present if p > 0}

    def groups(self, cells: np.ndarray) -> Groups:
        """Groups of some cells: those that test, and the others, of each region."""
        index = 2 * self.position[cells] + self.test[cells]
        return Groups(index, self.area[cells], 2 * len(self.names))

    def members(self) -> np.ndarray:
        """Which groups make up each set of cells (cells x region, group)."""
        group = np.arange(2 * len(self.names))
        sets = [
            ((group % 2 == 1) | (cells == "all"))
            & (True if place is None else group // 2 == place)
            for cells in CELLS
            for place in self.regions.values()
        ]
        return np.stack(sets)

    def selections(self) -> list[np.ndarray]:
        """Indices of the cells of each set, in the order of `members`."""
        return [
            np.flatnonzero(
                (self.test | (cells == "all"))
                & (True if place is None else self.position == place)
            )
            for cells in CELLS
            for place in self.regions.values()
        ]

    def on_space(self, values: np.ndarray, dims: tuple[str, ...] = (), fill=np.nan):
        """Values of the land cells (..., cell) on the store's dims, NaN at sea."""
        shape = (*values.shape[:-1], self.land.size)
        full = np.full(shape, fill, values.dtype)
        full[..., np.flatnonzero(self.land.values)] = values
        return xr.DataArray(
            full.reshape(*values.shape[:-1], *self.land.shape),
            dims=(*dims, *self.land.dims),
        )

    def by_set(self, values: np.ndarray) -> np.ndarray:
        """(..., cells x region) as (..., cells, region)."""
        return values.reshape(*values.shape[:-1], len(CELLS), len(self.regions))

    def over_cells(self, scores: np.ndarray) -> np.ndarray:
        """Area-weighted mean and median over the cells that have a value.

        Args:
            scores: (..., cell)

        Returns:
            (..., cells, region, 2)
        """
        results = []
        for cells in self.selections():
            of_set = scores[..., cells]
            there = np.isfinite(of_set)
            area = np.where(there, self.area[cells], 0).sum(axis=-1)
            total = (np.where(there, of_set, 0) * self.area[cells]).sum(axis=-1)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = np.where(area > 0, total / area, np.nan)
            results.append(np.stack([mean, _median(of_set, there)], axis=-1))
        stacked = np.stack(results, axis=-2)
        return stacked.reshape(
            *stacked.shape[:-2], len(CELLS), len(self.regions), stacked.shape[-1]
        )

    def summaries(
        self,
        scores: Mapping[tuple, np.ndarray],
        sums: Mapping[tuple, Mapping[str, xr.DataArray]],
        anomalies: Collection[tuple],
    ) -> dict[tuple, np.ndarray]:
        """All statistics of all that was compared.

        Args:
            scores: Of the land cells (scale, metric, cell), by what was compared.
            sums: Of `scoring.group_sums` over all blocks, by the same.
            anomalies: What of it are anomalies.

        Returns:
            (scale, metric, cells, region, statistic) in the order of STATISTICS.
        """
        means = scored_means(sums, self.members(), anomalies)
        return {
            key: np.concatenate(
                [self.by_set(means[key])[..., None], self.over_cells(of_key)], axis=-1
            )
            for key, of_key in scores.items()
        }

    def emergent(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """Emergent quantities of the sets of cells (quantity, cells, region).

        Args:
            sums: Area-weighted sums of groups by name: amounts (group, 1), monthly
                stores (group, time).
        """
        members = self.members().astype("float64")
        of_sets = {name: members @ values for name, values in sums.items()}
        amounts = {
            name: xr.DataArray(values[:, 0], dims="set")
            for name, values in of_sets.items()
            if name in emergent.FLUXES
        }
        stores = {
            name: xr.DataArray(values, dims=("set", "time"))
            for name, values in of_sets.items()
            if name in emergent.STORES
        }
        found = emergent.quantities(amounts, stores)
        shape = (len(found), members.shape[0])
        values = np.broadcast_to(found.values.reshape(len(found), -1), shape)
        return self.by_set(np.array(values))

    def pattern(self, simulated: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Scores of maps against others, over cells (metric, variable, cells, region).

        Args:
            simulated: Time means or parameters of the land cells (variable, cell).
            true: The same of the truth.
        """
        results = []
        for cells in self.selections():
            pair = (
                xr.DataArray(values[:, cells], dims=("variable", "cell"))
                for values in (simulated, true)
            )
            results.append(metrics(*pair, "cell").values)
        return self.by_set(np.stack(results, axis=-1))


def _median(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Median along the last axis of what is there; NaN where nothing is."""
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    ordered = np.sort(np.where(there, values, np.inf), axis=-1)
    count = there.sum(axis=-1)[..., None]
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=-1)
    high = np.take_along_axis(ordered, np.maximum(count // 2, 0), axis=-1)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, (low + high) / 2, np.nan)[..., 0]
