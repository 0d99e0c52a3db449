"""Likelihoods: how probable the observations are, given a simulation.

An observation is the simulated value plus an error, in standard deviations of the
observations. Errors have a distribution whose scale is learned for each constraint,
added in quadrature to the standard error that the store may tell of an observation.

Errors persist: standardised errors z are a first-order autoregression with a learned
correlation rho, so that an observation k steps after the last one has the innovation

    v = (z - rho^k z_last) / sqrt(1 - rho^(2 k))

whose joint density rho is learned from (Box and Jenkins, 1976; in hydrology Sorooshian
and Dracup, 1980). Gaps are exact, as k is what it is; cells err independently.

That density is not what the network follows: where rho is high it sees little but
changes from step to step, and a simulation whose snow is off by half for a whole winter
costs nothing. The terms are the densities of errors by themselves, and each counts

    (1 - rho) / (1 + rho)

the share of observations that is independent: a composite likelihood (Varin, Reid and
Firth, 2011, Statistica Sinica 21, 5-42), which claims no more than there is.

Observations at a bound are censored (Tobin, 1958): a 0 of what is never negative says
"not above", snow beyond the saturation says "deep". Each has the probability of its
side of the bound.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import tensorflow as tf
import tensorflow_probability as tfp

from h2mv_tf import variables
from h2mv_tf.noise import Noise
from h2mv_tf.objective import SATURATING, Constraint, Objective, Pairs

tfd = tfp.distributions

Distribution = Literal["normal", "laplace", "student_t"]
NEVER = -1  # no observation yet
LEAST_PERSISTENCE = 1e-6  # of which the logarithm is taken
# The tail of a Student's t begins where nu / (nu + z^2) is below this; of its series so
# many terms are enough for double precision.
TAIL, TERMS = 0.3, 31
# An observation of 0 says "not above", as of what is never negative.
BOUNDED = tuple(
    name
    for name in variables.CONSTRAINTS
    if variables.VARIABLES[name].bounds == (0, None)
)


class Likelihood(Objective):
    """Negative log-likelihoods of observations [nats per observation].

    The terms are means over observations. Weighted by how many of them the training
    has, and how many of those are independent, their sum is the negative log-likelihood
    of all of them, divided by the mean number of a constraint's.

    Args:
        constraints: What is observed.
        distribution: Of the errors.
        observations: Number of each constraint's observations in the training.
        degrees_of_freedom: Of `student_t`.
        autocorrelation: Whether errors persist from step to step.
        **kwargs: As of `Objective`.
    """

    def __init__(
        self,
        constraints: Sequence[Constraint],
        distribution: Distribution,
        *,
        observations: Mapping[str, int],
        degrees_of_freedom: float = 4.0,
        autocorrelation: bool = True,
        **kwargs,
    ):
        super().__init__(constraints, **kwargs)
        self.observations = dict(observations)
        self.autocorrelation = autocorrelation
        self._error = {
            "normal": lambda zero, one: tfd.Normal(zero, one),
            "laplace": lambda zero, one: tfd.Laplace(zero, one),
            "student_t": lambda zero, one: tfd.StudentT(
                tf.constant(degrees_of_freedom, one.dtype), zero, one
            ),
        }[distribution]

    measure = "negative log-likelihood of standardised values [nats per observation]"
    counted = "observations"

    @property
    def scale(self) -> float:
        """What the log-likelihood of the whole training is divided by."""
        return sum(self.observations.values()) / len(self.names)

    def weights(self) -> dict[str, float]:
        """What each term is multiplied by in the sum."""
        return {name: self.observations[name] / self.scale for name in self.names}

    def total(self, constraint: Constraint, pairs: Pairs, noise: Noise):
        """Negative log-likelihood of the observations of standardised values [nats].

        Args:
            constraint: What is compared.
            pairs: Of `pairs`.
            noise: Its errors.
        """
        total = -tf.reduce_sum(self.log_densities(constraint, pairs, noise))
        if self.autocorrelation:
            z, _ = _standardised(constraint, pairs, noise)
            exact, _, _ = self._censored(constraint, pairs)
            innovation, width = _innovations(
                tf.stop_gradient(z), exact, noise.persistence
            )
            joint = self._of(z).log_prob(innovation) - tf.math.log(width)
            joint = tf.reduce_sum(tf.where(exact, joint, tf.zeros_like(joint)))
            total -= joint - tf.stop_gradient(joint)  # its gradient alone
        return total

    def log_densities(self, constraint: Constraint, pairs: Pairs, noise: Noise):
        """Of each observation by itself (cells, steps) [nats]; 0 where there is none.

        Args:
            constraint: What is compared.
            pairs: Of `pairs`.
            noise: Its errors.
        """
        z, deviation = _standardised(constraint, pairs, noise)
        error, zero = self._of(z), tf.zeros_like(z)
        exact, below, above = self._censored(constraint, pairs)
        density = error.log_prob(z) - tf.math.log(deviation)
        density = tf.where(exact, density, zero)
        if constraint.name in BOUNDED:
            # Other steps get a harmless value: their gradient would be masked too late.
            at_bound = tf.where(below, z, zero)
            density += tf.where(below, _log_cdf(error, at_bound), zero)
        if constraint.name in SATURATING:
            bound = (self.saturation - pairs.prediction) / constraint.std / deviation
            # A symmetric error lies above a bound as often as below its negative.
            at_bound = tf.where(above, -bound, zero)
            density += tf.where(above, _log_cdf(error, at_bound), zero)
        return density

    def shares(self, noise: Mapping[str, Noise]) -> dict[str, tf.Tensor]:
        """The share of each constraint's observations that is independent.

        Args:
            noise: Of the observations, by name.
        """
        if not self.autocorrelation:
            return super().shares(noise)
        persistence = {k: tf.stop_gradient(n.persistence) for k, n in noise.items()}
        return {k: (1 - rho) / (1 + rho) for k, rho in persistence.items()}

    def count(self, pairs: Pairs):
        """Number of observations.

        Args:
            pairs: Of `pairs`.
        """
        return tf.reduce_sum(tf.cast(pairs.observed, pairs.target.dtype))

    def _of(self, z) -> tfd.Distribution:
        """The distribution of standardised errors."""
        zero, one = (tf.constant(x, z.dtype) for x in (0, 1))
        return self._error(zero, one)

    def _censored(self, constraint: Constraint, pairs: Pairs):
        """Which observations are exact, at the lower bound, beyond the saturation."""
        nowhere = tf.zeros_like(pairs.observed)
        below = above = nowhere
        if constraint.name in BOUNDED:
            below = pairs.observed & (pairs.target <= 0)
        if constraint.name in SATURATING:
            above = pairs.observed & (pairs.target > self.saturation)
        return pairs.observed & ~below & ~above, below, above


def _standardised(constraint: Constraint, pairs: Pairs, noise: Noise):
    """Errors over their deviation (cells, steps), and the standardised deviation."""
    deviation = noise.deviation
    if pairs.errors is not None:
        known = pairs.errors / constraint.std
        deviation = tf.sqrt(tf.square(deviation) + tf.square(known))
    return (pairs.target - pairs.prediction) / constraint.std / deviation, deviation


def _log_cdf(error: tfd.Distribution, z):
    """Logarithm of the probability of an error of at most z.

    The library takes that of a Student's t from the probability, which far out is 0 in
    all digits. There it comes from the series of the incomplete beta function (NIST
    Digital Library of Mathematical Functions, 8.17.8), with a = nu / 2 and
    x = nu / (nu + z^2):

        P = x^a sqrt(1 - x) / (nu B(a, 1/2)) F(a + 1/2, 1; a + 1; x)

    Args:
        error: The distribution of errors.
        z: Standardised errors (cells, steps).
    """
    if not isinstance(error, tfd.StudentT):
        return error.log_cdf(z)
    half = error.df / 2
    x = error.df / (error.df + tf.square(z))
    far = (z < 0) & (x < TAIL)
    near = error.log_cdf(tf.where(far, tf.zeros_like(z), z))
    x = tf.where(far, x, TAIL * tf.ones_like(x))
    n = tf.range(TERMS, dtype=z.dtype)
    shares = tf.math.cumprod((half + 0.5 + n) / (half + 1 + n))
    series = tf.math.polyval([*tf.unstack(shares[::-1]), tf.ones_like(half)], x)
    tail = half * tf.math.log(x) + tf.math.log1p(-x) / 2 + tf.math.log(series)
    tail -= tf.math.log(error.df) + tf.math.lbeta(tf.stack([half, 0.5]))
    return tf.where(far, tail, near)


def _innovations(z, there, persistence):
    """What of each error the last one does not tell, and its standard deviation.

    Args:
        z: Standardised errors (cells, steps).
        there: Where there are errors.
        persistence: Correlation of a step with the step before.

    Returns:
        Innovations over their deviation, and the deviation, both (cells, steps).
    """
    steps = tf.range(tf.shape(z)[1])[None, :]
    last = _last_before(there)
    first = last == NEVER
    before = tf.gather(
        tf.where(there, z, tf.zeros_like(z)), tf.maximum(last, 0), batch_dims=1
    )
    gap = tf.cast(steps - last, z.dtype)
    log = tf.math.log(tf.maximum(persistence, LEAST_PERSISTENCE))
    memory = tf.where(first, tf.zeros_like(z), tf.exp(gap * log))
    width = tf.where(first, tf.ones_like(z), tf.sqrt(-tf.math.expm1(2 * gap * log)))
    return (z - memory * before) / width, width


def _last_before(there):
    """The step of the last error before each step, or NEVER (cells, steps).

    Twice as many steps are looked back at in each turn: as a loop, since XLA would take
    longer to compile a scan than the scan takes.

    Args:
        there: Where there are errors (cells, steps).
    """
    count = tf.shape(there)[1]
    steps = tf.range(count)[None, :]

    def earlier(last, by):
        return tf.where(steps < by, NEVER, tf.roll(last, by, axis=1))

    _, last = tf.while_loop(
        lambda by, _: by < count,
        lambda by, last: (2 * by, tf.maximum(last, earlier(last, by))),
        (1, tf.where(there, steps, NEVER)),
    )
    return earlier(last, 1)
