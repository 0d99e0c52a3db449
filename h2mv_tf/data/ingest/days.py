"""Time: from the steps of a source to days, or to months for slow observations."""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf.errors import UserError

DAY = pd.Timedelta(days=1)
JUST_BEFORE = pd.Timedelta(seconds=1)
SLOWEST = pd.Timedelta(days=45)
SAMPLE = 3000  # days, of some cells, that are looked at for running totals

Stamps = Literal["start", "end"]


class Steps(NamedTuple):
    """A series on its time axis.

    Attributes:
        data: Its time stamps are midnights, or firsts of months.
        per: What the values are of: "day" or "month"; "composite" where months were
            made of shorter steps.
        summed: Whether they are sums of the steps of a day.
        notes: What was changed, in words.
    """

    data: xr.DataArray
    per: Literal["day", "month", "composite"]
    notes: tuple[str, ...] = ()
    summed: bool = False


def stepped(
    data: xr.DataArray,
    *,
    amounts: bool,
    stamps: Stamps | None,
    bounded: bool,
) -> Steps:
    """Brings a series to days, or to months where its steps are longer.

    Steps within a day are averaged, or added up where they are amounts; a day that
    lacks one is missing, and at both ends of the series it is left out.

    Args:
        data: (time, ...), sorted by time.
        amounts: Whether values are amounts that gathered over a step.
        stamps: Where in their step the time stamps are; by default at the start,
            but at the end for amounts within a day.
        bounded: Whether the time stamps are the middles of steps, whatever `stamps`.

    Raises:
        UserError: The steps are not regular, or longer than a month.
    """
    time = data.indexes["time"]
    step = _step(time, data.name)
    if step < DAY:
        return _within_days(data, step, amounts, stamps, bounded)
    if stamps == "end" and not bounded:
        time = time - JUST_BEFORE
    if step == DAY:
        days = time.normalize()
        if twice := days[days.duplicated()].size:
            raise UserError(
                f"'{data.name}' has {twice} days twice; the first is "
                f"{days[days.duplicated()][0]:%Y-%m-%d}. Expected one value a day."
            )
        return Steps(data.assign_coords(time=days), "day")
    return _months(data.assign_coords(time=time), step)


def gaps(time: pd.DatetimeIndex) -> str:
    """The first step that is not of one day, in words; nothing where all are.

    Args:
        time: The time stamps.
    """
    wrong = np.flatnonzero(np.diff(time) != DAY)
    if not wrong.size:
        return ""
    before, after = (
        f"{time[wrong[0] + n]:%Y-%m-%d %H:%M}".removesuffix(" 00:00") for n in (0, 1)
    )
    return f"{before} followed by {after}, first of {wrong.size} such steps"


def _step(time: pd.DatetimeIndex, name: object) -> pd.Timedelta:
    """The usual distance of two time stamps."""
    if len(time) < 2:
        return DAY
    steps = pd.Series(np.diff(time))
    if (steps <= pd.Timedelta(0)).any():
        wrong = time[int(np.flatnonzero(steps <= pd.Timedelta(0))[0])]
        raise UserError(f"'{name}' has {wrong:%Y-%m-%d %H:%M} twice.")
    return steps.median()


def _within_days(data, step, amounts, stamps, bounded) -> Steps:
    """Means or sums of the days."""
    count = DAY / step
    if count != round(count):
        raise UserError(
            f"'{data.name}' has steps of {step}, which do not divide a day. Average it "
            "to days."
        )
    count, notes = round(count), ()
    running = amounts and _running(data, count)
    if not bounded and (running or stamps == "end" or (amounts and stamps is None)):
        data = data.assign_coords(time=data.indexes["time"] - JUST_BEFORE)
    time = data.indexes["time"]
    # Where in a day the stamps are, so that whole days can be cut out.
    offset = (time[0] - time[0].normalize()) % step
    first, last = time[0] - offset, time[-1] - offset + step
    start, end = first.ceil("D"), last.floor("D")
    if end <= start:
        raise UserError(
            f"'{data.name}' has no whole day: it runs from {time[0]} to {time[-1]}."
        )
    wanted = pd.date_range(start + offset, end, freq=step, inclusive="left")
    misfit = time[(time >= start) & (time < end) & ~time.isin(wanted)]
    if misfit.size:
        raise UserError(
            f"'{data.name}' has steps of {step}, but one at {misfit[0]}, the first of "
            f"{misfit.size} that do not fit. Expected regular steps."
        )
    if start != first or end != last:
        notes += ("days that are not whole at the ends left out",)
    if wanted.size != time.size or not wanted.equals(time):
        data = data.reindex(time=wanted)
    days = _by_day(data.astype("float64"), count)
    if running:
        what = "running totals since midnight, the last one of each day taken"
        result = days.isel(step=-1).where(days.notnull().all("step"))
    elif amounts:
        what = f"sums of the {count} steps of a day"
        result = days.sum("step", skipna=False)
    else:
        what = f"means of the {count} steps of a day"
        result = days.mean("step", skipna=False)
    midnights = pd.date_range(start, end, freq=DAY, inclusive="left")
    result = result.assign_coords(time=midnights).assign_attrs(data.attrs)
    return Steps(result, "day", (what, *notes), summed=amounts)


def _by_day(data: xr.DataArray, count: int) -> xr.DataArray:
    """The steps of each day along a dim of their own."""
    parts = max(max(data.chunksizes["time"]) // count, 1) * count
    days = data.chunk(time=parts).coarsen(time=count)
    return days.construct(time=("time", "step"), keep_attrs=True)


def _running(data: xr.DataArray, count: int) -> bool:
    """Whether amounts are totals since midnight, as those of ERA5-Land are.

    Such totals never turn back within a day, stamped from after midnight to the next
    one; amounts of single steps do.
    """
    if count < 3:
        return False
    time = data.indexes["time"] - JUST_BEFORE
    start = int(np.argmax(time.normalize() > time[0].normalize()))
    sample = data.isel(time=slice(start, None))
    for dim in (dim for dim in data.dims if dim != "time"):
        # One part of the source is enough, from its middle.
        edges = np.cumsum([0, *data.chunksizes[dim]])
        middle = (len(edges) - 1) // 2
        sample = sample.isel({dim: slice(*edges[middle : middle + 2])})
    cells = sample.size // max(sample.sizes["time"], 1)
    sample = sample.isel(time=slice(max(SAMPLE // cells, 3) * count))
    values = sample.transpose("time", ...).values
    values = values[: len(values) // count * count]
    steps = np.diff(values.reshape(-1, count, *values.shape[1:]), axis=1)
    moves = (steps != 0).sum(axis=1) > 1
    one_way = (steps >= 0).all(axis=1) | (steps <= 0).all(axis=1)
    return bool(moves.sum() >= 3 and one_way[moves].mean() > 0.99)


def _months(data: xr.DataArray, step: pd.Timedelta) -> Steps:
    """Means of months."""
    if step > SLOWEST:
        raise UserError(
            f"'{data.name}' has steps of {step.days} days. Expected days, or months "
            "for observations."
        )
    months = data.indexes["time"].to_period("M").to_timestamp()
    if months.is_unique:
        return Steps(data.assign_coords(time=months), "month")
    data = data.assign_coords(time=months)
    means = data.groupby("time").mean(keep_attrs=True)
    what = f"steps of {step.days} days averaged to months"
    return Steps(means.transpose(*data.dims), "composite", (what,))
