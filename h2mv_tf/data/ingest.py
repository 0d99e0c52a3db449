"""Ingest: from any CF data set to a store.

Finds the forcing, observations, static inputs and land mask of one data set
(NetCDF or Zarr, on a grid of latitude and longitude or at sites), brings them
to the units of the registry and writes a store:

    report = ingest("era5.nc", "era5.zarr", mapping={"rn": "ssr+str"})
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import cf_xarray  # noqa: F401  gives a data set its `.cf`
import numpy as np
import pandas as pd
import pint
import xarray as xr
from cf_xarray.units import units

from h2mv_tf import __version__
from h2mv_tf.data.store import DAY, MASK, STATIC
from h2mv_tf.data.writing import write_store
from h2mv_tf.errors import UserError
from h2mv_tf.variables import CONSTRAINTS, FORCING, VARIABLES, Variable, find

# Names beside those of the registry, `+` adds up: ERA5's are in the parameter
# database of ECMWF, `lwe_thickness` is that of the GRACE products.
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "net_radiation": ("msnswrf+msnlwrf", "avg_snswrf+avg_snlwrf", "ssr+str"),
    "precipitation": ("mtpr", "avg_tprate", "tp"),
    "air_temperature": ("t2m",),
    "runoff": ("mror", "avg_rorwe", "ro"),
    "tws": ("lwe_thickness",),
}
# cfconventions.org/Data/cf-standard-names/current
OTHER_STANDARD_NAMES: Mapping[str, tuple[str, ...]] = {
    "net_radiation": (
        "surface_net_downward_shortwave_flux+surface_net_downward_longwave_flux",
    ),
    "precipitation": ("lwe_precipitation_rate",),
    "evapotranspiration": ("water_evaporation_flux", "lwe_water_evaporation_rate"),
    "swe": ("lwe_thickness_of_surface_snow_amount",),
    "fapar": (
        "fraction_of_surface_downwelling_photosynthetic_radiative_flux_"
        "absorbed_by_vegetation",
    ),
}
LAND_NAMES = (MASK, "sftlf")
LAND_STANDARD_NAMES = ("land_binary_mask", "land_area_fraction")
COORDINATES = {
    "time": {"standard_name": "time"},
    "lat": {"standard_name": "latitude", "units": "degrees_north"},
    "lon": {"standard_name": "longitude", "units": "degrees_east"},
}
SERIES = (*FORCING, *CONSTRAINTS)
PREC = VARIABLES["precipitation"].group
ROUNDING = 0.1  # mm d-1; precipitation that is negative by less than this is none

WATER = pint.Context()  # an amount of water is a depth, at 1000 kg m-3
for _per_area, _depth in (
    ("[mass] / [length] ** 2", "[length]"),
    ("[mass] / [length] ** 2 / [time]", "[length] / [time]"),
):
    WATER.add_transformation(
        _per_area, _depth, lambda _, amount: amount / units("1000 kg m-3")
    )

Notes = tuple[str, ...]
Chosen = Mapping[str, tuple[str, ...]]  # variables of the data set, by name or `mask`


class Row(NamedTuple):
    """Where one variable of the store came from; range and gaps are of the land."""

    group: str
    name: str
    source: str  # variables of the data set, those joined by `+` added up
    source_units: str
    units: str
    minimum: float
    maximum: float
    missing: float  # share of the values


class Report(NamedTuple):
    """What ingest took from where."""

    rows: tuple[Row, ...]
    cells: int  # of land
    period: tuple[pd.Timestamp, pd.Timestamp]
    notes: Notes


def ingest(
    source: str | Path,
    to: str | Path,
    *,
    mapping: Mapping[str, str] | None = None,
    zarr_format: int = 3,
) -> Report:
    """Turns a data set into a store.

    Args:
        source: A NetCDF file or a Zarr store with CF attributes, of daily time
            and either latitude and longitude or the one dimension of the sites.
        to: The store; must not exist.
        mapping: Variables of the data set by group, name or CMIP name, as in
            {"rn": "ssr+str", "mask": "lsm"}; "" leaves a constraint out. What it
            does not tell is found by name, then by standard name.
        zarr_format: 2 or 3.

    Returns:
        What was taken from where.

    Raises:
        UserError: The store exists; the source cannot be read, lacks forcing, has
            an unknown layout or units that cannot be converted, is not daily, or
            its forcing has gaps or values out of bounds.
    """
    source, to = Path(source), Path(to)
    if to.exists():
        raise UserError(f"'{to}' exists. Remove it, or choose another name.")
    with _opened(source) as dataset:
        try:
            fields, notes = _fields(dataset, mapping or {})
        except UserError as error:
            raise UserError(f"Source '{source}': {error}") from error
        attributes = _attributes(dataset, source)
    write_store(to, fields, attributes=attributes, zarr_format=zarr_format)
    return _report(fields, notes)


def _opened(source: Path) -> xr.Dataset:
    """The data set, read when its values are asked for."""
    if not source.exists():
        raise UserError(f"There is no file '{source}'.")
    try:
        if source.is_dir():
            return xr.open_zarr(
                source, chunks=None, consolidated=False, decode_timedelta=False
            )
        return xr.open_dataset(source, decode_timedelta=False)
    except (OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"'{source}' cannot be read; expected NetCDF or Zarr with CF attributes. "
            f"The reader says: {reason}"
        ) from error


def _fields(
    dataset: xr.Dataset, mapping: Mapping[str, str]
) -> tuple[dict[str, xr.DataArray], Notes]:
    """The array of each group of the store, and notes on what was changed."""
    chosen = _chosen(dataset, mapping)
    dataset = _on_days(_on_cells(dataset))
    fields = {
        variable.group: _converted(dataset, sources, variable)
        for variable, sources in _sources(dataset, chosen).items()
    }
    fields[PREC], notes = _without_rounding(fields[PREC])
    forcing = {name: fields[VARIABLES[name].group] for name in FORCING}

    masks = _masks(dataset, chosen)
    static = _static(dataset, masks)
    land, left_out = _land(dataset, masks, forcing, static)
    for name, field in forcing.items():
        _refuse_unusable(field, land, VARIABLES[name])
    notes += left_out
    if static is None:
        static = _climate(forcing)
        derived = ", ".join(static["variable"].values)
        notes += (f"no static input found; derived {derived}",)
    return fields | {STATIC: static, MASK: land}, notes


# What the data set holds: cells, days, variables


def _chosen(dataset: xr.Dataset, mapping: Mapping[str, str]) -> Chosen:
    """The variables that the user names."""
    chosen = {}
    for key, value in mapping.items():
        variable = find(key, SERIES)
        if variable is None and key != MASK:
            groups = [VARIABLES[name].group for name in SERIES]
            raise UserError(
                f"--map {key}={value} names no variable of the store. Expected one of "
                f"{', '.join([*groups, MASK])}."
            )
        names = tuple(part.strip() for part in value.split("+") if part.strip())
        for name in names:
            if name not in dataset:
                raise UserError(
                    f"--map {key}={value}: there is no '{name}'. Found: "
                    f"{', '.join(map(str, dataset.data_vars))}."
                )
        chosen[variable.name if variable else MASK] = names
    return chosen


def _on_cells(dataset: xr.Dataset) -> xr.Dataset:
    """The data set with the dims time, lat and lon, or time and cell."""
    axes = {name: _axis(dataset, name) for name in COORDINATES}
    dims = [axis.dims for axis in axes.values()]
    if any(len(dim) != 1 for dim in dims) or dims[0] in dims[1:]:
        found = [f"{axis.name}({', '.join(axis.dims)})" for axis in axes.values()]
        raise UserError(
            f"the layout is unknown: {', '.join(found)}. Expected time(time) and "
            "lat(lat), lon(lon) or, for sites, lat(site), lon(site)."
        )
    time, lat, lon = (dim[0] for dim in dims)
    renamed = {time: "time"}
    renamed |= {lat: "cell"} if lat == lon else {lat: "lat", lon: "lon"}

    dataset = dataset.drop_vars([axis.name for axis in axes.values()])
    names = _names_of_sites(dataset, lat) if lat == lon else {}
    replaced = {*dataset.indexes, *renamed.values()}
    dataset = dataset.drop_vars(replaced, errors="ignore").reset_coords()
    dataset = dataset.rename_dims({k: v for k, v in renamed.items() if k != v})
    return dataset.assign_coords(names).assign_coords(
        {
            name: (renamed[axis.dims[0]], axis.to_index(), COORDINATES[name])
            for name, axis in axes.items()
        }
    )


def _axis(dataset: xr.Dataset, name: str) -> xr.DataArray:
    standard_name = COORDINATES[name]["standard_name"]
    others = dataset.cf.standard_names.get(standard_name, ())
    for key in (name, standard_name, *others):
        if key in dataset.variables:
            return dataset[key]
    raise UserError(
        f"there is no coordinate {standard_name}. Found: "
        f"{', '.join(map(str, dataset.variables))}."
    )


def _names_of_sites(dataset: xr.Dataset, dim: str) -> dict[str, tuple]:
    """The first text that each site has, as the coordinate `name`."""
    for variable in dataset.variables.values():
        if variable.dims == (dim,) and variable.dtype.kind in "OSUT":
            texts = [
                text.decode() if isinstance(text, bytes) else str(text)
                for text in variable.values
            ]
            return {"name": ("cell", texts, {"long_name": "name of the site"})}
    return {}


def _on_days(dataset: xr.Dataset) -> xr.Dataset:
    """The data set sorted by day, its time stamps at midnight."""
    time = dataset.indexes["time"]
    if not isinstance(time, pd.DatetimeIndex):
        calendar = getattr(time, "calendar", "without dates")
        raise UserError(
            f"time has the calendar '{calendar}'. Expected 'standard': convert it with "
            "xarray's convert_calendar."
        )
    dataset = dataset.sortby("time")
    time = dataset.indexes["time"]
    wrong = np.flatnonzero(np.diff(time.normalize()) != DAY)
    if len(time) < 2 or wrong.size:
        found = f"{len(time)} time step"
        if wrong.size:
            before, after = time[wrong[0]], time[wrong[0] + 1]
            found = f"{before:%Y-%m-%d %H:%M} followed by {after:%Y-%m-%d %H:%M}, "
            found += f"first of {wrong.size} such steps"
        raise UserError(
            f"time has to be daily without gaps; found {found}. Average it to days, "
            "or fill the gaps."
        )
    return dataset.assign_coords(time=("time", time.normalize(), COORDINATES["time"]))


def _sources(dataset: xr.Dataset, chosen: Chosen) -> dict[Variable, tuple[str, ...]]:
    """The variables of the data set that add up to each one of the store."""
    along_time = [n for n, data in dataset.data_vars.items() if "time" in data.dims]
    series = dataset[along_time]
    found = {}
    for variable in (VARIABLES[name] for name in SERIES):
        sources = chosen.get(variable.name)
        if sources is None:
            sources = _by_name(series, variable) or _by_standard_name(series, variable)
        if sources:
            found[variable] = sources
        elif variable.name in FORCING:
            raise UserError(
                f"there is no {variable.label}. Looked for the names "
                f"{', '.join(_names(variable))} and the standard names "
                f"{', '.join(_standard_names(variable))}; found along time: "
                f"{', '.join(along_time) or 'nothing'}. Name it with "
                f"--map {variable.group}=VARIABLE."
            )
    return found


def _by_name(series: xr.Dataset, variable: Variable) -> tuple[str, ...]:
    for names in _names(variable):
        if all(name in series for name in names.split("+")):
            return tuple(names.split("+"))
    return ()


def _by_standard_name(series: xr.Dataset, variable: Variable) -> tuple[str, ...]:
    for standard_names in _standard_names(variable):
        terms = [
            _with_standard_name(series, name) for name in standard_names.split("+")
        ]
        if all(len(names) == 1 for names in terms):
            return tuple(name for names in terms for name in names)
        if all(terms):
            several = " and ".join(", ".join(n) for n in terms if len(n) > 1)
            hint = "+".join(names[0] for names in terms)
            raise UserError(
                f"{variable.label} could be any of {several}, by their standard name. "
                f"Choose, as in --map {variable.group}={hint}."
            )
    return ()


def _with_standard_name(series: xr.Dataset, standard_name: str) -> list[str]:
    """Of several variables with a standard name the daily means, if there are any."""
    names = series.cf.standard_names.get(standard_name, ())
    names = [name for name in names if name in series.data_vars]
    means = [
        n for n in names if "time: mean" in series[n].attrs.get("cell_methods", "")
    ]
    return means or names


def _names(variable: Variable) -> list[str]:
    own = (variable.name, variable.group, variable.cmip, variable.published)
    other = OTHER_NAMES.get(variable.name, ())
    return list(dict.fromkeys(name for name in (*own, *other) if name))


def _standard_names(variable: Variable) -> list[str]:
    other = OTHER_STANDARD_NAMES.get(variable.name, ())
    return [name for name in (variable.standard_name, *other) if name]


# What the store takes of it


def _converted(
    dataset: xr.Dataset, sources: Sequence[str], variable: Variable
) -> xr.DataArray:
    """The sum of the sources in native units, NaN where it is missing."""
    total = sum(_in_native_units(dataset, name, variable) for name in sources)
    field = total.where(np.isfinite(total)).astype("float32")
    found = dict.fromkeys(str(dataset[name].attrs["units"]) for name in sources)
    field.attrs = variable.attributes | {
        "source": "+".join(sources),
        "source_units": ", ".join(found),
    }
    return field


def _in_native_units(
    dataset: xr.Dataset, name: str, variable: Variable
) -> xr.DataArray:
    data = _arranged(dataset[name], ("time", *_space(dataset)))
    found = data.attrs.get("units")
    if found is None:
        raise UserError(
            f"'{name}' has no units. Expected {variable.label}, or units that convert "
            "to it: set its attribute units."
        )
    try:
        values = _magnitude(data.values.astype("float64"), found, variable.units)
    except Exception as error:  # the parser of pint raises a dozen kinds
        raise UserError(
            f"'{name}' has units '{found}', which do not convert to {variable.label}."
            f"{_daily_sum(found, variable)} Mend its attribute units, or choose "
            f"otherwise with --map {variable.group}=VARIABLE."
        ) from error
    return data.copy(data=values)


def _magnitude(values: np.ndarray, found: str, wanted: str) -> np.ndarray:
    unit = units.Unit(str(found).removesuffix(" of water equivalent"))
    return units.Quantity(values, unit).to(units.Unit(wanted), WATER).magnitude


def _daily_sum(found: str, variable: Variable) -> str:
    """Advice for sums over a day whose units do not tell that they are."""
    try:
        _magnitude(np.ones(1), f"{found} d-1", variable.units)
    except Exception:
        return ""
    return f" If it is the sum of each day, its units are '{found} d-1'."


def _space(dataset: xr.Dataset) -> tuple[str, ...]:
    return ("cell",) if "cell" in dataset.dims else ("lat", "lon")


def _arranged(data: xr.DataArray, dims: tuple[str, ...]) -> xr.DataArray:
    """The array with its dims in this order; others have to be of size 1."""
    other = [dim for dim in data.dims if dim not in dims and data.sizes[dim] == 1]
    data = data.squeeze(other, drop=True)
    if set(data.dims) != set(dims):
        raise UserError(
            f"'{data.name}' has dims ({', '.join(map(str, data.dims))}). Expected "
            f"{', '.join(dims)}, in any order."
        )
    return data.transpose(*dims)


def _without_rounding(
    precipitation: xr.DataArray,
) -> tuple[xr.DataArray, Notes]:
    """Precipitation, zero where packing has left it a little negative."""
    negative = (precipitation < 0) & (precipitation >= -ROUNDING)
    if not negative.any():
        return precipitation, ()
    note = (
        f"{int(negative.sum())} values of precipitation from "
        f"{float(precipitation.where(negative).min()):.2g} to 0 mm d-1 set to 0"
    )
    return precipitation.where(~negative, 0), (note,)


def _masks(dataset: xr.Dataset, chosen: Chosen) -> tuple[str, ...]:
    """The land masks of the data set; the first one counts."""
    named = dataset.cf.standard_names
    names = [*chosen.get(MASK, ()), *LAND_NAMES]
    names += [n for standard in LAND_STANDARD_NAMES for n in named.get(standard, ())]
    return tuple(dict.fromkeys(name for name in names if name in dataset.data_vars))


def _land(
    dataset: xr.Dataset,
    masks: Sequence[str],
    forcing: Mapping[str, xr.DataArray],
    static: xr.DataArray | None,
) -> tuple[xr.DataArray, Notes]:
    """The cells of the mask that have data, and notes on those that have not."""
    unforced = [field.isnull().all("time") for field in forcing.values()]
    lacking = {"forcing": xr.concat(unforced, "variable").all("variable")}
    if static is not None:
        names = static["variable"].values
        lacking |= dict(zip(names, static.isnull(), strict=True))
    land = xr.ones_like(lacking["forcing"])
    if masks:
        mask = dataset[masks[0]]
        mask = mask.isel(time=0, drop=True) if "time" in mask.dims else mask
        half = 50 if mask.attrs.get("units") in ("%", "percent") else 0.5
        land = _arranged(mask, land.dims) > half
    notes = ()
    for what, cells in lacking.items():
        if (land & cells).any():
            notes += (f"{int((land & cells).sum())} cells left out: they lack {what}",)
        land = land & ~cells
    if not land.any():
        reason = "; ".join(notes) or f"'{masks[0]}' is 0 everywhere"
        raise UserError(f"none of the {land.size} cells is land: {reason}.")
    attributes = {"long_name": "land mask", "standard_name": "land_binary_mask"}
    source = masks[0] if masks else "cells with forcing"
    return land.astype("int8").assign_attrs(attributes, source=source), notes


def _refuse_unusable(field: xr.DataArray, land: xr.DataArray, variable: Variable):
    """Forcing has no gaps, and no values that no weather has."""
    low, high = variable.bounds
    what = f"{variable.label} ({field.attrs['source']})"
    missing = field.isnull() & (land == 1)
    outside = ((field < low) | (field > high)) & (land == 1)
    if missing.any():
        raise UserError(
            f"{what} is missing at {_first(missing)}, first of {int(missing.sum())} "
            "missing values. A cell has all forcing on every day, or none on any: fill "
            "the gaps, or take the cell out of the mask."
        )
    if outside.any():
        value = field.values[tuple(np.argwhere(outside.values)[0])]
        raise UserError(
            f"{what} has to lie between {low:g} and {high:g}; found {value:g} at "
            f"{_first(outside)}, first of {int(outside.sum())} values. Are its units "
            f"'{field.attrs['source_units']}' right?"
        )


def _first(wrong: xr.DataArray) -> str:
    """Cell and date of the first wrong value, in words."""
    at = wrong[dict(zip(wrong.dims, np.argwhere(wrong.values)[0], strict=True))]
    name = f"{at['name'].item()}, " if "name" in at.coords else ""
    return f"{name}lat {at.lat:g}, lon {at.lon:g} on {at.time.dt.strftime('%F').item()}"


def _static(dataset: xr.Dataset, masks: Sequence[str]) -> xr.DataArray | None:
    """The numbers that each cell has once, other than masks and identifiers."""
    space = _space(dataset)
    found = {
        str(name): _arranged(data, space).assign_attrs(source=str(name))
        for name, data in dataset.data_vars.items()
        if set(data.dims) == set(space)
        and data.dtype.kind in "fiu"
        and name not in masks
        and "cf_role" not in data.attrs
    }
    return _stacked(found) if found else None


def _climate(forcing: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Position and mean weather of each cell."""
    means = {
        f"mean_{name}": field.mean("time", keep_attrs=True).assign_attrs(
            source=f"mean of {field.attrs['source']}"
        )
        for name, field in forcing.items()
    }
    cell = means["mean_precipitation"]
    return _stacked(
        {
            standard_name: cell[name].broadcast_like(cell).assign_attrs(source=name)
            for name, standard_name in (("lat", "latitude"), ("lon", "longitude"))
        }
        | means
    )


def _stacked(inputs: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Static inputs as one array (variable, ...), with the source and units of each."""
    arrays = [
        data.where(np.isfinite(data)).astype("float32") for data in inputs.values()
    ]
    stacked = xr.concat(arrays, "variable", combine_attrs="drop").assign_coords(
        variable=list(inputs),
        source=("variable", [data.attrs["source"] for data in inputs.values()]),
        units=(
            "variable",
            [str(data.attrs.get("units", "")) for data in inputs.values()],
        ),
    )
    return stacked.assign_attrs(long_name="static inputs")


def _report(fields: Mapping[str, xr.DataArray], notes: Notes) -> Report:
    land = fields[MASK].values == 1
    rows = []
    for group, field in fields.items():
        if group == STATIC:
            rows += [_row(STATIC, of["variable"].item(), of, land) for of in field]
        elif group != MASK:
            rows.append(_row(group, find(group, SERIES).name, field, land))
    time = fields[PREC].indexes["time"]
    return Report(tuple(rows), int(land.sum()), (time[0], time[-1]), notes)


def _row(group: str, name: str, field: xr.DataArray, land: np.ndarray) -> Row:
    values = field.values[..., land].ravel()
    about = {key: of.item() for key, of in field.coords.items() if not of.dims}
    about |= field.attrs
    return Row(
        group=group,
        name=name,
        source=about["source"],
        source_units=about.get("source_units", about["units"]),
        units=about["units"],
        minimum=float(np.fmin.reduce(values)),
        maximum=float(np.fmax.reduce(values)),
        missing=float(np.isnan(values).mean()),
    )


def _attributes(dataset: xr.Dataset, source: Path) -> dict[str, str]:
    """Where the store came from."""
    lines = [f"{datetime.now(UTC):%FT%TZ} h2mv_tf {__version__}: ingest {source.name}"]
    if "history" in dataset.attrs:
        lines.append(str(dataset.attrs["history"]))
    return {
        "title": str(dataset.attrs.get("title", source.stem)),
        "source": source.name,
        "history": "\n".join(lines),
    }
