"""The loop over days.

Time comes first inside the loop, (days, cells, features), and inputs are read
from a `TensorArray`: the gradient of `x[t]` would write a whole series of zeros
at every step.
"""

from collections.abc import Sequence

import tensorflow as tf

from h2mv_tf.cell import Preparation, State, one_day


def simulate(
    forcing, state: State, day: Preparation, outputs: Sequence[str]
) -> tuple[tf.Tensor, State]:
    """Walks over the days of a series.

    Gives the numbers of `keras.layers.RNN(H2MVCell(...))`.

    Args:
        forcing: (cells, days, 3) in physical units.
        state: State at the start of the first day.
        day: What `H2MVCell.prepare` gave.
        outputs: Names of the daily variables to return; none to spin up.

    Returns:
        The outputs (cells, days, len(outputs)) and the state at the end.
    """
    by_day = tf.transpose(forcing, [1, 0, 2])
    days = by_day.shape[0] or tf.shape(by_day)[0]
    read = tf.TensorArray(forcing.dtype, size=days).unstack(by_day)
    written = tf.TensorArray(
        forcing.dtype, size=days, element_shape=(forcing.shape[0], len(outputs))
    )

    def body(t, state, written):
        today, state = one_day(read.read(t), state, day, outputs)
        return t + 1, state, written.write(t, today)

    _, state, written = tf.while_loop(
        lambda t, *_: t < days,
        body,
        (0, state, written),
        # XLA wants a bound to differentiate; a number only where it is known.
        maximum_iterations=days if isinstance(days, int) else None,
    )
    return tf.transpose(written.stack(), [1, 0, 2]), state


def spin_up(forcing, state: State, day: Preparation) -> State:
    """The state after one pass over the days of a series, without gradient."""
    _, state = simulate(forcing, state, day, outputs=())
    return State(*map(tf.stop_gradient, state))
