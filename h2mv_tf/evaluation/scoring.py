"""Scores at every scale, and the sums that make the mean series of regions."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf.evaluation.metrics import METRICS, metrics
from h2mv_tf.evaluation.scales import SCALES, Pair, at_pairs, centred


def scored(
    base: Mapping[str, Pair], anomalies: np.ndarray | bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of series at every scale.

    Args:
        base: Of `scales.base_pairs`, each (series, time).
        anomalies: Whether the series are anomalies, so that their means say nothing;
            of all of them, or of each (series,).

    Returns:
        Scores (scale, metric, series), NaN where not defined, and the number of pairs
        (scale, series), in the order of SCALES and METRICS.
    """
    size = base["monthly"].observation.shape[0]
    anomalies = np.broadcast_to(anomalies, size)
    scores = np.full((len(SCALES), len(METRICS), size), np.nan)
    count = np.zeros((len(SCALES), size), "int32")
    pairs = at_pairs(base)
    # Scales of few steps as if they were one: each call of the library takes its time.
    for together in (["daily"], ["monthly", "seasonal", "anomaly"]):
        together = [scale for scale in together if scale in pairs]
        if not together:
            continue
        steps = max(pairs[scale].observation.shape[1] for scale in together)
        prediction, observation = (
            xr.DataArray(
                np.concatenate([_padded(pairs[s][of].values, steps) for s in together]),
                dims=("series", "step"),
            )
            for of in (0, 1)
        )
        no_mean = [anomalies | (scale == "anomaly") for scale in together]
        no_mean = xr.DataArray(np.concatenate(no_mean), dims="series")
        found = metrics(prediction, observation, "step", anomalies=no_mean).values
        there = np.isfinite(observation.values).sum(axis=1)
        for n, scale in enumerate(together):
            of_scale = slice(n * size, (n + 1) * size)
            scores[SCALES.index(scale)] = found[:, of_scale]
            count[SCALES.index(scale)] = there[of_scale]
    return scores, count


class Groups(NamedTuple):
    """Which group each cell belongs to, and the area by which it counts."""

    index: np.ndarray  # (cell,)
    area: np.ndarray  # (cell,)
    count: int  # of all groups

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Area-weighted sums over the cells of each group (group, n).

        Not a matrix product: the threads of a linear algebra library would get into
        the way of those of dask.

        Args:
            values: (cell, n), without NaN.
        """
        order = np.argsort(self.index, kind="stable")
        present, first = np.unique(self.index[order], return_index=True)
        weighted = values[order] * self.area[order, None]
        found = np.zeros((self.count, values.shape[1]))
        if len(present):
            found[present] = np.add.reduceat(weighted, first, axis=0)
        return found


def group_sums(base: Mapping[str, Pair], groups: Groups) -> dict[str, xr.DataArray]:
    """Weighted sums over the cells of groups, which add up over blocks.

    Args:
        base: Of `scales.base_pairs`, each (cell, time).
        groups: Of these cells.

    Returns:
        By scale (of, group, time): sums of predictions and of observations, and of the
        area of the cells that have a pair.
    """
    sums = {}
    for scale, pair in base.items():
        values = [array.values for array in pair]
        there = np.isfinite(values[1])
        if not there.all():
            values = [np.where(there, array, 0) for array in values]
        values = np.stack([groups.sums(array) for array in (*values, there)])
        time = {"time": pair.observation.time.values}
        sums[scale] = xr.DataArray(values, time, ("of", "group", "time"))
    return sums


def scored_means(
    sums: Mapping[tuple, Mapping[str, xr.DataArray]],
    members: np.ndarray,
    anomalies: Collection[tuple] = (),
) -> dict[tuple, np.ndarray]:
    """Scores of the area-weighted mean series of sets of groups.

    Args:
        sums: Of `group_sums` over all blocks, by what was compared.
        members: Which groups belong to a set (set, group).
        anomalies: What of it are anomalies.

    Returns:
        (scale, metric, set) by what was compared.
    """
    # What has the same steps is scored together.
    alike: dict[tuple, list[tuple]] = {}
    for key, of_groups in sums.items():
        steps = tuple((s, data.time.values.tobytes()) for s, data in of_groups.items())
        alike.setdefault(steps, []).append(key)
    found = {}
    for keys in alike.values():
        of_keys = [_means(sums[key], members, key in anomalies) for key in keys]
        base = {
            scale: Pair(
                *(
                    xr.concat([pairs[scale][of] for pairs in of_keys], "set")
                    for of in (0, 1)
                )
            )
            for scale in of_keys[0]
        }
        centred_ones = np.repeat([key in anomalies for key in keys], len(members))
        scores, _ = scored(base, centred_ones)
        parts = np.split(scores, len(keys), axis=-1)
        found |= dict(zip(keys, parts, strict=True))
    return found


def _means(
    sums: Mapping[str, xr.DataArray], members: np.ndarray, anomalies: bool
) -> dict[str, Pair]:
    """The mean series of each set, (set, time)."""
    base = {}
    for scale, of_groups in sums.items():
        prediction, observation, area = members.astype("float64") @ of_groups.values
        with np.errstate(invalid="ignore", divide="ignore"):
            arrays = [
                np.where(area > 0, values / area, np.nan)
                for values in (prediction, observation)
            ]
        time = {"time": of_groups.time.values}
        pair = Pair(*(xr.DataArray(array, time, ("set", "time")) for array in arrays))
        base[scale] = centred(pair) if anomalies else pair
    return base


def _padded(values: np.ndarray, steps: int) -> np.ndarray:
    missing = steps - values.shape[1]
    return np.pad(values, ((0, 0), (0, missing)), constant_values=np.nan)
