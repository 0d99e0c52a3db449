"""Admission: what a model makes of inputs that nobody has looked at.

The commands and the library refuse what cannot be right. A SavedModel has no voice:
it brings its inputs to the nearest value that the physics can work with, and tells
how many days lie beyond what it was trained on. What is plausible stays as it is.
"""

from collections.abc import Mapping

import tensorflow as tf

from h2mv_tf.cell import State
from h2mv_tf.domain import Domain, Range
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
            *(_within(x, *_limits(name)) for name, x in zip(PROGNOSTIC, state))
        )
    return _within(forcing, low, high), static, state


def out_of_domain(forcing, static, domain: Domain | None):
    """Share of the days of each cell with an input beyond the domain (cells,).

    Args:
        forcing: (cells, days, 3) or (cells, 3), as it was given.
        static: (cells, static inputs).
        domain: Of the training; where it is not known, what is plausible.
    """
    ranges = (
        (domain.forcing, domain.static)
        if domain is not None
        else ({name: Range(*VARIABLES[name].bounds) for name in FORCING}, {})
    )
    days, cell = (
        _beyond(values, part) for values, part in zip((forcing, static), ranges)
    )
    if days.shape.rank == 1:
        days = days[:, None]
    return tf.reduce_mean(tf.cast(days | cell[:, None], forcing.dtype), axis=1)


def _beyond(values, ranges: Mapping[str, Range]):
    """Whether any of the inputs lies beyond its range, or is not a number."""
    if not ranges:
        return tf.zeros(tf.shape(values)[:-1], bool)
    low, high = (
        tf.constant([r[n] for r in ranges.values()], values.dtype) for n in (0, 1)
    )
    return ~tf.reduce_all((values >= low) & (values <= high), axis=-1)


def _within(values, low, high):
    return tf.minimum(tf.maximum(values, low), high)


def _limits(name: str) -> tuple[float, float]:
    """What a prognostic variable may be."""
    low, high = VARIABLES[name].bounds
    if VARIABLES[name].units == "mm":
        return 0.0, MOST_WATER
    return (-MOST_CARRY, MOST_CARRY) if low is None else (low, high)
