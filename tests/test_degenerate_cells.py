"""Cells as no training wants them: whatever comes, what is learned from stays finite.

Each example is a batch of every kind of cell, of random weather and observations and
of a network whose weights may be far from what a training gives.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf
import xarray as xr
from hypothesis import given, settings
from numpy.testing import assert_allclose
from scipy import stats
from small import small_settings

from h2mv_tf import config, training
from h2mv_tf.data.store import Store
from h2mv_tf.data.writing import write_store
from h2mv_tf.errors import UserError
from h2mv_tf.likelihood import Likelihood
from h2mv_tf.model import H2MV, Normalization
from h2mv_tf.noise import Noise
from h2mv_tf.objective import Constraint, Objective, Pairs
from h2mv_tf.penalties import Penalties
from h2mv_tf.physics import FREEZING_POINT, available_energy
from h2mv_tf.priors import Priors
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.steps import Trainer
from h2mv_tf.variables import CONSTRAINTS, ERRORS, FLUXES, OUTPUTS, STATES, VARIABLES

EACH, DAYS, MONTH = 12, 400, 31
STATIC = 3
SIZES = {"encoder_units": 6, "code_size": 3, "lstm_units": 5}


# Weather: net radiation, precipitation and air temperature, each (cells, days)


def ordinary(rng, shape):
    wet = rng.random(shape) < 0.5
    season = -8 * np.cos(2 * np.pi * np.arange(shape[1]) / 365)
    return (
        rng.normal(60, 60, shape),
        rng.gamma(0.7, 8, shape) * wet,
        FREEZING_POINT + season + rng.normal(0, 3, shape),
    )


def eternal_ice(rng, shape):
    radiation, precipitation, _ = ordinary(rng, shape)
    frost = rng.uniform(0, 50, shape) * (rng.random(shape) < 0.9)
    return radiation, precipitation, FREEZING_POINT - frost


def desert(rng, shape):
    radiation, _, temperature = ordinary(rng, shape)
    return radiation + 100, np.zeros(shape), temperature + 20


def polar_night(rng, shape):
    _, precipitation, temperature = ordinary(rng, shape)
    dark = -rng.uniform(0, 300, shape) * (rng.random(shape) < 0.5)
    return dark, precipitation, temperature


def cold_of_60_kelvin(rng, shape):
    radiation, precipitation, _ = ordinary(rng, shape)
    return radiation, precipitation, np.full(shape, 60.0)


def sudden_cold(rng, shape):
    radiation, precipitation, _ = ordinary(rng, shape)
    drop = np.arange(shape[1]) >= rng.integers(1, shape[1], (shape[0], 1))
    return radiation, precipitation, 295.0 - 60 * drop


def floods(rng, shape):
    radiation, _, temperature = ordinary(rng, shape)
    return radiation, np.full(shape, 500.0), temperature


def one_flood(rng, shape):
    radiation, _, temperature = ordinary(rng, shape)
    day = rng.integers(0, shape[1], (shape[0], 1))
    return radiation, 500.0 * (np.arange(shape[1]) == day), temperature


def heat(rng, shape):
    _, precipitation, _ = ordinary(rng, shape)
    return np.full(shape, 1000.0), precipitation, np.full(shape, 340.0)


def thaw_of_years(rng, shape):
    radiation, precipitation, temperature = eternal_ice(rng, shape)
    temperature[:, -3:] = 320
    return radiation, precipitation * 10, temperature


def nothing(rng, shape):
    return np.zeros(shape), np.zeros(shape), np.full(shape, FREEZING_POINT)


ALONE = (
    ordinary,
    eternal_ice,
    desert,
    polar_night,
    cold_of_60_kelvin,
    sudden_cold,
    floods,
    one_flood,
    heat,
    thaw_of_years,
    nothing,
)


def mixture(rng, shape):
    """Another weather each day."""
    every = np.stack([kind(rng, shape) for kind in ALONE])
    chosen = rng.integers(len(ALONE), size=(1, 1, *shape))
    return np.take_along_axis(every, chosen, 0)[0]


KINDS = (*ALONE, mixture)
CELLS = EACH * len(KINDS)


def of_kind(kind):
    """Where the cells of a kind stand in the batch."""
    first = EACH * KINDS.index(kind)
    return slice(first, first + EACH)


def weather(rng):
    """Forcing (cells, days, 3)."""
    return np.concatenate([np.stack(kind(rng, (EACH, DAYS)), axis=2) for kind in KINDS])


# Observations


def observations(rng, shape):
    """Of each cell: none, zeros, a constant, a single one, deep snow, or any."""
    level = 10 ** rng.uniform(-3, 3, (shape[0], 1))
    any_value = rng.gamma(1.0, level, shape)
    any_value[rng.random(shape) < 0.3] = np.nan
    single = np.where(np.arange(shape[1]) == shape[1] // 2, level, np.nan)
    every = np.stack(
        [
            np.full(shape, np.nan),
            np.zeros(shape),
            np.broadcast_to(level, shape),
            single,
            1000 + any_value,
            any_value,
        ]
    )
    chosen = rng.integers(len(every), size=(1, shape[0], 1))
    return np.take_along_axis(every, np.broadcast_to(chosen, (1, *shape)), 0)[0]


def batch(rng, dtype, errors):
    """All that a training step reads."""
    targets = {
        name: observations(rng, (CELLS, DAYS if name == "swe" else DAYS // MONTH + 1))
        for name in CONSTRAINTS
    }
    if errors:
        targets |= {
            ERRORS[name]: 10 ** rng.uniform(-3, 3, targets[name].shape)
            for name in CONSTRAINTS
        }
    return {
        "forcing": tf.constant(weather(rng), dtype),
        "static": tf.constant(rng.normal(0, 3, (CELLS, STATIC)), dtype),
        "month": tf.constant(np.tile(np.arange(DAYS) // MONTH, (CELLS, 1)), "int32"),
        "targets": {name: tf.constant(x, dtype) for name, x in targets.items()},
        "weight": tf.ones(CELLS, dtype),
    }


# Networks

EXTREMES = (-1000.0, -20.0, 0.0, 20.0, 1000.0)  # before a sigmoid
# Of weights: trained ones are near the second. Between the last two an LSTM may be
# chaotic, and its gradient over a year truly beyond any number.
SCALES = (0.01, 0.3, 100.0, 1000.0)


def network(dtype, **settings):
    model = H2MV(STATIC, **SIZES, dtype=dtype, **settings)
    normalization = ([60, 3, 274], [60, 6, 8], [0] * STATIC, [1] * STATIC)
    model.set_normalization(Normalization(*normalization))
    return model


def shaken(model, rng):
    """Gives a model random weights."""
    of_encoder, of_cell, of_coefficients = rng.choice(SCALES, 3)
    for weight in model.trainable_variables:
        *_, layer, name = weight.path.split("/")
        if name in ("snowfall_correction", "baseflow_fraction", "persistence"):
            value = rng.choice(EXTREMES, weight.shape)
        elif name == "log_deviation":  # from 5e-5 to 2e4 deviations of the observations
            value = rng.uniform(-2, 2, weight.shape)
        elif layer == "capacity_deviation":  # up to 7: a factor of a thousand
            value = rng.uniform(-1, 1.4) if name == "bias" else np.zeros(weight.shape)
        elif layer == "posterior":
            value = rng.normal(0, 1, weight.shape)
        elif "coefficient" in name:
            value = rng.normal(0, of_coefficients, weight.shape)
        else:
            scale = of_cell if layer == "cell" else of_encoder
            value = rng.normal(0, scale, weight.shape)
        weight.assign(np.broadcast_to(value, weight.shape))


EXAMPLES = settings(max_examples=12)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module", params=["float32", "float64"])
def dtype(request):
    return request.param


# What the water does


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "XLA"])
def simulated(request, dtype):
    """Forcing and all outputs of an example (cells, days), by name, in double."""
    model = network(dtype)
    run = tf.function(model, jit_compile=request.param, autograph=False)

    def of(seed):
        rng = np.random.default_rng(seed)
        shaken(model, rng)
        inputs = {
            "forcing": tf.constant(weather(rng), dtype),
            "static": tf.constant(rng.normal(0, 3, (CELLS, STATIC)), dtype),
        }
        found = {name: x.numpy() for name, x in run(inputs).items()}
        assert set(found) == set(OUTPUTS)
        shape = (CELLS, DAYS)
        found["soil_water_capacity"] = found["soil_water_capacity"][:, None]
        wide = {k: np.broadcast_to(x, shape) for k, x in found.items()}
        radiation, *_ = np.moveaxis(inputs["forcing"].numpy(), 2, 0)
        wide["energy"] = available_energy(radiation).numpy()
        return {name: np.asarray(x, "float64") for name, x in wide.items()}

    return of


@EXAMPLES
@given(seed=SEEDS)
def test_the_water_cycle_of_any_cell_is_finite_within_bounds_and_closed(
    simulated, dtype, seed
):
    found = simulated(seed)
    # A store is known to a digit of its own, which lies within this of its amount.
    digit = 4 * np.finfo(dtype).eps
    held = sum(found[name] for name in STATES)
    before = np.concatenate([held[:, :1], held[:, :-1]], axis=1)
    turned_over = held + before + found["corrected_precipitation"]
    # A full soil may hold its capacity and a digit, which then leaves it.
    recharge = found["soil_recharge"]
    assert (recharge >= -digit * (1 + found["soil_water_capacity"])).all()
    of_water = ("soil_recharge", *(n for n in OUTPUTS if n.endswith("_fraction")))
    for name in OUTPUTS:
        assert np.isfinite(found[name]).all(), name
        low, high = VARIABLES[name].bounds
        if name in of_water and found[name].shape == recharge.shape:
            found[name] = np.where(recharge < 0, 0, found[name])
        if low is not None:
            assert (found[name] >= low).all(), name
        if high is not None:
            assert (found[name] <= high * (1 + digit)).all(), name
    residual = abs(found["water_balance_residual"][:, 1:])
    assert (residual <= digit * (1 + turned_over[:, 1:])).all()
    lost = found["evapotranspiration"] + found["runoff"]
    gained = (held - before)[:, 1:].sum(axis=1)
    fallen = (found["corrected_precipitation"] - lost)[:, 1:].sum(axis=1)
    tolerance = digit * (1 + turned_over).sum(axis=1)
    assert (abs(fallen - gained) <= tolerance).all()
    assert (found["soil_moisture"] <= found["soil_water_capacity"] * (1 + digit)).all()
    assert (found["evapotranspiration"] <= found["energy"] * (1 + digit)).all()


@EXAMPLES
@given(seed=SEEDS)
def test_cells_that_lack_something_do_without(simulated, seed):
    found = simulated(seed)

    def of(kind, *names):
        return np.stack([found[name][of_kind(kind)] for name in names])

    # Neither has ever had water, from the spin-up on.
    for kind in (desert, nothing):
        assert (of(kind, *STATES, *FLUXES) == 0).all()
    liquid = ("rainfall", "snowmelt", "soil_moisture", "groundwater", "runoff")
    for kind in (eternal_ice, cold_of_60_kelvin):
        assert (of(kind, *liquid, "evapotranspiration") == 0).all()
        assert (np.diff(of(kind, "swe")) >= 0).all()
    assert (of(polar_night, "evapotranspiration", "evaporative_fraction") == 0).all()
    assert (of(heat, "snowfall", "swe") == 0).all()


# What is learned from it


class Case(NamedTuple):
    """A training to be shaken."""

    likelihood: str
    jit_compile: bool = False
    errors: bool = False
    model: Mapping = MappingProxyType({})
    objective: Mapping = MappingProxyType({})


CASES = {
    "mse": Case("mse", jit_compile=True),
    "normal, variational": Case(
        "normal", errors=True, model={"variational": True, "rank": 2}
    ),
    "laplace": Case("laplace", objective={"autocorrelation": False}),
    "student_t": Case("student_t", objective={"degrees_of_freedom": 30.0}),
}
# Snow as of the tropics: zero at all training cells, and so not scaled.
MOMENTS = {
    "tws": (0.0, 40.0),
    "evapotranspiration": (1.5, 1.0),
    "runoff": (0.8, 1.0),
    "swe": (0.0, 1.0),
    "fapar": (0.3, 0.2),
}


@pytest.fixture(
    scope="module",
    params=[
        *(name for name in CASES if name != "student_t"),
        pytest.param("student_t", marks=pytest.mark.slow),
    ],
)
def trained(request, dtype, world):
    """A trainer, and what makes its batches."""
    case = CASES[request.param]
    constraints = [
        Constraint(name=name, mean=mean, std=std, daily=name == "swe")
        for name, (mean, std) in MOMENTS.items()
    ]
    if case.likelihood == "mse":
        model, objective, penalties = network(dtype), Objective(constraints), None
    else:
        model = network(dtype, observed=CONSTRAINTS, **case.model)
        objective = Likelihood(
            constraints,
            case.likelihood,
            observations=dict.fromkeys(CONSTRAINTS, 1000),
            **case.objective,
        )
        of = {"objective": {"likelihood": case.likelihood}}
        penalties = Penalties(
            Priors(config.Config.model_validate(of), Store.open(world)),
            variational=model.variational,
            last_layer=True,
            cells=CELLS,
            scale=objective.scale,
        )
    trainer = Trainer(
        model,
        objective,
        keras.optimizers.SGD(0.0),
        jit_compile=case.jit_compile,
        penalties=penalties,
    )
    return trainer, lambda rng: batch(rng, dtype, case.errors)


@settings(max_examples=6)
@given(seed=SEEDS)
def test_terms_and_gradients_of_any_cell_are_finite(trained, seed):
    trainer, made = trained
    rng = np.random.default_rng(seed)
    shaken(trainer.model, rng)
    terms, gradients, finite = trainer.differentiate(made(rng))
    for name, term in terms.items():
        assert np.isfinite(term.total), name
        assert term.count > 0, name
    weights = trainer.model.trainable_variables
    for weight, gradient in zip(weights, gradients, strict=True):
        assert np.isfinite(gradient).all(), weight.path
    assert finite


def test_cells_without_any_observation_teach_nothing(trained):
    trainer, made = trained
    rng = np.random.default_rng(1)
    given = made(rng)
    missing = tf.nest.map_structure(lambda x: np.nan * x, given["targets"])
    shaken(trainer.model, rng)
    terms, gradients, finite = trainer.differentiate(given | {"targets": missing})
    assert finite
    for name in CONSTRAINTS:
        assert terms[name].total == 0
        assert terms[name].count == 0
    if trainer.penalties is None:
        assert not any(np.any(gradient) for gradient in gradients)


@pytest.mark.parametrize("degrees", [2.1, 10.0, 100.0])
def test_the_tail_of_a_student_t_has_its_probability(dtype, degrees):
    """An observation of 0 against a simulation far above it, up to 10^5 deviations."""
    constraint = Constraint(name="swe", mean=0.0, std=1.0, daily=True)
    objective = Likelihood(
        [constraint],
        "student_t",
        observations={"swe": 1},
        degrees_of_freedom=degrees,
        autocorrelation=False,
    )
    prediction = np.geomspace(0.01, 1e5, 50)[None]
    tail = stats.t(degrees)
    expected = tail.logcdf(-prediction)
    there = np.isfinite(expected)  # SciPy takes the logarithm of the probability
    noise = Noise(tf.ones((), dtype), tf.zeros((), dtype))
    simulated = tf.constant(prediction, dtype)
    with tf.GradientTape() as tape:
        tape.watch(simulated)
        pairs = Pairs(
            simulated, tf.zeros_like(simulated), tf.ones(simulated.shape, "bool")
        )
        found = objective.log_densities(constraint, pairs, noise)
    slope = tape.gradient(found, simulated).numpy()
    rtol = 1e-10 if dtype == "float64" else 1e-4
    assert there.sum() > 25
    assert_allclose(found.numpy()[there], expected[there], rtol=rtol, atol=rtol)
    expected = -np.exp(tail.logpdf(prediction) - expected)
    assert_allclose(slope[there], expected[there], rtol=rtol, atol=rtol)
    # Further out the logarithm falls by the degrees of freedom.
    assert_allclose(slope[0, -1], -degrees / 1e5, rtol=1e-4)


# What a store of them gives


def test_snow_that_is_nowhere_is_trained_with(world, tmp_path):
    fields = read(world)
    fields["swe"] = fields["swe"] * 0
    write_store(tmp_path / "tropics.zarr", fields)
    given = small_settings(
        tmp_path / "tropics.zarr",
        "objective.likelihood=normal",
        "training.epochs=1",
        "uncertainty.warm_up=0",
    )
    task = training.prepare(given)
    (snow,) = (c for c in task.objective.constraints if c.name == "swe")
    assert (snow.mean, snow.std) == (0.0, 1.0)
    folder = RunFolder(tmp_path / "run")
    training.fit(given, folder, exports=False)
    assert np.isfinite(folder.load_history().select_dtypes("number")).all(axis=None)


def test_a_constraint_that_is_nowhere_observed_is_refused_in_one_line(world, tmp_path):
    fields = read(world)
    fields["swe"] = fields["swe"] * np.nan
    write_store(tmp_path / "gap.zarr", fields)
    with pytest.raises(UserError) as caught:
        training.prepare(small_settings(tmp_path / "gap.zarr"))
    line = str(caught.value)
    assert "\n" not in line
    assert "'swe' has no observation at any land cell" in line
    assert "Drop it from objective.constraints, or add observations." in line


def read(path):
    """The arrays of a store by group, as `write_store` takes them."""
    groups = ("rn", "prec", "tair", "static", "mask", "tws", "et", "q", "swe", "fapar")
    return {
        group: xr.open_zarr(path, group=group, consolidated=False)["data"].load()
        for group in groups
    }
