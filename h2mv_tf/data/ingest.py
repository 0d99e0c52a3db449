"""Ingest: from any CF data set to a store.

Finds the forcing, observations, static inputs and land mask of one data set
(NetCDF or Zarr, on a grid of latitude and longitude or at sites), brings them
to the units of the registry and writes a store:

    report = ingest("era5.nc", "era5.zarr", mapping={"rn": "ssr+str"})
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import cf_xarray  # noqa: F401  gives a data set its `.cf`
import numpy as np
import pandas as pd
import pint
import xarray as xr
from cf_xarray.units import units

from h2mv_tf.data.store import DAY, MASK, STATIC, write_store
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
    notes: tuple[str, ...]


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
    land, time = fields[MASK] == 1, fields[PREC].indexes["time"]
    return Report(_rows(fields, land), int(land.sum()), (time[0], time[-1]), notes)


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
) -> tuple[dict[str, xr.DataArray], tuple[str, ...]]:
    """The array of each group of the store, and notes on what was changed."""
    chosen = _chosen(mapping, dataset)
    dataset = _on_days(_on_cells(dataset))
    fields = {
        variable.group: _converted(dataset, sources, variable)
        for variable, sources in _sources(dataset, chosen).items()
    }
    fields[PREC], notes = _without_rounding(fields[PREC])
    forcing = {name: fields[VARIABLES[name].group] for name in FORCING}

    masks = _masks(dataset, chosen)
    land, left_out = _forced_land(dataset, masks, forcing)
    notes += left_out
    for name, field in forcing.items():
        _refuse_gaps(field, land, VARIABLES[name])
        _refuse_out_of_bounds(field, land, VARIABLES[name])

    static = _static(dataset, masks)
    if static is None:
        static = _climate(forcing)
        notes += (
            "no static input found: derived " + ", ".join(static["variable"].values),
        )
    land, left_out = _complete_land(land, static)
    return fields | {STATIC: static, MASK: _mask(land, masks)}, notes + left_out


def _chosen(
    mapping: Mapping[str, str], dataset: xr.Dataset
) -> dict[str, tuple[str, ...]]:
    """The variables that the user names, by the registry's name or `mask`."""
    chosen = {}
    for key, value in mapping.items():
        variable = find(key, (*FORCING, *CONSTRAINTS))
        if variable is None and key != MASK:
            groups = [VARIABLES[name].group for name in (*FORCING, *CONSTRAINTS)]
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
    axes = {}
    for name, attributes in COORDINATES.items():
        long = attributes["standard_name"]
        known = (name, long, *dataset.cf.standard_names.get(long, ()))
        found = [key for key in known if key in dataset.variables]
        if not found:
            raise UserError(
                f"there is no coordinate {long}. Found: "
                f"{', '.join(map(str, dataset.variables))}."
            )
        axes[name] = dataset[found[0]]
    dims = [axis.dims for axis in axes.values()]
    if any(len(dim) != 1 for dim in dims) or dims[0] in dims[1:]:
        raise UserError(
            "the layout is unknown: "
            + ", ".join(f"{axis.name}{axis.dims}" for axis in axes.values())
            + ". Expected lat(lat), lon(lon) or, for sites, lat(site), lon(site)."
        )
    time, lat, lon = (dim[0] for dim in dims)
    renamed = {time: "time"}
    renamed |= {lat: "cell"} if lat == lon else {lat: "lat", lon: "lon"}

    dataset = dataset.drop_vars([axis.name for axis in axes.values()])
    names = _names_of_sites(dataset, lat) if lat == lon else None
    dataset = dataset.drop_vars(set(dataset.indexes)).reset_coords()
    dataset = dataset.rename_dims({k: v for k, v in renamed.items() if k != v})
    for name, axis in axes.items():
        values = axis.to_index() if name == "time" else axis.values
        dataset = dataset.assign_coords(
            {name: (renamed[axis.dims[0]], values, COORDINATES[name])}
        )
    if names is not None:
        dataset = dataset.assign_coords(name=("cell", names, {"long_name": "name"}))
    return dataset


def _names_of_sites(dataset: xr.Dataset, dim: str) -> np.ndarray | None:
    """The first text that each site has."""
    for variable in dataset.variables.values():
        if variable.dims == (dim,) and variable.dtype.kind in "OSUT":
            return np.array(
                [
                    v.decode() if isinstance(v, bytes) else str(v)
                    for v in variable.values
                ]
            )
    return None


def _on_days(dataset: xr.Dataset) -> xr.Dataset:
    """The data set sorted by day, its time stamps at midnight."""
    time = dataset.indexes["time"]
    if not isinstance(time, pd.DatetimeIndex):
        found = getattr(time, "calendar", None)
        found = f"time has calendar '{found}'" if found else "time has no dates"
        raise UserError(
            f"{found}. Expected the standard calendar; convert it with xarray's "
            "convert_calendar."
        )
    dataset = dataset.sortby("time")
    time = dataset.indexes["time"]
    days = time.normalize()
    wrong = np.flatnonzero(np.diff(days) != DAY)
    if len(days) < 2 or wrong.size:
        found = f"{len(days)} time step"
        if wrong.size:
            before, after = time[wrong[0]], time[wrong[0] + 1]
            found = f"{before:%Y-%m-%d %H:%M} followed by {after:%Y-%m-%d %H:%M}, "
            found += f"first of {wrong.size} such steps"
        raise UserError(
            f"time has to be daily without gaps; found {found}. Average it to days, "
            "or fill the gaps."
        )
    return dataset.assign_coords(time=("time", days, COORDINATES["time"]))


def _sources(
    dataset: xr.Dataset, chosen: Mapping[str, tuple[str, ...]]
) -> dict[Variable, tuple[str, ...]]:
    """The variables of the data set that add up to each one of the store."""
    found = {}
    for variable in map(VARIABLES.get, (*FORCING, *CONSTRAINTS)):
        sources = chosen.get(variable.name)
        if sources is None:
            sources = _by_name(dataset, variable) or _by_standard_name(
                dataset, variable
            )
        if sources:
            found[variable] = sources
        elif variable.name in FORCING:
            raise UserError(
                f"there is no {variable.label}. Looked for the names "
                f"{', '.join(_names(variable))} and the standard names "
                f"{', '.join(_standard_names(variable))}. Found: "
                f"{', '.join(_series(dataset)) or 'nothing along time'}. Name it with "
                f"--map {variable.group}=VARIABLE."
            )
    return found


def _by_name(dataset: xr.Dataset, variable: Variable) -> tuple[str, ...]:
    for names in _names(variable):
        parts = tuple(names.split("+"))
        if set(parts) <= set(_series(dataset)):
            return parts
    return ()


def _by_standard_name(dataset: xr.Dataset, variable: Variable) -> tuple[str, ...]:
    """Like `_by_name`; of several the one that is the mean of the day."""
    series = _series(dataset)
    for standard_names in _standard_names(variable):
        sources = []
        for standard_name in standard_names.split("+"):
            same = dataset.cf.standard_names.get(standard_name, ())
            same = [name for name in same if name in series]
            means = [
                name
                for name in same
                if "time: mean" in dataset[name].attrs.get("cell_methods", "")
            ]
            sources.append(means if len(same) > 1 and means else same)
        if all(len(names) == 1 for names in sources):
            return tuple(name for names in sources for name in names)
        if all(sources):
            several = " and ".join(", ".join(n) for n in sources if len(n) > 1)
            hint = f"--map {variable.group}=" + "+".join(n[0] for n in sources)
            raise UserError(
                f"{variable.label} could be any of {several}, by their standard name. "
                f"Choose one, as in {hint}."
            )
    return ()


def _series(dataset: xr.Dataset) -> list[str]:
    return [str(n) for n, data in dataset.data_vars.items() if "time" in data.dims]


def _names(variable: Variable) -> list[str]:
    own = (variable.name, variable.group, variable.cmip, variable.published)
    other = OTHER_NAMES.get(variable.name, ())
    return list(dict.fromkeys(filter(None, (*own, *other))))


def _standard_names(variable: Variable) -> list[str]:
    other = OTHER_STANDARD_NAMES.get(variable.name, ())
    return list(filter(None, (variable.standard_name, *other)))


def _converted(
    dataset: xr.Dataset, sources: Sequence[str], variable: Variable
) -> xr.DataArray:
    """The sum of the sources in native units, NaN where it is missing."""
    total = sum(_in_native_units(dataset, name, variable) for name in sources)
    field = total.where(np.isfinite(total)).astype("float32")
    of_sources = {dataset[name].attrs["units"]: None for name in sources}
    field.attrs = variable.attributes | {
        "source": "+".join(sources),
        "source_units": ", ".join(of_sources),
    }
    return field


def _in_native_units(
    dataset: xr.Dataset, name: str, variable: Variable
) -> xr.DataArray:
    data = _arranged(dataset, name, ("time", *_space(dataset)))
    found = data.attrs.get("units")
    if found is None:
        raise UserError(
            f"'{name}' has no units. Expected {variable.label}, or units that convert "
            "to it; set its attribute units."
        )
    try:
        values = _magnitude(data.values.astype("float64"), found, variable.units)
    except Exception as error:  # the parser of pint raises a dozen kinds
        raise UserError(
            f"'{name}' has units '{found}', which do not convert to {variable.label}."
            f"{_daily_sum(found, variable)} Mend its attribute units, or choose "
            f"another variable with --map {variable.group}=VARIABLE."
        ) from error
    return data.copy(data=values)


def _magnitude(values: np.ndarray, found: str, wanted: str) -> np.ndarray:
    unit = units.Unit(str(found).removesuffix(" of water equivalent"))
    return units.Quantity(values, unit).to(units.Unit(wanted), WATER).magnitude


def _daily_sum(found: str, variable: Variable) -> str:
    """The advice for sums over a day whose units do not tell so."""
    try:
        _magnitude(np.ones(1), f"{found} d-1", variable.units)
    except Exception:
        return ""
    return f" If it is the sum of each day, its units are '{found} d-1'."


def _space(dataset: xr.Dataset) -> tuple[str, ...]:
    return ("cell",) if "cell" in dataset.dims else ("lat", "lon")


def _arranged(dataset: xr.Dataset, name: str, dims: tuple[str, ...]) -> xr.DataArray:
    """A variable with its dims in this order; others have to be of size 1."""
    data = dataset[name]
    other = [d for d in data.dims if d not in dims and data.sizes[d] == 1]
    data = data.squeeze(other, drop=True)
    if set(data.dims) != set(dims):
        raise UserError(
            f"'{name}' has dims {data.dims}. Expected {dims}, in any order."
        )
    return data.transpose(*dims)


def _without_rounding(
    precipitation: xr.DataArray,
) -> tuple[xr.DataArray, tuple[str, ...]]:
    """Precipitation, zero where packing has left it a little negative."""
    negative = (precipitation < 0) & (precipitation >= -ROUNDING)
    if not negative.any():
        return precipitation, ()
    note = (
        f"{int(negative.sum())} values of precipitation between "
        f"{float(precipitation.where(negative).min()):.2g} mm d-1 and 0 set to 0"
    )
    return precipitation.where(~negative, 0), (note,)


def _masks(
    dataset: xr.Dataset, chosen: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """The land masks of the data set; the first one counts."""
    of_standard_name = (
        name
        for standard_name in LAND_STANDARD_NAMES
        for name in dataset.cf.standard_names.get(standard_name, ())
    )
    known = (*chosen.get(MASK, ()), *LAND_NAMES, *of_standard_name)
    return tuple(dict.fromkeys(name for name in known if name in dataset.data_vars))


def _forced_land(
    dataset: xr.Dataset, masks: Sequence[str], forcing: Mapping[str, xr.DataArray]
) -> tuple[xr.DataArray, tuple[str, ...]]:
    """The cells of the mask that have forcing, and a note on those that have none."""
    forced = xr.zeros_like(forcing["precipitation"].isel(time=0, drop=True), bool)
    for field in forcing.values():
        forced |= field.notnull().any("time")
    if not forced.any():
        raise UserError(f"all forcing is missing in all {forced.size} cells.")
    if not masks:
        return forced, ()
    data = dataset[masks[0]]
    if "time" in data.dims:
        dataset = dataset.isel(time=0, drop=True)
    data = _arranged(dataset, masks[0], forced.dims)
    percent = data.attrs.get("units") in ("%", "percent")
    masked = data > (50 if percent else 0.5)
    land = masked & forced
    if not land.any():
        raise UserError(
            f"no cell is land: '{masks[0]}' has {int(masked.sum())} of {land.size} "
            f"land cells, and {int(forced.sum())} cells have forcing."
        )
    without = int((masked & ~forced).sum())
    note = f"{without} land cells of '{masks[0]}' left out: they have no forcing"
    return land, (note,) if without else ()


def _complete_land(
    land: xr.DataArray, static: xr.DataArray
) -> tuple[xr.DataArray, tuple[str, ...]]:
    """The land cells that have all static inputs, and a note on the others."""
    lacks = static.isnull() & land
    incomplete = lacks.any("variable")
    if not incomplete.any():
        return land, ()
    names = static["variable"].values[lacks.any(land.dims).values]
    if bool((incomplete | ~land).all()):
        raise UserError(
            f"no land cell has all static inputs; missing: {', '.join(names)}. Fill "
            "them, or take them out of the source."
        )
    note = f"{int(incomplete.sum())} land cells left out: they lack {', '.join(names)}"
    return land & ~incomplete, (note,)


def _mask(land: xr.DataArray, masks: Sequence[str]) -> xr.DataArray:
    return land.astype("int8").assign_attrs(
        long_name="land mask",
        standard_name="land_binary_mask",
        source=masks[0] if masks else "where there is forcing",
    )


def _refuse_gaps(field: xr.DataArray, land: xr.DataArray, variable: Variable) -> None:
    missing = field.isnull() & land
    if missing.any():
        raise UserError(
            f"{variable.label} ({field.attrs['source']}) is missing at "
            f"{_first(missing)}, first of {int(missing.sum())} missing values. A cell "
            "has all forcing on every day, or none on any: fill the gaps, or take the "
            "cell out of the mask."
        )


def _refuse_out_of_bounds(
    field: xr.DataArray, land: xr.DataArray, variable: Variable
) -> None:
    low, high = variable.bounds
    outside = ((field < low) | (field > high)) & land
    if outside.any():
        value = field.values[tuple(np.argwhere(outside.values)[0])]
        raise UserError(
            f"{variable.label} has to lie between {low:g} and {high:g}; "
            f"{field.attrs['source']} [{field.attrs['source_units']}] gives {value:g} at "
            f"{_first(outside)}, first of {int(outside.sum())} values. Are its units "
            "right?"
        )


def _first(wrong: xr.DataArray) -> str:
    """Cell and date of the first wrong value, in words."""
    at = wrong[dict(zip(wrong.dims, np.argwhere(wrong.values)[0], strict=True))]
    name = f"{at['name'].item()}, " if "name" in at.coords else ""
    return f"{name}lat {at.lat:g}, lon {at.lon:g} on {at.time.dt.strftime('%F').item()}"


def _static(dataset: xr.Dataset, masks: Sequence[str]) -> xr.DataArray | None:
    """The numbers that each cell has once, other than masks and identifiers."""
    space = _space(dataset)
    names = [
        name
        for name, data in dataset.data_vars.items()
        if set(data.dims) == set(space)
        and data.dtype.kind in "fiu"
        and name not in masks
        and "cf_role" not in data.attrs
    ]
    if not names:
        return None
    arranged = {name: _arranged(dataset, name, space) for name in names}
    found = [str(data.attrs.get("units", "")) for data in arranged.values()]
    return _stacked(arranged, found, names)


def _climate(forcing: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Position and climate of each cell."""
    means = {f"mean_{name}": field.mean("time") for name, field in forcing.items()}
    like = means["mean_precipitation"]
    inputs = {
        "latitude": like.lat.broadcast_like(like),
        "longitude": like.lon.broadcast_like(like),
    } | means
    return _stacked(
        inputs,
        ["degrees_north", "degrees_east", *(VARIABLES[n].units for n in forcing)],
        [
            "lat",
            "lon",
            *(f"mean of {field.attrs['source']}" for field in forcing.values()),
        ],
    )


def _stacked(
    inputs: Mapping[str, xr.DataArray], units: list[str], sources: Iterable[str]
) -> xr.DataArray:
    """Static inputs as one array (variable, ...)."""
    arrays = [data.astype("float32").drop_attrs() for data in inputs.values()]
    stacked = xr.concat(arrays, pd.Index(list(inputs), name="variable"))
    stacked = stacked.assign_coords(
        units=("variable", units), source=("variable", list(sources))
    )
    stacked.attrs = {"long_name": "static inputs"}
    return stacked


def _rows(fields: Mapping[str, xr.DataArray], land: xr.DataArray) -> tuple[Row, ...]:
    rows = []
    for group, field in fields.items():
        if group == STATIC:
            rows += [
                _row(STATIC, of["variable"].item(), of, of.coords, land) for of in field
            ]
        elif group != MASK:
            rows.append(_row(group, find(group).name, field, field.attrs, land))
    return tuple(rows)


def _row(
    group: str, name: str, field: xr.DataArray, about: Mapping, land: xr.DataArray
) -> Row:
    of_land = field.where(land)
    values = int(land.sum()) * field.size // land.size
    return Row(
        group=group,
        name=name,
        source=str(np.asarray(about["source"])),
        source_units=str(np.asarray(about.get("source_units", about["units"]))),
        units=str(np.asarray(about["units"])),
        minimum=float(of_land.min()),
        maximum=float(of_land.max()),
        missing=1 - int(of_land.count()) / values,
    )


def _attributes(dataset: xr.Dataset, source: Path) -> dict[str, str]:
    """Where the store came from."""
    try:
        version = metadata.version("h2mv_tf")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    history = f"{datetime.now(UTC):%FT%TZ} h2mv_tf {version}: ingest {source.name}"
    if "history" in dataset.attrs:
        history += f"\n{dataset.attrs['history']}"
    return {
        "title": str(dataset.attrs.get("title", source.stem)),
        "source": source.name,
        "history": history,
    }
