"""Sites: their names, and a line for each where they are few."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from h2mv_tf.plots import style
from h2mv_tf.plots.fields import Field

FEW = 30  # sites that have a line each; more are points at their place
NAMED = 12  # sites whose names have room beside points


def named(axis: Axes, data: xr.DataArray) -> None:
    """Writes the names of a few sites beside their places."""
    if data.size > NAMED:
        return
    for name, lon, lat in zip(names(data), data.lon, data.lat, strict=True):
        axis.annotate(
            name,
            (float(lon), float(lat)),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=style.SMALL,
        )


def names(data: xr.DataArray | xr.Dataset) -> list[str]:
    """What the sites are called: their names, or where they are."""
    if "name" in data.coords:
        return [str(name) for name in data["name"].values]
    places = zip(data.lat, data.lon, strict=True)
    return [f"{north(lat)}, {east(lon)}" for lat, lon in places]


def lines(fields: Sequence[Field]) -> Figure:
    """A line for each site, a panel for each quantity."""
    columns = min(len(fields), 4)
    rows = -(-len(fields) // columns)
    known = names(fields[0].data)
    figure, axes = style.panels(
        rows, columns, height=rows * (11 + 4.2 * max(len(known), 3)), sharey=True
    )
    place = np.arange(len(known))
    for number, (axis, field) in enumerate(zip(axes.flat, fields, strict=False)):
        look, values = field.look, field.data.values
        shown = np.clip(values, look.low, look.high)
        inside = shown == values
        axis.plot(shown[inside], place[inside], "o", color=style.SIMULATED, ms=4)
        for beyond, marker in ((values < look.low, "<"), (values > look.high, ">")):
            axis.plot(shown[beyond], place[beyond], marker, color=style.SIMULATED, ms=4)
        margin = 0.06 * (look.high - look.low)
        axis.set_xlim(look.low - margin, look.high + margin)
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axis.set_yticks(place, known)
        axis.set_ylim(len(known) - 0.5, -0.5)
        axis.grid(axis="y", color="0.88", linewidth=0.5)
        axis.set_axisbelow(True)
        style.headed(axis, number, field.heading)
    for axis in axes.flat[len(fields) :]:
        axis.remove()
    return figure


def east(lon: float) -> str:
    """A longitude in words: 12°E."""
    lon = (float(lon) + 180) % 360 - 180
    side = "" if lon in (0, -180) else "E" if lon > 0 else "W"
    return f"{abs(lon):.4g}°{side}"


def north(lat: float) -> str:
    """A latitude in words: 48°N."""
    lat = float(lat)
    return f"{abs(lat):.4g}°{'' if lat == 0 else 'N' if lat > 0 else 'S'}"
