"""Failures: a batch that was not finite, with all that it takes to see it again.

failure/epoch-3-batch-12/failure.json    what was not finite, where and when
                         batch.npz       the batch
                         state.npz       weights and optimizer before the step
                         config.yaml, normalization.json   of the run

python -m h2mv_tf replay runs/first/failure/epoch-3-batch-12
"""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from h2mv_tf import config, distribution
from h2mv_tf.checkpoints import UNREADABLE, packed, restore, state_of
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import Moments, Statistics
from h2mv_tf.data.windows import Windows
from h2mv_tf.diagnosis import Finding, diagnose, weight_name
from h2mv_tf.documents import parsed_json
from h2mv_tf.errors import UserError, words
from h2mv_tf.files import made
from h2mv_tf.model import H2MV
from h2mv_tf.objective import Term
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.steps import NotFiniteError, Trainer
from h2mv_tf.task import Evidence, Task, objective_of, trainer_of

logger = logging.getLogger(__name__)

FAILURE, BATCH, STATE = "failure.json", "batch.npz", "state.npz"
CONFIG, NORMALIZATION = "config.yaml", "normalization.json"
MOST = 10  # failures of a run that are recorded; more are only counted
TRAIN = "train"  # role of a batch that is learned from
NESTED = "/"  # between the names of an array within others


class Where(NamedTuple):
    """Where in a training a batch came."""

    role: str  # of its cells: train, validation or test
    epoch: int  # from 1
    batch: int  # from 1
    warmth: float = 1.0  # of the step

    @property
    def learned(self) -> bool:
        """Whether there was a step, and not only an evaluation."""
        return self.role == TRAIN

    @property
    def words(self) -> str:
        """In words, for messages."""
        of = "" if self.learned else f" of the {self.role} cells"
        return f"batch {self.batch}{of} in epoch {self.epoch}"

    @property
    def folder(self) -> str:
        """Name of the folder of its failure."""
        of = "" if self.learned else f"-{self.role}"
        return f"epoch-{self.epoch}{of}-batch-{self.batch}"


class Replay(NamedTuple):
    """What a recorded batch comes to when it is computed again."""

    where: Where
    recorded: dict[str, float]  # mean of each term
    terms: dict[str, float]
    gradient_norms: dict[str, float]  # by weight; none of a batch that was evaluated
    first: str  # the first number that is not finite, in words


def record(
    settings: config.Config,
    run: RunFolder,
    task: Task,
    trainer: Trainer,
    error: NotFiniteError,
    where: Where,
) -> str:
    """Writes a failure, unless the run has many, and tells it in one line.

    Args:
        settings: The configuration.
        run: In which folder.
        task: Of the training.
        trainer: As it was before the step.
        error: What was not finite.
        where: Where in the training.
    """
    found = _diagnosed(trainer, error.batch, error.terms, where)
    seen = _Seen.of(task, where)
    first = _in_words(found, seen)
    line = f"The objective of {where.words} is not finite: {first}."
    folder = run.failures / where.folder
    written = len(list(run.failures.glob("*/"))) if run.failures.is_dir() else 0
    if folder.exists() or written >= MOST:
        return line
    command = f"python -m h2mv_tf replay {folder}"
    content = {
        **where._asdict(),
        "step": int(trainer.optimizer.iterations.numpy()),
        "devices": distribution.local_devices(trainer.strategy),
        "first": first,
        "finding": None if found is None else found._asdict(),
        "terms": {
            name: {"mean": _plain(_mean(term)), "count": _plain(term.count)}
            for name, term in error.terms.items()
        },
        "gradient_norms": {
            name: _plain(norm)
            for name, norm in _norms(trainer.model, error.gradients).items()
        },
        "windows": seen.windows(),
        "evidence": {
            **task.evidence._asdict(),
            "moments": {k: m._asdict() for k, m in task.evidence.moments.items()},
        },
        "replay": command,
    }
    with made(folder) as partial:
        RunFolder(partial).save_json(partial / FAILURE, content)
        np.savez(partial / BATCH, **_flat(error.batch))
        (partial / STATE).write_bytes(packed(state_of(trainer.model)))
        (partial / CONFIG).write_text(settings.to_yaml(), encoding="utf-8")
        shutil.copy(run.normalization_file, partial / NORMALIZATION)
    return f"{line} Look at it again with: {command}."


def devices_of(folder: Path) -> int:
    """How many devices a recorded batch was on.

    Args:
        folder: Of the failure.

    Raises:
        UserError: It is none.
    """
    return _told(folder)["devices"]


def replay(folder: Path) -> Replay:
    """Computes a recorded batch again, on as many devices where there are so many.

    Args:
        folder: Of the failure.

    Raises:
        UserError: It is none, it is damaged, or a prior needs the store, which is gone.
    """
    told, settings = _told(folder), config.load(folder / CONFIG)
    try:
        where = Where(*(told[field] for field in Where._fields))
        evidence = Evidence(**told["evidence"])
        moments = {k: Moments(**m) for k, m in evidence.moments.items()}
        evidence = evidence._replace(moments=moments)
        text = (folder / NORMALIZATION).read_text(encoding="utf-8")
        statistics = Statistics.from_dict(parsed_json(text))
        with np.load(folder / BATCH, allow_pickle=False) as arrays:
            batch = _nested(arrays)
        objective = objective_of(settings, evidence)
        strategy = _strategy(told["devices"])
        trainer = trainer_of(settings, statistics, *objective, strategy)
        restore(state_of(trainer.model), (folder / STATE).read_bytes())
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(
            f"The failure in '{folder}' cannot be read: {words(error)}. Copy it again."
        ) from error
    if where.learned:
        terms, gradients, _ = trainer.differentiate(batch, where.warmth)
    else:
        terms, _ = trainer.compare(batch, where.batch - 1)
        gradients = []
    found = _diagnosed(trainer, batch, terms, where)
    as_told = None if found is None else found._asdict()
    return Replay(
        where=where,
        recorded={name: float(term["mean"]) for name, term in told["terms"].items()},
        terms={name: _mean(term) for name, term in terms.items()},
        gradient_norms=_norms(trainer.model, gradients),
        first=told["first"] if as_told == told["finding"] else _in_words(found, None),
    )


class _Seen(NamedTuple):
    """The windows of a batch, and the store that they are of."""

    store: Store
    source: Windows
    cells: np.ndarray  # (windows,)
    starts: np.ndarray  # (windows,) first days

    @classmethod
    def of(cls, task: Task, where: Where) -> "_Seen":
        stream = getattr(task, where.role)
        windows = stream.windows_of(where.epoch - 1, where.batch - 1)
        return cls(task.inputs.survey.store, stream.windows, *windows)

    def windows(self) -> list[dict[str, object]]:
        """Each in plain words and numbers."""
        places = self.store.cells.isel(cell=self.cells)
        days = self.store.time
        return [
            {
                "cell": int(cell),
                "lat": float(lat),
                "lon": float(lon),
                "first_day": f"{days[start]:%Y-%m-%d}",
                "last_day": f"{days[start + self.source.days - 1]:%Y-%m-%d}",
            }
            for cell, lat, lon, start in zip(
                self.cells,
                places["lat"].values,
                places["lon"].values,
                self.starts,
                strict=True,
            )
        ]

    def day(self, found: Finding) -> str:
        """The date of a finding."""
        start = self.starts[found.window]
        if not found.spin_up:
            day = start + found.day
        elif self.source.full:
            day = found.day
        else:
            day = self.source.before(np.array([start]))[0, found.day]
        return f"{self.store.time[day]:%Y-%m-%d}"


def _diagnosed(
    trainer: Trainer, batch: Mapping, terms: Mapping[str, Term], where: Where
) -> Finding | None:
    return diagnose(
        trainer,
        batch,
        {name: term.count for name, term in terms.items()},
        number=None if where.learned else where.batch - 1,
        warmth=where.warmth,
    )


def _in_words(found: Finding | None, seen: _Seen | None) -> str:
    """What was found, and where: in dates and cells where they are known."""
    if found is None:
        if distribution.worker().count > 1:
            return "a number in the part of another worker"
        return "every number is, computed again one by one"
    words = found.variable
    if found.kind == "gradient":
        words = f"the gradient of {words}"
    elif found.kind == "term":
        words = f"the term of {words}"
    if found.day is not None:
        day = f"day {found.day + 1}" if seen is None else seen.day(found)
        words += f" of {day}" + " in the spin-up" * found.spin_up
    if found.window is not None:
        window = f"window {found.window + 1} of the batch"
        if seen is not None:
            window = seen.store.describe(int(seen.cells[found.window]))
        words += f" at {window}"
    return words


def _told(folder: Path) -> dict:
    file = folder / FAILURE
    if not file.is_file():
        raise UserError(
            f"'{folder}' holds no failure: it has no {FAILURE}. Expected a folder "
            "within the failure/ of a run folder."
        )
    try:
        told = parsed_json(file.read_text(encoding="utf-8"))
        if not isinstance(told["devices"], int):
            raise ValueError("its number of devices is none")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"'{file}' cannot be read: {words(error)}.") from error
    return told


def _strategy(devices: int) -> tf.distribute.Strategy:
    try:
        return distribution.strategy(devices)
    except UserError:
        logger.warning("It was on %d devices, and is on one here.", devices)
        return distribution.strategy(1)


def _norms(model: H2MV, gradients: Sequence[tf.Tensor]) -> dict[str, float]:
    """The norm of the gradient of each weight, in double precision."""
    weights = model.trainable_variables[: len(gradients)]
    return {
        weight_name(weight): float(np.linalg.norm(np.asarray(gradient, "float64")))
        for weight, gradient in zip(weights, gradients, strict=True)
    }


def _mean(term: Term) -> float:
    return float(term.total) / max(float(term.count), 1.0)


def _plain(number) -> float | str:
    """A number as JSON has it; in words where it is not finite."""
    number = float(number)
    return number if math.isfinite(number) else str(number)


def _flat(batch: Mapping) -> dict[str, np.ndarray]:
    """Arrays by name, those within others by both names."""
    flat = {}
    for name, value in batch.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}{NESTED}{k}": v.numpy() for k, v in value.items()}
        else:
            flat[name] = value.numpy()
    return flat


def _nested(arrays: Mapping[str, np.ndarray]) -> dict:
    """The inverse of `_flat`, as tensors."""
    batch: dict = {}
    for name, value in arrays.items():
        outer, within, inner = name.partition(NESTED)
        into = batch.setdefault(outer, {}) if within else batch
        into[inner or name] = tf.constant(value)
    return batch
