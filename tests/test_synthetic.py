import itertools

import numpy as np
import pandas as pd
import pytest
import stores
import xarray as xr
import zarr
from click.testing import CliRunner

from h2mv_tf import config, variables
from h2mv_tf.__main__ import main as h2mv_tf
from h2mv_tf.data import synthetic
from h2mv_tf.data.check import Check
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import survey
from h2mv_tf.data.synthetic import planet, synthesize, truth, weather
from h2mv_tf.data.synthetic import world as worlds
from h2mv_tf.data.synthetic.observations import DEVIATION, Products
from h2mv_tf.errors import UserError

NOISE = 0.05  # of the world of conftest.py
PARTS = 6  # of tiles of 4 x 4 cells that have land
SMALL = {"rows": 6, "columns": 9, "years": 1, "noise": NOISE, "seed": 1}


@pytest.fixture(scope="module")
def store(world):
    return Store.open(world)


@pytest.fixture(scope="module")
def land(store):
    """Static inputs of the land cells, by name."""
    return dict(zip(store.static_names, store.static().T, strict=True))


@pytest.fixture(scope="module")
def known(world, store):
    """The truth at the land cells (cells, days), by name."""
    dataset = xr.open_zarr(world, group="truth", consolidated=False)
    mask = store.land.values
    return {
        name: array.values[..., mask].T if array.ndim else array.values
        for name, array in dataset.data_vars.items()
    }


@pytest.fixture(scope="module")
def globe():
    """A planet of 5 degrees and a year of its weather; no store."""
    made = planet.planet(36, 72, seed=0)
    climate = weather.Climate(pd.date_range("2001-01-01", "2001-12-31"), seed=0)
    places = np.flatnonzero(made.mask.values)
    return made.land, climate.weather(made.land, made.points, places)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """A small world whose observations have no noise."""
    path = tmp_path_factory.mktemp("exact") / "exact.zarr"
    synthesize(path, **{**SMALL, "noise": 0})
    return path


@pytest.fixture
def many_tiles(monkeypatch):
    """Worlds of many parts; gives a list that has one entry a part made."""
    monkeypatch.setattr(worlds, "REGION_BYTES", 1.0)
    made, write = [], worlds._World.write

    def spy(self, writer, region):
        write(self, writer, region)
        made.append(region)

    monkeypatch.setattr(worlds._World, "write", spy)
    return made


@pytest.fixture
def interrupt():
    """Interrupts the making of a world after two parts."""

    def run(done, total):
        if done == 2:
            raise KeyboardInterrupt

    return run


@pytest.fixture
def refused_world():
    """The line with which a world is refused."""

    def run(path, **settings):
        with pytest.raises(UserError) as caught:
            synthesize(path, **{**SMALL, **settings})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


def monthly(store, values):
    """Means over the months of the record (cells, months)."""
    frame = pd.DataFrame(values.T.astype("float64"), index=store.time)
    return frame.resample("MS").mean().values.T


def by_area(land, values):
    return np.average(values, weights=np.cos(np.radians(land.latitude)))


def arrays(path):
    found = zarr.open_group(path, mode="r").members(max_depth=None)
    return {name: a[...] for name, a in found if isinstance(a, zarr.Array)}


def assert_same(path, other):
    one, two = arrays(path), arrays(other)
    assert set(one) == set(two)
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], err_msg=name)


# the layout


def test_a_world_has_every_group_of_the_published_layout(store):
    assert store.constraints == variables.CONSTRAINTS
    assert store.land.dims == ("lat", "lon")
    assert store.land.sizes == {"lat": 9, "lon": 14}
    assert store.static_names == planet.Land._fields
    assert store.static_units["elevation"] == "m"
    assert (store.time[0], len(store.time)) == (pd.Timestamp("2001-01-01"), 730)


def test_constraints_have_the_cadence_of_the_real_products(store):
    daily = {name: store.calendar(name).daily for name in variables.CONSTRAINTS}
    assert daily == {name: name == "swe" for name in variables.CONSTRAINTS}


def test_a_world_is_fit_to_train_on(store):
    assert not Check.of(survey(store)).serious


def test_nothing_but_the_land_is_written(world, store):
    sea = ~store.land.values
    for name, values in arrays(world).items():
        if values.shape[-2:] == sea.shape and name != "mask/data":
            assert np.isnan(values[..., sea]).all(), name
            assert not np.isnan(values[..., ~sea]).all(), name


def test_attributes_and_units_are_those_of_the_registry(world):
    truth = xr.open_zarr(world, group="truth", consolidated=False)
    for name in (*truth.data_vars, "runoff"):
        assert truth[name].attrs["units"] == variables.VARIABLES[name].units
    assert (
        xr.open_zarr(world, group="et", consolidated=False).data.attrs["units"]
        == "mm d-1"
    )


# the planet


def test_a_finer_grid_shows_the_same_continents():
    coarse, fine = planet.planet(12, 24, seed=0), planet.planet(36, 72, seed=0)
    assert 0.34 < fine.mask.values.mean() < 0.36
    same_places = fine.mask.values[1::3, 1::3]
    assert (coarse.mask.values == same_places).mean() > 0.97


def test_static_inputs_are_possible(globe):
    land, _ = globe
    assert land.elevation.min() >= 1
    assert (land.elevation > 1500).any()
    assert (land.tree_cover + land.grass_cover <= 1).all()
    assert (land.sand_fraction + land.clay_fraction <= 1).all()
    for name in ("continentality", "wetness", "tree_cover", "sand_fraction"):
        values = getattr(land, name)
        assert values.min() >= 0
        assert values.max() <= 1


# the weather


def test_sunshine_above_the_air_is_that_of_fao_56_example_8():
    ra = weather.extraterrestrial_radiation(-20.0, 246)  # 3 September
    assert ra * 0.0864 == pytest.approx(32.2, abs=0.05)


def test_net_radiation_is_that_of_fao_56_example_12():
    # Rio de Janeiro in May: 7.1 of 10.9 hours of sun, 2.1 kPa of vapour at 22.1 degC.
    humidity = 2.1 / (0.6108 * np.exp(17.27 * 22.1 / (22.1 + 237.3)))
    rn = weather.net_radiation(25.1 / 0.0864, 1 - 7.1 / 10.9, 22.1, 0.23, humidity)
    assert rn * 0.0864 == pytest.approx(7.6, abs=0.05)


def test_wet_days_and_their_amounts_have_the_stated_distribution():
    storminess = np.random.default_rng(0).standard_normal(400_000)
    rain, clouds = weather.storms(storminess, wetness=0.5, temperature=15.0)
    share = 0.015 + 0.9 * 0.5**1.15
    assert (rain > 0).mean() == pytest.approx(share, rel=0.01)
    scale = 2.7 + 2.2 * 0.5
    for times, beyond in ((1, np.exp(-1)), (8, np.exp(-4))):  # 8^(2/3) = 4
        found = (rain[rain > 0] > times * scale).mean()
        assert found == pytest.approx(beyond, rel=0.03)
    np.testing.assert_allclose(clouds[rain > 0], 0.9)
    assert clouds.min() > 0.1


def test_precipitation_is_that_of_a_planet(globe):
    land, made = globe
    mean = made.precipitation.mean(axis=0)
    assert 1.5 < by_area(land, mean) < 3
    assert mean[land.wetness < 0.1].mean() < 0.6
    assert 4 < mean[np.abs(land.latitude) < 10].mean() < 8
    wet = made.precipitation >= 1
    assert wet[:, land.wetness < 0.1].mean() < 0.1
    assert 0.3 < wet[:, np.abs(land.latitude) < 10].mean() < 0.6
    after_a_wet_day = (wet[1:] & wet[:-1]).sum() / wet[:-1].sum()
    assert after_a_wet_day > 2 * wet.mean()


def test_storms_are_larger_than_a_cell(globe):
    land, made = globe
    near = np.flatnonzero(np.diff(land.latitude) == 0)
    wet = made.precipitation >= 1
    both = (wet[:, near] & wet[:, near + 1]).mean()
    assert both > 1.5 * (wet[:, near].mean(axis=0) * wet[:, near + 1].mean(0)).mean()


def test_summer_comes_to_each_hemisphere_in_turn(globe):
    land, made = globe
    january = made.air_temperature[:31].mean(axis=0)
    july = made.air_temperature[181:212].mean(axis=0)
    assert (july > january + 5)[land.latitude > 30].all()
    assert (january > july + 5)[land.latitude < -30].all()
    assert (np.abs(july - january) < 10)[np.abs(land.latitude) < 5].all()


def test_radiation_and_temperature_are_those_of_a_planet(globe):
    land, made = globe
    assert 60 < by_area(land, made.net_radiation.mean(axis=0)) < 100
    assert 280 < by_area(land, made.air_temperature.mean(axis=0)) < 292
    assert made.air_temperature.min() > 220
    assert made.air_temperature.max() < 320


# the truth


def test_the_truth_has_every_daily_output_and_every_parameter(known):
    outputs = set(variables.DAILY_OUTPUTS) - {"water_balance_residual"}
    parameters = set(variables.names("parameter", "constant"))
    assert set(known) == outputs | parameters
    for name, values in known.items():
        assert np.isfinite(values).all(), name
    assert known["tws"].shape == (44, 730)
    assert known["soil_water_capacity"].shape == (44,)
    assert known["snowfall_correction"] == np.float32(0.9)


def test_the_truth_closes_the_water_balance(store, known):
    _, precipitation, temperature = np.moveaxis(stores.forcing(store), -1, 0)
    snows = temperature - np.float32(273.15) <= 0
    inflow = precipitation * np.where(snows, 0.9, 1)
    np.testing.assert_allclose(known["corrected_precipitation"], inflow, rtol=1e-6)
    stored = np.diff(known["tws"].astype("float64"), axis=1)
    left = known["evapotranspiration"] + known["runoff"]
    np.testing.assert_allclose((inflow - left)[:, 1:], stored, atol=5e-4)


def test_the_truth_stays_in_its_bounds(store, known):
    for name, values in known.items():
        low, high = variables.VARIABLES[name].bounds
        assert low is None or (values >= low).all(), name
        assert high is None or (values <= high * (1 + 1e-6)).all(), name
    assert (known["soil_moisture"] <= known["soil_water_capacity"][:, None]).all()
    assert known["fapar"].max() <= 0.95


def test_no_snow_outlasts_the_summer(known):
    assert (known["swe"].min(axis=1) == 0).all()
    assert known["swe"].max() > 100


def test_water_is_limited_by_rain_in_deserts_and_by_the_sun_elsewhere(globe):
    land, made = globe
    chosen = np.linspace(0, len(land.latitude) - 1, worlds.TOGETHER).astype(int)
    cells = planet.Land(*(v[chosen] for v in land))
    made = weather.Weather(*(v[:, chosen] for v in made))
    water = truth.water_cycle(cells, made)
    inflow = water["corrected_precipitation"].sum(axis=0)
    ratio = water["runoff"].sum(axis=0) / inflow
    assert 0.2 < water["runoff"].sum() / inflow.sum() < 0.5
    assert ratio[cells.wetness < 0.15].mean() < 0.12
    energy = np.maximum(made.net_radiation, 0).sum(axis=0) * 0.0864 / 2.45
    assert (water["evapotranspiration"].sum(axis=0) < energy).all()


def test_the_spin_up_has_forgotten_where_the_stores_began(globe):
    land, made = globe
    some = slice(0, worlds.TOGETHER)
    twice = weather.Weather(*(np.concatenate([v[:, some]] * 2) for v in made))
    cells = planet.Land(*(v[some] for v in land))
    first, second = np.split(truth.water_cycle(cells, twice)["tws"], 2)
    assert (first > 0).all()
    np.testing.assert_allclose(first, second, atol=0.1)


# the observations


@pytest.mark.parametrize("name", ["evapotranspiration", "runoff"])
def test_errors_of_monthly_fluxes_are_as_large_as_promised(store, known, name):
    seen, true = stores.observations(store, name), monthly(store, known[name])
    deviation = NOISE * DEVIATION[name]
    errors = (seen - true)[true > 4 * deviation]  # none of them is cut off at zero
    errors = errors[~np.isnan(errors)]
    assert len(errors) > 150
    assert errors.std() == pytest.approx(deviation, rel=0.15)
    assert abs(errors.mean()) < 0.2 * deviation
    assert np.nanmin(seen) >= 0


def test_tws_is_an_anomaly_that_is_missing_everywhere_at_once(store, known):
    seen, true = stores.observations(store, "tws"), monthly(store, known["tws"])
    missing = np.isnan(seen)
    assert (missing == missing[0]).all()
    assert 1 <= missing[0].sum() <= 4
    baseline = np.zeros(24, bool)
    baseline[4:12] = True  # a third of the record
    there = seen[:, baseline & ~missing[0]]
    np.testing.assert_allclose(there.mean(axis=1), 0, atol=1e-3)
    errors = seen - true
    errors -= np.nanmean(errors, axis=1, keepdims=True)
    assert np.nanstd(errors) == pytest.approx(NOISE * DEVIATION["tws"], rel=0.1)


def test_a_long_record_of_tws_has_a_gap_between_two_missions():
    time = pd.date_range("2001-01-01", "2012-12-31")
    missing = Products(time, noise=0, seed=0).tws_missing
    runs = [len(list(run)) for lost, run in itertools.groupby(missing) if lost]
    assert max(runs) >= 11
    assert missing.mean() < 0.2


def test_snow_is_seen_up_to_100_mm_and_not_in_mountains(store, known, land):
    seen, true = stores.observations(store, "swe"), known["swe"]
    high = land["elevation"] > 1500
    assert high.any()
    assert np.isnan(seen[high]).all()
    assert np.isnan(seen[~high]).mean() == pytest.approx(0.1, abs=0.01)
    deep = (true > 100.1) & ~np.isnan(seen)
    assert deep.any()
    assert seen[deep].min() > 100
    assert seen[deep].max() < 110
    bare = (true == 0) & ~np.isnan(seen)
    assert (seen[bare] == 0).all()
    errors = (seen - true)[(true > 20) & (true < 90)]
    errors = errors[~np.isnan(errors)]
    assert errors.std() == pytest.approx(NOISE * DEVIATION["swe"], rel=0.1)


def test_fapar_is_a_fraction_that_dark_winters_hide(store, known, land):
    seen, true = stores.observations(store, "fapar"), monthly(store, known["fapar"])
    assert np.nanmin(seen) >= 0
    assert np.nanmax(seen) <= 1
    assert np.nanstd(seen - true) < 0.05
    midwinter = np.where(land["latitude"] > 0, 0, 6)
    dark = np.abs(land["latitude"]) > 65
    cells = np.arange(len(dark))
    assert np.isnan(seen[cells, midwinter][dark]).all()
    assert not np.isnan(seen[np.abs(land["latitude"]) < 40]).any(axis=0).all()


def test_without_noise_the_observations_are_the_truth(exact):
    land = Store.open(exact).land.values
    daily = xr.open_zarr(exact, group="truth", consolidated=False)
    for group, name in (("et", "evapotranspiration"), ("q", "runoff")):
        seen = xr.open_zarr(exact, group=group, consolidated=False).data.values
        there = ~np.isnan(seen)
        assert 0.5 < there[:, land].mean() < 1
        true = daily[name].resample(time="MS").mean().values
        np.testing.assert_allclose(seen[there], true[there], rtol=1e-4, atol=1e-6)


# how it is written


def test_the_same_seed_makes_the_same_world_whatever_its_tiles(
    exact, tmp_path, many_tiles
):
    synthesize(tmp_path / "a", **{**SMALL, "noise": 0}, tile=4)
    assert len(many_tiles) == PARTS
    assert_same(exact, tmp_path / "a")


def test_another_seed_makes_another_planet_and_weather():
    one, two = (planet.planet(36, 72, seed=seed) for seed in (1, 2))
    assert (one.mask.values != two.mask.values).mean() > 0.2
    days = pd.date_range("2001-01-01", "2001-12-31")
    storms = [
        weather.Climate(days, seed).storms.at(one.points[:1]).ravel() for seed in (1, 2)
    ]
    assert abs(np.corrcoef(storms)[0, 1]) < 0.3


def test_an_interrupted_call_is_continued(tmp_path, many_tiles, interrupt):
    settings = {**SMALL, "truth": "none", "tile": 4}
    synthesize(tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "parts", **settings, progress=interrupt)
    assert len(many_tiles) == PARTS + 2
    assert not (tmp_path / "parts").exists()
    seen = []
    synthesize(tmp_path / "parts", **settings, progress=lambda *n: seen.append(n))
    assert len(many_tiles) == 2 * PARTS  # none of them twice
    assert seen == [(n, PARTS) for n in range(PARTS + 1)]
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_an_interrupted_call_of_other_settings_begins_anew(
    tmp_path, many_tiles, interrupt
):
    settings = {**SMALL, "truth": "none", "tile": 4}
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "a", **settings, progress=interrupt)
    other = {**settings, "seed": 7}
    synthesize(tmp_path / "a", **other)
    synthesize(tmp_path / "b", **other)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_the_truth_may_be_stored_as_monthly_means(exact, tmp_path):
    synthesize(tmp_path / "months", **SMALL, truth="monthly")
    daily, months = (
        xr.open_zarr(path, group="truth", consolidated=False)
        for path in (exact, tmp_path / "months")
    )
    expected = daily.tws.resample(time="MS").mean()
    np.testing.assert_allclose(months.tws, expected, rtol=1e-5)
    assert set(months.data_vars) == set(daily.data_vars)


def test_a_world_without_its_truth_has_no_such_group(tmp_path):
    synthesize(tmp_path / "a", **SMALL, truth="none")
    assert "truth" not in zarr.open_group(tmp_path / "a", mode="r")
    assert not Check.of(survey(Store.open(tmp_path / "a"))).serious


def test_a_world_is_not_written_over_another(world, refused_world):
    assert "exists" in refused_world(world)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"rows": 4}, "rows=4 cannot be made. Expected 5 to 1800."),
        ({"columns": 10**6}, "columns=1000000 cannot be made. Expected 5 to 3600."),
        ({"years": 0}, "years=0 cannot be made. Expected 1 to 200."),
        ({"noise": -1.0}, "noise=-1.0 cannot be made. Expected 0 to 100."),
        ({"noise": np.nan}, "noise=nan cannot be made."),
        ({"seed": -1}, "seed=-1 cannot be made."),
        ({"truth": "hourly"}, "truth='hourly' is unknown. Expected daily, monthly"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, refused_world, setting, words):
    assert words in refused_world(tmp_path / "a", **setting)
    assert not any(tmp_path.iterdir())


# the command


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs `python -m h2mv_tf synthesize`; gives status and output."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(h2mv_tf, ["synthesize", *words])


def test_the_command_makes_a_world_and_says_how_to_train_on_it(command, tmp_path):
    no_truth = ("--truth", "none")
    result = command("--to", "a.zarr", "--resolution", "30", "--years", "1", *no_truth)
    assert result.exit_code == 0, result.output
    made = Store.open(tmp_path / "a.zarr")
    assert made.land.shape == (6, 12)
    assert result.output.splitlines() == [
        f"a.zarr: {made.land.values.sum()} land cells, 2001-01-01 to 2001-12-31.",
        "Train on it: python trainers/train.py --data a.zarr",
    ]


def test_the_command_tells_the_defaults_of_the_configuration(command, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        synthetic, "synthesize", lambda path, **settings: asked.update(settings)
    )
    command("--to", "a.zarr")
    defaults = config.Synthetic().model_dump()
    assert {name: asked[name] for name in defaults} == defaults
    words = " ".join(command("--help").output.split())
    assert not defaults.pop("errors")  # a flag, which tells it by being one
    for value in defaults.values():
        assert f"{value} by default" in words


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--resolution", "0.7"), "error: --resolution 0.7 does not divide the 180"),
        (("--resolution", "-1"), "error: --resolution -1 does not divide the 180"),
        (
            ("--resolution", "20", "--rows", "9"),
            "error: Give --resolution, or --rows and --columns; not both.",
        ),
        (("--years", "0"), "error: A synthetic world of years=0 cannot be made."),
    ],
)
def test_the_command_refuses_in_one_line(command, words, line):
    result = command("--to", "a.zarr", *words)
    assert result.exit_code == 2
    assert result.output.startswith(line)
    assert len(result.output.splitlines()) == 1


def test_an_interrupted_command_says_that_the_same_one_goes_on(command, monkeypatch):
    def interrupt(path, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "synthesize", interrupt)
    result = command("--to", "a.zarr")
    assert result.exit_code == 130
    assert "The same command goes on with a.zarr." in result.output
