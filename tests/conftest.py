"""What every test shares: a quiet TensorFlow, seeds, weather and the reference."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # has to stand before TensorFlow's import

import hypothesis
import numpy as np
import pytest
from reference import WATER_CYCLE, Reference

# The same examples on every run; no deadline, as no test asserts a time.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, max_examples=60
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture
def rng():
    return np.random.default_rng(20250528)


@pytest.fixture(scope="session")
def reference():
    return Reference(WATER_CYCLE)


@pytest.fixture(scope="session")
def weather():
    """Forcing (cells, days, 3) that crosses every branch of the water cycle."""

    def draw(rng, cells, days):
        net_radiation = rng.normal(60, 60, (cells, days))
        wet = rng.random((cells, days)) < 0.5
        precipitation = rng.gamma(0.7, 8, (cells, days)) * wet
        # A cold spell, then a warm one: snow piles up and goes.
        season = -8 * np.cos(2 * np.pi * np.arange(days) / days)
        air_temperature = 274 + season + rng.normal(0, 3, (cells, days))
        return np.stack([net_radiation, precipitation, air_temperature], axis=2)

    return draw
