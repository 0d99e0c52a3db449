"""What the commands share: messages, tables, progress, exit status.

Imports neither TensorFlow nor Keras, so that `--help` is there at once.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from h2mv_tf.errors import UserError, printable, told_by_the_system
from h2mv_tf.interruption import Terminated, terminable

# Exit statuses; that of a process that a scheduler has ended asks for another try.
MISTAKE, INTERRUPTED, TERMINATED = 2, 130, 75
INTERRUPTIONS = (INTERRUPTED, TERMINATED)
WIDEST = 160  # columns of a table

console = Console(soft_wrap=True, highlight=False)


@contextlib.contextmanager
def command(*, interrupted: str = "Interrupted.") -> Iterator[None]:
    """Runs a command: our words on the screen, and a mistake in one line.

    A `UserError` ends with status 2, an interruption with 130, SIGTERM with 75, none of
    them with a traceback.

    Args:
        interrupted: What to say when the user or a scheduler interrupts it.
    """
    logging.captureWarnings(True)
    handler = _Screen()
    package = logging.getLogger(__package__)
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    propagate, package.propagate = package.propagate, False
    try:
        with terminable():
            yield
    except UserError as error:
        _end_with(error)
    except Exception as error:
        if (said := told_by_the_system(error)) is None:
            raise
        _end_with(f"{said}.")
    except KeyboardInterrupt as error:
        # What Zarr was writing then is told of, task by task, as the process ends.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        Console(stderr=True, soft_wrap=True).print(interrupted, markup=False)
        sys.exit(TERMINATED if isinstance(error, Terminated) else INTERRUPTED)
    finally:
        package.removeHandler(handler)
        package.propagate = propagate


def _end_with(mistake: object) -> NoReturn:
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"error: {mistake}", markup=False
    )
    sys.exit(MISTAKE)


class _Screen(logging.Handler):
    """Writes above a progress bar, which a stream of its own would break."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(printable(self.format(record)), markup=False)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar on a terminal.

    Args:
        what: What goes on.

    Yields:
        A function to call with the number of parts that are done, and of all.
    """
    with Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as shown:
        task = shown.add_task("", total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Prints a table: the first column to the left, the others to the right."""
    shown = Table(box=box.SIMPLE_HEAD)
    for n, column in enumerate(columns):
        shown.add_column(column, justify="right" if n else "left")
    for row in rows:
        shown.add_row(*map(escape, row))
    console.print(f"\n{title}", markup=False)
    # Wider than a narrow screen, rather than with its words cut off.
    Console(width=WIDEST, highlight=False).print(shown)
