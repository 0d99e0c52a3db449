"""A number that is not finite has an author: where, when, and how to see it again."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from scripts import assert_one_line
from small import small_settings

from h2mv_tf import failure, physics, training
from h2mv_tf.commands.replay import command
from h2mv_tf.data.pipeline import Stream
from h2mv_tf.diagnosis import Finding, diagnose
from h2mv_tf.errors import UserError
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.steps import NotFiniteError
from h2mv_tf.task import trainer_of

EPOCH, BATCH, WINDOW, DAY = 1, 3, 4, 41  # from 0
PRECIPITATION = 1


@pytest.fixture(scope="module", autouse=True)
def without_export():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "export", lambda model, path: None)
        yield


def with_value(batch, value, name="forcing", at=(WINDOW, DAY, PRECIPITATION)):
    """A batch with another number in a place."""
    changed = batch[name].numpy().copy()
    changed[at] = value
    return {**batch, name: tf.constant(changed)}


@pytest.fixture
def poisoned(monkeypatch):
    """Streams in which batches of an epoch, or of all validations, are changed."""

    def of(*batches, of="train", epoch=EPOCH, change=with_value, value=np.nan):
        def changed(number, stream):
            for n, batch in enumerate(stream):
                yield (
                    change(batch, value) if number == epoch and n in batches else batch
                )

        epochs, all_of = Stream.epochs, Stream.batches

        def train(stream, numbers, done=0):
            found = epochs(stream, numbers, done)
            for number, some in zip(numbers, found, strict=False):
                yield changed(number, some)

        def validation(stream, number=0):
            wanted = len(stream.cells) == 4  # those of the test are fewer
            return changed(epoch if wanted else -1, all_of(stream, number))

        if of == "train":
            monkeypatch.setattr(Stream, "epochs", train)
        else:
            monkeypatch.setattr(Stream, "batches", validation)

    return of


def stopped(settings, run, resume=False):
    """The line with which a training stops."""
    with pytest.raises(UserError) as caught:
        training.fit(settings, run, resume=resume)
    line = str(caught.value)
    assert "\n" not in line
    return line


def told(run, name=f"epoch-{EPOCH + 1}-batch-{BATCH + 1}"):
    return json.loads((run.failures / name / "failure.json").read_text())


@pytest.fixture(scope="module")
def failed(world, tmp_path_factory):
    """A training of two devices that has stopped at a day without precipitation."""
    run = RunFolder(tmp_path_factory.mktemp("failed") / "run")
    settings = small_settings(world, "distribution.devices=2", "model.dropout=0.1")
    with pytest.MonkeyPatch.context() as patch:
        poisoned.__wrapped__(patch)(BATCH)
        return run, stopped(settings, run)


def test_a_training_stops_and_tells_variable_day_and_cell(failed, world):
    run, line = failed
    (window,) = [told(run)["windows"][WINDOW]]
    first = np.datetime64(window["first_day"]) + DAY
    where = f"cell {window['cell']} (lat {window['lat']:g}, lon {window['lon']:g})"
    assert f"batch 4 in epoch 2 is not finite: precipitation of {first}" in line
    assert f"at {where}" in line
    assert "python -m h2mv_tf replay" in line
    assert "on_nonfinite=skip" in line


def test_the_failure_holds_all_that_the_batch_was_made_of(failed):
    run, _ = failed
    found = told(run)
    assert found["role"] == "train"
    assert found["step"] == 13  # ten batches of the first epoch, three of the second
    assert len(found["windows"]) == 16
    assert {"nan"} == {term["mean"] for term in found["terms"].values()} - {"0.0"}
    assert "nan" in found["gradient_norms"].values()
    folder = run.failures / "epoch-2-batch-4"
    with np.load(folder / "batch.npz", allow_pickle=False) as batch:
        assert np.isnan(batch["forcing"][WINDOW, DAY, PRECIPITATION])
        assert batch["targets/swe"].shape[0] == 16
    names = {file.name for file in folder.iterdir()}
    assert {"state.npz", "config.yaml", "normalization.json"} <= names


def test_replay_shows_it_again(failed, tmp_path):
    """Also where the run folder and its store are not."""
    run, line = failed
    shutil.copytree(run.failures / "epoch-2-batch-4", tmp_path / "mailed")
    result = CliRunner().invoke(command, [str(tmp_path / "mailed")])
    assert result.exit_code == 0, result.output
    (last,) = result.output.strip().splitlines()[-1:]
    assert last.startswith("Not finite: precipitation of ")
    assert last.removeprefix("Not finite: ").rstrip(".") in line
    again = failure.replay(tmp_path / "mailed")
    assert again.recorded == pytest.approx(again.terms, nan_ok=True, rel=1e-6)
    norms = {k: float(v) for k, v in told(run)["gradient_norms"].items()}
    assert again.gradient_norms == pytest.approx(norms, nan_ok=True, rel=1e-6)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "failure.json").unlink(), "holds no failure"),
        (lambda f: (f / "failure.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "failure.json").write_text("[]"), "cannot be read"),
        (lambda f: (f / "batch.npz").write_bytes(b"PK"), "cannot be read"),
        (lambda f: (f / "batch.npz").unlink(), "cannot be read"),
        (lambda f: (f / "state.npz").write_bytes(b""), "cannot be read"),
    ],
)
def test_what_is_no_failure_is_one_line(spoil, words, failed, tmp_path):
    run, _ = failed
    shutil.copytree(run.failures / "epoch-2-batch-4", tmp_path / "copy")
    spoil(tmp_path / "copy")
    result = CliRunner().invoke(command, [str(tmp_path / "copy")])
    assert_one_line(result, words)


def test_a_stopped_training_goes_on_before_the_batch(failed, tmp_path, poisoned):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(failed[0].path, run.path)
    text = (run.checkpoints / "last" / "progress.json").read_text()
    assert json.loads(text)["batches"] == BATCH
    again = run.resumed_config(["training.on_nonfinite=skip"])
    poisoned(0)  # the first one that is left
    training.fit(again, run, resume=True)
    assert list(run.load_history()["skipped"]) == [0, 1, 0]


# Skipping


def test_a_skipped_step_changes_nothing_and_is_counted(world, tmp_path, poisoned):
    import keras

    class Weights(keras.callbacks.Callback):
        """Those of the second epoch, before and after each batch."""

        def on_epoch_begin(self, epoch, logs=None):
            self.after = {-1: self.values()}

        def on_train_batch_end(self, batch, logs=None):
            self.after[batch] = self.values()

        def on_epoch_end(self, epoch, logs=None):
            if epoch == EPOCH:
                self.of_epoch, self.steps = self.after, int(self.values()[-1])

        def values(self):
            optimizer = self.model.optimizer
            found = [v.numpy() for v in (*self.model.variables, *optimizer.variables)]
            return [*found, optimizer.iterations.numpy()]

    poisoned(BATCH, BATCH + 1, value=1e38)
    watch, run = Weights(), RunFolder(tmp_path / "run")
    skipping = small_settings(world, "training.on_nonfinite=skip")
    training.fit(skipping, run, callbacks=[watch])
    for batch in (BATCH, BATCH + 1):
        before, after = watch.of_epoch[batch - 1], watch.of_epoch[batch]
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)
    assert watch.steps == 18
    after, later = watch.of_epoch[BATCH + 1], watch.of_epoch[BATCH + 2]
    assert not all(map(np.array_equal, after, later))
    history = run.load_history()
    assert list(history["skipped"]) == [0, 2, 0]
    assert np.isfinite(history).all(axis=None)
    names = {folder.name for folder in run.failures.iterdir()}
    assert names == {"epoch-2-batch-4", "epoch-2-batch-5"}


def test_more_than_some_skips_in_a_row_stop_it_after_all(world, tmp_path, poisoned):
    poisoned(2, 4, 5, 6)
    run = RunFolder(tmp_path / "run")
    settings = small_settings(
        world, "training.on_nonfinite=skip", "training.most_skipped=2"
    )
    line = stopped(settings, run)
    assert "batch 7 in epoch 2" in line
    assert "It is number 3 in a row" in line


def test_an_epoch_without_a_step_has_no_loss(world, tmp_path, poisoned):
    poisoned(*range(10), epoch=0)
    run = RunFolder(tmp_path / "run")
    training.fit(small_settings(world, "training.on_nonfinite=skip"), run)
    history = run.load_history()
    assert list(history["skipped"]) == [10, 0, 0]
    assert list(history["loss"].isna()) == [True, False, False]
    assert len(list(run.failures.iterdir())) == failure.MOST


@pytest.mark.parametrize("follows", ["stop", "skip"])
def test_a_validation_that_is_not_finite_is_no_best(follows, world, tmp_path, poisoned):
    poisoned(0, of="validation", epoch=0)
    run = RunFolder(tmp_path / "run")
    settings = small_settings(world, f"training.on_nonfinite={follows}")
    if follows == "stop":
        line = stopped(settings, run)
        assert "batch 1 of the validation cells in epoch 1" in line
        assert told(run, "epoch-1-validation-batch-1")["gradient_norms"] == {}
        assert failure.replay(run.failures / "epoch-1-validation-batch-1").first
        return
    line = stopped(settings, run)  # in the end there is nothing that was good
    assert list(run.load_history()["val_loss"]) == [np.inf] * 3
    assert "In no epoch" in line


# Diagnosis


@pytest.fixture(scope="module")
def step(world):
    """A trainer, a batch of it, and the counts of its terms."""
    settings = small_settings(world, "training.precision=float64")
    task = training.prepare(settings)
    trainer = trainer_of(
        settings, task.inputs.statistics, task.objective, None, task.strategy
    )
    batch = next(task.train.batches())
    terms, _, finite = trainer.differentiate(batch)
    assert finite
    return trainer, batch, {name: term.count for name, term in terms.items()}


def test_where_all_is_finite_nothing_is_found(step):
    assert diagnose(*step) is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"name": "static", "at": (2, 1), "value": np.inf},
            Finding("input", "static input 2", 2),
        ),
        (
            {"name": "spin_up_forcing", "at": (5, 7, 0), "value": np.nan},
            Finding("input", "net_radiation", 5, 7, spin_up=True),
        ),
        (
            {"name": "forcing", "at": (5, 7, 2), "value": -np.inf},
            Finding("input", "air_temperature", 5, 7),
        ),
        # That is simulated, but its squared error is beyond.
        (
            {"name": "forcing", "at": (WINDOW, DAY, 1), "value": 1e200},
            Finding("term", "tws", WINDOW),
        ),
    ],
)
def test_the_first_number_that_is_not_finite_is_found(step, changed, expected):
    trainer, batch, counts = step
    batch = with_value(batch, **changed)
    assert not trainer.differentiate(batch).finite
    found = diagnose(trainer, batch, counts)
    assert found == expected


def test_a_weight_that_is_no_number_is_found_first(step):
    trainer, batch, counts = step
    weight = trainer.model.capacity_layer.bias
    before = weight.numpy()
    weight.assign([np.nan])
    try:
        found = diagnose(trainer, with_value(batch, np.nan), counts)
    finally:
        weight.assign(before)
    assert found == Finding("weight", "soil_water_capacity/bias")


def steep(et, nothing):
    """A root of 0, whose slope is infinite, and which adds nothing."""
    root = tf.sqrt(nothing)
    return et + root - tf.stop_gradient(root)


@pytest.mark.parametrize(
    ("wrong", "kind"), [(steep, "gradient"), (lambda et, x: et / x, "value")]
)
def test_a_flux_that_goes_wrong_is_found_by_window_and_day(
    wrong, kind, world, step, monkeypatch
):
    """On days of a certain precipitation."""
    marked, physics_step = 123.25, physics.step

    def spoiled(water, weather, coefficients, parameters):
        water, fluxes = physics_step(water, weather, coefficients, parameters)
        et = fluxes.evapotranspiration
        spoils = weather.precipitation == marked
        nothing = tf.where(spoils, et - tf.stop_gradient(et), tf.ones_like(et))
        et = tf.where(spoils, wrong(et, nothing), et)
        return water, fluxes._replace(evapotranspiration=et)

    monkeypatch.setattr(physics, "step", spoiled)
    _, batch, counts = step
    settings = small_settings(world, "training.precision=float64")
    task = training.prepare(settings)
    trainer = trainer_of(
        settings, task.inputs.statistics, task.objective, None, task.strategy
    )
    with pytest.raises(NotFiniteError) as caught:
        trainer.step(with_value(batch, marked))
    finite = [np.isfinite(term.total) for term in caught.value.terms.values()]
    assert all(finite) == (kind == "gradient")
    found = diagnose(trainer, caught.value.batch, counts)
    assert found == Finding(kind, "evapotranspiration", WINDOW, DAY)
