"""The tables of an evaluation on the screen: titles, columns and rows of text."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf.evaluation.blocks import H2MV, MODELS, SEASONAL, UNTRAINED
from h2mv_tf.evaluation.results import COMPARED, CONSTANTS, HEADLINE, of_level
from h2mv_tf.variables import VARIABLES

SHORT = {H2MV: "NSE", UNTRAINED: "untrained", SEASONAL: "season"}
PARTS = {
    "kge": "KGE",
    "r": "r",
    "rmse": "RMSE",
    "bias": "bias",
    "percent_bias": "bias %",
}
# Of samples, in the order of HEADLINE.
SAMPLE_HEADINGS = ("CRPS", "MAE of mean", "in 50 %", "in 90 %", "width 90 %", "s/e")


class Table(NamedTuple):
    """A table as `console.table` takes it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(result: xr.Dataset) -> list[Table]:
    """The tables of an evaluation, the constraints first.

    Args:
        result: Of `evaluate`.
    """
    found = []
    if "summary" in result:
        cells = _cells(result)
        found += [_constraints(result, cells), _regions(result, cells)]
    if "truth_summary" in result:
        found.append(_truth(result))
    found.append(_emergent(result))
    return found


def sample_tables(samples: xr.Dataset) -> list[Table]:
    """The tables of an evaluation of samples.

    Args:
        samples: Of `probabilistic.evaluate`.
    """
    found = []
    for against, (dim, prefix) in COMPARED.items():
        if dim in samples.dims:
            found.append(_samples(samples, against, dim, prefix))
    if CONSTANTS in samples.dims:
        found.append(_constants(samples))
    return found


def _samples(samples: xr.Dataset, against: str, dim: str, prefix: str) -> Table:
    tests = int(samples[f"{prefix}count"].sel(cells="test").sum()) > 0
    cells = "test" if tests else "all"
    rows = []
    for name in map(str, samples[dim].values):
        values = (
            of_level(samples[prefix + score], level, dim, name, cells)
            for score, level in HEADLINE.values()
        )
        short = _short(name) if dim == "variable" else VARIABLES[name].label
        rows.append([short, *map(_significant, values)])
    heading = {
        ("observations", True): "Held-out observations: test cells",
        ("observations", False): "Observations: all cells, none of which tests",
        ("truth", True): "Hidden truth: test cells",
        ("truth", False): "Hidden truth: all cells, none of which tests",
    }[against, tests]
    return Table(
        f"{heading}.\nIn 50 %, in 90 %: share within the interval; s/e: spread over "
        "error",
        ["variable", *SAMPLE_HEADINGS],
        rows,
    )


def _constants(samples: xr.Dataset) -> Table:
    truth = samples.get("constant_truth")
    rows = []
    for name in map(str, samples[CONSTANTS].values):
        of = samples.sel({CONSTANTS: name})
        values = [of.constant_mean, *of.constant_quantile]
        values += [] if truth is None else [of.constant_truth]
        rows.append([VARIABLES[name].label, *map(_significant, values)])
    columns = ["constant", "mean", "5 %", "95 %", *(["truth"] * (truth is not None))]
    return Table("Global constants", columns, rows)


def _cells(result: xr.Dataset) -> str:
    """The test cells, or all cells where none tests."""
    tests = result.cell_count.sel(cells="test").isel(region=0)
    return "test" if int(tests) else "all"


def _constraints(result: xr.Dataset, cells: str) -> Table:
    median = result.summary.sel(cells=cells, statistic="median").isel(region=0)
    models = [m for m in MODELS if m in median.model.values]
    rows = []
    for name in median["variable"].values:
        first = True
        for scale in median.scale.values:
            scores = median.sel(variable=name, scale=scale)
            if not np.isfinite(scores).any():
                continue
            rows.append(
                [
                    _short(name) if first else "",
                    str(scale),
                    *(_text(scores.sel(model=m, metric="nse")) for m in models),
                    *(_text(scores.sel(model=H2MV, metric=part)) for part in PARTS),
                ]
            )
            first = False
    count = int(result.cell_count.sel(cells=cells).isel(region=0))
    return Table(
        f"Against observations: median over {count} {_which(cells)}.\nNSE of the "
        "model, then of the baselines; all others of the model",
        ["variable", "scale", *(SHORT[m] for m in models), *PARTS.values()],
        rows,
    )


def _regions(result: xr.Dataset, cells: str) -> Table:
    scores = result.summary.sel(
        cells=cells, statistic="median", model=H2MV, metric="nse", scale="monthly"
    )
    names = [str(name) for name in scores["variable"].values]
    short = [VARIABLES[name].group for name in names]
    rows = [
        [
            str(region),
            f"{int(result.cell_count.sel(cells=cells, region=region))}",
            *(_text(scores.sel(region=region, variable=name)) for name in names),
        ]
        for region in result.region.values
    ]
    return Table(
        f"Regions: median NSE of months over {_which(cells)}",
        ["region", "cells", *short],
        rows,
    )


def _truth(result: xr.Dataset) -> Table:
    summary = result.truth_summary.sel(cells="all", statistic="median").isel(region=0)
    pattern = result.truth_pattern.sel(cells="all").isel(region=0)
    scale = "daily" if np.isfinite(summary.sel(scale="daily")).any() else "monthly"
    rows = []
    for name in summary.truth_variable.values:
        scores = summary.sel(truth_variable=name)
        in_time, anomaly = scores.sel(scale=scale), scores.sel(scale="anomaly")
        of_map = pattern.sel(truth_variable=name)
        rows.append(
            [
                VARIABLES[name].label,
                *(_text(in_time.sel(metric=m)) for m in ("r", "nse", "percent_bias")),
                _text(anomaly.sel(metric="r")),
                *(_text(of_map.sel(metric=m)) for m in ("r", "nse")),
            ]
        )
    return Table(
        f"Against the truth: {scale} series, median over all cells; the map of time "
        "means",
        ["variable", "r", "NSE", "bias %", "anomaly r", "map r", "map NSE"],
        rows,
    )


def _emergent(result: xr.Dataset) -> Table:
    sources = {"model": "emergent_summary", "truth": "emergent_truth_summary"}
    sources = {word: name for word, name in sources.items() if name in result}
    regions = [str(region) for region in result.region.values]
    rows = [
        [str(quantity), word]
        + [
            _text(result[name].sel(quantity=quantity, cells="all", region=region))
            for region in regions
        ]
        for quantity in result.quantity.values
        for word, name in sources.items()
    ]
    return Table("Emergent quantities of all cells", ["quantity", "of", *regions], rows)


def _short(name: str) -> str:
    """The name that a constraint has in the store, which is short, and its units."""
    return f"{VARIABLES[name].group} [{VARIABLES[name].units}]"


def _which(cells: str) -> str:
    return "test cells" if cells == "test" else "cells, none of which tests"


def _text(value: xr.DataArray) -> str:
    number = float(value)
    if not np.isfinite(number):
        return "-"
    # Adding 0 makes 0.00 of -0.00.
    return f"{round(number, 2) + 0.0:.2f}" if abs(number) < 100 else f"{number:.3g}"


def _significant(value: xr.DataArray) -> str:
    """Three digits, also of a small number: coefficients are of 0.001 a day."""
    number = float(value)
    return f"{number:.3g}" if np.isfinite(number) else "-"
