"""The report: one page on a run or a cross-validation, for a browser.

    write(Path("runs/first"))  # runs/first/report.html

A page that needs nothing but itself: no script, no style sheet, no picture from
elsewhere. It tells what it finds in the folder and which command makes the rest.
"""

import contextlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from h2mv_tf import __version__
from h2mv_tf.data.metadata import readable
from h2mv_tf.errors import UserError
from h2mv_tf.report import contents
from h2mv_tf.report.parts import DAILY

NAME = "report.html"

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader(__name__, "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


_UNIT = re.compile(rf"\[[^]]*\]|[\d.e-]+ {DAILY}")


def _unbroken(text: str) -> Markup:
    """A text in which no line ends within a unit or between it and its number."""
    return Markup(_UNIT.sub(r'<span class="unit">\g<0></span>', str(escape(text))))


_TEMPLATES.filters["unbroken"] = _unbroken


def write(folder: Path, to: Path | None = None) -> Path:
    """Writes the page, over an older one where there is one.

    Args:
        folder: A run folder, or a cross-validation's.
        to: File to write; report.html in the folder by default.

    Returns:
        The file.

    Raises:
        UserError: It is neither folder, something in it cannot be read, or the file
            cannot be written.
    """
    with readable(f"What is in '{folder}'"):
        page = contents.read(Path(folder))
        text = _TEMPLATES.get_template("report.html.j2").render(
            page=page, now=datetime.now(UTC), version=__version__
        )
    to = Path(folder) / NAME if to is None else Path(to)
    partial = to.with_name(to.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(partial, to)
    except OSError as error:
        with contextlib.suppress(OSError):  # as on a disk that cannot be written
            partial.unlink(missing_ok=True)
        raise UserError(f"Cannot write report '{to}': {error.strerror}.") from error
    return to
