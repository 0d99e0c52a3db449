"""Trials that really train: what they come to, and what a kill leaves of them."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from small import SMALL, small_settings

from h2mv_tf import evaluation, inference, predictions
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation.blocks import H2MV
from h2mv_tf.trained import Trained
from h2mv_tf.tuning import process, trial
from h2mv_tf.tuning.journal import Journal
from h2mv_tf.tuning.objective import Objective

ROOT = Path(__file__).parents[1]
PATIENCE = 300  # seconds until something has certainly hung
RATE = "training.learning_rate"
RATES = {RATE: {"type": "float", "min": 0.005, "max": 0.05, "sampling": "log"}}
OF_A_CHIEF = {
    "window.length": {"type": "choice", "values": [90, 60]},
    "window.spin_up": {
        "type": "int",
        "min": 20,
        "max": 30,
        "when": {"window.length": 60},
    },
    **RATES,
}


def python(script, *arguments, environment=None, **options):
    return subprocess.Popen(
        [sys.executable, ROOT / script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
        **options,
    )


def finished(process):
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


@pytest.fixture
def arguments(world, tmp_path):
    """The arguments of a search of the small world."""

    def make(name, fields, *options):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"fields": fields}, sort_keys=False))
        overrides = [f"--set={override}" for override in SMALL]
        return [
            f"--data={world}",
            f"--search-space={file}",
            f"--run-dir={tmp_path / name}",
            *overrides,
            *options,
        ]

    return make


def scores(folder):
    found = pd.read_csv(folder / "trials.csv")
    return found[["trial", "status", "score", "epochs", "reason", RATE]]


@pytest.mark.slow
def test_the_best_trial_is_what_train_py_trains(arguments, tmp_path):
    # It was trained one epoch, promoted, and trained two more.
    finished(python("tuning/tune.py", *arguments("sweep", RATES, "--max-trials=4")))
    found = scores(tmp_path / "sweep").set_index("trial")
    assert list(found["epochs"]) == [1, 1, 1, 3]
    run = tmp_path / "run"
    options = [f"--config={tmp_path / 'sweep' / 'best.yaml'}", f"--run-dir={run}"]
    finished(python("trainers/train.py", *options, "--no-results"))
    losses = pd.read_csv(run / "history.csv")["val_loss"]
    of_trial = tmp_path / "sweep" / "trials" / "0003" / "fold-01"
    # Without XLA, parallel sums of TensorFlow differ in their last digits.
    of_sweep = pd.read_csv(of_trial / "history.csv")["val_loss"]
    np.testing.assert_allclose(of_sweep, losses, rtol=1e-6)
    assert found["score"][3] == of_sweep.min()
    # What the trial left out is made where its run is resumed.
    assert not (of_trial / "saved_model").exists()
    finished(python("trainers/train.py", f"--run-dir={of_trial}", "--resume"))
    assert (of_trial / "saved_model").is_dir()


@pytest.mark.slow
def test_a_killed_search_goes_on_as_if_it_were_not(arguments, tmp_path):
    rates = {RATE: {"type": "choice", "values": [1.0e30, 0.02, 0.01]}}
    whole = python("tuning/tune.py", *arguments("whole", rates, "--algorithm=grid"))
    finished(whole)
    options = arguments("killed", rates, "--algorithm=grid")
    search = python("tuning/tune.py", *options)
    folder = tmp_path / "killed"
    in_flight = folder / "trials" / "0001" / "fold-01" / "checkpoints" / "last"
    until(in_flight.is_dir)
    of_trial = in_training(search)
    search.send_signal(signal.SIGKILL)
    search.communicate()
    until(lambda: not of_trial.is_running())
    before = journaled(folder)
    assert before == [("drawn", "0000"), ("ended", "0000"), ("drawn", "0001")]

    output = finished(python("tuning/tune.py", *options))
    assert "Done before: 1 trials" in output
    assert journaled(folder)[:3] == before
    whole = scores(tmp_path / "whole").replace(
        "/whole/", f"/{folder.name}/", regex=True
    )
    pd.testing.assert_frame_equal(scores(folder), whole)
    found = scores(folder)
    assert list(found["status"]) == ["failed", "completed", "completed"]
    assert "is not finite" in found["reason"][0]


@pytest.mark.slow
def test_a_trial_that_is_killed_has_failed_and_the_search_goes_on(arguments, tmp_path):
    options = arguments("sweep", RATES, "--algorithm=random", "--max-trials=2")
    search = python("tuning/tune.py", *options)
    in_training(search).kill()
    output = finished(search)
    assert "failed: the process was ended by SIGKILL" in output
    found = scores(tmp_path / "sweep")
    assert list(found["status"]) == ["failed", "completed"]
    assert "where memory runs out" in found["reason"][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)]
)
def test_an_interrupted_search_ends_its_trial_and_says_what_goes_on(
    number, status, arguments, tmp_path
):
    options = arguments("sweep", RATES, "--algorithm=random", "--max-trials=2")
    # A shell in the background lets its processes ignore what is sent here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    search = python("tuning/tune.py", *options)
    signal.signal(signal.SIGINT, before)
    of_trial = in_training(search)
    search.send_signal(number)
    output, _ = search.communicate(timeout=PATIENCE)
    assert search.returncode == status
    assert output.strip().endswith(f"The same call goes on with {tmp_path / 'sweep'}.")
    until(lambda: not of_trial.is_running())
    assert journaled(tmp_path / "sweep") == [("drawn", "0000")]


@pytest.mark.slow
def test_workers_run_every_trial_once_though_their_chief_is_killed(arguments, tmp_path):
    options = arguments("sweep", OF_A_CHIEF, "--algorithm=random", "--max-trials=4")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def begun(name):
        environment = {
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": f"{port}",
            "KERASTUNER_TUNER_ID": name,
        }
        return python("tuning/tune.py", *options, environment=environment)

    workers, chief = [begun("worker0"), begun("worker1")], begun("chief")
    both = tmp_path / "sweep" / "trials"
    until(lambda: len([*both.glob("*/fold-01/history.csv")]) == 2)
    chief.send_signal(signal.SIGKILL)
    chief.communicate()
    told = finished(begun("chief"))
    outputs = [finished(worker) for worker in workers]
    trained = re.findall(r"trains trial (\d)", "".join(outputs))
    assert sorted(trained) == ["0", "1", "2", "3"]
    assert "The best of 4 trials" in told
    found = scores(tmp_path / "sweep")
    assert list(found["trial"]) == [0, 1, 2, 3]
    assert (found["status"] == "completed").all()
    names = [f"{n:04}" for n in range(4)]
    events = journaled(tmp_path / "sweep")
    for kind in ("drawn", "ended"):
        assert sorted(name for what, name in events if what == kind) == names
    for name in names:  # trained once
        log = (tmp_path / "sweep" / "trials" / name / "fold-01.log").read_text()
        assert log.count("Done in") == 1


def test_a_score_is_that_of_evaluate_on_the_validation_cells(run, world, tmp_path):
    settings = small_settings(world)
    model = Trained.of(run)
    store = model.open_store()
    inference.predict(model, store, tmp_path / "all.zarr", variables=["runoff", "et"])
    found = evaluation.evaluate(predictions.load(tmp_path / "all.zarr"), store)
    there = found.score.sel(model=H2MV, metric="nse", scale="monthly")
    there = there.where(model.roles == settings.split.fold)
    for name in ("runoff", "evapotranspiration"):
        objective = Objective.parse(f"val/median_nse/{name}")
        expected = float(there.sel(variable=name).median())
        assert trial.measured(run, settings, objective) == pytest.approx(expected)


def test_a_score_of_all_is_the_mean_over_the_constraints(run, world):
    settings = small_settings(world, "objective.constraints=[runoff, swe]")
    each = [
        trial.measured(run, settings, Objective.parse(f"val/mean_rmse/{name}"))
        for name in ("runoff", "swe")
    ]
    objective = Objective.parse("val/mean_rmse/all")
    assert trial.measured(run, settings, objective) == pytest.approx(np.mean(each))


def test_a_score_that_is_nowhere_defined_is_told(run, world):
    objective = Objective.parse("val/median_nse/tws/daily")  # TWS is monthly
    with pytest.raises(UserError, match="has a daily nse of tws"):
        trial.measured(run, small_settings(world), objective)


@pytest.mark.parametrize(
    ("status", "told", "words"),
    [
        (2, "epoch 1\nerror: The loss is not finite.\n", "The loss is not finite."),
        (1, "Traceback\n  ...\nMemoryError: 8 GB\n", "MemoryError: 8 GB"),
        (-9, "epoch 1\n", "ended by SIGKILL, as the system does where memory runs out"),
        (-11, "", "ended by SIGSEGV"),
        (1, "", "it told nothing"),
    ],
)
def test_the_reason_of_a_failure_is_one_line(tmp_path, status, told, words):
    log = tmp_path / "log"
    log.write_text(told)
    assert process.reason(status, log).endswith(words)


def until(there):
    begin = time.monotonic()
    while not (found := there()):
        assert time.monotonic() - begin < PATIENCE
        time.sleep(0.05)
    return found


def in_training(search):
    """The process of the trial of a search, which starts others, too."""

    def found():
        for child in psutil.Process(search.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "h2mv_tf.tuning.trial" in child.cmdline():
                    return child
        return None

    return until(found)


def journaled(folder):
    return [(e.kind, e.trial) for e in Journal(folder / "journal.jsonl")]
