"""How well samples tell what is not known: scores of pairs of samples and a value.

Samples are (realization, pair), the values that they are held against (pair,). Pairs
count alike. Where samples and values are of one distribution, the rank of a value
among its samples is uniform, and so is its probability integral transform (PIT)

    PIT = (number of samples below + u (number of ties + 1)) / (N + 1)

with u uniform in 0 to 1 (Czado, Gneiting and Held, 2009, doi
10.1111/j.1541-0420.2009.01191.x): also where a distribution has mass at a point, as
that of snow at 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from scores.probability import crps_for_ensemble

LEVELS = (0.5, 0.9)  # of central intervals
BINS = 20  # of the PIT, so that the ends of the intervals are edges
NOMINAL = np.arange(1, BINS) / BINS
GROUPS = 10  # of equal size, by spread
# Spreads are counted in steps of 1.4 %, in whichever units.
SPREADS = np.geomspace(1e-6, 1e6, 2001)
TAILS = tuple((1 - level) / 2 for level in LEVELS)


class Judged(NamedTuple):
    """What is known of each pair (pair,), in the units of its variable."""

    pit: np.ndarray
    crps: np.ndarray
    error: np.ndarray  # of the mean of the samples
    variance: np.ndarray  # of a value about that mean, as the samples have it
    width: np.ndarray  # (level, pair)


class Tally(NamedTuple):
    """Sums over the pairs of sets, which add up over blocks."""

    pit: np.ndarray  # (set, bin), number of pairs
    crps: np.ndarray  # (set,)
    absolute: np.ndarray  # (set,), of errors
    width: np.ndarray  # (set, level)
    # (set, 3, step of spread): number of pairs, squared spread, squared error.
    by_spread: np.ndarray

    def plus(self, other: "Tally") -> "Tally":
        """The sums over the pairs of both."""
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))


def judged(samples: np.ndarray, value: np.ndarray, uniform: np.ndarray) -> Judged:
    """Scores of each pair.

    CRPS is the fair one (Ferro, 2014, doi 10.1002/qj.2270), which does not depend on
    the number of samples; for the same reason the variance has a factor of (N + 1) / N:
    the mean of N samples is not known better (Fortin et al., 2014, doi
    10.1175/JHM-D-14-0008.1).

    Args:
        samples: (realization, pair), finite; two realizations or more.
        value: What they are held against (pair,), finite.
        uniform: From 0 to 1 (pair,), by which ties are broken.
    """
    count = len(samples)
    below, ties = (samples < value).sum(axis=0), (samples == value).sum(axis=0)
    crps = crps_for_ensemble(
        xr.DataArray(samples, dims=("realization", "pair")),
        xr.DataArray(value, dims="pair"),
        "realization",
        method="fair",
        preserve_dims=["pair"],
    )
    # Hazen's quantiles, as others are too narrow where samples are few.
    levels = [*TAILS, *(1 - tail for tail in TAILS)]
    tails = np.quantile(samples, levels, axis=0, method="hazen")
    return Judged(
        pit=(below + uniform * (ties + 1)) / (count + 1),
        crps=crps.values,
        error=samples.mean(axis=0) - value,
        variance=samples.var(axis=0, ddof=1) * (count + 1) / count,
        width=tails[len(LEVELS) :] - tails[: len(LEVELS)],
    )


def covered(pit: np.ndarray) -> np.ndarray:
    """Whether values lie within the central intervals (level, ...).

    Args:
        pit: Of the values (...).
    """
    return np.stack([np.abs(pit - 0.5) <= level / 2 for level in LEVELS])


def tally(pairs: Judged, sets: np.ndarray) -> Tally:
    """Sums over the pairs of sets.

    Args:
        pairs: Of `judged`.
        sets: Which pairs belong to a set (set, pair).
    """
    weights = sets.astype("float64")
    place = np.minimum((pairs.pit * BINS).astype(int), BINS - 1)
    step = np.searchsorted(SPREADS, np.sqrt(pairs.variance))
    sums = np.ones_like(pairs.variance), pairs.variance, np.square(pairs.error)
    steps = len(SPREADS) + 1
    return Tally(
        pit=np.stack([np.bincount(place, of_set, BINS) for of_set in weights]),
        crps=(weights * pairs.crps).sum(axis=-1),
        absolute=(weights * np.abs(pairs.error)).sum(axis=-1),
        width=(weights[:, None] * pairs.width).sum(axis=-1),
        by_spread=np.stack(
            [
                [np.bincount(step, of_set * values, steps) for values in sums]
                for of_set in weights
            ]
        ),
    )


def scores(tallies: Sequence[Tally], names: Sequence[str], dim: str) -> xr.Dataset:
    """The scores of some variables.

    Args:
        tallies: Of each variable, whose sets are `test` and `all`.
        names: Of the variables.
        dim: What their dimension is called.

    Returns:
        `count`, `crps`, `crps_deterministic`, `spread_skill` (dim, cells), `coverage`
        and `sharpness` (dim, level, cells), `pit` (dim, cells, bin), `reliability`
        (dim, cells, nominal), `spread` and `error` (dim, cells, group); NaN where
        there is no pair.
    """
    pit, crps, absolute, width, by_spread = (
        np.stack(parts) for parts in zip(*tallies, strict=True)
    )
    count = pit.sum(axis=-1)
    cumulative = np.cumsum(pit, axis=-1)
    reliability = np.concatenate([0 * cumulative[..., :1], cumulative], axis=-1)
    edges = [round(tail * BINS) for tail in TAILS]
    inside = [reliability[..., BINS - edge] - reliability[..., edge] for edge in edges]
    with np.errstate(invalid="ignore", divide="ignore"):
        variance, squared = _grouped(by_spread)
        ratio = by_spread[..., 1, :].sum(axis=-1) / by_spread[..., 2, :].sum(axis=-1)
        values = {
            "count": ((), count.astype("int64")),
            "crps": ((), crps / count),
            "crps_deterministic": ((), absolute / count),
            "coverage": (("level",), np.stack(inside, -1) / count[..., None]),
            "sharpness": (("level",), width / count[..., None]),
            "pit": (("bin",), pit / count[..., None]),
            "reliability": (
                ("nominal",),
                reliability[..., 1:-1] / count[..., None],
            ),
            "spread": (("group",), np.sqrt(variance)),
            "error": (("group",), np.sqrt(squared)),
            "spread_skill": ((), np.sqrt(ratio)),
        }
    found = xr.Dataset(
        {name: ((dim, "cells", *dims), data) for name, (dims, data) in values.items()},
        {
            dim: list(names),
            "cells": ["test", "all"],
            "level": list(LEVELS),
            "nominal": NOMINAL,
            "bin": (np.arange(BINS) + 0.5) / BINS,
            "group": np.arange(1, GROUPS + 1),
        },
    )
    for name in ("coverage", "sharpness"):
        found[name] = found[name].transpose(dim, "level", "cells")
    return found


def _grouped(by_spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared spread and error of groups of equal size (..., group).

    Pairs of one step of spread that lies in two groups are shared between them.

    Args:
        by_spread: Of `Tally` (..., 3, step).
    """
    shape = (*by_spread.shape[:-2], GROUPS)
    found = np.full((2, *shape), np.nan)
    for place in np.ndindex(shape[:-1]):
        count, *sums = np.cumsum(by_spread[place], axis=-1)
        if not count[-1]:
            continue
        ends = np.linspace(0, count[-1], GROUPS + 1)
        # Steps without a pair would stand twice at one place.
        there = np.flatnonzero(np.diff(count, prepend=0))
        for n, cumulative in enumerate(sums):
            known = np.concatenate([[0], cumulative[there]])
            at_ends = np.interp(ends, np.concatenate([[0], count[there]]), known)
            found[(n, *place)] = np.diff(at_ends) * GROUPS / count[-1]
    return found[0], np.maximum(found[1], 0)
