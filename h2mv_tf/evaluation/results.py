"""An evaluation as files: scores.nc, scores.csv and metrics.json.

Samples have probabilistic.nc and probabilistic.csv, too.
"""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf.data.metadata import readable
from h2mv_tf.evaluation.balance import CLOSURE, LARGEST, place
from h2mv_tf.evaluation.blocks import H2MV
from h2mv_tf.files import made

SCORES, TABLE, METRICS = "scores.nc", "scores.csv", "metrics.json"
PROBABILISTIC, PROBABILISTIC_TABLE = "probabilistic.nc", "probabilistic.csv"
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
SAMPLE_COLUMNS = ["against", "variable", "cells", "score", "at", "value"]
# What samples are held against: the dimension of its variables, and what stands before
# the names of its scores.
COMPARED = {"observations": ("variable", ""), "truth": ("truth_variable", "truth_")}
# Where a score of samples is, beside its variable and cells.
PLACES = ("level", "nominal", "bin", "group", "quantile")
CONSTANTS = "constant_name"
# By name, the score and its level.
HEADLINE = {
    "crps": ("crps", None),
    "crps_deterministic": ("crps_deterministic", None),
    "coverage_50": ("coverage", 0.5),
    "coverage_90": ("coverage", 0.9),
    "width_90": ("sharpness", 0.9),
    "spread_skill": ("spread_skill", None),
}


def write(
    result: xr.Dataset,
    folder: str | Path,
    *,
    days: int,
    samples: xr.Dataset | None = None,
) -> None:
    """Writes the files of an evaluation; the folder appears when all are there.

    Args:
        result: Of `evaluate`.
        folder: Must not exist.
        days: Steps of the predictions.
        samples: Of `probabilistic.evaluate`, where there are any.

    Raises:
        UserError: The folder exists, or cannot be written.
    """
    with made(folder) as partial:
        result.to_netcdf(partial / SCORES, engine="netcdf4", encoding=_encoding(result))
        table(result).to_csv(partial / TABLE, index=False, float_format="%.8g")
        found = headline(result, days=days)
        if samples is not None:
            samples.to_netcdf(
                partial / PROBABILISTIC, engine="netcdf4", encoding=_encoding(samples)
            )
            sample_table(samples).to_csv(
                partial / PROBABILISTIC_TABLE, index=False, float_format="%.8g"
            )
            found["probabilistic"] = sample_headline(samples)
        text = json.dumps(found, indent=2, allow_nan=False)
        (partial / METRICS).write_text(text + "\n", encoding="utf-8")


def of_samples(folder: str | Path) -> xr.Dataset | None:
    """The scores of samples in the folder of an evaluation; None where it has none.

    Args:
        folder: Of `write`.
    """
    file = Path(folder) / PROBABILISTIC
    if not file.exists():
        return None
    with readable(f"'{file}'"), xr.open_dataset(file) as dataset:
        return dataset.load()


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


def sample_table(samples: xr.Dataset) -> pd.DataFrame:
    """All scores of samples but maps, one value a row, with the columns SAMPLE_COLUMNS.

    Args:
        samples: Of `probabilistic.evaluate`.
    """
    dims = {CONSTANTS: ("constants", "constant_")}
    dims |= {dim: (against, prefix) for against, (dim, prefix) in COMPARED.items()}
    frames = []
    for key, data in samples.data_vars.items():
        dim = next((dim for dim in dims if dim in data.dims), None)
        if dim is None or {"lat", "cell"} & set(data.dims):
            continue
        against, prefix = dims[dim]
        values = data.reset_coords(drop=True).rename({dim: "variable"}).rename("value")
        frame = values.to_dataframe().reset_index()
        place = next((place for place in PLACES if place in values.dims), None)
        frame["at"] = frame[place] if place else np.nan
        frame["cells"] = frame.get("cells", "")
        score = str(key).removeprefix(prefix)
        frame = frame.assign(against=against, score=score)
        frames.append(frame[SAMPLE_COLUMNS].astype({"at": "float64"}))
    return pd.concat(frames, ignore_index=True)


def sample_headline(samples: xr.Dataset) -> dict:
    """What the scores of samples come down to, ready for JSON; None where not defined.

    Args:
        samples: Of `probabilistic.evaluate`.

    Returns:
        `observations` and `truth`, each with `test` and `all` cells, and of these by
        variable the scores of HEADLINE; `constants`, `realizations`, `notes`.
    """
    found: dict = {"realizations": int(samples.attrs["realizations"])}
    for against, (dim, prefix) in COMPARED.items():
        if dim not in samples.dims:
            continue
        found[against] = {
            str(cells): {
                str(name): {
                    key: _number(
                        of_level(samples[prefix + score], level, dim, name, cells)
                    )
                    for key, (score, level) in HEADLINE.items()
                }
                for name in samples[dim].values
            }
            for cells in samples.cells.values
        }
    if CONSTANTS in samples.dims:
        found["constants"] = {
            str(name): _constant(samples.sel({CONSTANTS: name}))
            for name in samples[CONSTANTS].values
        }
    found["notes"] = _notes(samples)
    return found


def of_level(
    data: xr.DataArray, level: float | None, dim: str, name: str, cells: str
) -> xr.DataArray:
    """A score of a variable and a set of cells, of an interval where it is of one.

    Args:
        data: The score (dim, ..., cells).
        level: Of the interval, or None.
        dim: Of the variables.
        name: Of the variable.
        cells: `test` or `all`.
    """
    data = data.sel({dim: name, "cells": cells})
    return data if level is None else data.sel(level=level, method="nearest")


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
    found["notes"] = _notes(result)
    return found


def _notes(result: xr.Dataset) -> list[str]:
    return [note for note in result.attrs.get("notes", "").split("\n") if note]


def _constant(samples: xr.Dataset) -> dict[str, float | None]:
    """Mean, quantiles and truth of one constant."""
    low, high = samples.constant_quantile
    found = {"mean": samples.constant_mean, "q05": low, "q95": high}
    if "constant_truth" in samples:
        found["truth"] = samples.constant_truth
    return {key: _number(value) for key, value in found.items()}


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
