"""How a training went, and on which cells."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from h2mv_tf.plots import looks, maps, style

TRAINING, VALIDATION, TEST = style.BLUE, style.RED, style.YELLOW
TOTAL = "loss (sum of the constraints)"
MANY_DECADES = 200  # span of an axis beyond which 2 and 5 have no room


def best_row(history: pd.DataFrame) -> int:
    """Which row is of the least validation loss; none of a likelihood's warm-up is.

    Args:
        history: As for `loss_curves`.
    """
    losses = history["val_loss"]
    if "warmth" in history and (history["warmth"] == 1).any():
        losses = losses[history["warmth"] == 1]
    return int(losses.idxmin())


@style.journal
def loss_curves(history: pd.DataFrame) -> Figure:
    """The loss and each of its terms against the epoch.

    Args:
        history: A row for each epoch, as history.csv has it.
    """
    figure, axes = _panels(_terms(history))
    best = history["epoch"][best_row(history)]
    for name, axis in axes.items():
        for column, color, words in (
            (name, TRAINING, "training"),
            (f"val_{name}", VALIDATION, "validation"),
        ):
            axis.plot(history["epoch"], history[column], color=color, label=words)
        axis.axvline(best, color="0.6", linewidth=0.8, zorder=0, label="best epoch")
        _logarithmic(axis, history[[name, f"val_{name}"]])
    handles, words = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", ncols=3)
    return figure


@style.journal
def fold_losses(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """The validation loss and each of its terms in all folds.

    Args:
        histories: By the name of the fold, a table as for `loss_curves`.
    """
    tables = list(histories.values())
    figure, axes = _panels(_terms(tables[0]))
    colors = looks.distinct(len(tables))
    for name, axis in axes.items():
        for (fold, history), color in zip(histories.items(), colors, strict=True):
            values = history[f"val_{name}"]
            axis.plot(history["epoch"], values, color=color, label=fold)
            best = best_row(history)
            axis.plot(history["epoch"][best], values[best], ".", color=color, ms=4)
            _logarithmic(axis, values)
    handles, words = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        words,
        loc="outside lower center",
        ncols=5,
        title="Validation (dot: the best epoch)",
    )
    return figure


@style.journal
def roles_map(roles: xr.DataArray, fold: int, test: int) -> Figure:
    """A map of the cells that train, validate and test.

    Args:
        roles: Role of every cell, (lat, lon) or (cell,) with `lat` and `lon`: 0 is
            sea, another number the fold in which the cell validates, or `test`.
        fold: The fold.
        test: Number of the test cells.
    """
    return maps.kinds_map(
        roles,
        {
            "training": (TRAINING, ~np.isin(roles, [0, fold, test])),
            "validation": (VALIDATION, roles.values == fold),
            "test": (TEST, roles.values == test),
        },
    )


@style.journal
def folds_map(roles: xr.DataArray, test: int) -> Figure:
    """A map of the folds in which cells validate, and of the test cells.

    Args:
        roles: As for `roles_map`.
        test: Number of the test cells.
    """
    folds = [int(n) for n in np.unique(roles) if n not in (0, test)]
    colors = looks.distinct(len(folds))
    kinds = {
        f"fold {fold}": (color, roles.values == fold)
        for fold, color in zip(folds, colors, strict=True)
    }
    return maps.kinds_map(roles, {**kinds, "test": (style.BLACK, roles.values == test)})


def _terms(history: pd.DataFrame) -> list[str]:
    return [name for name in history if f"val_{name}" in history]


def _logarithmic(axis: Axes, values: pd.DataFrame | pd.Series) -> None:
    """Numbers as one reads them, also where the axis spans less than a decade."""
    numbers = values.to_numpy()
    # A likelihood falls below 0, and a term that is nowhere observed is 0.
    if (numbers < 0).any() or not (numbers > 0).any():
        return
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    subs = (1, 2, 5) if high < MANY_DECADES * low else (1,)
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())


def _panels(terms: list[str]) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a panel for each term; those that are left over are empty."""
    columns = min(len(terms), 3)
    rows = -(-len(terms) // columns)
    figure, axes = style.panels(
        rows,
        columns,
        height=rows * 45 + 14,
        width=style.WIDTH if columns > 1 else style.COLUMN,
        sharex=True,
    )
    for number, (axis, name) in enumerate(zip(axes.flat, terms, strict=False)):
        style.headed(axis, number)
        axis.set_title(TOTAL if name == "loss" else name, pad=3)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
        last = number + columns >= len(terms)
        axis.tick_params(labelbottom=last)
        axis.set_xlabel("epoch" if last else "", labelpad=1)
    for axis in axes.flat[len(terms) :]:
        axis.set_axis_off()
    figure.supylabel("loss [–]", fontsize=style.TEXT)  # noqa: RUF001
    return figure, dict(zip(terms, axes.flat, strict=False))
