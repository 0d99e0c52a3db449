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

from h2mv_tf.errors import UserError

NO_MONTH = -1
SHORTEST_MONTH = 28  # days
CELLS_AT_ONCE = 256


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
        daily: Whether the observations of each constraint are daily; else monthly;
            and those of standard errors, by the names of the registry.
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
        cells = np.asarray(cells)
        seen = np.empty(start.shape, bool)
        for begin in range(0, len(cells), CELLS_AT_ONCE):
            some = slice(begin, begin + CELLS_AT_ONCE)
            days, months = observed.days[cells[some]], observed.months[cells[some]]
            seen[some] = self._seen(start[some], days, months)
        cell = np.broadcast_to(cells[:, None], start.shape)
        return Plan(cell[seen], start[seen], int((~seen).sum()))

    def _seen(self, start, days, months) -> np.ndarray:
        """Whether windows (cells, windows) hold an observed day or whole month."""
        by_day = _running_sum(np.unpackbits(days, axis=1, count=len(self.time)))
        by_month = _running_sum(months)
        first, last = self.month_bounds.T
        end = start + self.days
        begin = np.searchsorted(first, start)
        stop = np.maximum(np.searchsorted(last, end), begin)
        return _grows(by_day, start, end) | _grows(by_month, begin, stop)

    def calendar(self, start: np.ndarray) -> np.ndarray:
        """The column of each day's month among those of its window.

        Args:
            start: First days of the windows.

        Returns:
            (windows, days), -1 where a window does not hold the whole month.
        """
        first, last = self.month_bounds.T
        begin = np.append(first, len(self.time))[np.searchsorted(first, start)] - start
        end = np.append(-1, last)[np.searchsorted(last, start + self.days)] - start + 1
        column = np.full((len(start), self.days), NO_MONTH, "int32")
        for row, day, inside, outside in zip(column, start, begin, end, strict=True):
            months = self.month[day + inside : day + outside]
            row[inside : inside + len(months)] = months - self.month[day]
        return column

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
    """The sum of what comes before each column (rows, columns + 1)."""
    result = np.zeros((len(values), values.shape[1] + 1), "int32")
    np.cumsum(values, axis=1, out=result[:, 1:])
    return result


def _grows(sums: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Whether sums grow between columns."""
    return np.take_along_axis(sums, end, 1) > np.take_along_axis(sums, begin, 1)
