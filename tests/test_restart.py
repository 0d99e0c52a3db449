"""Restart files: what goes on from them, what they hold, and what is refused."""

import re
import shutil
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import xarray as xr
from cells import started
from click.testing import CliRunner
from scripts import ROOT, assert_one_line
from stores import at_sites, forcing
from stores import world as small_world

from h2mv_tf import config, inference, predictions, restart
from h2mv_tf.__main__ import main as h2mv_tf
from h2mv_tf.data import writing
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import survey
from h2mv_tf.data.writing import Shard
from h2mv_tf.errors import UserError
from h2mv_tf.inference import flow, job
from h2mv_tf.model import H2MV
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.trained import Trained
from h2mv_tf.variables import PROGNOSTIC, VARIABLES

SMALL = {"encoder_units": 6, "code_size": 3, "lstm_units": 5}
EXACT = {"float32": 1e-6, "float64": 1e-12}
SPUN_UP, HALF, END = "2001-03-31", "2001-05-31", "2001-07-31"
AFTER = {SPUN_UP: "2001-04-01", HALF: "2001-06-01"}


@pytest.fixture(scope="module")
def store(world):
    return Store.open(world)


@pytest.fixture(scope="module")
def models(store):
    """A small model in single and in double precision."""
    statistics = survey(store).statistics(np.arange(20))
    return {
        precision: Trained.untrained(
            config.Config(model=SMALL, training={"precision": precision}), statistics
        )
        for precision in EXACT
    }


@pytest.fixture(scope="module")
def predict(models, store):
    """Predicts the runoff of a period; gives the path."""

    def run(to, begin=None, end=None, *, precision="float32", store=store, **options):
        options = {"devices": 1, "variables": ["runoff"], **options}
        inference.predict(models[precision], store.during(begin, end), to, **options)
        return to

    return run


@pytest.fixture(scope="module")
def runs(predict, tmp_path_factory):
    """A run in one piece and one in two from the same start, for each precision."""
    folder = tmp_path_factory.mktemp("runs")

    def once(precision):
        at = folder / precision
        if not at.exists():
            start, half = at / "start.nc", at / "half.zarr"
            options = {"precision": precision}
            predict(at / "before.zarr", None, SPUN_UP, save_state=start, **options)
            for name, begin, end, states in (
                ("whole", SPUN_UP, END, (start, at / "end_of_whole.nc")),
                ("first", SPUN_UP, HALF, (start, half)),
                ("second", HALF, END, (half, at / "end.nc")),
            ):
                states = dict(zip(("initial_state", "save_state"), states, strict=True))
                predict(at / f"{name}.zarr", AFTER[begin], end, **states, **options)
        return at

    return once


def assert_same(one, other, tolerance):
    """Two states are the same, on the scale of each variable."""
    for name in PROGNOSTIC:
        expected = other[name].values
        assert np.isfinite(expected).any()
        scale = max(np.nanmax(np.abs(expected)), 1.0)
        np.testing.assert_allclose(
            one[name].values, expected, rtol=0, atol=tolerance * scale, err_msg=name
        )


@pytest.mark.parametrize("precision", EXACT)
def test_two_halves_one_after_the_other_are_one_run(runs, precision):
    at = runs(precision)
    ends = [restart.load(at / f"{name}.nc") for name in ("end", "end_of_whole")]
    assert_same(*ends, EXACT[precision])
    assert ends[0].swe.dtype == precision
    parts = [predictions.load(at / f"{name}.zarr") for name in ("first", "second")]
    whole = predictions.load(at / "whole.zarr")
    runoff = xr.concat([part.runoff for part in parts], "time")
    np.testing.assert_allclose(runoff, whole.runoff, rtol=1e-5, atol=1e-6)
    for part in (*parts, whole):
        assert float(abs(part.water_balance_closure).max()) < 1e-2


def test_a_run_from_a_state_is_not_one_from_a_spin_up(predict, runs, tmp_path):
    spun_up = predictions.load(predict(tmp_path / "out.zarr", AFTER[HALF], END))
    second = predictions.load(runs("float32") / "second.zarr")
    assert float(abs(spun_up.runoff - second.runoff).max()) > 1e-3


@pytest.fixture
def tiles(monkeypatch):
    """Predictions in blocks of 2 x 2 cells."""
    monkeypatch.setattr(flow, "tile_of", lambda days, dims: dict.fromkeys(dims, 2))
    monkeypatch.setattr(job, "MOST_CELLS", 4)


def test_shards_write_and_read_a_state_together(predict, runs, tiles, tmp_path):
    at = runs("float32")
    state = tmp_path / "half.zarr"
    for index in (2, 1):
        predict(
            tmp_path / "first.zarr",
            AFTER[SPUN_UP],
            HALF,
            initial_state=at / "start.nc",
            save_state=state,
            shard=Shard(index, 2),
        )
        assert state.exists() == (index == 1)
    assert_same(restart.load(state), restart.load(at / "half.zarr"), 1e-6)
    predict(
        tmp_path / "second.zarr",
        AFTER[HALF],
        END,
        initial_state=state,
        save_state=tmp_path / "end.nc",
        devices=2,
    )
    ends = [restart.load(folder / "end.nc") for folder in (tmp_path, at)]
    assert_same(*ends, 1e-6)
    assert len(list(tmp_path.iterdir())) == 4


def test_the_workers_of_a_dask_cluster_go_on_from_a_state(
    predict, runs, tiles, tmp_path
):
    at, end = runs("float32"), tmp_path / "end.nc"
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        predict(
            tmp_path / "out.zarr",
            AFTER[HALF],
            END,
            initial_state=at / "half.zarr",
            save_state=end,
            cluster=cluster.scheduler_address,
        )
    assert_same(restart.load(end), restart.load(at / "end.nc"), 1e-6)


# Interruptions


def test_an_interrupted_call_goes_on_with_the_state_as_well(
    predict, runs, store, tiles, simulated, tmp_path
):
    at = runs("float32")
    to, state = tmp_path / "out.zarr", tmp_path / "half.zarr"

    def interrupt(done, total):
        if done > 15:
            raise KeyboardInterrupt

    call = {"initial_state": at / "start.nc", "save_state": state}
    with pytest.raises(KeyboardInterrupt):
        predict(to, AFTER[SPUN_UP], HALF, progress=interrupt, **call)
    assert not to.exists()
    assert not state.exists()
    simulated.clear()
    predict(to, AFTER[SPUN_UP], HALF, **call)
    assert 0 < sum(simulated) < store.land.sum() - 10
    assert_same(restart.load(state), restart.load(at / "half.zarr"), 1e-6)
    assert sorted(tmp_path.iterdir()) == [state, to]


def test_a_call_that_is_killed_between_state_and_predictions_is_mended(
    predict, runs, simulated, monkeypatch, tmp_path
):
    to, state = tmp_path / "out.zarr", tmp_path / "half.nc"
    call = {"initial_state": runs("float32") / "start.nc", "save_state": state}
    finish = writing.Writer.finish

    def killed(self, key):
        if key == flow.SAVED:
            raise KeyboardInterrupt
        finish(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(writing.Writer, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            predict(to, AFTER[SPUN_UP], HALF, **call)
    assert state.exists()
    assert not to.exists()
    # Another call would write another state.
    with pytest.raises(UserError, match=r"half\.nc' exists"):
        predict(to, AFTER[SPUN_UP], HALF, variables=["swe"], **call)
    simulated.clear()
    predict(to, AFTER[SPUN_UP], HALF, **call)
    assert not simulated
    assert sorted(tmp_path.iterdir()) == [state, to]


def test_a_full_disk_under_the_state_costs_no_block(
    predict, runs, simulated, monkeypatch, tmp_path
):
    to, state = tmp_path / "out.zarr", tmp_path / "half.nc"
    call = {"initial_state": runs("float32") / "start.nc", "save_state": state}

    def full(store, path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(flow, "as_netcdf", full)
        with pytest.raises(UserError, match=r"half\.nc'.*No space.*Call again"):
            predict(to, AFTER[SPUN_UP], HALF, **call)
    simulated.clear()
    predict(to, AFTER[SPUN_UP], HALF, **call)
    assert not simulated
    assert sorted(tmp_path.iterdir()) == [state, to]


# The file


def test_the_file_says_in_cf_what_it_is(runs, models, store):
    with xr.open_dataset(runs("float32") / "end.nc", decode_cf=False) as raw:
        assert raw.attrs["Conventions"].startswith("CF-")
        for name in ("title", "source", "history", "references"):
            assert raw.attrs[name]
        assert raw.attrs[restart.MARK] == restart.VERSION
        assert raw.attrs[restart.MODEL] == models["float32"].digest
        assert raw.time.attrs["units"] == "days since 1970-01-01"
        assert "bounds" not in raw.time.attrs
        assert raw.lat.attrs["standard_name"] == "latitude"
        for name in PROGNOSTIC:
            assert raw[name].attrs["units"] == VARIABLES[name].units
            assert raw[name].attrs["coordinates"] == "time"
            assert raw[name].dtype == "float32"
    state = restart.load(runs("float32") / "end.nc")
    assert restart.day_of(state) == pd.Timestamp(END)
    assert state.lstm_carry.dims == ("lat", "lon", "lstm_unit")
    assert state.swe.dims == ("lat", "lon")
    for name in PROGNOSTIC:
        there = state[name].notnull()
        assert there.where(store.land, False).equals(there)
        assert int(there.any(set(there.dims) - set(store.land.dims)).sum()) == (
            store.land.sum()
        )


def test_the_state_is_what_the_model_itself_ends_with(runs, models, store):
    trained, period = models["float64"], store.during(None, SPUN_UP)
    model = H2MV.from_config(dict(trained.settings))
    model.set_weights(trained.weights)
    inputs = tf.constant(forcing(period)), tf.constant(store.static())
    run = tf.function(lambda *x: model.simulate(*x, model.spin_up(*x), ())[1])
    found = restart.load(runs("float64") / "start.nc")
    for name, values in zip(PROGNOSTIC, run(*inputs), strict=True):
        of_file = getattr(restart.states(found, store.land), name)
        np.testing.assert_allclose(of_file, values, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.fixture
def state(store, rng):
    """A state in memory, and the arrays that it is of."""
    cells = int(store.land.sum())
    arrays = restart.State(*(x.numpy() for x in started(cells, 5, rng, "float32")))
    return restart.of(arrays, store.land, pd.Timestamp(HALF), "abc", source="test")


@pytest.mark.parametrize("name", ["state.nc", "state.zarr"])
def test_a_state_in_memory_is_written_and_read(state, store, tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".nc":
        state.to_netcdf(path)
    else:
        state.to_zarr(path, consolidated=False, zarr_format=3)
    found = restart.load(path)
    xr.testing.assert_identical(found.load(), state)
    assert found.attrs["source"] == "test"
    restart.refuse_other(found, "abc", store.land, pd.Timestamp(AFTER[HALF]))
    arrays = restart.states(found, store.land)
    assert arrays.lstm_hidden.shape == (store.land.sum(), 5)
    again = restart.of(arrays, store.land, pd.Timestamp(HALF), "abc", source="test")
    xr.testing.assert_identical(again, state)


def test_sites_have_a_state_as_well(stored, rng, tmp_path):
    store = stored(at_sites(small_world()))
    cells = int(store.land.sum())
    arrays = restart.State(*(x.numpy() for x in started(cells, 5, rng)))
    state = restart.of(arrays, store.land, pd.Timestamp(HALF), "abc")
    state.to_zarr(tmp_path / "state.zarr", consolidated=False, zarr_format=3)
    found = restart.load(tmp_path / "state.zarr")
    assert found.lstm_hidden.dims == ("cell", "lstm_unit")
    restart.refuse_other(found, "abc", store.land, pd.Timestamp(AFTER[HALF]))
    for one, other in zip(restart.states(found, store.land), arrays, strict=True):
        np.testing.assert_array_equal(one, other)


# What is refused


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda s: s.assign_attrs(h2mv_tf_model="x"), "another model: x, expected abc"),
        (lambda s: s.assign_attrs(h2mv_tf_restart=9), "found version 9"),
        (lambda s: s.drop_attrs(deep=False), "found none"),
        (lambda s: s.drop_vars("swe"), "swe is missing"),
        (lambda s: s.drop_vars("time"), "time is missing"),
        (lambda s: s.isel(lat=slice(3)), r"3 lat x 14 lon, expected 9 lat x 14 lon"),
        (lambda s: s.stack(cell=("lat", "lon")), r"126 cell, expected 9 lat x 14 lon"),
        (lambda s: s.isel(lstm_unit=0), "lstm_hidden .* expected .* some lstm_unit"),
        (lambda s: s.assign_coords(lat=s.lat + 1), "other places .* lat differs"),
        (lambda s: s.assign_coords(lon=s.lon[::-1].values), "lon differs"),
        (
            lambda s: s.assign_coords(time=s.time + pd.Timedelta(days=3)),
            "end of 2001-06-03, .* has to be 2001-06-04; found 2001-06-01. .*"
            "with --begin 2001-06-04",
        ),
    ],
)
def test_the_state_of_something_else_is_refused(state, store, edit, words):
    begin = pd.Timestamp(AFTER[HALF])
    restart.refuse_other(state, "abc", store.land, begin)
    with pytest.raises(UserError, match=words) as caught:
        restart.refuse_other(edit(state), "abc", store.land, begin)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("swe", -1.0, r"-1 for swe \[mm\] at cell 7; expected 0 or more"),
        ("groundwater", np.nan, r"nothing for groundwater .* at cell 7"),
        ("fapar", 1.1, r"1\.1 for fapar \[1\] .* expected 0 to 1"),
        ("soil_moisture", 91.0, r"91 for soil_moisture .* expected 0 to 90"),
        ("lstm_hidden", 2.0, r"2 for lstm_hidden .* expected -1 to 1"),
        ("lstm_carry", np.inf, r"inf for lstm_carry .* expected any number"),
    ],
)
def test_a_state_that_cannot_be_is_refused_with_its_cell(
    state, store, name, value, words
):
    arrays = restart.states(state, store.land)
    capacity = np.full(int(store.land.sum()), 90.0)
    restart.refuse_impossible(arrays, capacity, "cell {}".format)
    capacity[:] = arrays.soil_moisture[:, 0] * (1 - 1e-6)  # is rounding
    restart.refuse_impossible(arrays, capacity, "cell {}".format)
    getattr(arrays, name)[7, -1] = value
    with pytest.raises(UserError, match=words):
        restart.refuse_impossible(
            arrays, np.full(int(store.land.sum()), 90.0), "cell {}".format
        )


@pytest.mark.parametrize("name", ["swe", "soil_moisture"])
def test_a_prediction_from_a_state_that_cannot_be_makes_nothing(
    predict, runs, store, tmp_path, name
):
    changed = restart.load(runs("float32") / "half.zarr").load()
    place = tuple(np.argwhere(store.land.values)[9])
    changed[name].values[place] = {"swe": np.nan, "soil_moisture": 1e4}[name]
    changed.to_netcdf(tmp_path / "changed.nc")
    with pytest.raises(UserError, match=f"for {name} .*at cell 9 .*lat"):
        predict(
            tmp_path / "out.zarr",
            AFTER[HALF],
            initial_state=tmp_path / "changed.nc",
            save_state=tmp_path / "end.nc",
        )
    assert list(tmp_path.iterdir()) == [tmp_path / "changed.nc"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing.nc", "There are no states at .*nothing.nc.*--save-state"),
        ("text.nc", "text.nc' cannot be read as states"),
        ("folder", "folder' cannot be read as states"),
        ("world.zarr", "world.zarr' is no restart file"),
    ],
)
def test_what_is_no_restart_file_is_told(name, words, world, tmp_path):
    (tmp_path / "text.nc").write_text("no NetCDF")
    (tmp_path / "folder").mkdir()
    shutil.copytree(world, tmp_path / "world.zarr")
    with pytest.raises(UserError, match=words) as caught:
        restart.load(tmp_path / name)
    assert "\n" not in str(caught.value)


# The command


def given(*arguments):
    return CliRunner().invoke(h2mv_tf, list(map(str, arguments)))


@pytest.fixture
def copied(run, tmp_path, monkeypatch):
    """A run folder of one's own, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.path, "runs/first")
    return Path("runs/first")


def test_the_commands_of_the_docs_go_on_from_yesterday(copied, world):
    text = (ROOT / "docs" / "predictions.md").read_text(encoding="utf-8")
    section = text.split("## A forecast from yesterday's state")[1].split("\n## ")[0]
    (console,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    calls = re.findall(r"\$ python -m h2mv_tf (.*)", console.replace("\\\n", ""))
    assert len(calls) == 2
    for call in calls:
        result = given(*call.split())
        assert result.exit_code == 0, result.output
        assert re.search(r"Out of domain: \d+\.\d% of cells and days", result.output)
    made = re.findall(r"--to (\S+)", console)
    days = [predictions.period(predictions.load(path)) for path in made]
    assert days == ["2001-01-01 to 2002-06-30", "2002-07-01 to 2002-07-10"]
    folder = RunFolder(copied)
    assert folder.log_file.read_text(encoding="utf-8").count("Out of domain: ") == 2
    noted = folder.load_json(folder.metrics_file)["predictions"]
    assert list(noted) == made
    for path, outcome in noted.items():
        assert outcome["cells"] == Store.open(world).land.sum()
        share = predictions.load(path).attrs["share_out_of_domain"]
        assert outcome["share_out_of_domain"] == share


def test_a_saved_model_goes_on_from_the_state_of_its_run(copied):
    result = given("predict", copied, "--end", "2001-01-10", "--save-state", "s.nc")
    assert result.exit_code == 0, result.output
    call = ("predict", copied / "saved_model", "--initial-state", "s.nc")
    call += ("--begin", "2001-01-11", "--end", "2001-01-20")
    assert_one_line(given(*call), "Name what to make in --to")
    result = given(*call, "--to", "out.zarr")
    assert result.exit_code == 0, result.output
    assert "Out of domain: " in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--begin", "2001-13-01"), "Cannot read the day '2001-13-01'"),
        (("--begin", "2050-01-01"), "has no weather of 2050-01-01"),
        (("--begin", "2001-05-02", "--end", "2001-05-01"), "ends before it begins"),
        (("--initial-state", "nothing.nc"), "There are no states at 'nothing.nc'"),
        (("--initial-state", "runs/first"), "cannot be read as states"),
        (("--initial-state", "x.nc", "--spin-up", "2"), "--spin-up or --initial-state"),
        (("--save-state", "runs"), "'runs' exists"),
        (("--save-state", "out.zarr"), "cannot both be 'out.zarr'"),
    ],
)
def test_options_of_periods_and_states_that_cannot_be_met_are_one_line(
    copied, arguments, words
):
    call = given("predict", copied, "--to", "out.zarr", *arguments)
    assert_one_line(call, words)
    assert [path.name for path in Path().iterdir()] == ["runs"]
