"""The sweep folder: what a search leaves behind, and what continues it.

runs/sweep/
  sweep.yaml        what is searched, and how
  journal.jsonl     what was drawn, and has ended
  trials/0007/      result.json and, for each fold, configuration, log, run folder
  trials.csv  best.yaml  importance.csv  figures/*.png  logs/
"""

import contextlib
import itertools
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pydantic
import yaml

from h2mv_tf import config, locks
from h2mv_tf.config import Config, Provenance, Section
from h2mv_tf.documents import parsed_json
from h2mv_tf.errors import UserError, words
from h2mv_tf.files import write_whole
from h2mv_tf.run_folder import RunFolder, provenance
from h2mv_tf.tuning.journal import EPOCHS
from h2mv_tf.tuning.space import Field, Space

Algorithm = Literal["hyperband", "bayesian", "random", "grid"]


class Settings(Section):
    """What is searched, and how.

    Attributes:
        algorithm: How the next trial is chosen.
        seed: Of the draws.
        max_trials: How many trials, at most; None: as many as the algorithm has.
        brackets: Of Hyperband: trials and epochs of the rounds of each.
        space: The search space.
        configuration: What the fields of the space belong to.
        provenance: What made the sweep.
    """

    algorithm: Algorithm
    seed: int
    max_trials: int | None
    brackets: tuple[tuple[tuple[int, int], ...], ...] = ()
    space: Space
    configuration: Config
    provenance: Provenance | None = None

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that each trial trains."""
        return self.space.folds or (self.configuration.split.fold,)

    @property
    def trials(self) -> int:
        """How many trials there are, at most."""
        if self.brackets:
            return sum(trials for rounds in self.brackets for trials, _ in rounds)
        return self.max_trials

    def trained(self, drawn: Mapping[str, Any], fold: int | None = None) -> Config:
        """A configuration with what was drawn, as a trial trains it.

        Args:
            drawn: By KerasTuner.
            fold: That is trained.

        Raises:
            UserError: The values do not fit together.
        """
        more = {"training.epochs": drawn.get(EPOCHS), "split.fold": fold}
        more = {name: value for name, value in more.items() if value is not None}
        return config.changed(self.configuration, self.space.values(drawn) | more)


class FoldResult(NamedTuple):
    """What the training of a fold has come to."""

    score: float
    epochs: int  # that were trained, early stopping included
    best_epoch: int


class Result(NamedTuple):
    """How a trial has ended."""

    score: float | None  # the mean over the folds
    reason: str | None  # why it has failed
    folds: Mapping[str, FoldResult]
    seconds: float  # since it was begun, or taken up again
    ended: str  # UTC, ISO 8601

    @property
    def failed(self) -> bool:
        """Whether there is no score."""
        return self.score is None


@dataclass(frozen=True)
class SweepFolder:
    """A sweep folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def settings_file(self) -> Path:
        """What is searched, and how."""
        return self.path / "sweep.yaml"

    @property
    def journal_file(self) -> Path:
        """What was drawn, and has ended."""
        return self.path / "journal.jsonl"

    @property
    def trials_file(self) -> Path:
        """A row for each trial."""
        return self.path / "trials.csv"

    @property
    def best_file(self) -> Path:
        """The configuration of the best trial."""
        return self.path / "best.yaml"

    @property
    def importance_file(self) -> Path:
        """Which field matters."""
        return self.path / "importance.csv"

    @property
    def figures(self) -> Path:
        """Figures."""
        return self.path / "figures"

    @property
    def logs(self) -> Path:
        """TensorBoard's."""
        return self.path / "logs"

    def trial(self, trial_id: str) -> "TrialFolder":
        """The folder of a trial."""
        return TrialFolder(self.path / "trials" / trial_id)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps others from searching here.

        Raises:
            UserError: Somebody does, or the folder cannot be made.
        """
        made = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = locks.acquire(
                self.path / "lock",
                f"Another process searches in '{self.path}'. Wait for it, or choose "
                "another --run-dir.",
            )
        except OSError as error:
            raise UserError(
                f"Cannot write to '{self.path}': {error.strerror or error}."
            ) from error
        try:
            yield
        finally:
            lock.release()
            if made and not self.settings_file.exists():  # nothing was begun
                shutil.rmtree(self.path)

    def refuse_foreign(self) -> None:
        """Raises a UserError where there is something else than a sweep."""
        if not self.path.exists():
            return
        try:
            there = {file.name for file in self.path.iterdir()}
        except OSError as error:
            raise UserError(
                f"'{self.path}' is no folder to search in: {error.strerror}. Choose "
                "another --run-dir."
            ) from error
        # What a kill, or a chief that begins just now, has left.
        foreign = {name for name in there if name[:1] != "."} - {"lock"}
        if foreign and not self.settings_file.is_file():
            raise UserError(
                f"'{self.path}' exists and is no sweep folder: it has no "
                f"{self.settings_file.name}. Choose another --run-dir."
            )

    def load_settings(self) -> Settings:
        """What is searched, and how.

        Raises:
            UserError: It cannot be read, or is of another version.
        """
        content = config.read_yaml(self.settings_file, "sweep", Settings)
        try:
            return Settings.model_validate(content)
        except pydantic.ValidationError as error:
            mistake = error.errors()[0]
            place = ".".join(map(str, mistake["loc"]))
            raise UserError(
                f"Sweep '{self.settings_file}' is damaged or of another version: "
                f"{place}: {mistake['msg']}."
            ) from error

    def save_settings(self, settings: Settings) -> None:
        """Writes what is searched, and what made the sweep."""
        if settings.provenance is None:
            settings = settings.model_copy(update={"provenance": provenance()})
        content = settings.model_dump(mode="json", exclude_none=True)
        write_whole(self.settings_file, yaml.safe_dump(content, sort_keys=False))

    def refuse_other(self, wanted: Settings) -> None:
        """Raises a UserError where the sweep was begun with other settings."""
        begun = self.load_settings()
        differing = config.difference(begun.configuration, wanted.configuration)
        for name in ("algorithm", "seed"):
            if getattr(begun, name) != getattr(wanted, name):
                differing = name, getattr(begun, name), getattr(wanted, name)
        for name in Space.model_fields:
            first, second = getattr(begun.space, name), getattr(wanted.space, name)
            if first != second:
                if name == "fields":
                    first, second = _first_difference(first, second)
                differing = f"{name} of the search space", first, second
        if differing is not None:
            what, first, second = differing
            raise UserError(
                f"Sweep folder '{self.path}' was begun with {what}: {first}, which is "
                f"now {second}. Continue it as it was, or choose another --run-dir."
            )


@dataclass(frozen=True)
class TrialFolder:
    """The folder of a trial.

    Attributes:
        path: The folder.
    """

    path: Path

    def run(self, fold: int) -> RunFolder:
        """The run folder of a fold."""
        return RunFolder(self.path / f"fold-{fold:02}")

    def config_file(self, fold: int) -> Path:
        """The configuration to train a fold with."""
        return self.path / f"fold-{fold:02}.yaml"

    def log_file(self, fold: int) -> Path:
        """What the training of a fold has told."""
        return self.path / f"fold-{fold:02}.log"

    def fold_file(self, fold: int) -> Path:
        """What the training of a fold has come to."""
        return self.path / f"fold-{fold:02}.json"

    def lock_file(self, fold: int) -> Path:
        """Held by the process that trains a fold."""
        return self.path / f"fold-{fold:02}.lock"

    @property
    def result_file(self) -> Path:
        """How the trial has ended."""
        return self.path / "result.json"

    def load_fold(self, fold: int) -> FoldResult | None:
        """What the training of a fold has come to; None before it has."""
        if not self.fold_file(fold).is_file():
            return None
        with _readable(self.fold_file(fold)) as content:
            return FoldResult(**content)

    def save_fold(self, fold: int, result: FoldResult) -> None:
        """Writes what the training of a fold has come to."""
        write_whole(self.fold_file(fold), json.dumps(result._asdict()))

    def load_result(self) -> Result | None:
        """How the trial has ended; None before it has."""
        if not self.result_file.is_file():
            return None
        with _readable(self.result_file) as content:
            folds = {name: FoldResult(**of) for name, of in content["folds"].items()}
            return Result(**{**content, "folds": folds})

    def save_result(
        self, folds: Mapping[int, FoldResult], reason: str | None, seconds: float
    ) -> Result:
        """Writes how the trial has ended.

        Args:
            folds: What the trainings have come to.
            reason: Why it has failed; None where it has not.
            seconds: That it took.
        """
        scores = [fold.score for fold in folds.values()]
        result = Result(
            score=None if reason else math.fsum(scores) / len(scores),
            reason=reason,
            folds={str(fold): found for fold, found in folds.items()},
            seconds=seconds,
            ended=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        content = result._asdict() | {
            "folds": {name: fold._asdict() for name, fold in result.folds.items()}
        }
        write_whole(self.result_file, json.dumps(content, indent=2) + "\n")
        return result


def _first_difference(begun: Sequence[Field], wanted: Sequence[Field]) -> tuple:
    """The first two fields that differ, in words."""
    pairs = itertools.zip_longest(begun, wanted)
    return next(
        tuple("none" if field is None else field.words for field in pair)
        for pair in pairs
        if pair[0] != pair[1]
    )


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[dict]:
    """What a JSON file of a trial says, to be understood in the block.

    Raises:
        UserError: It is damaged, or says something else.
    """
    try:
        yield parsed_json(file.read_text("utf-8"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"'{file}' cannot be read: {words(error)}. Remove it, and the same call "
            "trains that part again."
        ) from error
