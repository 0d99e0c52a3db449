"""One small training, looked at from all sides."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import xarray as xr
import zarr
from small import small_settings as settings

from h2mv_tf import config, inputs, steps, training
from h2mv_tf.data import splits
from h2mv_tf.data.survey import survey
from h2mv_tf.errors import UserError
from h2mv_tf.model import H2MV
from h2mv_tf.noise import PACE
from h2mv_tf.objective import Constraint, Objective
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.untrained import untrained_model

ROOT = Path(__file__).parents[1]
SIZES = {"encoder_units": 6, "code_size": 3, "lstm_units": 5}


@pytest.fixture
def without_export(monkeypatch):
    """For tests of what comes before; it takes longer than their training."""
    monkeypatch.setattr(training, "export", lambda model, path: None)


def test_a_run_folder_holds_all_that_it_should(run):
    for name in (
        "config.yaml",
        "normalization.json",
        "split.zarr",
        "history.csv",
        "logs",
        "environment.json",
        "checkpoints/last/best.npz",
        "checkpoints/before/state.npz",
        "checkpoints/last/state.npz",
        "model.keras",
        "saved_model/saved_model.pb",
        "metrics.json",
        "figures/loss_curves.png",
        "train.log",
    ):
        assert (run.path / name).exists(), name
    assert not list(run.path.rglob("*partial*"))


def test_the_history_has_a_row_for_each_epoch_and_the_terms_add_up(run):
    history = run.load_history()
    assert list(history.epoch) == [1, 2, 3]
    terms = ["tws", "evapotranspiration", "runoff", "swe", "fapar"]
    np.testing.assert_allclose(history[terms].sum(axis=1), history.loss)
    validation = [f"val_{term}" for term in terms]
    np.testing.assert_allclose(history[validation].sum(axis=1), history.val_loss)
    assert np.allclose(history.learning_rate, 0.01)
    assert (history.cell_days_per_second > 0).all()


def test_training_lowers_the_loss_on_the_test_cells(run):
    metrics = run.load_json(run.metrics_file)
    assert metrics["test"]["loss"] < metrics["untrained"]["loss"]
    assert metrics["test"]["residual"] < 1e-3
    assert metrics["best_epoch"] == run.load_history().val_loss.idxmin() + 1


def test_the_best_weights_are_those_that_are_exported(run, world):
    task = training.prepare(settings(world))
    model = keras.models.load_model(run.model_file)
    trainer = steps.Trainer(model, task.objective, jit_compile=False)
    validation = trainer.evaluate(task.validation)
    assert validation.loss == pytest.approx(run.load_history().val_loss.min(), rel=1e-5)


def test_the_run_tells_what_made_it(run):
    provenance = config.load(run.config_file).provenance
    assert provenance.version == "0.1.0"
    assert provenance.created.startswith("20")
    normalization = json.loads(run.normalization_file.read_text())
    assert set(normalization) == {"forcing", "static", "constraints"}
    roles = xr.open_zarr(run.split_store, consolidated=False).role
    assert set(np.unique(roles)) <= set(range(12))
    assert "epoch 3/3" in run.log_file.read_text()


def test_the_configuration_of_a_run_trains_it_again_and_a_resume_ends_as_it_did(
    run, tmp_path, without_export
):
    half = RunFolder(tmp_path / "half")
    training.fit(config.load(run.config_file, ["training.epochs=2"]), half)
    training.fit(half.resumed_config(["training.epochs=3"]), half, resume=True)
    timed = ["cell_days_per_second", "waiting_for_data"]
    whole, resumed = (r.load_history().drop(columns=timed) for r in (run, half))
    pd.testing.assert_frame_equal(resumed, whole, rtol=1e-6)
    assert half.load_json(half.metrics_file)["untrained"]


def test_patience_ends_a_training_and_counts_on_after_a_resume(
    world, tmp_path, without_export
):
    run = RunFolder(tmp_path / "run")
    # So high a rate that nothing improves for long.
    wild = ("training.learning_rate=10", "training.patience=2", "training.epochs=9")
    training.fit(settings(world, *wild), run)
    history = run.load_history()
    assert len(history) < 9
    assert len(history) == history.val_loss.idxmin() + 3
    training.fit(run.resumed_config(["training.epochs=20"]), run, resume=True)
    assert len(run.load_history()) == len(history)


def test_a_run_is_resumed_as_it_was(run):
    with pytest.raises(UserError, match="would change it"):
        run.resumed_config(["training.learning_rate=1"])


def test_the_data_of_test_cells_changes_nothing_in_training(run, world, tmp_path):
    roles = xr.open_zarr(run.split_store, consolidated=False)["role"].values
    shutil.copytree(world, tmp_path / "other.zarr")
    for group in ("rn", "prec", "tair", "static", "tws", "et", "q", "swe", "fapar"):
        array = zarr.open_array(tmp_path / "other.zarr" / group / "data")
        values = array[:]
        values[:, roles == splits.TEST] *= 0.9
        array[:] = values
    other = RunFolder(tmp_path / "other")
    changes = f"data.store={tmp_path / 'other.zarr'}", "training.epochs=2"
    training.fit(config.load(run.config_file, changes), other)
    assert other.load_json(other.normalization_file) == run.load_json(
        run.normalization_file
    )
    timed = ["cell_days_per_second", "waiting_for_data"]
    one, two = (r.load_history().drop(columns=timed)[:2] for r in (run, other))
    pd.testing.assert_frame_equal(one, two, rtol=1e-6)
    untrained = [r.load_json(r.metrics_file)["untrained"]["loss"] for r in (run, other)]
    assert untrained[0] != untrained[1]


def test_a_run_tells_how_far_apart_its_roles_are(run):
    report = run.load_json(run.leakage_file)
    assert report["cells"] == {"train": 38, "validation": 4, "test": 2}
    # The grid has cells of 20 x 25.7 degrees: no two are nearer than some 950 km.
    assert min(report["least_distance_km"].values()) > 900
    assert (run.figures / "roles.png").stat().st_size > 5000


def test_an_existing_folder_is_not_touched(world, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="never overwritten"):
        training.fit(settings(world), RunFolder(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_only_a_run_folder_is_resumed(world, tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        training.fit(settings(world), RunFolder(tmp_path), resume=True)


def test_a_mistake_in_the_data_leaves_no_run_folder(world, tmp_path):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match=r"does not fit a record"):
        training.fit(settings(world, "window.length=5000"), run)
    assert not run.path.exists()


def test_cells_without_observations_cannot_validate(world, monkeypatch):
    split = splits.Split(
        train=np.arange(2, 20), validation=np.array([0]), test=np.array([1])
    )
    monkeypatch.setattr(splits, "split", lambda roles, fold: split)

    def without_observations_in_the_first_cell(*arguments, **options):
        found = survey(*arguments, **options)
        for summary in found.series.values():
            summary.count[0] = 0
        return found

    monkeypatch.setattr(inputs, "survey", without_observations_in_the_first_cell)
    with pytest.raises(UserError, match="None of the 1 validation cells"):
        training.prepare(settings(world))


def test_a_loss_that_is_not_finite_ends_the_training(world, tmp_path):
    run = RunFolder(tmp_path / "run")
    wild = settings(world, "training.learning_rate=1e38", "training.clip_value=1e30")
    with pytest.raises(UserError, match=r"not finite.*learning_rate below"):
        training.fit(wild, run)


def test_each_step_drops_other_units_and_a_seed_the_same_again(world):
    task = training.prepare(settings(world))
    batch = next(iter(task.train.epoch()))

    def losses(seed, dropout=0.4):
        """Of steps that see the same windows and change nothing."""
        keras.utils.set_random_seed(1)
        model = H2MV(10, **SIZES, dropout=dropout)
        trainer = steps.Trainer(
            model,
            task.objective,
            keras.optimizers.SGD(0.0),
            jit_compile=False,
            seed=seed,
        )
        return [float(trainer.step(batch)["swe"].total) for _ in range(3)]

    first, other = losses(0), losses(1)
    assert losses(0) == pytest.approx(first, rel=1e-6)
    # Six draws, of which no two are the same.
    assert np.diff(sorted([*first, *other])).min() > 1e-5 * first[0]
    plain = losses(0, dropout=0.0)
    assert plain == pytest.approx([plain[0]] * 3, rel=1e-6)


def test_an_evaluation_drops_nothing(world):
    task = training.prepare(settings(world))
    found = []
    for dropout in (0.0, 0.4):
        keras.utils.set_random_seed(1)
        model = H2MV(10, **SIZES, dropout=dropout)
        trainer = steps.Trainer(model, task.objective, jit_compile=False)
        found.append(trainer.evaluate(task.validation))
    assert found[1].terms == pytest.approx(found[0].terms, rel=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_xla_takes_the_same_step(dropout, world):
    task = training.prepare(settings(world, "training.precision=float64"))
    batch = next(iter(task.train.epoch()))
    updated = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(1)
        model = H2MV(10, **SIZES, dropout=dropout, dtype="float64")
        optimizer = keras.optimizers.SGD(0.1)
        trainer = steps.Trainer(
            model, task.objective, optimizer, jit_compile=jit_compile
        )
        trainer.step(batch)
        updated.append(model.get_weights())
    for plain, compiled in zip(*updated, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-9, atol=1e-12)


def test_windows_that_fill_a_batch_change_no_gradient(world):
    """A batch with filling windows updates as the same windows alone."""
    task = training.prepare(settings(world, "training.precision=float64"))
    batch = next(iter(task.train.epoch()))
    alone = tf.nest.map_structure(lambda x: x[:10], batch)
    filled = dict(alone, targets=dict(alone["targets"]))
    for name in ("forcing", "static", "month", "spin_up_forcing", "weight"):
        filled[name] = batch[name]
    for name, target in batch["targets"].items():
        missing = tf.fill(tf.shape(target[10:]), tf.constant(np.nan, target.dtype))
        filled["targets"][name] = tf.concat([target[:10], missing], 0)
    updated = []
    for given in (alone, filled):
        keras.utils.set_random_seed(1)
        model = H2MV(10, **SIZES, dtype="float64")
        trainer = steps.Trainer(
            model, task.objective, keras.optimizers.SGD(0.1), jit_compile=False
        )
        trainer.step(given)
        updated.append(model.get_weights())
    for one, other in zip(*updated, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


VARIATIONAL = (
    "objective.likelihood=normal",
    "uncertainty.posterior=variational",
    "uncertainty.rank=2",
)


@pytest.mark.parametrize(
    ("overrides", "penalties"),
    [
        (
            ("objective.likelihood=student_t", "priors.baseflow_fraction=null"),
            ("prior_soil_water_capacity", "prior_snowfall_correction"),
        ),
        (VARIATIONAL, ("kl_soil_water_capacity", "kl_weights")),
    ],
)
def test_with_a_likelihood_priors_are_terms_of_the_history(
    world, tmp_path, without_export, overrides, penalties
):
    run = RunFolder(tmp_path / "run")
    training.fit(settings(world, *overrides), run)
    history = run.load_history()
    for name in (*penalties, "tws", "swe"):
        assert np.isfinite(history[[name, f"val_{name}"]]).all(axis=None), name
    assert not {"kl_weights", "prior_baseflow_fraction"} - set(penalties) & set(history)
    assert history.loss.iloc[-1] < history.loss.iloc[0]
    metrics = run.load_json(run.metrics_file)
    assert "nats" in metrics["measure"]
    assert metrics["test"]["loss"] < metrics["untrained"]["loss"]
    trained = keras.models.load_model(run.model_file)
    found = {k: float(v.deviation) for k, v in trained.noise().items()}
    assert found.keys() == {"tws", "evapotranspiration", "runoff", "swe", "fapar"}
    assert all(deviation != 1 for deviation in found.values())
    inflation = trained.observation_noise.inflation.numpy()
    assert np.all((inflation >= 0.5) & (inflation <= 10))
    assert np.any(inflation != 1)


def test_noise_is_widened_to_the_errors_at_cells_that_trained_nothing(world):
    """A model that is told a tenth of its errors is told ten times as much again."""
    given = settings(world, "objective.likelihood=normal")
    task = training.prepare(given)
    model = untrained_model(given, task.inputs.statistics)
    trainer = steps.Trainer(model, task.objective, jit_compile=False)
    layer = model.observation_noise

    def widened(by):
        learned = {
            k: float(v.deviation) for k, v in model.noise(of_others=True).items()
        }
        layer.log_deviation.assign(np.log(np.array(list(learned.values())) / by) / PACE)
        trainer.calibrate(task.validation)
        return layer.inflation.numpy()

    for _ in range(3):  # from wherever it begins
        widened(by=1)
    np.testing.assert_allclose(widened(by=1), 1, rtol=0.06)
    np.testing.assert_allclose(widened(by=3), 3, rtol=0.06)


def test_what_the_posterior_tells_already_is_not_widened_again(world, monkeypatch):
    """Errors of one draw hold the posterior's width; those of all draws do not."""
    given = settings(world, *VARIATIONAL)
    task = training.prepare(given)
    model = untrained_model(given, task.inputs.statistics)
    wide = np.full(model.posterior.size, np.log(np.expm1(0.5)) / PACE)
    model.posterior.raw_deviation.assign(wide)
    layer, found = model.observation_noise, {}
    layer.log_deviation.assign(np.full(5, np.log(0.2)) / PACE)
    for draws in (1, 8):
        monkeypatch.setattr(steps, "DRAWS", draws)
        trainer = steps.Trainer(model, task.objective, jit_compile=False)
        trainer.calibrate(task.validation)
        found[draws] = layer.inflation.numpy()
    assert np.all(found[8] <= found[1] * 1.06)
    assert np.any(found[8] < found[1])


def test_devices_that_share_a_batch_count_what_is_global_once(world):
    """The penalties of two devices are those of one."""
    found = {}
    for devices in (1, 2):
        given = settings(
            world, "objective.likelihood=normal", f"distribution.devices={devices}"
        )
        task = training.prepare(given)
        with task.strategy.scope():
            model = untrained_model(given, task.inputs.statistics)
        trainer = steps.Trainer(
            model,
            task.objective,
            strategy=task.strategy,
            jit_compile=False,
            penalties=task.penalties,
        )
        found[devices] = trainer.evaluate(task.test)
    assert found[1].counts == found[2].counts
    assert found[2].counts["prior_snowfall_correction"] == 1
    for name, term in found[1].terms.items():
        assert found[2].terms[name] == pytest.approx(term, rel=1e-5), name


def test_a_constraint_that_no_test_cell_observes_is_said_to_be_unobserved():
    objective = Objective([Constraint(name="swe", mean=0.0, std=1.0, daily=True)])
    totals = steps.Totals(objective.names)
    targets = {"swe": tf.fill((2, 40), np.float32(np.nan))}
    month = tf.zeros((2, 40), tf.int32)
    totals.add(objective.terms({"swe": tf.ones((2, 40))}, targets, month))
    assert totals.counts == {"swe": 0}
    assert totals.means() == {"swe": 0.0}


@pytest.mark.slow
def test_a_long_training_takes_no_more_memory_than_a_short_one(world, tmp_path):
    """In a process of its own, whose memory is not that of other tests."""
    code = f"""
import keras, psutil
from small import small_settings
from h2mv_tf import training
from h2mv_tf.run_folder import RunFolder
from pathlib import Path

resident = []
note = lambda *_: resident.append(psutil.Process().memory_info().rss)
many = ("training.epochs=60", "training.patience=60")
training.export = lambda model, path: None
training.fit(
    small_settings({str(world)!r}, *many, "training.checkpoint_minutes=1e-9"),
    RunFolder(Path({str(tmp_path)!r}) / "run"),
    callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=note)],
)
print(len(resident), resident[-1] / resident[9])
"""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    epochs, growth = done.stdout.split()[-2:]
    assert epochs == "60"
    assert float(growth) < 1.05
