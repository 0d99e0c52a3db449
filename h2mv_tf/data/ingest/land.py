"""Where there is land, and the inputs that each of its cells has once."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr

from h2mv_tf.data.ingest.cells import Cells, quietly
from h2mv_tf.data.ingest.fields import Field, in_order
from h2mv_tf.data.ingest.names import along_time
from h2mv_tf.data.ingest.sources import Source

PERCENT = ("%", "percent")


def land_mask(
    source: Source, masks: Sequence[str], cells: Cells
) -> xr.DataArray | None:
    """The land, as the first mask of the source has it; None where there is none.

    Args:
        source: The files.
        masks: Names of the masks.
        cells: Those that are wanted.
    """
    if not masks:
        return None
    mask = source.arrays[masks[0]]
    mask = mask.isel(time=0, drop=True) if "time" in mask.dims else mask
    half = 50 if mask.attrs.get("units") in PERCENT else 0.5
    return (_on(cells, mask) > half).assign_attrs(source=masks[0])


def static_inputs(
    source: Source, besides: Iterable[str], cells: Cells
) -> xr.DataArray | None:
    """The numbers that each cell has once; None where the source has none.

    Args:
        source: The files.
        besides: Variables that are something else: masks.
        cells: Those that are wanted.

    Returns:
        (variable, lat, lon) or (variable, cell).
    """
    besides = {*besides, *along_time(source.arrays)}
    found = {}
    for name, data in source.arrays.items():
        space = {"cell"} if "cell" in data.dims else {"lat", "lon"}
        if name in besides or "cf_role" in data.attrs or not space <= set(data.dims):
            continue
        if any(size > 1 for dim, size in data.sizes.items() if dim not in space):
            continue
        found[name] = _on(cells, data)
        found[name].attrs = {"source": name, "units": str(data.attrs.get("units", ""))}
    return stacked(found) if found else None


def _on(cells: Cells, data: xr.DataArray) -> xr.DataArray:
    """One map on the cells that are wanted, in double precision."""
    with quietly():
        return cells.regridded(cells.cut(in_order(data).astype("float64"))).compute()


def derived_inputs(
    forcing: Sequence[Field],
) -> tuple[xr.DataArray, dict[str, str]]:
    """Position and mean weather of each cell, where a source has no static inputs.

    Args:
        forcing: All forcing.

    Returns:
        The static inputs (variable, ...), of which the means are still missing, and
        the static input that is the mean of each forcing.
    """
    place = forcing[0].data.isel(time=0, drop=True)
    nowhere = xr.full_like(place, np.nan).copy(data=np.full(place.shape, np.nan))
    inputs = {}
    for name, standard_name in (("lat", "latitude"), ("lon", "longitude")):
        about = {"source": name, "units": place[name].attrs["units"]}
        values = nowhere.fillna(0) + place[name]
        inputs[standard_name] = values.transpose(*place.dims).assign_attrs(about)
    means = {}
    for found in forcing:
        means[found.variable.name] = f"mean_{found.variable.name}"
        about = {
            "source": f"mean of {found.data.attrs['source']}",
            "units": found.variable.units,
        }
        inputs[means[found.variable.name]] = nowhere.assign_attrs(about)
    return stacked(inputs), means


def stacked(inputs: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Static inputs as one array (variable, ...), with the source and units of each.

    Args:
        inputs: By name; each with the attributes `source` and `units`.
    """
    arrays = [
        data.where(np.isfinite(data)).astype("float32") for data in inputs.values()
    ]
    array = xr.concat(arrays, "variable", combine_attrs="drop", join="override")
    array = array.assign_coords(
        variable=list(inputs),
        source=("variable", [data.attrs["source"] for data in inputs.values()]),
        units=("variable", [data.attrs["units"] for data in inputs.values()]),
    )
    return array.assign_attrs(long_name="static inputs", source="static inputs")
