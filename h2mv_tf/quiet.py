"""TensorFlow without its chatter; for scripts, before anything imports it."""

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports TensorFlow with its log level at errors.

    Some of its libraries write to the standard error before they read their log
    level, so that what they write while being imported is held back; an import
    that fails shows it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
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
