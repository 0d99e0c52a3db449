"""The files as one data set: lazy arrays on the dims time and lat, lon or cell.

Latitude runs from north to south and longitude from -180 to 180, whatever the files
have. A variable that several files hold is joined along time; where two files tell
different values of the same time, nothing is joined.
"""

import contextlib
import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cf_xarray  # noqa: F401  gives a data set its `.cf`
import dask.array
import netCDF4
import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf.data.metadata import open_lazily
from h2mv_tf.errors import UnreadableError, UserError, listed, words

COORDINATES = {
    "time": {"standard_name": "time"},
    "lat": {"standard_name": "latitude", "units": "degrees_north"},
    "lon": {"standard_name": "longitude", "units": "degrees_east"},
}
SPACE = ("lat", "lon", "cell")
CHUNK_CACHE = 1_000_000  # bytes, for each variable of each file
SAME_PLACE = 0.02  # of the cells' distance, by which coordinates may differ


class Piece(NamedTuple):
    """A variable in one file."""

    path: Path
    data: xr.DataArray
    bounded: bool  # whether its time stamps are the middles of known bounds


class Source(NamedTuple):
    """All files together."""

    paths: tuple[Path, ...]
    arrays: Mapping[str, xr.DataArray]  # joined along time
    pieces: Mapping[str, tuple[Piece, ...]]  # what was joined
    attributes: Mapping[str, object]  # of the first file

    @property
    def label(self) -> str:
        """The files in words."""
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"Source '{self.paths[0]}'{more}"

    def bounded(self, name: str) -> bool:
        """Whether the time stamps of a variable are the middles of known bounds.

        Args:
            name: The variable.
        """
        return all(piece.bounded for piece in self.pieces[name])

    def unreadable(self, names: Sequence[str], error: Exception) -> UserError:
        """What to tell where values cannot be read: in which file.

        Args:
            names: The variables that were read.
            error: What the reader raised.
        """
        for path, data in ((p.path, p.data) for n in names for p in self.pieces[n]):
            try:
                data.max().compute()
            except Exception as found:  # readers raise what they like
                return UnreadableError(
                    f"'{path}' cannot be read at '{data.name}'; it may be truncated. "
                    f"The reader says: {words(found)}"
                )
        return UnreadableError(
            f"'{'+'.join(names)}' cannot be read. The reader says: {words(error)}"
        )


def paths_of(sources: Sequence[str | Path]) -> tuple[Path, ...]:
    """The files that paths and patterns name, each once.

    Args:
        sources: Paths, or patterns such as `era5/*.nc`.

    Raises:
        UserError: There is no such file.
    """
    found = []
    for source in map(str, sources):
        matches = [source] if Path(source).exists() else sorted(glob.glob(source))
        if not matches:
            raise UserError(f"There is no file '{source}'.")
        found += matches
    return tuple(dict.fromkeys(map(Path, found)))


@contextlib.contextmanager
def reading(paths: Sequence[Path], chunk_bytes: float) -> Iterator[Source]:
    """Opens the files, until the block ends; values along time are not read yet.

    Args:
        paths: NetCDF files or Zarr stores with CF attributes.
        chunk_bytes: Size of the parts that values will be read in.

    Raises:
        UserError: A file cannot be read or is of an unknown layout, or two files
            contradict each other.
    """
    with contextlib.ExitStack() as opened:
        # Each chunk is read once: what the library keeps of it is wasted.
        opened.callback(netCDF4.set_chunk_cache, *netCDF4.get_chunk_cache())
        netCDF4.set_chunk_cache(CHUNK_CACHE)
        datasets = [opened.enter_context(_opened(path)) for path in paths]
        pieces: dict[str, list[Piece]] = {}
        for path, dataset in zip(paths, datasets, strict=True):
            try:
                arranged, bounded = _arranged(dataset)
                for name, data in arranged.data_vars.items():
                    if data.dtype.kind in "fiu" and {*data.dims} & {*SPACE}:
                        lazy = _north_up(_chunked(data, chunk_bytes))
                        piece = Piece(path, lazy, bounded)
                        pieces.setdefault(str(name), []).append(piece)
            except UserError as error:
                raise UserError(f"Source '{path}': {error}") from error
            except Exception as error:  # readers raise what they like
                raise UserError(
                    f"Source '{path}': its coordinates cannot be read. The reader "
                    f"says: {words(error)}"
                ) from error
        if not any("time" in p.data.coords for all in pieces.values() for p in all):
            raise UserError(f"Source '{paths[0]}': {lacking('time', datasets[0])}")
        yield Source(
            paths=tuple(paths),
            arrays={name: _joined(found) for name, found in pieces.items()},
            pieces={name: tuple(found) for name, found in pieces.items()},
            attributes=datasets[0].attrs,
        )


def _opened(path: Path) -> xr.Dataset:
    try:
        return open_lazily(path, chunks=None, decode_timedelta=False)
    except UserError:
        raise
    except Exception as error:  # readers raise what they like
        raise UserError(
            f"'{path}' cannot be read; expected NetCDF or Zarr with CF attributes. "
            f"The reader says: {words(error)}"
        ) from error


# One file: its axes under our names


def _arranged(dataset: xr.Dataset) -> tuple[xr.Dataset, bool]:
    """The data set on time, lat and lon or cell, and whether time has bounds."""
    axes = {name: axis_of(dataset, name) for name in COORDINATES}
    for name in ("lat", "lon"):
        if axes[name] is None:
            raise UserError(lacking(name, dataset))
    axes = {name: axis for name, axis in axes.items() if axis is not None}
    if not axes["lat"].dims and not axes["lon"].dims:  # one point that was cut out
        dataset = dataset.drop_vars([axes["lat"].name, axes["lon"].name])
        dataset = dataset.expand_dims("point")
        for name in ("lat", "lon"):
            axes[name] = axes[name].drop_vars(axes[name].coords).expand_dims("point")
    if "time" in axes and not axes["time"].dims:
        dataset = dataset.drop_vars(axes.pop("time").name)
    dims = [axis.dims for axis in axes.values()]
    if any(len(of) != 1 for of in dims) or dims[:-2] in (dims[-2:-1], dims[-1:]):
        found = [f"{axis.name}({', '.join(axis.dims)})" for axis in axes.values()]
        raise UserError(
            f"the layout is unknown: {', '.join(found)}. Expected time(time) and "
            "lat(lat), lon(lon) or, for sites, lat(site), lon(site)."
        )

    sites = axes["lat"].dims == axes["lon"].dims
    renamed = {axis.dims[0]: name for name, axis in axes.items()}
    names = {}
    if sites:
        renamed[axes["lat"].dims[0]] = "cell"
        names = names_of_sites(dataset, axes["lat"].dims[0])
    values = {name: axis.values for name, axis in axes.items()}
    values["lon"] = np.where(values["lon"] >= 180, values["lon"] - 360, values["lon"])
    middles = None
    if "time" in axes:
        middles = _middles(dataset, axes["time"])
        values["time"] = dates(axes["time"]) if middles is None else middles

    dataset = dataset.drop_vars([axis.name for axis in axes.values()], errors="ignore")
    replaced = {*dataset.indexes, *renamed.values()}
    dataset = dataset.drop_vars(replaced, errors="ignore").reset_coords()
    dataset = dataset.rename_dims({k: v for k, v in renamed.items() if k != v})
    dataset = dataset.assign_coords(names).assign_coords(
        {
            name: (renamed[axes[name].dims[0]], of, COORDINATES[name])
            for name, of in values.items()
        }
    )
    return dataset, middles is not None


def axis_of(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
    """The coordinate of time, latitude or longitude, by its name or standard name.

    Args:
        dataset: As the file has it.
        name: Of `COORDINATES`.
    """
    standard_name = COORDINATES[name]["standard_name"]
    others = dataset.cf.standard_names.get(standard_name, ())
    for key in (name, standard_name, *others):
        if key in dataset.variables:
            return dataset[key]
    return None


def lacking(name: str, dataset: xr.Dataset) -> str:
    """Tells that a data set has no such coordinate.

    Args:
        name: Of `COORDINATES`.
        dataset: As the file has it.
    """
    return (
        f"there is no coordinate {COORDINATES[name]['standard_name']}. Found: "
        f"{listed(dataset.variables)}."
    )


def names_of_sites(dataset: xr.Dataset, dim: str) -> dict[str, tuple]:
    """The first text that each site has, as the coordinate `name`.

    Args:
        dataset: As the file has it.
        dim: Its dimension of sites.
    """
    for variable in dataset.variables.values():
        if variable.dims == (dim,) and variable.dtype.kind in "OSUT":
            texts = [
                text.decode() if isinstance(text, bytes) else str(text)
                for text in variable.values
            ]
            return {"name": ("cell", texts, {"long_name": "name of the site"})}
    return {}


def _middles(dataset: xr.Dataset, time: xr.DataArray) -> pd.DatetimeIndex | None:
    """The middles of the time steps, where the file has their bounds."""
    dates(time)
    bounds = dataset.get(time.attrs.get("bounds", time.encoding.get("bounds")))
    if bounds is None or bounds.shape != (time.size, 2) or bounds.dtype.kind != "M":
        return None
    start, end = bounds.transpose(time.dims[0], ...).values.T
    if np.isnat(start).any() or (end <= start).any():
        return None
    return pd.DatetimeIndex(start + (end - start) / 2).round("s")


def dates(time: xr.DataArray) -> pd.DatetimeIndex:
    """The time stamps, to the second.

    Args:
        time: The coordinate.

    Raises:
        UserError: The calendar is another one, or a stamp is missing.
    """
    index = time.to_index()
    if not isinstance(index, pd.DatetimeIndex):
        calendar = getattr(index, "calendar", "without dates")
        raise UserError(
            f"time has the calendar '{calendar}'. Expected 'standard': convert it with "
            "xarray's convert_calendar."
        )
    if index.hasnans:
        raise UserError("time has missing values. Expected a date for each step.")
    return index.round("s")


def _chunked(data: xr.DataArray, chunk_bytes: float) -> xr.DataArray:
    """The array, to be read in parts along its chunks on disk; small ones at once."""
    if "time" not in data.dims:
        return data
    on_disk = data.encoding.get("preferred_chunks") or {}
    chunks = dask.array.core.normalize_chunks(
        "auto",
        data.shape,
        limit=chunk_bytes,
        dtype=np.dtype("float64"),  # what they are converted in
        previous_chunks=tuple(on_disk.get(dim, 0) or 1 for dim in data.dims)
        if on_disk
        else None,
    )
    lazy = data.chunk(dict(zip(data.dims, chunks, strict=True)))
    return data.copy(data=lazy.data)  # whose coordinates are not lazy


# All files: joined along time


def _joined(pieces: Sequence[Piece]) -> xr.DataArray:
    """A variable of all files, from north to south and from west to east."""
    first = pieces[0]
    for piece in pieces[1:]:
        _refuse_other_layout(first, piece)
    if "time" not in first.data.dims:
        for piece in pieces[1:]:
            _refuse_other_values(first, piece, first.data, piece.data)
        return _read(first)
    pieces = sorted(pieces, key=lambda piece: piece.data.indexes["time"].min())
    joined: list[Piece] = []
    end = pd.Timestamp.min
    for piece in pieces:
        data = piece.data.assign_coords(
            {dim: first.data[dim] for dim in SPACE if dim in first.data.indexes}
        )
        time = data.indexes["time"]
        for before in joined if time.min() <= end else ():
            known = data.indexes["time"].isin(before.data.indexes["time"])
            if known.any():
                again = data.isel(time=known)
                was = before.data.sel(time=again.indexes["time"])
                _refuse_other_values(before, piece, was, again)
                data = data.isel(time=~known)
        end = max(end, time.max())
        if data.sizes["time"]:
            joined.append(piece._replace(data=data))
    data = joined[0].data
    if len(joined) > 1:
        data = xr.concat(
            [piece.data for piece in joined],
            "time",
            coords="minimal",
            compat="override",
            join="override",
            combine_attrs="override",
        )
    if not data.indexes["time"].is_monotonic_increasing:
        data = data.sortby("time")
    return data


def _read(piece: Piece) -> xr.DataArray:
    try:
        return piece.data.load()
    except Exception as error:  # readers raise what they like
        raise UserError(
            f"'{piece.path}' cannot be read at '{piece.data.name}'. The reader says: "
            f"{words(error)}"
        ) from error


def _north_up(data: xr.DataArray) -> xr.DataArray:
    """The grid from north to south and from west to east."""
    for dim, ascending in (("lat", False), ("lon", True)):
        if dim not in data.indexes:
            continue
        index = data.indexes[dim]
        if not index.is_unique or index.hasnans:
            raise UserError(
                f"'{data.name}' has a {dim} that is missing or there twice."
            )
        right, wrong = "is_monotonic_increasing", "is_monotonic_decreasing"
        if not ascending:
            right, wrong = wrong, right
        if getattr(index, wrong) and index.size > 1:
            data = data.isel({dim: slice(None, None, -1)})
        elif not getattr(index, right):
            data = data.sortby(dim, ascending=ascending)
    return data


def _refuse_other_layout(first: Piece, second: Piece) -> None:
    a, b = first.data, second.data
    files = f"'{first.path}' and '{second.path}'"
    for what in ("units", "cell_methods"):
        if a.attrs.get(what) != b.attrs.get(what):
            raise UserError(
                f"{files} give '{a.name}' different {what}: {a.attrs.get(what)} and "
                f"{b.attrs.get(what)}. Take one, or mend its attribute."
            )
    if set(a.dims) != set(b.dims):
        raise UserError(
            f"{files} hold '{a.name}' on different dims: ({', '.join(a.dims)}) and "
            f"({', '.join(b.dims)}). Rename one, or leave it out."
        )
    if difference := other_places(a, b):
        raise UserError(
            f"{files} hold '{a.name}' at different places: {difference}. Put them "
            "into stores of their own, or on one grid."
        )


def other_places(a: xr.DataArray, b: xr.DataArray) -> str:
    """How the cells of two arrays differ, in words; nothing where they do not.

    Args:
        a: The one.
        b: The other.
    """
    for name in ("lat", "lon"):
        x, y = np.sort(a[name].values), np.sort(b[name].values)
        if x.size != y.size:
            return f"{x.size} and {y.size} values of {name}"
        distance = np.diff(np.unique(x)).min() if np.unique(x).size > 1 else 1.0
        if a[name].dims == ("cell",):
            x, y, distance = a[name].values, b[name].values, 1.0
        apart = np.abs(x - y)
        if (apart > SAME_PLACE * distance).any():
            return f"{name} {x[apart.argmax()]:g} and {y[apart.argmax()]:g}"
    return ""


def _refuse_other_values(first: Piece, second: Piece, a, b) -> None:
    """Refuses what is told twice, and differently."""
    a, b = a.transpose(*b.dims), b.copy(deep=False)
    try:
        differ = ~((a.data == b.data) | (np.isnan(a.data) & np.isnan(b.data)))
        count = int(np.asarray(differ.sum()))
    except Exception as error:  # readers raise what they like
        raise UserError(
            f"'{first.path}' or '{second.path}' cannot be read at '{a.name}'. The "
            f"reader says: {words(error)}"
        ) from error
    if not count:
        return
    when = ""
    if "time" in b.dims:
        others = tuple(n for n, dim in enumerate(b.dims) if dim != "time")
        days = np.asarray(differ.any(axis=others))
        when = f" from {b.indexes['time'][days].min():%Y-%m-%d %H:%M} on"
    raise UserError(
        f"'{first.path}' and '{second.path}' hold different values of '{a.name}'"
        f"{when}: {count} of {b.size} that both have. Leave one of them out."
    )
