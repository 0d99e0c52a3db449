"""TensorFlow as the scripts want it; for them, before anything imports it."""

import os
import sys
import tempfile

ENVIRONMENT = {
    # Errors only: a user sees our words.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # What is freed stays at hand. The C library would give it back to the system,
    # and each step of a training would fetch and clear the same pages anew.
    "TF_CPU_ALLOCATOR_USE_BFC": "1",
}


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
