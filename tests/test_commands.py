"""The commands, as a user gives them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from cf import grid
from click.testing import CliRunner
from scripts import ROOT, assert_one_line, loaded

from h2mv_tf.__main__ import main as h2mv_tf
from h2mv_tf.data.groups import OBSERVED
from h2mv_tf.data.store import Store

ERA5 = ROOT.parent / "shared" / "real" / "era5_daily_canadian_cities_1990_1993.nc"
SMALL = [
    *("--set", "training.epochs=2", "--set", "split.block_size=2"),
    *("--set", "model.lstm_units=5", "--set", "window.length=90"),
    *("--set", "window.spin_up=30", "--set", "training.jit_compile=false"),
    "--no-results",
]


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Runs trainers/train.py in an empty directory; gives status and output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(
            loaded("trainers/train.py"), list(map(str, arguments))
        )

    return run


@pytest.fixture
def broken(world, tmp_path):
    """Changes an array of a copy of the world; gives the copy's path."""
    path = tmp_path / "broken.zarr"
    shutil.copytree(world, path)

    def change(group, edit):
        array = zarr.open_group(path)[f"{group}/data"]
        values = array[:]
        edit(values)
        array[:] = values
        return path

    return change


@pytest.mark.slow
def test_a_training_from_nothing_to_a_table(tmp_path):
    """The real thing: another process, a world that it makes, a resume."""
    script = [sys.executable, str(ROOT / "trainers/train.py")]
    world = [f"--set=synthetic.{k}" for k in ("rows=8", "columns=12", "years=1")]
    first = subprocess.run(
        [*script, *SMALL, *world, "--run-dir", "runs/a"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert first.stderr == ""
    assert "Making a synthetic world: data/demo.zarr" in first.stdout
    assert re.search(r"epoch 2/2: loss .*tws .*cell-days/s", first.stdout)
    for name in ("tws", "evapotranspiration", "runoff", "swe", "fapar", "loss"):
        assert re.search(
            rf"^ *{name} +[\d.e+-]+ +[\d.e+-]+", first.stdout, re.MULTILINE
        )
    assert "Run folder: runs/a" in first.stdout

    again = subprocess.run(
        [*script, "--resume", "--set", "training.epochs=3", "--no-results"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert "after epoch 2." in again.stdout
    assert "epoch 3/3" in again.stdout
    assert "Making" not in again.stdout


@pytest.mark.skipif(not ERA5.exists(), reason=f"needs {ERA5.name}, which is not ours")
def test_real_weather_is_ingested_and_trained_on(train, tmp_path):
    result = CliRunner().invoke(h2mv_tf, ["ingest", str(ERA5), "--to", "era5.zarr"])
    assert result.exit_code == 0, result.output
    assert "rss+rls [W m-2]" in result.output
    assert "mean_air_temperature" in result.output
    assert_fit("era5.zarr")
    result = train("--data", "era5.zarr", "--run-dir", "run", *SMALL)
    assert result.exit_code == 0, result.output
    assert re.search(r"^ *swe +[\d.e-]+ +[\d.e-]+ +\d+ *$", result.output, re.MULTILINE)
    assert "evapotranspiration" not in result.output


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--map=rn", "Cannot read --map 'rn'"),
        ("--box=1,2,3", "Cannot read --box '1,2,3'"),
        ("--box=0,50,10,40", "south below north"),
        ("--box=0,0,200,10", "from -180 to 180"),
        ("--period=2001", "Expected the first and the last date"),
        ("--period=2005/2001", "Cannot read --period '2005/2001'"),
        ("--memory=much", "Cannot work in --memory 'much'"),
        ("--memory=1MB", "Expected 50MB or more"),
        ("--regrid=1", "There is no file 'nothing.nc'"),
    ],
)
def test_options_of_ingest_that_cannot_be_read_are_one_line(option, words):
    call = ["ingest", "nothing.nc", "--to", "store.zarr", option]
    assert_one_line(CliRunner().invoke(h2mv_tf, call), words)


def test_the_options_of_ingest_reach_it(tmp_path):
    grid(time=pd.date_range("2001-01-01", "2002-12-31")).to_netcdf(tmp_path / "a.nc")
    call = [
        *("ingest", str(tmp_path / "?.nc"), "--to", str(tmp_path / "store.zarr")),
        *("--period", "2001-03/2001-05", "--box", "5,30,25,60", "--memory", "100MB"),
        *("--map", "swe=prec", "--map", "q=", "--stamps", "start"),
    ]
    result = CliRunner().invoke(h2mv_tf, call)
    assert "'prec' has units 'mm d-1', which do not convert to swe" in result.output
    result = CliRunner().invoke(h2mv_tf, call[:-6])
    assert result.exit_code == 0, result.output
    assert "4 cells, 2001-03-01 to 2001-05-31" in result.output


@pytest.mark.parametrize(
    ("zarr_format", "normalization"), [(2, "store"), (3, "training")]
)
def test_the_published_layout_of_plain_xarray_is_trained_on(
    train, world, zarr_format, normalization
):
    for group in ("rn", "prec", "tair", *OBSERVED, "static", "mask"):
        source = xr.open_zarr(world, group=group, consolidated=False, chunks=None)
        data = source["data"].load().drop_encoding()
        data = data.drop_vars(["units"], errors="ignore").drop_attrs()
        if group == "static":
            each = data.stack(cell=("lat", "lon"))
            data.attrs = {
                "mean": each.mean("cell").values.tolist(),
                "std": each.std("cell").values.tolist(),
            }
        elif group != "mask":
            data.attrs = {"mean": float(data.mean()), "std": float(data.std())}
        data.to_dataset(name="data").to_zarr(
            "published.zarr", group=group, consolidated=False, zarr_format=zarr_format
        )
    setting = f"data.normalization={normalization}"
    assert_fit("published.zarr", "--set", setting)
    result = train(
        "--data", "published.zarr", "--set", setting, "--run-dir", "run", *SMALL
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"^ *loss +[\d.e-]+ +[\d.e-]+", result.output, re.MULTILINE)


def assert_fit(store, *options):
    """A store that check-data has nothing serious against."""
    result = CliRunner().invoke(h2mv_tf, ["check-data", store, *options])
    assert result.exit_code == 0, result.output
    assert "Fit to train on." in result.output


def test_help_needs_no_tensorflow():
    code = (
        "import sys, runpy; sys.argv[1:] = ['--help']\n"
        "try: runpy.run_path('trainers/train.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_an_unknown_key_names_the_nearest_right_one(train):
    result = train("--set", "training.lerning_rate=1")
    assert_one_line(result, "did you mean 'training.learning_rate'?")


def test_a_store_that_is_named_has_to_be_there(train, tmp_path):
    assert_one_line(train("--data", "nowhere.zarr"), "nowhere.zarr", "ingest")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_group_is_named(train, broken, tmp_path):
    path = broken("rn", lambda values: None)
    shutil.rmtree(path / "tair")
    assert_one_line(train("--data", path), "lacks group 'tair'", "air_temperature [K]")
    assert not (tmp_path / "runs").exists()


def test_a_constraint_that_is_asked_for_and_missing_is_named(train, broken):
    path = broken("rn", lambda values: None)
    shutil.rmtree(path / "swe")
    result = train("--data", path, "--set", "objective.constraints=[et, swe]")
    assert_one_line(result, "lacks constraint 'swe' [mm]", "objective.constraints")


def test_missing_forcing_is_told_with_variable_cell_and_date(train, broken, world):
    land = np.argwhere(Store.open(world).land.values)[7]

    def spoil(values):
        values[(100, *land)] = values[(101, *land)] = np.nan

    result = train("--data", broken("prec", spoil), "--run-dir", "run")
    assert_one_line(
        result, "precipitation [mm d-1]", "cell 7", "2001-04-11", "2 missing"
    )
    assert not Path("run").exists()


def test_a_missing_static_input_is_told_by_its_name(train, broken, world):
    land = np.argwhere(Store.open(world).land.values)[3]

    def spoil(values):
        values[(2, *land)] = np.nan

    assert_one_line(train("--data", broken("static", spoil)), "'ruggedness'", "cell 3")


def test_celsius_is_recognised(train, broken):
    def spoil(values):
        values -= 273.15

    assert_one_line(train("--data", broken("tair", spoil)), "looks like degC")


def test_a_mask_without_land_is_refused(train, broken):
    def spoil(values):
        values[:] = 0

    assert_one_line(train("--data", broken("mask", spoil)), "no land")


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (slice(None, None, 2), "2001-01-01 followed by 2001-01-03"),
        (np.r_[0:50, 55:730], "2001-02-19 followed by 2001-02-25, first of 1"),
    ],
)
def test_time_with_gaps_is_refused(train, world, tmp_path, days, words):
    path = tmp_path / "gaps.zarr"
    shutil.copytree(world, path)
    for group in ("rn", "prec", "tair"):
        data = xr.open_zarr(world, group=group, consolidated=False).isel(time=days)
        shutil.rmtree(path / group)
        data.drop_encoding().to_zarr(path, group=group, consolidated=False)
    assert_one_line(train("--data", path), words)


def test_an_existing_run_folder_is_refused_before_anything_else(train, world, tmp_path):
    (tmp_path / "run").mkdir()
    assert_one_line(train("--data", world, "--run-dir", "run"), "never overwritten")
    assert_one_line(train("--run-dir", "run"), "never overwritten")
    assert not (tmp_path / "data").exists()


def test_there_has_to_be_something_to_resume(train):
    assert_one_line(train("--resume"), "no run folder in 'runs'")
    assert_one_line(train("--resume", "--run-dir", "run"), "not a run folder")


@pytest.mark.parametrize("option", ["--config", "--data"])
def test_a_resumed_run_keeps_its_configuration_and_data(train, option):
    assert_one_line(train("--resume", option, "x"), option, "--resume")


def test_ingest_tells_what_it_cannot_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    result = run(h2mv_tf, ["ingest", "nowhere.nc", "--to", "store.zarr"])
    assert_one_line(result, "nowhere.nc")
    Path("text.nc").write_text("no NetCDF")
    result = run(h2mv_tf, ["ingest", "text.nc", "--to", "store.zarr"])
    assert_one_line(result, "text.nc")
    result = run(h2mv_tf, ["ingest", "text.nc", "--to", "s.zarr", "--map", "rn"])
    assert_one_line(result, "--map")
    assert [file.name for file in tmp_path.iterdir()] == ["text.nc"]


# check-data


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Runs the verb check-data; gives status and output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(h2mv_tf, ["check-data", *map(str, arguments)])

    return run


def test_check_data_tells_what_is_there_and_what_training_needs(check, world):
    result = check(world, "--set", "split.block_size=2")
    assert result.exit_code == 0, result.output
    for words in (
        "precipitation",
        "0 to 2500",
        "2001-01-01 to 2002-12-31",
        "730 x",
        "monthly",
        "validation",
        "held in memory",
        "An epoch: 0.0",
        "Fit to train on.",
    ):
        assert words in result.output


def test_check_data_counts_windows_without_observations(check, broken):
    def spoil(values):
        values[:] = np.nan

    path = broken("swe", spoil)
    for group in ("tws", "et", "q"):
        shutil.rmtree(path / group)
    array = zarr.open_group(path)["fapar/data"]
    values = array[:]
    values[12:] = np.nan
    array[:] = values
    shutil.rmtree(path / "swe")
    options = ("window.length=365", "split.block_size=2")
    result = check(path, *(w for option in options for w in ("--set", option)))
    assert result.exit_code == 0, result.output
    # Of two years of windows the second has none.
    (row,) = re.findall(r"train +(\d+) +(\d+) +(\d+)", result.output)
    cells, windows, skipped = map(int, row)
    assert windows == skipped == cells > 0


def test_check_data_lists_all_that_is_serious_and_ends_with_status_1(check, broken):
    def celsius(values):
        values -= 273.15

    path = broken("tair", celsius)
    array = zarr.open_group(path)["prec/data"]
    values = array[:]
    values[3] = -1
    array[:] = values
    result = check(path)
    assert result.exit_code == 1
    assert "error: air_temperature [K] has to lie between 170 and 340" in result.output
    assert "It looks like degC: convert it to K" in result.output
    assert (
        "error: precipitation [mm d-1] has to lie between 0 and 2500" in result.output
    )
    assert "A training would fail" in result.output
    assert "Fit to train on" not in result.output


@pytest.mark.parametrize("group", ["tair", "static", "mask"])
def test_check_data_of_what_cannot_be_opened_has_status_1(check, broken, group):
    path = broken("rn", lambda values: None)
    shutil.rmtree(path / group)
    result = check(path)
    assert result.exit_code == 1
    assert f"error: Store '{path}' lacks group '{group}'" in result.output


def test_check_data_of_nothing_is_told(check, tmp_path):
    result = check(tmp_path / "nothing.zarr")
    assert result.exit_code == 1
    assert "error: There is no Zarr store at" in result.output


def test_check_data_of_a_split_without_validation_cells_has_status_1(check, world):
    result = check(world, "--set", "split.block_size=9")
    assert result.exit_code == 1
    assert "has no" in result.output


def test_check_data_refuses_a_wrong_configuration(check, world):
    result = check(world, "--set", "window.lenght=3")
    assert_one_line(result, "unknown key 'window.lenght'", "window.length")
