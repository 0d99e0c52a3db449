"""How good the model is, and how much better than what knows less."""

import itertools

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from h2mv_tf.plots import style

# Model -> what it is called, colour, marker; the first is drawn last.
MODELS = {
    "h2mv": ("H2MV", style.BLUE, "o"),
    "mean seasonal cycle": ("mean seasonal cycle", style.ORANGE, "s"),
    "untrained": ("untrained", style.GREY, "D"),
}
SHOWN = {"nse": "NSE", "kge": "KGE", "r": "Correlation $r$"}
LOWEST = -1.0  # below which it does not matter how bad


@style.journal
def skill_scores(scores: xr.Dataset, statistic: str = "median") -> Figure:
    """Scores of the model and of what it is held against, scale by scale.

    Args:
        scores: An evaluation: `summary` (model, variable, scale, metric, cells, region,
            statistic), of which the test cells, or all where none tests, of the
            first region are shown.
        statistic: Over cells.
    """
    summary = scores.summary.sel(statistic=statistic).isel(region=0)
    tested = summary.sel(cells="test")
    summary = tested if tested.notnull().any() else summary.sel(cells="all")
    summary = summary.sel(metric=[name for name in SHOWN if name in summary.metric])
    known = summary.notnull().any(("variable", "scale", "metric"))
    models = [name for name in MODELS if name in summary.model[known]]
    rows, place = _rows(summary)
    figure, axes = style.panels(
        1, summary.sizes["metric"], height=18 + 4.2 * place[-1], sharey=True
    )
    for number, (axis, metric) in enumerate(
        zip(axes[0], summary.metric.values, strict=True)
    ):
        style.headed(axis, number, f"{SHOWN[str(metric)]} [–]")  # noqa: RUF001
        for model in reversed(models):
            chosen = summary.sel(metric=metric, model=model)
            values = [float(chosen.sel(variable=v, scale=s)) for v, s in rows]
            _draw(axis, np.array(values), place, *MODELS[model][1:])
        axis.set_yticks(place, [f"{style.title(v)}, {s}" for v, s in rows])
        axis.set_ylim(place[-1] + 0.7, -0.7)
        axis.set_xlim(LOWEST - 0.08, 1.05)
        axis.set_xticks([-1, -0.5, 0, 0.5, 1])
        axis.axvline(0, color="0.7", linewidth=0.5, zorder=0)
        axis.grid(axis="y", color="0.9", linewidth=0.5)
        axis.set_axisbelow(True)
    handles = [
        axes[0, 0].plot([], [], marker, color=color, ls="", ms=4, label=words)[0]
        for words, color, marker in (MODELS[model] for model in models)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _rows(summary: xr.DataArray) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Variables at the scales at which there is a score, and where they stand."""
    known = summary.notnull().any(("model", "metric"))
    rows = [
        (str(name), str(scale))
        for name in summary["variable"].values
        for scale in summary.scale.values
        if known.sel(variable=name, scale=scale)
    ]
    gaps = [a[0] != b[0] for a, b in itertools.pairwise(rows)]
    return rows, np.arange(len(rows)) + 0.5 * np.cumsum([False, *gaps])


def _draw(axis: Axes, values: np.ndarray, place: np.ndarray, color, marker) -> None:
    """Marks; those that are too low point to where they would be."""
    below = values < LOWEST
    axis.plot(values[~below], place[~below], marker, color=color, ms=4)
    axis.plot(np.full(below.sum(), LOWEST), place[below], "<", color=color, ms=4)
