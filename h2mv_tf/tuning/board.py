"""A sweep as TensorBoard's HParams shows it: a table to sort, filter and plot.

    write("sweeps/first/logs", trials, space.fields, "val_loss")

`tensorboard --logdir sweeps/first/logs` then has a session for each trial.
"""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf
from tensorboard.plugins.hparams import api, api_pb2
from tensorboard.plugins.hparams.summary import session_end_pb

from h2mv_tf.tuning.space import Field

STATUS = {"completed": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}
EPOCHS = "epochs"


def write(
    folder: str | Path, trials: pd.DataFrame, fields: Sequence[Field], objective: str
) -> None:
    """Writes a session for each trial that has ended, in place of older ones.

    Args:
        folder: Of the logs. What is in it goes as soon as all is written.
        trials: The table of trials.
        fields: Of the search space.
        objective: Name of the score.
    """
    folder = Path(folder)
    fresh = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    with _writing(fresh):
        api.hparams_config(
            hparams=[api.HParam(field.name, _domain(field)) for field in fields],
            metrics=[api.Metric(objective), api.Metric(EPOCHS)],
        )
    ended = trials[trials["status"].isin(STATUS)]
    for trial in ended.to_dict("records"):
        _write_session(fresh, trial, fields, objective)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _write_session(
    folder: Path, trial: dict[str, Any], fields: Sequence[Field], objective: str
) -> None:
    """Writes the values of a trial, how it ended, and its score if it has one."""
    name = f"{trial['trial']:04d}"
    values = {
        field.name: _value(field, trial[field.name])
        for field in fields
        if not _missing(trial[field.name])
    }
    end = pd.Timestamp(trial["ended"]).timestamp()
    seconds = 0.0 if _missing(trial["seconds"]) else trial["seconds"]
    with _writing(folder / name):
        api.hparams(values, trial_id=name, start_time_secs=end - seconds)
        if trial["status"] == "completed":
            tf.summary.scalar(objective, trial["score"], step=trial["epochs"])
            tf.summary.scalar(EPOCHS, trial["epochs"], step=trial["epochs"])
        last = session_end_pb(STATUS[trial["status"]], end_time_secs=end)
        tf.summary.experimental.write_raw_pb(last.SerializeToString(), step=0)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """What is written in the block goes into a file of events in the folder."""
    writer = tf.summary.create_file_writer(str(folder))
    with contextlib.closing(writer), writer.as_default():
        yield


def _domain(field: Field) -> api.Domain:
    """The values that a field may take."""
    kind = _kind(field)
    if field.type == "choice":
        values = [_value(field, value) for value in field.values]
        return api.Discrete(values, dtype=kind)
    interval = api.IntInterval if kind is int else api.RealInterval
    return interval(kind(field.min), kind(field.max))


def _kind(field: Field) -> type:
    """The type of a field's values for TensorBoard; text if they have several."""
    if field.type != "choice":
        return {"int": int, "float": float}[field.type]
    kinds = {type(value) for value in field.values}
    if kinds == {int, float}:
        return float
    return kinds.pop() if kinds in ({int}, {float}, {bool}) else str


def _value(field: Field, value: Any) -> bool | int | float | str:
    """A value of a field, in the type that TensorBoard has for it."""
    kind = _kind(field)
    # A column with a gap has 365.0 for 365.
    return f"{value:g}" if kind is str and type(value) is float else kind(value)


def _missing(value: Any) -> bool:
    return not isinstance(value, list | tuple) and bool(pd.isna(value))
