"""A sweep as a whole, with trainings that are made up and take no time."""

import math
import threading

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from scripts import assert_one_line, loaded
from small import SMALL, small_settings

from h2mv_tf import config
from h2mv_tf.tuning import display, table
from h2mv_tf.tuning.folder import FoldResult, Settings, SweepFolder
from h2mv_tf.tuning.journal import Journal
from h2mv_tf.tuning.space import Space
from h2mv_tf.tuning.sweep import Worker

FIELDS = {
    "training.learning_rate": {
        "type": "float",
        "min": 0.001,
        "max": 0.1,
        "sampling": "log",
    },
    "model.lstm_units": {"type": "int", "min": 2, "max": 40},
    "window.length": {"type": "choice", "values": [90, 120]},
    "window.spin_up": {
        "type": "int",
        "min": 20,
        "max": 40,
        "when": {"window.length": 120},
    },
}


@pytest.fixture
def trained(monkeypatch):
    """The trainings that were asked for: (trial, fold, configuration, begun by)."""
    trainings, lock = [], threading.Lock()

    def train(self, folder, fold, before):
        settings = config.load(folder.config_file(fold))
        with lock:
            trainings.append((folder.path.name, fold, settings, before))
        if settings.model.lstm_units > FAILING:
            return "too many units"
        loss = (math.log10(settings.training.learning_rate) + 2) ** 2
        epochs = settings.training.epochs
        folder.save_fold(fold, FoldResult(loss + fold / 100 + 1 / epochs, epochs, 1))
        return None

    monkeypatch.setattr(Worker, "_train_fold", train)
    return trainings


FAILING = 35


@pytest.fixture
def tune(world, tmp_path, trained):
    """Runs tuning/tune.py on the small world."""

    def run(*arguments, space=None, **content):
        file = tmp_path / "space.yaml"
        content = {"fields": FIELDS, **content} if space is None else space
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        options = [f"--set={override}" for override in SMALL]
        return CliRunner().invoke(
            loaded("tuning/tune.py"),
            [
                f"--data={world}",
                f"--search-space={file}",
                f"--run-dir={tmp_path / 'sweep'}",
                *options,
                *map(str, arguments),
            ],
        )

    return run


RANDOM = ("--algorithm=random", "--max-trials=6")


def trials(tmp_path):
    file = tmp_path / "sweep" / "trials.csv"
    return pd.read_csv(file, float_precision="round_trip")


def test_a_sweep_leaves_a_table_and_a_configuration_to_train(tune, trained, tmp_path):
    result = tune(*RANDOM)
    assert result.exit_code == 0, result.output
    found = trials(tmp_path)
    assert list(found.columns) == [*table.COLUMNS, *FIELDS]
    assert len(found) == 6
    best = found.loc[found["score"].idxmin()]
    settings = config.load(tmp_path / "sweep" / "best.yaml")
    assert settings.training.learning_rate == best["training.learning_rate"]
    assert settings.model.lstm_units == best["model.lstm_units"]
    by_trial = {name: settings for name, _, settings, _ in trained}
    assert settings == by_trial[f"{best['trial']:04}"]
    assert f"Train the best: python trainers/train.py --config {tmp_path}" in (
        result.output
    )


def test_a_sweep_leaves_figures_that_a_browser_can_show(tune, tmp_path):
    assert tune("--algorithm=random", "--max-trials=16").exit_code == 0
    names = {file.name for file in (tmp_path / "sweep" / "figures").iterdir()}
    assert names == {
        "fields.png",
        "parallel_coordinates.png",
        "best_so_far.png",
        "importance.png",
    }
    importance = pd.read_csv(tmp_path / "sweep" / "importance.csv")
    assert set(importance["field"]) == set(FIELDS)
    assert any((tmp_path / "sweep" / "logs").rglob("events.*"))


def test_the_same_call_repeats_no_trial(tune, trained, tmp_path):
    tune(*RANDOM)
    before, count = trials(tmp_path), len(trained)
    result = tune(*RANDOM)
    assert result.exit_code == 0
    assert "Done before: 6 trials" in result.output
    assert len(trained) == count
    pd.testing.assert_frame_equal(trials(tmp_path), before)


def test_a_larger_number_of_trials_goes_on(tune, trained, tmp_path):
    tune(*RANDOM)
    before, count = trials(tmp_path), len(trained)
    assert tune("--algorithm=random", "--max-trials=9").exit_code == 0
    assert len(trained) == count + 3
    pd.testing.assert_frame_equal(trials(tmp_path)[:6], before)


def test_hyperband_goes_on_with_more_brackets(tune, trained, tmp_path):
    assert tune("--max-trials=4").exit_code == 0
    before = trials(tmp_path)
    assert tune("--max-trials=8").exit_code == 0
    found = trials(tmp_path)
    assert len(found) == 8
    columns = [c for c in found if c != "ended"]
    pd.testing.assert_frame_equal(found[columns][:4], before[columns])


def test_a_failed_trial_is_told_with_its_reason_and_the_search_goes_on(tune, tmp_path):
    result = tune("--algorithm=random", "--max-trials=12")
    assert result.exit_code == 0
    found = trials(tmp_path)
    failed = found[found["status"] == "failed"]
    assert 0 < len(failed) < 12
    assert (failed["model.lstm_units"] > FAILING).all()
    assert (failed["reason"] == "too many units").all()
    assert found[found["status"] == "completed"]["score"].notna().all()
    assert f"of which {len(failed)} failed" in result.output
    assert "failed: too many units" in result.output


def test_a_search_of_nothing_but_failures_ends_with_the_reason(tune, trained):
    only = {"model.lstm_units": {"type": "int", "min": 36, "max": 90}}
    result = tune("--algorithm=random", "--max-trials=30", fields=only)
    assert_one_line(result, "trials have failed", "too many units")
    assert len(trained) < 30


def test_two_workers_run_every_trial_once(tune, trained, tmp_path):
    result = tune("--algorithm=random", "--max-trials=20", "--workers=2")
    assert result.exit_code == 0, result.output
    assert sorted(name for name, *_ in trained) == [f"{n:04}" for n in range(20)]
    assert list(trials(tmp_path)["trial"]) == list(range(20))


def test_workers_share_the_cores(tune, trained, monkeypatch):
    shares = []
    begin = Worker.__init__

    def noted(self, *arguments, **options):
        begin(self, *arguments, **options)
        shares.append(self.share)

    monkeypatch.setattr(Worker, "__init__", noted)
    tune(*RANDOM, "--workers=2")
    assert len(shares) == 2
    assert all(shares)


def test_a_score_is_the_mean_over_the_folds(tune, trained, tmp_path):
    fields = {"training.learning_rate": FIELDS["training.learning_rate"]}
    one = ("--algorithm=random", "--max-trials=1")
    assert tune(*one, fields=fields, folds=[2, 3]).exit_code == 0
    assert [fold for _, fold, _, _ in trained] == [2, 3]
    assert [settings.split.fold for _, _, settings, _ in trained] == [2, 3]
    rate = trained[0][2].training.learning_rate
    each = (math.log10(rate) + 2) ** 2 + 1 / 3
    assert trials(tmp_path)["score"][0] == pytest.approx(each + 0.025)
    # The one that is trained on its own is that of the configuration.
    assert config.load(tmp_path / "sweep" / "best.yaml").split.fold == 1


def test_hyperband_continues_the_trials_that_it_promotes(tune, trained, tmp_path):
    assert tune("--max-trials=4").exit_code == 0
    short, long = trained[:3], trained[3]
    assert [settings.training.epochs for _, _, settings, _ in short] == [1, 1, 1]
    _, _, settings, before = long
    assert settings.training.epochs == 3
    found = trials(tmp_path).set_index("trial")
    assert int(before) == found["score"][:3].idxmin() == found["promoted_from"][3]
    of_before = next(s for n, _, s, _ in short if n == before)
    assert settings.model_dump(exclude={"training": {"epochs"}}) == (
        of_before.model_dump(exclude={"training": {"epochs"}})
    )


def test_the_best_configuration_of_hyperband_trains_to_the_end(tune, tmp_path):
    tune("--max-trials=4")
    assert config.load(tmp_path / "sweep" / "best.yaml").training.epochs == 3


def test_a_field_that_is_not_tuned_stays_as_configured(tune, trained):
    tune("--algorithm=random", "--max-trials=9")
    windows = [settings.window for _, _, settings, _ in trained]
    assert {window.length for window in windows} == {90, 120}
    assert {w.spin_up for w in windows if w.length == 90} == {30}
    assert {w.spin_up for w in windows if w.length == 120} != {30}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fields": {"model.code_size": {"type": "int", "min": 1, "max": 2}}}, "size"),
        ({"objective": "val/median_nse/runoff"}, "objective"),
        ({"folds": [2]}, "folds"),
    ],
)
def test_a_folder_of_another_space_is_refused(tune, trained, change, words):
    tune("--algorithm=random", "--max-trials=1")
    result = tune("--algorithm=random", "--max-trials=1", **change)
    assert_one_line(result, "was begun with", words, "another --run-dir")
    assert len(trained) == 1


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--algorithm=hyperband", "algorithm: random"),
        ("--seed=3", "seed: 0"),
        ("--set=training.patience=7", "training.patience"),
    ],
)
def test_a_folder_of_another_search_is_refused(tune, option, words):
    tune("--algorithm=random", "--max-trials=1")
    result = tune("--algorithm=random", "--max-trials=1", option)
    assert_one_line(result, "was begun with", words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model.layers": {"type": "int", "min": 1, "max": 2}}, "model.layers"),
        ({"model.lstm_units": {"type": "float", "min": 1, "max": 2}}, "valid integer"),
        (
            {"window.length": {"type": "int", "min": 3000, "max": 4000}},
            "No point of the search space can be trained",
        ),
    ],
)
def test_a_wrong_space_is_refused_before_anything_is_trained(
    tune, trained, tmp_path, fields, words
):
    assert_one_line(tune(*RANDOM, fields=fields), words)
    assert trained == []
    assert not (tmp_path / "sweep").exists()


def test_a_store_that_is_not_there_is_told_as_a_training_would(tune, tmp_path):
    result = tune(*RANDOM, "--data=nowhere.zarr")
    assert_one_line(result, "There is no Zarr store at 'nowhere.zarr'")
    assert "search space" not in result.output.splitlines()[-1]


def test_a_space_with_one_good_point_is_searched(tune, trained):
    fields = {"window.length": {"type": "choice", "values": [4000, 90]}}
    assert tune("--algorithm=grid", fields=fields).exit_code == 0
    assert len(trained) == 2  # made up; the one too long fails as it is trained


def test_a_search_without_end_is_refused(tune):
    assert_one_line(tune("--algorithm=random"), "--max-trials 20")


def test_a_folder_of_something_else_is_refused(tune, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "thesis.tex").touch()
    assert_one_line(tune(*RANDOM), "is no sweep folder")


def test_two_searches_in_one_folder_are_refused(tune, tmp_path):
    with SweepFolder(tmp_path / "sweep").held():
        assert_one_line(tune(*RANDOM), "Another process searches")


def test_a_result_that_is_gone_is_told(tune, tmp_path):
    tune("--algorithm=random", "--max-trials=1")
    (tmp_path / "sweep" / "trials" / "0000" / "result.json").unlink()
    assert_one_line(tune("--algorithm=random", "--max-trials=1"), "its result is gone")


def test_a_search_that_finds_nothing_names_no_best(tune, tmp_path):
    only = {"model.lstm_units": {"type": "int", "min": 36, "max": 90}}
    result = tune("--algorithm=random", "--max-trials=2", fields=only)
    assert result.exit_code == 0
    assert "of which 2 failed" in result.output
    assert "Train the best" not in result.output
    assert not (tmp_path / "sweep" / "best.yaml").exists()


def test_a_damaged_sweep_is_told(tune, tmp_path):
    tune("--algorithm=random", "--max-trials=1")
    (tmp_path / "sweep" / "sweep.yaml").write_text("algorithm: luck\n")
    assert_one_line(tune("--algorithm=random", "--max-trials=1"), "damaged")


def test_a_folder_that_is_a_file_is_refused(tune, tmp_path):
    (tmp_path / "sweep").touch()
    assert_one_line(tune(*RANDOM), "is no folder to search in")


def test_what_a_kill_has_left_of_a_beginning_is_in_nobodys_way(tune, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / ".sweep.yaml.partial").touch()
    assert tune("--algorithm=random", "--max-trials=1").exit_code == 0


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("val/median_nse/tws/daily", "is observed monthly"),
        ("val/median_nse/et", "which is not trained on"),
    ],
)
def test_an_objective_that_the_store_cannot_give_is_refused(
    tune, trained, objective, words
):
    only = "--set=objective.constraints=[tws, swe]"
    assert_one_line(tune(*RANDOM, only, objective=objective), words)
    assert trained == []


def test_fewer_trials_than_there_are_end_at_once(tune, trained, tmp_path):
    tune(*RANDOM)
    count = len(trained)
    assert tune("--algorithm=random", "--max-trials=2").exit_code == 0
    assert len(trained) == count
    assert len(trials(tmp_path)) == 6


def test_a_search_whose_journal_cannot_be_written_ends(tune, monkeypatch):
    def full(self, event):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "note", full)
    result = tune(*RANDOM, "--workers=2")
    assert_one_line(result, "No space left on device")


def test_half_of_the_variables_of_a_chief_are_refused(tune, monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    assert_one_line(tune(*RANDOM), "KERASTUNER_ORACLE_PORT is not")


def test_the_expected_end_comes_from_trials_of_as_many_epochs(world):
    # Worked by hand: 10 s to start and 2 s an epoch.
    settings = Settings(
        algorithm="hyperband",
        seed=0,
        max_trials=13,
        brackets=(((9, 1), (3, 3), (1, 9)),),
        space=Space.model_validate({"fields": FIELDS}),
        configuration=small_settings(world),
    )
    rows = [
        {
            "trial": n,
            "status": "completed",
            "trained_epochs": epochs,
            "promoted_from": before,
            "seconds": 10 + 2 * new,
            "bracket": 0,
            "round": place,
        }
        for n, (epochs, before, new, place) in enumerate(
            [(1, np.nan, 1, 0)] * 9 + [(3, 4, 2, 1)]
        )
    ]
    left = display.seconds_left(pd.DataFrame(rows), settings, workers=1)
    # Two more of two epochs, one of six.
    assert left == pytest.approx(2 * (10 + 4) + 10 + 12)
    assert display.seconds_left(pd.DataFrame(rows), settings, 2) == left / 2
