"""An evaluation as files: scores.nc, scores.csv and metrics.json."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf.data.writing import refuse_existing
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation.balance import CLOSURE, LARGEST, place
from h2mv_tf.evaluation.blocks import H2MV

SCORES, TABLE, METRICS = "scores.nc", "scores.csv", "metrics.json"
COLUMNS = [
    "against",
    "model",
    "variable",
    "scale",
    "metric",
    "cells",
    "region",
    "statistic",
    "value",
]
# The summaries, and what a row of each says where it lacks a column.
SUMMARIES = {
    "summary": {"against": "observations"},
    "truth_summary": {"against": "truth", "model": H2MV},
    "truth_pattern": {
        "against": "truth",
        "model": H2MV,
        "scale": "time mean",
        "statistic": "map",
    },
    "emergent_summary": {
        "against": "",
        "model": H2MV,
        "variable": "",
        "scale": "whole period",
        "statistic": "mean series",
    },
    "emergent_truth_summary": {
        "against": "",
        "model": "truth",
        "variable": "",
        "scale": "whole period",
        "statistic": "mean series",
    },
}
NAMES = {"truth_variable": "variable", "quantity": "metric"}


def write(result: xr.Dataset, folder: str | Path, *, days: int) -> None:
    """Writes the files of an evaluation; the folder appears when all are there.

    Args:
        result: Of `evaluate`.
        folder: Must not exist.
        days: Steps of the predictions.

    Raises:
        UserError: The folder exists, or cannot be written.
    """
    folder = Path(folder)
    refuse_existing(folder)
    hidden = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir(parents=True)
        result.to_netcdf(hidden / SCORES, engine="netcdf4", encoding=_encoding(result))
        table(result).to_csv(hidden / TABLE, index=False, float_format="%.8g")
        text = json.dumps(headline(result, days=days), indent=2, allow_nan=False)
        (hidden / METRICS).write_text(text + "\n", encoding="utf-8")
        refuse_existing(folder)
        hidden.rename(folder)
    except OSError as error:
        words = error.strerror or error
        raise UserError(f"Cannot write '{folder}': {words}.") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def table(result: xr.Dataset) -> pd.DataFrame:
    """All summaries in long form, one value a row, with the columns COLUMNS.

    Scales of which a variable has not a single value are left out.

    Args:
        result: Of `evaluate`.
    """
    frames = []
    for name, words in SUMMARIES.items():
        if name not in result:
            continue
        values = result[name].rename(
            {dim: new for dim, new in NAMES.items() if dim in result[name].dims}
        )
        values = values.reset_coords(drop=True).rename("value")
        frame = values.to_dataframe().reset_index().assign(**words)
        if "scale" in values.dims:
            by = frame.groupby(["variable", "scale"])["value"]
            frame = frame[by.transform("count") > 0]
        frames.append(frame[COLUMNS])
    return pd.concat(frames, ignore_index=True)


def headline(result: xr.Dataset, *, days: int) -> dict:
    """What an evaluation comes down to, ready for JSON; None where not defined.

    Args:
        result: Of `evaluate`.
        days: Steps of the predictions.

    Returns:
        `water_balance`; medians over cells of each variable and scale: `test` over
        those that test, `all` over all; `emergent` and `emergent_truth` of all cells;
        `notes`.
    """
    found: dict = {}
    if LARGEST in result:
        found["water_balance"] = {
            "largest_residual": _number(result[LARGEST].max()),
            "cell": place(result[LARGEST]),
            "largest_closure": _number(np.abs(result[CLOSURE]).max()),
            "days": days,
        }
    everywhere = {"region": result.region.values[0]}
    if "summary" in result:
        median = result.summary.sel(**everywhere, statistic="median", model=H2MV)
        for cells in result.cells.values:
            found[str(cells)] = {
                str(name): _scales(median.sel(variable=name, cells=cells))
                for name in result.variable.values
            }
    for name in ("emergent", "emergent_truth"):
        if f"{name}_summary" in result:
            values = result[f"{name}_summary"].sel(**everywhere, cells="all")
            found[name] = {
                str(quantity): _number(values.sel(quantity=quantity))
                for quantity in result.quantity.values
            }
    found["notes"] = [
        note for note in result.attrs.get("notes", "").split("\n") if note
    ]
    return found


def _scales(median: xr.DataArray) -> dict[str, dict[str, float | None]]:
    """By scale, where there is any value, the median of each metric."""
    return {
        str(scale): {
            str(metric): _number(median.sel(scale=scale, metric=metric))
            for metric in median.metric.values
        }
        for scale in median.scale.values
        if np.isfinite(median.sel(scale=scale)).any()
    }


def _number(value: xr.DataArray) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _encoding(result: xr.Dataset) -> dict[str, dict]:
    """Maps in single precision, compressed: most of one is sea."""
    encoding = {}
    for name, data in result.data_vars.items():
        if {"lat", "cell"} & set(data.dims):
            encoding[name] = {"zlib": True, "complevel": 1}
            if data.dtype == "float64":
                encoding[name]["dtype"] = "float32"
    return encoding
