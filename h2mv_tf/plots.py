"""Figures: tables and arrays in, matplotlib figures out."""

import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart by colour-blind readers, too.
TRAINING, VALIDATION = "#0072B2", "#D55E00"


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
