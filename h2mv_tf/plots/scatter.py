"""Observed against simulated values, as the density of points."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from h2mv_tf.plots import style
from h2mv_tf.variables import ANOMALIES, VARIABLES

# As they are written into a panel: name, words, digits.
WRITTEN = (("nse", "NSE"), ("kge", "KGE"), ("r", "$r$"))
IN_UNITS = (("rmse", "RMSE"), ("bias", "bias"))


class Points(NamedTuple):
    """Pairs of values.

    Attributes:
        observed: (pairs,).
        simulated: (pairs,).
    """

    observed: np.ndarray
    simulated: np.ndarray


def scores(points: Points) -> dict[str, float]:
    """The metrics of pooled points.

    Args:
        points: The pairs, NaN: none.
    """
    from h2mv_tf.evaluation.metrics import metrics

    observed, simulated = (xr.DataArray(values, dims="pair") for values in points)
    found = metrics(simulated, observed, "pair")
    return {name: float(found.sel(metric=name)) for name in found.metric.values}


@style.journal
def density_scatter(points: Mapping[str, Points]) -> Figure:
    """Observed against simulated values, with the metrics of the points.

    Args:
        points: By name of the constraint.
    """
    columns = min(len(points), 3)
    rows = -(-len(points) // columns)
    figure, axes = style.panels(
        rows, columns, height=rows * 58 + 6, width=style.WIDTH * max(columns, 2) / 3
    )
    for number, (axis, (name, pairs)) in enumerate(
        zip(axes.flat, points.items(), strict=False)
    ):
        _panel(figure, axis, name, pairs)
        style.headed(axis, number, style.title(name))
    for axis in axes.flat[len(points) :]:
        axis.remove()
    return figure


def _panel(figure: Figure, axis: Axes, name: str, points: Points) -> None:
    valid = np.isfinite(points.observed) & np.isfinite(points.simulated)
    points = Points(*(np.asarray(values)[valid] for values in points))
    limits = _limits(points)
    inside = [np.clip(values, *limits) for values in points]
    drawn = axis.hexbin(
        *inside,
        gridsize=45,
        bins="log",
        mincnt=1,
        extent=(*limits, *limits),
        cmap=style.scientific.batlow_r,
        linewidths=0.1,
        rasterized=True,
    )
    axis.plot(limits, limits, color=style.GREY, linewidth=0.7)
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    axis.locator_params(nbins=5)
    units = style.units(VARIABLES[name].units)
    axis.set_xlabel(f"observed [{units}]")
    axis.set_ylabel(f"simulated [{units}]", labelpad=1)
    bar = figure.colorbar(drawn, ax=axis, shrink=0.7, aspect=24, pad=0.02)
    bar.outline.set_linewidth(0.5)
    bar.set_label("points", labelpad=1)
    axis.text(
        0.03,
        0.97,
        _words(name, scores(points), len(points.observed)),
        transform=axis.transAxes,
        va="top",
        fontsize=style.SMALL,
        linespacing=1.15,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
    )


def _words(name: str, found: Mapping[str, float], count: int) -> str:
    units = style.units(VARIABLES[name].units)
    units = "" if units == style.units("1") else f" {units}"
    # The mean of anomalies is nothing to be right about.
    skipped = ("kge", "bias") if name in ANOMALIES else ()
    lines = [
        f"{words} {found[metric]:.2f}"
        for metric, words in WRITTEN
        if metric not in skipped
    ]
    lines += [
        f"{words} {found[metric]:.3g}{units}"
        for metric, words in IN_UNITS
        if metric not in skipped
    ]
    return "\n".join([*lines, f"n {count:,}".replace(",", "\u2009")])


def _limits(points: Points) -> tuple[float, float]:
    """The same for both axes; one point in a thousand lies on the edge."""
    low, high = style.robust(np.concatenate(points), share=0.001)
    if np.min(points.observed, initial=0) >= 0:
        low = min(low, 0.0)
    reach = 0.02 * (high - low)
    return low - reach, high + reach
