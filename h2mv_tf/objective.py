"""The objective: constraints, monthly means, anomalies, masked errors.

The sum over constraints of the mean over cells of the masked mean squared error
of standardised values; Baghirov et al. (2025), section 2.4. Arrays are (cells,
days) or (cells, months); missing observations are NaN.
"""

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import tensorflow as tf

from h2mv_tf import variables

SATURATING = ("swe",)  # satellites see no difference between deep and deeper snow
SHORTEST_MONTH = 28  # days

AnomalyReference = Literal["matched", "series"]


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """One observed variable of the objective.

    Attributes:
        name: Its name in the registry.
        mean: Mean of the observations, in native units.
        std: Standard deviation of the observations, in native units.
        daily: Whether the observations are daily; monthly otherwise.
    """

    name: str
    mean: float
    std: float
    daily: bool

    def __post_init__(self):
        if self.name not in variables.CONSTRAINTS:
            raise ValueError(
                f"'{self.name}' is not a constraint. Expected one of: "
                f"{', '.join(variables.CONSTRAINTS)}."
            )
        if not (math.isfinite(self.mean) and 0 < self.std < math.inf):
            raise ValueError(
                f"Constraint '{self.name}' needs a finite mean and a finite standard "
                f"deviation above 0; found {self.std}, and a mean of {self.mean}."
            )

    @property
    def compared_daily(self) -> bool:
        """Whether days are compared; months otherwise."""
        return self.daily and variables.VARIABLES[self.name].cadence == "daily"


class Term(NamedTuple):
    """A constraint's part of the objective, before it is averaged.

    Sums over cells and counts of cells add up over batches and devices, so a
    mean never depends on how the cells were dealt out.
    """

    total: tf.Tensor  # sum of the cells' mean squared errors
    cells: tf.Tensor  # number of cells with an observation


class Objective:
    """The terms of the objective, from predictions and observations.

    Args:
        constraints: What is observed.
        anomaly_reference: `matched` centres prediction and target of an anomaly
            on the same observed months; `series` centres the prediction on its
            whole series, as the published code does.
        saturation: SWE above which an observation says only "deep" [mm]: where
            observation and prediction both exceed it, the day costs nothing.

    Raises:
        ValueError: There is no constraint, or one is given twice; the reference
            of anomalies is unknown.
    """

    def __init__(
        self,
        constraints: Sequence[Constraint],
        *,
        anomaly_reference: AnomalyReference = "matched",
        saturation: float = 100.0,
    ):
        self.constraints = tuple(constraints)
        self.anomaly_reference = anomaly_reference
        self.saturation = saturation
        if not self.constraints or len(set(self.names)) < len(self.names):
            raise ValueError(
                "An objective needs one or more different constraints; found "
                f"{', '.join(self.names) or 'none'}."
            )
        if anomaly_reference not in typing.get_args(AnomalyReference):
            raise ValueError(
                f"anomaly_reference is '{anomaly_reference}'. Expected one of: "
                f"{', '.join(typing.get_args(AnomalyReference))}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the constraints, which the model has to return."""
        return tuple(constraint.name for constraint in self.constraints)

    def counts(self, targets: Mapping[str, tf.Tensor], month) -> dict[str, tf.Tensor]:
        """Number of cells with an observation, for each constraint.

        Needs no prediction, so devices can agree on it before they differentiate.

        Args:
            targets: As in `terms`.
            month: As in `terms`.
        """
        nothing = {
            name: tf.zeros(tf.shape(month), targets[name].dtype) for name in self.names
        }
        return {k: t.cells for k, t in self.terms(nothing, targets, month).items()}

    def terms(
        self,
        predictions: Mapping[str, tf.Tensor],
        targets: Mapping[str, tf.Tensor],
        month,
    ) -> dict[str, Term]:
        """Sum over cells of the masked mean squared error of each constraint.

        Args:
            predictions: (cells, days) by name, in native units.
            targets: (cells, days) or (cells, months) by name, in native units.
            month: For each cell and day the column of its month in monthly
                targets (cells, days); -1 where the month is not compared.
        """
        return {
            constraint.name: self._term(
                constraint,
                predictions[constraint.name],
                targets[constraint.name],
                month,
            )
            for constraint in self.constraints
        }

    def _term(self, constraint: Constraint, prediction, target, month) -> Term:
        observed = tf.math.is_finite(target)
        # Filled before the difference and masked after it: 0 * NaN is NaN.
        target = tf.where(observed, target, tf.zeros_like(target))
        mean = constraint.mean
        if constraint.name in variables.ANOMALIES:
            mean = 0.0
            if self.anomaly_reference == "series":
                prediction -= tf.reduce_mean(prediction, axis=1, keepdims=True)
        if not constraint.compared_daily:
            if constraint.daily:
                months = month.shape[1] // SHORTEST_MONTH + 2  # never too few
                prediction, _ = monthly_means(prediction, month, months, observed)
                target, observed = monthly_means(target, month, months, observed)
            else:
                prediction, complete = monthly_means(
                    prediction, month, tf.shape(target)[1]
                )
                observed &= complete
        if constraint.name in variables.ANOMALIES:
            target -= masked_mean(target, observed)[:, None]
            if self.anomaly_reference == "matched":
                prediction -= masked_mean(prediction, observed)[:, None]
        error = (prediction - mean) / constraint.std - (target - mean) / constraint.std
        if constraint.name in SATURATING:
            deep = (target > self.saturation) & (prediction > self.saturation)
            error = tf.where(deep, tf.zeros_like(error), error)
        return Term(
            total=tf.reduce_sum(masked_mean(tf.square(error), observed)),
            cells=tf.reduce_sum(tf.cast(tf.reduce_any(observed, axis=1), error.dtype)),
        )


def monthly_means(values, month, months, observed=None) -> tuple[tf.Tensor, tf.Tensor]:
    """Means over the days of each month, and whether a month has any day.

    Args:
        values: (cells, days).
        month: Column of each day's month (cells, days); -1 leaves the day out.
        months: Number of columns.
        observed: Which days count (cells, days); all by default.

    Returns:
        Both (cells, months); months without a day have a mean of 0.
    """
    cells = tf.shape(month)[0]
    counted = (month >= 0) & (month < months)
    if observed is not None:
        counted &= observed
    column = tf.range(cells)[:, None] * months + month
    # Days that are left out fall behind the last column, and are cut off.
    column = tf.where(counted, column, cells * months)

    def sums(x):
        flat = tf.math.unsorted_segment_sum(
            tf.reshape(x, [-1]), tf.reshape(column, [-1]), cells * months + 1
        )
        return tf.reshape(flat[:-1], [cells, months])

    days = sums(tf.cast(counted, values.dtype))
    return tf.math.divide_no_nan(sums(values), days), days > 0


def masked_mean(values, mask):
    """Mean over the second axis of what the mask admits; 0 where it admits none.

    Args:
        values: (cells, steps), finite.
        mask: (cells, steps).
    """
    weights = tf.cast(mask, values.dtype)
    return tf.math.divide_no_nan(
        tf.reduce_sum(values * weights, axis=1), tf.reduce_sum(weights, axis=1)
    )


def mean_terms(terms: Mapping[str, Term]) -> dict[str, tf.Tensor]:
    """The mean over cells of each term; 0 where no cell has an observation."""
    return {
        name: tf.math.divide_no_nan(term.total, term.cells)
        for name, term in terms.items()
    }
