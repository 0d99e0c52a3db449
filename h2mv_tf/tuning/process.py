"""Processes that end with the one that started them, and why one has ended."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from h2mv_tf import console

PACKAGE = __package__.partition(".")[0]
ROOT = Path(__file__).parents[2]  # of the package, which need not be installed
STANDARD_INPUT = 0  # not sys.stdin, which a thread would hold as the process ends
FULL = 3  # exit status: the disk is, which is not for a trial to mend
# Somebody wants the search to end, not this process in particular.
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def started(
    module: str,
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
) -> Iterator[subprocess.Popen]:
    """Runs a module of the package as a process; it is killed where this ends first.

    Args:
        module: That calls `end_with_parent`.
        arguments: Of its command line.
        log: Where its output is added.
        environment: Variables beside those of this process.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"{PACKAGE}.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
            start_new_session=True,  # an interruption is for the one that started it
        )
    try:
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.wait()


def end_with_parent() -> None:
    """Ends this process when the one that started it does, however that ends."""

    def watch() -> None:
        os.read(STANDARD_INPUT, 1)  # returns when the other end of the pipe is gone
        os._exit(console.INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


def reason(status: int, log: Path) -> str:
    """Why a process has failed, in one line.

    Args:
        status: What `subprocess` returned for it.
        log: What it told.
    """
    if status < 0:
        known = {number.value: number.name for number in signal.Signals}
        name = known.get(-status, f"signal {-status}")
        memory = ", as the system does where memory runs out" * (name == "SIGKILL")
        return f"the process was ended by {name}{memory}"
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    last = " ".join(lines[-1].split()) if lines else "it told nothing"
    return last.removeprefix("error: ")
