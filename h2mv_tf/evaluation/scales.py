"""Pairs of prediction and observation: daily, monthly, seasonal cycle, anomaly.

Series are (..., time) of steps that are days or months; a month has the time of its
first day. Missing values are NaN. Pairs have both values, or NaN in both.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

SCALES = ("daily", "monthly", "seasonal", "anomaly")
DAY = np.timedelta64(1, "D")
ROUNDING = 1e-9  # of the largest value; what an anomaly of a constant is made of


class Pair(NamedTuple):
    """A prediction and an observation of the same steps (..., time or month)."""

    prediction: xr.DataArray
    observation: xr.DataArray


def is_daily(time: xr.DataArray) -> bool:
    """Whether the steps of a time axis are days; months otherwise."""
    return time.size > 1 and bool(np.median(np.diff(time.values)) == DAY)


def whole_months(time: xr.DataArray) -> pd.DatetimeIndex:
    """The months of which a time axis has every day, by their first day."""
    index = pd.DatetimeIndex(time.values)
    if not is_daily(time):
        return index.to_period("M").to_timestamp()
    months, days = np.unique(index.to_period("M").to_timestamp(), return_counts=True)
    months = pd.DatetimeIndex(months)
    return months[days == months.days_in_month]


def monthly_means(
    series: xr.DataArray, months: pd.DatetimeIndex, *, skipna: bool = False
) -> xr.DataArray:
    """Means of those of some months that a series reaches.

    Args:
        series: (..., time), daily or monthly.
        months: First days of months.
        skipna: Whether the days that are there make a mean; all have to otherwise.

    Returns:
        (..., time), by the first days of the months.
    """
    if is_daily(series.time):
        series = series.resample(time="MS").mean(skipna=skipna)
    else:
        first = pd.DatetimeIndex(series.time.values).to_period("M").to_timestamp()
        series = series.assign_coords(time=first)
    return series.sel(time=series.indexes["time"].isin(months))


def covered(time: xr.DataArray, by: xr.DataArray) -> np.ndarray:
    """Which steps of a time axis another one covers wholly.

    Args:
        time: The time axis, daily or monthly.
        by: The other, daily or monthly.
    """
    index = pd.DatetimeIndex(time.values)
    if is_daily(time) and is_daily(by):
        return index.isin(pd.DatetimeIndex(by.values))
    return index.to_period("M").to_timestamp().isin(whole_months(by))


def steps_of(prediction: xr.DataArray, observation: xr.DataArray) -> xr.DataArray:
    """The steps of a prediction on which observations can be met.

    Args:
        prediction: Time axis of the prediction.
        observation: Time axis of the observations.

    Returns:
        Days where both are daily, otherwise months that the prediction covers wholly.
    """
    if is_daily(observation) and is_daily(prediction):
        return prediction
    months = whole_months(prediction)
    return xr.DataArray(months, {"time": months}, ("time",), name="time")


def on_steps(series: xr.DataArray, time: xr.DataArray) -> xr.DataArray:
    """A series on the steps of another, NaN where it has none.

    Args:
        series: (..., time), daily or monthly.
        time: Time axis of the other; months are met by means of whole months.
    """
    if is_daily(series.time) and not is_daily(time):
        series = monthly_means(series, whole_months(series.time))
    return series.reindex(time=time.values)


def base_pairs(
    prediction: xr.DataArray,
    observation: xr.DataArray,
    *,
    anomalies: bool = False,
    saturation: float | None = None,
) -> dict[str, Pair]:
    """Days and months on which a prediction can be held against an observation.

    Daily observations are compared day by day, and by the month: both averaged over the
    days that are observed, in months that the prediction covers wholly. Monthly ones
    are compared with the mean of all days of such a month. A monthly prediction meets
    the mean of whichever days were observed.

    Args:
        prediction: (..., time), daily or monthly.
        observation: (..., time), daily or monthly, in the same units.
        anomalies: Whether only deviations count: then both are centred, series by
            series, on the steps that have a pair.
        saturation: Beyond which an observation says no more than "deep": where both
            exceed it, on a step on which they are compared, they agree.

    Returns:
        Pairs of `daily`, where both are daily, and `monthly`.
    """
    days = is_daily(prediction.time), is_daily(observation.time)
    whole = whole_months(prediction.time)
    pairs = {}
    if all(days):
        prediction, observation = _matched(prediction, observation, saturation)
        pairs["daily"] = Pair(prediction, observation)
        saturation = None  # has been seen to, day by day
    pairs["monthly"] = _matched(
        monthly_means(prediction, whole, skipna=all(days)),
        monthly_means(observation, whole, skipna=True),
        saturation,
    )
    if anomalies:
        pairs = {scale: centred(pair) for scale, pair in pairs.items()}
    return pairs


def derived_pairs(monthly: Pair) -> dict[str, Pair]:
    """The mean seasonal cycle of months, and how they differ from it.

    The cycle is the mean of each calendar month over its pairs; the anomaly is what a
    month differs from it, where that month of the calendar has two pairs or more: of
    one alone there is nothing left.

    Args:
        monthly: Of `base_pairs`, (..., time).

    Returns:
        Pairs of `seasonal` (..., month) and `anomaly` (..., time).
    """
    if not monthly.observation.sizes["time"]:
        cycle = Pair(*(s.rename(time="month").drop_vars("month") for s in monthly))
        return {"seasonal": cycle, "anomaly": monthly}
    cycle = Pair(*(series.groupby("time.month").mean() for series in monthly))
    years = monthly.observation.notnull().groupby("time.month").sum()
    month = monthly.observation.time.dt.month
    twice = (years >= 2).sel(month=month)
    anomaly = (
        _difference(series, mean.sel(month=month)).where(twice)
        for series, mean in zip(monthly, cycle, strict=True)
    )
    return {
        "seasonal": cycle,
        "anomaly": Pair(*(a.drop_vars("month") for a in anomaly)),
    }


def centred(pair: Pair) -> Pair:
    """Both series less their mean over the steps that have a pair."""
    return Pair(*(_difference(series, series.mean("time")) for series in pair))


def at_pairs(pairs: Mapping[str, Pair]) -> dict[str, Pair]:
    """`base_pairs` with what derives from their months, in the order of SCALES."""
    return {**pairs, **derived_pairs(pairs["monthly"])}


def _matched(prediction, observation, saturation: float | None) -> Pair:
    prediction, observation = xr.align(prediction, observation, join="inner")
    both = prediction.notnull() & observation.notnull()
    if not both.all():
        prediction, observation = prediction.where(both), observation.where(both)
    if saturation is not None:
        deep = (prediction > saturation) & (observation > saturation)
        prediction = prediction.where(~deep, observation)
    return Pair(prediction, observation)


def _difference(series: xr.DataArray, mean: xr.DataArray) -> xr.DataArray:
    """Series less mean, exactly 0 where they differ by no more than rounding."""
    difference = series - mean
    largest = np.abs(series).max("time")
    negligible = np.abs(difference) <= ROUNDING * largest
    return difference.where(~negligible, 0.0)
