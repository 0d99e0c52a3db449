"""Seasonal cycles and years of regions, observed and simulated."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from h2mv_tf.plots import style

MOST = 6  # columns that have room at journal width
CLOSEST = 0.1  # of the largest range of a row, which the smallest axis spans


def regional_means(
    data: xr.DataArray, area: xr.DataArray, members: Mapping[str, xr.DataArray]
) -> xr.DataArray:
    """Area-weighted means over the cells of regions that have a value.

    Args:
        data: (..., time, cell), NaN: no value.
        area: Weight of each cell (cell,).
        members: Which cells belong to each region (cell,), by its name.

    Returns:
        (region, ..., time), NaN where no cell of the region has a value.
    """
    has = data.notnull()
    rows = []
    for inside in members.values():
        weight = area.where(inside, 0.0)
        total = xr.dot(has.astype("float64"), weight, dim="cell")
        summed = xr.dot(data.fillna(0).astype("float64"), weight, dim="cell")
        rows.append(summed / total.where(total > 0))
    return xr.concat(rows, xr.Variable("region", list(members)))


def seasonal_cycle(series: xr.DataArray) -> xr.DataArray:
    """The mean of each calendar month (..., month), of months that have a value.

    Args:
        series: (..., time), monthly.
    """
    cycle = series.groupby("time.month").mean("time")
    return cycle.reindex(month=np.arange(1, 13))


def anomalies(series: xr.DataArray) -> xr.DataArray:
    """What is left of a monthly series without its mean seasonal cycle.

    Args:
        series: (..., time), monthly.
    """
    months = series.groupby("time.month")
    return (months - months.mean("time")).drop_vars("month", errors="ignore")


def seasonal_cycles(series: Mapping[str, xr.Dataset]) -> Figure:
    """Mean seasonal cycles: a row for each constraint, a column for each region.

    Args:
        series: By name of the constraint, regional series (region, time) `observed`
            and `simulated`, both only of cells and months that the other has, and
            perhaps `members` (member, region, time), whose range is shaded.
    """
    return _figure(series, _draw_cycle, 27.0)


def interannual(series: Mapping[str, xr.Dataset]) -> Figure:
    """Monthly anomalies from the mean seasonal cycle, and their means of the years.

    Args:
        series: As for `seasonal_cycles`.
    """
    return _figure(series, _draw_years, 27.0)


@style.journal
def _figure(
    series: Mapping[str, xr.Dataset], draw: Callable[..., None], height: float
) -> Figure:
    regions = [str(r) for r in next(iter(series.values())).region.values][:MOST]
    rows, columns = len(series), len(regions)
    width = style.WIDTH if columns > 2 else style.WIDTH * (0.3 + 0.25 * columns)
    figure, axes = style.panels(
        rows, columns, height=rows * height + 14, width=width, sharex=True
    )
    for row, (name, dataset) in enumerate(series.items()):
        for column, region in enumerate(regions):
            axis = axes[row, column]
            heading = region[:1].upper() + region[1:] if not row else ""
            if not column:  # a letter for each row
                style.headed(axis, row, heading)
            else:
                axis.set_title(heading, loc="left", pad=3)
            found = dataset.sel(region=region)
            draw(axis, found, columns)
            if not found.observed.notnull().any():
                _without(axis)
        axes[row, 0].set_ylabel(style.label(name, style.short(name)))
        _no_close_up(axes[row])
    figure.align_ylabels(axes[:, 0])
    _legend(figure, series, draw)
    return figure


def _draw_cycle(axis: Axes, dataset: xr.Dataset, columns: int) -> None:
    cycles = dataset.map(seasonal_cycle)
    if "members" in cycles:
        _shade(axis, cycles.month, cycles.members)
    axis.plot(cycles.month, cycles.observed, color=style.OBSERVED, marker=".", ms=3)
    axis.plot(cycles.month, cycles.simulated, color=style.SIMULATED)
    style.months(axis)
    if columns > 3:  # not enough room for twelve letters
        axis.set_xticks([1, 4, 7, 10], list("JAJO"))
        axis.set_xticks(range(1, 13), minor=True)


def _draw_years(axis: Axes, dataset: xr.Dataset, columns: int) -> None:
    left = dataset.map(anomalies)
    axis.axhline(0, color="0.8", linewidth=0.5, zorder=0)
    for name, color in (
        ("observed", style.OBSERVED),
        ("simulated", style.SIMULATED),
    ):
        axis.plot(left.time, left[name], color=color, linewidth=0.35, alpha=0.55)
    yearly = left.resample(time="YS").mean()
    middle = yearly.time + np.timedelta64(182, "D")
    if "members" in yearly:
        _shade(axis, middle, yearly.members)
    axis.plot(middle, yearly.observed, color=style.OBSERVED, marker=".", ms=3)
    axis.plot(middle, yearly.simulated, color=style.SIMULATED, marker=".", ms=3)
    style.years(axis, left.time.values, most=max(12 // columns, 2))


def _shade(axis: Axes, x, members: xr.DataArray) -> None:
    axis.fill_between(
        x,
        members.min("member"),
        members.max("member"),
        color=style.SIMULATED,
        alpha=0.25,
        linewidth=0,
    )


def _without(axis: Axes) -> None:
    axis.text(
        0.5,
        0.55,
        "not observed",
        transform=axis.transAxes,
        ha="center",
        color=style.GREY,
        fontsize=style.SMALL,
    )
    axis.set_yticks([])


def _no_close_up(axes: Sequence[Axes]) -> None:
    """Each panel has its scale, but next to nothing does not fill it."""
    axes = [axis for axis in axes if axis.get_yticks().size]
    spans = [np.ptp(axis.get_ylim()) for axis in axes]
    for axis, span in zip(axes, spans, strict=True):
        low, high = axis.get_ylim()
        lacking = CLOSEST * max(spans) - span
        if lacking > 0:
            # What never is negative keeps its zero at the bottom.
            lowest = min(np.nanmin([*line.get_ydata(), np.inf]) for line in axis.lines)
            share = 0.5 if lowest < 0 else 0.0
            axis.set_ylim(low - share * lacking, high + (1 - share) * lacking)
        axis.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=3))


def _legend(figure: Figure, series, draw) -> None:
    axis = figure.axes[0]
    handles = [
        axis.plot([], [], color=style.OBSERVED, marker=".", ms=3, label="observed")[0],
        axis.plot([], [], color=style.SIMULATED, label="simulated")[0],
    ]
    if any("members" in dataset for dataset in series.values()):
        band = axis.fill_between(
            [], [], color=style.SIMULATED, alpha=0.25, lw=0, label="range of the folds"
        )
        handles.append(band)
    if draw is _draw_years:
        thin = axis.plot([], [], color=style.GREY, lw=0.35, label="months")[0]
        handles.insert(2, thin)
        for handle in handles[:2]:
            handle.set_label(f"{handle.get_label()}, years")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
