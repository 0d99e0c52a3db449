"""Predictions: the CF data set that a trained model's results are kept in.

One Zarr store or NetCDF file without groups, (time, lat, lon) on a grid and (time,
cell) for sites, daily or monthly, in one of two profiles: `native` has the names and
units of the registry, `cf` those of CMIP. `load` gives the first, whichever it is.

    dataset = load("runs/first/predictions.zarr")
    dataset.runoff.mean("time")
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf.data.metadata import open_lazily, readable
from h2mv_tf.data.store import Store
from h2mv_tf.data.units import converted
from h2mv_tf.data.writing import Writer
from h2mv_tf.documents import parsed_yaml
from h2mv_tf.errors import UserError, quoted, words
from h2mv_tf.variables import (
    BALANCE,
    DAILY_OUTPUTS,
    DOMAIN,
    OUTPUTS,
    VARIABLES,
    Variable,
)

# Of a run folder, and of a cross-validation.
FILE, ENSEMBLE = "predictions.zarr", "ensemble.zarr"
SAMPLES, PRIOR = "samples.zarr", "prior.zarr"  # of a run whose parameters are uncertain

Profile = Literal["native", "cf"]

CF_UNITS = {"mm": "kg m-2", "mm d-1": "kg m-2 s-1"}
HELD = (*OUTPUTS, *BALANCE, *DOMAIN)
ALWAYS = ("water_balance_residual", *BALANCE, *DOMAIN)
SERIES = (*DAILY_OUTPUTS, "tws_anomaly")
# States are those at the end of the day, all others means over it.
AT_THE_END = ("swe", "soil_moisture", "groundwater", "tws", "tws_anomaly")
SPREAD, QUANTILE = "_spread", "_quantile"  # of an ensemble, behind a variable's name
REALIZATION, MEMBER = "realization", "member"
NOISE, SAMPLES_OF = "noise", "samples_of"  # attributes
AREA, ROLE, BOUNDS = "cell_area", "role", "time_bnds"
EARTH_RADIUS = 6_371_000.0  # m
MARK = "h2mv_tf_profile"  # attribute that tells our data sets from others
TIME = {
    "standard_name": "time",
    "axis": "T",
    "units": "days since 1970-01-01",
    "calendar": "standard",
    "bounds": BOUNDS,
}
PLACES = {
    "lat": {"standard_name": "latitude", "units": "degrees_north"},
    "lon": {"standard_name": "longitude", "units": "degrees_east"},
}
REFERENCES = "Baghirov et al. (2025), doi:10.5194/gmd-18-2921-2025"


def space(dataset: xr.Dataset | xr.DataArray) -> tuple[str, ...]:
    """The dimensions of space: `lat` and `lon` on a grid, `cell` for sites."""
    return ("cell",) if "cell" in dataset.dims else ("lat", "lon")


def is_grid(dataset: xr.Dataset | xr.DataArray) -> bool:
    """Whether the cells lie on a grid."""
    return space(dataset) == ("lat", "lon")


def load(path: str | Path) -> xr.Dataset:
    """Opens predictions; values are read when they are asked for.

    Args:
        path: Zarr store or NetCDF file, in either profile.

    Returns:
        Variables by registry name in native units, with dask, in chunks of cells with
        all their days; coordinates `cell_area` [m2] and `role`.

    Raises:
        UserError: There are no predictions at this path.
    """
    command = "python -m h2mv_tf predict RUN --data STORE --to OUT.zarr"
    dataset = opened(Path(path), "predictions", command)
    profile = dataset.attrs.get(MARK)
    described = {AREA, ROLE, BOUNDS} <= set(dataset.variables)
    if profile not in get_args(Profile) or not described:
        raise UserError(
            f"'{path}' has no predictions of h2mv_tf. Expected what `python -m h2mv_tf "
            "predict` or trainers/cross_validate.py writes."
        )
    with readable(f"'{path}'"):
        _configured(dataset)
        return _by_registry(dataset, profile)


def _configured(dataset: xr.Dataset) -> Mapping:
    """The configuration of the training, as far as predictions tell it.

    Raises:
        UserError: It is no configuration.
    """
    try:
        found = parsed_yaml(str(dataset.attrs.get("configuration", ""))) or {}
        for section in ("data", "objective"):
            dict(found.get(section, {}))
        dict(found.get("data", {}).get("groups", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"The predictions hold a configuration that cannot be read: {words(error)}."
            " Make them anew with `python -m h2mv_tf predict`."
        ) from error
    return found


def _by_registry(dataset: xr.Dataset, profile: Profile) -> xr.Dataset:
    """Predictions by registry name in native units, of what is stored."""
    arrays = {}
    for stored, data in dataset.drop_vars([AREA, ROLE, BOUNDS]).data_vars.items():
        plain, suffix = without_suffix(str(stored))
        name = _registered(plain, profile)
        arrays[name, suffix] = _native(data, VARIABLES[name])
    places = list(VARIABLES)
    order = sorted(arrays, key=lambda key: (places.index(key[0]), key[1]))
    return xr.Dataset(
        {name + suffix: arrays[name, suffix] for name, suffix in order},
        {
            name: dataset[name].load()
            for name in (AREA, ROLE, MEMBER)
            if name in dataset
        },
        dataset.attrs,
    )


def without_suffix(name: str) -> tuple[str, str]:
    """The name of a variable, and what stands behind it where it is of an ensemble."""
    suffix = next((end for end in (SPREAD, QUANTILE) if name.endswith(end)), "")
    return name.removesuffix(suffix), suffix


def summarised(dataset: xr.Dataset) -> xr.Dataset:
    """Predictions in which each variable is the mean over its realizations, lazily.

    Args:
        dataset: Of `load`; without realizations it is given back as it is.
    """
    if REALIZATION not in dataset.dims:
        return dataset
    found = {
        name: data.mean(REALIZATION, skipna=False, keep_attrs=True)
        if name not in BALANCE
        else _worst(data)
        for name, data in dataset.data_vars.items()
        if REALIZATION in data.dims
    }
    return dataset.assign(found).drop_vars([REALIZATION, MEMBER])


def _worst(data: xr.DataArray) -> xr.DataArray:
    """The realization farthest from 0, which says how well a balance closes."""
    low, high = data.min(REALIZATION), data.max(REALIZATION)
    return xr.where(-low > high, low, high).assign_attrs(data.attrs)


def opened(path: Path, what: str, command: str) -> xr.Dataset:
    """A data set in a Zarr store or NetCDF file, read when it is asked for.

    Args:
        path: Where it is.
        what: What it should be, for messages.
        command: What makes it.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    if not path.exists():
        raise UserError(f"There are no {what} at '{path}'. Make them with: {command}")
    try:
        return open_lazily(path, chunks={})
    except UserError:
        raise
    except Exception as error:  # readers raise what they like
        raise UserError(
            f"'{path}' cannot be read as {what}: {words(error)}. Expected a Zarr store "
            f"or a NetCDF file. Make it with: {command}"
        ) from error


def of_folds(folder: Path) -> dict[str, Path]:
    """Where the predictions of the folds of a cross-validation are, by fold.

    Args:
        folder: Of the cross-validation.

    Raises:
        UserError: There is no cross-validation, or it has no predictions yet.
    """
    found = {path.parent.name: path for path in sorted(folder.glob(f"fold-*/{FILE}"))}
    if not found:
        raise UserError(
            f"'{folder}' has no predictions of folds. Make them with: python "
            f"trainers/cross_validate.py --run-dir {folder}"
        )
    return found


def store_of(dataset: xr.Dataset, path: Path | None = None) -> Store:
    """The store that predictions were made from, with the groups of the training.

    Args:
        dataset: Of `load`.
        path: Another store, or where it is now.

    Raises:
        UserError: The predictions do not tell it, or it cannot be opened.
    """
    path = path or dataset.attrs.get("store")
    if not path:
        raise UserError(
            "The predictions do not tell which store they are of. Name it in --data."
        )
    return Store.open(str(path), _configured(dataset).get("data", {}).get("groups"))


def refuse_different(datasets: Mapping[str, xr.Dataset]) -> None:
    """Refuses predictions that are not of the same cells and steps.

    Args:
        datasets: By a name for messages.

    Raises:
        UserError: One differs from the first.
    """
    (_, first), *others = datasets.items()
    for name, other in others:
        for what in ("time", *first.coords):
            if what not in other.coords or not first[what].equals(other[what]):
                raise UserError(
                    f"'{name}' differs from the first predictions in its {what}. Make "
                    "all of them from one store, with the same options."
                )


def stored_name(name: str, profile: Profile) -> str:
    """The name that a variable of the registry has in a profile."""
    variable = VARIABLES[name]
    return (variable.cmip or name) if profile == "cf" else name


def stored_units(name: str, profile: Profile) -> tuple[str, float]:
    """The units of a variable in a profile, and what native values are multiplied by.

    Args:
        name: Its name in the registry.
        profile: The profile.
    """
    units = VARIABLES[name].units
    if profile == "cf" and units in CF_UNITS:
        return CF_UNITS[units], 1 / converted(1.0, CF_UNITS[units], units)
    return units, 1.0


def template(
    land: xr.DataArray,
    time: pd.DatetimeIndex,
    names: Sequence[str],
    *,
    profile: Profile = "native",
    monthly: bool = False,
    quantiles: Sequence[float] = (),
    members: str = "members",
    realizations: Sequence[str] = (),
) -> xr.Dataset:
    """Predictions without their values, which take no memory.

    Args:
        land: Land mask (lat, lon) or (cell,).
        time: The days, or the first days of the months.
        names: Variables of the registry.
        profile: Whose names and units.
        monthly: Whether steps are months.
        quantiles: Those of an ensemble; none for a single model.
        members: What an ensemble is of, in words.
        realizations: The member that each sample is of, where samples are kept.
    """
    arrays = {}
    for name in names:
        dims = land.dims if name not in SERIES else ("time", *land.dims)
        dims = () if VARIABLES[name].kind == "constant" else dims
        attributes = _attributes(name, land, profile, monthly)
        stored = stored_name(name, profile)
        if realizations and name not in DOMAIN:  # which parameters do not change
            number = {REALIZATION: np.arange(len(realizations))}
            arrays[stored] = _empty(dims, land, time, attributes, number)
            continue
        arrays[stored] = _empty(dims, land, time, attributes)
        if quantiles:
            arrays[stored + SPREAD] = _empty(
                dims, land, time, _of_members(attributes, "standard_deviation", members)
            )
            of_levels = _of_members(attributes, "quantile", members)
            levels = {"quantile": list(quantiles)}
            arrays[stored + QUANTILE] = _empty(dims, land, time, of_levels, levels)
    dataset = xr.Dataset(arrays)
    if realizations:
        names = np.array(realizations, object)
        dataset = dataset.assign_coords(member=(REALIZATION, names))
        dataset[REALIZATION].attrs["standard_name"] = REALIZATION
    return dataset


def declare(
    writer: Writer,
    land: xr.DataArray,
    template: xr.Dataset,
    roles: xr.DataArray,
    *,
    monthly: bool,
) -> None:
    """Makes the arrays of predictions, and fills those that describe the cells.

    Args:
        writer: Of the store.
        land: Land mask.
        template: Of `template`.
        roles: Role of every cell.
        monthly: Whether steps are months.
    """
    time = pd.DatetimeIndex(template.time.values)
    describing = {
        AREA: cell_area(land),
        ROLE: roles,
        BOUNDS: time_bounds(time, monthly),
    }
    dataset = template.assign(describing)
    days = days_since_1970(time)
    dataset = dataset.assign_coords(time=("time", days, TIME))
    for name, attributes in PLACES.items():
        dataset[name].attrs.update(attributes)
    writer.declare("", dataset)
    for name in describing:
        writer.put("", dataset[name].values, name=name)


def cell_area(land: xr.DataArray) -> xr.DataArray:
    """The area of each cell [m2], ones where cells are no grid.

    Cells reach half-way to their neighbours; the Earth is a sphere of 6371 km.

    Args:
        land: Land mask (lat, lon) or (cell,).
    """
    if land.ndim == 1:
        area = np.ones(land.shape)
        attributes = {"long_name": "weight of the site", "units": "1"}
    else:
        south, north = _edges(land.lat.values, 90.0)
        west, east = _edges(land.lon.values)
        bands = np.abs(np.sin(np.radians(north)) - np.sin(np.radians(south)))
        widths = np.abs(np.radians(east - west))
        area = EARTH_RADIUS**2 * bands[:, None] * widths
        attributes = {
            "long_name": "area of the cell",
            "standard_name": "cell_area",
            "units": "m2",
        }
    return land.copy(data=area).rename(AREA).assign_attrs(attributes)


def days_since_1970(time: pd.DatetimeIndex) -> np.ndarray:
    """Times as `TIME` counts them."""
    return time.values.astype("datetime64[D]").astype("int64")


def time_bounds(time: pd.DatetimeIndex, monthly: bool) -> xr.DataArray:
    """Begin and end of each step (time, bnds), as `TIME` counts them."""
    step = pd.DateOffset(months=1) if monthly else pd.DateOffset(days=1)
    edges = np.stack([days_since_1970(time), days_since_1970(time + step)], axis=1)
    return xr.DataArray(edges, dims=("time", "bnds"))


def period(dataset: xr.Dataset) -> str:
    """The first and the last step, in words."""
    first, last = pd.DatetimeIndex(dataset.time.values[[0, -1]])
    return f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"


def _edges(centres: np.ndarray, limit: float = np.inf):
    """Where cells begin and end, given where they lie [degrees]."""
    centres = np.asarray(centres, "float64")
    if len(centres) == 1:
        return centres - 0.5, centres + 0.5
    between = (centres[:-1] + centres[1:]) / 2
    first = 2 * centres[0] - between[0]
    last = 2 * centres[-1] - between[-1]
    edges = np.clip(np.concatenate([[first], between, [last]]), -limit, limit)
    return edges[:-1], edges[1:]


def _attributes(
    name: str, land: xr.DataArray, profile: Profile, monthly: bool
) -> dict[str, str]:
    variable = VARIABLES[name]
    units, _ = stored_units(name, profile)
    attributes = {**variable.attributes, "units": units}
    # CF measures water by its mass; its names would be wrong beside a depth.
    if profile == "native" and variable.units in CF_UNITS:
        attributes.pop("standard_name", None)
    if land.ndim > 1 and variable.kind != "constant":
        attributes["cell_measures"] = f"area: {AREA}"
    if name in SERIES:
        at_the_end = name in AT_THE_END and not monthly
        attributes["cell_methods"] = f"time: {'point' if at_the_end else 'mean'}"
        if name in AT_THE_END:
            attributes["comment"] = "at the end of the day" + ", mean" * monthly
    return attributes


def _of_members(
    attributes: Mapping[str, str], method: str, members: str
) -> dict[str, str]:
    methods = f"{attributes.get('cell_methods', '')} realization: {method}".strip()
    words = method.replace("_", " ")
    return {
        **{k: v for k, v in attributes.items() if k != "standard_name"},
        "long_name": f"{attributes['long_name']}, {words} over the {members}",
        "cell_methods": methods,
    }


def _empty(dims, land, time, attributes, leading=MappingProxyType({})) -> xr.DataArray:
    coordinates = {n: c for n, c in land.coords.items() if set(c.dims) <= set(dims)}
    sizes = dict(zip(land.dims, land.shape, strict=True))
    if "time" in dims:
        coordinates["time"], sizes["time"] = time, len(time)
    for dim, values in leading.items():
        dims = (dim, *dims)
        coordinates[dim], sizes[dim] = values, len(values)
    nothing = np.broadcast_to(np.float32(0), [sizes[dim] for dim in dims])
    return xr.DataArray(nothing, coordinates, dims, attrs=attributes)


def _registered(stored: str, profile: Profile) -> str:
    for name in HELD:
        if stored_name(name, profile) == stored:
            return name
    raise UserError(
        f"The predictions hold '{quoted(stored, 50)}', which this version does not "
        "know. Make them anew with `python -m h2mv_tf predict`."
    )


def _native(data: xr.DataArray, variable: Variable) -> xr.DataArray:
    units = data.attrs.get("units", variable.units)
    if units != variable.units:
        factor = converted(1.0, units, variable.units)
        data = (data * data.dtype.type(factor)).assign_attrs(data.attrs)
    return data.assign_attrs(units=variable.units)
