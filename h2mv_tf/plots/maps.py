"""Maps of a grid, and points and tables of sites."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from h2mv_tf.plots import style
from h2mv_tf.plots.style import Look
from h2mv_tf.variables import ANOMALIES, VARIABLES

FEW = 30  # sites that have a line each; more are points at their place
NAMED = 12  # sites whose names have room beside points
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
    "r": "Correlation $r$",
    "alpha": r"Variability ratio $\alpha$",
    "rmse": "RMSE",
    "bias": "Bias",
}
# Of anomalies the mean says nothing.
OF_A_MEAN = ("kge", "bias")


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


@style.journal
def maps(fields: Sequence[Field], columns: int = 3) -> Figure:
    """Maps of quantities; of sites, points at their place or a line for each.

    Args:
        fields: The quantities, all of the same cells.
        columns: Maps side by side.
    """
    first = fields[0].data
    if first.ndim == 1 and first.size <= FEW:
        return _lines_of_sites(fields)
    columns = min(columns, len(fields))
    rows = -(-len(fields) // columns)
    (west, east), (south, north), aspect = _extent(first)
    wide = style.WIDTH / columns - 12
    high = wide * (north - south) / (east - west) * aspect
    figure, axes = style.panels(
        rows, columns, height=rows * (high + 18), sharex=True, sharey=True
    )
    for number, (axis, field) in enumerate(zip(axes.flat, fields, strict=False)):
        if field.data.ndim == 2:
            drawn = _grid(axis, field)
            _outline(axis, field.data)
        else:
            drawn = _points(axis, field)
        axis.set(xlim=(west, east), ylim=(south, north))
        axis.set_aspect(aspect)
        style.headed(axis, number, field.title)
        bar = figure.colorbar(
            drawn,
            ax=axis,
            location="bottom",
            extend=field.look.extend,
            aspect=28,
            pad=0.03,
            shrink=0.9,
        )
        bar.ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        bar.outline.set_linewidth(0.5)
        bar.set_label(f"[{style.units(field.units)}]", labelpad=1)
        _degrees(axis, last=number + columns >= len(fields), first=not number % columns)
    for axis in axes.flat[len(fields) :]:
        axis.remove()
    return figure


def score_maps(scores: xr.DataArray, variable: str) -> Figure:
    """Maps of the scores of a constraint.

    Args:
        scores: (metric, *space), as `score` of an evaluation.
        variable: The constraint.
    """
    return maps(score_fields(scores, variable), columns=2)


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
        units = VARIABLES[variable].units if metric in ("rmse", "bias") else "1"
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
            style.quantity(name, data.values),
        )
        for name, data in means.items()
        if np.isfinite(data).any()
    ]


def kinds_map(
    roles: xr.DataArray, kinds: Mapping[str, tuple[object, np.ndarray]]
) -> Figure:
    """A map of cells of several kinds.

    Args:
        roles: (*space) with `lat` and `lon`: 0 is sea.
        kinds: Colour and members (*space) of each kind, by its name.
    """
    land = roles.where(roles != 0)
    (west, east), (south, north), aspect = _extent(land)
    high = (style.WIDTH - 14) * (north - south) / (east - west) * aspect
    figure, axes = style.panels(1, 1, height=min(high, 120) + 20)
    axis = axes[0, 0]
    marker = "s" if roles.ndim == 2 else "o"
    for name, (color, member) in kinds.items():
        member = land.copy(data=member)
        cells = [], []
        if roles.ndim == 2:
            look = Look(style.flat(color), 0.0, 1.0, "neither")
            _grid(axis, Field(member.where(member), "", "1", look))
        else:
            cells = roles.lon[member], roles.lat[member]
        label = f"{name}: {int(member.sum())} cells"
        axis.plot(
            *cells, marker, color=color, ms=5, mec="0.25", mew=0.3, ls="", label=label
        )
    if roles.ndim == 2:
        _outline(axis, land)
    else:
        _names(axis, roles)
    axis.set(xlim=(west, east), ylim=(south, north))
    axis.set_aspect(aspect)
    _degrees(axis, last=True, first=True)
    figure.legend(loc="outside lower center", ncols=min(len(kinds), 4))
    return figure


def _score_look(metric: str, variable: str, data: xr.DataArray) -> Look:
    if metric == "bias":
        return style.bias(variable, data.values)
    if metric == "alpha":
        return style.bias(variable, data.values, centre=1.0)
    if metric == "rmse":
        return style.spread(data.values)
    return style.skill(data.values, 0.0 if metric == "r" else -0.5)


def _grid(axis: Axes, field: Field):
    data = _around_greenwich(field.data)
    drawn = axis.pcolormesh(
        _edges(data.lon.values),
        _edges(data.lat.values),
        np.ma.masked_invalid(data.values),
        cmap=field.look.colormap,
        vmin=field.look.low,
        vmax=field.look.high,
        rasterized=True,
    )
    return drawn


def _outline(axis: Axes, data: xr.DataArray) -> None:
    """Grey sea, and a line where the land of the mask ends."""
    axis.set_facecolor(style.SEA)
    data = _around_greenwich(data)
    land = np.pad(np.isfinite(data.values), 1)
    lon, lat = _edges(data.lon.values), _edges(data.lat.values)
    upright = np.argwhere(land[1:-1, 1:] != land[1:-1, :-1])
    level = np.argwhere(land[1:, 1:-1] != land[:-1, 1:-1])
    lines = [[(lon[c], lat[r]), (lon[c], lat[r + 1])] for r, c in upright]
    lines += [[(lon[c], lat[r]), (lon[c + 1], lat[r])] for r, c in level]
    axis.add_collection(
        LineCollection(lines, colors="0.25", linewidths=0.3, zorder=2)
    )


def _points(axis: Axes, field: Field):
    data = field.data
    drawn = axis.scatter(
        data.lon,
        data.lat,
        c=data,
        s=9,
        cmap=field.look.colormap,
        vmin=field.look.low,
        vmax=field.look.high,
        edgecolor="0.25",
        linewidth=0.3,
    )
    axis.grid(color="0.9", linewidth=0.4, zorder=0)
    axis.set_axisbelow(True)
    return drawn


def _names(axis: Axes, data: xr.DataArray) -> None:
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
    return [f"{_north(lat)}, {_east(lon)}" for lat, lon in places]


def _lines_of_sites(fields: Sequence[Field]) -> Figure:
    """A line for each site, a panel for each quantity."""
    columns = min(len(fields), 4)
    rows = -(-len(fields) // columns)
    sites = names(fields[0].data)
    figure, axes = style.panels(
        rows, columns, height=rows * (14 + 4.2 * max(len(sites), 3)), sharey=True
    )
    place = np.arange(len(sites))
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
        axis.set_xlabel(f"[{style.units(field.units)}]", labelpad=1)
        axis.set_yticks(place, sites)
        axis.set_ylim(len(sites) - 0.5, -0.5)
        axis.grid(axis="y", color="0.88", linewidth=0.5)
        axis.set_axisbelow(True)
        style.headed(axis, number, field.title)
    for axis in axes.flat[len(fields) :]:
        axis.remove()
    return figure


def _extent(data: xr.DataArray):
    """Limits of longitude and latitude around the land, and the aspect of a degree."""
    if data.ndim == 1:
        lon, lat = style.sided(data.lon.values), style.sided(data.lat.values)
    else:
        data = _around_greenwich(data)
        land = np.isfinite(data.values)
        lon = _span(_edges(data.lon.values), land.any(axis=0))
        lat = _span(_edges(data.lat.values), land.any(axis=1))
    middle = np.radians(np.mean(lat))
    # A world map stretches its poles as everybody is used to.
    aspect = 1.0 if lat[1] - lat[0] > 90 else 1 / max(np.cos(middle), 0.2)
    return lon, lat, aspect


def _span(edges: np.ndarray, any_land: np.ndarray) -> tuple[float, float]:
    (place,) = np.nonzero(any_land)
    found = edges[[place[0], place[-1] + 1]] if len(place) else edges[[0, -1]]
    margin = abs(edges[1] - edges[0])
    ends = sorted((edges[0], edges[-1]))
    return max(min(found) - margin, ends[0]), min(max(found) + margin, ends[1])


def _around_greenwich(data: xr.DataArray) -> xr.DataArray:
    """A world from 0 to 360 degrees east, cut at the date line."""
    lon = data.lon.values
    if lon.max() <= 180 or lon.max() - lon.min() < 300:
        return data
    return data.assign_coords(lon=(lon + 180) % 360 - 180).sortby("lon")


def _edges(centres: np.ndarray) -> np.ndarray:
    """Where cells begin and end, given where they lie [degrees]."""
    centres = np.asarray(centres, "float64")
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    between = (centres[:-1] + centres[1:]) / 2
    return np.concatenate(
        [[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]]
    )


def _degrees(axis: Axes, *, last: bool, first: bool) -> None:
    """Labels of longitude and latitude, at the outer maps of a figure."""
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 3, 6, 10]))
    axis.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 3, 6, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _east(x)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _north(y)))
    axis.tick_params(labelbottom=True, labelleft=first)
    for spine in axis.spines.values():
        spine.set_visible(True)


def _east(lon: float) -> str:
    lon = (float(lon) + 180) % 360 - 180
    side = "" if lon in (0, -180) else "E" if lon > 0 else "W"
    return f"{abs(lon):.4g}°{side}"


def _north(lat: float) -> str:
    lat = float(lat)
    return f"{abs(lat):.4g}°{'' if lat == 0 else 'N' if lat > 0 else 'S'}"
