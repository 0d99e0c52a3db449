"""Maps of a grid, and sites as points at their place."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from h2mv_tf.plots import looks, sites, style
from h2mv_tf.plots.fields import Field, score_fields
from h2mv_tf.plots.looks import Look

COLUMNS = 4  # of a legend
REGIONAL = 90.0  # degrees; a larger map is stretched at its poles as is usual


@style.journal
def field_maps(
    fields: Sequence[Field], *, columns: int = 3, land: xr.DataArray | None = None
) -> Figure:
    """Maps of quantities; of sites, points at their place or a line for each.

    Args:
        fields: The quantities, all of the same cells.
        columns: Maps side by side.
        land: Land mask (*space), whose cells without a value are white; by default
            land is where the first quantity has one.
    """
    first = fields[0].data
    land = first.notnull() if land is None else land
    if first.ndim == 1 and first.size <= sites.FEW:
        return sites.lines(fields)
    columns = min(columns, len(fields))
    west_east, south_north, ratio = _extent(land)
    figure, slots = style.slots(
        len(fields), columns, ratio=ratio, left=10, gap=5, above=6, below=13
    )
    for number, (slot, field) in enumerate(zip(slots, fields, strict=True)):
        axis = slot.axes(figure)
        if field.data.ndim == 2:
            drawn = _grid(axis, field)
            _outline(axis, land)
        else:
            drawn = _points(axis, field)
        axis.set(xlim=west_east, ylim=south_north)
        _degrees(axis, first=not number % columns)
        style.headed(axis, number, field.heading)
        bar = figure.colorbar(
            drawn,
            cax=slot.below(5.5, 2.2, 0.94).axes(figure),
            orientation="horizontal",
            extend=field.look.extend,
            extendfrac=0.04,
        )
        bar.ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        bar.outline.set_linewidth(0.5)
    return figure


def score_maps(
    scores: xr.DataArray, variable: str, *, land: xr.DataArray | None = None
) -> Figure:
    """Maps of the scores of a constraint.

    Args:
        scores: (metric, *space), as `score` of an evaluation.
        variable: The constraint.
        land: As for `field_maps`.
    """
    fields = score_fields(scores, variable)
    return field_maps(fields, columns=2 if len(fields) <= 4 else 3, land=land)


def kinds_map(
    roles: xr.DataArray, kinds: Mapping[str, tuple[object, np.ndarray]]
) -> Figure:
    """A map of cells of several kinds.

    Args:
        roles: (*space) with `lat` and `lon`: 0 is sea.
        kinds: Colour and members (*space) of each kind, by its name.
    """
    land = roles != 0
    west_east, south_north, ratio = _extent(land)
    foot = 4.0 * -(-len(kinds) // COLUMNS) + 3
    figure, (slot,) = style.slots(
        1, 1, ratio=ratio, left=10, gap=0, above=3, below=6, foot=foot
    )
    axis = slot.axes(figure)
    marker = "s" if roles.ndim == 2 else "o"
    for name, (color, member) in kinds.items():
        member = land.copy(data=member)
        cells = [], []
        if roles.ndim == 2:
            look = Look(looks.flat(color), 0.0, 1.0, "neither")
            _grid(axis, Field(member.astype("float32").where(member), "", "1", look))
        else:
            cells = roles.lon[member], roles.lat[member]
        count = int(member.sum())
        label = f"{name}: {count} cell{'s' * (count != 1)}"
        axis.plot(
            *cells, marker, color=color, ms=5, mec="0.25", mew=0.3, ls="", label=label
        )
    if roles.ndim == 2:
        _outline(axis, land)
    else:
        sites.named(axis, roles)
    axis.set(xlim=west_east, ylim=south_north)
    _degrees(axis, first=True)
    figure.legend(loc="lower center", ncols=COLUMNS)
    return figure


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


def _outline(axis: Axes, mask: xr.DataArray) -> None:
    """Grey sea, white land below all that is drawn, and a line where the land ends."""
    axis.set_facecolor(style.SEA)
    mask = _around_greenwich(mask)
    lon, lat = _edges(mask.lon.values), _edges(mask.lat.values)
    axis.pcolormesh(
        lon,
        lat,
        np.ma.masked_equal(mask.values.astype("uint8"), 0),
        cmap=looks.flat("white"),
        zorder=0,
        rasterized=True,
    )
    land = np.pad(mask.values.astype(bool), 1)
    upright = np.argwhere(land[1:-1, 1:] != land[1:-1, :-1])
    level = np.argwhere(land[1:, 1:-1] != land[:-1, 1:-1])
    lines = [[(lon[c], lat[r]), (lon[c], lat[r + 1])] for r, c in upright]
    lines += [[(lon[c], lat[r]), (lon[c + 1], lat[r])] for r, c in level]
    axis.add_collection(LineCollection(lines, colors="0.25", linewidths=0.3, zorder=2))


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


def _extent(land: xr.DataArray):
    """Limits of longitude and latitude around the land, and height per width."""
    if land.ndim == 1:
        lon, lat = style.sided(land.lon.values), style.sided(land.lat.values)
    else:
        land = _around_greenwich(land)
        lon = _span(_edges(land.lon.values), land.values.any(axis=0))
        lat = _span(_edges(land.lat.values), land.values.any(axis=1))
    ratio = (lat[1] - lat[0]) / (lon[1] - lon[0])
    if lat[1] - lat[0] < REGIONAL:
        ratio /= max(np.cos(np.radians(np.mean(lat))), 0.2)
    return lon, lat, float(np.clip(ratio, 0.15, 3.0))


def _span(edges: np.ndarray, any_land: np.ndarray) -> tuple[float, float]:
    (place,) = np.nonzero(any_land)
    found = edges[[place[0], place[-1] + 1]] if len(place) else edges[[0, -1]]
    margin = abs(edges[1] - edges[0])
    ends = sorted((edges[0], edges[-1]))
    return max(min(found) - margin, ends[0]), min(max(found) + margin, ends[1])


def _around_greenwich(data: xr.DataArray) -> xr.DataArray:
    """A world from 0 to 360 degrees east, cut at the date line."""
    lon = data.lon.values
    width = np.ptp(lon) * len(lon) / max(len(lon) - 1, 1)
    if lon.max() <= 180 or width < 359:
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


def _degrees(axis: Axes, *, first: bool) -> None:
    """Labels of longitude, and of latitude at the first map of a row."""
    steps = [1, 2, 3, 6, 10]
    # None at the ends, where the next map begins.
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=steps, prune="both"))
    axis.yaxis.set_major_locator(MaxNLocator(5, steps=steps))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: sites.east(x)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: sites.north(y)))
    axis.tick_params(labelleft=first)
    axis.spines[:].set_visible(True)
