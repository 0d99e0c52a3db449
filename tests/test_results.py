"""From a trained run to its report, as a user does it."""

import shutil

import pytest
from click.testing import CliRunner
from scripts import assert_one_line

from h2mv_tf import predictions, results
from h2mv_tf.__main__ import main as h2mv_tf
from h2mv_tf.run_folder import RunFolder


@pytest.fixture
def copied(run, tmp_path):
    """A run folder of one's own."""
    shutil.copytree(run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def given(*arguments):
    return CliRunner().invoke(h2mv_tf, list(map(str, arguments)))


def test_the_verbs_lead_from_a_run_to_a_page(copied, world, tmp_path):
    path = copied.path
    predicted = given("predict", path, "--data", world)
    assert predicted.exit_code == 0, predicted.output
    assert "water balance within" in predicted.output
    assert "water balance within" in copied.log_file.read_text(encoding="utf-8")
    noted = copied.load_json(copied.metrics_file)["predictions"]
    (balance,) = noted.values()
    assert 0 < balance["largest_residual"] < 1e-3
    assert balance["days"] == 730

    evaluated = given("evaluate", path / predictions.FILE)
    assert evaluated.exit_code == 0, evaluated.output
    for words in ("untrained", "season", "snowmelt_factor", "runoff_ratio"):
        assert words in evaluated.output

    reported = given("report", path)
    assert reported.exit_code == 0, reported.output
    page = (path / "report.html").read_text(encoding="utf-8")
    assert "NSE" in page
    assert "runoff" in page

    assert_one_line(given("predict", path, "--data", world), "exists")
    assert_one_line(given("evaluate", path / predictions.FILE), "exists")


@pytest.mark.slow
def test_all_results_of_a_run_are_made_once(copied, monkeypatch):
    results.of_run(copied)
    for name in (
        "predictions.zarr",
        "predictions.evaluation/scores.csv",
        "figures/story.pdf",
        "figures/seasonal_cycles.png",
        "report.html",
    ):
        assert (copied.path / name).exists(), name
    monkeypatch.setattr(results.inference, "predict", None)
    monkeypatch.setattr(results.figures, "draw", lambda folder, **_: [])
    results.of_run(copied)


def test_predictions_that_nobody_asked_for_stay_small(copied, monkeypatch, caplog):
    monkeypatch.setattr(results, "LARGEST", 1e5)
    monkeypatch.setattr(results.figures, "draw", lambda folder, **_: [])
    with caplog.at_level("INFO"):
        results.of_run(copied)
    assert not (copied.path / "predictions.zarr").exists()
    assert "which nobody asked for" in caplog.text
    assert (copied.path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shard", "5/4"), "Cannot read --shard '5/4'"),
        (("--shard", "a"), "Expected i/n"),
        (("--memory", "1MB"), "Expected 50MB or more"),
        (("--shard", "1/2", "--dask", "tcp://x:1"), "Give --shard or --dask"),
        (("--variables", "rain"), "no variable 'rain'"),
        (("--data", "nowhere.zarr"), "no Zarr store at 'nowhere.zarr'"),
    ],
)
def test_options_of_predict_that_cannot_be_met_are_one_line(
    copied, tmp_path, arguments, words
):
    call = given("predict", copied.path, "--to", tmp_path / "out.zarr", *arguments)
    assert_one_line(call, words)
    assert not (tmp_path / "out.zarr").exists()


def test_only_a_trained_run_predicts(copied, tmp_path):
    assert_one_line(given("predict", tmp_path / "none"), "not a run folder")
    copied.model_file.write_bytes(b"another version")
    assert_one_line(given("predict", copied.path), "of version 0.1.0, cannot be read")
    copied.model_file.unlink()
    assert_one_line(given("predict", copied.path), "has no trained model yet")


def test_static_inputs_of_another_order_are_refused(copied, world, tmp_path):
    import xarray as xr

    other = tmp_path / "other.zarr"
    shutil.copytree(world, other)
    with xr.open_zarr(world, group="static", consolidated=False) as static:
        turned = static.isel(variable=slice(None, None, -1)).load().drop_encoding()
    shutil.rmtree(other / "static")
    turned.to_zarr(other, group="static", consolidated=False, zarr_format=3)
    result = given("predict", copied.path, "--data", other)
    assert_one_line(result, "static inputs", "number 1 has to be")
