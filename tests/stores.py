"""A small world as the arrays of a store, and stores read whole."""

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf.data.check import Check
from h2mv_tf.data.survey import survey
from h2mv_tf.data.writing import write_store
from h2mv_tf.variables import FORCING

DAYS = pd.date_range("2001-01-01", "2001-03-31")
MONTHS = pd.date_range("2001-01-01", periods=3, freq="MS")
GRID = {"lat": [50.0, 40.0], "lon": [0.0, 10.0, 20.0]}
LAND = np.array([[0, 1, 1], [1, 0, 1]])
LEVEL = {"rn": 50.0, "prec": 2.0, "tair": 280.0}


def field(level, time=DAYS, first="time"):
    """Values that differ everywhere, (time, lat, lon)."""
    shape = (len(time), *LAND.shape)
    values = level + np.arange(np.prod(shape)).reshape(shape) / 256
    return xr.DataArray(values, {first: time, **GRID}, (first, "lat", "lon"))


def world():
    """Forcing, static inputs and mask of a grid of 2 x 3 cells, of them 4 land."""
    fields = {group: field(level) for group, level in LEVEL.items()}
    fields["static"] = field(0, ["elevation", "sand"], "variable")
    fields["mask"] = xr.DataArray(LAND, GRID, ("lat", "lon"))
    return fields


def small(path, zarr_format):
    """A store of that grid, with three months of total water storage."""
    write_store(path, {**world(), "tws": field(-20, MONTHS)}, zarr_format=zarr_format)
    return path


def at_sites(fields):
    """The same cells as a list."""
    sites = {}
    for group, data in fields.items():
        flat = data.stack(cell=("lat", "lon"), create_index=False)
        sites[group] = flat.assign_coords(name=("cell", list("abcdef")))
    return sites


def on_land(data):
    """(cells, ...) of a field, by plain indexing."""
    return np.moveaxis(np.asarray(data, "float32")[..., LAND == 1], -1, 0)


def with_value(data, value, cell=(0, 1), step=3):
    data = data.copy()
    data[step:, cell[0], cell[1]] = value
    return data


def forcing(store):
    """Forcing of all land cells (cells, days, 3)."""
    return np.stack([_whole(store, store.forcing, name) for name in FORCING], axis=-1)


def observations(store, name):
    """Observations of all land cells (cells, days or months)."""
    return _whole(store, store.observations, name)


def refuse(store):
    """Checks a store as a training does before it starts."""
    Check.of(survey(store)).refuse()


def _whole(store, read, name):
    cells = np.concatenate([block.cells for block in store.blocks])
    values = np.concatenate([read(name, block) for block in store.blocks])
    return values[np.argsort(cells)]
