"""Scores at every scale, and the sums that make the mean series of regions."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from h2mv_tf.evaluation.metrics import METRICS, metrics
from h2mv_tf.evaluation.scales import SCALES, Pair, at_pairs, centred


def scored(
    base: Mapping[str, Pair], *, anomalies: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of series at every scale.

    Args:
        base: Of `scales.base_pairs`, each (series, time).
        anomalies: Whether the series are anomalies, so that their means say nothing.

    Returns:
        Scores (scale, metric, series), NaN where not defined, and the number of pairs
        (scale, series), in the order of SCALES and METRICS.
    """
    series = base["monthly"].observation.shape[0]
    scores = np.full((len(SCALES), len(METRICS), series), np.nan)
    count = np.zeros((len(SCALES), series), "int32")
    for scale, pair in at_pairs(base).items():
        place = SCALES.index(scale)
        dim = "month" if scale == "seasonal" else "time"
        means = anomalies or scale == "anomaly"
        scores[place] = metrics(*pair, dim, anomalies=means).values
        count[place] = pair.observation.notnull().sum(dim).values
    return scores, count


def group_sums(
    base: Mapping[str, Pair], weights: np.ndarray
) -> dict[str, xr.DataArray]:
    """Weighted sums over the cells of groups, which add up over blocks.

    Args:
        base: Of `scales.base_pairs`, each (cell, time).
        weights: Area of each cell in its group, 0 elsewhere (group, cell).

    Returns:
        By scale (of, group, time): sums of predictions and of observations, and of the
        area of the cells that have a pair.
    """
    sums = {}
    for scale, pair in base.items():
        there = pair.observation.notnull().values
        values = np.stack(
            [
                weights @ np.where(there, pair.prediction.values, 0),
                weights @ np.where(there, pair.observation.values, 0),
                weights @ there,
            ]
        )
        time = {"time": pair.observation.time.values}
        sums[scale] = xr.DataArray(values, time, ("of", "group", "time"))
    return sums


def scored_means(
    sums: Mapping[str, xr.DataArray],
    members: np.ndarray,
    *,
    anomalies: bool = False,
) -> np.ndarray:
    """Scores of the area-weighted mean series of sets of groups.

    Args:
        sums: Of `group_sums`, over all blocks.
        members: Which groups belong to a set (set, group).
        anomalies: As in `scored`.

    Returns:
        (scale, metric, set)
    """
    base = {}
    for scale, of_groups in sums.items():
        together = np.einsum("sg,ogt->ost", members.astype("float64"), of_groups.values)
        prediction, observation, area = together
        with np.errstate(invalid="ignore", divide="ignore"):
            pair = [
                xr.DataArray(
                    np.where(area > 0, values / area, np.nan),
                    {"time": of_groups.time.values},
                    ("set", "time"),
                )
                for values in (prediction, observation)
            ]
        base[scale] = centred(Pair(*pair)) if anomalies else Pair(*pair)
    scores, _ = scored(base, anomalies=anomalies)
    return scores
