"""Checkpoints: from which a training goes on as if it had never stopped.

    checkpoints/last       weights, optimizer and progress; the best weights so far
    checkpoints/before     the one that was saved before it
    checkpoints/damaged    one that could not be read, set aside

Each is there whole, or not at all, and knows what its files have to be. Keras' own
files of weights will not do: where a disk is full, the library beneath them ends the
process.
"""

import contextlib
import io
import json
import logging
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from h2mv_tf.documents import parsed_json
from h2mv_tf.errors import UserError, words
from h2mv_tf.files import DIGEST, digest, sync, write_whole

if TYPE_CHECKING:
    import keras

LAST, BEFORE = NAMES = ("last", "before")
DAMAGED, OLD = "damaged", "old-"
STATE, BEST, PROGRESS = "state.npz", "best.npz", "progress.json"
# What damaged files raise.
UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    zipfile.BadZipFile,
)
logger = logging.getLogger(__name__)


class Progress(NamedTuple):
    """How far a training has come.

    Besides, a checkpoint holds weights and optimizer, whose count of steps is what
    all random numbers of a training follow from.
    """

    epoch: int = 0  # those that are done
    best_epoch: int = 0  # from 1; 0 before any epoch counts
    best_loss: float | None = None  # of validation
    wait: int = 0  # epochs since the best one
    skipped_in_a_row: int = 0  # steps that were not finite, up to now
    # Of the epoch that is begun:
    batches: int = 0  # that are done
    sums: Mapping[str, float] = {}  # terms of the objective over them
    counts: Mapping[str, int] = {}
    skipped: int = 0  # of these batches
    seconds: float = 0.0  # that they took
    waiting: float = 0.0  # of them for data


class Checkpoints:
    """The checkpoints of a training.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def there(self) -> bool:
        """Whether there is one."""
        return any((self.folder / name).is_dir() for name in NAMES)

    def save(
        self, model: "keras.Model", progress: Progress, best: bytes | None = None
    ) -> None:
        """Saves a checkpoint, all or nothing; the last one becomes the one before.

        Args:
            model: Compiled with its optimizer.
            progress: How far it has come.
            best: The weights as they were in the best epoch, of `packed`.

        Raises:
            OSError: It cannot be written.
        """
        partial, last, before = (
            self.folder / name for name in ("partial", LAST, BEFORE)
        )
        shutil.rmtree(partial, ignore_errors=True)
        try:
            self._write(partial, model, progress, best)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)  # makes room
            raise
        if last.exists():
            _clear(before)
            last.rename(before)
        partial.rename(last)
        sync(self.folder)

    def _write(
        self, folder: Path, model: "keras.Model", progress: Progress, best: bytes | None
    ) -> None:
        """Writes the files of a checkpoint, and waits until they are on the disk."""
        folder.mkdir()
        (folder / STATE).write_bytes(packed(state_of(model)))
        if best is not None:
            (folder / BEST).write_bytes(best)
        written = {file.name: digest(file) for file in sorted(folder.iterdir())}
        for name in written:
            sync(folder / name)
        content = {**progress._asdict(), DIGEST: written}
        write_whole(folder / PROGRESS, json.dumps(content, indent=2, allow_nan=False))
        sync(folder)

    def load(self, model: "keras.Model") -> tuple[Progress, bytes | None]:
        """Restores the last checkpoint, or the one before where it is damaged.

        What is damaged is set aside, so that it does not push out the good one. What
        cannot be read for another reason stays where it is.

        Args:
            model: Compiled with its optimizer.

        Returns:
            How far it had come, and the best weights of that time.

        Raises:
            UserError: All are damaged, one cannot be read now, or is of another
                version.
        """
        for folder in (self.folder / name for name in NAMES):
            if not folder.is_dir():
                continue
            try:
                content = _intact(folder)
            except (FileNotFoundError, ValueError) as error:
                logger.warning("Checkpoint '%s' is damaged: %s.", folder, words(error))
                self._set_aside(folder)
                continue
            except OSError as error:  # as of a mount that has gone
                raise UserError(
                    f"Checkpoint '{folder}' cannot be read: {words(error)}. It is left "
                    "as it is: mend this, and try again."
                ) from error
            try:
                progress = Progress(**content)
                best = (folder / BEST).read_bytes() if progress.best_epoch else None
                restore(state_of(model), (folder / STATE).read_bytes())
            except UNREADABLE as error:
                raise UserError(
                    f"Checkpoint '{folder}' is not of this version: {words(error)}. Go "
                    "on with the versions that the run's environment.json tells."
                ) from error
            return progress, best
        raise UserError(
            f"The checkpoints in '{self.folder}' are damaged, so that this run cannot "
            "be resumed. Start anew with another --run-dir."
        )

    def _set_aside(self, folder: Path) -> None:
        """Renames what is damaged; nothing is removed, as it may be mended."""
        number = len(list(self.folder.glob(f"{DAMAGED}*")))
        folder.rename(self.folder / (f"{DAMAGED}-{number}" if number else DAMAGED))


def _intact(folder: Path) -> dict:
    """The progress of a checkpoint whose files are as they were written.

    Raises:
        ValueError: They are not.
        OSError: They are not there, or cannot be read.
    """
    content = parsed_json((folder / PROGRESS).read_text(encoding="utf-8"))
    written = content.pop(DIGEST, None) if isinstance(content, dict) else None
    if not isinstance(written, dict):
        raise ValueError(f"{PROGRESS} tells of no files")
    for name, expected in written.items():
        if digest(folder / name) != expected:
            raise ValueError(f"{name} is not what was written")
    return content


def _clear(folder: Path) -> None:
    """Makes way for another folder, also where a reader holds a file on a network."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(folder.with_name(f"{OLD}{time.time_ns()}"))
    for old in folder.parent.glob(f"{OLD}*"):  # or what a kill has left
        shutil.rmtree(old, ignore_errors=True)


def packed(variables: "Sequence[keras.Variable]") -> bytes:
    """Values of variables, in their order, as an .npz."""
    content = io.BytesIO()
    np.savez(content, *(variable.numpy() for variable in variables))
    return content.getvalue()


def restore(variables: "Sequence[keras.Variable]", content: bytes) -> None:
    """Sets variables to what was packed.

    Args:
        variables: Of the same model.
        content: Of `packed`.

    Raises:
        ValueError: It is of others.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        if len(arrays.files) != len(variables):
            raise ValueError("it is of another model")
        for variable, name in zip(variables, arrays.files, strict=True):
            variable.assign(arrays[name])


def state_of(model: "keras.Model") -> "list[keras.Variable]":
    """What steps change: the weights of a model, and its optimizer."""
    return [*model.weights, *model.optimizer.variables]
