"""Training: from a configuration to a run folder.

`fit` reads the store, checks everything, and only then makes the run folder; it trains
in `training_loop`, and ends with what the best weights come to.
"""

import contextlib
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from h2mv_tf import distribution, environment, plots
from h2mv_tf.checkpoints import restore
from h2mv_tf.config import Config
from h2mv_tf.description import describe
from h2mv_tf.errors import UserError
from h2mv_tf.export import export
from h2mv_tf.failure import Where, record
from h2mv_tf.files import UnwritableError
from h2mv_tf.model import H2MV
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.steps import Evaluation, NotFiniteError, Trainer
from h2mv_tf.task import Task, prepare, trainer_of
from h2mv_tf.trained import Trained
from h2mv_tf.training_loop import TrainingLoop
from h2mv_tf.variables import CLOSED

logger = logging.getLogger(__name__)

PROFILED = (3, 5)  # steps in a profile: the first ones compile


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
        resume: Continue the training of the run folder from its last checkpoint.
        profile: Write a trace of a few steps for TensorBoard.
        callbacks: More Keras callbacks, as a progress bar.
        exports: Whether to export a SavedModel and draw the losses; what is left out is
            made when the run is resumed.

    Raises:
        UserError: The store or the configuration cannot be trained with, a number is
            not finite, another process trains there, or the run folder cannot be
            written. Nothing is written before all input is checked.
        Terminated: A scheduler wants the process to end; a checkpoint is saved.
    """
    if config.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    with contextlib.ExitStack() as stack:
        if not distribution.worker().chief:
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            run = run.copied(Path(scratch) / "run", resume)
        if resume:
            run.require()
            stack.enter_context(run.locked())
            run.keep_changes(config)
        else:
            run.refuse_existing()
        task = prepare(config)
        if not resume:
            with run.made() as made:
                made.save_config(config)
                inputs = task.inputs
                made.save_json(made.normalization_file, inputs.statistics.to_dict())
                describe(made, inputs.survey, inputs.roles, config.split.fold)
            stack.enter_context(run.locked())
        try:
            stack.enter_context(run.logged())
            board = keras.callbacks.TensorBoard(
                str(run.logs),
                write_graph=False,
                profile_batch=PROFILED if profile else 0,
            )
            started = time.perf_counter()
            _fit(config, run, task, (board, *callbacks))
            if exports:
                shutil.rmtree(run.saved_model, ignore_errors=True)
                export(Trained.of(run), run.saved_model)
                plots.loss_curves(run.load_history()).savefig(
                    run.figures / "loss_curves.png", dpi=200
                )
            logger.info("Done in %.0f s.", time.perf_counter() - started)
        except OSError as error:
            hint = " What is there is kept: mend this, and go on with --resume."
            raise UnwritableError.of(run.path, error, hint) from error


def _fit(
    config: Config,
    run: RunFolder,
    task: Task,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains, keeps the best weights, and evaluates them."""
    trainer = trainer_of(
        config, task.inputs.statistics, task.objective, task.penalties, task.strategy
    )
    model = trainer.model
    loop = TrainingLoop(config, run, task, trainer, callbacks)
    environment.note(run, task.strategy)
    if loop.checkpoints.there:
        loop.resume()
    else:
        untrained = _evaluated(config, run, task, trainer, epoch=1)
        run.save_json(run.metrics_file, {"untrained": untrained._asdict()})
    _tell(task)
    loop()

    history = loop.history
    # One that was ended in its warm-up has no other epochs.
    warm = [row for row in history if row["epoch"] > config.warm_up] or history
    best = min(warm, key=lambda row: row["val_loss"])
    if not math.isfinite(best["val_loss"]):
        raise UserError(
            f"In no epoch of '{run.path}' the validation was finite, so that there is "
            f"no best one. Train anew with a training.learning_rate below "
            f"{config.training.learning_rate:g}."
        )
    restore(model.weights, loop.best)
    if model.observed:
        trainer.calibrate(task.validation)
    test = _evaluated(config, run, task, trainer, epoch=len(history))
    if test.residual > CLOSED:
        logger.warning("Water balance residual of %.1e mm d-1.", test.residual)
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


def _evaluated(
    config: Config, run: RunFolder, task: Task, trainer: Trainer, epoch: int
) -> Evaluation:
    """The objective on the test cells."""
    try:
        return trainer.evaluate(task.test)
    except NotFiniteError as error:
        where = Where("test", epoch, error.number + 1)
        raise UserError(record(config, run, task, trainer, error, where)) from error


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
