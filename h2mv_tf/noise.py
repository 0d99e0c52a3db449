"""What is learned of the errors of each constraint's observations."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

FIRST_PERSISTENCE = -2.0  # behind a sigmoid: 0.11 at the start
MOST_PERSISTENCE = 0.99
# How much faster these few numbers go than the weights of a network: errors shrink by
# a magnitude in a training of a few hundred steps.
PACE = 5.0


class Noise(NamedTuple):
    """The errors of a constraint's observations, in standardised units."""

    deviation: tf.Tensor  # the scale of their distribution
    persistence: tf.Tensor  # correlation of a step with the step before


@keras.saving.register_keras_serializable("h2mv_tf")
class ObservationNoise(keras.layers.Layer):
    """Learned errors of the observations, beside those that are known.

    Args:
        names: Of the constraints.
        **kwargs: Of `keras.Layer`.
    """

    def __init__(self, names: Sequence[str], **kwargs):
        super().__init__(**kwargs)
        self.names = tuple(names)
        self.build()

    def build(self, input_shape=None):
        """Creates the weights."""
        if self.built:
            return
        shape = (len(self.names),)
        self.log_deviation = self.add_weight(
            name="log_deviation", shape=shape, initializer="zeros"
        )
        self.persistence = self.add_weight(
            name="persistence",
            shape=shape,
            initializer=keras.initializers.Constant(FIRST_PERSISTENCE / PACE),
        )
        self.inflation = self.add_weight(
            name="inflation", shape=shape, initializer="ones", trainable=False
        )
        self.built = True

    def by_name(self) -> dict[str, Noise]:
        """The noise of each constraint, of scalars."""
        deviation = tf.exp(PACE * self.log_deviation)
        persistence = MOST_PERSISTENCE * tf.sigmoid(PACE * self.persistence)
        return {
            name: Noise(deviation[n], persistence[n])
            for n, name in enumerate(self.names)
        }

    def of_others(self) -> dict[str, Noise]:
        """The noise at cells that no training has seen, where a network errs, too."""
        return {
            name: noise._replace(deviation=noise.deviation * self.inflation[n])
            for n, (name, noise) in enumerate(self.by_name().items())
        }

    def get_config(self):
        """Arguments of the constructor."""
        return {**super().get_config(), "names": list(self.names)}
