"""Quantities of all cells, and how each is shown."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf.plots import looks, style
from h2mv_tf.plots.looks import Look
from h2mv_tf.variables import ANOMALIES, VARIABLES

# What stands above a map that is of no variable of the registry.
RATIOS = {
    "transpiration_fraction": "T/ET",
    "runoff_ratio": "Runoff ratio Q/P",
    "evaporative_fraction": "Evaporative fraction",
    "snow_share": "Share of snow in TWS",
    "soil_share": "Share of soil in TWS",
    "groundwater_share": "Share of groundwater in TWS",
}
SCORES = {
    "nse": "NSE",
    "kge": "KGE",
    "kge_2012": "KGE 2012",
    "r": "Correlation $r$",
    "alpha": r"Variability ratio $\alpha$",
    "beta": r"Ratio of means $\beta$",
    "rmse": "RMSE",
    "ubrmse": "Unbiased RMSE",
    "bias": "Bias",
    "percent_bias": "Percent bias",
}
# Of anomalies the mean says nothing.
OF_A_MEAN = ("kge", "kge_2012", "beta", "ubrmse", "bias", "percent_bias")
ERRORS = ("rmse", "ubrmse", "bias")  # in units of the variable


class Field(NamedTuple):
    """A quantity of all cells.

    Attributes:
        data: (lat, lon), or (cell,) with `lat`, `lon` and perhaps `name`; NaN: none.
        title: What stands above it.
        units: As CF writes them.
        look: Its colours.
    """

    data: xr.DataArray
    title: str
    units: str
    look: Look

    @property
    def heading(self) -> str:
        """Its title with its units."""
        return f"{self.title} [{style.units(self.units)}]"


def score_fields(scores: xr.DataArray, variable: str) -> list[Field]:
    """The scores of a constraint that say something, as fields.

    Args:
        scores: (metric, *space), as `score` of an evaluation.
        variable: The constraint.
    """
    fields = []
    for metric, words in SCORES.items():
        if metric not in scores.metric or (
            variable in ANOMALIES and metric in OF_A_MEAN
        ):
            continue
        data = scores.sel(metric=metric)
        if not np.isfinite(data).any():
            continue
        units = "%" if metric == "percent_bias" else "1"
        if metric in ERRORS:
            units = VARIABLES[variable].units
        fields.append(Field(data, words, units, _score_look(metric, variable, data)))
    return fields


def mean_fields(means: xr.Dataset) -> list[Field]:
    """Means over time, parameters and ratios, as fields.

    Args:
        means: (*space) each, by name of the registry or of `RATIOS`.
    """
    return [
        Field(
            data,
            RATIOS.get(name) or style.title(name),
            VARIABLES[name].units if name in VARIABLES else "1",
            looks.quantity(name, data.values),
        )
        for name, data in means.items()
        if np.isfinite(data).any()
    ]


def _score_look(metric: str, variable: str, data: xr.DataArray) -> Look:
    if metric in ("bias", "percent_bias"):
        return looks.bias(variable, data.values)
    if metric in ("alpha", "beta"):
        return looks.ratio(variable, data.values)
    if metric in ("rmse", "ubrmse"):
        return looks.spread(data.values)
    return looks.skill(data.values, 0.0 if metric == "r" else -0.5)
