"""The progress bar of a training."""

import time

import keras
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from h2mv_tf.console import console
from h2mv_tf.variables import CONSTRAINTS, VARIABLES


class ProgressBar(keras.callbacks.Callback):
    """A bar over the batches of each epoch, with the loss terms and the speed.

    The lines of finished epochs are the log's; the bar shows the one that runs.
    """

    def on_train_begin(self, logs=None):
        """Shows the bar."""
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[terms]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=self.params["steps"], **self._words(0))
        self.bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the epoch's bar."""
        self.begin = time.perf_counter()
        self.bar.reset(self.task, **self._words(epoch))

    def _words(self, epoch: int) -> dict[str, str]:
        return {"epoch": f"{epoch + 1}/{self.params['epochs']}", "terms": ""}

    def on_train_batch_end(self, batch, logs=None):
        """Moves on."""
        cell_days = (batch + 1) * self.params["cell_days"]
        rate = cell_days / (time.perf_counter() - self.begin)
        terms = f"loss {logs['loss']:.2f}"
        for name in CONSTRAINTS:
            if name in logs:
                terms += f" {VARIABLES[name].group} {logs[name]:.2f}"
        self.bar.update(
            self.task, advance=1, terms=f"{terms} {rate / 1000:.0f}k cell-days/s"
        )

    def on_train_end(self, logs=None):
        """Takes the bar away."""
        self.bar.stop()
