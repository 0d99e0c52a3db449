"""What terrestrial water storage is made of."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from h2mv_tf.plots import style
from h2mv_tf.plots.series import MOST, seasonal_cycle

STORES = ("swe", "soil_moisture", "groundwater")
SHARES = ("snow_share", "soil_share", "groundwater_share")  # in the order of STORES


@style.journal
def tws_composition(storage: xr.Dataset, shares: xr.Dataset | None = None) -> Figure:
    """Mean seasonal cycles of the stores, stacked, and their shares of variability.

    Args:
        storage: Monthly regional series (region, time) of `STORES` and `tws` [mm].
        shares: `SHARES` (region,) of the variability of TWS [1], where known.
    """
    regions = [str(region) for region in storage.region.values][:MOST]
    columns = min(len(regions), 3)
    rows = -(-len(regions) // columns)
    known = shares is not None
    extra = (8 + 6.0 * len(regions)) * known
    width = style.WIDTH if columns > 1 else style.COLUMN * 1.2
    figure, _ = style.panels(1, 1, height=rows * 42 + 16 + extra, width=width)
    figure.clear()
    upper = figure
    if known:
        upper, lower = figure.subfigures(2, 1, height_ratios=(rows * 42 + 16, extra))
        _draw_shares(lower.subplots(), shares.sel(region=regions), len(regions))
    axes = upper.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for number, (axis, region) in enumerate(zip(axes.flat, regions, strict=False)):
        _draw_stack(axis, storage.sel(region=region))
        style.headed(axis, number, region[:1].upper() + region[1:])
        axis.tick_params(labelbottom=number + columns >= len(regions))
    for axis in axes.flat[len(regions) :]:
        axis.remove()
    for axis in axes[:, 0]:
        axis.set_ylabel(style.label("tws", "Anomaly"))
    handles, words = axes[0, 0].get_legend_handles_labels()
    upper.legend(handles, words, loc="outside lower center", ncols=4)
    return figure


def _draw_stack(axis: Axes, storage: xr.Dataset) -> None:
    cycles = storage.map(seasonal_cycle)
    cycles = cycles - cycles.mean("month")
    # What is above the mean is stacked upwards, what is below it downwards.
    above, below = np.zeros(12), np.zeros(12)
    for name in STORES:
        values = cycles[name].values
        axis.bar(
            cycles.month,
            values,
            bottom=np.where(values > 0, above, below),
            width=0.85,
            color=style.PARTS[name],
            label=style.title(name),
        )
        above, below = above + np.maximum(values, 0), below + np.minimum(values, 0)
    axis.plot(
        cycles.month, cycles.tws, color=style.BLACK, marker=".", ms=4, label="TWS"
    )
    axis.axhline(0, color=style.BLACK, linewidth=0.5)
    style.months(axis)


def _draw_shares(axis: Axes, shares: xr.Dataset, number: int) -> None:
    regions = [name[:1].upper() + name[1:] for name in map(str, shares.region.values)]
    # A store against the rhythm of the others has a share below zero.
    above, below = np.zeros(len(regions)), np.zeros(len(regions))
    for name, share in zip(STORES, SHARES, strict=True):
        values = np.nan_to_num(shares[share].values)
        bars = axis.barh(
            regions,
            values,
            left=np.where(values > 0, above, below),
            color=style.PARTS[name],
            height=0.7,
        )
        axis.bar_label(
            bars,
            [style.minus(f"{v:.2f}") if abs(v) > 0.04 else "" for v in values],
            label_type="center",
            fontsize=style.SMALL,
            color="white" if name == "groundwater" else style.BLACK,
        )
        above, below = above + np.maximum(values, 0), below + np.minimum(values, 0)
    axis.axvline(0, color=style.BLACK, linewidth=0.5)
    axis.set_ylim(len(regions) - 0.5, -0.5)
    axis.set_xlim(below.min(), max(1.0, above.max()))
    axis.set_xlabel("Share of the variability of TWS [–]", labelpad=2)  # noqa: RUF001
    style.headed(axis, number, "")
