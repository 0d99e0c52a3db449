"""The library: data sets in and out, whatever their names, units, dims and chunks."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scripts import ROOT

import h2mv_tf
from h2mv_tf import inference, library, predictions, restart
from h2mv_tf.data import dataset as datasets
from h2mv_tf.data.store import Store
from h2mv_tf.errors import UserError
from h2mv_tf.export import export
from h2mv_tf.inference import work
from h2mv_tf.trained import Trained
from h2mv_tf.variables import FORCING, OUTPUTS, STATES, VARIABLES

FEW = ["runoff", "swe"]
PER_DAY = 86400


@pytest.fixture(scope="module")
def model(run):
    return h2mv_tf.load(run.path)


@pytest.fixture(scope="module")
def store(world):
    return Store.open(world)


@pytest.fixture(scope="module")
def weather(store):
    """The weather and the static inputs of the world, lazy, NaN at sea."""
    arrays = {name: store.observed(name) for name in FORCING}
    for name, values in zip(store.static_names, store.static().T, strict=True):
        on_grid = np.full(store.land.shape, np.nan, "float32")
        on_grid[store.land.values] = values
        attributes = {"units": store.static_units[name]}
        arrays[name] = (store.land.dims, on_grid, attributes)
    return xr.Dataset(arrays)


@pytest.fixture(scope="module")
def few(weather, model):
    """A year of twelve cells, some sea, within what the training has seen."""
    part = weather.isel(time=slice(365), lat=slice(1, 5), lon=slice(6, 9))
    seen = {**model.domain.forcing, **model.domain.static}
    part = part.map(lambda data: data.clip(*seen[data.name], keep_attrs=True))
    assert 3 < part.air_temperature[0].notnull().sum() < 12
    return part.load()


@pytest.fixture(scope="module")
def few_results(model, few):
    return model.simulate(few)


@pytest.fixture(scope="module")
def site(few):
    """One of its cells."""
    there = few.air_temperature[0].notnull().stack(cell=("lat", "lon"))
    lat, lon = there.cell[there.values.nonzero()[0][0]].item()
    return few.sel(lat=lat, lon=lon)


@pytest.fixture(scope="module")
def predicted(run, store, tmp_path_factory):
    """What `predict` says of the world."""
    path = tmp_path_factory.mktemp("predicted") / "out.zarr"
    inference.predict(Trained.of(run), store, path, devices=1)
    return predictions.load(path).load()


def assert_same(found, expected, names=None, tolerance=1e-6):
    """The same numbers, as far as single precision tells them apart."""
    for name in names or expected.data_vars:
        a, b = found[name], expected[name]
        assert set(a.dims) == set(b.dims), name
        scale = max(1.0, float(abs(b).max()))
        if name == "water_balance_closure":
            scale = 10.0  # of nothing but rounding, summed over the days
        assert_allclose(
            a.transpose(*b.dims), b, rtol=0, atol=tolerance * scale, err_msg=name
        )


def refused(ask, *words):
    """The line with which something is refused."""
    with pytest.raises(UserError) as caught:
        ask()
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line
    return line


# The same as the command


def test_a_run_folder_simulates_what_predict_writes(model, weather, predicted):
    results = model.simulate(weather, compiled=True)
    assert_same(results, predicted)
    assert_array_equal(results.cell_area, predicted.cell_area)
    for name in OUTPUTS:
        assert results[name].attrs == predicted[name].attrs


def test_its_saved_model_simulates_the_same(run, few, few_results, tmp_path):
    export(Trained.of(run), tmp_path / "small" / "1")
    exported = h2mv_tf.load(tmp_path / "small")
    assert exported.card.training.cells == h2mv_tf.load(run.path).domain.cells
    assert_same(exported.simulate(few), few_results, tolerance=1e-7)


def test_without_compilation_the_numbers_differ_by_rounding(model, weather, predicted):
    names = [name for name in OUTPUTS if name != "water_balance_residual"]
    assert_same(model.simulate(weather), predicted, names, tolerance=1e-4)


def test_predict_goes_on_from_a_state_of_the_library(
    model, run, store, weather, predicted, tmp_path
):
    state = model.spin_up(weather)
    first, rest = (weather.sel(time=year) for year in ("2001", "2002"))
    results, end = model.advance(first, state, variables=FEW)
    end.to_netcdf(tmp_path / "state.nc")
    inference.predict(
        Trained.of(run),
        store.during("2002-01-01"),
        tmp_path / "out.nc",
        netcdf=True,
        initial_state=tmp_path / "state.nc",
        variables=FEW,
        devices=1,
    )
    with predictions.load(tmp_path / "out.nc") as written:
        assert_same(written, predicted.sel(time="2002"), FEW, tolerance=1e-5)
        assert_same(model.simulate(rest, initial_state=end), written, FEW)
    assert_same(results, predicted.sel(time="2001"), FEW, tolerance=1e-5)


def test_an_open_balance_is_refused_as_predict_does(model, site, monkeypatch):
    monkeypatch.setattr(work, "CLOSED", -1.0)
    refused(lambda: model.simulate(site), "water balance", "is open")


# Dims, names and units


def test_results_have_the_dims_and_coordinates_of_the_weather(model, few, few_results):
    other = few.drop_vars("latitude").rename(lat="y", lon="x", time="valid_time")
    other.y.attrs["standard_name"] = "latitude"
    other["x"] = (other.x % 360).assign_attrs(standard_name="longitude")
    other["valid_time"] = other.valid_time + np.timedelta64(12, "h")
    other.valid_time.attrs["standard_name"] = "time"
    other = other.assign_coords(zone=("y", list("abcd")), member=7)
    other = other.isel(y=slice(None, None, -1)).transpose("x", "y", "valid_time")
    results = model.simulate(other)
    assert results.runoff.dims == ("x", "y", "valid_time")
    assert results.soil_water_capacity.dims == ("x", "y")
    assert results.snowfall_correction.dims == ()
    for name in ("y", "x", "valid_time", "zone", "member"):
        assert (
            results[name].drop_vars("cell_area", errors="ignore").identical(other[name])
        )
    back = results.isel(y=slice(None, None, -1))
    back = back.rename(y="lat", x="lon", valid_time="time")
    assert_same(back, few_results, tolerance=1e-5)


def test_sites_and_a_single_one_are_simulated_as_the_cells_of_a_grid(
    model, few, few_results, site
):
    flat = few.stack(station=("lat", "lon"), create_index=False)
    names = [f"station {n}" for n in range(flat.sizes["station"])]
    flat = flat.assign_coords(station=names)
    results = model.simulate(flat, variables=FEW)
    assert results.runoff.dims == ("time", "station")
    expected = few_results.stack(station=("lat", "lon"), create_index=False)
    assert_same(results, expected, FEW)
    alone = model.simulate(site, variables=FEW)
    assert alone.runoff.dims == ("time",)
    assert alone.lat == site.lat
    assert_same(alone, few_results.sel(lat=site.lat, lon=site.lon), FEW)
    assert "cell_area" not in alone


def test_a_place_needs_no_coordinates(model, site, few_results):
    nowhere = site.drop_vars(["lat", "lon"])
    results, state = model.advance(nowhere, variables=FEW)
    assert_same(results, few_results.sel(lat=site.lat, lon=site.lon), FEW)
    later = nowhere.assign_coords(time=nowhere.time + np.timedelta64(365, "D"))
    assert model.simulate(later, initial_state=state).runoff.notnull().all()


def test_an_ensemble_of_weather_gives_one_of_results(model, site):
    warmer = site.assign(air_temperature=site.air_temperature + 3)
    both = xr.concat([one.air_temperature for one in (site, warmer)], "member")
    members = site.assign(air_temperature=both)
    results = model.simulate(members, variables=FEW)
    assert set(results.swe.dims) == {"member", "time"}
    for number, weather in enumerate((site, warmer)):
        alone = model.simulate(weather, variables=FEW)
        assert_same(results.isel(member=number), alone, FEW)


def test_weather_of_a_climate_model_is_converted(model, few, few_results):
    forcing = xr.Dataset(
        {
            "rss": (few.net_radiation + 40).assign_attrs(units="W m-2"),
            "rls": (few.net_radiation * 0 - 40 * 86400).assign_attrs(units="J m-2 d-1"),
            "rain": (few.precipitation / PER_DAY).assign_attrs(
                units="kg m-2 s-1", standard_name="precipitation_flux"
            ),
            "tas": (few.air_temperature - 273.15).assign_attrs(units="degC"),
        }
    )
    results = model.simulate(few.drop_vars(FORCING).assign(forcing), variables=FEW)
    assert_same(results, few_results, FEW, tolerance=2e-5)


def test_sums_over_days_are_converted_where_they_say_that_they_are(
    model, few, few_results
):
    daily = few.net_radiation.astype("float64") * 86400
    radiation = daily.assign_attrs(units="J m-2", cell_methods="time: sum")
    results = model.simulate(few.assign(net_radiation=radiation), variables=FEW)
    assert_same(results, few_results, FEW, tolerance=2e-5)


def test_negative_precipitation_of_packing_is_none(model, site):
    dry = site.precipitation.where(site.precipitation > 1, 0)
    packed = dry.where(dry > 0, -1e-3).assign_attrs(site.precipitation.attrs)
    found = model.simulate(site.assign(precipitation=packed), variables=FEW)
    assert_same(found, model.simulate(site.assign(precipitation=dry)), FEW)


def test_values_without_units_are_taken_for_native_ones(model, site, few_results):
    bare = site.copy()
    for name in FORCING:
        bare[name] = bare[name].drop_attrs()
    found = model.simulate(bare, variables=FEW)
    assert_same(found, few_results.sel(lat=site.lat, lon=site.lon), FEW)


# Static inputs


def test_static_inputs_come_with_the_weather_or_beside_it(
    model, few, few_results, site
):
    static = few[list(model.static_names)]
    forcing = few.drop_vars(model.static_names)
    reordered = static.isel(lat=slice(None, None, -1), lon=[2, 0, 1])
    for given in (static, reordered, {n: static[n].values for n in static}):
        assert_same(model.simulate(forcing, static=given), few_results, FEW)
    numbers = {n: float(site[n]) for n in model.static_names}
    alone = model.simulate(site.drop_vars(model.static_names), static=numbers)
    assert_same(alone, few_results.sel(lat=site.lat, lon=site.lon), FEW)


def test_static_inputs_are_converted_to_the_units_of_the_training(
    model, few, few_results
):
    height = (few.elevation / 1000).assign_attrs(units="km")
    found = model.simulate(few.assign(elevation=height), variables=FEW)
    assert_same(found, few_results, FEW, tolerance=2e-5)


def test_a_latitude_is_found_among_the_coordinates(model, site, few_results):
    assert "latitude" in model.static_names
    bare = site.drop_vars("latitude")
    found = model.simulate(bare, variables=FEW)
    assert_same(found, few_results.sel(lat=site.lat, lon=site.lon), FEW)


# Blocks


def test_many_cells_are_simulated_block_by_block(
    model, weather, predicted, monkeypatch
):
    days = weather.sizes["time"]
    monkeypatch.setattr(datasets, "BLOCK", days * 3 * 8 * 20)  # twenty cells
    asked = []
    request = datasets.DatasetStore.request

    def noted(self, constraints, block):
        asked.append([part.stop - part.start for part in block.region])
        return request(self, constraints, block)

    monkeypatch.setattr(datasets.DatasetStore, "request", noted)
    for chunks in ({"time": 50}, {"time": -1, "lat": 3, "lon": 5}):
        asked.clear()
        found = model.simulate(weather.chunk(chunks), variables=FEW)
        assert len(asked) > 3
        assert max(a * b for a, b in asked) <= 20
        assert_same(found, predicted, FEW)
    assert [3, 5] in asked


def test_results_that_memory_has_no_room_for_are_refused(model, weather, monkeypatch):
    class Memory:
        available = 1000

    monkeypatch.setattr(library.psutil, "virtual_memory", Memory)
    refused(lambda: model.simulate(weather), "GB of memory", "fewer variables")


# States


def test_two_halves_one_after_the_other_are_one_simulation(
    model, few, few_results, tmp_path
):
    state = model.spin_up(few)
    first, middle = model.advance(few.isel(time=slice(90)), state)
    middle.to_netcdf(tmp_path / "middle.nc")
    rest = few.isel(time=slice(90, None))
    for given in (
        middle,
        tmp_path / "middle.nc",
        xr.open_dataset(tmp_path / "middle.nc").load(),
        restart.load(tmp_path / "middle.nc"),
    ):
        second = model.simulate(rest, initial_state=given)
        both = xr.concat([first[FEW], second[FEW]], "time")
        assert_same(both, few_results, FEW, tolerance=1e-5)
    assert restart.day_of(middle) == pd.Timestamp(few.time.values[89])


def test_one_day_is_enough_to_go_on(model, site):
    _, state = model.advance(site)
    day = site.isel(time=[0]).assign_coords(
        time=site.time[-1:] + np.timedelta64(1, "D")
    )
    results, _ = model.advance(day, state)
    assert results.sizes["time"] == 1
    assert float(abs(results.water_balance_closure)) < 1e-3


def test_a_spin_up_tells_how_far_the_stores_have_drifted(model, few, few_results):
    once, twice, often = (model.spin_up(few, cycles=n) for n in (1, 2, 8))
    for name in STATES:
        drift = twice[f"drift_{name}"]
        assert_allclose(drift, twice[name] - once[name], atol=1e-5)
        assert drift.attrs["units"] == "mm"
    drifts = [abs(s.drift_groundwater).max() for s in (once, twice, often)]
    assert drifts == sorted(drifts, reverse=True)
    assert restart.day_of(twice) == pd.Timestamp("2000-12-31")
    assert_same(model.simulate(few, initial_state=once), few_results, tolerance=1e-5)
    assert_same(
        model.simulate(few, cycles=2),
        model.simulate(few, initial_state=twice),
        tolerance=1e-5,
    )
    assert_array_equal(often.swe.isnull(), few.air_temperature[0].isnull())


# What is returned


@pytest.mark.parametrize(
    "names", [["mrro", "snw"], ["q", "swe"], ["runoff_total", "swe"]]
)
def test_variables_are_asked_for_in_any_vocabulary(model, site, few_results, names):
    results = model.simulate(site, variables=names)
    assert set(results.data_vars) == {*FEW, *predictions.ALWAYS}
    assert_same(results, few_results.sel(lat=site.lat, lon=site.lon), FEW)


def test_the_profile_of_cmip_has_its_names_and_units(model, site, few_results):
    results = model.simulate(site, variables="runoff", profile="cf")
    assert results.mrro.attrs["units"] == "kg m-2 s-1"
    assert results.mrro.attrs["standard_name"] == "runoff_flux"
    expected = few_results.runoff.sel(lat=site.lat, lon=site.lon)
    assert_allclose(results.mrro * PER_DAY, expected, rtol=1e-5, atol=1e-6)


def test_results_tell_where_they_come_from_and_go_to_netcdf(
    model, few_results, tmp_path
):
    assert few_results.attrs["model"] == model.path.as_posix()
    assert "simulated by h2mv_tf" in few_results.attrs["history"]
    few_results.to_netcdf(tmp_path / "results.nc")
    with xr.open_dataset(tmp_path / "results.nc") as written:
        assert written.attrs["cells_out_of_domain"] == 0
        assert_same(written, few_results, tolerance=0)


def test_sea_stays_empty(few, few_results):
    sea = few.air_temperature[0].isnull()
    for name, data in few_results.data_vars.items():
        if "lat" in data.dims:
            assert data.where(sea).isnull().all(), name
            assert data.notnull().where(~sea, True).all(), name


def test_inputs_that_the_training_has_not_seen_are_told(model, site, caplog):
    hot = site.assign(air_temperature=site.air_temperature + 25)
    results = model.simulate(hot.assign(elevation=9000.0), variables=FEW)
    assert results.out_of_domain == 1
    assert results.attrs["cells_out_of_domain"] == 1
    (line,) = caplog.messages
    assert "1 of 1 cells" in line
    assert "air_temperature [K]" in line
    assert "elevation" in line
    caplog.clear()
    model.simulate(site, variables=FEW)
    assert not caplog.messages


# What is refused


def with_gap(data):
    return data.isel(time=[0, 1, 2, 5, 6])


def with_hours(data):
    hours = data.time.values[0] + np.arange(data.sizes["time"]) * np.timedelta64(6, "h")
    return data.assign_coords(time=hours)


def with_value(name, value, day=3):
    def changed(data):
        values = data[name].copy(deep=True)
        values[{"time": day}] = value
        return data.assign({name: values})

    return changed


def with_units(name, units):
    return lambda data: data.assign({name: data[name].assign_attrs(units=units)})


def in_celsius(data):
    return data.assign(air_temperature=(data.air_temperature - 273.15).drop_attrs())


REFUSED = {
    "no forcing": (
        lambda d: d.drop_vars("precipitation"),
        [
            "no precipitation [mm d-1]",
            "dataset.assign(precipitation=dataset['VARIABLE'])",
        ],
    ),
    "two of one standard name": (
        lambda d: d.assign(a=d.precipitation, b=d.precipitation).drop_vars(
            "precipitation"
        ),
        ["could be any of a, b", "dataset.assign(precipitation=dataset['a'])"],
    ),
    "no time": (lambda d: d.isel(time=0), ["no coordinate time", "expand_dims"]),
    "a gap": (with_gap, ["daily without gaps", "2001-01-03 followed by 2001-01-06"]),
    "hours": (with_hours, ["2001-01-01 followed by 2001-01-01 06:00", "resample"]),
    "calendar": (
        lambda d: d.convert_calendar("noleap"),
        ["calendar 'noleap'", "convert_calendar"],
    ),
    "backwards": (lambda d: d.isel(time=slice(None, None, -1)), ["daily without gaps"]),
    "other units": (
        with_units("precipitation", "K"),
        ["'precipitation' has units 'K'", "do not convert"],
    ),
    "a sum": (
        with_units("precipitation", "mm"),
        ["If it is the sum of each day, its units are 'mm d-1'"],
    ),
    "degrees Celsius": (
        in_celsius,
        ["170 and 340", "looks like degC", "attribute `units`"],
    ),
    "a missing day": (
        with_value("net_radiation", np.nan),
        ["net_radiation [W m-2] is missing", "2001-01-04", "NaN on all days"],
    ),
    "infinite": (
        with_value("net_radiation", np.inf),
        ["net_radiation [W m-2] is missing"],
    ),
    "negative rain": (
        with_value("precipitation", -5.0),
        ["precipitation [mm d-1] has to lie between 0", "-5"],
    ),
    "all sea": (
        lambda d: d.assign(air_temperature=d.air_temperature * np.nan),
        ["no cell has all forcing", "air_temperature"],
    ),
    "no static": (
        lambda d: d.drop_vars(["elevation", "soil_depth"]),
        [
            "lacks 2 of the model's 10",
            "elevation [m], soil_depth [m]",
            "static={'elevation'",
        ],
    ),
    "static NaN": (
        lambda d: d.assign(elevation=np.nan),
        ["'elevation' is missing", "NaN on all days"],
    ),
    "static units": (
        lambda d: d.assign(elevation=((), 4.0, {"units": "K"})),
        ["'elevation' has units 'K'", "'m'"],
    ),
    "static in time": (
        lambda d: d.assign(elevation=d.precipitation),
        ["'elevation' has dims (time)"],
    ),
    "static in words": (lambda d: d.assign(elevation="high"), ["'elevation'"]),
    "a table": (lambda d: d.to_dataframe(), ["DataFrame", "to_xarray()"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_weather_is_refused_in_one_line(model, site, case):
    change, words = REFUSED[case]
    site = site.isel(time=slice(20))
    refused(lambda: model.simulate(change(site), variables=FEW), *words)


def test_a_cell_that_lacks_some_days_is_refused_with_its_place(model, few):
    cells = few.net_radiation.copy(deep=True)
    row, column = np.argwhere(cells[0].notnull().values)[0]
    cells[7, row, column] = np.nan
    where = f"lat {few.lat[row].item():g}, lon {few.lon[column].item():g}"
    refused(
        lambda: model.simulate(few.assign(net_radiation=cells)), where, "2001-01-08"
    )


def test_a_year_of_precipitation_in_other_units_is_doubted(model, weather):
    flux = (weather.precipitation / PER_DAY).drop_attrs()
    line = refused(lambda: model.simulate(weather.assign(precipitation=flux)))
    assert "does not go beyond" in line
    assert "dataset['precipitation'].attrs['units'] = 'mm d-1'" in line


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"elevation": "high"}, ["'elevation' is 'high'", "Expected a number"]),
        ({"elevation": [1.0, 2.0]}, ["'elevation' has the shape (2,)", "()"]),
    ],
)
def test_static_inputs_that_are_none_are_refused(model, site, given, words):
    refused(lambda: model.simulate(site, static=given), *words)


def test_static_inputs_of_other_places_are_refused(model, few):
    static = few[["elevation"]].assign_coords(lat=few.lat + 20)
    refused(lambda: model.simulate(few, static=static), "'elevation' is missing")
    bare = few[["elevation"]].isel(lat=slice(2)).drop_vars(["lat", "lon"])
    refused(lambda: model.simulate(few, static=bare), "(lat, lon) of sizes (2, 3)")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.assign(swe=s.swe - 1e4), ["swe [mm]", "0 or more"]),
        (
            lambda s: s.assign(soil_moisture=s.soil_moisture + 1e4),
            ["soil_moisture [mm]", "expected 0 to"],
        ),
        (
            lambda s: s.assign(groundwater=s.groundwater * np.nan),
            ["groundwater [mm]", "nothing"],
        ),
        (
            lambda s: s.assign_coords(time=s.time + np.timedelta64(3, "D")),
            ["holds at the end of 2001-01-03"],
        ),
        (lambda s: s.assign_attrs(h2mv_tf_model="a" * 64), ["of another model"]),
        (lambda s: s.assign_coords(lat=s.lat + 1), ["other places", "lat"]),
        (lambda s: s.drop_vars("fapar"), ["fapar is missing"]),
        (lambda s: s.drop_attrs(), ["attribute h2mv_tf_restart"]),
    ],
)
def test_states_of_something_else_are_refused(model, site, change, words):
    state = change(model.spin_up(site.isel(time=slice(20))))
    refused(lambda: model.simulate(site, initial_state=state), *words)


def test_a_state_of_other_cells_is_refused(model, few, site):
    state = model.spin_up(site.isel(time=slice(20)))
    refused(lambda: model.advance(few, state), "other cells", "1 cell", "4 lat x 3 lon")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variables": ["wind"]}, ["no variable 'wind'"]),
        ({"profile": "cmip"}, ["no profile 'cmip'", "native, or cf"]),
        ({"cycles": 0}, ["0 cycles", "1 or more"]),
        ({"cycles": 2, "initial_state": "state.nc"}, ["not both"]),
        ({"initial_state": "nowhere.nc"}, ["There are no states at 'nowhere.nc'"]),
    ],
)
def test_options_that_cannot_be_are_refused(model, site, options, words):
    refused(lambda: model.simulate(site, **options), *words)


def test_a_path_without_a_model_is_refused(tmp_path):
    refused(lambda: h2mv_tf.load(tmp_path), "not a run folder")


# What a notebook shows


def test_a_notebook_shows_the_card(model):
    page = model._repr_html_()
    for name in (*FORCING, *model.static_names, *OUTPUTS):
        assert f"<code>{name}</code>" in page
    for variable in model.card.forcing:
        assert f">{variable.high:.4g}</td>" in page
    for constraint in model.card.training.constraints:
        assert constraint in page
    assert model.static_names[0] in repr(model)
    assert "\n" not in repr(model)


def test_a_model_of_an_older_run_has_no_card_and_simulates(run, site, tmp_path):
    shutil.copytree(run.path, tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "saved_model")
    (tmp_path / "old" / "domain.json").unlink()
    model = h2mv_tf.load(tmp_path / "old")
    assert model.domain is None
    assert model._repr_html_() is None
    refused(lambda: model.card, "no model card")
    results = model.simulate(site, variables=FEW)
    assert results.attrs["domain"] == "plausible"


@pytest.mark.parametrize("name", ["simulate", "advance", "spin_up"])
def test_methods_tell_what_they_take_and_give(name):
    text = getattr(library.LoadedModel, name).__doc__
    for word in ("Args:", "Returns:", "Raises:", "Example:", "weather"):
        assert word in text


def test_the_import_brings_no_tensorflow():
    script = "import sys, h2mv_tf; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True
    )
    assert done.stdout.strip() == b"False"


def test_loading_and_simulating_say_nothing(run, site, tmp_path):
    site.to_netcdf(tmp_path / "site.nc")
    script = (
        "import h2mv_tf, xarray;"
        f"model = h2mv_tf.load({str(run.path)!r});"
        f"site = xarray.open_dataset({str(tmp_path / 'site.nc')!r});"
        "[model.simulate(site.isel(time=slice(n))) for n in range(20, 26)]"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    days = pd.date_range("2001-01-01", "2002-12-31")
    summer = np.sin(2 * np.pi * (days.day_of_year - 111) / 365.25)
    rain = np.random.default_rng(1).gamma(0.3, 9, len(days))
    card = h2mv_tf.load(ROOT / "saved_models" / "demo").card
    xr.Dataset(
        {
            "rn": ("time", 70 + 60 * summer, {"units": "W m-2"}),
            "pr": ("time", rain, {"units": "mm d-1"}),
            "tas": ("time", 6 + 12 * summer, {"units": "degC"}),
            **{variable.name: variable.mean for variable in card.static},
        },
        {"time": days},
    ).to_netcdf(tmp_path / "weather.nc")
    (tmp_path / "saved_models").symlink_to(ROOT / "saved_models")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, "library.md", "exec"), names)
    assert names["results"].runoff.sizes == {"time": 365}
    assert (tmp_path / "state.nc").exists()


def test_every_forcing_is_named_with_units_in_the_class():
    for name in FORCING:
        assert f"[{VARIABLES[name].units}]" in library.LoadedModel.__doc__
