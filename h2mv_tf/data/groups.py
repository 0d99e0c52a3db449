"""Groups: what a store is made of, and of which dims, types and days its arrays are.

    mask/data      (lat, lon) or (cell,)
    static/data    (variable, lat, lon) or (variable, cell)
    tair/data      (time, lat, lon) or (time, cell), and so are the others

`Store` reads what is so; `writing` makes it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from h2mv_tf import archive
from h2mv_tf.errors import UserError, listed, quoted
from h2mv_tf.variables import CONSTRAINTS, ERRORS, FORCING, VARIABLES

MASK, STATIC, TRUTH = "mask", "static", "truth"
REQUIRED = (*(VARIABLES[name].group for name in FORCING), STATIC, MASK)
OBSERVED = tuple(VARIABLES[name].group for name in CONSTRAINTS)
ERROR_GROUPS = tuple(VARIABLES[name].group for name in ERRORS.values())
LAYOUTS = (("lat", "lon"), ("cell",))
DAY = np.timedelta64(1, "D")
# What arrays may hold that are no numbers, by the letter of their type.
KINDS = {"M": "dates", "m": "durations", "c": "complex numbers"}
KINDS |= dict.fromkeys("OSUTV", "text")


def present(path: Path) -> tuple[str, ...]:
    """The groups of a store.

    Raises:
        UserError: There is none, or it is an archive.
    """
    archive.refuse(path)
    try:
        root = zarr.open_group(path, mode="r", use_consolidated=False)
        return tuple(sorted(root.group_keys()))
    except FileNotFoundError as error:
        raise UserError(
            f"There is no Zarr store at '{path}'. Expected a folder with the groups "
            f"{', '.join(REQUIRED)}. `python -m h2mv_tf ingest FILE --to STORE` makes "
            "one."
        ) from error


def opened(path: Path, groups: Mapping[str, str], group: str) -> xr.DataArray:
    """The array of a group, (..., lat, lon) or (..., cell), read when it is asked for.

    Args:
        path: The store.
        groups: As in `Store`.
        group: Its name in the published layout, which tells what it holds.

    Raises:
        UserError: It has another layout.
    """
    dataset = xr.open_zarr(path, group=groups[group], consolidated=False, chunks=None)
    where = f"Group '{groups[group]}' of store '{path}'"
    if "data" not in dataset:
        raise UserError(
            f"{where} has no array 'data'. Found: {listed(dataset.data_vars)}."
        )
    data = dataset["data"]
    if data.dtype.kind not in "fiub":
        raise UserError(
            f"{where} holds {KINDS.get(data.dtype.kind, 'other things')}. Expected "
            "numbers."
        )
    first = {MASK: (), STATIC: ("variable",)}.get(group, ("time",))
    layouts = [(*first, *layout) for layout in LAYOUTS]
    if group in ERROR_GROUPS:
        layouts += LAYOUTS  # the same at all times
    dims = next((layout for layout in layouts if set(layout) == set(data.dims)), None)
    if dims is None:
        expected = " or ".join(f"({', '.join(layout)})" for layout in layouts)
        raise UserError(
            f"{where} has dims ({listed(data.dims, '')}). Expected {expected}."
        )
    missing = {"lat", "lon"} - set(data.coords)
    if group == MASK and missing:
        raise UserError(f"{where} has no coordinate {', '.join(sorted(missing))}.")
    for name in ("lat", "lon") if group == MASK else ():
        place = data[name]
        along = "cell" if "cell" in dims else name
        if place.dtype.kind not in "fiu" or place.dims != (along,):
            raise UserError(
                f"{where} has the coordinate {name}({listed(place.dims, '')}) of type "
                f"{quoted(str(place.dtype), 30)}. Expected numbers along {along}."
            )
    return data.transpose(*dims)


def days(data: xr.DataArray, where: str) -> pd.DatetimeIndex:
    """The days of an array's time axis.

    Args:
        data: The array.
        where: What it is, as it begins a sentence.

    Raises:
        UserError: It has none, or they are of another calendar.
    """
    index = data.indexes.get("time")
    if not isinstance(index, pd.DatetimeIndex):
        found = "no time"
        if index is not None:
            calendar = getattr(index, "calendar", None)
            found = f"calendar '{calendar}'" if calendar else "times without dates"
        raise UserError(
            f"{where} has {found}. Expected a time axis of the standard calendar; "
            "convert it with xarray's convert_calendar."
        )
    if not len(index) or index.hasnans:
        raise UserError(
            f"{where} has {'steps without a date' if len(index) else 'no steps'}. "
            "Expected a date for each step."
        )
    return index.normalize()


def forcing_days(path: Path, groups: Mapping[str, str]) -> pd.DatetimeIndex:
    """The days of the forcing, which are the same for all its variables.

    Args:
        path: The store.
        groups: As in `Store`.

    Raises:
        UserError: They are not, or are not daily without gaps.
    """
    axes = {}
    for name in FORCING:
        data = opened(path, groups, VARIABLES[name].group)
        group = groups[VARIABLES[name].group]
        axes[group] = days(data, f"Group '{group}' of store '{path}'")
    (first, time), *others = axes.items()
    for group, other in others:
        if not other.equals(time):
            raise UserError(
                f"Groups '{first}' and '{group}' of store '{path}' differ in their "
                f"days: {period(time)} and {period(other)}. Cut them to one period."
            )
    steps = np.diff(time)
    wrong = np.flatnonzero(steps != DAY)
    if len(time) < 2 or wrong.size:
        found = "one day"
        if wrong.size:
            before, after = time[wrong[0]], time[wrong[0] + 1]
            found = f"{before:%Y-%m-%d} followed by {after:%Y-%m-%d}, first of "
            found += f"{wrong.size} such steps"
        raise UserError(
            f"The forcing of store '{path}' has to be daily without gaps; found "
            f"{found}. Average it to days, or fill the gaps."
        )
    return time


def meaning(group: str) -> str:
    """What a group holds, for messages."""
    for variable in VARIABLES.values():
        if variable.group == group:
            return f" ({variable.label})"
    return " (land mask)" if group == MASK else " (static inputs)"


def period(time: Sequence) -> str:
    """First and last day of a time axis, and its length, for messages."""
    return f"{time[0]:%Y-%m-%d} to {time[-1]:%Y-%m-%d} ({len(time)} steps)"
