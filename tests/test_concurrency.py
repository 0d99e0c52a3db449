"""Processes that want the same path: one of them has it, or they share the work."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import unittest.mock
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from cf import grid
from small import SMALL

from h2mv_tf import inference, locks, predictions, training
from h2mv_tf.data.store import Store
from h2mv_tf.data.writing import writing
from h2mv_tf.errors import UnreadableError, UserError
from h2mv_tf.files import made
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.trained import Trained

ROOT = Path(__file__).parents[1]
TEMPLATE = xr.DataArray(np.zeros((3, 2), "float32"), dims=("time", "cell"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def at_once(*commands):
    """Runs commands side by side; status and last line of each."""
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
        )
        for command in commands
    ]
    told = [process.communicate(timeout=300)[0] for process in processes]
    assert not any("Traceback" in text for text in told), told
    return [
        (process.returncode, text.strip().splitlines()[-1])
        for process, text in zip(processes, told, strict=True)
    ]


@pytest.fixture
def holder(tmp_path):
    """A process that has a lock, until it is killed."""

    def holding(file):
        code = (
            "import sys, time; from pathlib import Path; from h2mv_tf import locks\n"
            f"lock = locks.acquire(Path({str(file)!r}), 'busy')\n"
            "print('has it', flush=True); time.sleep(600)"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert process.stdout.readline() == "has it\n"
        return process

    return holding


def test_a_lock_dies_with_its_process(holder, tmp_path):
    process = holder(tmp_path / "lock")
    with pytest.raises(UserError, match="busy"):
        locks.acquire(tmp_path / "lock", "busy")
    process.send_signal(signal.SIGKILL)
    process.wait()
    locks.acquire(tmp_path / "lock", "busy").release()


def test_who_waits_for_a_lock_gets_it(holder, tmp_path):
    process = holder(tmp_path / "lock")
    process.send_signal(signal.SIGKILL)
    with locks.held(tmp_path / "lock", "busy", patience=locks.FOREVER):
        assert process.wait() == -signal.SIGKILL


def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch):
    without = OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    monkeypatch.setattr("fcntl.flock", unittest.mock.Mock(side_effect=without))
    for _ in range(2):  # and is not in the way of the next one
        with pytest.raises(UserError, match="knows no locks"):
            locks.acquire(tmp_path / "lock", "busy")


# Folders


def test_a_folder_that_another_process_makes_is_left_alone(holder, tmp_path):
    partial = tmp_path / ".folder.partial"
    partial.mkdir()
    (partial / "theirs").touch()
    process = holder(tmp_path / ".folder.lock")
    refused = pytest.raises(UserError, match="being written by another process")
    with refused, made(tmp_path / "folder"):
        pytest.fail("both make it")
    assert (partial / "theirs").exists()
    process.kill()
    process.wait()
    with made(tmp_path / "folder") as folder:  # what it has left is gone
        assert not list(folder.iterdir())
        (folder / "mine").touch()
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["mine"]
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_of_many_that_make_a_folder_one_wins(tmp_path):
    """Over and over, so that one comes when another is just done, or has failed."""
    told = set()

    def make(number):
        folder = tmp_path / f"{number // 8}"
        try:
            with made(folder) as partial:
                for name in "abc":
                    (partial / name).write_text(f"{number}")
                if number % 3 == 0:
                    raise UserError("failed")
        except UserError as error:
            if "another process" in str(error):
                make(number)
            else:
                told.add(str(error).partition(" ")[2])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(make, range(240)))
    assert told == {"", "exists. Remove it, or choose another name."}
    assert {path.name for path in tmp_path.iterdir()} == set(map(str, range(30)))
    for folder in tmp_path.iterdir():
        assert len({(folder / name).read_text() for name in "abc"}) == 1


def test_of_many_that_write_a_store_one_wins(tmp_path):
    told = set()

    def write(number):
        path = tmp_path / f"{number // 4}"
        try:
            with writing(path, tile={"cell": 2}, plan={}) as writer:
                writer.declare("tws", TEMPLATE)
                writer.put("tws", np.full((3, 2), number, "float32"))
        except UserError as error:
            told.add(str(error).rpartition(".")[0].rpartition(" ")[2])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(80)))
    assert told == {"name"}
    for path in tmp_path.iterdir():
        assert np.unique(zarr.open_group(path)["tws/data"]).size == 1
    assert {path.name for path in tmp_path.iterdir()} == set(map(str, range(20)))


@pytest.mark.parametrize(
    ("error", "left"), [(UnreadableError("gone"), True), (UserError("wrong"), False)]
)
def test_a_store_goes_on_when_its_source_can_be_read_again(tmp_path, error, left):
    path = tmp_path / "store.zarr"

    def write(fails):
        with writing(path, tile={"cell": 2}, plan={}) as writer:
            held = writer.holds("first")
            writer.declare("tws", TEMPLATE)
            writer.finish("first")
            if fails:
                raise error
            return held

    with pytest.raises(type(error)):
        write(fails=True)
    assert write(fails=False) == left
    assert [file.name for file in tmp_path.iterdir()] == ["store.zarr"]


# Trainings


def test_a_run_that_another_process_trains_is_left_alone(
    run, holder, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "export", lambda model, path: None)
    other = RunFolder(tmp_path / "run")
    shutil.copytree(run.path, other.path)
    process = holder(other.path / "lock")
    with pytest.raises(UserError, match="Another process trains in run folder"):
        training.fit(other.resumed_config(), other, resume=True)
    process.kill()
    process.wait()
    training.fit(other.resumed_config(), other, resume=True)


@pytest.mark.slow
def test_of_two_trainings_in_one_new_folder_one_wins(world, tmp_path):
    run = RunFolder(tmp_path / "run")
    overrides = [f"data.store={world}", *SMALL]
    options = [part for override in overrides for part in ("--set", override)]
    train = [ROOT / "trainers/train.py", "--run-dir", run.path, "--no-results"]
    found = dict(at_once([*train, *options], [*train, *options]))
    assert found.keys() == {0, 2}
    assert "exists" in found[2] or "another process" in found[2]
    assert len(run.load_history()) == 3
    assert Trained.of(run).metrics["test"]


# Stores


def test_of_two_ingests_to_one_store_one_wins(tmp_path):
    source = grid(time=pd.date_range("2001-01-01", periods=60))
    source.to_netcdf(tmp_path / "source.nc")
    ingest = ["-m", "h2mv_tf", "ingest", tmp_path / "source.nc"]
    ingest += ["--to", tmp_path / "store.zarr"]
    found = dict(at_once(ingest, ingest))
    assert found.keys() == {0, 2}
    assert "exists" in found[2] or "another process" in found[2]
    assert len(Store.open(tmp_path / "store.zarr").time) == 60
    assert {file.name for file in tmp_path.iterdir()} == {"source.nc", "store.zarr"}


@pytest.mark.slow
def test_shards_that_run_side_by_side_make_one_store(run, world, tmp_path):
    own = tmp_path / "run"  # each call notes there what it has done
    shutil.copytree(run.path, own)
    predict = ["-m", "h2mv_tf", "predict", own, "--data", world]
    predict += ["--variables", "runoff,swe"]
    shards = [
        [*predict, "--to", tmp_path / "shared.zarr", "--shard", f"{n}/3"]
        for n in (1, 2, 3)
    ]
    assert [status for status, _ in at_once(*shards)] == [0, 0, 0]
    whole = tmp_path / "whole.zarr"
    inference.predict(
        Trained.of(run),
        Store.open(world),
        whole,
        variables=["runoff", "swe"],
        devices=1,
    )
    found, expected = (predictions.load(p) for p in (tmp_path / "shared.zarr", whole))
    for name in ("runoff", "swe"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)
    assert not list(tmp_path.glob(".*"))
