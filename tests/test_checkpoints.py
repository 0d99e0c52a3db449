"""Checkpoints: whatever happens to the last one, a run goes on."""

import errno
import json
import os

import keras
import numpy as np
import pytest

from h2mv_tf.checkpoints import Checkpoints, Progress, packed, restore
from h2mv_tf.errors import UserError

LAST, BEFORE = "last", "before"


def progress(epoch):
    return Progress(
        epoch=epoch,
        best_epoch=1,
        best_loss=0.1 + 0.2,  # that no decimal number of some digits is
        wait=epoch - 1,
        batches=3,
        sums={"tws": 1 / 3},
        counts={"tws": 16},
        seconds=1.5,
        waiting=0.5,
    )


@pytest.fixture
def model():
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3)])
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def checkpoints(tmp_path, model):
    """Of three epochs, whose weights are the number of their epoch."""
    found = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        set_weights(model, epoch)
        found.save(model, progress(epoch), best=b"best")
    set_weights(model, 0)
    return found


def set_weights(model, value):
    for variable in (*model.variables, *model.optimizer.variables):
        variable.assign(np.full(variable.shape, value))


def values(model):
    """All that weights and optimizer hold, where it is the same."""
    variables = (*model.trainable_variables, *model.optimizer.variables)
    return {float(number) for v in variables for number in np.ravel(v.numpy())}


def file(checkpoints, name, of="state.npz"):
    return checkpoints.folder / name / of


def cut_off(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_the_last_two_are_kept_and_the_last_is_loaded(checkpoints, model, caplog):
    kept = {path.name for path in checkpoints.folder.iterdir()}
    assert kept == {LAST, BEFORE}
    assert checkpoints.load(model) == (progress(3), b"best")
    assert values(model) == {3.0}
    assert not caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: cut_off(file(found, LAST)),
        lambda found: flip(file(found, LAST)),
        lambda found: file(found, LAST).unlink(),
        lambda found: flip(file(found, LAST, "best.npz")),
        lambda found: file(found, LAST, "best.npz").unlink(),
        lambda found: file(found, LAST, "progress.json").unlink(),
        lambda found: cut_off(file(found, LAST, "progress.json")),
        lambda found: file(found, LAST, "progress.json").write_text("{}"),
        lambda found: file(found, LAST, "progress.json").write_text("[1]"),
        lambda found: file(found, LAST, "progress.json").write_bytes(b"\xff\xfe"),
    ],
)
def test_a_damaged_one_is_told_and_the_one_before_it_used(
    checkpoints, model, damage, caplog
):
    damage(checkpoints)
    assert checkpoints.load(model) == (progress(2), b"best")
    assert values(model) == {2.0}
    (line,) = caplog.text.strip().splitlines()
    assert f"{LAST}' is damaged" in line
    # It does not push out the good one as the training goes on.
    checkpoints.save(model, progress(3), b"best")
    flip(file(checkpoints, LAST))
    assert checkpoints.load(model)[0] == progress(2)
    assert len(list(checkpoints.folder.glob("damaged*"))) == 2  # nothing is removed


def test_one_that_cannot_be_read_now_stays_where_it_is(checkpoints, model, monkeypatch):
    def gone(file):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(file))

    with monkeypatch.context() as patch:
        patch.setattr("h2mv_tf.checkpoints.digest", gone)
        with pytest.raises(UserError, match=r"Stale file handle.*left as it is"):
            checkpoints.load(model)
    assert checkpoints.load(model)[0] == progress(3)


def test_one_of_another_version_stays_where_it_is(checkpoints, model):
    content = json.loads(file(checkpoints, LAST, "progress.json").read_text())
    file(checkpoints, LAST, "progress.json").write_text(
        json.dumps({**content, "of_the_future": 1})
    )
    with pytest.raises(UserError, match=r"is not of this version: .*of_the_future"):
        checkpoints.load(model)
    assert {path.name for path in checkpoints.folder.iterdir()} == {LAST, BEFORE}


@pytest.mark.parametrize(
    "killed", ["before its name", "without another", "between the names", "later"]
)
def test_a_training_that_is_killed_while_it_saves_loses_one_at_most(
    checkpoints, model, monkeypatch, killed
):
    moments = {"before its name": 0, "without another": 1, "between the names": 2}
    left = moments.get(killed, 3)
    rename = type(checkpoints.folder).rename

    def until_killed(path, target):
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return rename(path, target)

    set_weights(model, 4)
    with monkeypatch.context() as patch:
        patch.setattr(type(checkpoints.folder), "rename", until_killed)
        if killed == "later":
            checkpoints.save(model, progress(4), b"best")
        else:
            with pytest.raises(KeyboardInterrupt):
                checkpoints.save(model, progress(4), b"best")
    expected = 4 if killed == "later" else 3
    assert checkpoints.there
    assert checkpoints.load(model)[0] == progress(expected)
    assert values(model) == {float(expected)}
    checkpoints.save(model, progress(5), b"best")
    assert checkpoints.load(model)[0] == progress(5)
    kept = {path.name for path in checkpoints.folder.iterdir()}
    assert kept == {LAST, BEFORE}


def test_where_both_are_damaged_one_line_tells_what_to_do(checkpoints, model):
    for name in (LAST, BEFORE):
        flip(file(checkpoints, name))
    with pytest.raises(UserError, match="are damaged") as caught:
        checkpoints.load(model)
    assert "\n" not in str(caught.value)


def test_the_first_one_has_no_best_weights(tmp_path, model):
    found = Checkpoints(tmp_path)
    assert not found.there
    found.save(model, Progress())
    assert found.load(model) == (Progress(), None)
    assert set(
        json.loads(file(found, LAST, "progress.json").read_text())["sha256"]
    ) == {"state.npz"}


def test_the_best_weights_are_those_of_their_time(tmp_path, model):
    found = Checkpoints(tmp_path)
    set_weights(model, 1)
    best = packed(model.weights)
    set_weights(model, 2)
    found.save(model, progress(1), best)
    restore(model.weights, found.load(model)[1])
    assert {float(x) for v in model.trainable_variables for x in np.ravel(v)} == {1.0}
