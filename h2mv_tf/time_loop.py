"""The loop over days, with its own gradient.

Automatic differentiation would keep every intermediate number of every day. Here a
day keeps the gates of its LSTM and the state it starts from; the way back takes the
days from last to first and works out from those what else there was. What a day
computes is written in `cell`, once for both directions; by hand is only the gradient
of the gates.

Where a series is too long for its memory, only its last days keep this. The others
fall into segments, of which the way out keeps the state at the start; the way back
walks each segment once more to find what its days would have kept. A segment is so
short that this stays in the processor's cache.

Time comes first inside the loop and cells last, (days, features, cells), and
series are read from a `TensorArray`: the gradient of `x[t]` would write a whole
series of zeros at every step.
"""

import math
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

MEMORY = 500e6  # bytes that the days of a series may keep by default
CACHE = 5e6  # bytes that the days of a segment may keep: what a core has near


class Kept(NamedTuple):
    """What a day keeps for the way back."""

    gates: Gates
    state: State  # at the start of the day

    @classmethod
    def of(cls, state: State) -> "Kept":
        """One of the shapes that it has with this state."""
        return cls(Gates(*[state.lstm_hidden] * len(Gates._fields)), state)


class Plan(NamedTuple):
    """Which days keep what the way back needs, and which are walked twice."""

    segments: int  # that are walked twice
    length: int  # days of each

    @classmethod
    def of(cls, days: int, kept: Kept, memory: float) -> "Plan":
        """As few segments as the memory allows.

        Args:
            days: Of the series.
            kept: What a day keeps.
            memory: Bytes that the days may keep.
        """
        size = sum(
            part.shape[0] * part.shape[1] * part.dtype.size
            for part in tf.nest.flatten(kept)
        )
        once = max(1, int(memory // size))
        length = max(1, int(min(memory, CACHE) // size))
        return cls(max(0, math.ceil((days - once) / length)), length)

    @property
    def kept_from(self) -> int:
        """The first day of those that are walked once."""
        return self.segments * self.length

    def segment(self, number) -> tuple:
        """First day of a segment, and the one after its last."""
        return number * self.length, (number + 1) * self.length


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
        outputs: Names of the daily variables to return.
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
        written.set_shape((by_day.shape[0], len(outputs), by_day.shape[2]))
    return tf.transpose(written, [1, 2, 0]), state.transposed()


def spin_up(forcing, state: State, day: Preparation) -> State:
    """The state after one pass over the days of a series, without gradient."""
    forcing, state, day = tf.nest.map_structure(tf.stop_gradient, (forcing, state, day))
    by_day = tf.transpose(forcing, [1, 2, 0])
    days = by_day.shape[0] or tf.shape(by_day)[0]
    loop = Loop(_series(by_day, days), day, outputs=())
    state, *_ = loop.out(state.transposed(), (0, days))
    return state.transposed()


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
            kept: Room for a `Kept` of each of these days, if they are to be kept.

        Returns:
            The state at the end, `written` and `kept`.
        """
        first, end = days
        day, outputs = self.day, self.outputs if written else ()

        def walk(t, state, written, kept):
            weather = self.forcing.read(t)
            opened = gates(features(weather, state, day), day.kernel, day.gate_bias)
            if kept:
                kept = _write(kept, t - first, Kept(opened, state))
                # Written once: what is read back is not kept in a second place.
                opened = _read(kept, t - first, Kept.of(state)).gates
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

    def back(self, gradients: Gradients, days: tuple, d_written, kept: list):
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
            known, state = _read(kept, t - first, Kept.of(gradients.state))
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
            d_bias = [
                d * slope for d, slope in zip(d_gates, slopes(known), strict=True)
            ]
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
    part = Kept.of(state)
    plan = Plan.of(days, part, memory)

    # Takes tensors only: what a gradient is wanted of may not come by a closure.
    @tf.custom_gradient
    def walk(by_day, *tensors):
        state, day = tf.nest.pack_sequence_as(structure, tensors)
        loop = Loop(_series(by_day, days), day, outputs)
        written = _room(days, len(outputs), by_day)
        starts = _rooms(plan.segments, state)

        def out(k, state, written, starts):
            starts = _write(starts, k, state)
            state, written, _ = loop.out(state, plan.segment(k), written)
            return k + 1, state, written, starts

        if plan.segments:
            _, state, written, starts = tf.while_loop(
                lambda k, *_: k < plan.segments, out, (0, state, written, starts)
            )
        kept = _rooms(days - plan.kept_from, part)
        state, written, kept = loop.out(state, (plan.kept_from, days), written, kept)
        starts, kept = ([a.stack() for a in arrays] for arrays in (starts, kept))

        def gradient(d_written, *d_state):
            gradients = Gradients(
                State(*d_state),
                tf.nest.map_structure(tf.zeros_like, day),
                _room(days, by_day.shape[1], by_day),
            )
            d_written = _series(d_written, days)
            known, first = (
                [_series(x, x.shape[0]) for x in stacked] for stacked in (kept, starts)
            )
            gradients = loop.back(gradients, (plan.kept_from, days), d_written, known)

            def back(k, gradients, kept):
                days = plan.segment(k)
                start = _read(first, k, structure[0])
                _, _, kept = loop.out(start, days, kept=kept)
                return k - 1, loop.back(gradients, days, d_written, kept), kept

            if plan.segments:
                _, gradients, _ = tf.while_loop(
                    lambda k, *_: k >= 0,
                    back,
                    (plan.segments - 1, gradients, _rooms(plan.length, part)),
                )
            d_state, d_day, d_forcing = gradients
            return d_forcing.stack(), *d_state, *tf.nest.flatten(d_day)

        return (written.stack(), *state), gradient

    written, *state = walk(by_day, *tf.nest.flatten(structure))
    return written, State(*state)


def _rooms(number: int, parts) -> list[tf.TensorArray]:
    """Room for a number of each part.

    Parts of one shape share an array: XLA would start each as a copy of the other.
    """
    return [
        tf.TensorArray(
            group[0].dtype,
            number * len(group),
            element_shape=group[0].shape,
            clear_after_read=False,
        )
        for group in _by_shape(parts)
    ]


def _write(arrays: list[tf.TensorArray], place, parts) -> list[tf.TensorArray]:
    """Writes parts into rooms."""
    written = []
    for array, group in zip(arrays, _by_shape(parts), strict=True):
        for n, part in enumerate(group):
            array = array.write(place * len(group) + n, part)
        written.append(array)
    return written


def _read(arrays: list[tf.TensorArray], place, like):
    """The parts at a place of rooms, in the structure of those that they are like."""
    found = {}
    for array, group in zip(arrays, _by_shape(like), strict=True):
        shape = tuple(group[0].shape)
        found[shape] = [array.read(place * len(group) + n) for n in range(len(group))]
    flat = [found[tuple(part.shape)].pop(0) for part in tf.nest.flatten(like)]
    return tf.nest.pack_sequence_as(like, flat)


def _by_shape(parts) -> list[list[tf.Tensor]]:
    """The parts of each shape, in their order."""
    groups: dict[tuple, list] = {}
    for part in tf.nest.flatten(parts):
        groups.setdefault(tuple(part.shape), []).append(part)
    return list(groups.values())


def _series(by_day, days) -> tf.TensorArray:
    """Days to be read one by one, more than once."""
    array = tf.TensorArray(by_day.dtype, size=days, clear_after_read=False)
    return array.unstack(by_day)


def _room(days, rows: int, like) -> tf.TensorArray:
    """Room for a number of days, each (rows, cells)."""
    cells = like.shape[2]
    if cells is not None:
        return tf.TensorArray(like.dtype, size=days, element_shape=(rows, cells))
    # TensorArray would say -1 cells, of which LiteRT cannot make room.
    room = tf.raw_ops.TensorListReserve(
        element_shape=[rows, tf.shape(like)[2]],
        num_elements=days,
        element_dtype=like.dtype,
    )
    return tf.TensorArray(like.dtype, flow=room)
