"""The journal of a sweep: what its oracle was asked and told, in order.

KerasTuner writes its state file by file, so that a kill between two of them loses a
trial, and its grid and its Gaussian process forget what they knew. A journal loses
its last line at most, and an oracle that is told the same again knows the same again.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from h2mv_tf.documents import parsed_json
from h2mv_tf.errors import UserError, words

DRAWN, ENDED = "drawn", "ended"
# What Hyperband adds to the values that it draws, under the names of KerasTuner's own.
EPOCHS, ROUND, BRACKET, FROM = (
    f"tuner/{word}" for word in ("epochs", "round", "bracket", "trial_id")
)


class Event(NamedTuple):
    """A trial that was drawn, or has ended."""

    kind: Literal["drawn", "ended"]
    trial: str
    # Of what was drawn: the values, and the seed before the draw.
    values: Mapping[str, Any] | None = None
    seed: int | None = None
    worker: str | None = None  # who trains it


class Journal:
    """Events on disk, one a line.

    Args:
        file: Where they are; made where it is not there.
    """

    def __init__(self, file: Path):
        self.file = file

    def __iter__(self) -> Iterator[Event]:
        if self.file.exists():
            for number, line in enumerate(self.file.read_bytes().splitlines(), 1):
                try:
                    yield Event(**parsed_json(line))
                except (ValueError, TypeError) as error:
                    raise UserError(
                        f"Line {number} of '{self.file}' cannot be read: "
                        f"{words(error)}. Copy the sweep folder again, or search anew "
                        "with another --run-dir."
                    ) from error

    def mend(self) -> None:
        """Takes off a last line that a kill has cut."""
        if not self.file.exists():
            return
        content = self.file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.file, len(whole))

    def note(self, event: Event) -> None:
        """Adds an event, which is on the disk when this returns."""
        with self.file.open("ab") as file:
            before = file.tell()
            try:
                file.write(json.dumps(event._asdict()).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:  # half a line would be in the way of the next
                with contextlib.suppress(OSError):
                    os.truncate(self.file, before)
                raise
