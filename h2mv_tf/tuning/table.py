"""The trials of a sweep as a table."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from h2mv_tf.tuning.folder import Settings, SweepFolder
from h2mv_tf.tuning.journal import BRACKET, FROM, ROUND

COLUMNS = (
    "trial",
    "status",
    "score",
    "epochs",
    "trained_epochs",
    "best_epoch",
    "seconds",
    "ended",
    "bracket",
    "round",
    "promoted_from",
    "origin",
    "reason",
)


def table(
    folder: SweepFolder,
    settings: Settings,
    drawn: Mapping[str, Mapping[str, Any]],
    ended: Iterable[str],
) -> pd.DataFrame:
    """The trials, one a row, with the columns COLUMNS and one for each field.

    Args:
        folder: Of the sweep.
        settings: Of the sweep.
        drawn: What KerasTuner drew, by the number of the trial.
        ended: Numbers of the trials that have ended.
    """
    ended, origins, rows = set(ended), {}, []
    for trial_id, values in drawn.items():
        result = folder.trial(trial_id).load_result() if trial_id in ended else None
        before = values.get(FROM)
        origins[trial_id] = origins.get(before, int(trial_id))
        row = {
            "trial": int(trial_id),
            "status": "running",
            "epochs": settings.trained(values).training.epochs,
            "bracket": values.get(BRACKET),
            "round": values.get(ROUND),
            "promoted_from": None if before is None else int(before),
            "origin": origins[trial_id],
        }
        if result is not None:
            row |= {
                "status": "failed" if result.failed else "completed",
                "score": result.score,
                "seconds": result.seconds,
                "ended": result.ended,
                "reason": result.reason,
            }
            if result.folds:
                folds = result.folds.values()
                row["trained_epochs"] = np.mean([fold.epochs for fold in folds])
                row["best_epoch"] = np.mean([fold.best_epoch for fold in folds])
        rows.append(row | settings.space.values(values))
    names = [field.name for field in settings.space.fields]
    found = pd.DataFrame(rows, columns=[*COLUMNS, *names])
    found["ended"] = pd.to_datetime(found["ended"], utc=True).dt.tz_localize(None)
    numbers = [
        "score",
        "trained_epochs",
        "best_epoch",
        "seconds",
        "bracket",
        "round",
        "promoted_from",
    ]
    return found.astype(dict.fromkeys(numbers, "float64"))


def best(trials: pd.DataFrame, *, maximised: bool) -> pd.Series | None:
    """The best of the trials that have a score; None where none has."""
    scores = trials["score"].dropna()
    if scores.empty:
        return None
    return trials.loc[scores.idxmax() if maximised else scores.idxmin()]
