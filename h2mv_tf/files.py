"""Files and folders that are there whole, or not at all.

They are written under another name, and get their own when they are.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from h2mv_tf.errors import UserError, told_by_the_system
from h2mv_tf.locks import held

DIGEST = "sha256"


class UnwritableError(UserError):
    """A path that cannot be written, as on a full disk.

    Attributes:
        errno: As of the system's error; None where it has told none.
    """

    errno: int | None = None

    @classmethod
    def of(cls, path: Path, error: OSError, hint: str = "") -> "UnwritableError":
        """What the system says of a path, and what to do."""
        found = cls(f"Cannot write '{path}': {error.strerror or error}.{hint}")
        found.errno = error.errno
        return found


def refuse_existing(path: Path) -> None:
    """Raises a UserError where the path exists."""
    if path.exists():
        raise UserError(f"'{path}' exists. Remove it, or choose another name.")


def partial_of(path: Path) -> Path:
    """Where a path is made before it gets its name."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def only_one(path: Path, *, patience: float = 0) -> Iterator[None]:
    """Holds back the other processes that would make a path.

    The lock is beside what it guards, which is renamed and removed under it.

    Args:
        path: That is made; the folders on the way are, too.
        patience: Seconds to wait for the others.

    Raises:
        UserError: Another process makes it.
        OSError: The folder that it is in cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        told = os.strerror(errno.ENOTDIR)
        raise NotADirectoryError(errno.ENOTDIR, told, path.parent) from error
    lock = path.with_name(f".{path.name}.lock")
    with held(lock, busy(path), patience=patience):
        try:
            yield
        finally:
            # Still locked: who waits finds that the file is gone, and makes another.
            with contextlib.suppress(OSError):  # as of a mount that has gone
                lock.unlink()


def busy(path: Path) -> str:
    """What to say of a path that another process makes."""
    return (
        f"'{path}' is being written by another process. Wait until it is there, or "
        "choose another name."
    )


@contextlib.contextmanager
def made(folder: str | Path) -> Iterator[Path]:
    """Makes a folder of files, which is there only when all of them are.

    Args:
        folder: To make; must not exist.

    Yields:
        Where to write them.

    Raises:
        UserError: It exists, is being made by another process, or cannot be written.
    """
    folder = Path(folder)
    refuse_existing(folder)
    partial = partial_of(folder)
    try:
        with only_one(folder):
            refuse_existing(folder)  # another process may have been faster
            if partial.exists():  # what a call that was killed has left
                shutil.rmtree(partial)
            try:
                partial.mkdir()
                yield partial
                partial.rename(folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except UserError:
        raise
    except Exception as error:  # libraries have kinds of their own for a full disk
        if isinstance(error, OSError):
            raise UnwritableError.of(folder, error) from error
        if (said := told_by_the_system(error)) is None:
            raise
        raise UnwritableError(f"Cannot write '{folder}': {said}.") from error


def write_whole(file: Path, text: str) -> None:
    """Writes a text file, all or nothing, over the one that is there."""
    # Of this process alone: another one may write it at the same time.
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as content:
            content.write(text)
            content.flush()
            os.fsync(content.fileno())  # on the disk before its name is
        os.replace(partial, file)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    sync(file.parent)


def digest(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, DIGEST).hexdigest()


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if os.name == "nt":  # which syncs neither folders nor what is only read
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
