"""Checkpoints: whatever happens to the last one, a run goes on."""

import keras
import numpy as np
import pytest

from h2mv_tf.errors import UserError
from h2mv_tf.run_folder import Progress, RunFolder

LAST, BEFORE = "last", "before"


def progress(epoch):
    return Progress(epoch=epoch, best_epoch=1, best_loss=0.5, wait=epoch - 1)


@pytest.fixture
def model():
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3)])
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def folder(tmp_path, model):
    """A run of three epochs, whose weights are the number of their epoch."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    for epoch in (1, 2, 3):
        set_weights(model, epoch)
        folder.save_last(model, progress(epoch))
    set_weights(model, 0)
    return folder


def set_weights(model, value):
    for variable in (*model.variables, *model.optimizer.variables):
        variable.assign(np.full(variable.shape, value))


def values(model):
    """All that weights and optimizer hold, where it is the same."""
    variables = (*model.trainable_variables, *model.optimizer.variables)
    return {float(number) for v in variables for number in np.ravel(v.numpy())}


def weights(folder, name):
    return folder.checkpoints / name / "model.weights.h5"


def cut_off(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_the_last_two_epochs_are_kept_and_the_last_is_loaded(folder, model, caplog):
    kept = {path.name for path in folder.checkpoints.iterdir()}
    assert kept == {LAST, BEFORE}
    assert folder.load_last(model) == progress(3)
    assert values(model) == {3.0}
    assert not caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut_off(weights(folder, LAST)),
        lambda folder: flip(weights(folder, LAST)),
        lambda folder: weights(folder, LAST).unlink(),
        lambda folder: (folder.checkpoints / LAST / "progress.json").unlink(),
        lambda folder: cut_off(folder.checkpoints / LAST / "progress.json"),
        lambda folder: (folder.checkpoints / LAST / "progress.json").write_text("{}"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(
    folder, model, damage, caplog
):
    damage(folder)
    assert folder.load_last(model) == progress(2)
    assert values(model) == {2.0}
    (line,) = caplog.text.strip().splitlines()
    assert f"{LAST}' is damaged" in line
    # It does not push out the good one as the training goes on.
    folder.save_last(model, progress(3))
    flip(weights(folder, LAST))
    assert folder.load_last(model) == progress(2)


@pytest.mark.parametrize("killed", ["before its name", "between the names", "later"])
def test_a_training_that_is_killed_while_it_saves_loses_an_epoch_at_most(
    folder, model, monkeypatch, killed
):
    left = {"before its name": 0, "between the names": 1, "later": 2}[killed]
    rename = type(folder.path).rename

    def until_killed(path, target):
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return rename(path, target)

    set_weights(model, 4)
    with monkeypatch.context() as patch:
        patch.setattr(type(folder.path), "rename", until_killed)
        if killed == "later":
            folder.save_last(model, progress(4))
        else:
            with pytest.raises(KeyboardInterrupt):
                folder.save_last(model, progress(4))
    expected = 4 if killed == "later" else 3
    assert folder.resumable
    assert folder.load_last(model) == progress(expected)
    assert values(model) == {float(expected)}
    folder.save_last(model, progress(5))
    assert folder.load_last(model) == progress(5)


def test_where_both_are_damaged_one_line_tells_what_to_do(folder, model):
    for name in (LAST, BEFORE):
        flip(weights(folder, name))
    with pytest.raises(UserError, match="its checkpoints are damaged") as caught:
        folder.load_last(model)
    assert "\n" not in str(caught.value)


def test_a_run_without_a_finished_epoch_is_not_resumed(tmp_path, model):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    assert not folder.resumable
    with pytest.raises(UserError, match="not finished an epoch"):
        folder.load_last(model)
