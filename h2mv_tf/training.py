"""Training: from a configuration to a run folder.

`fit` reads the store, checks everything, and only then makes the run folder. One
loop of our own serves every distribution strategy: it owns the global counts of
the masked means, which Keras' `fit` hides; optimizer and callbacks are Keras'.
"""

import contextlib
import itertools
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from h2mv_tf import distribution, plots
from h2mv_tf.config import Config
from h2mv_tf.data import pipeline
from h2mv_tf.description import describe
from h2mv_tf.errors import UserError
from h2mv_tf.export import export
from h2mv_tf.inputs import Inputs
from h2mv_tf.inputs import prepare as prepared
from h2mv_tf.model import H2MV
from h2mv_tf.objective import Constraint, Objective
from h2mv_tf.run_folder import Progress, RunFolder
from h2mv_tf.steps import Totals, Trainer
from h2mv_tf.trained import Trained
from h2mv_tf.untrained import untrained_model
from h2mv_tf.variables import CLOSED, VARIABLES

if TYPE_CHECKING:
    from h2mv_tf.penalties import Penalties

logger = logging.getLogger(__name__)

PROFILED = (3, 5)  # steps in a profile: the first ones compile
EPSILON = 1e-8  # of AdamW, as in the published optimizer; Keras' default is 1e-7


class Task(NamedTuple):
    """What is trained on, and what it is held against."""

    inputs: Inputs
    strategy: tf.distribute.Strategy
    objective: Objective
    penalties: "Penalties | None"
    train: pipeline.Stream
    validation: pipeline.Stream
    test: pipeline.Stream


def fit(
    config: Config,
    run: RunFolder,
    *,
    resume: bool = False,
    profile: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    exports: bool = True,
) -> None:
    """Trains a model; its best weights, metrics and exports are in the run folder.

    Where several processes train together, each calls this, and the chief keeps the
    run folder.

    Args:
        config: The configuration.
        run: Run folder to make, or to continue.
        resume: Continue the training of the run folder from its last epoch.
        profile: Write a trace of a few steps for TensorBoard.
        callbacks: More Keras callbacks, as a progress bar.
        exports: Whether to export a SavedModel and draw the losses; what is left out is
            made when the run is resumed.

    Raises:
        UserError: The store or the configuration cannot be trained with, or the
            loss is not finite. Nothing is written before all input is checked.
    """
    with contextlib.ExitStack() as stack:
        if not distribution.worker().chief:
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            run = run.copied(Path(scratch) / "run", resume)
        if resume:
            run.require()
        else:
            run.refuse_existing()
        task = prepare(config)
        if not resume:
            run.create()
            run.save_config(config)
            inputs = task.inputs
            run.save_json(run.normalization_file, inputs.statistics.to_dict())
            describe(run, inputs.survey, inputs.roles, config.split.fold)
        stack.enter_context(run.logged())
        board = keras.callbacks.TensorBoard(
            str(run.logs), write_graph=False, profile_batch=PROFILED if profile else 0
        )
        started = time.perf_counter()
        _fit(config, run, task, resume, (board, *callbacks))
        if exports:
            shutil.rmtree(run.saved_model, ignore_errors=True)
            export(Trained.of(run), run.saved_model)
            plots.loss_curves(run.load_history()).savefig(
                run.figures / "loss_curves.png", dpi=200
            )
        logger.info("Done in %.0f s.", time.perf_counter() - started)


def prepare(config: Config) -> Task:
    """Reads and checks all that a training needs.

    Args:
        config: The configuration.

    Raises:
        UserError: The store cannot be trained with.
    """
    inputs = prepared(config)
    objective, penalties = _objective(config, inputs)
    # All streams share one batch size, so that one program serves them all.
    windows = inputs.windows.plan(inputs.split.train, inputs.survey.observed)
    batch_size = min(config.training.batch_size, len(windows.cell))
    worker = distribution.worker()
    if config.training.batch_size % worker.count:
        raise UserError(
            f"training.batch_size is {config.training.batch_size}, which "
            f"{worker.count} workers cannot share. Choose a multiple of "
            f"{worker.count}."
        )
    strategy = distribution.strategy(config.distribution.devices, batch_size)

    def stream(cells: np.ndarray, seed: int | None = None) -> pipeline.Stream:
        return pipeline.Stream(
            inputs.source,
            inputs.survey.record,
            cells,
            inputs.windows,
            batch_size=-(-batch_size // worker.count),
            multiple=distribution.local_devices(strategy),
            dtype=config.training.precision,
            seed=seed,
            shard=worker,
        )

    return Task(
        inputs=inputs,
        strategy=strategy,
        objective=objective,
        penalties=penalties,
        train=stream(inputs.split.train, config.training.seed),
        validation=stream(inputs.split.validation),
        test=stream(inputs.split.test),
    )


def _objective(config: Config, inputs: Inputs) -> tuple[Objective, "Penalties | None"]:
    """What a model is held against, and what priors add to it."""
    settings, record = config.objective, inputs.survey.record
    constraints = [
        Constraint(name=name, mean=mean, std=std, daily=record.daily[name])
        for name, (mean, std) in inputs.statistics.constraints.items()
    ]
    common = {
        "anomaly_reference": settings.anomaly_reference,
        "saturation": settings.saturation,
    }
    if settings.likelihood == "mse":
        return Objective(constraints, **common), None
    # They import tensorflow-probability, which takes a second.
    from h2mv_tf.likelihood import Likelihood
    from h2mv_tf.penalties import Penalties
    from h2mv_tf.priors import Priors

    cells = inputs.split.train
    objective = Likelihood(
        constraints,
        settings.likelihood,
        observations={
            constraint.name: _observations(constraint, inputs)
            for constraint in constraints
        },
        degrees_of_freedom=settings.degrees_of_freedom,
        autocorrelation=settings.autocorrelation,
        **common,
    )
    uncertainty = config.uncertainty
    penalties = Penalties(
        Priors(config, inputs.survey.store),
        variational=uncertainty.posterior == "variational",
        last_layer=uncertainty.last_layer,
        cells=len(cells),
        scale=objective.scale,
    )
    return objective, penalties


def _observations(constraint: Constraint, inputs: Inputs) -> int:
    """How many observations of a constraint the training cells have."""
    found = inputs.survey.series[constraint.name]
    counts = found.count if constraint.compared_daily else found.months
    return max(int(counts[inputs.split.train].sum()), 1)


def _held(model: H2MV) -> list[keras.Variable]:
    """Weights that observations or priors hold, which no decay is to pull to 0."""
    held = [*model.observation_noise.weights]
    held += [model.cell.snowfall_correction, model.cell.baseflow_fraction]
    if model.variational:
        held += [*model.posterior.trainable_weights]
        held += [part for part in model.uncertain if all(part is not h for h in held)]
    return held


class Checkpoints(keras.callbacks.Callback):
    """Keeps the last state of the training and the best weights.

    Args:
        run: Where to.
        stopping: Knows which epoch is the best; comes before this callback.
    """

    def __init__(self, run: RunFolder, stopping: keras.callbacks.EarlyStopping):
        super().__init__()
        self.run, self.stopping = run, stopping

    def on_epoch_end(self, epoch, logs=None):
        """Writes both."""
        if self.stopping.best_epoch == epoch:
            self.run.save_best(self.model)
        progress = Progress(
            epoch=epoch + 1,
            best_epoch=self.stopping.best_epoch + 1,
            best_loss=self.stopping.best,
            wait=self.stopping.wait,
        )
        self.run.save_last(self.model, progress)


def _fit(
    config: Config,
    run: RunFolder,
    task: Task,
    resume: bool,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains, keeps the best weights, and evaluates them."""
    settings = config.training
    with task.strategy.scope():
        model = untrained_model(config, task.inputs.statistics)
        optimizer = keras.optimizers.AdamW(
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            epsilon=EPSILON,
        )
        # Callbacks and checkpoints find the optimizer on the model.
        model.compile(optimizer=optimizer, jit_compile=False)
        if model.observed:
            optimizer.exclude_from_weight_decay(var_list=_held(model))
        optimizer.build(model.trainable_variables)
    trainer = Trainer(
        model,
        task.objective,
        model.optimizer,
        strategy=task.strategy,
        clip_value=settings.clip_value,
        memory=settings.memory * 1e6,
        jit_compile=settings.jit_compile,
        seed=settings.seed,
        penalties=task.penalties,
    )
    if resume:
        progress = run.load_last(model)
        # An epoch that was cut off before its checkpoint is done again.
        history = run.load_history().to_dict("records")[: progress.epoch]
        logger.info("Continuing after epoch %d of %s.", progress.epoch, run.path)
    else:
        progress, history = None, []
        untrained = trainer.evaluate(task.test)
        run.save_json(run.metrics_file, {"untrained": untrained._asdict()})
    _tell(task)
    _train(config, run, task, trainer, progress, history, callbacks)

    model.load_weights(run.best_weights)
    if model.observed:
        trainer.calibrate(task.validation)
    test = trainer.evaluate(task.test)
    if test.residual > CLOSED:
        logger.warning("Water balance residual of %.1e mm d-1.", test.residual)
    # One that was ended in its warm-up has no other epochs.
    warm = [row for row in history if row["epoch"] > config.warm_up] or history
    best = min(warm, key=lambda row: row["val_loss"])
    metrics = run.load_json(run.metrics_file) | {
        "measure": task.objective.measure,
        "counted": task.objective.counted,
        "test": test._asdict(),
        "best_epoch": best["epoch"],
        "validation_loss": best["val_loss"],
    }
    run.save_json(run.metrics_file, metrics)
    # Free of the devices that it was trained on.
    free = H2MV.from_config(model.get_config())
    free.set_weights(model.get_weights())
    partial = run.model_file.with_name(f".{run.model_file.name}")
    free.save(partial)
    partial.replace(run.model_file)


def _tell(task: Task) -> None:
    """What is trained on, in the log."""
    worker, devices = distribution.worker(), task.strategy.num_replicas_in_sync
    if devices > 1:
        processes = f" of {worker.count} workers" * (worker.count > 1)
        logger.info("Training on %d devices%s.", devices, processes)
    for finding in task.inputs.check.findings:
        logger.info("Note: %s", finding)
    for role in ("train", "validation", "test"):
        stream = getattr(task, role)
        plan = stream.plan()
        skipped = f", {plan.skipped} without observation left out" * bool(plan.skipped)
        logger.info(
            "%s: %d cells, %d windows of %d days%s.",
            role,
            len(stream.cells),
            plan.windows,
            stream.windows.days,
            skipped,
        )


def _train(
    config: Config,
    run: RunFolder,
    task: Task,
    trainer: Trainer,
    progress: Progress | None,
    history: list[dict[str, float]],
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Epochs until the patience or the configured number ends; fills the history."""
    model, settings = trainer.model, config.training
    first = 0 if progress is None else progress.epoch
    stopping = keras.callbacks.EarlyStopping(
        patience=settings.patience,
        mode="min",
        restore_best_weights=False,
        start_from_epoch=config.warm_up,
    )
    listeners = keras.callbacks.CallbackList(
        [
            stopping,
            Checkpoints(run, stopping),
            *callbacks,
        ],
        add_history=False,
        model=model,
        epochs=settings.epochs,
        steps=task.train.plan(first).batches,
        cell_days=task.train.batch_size
        * task.train.windows.days
        * distribution.worker().count,
    )
    listeners.on_train_begin()
    if progress is not None:
        stopping.wait = progress.wait
        stopping.best, stopping.best_epoch = progress.best_loss, progress.best_epoch - 1
    model.stop_training = stopping.wait >= settings.patience
    epochs = range(first, settings.epochs)
    try:
        for epoch, batches in zip(epochs, task.train.epochs(epochs), strict=True):
            if model.stop_training:
                logger.info("No better validation in %d epochs.", settings.patience)
                break
            listeners.on_epoch_begin(epoch)
            warmth = _warmth(config, epoch)
            logs = _epoch(task, trainer, epoch, batches, listeners, warmth)
            _refuse_not_finite(logs, epoch, settings.learning_rate)
            history.append({"epoch": epoch + 1, **logs})
            run.save_history(history)
            listeners.on_epoch_end(epoch, logs)
            logger.info(_in_words(history[-1], settings.epochs, task.objective.names))
    finally:  # an interrupted progress bar would leave the screen without a cursor
        listeners.on_train_end()


def _epoch(
    task: Task,
    trainer: Trainer,
    epoch: int,
    batches: Iterator[dict],
    listeners,
    warmth: float,
) -> dict[str, float]:
    """One pass over the training windows, and the validation after it."""
    totals = Totals(task.objective.names)
    begin, waiting = time.perf_counter(), 0.0
    for step in itertools.count():
        asked = time.perf_counter()
        batch = next(batches, None)
        waiting += time.perf_counter() - asked
        if batch is None:
            break
        listeners.on_train_batch_begin(step)
        totals.add(trainer.step(batch, warmth))
        listeners.on_train_batch_end(step, _logs(totals))
    seconds = time.perf_counter() - begin
    validation = trainer.evaluate(task.validation)
    return {
        **_logs(totals),
        "val_loss": validation.loss,
        **{f"val_{name}": value for name, value in validation.terms.items()},
        **({"warmth": warmth} if trainer.model.observed else {}),
        "learning_rate": float(trainer.optimizer.learning_rate.numpy()),
        "cell_days_per_second": task.train.cell_days(epoch) / seconds,
        "waiting_for_data": waiting / seconds,
    }


def _warmth(config: Config, epoch: int) -> float:
    """How much the weights of a likelihood count: first the simulation comes near."""
    return min((epoch + 1) / (config.warm_up + 1), 1.0)


def _logs(totals: Totals) -> dict[str, float]:
    return {"loss": totals.loss, **totals.means()}


def _refuse_not_finite(logs: Mapping[str, float], epoch: int, rate: float) -> None:
    wrong = [name for name, value in logs.items() if not math.isfinite(value)]
    if wrong:
        raise UserError(
            f"The loss of epoch {epoch + 1} is not finite: {', '.join(wrong)}. Try a "
            f"training.learning_rate below {rate:g}; the epochs before are kept in the "
            "run folder."
        )


def _in_words(row: Mapping[str, float], epochs: int, names: Sequence[str]) -> str:
    terms = ", ".join(f"{VARIABLES[name].group} {row[name]:.3f}" for name in names)
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.3f} ({terms}), "
        f"validation {row['val_loss']:.3f}, "
        f"{row['cell_days_per_second'] / 1000:.3g} thousand cell-days/s, "
        f"{row['waiting_for_data']:.1%} waiting for data"
    )
