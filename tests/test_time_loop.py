"""The fast loop against `keras.layers.RNN(H2MVCell)`."""

from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from cells import lively, started
from numpy.testing import assert_allclose

from h2mv_tf import time_loop, variables
from h2mv_tf.cell import Gates, H2MVCell, State
from h2mv_tf.time_loop import Kept, Plan

DAYS = 25
SIZES = {"small": (3, 2, 5), "one of each": (1, 1, 1), "many cells": (9, 4, 3)}
# Bytes for the way back: of all days; of a few, so that most are walked twice, in
# segments that do not divide the series; of none, one by one.
MEMORY = {"all days": 1e9, "few days": 4000, "no day": 0}


class Problem(NamedTuple):
    """A cell with what it needs to walk, and how its results are pulled."""

    cell: H2MVCell
    inputs: dict
    state: State
    pull: tf.Tensor

    @property
    def sources(self):
        weights = {w.name: w.value for w in self.cell.trainable_variables}
        return {**weights, **self.inputs, **self.state._asdict()}


class Walk(NamedTuple):
    """What a loop over days gives, and the gradients of it all."""

    outputs: tf.Tensor
    state: State
    gradients: dict


@pytest.fixture(scope="module", params=SIZES)
def problem(request, weather):
    cells, code, units = SIZES[request.param]
    rng = np.random.default_rng(3)
    cell = lively(code, units, rng)
    inputs = {
        "forcing": weather(rng, cells, DAYS),
        "code": rng.normal(size=(cells, code)),
        "capacity": rng.uniform(40, 90, (cells, 1)),
    }
    state = started(cells, units, rng)
    # Every output and state counts, each with a weight of its own.
    pull = rng.normal(size=(cells, DAYS, cell.output_size))
    return Problem(cell, *tf.nest.map_structure(tf.constant, (inputs, state, pull)))


def walked(problem, loop):
    sources = problem.sources
    with tf.GradientTape() as tape:
        tape.watch(list(sources.values()))
        outputs, state = loop()
        result = tf.reduce_sum(outputs * problem.pull)
        result += sum(map(tf.reduce_sum, state))
    return Walk(outputs, state, tape.gradient(result, sources))


@pytest.fixture(scope="module")
def plain(problem):
    cell, inputs, start, _ = problem
    layer = keras.layers.RNN(
        cell, return_sequences=True, return_state=True, dtype="float64"
    )

    def loop():
        static = tf.concat([inputs["code"], inputs["capacity"]], 1)[:, None]
        series = [inputs["forcing"], tf.repeat(static, DAYS, axis=1)]
        outputs, *state = layer(tf.concat(series, 2), initial_state=list(start))
        return outputs, State(*state)

    return walked(problem, loop)


@pytest.fixture(scope="module", params=[*MEMORY, "gradient of TensorFlow"])
def fast(request, problem):
    cell, inputs, start, _ = problem

    def loop():
        day = cell.prepare(inputs["code"], inputs["capacity"])
        outputs, state = time_loop.simulate(
            inputs["forcing"],
            start,
            day,
            cell.outputs,
            memory=MEMORY.get(request.param),
        )
        return tf.transpose(outputs, [1, 2, 0]), state

    return walked(problem, loop)


def test_outputs_are_those_of_the_keras_layer(plain, fast):
    assert plain.outputs.shape[1:] == (DAYS, len(variables.DAILY_OUTPUTS))
    assert_allclose(fast.outputs, plain.outputs, rtol=1e-10, atol=1e-10)


def test_the_state_at_the_end_is_that_of_the_keras_layer(plain, fast):
    for name, expected in plain.state._asdict().items():
        assert_allclose(
            getattr(fast.state, name), expected, rtol=1e-10, atol=1e-10, err_msg=name
        )


def test_gradients_are_those_of_the_keras_layer(plain, fast):
    for name, expected in plain.gradients.items():
        scale = np.abs(expected).max()
        assert scale > 0, name
        assert_allclose(
            fast.gradients[name],
            expected,
            rtol=1e-8,
            atol=1e-8 * scale,
            err_msg=name,
        )


@pytest.mark.parametrize("problem", ["small"], indirect=True)
def test_the_days_of_the_comparison_take_every_branch(plain):
    columns = tf.unstack(plain.outputs, axis=2)
    values = dict(zip(variables.DAILY_OUTPUTS, columns, strict=True))
    for name in ("snowfall", "rainfall", "snowmelt", "soil_evaporation", "swe"):
        assert (values[name].numpy() > 0).any(), name
        assert (values[name].numpy() == 0).any(), name


@pytest.mark.parametrize("memory", MEMORY.values(), ids=MEMORY)
def test_xla_gives_the_same_gradients(memory, weather):
    rng = np.random.default_rng(5)
    cell = lively(2, 3, rng)
    forcing = tf.constant(weather(rng, 4, DAYS))
    code = tf.constant(rng.normal(size=(4, 2)))
    capacity = tf.constant(rng.uniform(40, 90, (4, 1)))
    start = State(*map(tf.constant, cell.get_initial_state(4)))

    def gradients(memory):
        with tf.GradientTape() as tape:
            day = cell.prepare(code, capacity)
            outputs, _ = time_loop.simulate(
                forcing, start, day, ("runoff", "tws"), memory=memory
            )
            result = tf.reduce_sum(tf.square(outputs))
        return tape.gradient(result, cell.trainable_variables)

    compiled = tf.function(lambda: gradients(memory), jit_compile=True)()
    for found, expected in zip(compiled, gradients(None), strict=True):
        scale = np.abs(expected).max()
        assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * scale)


def test_a_spin_up_has_the_state_of_a_run_and_no_gradient(problem):
    cell, inputs, start, _ = problem
    forcing = inputs["forcing"]
    with tf.GradientTape() as tape:
        tape.watch(forcing)
        day = cell.prepare(inputs["code"], inputs["capacity"])
        state = time_loop.spin_up(forcing, start, day)
        result = sum(map(tf.reduce_sum, state))
    assert tape.gradient(result, [forcing, *cell.trainable_variables]) == [None] * 8
    _, expected = time_loop.simulate(forcing, start, day, cell.outputs)
    for found, value in zip(state, expected, strict=True):
        assert_allclose(found, value, rtol=1e-12)


@pytest.fixture
def kept():
    """What a day keeps: 92 bytes."""
    part = tf.zeros((1, 2), "float32")
    wide = tf.zeros((5, 1), "float32")
    return Kept(
        Gates(part, part, part, part), State(part, part, part, part, part, wide)
    )


def test_days_that_fit_memory_are_walked_once(kept):
    assert sum(x.shape[0] * x.shape[1] * 4 for x in tf.nest.flatten(kept)) == 92
    plan = Plan.of(10, kept, memory=920)
    assert plan.segments == 0
    assert plan.kept_from == 0


def test_days_beyond_the_memory_fall_into_segments(kept, monkeypatch):
    monkeypatch.setattr(time_loop, "CACHE", 3 * 92)
    plan = Plan.of(10, kept, memory=5 * 92)
    # Two segments of three days are the least that leave no more than five.
    assert plan == Plan(segments=2, length=3)
    assert plan.kept_from == 6
    assert [plan.segment(k) for k in range(2)] == [(0, 3), (3, 6)]


def test_a_day_is_the_least_that_is_kept(kept):
    assert Plan.of(10, kept, memory=0) == Plan(segments=9, length=1)
