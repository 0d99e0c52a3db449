import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

from h2mv_tf import variables
from h2mv_tf.cell import State
from h2mv_tf.model import CAPACITY_OFFSET, H2MV, Normalization, leaky_relu, softplus

CELLS, DAYS, STATIC = 3, 40, 4
START = {"snowfall_correction": 3.0, "baseflow_fraction": -3.0}
SIZES = {"encoder_units": 6, "code_size": 2, "lstm_units": 5}
DEEP = {"encoder_layers": 3, "dropout": 0.4}
SEED = (3, 4)


def lively(dtype, **settings):
    """A small model whose coefficients and capacities differ between cells."""
    rng = np.random.default_rng(11)
    model = H2MV(STATIC, **SIZES, **settings, dtype=dtype)
    for weight in model.trainable_variables:
        weight.assign(START.get(weight.name, 0) + rng.normal(0, 0.5, weight.shape))
    model.capacity_layer.bias.assign([40 - CAPACITY_OFFSET])  # about 40 mm
    model.set_normalization(
        Normalization(
            forcing_mean=np.array([60.0, 3.0, 274.0]),
            forcing_std=np.array([60.0, 6.0, 8.0]),
            static_mean=rng.normal(size=STATIC),
            static_std=rng.uniform(1, 2, STATIC),
        )
    )
    return model


@pytest.fixture(scope="module")
def model():
    return lively("float64")


@pytest.fixture(scope="module")
def deep():
    """A model with several hidden layers, of which it can leave out a part."""
    return lively("float64", **DEEP)


@pytest.fixture(scope="module")
def inputs(weather):
    rng = np.random.default_rng(12)
    return {
        "forcing": tf.constant(weather(rng, CELLS, DAYS)),
        "static": tf.constant(rng.normal(size=(CELLS, STATIC))),
    }


@pytest.fixture(scope="module")
def outputs(model, inputs):
    return model(inputs)


@pytest.fixture(scope="module")
def spun_up(model, inputs):
    return model.spin_up(inputs["forcing"], inputs["static"])


def assert_same(actual, expected, tolerance=1e-12):
    """Both hold the same names and, on the scale of each, the same numbers."""
    assert list(actual) == list(expected)
    for name in expected:
        if name != "water_balance_residual":  # which is rounding alone
            scale = np.abs(expected[name]).max()
            assert_allclose(
                actual[name],
                expected[name],
                rtol=tolerance,
                atol=tolerance * scale,
                err_msg=name,
            )


# Outputs


def test_every_variable_of_the_registry_is_returned_by_its_name(outputs):
    assert tuple(outputs) == variables.OUTPUTS


def test_what_changes_daily_has_a_value_for_each_cell_and_day(outputs):
    for name in (*variables.DAILY_OUTPUTS, "tws_anomaly"):
        assert outputs[name].shape == (CELLS, DAYS), name


def test_parameters_have_a_value_for_each_cell_and_constants_have_one(outputs):
    assert all(outputs[n].shape == (CELLS,) for n in variables.names("parameter"))
    assert all(outputs[n].shape == () for n in variables.names("constant"))


def test_outputs_lie_within_the_bounds_of_the_registry(outputs):
    for name, value in outputs.items():
        least, most = variables.VARIABLES[name].bounds
        assert least is None or (value.numpy() >= least).all(), name
        assert most is None or (value.numpy() <= most + 1e-12).all(), name


def test_the_weather_of_these_tests_takes_every_branch(outputs):
    for name in ("snowfall", "rainfall", "snowmelt", "interception_evaporation"):
        assert (outputs[name].numpy() == 0).any(), name
        assert (outputs[name].numpy() > 0).any(), name
    full = outputs["soil_recharge_fraction"] < outputs["soil_recharge_coefficient"]
    assert full.numpy().any()
    assert not full.numpy().all()


def test_some_outputs_are_the_same_as_among_all(model, inputs, outputs):
    names = ("tws_anomaly", "baseflow_fraction", "runoff", "soil_water_capacity")
    some = model(inputs, outputs=names)
    assert tuple(some) == names
    assert_same(some, {name: outputs[name] for name in names})


def test_the_storage_anomaly_is_centred_on_its_series(outputs):
    tws, anomaly = outputs["tws"].numpy(), outputs["tws_anomaly"].numpy()
    assert_allclose(anomaly.mean(axis=1), 0, atol=1e-12)
    assert_allclose(anomaly, tws - tws.mean(axis=1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs_have_the_dtype_of_the_model(dtype, inputs):
    values = lively(dtype)(inputs)
    assert all(value.dtype == dtype for value in values.values())


# Balance


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_water_balance_of_every_day_closes(dtype, inputs):
    values = lively(dtype)(inputs)
    stored = values["tws"].numpy().max() + values["corrected_precipitation"].numpy()
    tolerance = 10 * np.finfo(dtype).eps * stored
    assert (np.abs(values["water_balance_residual"]) <= tolerance).all()


def test_the_water_balance_of_the_series_closes(model, inputs, outputs, spun_up):
    def total(name):
        return outputs[name].numpy().sum(axis=1)

    lost = total("evapotranspiration") + total("runoff")
    gained = outputs["tws"][:, -1] - tf.concat(spun_up.water, 1).numpy().sum(axis=1)
    fallen = total("corrected_precipitation")
    assert_allclose(fallen - lost, gained, rtol=1e-10, atol=1e-10 * fallen.max())


# Time


def test_two_halves_one_after_the_other_are_one_run(model, inputs, outputs, spun_up):
    forcing, static = inputs["forcing"], inputs["static"]
    first, state = model.simulate(forcing[:, :15], static, spun_up)
    second, end = model.simulate(forcing[:, 15:], static, state)
    for name in variables.DAILY_OUTPUTS:
        joined = tf.concat([first[name], second[name]], 1)
        assert_allclose(joined, outputs[name], rtol=1e-12, atol=1e-12, err_msg=name)
    _, expected = model.simulate(forcing, static, spun_up)
    assert_same(end._asdict(), expected._asdict())


def test_a_call_spins_up_on_its_own_series(model, inputs, outputs, spun_up):
    values, _ = model.simulate(*inputs.values(), spun_up)
    assert_same(values, outputs)


def test_a_call_spins_up_on_other_days_where_they_are_given(model, inputs, weather):
    before = tf.constant(weather(np.random.default_rng(1), CELLS, 10))
    state = model.spin_up(before, inputs["static"])
    expected, _ = model.simulate(*inputs.values(), state)
    assert_same(model({**inputs, "spin_up_forcing": before}), expected)


def test_spin_up_is_a_run_from_empty_stores(model, inputs, spun_up):
    _, expected = model.simulate(*inputs.values(), model.empty_state(CELLS))
    assert_same(spun_up._asdict(), expected._asdict())


def test_spin_up_can_go_on_from_a_state(model, inputs, spun_up):
    forcing, static = inputs["forcing"], inputs["static"]
    half = model.spin_up(forcing[:, :20], static)
    whole = model.spin_up(forcing[:, 20:], static, half)
    assert_same(whole._asdict(), spun_up._asdict())


def test_an_empty_state_holds_nothing(model):
    state = model.empty_state(CELLS)
    assert isinstance(state, State)
    assert all(x.shape[0] == CELLS and not x.numpy().any() for x in state)


def test_the_spun_up_state_carries_no_gradient(model, inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs["forcing"])
        state = model.spin_up(inputs["forcing"], inputs["static"])
        result = sum(map(tf.reduce_sum, state))
    sources = [*model.trainable_variables, inputs["forcing"]]
    for gradient in tape.gradient(result, sources):
        assert gradient is None or not gradient.numpy().any()


@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_of_a_call_is_that_of_the_days_after_the_spin_up(
    training, model, inputs, spun_up
):
    def gradients(run):
        with tf.GradientTape() as tape:
            values = run()
            result = tf.reduce_sum(values["tws"]) + tf.reduce_sum(values["runoff"])
        weights = model.trainable_variables
        found = tape.gradient(result, weights, unconnected_gradients="zero")
        return {w.path: g for w, g in zip(weights, found, strict=True)}

    called = gradients(lambda: model(inputs, training=training))
    expected = gradients(lambda: model.simulate(*inputs.values(), spun_up)[0])
    assert all(np.any(gradient) for gradient in expected.values())
    assert_same(called, expected, tolerance=1e-10)


def test_every_output_has_finite_gradients(model, inputs):
    weights = model.trainable_variables
    with tf.GradientTape() as tape:
        result = sum(map(tf.reduce_sum, model(inputs).values()))
    for weight, gradient in zip(weights, tape.gradient(result, weights), strict=True):
        assert np.isfinite(gradient).all(), weight.path


# Cells


@pytest.mark.parametrize("name", ["forcing", "static"])
def test_cells_do_not_influence_each_other(name, model, inputs, outputs):
    changed = inputs[name].numpy()
    changed[1] = changed[0]
    values = model({**inputs, name: tf.constant(changed)})
    per_cell = [n for n in outputs if n not in variables.names("constant")]
    others = [0, 2]
    assert_same(
        {n: values[n].numpy()[others] for n in per_cell},
        {n: outputs[n].numpy()[others] for n in per_cell},
    )
    assert np.abs(values["runoff"][1] - outputs["runoff"][1]).max() > 1e-3


def test_a_cell_alone_gives_what_it_gives_in_company(model, inputs, outputs):
    values = model({name: value[1:2] for name, value in inputs.items()})
    per_cell = [n for n in outputs if n not in variables.names("constant")]
    assert_same(
        {n: values[n][0] for n in per_cell}, {n: outputs[n][1] for n in per_cell}
    )


# Ways to run it


def test_a_compiled_graph_of_unknown_sizes_gives_the_same_numbers(
    model, inputs, outputs
):
    signature = {
        "forcing": tf.TensorSpec((None, None, 3), "float64"),
        "static": tf.TensorSpec((None, STATIC), "float64"),
    }
    run = tf.function(lambda x: model(x), input_signature=[signature])
    assert_same(run(inputs), outputs)
    short = {"forcing": inputs["forcing"][:2, :9], "static": inputs["static"][:2]}
    assert_same(run(short), model(short))


def test_xla_gives_the_same_numbers(model, inputs, outputs):
    run = tf.function(lambda x: model(x), jit_compile=True)
    assert_same(run(inputs), outputs, tolerance=1e-10)


def test_single_precision_follows_double_precision(inputs, outputs):
    values = lively("float32")(inputs)
    assert_same(values, outputs, tolerance=1e-4)


# Encoder


def test_the_rectifier_leaks_a_hundredth():
    x = tf.constant([-2.0, 0.0, 3.0], "float64")
    assert_array_equal(leaky_relu(x), [-0.02, 0.0, 3.0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softplus_and_its_slope_are_tensorflows_to_the_last_digit(dtype):
    x = tf.constant([-1e4, -100, -1, 0, 1, 79.9, 80, 80.1, 100, 1e4], dtype)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours, theirs = softplus(x), tf.nn.softplus(x)
    assert_array_equal(ours, theirs)
    assert_array_equal(tape.gradient(ours, x), tape.gradient(theirs, x))


def test_the_encoder_worked_by_hand():
    model = H2MV(1, encoder_units=2, code_size=1, lstm_units=2, dtype="float64")
    model.hidden_layer.kernel.assign([[1.0, -1.0]])
    model.hidden_layer.bias.assign([0.0, 1.0])
    model.code_layer.kernel.assign([[2.0], [100.0]])
    model.code_layer.bias.assign([0.5])
    model.capacity_layer.kernel.assign([[10.0]])
    model.capacity_layer.bias.assign([-200.0])
    model.set_normalization(Normalization(np.zeros(3), np.ones(3), [4.0], [2.0]))
    # (10 - 4) / 2 = 3 -> 3 and -2, which leaks -0.02 -> 6 - 2 + 0.5 = 4.5
    code, capacity = model.encode([[10.0]])
    assert_allclose(code, [[4.5]], rtol=1e-12)
    # softplus(45 - 200 + 100) + 1
    assert_allclose(capacity, [[1.0]], rtol=1e-12)
    # (4 - 4) / 2 = 0 -> 0 and 1 -> 100.5; softplus(1005 - 200 + 100) + 1
    code, capacity = model.encode([[4.0]])
    assert_allclose(code, [[100.5]], rtol=1e-12)
    assert_allclose(capacity, [[906.0]], rtol=1e-12)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_encoder_has_as_many_hidden_layers_as_asked_for(layers, tmp_path, rng):
    model = H2MV(STATIC, **SIZES, encoder_layers=layers)
    deeper = [layer.kernel.shape for layer in model.deeper_layers]
    assert deeper == [(6, 6)] * (layers - 1)
    assert len(model.trainable_variables) == 13 + 2 * (layers - 1)
    static = tf.constant(rng.normal(size=(5, STATIC)), "float32")
    code, _ = model.encode(static)
    # Each of them does something.
    for layer in model.deeper_layers:
        kept = layer.get_weights()
        layer.set_weights([weight + 1 for weight in kept])
        assert np.abs(model.encode(static)[0] - code).max() > 1e-3
        layer.set_weights(kept)


def test_a_new_model_starts_with_soils_of_about_a_hundred_millimetres(rng):
    model = H2MV(STATIC)
    _, capacity = model.encode(rng.normal(size=(20, STATIC)))
    assert_allclose(capacity, 101, atol=20)


def test_a_soil_holds_a_millimetre_at_least(model, inputs):
    starved = H2MV.from_config(model.get_config())
    starved.capacity_layer.bias.assign([-1e4])
    values = starved(inputs)
    assert_array_equal(values["soil_water_capacity"], 1.0)
    assert all(np.isfinite(value).all() for value in values.values())


# Dropout


@pytest.fixture(scope="module")
def dropped(deep, inputs):
    return deep(inputs, seed=SEED)


def positive(layers, dropout, dtype="float64"):
    """A model whose code is what its last hidden layer gives: its static inputs."""
    sizes = {"encoder_units": STATIC, "code_size": STATIC, "lstm_units": 2}
    model = H2MV(STATIC, **sizes, encoder_layers=layers, dropout=dropout, dtype=dtype)
    for layer in (model.hidden_layer, *model.deeper_layers, model.code_layer):
        layer.kernel.assign(np.eye(STATIC))
    return model


@pytest.mark.parametrize("training", [False, True])
def test_without_a_seed_nothing_is_dropped(training, deep, inputs):
    plain = H2MV.from_config({**deep.get_config(), "dropout": 0.0})
    plain.set_weights(deep.get_weights())
    expected = plain(inputs)
    assert_same(deep(inputs, training=training), expected)
    # Nor with one, where the share is 0.
    assert_same(plain(inputs, training=training, seed=SEED), expected)


@pytest.mark.parametrize("kind", [list, np.array, tf.constant])
def test_a_seed_drops_the_same_again(kind, deep, inputs, dropped):
    assert_same(deep(inputs, seed=kind(SEED)), dropped)


@pytest.mark.parametrize("seed", [None, (3, 5), (4, 4)])
def test_another_seed_drops_other_units(seed, deep, inputs, dropped):
    other = deep(inputs, seed=seed)["runoff"]
    assert np.abs(other - dropped["runoff"]).max() > 1e-3


def test_what_is_dropped_is_the_same_with_xla(deep, inputs, dropped):
    run = tf.function(lambda x, seed: deep(x, seed=seed), jit_compile=True)
    assert_same(run(inputs, tf.constant(SEED)), dropped, tolerance=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", [1, 3])
def test_dropout_keeps_the_mean_and_each_layer_drops_others(layers, dtype):
    share, cells = 0.25, 20_000
    model = positive(layers, share, dtype)
    static = np.tile([1.0, 2.0, 3.0, 4.0], (cells, 1))
    code, _ = model.encode(static, SEED)
    assert code.dtype == dtype
    kept = (1 - share) ** layers  # of layers that are independent of each other
    values = code.numpy()
    assert_allclose(values[values > 0], (static / kept)[values > 0], rtol=1e-6)
    assert_allclose((values > 0).mean(axis=0), kept, atol=0.02)
    assert_allclose(values.mean(axis=0), static[0], rtol=0.04)
    # Units, and neighbouring cells, come and go independently.
    units = np.corrcoef(values.T)[np.triu_indices(STATIC, 1)]
    neighbours = np.corrcoef(values[::2, 0], values[1::2, 0])[0, 1]
    assert np.abs([*units, neighbours]).max() < 0.04


def test_spin_up_and_simulation_drop_the_same_units(deep, inputs, dropped):
    forcing, static = inputs.values()
    state = deep.spin_up(forcing, static, seed=SEED)
    values, _ = deep.simulate(forcing, static, state, seed=SEED)
    assert_same(values, dropped)
    for other in (None, (3, 5)):
        state = deep.spin_up(forcing, static, seed=other)
        values, _ = deep.simulate(forcing, static, state, seed=SEED)
        assert np.abs(values["swe"] - dropped["swe"]).max() > 1e-6


def test_the_water_balance_closes_whatever_is_dropped(dropped):
    stored = dropped["tws"].numpy().max() + dropped["corrected_precipitation"].numpy()
    tolerance = 10 * np.finfo("float64").eps * stored
    assert (np.abs(dropped["water_balance_residual"]) <= tolerance).all()


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_finite_and_those_of_what_is_kept(training, deep, inputs):
    weights = deep.trainable_variables
    with tf.GradientTape() as tape:
        values = deep(inputs, training=training, seed=SEED)
        result = sum(map(tf.reduce_sum, values.values()))
    for weight, gradient in zip(weights, tape.gradient(result, weights), strict=True):
        assert np.isfinite(gradient).all(), weight.path
        assert np.any(gradient), weight.path
    # All of the only layer is dropped: only the bias behind it is seen.
    model = positive(1, 1 - 1e-12)
    with tf.GradientTape() as tape:
        code, _ = model.encode(inputs["static"], SEED)
    kernel, bias = tape.gradient(
        code, [model.hidden_layer.kernel, model.code_layer.bias]
    )
    assert not np.any(kernel)
    assert np.all(bias)


# Save and load


@pytest.mark.parametrize("settings", [{}, DEEP], ids=["published", "deep"])
def test_a_saved_model_gives_the_same_numbers(settings, inputs, tmp_path):
    model, path = lively("float64", **settings), tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert isinstance(loaded, H2MV)
    assert loaded.compute_dtype == "float64"
    assert_same(loaded(inputs), model(inputs))
    assert_same(loaded(inputs, seed=SEED), model(inputs, seed=SEED))


def test_saved_weights_bring_their_normalisation(model, inputs, outputs, tmp_path):
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    other = H2MV(STATIC, **SIZES, dtype="float64")
    other.load_weights(path)
    assert_array_equal(other.static_mean, model.static_mean)
    assert_array_equal(other.cell.forcing_std, model.cell.forcing_std)
    assert_same(other(inputs), outputs)


def test_normalisation_is_not_trained(model):
    trained = {weight.path for weight in model.trainable_variables}
    assert not any("mean" in path or "std" in path for path in trained)
    assert len(model.non_trainable_variables) == 4
    assert len(trained) == 13


@pytest.mark.parametrize("which", ["model", "deep"])
def test_the_configuration_makes_the_model_again(which, request):
    model = request.getfixturevalue(which)
    again = H2MV.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    shapes = [weight.shape for weight in model.weights]
    assert [weight.shape for weight in again.weights] == shapes


def test_a_configuration_of_before_there_were_layers_and_dropout_is_read(
    model, inputs, outputs
):
    settings = model.get_config()
    for name in DEEP:
        del settings[name]
    older = H2MV.from_config(settings)
    older.set_weights(model.get_weights())
    assert_same(older(inputs, seed=SEED), outputs)


def test_the_default_sizes_are_the_published_ones():
    model = H2MV(30)
    assert model.hidden_layer.kernel.shape == (30, 150)
    assert not model.deeper_layers
    assert model.dropout == 0
    assert model.code_layer.kernel.shape == (150, 12)
    assert model.cell.kernel.shape == (3 + 12 + 4, 4 * 100)
    assert model.cell.recurrent_kernel.shape == (100, 4 * 100)
    assert model.cell.coefficient_kernel.shape == (100, 7)


@pytest.mark.parametrize("size", [0, -3])
@pytest.mark.parametrize(
    "name",
    ["static_size", "encoder_units", "encoder_layers", "code_size", "lstm_units"],
)
def test_a_size_below_one_is_refused(name, size):
    with pytest.raises(ValueError, match=rf"{name} of at least 1; found {size}"):
        H2MV(**{"static_size": STATIC, **SIZES, name: size})


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_a_share_to_drop_that_leaves_nothing_or_is_none_is_refused(share):
    with pytest.raises(ValueError, match=rf"dropout .* below 1; found {share}"):
        H2MV(STATIC, **SIZES, dropout=share)


def test_outputs_that_do_not_change_daily_come_alone(rng, weather):
    model = H2MV(2, encoder_units=3, code_size=2, lstm_units=3)
    inputs = {"forcing": weather(rng, 2, 5), "static": np.zeros((2, 2))}
    outputs = model(inputs, outputs=("soil_water_capacity",))
    assert list(outputs) == ["soil_water_capacity"]
    assert outputs["soil_water_capacity"].shape == (2,)


def test_an_output_that_is_not_in_the_registry_is_refused(rng, weather):
    model = H2MV(2, encoder_units=3, code_size=2, lstm_units=3)
    inputs = {"forcing": weather(rng, 2, 5), "static": np.zeros((2, 2))}
    with pytest.raises(ValueError, match="no output 'snowdrift'"):
        model(inputs, outputs=("snowdrift",))
