"""Observed against simulated values, as the density of points."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from h2mv_tf.plots import looks, style
from h2mv_tf.variables import ANOMALIES, VARIABLES

# As they are written into a panel: name, words, digits.
WRITTEN = (("nse", "NSE"), ("kge", "KGE"), ("r", "$r$"))
SHARES = (0.01, 10.0)  # per cent of the points, from the first colour to the last
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
    width = {1: style.COLUMN, 2: 130.0, 3: style.WIDTH}[columns]
    figure, slots = style.slots(
        len(points),
        columns,
        ratio=1.0,
        left=12,
        gap=16,
        above=13,
        below=10,
        foot=10,
        width=width,
    )
    for number, (slot, (name, pairs)) in enumerate(
        zip(slots, points.items(), strict=True)
    ):
        axis = slot.axes(figure)
        drawn = _panel(axis, name, pairs)
        valid = np.isfinite(pairs.observed) & np.isfinite(pairs.simulated)
        count = f"{int(valid.sum()):,}".replace(",", "\u2009")
        title = f"{style.title(name)}, n = {count}"
        style.headed(axis, number, title, pad=4 + 2 * 1.3 * style.SMALL)
    bar = figure.colorbar(
        drawn,
        cax=style.Slot(width / 2 - 35, 8, 70, 2.2).axes(figure),
        orientation="horizontal",
        extend="both",
        extendfrac=0.04,
    )
    bar.outline.set_linewidth(0.5)
    bar.set_label("Share of the points of a panel [%]", labelpad=1)
    bar.ax.xaxis.set_major_formatter("{x:g}")
    bar.ax.xaxis.set_minor_formatter(NullFormatter())
    return figure


def _panel(axis: Axes, name: str, points: Points):
    valid = np.isfinite(points.observed) & np.isfinite(points.simulated)
    points = Points(*(np.asarray(values)[valid] for values in points))
    limits = _limits(points)
    inside = [np.clip(values, *limits) for values in points]
    drawn = axis.hexbin(
        *inside,
        gridsize=40,
        mincnt=1,
        extent=(*limits, *limits),
        cmap=looks.scientific.batlow_r,
        norm=LogNorm(*SHARES),
        linewidths=0.1,
        rasterized=True,
    )
    drawn.set_array(drawn.get_array() * 100 / max(len(points.observed), 1))
    axis.plot(limits, limits, color=style.GREY, linewidth=0.7)
    axis.set(xlim=limits, ylim=limits)
    axis.locator_params(nbins=5)
    units = style.units(VARIABLES[name].units)
    axis.set_xlabel(f"observed [{units}]", labelpad=1)
    axis.set_ylabel(f"simulated [{units}]", labelpad=1)
    # Above the panel, where no point can be.
    axis.text(
        0.0,
        1.02,
        _words(name, scores(points)),
        transform=axis.transAxes,
        va="bottom",
        fontsize=style.SMALL,
        linespacing=1.2,
    )
    return drawn


def _words(name: str, found: Mapping[str, float]) -> str:
    units = style.units(VARIABLES[name].units)
    units = "" if units == style.units("1") else f" {units}"
    # The mean of anomalies is nothing to be right about.
    skipped = ("kge", "bias") if name in ANOMALIES else ()
    plain = [f"{w} {found[m]:.2f}" for m, w in WRITTEN if m not in skipped]
    errors = [f"{w} {found[m]:.2g}" for m, w in IN_UNITS if m not in skipped]
    text = ", ".join(plain) + "\n" + ", ".join(errors) + units
    return style.minus(text)


def _limits(points: Points) -> tuple[float, float]:
    """The same for both axes; one point in a thousand lies on the edge."""
    low, high = looks.robust(np.concatenate(points), share=0.001)
    if np.min(points.observed, initial=0) >= 0:
        low = min(low, 0.0)
    reach = 0.02 * (high - low)
    return low - reach, high + reach
