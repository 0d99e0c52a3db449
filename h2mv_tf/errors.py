"""What a user can mend, and how it is told: in one line that every terminal shows.

What others have written, as a name in a store, stands in messages as well. It is cut
where it is long, and signs that no terminal shows are spelled out.
"""

import errno
import os
import re
import reprlib

LONGEST = 1000  # characters of a message
LONG = 100  # characters of what it quotes
MANY = 12  # names that it lists


class UserError(ValueError):
    """Wrong input, told in one line: what happened, what was expected, what to do.

    The commands print it without a traceback and exit with status 2; a notebook shows
    the line alone.
    """

    def __str__(self) -> str:
        return cut(printable(super().__str__()), LONGEST)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows."""
        return [f"{type(self).__name__}: {self}"]


class UnreadableError(UserError):
    """Data that cannot be read now; what is made of them can go on once they can."""


def words(error: BaseException, most: int = 2 * LONG) -> str:
    """What a library says, in one line without a full stop.

    Args:
        error: What it has raised.
        most: Characters, at most.
    """
    try:
        said = told_by_the_system(error) or str(error)
    except Exception:  # as of a number of too many digits
        said = ""
    said = printable(" ".join(str(said)[: 10 * most].split())).rstrip(".")
    return cut(said or type(error).__name__, most)


def told_by_the_system(error: BaseException) -> str | None:
    """What the operating system says, where that is why, as on a full disk.

    Libraries put it into errors of their own: TensorStore into a ValueError, HDF5 into
    a RuntimeError, TensorFlow into one of a dozen.

    Args:
        error: What was raised.

    Returns:
        Its words, with the path where that is known; None where it is another error.
    """
    if isinstance(error, OSError) and error.strerror:
        said = error.strerror
        return f"'{error.filename}': {said}" if error.filename else said
    text = str(error)
    if found := _NUMBER.search(text):
        return os.strerror(int(found[found.lastindex]))
    if os.strerror(errno.ENOSPC) in text:
        return os.strerror(errno.ENOSPC)
    if isinstance(error, RuntimeError) and text == "NetCDF: HDF error":
        return f"{text}, as on a full disk"
    return None


def shown(value: object, most: int = LONG) -> str:
    """A value as Python writes it, however large or deep it is.

    Args:
        value: Of any kind.
        most: Characters, at most.
    """
    try:
        return cut(printable(_SHORT.repr(value)), most)
    except Exception:  # as of a number of too many digits
        return f"a very large {type(value).__name__}"


def listed(names: object, empty: str = "none") -> str:
    """Names, joined by commas; of many the first ones, and how many there are.

    Args:
        names: Of anything.
        empty: What stands where there is none.
    """
    names = list(names)
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return ", ".join(quoted(str(n), LONG // 2) for n in names[:MANY]) + more or empty


def printable(text: str) -> str:
    r"""A text in one line, whose other signs than those of a script are spelled out.

    >>> printable("two\nlines, a \x1b")
    'two lines, a \\x1b'
    """
    if text.isprintable():
        return text
    return "".join(
        sign
        if sign.isprintable()
        else " "
        if sign.isspace()
        else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )


def quoted(text: str, most: int = LONG) -> str:
    """What others have written, as it stands in a message: printable, and not long.

    Args:
        text: Theirs.
        most: Characters, at most.
    """
    return cut(printable(text[: 10 * most]), most)


def cut(text: str, most: int) -> str:
    """A text of so many characters, at most; what is left out is in the middle."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 3]}...{text[len(text) - end :]}"


# How TensorStore and HDF5 tell the number of an error of the system.
_NUMBER = re.compile(r"os_error_code='(\d+)'|\[OS error (\d+):|errno = (\d+)")

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 2 * LONG
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = MANY
