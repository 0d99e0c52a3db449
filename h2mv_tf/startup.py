"""TensorFlow as the scripts want it; for them, before anything imports it."""

import os
import sys
import tempfile
from pathlib import Path

ENVIRONMENT = {
    # Errors only: a user sees our words.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # What is freed stays at hand. The C library would give it back to the system,
    # and each step of a training would fetch and clear the same pages anew.
    "TF_CPU_ALLOCATOR_USE_BFC": "1",
    # Of the same numbers oneDNN's matrix product now and then makes another last digit.
    "TF_ENABLE_ONEDNN_OPTS": "0",
}

# What Linux tells: the memory maps of this process, and how many one may have.
MAPS = Path("/proc/self/maps")
MOST_MAPS = Path("/proc/sys/vm/max_map_count")


def import_tensorflow() -> None:
    """Imports TensorFlow, without its chatter and with memory that is used again.

    What the user's environment says goes before. Some libraries write to the
    standard error before they read their log level, so that what they write while
    being imported is held back; an import that fails shows it.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def crowded() -> bool:
    """Whether this process has compiled so much that another one should go on.

    Programs of XLA stay until a process ends, each in some thousand memory maps, of
    which Linux gives a process 65 thousand: the twentieth training would end it.
    """
    if not (MAPS.exists() and MOST_MAPS.exists()):
        return False
    with MAPS.open("rb") as maps:
        return 2 * sum(1 for _ in maps) > int(MOST_MAPS.read_text())


def start_again() -> None:
    """Makes the same call anew, in place of this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
