"""What a search shows while it runs: how far it is, and when it will be done."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from scipy.optimize import nnls

from h2mv_tf import console
from h2mv_tf.tuning import oracles, outcome
from h2mv_tf.tuning.folder import Settings, SweepFolder
from h2mv_tf.tuning.table import best


class Display:
    """Tells of trials that have ended, and shows those that run.

    Args:
        folder: Of the sweep.
        settings: Of the sweep.
        bar: Where it is shown.
    """

    def __init__(self, folder: SweepFolder, settings: Settings, bar: Progress):
        self.folder, self.settings = folder, settings
        self.bar = bar
        self.task = bar.add_task("", total=settings.trials, words="")
        self.ended: int | None = None

    def __call__(self, oracle: oracles.Remembering) -> None:
        """Shows how a search is.

        Args:
            oracle: Of the search.
        """
        ended = len(oracle.end_order)
        if ended != self.ended:
            trials = outcome.kept(self.folder, self.settings, oracle)
            if self.ended is not None:
                for trial_id in oracle.end_order[self.ended : ended]:
                    self._tell(trials, int(trial_id), len(oracle.tuner_ids))
            elif ended:
                console.console.print(f"Done before: {ended} trials.")
            self.ended = ended
            self.bar.update(self.task, completed=ended)
        running = [self._running(t.trial_id) for t in [*oracle.ongoing_trials.values()]]
        self.bar.update(self.task, words="; ".join(filter(None, running)))

    def _tell(self, trials: pd.DataFrame, number: int, workers: int) -> None:
        """A line on a trial that has ended."""
        trial = trials.set_index("trial").loc[number]
        objective = self.settings.space.judged_by
        found = best(trials, maximised=objective.maximised)
        if trial["status"] == "failed":
            words = f"failed: {trial['reason']}"
        else:
            words = f"{objective} {trial['score']:.4g}"
            words += f" after {trial['trained_epochs']:g} epochs"
        if found is not None:
            words += f"; best {found['score']:.4g} of trial {found['trial']}"
        left = seconds_left(trials, self.settings, max(workers, 1))
        if left:
            end = datetime.now() + timedelta(seconds=left)
            day = "" if end.date() == datetime.now().date() else f" of {end:%d %B}"
            words += f"; expected end {end:%H:%M}{day}"
        # Their number in the order in which they ended, as they may overtake.
        done = int((trials["status"] != "running").sum())
        console.console.print(
            f"trial {number} ({done} of {self.settings.trials}): {words}",
            markup=False,
            highlight=False,
        )

    def _running(self, trial_id: str) -> str:
        """How far a trial is."""
        for fold in self.settings.folds:
            run = self.folder.trial(trial_id).run(fold)
            if self.folder.trial(trial_id).load_fold(fold) is None:
                if not run.history_file.exists():
                    return f"trial {int(trial_id)}"
                epochs = run.history_file.read_text("utf-8").count("\n") - 1
                return f"trial {int(trial_id)} epoch {epochs}"
        return ""


@contextmanager
def shown(folder: SweepFolder, settings: Settings) -> Iterator[Display]:
    """Shows a search, with a bar on a terminal.

    Args:
        folder: Of the sweep.
        settings: Of the sweep.
    """
    with Progress(
        TextColumn("trials"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
        console=console.console,
        transient=True,
        disable=not console.console.is_terminal,
    ) as bar:
        yield Display(folder, settings, bar)


def seconds_left(
    trials: pd.DataFrame, settings: Settings, workers: int
) -> float | None:
    """How long a search will take from now.

    A trial takes a time to start, and a time for each epoch that it trains.

    Args:
        trials: Its table.
        settings: Of the sweep.
        workers: Trials at a time.
    """
    done = trials[trials["status"] == "completed"]
    if done.empty:
        return None
    epochs = trials.set_index("trial")["trained_epochs"]
    begun = done["promoted_from"].map(epochs).fillna(0)
    new = (done["trained_epochs"] - begun).to_numpy(float)
    design = np.column_stack([np.ones(len(new)), new])
    start, each = nnls(design, done["seconds"].to_numpy(float))[0]
    left = start * (
        settings.trials - len(trials) + (trials["status"] == "running").sum()
    )
    ended = trials[trials["status"] != "running"]
    for number, rounds in enumerate(settings.brackets):
        before = 0
        for place, (count, of_round) in enumerate(rounds):
            mine = (ended["bracket"] == number) & (ended["round"] == place)
            left += (count - mine.sum()) * (of_round - before) * each
            before = of_round
    if not settings.brackets:
        left += (settings.trials - len(ended)) * each * new.mean()
    return max(left, 0) / workers
