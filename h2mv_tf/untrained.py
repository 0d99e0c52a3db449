"""The model before its training, as the configuration and the data make it."""

import keras
import numpy as np

from h2mv_tf.config import Config
from h2mv_tf.data.survey import Statistics
from h2mv_tf.model import H2MV, Normalization


def untrained_model(config: Config, statistics: Statistics) -> H2MV:
    """The untrained model, with its normalisation.

    Args:
        config: Sizes of the networks, precision and seed.
        statistics: Of the training cells.
    """
    keras.utils.set_random_seed(config.training.seed)
    uncertainty = config.uncertainty
    likely = config.objective.likelihood != "mse"
    model = H2MV(
        len(statistics.static),
        dtype=config.training.precision,
        observed=tuple(statistics.constraints) if likely else (),
        variational=uncertainty.posterior == "variational",
        last_layer=uncertainty.last_layer,
        rank=uncertainty.rank,
        **config.model.model_dump(),
    )
    model.set_normalization(normalization(statistics))
    return model


def normalization(statistics: Statistics) -> Normalization:
    """The constants of a model that bring its inputs to mean 0 and deviation 1."""
    forcing, static = (
        np.array(list(moments.values())).T
        for moments in (statistics.forcing, statistics.static)
    )
    return Normalization(*forcing, *static)
