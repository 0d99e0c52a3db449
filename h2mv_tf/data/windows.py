"""Windows: which days of which cell make a sample.

A window is a run of consecutive days of one cell, with the spin-up days before it
and the observations of its days and of its whole months.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from h2mv_tf.errors import UserError

NO_MONTH = -1
SHORTEST_MONTH = 28  # days


@dataclass(frozen=True)
class Observed:
    """Where there are observations of any constraint.

    Attributes:
        days: (cells, days / 8) of daily ones, a bit a day as of `numpy.packbits`.
        months: (cells, months) of monthly ones.
    """

    days: np.ndarray
    months: np.ndarray


@dataclass(frozen=True)
class Record:
    """What there is of all land cells, but for their series.

    Attributes:
        time: The days.
        static: Static inputs (cells, static inputs).
        daily: Whether the observations of each constraint are daily; else monthly.
        observed: Where there are any.
        block: Which block of the store each cell lies in (cells,).
    """

    time: pd.DatetimeIndex
    static: np.ndarray
    daily: Mapping[str, bool]
    observed: Observed
    block: np.ndarray


class Plan(NamedTuple):
    """The windows of an epoch, in their order."""

    cell: np.ndarray  # (windows,) land cells
    start: np.ndarray  # (windows,) first days
    skipped: int  # windows that were left out, as they have no observation


@dataclass(frozen=True)
class Windows:
    """The windows that a record is cut into.

    Attributes:
        time: The days of the record.
        length: Days of a window, or `full` for the whole record.
        spin_up: Days before the window; of no effect with `full`, which is spun up
            on itself.
        stride: Days from one window to the next; the length by default.

    Raises:
        UserError: The record is shorter than a window.
    """

    time: pd.DatetimeIndex
    length: int | Literal["full"] = "full"
    spin_up: int = 365
    stride: int | None = None

    def __post_init__(self):
        if self.days > len(self.time):
            raise UserError(
                f"A window of {self.length} days does not fit a record of "
                f"{len(self.time)}. Shorten window.length, or set it to full."
            )

    @property
    def full(self) -> bool:
        """Whether a window is the whole record."""
        return self.length == "full"

    @property
    def days(self) -> int:
        """Length of a window."""
        return len(self.time) if self.full else self.length

    @property
    def step(self) -> int:
        """Days from one window to the next."""
        return self.stride or self.days

    @property
    def months(self) -> int:
        """Columns for the months that a window may meet."""
        return self.days // SHORTEST_MONTH + 2

    @cached_property
    def month(self) -> np.ndarray:
        """The column of each day's month in monthly observations (days,)."""
        months = self.time.year * 12 + self.time.month
        return np.asarray(months - months[0], "int32")

    @cached_property
    def month_bounds(self) -> np.ndarray:
        """First and last day of each calendar month (months, 2).

        Where the record holds only part of a month they lie outside of it.
        """
        days = np.arange(len(self.time))
        first = days - self.time.day + 1
        last = first + self.time.days_in_month - 1
        _, at = np.unique(self.month, return_index=True)
        return np.stack([first[at], last[at]], axis=1).astype("int32")

    @cached_property
    def cycle(self) -> int:
        """Whole years at the start of the record that cover the spin-up [days]."""
        days = len(self.time)
        years = -(-self.spin_up // 365)
        ends = [self.time[0] + pd.DateOffset(years=n) for n in range(1, years + 1)]
        lengths = [(end - self.time[0]).days for end in ends]
        return max((n for n in lengths if n <= days), default=days)

    def starts(self, *, shifted: bool) -> np.ndarray:
        """First days of the windows of a cell, before any shift.

        Args:
            shifted: Whether they will be shifted; if not, one more window at the end
                of the record reads what the strides leave over.
        """
        last = len(self.time) - self.days
        starts = np.arange(0, last + 1, self.step)
        if not shifted and starts[-1] < last:
            starts = np.append(starts, last)
        return starts

    def plan(
        self,
        cells: np.ndarray,
        observed: Observed,
        generator: np.random.Generator | None = None,
    ) -> Plan:
        """The windows of some cells that have an observation, cell by cell.

        Args:
            cells: Land cells.
            observed: Where there are observations.
            generator: Shifts each window by up to a stride; none by default.
        """
        starts = self.starts(shifted=generator is not None)
        start = np.tile(starts, (len(cells), 1))
        if generator is not None:
            start += generator.integers(0, self.step, start.shape)
            start = np.minimum(start, len(self.time) - self.days)
        seen = np.array(
            [
                self._seen(first, observed.days[cell], observed.months[cell])
                for cell, first in zip(cells, start, strict=True)
            ],
            bool,
        ).reshape(start.shape)
        cell = np.broadcast_to(np.asarray(cells)[:, None], start.shape)
        return Plan(cell[seen], start[seen], int((~seen).sum()))

    def _seen(self, start, days, months) -> np.ndarray:
        """Whether windows of a cell hold an observed day or a whole observed month."""
        by_day = _running_sum(np.unpackbits(days, count=len(self.time)))
        by_month = _running_sum(months)
        first, last = self.month_bounds.T
        end = start + self.days
        begin = np.searchsorted(first, start)
        stop = np.maximum(np.searchsorted(last, end), begin)
        return (by_day[end] > by_day[start]) | (by_month[stop] > by_month[begin])

    def calendar(self, start: np.ndarray) -> np.ndarray:
        """The column of each day's month among those of its window.

        Args:
            start: First days of the windows.

        Returns:
            (windows, days), -1 where a window does not hold the whole month.
        """
        first, last = self.month_bounds.T
        begin = np.searchsorted(first, start)
        stop = np.searchsorted(last, start + self.days) - 1
        day = np.arange(self.days, dtype="int32")
        month = sliding_window_view(self.month, self.days)[start]
        month = month - self.month[start][:, None]
        inside = first[np.minimum(begin, len(first) - 1)] - start
        whole = day >= np.where(begin <= stop, inside, self.days)[:, None]
        whole &= day <= (last[stop] - start)[:, None]
        return np.where(whole, month, NO_MONTH)

    def before(self, start: np.ndarray) -> np.ndarray:
        """The spin-up days of windows (windows, spin_up).

        Where the record starts too late, its first years are cycled.

        Args:
            start: First days of the windows.
        """
        days = start[:, None] + np.arange(-self.spin_up, 0)
        return np.where(days < 0, days % self.cycle, days)


def observed(
    values: Mapping[str, np.ndarray],
    daily: Mapping[str, bool],
    *,
    cells: int,
    days: int,
    months: int,
) -> Observed:
    """Where some cells have observations.

    Args:
        values: Observations by name, (cells, days) or (cells, months), and maybe
            others.
        daily: Which constraints there are, and whether they are daily.
        cells: Number of cells.
        days: Of the record.
        months: Of the record.
    """
    any_day, any_month = np.zeros((cells, days), bool), np.zeros((cells, months), bool)
    for name, by_day in daily.items():
        found = any_day if by_day else any_month
        found |= ~np.isnan(values[name])
    return Observed(np.packbits(any_day, axis=1), any_month)


def _running_sum(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(values, dtype="int64")])
