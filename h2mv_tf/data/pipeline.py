"""The stream: from a store to batches of windows.

A sample is a window of consecutive days of one cell, with the spin-up days
before it and the observations of its days and months. Batches are dictionaries
of tensors of one static shape, so that nothing recompiles; the last batch is
filled up with windows without observations, which count for nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from h2mv_tf.data.store import Observations, Store
from h2mv_tf.errors import UserError
from h2mv_tf.variables import ANOMALIES, FORCING

logger = logging.getLogger(__name__)

NO_MONTH = -1
SHORTEST_MONTH = 28  # days


class Moments(NamedTuple):
    """Mean and standard deviation, in native units."""

    mean: float
    std: float


@dataclass(frozen=True)
class Statistics:
    """Moments of every input and observation, by name."""

    forcing: Mapping[str, Moments]
    static: Mapping[str, Moments]
    constraints: Mapping[str, Moments]

    def to_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        """Plain numbers, as normalization.json holds them."""
        return {
            part: {
                name: moments._asdict() for name, moments in getattr(self, part).items()
            }
            for part in ("forcing", "static", "constraints")
        }


@dataclass(frozen=True)
class Series:
    """The land cells of a store, in memory.

    Attributes:
        forcing: (cells, days, 3) in the registry's order and units.
        static: (cells, static inputs).
        static_names: Names of the static inputs.
        observations: Observations of each constraint.
        time: The days.
    """

    forcing: np.ndarray
    static: np.ndarray
    static_names: tuple[str, ...]
    observations: Mapping[str, Observations]
    time: pd.DatetimeIndex

    @classmethod
    def read(cls, store: Store, constraints: Sequence[str] | None = None) -> "Series":
        """Reads all land cells.

        Args:
            store: Where from.
            constraints: Names of the constraints; all that the store has by default.

        Raises:
            UserError: Data is missing or out of bounds, or there is no constraint.
        """
        names = store.constraints if constraints is None else constraints
        if not names:
            raise UserError(
                f"Store '{store.path}' observes no constraint, so there is nothing "
                "to train on. Add one of the groups tws, et, q, swe, fapar."
            )
        return cls(
            forcing=store.forcing(),
            static=store.static(),
            static_names=store.static_names,
            observations={name: store.observations(name) for name in names},
            time=store.time,
        )

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


def training_statistics(series: Series, cells: np.ndarray) -> Statistics:
    """Statistics of the training cells.

    Args:
        series: The land cells.
        cells: Indices of the training cells.

    Raises:
        UserError: A constraint has no observation at any training cell.
    """
    constraints = {}
    for name, observations in series.observations.items():
        values = observations.values[cells]
        values = values[~np.isnan(values).all(axis=1)]
        if not len(values):
            raise UserError(
                f"Constraint '{name}' has no observation at any of the {len(cells)} "
                "training cells. Drop it from objective.constraints, or choose "
                "another split.fold."
            )
        if name in ANOMALIES:
            values = values - np.nanmean(values, axis=1, keepdims=True)
        constraints[name] = _moments(values, name)
    return Statistics(
        forcing={
            name: _moments(series.forcing[cells, :, n], name)
            for n, name in enumerate(FORCING)
        },
        static={
            name: _moments(series.static[cells, n], name)
            for n, name in enumerate(series.static_names)
        },
        constraints=constraints,
    )


def stored_statistics(store: Store, constraints: Sequence[str]) -> Statistics:
    """Statistics that the store's arrays carry in their attributes.

    Args:
        store: The store.
        constraints: Names of the constraints.

    Raises:
        UserError: An array has no attributes `mean` and `std`.
    """
    mean, std = store.stored_static_moments()
    return Statistics(
        forcing={name: Moments(*store.stored_moments(name)) for name in FORCING},
        static={
            name: Moments(float(mean[n]), float(std[n]))
            for n, name in enumerate(store.static_names)
        },
        constraints={
            name: Moments(*store.stored_moments(name)) for name in constraints
        },
    )


class Stream:
    """Batches of windows of some cells.

    Args:
        series: The land cells.
        cells: Indices of the cells to stream.
        batch_size: Windows in a batch.
        length: Days of a window, or `full` for the whole record.
        spin_up: Days before the window; of no effect with `full`, which is spun up
            on itself.
        stride: Days from one window to the next; `length` by default.
        dtype: Of the tensors.
        seed: Shuffles the windows, and shifts them by up to a stride, anew in
            each epoch; without one they come in order, the last at the end of
            the record.

    Raises:
        UserError: The record is shorter than a window.
    """

    def __init__(
        self,
        series: Series,
        cells: np.ndarray,
        *,
        batch_size: int,
        length: int | Literal["full"] = "full",
        spin_up: int = 365,
        stride: int | None = None,
        dtype: str = "float32",
        seed: int | None = None,
    ):
        days = len(series.time)
        self.full = length == "full"
        self.length = days if self.full else length
        if self.length > days:
            raise UserError(
                f"A window of {self.length} days does not fit a record of {days}. "
                "Shorten window.length, or set it to full."
            )
        self.time, self.month = series.time, series.month
        self.month_bounds = series.month_bounds
        self.static = tf.constant(series.static[cells], dtype)
        self.forcing = tf.constant(series.forcing[cells], dtype)
        self.daily = {k: o.daily for k, o in series.observations.items()}
        self.observations = {
            name: tf.constant(observations.values[cells], dtype)
            for name, observations in series.observations.items()
        }
        self.spin_up, self.stride = spin_up, stride or self.length
        self.batch_size, self.seed = batch_size, seed
        self.windows = len(cells) * len(self._starts())
        self.batches = -(-self.windows // batch_size)

    @property
    def cell_days(self) -> int:
        """Days of all windows of an epoch, without spin-up and filling."""
        return self.windows * self.length

    def epoch(self, number: int = 0) -> tf.data.Dataset:
        """The batches of one epoch.

        Args:
            number: Of the epoch; with the seed it decides the order.

        Returns:
            Dictionaries of `forcing` (batch, length, 3), `static` (batch, n),
            `month` (batch, length) with the column of each day's month or -1
            where the window does not hold the whole month, `targets` by name,
            (batch, length) or (batch, months), and, but for `full`,
            `spin_up_forcing` (batch, spin_up, 3).
        """
        cells, starts = len(self.static), self._starts()
        cell = np.repeat(np.arange(cells, dtype="int32"), len(starts))
        start = np.tile(starts, cells)
        if self.seed is not None:
            generator = np.random.default_rng([self.seed, number])
            last = len(self.time) - self.length
            shift = generator.integers(0, self.stride, len(start))
            start = np.minimum(start + shift, last)
            order = generator.permutation(len(start))
            cell, start = cell[order], start[order]
        filling = self.batches * self.batch_size - self.windows
        real = np.arange(self.windows + filling) < self.windows
        cell, start = (np.pad(x, (0, filling), mode="edge") for x in (cell, start))
        index = {
            "cell": cell.astype("int32"),
            "start": start.astype("int32"),
            "real": real,
        }
        return (
            tf.data.Dataset.from_tensor_slices(index)
            .batch(self.batch_size, drop_remainder=True)
            .map(self._batch, num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        )

    def _starts(self) -> np.ndarray:
        """First days of the windows of a cell."""
        last = len(self.time) - self.length
        starts = np.arange(0, last + 1, self.stride)
        # Without shifts, a window at the end reads what the strides leave over.
        if self.seed is None and starts[-1] < last:
            starts = np.append(starts, last)
        return starts

    @property
    def _cycle(self) -> int:
        """Whole years at the start of the record that cover the spin-up [days]."""
        days = len(self.time)
        years = -(-self.spin_up // 365)
        ends = [self.time[0] + pd.DateOffset(years=n) for n in range(1, years + 1)]
        lengths = [(end - self.time[0]).days for end in ends]
        return max((n for n in lengths if n <= days), default=days)

    def _batch(self, index: dict[str, tf.Tensor]) -> dict:
        cell, start = index["cell"], index["start"]
        real = index["real"][:, None]
        window = start[:, None] + tf.range(self.length)
        month = tf.gather(self.month, window)
        first, last = tf.unstack(tf.gather(self.month_bounds, month), axis=-1)
        whole = (first >= window[:, :1]) & (last <= window[:, -1:])
        column = month - month[:, :1]
        batch = {
            "static": tf.gather(self.static, cell),
            "forcing": self._days(cell, window),
            "month": tf.where(whole, column, NO_MONTH),
            "targets": {},
        }
        if not self.full:
            before = start[:, None] + tf.range(-self.spin_up, 0)
            cycled = tf.where(before < 0, before % self._cycle, before)
            batch["spin_up_forcing"] = self._days(cell, cycled)
        months = month[:, :1] + tf.range(self.length // SHORTEST_MONTH + 2)
        for name, values in self.observations.items():
            steps = window if self.daily[name] else months
            batch["targets"][name] = self._target(values, cell, steps, real)
        return batch

    def _days(self, cell, days):
        """Forcing of some days (batch, days) of some cells (batch,)."""
        if self.full:
            return tf.gather(self.forcing, cell)
        cells = tf.broadcast_to(cell[:, None], tf.shape(days))
        return tf.gather_nd(self.forcing, tf.stack([cells, days], -1))

    def _target(self, values, cell, steps, real):
        """Observations at the steps, NaN beyond the record and in filling windows."""
        inside = steps < tf.shape(values)[1]
        found = tf.gather(
            tf.gather(values, cell), tf.where(inside, steps, 0), batch_dims=1
        )
        return tf.where(inside & real, found, tf.constant(np.nan, values.dtype))


def _moments(values: np.ndarray, name: str) -> Moments:
    """Moments of what is there; a constant has a deviation of one native unit."""
    values = values.astype("float64")
    mean, std = float(np.nanmean(values)), float(np.nanstd(values))
    if std == 0:
        logger.warning("%s is %g at all training cells: not scaled.", name, mean)
        std = 1.0
    return Moments(mean, std)
