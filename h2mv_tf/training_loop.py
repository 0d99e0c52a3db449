"""The loop over epochs, and what it survives.

It goes on from a checkpoint as if it had never stopped: at the same batch, with the
same sums, counters and random numbers. It saves one every few minutes, after each epoch
and where a signal asks it to end. A step that is not finite is told with all that it
was made of, and leaves the weights alone.

One loop of our own serves every distribution strategy: it owns the global counts of
the masked means, which Keras' `fit` hides; optimizer and callbacks are Keras'.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from h2mv_tf import distribution, interruption
from h2mv_tf.checkpoints import Checkpoints, Progress, packed
from h2mv_tf.config import Config
from h2mv_tf.errors import UserError
from h2mv_tf.failure import TRAIN, Where, record
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.steps import NotFiniteError, Totals, Trainer
from h2mv_tf.task import Task
from h2mv_tf.variables import VARIABLES

logger = logging.getLogger(__name__)

MINUTE = 60  # seconds


class TrainingLoop:
    """Epochs of a training, until its patience or their number ends.

    Args:
        config: The configuration.
        run: Where history, checkpoints and failures go.
        task: What is trained on.
        trainer: Takes the steps; its model is compiled with its optimizer.
        callbacks: More Keras callbacks.

    Attributes:
        history: A row for each epoch that is done.
        progress: How far it has come.
        best: The weights of the best epoch, of `checkpoints.packed`.
    """

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        task: Task,
        trainer: Trainer,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ):
        self.config, self.run, self.task, self.trainer = config, run, task, trainer
        self.checkpoints = Checkpoints(run.checkpoints)
        self.history: list[dict[str, float]] = []
        self.best: bytes | None = None
        self.progress = Progress()
        self._chief = distribution.worker().chief
        self._stopping = keras.callbacks.EarlyStopping(
            patience=config.training.patience,
            mode="min",
            restore_best_weights=False,
            start_from_epoch=config.warm_up,
        )
        self._callbacks = (self._stopping, *callbacks)

    def resume(self) -> None:
        """Goes on from the last checkpoint.

        Raises:
            UserError: All checkpoints are damaged, or the history is.
        """
        self.progress, self.best = self.checkpoints.load(self.trainer.model)
        # An epoch that ended after the checkpoint is done again.
        done = self.progress.epoch
        if done:
            self.history = self.run.load_history().to_dict("records")[:done]
        if len(self.history) < done:
            raise UserError(
                f"'{self.run.history_file}' has {len(self.history)} epochs, but the "
                f"checkpoint is of {done}. Copy the whole run folder again, or start "
                "anew with another --run-dir."
            )
        place = f"epoch {done}"
        if self.progress.batches:
            place = f"batch {self.progress.batches} of epoch {done + 1}"
        logger.info("Continuing %s after %s.", self.run.path, place)

    def __call__(self) -> None:
        """Trains.

        Raises:
            UserError: A number is not finite, or the store cannot be read any more.
            Terminated: A scheduler wants the process to end; a checkpoint is saved.
            KeyboardInterrupt: The user does; likewise.
        """
        progress, settings = self.progress, self.config.training
        listeners = keras.callbacks.CallbackList(
            self._callbacks,
            add_history=False,
            model=self.trainer.model,
            epochs=settings.epochs,
            steps=self.task.train.plan(progress.epoch).batches,
            cell_days=self.task.train.batch_size
            * self.task.train.windows.days
            * distribution.worker().count,
        )
        listeners.on_train_begin()
        stopping = self._stopping
        stopping.wait, stopping.best = progress.wait, progress.best_loss
        stopping.best_epoch = max(progress.best_epoch - 1, 0)
        self.trainer.model.stop_training = stopping.wait >= settings.patience
        epochs = range(progress.epoch, settings.epochs)
        streams = self.task.train.epochs(epochs, done=progress.batches)
        try:
            with interruption.deferred() as self._pending:
                self._save()
                for epoch, batches in zip(epochs, streams, strict=True):
                    if self.trainer.model.stop_training:
                        told = "No better validation in %d epochs."
                        logger.info(told, settings.patience)
                        break
                    self._epoch(epoch, batches, listeners)
                    self._checkpoint(whole_epoch=True)
        except tf.errors.OpError:  # as where another worker has heeded it
            self._pending.heed()
            raise
        finally:  # an interrupted progress bar would leave the screen without a cursor
            listeners.on_train_end()

    def _epoch(self, epoch: int, batches: Iterator[dict], listeners) -> None:
        """What is left of an epoch, and the validation after it."""
        warmth = _warmth(self.config, epoch)
        listeners.on_epoch_begin(epoch)
        self._steps(epoch, batches, listeners, warmth)
        progress, names = self.progress, self.task.objective.names
        logs = _means(names, progress) | self._validation(epoch)
        if self.trainer.model.observed:
            logs["warmth"] = warmth
        logs |= {
            "learning_rate": float(self.trainer.optimizer.learning_rate.numpy()),
            "skipped": progress.skipped,
            "cell_days_per_second": self.task.train.cell_days(epoch) / progress.seconds,
            "waiting_for_data": progress.waiting / progress.seconds,
        }
        self.history.append({"epoch": epoch + 1, **logs})
        self.run.save_history(self.history)
        listeners.on_epoch_end(epoch, logs)
        stopping = self._stopping
        if stopping.best_epoch == epoch:
            self.best = packed(self.trainer.model.weights)
        known = stopping.best is not None and math.isfinite(stopping.best)
        self.progress = Progress(
            epoch=epoch + 1,
            best_epoch=stopping.best_epoch + 1,
            best_loss=stopping.best if known else None,
            wait=stopping.wait,
            skipped_in_a_row=progress.skipped_in_a_row,
        )
        logger.info(_in_words(self.history[-1], self.config.training.epochs, names))

    def _steps(
        self, epoch: int, batches: Iterator[dict], listeners, warmth: float
    ) -> None:
        """Takes the steps of an epoch that are left."""
        begin = asked = time.perf_counter()
        before = self.progress
        totals = Totals(self.task.objective.names, before.sums, before.counts)
        waiting = before.waiting
        while (batch := next(batches, None)) is not None:
            waiting += time.perf_counter() - asked
            number = self.progress.batches
            listeners.on_train_batch_begin(number)
            skipped = False
            try:
                totals.add(self.trainer.step(batch, warmth))
            except NotFiniteError as error:
                self._not_finite(error, epoch, number, warmth)
                skipped = True
            self.progress = self.progress._replace(
                batches=number + 1,
                sums=dict(totals.sums),
                counts=dict(totals.counts),
                seconds=before.seconds + time.perf_counter() - begin,
                waiting=waiting,
                skipped=self.progress.skipped + skipped,
                skipped_in_a_row=skipped * (self.progress.skipped_in_a_row + 1),
            )
            listeners.on_train_batch_end(
                number, _means(self.task.objective.names, self.progress)
            )
            self._checkpoint()
            asked = time.perf_counter()

    def _validation(self, epoch: int) -> dict[str, float]:
        """The objective on the validation cells; infinite where it is not finite."""
        try:
            found = self.trainer.evaluate(
                self.task.validation, after_batch=self._checkpoint
            )
        except NotFiniteError as error:
            self._not_finite(error, epoch, error.number)
            terms = dict.fromkeys(error.terms, math.inf)
            return {"val_loss": math.inf, **{f"val_{k}": v for k, v in terms.items()}}
        terms = {f"val_{name}": value for name, value in found.terms.items()}
        return {"val_loss": found.loss, **terms}

    def _not_finite(
        self,
        error: NotFiniteError,
        epoch: int,
        number: int,
        warmth: float | None = None,
    ) -> None:
        """Records a failure, and stops where the configuration says so."""
        settings, learned = self.config.training, warmth is not None
        where = Where(
            role=TRAIN if learned else "validation",
            epoch=epoch + 1,
            batch=number + 1,
            warmth=warmth if learned else 1.0,
        )
        line = record(self.config, self.run, self.task, self.trainer, error, where)
        row = self.progress.skipped_in_a_row + 1
        if settings.on_nonfinite == "skip" and not (
            learned and row > settings.most_skipped
        ):
            logger.warning("%s It is skipped.", line)
            return
        self._save()  # as it was before the step
        many = f"It is number {row} in a row. " * (row > 1)
        raise UserError(
            f"{line} {many}Go on from before it with another training.on_nonfinite "
            f"(--resume --set training.on_nonfinite=skip), or train anew with a "
            f"training.learning_rate below {settings.learning_rate:g}."
        ) from error

    def _checkpoint(self, *, whole_epoch: bool = False) -> None:
        """Saves one where it is time, and heeds a signal that is pending."""
        # Other workers end with the chief, who keeps the run folder.
        ends = self._pending and self._chief
        minutes = (time.monotonic() - self._saved) / MINUTE
        if ends or whole_epoch or minutes >= self.config.training.checkpoint_minutes:
            self._save()
        if ends:
            self._pending.heed()

    def _save(self) -> None:
        self.checkpoints.save(self.trainer.model, self.progress, self.best)
        self._saved = time.monotonic()


def _means(names: Sequence[str], progress: Progress) -> dict[str, float]:
    """The loss, and the mean of each term, of the epoch so far; NaN without a step."""
    totals = Totals(names, progress.sums, progress.counts)
    means = {"loss": totals.loss, **totals.means()}
    none = progress.skipped == progress.batches
    return dict.fromkeys(means, math.nan) if none else means


def _warmth(config: Config, epoch: int) -> float:
    """How much the weights of a likelihood count: first the simulation comes near."""
    return min((epoch + 1) / (config.warm_up + 1), 1.0)


def _in_words(row: Mapping[str, float], epochs: int, names: Sequence[str]) -> str:
    terms = ", ".join(f"{VARIABLES[name].group} {row[name]:.3f}" for name in names)
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.3f} ({terms}), "
        f"validation {row['val_loss']:.3f}, "
        f"{row['cell_days_per_second'] / 1000:.3g} thousand cell-days/s, "
        f"{row['waiting_for_data']:.1%} waiting for data"
    )
