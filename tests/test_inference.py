"""Predictions: what is simulated, how it is kept, and what is refused."""

import dataclasses
import shutil

import distributed
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import xarray as xr
import zarr
from stores import forcing

from h2mv_tf import config, ensemble, inference, predictions, results
from h2mv_tf.data import splits
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import survey
from h2mv_tf.data.writing import Shard
from h2mv_tf.domain import Domain, Range
from h2mv_tf.errors import UserError
from h2mv_tf.inference import flow, hands, job, simulator, work
from h2mv_tf.model import H2MV
from h2mv_tf.trained import Trained
from h2mv_tf.variables import CONSTRAINTS, FORCING, OUTPUTS, VARIABLES

SMALL = {"encoder_units": 6, "code_size": 3, "lstm_units": 5}


@pytest.fixture(scope="module")
def store(world):
    return Store.open(world)


@pytest.fixture(scope="module")
def trained(store):
    """A small model, which has learned nothing but knows its cells' roles."""
    settings = config.Config(model=SMALL)
    statistics = survey(store).statistics(np.arange(20))
    roles = splits.roles(store.land, block_size=2)
    return Trained.untrained(settings, statistics, roles=roles)


@pytest.fixture(scope="module")
def predict(trained, store, tmp_path_factory):
    """Predicts on one device; gives the path. Memory makes for several blocks."""

    def run(path=None, store=store, trained=trained, **options):
        path = path or tmp_path_factory.mktemp("predictions") / "out.zarr"
        inference.predict(trained, store, path, devices=1, **options)
        return path

    return run


@pytest.fixture(scope="module")
def whole(predict):
    """All variables of all days."""
    return predict()


@pytest.fixture(scope="module")
def said(trained):
    """What the model itself says of all land cells of a store, by name."""
    model = H2MV.from_config(dict(trained.settings))
    model.set_weights(trained.weights)
    run = tf.function(model, jit_compile=True, autograph=False)

    def of(store):
        series, static = map(tf.constant, (forcing(store), store.static()))
        return run({"forcing": series, "static": static})

    return of


@pytest.fixture(scope="module")
def outputs(said, store):
    """What it says of the world."""
    return said(store)


def on_land(data, store):
    """(cells, ...) of a variable."""
    return np.moveaxis(data.values[..., store.land.values], -1, 0)


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_variable_is_what_the_model_says_of_the_cell(name, whole, outputs, store):
    found = predictions.load(whole)[name]
    if VARIABLES[name].kind == "constant":
        assert float(found) == pytest.approx(float(outputs[name]))
        return
    scale = max(1.0, float(np.abs(outputs[name]).max()))
    np.testing.assert_allclose(
        on_land(found, store), outputs[name], atol=1e-4 * scale, err_msg=name
    )
    assert np.isnan(found.values[..., ~store.land.values]).all()
    assert found.attrs["units"] == VARIABLES[name].units


def test_the_balance_of_the_period_is_worked_out_from_what_is_written(whole, store):
    found = predictions.load(whole)
    assert float(abs(found.water_balance_residual).max()) == pytest.approx(
        float(found.largest_residual.max())
    )
    flows = found.corrected_precipitation - found.evapotranspiration - found.runoff
    after_first = flows.isel(time=slice(1, None)).astype("float64").sum("time")
    growth = (found.tws.isel(time=-1) - found.tws.isel(time=0)).astype("float64")
    first_day = found.water_balance_residual.isel(time=0)
    np.testing.assert_allclose(
        on_land(after_first - growth + first_day, store),
        on_land(found.water_balance_closure, store),
        atol=5e-4,
    )


def test_roles_and_areas_describe_the_cells(whole, store):
    found = predictions.load(whole)
    roles = splits.roles(store.land, block_size=2)
    np.testing.assert_array_equal(found.role, roles)
    sphere = 4 * np.pi * predictions.EARTH_RADIUS**2
    assert float(found.cell_area.sum()) == pytest.approx(sphere)


def test_the_file_follows_cf(whole):
    with xr.open_zarr(whole, consolidated=False, decode_cf=False) as raw:
        assert raw.attrs["Conventions"].startswith("CF-")
        for name in ("source", "history", "references", "store"):
            assert raw.attrs[name]
        assert raw.time.attrs["bounds"] == "time_bnds"
        assert raw.time.attrs["units"] == "days since 1970-01-01"
        np.testing.assert_array_equal(raw.time_bnds[:, 0], raw.time)
        np.testing.assert_array_equal(raw.time_bnds[:, 1], raw.time + 1)
        assert raw.runoff.attrs["cell_measures"] == "area: cell_area"
        assert raw.runoff.attrs["cell_methods"] == "time: mean"
        assert raw.swe.attrs["cell_methods"] == "time: point"
        # A depth of water is not what CF's name stands for.
        assert "standard_name" not in raw.runoff.attrs
        assert raw.fapar.attrs["units"] == "1"


@pytest.mark.parametrize(("netcdf", "name"), [(False, "cf.zarr"), (True, "cf.nc")])
def test_the_profile_of_cmip_holds_the_same_numbers(
    predict, whole, tmp_path, netcdf, name
):
    path = predict(
        tmp_path / name,
        variables=["runoff", "swe", "snowfall_correction"],
        profile="cf",
        netcdf=netcdf,
    )
    opened = xr.open_dataset if netcdf else xr.open_zarr
    with opened(path) if netcdf else opened(path, consolidated=False) as raw:
        assert raw.mrro.attrs["units"] == "kg m-2 s-1"
        assert raw.mrro.attrs["standard_name"] == "runoff_flux"
        assert raw.snw.attrs["units"] == "kg m-2"
        assert float(raw.mrro.max()) < 0.01
    with predictions.load(path) as found:
        expected = predictions.load(whole)
        assert set(found.data_vars) == {
            "runoff",
            "swe",
            "snowfall_correction",
            *predictions.ALWAYS,
        }
        for variable in found.data_vars:
            # Another program, as fewer variables are asked for: other rounding.
            np.testing.assert_allclose(
                found[variable], expected[variable], rtol=1e-5, atol=1e-3
            )
        assert found.runoff.attrs["units"] == "mm d-1"
    assert list(tmp_path.iterdir()) == [path]


def test_months_are_the_means_of_their_days(predict, whole):
    found = predictions.load(predict(variables=["runoff", "swe"], monthly=True))
    expected = predictions.load(whole)
    for name in ("runoff", "swe"):
        means = expected[name].astype("float64").resample(time="MS").mean()
        np.testing.assert_allclose(found[name], means, rtol=1e-5, atol=1e-4)
    assert found.attrs["frequency"] == "monthly"
    residual = float(abs(expected.water_balance_residual).max())
    assert float(found.largest_residual.max()) == pytest.approx(residual, rel=0.5)


def test_another_spin_up_begins_with_other_stores(predict, whole):
    twice = predictions.load(predict(variables=["groundwater"], spin_up=2))
    first_day = predictions.load(whole).groundwater[0]
    assert float((twice.groundwater[0] - first_day).max()) > 0.01


# A period


def test_the_store_of_a_period_has_its_days_alone(world, store):
    period = store.during("2001-02-10").during(end="2001-03-20")
    days = slice(40, 79)
    assert period.time.equals(store.time[days])
    # Also where xarray has to read.
    slow = dataclasses.replace(period)
    slow._opened.update(dict.fromkeys(("rn", "prec", "tair")))
    for block in store.blocks:
        for name in FORCING:
            for part in (period, slow):
                np.testing.assert_array_equal(
                    part.forcing(name, block), store.forcing(name, block)[:, days]
                )
        for name, steps in (("swe", days), ("runoff", slice(1, 3))):
            np.testing.assert_array_equal(
                period.observations(name, block),
                store.observations(name, block)[:, steps],
            )
    xr.testing.assert_equal(
        period.observed("air_temperature"),
        store.observed("air_temperature").isel(time=days),
    )


def test_a_period_is_simulated_and_evaluated_by_itself(predict, said, changed, store):
    place = tuple(np.argwhere(store.land.values)[9])

    def spoil(values):
        values[(slice(None, 31), *place)] = np.nan

    period = changed("tair", spoil).during("2001-01-20", "2002-03-31")
    with pytest.raises(UserError, match="on 2001-01-20"):
        predict(store=period)
    period = period.during("2001-02-01")  # what is missing before is not read
    path = predict(store=period)
    found = predictions.load(path)
    assert predictions.period(found) == "2001-02-01 to 2002-03-31"
    assert found.attrs["days_simulated"] == len(period.time)
    expected = said(period)["runoff"]
    np.testing.assert_allclose(on_land(found.runoff, store), expected, atol=1e-3)
    scores = results.evaluated(path, untrained=False)
    assert np.isfinite(scores["score"]).any()


# What the training has not seen


@pytest.fixture(scope="module")
def domain(store):
    """What the first twenty cells have."""
    return Domain.of(survey(store), np.arange(20))


def test_the_share_of_days_out_of_domain_is_told(
    trained, store, domain, whole, tmp_path, caplog
):
    beyond, elsewhere = (
        (values < values[:20].min(axes)) | (values > values[:20].max(axes))
        for values, axes in ((forcing(store), (0, 1)), (store.static(), 0))
    )
    days = beyond.any(-1) | elsewhere.any(-1, keepdims=True)
    with caplog.at_level("INFO"):
        outcome = inference.predict(
            dataclasses.replace(trained, domain=domain),
            store,
            tmp_path / "out.zarr",
            devices=1,
        )
        outcome.tell(tmp_path / "out.zarr")
    found = predictions.load(tmp_path / "out.zarr")
    share = on_land(found.out_of_domain, store)
    np.testing.assert_allclose(share, days.mean(1), rtol=1e-6)
    assert not share[:20].any()
    assert 0 < outcome.cells_out_of_domain == days.any(1).sum() < store.land.sum()
    assert outcome.share_out_of_domain == pytest.approx(days.mean(), rel=1e-6)
    assert outcome.domain == found.attrs["domain"] == "training"
    assert found.attrs["share_out_of_domain"] == outcome.share_out_of_domain
    name = store.static_names[elsewhere.sum(0).argmax()]
    count, cells = elsewhere.sum(0).max(), int(store.land.sum())
    assert f"in the training: {name} ({count} of {cells} cells)" in caplog.text
    line = f"{100 * days.mean():.1f}% of cells and days, {days.any(1).sum()} of {cells}"
    assert f"Out of domain: {line} cells." in caplog.text
    # The same program, whichever domain it is.
    np.testing.assert_array_equal(found.runoff, predictions.load(whole).runoff)


def test_models_that_differ_in_weights_and_domain_alone_share_a_program(
    trained, domain
):
    asked = job.Job(inference.asked_for(None), "native", False, 1, 8)
    nowhere = dict.fromkeys(domain.forcing, Range(0.0, 0.0))
    ranges = (None, domain, dataclasses.replace(domain, forcing=nowhere))
    models = [dataclasses.replace(trained, domain=each) for each in ranges]
    found = [simulator.Simulator.of(model, asked, "CPU:0") for model in models]
    assert len(set(map(id, found))) == 1
    assert not found[-1].ranges.forcing.any()


def test_where_the_domain_is_not_known_predictions_say_so(whole, caplog):
    found = predictions.load(whole)
    assert float(found.out_of_domain.sum()) == 0
    assert "not known" in found.out_of_domain.attrs["comment"]
    assert found.attrs["domain"] == "plausible"
    with caplog.at_level("INFO"):
        inference.Outcome.of(found, 730).tell(whole)
    assert "The ranges of the training are not known" in caplog.text


def test_memory_changes_no_number(predict, whole, monkeypatch):
    monkeypatch.setattr(job, "MOST_CELLS", 7)
    found = predictions.load(predict())
    for name in ("runoff", "swe", "water_balance_closure"):
        xr.testing.assert_allclose(
            found[name], predictions.load(whole)[name], rtol=1e-4, atol=1e-4
        )


@pytest.fixture
def tiles(monkeypatch):
    """Predictions in blocks of 2 x 2 cells."""

    def small(days, dims):
        return dict.fromkeys(dims, 2)

    monkeypatch.setattr(flow, "tile_of", small)
    monkeypatch.setattr(ensemble, "tile_of", small)
    monkeypatch.setattr(job, "MOST_CELLS", 4)


def test_an_interrupted_call_goes_on_with_what_is_left(
    predict, whole, store, tiles, simulated, tmp_path
):
    path = tmp_path / "out.zarr"

    def interrupt(done, total):
        assert total == store.land.sum()
        if done > 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(path, variables=["runoff"], progress=interrupt)
    assert not path.exists()
    before = sum(simulated)
    simulated.clear()
    predict(path, variables=["runoff"])
    cells = int(store.land.sum())
    # Of a block that was simulated but not noted yet nothing is known.
    assert cells <= before + sum(simulated) <= cells + 8
    assert sum(simulated) < cells - 10
    found, expected = predictions.load(path), predictions.load(whole)
    np.testing.assert_allclose(found.runoff, expected.runoff, rtol=1e-4, atol=1e-5)
    assert list(tmp_path.iterdir()) == [path]


def test_shards_make_one_store(
    predict, trained, whole, store, tiles, simulated, tmp_path
):
    path = tmp_path / "out.zarr"
    for index in (3, 1):
        predict(path, variables=["runoff"], shard=Shard(index, 3))
        assert not path.exists()
    with pytest.raises(UserError, match="Give all shards the same ones"):
        predict(path, variables=["swe"], shard=Shard(2, 3))
    predict(path, variables=["runoff"], shard=Shard(2, 3))
    assert sum(simulated) == store.land.sum()
    found, expected = predictions.load(path), predictions.load(whole)
    np.testing.assert_allclose(found.runoff, expected.runoff, rtol=1e-4, atol=1e-5)
    assert list(tmp_path.iterdir()) == [path]


def test_the_workers_of_a_dask_cluster_make_the_same_store(
    predict, whole, tiles, tmp_path
):
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        path = predict(variables=["runoff"], cluster=address)
    found, expected = predictions.load(path), predictions.load(whole)
    np.testing.assert_allclose(found.runoff, expected.runoff, rtol=1e-4, atol=1e-5)


def test_a_cluster_that_is_not_there_is_told(predict, monkeypatch):
    monkeypatch.setattr(hands, "CONNECTING", 0.5)
    with pytest.raises(UserError, match=r"no dask scheduler at 'tcp:"):
        predict(cluster="tcp://127.0.0.1:1")


def test_an_open_balance_is_refused_with_its_cell(predict, monkeypatch, tmp_path):
    monkeypatch.setattr(work, "CLOSED", 1e-12)
    with pytest.raises(UserError, match=r"water balance of cell \d+ .* is open"):
        predict(tmp_path / "out.zarr", variables=["runoff"])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def changed(world, tmp_path):
    """A copy of the world with another array; gives its store."""

    def run(group, edit):
        path = tmp_path / "changed.zarr"
        shutil.copytree(world, path)
        array = zarr.open_group(path)[f"{group}/data"]
        values = array[:]
        edit(values)
        array[:] = values
        return Store.open(path)

    return run


def test_missing_weather_is_told_with_cell_and_date(predict, changed, store):
    place = tuple(np.argwhere(store.land.values)[9])

    def spoil(values):
        values[(40, *place)] = np.nan

    with pytest.raises(UserError, match=r"missing at cell 9 .* on 2001-02-10"):
        predict(store=changed("tair", spoil), variables=["runoff"])


def test_a_missing_static_input_is_told(predict, changed, store):
    place = tuple(np.argwhere(store.land.values)[2])

    def spoil(values):
        values[(1, *place)] = np.nan

    with pytest.raises(UserError, match=r"static input .* missing at cell 2"):
        predict(store=changed("static", spoil))


def test_a_store_without_observations_and_of_another_period_is_simulated(
    predict, world, tmp_path
):
    path = tmp_path / "bare.zarr"
    for group in ("rn", "prec", "tair", "static", "mask"):
        with xr.open_zarr(world, group=group, consolidated=False) as part:
            part = part.isel(lat=slice(2, 5)).load().drop_encoding()
            if "time" in part.dims:
                part = part.isel(time=slice(0, 100))
                part["time"] = pd.date_range("2050-01-01", periods=100)
            part.to_zarr(path, group=group, consolidated=False, zarr_format=3)
    found = predictions.load(predict(store=Store.open(path), variables=["runoff"]))
    assert predictions.period(found) == "2050-01-01 to 2050-04-10"
    # The cells are those of the training.
    roles = splits.roles(Store.open(world).land, block_size=2)
    np.testing.assert_array_equal(found.role, roles.isel(lat=slice(2, 5)))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (lambda names: names[::-1], "number 1 has to be"),
        (lambda names: names[:-1], "it has 9, expected 10; number 10 .* found 'none'"),
        (lambda names: (*names[:4], "new", *names[5:]), "number 5 .* found 'new'"),
    ],
)
def test_static_inputs_that_are_not_those_of_the_training_are_refused(
    trained, store, names, words
):
    other = Store(
        path=store.path,
        groups=store.groups,
        land=store.land,
        time=store.time,
        static_names=names(store.static_names),
        constraints=store.constraints,
    )
    with pytest.raises(UserError, match=words):
        trained.require(other)


def test_an_existing_path_and_an_unknown_variable_are_refused(predict, tmp_path):
    (tmp_path / "out.zarr").mkdir()
    with pytest.raises(UserError, match="exists"):
        predict(tmp_path / "out.zarr")
    with pytest.raises(UserError, match="no variable 'rain'"):
        predict(variables=["rain"])


@pytest.mark.parametrize("name", ["nothing.zarr", "text.nc", "world.zarr"])
def test_what_holds_no_predictions_is_told(name, world, tmp_path):
    (tmp_path / "text.nc").write_text("no NetCDF")
    shutil.copytree(world, tmp_path / "world.zarr")
    with pytest.raises(UserError, match=f"{name}.*predict"):
        predictions.load(tmp_path / name)


def test_the_model_before_its_training_is_made_again(trained, whole, store, tmp_path):
    attributes = predictions.load(whole).attrs
    again = Trained.before_training(attributes)
    for one, other in zip(again.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match="do not know how"):
        Trained.before_training({})


def test_an_ensemble_has_mean_spread_and_quantiles(predict, trained, tiles, tmp_path):
    names = ["runoff", "soil_water_capacity", "snowfall_correction"]
    paths = {}
    for k in (1, 2, 3):
        member = Trained.untrained(
            config.Config(model=SMALL, training={"seed": k}),
            *trained_statistics(trained),
        )
        paths[f"fold-{k}"] = predict(trained=member, variables=names)
    to = tmp_path / "ensemble.zarr"
    ensemble.combine(paths, to, quantiles=(0.1, 0.5))
    found = predictions.load(to)
    members = [predictions.load(path) for path in paths.values()]
    for name in names:
        values = np.stack([m[name].values for m in members]).astype("float64")
        expected = {
            "": values.mean(0),
            "_spread": values.std(0, ddof=1),
            "_quantile": np.quantile(values, (0.1, 0.5), axis=0),
        }
        for suffix, value in expected.items():
            np.testing.assert_allclose(
                found[name + suffix], value, rtol=1e-4, atol=1e-5, err_msg=suffix
            )
    worst = np.max([m.largest_residual for m in members], axis=0)
    np.testing.assert_array_equal(found.largest_residual, worst)
    assert not {"fold", "share_out_of_domain"} & set(found.attrs)
    with pytest.raises(UserError, match="exists"):
        ensemble.combine(paths, to)


def trained_statistics(trained):
    """What `Trained.untrained` needs beside its configuration."""
    import json

    from h2mv_tf.data.survey import Statistics

    return (Statistics.from_dict(json.loads(trained.attributes["normalization"])),)


def test_constraints_can_be_predicted_by_their_short_names():
    asked = inference.asked_for(["et", "q", "mrro"])
    assert asked == (
        "evapotranspiration",
        "runoff",
        *predictions.ALWAYS,
    )
    assert set(CONSTRAINTS) <= set(inference.asked_for(None))
