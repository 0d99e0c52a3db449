"""The loop over days, with its own gradient.

Automatic differentiation would keep every intermediate number of every day. Here a
day keeps what it starts from; the backward pass takes the days from last to first,
works each out again and differentiates it by itself. What a day computes is
`cell.one_day`, in both directions.

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

    Gives the numbers and the gradients of `keras.layers.RNN(H2MVCell(...))`.

    Args:
        forcing: (cells, days, 3) in physical units.
        state: State at the start of the first day.
        day: What `H2MVCell.prepare` gave.
        outputs: Names of the daily variables to return; none to spin up.

    Returns:
        The outputs (cells, days, len(outputs)) and the state at the end.
    """
    structure = (state, day)

    # Takes tensors only: what a gradient is wanted of may not come by a closure.
    @tf.custom_gradient
    def walk(by_day, *tensors):
        state, day = tf.nest.pack_sequence_as(structure, tensors)
        written, kept, end = _forward(by_day, state, day, outputs, keep=True)

        def gradient(d_written, *d_end):
            days = (by_day, d_written, kept)
            return _backward(days, State(*d_end), day, outputs)

        return (written, *end), gradient

    by_day = tf.transpose(forcing, [1, 0, 2])
    written, *end = walk(by_day, *tf.nest.flatten(structure))
    return tf.transpose(written, [1, 0, 2]), State(*end)


def spin_up(forcing, state: State, day: Preparation) -> State:
    """The state after one pass over the days of a series, without gradient."""
    tensors = tf.nest.map_structure(tf.stop_gradient, (forcing, state, day))
    forcing, state, day = tensors
    by_day = tf.transpose(forcing, [1, 0, 2])
    return _forward(by_day, state, day, outputs=(), keep=False)[-1]


def _forward(
    by_day, state: State, day: Preparation, outputs: Sequence[str], *, keep: bool
):
    """The days from first to last.

    Args:
        by_day: Forcing (days, cells, 3).
        state: State at the start of the first day.
        day: What `H2MVCell.prepare` gave.
        outputs: Names of the daily variables to return.
        keep: Keep what each day starts from, for the way back.

    Returns:
        The outputs (days, cells, len(outputs)); what is kept, each part
        (days, cells, n); the state at the end.
    """
    days = _days(by_day)
    read = _series(by_day)
    written = _empty(by_day, (by_day.shape[1], len(outputs)))
    kept = [_empty(by_day, part.shape) for part in state] if keep else []

    def body(t, state, written, kept):
        kept = [part.write(t, now) for part, now in zip(kept, state, strict=keep)]
        today, state = one_day(read.read(t), state, day, outputs)
        return t + 1, state, written.write(t, today), kept

    _, state, written, kept = _while(body, days, (state, written, kept))
    return written.stack(), [part.stack() for part in kept], state


def _backward(days, d_state: State, day: Preparation, outputs: Sequence[str]):
    """The days from last to first.

    Args:
        days: The forcing, the gradient of the outputs and what each day starts
            from, each (days, cells, ...).
        d_state: Gradient of the state at the end.
        day: As forward.
        outputs: As forward.

    Returns:
        Gradients of the forcing, of the state at the start and of `day`.
    """
    by_day, d_written, kept = days
    count = _days(by_day)
    read, read_d = _series(by_day), _series(d_written)
    read_state = [_series(part) for part in kept]
    shared = tf.nest.flatten(day)

    def body(n, d_state, sums, d_forcing):
        t = count - 1 - n
        weather = read.read(t)
        before = State(*(part.read(t) for part in read_state))
        with tf.GradientTape() as tape:
            tape.watch((weather, before, shared))
            today = tf.nest.pack_sequence_as(day, shared)
            values, after = one_day(weather, before, today, outputs)
        d_weather, *d = tape.gradient(
            [values, *after],
            [weather, *before, *shared],
            output_gradients=[read_d.read(t), *d_state],
            unconnected_gradients="zero",
        )
        d_state, d_shared = State(*d[: len(before)]), d[len(before) :]
        sums = [total + part for total, part in zip(sums, d_shared, strict=True)]
        return n + 1, d_state, sums, d_forcing.write(t, d_weather)

    sums = [tf.zeros_like(part) for part in shared]
    start = (d_state, sums, _empty(by_day, by_day.shape[1:]))
    _, d_state, sums, d_forcing = _while(body, count, start)
    return d_forcing.stack(), *d_state, *sums


def _while(body, days, start: tuple):
    return tf.while_loop(
        lambda t, *_: t < days,
        body,
        (0, *start),
        # XLA wants a bound where a loop is differentiated once more.
        maximum_iterations=days if isinstance(days, int) else None,
    )


def _days(by_day):
    return by_day.shape[0] or tf.shape(by_day)[0]


def _series(by_day) -> tf.TensorArray:
    """Days to be read one by one."""
    return tf.TensorArray(by_day.dtype, size=_days(by_day)).unstack(by_day)


def _empty(by_day, shape) -> tf.TensorArray:
    """Room for as many days, each of this shape."""
    return tf.TensorArray(by_day.dtype, size=_days(by_day), element_shape=shape)
