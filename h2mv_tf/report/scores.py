"""Tables of an evaluation and of the equifinality between folds."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from h2mv_tf.plots import style
from h2mv_tf.report.parts import Table, label, number, title
from h2mv_tf.variables import VARIABLES

COMPARED = ("nse", "kge", "rmse")  # of every model
STATISTICS = {
    "median": "median over cells",
    "mean series": "area-weighted mean series",
}
OF_SERIES = ("nse", "kge", "r", "alpha", "beta", "rmse", "bias")  # in the truth's table
OF_MAP = ("nse", "r", "bias")
TRUTH_SCALE = "daily"
REGIONAL_SCALE = "monthly"  # the one on which all variables can be compared
MODELS = {
    "h2mv": "H2MV: the trained model.",
    "untrained": "Untrained: the same model before its training.",
    "mean seasonal cycle": "Mean season: the mean seasonal cycle of the training cells "
    "in the climate region of a cell.",
}
METRICS = (
    "Seasonal: means of the calendar months; anomaly: how months differ from these. "
    "NSE, KGE, r, α (ratio of the deviations) and β (of the means) "  # noqa: RUF001
    "are 1 at best; RMSE, ubRMSE and bias have the units of the variable. KGE 2012 has "
    "the ratio of the coefficients of variation in place of α."  # noqa: RUF001
)


def legend(scores: xr.Dataset) -> str:
    """What the columns of `skill` are, and what there is to know of the evaluation."""
    if "summary" not in scores:
        return ""
    models = [MODELS[name] for name in _names(scores, "model") if name in MODELS]
    return "\n".join([" ".join(models), METRICS, scores.attrs.get("notes", "")])


def skill(scores: xr.Dataset) -> list[Table]:
    """How well the observations are met, beside the baselines.

    Args:
        scores: As `evaluate` writes it, with `summary` (model, variable, scale,
            metric, cells, region, statistic).
    """
    if "summary" not in scores:
        return []
    summary, where = where_tested(scores["summary"])
    models = _names(summary, "model")
    metrics = [m for m in COMPARED if m in _names(summary, "metric")]
    whole = summary.isel(region=0)
    tables = [
        _by_scale(
            whole.sel(statistic=statistic, metric=metrics),
            ("metric", "model"),
            f"Model and baselines against observations: {STATISTICS[statistic]}, "
            f"{where}",
        )
        for statistic in STATISTICS
        if statistic in _names(summary, "statistic")
    ]
    tables.append(
        _by_scale(
            whole.sel(statistic="median", model=models[0]),
            ("metric",),
            f"All metrics of the model: median over cells, {where}",
        )
    )
    if summary.sizes["region"] > 1 and REGIONAL_SCALE in _names(summary, "scale"):
        tables.append(_regions(scores, where))
    return [table for table in tables if table.rows]


def truth(scores: xr.Dataset) -> list[Table]:
    """How well the truth of a synthetic world is met, variable by variable.

    Args:
        scores: With `truth_summary` (truth_variable, scale, metric, cells, region,
            statistic), `truth_pattern` (truth_variable, metric, cells, region) and
            `constant` (constant_name, source), as far as there are any.
    """
    tables = []
    if "truth_summary" in scores:
        tables.append(_truths(scores))
    if "constant" in scores:
        constants = scores["constant"]
        rows = [
            (label(name), *map(number, constants.sel(constant_name=name).values))
            for name in _names(constants, "constant_name")
        ]
        columns = ("constant", *_names(constants, "source"))
        tables.append(Table("Learned once for the globe", columns, rows))
    return [table for table in tables if table.rows]


def _truths(scores: xr.Dataset) -> Table:
    """Scores of daily series and, beside them, of the map of their means."""
    summary, where = where_tested(scores["truth_summary"])
    series = summary.isel(region=0).sel(statistic="median", scale=TRUTH_SCALE)
    parts = {f"{TRUTH_SCALE} series, median over cells": (series, OF_SERIES)}
    if "truth_pattern" in scores:
        cells = where.removesuffix(" cells")
        pattern = scores["truth_pattern"].sel(cells=cells).isel(region=0)
        parts["map of time means"] = (pattern, OF_MAP)
    known = _names(series, "metric")
    parts = {of: (v, [m for m in ms if m in known]) for of, (v, ms) in parts.items()}
    rows = []
    for name in _names(series, "truth_variable"):
        values = [
            number(part.sel(truth_variable=name, metric=metric).item(), metric)
            for part, metrics in parts.values()
            for metric in metrics
        ]
        rows.append((label(name), *values))
    return Table(
        f"The model against the synthetic truth, {where}",
        ("variable", *(title(m) for _, metrics in parts.values() for m in metrics)),
        rows,
        groups=[(of, len(metrics)) for of, (_, metrics) in parts.items()],
    )


def emergent(scores: xr.Dataset) -> list[Table]:
    """Quantities that nothing was trained on, by region, and in the truth."""
    if "emergent_summary" not in scores:
        return []
    summary = scores["emergent_summary"]
    sources = {"model": summary}
    if "emergent_truth_summary" in scores:
        sources["truth"] = scores["emergent_truth_summary"]
    quantities = _names(summary, "quantity")
    tables = []
    for cells in _names(summary, "cells"):
        rows = []
        for region in _names(summary, "region"):
            values = [
                source.sel(quantity=quantity, cells=cells, region=region).item()
                for quantity in quantities
                for source in sources.values()
            ]
            if not np.isnan(values).all():
                rows.append((region, *(number(value, "r") for value in values)))
        caption = f"Emergent quantities, {cells} cells"
        if len(sources) > 1:
            columns = ["region", *(list(sources) * len(quantities))]
            groups = [(style.title(q), len(sources)) for q in quantities]
        else:
            columns, groups = ["region", *map(style.title, quantities)], []
        if rows:
            tables.append(Table(caption, columns, rows, groups=groups))
    return tables


def equifinality(folds: xr.Dataset) -> list[Table]:
    """What the folds disagree about.

    Args:
        folds: As `equifinality` writes it, with `decomposition` (step, variable,
            term), `total` (step, variable) and, perhaps, `relative_spread`
            (variable, lat, lon) or (variable, cell).
    """
    if "decomposition" not in folds:
        return []
    steps, terms = _names(folds, "step"), _names(folds, "term")
    columns = ["kind", "variable", *([*terms, "total"] * len(steps))]
    groups = [(step, len(terms) + 1) for step in steps]
    if "relative_spread" in folds:
        spread = folds["relative_spread"]
        spread = spread.median([dim for dim in spread.dims if dim != "variable"])
        columns.append("relative")
        groups.append(("spread", 1))
    rows = []
    for variable in _names(folds, "variable"):
        one = folds.sel(variable=variable)
        values = []
        for step in steps:
            values += [one["decomposition"].sel(step=step, term=t) for t in terms]
            values.append(one["total"].sel(step=step))
        if "relative_spread" in folds:
            values.append(spread.sel(variable=variable))
        kind = VARIABLES[variable].kind if variable in VARIABLES else ""
        rows.append(
            (kind, title(variable), *(number(float(value)) for value in values))
        )
    kinds = list(dict.fromkeys(row[0] for row in rows))
    rows.sort(key=lambda row: kinds.index(row[0]))
    note = (
        "Mean squared difference of two folds per their variance, averaged over all "
        "pairs, and its terms: of the means, of the standard deviations, and of a lack "
        "of covariance. "
    )
    if "relative_spread" in folds:
        note += (
            "Relative spread: standard deviation over the folds of the mean over time, "
            "per that of the mean in space; median over cells."
        )
    caption = "Disagreement between the folds"
    if "test_cells" in folds.attrs:
        caption += f" on {folds.attrs['test_cells']} test cells"
    return [Table(caption, columns, rows, heads=2, groups=groups, note=note)]


def where_tested(summary: xr.DataArray) -> tuple[xr.DataArray, str]:
    """The summary of the test cells; of all, where no cell is one."""
    tested = summary.sel(cells="test")
    if tested.notnull().any():
        return tested, "test cells"
    return summary.sel(cells="all"), "all cells"


def _by_scale(summary: xr.DataArray, across: Sequence[str], caption: str) -> Table:
    """A row for each variable and scale, with what there is `across` in columns."""
    rows = []
    for name in _names(summary, "variable"):
        for scale in _names(summary, "scale"):
            values = summary.sel(variable=name, scale=scale).transpose(*across)
            if values.isnull().all():
                continue
            metrics = values["metric"].broadcast_like(values).transpose(*across)
            pairs = zip(values.values.flat, metrics.values.flat, strict=True)
            rows.append((label(name), scale, *(number(v, str(m)) for v, m in pairs)))
    heads, groups = [title(n) for n in _names(summary, across[-1])], []
    if len(across) > 1:
        groups = [(title(n), len(heads)) for n in _names(summary, across[0])]
        heads *= len(groups)
    return Table(caption, ("variable", "scale", *heads), rows, heads=2, groups=groups)


def _regions(scores: xr.Dataset, where: str) -> Table:
    """NSE of the model by region."""
    cells = where.removesuffix(" cells")
    summary = scores["summary"].isel(model=0)
    summary = summary.sel(cells=cells, scale=REGIONAL_SCALE, metric="nse")
    variables = _names(summary, "variable")
    statistics = [s for s in STATISTICS if s in _names(summary, "statistic")]
    counted = "cell_count" in scores
    rows = []
    for region in _names(summary, "region"):
        values = summary.sel(region=region, statistic=statistics)
        values = values.transpose("statistic", "variable").values.ravel()
        texts = [number(value, "nse") for value in values]
        if counted:
            count = scores["cell_count"].sel(region=region, cells=cells)
            texts.insert(0, f"{int(count)}")
        if counted or not np.isnan(values).all():
            rows.append((region, *texts))
    columns = [title(name) for name in variables] * len(statistics)
    groups = [(STATISTICS[s], len(variables)) for s in statistics]
    return Table(
        f"NSE of the model by climate region, {REGIONAL_SCALE}, {where}",
        ("region", *(["cells"] * counted), *columns),
        rows,
        groups=[*([("", 1)] * counted), *groups],
    )


def _names(values: xr.DataArray | xr.Dataset, dim: str) -> list[str]:
    return list(map(str, values[dim].values))
