import keras
import numpy as np
import pytest
import tensorflow as tf
from cells import lively, started
from numpy.testing import assert_allclose, assert_array_equal

from h2mv_tf import physics, variables
from h2mv_tf.cell import H2MVCell, State, gates, learned_coefficients, slopes

CELLS, DAYS, CODE, UNITS = 3, 25, 2, 5


@pytest.fixture(scope="module")
def cell():
    return lively(CODE, UNITS, np.random.default_rng(5))


@pytest.fixture
def inputs(rng, weather):
    """One day for the cell: forcing, code, capacity."""
    forcing = weather(rng, CELLS, 4)[:, 1]
    code, capacity = rng.normal(size=(CELLS, CODE)), rng.uniform(40, 90, (CELLS, 1))
    return tf.constant(np.concatenate([forcing, code, capacity], 1))


def test_outputs_stand_in_the_order_asked(cell, inputs, rng):
    start = started(CELLS, UNITS, rng)
    some = H2MVCell(CODE, units=UNITS, outputs=("runoff", "swe"), dtype="float64")
    some.build()
    some.set_weights(cell.get_weights())
    all_of_them, _ = cell(inputs, start)
    two, _ = some(inputs, start)
    columns = [variables.DAILY_OUTPUTS.index(name) for name in ("runoff", "swe")]
    assert_array_equal(two, all_of_them.numpy()[:, columns])


def test_the_new_state_is_what_the_outputs_say(cell, inputs, rng):
    outputs, new_state = cell(inputs, started(CELLS, UNITS, rng))
    values = dict(zip(cell.outputs, outputs.numpy().T, strict=True))
    for name in ("swe", "soil_moisture", "groundwater", "fapar"):
        assert_array_equal(getattr(State(*new_state), name)[:, 0], values[name])


def test_a_day_is_the_step_of_the_physics_with_the_learned_coefficients(
    cell, inputs, rng
):
    start = started(CELLS, UNITS, rng)
    outputs, _ = cell(inputs, start)
    columns = tf.split(outputs, cell.output_size, 1)
    values = dict(zip(cell.outputs, columns, strict=True))
    constants = cell.constants()
    water, fluxes = physics.step(
        start.water,
        physics.Forcing(*tf.split(inputs[:, :3], 3, 1)),
        physics.Coefficients(*(values[name] for name in variables.COEFFICIENTS)),
        physics.Parameters(soil_water_capacity=inputs[:, -1:], **constants),
    )
    for name, expected in {**water._asdict(), **fluxes._asdict()}.items():
        assert_allclose(values[name], expected, rtol=1e-12, atol=1e-12, err_msg=name)


def test_the_lstm_reads_weather_code_storages_and_vegetation(cell, inputs, rng):
    start = started(CELLS, UNITS, rng)
    forcing, code = inputs[:, :3], inputs[:, 3:-1]
    standardised = (forcing - cell.forcing_mean) / cell.forcing_std
    read = tf.concat(
        [
            standardised,
            code,
            start.swe / 100,
            start.soil_moisture / 200,
            start.groundwater / 200,
            start.fapar,
        ],
        1,
    )
    plain = keras.layers.LSTMCell(UNITS, dtype="float64")
    plain.build(read.shape)
    plain.set_weights([cell.kernel, cell.recurrent_kernel, cell.bias])
    expected, (_, carry) = plain(read, [start.lstm_hidden, start.lstm_carry])
    new_state = State(*cell(inputs, start)[1])
    assert_allclose(new_state.lstm_hidden, expected, rtol=1e-12, atol=1e-14)
    assert_allclose(new_state.lstm_carry, carry, rtol=1e-12, atol=1e-14)


def test_the_gates_worked_by_hand():
    # i, f, g, o before their bounds: 2 x what is read, and what the bias adds.
    kernel = tf.constant([[2.0], [2.0], [2.0], [2.0]], "float64")
    bias = tf.constant([[-2.0], [-2.0], [-1.0], [98.0]], "float64")
    opened = gates(tf.constant([[1.0]], "float64"), kernel, bias)
    assert_allclose(tf.concat(opened, 0)[:, 0], [0.5, 0.5, np.tanh(1.0), 1.0])


def test_the_slopes_are_the_derivatives_of_the_gates(rng):
    bias = tf.constant(rng.normal(0, 2, (8, 5)))
    with tf.GradientTape() as tape:
        tape.watch(bias)
        opened = tf.concat(gates(tf.zeros((1, 5), "float64"), bias[:, :1], bias), 0)
    assert_allclose(
        tf.concat(slopes(gates(tf.zeros((1, 5), "float64"), bias[:, :1], bias)), 0),
        tape.gradient(opened, bias),
        rtol=1e-10,
    )


def test_melt_and_interception_are_unbounded_and_the_rest_are_fractions():
    raw = tf.constant([[50.0, 0.0, -50.0]] * 7, "float64")
    high, middle, low = np.concatenate(learned_coefficients(raw), 0).T
    assert_allclose(high, [50, 50, 1, 1, 1, 1, 1], rtol=1e-12)
    assert_allclose(middle, [np.log(2)] * 2 + [0.5] * 5, rtol=1e-12)
    assert_allclose(low, 0, atol=1e-20)
    assert (low > 0).all()


def test_a_new_cell_forgets_little_and_starts_with_plausible_constants():
    cell = H2MVCell(CODE, units=UNITS)
    cell.build()
    i, f, g, o = np.split(cell.bias.numpy(), 4)
    assert_array_equal(f, 1)
    assert_array_equal([i, g, o], 0)
    constants = cell.constants()
    assert_allclose(constants["snowfall_correction"], 0.9526, atol=1e-4)
    assert_allclose(constants["baseflow_fraction"], 0.002473, atol=1e-6)


def test_the_initial_state_is_empty():
    cell = H2MVCell(CODE, units=UNITS, dtype="float64")
    state = cell.get_initial_state(batch_size=CELLS)
    sizes = [1, 1, 1, 1, UNITS, UNITS]
    assert list(cell.state_size) == sizes
    assert [tuple(x.shape) for x in state] == [(CELLS, size) for size in sizes]
    assert all(x.dtype == "float64" and not x.numpy().any() for x in state)


def test_the_configuration_makes_the_cell_again():
    cell = H2MVCell(
        4, units=7, outputs=("swe", "runoff"), name="water", dtype="float64"
    )
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(cell)
    )
    assert isinstance(again, H2MVCell)
    assert again.get_config() == cell.get_config()
    assert (again.code_size, again.units) == (4, 7)
    assert again.outputs == ("swe", "runoff")
    assert again.output_size == 2
    assert again.name == "water"
    assert again.compute_dtype == "float64"


def test_a_keras_layer_around_the_cell_is_made_again_from_its_configuration():
    layer = keras.layers.RNN(H2MVCell(4, units=7), return_sequences=True)
    again = keras.layers.RNN.from_config(layer.get_config())
    assert again.cell.get_config() == layer.cell.get_config()


@pytest.mark.parametrize("name", ["snowdrift", "tws_anomaly", "soil_water_capacity"])
def test_an_output_that_no_day_has_is_refused(name):
    with pytest.raises(ValueError, match=rf"cannot return {name}\."):
        H2MVCell(CODE, outputs=("swe", name))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs_and_states_have_the_dtype_of_the_cell(dtype, inputs, rng):
    cell = H2MVCell(CODE, units=UNITS, dtype=dtype)
    outputs, new_state = cell(tf.cast(inputs, dtype), started(CELLS, UNITS, rng, dtype))
    assert outputs.dtype == dtype
    assert all(state.dtype == dtype for state in new_state)
    assert np.isfinite(outputs).all()


def test_the_keras_layer_computes_in_single_precision_by_default(inputs):
    layer = keras.layers.RNN(H2MVCell(CODE, units=UNITS), return_sequences=True)
    outputs = layer(tf.cast(inputs[:, None], "float32"))
    assert outputs.dtype == "float32"
    assert outputs.shape == (CELLS, 1, len(variables.DAILY_OUTPUTS))
