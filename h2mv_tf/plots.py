"""Figures: tables and arrays in, matplotlib figures out."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import ticker
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart by colour-blind readers, too.
TRAINING, VALIDATION, TEST = "#0072B2", "#D55E00", "#F0E442"


def loss_curves(history: pd.DataFrame) -> Figure:
    """The loss and each of its terms against the epoch.

    Args:
        history: A row for each epoch, as history.csv has it.
    """
    terms = [name for name in history if f"val_{name}" in history]
    columns = min(len(terms), 3)
    rows = -(-len(terms) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).flat
    best = history["epoch"][history["val_loss"].idxmin()]
    for name, axis in zip(terms, axes, strict=False):
        axis.plot(history["epoch"], history[name], color=TRAINING, label="training")
        axis.plot(
            history["epoch"],
            history[f"val_{name}"],
            color=VALIDATION,
            label="validation",
        )
        axis.axvline(best, color="0.6", linewidth=0.8, zorder=0)
        axis.set_title("loss (sum of terms)" if name == "loss" else name, fontsize=9)
        axis.set_yscale("log")
        # Numbers as one reads them, also where the axis spans less than a decade.
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(ticker.NullFormatter())
        axis.tick_params(labelsize=8)
    for axis in list(axes):
        axis.set_axis_off()
    figure.supxlabel("epoch (grey: the best)", fontsize=9)
    figure.supylabel("loss [1]", fontsize=9)
    figure.axes[0].legend(fontsize=8, frameon=False)
    return figure


def roles_map(roles: xr.DataArray, fold: int, test: int) -> Figure:
    """A map of the cells that train, validate and test.

    Args:
        roles: Role of every cell, (lat, lon) or (cell,) with `lat` and `lon`: 0 is
            sea, another number the fold in which the cell validates, or `test`.
        fold: The fold.
        test: Number of the test cells.
    """
    kinds = {
        "training": (TRAINING, ~np.isin(roles, [0, fold, test])),
        "validation": (VALIDATION, roles.values == fold),
        "test": (TEST, roles.values == test),
    }
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    if roles.ndim > 1:
        number = sum(n * member for n, (_, member) in enumerate(kinds.values(), 1))
        axis.pcolormesh(
            roles.lon,
            roles.lat,
            np.where(number, number, np.nan),
            cmap=ListedColormap([color for color, _ in kinds.values()]),
            vmin=0.5,
            vmax=3.5,
        )
    for name, (color, member) in kinds.items():
        cells = [], []
        if roles.ndim == 1:
            cells = roles.lon[member], roles.lat[member]
        axis.scatter(
            *cells,
            color=color,
            edgecolor="0.2",
            linewidth=0.5,
            marker="s" if roles.ndim > 1 else "o",
            label=f"{name}: {int(member.sum())} cells",
        )
    axis.set_xlabel("longitude [degrees east]", fontsize=9)
    axis.set_ylabel("latitude [degrees north]", fontsize=9)
    axis.tick_params(labelsize=8)
    figure.legend(loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure
