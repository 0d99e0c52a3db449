"""Restart files: the state at the end of a day, from which a simulation goes on.

    state = restart.load("2002-06-30.nc")
    restart.refuse_other(state, trained.digest, store.land, store.time[0])
    restart.states(state, store.land)    # a `State` of arrays (cells, ...)

A CF data set, in NetCDF or Zarr, of what one day hands to the next. Coordinates are
those of the land mask and the day; attributes tell which model it is of:

    Dimensions:        (lat: 20, lon: 40, lstm_unit: 100)
    Coordinates:       lat, lon, time 2002-06-30
    Data variables:
        swe            (lat, lon)               mm
        soil_moisture  (lat, lon)               mm
        groundwater    (lat, lon)               mm
        fapar          (lat, lon)               1
        lstm_hidden    (lat, lon, lstm_unit)    1
        lstm_carry     (lat, lon, lstm_unit)    1
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf import predictions
from h2mv_tf.cell import State
from h2mv_tf.data.metadata import readable
from h2mv_tf.data.writing import CHUNKS, CONVENTIONS
from h2mv_tf.errors import UserError, listed, shown
from h2mv_tf.variables import PROGNOSTIC, VARIABLES

UNIT = "lstm_unit"  # dimension of what the LSTM remembers
VERSION = 1  # of this format
MARK, MODEL, CALL = "h2mv_tf_restart", "h2mv_tf_model", "h2mv_tf_call"  # attributes
NEAR = 1e-4  # degrees, within which two places are one
ROUNDING = 1e-4  # of the soil water capacity, which each program rounds its own way
COMMAND = "python -m h2mv_tf predict RUN --save-state STATE"
TIME = {
    **{key: words for key, words in predictions.TIME.items() if key != "bounds"},
    "long_name": "day at whose end the state holds",
}


def load(path: str | Path) -> xr.Dataset:
    """Opens a restart file; values are read when they are asked for.

    Args:
        path: NetCDF file or Zarr store.

    Raises:
        UserError: There is none at this path, or it cannot be read.
    """
    dataset = predictions.opened(Path(path), "states", COMMAND)
    try:
        _refuse_unknown(dataset)
    except UserError as error:
        raise UserError(f"'{path}' is no restart file: {error}") from error
    dataset.attrs.pop(CHUNKS, None)  # of the Zarr store
    dataset.attrs[MODEL] = str(dataset.attrs[MODEL])
    return dataset[[*PROGNOSTIC]]


def template(
    land: xr.DataArray, day: pd.Timestamp, *, units: int, dtype: str
) -> xr.Dataset:
    """A restart file without its values, which take no memory.

    Args:
        land: Land mask (lat, lon) or (cell,).
        day: At whose end the state holds.
        units: Size of the LSTM.
        dtype: Precision of the model.

    Returns:
        As it is stored, with time as a number.
    """
    (days,) = predictions.days_since_1970(pd.DatetimeIndex([day]))
    coordinates = {**land.coords, "time": ((), days, TIME)}
    arrays = {}
    for name in PROGNOSTIC:
        variable = VARIABLES[name]
        of_lstm = variable.kind == "memory"
        nothing = np.broadcast_to(
            np.zeros((), dtype), (*land.shape, units) if of_lstm else land.shape
        )
        attributes = {
            "long_name": variable.long_name,
            "units": variable.units,
            "cell_methods": "time: point",
        }
        dims = (*land.dims, UNIT) if of_lstm else land.dims
        arrays[name] = (dims, nothing, attributes)
    dataset = xr.Dataset(arrays, coordinates)
    for name, attributes in predictions.PLACES.items():
        dataset[name] = dataset[name].assign_attrs(attributes)
    return dataset


def attributes(digest: str, **others) -> dict[str, object]:
    """Attributes of a restart file.

    Args:
        digest: Of the model, of `Trained.digest`.
        **others: Provenance, as predictions have it.
    """
    return {
        "Conventions": CONVENTIONS,
        "title": "State of H2MV, a hybrid model of the land water cycle",
        "references": predictions.REFERENCES,
        **others,
        MARK: VERSION,
        MODEL: digest,
    }


def of(
    state: State, land: xr.DataArray, day: pd.Timestamp, digest: str, **others
) -> xr.Dataset:
    """The data set of a state in memory, as `load` gives it.

    Args:
        state: Of the land cells, each (cells, 1) or (cells, units).
        land: Land mask (lat, lon) or (cell,).
        day: At whose end the state holds.
        digest: Of the model, of `Trained.digest`.
        **others: Attributes, as `source`.
    """
    values = arrays(state)
    empty = template(
        land,
        day,
        units=values["lstm_hidden"].shape[1],
        dtype=values["lstm_hidden"].dtype,
    )
    for name, of_cells in values.items():
        on_land = np.full(empty[name].shape, np.nan, of_cells.dtype)
        on_land[land.values] = of_cells
        empty[name] = empty[name].copy(data=on_land)
    return xr.decode_cf(empty.assign_attrs(attributes(digest, **others)))


def arrays(state: State) -> dict[str, np.ndarray]:
    """A state as the file holds it, by name, (cells,) or (cells, units)."""
    return {
        name: np.asarray(values if VARIABLES[name].kind == "memory" else values[:, 0])
        for name, values in zip(PROGNOSTIC, state, strict=True)
    }


def states(dataset: xr.Dataset, land: xr.DataArray) -> State:
    """The state of the land cells, each (cells, 1) or (cells, units).

    Args:
        dataset: Of `load` or `of`, or a part of it.
        land: Its land mask.
    """
    # By this thread alone, which may be one of a dask worker.
    with readable("The initial state"):
        read = dataset[[*PROGNOSTIC]].compute(scheduler="synchronous")
    values = (
        read[name].transpose(*land.dims, ...).values[land.values] for name in PROGNOSTIC
    )
    return State(*(array.reshape(len(array), -1) for array in values))


def day_of(dataset: xr.Dataset) -> pd.Timestamp:
    """The day at whose end a state holds."""
    return pd.Timestamp(dataset.time.values[()]).normalize()


def refuse_other(
    dataset: xr.Dataset, digest: str, land: xr.DataArray, begin: pd.Timestamp
) -> None:
    """Refuses a state that is not of this model, these cells and the day before.

    Args:
        dataset: Of `load` or `of`.
        digest: Of the model, of `Trained.digest`.
        land: Land mask (lat, lon) or (cell,) of what is simulated.
        begin: The first day to simulate.

    Raises:
        UserError: It is of something else.
    """
    _refuse_unknown(dataset)
    if dataset.attrs[MODEL] != digest:
        raise UserError(
            f"The initial state is of another model: {dataset.attrs[MODEL][:12]}, "
            f"expected {digest[:12]}. Go on with the model that saved it, or spin up."
        )
    _refuse_other_cells(dataset, land)
    first = day_of(dataset) + pd.Timedelta(days=1)
    if first != begin:
        raise UserError(
            f"The initial state holds at the end of {day_of(dataset):%Y-%m-%d}, so "
            f"that the first day to simulate has to be {first:%Y-%m-%d}; found "
            f"{begin:%Y-%m-%d}. Begin there, with --begin {first:%Y-%m-%d} or, of a "
            f"data set, with .sel(time=slice('{first:%Y-%m-%d}', None))."
        )


def refuse_impossible(
    state: State, capacity: np.ndarray, describe: Callable[[int], str]
) -> None:
    """Refuses a state that no simulation could have come to.

    Args:
        state: Of some land cells, as `states` gives it.
        capacity: Their soil water capacity (cells,) [mm].
        describe: Names one of them.

    Raises:
        UserError: A value is missing, not finite, or out of bounds.
    """
    for name, values in zip(PROGNOSTIC, state, strict=True):
        low, high = VARIABLES[name].bounds
        low = -np.inf if low is None else low
        high = np.inf if high is None else high
        if name == "soil_moisture":
            high = np.asarray(capacity)[:, None]
        fits = np.isfinite(values) & (values >= low)
        fits &= values <= high * (1 + ROUNDING)
        if fits.all():
            continue
        cell, unit = np.argwhere(~fits)[0]
        value, most = (
            values[cell, unit],
            np.broadcast_to(high, values.shape)[cell, unit],
        )
        found = "nothing" if np.isnan(value) else f"{value:g}"
        raise UserError(
            f"The initial state has {found} for {VARIABLES[name].label} at "
            f"{describe(cell)}; expected {_range(low, most)}. Save it anew with: "
            f"{COMMAND}"
        )


def _range(low: float, high: float) -> str:
    if np.isinf(low):
        return "any number"
    return f"{low:g} or more" if np.isinf(high) else f"{low:g} to {high:g}"


def is_of(path: Path, call: str) -> bool:
    """Whether a restart file was written by a call of just this plan.

    Args:
        path: Where it is, if it is there.
        call: What the plan comes to, as its attribute tells.
    """
    try:
        return load(path).attrs.get(CALL) == call
    except UserError:
        return False


def _refuse_unknown(dataset: xr.Dataset) -> None:
    """Refuses a data set that is no restart file of this version."""
    version = dataset.attrs.get(MARK)
    if not np.array_equal(version, VERSION) or MODEL not in dataset.attrs:
        found = f"version {shown(version)}" if version is not None else "none"
        raise UserError(
            f"A state has the attribute {MARK} = {VERSION}; found {found}. Make one "
            f"with: {COMMAND}"
        )
    lacking = [name for name in PROGNOSTIC if name not in dataset]
    time = dataset.coords.get("time")
    if lacking or time is None or time.ndim or not _is_date(time):
        raise UserError(
            f"A state has {', '.join(PROGNOSTIC)} and one day as its time; "
            f"{', '.join(lacking) or 'time'} is missing. Make one with: {COMMAND}"
        )


def _is_date(time: xr.DataArray) -> bool:
    return time.dtype.kind == "M" and not np.isnat(time.values)


def _refuse_other_cells(dataset: xr.Dataset, land: xr.DataArray) -> None:
    units = {UNIT: dataset.sizes.get(UNIT, "some")}
    for name in PROGNOSTIC:
        found = dict(dataset[name].sizes)
        expected = {**land.sizes}
        if VARIABLES[name].kind == "memory":
            expected |= units
        if found != expected:
            raise UserError(
                f"The initial state has other cells than what is simulated: {name} has "
                f"{_sizes(found)}, expected {_sizes(expected)}. Go on with the store "
                "that it was saved for."
            )
    for name in predictions.PLACES:
        places = dataset.coords.get(name)
        known = places is not None and places.dtype.kind in "fiu"
        if not known or not np.allclose(places, land[name], 0, NEAR, equal_nan=True):
            raise UserError(
                f"The initial state has other places than what is simulated: {name} "
                "differs. Go on with the store that it was saved for."
            )


def _sizes(sizes: Mapping[str, object]) -> str:
    words = [f"{size} {dim}" for dim, size in sizes.items()]
    return listed(words, "no cells").replace(", ", " x ")
