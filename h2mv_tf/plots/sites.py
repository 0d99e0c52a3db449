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
    middle = float(data.lon.min() + data.lon.max()) / 2
    for name, lon, lat in zip(names(data), data.lon, data.lat, strict=True):
        right = float(lon) > middle  # of the map; its name has room to the left
        axis.annotate(
            name,
            (float(lon), float(lat)),
            xytext=(-4 if right else 4, 3),
            textcoords="offset points",
            ha="right" if right else "left",
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
    columns = min(len(fields), 3)
    rows = -(-len(fields) // columns)
    known = names(fields[0].data)
    figure, axes = style.panels(
        rows, columns, height=rows * (11 + 4.2 * max(len(known), 3)), sharey=True
    )
    place = np.arange(len(known))
    for number, (axis, field) in enumerate(zip(axes.flat, fields, strict=False)):
        values = field.data.values
        low, high = _limits(field)
        inside = (values >= low) & (values <= high)
        marks = {"color": style.SIMULATED, "ms": 4}
        axis.plot(values[inside], place[inside], "o", **marks)
        for beyond, end, marker in (
            (values < low, low, "<"),
            (values > high, high, ">"),
        ):
            axis.plot(np.full(beyond.sum(), end), place[beyond], marker, **marks)
        margin = 0.06 * (high - low)
        axis.set_xlim(low - margin, high + margin)
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axis.set_yticks(place, known)
        axis.set_ylim(len(known) - 0.5, -0.5)
        axis.grid(axis="y", color="0.88", linewidth=0.5)
        axis.set_axisbelow(True)
        style.headed(axis, number, field.heading)
    for axis in axes.flat[len(fields) :]:
        axis.remove()
    return figure


def _limits(field: Field) -> tuple[float, float]:
    """All values, but for those that are farther off than the look is wide."""
    low, high, _ = field.look[1:]
    near = field.data.where(abs(field.data - (low + high) / 2) < 1.5 * (high - low))
    return min(low, float(near.min())), max(high, float(near.max()))


def east(lon: float) -> str:
    """A longitude in words: 12°E."""
    lon = (float(lon) + 180) % 360 - 180
    side = "" if lon in (0, -180) else "E" if lon > 0 else "W"
    return f"{abs(lon):.4g}°{side}"


def north(lat: float) -> str:
    """A latitude in words: 48°N."""
    lat = float(lat)
    return f"{abs(lat):.4g}°{'' if lat == 0 else 'N' if lat > 0 else 'S'}"
