"""A training that was ended at any moment goes on as if it had never stopped."""

import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import click
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner
from small import SMALL, small_settings

from h2mv_tf import (
    checkpoints,
    console,
    environment,
    files,
    interruption,
    run_folder,
    training,
)
from h2mv_tf.config import Uncertainty, load
from h2mv_tf.errors import UserError
from h2mv_tf.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
TIMED = ["cell_days_per_second", "waiting_for_data"]
# Of which counters and random numbers there are.
DRAWN = (
    "model.dropout=0.2",
    "training.patience=2",
    "training.learning_rate=0.05",
)
CASES = {
    "one device": DRAWN,
    "two devices": (*DRAWN, "distribution.devices=2"),
    "a posterior": (
        "objective.likelihood=normal",
        "uncertainty.posterior=variational",
    ),
}
ALWAYS = "training.checkpoint_minutes=1e-9"  # a checkpoint after each batch
RARELY = "training.checkpoint_minutes=1e9"


class Killed(BaseException):
    """In place of SIGKILL, which nothing could catch."""


class Kill(keras.callbacks.Callback):
    """Ends a training after some batches of an epoch, or the epoch."""

    def __init__(self, epoch, batch=None, act=None):
        super().__init__()
        self.at, self.act = (epoch, batch), act or self.kill
        self.epoch = 0

    @staticmethod
    def kill():
        raise Killed

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            self.act()

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, None) == self.at:
            self.act()


@pytest.fixture(scope="module", autouse=True)
def without_export():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "export", lambda model, path: None)
        yield


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    """The run of a case that nobody disturbed."""

    @functools.cache
    def of(case):
        run = RunFolder(tmp_path_factory.mktemp("undisturbed") / "run")
        training.fit(small_settings(world, *CASES[case]), run)
        return run

    return of


@pytest.fixture
def killed(world, tmp_path):
    """A run of a case that was killed."""

    def of(case, moment, *overrides):
        run = RunFolder(tmp_path / "run")
        with pytest.raises(Killed):
            training.fit(
                small_settings(world, *CASES[case], *overrides),
                run,
                callbacks=[Kill(*moment)],
            )
        return run

    return of


def progress(run):
    return run.load_json(run.checkpoints / "last" / "progress.json")


def resume(run):
    training.fit(run.resumed_config(), run, resume=True)


def assert_same(run, expected):
    """To the last bit."""
    history, wanted = (r.load_history().drop(columns=TIMED) for r in (run, expected))
    pd.testing.assert_frame_equal(history, wanted, check_exact=True)
    models = [keras.models.load_model(r.model_file) for r in (run, expected)]
    for found, weight in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_array_equal(found, weight)
    found, wanted = (r.load_json(r.metrics_file) for r in (run, expected))
    assert found["best_epoch"] == wanted["best_epoch"]
    assert found["test"]["loss"] == wanted["test"]["loss"]


@pytest.mark.parametrize(
    ("case", "moment"),
    [
        ("one device", (0, 0)),
        ("one device", (1, None)),
        ("one device", (2, 9)),
        ("two devices", (1, 4)),
        ("a posterior", (1, 4)),
    ],
)
def test_it_ends_as_if_it_had_never_stopped(case, moment, killed, undisturbed):
    """Killed in an epoch, at its end, at the end of all, with a checkpoint each."""
    run = killed(case, moment, ALWAYS)
    resume(run)
    assert_same(run, undisturbed(case))


def test_it_does_so_from_a_checkpoint_that_is_some_batches_old(killed, undisturbed):
    run = killed("one device", (1, 4), RARELY)
    assert progress(run)["batches"] == 0
    resume(run)
    assert_same(run, undisturbed("one device"))


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(
    killed, undisturbed, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(training, "trainer_of", lambda *_: Kill.kill())
        run = killed("one device", (0, 0))
    assert run.path.exists()
    resume(run)
    assert_same(run, undisturbed("one device"))


def test_a_run_folder_is_there_whole_or_not_at_all(killed, monkeypatch):
    monkeypatch.setattr(training, "describe", lambda *_: Kill.kill())
    assert not killed("one device", (0, 0)).path.exists()


def test_a_run_that_has_ended_ends_again_as_it_did(undisturbed, tmp_path):
    whole, run = undisturbed("one device"), RunFolder(tmp_path / "run")
    shutil.copytree(whole.path, run.path)
    resume(run)
    assert_same(run, whole)


def test_a_damaged_checkpoint_changes_nothing(killed, undisturbed, caplog):
    run = killed("one device", (1, 4), ALWAYS)
    file = run.checkpoints / "last" / "state.npz"
    file.write_bytes(file.read_bytes()[:1000])
    resume(run)
    assert "is damaged" in caplog.text
    assert_same(run, undisturbed("one device"))


def test_a_history_that_was_cut_off_is_one_line(run, tmp_path):
    other = RunFolder(tmp_path / "run")
    shutil.copytree(run.path, other.path)
    lines = run.history_file.read_text().splitlines(keepends=True)
    other.history_file.write_text("".join(lines[:2]))
    with pytest.raises(UserError, match=r"has 1 epochs, but the checkpoint is of 3"):
        training.fit(other.resumed_config(), other, resume=True)
    other.history_file.write_bytes(b"\xff\xfe\0")
    with pytest.raises(UserError, match="cannot be read"):
        training.fit(other.resumed_config(), other, resume=True)


def test_what_is_changed_as_a_run_goes_on_stays_changed(killed, monkeypatch):
    run = killed("a posterior", (0, 0))
    changed = ["training.epochs=5", "training.on_nonfinite=skip"]
    settings = run.resumed_config(changed)
    assert settings.warm_up == load(run.config_file).warm_up == 1
    monkeypatch.setattr(training, "trainer_of", lambda *_: Kill.kill())
    with pytest.raises(Killed):
        training.fit(settings, run, resume=True)
    known = run.resumed_config()
    assert (known.training.epochs, known.training.on_nonfinite) == (5, "skip")
    assert known.provenance is not None


def test_a_warm_up_that_follows_from_the_epochs_stays_as_it_was(run, tmp_path):
    other = RunFolder(tmp_path)
    likely = load(run.config_file, ["objective.likelihood=normal"])
    settings = likely.model_copy(update={"uncertainty": Uncertainty()})
    other.save_config(settings)
    assert settings.warm_up == 1
    assert other.resumed_config(["training.epochs=80"]).warm_up == 1


@pytest.mark.parametrize(
    ("target", "number", "words"),
    [
        (checkpoints, errno.ENOSPC, "No space left on device"),
        (run_folder, errno.ESTALE, "Stale file handle"),
    ],
    ids=["a checkpoint on a full disk", "a history on a mount that has gone"],
)
def test_what_cannot_be_written_is_one_line_and_the_run_goes_on(
    target, number, words, world, undisturbed, tmp_path, monkeypatch
):
    run, write = RunFolder(tmp_path / "run"), files.write_whole
    left = 8

    def failing(file, text):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(number, os.strerror(number))
        write(file, text)

    settings = small_settings(world, *CASES["one device"], ALWAYS)
    with monkeypatch.context() as patch:
        patch.setattr(target, "write_whole", failing)
        with pytest.raises(UserError) as caught:
            training.fit(settings, run)
    line = str(caught.value)
    assert "\n" not in line
    assert f"Cannot write '{run.path}': {words}." in line
    assert "go on with --resume" in line
    assert not (run.checkpoints / "partial").exists()
    resume(run)
    assert_same(run, undisturbed("one device"))


# Signals


def warned(world, run, number):
    """A training to which a signal comes within an epoch."""
    settings = small_settings(world, *CASES["one device"], RARELY)
    warning = Kill(1, 4, act=lambda: signal.raise_signal(number))
    training.fit(settings, run, callbacks=[warning])


def test_a_scheduler_s_warning_is_heeded_after_the_batch(world, undisturbed, tmp_path):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(interruption.Terminated):
        warned(world, run, signal.SIGTERM)
    assert progress(run)["batches"] == 5
    resume(run)
    assert_same(run, undisturbed("one device"))


def test_so_is_a_user_s_interruption(world, tmp_path):
    run = RunFolder(tmp_path / "run")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            warned(world, run, signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert progress(run)["batches"] == 5


def in_turn(*signals):
    """Signals that come while others are deferred; what was reached after each."""
    reached = []
    with interruption.deferred() as pending:
        for number in signals:
            signal.raise_signal(number)
            reached.append(bool(pending))
    return reached


def test_a_second_signal_does_not_wait():
    with pytest.raises(KeyboardInterrupt) as caught:
        in_turn(signal.SIGTERM, signal.SIGINT)
    assert caught.type is KeyboardInterrupt


def test_a_signal_that_nobody_asked_for_is_heeded_in_the_end():
    with pytest.raises(interruption.Terminated):
        in_turn(signal.SIGTERM)
    assert in_turn() == []


def test_every_command_ends_with_status_75_at_a_scheduler_s_warning():
    ended = []

    @click.command()
    def works():
        with console.command(interrupted="The same call goes on."):
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                ended.append("tidied up")

    result = CliRunner().invoke(works)
    assert result.exit_code == 75
    assert "The same call goes on." in result.output
    assert ended == ["tidied up"]


def test_handlers_are_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with interruption.deferred(), interruption.terminable():
        assert signal.getsignal(signal.SIGTERM) is interruption.interrupt
    assert signal.getsignal(signal.SIGTERM) is before


def started(world, run, *more):
    """`train.py` in a process of its own."""
    command = [sys.executable, ROOT / "trainers" / "train.py", "--run-dir", run.path]
    if "--resume" not in more:
        overrides = (*SMALL, f"data.store={world}", *more)
        more = [part for override in overrides for part in ("--set", override)]
    return subprocess.Popen(
        [*command, "--no-results", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


def wait_for(path, process):
    """Until a path is there."""
    end = time.monotonic() + 120
    while not path.exists() and time.monotonic() < end:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    assert path.exists()


@pytest.mark.slow
def test_a_scheduler_s_warning_ends_it_with_status_75_and_it_goes_on(world, tmp_path):
    run = RunFolder(tmp_path / "run")
    endless = ("training.epochs=100000", "training.patience=100000")
    with started(world, run, *endless) as process:
        wait_for(run.history_file, process)
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 75, told
    assert "--resume continues the run" in told
    assert "Traceback" not in told
    done = len(run.load_history())
    end = ("--set", f"training.epochs={done + 1}")
    with started(world, run, "--resume", *end) as process:
        told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert len(run.load_history()) == done + 1


@pytest.mark.slow
def test_a_training_that_is_killed_outright_ends_with_the_same_bits(world, tmp_path):
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    more = (
        *DRAWN,
        ALWAYS,
        "training.jit_compile=true",
        "training.epochs=30",
        "training.patience=30",
    )
    with started(world, run, *more) as process:
        wait_for(run.history_file, process)
        process.kill()
    with started(world, run, "--resume") as process:
        told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    with started(world, whole, *more) as process:
        told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert_same(run, whole)


# Reproducible


def test_two_trainings_of_one_seed_are_the_same_and_of_another_are_not(
    world, undisturbed, tmp_path
):
    whole = undisturbed("one device")
    again, other = RunFolder(tmp_path / "again"), RunFolder(tmp_path / "other")
    training.fit(load(whole.config_file), again)
    assert_same(again, whole)
    training.fit(load(whole.config_file, ["training.seed=1"]), other)
    losses = [r.load_history()["loss"][0] for r in (other, whole)]
    assert losses[0] != losses[1]


def test_the_run_tells_what_else_made_its_numbers(run):
    (row,) = run.load_json(run.environment_file)["rows"]
    assert row["tensorflow"].startswith("2.")
    assert row["replicas"] == 1
    assert row["cores"] >= 1
    assert row["processor"]
    assert {"python", "keras", "numpy", "devices", "intra_op_threads"} <= set(row)


def test_other_builds_of_tensorflow_have_versions_as_well(monkeypatch):
    def unknown(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    monkeypatch.setenv("TF_CONFIG", "{}")
    monkeypatch.setenv("TF_OTHER", "1")
    row = environment.described(tf.distribute.get_strategy())
    assert row["tensorflow"] == tf.__version__
    assert row["variables"].get("TF_OTHER") == "1"
    assert "TF_CONFIG" not in row["variables"]


@pytest.mark.parametrize("content", [{}, {"rows": 1}, {"rows": ["x"]}])
def test_a_damaged_account_of_them_is_one_line(tmp_path, content):
    run = RunFolder(tmp_path)
    run.save_json(run.environment_file, content)
    with pytest.raises(UserError, match="has no list of rows"):
        environment.note(run, tf.distribute.get_strategy())


def test_a_run_that_goes_on_elsewhere_is_told_so(run, tmp_path, caplog):
    other = RunFolder(tmp_path / "run")
    shutil.copytree(run.path, other.path)
    content = run.load_json(run.environment_file)
    content["rows"][0]["tensorflow"] = "2.0.0"
    other.save_json(other.environment_file, content)
    training.fit(other.resumed_config(), other, resume=True)
    assert "tensorflow 2.0.0, now 2." in caplog.text
    assert len(other.load_json(other.environment_file)["rows"]) == 2
