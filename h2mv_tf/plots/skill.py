"""How good the model is, and how much better than what knows less."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from h2mv_tf.plots import style

MODELS = {
    "h2mv": (style.BLUE, "o"),
    "mean seasonal cycle": (style.ORANGE, "s"),
    "untrained": (style.GREY, "D"),
}
SHOWN = {"nse": "NSE", "kge": "KGE", "r": "Correlation $r$"}
LOWEST = -1.0  # below which it does not matter how bad


@style.journal
def skill_scores(scores: xr.Dataset, statistic: str = "median") -> Figure:
    """Scores of the model and of what it is held against, scale by scale.

    Args:
        scores: An evaluation: `summary` (model, variable, scale, metric, cells, region,
            statistic), of which test cells of the first region are shown.
        statistic: Over cells.
    """
    summary = scores.summary.sel(cells="test", statistic=statistic).isel(region=0)
    variables = [str(name) for name in summary["variable"].values]
    known = summary.sel(metric=list(SHOWN)).notnull()
    scales = [str(s) for s in summary.scale.values if known.sel(scale=s).any()]
    models = [name for name in MODELS if name in summary.model]
    place = np.arange(len(variables))
    figure, axes = style.panels(
        len(SHOWN),
        len(scales),
        height=len(SHOWN) * (10 + 4.4 * len(variables)) + 16,
        sharex=True,
        sharey=True,
    )
    number = 0
    for row, (metric, words) in zip(axes, SHOWN.items(), strict=True):
        for axis, scale in zip(row, scales, strict=True):
            chosen = summary.sel(metric=metric, scale=scale)
            for n, model in enumerate(models):
                values = chosen.sel(model=model).values
                height = place + 0.2 * (n - (len(models) - 1) / 2)
                color, marker = MODELS[model]
                below = values < LOWEST
                options = {"color": color, "ls": "", "ms": 3.5}
                axis.plot(values[~below], height[~below], marker, **options)
                axis.plot(np.full(below.sum(), LOWEST), height[below], "<", **options)
            axis.set_yticks(place, [style.title(name) for name in variables])
            axis.set_ylim(len(variables) - 0.5, -0.5)
            axis.set_xlim(LOWEST - 0.08, 1.05)
            axis.axvline(0, color="0.7", linewidth=0.5, zorder=0)
            axis.grid(axis="y", color="0.9", linewidth=0.5)
            axis.set_axisbelow(True)
            style.headed(axis, number, f"{words}, {scale}")
            number += 1
    first = axes[0, 0]
    handles = [
        first.plot([], [], marker, color=color, ls="", ms=3.5, label=name)[0]
        for name, (color, marker) in MODELS.items()
        if name in models
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure
