"""The run folder: what a training leaves behind, and what continues it."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from h2mv_tf import __version__, config
from h2mv_tf.errors import UserError

if TYPE_CHECKING:
    import keras

LAST, BEFORE = CHECKPOINTS = ("last", "before")
DAMAGED = "damaged"  # one that was set aside
WEIGHTS, PROGRESS = "model.weights.h5", "progress.json"
DIGEST = "sha256"  # of the weights, in progress.json
logger = logging.getLogger(__name__)

RESUMABLE = ("training.epochs", "training.patience")


class Progress(NamedTuple):
    """How far a training has come; stands beside the weights of a checkpoint."""

    epoch: int  # the last one that is done, from 1
    best_epoch: int
    best_loss: float | None  # of validation; None before any epoch counts
    wait: int  # epochs since the best one


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run folder.

    Attributes:
        path: The folder.
    """

    path: Path

    def refuse_existing(self) -> None:
        """Raises a UserError where the path exists."""
        if self.path.exists():
            raise UserError(
                f"Run folder '{self.path}' exists and is never overwritten. Choose "
                "another --run-dir, or continue it with --resume."
            )

    def copied(self, path: Path, with_checkpoints: bool) -> "RunFolder":
        """A run folder of its own for a worker that is not the chief.

        Args:
            path: Where it may be made.
            with_checkpoints: Whether it goes on from here.

        Raises:
            UserError: There is nothing to go on from.
        """
        if with_checkpoints:
            self.require()
            shutil.copytree(self.path, path)
        return RunFolder(path)

    def require(self) -> None:
        """Raises a UserError where there is no run folder."""
        if not self.config_file.is_file():
            raise UserError(
                f"'{self.path}' is not a run folder: it has no config.yaml. Train one "
                "with: python trainers/train.py --run-dir DIR"
            )

    def create(self) -> None:
        """Makes the folder.

        Raises:
            UserError: The path exists, or cannot be made.
        """
        self.refuse_existing()
        try:
            for folder in (self.checkpoints, self.figures, self.logs):
                folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"Cannot make run folder '{self.path}': {error.strerror}."
            ) from error

    @property
    def config_file(self) -> Path:
        """The resolved configuration, with package version and git commit."""
        return self.path / "config.yaml"

    @property
    def normalization_file(self) -> Path:
        """Moments of inputs and observations, of the training cells."""
        return self.path / "normalization.json"

    @property
    def domain_file(self) -> Path:
        """Ranges of the inputs, of the training cells."""
        return self.path / "domain.json"

    @property
    def split_store(self) -> Path:
        """The role of every cell."""
        return self.path / "split.zarr"

    @property
    def leakage_file(self) -> Path:
        """Cells of each role, and how far apart the roles are."""
        return self.path / "leakage.json"

    @property
    def history_file(self) -> Path:
        """A row for each epoch."""
        return self.path / "history.csv"

    @property
    def metrics_file(self) -> Path:
        """Terms of the objective on the test cells."""
        return self.path / "metrics.json"

    @property
    def log_file(self) -> Path:
        """What was told while training."""
        return self.path / "train.log"

    @property
    def logs(self) -> Path:
        """TensorBoard's."""
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        """The last state of the training and the best weights."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """Figures."""
        return self.path / "figures"

    @property
    def model_file(self) -> Path:
        """The trained model for Keras and this package."""
        return self.path / "model.keras"

    @property
    def saved_model(self) -> Path:
        """The trained model for everybody."""
        return self.path / "saved_model"

    def resumed_config(self, overrides: Sequence[str] = ()) -> config.Config:
        """The configuration of the run, with a new number of epochs or patience.

        Args:
            overrides: As of `config.load`.

        Raises:
            UserError: This is no run folder, or an override changes what is trained.
        """
        self.require()
        for override in overrides:
            if override.partition("=")[0].strip() not in RESUMABLE:
                raise UserError(
                    f"--resume continues a run as it was; '{override}' would change "
                    f"it. Allowed: {', '.join(RESUMABLE)}."
                )
        return config.load(self.config_file, overrides)

    @property
    def trained(self) -> bool:
        """Whether the training has ended, and its model is there."""
        return self.model_file.is_file() and "test" in self.load_json(self.metrics_file)

    @property
    def resumable(self) -> bool:
        """Whether an epoch is finished, from which a training can go on."""
        return any((self.checkpoints / name).is_dir() for name in CHECKPOINTS)

    def refuse_other(self, settings: config.Config) -> None:
        """Raises a UserError where the run was begun with other settings."""
        differing = config.difference(config.load(self.config_file), settings)
        if differing is not None:
            field, begun, wanted = differing
            raise UserError(
                f"Run folder '{self.path}' was begun with {field} = {begun}, which is "
                f"now {wanted}. Continue it as it was, or choose another --run-dir."
            )

    def save_config(self, settings: config.Config) -> None:
        """Writes the configuration with what made the run."""
        settings = settings.model_copy(update={"provenance": provenance()})
        write_whole(self.config_file, settings.to_yaml())

    def save_json(self, file: Path, content: Mapping) -> None:
        """Writes a JSON file of the run."""
        text = json.dumps(content, indent=2, allow_nan=False)
        write_whole(file, text + "\n")

    def load_json(self, file: Path) -> dict:
        """A JSON file of the run."""
        return json.loads(file.read_text(encoding="utf-8"))

    @contextlib.contextmanager
    def logged(self) -> Iterator[None]:
        """Writes what the package tells to the log of the run as well."""
        handler = logging.FileHandler(self.log_file, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        package = logging.getLogger(__package__)
        level = package.level
        package.addHandler(handler)
        package.setLevel(logging.INFO)
        try:
            yield
        finally:
            package.setLevel(level)
            package.removeHandler(handler)
            handler.close()

    def note_predictions(self, predictions: Path, outcome: Mapping) -> None:
        """Notes in the metrics what predictions come to.

        Args:
            predictions: Where they are.
            outcome: Plain numbers and words.
        """
        metrics = self.load_json(self.metrics_file)
        noted = {**metrics.get("predictions", {}), str(predictions): dict(outcome)}
        self.save_json(self.metrics_file, {**metrics, "predictions": noted})

    def save_best(self, model: "keras.Model") -> None:
        """Keeps the weights as the best so far."""
        partial = self.checkpoints / "partial.weights.h5"
        model.save_weights(partial, overwrite=True)
        _sync(partial)
        partial.replace(self.best_weights)

    @property
    def best_weights(self) -> Path:
        """Weights of the epoch with the least validation loss."""
        return self.checkpoints / "best.weights.h5"

    def save_last(self, model: "keras.Model", progress: Progress) -> None:
        """Writes weights, optimizer and progress of an epoch, all or nothing.

        They are on the disk before they count, and those of the epoch before stay.
        """
        partial, last, before = (
            self.checkpoints / name for name in ("partial", LAST, BEFORE)
        )
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        model.save_weights(partial / WEIGHTS)
        _sync(partial / WEIGHTS)
        content = {**progress._asdict(), DIGEST: _digest(partial / WEIGHTS)}
        self.save_json(partial / PROGRESS, content)
        _sync(partial)
        if last.exists():
            shutil.rmtree(before, ignore_errors=True)
            last.rename(before)
        partial.rename(last)
        _sync(self.checkpoints)

    def load_last(self, model: "keras.Model") -> Progress:
        """Restores what `save_last` wrote last, or before where that is damaged.

        What is damaged is set aside.

        Raises:
            UserError: The run has not finished an epoch, or all is damaged.
        """
        there = [self.checkpoints / name for name in CHECKPOINTS]
        there = [folder for folder in there if folder.is_dir()]
        if not there:
            raise UserError(
                f"Run folder '{self.path}' cannot be resumed: it has not finished an "
                "epoch. Start anew with another --run-dir."
            )
        for folder in there:
            try:
                progress = self.load_json(folder / PROGRESS)
                # Older runs know none.
                expected = progress.pop(DIGEST, None)
                if expected not in (None, _digest(folder / WEIGHTS)):
                    raise ValueError("its weights are not those that were written")
                found = Progress(**progress)
                model.load_weights(folder / WEIGHTS)
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                words = (" ".join(str(error).split()) or type(error).__name__)[:200]
                logger.warning("Checkpoint '%s' is damaged: %s.", folder, words)
                # Or the next one that is saved would push out the one before.
                aside = self.checkpoints / DAMAGED
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                continue
            return found
        raise UserError(
            f"Run folder '{self.path}' cannot be resumed: its checkpoints are damaged. "
            "Start anew with another --run-dir."
        )

    def save_history(self, rows: list[dict[str, float]]) -> None:
        """Writes the history, a row for each epoch."""
        write_whole(self.history_file, pd.DataFrame(rows).to_csv(index=False))

    def load_history(self) -> pd.DataFrame:
        """The history."""
        return pd.read_csv(self.history_file)


def write_whole(file: Path, text: str) -> None:
    """Writes a text file, all or nothing, over the one that is there."""
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("w", encoding="utf-8") as content:
        content.write(text)
        content.flush()
        os.fsync(content.fileno())  # on the disk before its name is
    os.replace(partial, file)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, DIGEST).hexdigest()


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if os.name == "nt":  # which syncs neither folders nor what is only read
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def provenance() -> config.Provenance:
    """What makes a run now."""
    return config.Provenance(
        version=__version__,
        commit=git_commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def git_commit() -> str | None:
    """The commit of the source tree; None where it is none."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
