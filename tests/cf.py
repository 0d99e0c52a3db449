"""Small CF data sets with the habits of real ones, to ingest."""

import numpy as np
import pandas as pd
import xarray as xr

DAYS = pd.date_range("2001-01-30", periods=6)
SITES = {"lat": [44.5, 63.75, -10.0], "lon": [-63.4, -68.4, 25.0]}
UNITS = {"rn": "W m-2", "prec": "mm d-1", "tair": "K"}
RANGES = {"rn": (-50, 200), "prec": (0, 30), "tair": (250, 300)}


def series(name, shape, units=None, **attributes):
    """Values (time, ...) that differ everywhere, and exact in single precision."""
    low, high = RANGES[name]
    steps = np.linspace(low, high, int(np.prod(shape))).reshape(shape)
    values = np.round(steps * 8).astype("float32") / 8
    return values, {"units": units or UNITS[name], **attributes}


def sites(dim="location", time=DAYS, **names):
    """A data set of three sites; `names` renames the forcing."""
    shape = (len(time), 3)
    dataset = xr.Dataset(
        {
            names.get(name, name): (("time", dim), *series(name, shape))
            for name in UNITS
        },
        {"time": time, **{name: (dim, values) for name, values in SITES.items()}},
    )
    return dataset.assign_coords({dim: ["Halifax", "Iqaluit", "Montréal"]})


def grid(lat=(50.0, 40.0), lon=(0.0, 10.0, 20.0), time=DAYS):
    shape = (len(time), len(lat), len(lon))
    return xr.Dataset(
        {name: (("time", "lat", "lon"), *series(name, shape)) for name in UNITS},
        {"time": time, "lat": list(lat), "lon": list(lon)},
    )
