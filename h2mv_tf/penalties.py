"""Penalties: what priors add to an objective.

    -log p(x)                        of points: the maximum of the posterior density
    -log p(x) - entropy of q         of a variational posterior q that x is drawn from

where the latter is the divergence KL(q || p), whose second part is exact. The density
is that of the parameter as the network has it, of the logarithm of the soil water
capacity and of the logits of the global constants, so that no parameter is drawn to the
edge of what is possible.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from h2mv_tf.model import H2MV, Drawn
from h2mv_tf.objective import Term
from h2mv_tf.priors import CAPACITY, CONSTANTS, Priors

tfd, tfb = tfp.distributions, tfp.bijectors

PRIOR, DIVERGENCE = "prior_", "kl_"  # before a parameter's name, in the history
WEIGHTS = "weights"


class Penalties:
    """What priors add to an objective.

    Args:
        priors: The priors.
        variational: Whether the parameters have distributions.
        last_layer: Whether the weights of the last layer have one, too.
        cells: Number of training cells.
        scale: What the log-likelihood of the whole training is divided by.
    """

    def __init__(
        self,
        priors: Priors,
        *,
        variational: bool,
        last_layer: bool,
        cells: int,
        scale: float,
    ):
        self.priors, self.variational = priors, variational
        self.last_layer = last_layer
        self.cells, self.scale = cells, scale
        kind = DIVERGENCE if variational else PRIOR
        self.of_capacity = kind + CAPACITY if CAPACITY in priors.scaled else None
        # A posterior may correlate what is global, so that it has one divergence.
        self.of_globe = (
            (DIVERGENCE + WEIGHTS,)
            if variational
            else tuple(PRIOR + name for name in CONSTANTS if name in priors.scaled)
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms."""
        return (*((self.of_capacity,) if self.of_capacity else ()), *self.of_globe)

    def weights(self) -> dict[str, float]:
        """What each term is multiplied by, as the log-likelihood is divided."""
        found = dict.fromkeys(self.of_globe, 1 / self.scale)
        if self.of_capacity:
            found[self.of_capacity] = self.cells / self.scale
        return found

    def counts(self, weight, share: float) -> dict[str, tf.Tensor]:
        """The count of each term.

        Args:
            weight: Of each window (windows,), 0 where it only fills the batch.
            share: Of this device in what is global.
        """
        found = {name: tf.constant(share, weight.dtype) for name in self.of_globe}
        if self.of_capacity:
            found[self.of_capacity] = tf.reduce_sum(weight)
        return found

    def terms(
        self, model: H2MV, static, weight, drawn: Drawn | None, share: float, seed=None
    ) -> dict[str, Term]:
        """Each penalty [nats], summed over windows or a share of what is global.

        Args:
            model: The model.
            static: Raw static inputs (windows, static inputs).
            weight: As in `counts`.
            drawn: One draw of a variational model.
            share: As in `counts`.
            seed: Of what dropout leaves out.
        """
        dtype = model.compute_dtype
        counts = self.counts(weight, share)
        code, capacity = model.encode(static, seed)
        values = {}
        if self.of_capacity:
            at = capacity if drawn is None else drawn.soil_water_capacity
            prior = tfb.Invert(tfb.Exp())(self.priors.capacity(static, dtype))
            cost = -prior.log_prob(tf.math.log(at[:, 0]))
            if self.variational:
                width = model.posterior.capacity_deviation(code)[:, 0]
                cost -= tfd.Normal(tf.zeros_like(width), width).entropy()
            values[self.of_capacity] = tf.reduce_sum(
                tf.where(weight > 0, cost, tf.zeros_like(cost))
            )
        cell = model.cell if drawn is None else drawn.head
        of_constants = {
            PRIOR + name: self._of_constant(name, getattr(cell, name), dtype)
            for name in CONSTANTS
            if name in self.priors.scaled
        }
        if self.variational:
            divergence = tf.add_n(list(of_constants.values()))
            if self.last_layer:
                prior = tfd.Normal(
                    tf.zeros((), dtype), tf.cast(self.priors.weight_deviation, dtype)
                )
                for part in (cell.coefficient_kernel, cell.coefficient_bias):
                    divergence -= tf.reduce_sum(prior.log_prob(part))
            divergence -= self._entropy(model)
            of_constants = {DIVERGENCE + WEIGHTS: divergence}
        values |= {name: share * value for name, value in of_constants.items()}
        return {name: Term(value, counts[name]) for name, value in values.items()}

    def _of_constant(self, name: str, raw, dtype: str):
        """Minus the log density of a global constant, at its logit."""
        prior, logit = self.priors.constant(name, dtype), tf.convert_to_tensor(raw)
        if isinstance(prior, tfd.Beta):
            # Of the logit itself: behind a sigmoid it may be 1 in all digits, of whose
            # rest there is no logarithm.
            a, b = prior.concentration1, prior.concentration0
            density = a * tf.math.log_sigmoid(logit) + b * tf.math.log_sigmoid(-logit)
            density -= tf.math.lbeta(tf.stack([a, b]))
        else:
            density = tfb.Invert(tfb.Sigmoid())(prior).log_prob(logit)
        return -tf.reduce_sum(density)

    def _entropy(self, model: H2MV):
        deviation = model.posterior.deviation()
        if not model.rank:
            return tfd.MultivariateNormalDiag(scale_diag=deviation).entropy()
        return tfd.MultivariateNormalDiagPlusLowRankCovariance(
            cov_diag_factor=tf.square(deviation),
            cov_perturb_factor=tf.convert_to_tensor(model.posterior.factor),
        ).entropy()
