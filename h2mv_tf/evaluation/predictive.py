"""What an observation of a simulation would be: its noise, and what can be seen of it.

Arrays are (realization, step), the steps days or months.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.signal import lfilter
from scipy.special import ndtr, stdtrit
from scipy.stats import laplace

from h2mv_tf.documents import parsed_json
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation.blocks import SATURATING
from h2mv_tf.predictions import MEMBER, NOISE
from h2mv_tf.variables import ANOMALIES, VARIABLES


class Noise(NamedTuple):
    """The errors of a constraint's observations, in its units.

    Attributes:
        likelihood: `normal`, `laplace` or `student_t`.
        deviation: The scale of the distribution.
        persistence: Correlation of a step with the step before.
        degrees_of_freedom: Of `student_t`.
    """

    likelihood: str
    deviation: float
    persistence: float
    degrees_of_freedom: float | None = None

    def of(self, normal: np.ndarray) -> np.ndarray:
        """Errors in units of the scale, of independent normal numbers.

        Steps are a first-order autoregression of normal numbers, each then given the
        distribution of the errors by its probability: the distribution of a step is
        exact, and the persistence that of the normal numbers.

        Args:
            normal: (realization, step).
        """
        innovation = np.sqrt(1 - self.persistence**2)
        scaled = np.concatenate([normal[:, :1], normal[:, 1:] * innovation], axis=1)
        persistent = lfilter([1.0], [1.0, -self.persistence], scaled, axis=1)
        if self.likelihood == "normal":
            return persistent
        # Of the lower half, in which probabilities keep their precision.
        probability = ndtr(-np.abs(persistent))
        if self.likelihood == "laplace":
            lower = laplace.ppf(probability)
        else:
            lower = stdtrit(self.degrees_of_freedom, probability)
        return np.where(persistent < 0, lower, -lower)


class Observing(NamedTuple):
    """How a constraint is observed.

    Attributes:
        name: Of the constraint.
        noise: Of each realization; None where none was learned.
        saturation: Beyond which snow is only deep [mm], or None.
    """

    name: str
    noise: tuple[Noise | None, ...]
    saturation: float | None

    def predictive(
        self,
        simulated: np.ndarray,
        observed: np.ndarray,
        steps: np.ndarray,
        generator: np.random.Generator,
        known: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Samples of an observation, and the observation, both as far as can be seen.

        Args:
            simulated: (realization, step).
            observed: (step,), NaN where nothing is.
            steps: Number of each step (step,), ascending: noise persists through gaps.
            generator: Gives as many numbers whichever members have noise.
            known: Standard errors of the observations (step,), added to the noise's
                scale in quadrature.

        Returns:
            (realization, step) and (step,).
        """
        there = np.isfinite(observed)
        samples = simulated + self._errors(steps, generator, known)
        if self.name in ANOMALIES and there.any():
            samples = samples - samples[:, there].mean(axis=1, keepdims=True)
            observed = observed - observed[there].mean()
            if there.sum() == 1:  # 0 whatever was observed
                observed = np.full_like(observed, np.nan)
        low, high = VARIABLES[self.name].bounds
        if self.name in SATURATING and self.saturation is not None:
            high = self.saturation
        low, high = (
            (-np.inf if low is None else low),
            (np.inf if high is None else high),
        )
        return np.clip(samples, low, high), np.clip(observed, low, high)

    def _errors(self, steps, generator, known) -> np.ndarray:
        whole = steps[-1] - steps[0] + 1
        normal = generator.standard_normal((len(self.noise), whole))
        errors = np.zeros((len(self.noise), len(steps)))
        for noise in filter(None, dict.fromkeys(self.noise)):
            rows = [n for n, of_row in enumerate(self.noise) if of_row == noise]
            scale = noise.deviation
            if known is not None:
                scale = np.hypot(scale, np.nan_to_num(known))
            errors[rows] = noise.of(normal[rows])[:, steps - steps[0]] * scale
        return errors


def observing(
    predictions: xr.Dataset, name: str, saturation: float | None
) -> Observing:
    """How a constraint of samples is observed.

    Args:
        predictions: With realizations, of `predictions.load`.
        name: Of the constraint.
        saturation: As in `Observing`.

    Raises:
        UserError: The attribute `noise` cannot be read.
    """
    text = predictions.attrs.get(NOISE, "{}")
    try:
        of_members = {
            member: Noise(*(known[name][field] for field in Noise._fields))
            if name in known
            else None
            for member, known in parsed_json(text).items()
        }
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(
            f"The attribute '{NOISE}' of the predictions cannot be read: {error}. "
            "Make them anew with `python -m h2mv_tf predict`."
        ) from error
    members = map(str, predictions[MEMBER].values)
    return Observing(name, tuple(of_members.get(m) for m in members), saturation)
