"""What a report is made of: sections of facts, tables and figures, and numbers."""

import itertools
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from h2mv_tf.plots import style
from h2mv_tf.variables import VARIABLES

NOTHING = "–"  # noqa: RUF001  stands where there is no number

ROUNDING = 1e-9  # of a bias that is zero by construction, in any units
DAILY = style.units("mm d-1")

# Metrics without units are told to the hundredth, the others as `number` does.
_HUNDREDTHS = ("nse", "kge", "kge_2012", "r", "alpha", "beta")
_TITLES = {
    "nse": "NSE",
    "kge": "KGE",
    "kge_2012": "KGE 2012",
    "alpha": "α",  # noqa: RUF001
    "beta": "β",
    "rmse": "RMSE",
    "ubrmse": "ubRMSE",
    "percent_bias": "bias [%]",
    "h2mv": "H2MV",
    "mean seasonal cycle": "mean season",
}


class Table(NamedTuple):
    """A table.

    Attributes:
        caption: What it shows.
        columns: Heads of the columns.
        rows: Text of the cells, a row after the other.
        heads: How many of the columns name the row; the others are numbers.
        groups: Heads over the columns of numbers, each with how many it spans.
        note: What one has to know to read it.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    heads: int = 1
    groups: Sequence[tuple[str, int]] = ()
    note: str = ""

    @property
    def bodies(self) -> list[list[Sequence[str]]]:
        """The rows, those together that have their first of several heads in common."""
        if self.heads == 1:
            return [list(self.rows)]
        return [list(rows) for _, rows in itertools.groupby(self.rows, lambda r: r[0])]

    def kind(self, column: int) -> str:
        """What a column is to the style sheet: it names rows, or begins a group."""
        if column < self.heads:
            return "head"
        spans = itertools.accumulate((s for _, s in self.groups), initial=self.heads)
        return "start" if self.groups and column in spans else "value"


class Figure(NamedTuple):
    """A figure.

    Attributes:
        name: Name of its file, without suffix.
        caption: What it shows.
        data: The PNG, in base64.
        width: Width on the page [px].
        height: Height on the page [px].
    """

    name: str
    caption: str
    data: str
    width: int
    height: int

    @property
    def alt(self) -> str:
        """Its caption in brief, for those who do not see it."""
        return re.split(r"[.;:]", self.caption, maxsplit=1)[0]


class Verdict(NamedTuple):
    """Whether something is as it should be, and in which words."""

    good: bool
    words: str


class Section(NamedTuple):
    """A section of the page; what it has comes in the order of the attributes.

    Each line of `text` is a paragraph.
    """

    title: str
    verdict: Verdict | None = None
    text: str = ""
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    verbatim: str = ""

    @property
    def anchor(self) -> str:
        """Its address on the page."""
        return re.sub(r"[^a-z]+", "-", self.title.lower())

    @property
    def empty(self) -> bool:
        """Whether it has nothing to show."""
        return not any(self[1:])


def number(value: float | None, metric: str = "") -> str:
    """A number as a table shows it: three digits, or as is usual for a metric.

    >>> number(0.8711833953857422), number(6.48e-05), number(0.8711, "nse")
    ('0.871', '6.48e-05', '0.87')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if metric in _HUNDREDTHS:
        return f"{value:z.2f}"
    if metric == "percent_bias":
        return f"{value:z.1f}"
    if metric == "bias" and abs(value) < ROUNDING:
        value = 0
    if value == 0 or 1000 <= abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".")


def title(name: str) -> str:
    """A variable, metric, model or quantity as it stands over a column."""
    if name in VARIABLES:
        return style.title(name)
    return _TITLES.get(name, name.replace("_", " "))


def label(name: str) -> str:
    """A variable with its units; another name as `title` has it."""
    return style.label(name) if name in VARIABLES else title(name)


def rate(value: float) -> str:
    """A number in mm a day."""
    return f"{number(value)} {DAILY}"
