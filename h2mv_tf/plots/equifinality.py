"""What the folds of a cross-validation disagree about."""

import itertools

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from h2mv_tf.plots import looks, style
from h2mv_tf.plots.fields import Field
from h2mv_tf.plots.maps import field_maps
from h2mv_tf.variables import VARIABLES

TERMS = {
    "mean": ("difference of means", style.BLUE),
    "deviation": ("difference of standard deviations", style.ORANGE),
    "covariance": ("lack of covariance", style.PINK),
}
LONGEST = 22  # letters that have room above a map
KINDS = ("coefficient", "parameter", "state", "flux", "diagnostic")
MAPPED = (
    "swe",
    "soil_moisture",
    "groundwater",
    "evapotranspiration",
    "transpiration",
    "runoff",
    "baseflow",
    "fapar",
    "groundwater_recharge_coefficient",
)


@style.journal
def decomposition(differences: xr.Dataset) -> Figure:
    """The differences between folds, and what they are made of, as stacked bars.

    Args:
        differences: `decomposition` (step, variable, term) [1] with the coordinate
            `kind` (variable,), as equifinality writes it.
    """
    parts = differences.decomposition
    order = _order(parts)
    steps = [str(step) for step in parts.step.values]
    figure, axes = style.panels(
        1, len(steps), height=18 + 4.4 * len(order), sharey=True
    )
    place = _places(parts, order)
    for number, (axis, step) in enumerate(zip(axes[0], steps, strict=True)):
        left = np.zeros(len(order))
        for term, (words, color) in TERMS.items():
            values = parts.sel(step=step, term=term, variable=order).values
            axis.barh(place, values, left=left, height=0.75, color=color, label=words)
            left = left + np.nan_to_num(values)
        axis.set_yticks(place, [style.title(name) for name in order])
        axis.set_ylim(place[-1] + 0.7, -0.7)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="0.9", linewidth=0.5)
        axis.set_axisbelow(True)
        axis.set_xlabel("Normalised mean squared difference [–]")  # noqa: RUF001
        style.headed(axis, number, f"{step.capitalize()} values")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def spread_maps(differences: xr.Dataset, *, land: xr.DataArray | None = None) -> Figure:
    """The standard deviation over folds of the means over time.

    Args:
        differences: `spread` (variable, *space) in the variables' units.
        land: As for `field_maps`.
    """
    known = [str(name) for name in differences.spread["variable"].values]
    fields = []
    for name in [name for name in MAPPED if name in known] or known[:9]:
        data = differences.spread.sel(variable=name)
        if not np.isfinite(data).any():
            continue
        units = VARIABLES[name].units
        words = style.title(name)
        if len(words) > LONGEST:
            words = style.symbol(name)
        fields.append(Field(data, words, units, looks.spread(data.values)))
    return field_maps(fields, land=land)


def _order(parts: xr.DataArray) -> list[str]:
    """Variables by their kind, and in each from the largest difference down."""
    total = parts.sum("term").mean("step")
    kinds = _kinds(parts)
    return sorted(
        (str(name) for name in parts["variable"].values),
        key=lambda name: (KINDS.index(kinds[name]), -float(total.sel(variable=name))),
    )


def _kinds(parts: xr.DataArray) -> dict[str, str]:
    names = [str(name) for name in parts["variable"].values]
    if "kind" not in parts.coords:
        return {name: VARIABLES[name].kind for name in names}
    return dict(zip(names, map(str, parts["kind"].values), strict=True))


def _places(parts: xr.DataArray, order: list[str]) -> np.ndarray:
    """Where the bars stand; a gap between kinds."""
    kinds = _kinds(parts)
    changes = [kinds[a] != kinds[b] for a, b in itertools.pairwise(order)]
    return np.arange(len(order)) + 0.6 * np.cumsum([False, *changes])
