"""Locks between processes: free as soon as their holder is gone, however it went."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import filelock

from h2mv_tf.errors import UserError

FOREVER = -1


def acquire(file: Path, busy: str, *, patience: float = 0) -> filelock.FileLock:
    """Takes a lock; who has it has to release it.

    Args:
        file: That stands for it, in a folder that is there.
        busy: What to say where another process has it.
        patience: Seconds to wait for it, or FOREVER.

    Raises:
        UserError: Another process has it, or the file system knows no locks.
        OSError: The file cannot be made.
    """
    lock = filelock.FileLock(file)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flock not supported")  # told below
        try:
            lock.acquire(timeout=patience)
        except filelock.Timeout as error:
            if not _outlives(lock):
                raise UserError(busy) from error
        except NotImplementedError:  # of older versions of the library
            pass
        else:
            if not _outlives(lock):
                return lock
            lock.release()
    raise UserError(
        f"The file system of '{file.parent}' knows no locks, without which two "
        "processes could write there at once. Choose a folder on another one."
    )


@contextlib.contextmanager
def held(file: Path, busy: str, *, patience: float = 0) -> Iterator[None]:
    """Holds a lock; as of `acquire`."""
    lock = acquire(file, busy, patience=patience)
    try:
        yield
    finally:
        lock.release()


def _outlives(lock: filelock.BaseFileLock) -> bool:
    """Whether a lock is only a file, which stays when its holder is killed.

    The library takes one where the file system knows no others.
    """
    return isinstance(lock, filelock.SoftFileLock)
