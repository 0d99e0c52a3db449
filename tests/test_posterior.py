"""The posterior: what is drawn, what it costs, and its limit of no width."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

from h2mv_tf import config
from h2mv_tf.data.store import Store
from h2mv_tf.errors import UserError
from h2mv_tf.model import H2MV
from h2mv_tf.penalties import Penalties
from h2mv_tf.posterior import PACE, Normals
from h2mv_tf.priors import Priors

CELLS, DAYS = 4, 20
SIZES = {"encoder_units": 6, "code_size": 3, "lstm_units": 5, "dtype": "float64"}
OUTPUTS = ("soil_moisture", "runoff", "fapar", "water_balance_residual")


def made(**settings):
    keras.utils.set_random_seed(1)
    return H2MV(2, variational=True, **(SIZES | settings))


def narrow(model):
    """Takes all width from a posterior."""
    posterior = model.posterior
    posterior.raw_deviation.assign(tf.fill(posterior.raw_deviation.shape, -1e3))
    posterior.capacity_layer.bias.assign([-1e3])
    if model.rank:
        posterior.factor.assign(tf.zeros_like(posterior.factor))


@pytest.fixture
def inputs(weather, rng):
    return {
        "forcing": tf.constant(weather(rng, CELLS, DAYS)),
        "static": tf.constant(rng.normal(size=(CELLS, 2))),
    }


@pytest.mark.parametrize("rank", [0, 2])
def test_a_posterior_without_width_is_the_deterministic_model(inputs, rank):
    model = made(rank=rank)
    narrow(model)
    drawn = model.draw(inputs["static"], model.normals(CELLS, [1, 2]))
    sampled = model(inputs, outputs=OUTPUTS, drawn=drawn)
    for name, values in model(inputs, outputs=OUTPUTS).items():
        assert_array_equal(sampled[name], values, err_msg=name)


def test_zero_normal_numbers_draw_the_centre(inputs):
    model = made(rank=2)
    nothing = Normals(*(tf.zeros_like(n) for n in model.normals(CELLS, [1, 2])))
    sampled = model(
        inputs, outputs=OUTPUTS, drawn=model.draw(inputs["static"], nothing)
    )
    for name, values in model(inputs, outputs=OUTPUTS).items():
        assert_array_equal(sampled[name], values, err_msg=name)


def test_draws_that_are_simulated_together_are_those_simulated_alone(inputs):
    model = made(rank=1)
    model.posterior.raw_deviation.assign(tf.zeros_like(model.posterior.raw_deviation))
    normals = model.normals(CELLS, [3, 4], draws=3)
    rows = {k: tf.tile(v, [3, *[1] * (v.shape.rank - 1)]) for k, v in inputs.items()}
    together = model(rows, outputs=OUTPUTS, drawn=model.draw(rows["static"], normals))
    for n in range(3):
        one = Normals(
            normals.capacity[n * CELLS : (n + 1) * CELLS],
            normals.weights[n : n + 1],
            normals.factors[n : n + 1],
        )
        alone = model(inputs, outputs=OUTPUTS, drawn=model.draw(inputs["static"], one))
        for name in OUTPUTS:
            assert_allclose(
                together[name][n * CELLS : (n + 1) * CELLS],
                alone[name],
                atol=1e-12,
                err_msg=name,
            )


def test_the_balance_closes_in_every_draw(inputs):
    model = made()
    model.posterior.raw_deviation.assign(tf.ones_like(model.posterior.raw_deviation))
    drawn = model.draw(inputs["static"], model.normals(CELLS, [5, 6]))
    residual = model(inputs, outputs=OUTPUTS, drawn=drawn)["water_balance_residual"]
    assert np.abs(residual).max() < 1e-12


def test_draws_have_the_spread_and_the_correlations_of_the_posterior():
    model = made(rank=1, last_layer=False)
    posterior = model.posterior
    posterior.raw_deviation.assign([0.1, 0.2])
    posterior.factor.assign([[0.5], [-0.5]])
    head = model.draw(
        tf.zeros((4000, 2), "float64"), model.normals(1, [7, 8], draws=4000)
    ).head
    found = np.cov(np.stack([head.snowfall_correction, head.baseflow_fraction]))
    own = np.log1p(np.exp(PACE * np.array([0.1, 0.2])))
    expected = np.diag(own**2) + 0.25 * np.array([[1, -1], [-1, 1]])
    assert_allclose(found, expected, rtol=0.1, atol=0.05)


def test_the_capacity_is_log_normal_around_the_estimate():
    model = made()
    static = tf.zeros((5000, 2), "float64")
    drawn = model.draw(static, model.normals(5000, [9, 1]))
    code, centre = model.encode(static[:1])
    deviation = float(model.posterior.capacity_deviation(code)[0, 0])
    logs = np.log(drawn.soil_water_capacity[:, 0] / float(centre[0, 0]))
    assert np.mean(logs) == pytest.approx(0, abs=4 * deviation / np.sqrt(5000))
    assert np.std(logs) == pytest.approx(deviation, rel=0.05)


def test_the_fast_loop_has_the_gradients_of_tensorflow_for_a_draw(inputs):
    model = made(rank=1)
    normals = model.normals(CELLS, [3, 4])
    found = {}
    for training in (False, True):
        with tf.GradientTape() as tape:
            drawn = model.draw(inputs["static"], normals)
            values = model(inputs, outputs=OUTPUTS[:3], training=training, drawn=drawn)
            loss = tf.add_n([tf.reduce_sum(v**2) for v in values.values()])
        found[training] = tape.gradient(loss, model.trainable_variables)
    for weight, plain, fast in zip(
        model.trainable_variables, found[False], found[True], strict=True
    ):
        if plain is not None:
            assert_allclose(fast, plain, rtol=1e-9, atol=1e-9, err_msg=weight.path)


def test_a_saved_model_has_its_posterior_and_noise(tmp_path, inputs):
    model = made(rank=1, observed=("tws", "swe"))
    for weight in model.trainable_variables:
        weight.assign(weight + 0.05)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.noise().keys() == {"tws", "swe"}
    assert_array_equal(loaded.noise()["swe"].deviation, model.noise()["swe"].deviation)
    normals = model.normals(CELLS, [1, 1])
    for one, other in zip(
        tf.nest.flatten(model.draw(inputs["static"], normals)),
        tf.nest.flatten(loaded.draw(inputs["static"], normals)),
        strict=True,
    ):
        assert_array_equal(one, other)


def test_a_model_without_them_has_the_weights_of_the_published_one():
    plain = H2MV(2, **SIZES)
    assert not any("posterior" in w.path or "noise" in w.path for w in plain.weights)


# Priors, and what they cost


def settings(**priors):
    return config.Config.model_validate(
        {"objective": {"likelihood": "normal"}, "priors": priors}
    )


@pytest.fixture(scope="module")
def store(world):
    return Store.open(world)


def test_the_divergence_of_the_capacity_is_that_of_two_log_normals(store):
    """KL = log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1 / 2."""
    model = made()
    of = {"distribution": "LogNormal", "median": "30 cm", "deviation": 0.5}
    penalties = Penalties(
        Priors(settings(soil_water_capacity=of), store),
        variational=True,
        last_layer=True,
        cells=10,
        scale=100.0,
    )
    static = tf.zeros((20000, 2), "float64")
    drawn = model.draw(static, model.normals(20000, [1, 2]))
    term = penalties.terms(model, static, tf.ones(20000, "float64"), drawn, 1.0)[
        "kl_soil_water_capacity"
    ]
    code, centre = model.encode(static[:1])
    s = float(model.posterior.capacity_deviation(code)[0, 0])
    apart = np.log(float(centre[0, 0])) - np.log(300)
    expected = np.log(0.5 / s) + (s**2 + apart**2) / (2 * 0.5**2) - 0.5
    assert float(term.total / term.count) == pytest.approx(expected, rel=0.01)
    assert penalties.weights()["kl_soil_water_capacity"] == 0.1


@pytest.mark.parametrize("rank", [0, 3])
def test_the_divergence_of_the_weights_is_that_of_normals(store, rank):
    """Of one that is the prior it is 0, and of one of half the width above."""
    model = made(rank=rank)
    priors = settings(
        snowfall_correction={
            "distribution": "LogitNormal",
            "median": 0.5,
            "deviation": 1.0,
        },
        baseflow_fraction={
            "distribution": "LogitNormal",
            "median": 0.5,
            "deviation": 1,
        },
    )
    penalties = Penalties(
        Priors(priors, store), variational=True, last_layer=True, cells=1, scale=1.0
    )
    for weight in model.uncertain:
        weight.assign(tf.zeros_like(weight))
    if rank:
        model.posterior.factor.assign(tf.zeros_like(model.posterior.factor))
    static, size = tf.zeros((1, 2), "float64"), model.posterior.size

    def divergence(width):
        raw = np.log(np.expm1(width)) / PACE
        model.posterior.raw_deviation.assign(np.full(size, raw))
        terms = [
            penalties.terms(
                model,
                static,
                tf.ones(1, "float64"),
                model.draw(static, model.normals(1, [n, 2])),
                1.0,
            )["kl_weights"].total
            for n in range(60)
        ]
        return np.mean(terms)

    assert divergence(1.0) == pytest.approx(0, abs=0.05 * size)
    half = size * (np.log(2) + 0.25 / 2 - 0.5)
    assert divergence(0.5) == pytest.approx(half, rel=0.15)


def test_of_points_the_prior_is_least_at_its_median(store):
    model = H2MV(2, **SIZES)
    of = {"distribution": "LogitNormal", "median": 0.3, "deviation": 0.5}
    penalties = Penalties(
        Priors(settings(snowfall_correction=of), store),
        variational=False,
        last_layer=True,
        cells=1,
        scale=1.0,
    )
    assert penalties.names[1:] == (
        "prior_snowfall_correction",
        "prior_baseflow_fraction",
    )
    costs = {}
    for value in (0.2, 0.3, 0.4):
        model.cell.snowfall_correction.assign(np.log(value / (1 - value)))
        terms = penalties.terms(
            model, tf.zeros((1, 2), "float64"), tf.ones(1, "float64"), None, 1.0
        )
        costs[value] = float(terms["prior_snowfall_correction"].total)
    assert min(costs, key=costs.get) == 0.3


def test_a_median_may_follow_a_static_input_in_its_units(store):
    of = {"distribution": "LogNormal", "deviation": 0.5, "per": "soil_depth"}
    depth = store.static()[:, store.static_names.index("soil_depth")]
    for median in ("15 cm m-1", "150 mm m-1", 150.0):
        priors = Priors(settings(soil_water_capacity={**of, "median": median}), store)
        found = priors.capacity(store.static()).quantile(0.5)
        assert_allclose(found, 150 * depth, rtol=1e-5)


def test_windows_that_fill_a_batch_cost_nothing(store):
    model = H2MV(store.static().shape[1], **SIZES)
    penalties = Penalties(
        Priors(settings(), store), variational=False, last_layer=True, cells=1, scale=1
    )
    static = tf.constant(store.static()[:3], "float64")
    weight = tf.constant([1.0, 1.0, 0.0], "float64")
    term = penalties.terms(model, static, weight, None, 0.5)[penalties.of_capacity]
    both = penalties.terms(model, static[:2], weight[:2], None, 0.5)
    assert_allclose(term.total, both[penalties.of_capacity].total)
    assert float(term.count) == 2


@pytest.mark.parametrize(
    ("per", "median", "words"),
    [
        ("depth", 150, "priors.soil_water_capacity.per is 'depth', which"),
        ("latitude", 150, "has to be above 0 everywhere"),
        (
            "soil_depth",
            "3 kg",
            "priors.soil_water_capacity.median: '3 kg' is",
        ),
    ],
)
def test_a_prior_that_the_store_cannot_serve_is_one_line(store, per, median, words):
    of = {"distribution": "LogNormal", "median": median, "deviation": 1, "per": per}
    with pytest.raises(UserError) as caught:
        Priors(settings(soil_water_capacity=of), store)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
