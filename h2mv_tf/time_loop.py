"""The loop over days, with its own gradient.

Automatic differentiation would keep every intermediate number of every day. Here
the days fall into segments. The way out keeps the state at the start of each; the
way back takes the segments from last to first, walks each once more to find what
its days keep, and differentiates day by day. What a day computes is written in
`cell`, once for both directions; by hand is only the gradient of the gates.

A segment is so short that what its days keep stays near the processor: a way back
pays for memory more than for arithmetic. The last one is not walked twice, and a
series that is short enough is one segment.

Time comes first inside the loop and cells last, (days, features, cells), and
series are read from a `TensorArray`: the gradient of `x[t]` would write a whole
series of zeros at every step.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from h2mv_tf.cell import (
    Gates,
    Preparation,
    State,
    behind_the_gates,
    features,
    gates,
    slopes,
)

MEMORY = 32e6  # bytes that the days of a series may keep by default
NEAR = 5e6  # bytes that the days of a segment may keep, to stay in a core's cache


class Kept(NamedTuple):
    """What a day keeps for the way back; in a loop an array for each part of it."""

    gates: Gates
    state: State  # at the start of the day


class Gradients(NamedTuple):
    """What the way back has found so far."""

    state: State  # at the start of the earliest day that is done
    day: Preparation  # summed over the days
    forcing: tf.TensorArray  # of each day


def simulate(
    forcing,
    state: State,
    day: Preparation,
    outputs: Sequence[str],
    *,
    memory: float | None = None,
) -> tuple[tf.Tensor, State]:
    """Walks over the days of a series.

    Gives the numbers and the gradients of `keras.layers.RNN(H2MVCell(...))`.

    Args:
        forcing: (cells, days, 3) in physical units.
        state: State at the start of the first day.
        day: What `H2MVCell.prepare` gave.
        outputs: Names of the daily variables to return; none to spin up.
        memory: Bytes that the days may keep for the loop's own gradient. None leaves
            the gradient to TensorFlow, which is right where none is wanted; so does
            a number of days or cells that is not known yet.

    Returns:
        The outputs (len(outputs), cells, days) and the state at the end.
    """
    by_day, state = tf.transpose(forcing, [1, 2, 0]), state.transposed()
    if memory is not None and by_day.shape.is_fully_defined():
        written, state = _with_gradient(by_day, state, day, outputs, memory)
    else:
        days = by_day.shape[0] or tf.shape(by_day)[0]
        written = _room(days, len(outputs), by_day)
        loop = Loop(_series(by_day, days), day, outputs)
        state, written, _ = loop.out(state, (0, days), written)
        written = written.stack()
    return tf.transpose(written, [1, 2, 0]), state.transposed()


def spin_up(forcing, state: State, day: Preparation) -> State:
    """The state after one pass over the days of a series, without gradient."""
    tensors = tf.nest.map_structure(tf.stop_gradient, (forcing, state, day))
    return simulate(*tensors, outputs=())[1]


class Loop(NamedTuple):
    """The days of a series, to be walked from first to last and back."""

    forcing: tf.TensorArray  # each (3, cells)
    day: Preparation
    outputs: Sequence[str]

    def out(self, state: State, days: tuple, written=(), kept=()):
        """The days from first to last.

        Args:
            state: State at the start of the first day.
            days: The first one, and the one after the last.
            written: Array of the outputs of all days of the series.
            kept: `Kept`, with room for these days, if they are to be kept.

        Returns:
            The state at the end, `written` and `kept`.
        """
        first, end = days
        day, outputs = self.day, self.outputs if written else ()

        def walk(t, state, written, kept):
            weather = self.forcing.read(t)
            opened = gates(features(weather, state, day), day.kernel, day.gate_bias)
            if kept:
                today = Kept(opened, state)
                kept = tf.nest.map_structure(
                    lambda array, part: array.write(t - first, part), kept, today
                )
            today, state = behind_the_gates(opened, weather, state, day, outputs)
            if written:
                written = written.write(t, today)
            return t + 1, state, written, kept

        # XLA wants a bound to differentiate a loop.
        bound = end - first if isinstance(end, int) else None
        _, *result = tf.while_loop(
            lambda t, *_: t < end,
            walk,
            (first, state, written, kept),
            maximum_iterations=bound,
        )
        return result

    def back(self, gradients: Gradients, days: tuple, d_written, kept: Kept):
        """The days from last to first.

        Args:
            gradients: Those of the days after them.
            days: As in `out`.
            d_written: Array of the gradient of the outputs of all days.
            kept: Of `out`.

        Returns:
            The gradients, these days included.
        """
        first, end = days
        day = self.day
        across = tf.split(tf.transpose(day.kernel), len(Gates._fields), 1)

        def walk(t, gradients):
            weather = self.forcing.read(t)
            known, state = tf.nest.map_structure(lambda a: a.read(t - first), kept)
            with tf.GradientTape() as tape:
                tape.watch((weather, state, day))
                opened = _known_gates(
                    known,
                    features(weather, state, day),
                    day.kernel,
                    day.gate_bias,
                    across,
                )
                values, after = behind_the_gates(
                    opened, weather, state, day, self.outputs
                )
            d_weather, d_state, d_day = tape.gradient(
                [values, *after],
                [weather, state, day],
                output_gradients=[d_written.read(t), *gradients.state],
                unconnected_gradients="zero",
            )
            return t - 1, Gradients(
                d_state,
                tf.nest.map_structure(tf.add, gradients.day, d_day),
                gradients.forcing.write(t, d_weather),
            )

        return tf.while_loop(lambda t, _: t >= first, walk, (end - 1, gradients))[1]


def _known_gates(known: Gates, read, kernel, bias, across) -> Gates:
    """As `cell.gates`, of which the result is known: only its gradient is computed.

    Args:
        known: The result.
        read: As in `cell.gates`.
        kernel: As in `cell.gates`.
        bias: As in `cell.gates`.
        across: The kernel of each gate (features, units).
    """

    @tf.custom_gradient
    def opened(read, kernel, bias):
        def gradient(*d_gates):
            # Gate by gate, as XLA works a concatenation out number by number.
            d_bias = [d * slope for d, slope in zip(d_gates, slopes(known), strict=True)]
            d_kernel = [tf.matmul(d, read, transpose_b=True) for d in d_bias]
            d_read = tf.add_n([a @ d for a, d in zip(across, d_bias, strict=True)])
            return d_read, tf.concat(d_kernel, 0), tf.concat(d_bias, 0)

        return tuple(map(tf.identity, known)), gradient

    return Gates(*opened(read, kernel, bias))


def _with_gradient(
    by_day, state: State, day: Preparation, outputs: Sequence[str], memory: float
) -> tuple[tf.Tensor, State]:
    """All days, with the gradient of this module.

    Args:
        by_day: Forcing (days, 3, cells).
        state: State at the start of the first day.
        day: What `H2MVCell.prepare` gave.
        outputs: Names of the daily variables to return.
        memory: Bytes that the days may keep.

    Returns:
        The outputs (days, len(outputs), cells) and the state at the end.
    """
    structure = (state, day)
    days = by_day.shape[0]
    rows = Kept(Gates(*[part.shape[0] for part in [state.hidden] * 4]), State(*(x.shape[0] for x in state)))
    one = sum(tf.nest.flatten(rows)) * by_day.shape[2] * by_day.dtype.size
    length = days if days * one <= memory else max(1, int(NEAR // one))
    before = (days - 1) // length  # segments that are not the last
    last = (before * length, days)

    def span(k):
        return k * length, (k + 1) * length

    # Takes tensors only: what a gradient is wanted of may not come by a closure.
    @tf.custom_gradient
    def walk(by_day, *tensors):
        state, day = tf.nest.pack_sequence_as(structure, tensors)
        loop = Loop(_series(by_day, days), day, outputs)
        starts = [_room(before, len_, by_day) for len_ in rows.state]

        def out(k, state, written, starts):
            starts = [a.write(k, x) for a, x in zip(starts, state, strict=True)]
            state, written, _ = loop.out(state, span(k), written)
            return k + 1, state, written, starts

        written = _room(days, len(outputs), by_day)
        if before:
            _, state, written, starts = tf.while_loop(
                lambda k, *_: k < before, out, (0, state, written, starts)
            )
        kept = tf.nest.map_structure(lambda n: _room(length, n, by_day), rows)
        state, written, kept = loop.out(state, last, written, kept)
        starts = [a.stack() for a in starts]
        kept = tf.nest.map_structure(lambda a: a.stack(), kept)

        def gradient(d_written, *d_state):
            d_written = _series(d_written, days)
            gradients = Gradients(
                State(*d_state),
                tf.nest.map_structure(tf.zeros_like, day),
                _room(days, by_day.shape[1], by_day),
            )
            arrays = tf.nest.map_structure(lambda x: _series(x, length), kept)
            gradients = loop.back(gradients, last, d_written, arrays)

            def back(k, gradients, arrays):
                state = State(*(a.read(k) for a in start_arrays))
                _, _, arrays = loop.out(state, span(k), (), arrays)
                return k - 1, loop.back(gradients, span(k), d_written, arrays), arrays

            if before:
                start_arrays = [_series(x, before) for x in starts]
                _, gradients, _ = tf.while_loop(
                    lambda k, *_: k >= 0, back, (before - 1, gradients, arrays)
                )
            d_state, d_day, d_forcing = gradients
            return d_forcing.stack(), *d_state, *tf.nest.flatten(d_day)

        return (written.stack(), *state), gradient

    written, *state = walk(by_day, *tf.nest.flatten(structure))
    return written, State(*state)


def _series(by_day, days) -> tf.TensorArray:
    """Days to be read one by one."""
    return tf.TensorArray(by_day.dtype, size=days).unstack(by_day)


def _room(days, rows: int, like) -> tf.TensorArray:
    """Room for a number of days, each (rows, cells)."""
    return tf.TensorArray(like.dtype, size=days, element_shape=(rows, like.shape[2]))
