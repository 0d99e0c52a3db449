"""Cells as no training wants them: whatever comes, what is learned from stays finite.

Each example is a batch of every kind of cell, of random weather and observations and
of a network whose weights may be far from what a training gives.
"""

from types import SimpleNamespace
from typing import NamedTuple

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

from h2mv_tf.likelihood import Likelihood
from h2mv_tf.model import H2MV, Normalization
from h2mv_tf.objective import Constraint, Objective
from h2mv_tf.physics import FREEZING_POINT, available_energy
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


def batch(rng, dtype):
    """All that a training step reads."""
    daily = {name: name == "swe" for name in CONSTRAINTS}
    targets = {
        name: observations(rng, (CELLS, DAYS if daily[name] else DAYS // MONTH + 1))
        for name in CONSTRAINTS
    }
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


def shaken(model, rng, scales):
    """Gives a model random weights."""
    for weight in model.trainable_variables:
        path, shape = weight.path, weight.shape
        if path.endswith(("snowfall_correction", "baseflow_fraction", "persistence")):
            value = rng.choice(EXTREMES, shape)
        elif path.endswith("log_deviation"):
            value = rng.uniform(-2, 2, shape)
        elif "posterior" in path:
            value = rng.normal(0, scales["post"], shape)
        elif "coefficient" in path:
            value = rng.normal(0, scales["head"], shape)
        elif "cell" in path:
            value = rng.normal(0, scales["cell"], shape)
        else:
            value = rng.normal(0, scales["enc"], shape)
        weight.assign(value)
