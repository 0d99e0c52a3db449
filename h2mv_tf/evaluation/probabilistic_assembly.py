"""Scores of samples, from what the blocks of cells contribute to a data set."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf.evaluation import calibration
from h2mv_tf.evaluation.blocks import TRUE
from h2mv_tf.evaluation.calibration import Tally
from h2mv_tf.evaluation.cutting import Block
from h2mv_tf.predictions import REALIZATION
from h2mv_tf.variables import CONSTRAINTS, VARIABLES

QUANTILES = (0.05, 0.95)  # of constants
VARIABLE, TRUTH = "variable", "truth_variable"
PREFIXES = {VARIABLE: "", TRUTH: "truth_"}


class Part(NamedTuple):
    """What a block contributes."""

    tallies: dict[tuple[str, str], Tally]  # by VARIABLE or TRUTH, and name
    covered: dict[str, np.ndarray]  # (level, cell), share of months, of the truth
    widths: dict[str, np.ndarray]  # (cell,)
    prior_widths: dict[str, np.ndarray]


def calibrated(parts: Sequence[Part]) -> xr.Dataset:
    """Scores of observations and of the truth."""
    found = []
    for dim, prefix in PREFIXES.items():
        known = [name for of, name in parts[0].tallies if of == dim]
        if dim == VARIABLE:
            known.sort(key=CONSTRAINTS.index)
        tallies = [
            functools.reduce(Tally.plus, (part.tallies[dim, name] for part in parts))
            for name in known
        ]
        if known:
            scores = calibration.scores(tallies, known, dim)
            scores = _described(scores, dim)
            found.append(scores.rename({n: prefix + n for n in scores.data_vars}))
    return xr.merge(found, compat="no_conflicts", join="outer")


def maps(
    land: xr.DataArray, blocks: Sequence[Block], parts: Sequence[Part], *, prior: bool
) -> xr.Dataset:
    """Shares of covered months, and widths, on the store's cells."""

    def on_space(of: str, dim: str, dims: tuple[str, ...] = ()) -> xr.DataArray:
        known = list(getattr(parts[0], of))
        shape = np.shape(getattr(parts[0], of)[known[0]])[:-1]
        full = np.full((len(known), *shape, land.size), np.nan)
        number = np.flatnonzero(land.values)
        for block, part in zip(blocks, parts, strict=True):
            values = np.stack([getattr(part, of)[name] for name in known])
            full[..., number[block.cells]] = values
        full = full.reshape(len(known), *shape, *land.shape)
        return xr.DataArray(full, {dim: known, **land.coords}, (dim, *dims, *land.dims))

    found = xr.Dataset()
    if parts[0].covered:
        shares = on_space("covered", TRUTH, ("level",))
        found["truth_coverage_map"] = shares.assign_coords(
            level=list(calibration.LEVELS)
        ).assign_attrs(long_name="share of months within the interval", units="1")
    width = on_space("widths", "width_variable")
    found["posterior_width"] = width.assign_attrs(
        long_name="mean over months of the standard deviation over realizations"
    )
    if prior and parts[0].prior_widths:
        of_prior = on_space("prior_widths", "width_variable").reindex_like(width)
        found["prior_width"] = of_prior.assign_attrs(long_name="the same of the prior")
        found["relative_width"] = (width / of_prior.where(of_prior > 0)).assign_attrs(
            long_name="posterior width relative to prior width", units="1"
        )
    units = [VARIABLES[str(name)].units for name in found.width_variable.values]
    return found.assign_coords(width_units=("width_variable", units))


def constants(
    samples: xr.Dataset, known: Mapping[str, Mapping[str, float]]
) -> xr.Dataset:
    """What the samples say of the global constants, and the truth where it is known."""
    found = [n for n in known if n in samples and REALIZATION in samples[n].dims]
    if not found:
        return xr.Dataset()
    values = xr.concat([samples[n].astype("float64").load() for n in found], "name")
    values = values.values  # (name, realization)
    dataset = xr.Dataset(
        {
            "constant_mean": ("constant_name", values.mean(axis=1)),
            "constant_quantile": (
                ("constant_name", "quantile"),
                np.quantile(values, QUANTILES, axis=1).T,
            ),
        },
        {"constant_name": found, "quantile": list(QUANTILES)},
    )
    truth = [known[name].get(TRUE, np.nan) for name in found]
    if np.isfinite(truth).any():
        dataset["constant_truth"] = "constant_name", truth
    return dataset


def _described(scores: xr.Dataset, dim: str) -> xr.Dataset:
    """Scores with what they are in words."""
    words = {
        "count": "number of pairs",
        "crps": "continuous ranked probability score, in units of the variable",
        "crps_deterministic": "mean absolute error of the mean of the samples",
        "coverage": "share of values within the central interval",
        "sharpness": "mean width of the central interval, in units of the variable",
        "pit": "share of the probability integral transform in each bin",
        "reliability": "share of values at or below the nominal quantile",
        "spread": "root mean square deviation of the samples, by groups of spread",
        "error": "root mean square error of the mean of the samples, by groups",
        "spread_skill": "root mean square spread over root mean square error",
    }
    for name, text in words.items():
        scores[name].attrs["long_name"] = text
    units = [VARIABLES[str(name)].units for name in scores[dim].values]
    return scores.assign_coords({f"{dim}_units": (dim, units)})
