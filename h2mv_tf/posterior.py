"""The variational posterior: how far from its centre each parameter may lie.

The soil water capacity of a cell is log-normal around the network's estimate, with a
deviation that a dense layer reads from the static code, so that it is known for cells
that were never trained on. Global constants, before their sigmoids, and the weights of
the layer that gives the coefficients are normal around the model's weights, each for
itself or, with a rank, correlated: the covariance is diag(d^2) + U U^T (Ong et al.,
2018, doi 10.1080/10618600.2017.1390472).

Draws are functions of standard normal numbers (Kingma and Welling, 2014): where these
are zero, or the deviations are, the model is the deterministic one.
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from h2mv_tf.noise import PACE

# Behind softplus at the start: 0.13 and 0.018.
FIRST_CAPACITY_DEVIATION, FIRST_DEVIATION = -2.0, -4.0
FIRST_FACTOR = 0.001


class Normals(NamedTuple):
    """Standard normal numbers that choose draws."""

    capacity: tf.Tensor  # (draws * cells, 1)
    weights: tf.Tensor  # (draws, size)
    factors: tf.Tensor  # (draws, rank)


@keras.saving.register_keras_serializable("h2mv_tf")
class Posterior(keras.layers.Layer):
    """Deviations of a model's parameters.

    Args:
        size: Number of weights that have a distribution.
        code_size: Size of the static code.
        rank: Of what is correlated between them.
        **kwargs: Of `keras.Layer`.
    """

    def __init__(self, size: int, code_size: int, rank: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.size, self.code_size, self.rank = size, code_size, rank
        self.capacity_layer = keras.layers.Dense(
            1,
            name="capacity_deviation",
            kernel_initializer="zeros",
            bias_initializer=keras.initializers.Constant(
                FIRST_CAPACITY_DEVIATION / PACE
            ),
            dtype=self.dtype_policy,
        )
        self.build()

    def build(self, input_shape=None):
        """Creates the weights."""
        if self.built:
            return
        self.capacity_layer.build((None, self.code_size))
        self.raw_deviation = self.add_weight(
            name="deviation",
            shape=(self.size,),
            initializer=keras.initializers.Constant(FIRST_DEVIATION / PACE),
        )
        if self.rank:
            self.factor = self.add_weight(
                name="factor",
                shape=(self.size, self.rank),
                initializer=keras.initializers.RandomNormal(stddev=FIRST_FACTOR),
            )
        self.built = True

    def capacity_deviation(self, code):
        """Deviation of the logarithm of the soil water capacity (cells, 1).

        Args:
            code: Static code (cells, code_size).
        """
        return tf.nn.softplus(PACE * self.capacity_layer(code))

    def deviation(self):
        """Deviation of each weight, but for what is correlated (size,)."""
        return tf.nn.softplus(PACE * tf.convert_to_tensor(self.raw_deviation))

    def weights_at(self, centre, normals: Normals):
        """Draws of the weights (draws, size).

        Args:
            centre: The model's weights (size,).
            normals: Of these draws.
        """
        drawn = centre + normals.weights * self.deviation()
        if self.rank:
            drawn += tf.matmul(normals.factors, self.factor, transpose_b=True)
        return drawn

    def get_config(self):
        """Arguments of the constructor."""
        return {
            **super().get_config(),
            "size": self.size,
            "code_size": self.code_size,
            "rank": self.rank,
        }
