"""What can be recovered from which constraints.

The experiments of a twin are trainings on a synthetic world, with all constraints
("all") and without one of them ("without tws").
"""

import cmcrameri.cm as scientific
import numpy as np
import xarray as xr
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullLocator

from h2mv_tf.plots import looks, style
from h2mv_tf.plots.fields import SCORES, Field
from h2mv_tf.plots.looks import Look
from h2mv_tf.plots.maps import field_maps
from h2mv_tf.plots.uncertainty import color_bars

ALL, WITHOUT = "all", "without "
WIDTH = "relative_width"  # the metric of posterior widths
REACH = 0.5  # beyond which it does not matter how much worse
METRICS = {**SCORES, "coverage_90": "Coverage of 90 %", "crps": "CRPS"}
MAPPED = ("soil_water_capacity", "groundwater")
DODGE = 0.14  # of a row, between marks that would hide each other
WIDE = 2.0  # that maps of a widening show at least


@style.journal
def skill(twin: xr.Dataset, *, metric: str = "nse") -> Figure:
    """How well what is hidden is recovered, as a table.

    Numbers are scores, colours the difference to what all constraints give.

    Args:
        twin: `score` (experiment, variable, metric).
        metric: One of which more is better.
    """
    score = twin.score.sel(metric=metric).transpose("variable", "experiment")
    names, experiments = _ordered(score)
    values = score.sel(variable=names, experiment=experiments).values
    difference = values - values[:, :1]
    reach = min(np.nanmax(np.abs(difference)) or REACH, REACH)
    look = _sided(difference, reach, scientific.vik_r)
    figure, axes = style.panels(
        1,
        1,
        height=32 + 4.6 * len(names),
        width=min(style.WIDTH, 62 + 15 * len(experiments)),
    )
    axis = axes[0, 0]
    drawn = axis.pcolormesh(
        difference,
        cmap=look.colormap,
        vmin=look.low,
        vmax=look.high,
        edgecolors="white",
        linewidth=0.8,
    )
    for (row, column), value in np.ndenumerate(values):
        dark = abs(difference[row, column]) > 0.6 * reach
        axis.text(
            column + 0.5,
            row + 0.52,
            "–" if np.isnan(value) else style.minus(f"{value:z.2f}"),  # noqa: RUF001
            ha="center",
            va="center",
            fontsize=style.SMALL,
            color="white" if dark else "black",
        )
    axis.axvline(1, color=style.BLACK, linewidth=0.8)
    axis.invert_yaxis()
    axis.xaxis.tick_top()
    middles = np.arange(len(experiments)) + 0.5
    axis.set_xticks(middles, [_words(name, "\n") for name in experiments])
    axis.set_yticks(np.arange(len(names)) + 0.5, [style.title(n) for n in names])
    axis.tick_params(left=False, top=False)
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(
        drawn,
        ax=axis,
        orientation="horizontal",
        extend=look.extend,
        fraction=0.05,
        aspect=35,
        pad=0.02,
    )
    bar.outline.set_linewidth(0.5)
    words = METRICS[metric]
    bar.set_label(f"{words} [–]: difference to all constraints")  # noqa: RUF001
    return figure


@style.journal
def widths(twin: xr.Dataset) -> Figure:
    """How much wider each posterior is without each constraint.

    Args:
        twin: `score` (experiment, variable, metric) with the metric `relative_width`.
    """
    width = twin.score.sel(metric=WIDTH).transpose("variable", "experiment")
    names, experiments = _ordered(width)
    ratios = width.sel(variable=names) / width.sel(variable=names, experiment=ALL)
    figure, axes = style.panels(1, 1, height=24 + 4.6 * len(names), width=120)
    axis = axes[0, 0]
    place = np.arange(len(names))
    reduced = experiments[1:]
    for number, (experiment, (color, marker)) in enumerate(
        zip(reduced, style.LINES, strict=False)
    ):
        axis.plot(
            ratios.sel(experiment=experiment),
            place + DODGE * (number - (len(reduced) - 1) / 2),
            marker,
            color=color,
            ms=3.8,
            label=_words(experiment, " "),
        )
    axis.axvline(1, color=style.BLACK, linewidth=0.6, zorder=0)
    axis.set_xscale("log", base=2)
    low, high = np.nanmin(ratios), np.nanmax(ratios)
    axis.set_xlim(min(low / 1.1, 1 / WIDE**0.5), max(high * 1.1, WIDE))
    axis.xaxis.set_major_locator(LogLocator(base=2))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    axis.set_yticks(place, [style.title(name) for name in names])
    axis.set_ylim(place[-1] + 0.7, -0.7)
    axis.grid(axis="y", color="0.9", linewidth=0.5)
    axis.set_axisbelow(True)
    axis.set_xlabel("Posterior width relative to all constraints [–]")  # noqa: RUF001
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def widening_maps(wider: xr.DataArray, *, land: xr.DataArray | None = None) -> Figure:
    """Where a posterior becomes wider without a constraint.

    Args:
        wider: (width_variable, *space) [1], the width of the posterior without the
            constraint per that with it, of which SMmax and groundwater are shown, or
            all where there is neither.
        land: As for `field_maps`.
    """
    known = [str(name) for name in wider.width_variable.values]
    chosen = [name for name in MAPPED if name in known] or known
    powers = np.log2(wider.sel(width_variable=chosen))
    reach = np.abs(looks.robust(powers.values)).max()
    reach = float(max(np.ceil(2 * reach) / 2, np.log2(WIDE)))
    fields = []
    for name in chosen:
        data = powers.sel(width_variable=name)
        look = _sided(data.values, reach, scientific.vik)
        fields.append(Field(data, style.title(name), "1", look))
    figure = field_maps(fields, land=land)
    for axis in [bar.ax for bar in color_bars(figure)] or figure.axes:
        step = 0.5 if reach <= 1 else np.ceil(reach / 4)  # nine numbers have room
        axis.xaxis.set_major_locator(MultipleLocator(step))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{2**v:.2g}"))
    return figure


def _ordered(score: xr.DataArray) -> tuple[list[str], list[str]]:
    """Variables that have a score, and experiments, that of all constraints first."""
    some = score.notnull().any("experiment").values
    names = [str(name) for name in score["variable"].values[some]]
    experiments = [str(name) for name in score.experiment.values]
    return names, sorted(experiments, key=lambda name: name != ALL)


def _sided(values: np.ndarray, reach: float, colormap: Colormap) -> Look:
    """The look of a difference that goes as far to both sides of 0."""
    look = looks.skill(values / reach, -1.0)
    return look._replace(colormap=colormap, low=-reach, high=reach)


def _words(experiment: str, space: str) -> str:
    """What an experiment is called: without ET."""
    if not experiment.startswith(WITHOUT):
        return f"{experiment}{space}constraints"
    return f"without{space}{style.short(experiment.removeprefix(WITHOUT))}"
