import numpy as np
import pytest

from h2mv_tf import variables
from h2mv_tf.data.pipeline import Series
from h2mv_tf.data.store import Store
from h2mv_tf.data.synthetic import synthesize
from h2mv_tf.errors import UserError


@pytest.fixture(scope="module")
def series(world):
    return Series.read(Store.open(world))


def test_a_world_has_every_group_of_the_published_layout(world):
    store = Store.open(world)
    assert store.constraints == variables.CONSTRAINTS
    assert store.land.dims == ("lat", "lon")
    assert len(store.static_names) >= 5
    assert len(store.time) == 730


def test_constraints_have_the_cadence_of_the_real_products(series):
    daily = {name: o.daily for name, o in series.observations.items()}
    assert daily == {name: name == "swe" for name in variables.CONSTRAINTS}


def test_observations_have_gaps_but_most_are_there(series):
    for observations in series.observations.values():
        assert 0.02 < np.isnan(observations.values).mean() < 0.2


def test_the_weather_is_plausible(series):
    net_radiation, precipitation, temperature = np.moveaxis(series.forcing, -1, 0)
    assert 40 < net_radiation.mean() < 140
    assert 1 < precipitation.mean() < 4
    assert 0.3 < (precipitation == 0).mean() < 0.8
    assert 275 < temperature.mean() < 295
    assert (temperature < 273.15).any()


def test_the_same_seed_makes_the_same_world(tmp_path):
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        size = {"rows": 5, "columns": 8, "years": 1, "noise": 0.05}
        synthesize(tmp_path / name, **size, seed=seed)
        made.append(Series.read(Store.open(tmp_path / name)))
    np.testing.assert_array_equal(made[0].forcing, made[1].forcing)
    np.testing.assert_array_equal(
        made[0].observations["tws"].values, made[1].observations["tws"].values
    )
    assert (made[0].forcing[:3] != made[2].forcing[:3]).any()


def test_without_noise_the_observations_close_the_water_balance(tmp_path):
    synthesize(tmp_path / "exact", rows=5, columns=8, years=2, noise=0, seed=0)
    series = Series.read(Store.open(tmp_path / "exact"))
    monthly = {k: o.values for k, o in series.observations.items()}
    precipitation = series.forcing[..., 1].astype("float64")
    snow = precipitation * (series.forcing[..., 2] - 273.15 <= 0)
    # Storage of a month's mean against the fluxes between two months' middles
    # is no identity; the trend over whole years is.
    inflow = (precipitation - 0.1 * snow).mean(axis=1)
    outflow = np.nanmean(monthly["evapotranspiration"], axis=1)
    outflow += np.nanmean(monthly["runoff"], axis=1)
    settled = np.abs(monthly["tws"][:, -1] - monthly["tws"][:, 0]) < 20
    np.testing.assert_allclose(inflow[settled], outflow[settled], rtol=0.25)


def test_a_world_is_not_written_over_another(world):
    with pytest.raises(UserError, match="exists"):
        synthesize(world, rows=5, columns=8, years=1, noise=0, seed=0)
