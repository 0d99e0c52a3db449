"""What every test shares: a quiet TensorFlow, seeds, weather and the reference."""

import os
from pathlib import Path

# Before TensorFlow's import, as the scripts have it.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import hypothesis
import netCDF4  # noqa: F401  its import may warn of NumPy's version
import numpy as np
import pytest
import tensorflow as tf
from reference import WATER_CYCLE, Reference
from small import small_settings

from h2mv_tf import training
from h2mv_tf.data.ingest import ingest
from h2mv_tf.data.store import Store
from h2mv_tf.data.synthetic import synthesize
from h2mv_tf.data.writing import write_store
from h2mv_tf.errors import UserError
from h2mv_tf.inference import simulator
from h2mv_tf.run_folder import RunFolder

# For what several devices share; has to stand before TensorFlow computes anything.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 3,
)

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


@pytest.fixture(scope="session")
def configs():
    """The folder of the shipped configurations."""
    return Path(__file__).parents[1] / "trainers" / "configs"


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A synthetic world of some forty cells and two years."""
    path = tmp_path_factory.mktemp("world") / "world.zarr"
    synthesize(path, rows=9, columns=14, years=2, noise=0.05, seed=3)
    return path


@pytest.fixture
def stored(tmp_path):
    """The store that holds these arrays."""

    def run(fields, groups=None, zarr_format=3):
        write_store(tmp_path / "store.zarr", fields, zarr_format=zarr_format)
        return Store.open(tmp_path / "store.zarr", groups)

    return run


@pytest.fixture
def refusal(stored):
    """The line with which something about a store is refused."""

    def run(fields, ask=lambda store: store, groups=None):
        with pytest.raises(UserError) as caught:
            ask(stored(fields, groups))
        line = str(caught.value)
        assert "\n" not in line
        assert "store.zarr" in line
        return line

    return run


@pytest.fixture
def ingested(tmp_path):
    """Ingests data sets by way of files: (store, report)."""

    def run(sources, suffix=".nc", **options):
        if not isinstance(sources, dict):
            sources = {"source": sources}
        paths = [tmp_path / f"{name}{suffix}" for name in sources]
        for path, dataset in zip(paths, sources.values(), strict=True):
            if suffix == ".nc":
                dataset.to_netcdf(path)
            else:
                dataset.to_zarr(path, zarr_format=2, consolidated=False)
        report = ingest(paths, tmp_path / "store.zarr", **options)
        return Store.open(tmp_path / "store.zarr"), report

    return run


@pytest.fixture
def refused(ingested, tmp_path):
    """The line with which data sets are refused; nothing is left behind."""

    def run(sources, **options):
        with pytest.raises(UserError) as caught:
            ingested(sources, **options)
        names = sources if isinstance(sources, dict) else ["source"]
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == sorted(f"{name}.nc" for name in names)
        line = str(caught.value)
        assert "\n" not in line
        assert str(tmp_path) in line
        return line

    return run


@pytest.fixture(scope="session")
def run(world, tmp_path_factory):
    """A small training; not to be changed."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    training.fit(small_settings(world), folder)
    return folder


@pytest.fixture
def simulated(monkeypatch):
    """How many cells were simulated."""
    counts, call = [], simulator.Simulator.__call__

    def counted(self, forcing, *others):
        counts.append(len(forcing))
        return call(self, forcing, *others)

    monkeypatch.setattr(simulator.Simulator, "__call__", counted)
    return counts
