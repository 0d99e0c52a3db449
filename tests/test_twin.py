"""What can be recovered from which constraints."""

import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner
from scripts import assert_one_line
from small import SMALL, small_settings

from h2mv_tf import config, cross_validation, inference, training, twin
from h2mv_tf.__main__ import main as h2mv_tf
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation import calibration
from h2mv_tf.variables import CONSTRAINTS

SAMPLES = 19
VARIATIONAL = ("objective.likelihood=normal", "uncertainty.posterior=variational")
OTHERS = ("evapotranspiration", "runoff", "swe", "fapar")


@pytest.fixture(scope="module")
def call(world):
    """Runs the command; gives status and output."""

    def run(folder, *arguments, data=world, samples=SAMPLES, leave_out="tws"):
        settings = [f"--set={field}" for field in (*SMALL, "training.epochs=2")]
        arguments = [*settings, *arguments, "--samples", samples]
        arguments += ["--data", data, "--to", folder, "--leave-out", leave_out]
        return CliRunner().invoke(h2mv_tf, ["twin", *map(str, arguments)])

    return run


@pytest.fixture(scope="module")
def made(call, tmp_path_factory):
    """A twin of two experiments, and what the command said; not to be changed."""
    folder = tmp_path_factory.mktemp("twin") / "twin"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "export", lambda model, path: None)  # takes long
        result = call(folder)
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_an_experiment_has_all_constraints_and_the_others_lack_one_each():
    found = twin.experiments(CONSTRAINTS)
    assert found["all"] == CONSTRAINTS
    assert found["without tws"] == OTHERS
    assert list(found) == ["all", *(f"without {name}" for name in CONSTRAINTS)]


def test_names_of_groups_choose_what_is_left_out():
    found = twin.experiments(("tws", "evapotranspiration"), ["et"])
    assert found == {
        "all": ("tws", "evapotranspiration"),
        "without evapotranspiration": ("tws",),
    }


@pytest.mark.parametrize(
    ("constraints", "left_out", "words"),
    [
        (("tws",), None, "Expected two or more, found tws"),
        ((), None, "found none"),
        (("tws", "swe"), ["runoff"], "Cannot leave out 'runoff'"),
        (("tws", "swe"), ["rain"], "Expected any of the constraints: tws, swe"),
    ],
)
def test_constraints_that_make_no_experiment_are_refused(constraints, left_out, words):
    with pytest.raises(UserError, match=words) as caught:
        twin.experiments(constraints, left_out)
    assert "\n" not in str(caught.value)


def test_experiments_differ_in_their_constraints_alone(world):
    given = small_settings(world, *VARIATIONAL, "objective.errors=[tws,swe]")
    found = twin.settings_of(given, OTHERS)
    assert found.objective.constraints == OTHERS
    assert found.objective.errors == ("swe",)
    back = {
        "objective.constraints": given.objective.constraints,
        "objective.errors": given.objective.errors,
    }
    assert config.changed(found, back) == given


@pytest.mark.slow
def test_a_twin_is_a_run_folder_for_each_experiment_and_a_table(made):
    folder, output = made
    for name in (
        "all/model.keras",
        "all/samples.zarr",
        "all/prior.zarr",
        "all/samples.evaluation/probabilistic.nc",
        "without-tws/samples.evaluation/scores.nc",
        "twin.csv",
        "figures/skill.png",
        "figures/widths.pdf",
        "figures/widening_tws.png",
    ):
        assert (folder / name).exists(), name
    assert not (folder / "without-tws" / "prior.zarr").exists()
    of_all, without = (
        config.load(folder / name / "config.yaml") for name in ("all", "without-tws")
    )
    assert of_all.objective.constraints == CONSTRAINTS
    assert config.difference(of_all, without)[0] == "objective.constraints"
    assert without.objective.constraints == OTHERS
    for words in ("Experiment 2 of 2: without tws", "what is lost", "groundwater"):
        assert words in output


@pytest.mark.slow
def test_the_table_is_what_the_evaluations_say(made):
    folder, _ = made
    with xr.open_dataset(folder / "twin.nc") as opened:
        found = opened.load()
    assert list(found.experiment) == ["all", "without tws"]
    assert list(found.metric) == list(twin.METRICS)
    place = folder / "without-tws" / "samples.evaluation"
    with (
        xr.open_dataset(place / "scores.nc") as scores,
        xr.open_dataset(place / "probabilistic.nc") as samples,
    ):
        score = found.score.sel(experiment="without tws")
        nse = scores.truth_score.sel(
            truth_variable="groundwater", scale="monthly", metric="nse"
        )
        of_map = scores.truth_pattern.sel(
            truth_variable="soil_water_capacity", cells="all", region="globe"
        )
        constant = scores.truth_pattern.sel(
            truth_variable="interception_capacity",
            cells="all",
            region="globe",
            metric="nse",
        )
        covered = samples.truth_coverage.sel(cells="all", level=0.9)
        relative = samples.relative_width.sel(width_variable="soil_moisture")
        expected = {
            ("groundwater", "nse"): nse.median(),
            ("soil_water_capacity", "r"): of_map.sel(metric="r"),
            # In this world it is the same on all days.
            ("interception_capacity", "nse"): constant,
            ("transpiration", "coverage_90"): covered.sel(
                truth_variable="transpiration"
            ),
            ("soil_moisture", "relative_width"): relative.median(),
        }
        for (name, metric), value in expected.items():
            ours = float(score.sel(variable=name, metric=metric))
            assert ours == pytest.approx(float(value), rel=1e-5), (name, metric)
        wide = samples.posterior_width.sel(width_variable="groundwater").load()
    with xr.open_dataset(folder / "all/samples.evaluation/probabilistic.nc") as of_all:
        ratio = wide / of_all.posterior_width.sel(width_variable="groundwater")
        ours = found.widening.sel(
            experiment="without tws", width_variable="groundwater"
        )
        np.testing.assert_allclose(ours, ratio, rtol=1e-5)
    table = pd.read_csv(folder / "twin.csv", index_col=["experiment", "variable"])
    assert list(table.columns) == list(twin.METRICS)
    for metric in twin.METRICS:
        column = table.loc["without tws", metric]
        np.testing.assert_allclose(column, score.sel(metric=metric))


@pytest.mark.parametrize(("count", "within"), [(twin.FEWEST, 0), (10, 0.45)])
def test_a_truth_beyond_all_samples_is_covered_by_chance_only_where_they_are_few(
    count, within
):
    outside = calibration.judged(
        np.zeros((count, 1001)), np.ones(1001), np.linspace(0, 1, 1001)
    )
    place = calibration.LEVELS.index(twin.LEVEL)
    found = calibration.covered(outside.pit)[place].mean()
    assert found == pytest.approx(within, abs=2e-3)


@pytest.mark.slow
def test_the_same_call_makes_nothing_anew(made, call, monkeypatch):
    folder, output = made
    before = (folder / "twin.csv").read_bytes()
    monkeypatch.setattr(training, "fit", None)
    monkeypatch.setattr(inference, "predict", None)
    monkeypatch.setattr(twin.results, "evaluated", None)
    again = call(folder)
    assert again.exit_code == 0, again.output
    assert (folder / "twin.csv").read_bytes() == before
    assert again.output.count("is trained") == 2
    assert again.output[again.output.index("Hidden truth") :] in output


@pytest.mark.slow
def test_what_a_killed_call_lacks_is_made_by_the_next(
    made, call, tmp_path, monkeypatch
):
    folder = tmp_path / "twin"
    shutil.copytree(made[0], folder)
    lost = folder / "without-tws" / "samples.evaluation"
    shutil.rmtree(lost)
    (folder / "twin.nc").unlink()
    monkeypatch.setattr(training, "fit", None)
    monkeypatch.setattr(inference, "predict", None)
    assert list(twin.gathered(folder).experiment) == ["all"]
    result = call(folder)
    assert result.exit_code == 0, result.output
    assert (lost / "probabilistic.nc").exists()
    found, expected = (xr.load_dataset(f / "twin.nc") for f in (folder, made[0]))
    xr.testing.assert_allclose(found, expected)


@pytest.mark.slow
def test_a_folder_of_other_settings_or_samples_is_refused(made, call):
    folder, _ = made
    other = call(folder, "--set", "training.learning_rate=0.5")
    assert_one_line(other, "all", "was begun with training.learning_rate = 0.01")
    # Also where the experiment is not asked for now.
    other = call(folder, "--set", "training.seed=1", leave_out="swe")
    assert_one_line(other, "was begun with training.seed = 0")
    assert_one_line(call(folder, samples=20), "has 19 samples, and --samples is 20")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"samples": 18}, "18 samples are too few"),
        ({"leave_out": "rain"}, "Cannot leave out 'rain'"),
        ({"set": "uncertainty.posterior=none"}, "uncertainty.posterior is none"),
        ({"set": "objective.likelihood=mse"}, "objective.likelihood is mse"),
        ({"set": "objective.constraints=tws"}, "Expected two or more, found tws"),
        ({"data": "nowhere.zarr"}, "nowhere.zarr"),
    ],
)
def test_what_makes_no_twin_is_told_before_anything_is_trained(
    call, tmp_path, arguments, words
):
    fields = {k: v for k, v in arguments.items() if k != "set"}
    settings = ("--set", arguments["set"]) if "set" in arguments else ()
    assert_one_line(call(tmp_path / "twin", *settings, **fields), words)
    assert not (tmp_path / "twin").exists()


def test_a_store_without_a_truth_is_refused(call, world, tmp_path):
    shutil.copytree(world, tmp_path / "world.zarr")
    shutil.rmtree(tmp_path / "world.zarr" / "truth")
    result = call(tmp_path / "twin", data=tmp_path / "world.zarr")
    assert_one_line(result, "no hidden truth (group 'truth')", "synthesize")


def test_a_constraint_that_the_store_lacks_is_refused(call, world, tmp_path):
    shutil.copytree(world, tmp_path / "world.zarr")
    shutil.rmtree(tmp_path / "world.zarr" / "swe")
    chosen = "objective.constraints=[tws,swe]"
    result = call(tmp_path / "twin", "--set", chosen, data=tmp_path / "world.zarr")
    assert_one_line(result, "lacks constraint 'swe'")


def test_the_users_configuration_goes_before_the_defaults(call, tmp_path):
    file = tmp_path / "none.yaml"
    file.write_text("uncertainty:\n  posterior: none\n", encoding="utf-8")
    result = call(tmp_path / "twin", "--config", file)
    assert_one_line(result, "uncertainty.posterior is none")


def test_nothing_is_gathered_without_the_experiment_of_all_constraints(tmp_path):
    cross_validation.run_of(tmp_path, cross_validation.Member(1)).path.mkdir()
    with pytest.raises(UserError, match="with all constraints"):
        twin.gathered(tmp_path)
