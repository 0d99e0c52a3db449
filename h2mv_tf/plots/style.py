"""The style of every figure: sizes, words and colours of lines.

Made for print: 180 mm over two columns, no text below 7 pt, colours that colour-blind
readers tell apart (Okabe and Ito, 2008).
"""

import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from h2mv_tf.variables import VARIABLES

MM = 1 / 25.4  # inches
WIDTH, COLUMN, TALLEST = 180.0, 88.0, 235.0  # mm, of a page, its column, its height
DPI = 200
SMALL, TEXT, TITLE = 7.0, 7.5, 8.0  # points
BLACK, GREY, SEA = "0.0", "0.45", "0.86"
# Okabe and Ito (2008).
BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, RED, PINK, YELLOW = "#E69F00", "#D55E00", "#CC79A7", "#F0E442"
OBSERVED, SIMULATED = BLACK, BLUE
# The parts that storage, evapotranspiration and runoff are stacked of.
PARTS = {
    "swe": SKY,
    "soil_moisture": ORANGE,
    "groundwater": BLUE,
    "transpiration": GREEN,
    "soil_evaporation": ORANGE,
    "interception_evaporation": SKY,
    "baseflow": BLUE,
    "surface_runoff": ORANGE,
    "rainfall": BLUE,
    "snowfall": SKY,
}
# Colour and marker of lines that share a panel.
LINES = (
    (BLUE, "o"),
    (ORANGE, "s"),
    (GREEN, "^"),
    (PINK, "D"),
    (SKY, "v"),
    (RED, "P"),
    (BLACK, "X"),
)
# Names that are not written like words.
ACRONYMS = {
    "swe": "SWE",
    "tws": "TWS",
    "tws_anomaly": "TWS anomaly",
    "fapar": "fAPAR",
}

PARAMETERS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": TEXT,
    "axes.titlesize": TITLE,
    "axes.labelsize": TEXT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.titlesize": TITLE,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.0,
    "hatch.linewidth": 0.4,
    "mathtext.default": "regular",
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": DPI,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
}


def journal(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draws a figure in the style of this module."""

    @functools.wraps(draw)
    def styled(*args, **kwargs) -> Figure:
        with mpl.rc_context(PARAMETERS):
            figure = draw(*args, **kwargs)
        # Ticks are made as the figure is saved, and would look as is usual then.
        for axis in figure.axes:
            axis.tick_params(labelsize=SMALL, width=0.6, length=2.5, pad=2)
        return figure

    return styled


def panels(
    rows: int,
    columns: int,
    *,
    height: float,
    width: float = WIDTH,
    **options,
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (rows, columns).

    Args:
        rows: Number of rows.
        columns: Number of columns.
        height: Of the figure [mm].
        width: Of the figure [mm].
        options: Of `Figure.subplots`.
    """
    size = (width * MM, min(height, TALLEST) * MM)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


class Slot(NamedTuple):
    """Where a panel stands on a page, from its lower left corner [mm]."""

    left: float
    low: float
    wide: float
    high: float

    def below(self, distance: float, high: float, share: float = 1.0) -> "Slot":
        """A slot under this one, of a share of its width."""
        margin = self.wide * (1 - share) / 2
        low = self.low - distance - high
        return Slot(self.left + margin, low, self.wide * share, high)

    def axes(self, figure: Figure) -> Axes:
        """Axes that fill the slot."""
        width, height = figure.get_size_inches() / MM
        left, wide = self.left / width, self.wide / width
        return figure.add_axes((left, self.low / height, wide, self.high / height))


def slots(
    count: int,
    columns: int,
    *,
    ratio: float,
    left: float,
    gap: float,
    above: float,
    below: float,
    foot: float = 0.0,
    width: float = WIDTH,
) -> tuple[Figure, list[Slot]]:
    """A figure without a layout of its own, and slots of one shape, row by row.

    For panels of a fixed shape, which matplotlib's layouts leave blank space around.

    Args:
        count: Number of panels.
        columns: Panels side by side.
        ratio: Height of a panel per its width.
        left: Room to the left of the first column [mm].
        gap: Room between two columns [mm].
        above: Room above each panel [mm].
        below: Room below it [mm].
        foot: Room at the foot of the figure [mm].
        width: Of the figure [mm].
    """
    rows, right = -(-count // columns), 4.0
    room = (width - left - right - gap * (columns - 1)) / columns
    most = (TALLEST - foot) / rows - above - below
    high = max(min(room * ratio, most), 15.0)
    wide = min(room, high / ratio)
    pitch = above + high + below
    height = rows * pitch + foot
    figure = Figure(figsize=(width * MM, height * MM))
    places = (divmod(number, columns) for number in range(count))
    return figure, [
        Slot(
            left + column * (room + gap) + (room - wide) / 2,
            height - (row + 1) * pitch + below,
            wide,
            high,
        )
        for row, column in places
    ]


def headed(axis: Axes, number: int, title: str = "", *, pad: float = 3) -> None:
    """Writes the letter of a panel, from 0, and its title above it.

    Args:
        axis: The panel.
        number: Its place in the figure.
        title: Its title.
        pad: Distance to the panel [points].
    """
    letter = chr(ord("a") + number % 26) * (number // 26 + 1)
    axis.set_title(f"({letter}) {title}".rstrip(), loc="left", pad=pad)


def save(figure: Figure, file: Path) -> Path:
    """Writes a figure; an older one of the same name goes only when it is done."""
    partial = file.with_name(f".{file.name}")
    suffix = file.suffix.removeprefix(".")
    # The same figure gives the same bytes.
    metadata = {"CreationDate": None} if suffix == "pdf" else None
    with mpl.rc_context(PARAMETERS):
        engine = figure.get_layout_engine()
        if engine is not None:  # laid out once for all formats
            engine.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(partial, format=suffix, dpi=DPI, metadata=metadata)
    return partial.replace(file)


def units(cf: str) -> str:
    """Units of the CF conventions as a journal prints them.

    >>> units("mm d-1")
    'mm d⁻¹'
    """
    if cf == "1":
        return "–"  # noqa: RUF001  the sign for no dimension
    cf = cf.replace("degC", "°C")
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(r"(?<=[A-Za-z])-?\d+", lambda m: m[0].translate(digits), cf)


def minus(text: str) -> str:
    """Numbers in a text with a minus as a journal prints it."""
    return re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", text)


def title(name: str) -> str:
    """The name of a variable as a heading: words, or what they are short for."""
    return ACRONYMS.get(name, name.replace("_", " ").capitalize())


def symbol(name: str) -> str:
    """The symbol of a variable, with its index set low; its title if it has none."""
    base, _, index = VARIABLES[name].symbol.partition("_")
    if not base:
        return title(name)
    return f"${base}_{{{index}}}$" if index else base


def short(name: str) -> str:
    """The shortest name that a reader knows: SWE, TWS, fAPAR; otherwise the symbol."""
    return ACRONYMS.get(name) or symbol(name)


def label(name: str, words: str | None = None) -> str:
    """What stands at the axis of a variable, with the units of the registry.

    Args:
        name: Its name in the registry.
        words: In place of its title.
    """
    words = title(name) if words is None else words
    return f"{words} [{units(VARIABLES[name].units)}]".strip()


def months(axis: Axes) -> None:
    """The letters of the months below an axis from 1 to 12."""
    axis.set_xlim(0.5, 12.5)
    axis.set_xticks(range(1, 13), list("JFMAMJJASOND"))


def years(axis: Axes, time: np.ndarray, most: int) -> None:
    """A few years below an axis of time, all of it shown.

    Args:
        axis: The panel.
        time: The days of the series.
        most: Years that have room.
    """
    first, last = (int(str(day)[:4]) for day in (time[0], time[-1]))
    step = -(-(last - first + 1) // most)
    begins = {year: np.datetime64(f"{year}-01-01") for year in range(first, last + 1)}
    shown = list(begins)[::step]
    axis.set_xticks([begins[year] for year in shown], [str(year) for year in shown])
    axis.set_xticks(list(begins.values())[:: -(-step // 6)], minor=True)
    axis.set_xlim(begins[first], time[-1] + np.timedelta64(31, "D"))


def sided(values: Iterable[float], margin: float = 0.05) -> tuple[float, float]:
    """Limits of an axis around values, with a margin."""
    low, high = np.nanmin(list(values)), np.nanmax(list(values))
    reach = (high - low or 1.0) * margin
    return low - reach, high + reach
