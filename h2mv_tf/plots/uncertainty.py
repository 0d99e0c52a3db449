"""Whether the posterior is right, and what the data constrain.

Scores are those of a probabilistic evaluation: of the test cells, or of all where
`coverage` has no test cell; `truth_` stands before what is held against the hidden
truth, which there need not be.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import cmcrameri.cm as scientific
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)
from scipy.stats import binom

from h2mv_tf.plots import looks, style
from h2mv_tf.plots.equifinality import KINDS
from h2mv_tf.plots.fields import Field
from h2mv_tf.plots.looks import Look
from h2mv_tf.plots.maps import field_maps
from h2mv_tf.variables import VARIABLES

COLUMNS = 4  # of panels
LONGEST = 22  # letters that have room above a panel
MAPPED_LEVEL = 0.9  # of the intervals whose coverage is mapped
BAND = 0.95  # of what a calibrated forecast's sampling gives
# Colour and marker of each interval.
LEVELS = {0.5: (style.ORANGE, "s"), 0.9: (style.BLUE, "o")}
# Of what is never observed, what has a panel, a line, or a map of its own.
HIDDEN = (
    "soil_water_capacity",
    "soil_moisture",
    "groundwater",
    "transpiration",
    "soil_evaporation",
    "baseflow",
    "groundwater_recharge_coefficient",
)
MAPPED = (*HIDDEN, "swe", "evapotranspiration", "runoff")
MAPS = 9


class _Source(NamedTuple):
    """What a variable is compared with.

    Attributes:
        words: What it is called.
        dim: The dimension of its variables.
        prefix: Of the names of its scores.
        color: Of its panels.
    """

    words: str
    dim: str
    prefix: str
    color: str


OBSERVATIONS = _Source("Observations", "variable", "", style.BLUE)
TRUTH = _Source("Hidden truth", "truth_variable", "truth_", style.ORANGE)
SOURCES = (OBSERVATIONS, TRUTH)


@style.journal
def reliability(scores: xr.Dataset) -> Figure:
    """Reliability diagrams: how often what happens lies below a quantile.

    Calibrated samples lie on the diagonal; above it, they are too high.

    Args:
        scores: `reliability` (variable, cells, nominal) [1], `truth_reliability`.
    """
    shown = _sources(scores, "reliability")
    width = style.WIDTH if len(shown) > 1 else style.COLUMN
    figure, axes = style.panels(1, len(shown), height=112, width=width)
    for number, (source, known) in enumerate(shown.items()):
        axis = axes[0, number]
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, zorder=0)
        names = _featured(known, source)
        for name, (color, marker) in zip(names, style.LINES, strict=False):
            axis.plot(
                known.nominal,
                known.sel({source.dim: name}),
                color=color,
                marker=marker,
                ms=3.2,
                markevery=2,
                label=style.title(name),
            )
        axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", anchor="N")
        axis.set_xlabel("Nominal probability [–]")  # noqa: RUF001
        axis.set_ylabel("Share at or below the quantile [–]")  # noqa: RUF001
        words = {"color": style.GREY, "fontsize": style.SMALL}
        axis.text(0.03, 0.97, "samples too high", va="top", **words)
        axis.text(0.97, 0.03, "samples too low", ha="right", **words)
        style.headed(axis, number, source.words)
        axis.legend(
            loc="upper center",
            bbox_to_anchor=(0.45, -0.14),
            ncols=2,
            columnspacing=1,
        )
    return figure


@style.journal
def pit_histograms(scores: xr.Dataset) -> Figure:
    """Histograms of the probability integral transform, relative to a calibrated one.

    A U is of samples that are too narrow, a hump of those that are too wide. A band is
    where 95 % of the bars of a calibrated forecast are, of pairs that are independent;
    months of one cell are not, so that bars leave it more often.

    Args:
        scores: `pit` (variable, cells, bin) [1], `truth_pit`; for the band the number
            of pairs, `count` (variable, cells), `truth_count`.
    """
    shown = _panels(scores, "pit")
    figure, axes = _grid(len(shown), high=38)
    for number, (axis, (source, name)) in enumerate(zip(axes, shown, strict=True)):
        share = _of(scores, "pit", source).sel({source.dim: name}).values
        bins = len(share)
        axis.bar(
            (np.arange(bins) + 0.5) / bins, share * bins, 1 / bins, color=source.color
        )
        if f"{source.prefix}count" in scores:
            count = int(_of(scores, "count", source).sel({source.dim: name}))
            band = np.array(binom.interval(BAND, count, 1 / bins)) / count * bins
            axis.axhspan(*band, color="0.5", alpha=0.35, linewidth=0)
        axis.axhline(1, color=style.BLACK, linewidth=0.6)
        axis.set_xlim(0, 1)
        axis.set_ylim(0, max(1.6, 1.08 * bins * share.max()))
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        style.headed(axis, number, _heading(name))
        if number + COLUMNS >= len(axes):  # nothing below it
            axis.set_xlabel("PIT [–]")  # noqa: RUF001
        if number % COLUMNS == 0:
            axis.set_ylabel("Density [–]")  # noqa: RUF001
    _sources_below(figure, [source for source, _ in shown])
    return figure


@style.journal
def spread_skill(scores: xr.Dataset) -> Figure:
    """The spread of the samples against the error of their mean.

    Pairs are in groups of equal size by their spread. Calibrated samples lie on the
    diagonal; above it, they are too narrow.

    Args:
        scores: `spread`, `error` (variable, cells, group) in the variables' units,
            `spread_skill` (variable, cells) [1], and the same of the truth.
    """
    shown = _panels(scores, "spread")
    figure, axes = _grid(len(shown), high=48)
    for number, (axis, (source, name)) in enumerate(zip(axes, shown, strict=True)):
        spread, error, ratio = (
            _of(scores, of, source).sel({source.dim: name}).values
            for of in ("spread", "error", "spread_skill")
        )
        both = np.concatenate([spread, error])
        both = both[np.isfinite(both)]
        if both.min() > 0:
            axis.set(xscale="log", yscale="log")
            margin = max(1.3, (both.max() / both.min()) ** 0.05)
            limits = both.min() / margin, both.max() * margin
        else:
            limits = 0.0, both.max() * 1.1 or 1.0
        axis.plot(limits, limits, color="0.7", linewidth=0.8, zorder=0)
        axis.plot(spread, error, "o", color=source.color, ms=3.5)
        axis.set(xlim=limits, ylim=limits, box_aspect=1)
        for each in (axis.xaxis, axis.yaxis):
            _few_numbers(each, limits)
        axis.text(
            0.96,
            0.04,
            f"spread / error {ratio:.2f}",
            transform=axis.transAxes,
            ha="right",
            fontsize=style.SMALL,
        )
        axis.set_xlabel(style.label(name, "Spread"))
        if number % COLUMNS == 0:
            axis.set_ylabel("Error of the mean")
        style.headed(axis, number, _heading(name))
    _sources_below(figure, [source for source, _ in shown])
    return figure


@style.journal
def coverage(scores: xr.Dataset) -> Figure:
    """How often the intervals of 50 and 90 % hold what they should, by variable.

    Args:
        scores: `coverage` (variable, level, cells) [1], `truth_coverage`.
    """
    shown = _sources(scores, "coverage")
    rows = {source: _rows(known, source) for source, known in shown.items()}
    high = [place[-1] + 1.4 for _, place in rows.values()]
    figure, axes = style.panels(
        len(shown),
        1,
        height=24 + 6 * len(shown) + 3.9 * sum(high),
        width=120,
        sharex=True,
        height_ratios=high,
    )
    for number, (source, known) in enumerate(shown.items()):
        axis = axes[number, 0]
        names, place = rows[source]
        for level, (color, marker) in LEVELS.items():
            values = known.sel({source.dim: names}).sel(level=level, method="nearest")
            axis.axvline(level, color=color, linewidth=0.8, zorder=0)
            axis.plot(values, place, marker, color=color, ms=4, clip_on=False)
        axis.set_yticks(place, [style.title(name) for name in names])
        axis.set_ylim(place[-1] + 0.7, -0.7)
        axis.set_xlim(0, 1)
        axis.grid(axis="y", color="0.9", linewidth=0.5)
        axis.set_axisbelow(True)
        style.headed(axis, number, source.words)
    axes[-1, 0].set_xlabel("Share within the interval [–]")  # noqa: RUF001
    handles = [
        axes[0, 0].plot(
            [],
            [],
            marker,
            color=color,
            ls="-",
            lw=0.8,
            ms=4,
            label=f"{100 * level:g} %",
        )[0]
        for level, (color, marker) in LEVELS.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=2,
        title="Central interval, and the share it should hold (line)",
        title_fontsize=style.SMALL,
    )
    return figure


def width_maps(scores: xr.Dataset, *, land: xr.DataArray | None = None) -> Figure:
    """What the data constrain: posterior width relative to prior width.

    0 is where the data decide, 1 where they say nothing. Without a simulation of the
    prior, the posterior widths themselves, in units of the variables.

    Args:
        scores: `relative_width` (width_variable, *space) [1], or `posterior_width`
            (width_variable, *space) in the variables' units.
        land: As for `field_maps`.
    """
    relative = "relative_width" in scores
    widths = scores["relative_width" if relative else "posterior_width"]
    fields = []
    for name in _mapped(widths, "width_variable"):
        data = widths.sel(width_variable=name)
        units, look = VARIABLES[name].units, looks.spread(data.values)
        if relative:
            units, look = "1", _share(data.values)
        fields.append(Field(data, _heading(name), units, look))
    figure = field_maps(fields, land=land)
    if relative:
        for bar in color_bars(figure):
            bar.set_ticks([0, 0.5, 1], labels=["0 (data)", "0.5", "1 (prior)"])
            first, _, last = bar.ax.get_xticklabels()
            first.set_horizontalalignment("left")  # or they would meet the next map's
            last.set_horizontalalignment("right")
    return figure


def truth_coverage_maps(
    scores: xr.Dataset, *, land: xr.DataArray | None = None
) -> Figure:
    """How often the interval of 90 % holds the truth, cell by cell.

    Args:
        scores: `truth_coverage_map` (truth_variable, level, *space) [1].
        land: As for `field_maps`.
    """
    shares = scores["truth_coverage_map"].sel(level=MAPPED_LEVEL, method="nearest")
    fields = []
    for name in _mapped(shares, "truth_variable"):
        data = shares.sel(truth_variable=name)
        look = looks.skill(data.values, 0.0)
        fields.append(Field(data, _heading(name), "1", look))
    return field_maps(fields, land=land)


def color_bars(figure: Figure) -> list[Colorbar]:
    """The colour bars of maps; none where a few sites have a line each."""
    drawn = itertools.chain.from_iterable(axis.collections for axis in figure.axes)
    return [part.colorbar for part in drawn if part.colorbar is not None]


def _sources(scores: xr.Dataset, of: str) -> dict[_Source, xr.DataArray]:
    """A score of observations and of the truth, as far as there is any."""
    found = {
        source: _of(scores, of, source)
        for source in SOURCES
        if f"{source.prefix}{of}" in scores
    }
    return {source: known for source, known in found.items() if known.size}


def _of(scores: xr.Dataset, of: str, source: _Source) -> xr.DataArray:
    """A score of the cells that are shown, of the variables that have one."""
    tested = scores[f"{source.prefix}coverage"].sel(cells="test").notnull().any()
    known = scores[f"{source.prefix}{of}"].sel(cells="test" if tested else "all")
    others = [dim for dim in known.dims if dim != source.dim]
    return known.isel({source.dim: known.notnull().any(others).values})


def _featured(known: xr.DataArray, source: _Source) -> list[str]:
    """The variables that have a line or a panel of their own."""
    names = [str(name) for name in known[source.dim].values]
    if source is TRUTH:
        names = [name for name in HIDDEN if name in names] or names
    return names[: len(style.LINES)]


def _panels(scores: xr.Dataset, of: str) -> list[tuple[_Source, str]]:
    """What has a panel each: the observed variables, then the hidden ones."""
    return [
        (source, name)
        for source, known in _sources(scores, of).items()
        for name in _featured(known, source)
    ]


def _grid(count: int, *, high: float) -> tuple[Figure, list[Axes]]:
    """So many panels, each of a height [mm]."""
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    width = style.WIDTH * columns / COLUMNS
    figure, axes = style.panels(rows, columns, height=12 + rows * high, width=width)
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def _heading(name: str) -> str:
    words = style.title(name)
    return words if len(words) <= LONGEST else style.symbol(name)


def _sources_below(figure: Figure, sources: Sequence[_Source]) -> None:
    """Tells the colours of observations and truth at the foot of a figure."""
    handles = [Patch(color=s.color, label=s.words) for s in dict.fromkeys(sources)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _few_numbers(axis: Axis, limits: tuple[float, float]) -> None:
    """Round numbers along a short axis, also where it is logarithmic."""
    low, high = limits
    wide = high / low if axis.get_scale() == "log" else 1.0
    locator = MaxNLocator(4, steps=[1, 2, 5, 10])
    if wide > 8:
        locator = LogLocator(subs=(1, 2, 5) if wide < 50 else (1,))
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _rows(known: xr.DataArray, source: _Source) -> tuple[list[str], np.ndarray]:
    """Variables and where they stand; hidden ones by their kind, with gaps between."""
    names = [str(name) for name in known[source.dim].values]
    if source is OBSERVATIONS:
        return names, np.arange(len(names), dtype="float64")
    names.sort(key=lambda name: KINDS.index(VARIABLES[name].kind))
    kinds = [VARIABLES[name].kind for name in names]
    gaps = [a != b for a, b in itertools.pairwise(kinds)]
    return names, np.arange(len(names)) + 0.6 * np.cumsum([False, *gaps])


def _mapped(values: xr.DataArray, dim: str) -> list[str]:
    """The variables that have a map: those that matter, or the first."""
    others = [other for other in values.dims if other != dim]
    some = np.isfinite(values).any(others).values
    known = [str(name) for name in values[dim].values[some]]
    return ([name for name in MAPPED if name in known] or known)[:MAPS]


def _share(values: np.ndarray) -> Look:
    """The look of a relative width: always from 0 to 1; what is known is bright."""
    return looks.skill(values, 0.0)._replace(colormap=scientific.imola_r)
