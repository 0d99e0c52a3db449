"""The run folder: what a training leaves behind, and what continues it."""

import contextlib
import dataclasses
import json
import logging
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from h2mv_tf import __version__, config
from h2mv_tf.documents import parsed_json
from h2mv_tf.errors import UserError, words
from h2mv_tf.files import made, only_one, write_whole
from h2mv_tf.locks import FOREVER, held

# What may change when a run goes on; all else would change what is trained.
RESUMABLE = (
    "training.epochs",
    "training.patience",
    "training.checkpoint_minutes",
    "training.on_nonfinite",
    "training.most_skipped",
)


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
        copy = RunFolder(path)
        if with_checkpoints:
            self.require()
            for folder in (copy.figures, copy.logs):
                folder.mkdir(parents=True)
            for part in (
                self.config_file,
                self.normalization_file,
                self.history_file,
                self.metrics_file,
            ):
                if part.exists():
                    shutil.copy(part, path)
            shutil.copytree(self.checkpoints, copy.checkpoints)
        return copy

    def require(self) -> None:
        """Raises a UserError where there is no run folder."""
        if not self.config_file.is_file():
            raise UserError(
                f"'{self.path}' is not a run folder: it has no config.yaml. Train one "
                "with: python trainers/train.py --run-dir DIR"
            )

    @contextlib.contextmanager
    def made(self) -> Iterator["RunFolder"]:
        """Makes the folder, which is there only when the block has ended.

        Yields:
            The folder as it grows, to be filled.

        Raises:
            UserError: The path exists, is being made by another process, or cannot be
                written.
        """
        self.refuse_existing()
        with made(self.path) as path:
            partial = RunFolder(path)
            for folder in (partial.checkpoints, partial.figures, partial.logs):
                folder.mkdir()
            yield partial

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other processes from training here.

        Raises:
            UserError: Another one does.
        """
        return held(
            self.path / "lock",
            f"Another process trains in run folder '{self.path}'. Wait for it, or "
            "choose another --run-dir.",
        )

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
    def environment_file(self) -> Path:
        """What besides seed and configuration makes the numbers of the run."""
        return self.path / "environment.json"

    @property
    def failures(self) -> Path:
        """Batches that were not finite."""
        return self.path / "failure"

    @property
    def checkpoints(self) -> Path:
        """The last states of the training, with the best weights."""
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
        begun = config.load(self.config_file)
        settings = config.load(self.config_file, overrides)
        # What follows from the number of epochs stays, too.
        warm_up = settings.uncertainty.model_copy(update={"warm_up": begun.warm_up})
        if begun.warm_up != settings.warm_up:
            settings = settings.model_copy(update={"uncertainty": warm_up})
        return settings

    @property
    def trained(self) -> bool:
        """Whether the training has ended, and its model is there."""
        return self.model_file.is_file() and "test" in self.load_json(self.metrics_file)

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

    def keep_changes(self, settings: config.Config) -> None:
        """Writes a configuration with which the run goes on, for the next time, too."""
        begun = config.load(self.config_file)
        settings = settings.model_copy(update={"provenance": begun.provenance})
        if settings != begun:
            write_whole(self.config_file, settings.to_yaml())

    def save_json(self, file: Path, content: Mapping) -> None:
        """Writes a JSON file of the run."""
        text = json.dumps(content, indent=2, allow_nan=False)
        write_whole(file, text + "\n")

    def load_json(self, file: Path) -> dict:
        """A JSON file of the run.

        Raises:
            UserError: It is gone or damaged.
        """
        try:
            content = parsed_json(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("it is no mapping")
        except (OSError, ValueError) as error:
            raise UserError(
                f"'{file}' cannot be read: {words(error)}. Copy the run folder again."
            ) from error
        return content

    @contextlib.contextmanager
    def logged(self) -> Iterator[None]:
        """Writes what the package tells to the log of the run as well."""
        handler = _Log(self.log_file, encoding="utf-8")
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
            with contextlib.suppress(OSError):
                handler.close()

    def note_predictions(self, predictions: Path, outcome: Mapping) -> None:
        """Notes in the metrics what predictions come to.

        Args:
            predictions: Where they are.
            outcome: Plain numbers and words.
        """
        # Predictions of one run may be made side by side.
        with only_one(self.metrics_file, patience=FOREVER):
            metrics = self.load_json(self.metrics_file)
            noted = {**metrics.get("predictions", {}), str(predictions): dict(outcome)}
            self.save_json(self.metrics_file, {**metrics, "predictions": noted})

    def save_history(self, rows: list[dict[str, float]]) -> None:
        """Writes the history, a row for each epoch."""
        write_whole(self.history_file, pd.DataFrame(rows).to_csv(index=False))

    def load_history(self) -> pd.DataFrame:
        """The history, to the last digit.

        Raises:
            UserError: It is damaged.
        """
        try:
            written = pd.read_csv(self.history_file, dtype=str, keep_default_na=False)
            # Parsers of older versions are wrong in the last digit.
            return written.map(_number).infer_objects()
        except (OSError, ValueError) as error:
            raise UserError(
                f"'{self.history_file}' cannot be read: {words(error)}. Copy the run "
                "folder again, or start anew with another --run-dir."
            ) from error


def _number(text: str) -> int | float:
    return int(text) if text.isdecimal() else float(text or "nan")


class _Log(logging.FileHandler):
    """A log that ends no training: where its disk is full the checkpoint tells it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Tells nothing."""


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
