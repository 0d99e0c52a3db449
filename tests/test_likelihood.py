"""Likelihoods against worked values, exact joint densities and their limits."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose
from scipy import stats

from h2mv_tf.likelihood import BOUNDED, Likelihood
from h2mv_tf.noise import MOST_PERSISTENCE, Noise, ObservationNoise
from h2mv_tf.objective import Constraint

NAN = np.nan
CELLS, STEPS = 3, 12
STD = 2.0


def likelihood(name="tws", distribution="normal", *, daily=True, **settings):
    constraint = Constraint(name=name, mean=5.0, std=STD, daily=daily)
    settings = {"observations": {name: 10}, "saturation": 100.0} | settings
    return Likelihood([constraint], distribution, **settings)


def nats(objective, prediction, target, *, deviation=0.5, persistence=0.0, errors=None):
    """Negative log-likelihood, its count, and all gradients."""
    (name,) = objective.names
    prediction, target = (tf.constant(x, "float64") for x in (prediction, target))
    noise = Noise(
        tf.constant(deviation, "float64"), tf.constant(persistence, "float64")
    )
    targets = {name: target}
    if errors is not None:
        targets[f"{name}_error"] = tf.constant(errors, "float64")
    month = tf.zeros(prediction.shape, "int32")
    with tf.GradientTape() as tape:
        tape.watch((prediction, noise))
        term = objective.terms({name: prediction}, targets, month, {name: noise})[name]
    gradients = tape.gradient(term.total, (prediction, *noise))
    numbers = [g.numpy() for g in gradients if g is not None]
    assert all(np.isfinite(g).all() for g in numbers)
    return float(term.total), float(term.count), numbers


@pytest.fixture
def series(rng):
    """Snow of a few cells, simulated and observed with gaps, below its saturation."""
    prediction = rng.uniform(20, 60, (CELLS, STEPS))
    target = prediction + rng.normal(0, 2, prediction.shape)
    target[rng.random(target.shape) < 0.3] = NAN
    return prediction, target


@pytest.mark.parametrize(
    ("distribution", "error"),
    [
        ("normal", stats.norm()),
        ("laplace", stats.laplace()),
        ("student_t", stats.t(5)),
    ],
)
def test_without_persistence_each_error_has_its_density(distribution, error, series):
    prediction, target = series
    objective = likelihood(
        "swe", distribution, degrees_of_freedom=5.0, autocorrelation=False
    )
    z = (target - prediction) / STD / 0.5
    expected = -np.nansum(error.logpdf(z) - np.log(0.5))
    total, count, _ = nats(objective, prediction, target)
    assert_allclose(total, expected)
    assert count == np.isfinite(target).sum()


@pytest.mark.parametrize("persistence", [0.05, 0.6, 0.97])
def test_persistence_is_learned_from_the_joint_density(series, persistence):
    """An autoregression is a multivariate normal; gaps leave out rows of it."""
    prediction, target = series
    lag = abs(np.subtract.outer(np.arange(STEPS), np.arange(STEPS)))

    def joint(rho):
        total = 0.0
        for simulated, observed in zip(prediction, target, strict=True):
            there = np.isfinite(observed)
            covariance = (0.5**2 * rho**lag)[np.ix_(there, there)]
            error = (observed - simulated)[there] / STD
            total -= stats.multivariate_normal(cov=covariance).logpdf(error)
        return total

    slope = (joint(persistence + 1e-6) - joint(persistence - 1e-6)) / 2e-6
    *_, gradients = nats(likelihood("swe"), prediction, target, persistence=persistence)
    assert_allclose(gradients[2], slope, rtol=1e-4)


@pytest.mark.parametrize("persistence", [0.1, 0.9])
def test_the_network_follows_the_density_of_each_error(series, persistence):
    """So that an offset that lasts is held against it on each day."""
    prediction, target = series
    persistent = nats(likelihood("swe"), prediction, target, persistence=persistence)
    alone = nats(likelihood("swe", autocorrelation=False), prediction, target)
    assert_allclose(persistent[0], alone[0])
    assert_allclose(persistent[2][0], alone[2][0])
    assert_allclose(persistent[2][1], alone[2][1])


def test_errors_that_last_count_as_many_as_are_independent():
    noise = {"swe": Noise(tf.constant(1.0), tf.constant(0.5))}
    assert float(likelihood("swe").shares(noise)["swe"]) == pytest.approx(1 / 3)
    alone = likelihood("swe", autocorrelation=False)
    assert alone.shares(noise) == {"swe": 1.0}


def test_a_known_error_is_added_in_quadrature(series):
    prediction, target = series
    known = np.full(target.shape, 1.5)
    known[np.isnan(target)] = NAN
    together = np.hypot(0.5, 1.5 / STD)
    total, *_ = nats(likelihood("swe"), prediction, target, errors=known)
    assert_allclose(
        total, nats(likelihood("swe"), prediction, target, deviation=together)[0]
    )


def test_an_observation_of_nothing_has_the_probability_of_not_above():
    prediction = [[3.0, 0.0]]
    total, count, _ = nats(
        likelihood("swe", autocorrelation=False), prediction, [[0.0, 0.0]]
    )
    assert_allclose(total, -stats.norm.logcdf(-3 / STD / 0.5) - np.log(0.5))
    assert count == 2


def test_where_both_have_nothing_no_noise_is_learned():
    """Days without snow would else make the satellite look perfect."""
    nothing = np.zeros((1, 50))
    *_, gradients = nats(likelihood("swe"), nothing, nothing, persistence=0.3)
    assert gradients[1] == 0


def test_deep_snow_has_the_probability_of_beyond_the_saturation():
    prediction = [[95.0, 300.0]]
    total, *_ = nats(
        likelihood("swe", autocorrelation=False), prediction, [[140.0, 101.0]]
    )
    expected = stats.norm.logsf((100 - np.array(prediction)) / STD / 0.5).sum()
    assert_allclose(total, -expected, rtol=1e-6)


def test_only_snow_saturates_and_anomalies_are_never_censored():
    assert set(BOUNDED) == {"evapotranspiration", "runoff", "swe"}
    deep = [[150.0, 160.0]]
    runoff = nats(likelihood("runoff"), deep, deep, persistence=0.5)[0]
    assert runoff < nats(likelihood("runoff"), deep, [[151.0, 160.0]])[0]


def test_no_observation_costs_nothing_and_its_gradient_is_finite():
    nothing = np.full((2, 5), NAN)
    total, count, gradients = nats(likelihood("swe"), np.ones((2, 5)), nothing)
    assert (total, count) == (0, 0)
    assert not np.any(gradients[0])


def test_the_least_cost_is_at_the_spread_of_the_errors(rng):
    """What is learned is the noise: here of a thousand observations."""
    target = rng.normal(50, 0.8 * STD, (100, 10))
    prediction = np.full(target.shape, 50.0)
    deviations = np.linspace(0.6, 1.0, 41)
    costs = [
        nats(likelihood("swe"), prediction, target, deviation=d)[0] for d in deviations
    ]
    spread = np.sqrt(np.mean((target - 50) ** 2)) / STD
    assert deviations[np.argmin(costs)] == pytest.approx(spread, abs=0.01)


def test_terms_are_weighted_by_how_many_observations_there_are():
    constraints = [
        Constraint(name=name, mean=0.0, std=1.0, daily=False)
        for name in ("tws", "fapar")
    ]
    objective = Likelihood(
        constraints, "normal", observations={"tws": 300, "fapar": 100}
    )
    assert objective.weights() == {"tws": 1.5, "fapar": 0.5}
    assert objective.scale == 200


@pytest.mark.parametrize("distribution", ["normal", "laplace", "student_t"])
def test_far_tails_stay_finite_in_single_precision(distribution):
    """A network at its start is a hundred deviations off."""
    objective = likelihood("swe", distribution)
    prediction = tf.constant([[0.0, 90.0, 90.0, 0.0]])
    target = tf.constant([[120.0, 0.0, 20.0, 80.0]])
    noise = Noise(tf.constant(0.02), tf.constant(0.5))
    with tf.GradientTape() as tape:
        tape.watch((prediction, noise))
        terms = objective.terms(
            {"swe": prediction},
            {"swe": target},
            tf.zeros(target.shape, "int32"),
            {"swe": noise},
        )
    gradients = tape.gradient(terms["swe"].total, (prediction, *noise))
    assert np.isfinite(terms["swe"].total)
    assert all(np.isfinite(g).all() for g in gradients)


def test_persistence_stays_below_its_bound():
    """Near 1 a lasting offset would cost nothing."""
    noise = ObservationNoise(["tws"])
    noise.persistence.assign([100.0])
    assert float(noise.by_name()["tws"].persistence) == np.float32(MOST_PERSISTENCE)
