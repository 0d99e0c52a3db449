"""The objective: constraints, monthly means, anomalies, masked errors.

The sum over constraints of the mean over cells of the masked mean squared error
of standardised values; Baghirov et al. (2025), section 2.4. Arrays are (cells,
days) or (cells, months); missing observations are NaN. `likelihood` has the other
objectives.
"""

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import tensorflow as tf

from h2mv_tf import variables
from h2mv_tf.noise import Noise

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
    """A part of the objective, before it is averaged.

    Sums and counts add up over batches and devices, so a mean never depends on how
    the cells were dealt out.
    """

    total: tf.Tensor  # as the sum of the cells' mean squared errors
    count: tf.Tensor  # of what is summed up, as of cells with an observation


class Pairs(NamedTuple):
    """What a constraint's simulation and observations come to, step by step.

    Arrays are (cells, steps) in native units, finite also where nothing is observed.
    """

    prediction: tf.Tensor
    target: tf.Tensor
    observed: tf.Tensor  # whether the step has an observation
    errors: tf.Tensor | None = None  # standard errors of the observations, where known


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

    # What its terms are, and what they are means over, in words.
    measure, counted = "mean squared error of standardised values", "windows"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the constraints, which the model has to return."""
        return tuple(constraint.name for constraint in self.constraints)

    def weights(self) -> dict[str, float]:
        """What each term is multiplied by in the sum that is minimised."""
        return dict.fromkeys(self.names, 1.0)

    def shares(self, noise: Mapping[str, Noise]) -> dict[str, tf.Tensor | float]:
        """What each term is multiplied by besides, as far as that is learned.

        Args:
            noise: As in `terms`.
        """
        return dict.fromkeys(self.names, 1.0)

    def counts(self, targets: Mapping[str, tf.Tensor], month) -> dict[str, tf.Tensor]:
        """The count of each constraint's term.

        Needs no prediction, so devices can agree on it before they differentiate.

        Args:
            targets: As in `terms`.
            month: As in `terms`.
        """
        nothing = tf.zeros(tf.shape(month), targets[self.names[0]].dtype)
        return {
            constraint.name: self.count(self.pairs(constraint, nothing, targets, month))
            for constraint in self.constraints
        }

    def terms(
        self,
        predictions: Mapping[str, tf.Tensor],
        targets: Mapping[str, tf.Tensor],
        month,
        noise: Mapping[str, Noise] | None = None,
    ) -> dict[str, Term]:
        """The term of each constraint.

        Args:
            predictions: (cells, days) by name, in native units.
            targets: (cells, days) or (cells, months) by name, in native units, and,
                where they are known, standard errors by the names of the registry.
            month: For each cell and day the column of its month in monthly
                targets (cells, days); -1 where the month is not compared.
            noise: Of the observations, by name, for a likelihood.
        """
        terms = {}
        for constraint in self.constraints:
            name = constraint.name
            pairs = self.pairs(constraint, predictions[name], targets, month)
            terms[name] = Term(
                total=self.total(constraint, pairs, (noise or {}).get(name)),
                count=self.count(pairs),
            )
        return terms

    def pairs(self, constraint: Constraint, prediction, targets, month) -> Pairs:
        """Brings a simulation and its observations to the steps that are compared.

        Args:
            constraint: The constraint.
            prediction: (cells, days) in native units.
            targets: As in `terms`.
            month: As in `terms`.
        """
        target = targets[constraint.name]
        observed = tf.math.is_finite(target)
        # Filled before the difference and masked after it: 0 * NaN is NaN.
        target = tf.where(observed, target, tf.zeros_like(target))
        errors = targets.get(variables.ERRORS[constraint.name])
        if errors is not None:
            errors = tf.where(observed, errors, tf.ones_like(errors))
        anomalies = constraint.name in variables.ANOMALIES
        if anomalies and self.anomaly_reference == "series":
            prediction -= tf.reduce_mean(prediction, axis=1, keepdims=True)
        if not constraint.compared_daily:
            if constraint.daily:
                months = month.shape[1] // SHORTEST_MONTH + 2  # never too few
                prediction, _ = monthly_means(prediction, month, months, observed)
                if errors is not None:  # of the days of a month alike
                    errors, _ = monthly_means(errors, month, months, observed)
                target, observed = monthly_means(target, month, months, observed)
            else:
                prediction, complete = monthly_means(
                    prediction, month, tf.shape(target)[1]
                )
                observed &= complete
        if anomalies:
            target -= masked_mean(target, observed)[:, None]
            if self.anomaly_reference == "matched":
                prediction -= masked_mean(prediction, observed)[:, None]
        return Pairs(prediction, target, observed, errors)

    def total(self, constraint: Constraint, pairs: Pairs, noise: Noise | None = None):
        """Sum over cells of the masked mean squared error.

        Args:
            constraint: What is compared.
            pairs: Of `pairs`.
            noise: Of a likelihood; squares know none.
        """
        mean = 0.0 if constraint.name in variables.ANOMALIES else constraint.mean
        prediction, target, observed, _ = pairs
        error = (prediction - mean) / constraint.std - (target - mean) / constraint.std
        if constraint.name in SATURATING:
            deep = (target > self.saturation) & (prediction > self.saturation)
            error = tf.where(deep, tf.zeros_like(error), error)
        return tf.reduce_sum(masked_mean(tf.square(error), observed))

    def count(self, pairs: Pairs):
        """Number of cells with an observation.

        Args:
            pairs: Of `pairs`.
        """
        seen = tf.reduce_any(pairs.observed, axis=1)
        return tf.reduce_sum(tf.cast(seen, pairs.target.dtype))


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
    """The mean of each term; 0 where nothing is observed."""
    return {
        name: tf.math.divide_no_nan(term.total, term.count)
        for name, term in terms.items()
    }
