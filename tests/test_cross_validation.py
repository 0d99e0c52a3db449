"""A cross-validation of a few sites, from nothing to the ensemble and back."""

import sys

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from scripts import assert_one_line, loaded

from h2mv_tf import (
    config,
    cross_validation,
    predictions,
    results,
    startup,
    training,
)
from h2mv_tf.__main__ import main as h2mv_tf
from h2mv_tf.data.groups import OBSERVED
from h2mv_tf.data.store import Store
from h2mv_tf.data.writing import write_store

MEMBERS = (cross_validation.Member(1), cross_validation.Member(1, 1))
SITES = 4  # one tests, and each of the others validates a fold
SMALL = [
    *("--set", "training.epochs=1", "--set", "window.length=60"),
    *("--set", "model.lstm_units=3", "--set", "model.encoder_units=4"),
    *("--set", "model.code_size=2", "--set", "window.spin_up=30"),
    *("--set", "training.jit_compile=false", "--set", "distribution.devices=1"),
    *("--set", "objective.constraints=et,swe,fapar"),
]


@pytest.fixture(scope="module")
def sites(world, tmp_path_factory):
    """Some cells of the world as a list of sites; half a year."""
    path = tmp_path_factory.mktemp("sites") / "sites.zarr"
    land = np.argwhere(Store.open(world).land.values)[::10][:SITES]
    place = {
        dim: xr.DataArray(index, dims="cell")
        for dim, index in zip(("lat", "lon"), land.T, strict=True)
    }
    fields = {}
    for group in ("rn", "prec", "tair", "static", "mask", *OBSERVED):
        with xr.open_zarr(world, group=group, consolidated=False) as part:
            data = part["data"].isel(place).load()
        if "time" in data.dims:
            data = data.sel(time=slice("2001-01-01", "2001-06-30"))
        fields[group] = data
    write_store(path, fields)
    return path


@pytest.fixture
def cross_validate(sites, tmp_path, monkeypatch):
    """Runs trainers/cross_validate.py; gives status and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "export", lambda model, path: None)  # takes long
    # What this process has compiled is of other tests.
    monkeypatch.setattr(startup, "MAPS", tmp_path / "none")

    def run(*arguments):
        call = ["--data", str(sites), "--run-dir", "cv", *SMALL, *map(str, arguments)]
        return CliRunner().invoke(loaded("trainers/cross_validate.py"), call)

    return run


@pytest.mark.slow
def test_folds_are_trained_one_by_one_and_combined_in_the_end(
    cross_validate, tmp_path, monkeypatch
):
    options = ("--variables", "et,swe,fapar,snowmelt_factor", "--no-results")
    first = cross_validate("--fold", 2, *options)
    assert first.exit_code == 0, first.output
    assert "Still to be trained: folds 1, 3" in first.output
    fitted, fit = [], training.fit

    def counted(settings, run, **options):
        fitted.append(settings.split.fold)
        fit(settings, run, **options)

    monkeypatch.setattr(training, "fit", counted)
    whole = cross_validate(*options, "--quantiles", "0.25,0.75")
    assert whole.exit_code == 0, whole.output
    assert fitted == [1, 3]
    for fold in (1, 2, 3):
        assert f"fold-{fold:02}" in whole.output
    found = predictions.load("cv/ensemble.zarr")
    assert {"swe", "swe_spread", "swe_quantile"} <= set(found)
    np.testing.assert_array_equal(found["quantile"], [0.25, 0.75])
    assert float(found.swe_spread.max()) > 0

    again = cross_validate(*options)
    assert again.exit_code == 0, again.output
    assert fitted == [1, 3]

    other = cross_validate(*options, "--set", "training.learning_rate=0.5")
    assert_one_line(other, "fold-01", "was begun with training.learning_rate = 0.01")

    compared = CliRunner().invoke(h2mv_tf, ["equifinality", "cv"])
    assert compared.exit_code == 0, compared.output
    for words in ("snowmelt_factor", "Daily", "1 test cells", "3 folds"):
        assert words in compared.output
    assert "-0.0000" not in compared.output
    with xr.open_dataset("cv/equifinality/equifinality.nc") as result:
        assert result.decomposition.sel(step="daily").notnull().all()
        # There is no whole year.
        assert result.decomposition.sel(step="annual").isnull().all()
    assert_one_line(CliRunner().invoke(h2mv_tf, ["equifinality", "cv"]), "exists")

    drawn = []
    monkeypatch.setattr(results.figures, "draw", lambda of, **_: drawn.append(of.name))
    with_results = cross_validate("--variables", "et,swe,fapar,snowmelt_factor")
    assert with_results.exit_code == 0, with_results.output
    assert drawn == ["fold-01", "fold-02", "fold-03", "cv"]
    for name in ("ensemble.evaluation/scores.nc", "report.html"):
        assert (tmp_path / "cv" / name).exists(), name
    for name in ("predictions.evaluation/scores.nc", "report.html"):
        assert (tmp_path / "cv" / "fold-03" / name).exists(), name
    assert fitted == [1, 3]


def test_a_training_that_was_ended_in_its_first_step_goes_on_from_there(
    cross_validate, monkeypatch, tmp_path
):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(training.Trainer, "step", killed)
        assert cross_validate("--fold", 1).exit_code == 130
    assert (tmp_path / "cv" / "fold-01" / "config.yaml").exists()
    result = cross_validate("--fold", 1, "--variables", "swe", "--no-results")
    assert result.exit_code == 0, result.output
    assert "Continuing cv/fold-01 after epoch 0" in result.output
    assert cross_validation.predicted(tmp_path / "cv", cross_validation.Member(1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fold", 9), "There is no fold 9. Expected one of 1, 2, 3."),
        (("--quantiles", "a"), "Cannot read --quantiles 'a'"),
        (("--quantiles", "1.5"), "Expected numbers from 0 to 1"),
        (("--variables", "rain"), "no variable 'rain'"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_trained(
    cross_validate, arguments, words, tmp_path
):
    assert_one_line(cross_validate(*arguments), words)
    assert not (tmp_path / "cv").exists()


def test_there_have_to_be_folds_to_compare(tmp_path):
    result = CliRunner().invoke(h2mv_tf, ["equifinality", str(tmp_path)])
    assert_one_line(result, "no predictions of folds", "cross_validate.py")


def test_what_a_process_compiles_is_left_behind_before_it_is_too_much(
    cross_validate, monkeypatch, tmp_path
):
    """After a training, and never before one: it would not come to an end."""
    calls = []

    def execute(program, arguments):
        calls.append(arguments)
        raise SystemExit(0)

    maps, most = tmp_path / "maps", tmp_path / "most"
    maps.write_text("00400000-00452000 r-xp\n" * 7)
    most.write_text("13\n")
    monkeypatch.setattr(startup, "MAPS", maps)
    monkeypatch.setattr(startup, "MOST_MAPS", most)
    monkeypatch.setattr(startup.os, "execv", execute)
    options = ("--no-results", "--variables", "swe", "--fold", 1, "--seeds", 2)
    cross_validate(*options)
    assert calls == [[sys.executable, *sys.orig_argv[1:]]]
    assert (tmp_path / "cv" / "fold-01" / "model.keras").exists()
    assert not (tmp_path / "cv" / "fold-01-seed-1").exists()
    assert cross_validate(*options).exit_code == 0
    assert (tmp_path / "cv" / "fold-01-seed-1" / "model.keras").exists()
    assert len(calls) == 1


def test_a_deep_ensemble_of_seeds_is_predicted_as_one(cross_validate, tmp_path):
    options = ("--variables", "swe", "--no-results")
    result = cross_validate("--fold", 1, "--seeds", 2, *options)
    assert result.exit_code == 0, result.output
    assert "seed 2 of 2" in result.output
    runs = {m: cross_validation.run_of(tmp_path / "cv", m) for m in MEMBERS}
    seeds = [config.load(run.config_file).training.seed for run in runs.values()]
    assert seeds == [0, 1]
    both = CliRunner().invoke(
        h2mv_tf, ["predict", "cv", "--to", "both.zarr", "--variables", "swe"]
    )
    assert both.exit_code == 0, both.output
    found = predictions.load("both.zarr")
    members = [predictions.load(run.path / "predictions.zarr") for run in runs.values()]
    mean = sum(member.swe for member in members) / 2
    np.testing.assert_allclose(found.swe, mean, atol=1e-3)
    assert float(found.swe_spread.max()) > 0
