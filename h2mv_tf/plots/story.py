"""One cell through some years: weather, stores, fluxes and coefficients, day by day."""

from collections.abc import Callable, Sequence

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from h2mv_tf.plots import style

ZERO_CELSIUS = 273.15  # K
EVAPORATION = ("transpiration", "soil_evaporation", "interception_evaporation")
RUNOFF = ("baseflow", "surface_runoff")
SHARES = {
    "soil_evaporation_coefficient": style.ORANGE,
    "transpiration_coefficient": style.GREEN,
    "soil_recharge_coefficient": style.PINK,
    "groundwater_recharge_coefficient": style.BLUE,
}
OBSERVED = "observed_"  # before the name of a constraint
LOW, HIGH = "_low", "_high"  # behind the name of an output: range of the folds


@style.journal
def cell_story(cell: xr.Dataset, *, years: Sequence[int], heading: str = "") -> Figure:
    """A cell's weather, states, fluxes and coefficients.

    Args:
        cell: Series (time,) in native units by name of the registry: outputs and
            forcing; where known `observed_NAME` of constraints, NaN where there is
            none (those of a month stand at its first day), and `NAME_low`,
            `NAME_high`, the range of the folds. `soil_water_capacity` is ().
        years: The calendar years to show.
        heading: What stands above the figure.
    """
    cell = cell.sel(time=np.isin(cell.time.dt.year, list(years)))
    if (np.diff(cell.time) > np.timedelta64(20, "D")).any():  # months, at their middle
        cell = cell.assign_coords(time=cell.time + np.timedelta64(14, "D"))
    draws: list[Callable[[Axes, xr.Dataset], None]] = [
        draw
        for draw, needed in (
            (_precipitation, ("rainfall", "snowfall")),
            (_weather, ("air_temperature", "net_radiation")),
            (_snow, ("swe",)),
            (_soil, ("soil_moisture",)),
            (_groundwater, ("groundwater",)),
            (_evapotranspiration, EVAPORATION),
            (_runoff, RUNOFF),
            (_plants, ("fapar",)),
            (_shares, tuple(SHARES)),
            (_capacities, ("snowmelt_factor", "interception_capacity")),
        )
        if set(needed) <= set(cell.data_vars)
    ]
    figure, axes = style.panels(
        len(draws), 1, height=len(draws) * 21.5 + 12, sharex=True
    )
    for number, (axis, draw) in enumerate(zip(axes[:, 0], draws, strict=True)):
        draw(axis, cell)
        style.headed(axis, number)
        axis.locator_params(axis="y", nbins=4)
        axis.margins(y=0.04)
        if len(axis.get_legend_handles_labels()[0]) > 1:
            axis.legend(
                loc="lower right", bbox_to_anchor=(1, 0.97), ncols=6, borderpad=0.1,
                columnspacing=1.2,
            )  # fmt: skip
    last = axes[-1, 0]
    months = pd.DatetimeIndex(cell.time.values[[0, -1]]).to_period("M")
    last.set_xlim(months[0].start_time, months[-1].end_time)
    ticks = mdates.MonthLocator(bymonth=range(1, 13, 1 + 2 * (len(years) > 1)))
    last.xaxis.set_major_locator(ticks)
    last.xaxis.set_major_formatter(mdates.ConciseDateFormatter(ticks))
    for axis in axes[:, 0]:
        axis.grid(axis="x", color="0.9", linewidth=0.5)
        axis.set_axisbelow(True)
    figure.align_ylabels(axes[:, 0])
    if heading:
        figure.suptitle(heading)
    return figure


def _precipitation(axis: Axes, cell: xr.Dataset) -> None:
    _stack(axis, cell, ("rainfall", "snowfall"), steps=True)
    axis.set_ylabel(_short("precipitation", "P"))


def _weather(axis: Axes, cell: xr.Dataset) -> None:
    axis.plot(cell.time, cell.air_temperature - ZERO_CELSIUS, color=style.RED, lw=0.7)
    axis.axhline(0, color=style.RED, linewidth=0.4)
    axis.set_ylabel(f"T [{style.units('degC')}]", color=style.RED)
    other = axis.twinx()
    other.plot(cell.time, cell.net_radiation, color=style.GREY, lw=0.6, alpha=0.9)
    other.set_ylabel(_short("net_radiation", "Rn"), color=style.GREY)
    other.spines.right.set_visible(True)
    other.locator_params(axis="y", nbins=4)
    axis.set_zorder(1)
    axis.patch.set_visible(False)


def _snow(axis: Axes, cell: xr.Dataset) -> None:
    _line(axis, cell, "swe")
    axis.set_ylabel(style.label("swe"))


def _soil(axis: Axes, cell: xr.Dataset) -> None:
    _line(axis, cell, "soil_moisture")
    if "soil_water_capacity" in cell:
        axis.axhline(
            float(cell.soil_water_capacity),
            color=style.RED,
            linestyle=(0, (4, 2)),
            linewidth=0.8,
            label=style.title("soil_water_capacity"),
        )
    axis.set_ylabel(_short("soil_moisture", "SM"))


def _groundwater(axis: Axes, cell: xr.Dataset) -> None:
    _line(axis, cell, "groundwater")
    axis.set_ylabel(_short("groundwater", "GW"))


def _evapotranspiration(axis: Axes, cell: xr.Dataset) -> None:
    _stack(axis, cell, EVAPORATION)
    _observations(axis, cell, "evapotranspiration")
    axis.set_ylabel(_short("evapotranspiration", "ET"))


def _runoff(axis: Axes, cell: xr.Dataset) -> None:
    _stack(axis, cell, RUNOFF)
    _observations(axis, cell, "runoff")
    axis.set_ylabel(_short("runoff", "Q"))


def _plants(axis: Axes, cell: xr.Dataset) -> None:
    _line(axis, cell, "fapar")
    axis.set_ylabel(style.label("fapar"))


def _shares(axis: Axes, cell: xr.Dataset) -> None:
    for name, color in SHARES.items():
        axis.plot(cell.time, cell[name], color=color, lw=0.7, label=style.symbol(name))
    axis.set_ylim(0, 1)
    axis.set_ylabel(_short("transpiration_coefficient", "Shares"))


def _capacities(axis: Axes, cell: xr.Dataset) -> None:
    colors = (style.SKY, style.GREEN)
    other = axis.twinx()
    other.spines.right.set_visible(True)
    for side, name, color in zip(
        (axis, other), ("snowmelt_factor", "interception_capacity"), colors, strict=True
    ):
        side.plot(cell.time, cell[name], color=color, lw=0.7)
        side.set_ylabel(_short(name, style.symbol(name)), color=color)
        side.locator_params(axis="y", nbins=4)


def _line(axis: Axes, cell: xr.Dataset, name: str) -> None:
    if name + LOW in cell:
        axis.fill_between(
            cell.time,
            cell[name + LOW],
            cell[name + HIGH],
            color=style.SIMULATED,
            alpha=0.25,
            linewidth=0,
            label="5 to 95 % of the folds",
        )
    axis.plot(cell.time, cell[name], color=style.SIMULATED, label="simulated")
    _observations(axis, cell, name)


def _stack(axis: Axes, cell: xr.Dataset, names: Sequence[str], steps=False) -> None:
    axis.stackplot(
        cell.time,
        *(cell[name].fillna(0) for name in names),
        colors=[style.PARTS[name] for name in names],
        labels=[style.title(name) for name in names],
        linewidth=0,
        step="mid" if steps else None,
    )
    axis.set_ylim(bottom=0)


def _observations(axis: Axes, cell: xr.Dataset, name: str) -> None:
    """Dots of days, and a bar over each month of a monthly value."""
    if OBSERVED + name not in cell:
        return
    observed = cell[OBSERVED + name].dropna("time")
    monthly = observed.attrs.get("cadence") == "monthly"
    if not monthly:
        axis.plot(
            observed.time, observed, ".", color=style.OBSERVED, ms=1.6, label="observed"
        )
        return
    months = pd.DatetimeIndex(observed.time.values).to_period("M")
    axis.hlines(
        observed,
        months.start_time,
        months.end_time,
        color=style.OBSERVED,
        linewidth=1.1,
        label="observed",
    )


def _short(name: str, words: str) -> str:
    return style.label(name, words)
