"""Admission: what a model makes of inputs that nobody has looked at.

The commands and the library refuse what cannot be right. A SavedModel has no voice:
it brings its inputs to the nearest value that the physics can work with, and tells
how many days lie beyond what it was trained on. What is plausible stays as it is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from h2mv_tf.cell import State
from h2mv_tf.domain import Domain
from h2mv_tf.model import H2MV
from h2mv_tf.variables import FORCING, PROGNOSTIC, VARIABLES

# Numbers beyond these have no meaning, and single precision no room for them.
MOST_DEVIATIONS = 1e3  # of a static input from its mean
MOST_WATER = 1e7  # mm
MOST_CARRY = 1e6  # of the LSTM, which gains at most one a day


def admitted(model: H2MV, forcing, static, state: State | None = None):
    """Inputs as near as possible to the given ones that the model can work with.

    Args:
        model: The model.
        forcing: (cells, days, 3) or (cells, 3).
        static: (cells, static inputs).
        state: If there is one.

    Returns:
        Forcing within the bounds of the registry, static inputs, and the state with
        stores from 0 to 1e7 mm. What is NaN stays so.
    """
    low, high = (
        tf.constant([VARIABLES[name].bounds[n] for name in FORCING], forcing.dtype)
        for n in (0, 1)
    )
    reach = MOST_DEVIATIONS * tf.convert_to_tensor(model.static_std)
    mean = tf.convert_to_tensor(model.static_mean)
    static = _within(static, mean - reach, mean + reach)
    if state is not None:
        state = State(
            *(
                _within(x, *_limits(name))
                for name, x in zip(PROGNOSTIC, state, strict=True)
            )
        )
    return _within(forcing, low, high), static, state


class Ranges(NamedTuple):
    """Least and largest values of the inputs, which may come with each call."""

    forcing: tf.Tensor  # (2, 3)
    static: tf.Tensor  # (2, static inputs)

    @classmethod
    def of(cls, domain: Domain | None, static_size: int, dtype: str) -> "Ranges":
        """The ranges of a training, or what is plausible where they are not known.

        Args:
            domain: Of the training, if it is known.
            static_size: Number of static inputs.
            dtype: Of the inputs.
        """
        if domain is None:
            forcing = [VARIABLES[name].bounds for name in FORCING]
            static = [(-np.inf, np.inf)] * static_size
        else:
            forcing = [domain.forcing[name] for name in FORCING]
            static = list(domain.static.values())
        return cls(*(np.array(pairs, dtype).T for pairs in (forcing, static)))


def out_of_domain(forcing, static, ranges: Ranges):
    """Share of the days of each cell with an input beyond its range (cells,).

    Args:
        forcing: (cells, days, 3) or (cells, 3), as it was given.
        static: (cells, static inputs).
        ranges: Of the inputs.
    """
    days, cell = _beyond(forcing, ranges.forcing), _beyond(static, ranges.static)
    if days.shape.rank == 1:
        days = days[:, None]
    return tf.reduce_mean(tf.cast(days | cell[:, None], forcing.dtype), axis=1)


def _beyond(values, limits: Sequence):
    """Whether any of the inputs lies beyond its limits, or is not a number."""
    return ~tf.reduce_all((values >= limits[0]) & (values <= limits[1]), axis=-1)


def _within(values, low, high):
    return tf.minimum(tf.maximum(values, low), high)


def _limits(name: str) -> tuple[float, float]:
    """What a prognostic variable may be."""
    low, high = VARIABLES[name].bounds
    if VARIABLES[name].units == "mm":
        return 0.0, MOST_WATER
    return (-MOST_CARRY, MOST_CARRY) if low is None else (low, high)
