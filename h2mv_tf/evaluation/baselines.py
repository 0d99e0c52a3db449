"""Baselines: what a prediction has to be better than.

The mean seasonal cycle of the training cells of a region knows the climate of a place
and the time of the year, and nothing of its weather. Each hemisphere has its own, as
their seasons are opposite.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf.evaluation.scales import centred, is_daily

LEAP_YEAR = 2000  # whose days every day of a year has a place in


class SeasonalCycle(NamedTuple):
    """Sums over training cells, which add up over blocks; (region, slot).

    A slot is a month of the calendar, or a day of the year.
    """

    total: np.ndarray  # sum of area times the cell's mean of the slot
    area: np.ndarray  # of the cells that have such a mean

    def __add__(self, other: "SeasonalCycle") -> "SeasonalCycle":
        return SeasonalCycle(self.total + other.total, self.area + other.area)

    @property
    def mean(self) -> np.ndarray:
        """The cycle of each region (region, slot); NaN without a training cell."""
        with np.errstate(invalid="ignore"):
            return np.where(self.area > 0, self.total / self.area, np.nan)


def by_hemisphere(region: np.ndarray, south: np.ndarray) -> np.ndarray:
    """The place of each cell's region and hemisphere: two for each region.

    Args:
        region: Place of the region (cell,).
        south: Whether the cell lies south of the equator (cell,).
    """
    return 2 * region + south


def seasonal_cycle(
    observation: xr.DataArray,
    weights: np.ndarray,
    *,
    anomalies: bool = False,
) -> SeasonalCycle:
    """The mean seasonal cycle of training cells by region, as sums.

    Args:
        observation: (cell, time), daily or monthly.
        weights: Area of each training cell in its region, 0 elsewhere (region, cell).
        anomalies: Whether each cell is centred on its observed steps first.
    """
    daily = is_daily(observation.time)
    size = 366 if daily else 12
    if anomalies:
        observation, _ = centred((observation, observation))
    slot = xr.DataArray(slots(observation.time, daily), dims="time", name="slot")
    cycle = observation.groupby(slot).mean().reindex(slot=np.arange(size))
    values = cycle.transpose("cell", "slot").values
    there = np.isfinite(values)
    return SeasonalCycle(weights @ np.where(there, values, 0), weights @ there)


def predicted(
    cycle: np.ndarray, region: np.ndarray, steps: xr.DataArray
) -> xr.DataArray:
    """The cycle of each cell's region as a prediction.

    Args:
        cycle: Mean of each region and slot (region, slot).
        region: Which of these each cell lies in.
        steps: Days or months, by the number of slots.

    Returns:
        (cell, time); NaN in a region without a training cell.
    """
    columns = slots(steps, cycle.shape[1] > 12)
    values = cycle[region][:, columns]
    return xr.DataArray(values, {"time": steps.time}, ("cell", "time"))


def slots(time: xr.DataArray, daily: bool) -> np.ndarray:
    """The month of the calendar, or the day of the year, of each step, from 0 on."""
    index = pd.DatetimeIndex(time.values)
    if not daily:
        return np.asarray(index.month) - 1
    starts = pd.date_range(f"{LEAP_YEAR}-01-01", periods=12, freq="MS").day_of_year
    return np.asarray(starts)[index.month - 1] + np.asarray(index.day) - 2
