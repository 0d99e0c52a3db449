"""What trials are judged by: the validation loss, or a score of `evaluate`."""

from collections.abc import Sequence
from typing import NamedTuple

from h2mv_tf import variables
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation.metrics import METRICS
from h2mv_tf.evaluation.scales import SCALES

VALIDATION_LOSS = "val_loss"
ALL = "all"
STATISTICS = ("median", "mean")
LARGER_IS_BETTER = ("nse", "kge", "kge_2012", "r")
OF_MEANS = ("kge", "kge_2012", "beta", "percent_bias")  # no anomaly has one
IDEAL = {"alpha": 1.0, "beta": 1.0, "bias": 0.0, "percent_bias": 0.0}
EXPECTED = (
    f"Expected {VALIDATION_LOSS}, or val/STATISTIC_METRIC/VARIABLE and perhaps /SCALE, "
    "as val/median_nse/runoff or val/mean_kge/all/daily"
)


class Objective(NamedTuple):
    """What trials are judged by.

    Attributes:
        metric: Of `evaluation.metrics`, or the validation loss.
        statistic: Over the validation cells: median, or area-weighted mean.
        variable: A constraint, or all: the mean over all of the store.
        scale: Of `evaluation.scales`.
    """

    metric: str
    statistic: str = ""
    variable: str = ""
    scale: str = ""

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Reads an objective.

        Args:
            text: As `val_loss` or `val/median_nse/runoff`.

        Raises:
            UserError: It is none.
        """
        if text == VALIDATION_LOSS:
            return cls(VALIDATION_LOSS)
        role, *parts = text.split("/")
        if role == "test":
            raise UserError(
                f"'{text}' looks at the test cells, which are kept for the end. "
                f"{EXPECTED}."
            )
        if role != "val" or len(parts) not in (2, 3):
            raise UserError(f"'{text}' is no objective. {EXPECTED}.")
        statistic, _, metric = parts[0].partition("_")
        scale = parts[2] if len(parts) == 3 else "monthly"
        for word, known, what in (
            (statistic, STATISTICS, "statistic"),
            (metric, METRICS, "metric"),
            (scale, SCALES, "scale"),
        ):
            if word not in known:
                raise UserError(
                    f"'{text}' has no known {what}. {EXPECTED}; a {what} is one of "
                    f"{', '.join(known)}."
                )
        if metric in OF_MEANS and scale == "anomaly":
            raise UserError(
                f"'{text}' is not defined: the means of anomalies are zero. Choose "
                "nse, r or rmse."
            )
        variable = ALL
        if parts[1] != ALL:
            found = variables.find(parts[1], variables.CONSTRAINTS)
            if found is None:
                raise UserError(
                    f"'{text}' has no known variable. {EXPECTED}; a variable is {ALL} "
                    f"or one of {', '.join(variables.CONSTRAINTS)}."
                )
            variable = found.name
            if metric in OF_MEANS and variable in variables.ANOMALIES:
                raise UserError(
                    f"'{text}' is not defined: the means of anomalies are zero. Choose "
                    "nse, r or rmse."
                )
        return cls(metric, statistic, variable, scale)

    def __str__(self) -> str:
        if self.of_the_loss:
            return VALIDATION_LOSS
        return f"val/{self.statistic}_{self.metric}/{self.variable}/{self.scale}"

    @property
    def of_the_loss(self) -> bool:
        """Whether it is the validation loss."""
        return self.metric == VALIDATION_LOSS

    @property
    def maximised(self) -> bool:
        """Whether the larger score is the better one."""
        return self.metric in LARGER_IS_BETTER

    def of(self, constraints: Sequence[str]) -> tuple[str, ...]:
        """The variables that it looks at.

        Args:
            constraints: That were trained on.
        """
        if self.variable != ALL:
            return (self.variable,)
        without = variables.ANOMALIES if self.metric in OF_MEANS else ()
        return tuple(name for name in constraints if name not in without)

    def score(self, value: float) -> float:
        """The score of a value: where a metric has an ideal, how far from it."""
        return abs(value - IDEAL[self.metric]) if self.metric in IDEAL else value
