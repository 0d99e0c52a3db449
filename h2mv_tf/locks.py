"""Locks between processes: free as soon as their holder is gone, however it went."""

import contextlib
import errno
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
    # In place of a lock the library would make a file, which outlives its process.
    lock = filelock.FileLock(file, fallback_to_soft=False)
    try:
        lock.acquire(timeout=patience)
    except filelock.Timeout as error:
        raise UserError(busy) from error
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        raise UserError(
            f"The file system of '{file.parent}' knows no locks, without which two "
            "processes could write there at once. Choose a folder on another one."
        ) from error
    return lock


@contextlib.contextmanager
def held(file: Path, busy: str, *, patience: float = 0) -> Iterator[None]:
    """Holds a lock; as of `acquire`."""
    lock = acquire(file, busy, patience=patience)
    try:
        yield
    finally:
        lock.release()
