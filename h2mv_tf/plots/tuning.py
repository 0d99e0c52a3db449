"""How a sweep over hyperparameters went: its table of trials as figures.

    figure = scores_of_fields(trials, {"training.learning_rate": "log"}, "val_loss")

`trials` has a row for each trial and the columns of a sweep's trials.csv. `scales` has,
for each field of the search space, the scale of its axis: `linear`, `log`, or the
sequence of its choices. What stands on a logarithmic axis is drawn at its logarithm,
what is one of some choices at its index, and the ticks say what it is.
"""

import numbers
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import cmcrameri.cm as scientific
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from h2mv_tf.plots import style

Scale = Literal["linear", "log"] | Sequence

TRIAL, BEST, FAILED, STEPS = style.BLUE, style.RED, style.BLACK, style.GREY
# From few epochs to many, from the worst rank to the best; without the palest.
ORDERED = LinearSegmentedColormap.from_list(
    "ordered", scientific.imola_r(np.linspace(0.12, 1, 256))
)
COLUMNS = 4  # panels side by side
LANE, MARGIN = 0.09, 0.05  # shares of an axis of scores
FENCE = 3.0  # interquartile ranges beyond which a score is far out (Tukey, 1977)
NEVER_OUT = 0.8  # share of the trials that an axis of scores always holds
SPAN = 3.0  # ratio of scores from which their axis is logarithmic
# Ratios of a logarithmic axis below which even steps, or 1, 2 and 5, have room.
EVEN, MANY_DECADES = 8.0, 200.0
INACTIVE, BEYOND = -0.1, 0.035  # where parallel coordinates have what is off an axis
LETTER = 1.35  # mm, width of one on average
GOLDEN = 0.618034  # its multiples are spread evenly
NOTHING = "no trial was completed"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@style.journal
def scores_of_fields(
    trials: pd.DataFrame,
    scales: Mapping[str, Scale],
    objective: str,
    maximise: bool = False,
) -> Figure:
    """The score of each trial against each field, coloured by its budget.

    Args:
        trials: The table of trials.
        scales: Scale of each field.
        objective: Name of the score.
        maximise: Whether more of it is better.
    """
    columns = min(len(scales), COLUMNS)
    rows = -(-len(scales) // columns)
    figure, axes = style.panels(
        rows,
        columns,
        height=rows * 44 + 14,
        width=style.WIDTH if columns > 2 else style.COLUMN * 1.3,
        sharey=True,
    )
    ends, colors = _ends(trials, maximise), _budgets(trials)
    trials = _ended(trials)
    for number, (axis, (name, scale)) in enumerate(
        zip(axes.flat, scales.items(), strict=False)
    ):
        place = _placed(trials[name], scale)
        low, high = style.sided(_reach(place, scale))
        ticks, words = _ticks(trials[name], scale, low, high, most=4)
        axis.set_xticks(ticks, words)
        axis.set_xlim(low, high)
        if not isinstance(scale, str):  # configurations of one choice, side by side
            place += 0.5 * (trials["origin"] * GOLDEN % 1 - 0.5)
            axis.tick_params("x", rotation=30 if len("".join(words)) > 24 else 0)
        _draw(axis, place, trials, ends, colors)
        if place.isna().all() and len(trials):
            axis.text(0.5, 0.6, "not active", ha="center", transform=axis.transAxes)
        style.headed(axis, number)
        axis.set_xlabel(name, labelpad=1)
    for axis in axes.flat[len(scales) :]:
        axis.set_axis_off()
    _explain(figure, trials, ends, colors)
    figure.supylabel(objective, fontsize=style.TEXT)
    return figure


@style.journal
def best_so_far(trials: pd.DataFrame, objective: str, maximise: bool = False) -> Figure:
    """The score of each trial when it ended, and the best until then.

    Args:
        trials: The table of trials.
        objective: Name of the score.
        maximise: Whether more of it is better.
    """
    figure, [[axis]] = style.panels(1, 1, height=75)
    ends, colors = _ends(trials, maximise, failed_low=True), _budgets(trials)
    elapsed, unit = _elapsed(trials)
    _draw(axis, elapsed, trials, ends, colors)
    last = elapsed.max() if elapsed.max() > 0 else 1.0
    order = elapsed[_completed(trials).index].sort_values()
    if len(order):
        scores = trials["score"][order.index]
        best = scores.cummax() if maximise else scores.cummin()
        height = _placed(best, ends.scale)
        axis.plot(
            [*order, last],
            [*height, height.iloc[-1]],
            drawstyle="steps-post",
            color=STEPS,
            zorder=1,
            label="best so far",
        )
    axis.set_xlim(0, 1.03 * last)
    axis.set_xlabel(f"{unit} since the first trial began", labelpad=1)
    axis.set_ylabel(objective)
    _explain(figure, trials, ends, colors)
    return figure


@style.journal
def parallel_coordinates(
    trials: pd.DataFrame,
    scales: Mapping[str, Scale],
    objective: str,
    maximise: bool = False,
) -> Figure:
    """A line for each configuration, through the values of its fields to its score.

    Of a configuration that went on in several trials, the longest is drawn.

    Args:
        trials: The table of trials.
        scales: Scale of each field.
        objective: Name of the score.
        maximise: Whether more of it is better.
    """
    longest = _completed(trials).sort_values("epochs", kind="stable")
    longest = longest.groupby("origin").tail(1)
    done = longest.sort_values("score", ascending=maximise, kind="stable")
    scales = dict(scales)
    headings = [*_short(list(scales)), objective.replace("/", "/\n")]
    if _budgets(trials) is not None:
        scales["epochs"] = "log"
        headings.insert(-1, "epochs")
    rotation, above = _rotation(headings)
    figure, [slot] = style.slots(1, 1, ratio=0.45, left=7, gap=0, above=above, below=17)
    axis = slot.axes(figure)
    axis.set_axis_off()
    axis.set_xlim(0, len(scales) + 0.6)
    axis.set_ylim(0, 1)
    for number, words in enumerate(headings):
        options = {"ha": "center", "va": "baseline", "linespacing": 1.05}
        axis.text(number, 1.045 + BEYOND, words, rotation=rotation, **options)

    ended, shares = _ended(trials), []
    for number, (name, scale) in enumerate(scales.items()):
        low, high = style.sided(_reach(_placed(ended[name], scale), scale), 0.03)
        share = (_placed(done[name], scale) - low) / (high - low)
        _upright(axis, number, low, high, _ticks(ended[name], scale, low, high, most=6))
        if share.isna().any():
            _beside(axis, number, INACTIVE, "inactive")
        shares.append(share.fillna(INACTIVE))
    ends, number = _ends(trials, maximise), len(scales)
    low, high = ends.low, ends.high
    share = (_placed(done["score"], ends.scale) - low) / (high - low)
    ticks = _ticks(done["score"], ends.scale, low, high, most=6)
    _upright(axis, number, low, high, ticks)
    shares.append(share.clip(-BEYOND, 1 + BEYOND))
    beyond = shares[-1][(share < 0) | (share > 1)]
    axis.plot(
        np.full(len(beyond), number),
        beyond,
        _arrow(maximise),
        color=style.GREY,
        ms=4,
        clip_on=False,
        zorder=6,
    )

    if not len(done):
        axis.text(number / 2, INACTIVE, NOTHING, ha="center", va="center")
        return figure
    lines = _lines(axis, np.stack(shares, axis=1))
    if len(done) > 1:
        bar = slot.below(10, 2, share=0.35).axes(figure)
        figure.colorbar(lines, cax=bar, orientation="horizontal")
        bar.set_xticks([1, len(done)], ["1 (best)", f"{len(done)}"])
        bar.set_xlabel("rank of the score", labelpad=-7)  # between the two
        axis.legend(loc="upper right", bbox_to_anchor=(1, -0.1), borderaxespad=0)
    return figure


@style.journal
def importance_of_fields(importance: pd.DataFrame, explained: float) -> Figure:
    """How much skill a model of the scores loses without what each field tells.

    Args:
        importance: A row for each field: `field`, `importance`, `deviation`.
        explained: Share of the variance of unseen trials that the model explains, R2.
    """
    table = importance.sort_values("importance", ascending=False, kind="stable")
    figure, [[axis]] = style.panels(
        1, 1, height=len(table) * 5 + 24, width=style.COLUMN * 1.3
    )
    told = explained > 0
    place = np.arange(len(table))
    axis.barh(
        place,
        table["importance"],
        xerr=table["deviation"],
        height=0.65,
        color=TRIAL if told else "0.8",
        error_kw={"ecolor": style.GREY, "elinewidth": 0.8},
    )
    axis.axvline(0, color=style.BLACK, linewidth=0.6)
    axis.set_yticks(place, table["field"])
    axis.set_ylim(len(table) - 0.4, -0.6)
    axis.set_xlabel("skill (R²) lost when the field is shuffled", labelpad=1)
    rounded = style.minus(f"R² = {explained:.2f}")
    if told:
        words = f"A random forest explains {100 * explained:.0f} % of\n"
        words += f"the ranks of unseen trials ({rounded})"
    else:
        words = f"A random forest explains nothing of unseen trials\n({rounded}): "
        words += "this says nothing about the fields"
    axis.set_title(words, loc="left", pad=4)
    return figure


class _Ends(NamedTuple):
    """The axis of scores, as `_placed` has them.

    Failed trials and outliers have a lane each at its edges.

    Attributes:
        scale: `linear` or `log`.
        low: The least score that stands at its value.
        high: The greatest.
        limits: Of the axis, with its lanes.
        lanes: Height of `failed` and `beyond`, where there are any, as a share.
        maximise: Whether more is better.
    """

    scale: str
    low: float
    high: float
    limits: tuple[float, float]
    lanes: Mapping[str, float]
    maximise: bool


def _ends(trials: pd.DataFrame, maximise: bool, *, failed_low: bool = False) -> _Ends:
    """The axis of the scores of all trials.

    Args:
        trials: The table of trials.
        maximise: Whether more is better.
        failed_low: Whether failed trials stand at the bottom, not at the worst edge.
    """
    scores = _completed(trials)["score"]
    scale, low, high = _shown(scores, maximise)
    place = _placed(scores, scale)
    top, bottom = [], []
    if (trials["status"] == "failed").any():
        (bottom if failed_low or maximise else top).append("failed")
    if ((place < low) | (place > high)).any():
        (bottom if maximise else top).append("beyond")
    below, above = (LANE * len(lanes) + MARGIN for lanes in (bottom, top))
    whole = (high - low) / (1 - below - above)
    lanes = {name: LANE * (n + 0.5) for n, name in enumerate(bottom)}
    lanes |= {name: 1 - LANE * (n + 0.5) for n, name in enumerate(top)}
    limits = (low - below * whole, high + above * whole)
    return _Ends(scale, low, high, limits, lanes, maximise)


def _shown(scores: pd.Series, maximise: bool) -> tuple[str, float, float]:
    """Scale and reach of the scores that are no outliers to the worse."""
    scores = scores[np.isfinite(scores)]
    if scores.empty:
        return "linear", 0.0, 1.0
    # More is better for what has its best at 1, where a logarithm leaves no room.
    positive = not maximise and (scores > 0).all()
    worse = _placed(-scores if maximise else scores, "log" if positive else "linear")
    low, high = np.quantile(worse, [0.25, 0.75])
    kept = np.quantile(worse, NEVER_OUT, method="lower")
    shown = scores[worse <= max(high + FENCE * (high - low), kept)]
    scale = "log" if positive and shown.max() > SPAN * shown.min() else "linear"
    return scale, *_reach(_placed(shown, scale), scale)


def _draw(
    axis: Axes,
    place: pd.Series,
    trials: pd.DataFrame,
    ends: _Ends,
    colors: ScalarMappable | None,
) -> None:
    """Marks of all trials that have ended, at their place along the axis."""
    done = _completed(trials)
    score = _placed(done["score"], ends.scale)
    beyond = (score < ends.low) | (score > ends.high)
    edge = axis.get_xaxis_transform()

    def marks(rows: pd.DataFrame, height, marker: str, **options) -> None:
        color = TRIAL if colors is None else colors.to_rgba(rows["epochs"])
        axis.scatter(
            place[rows.index],
            height,
            s=14,
            c=color,
            marker=marker,
            linewidths=0,
            **options,
        )

    marks(done[~beyond], score[~beyond], "o", alpha=0.8)
    if beyond.any():
        height = np.full(beyond.sum(), ends.lanes["beyond"])
        marks(done[beyond], height, _arrow(ends.maximise), transform=edge)
    failed = trials.index[trials["status"] == "failed"]
    if len(failed):
        height = np.full(len(failed), ends.lanes["failed"])
        axis.plot(
            place[failed], height, "x", color=FAILED, ms=3.5, mew=0.8, transform=edge
        )
    if len(done):
        best = _best(done, ends.maximise)
        axis.plot(place[best], score[best], "*", color=BEST, ms=9, mec="w", mew=0.6)
    else:
        axis.text(0.5, 0.5, NOTHING, ha="center", transform=axis.transAxes)
    axis.set_ylim(*ends.limits)
    axis.set_yticks(*_ticks(done["score"], ends.scale, ends.low, ends.high, most=5))


def _explain(
    figure: Figure, trials: pd.DataFrame, ends: _Ends, colors: ScalarMappable | None
) -> None:
    """The legend of what `_draw` has drawn, and the bar of its colours."""
    marks = {
        "trial": ("o", TRIAL if colors is None else ORDERED(0.6), 4),
        "best trial": ("*", BEST, 8),
        "failed": ("x", FAILED, 3.5),
        "beyond the axis": (_arrow(ends.maximise), style.GREY, 4),
    }
    if not len(_completed(trials)):
        del marks["trial"], marks["best trial"]
    if "failed" not in ends.lanes:
        del marks["failed"]
    if "beyond" not in ends.lanes:
        del marks["beyond the axis"]
    handles = [
        Line2D([], [], ls="", marker=marker, color=color, ms=size, label=words)
        for words, (marker, color, size) in marks.items()
    ]
    handles += figure.axes[0].get_legend_handles_labels()[0]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    if colors is not None:
        bar = figure.colorbar(
            colors, ax=figure.axes, label="epochs", aspect=40, shrink=0.7, pad=0.01
        )
        budgets = np.unique(_completed(trials)["epochs"])
        if len(budgets) <= 8:
            bar.set_ticks(budgets, labels=_written(budgets))
        bar.minorticks_off()


def _completed(trials: pd.DataFrame) -> pd.DataFrame:
    return trials[(trials["status"] == "completed") & trials["score"].notna()]


def _ended(trials: pd.DataFrame) -> pd.DataFrame:
    return trials[trials["status"] != "running"]


def _best(done: pd.DataFrame, maximise: bool) -> int:
    """Index of the best trial."""
    return done["score"].idxmax() if maximise else done["score"].idxmin()


def _arrow(maximise: bool) -> str:
    """The marker of a score that is worse than its axis shows."""
    return "v" if maximise else "^"


def _budgets(trials: pd.DataFrame) -> ScalarMappable | None:
    """Colours of the epochs, where a sweep gives several budgets (Hyperband)."""
    epochs = _completed(trials)["epochs"]
    if trials["bracket"].isna().all() or epochs.nunique() < 2:
        return None
    return ScalarMappable(LogNorm(epochs.min(), epochs.max()), ORDERED)


def _elapsed(trials: pd.DataFrame) -> tuple[pd.Series, str]:
    """When each trial ended, since the first one began, and in what unit."""
    ended = pd.to_datetime(trials["ended"], utc=True)
    began = ended - pd.to_timedelta(trials["seconds"].fillna(0), unit="s")
    hours = (ended - began.min()).dt.total_seconds() / 3600
    if hours.max() > 96:
        return hours / 24, "days"
    return (hours, "hours") if hours.max() > 3 else (hours * 60, "minutes")


def _placed(values: pd.Series, scale: Scale) -> pd.Series:
    """Where values stand on an axis; NaN where a field is not active."""
    if isinstance(scale, str):
        values = values.astype("float64")
        return np.log10(values) if scale == "log" else values
    index = {_text(choice): n for n, choice in enumerate(scale)}
    places = [
        index.get(_text(None), np.nan) if missing else index[_text(value)]
        for value, missing in zip(values, values.isna(), strict=True)
    ]
    return pd.Series(places, values.index, "float64")


def _reach(place: pd.Series, scale: Scale) -> tuple[float, float]:
    """From where to where an axis has to reach, as `_placed` has it."""
    if not isinstance(scale, str):
        return -0.5, len(scale) - 0.5
    if place.isna().all():
        return 0.0, 1.0
    low, high = float(place.min()), float(place.max())
    if low == high:  # one value, in the middle
        reach = 0.1 * abs(low) or 1.0
        low, high = low - reach, high + reach
    return low, high


def _ticks(
    values: pd.Series, scale: Scale, low: float, high: float, *, most: int
) -> tuple[Sequence[float], list[str]]:
    """Ticks of an axis from low to high, as `_placed` has them, and what they say.

    Args:
        values: What stands on the axis: among integers there are no halves.
        scale: Of the axis.
        low: Its end.
        high: Its other end.
        most: About as many ticks have room.
    """
    if not isinstance(scale, str):
        return range(len(scale)), [_text(choice) for choice in scale]
    values = values.dropna()
    if values.empty:
        return [], []
    whole = bool((values % 1 == 0).all())
    even = ticker.MaxNLocator(most, integer=whole, steps=[1, 2, 5, 10])
    if scale == "linear":
        ticks = place = even.tick_values(low, high)
    else:
        ratio = 10 ** (high - low)
        if ratio < EVEN:
            ticks = even.tick_values(10**low, 10**high)
            ticks = ticks[ticks > 0]
        elif ratio < MANY_DECADES:
            decades = np.arange(np.floor(low), np.ceil(high))
            ticks = np.outer(10**decades, [1, 2, 5]).ravel()
            ticks = np.append(ticks, 10 ** np.ceil(high))
        else:
            decades = np.arange(np.ceil(low), np.floor(high) + 1)
            ticks = 10 ** decades[:: -(-len(decades) // most)]
        place = np.log10(ticks)
    margin = 1e-6 * (high - low)  # of rounding
    inside = (place >= low - margin) & (place <= high + margin)
    return place[inside], _written(ticks[inside])


def _written(ticks: np.ndarray) -> list[str]:
    """Numbers as a journal prints them: all of them as powers where some need it."""
    size = np.abs(ticks[ticks != 0])
    if not size.size or (size.min() > 0.9e-3 and size.max() < 1e5):
        return [style.minus(f"{tick:g}") for tick in ticks]
    words = []
    for tick in ticks:
        mantissa, exponent = f"{tick:.3e}".split("e")
        power = f"10{str(int(exponent)).translate(RAISED)}"
        factor = style.minus(f"{float(mantissa):g}")
        words.append(
            "0" if tick == 0 else power if factor == "1" else f"{factor}·{power}"
        )
    return words


def _text(value: object) -> str:
    """A choice as it is written: the same for 64 and 64.0, a list and a tuple."""
    if isinstance(value, numbers.Number) and not isinstance(value, bool):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)


def _short(names: Sequence[str]) -> list[str]:
    """Headings of fields: the last part of their names where that is enough."""
    last = [name.rpartition(".")[2] for name in names]
    count = Counter(last)
    words = [
        n if count[part] > 1 else part for n, part in zip(names, last, strict=True)
    ]
    return [word.replace("_", "\n").replace(".", "\n") for word in words]


def _upright(
    axis: Axes, number: int, low: float, high: float, ticks: tuple[Sequence, list]
) -> None:
    """An axis of parallel coordinates, from 0 to 1."""
    options = {"color": style.BLACK, "linewidth": 0.7, "zorder": 4, "clip_on": False}
    axis.plot([number, number], [0, 1], **options)
    for place, words in zip(*ticks, strict=True):
        share = (place - low) / (high - low)
        axis.plot([number, number + 0.06], [share, share], **options)
        _beside(axis, number, share, words)


def _beside(axis: Axes, number: int, share: float, words: str) -> None:
    """Words at the right of an axis of parallel coordinates, above the lines."""
    back = {"facecolor": "w", "alpha": 0.75, "linewidth": 0, "pad": 0.4}
    options = {
        "va": "center_baseline",
        "fontsize": style.SMALL,
        "bbox": back,
        "zorder": 5,
    }
    axis.text(number + 0.1, share, words, **options)


def _rotation(headings: Sequence[str]) -> tuple[int, float]:
    """How headings of parallel coordinates stand, and the height that it takes [mm]."""
    words = [word for heading in headings for word in heading.split("\n")]
    longest = max(map(len, words)) * LETTER
    if longest < style.WIDTH / len(headings):
        return 0, 16
    return 90, longest + 8


def _lines(axis: Axes, shares: np.ndarray) -> LineCollection:
    """Lines through parallel coordinates, coloured by rank.

    Args:
        axis: The panel.
        shares: Where lines meet axes (trial, axis), from the worst trial to the best.
    """
    count, number = shares.shape
    place = np.arange(number)
    lines = LineCollection(
        [np.column_stack([place, line]) for line in shares],
        array=np.arange(count, 0, -1),
        cmap=ORDERED.reversed(),
        norm=Normalize(1, max(count, 2)),
        linewidths=0.9,
        alpha=0.75,
        zorder=2,
        clip_on=False,
    )
    axis.add_collection(lines, autolim=False)
    options = {"linewidth": 2.2, "zorder": 3, "clip_on": False}
    axis.plot(place, shares[-1], color=BEST, label="best trial", **options)
    return lines
