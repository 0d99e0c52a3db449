"""Interruptions: signals that ask a process to end, heeded where nothing is lost."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# SIGTERM is a scheduler's warning, SIGINT a user's Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(KeyboardInterrupt):
    """A scheduler wants this process to end; the same call would go on later."""


def interrupt(number: int, frame: FrameType | None = None) -> None:
    """Handles a signal at once.

    Args:
        number: Of the signal.
        frame: As a handler is given it.

    Raises:
        Terminated: It is SIGTERM.
        KeyboardInterrupt: It is another one.
    """
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


class Pending:
    """A signal that waits to be heeded."""

    def __init__(self):
        self._number: int | None = None

    def __bool__(self) -> bool:
        return self._number is not None

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """Notes a signal; a second one is heeded at once."""
        if self:
            interrupt(number)
        self._number = number

    def heed(self) -> None:
        """Raises what the signal asks for, if there is one; as of `interrupt`."""
        if self:
            interrupt(self._number)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Makes SIGTERM end what is in the block as Ctrl-C would: all is tidied up."""
    with _handled(interrupt, (signal.SIGTERM,)):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[Pending]:
    """Makes signals wait while the block runs, which asks for them.

    Those that nobody has asked for by its end are heeded then.
    """
    pending = Pending()
    with _handled(pending.handle, SIGNALS):
        yield pending
    pending.heed()


@contextlib.contextmanager
def _handled(handler, signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # which alone may handle signals
        return
    before = {number: signal.getsignal(number) for number in signals}
    # What is ignored, as by nohup, stays so; None is a handler that Python cannot know.
    before = {k: v for k, v in before.items() if v not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)
