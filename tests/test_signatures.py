"""What the functions of a SavedModel promise, before it is saved."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from h2mv_tf.domain import Domain, Range
from h2mv_tf.model import H2MV, Normalization
from h2mv_tf.signatures import DRIFT, FINAL, INITIAL, SERIES, signatures
from h2mv_tf.variables import (
    FORCING,
    OUTPUTS,
    PROGNOSTIC,
    STATES,
    STEP_OUTPUTS,
    VARIABLES,
)

CELLS, DAYS, STATIC = 3, 50, 4
DOMAIN = Domain(
    forcing={
        "net_radiation": Range(-200.0, 400.0),
        "precipitation": Range(0.0, 200.0),
        "air_temperature": Range(240.0, 310.0),
    },
    static={f"static_{n}": Range(-10.0, 10.0) for n in range(STATIC)},
    units={},
    period=("2001-01-01", "2001-12-31"),
    cells=CELLS,
)


def modelled(dtype):
    """A model with weights that take its coefficients through their range."""
    rng = np.random.default_rng(5)
    model = H2MV(STATIC, encoder_units=6, code_size=3, lstm_units=5, dtype=dtype)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    model.set_normalization(
        Normalization(
            np.array([60, 3, 274]), np.array([60, 6, 8]), np.zeros(4), np.ones(4)
        )
    )
    return model


@pytest.fixture(scope="module", params=["float32", "float64"])
def both(request):
    """The signatures in each precision, and the error that rounding may make."""
    model = modelled(request.param)
    rounding = {"float32": 1e-6, "float64": 1e-12}[request.param]
    return signatures(model, DOMAIN), request.param, rounding


@pytest.fixture(scope="module")
def single():
    return signatures(modelled("float32"), DOMAIN)


@pytest.fixture(scope="module")
def inputs(weather):
    rng = np.random.default_rng(1)
    return weather(rng, CELLS, DAYS), rng.normal(size=(CELLS, STATIC))


def asked(function, **values):
    """What a function returns, as arrays."""
    types = {n: p.type_constraint for n, p in function.function_type.parameters.items()}
    tensors = {n: tf.constant(v, types[n].dtype) for n, v in values.items()}
    return {name: value.numpy() for name, value in function(**tensors).items()}


def start(found):
    """The final state of a call, as the initial one of the next."""
    return {INITIAL + name: found[FINAL + name] for name in PROGNOSTIC}


def started(rng, cells=CELLS, units=5):
    """A state that is nowhere empty."""
    water = {INITIAL + name: rng.uniform(0, 60, cells) for name in STATES}
    memory = {
        INITIAL + name: rng.uniform(-1, 1, (cells, units))
        for name in ("lstm_hidden", "lstm_carry")
    }
    return {**water, INITIAL + "fapar": rng.random(cells), **memory}


def assert_near(found, expected, tolerance):
    """Equal, relative to the size of each variable."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        # The residual is what rounding leaves of the stores.
        size = expected["tws"] if name == "water_balance_residual" else values
        scale = max(np.abs(size).max(), 1.0)
        assert_allclose(
            found[name], values, rtol=0, atol=tolerance * scale, err_msg=name
        )


def assert_closed(found):
    """The balance closes, but for the rounding of the stores and fluxes there are."""
    size = found["tws"] + found["corrected_precipitation"] + found["runoff"]
    room = 1e-5 + 8 * np.finfo("float32").eps * size
    assert (np.abs(found["water_balance_residual"]) <= room).all()


def test_every_function_takes_and_gives_named_tensors(single):
    state = {INITIAL + name for name in PROGNOSTIC}
    assert {
        name: set(function.function_type.parameters)
        for name, function in single.items()
        if not name.endswith(SERIES)
    } == {
        "serving_default": {"forcing", "static"},
        "simulate": {"forcing", "static", *state},
        "spin_up": {"forcing", "static", "cycles"},
        "step": {"forcing", "static", *state},
        "simulate_xla": {"forcing", "static", *state},
    }


def test_forcing_comes_as_one_array_or_as_three_series(single, inputs):
    forcing, static = inputs
    state = started(np.random.default_rng(2))
    for name, others, weather in (
        ("serving_default", {}, forcing),
        ("simulate", state, forcing),
        ("simulate_xla", state, forcing),
        ("spin_up", {"cycles": 1}, forcing),
        ("step", state, forcing[:, 0]),
    ):
        one = asked(single[name], forcing=weather, static=static, **others)
        series = dict(zip(FORCING, np.moveaxis(weather, -1, 0), strict=True))
        three = asked(single[name + SERIES], static=static, **series, **others)
        for key, values in one.items():
            assert_array_equal(three[key], values, err_msg=f"{name}: {key}")


def test_the_default_is_a_spin_up_and_a_simulation(both, inputs):
    functions, _, rounding = both
    forcing, static = inputs
    given = {"forcing": forcing, "static": static}
    spun = asked(functions["spin_up"], cycles=1, **given)
    simulated = asked(functions["simulate"], **given, **start(spun))
    found = asked(functions["serving_default"], **given)
    assert set(found) == {*OUTPUTS, "out_of_domain"}
    assert_near(found, {name: simulated[name] for name in found}, rounding)


def test_it_gives_the_numbers_of_the_model(both, inputs):
    functions, dtype, rounding = both
    forcing, static = inputs
    expected = modelled(dtype)({"forcing": forcing, "static": static})
    found = asked(functions["serving_default"], forcing=forcing, static=static)
    del found["out_of_domain"]
    assert_near(found, {name: v.numpy() for name, v in expected.items()}, rounding)


@pytest.mark.parametrize("name", ["simulate", "simulate_xla"])
def test_two_halves_one_after_the_other_are_one_run(both, inputs, name):
    functions, _, rounding = both
    forcing, static = inputs
    simulate = functions[name]
    state = started(np.random.default_rng(3))
    whole = asked(simulate, forcing=forcing, static=static, **state)
    half = DAYS // 2
    first = asked(simulate, forcing=forcing[:, :half], static=static, **state)
    second = asked(simulate, forcing=forcing[:, half:], static=static, **start(first))
    joined = {
        name: np.concatenate([first[name], second[name]], axis=1)
        if values.ndim == 2 and not name.startswith(FINAL)
        else second[name]
        for name, values in whole.items()
    }
    for own in ("tws_anomaly", "out_of_domain"):  # of each series for itself
        joined.pop(own), whole.pop(own)
    assert_near(joined, whole, rounding)


def test_steps_one_after_the_other_are_a_simulation(both, inputs):
    functions, _, rounding = both
    forcing, static = inputs
    state = started(np.random.default_rng(4))
    whole = asked(functions["simulate"], forcing=forcing, static=static, **state)
    days = []
    for day in range(DAYS):
        found = asked(
            functions["step"], forcing=forcing[:, day], static=static, **state
        )
        state = start(found)
        days.append(found)
    assert set(days[0]) == {
        *STEP_OUTPUTS,
        *(FINAL + name for name in PROGNOSTIC),
        "out_of_domain",
    }
    daily = [name for name in STEP_OUTPUTS if whole[name].ndim == 2]
    stepped = {name: np.stack([day[name] for day in days], axis=1) for name in daily}
    assert_near(stepped, {name: whole[name] for name in daily}, 10 * rounding)


def test_the_compiled_simulation_has_the_numbers_of_the_plain_one(both, inputs):
    functions, dtype, _ = both
    forcing, static = inputs
    given = {"forcing": forcing, "static": static, **started(np.random.default_rng(6))}
    plain, compiled = (
        asked(functions[name], **given) for name in ("simulate", "simulate_xla")
    )
    assert_near(compiled, plain, {"float32": 1e-5, "float64": 1e-12}[dtype])


def test_the_drift_is_what_the_last_cycle_changed(single, inputs):
    forcing, static = inputs
    states = [
        asked(single["spin_up"], forcing=forcing, static=static, cycles=n)
        for n in range(4)
    ]
    for name in STATES:
        change = states[3][FINAL + name] - states[2][FINAL + name]
        assert_array_equal(states[3][DRIFT + name], change)
        assert_array_equal(states[0][FINAL + name], np.zeros(CELLS))
        assert_array_equal(states[1][DRIFT + name], states[1][FINAL + name])


def test_the_spin_up_settles(single, inputs):
    forcing, static = inputs

    def drift(cycles):
        found = asked(single["spin_up"], forcing=forcing, static=static, cycles=cycles)
        return max(np.abs(found[DRIFT + name]).max() for name in STATES)

    assert drift(1) > 1
    assert drift(200) < 1e-3


def test_out_of_domain_is_the_share_of_days_beyond_the_training(single, inputs):
    forcing, static = (np.array(x) for x in inputs)
    forcing[0, :5, 1] = 250  # precipitation: plausible, but more than was seen
    static[2, 1] = 11
    found = asked(single["serving_default"], forcing=forcing, static=static)
    assert_allclose(found["out_of_domain"], [5 / DAYS, 0, 1], rtol=1e-6)
    assert set(VARIABLES["out_of_domain"].bounds) == {0.0, 1.0}


def test_temperature_in_celsius_shows_in_out_of_domain(single, inputs):
    forcing, static = (np.array(x) for x in inputs)
    forcing[..., 2] -= 273.15
    found = asked(single["serving_default"], forcing=forcing, static=static)
    assert (found["out_of_domain"] == 1).all()


def test_without_a_domain_it_is_what_is_not_plausible(inputs):
    functions = signatures(modelled("float32"))
    forcing, static = (np.array(x) for x in inputs)
    static[:] = 1e6
    forcing[1, 7, 2] = -5
    found = asked(
        functions["step"],
        forcing=forcing[:, 7],
        static=static,
        **started(np.random.default_rng(0)),
    )
    assert_array_equal(found["out_of_domain"], [0, 1, 0])


def test_nan_stays_in_its_own_cell(single, inputs):
    forcing, static = (np.array(x) for x in inputs)
    expected = asked(single["serving_default"], forcing=forcing, static=static)
    forcing[1, 3, 0] = np.nan
    found = asked(single["serving_default"], forcing=forcing, static=static)
    for name in ("runoff", "tws", "soil_moisture"):
        assert np.isnan(found[name][1]).any()
        assert_array_equal(found[name][[0, 2]], expected[name][[0, 2]])
    assert found["out_of_domain"][1] > 0


def test_water_above_the_capacity_leaves_as_runoff(single, inputs):
    forcing, static = (np.array(x) for x in inputs)
    state = started(np.random.default_rng(0))
    state[INITIAL + "soil_moisture"] = np.full(CELLS, 5000.0)
    found = asked(single["simulate"], forcing=forcing, static=static, **state)
    assert_closed(found)
    assert found["runoff"].sum() > 1000


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
ANY = arrays("float32", (2, 4, 3), elements=FINITE)
PER_CELL = arrays("float32", (2, STATIC), elements=FINITE)
STATE = st.fixed_dictionaries(
    {
        INITIAL + name: arrays(
            "float32",
            (2, 5) if VARIABLES[name].kind == "memory" else (2,),
            elements=FINITE,
        )
        for name in PROGNOSTIC
    }
)


@settings(max_examples=150)
@given(forcing=ANY, static=PER_CELL, state=STATE)
def test_finite_inputs_never_give_nan_and_the_balance_closes(
    single, forcing, static, state
):
    given = {"forcing": forcing, "static": static}
    for name, found in (
        ("default", asked(single["serving_default"], **given)),
        ("simulate", asked(single["simulate"], **given, **state)),
        (
            "step",
            asked(single["step"], forcing=forcing[:, 0], static=static, **state),
        ),
    ):
        for variable, values in found.items():
            assert np.isfinite(values).all(), f"{name}: {variable}"
        for store in STATES:
            assert (found[store] >= 0).all(), f"{name}: {store}"
        assert_closed(found)
