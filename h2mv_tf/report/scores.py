"""Tables of an evaluation and of the equifinality between folds."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from h2mv_tf.report.parts import Table, label, number, title
from h2mv_tf.variables import VARIABLES

COMPARED = ("nse", "kge", "rmse")  # of every model
STATISTICS = {
    "median": "median over cells",
    "mean series": "area-weighted mean series",
}
REGIONAL_SCALE = "monthly"  # the one on which all variables can be compared
_SCORES = (
    "NSE, KGE, KGE 2012, r, α and β have no units; RMSE, ubRMSE and bias have those of "
    "the variable."
)


def skill(scores: xr.Dataset) -> list[Table]:
    """How well the observations are met, beside the baselines.

    Args:
        scores: As `evaluate` writes it, with `summary` (model, variable, scale,
            metric, cells, region, statistic).
    """
    summary, where = _where_tested(scores["summary"], "cells")
    models = _names(summary, "model")
    metrics = [m for m in COMPARED if m in _names(summary, "metric")]
    whole = summary.isel(region=0)
    tables = [
        _by_scale(
            whole.sel(statistic=statistic, metric=metrics),
            "variable",
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
            "variable",
            ("metric",),
            f"All metrics of the model: median over cells, {where}",
        )
    )
    if summary.sizes["region"] > 1 and REGIONAL_SCALE in _names(summary, "scale"):
        tables.append(_regions(summary.sel(model=models[0]), where))
    return [table for table in tables if table.rows]


def truth(scores: xr.Dataset) -> list[Table]:
    """How well the truth of a synthetic world is met, variable by variable."""
    if "truth_summary" not in scores:
        return []
    summary, where = _where_tested(scores["truth_summary"], "cells")
    table = _by_scale(
        summary.isel(region=0).sel(statistic="median"),
        "truth_variable",
        ("metric",),
        f"The model against the synthetic truth: median over cells, {where}",
    )
    return [table] if table.rows else []


def emergent(scores: xr.Dataset) -> list[Table]:
    """Quantities that nothing was trained on, by region, and in the truth."""
    if "emergent_summary" not in scores:
        return []
    sources = {"model": scores["emergent_summary"]}
    if "emergent_truth_summary" in scores:
        sources["truth"] = scores["emergent_truth_summary"]
    quantities = _names(sources["model"], "quantity")
    tables = []
    for cells in _names(sources["model"], "cells"):
        rows = []
        for region in _names(sources["model"], "region"):
            values = [
                source.sel(quantity=quantity, cells=cells, region=region).item()
                for quantity in quantities
                for source in sources.values()
            ]
            if not np.isnan(values).all():
                rows.append((region, *(f"{number(v, 'r')}" for v in values)))
        caption = f"Emergent quantities [1], {cells} cells"
        if len(sources) > 1:
            columns = ["region", *(list(sources) * len(quantities))]
            groups = [(title(q), len(sources)) for q in quantities]
        else:
            columns, groups = ["region", *map(title, quantities)], []
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
        rows.append((kind, variable, *(number(float(value)) for value in values)))
    kinds = list(dict.fromkeys(row[0] for row in rows))
    rows.sort(key=lambda row: kinds.index(row[0]))
    note = (
        "Mean squared difference between two folds, over all pairs of folds, per "
        "variance, and its parts: of the means, of the deviations and of the timing "
        "(covariance). "
    )
    if "relative_spread" in folds:
        note += (
            "Relative spread: deviation of the time mean over the folds per its "
            "deviation in space, median over cells."
        )
    caption = "Disagreement between the folds"
    return [Table(caption, columns, rows, heads=2, groups=groups, note=note)]


def _where_tested(summary: xr.DataArray, dim: str) -> tuple[xr.DataArray, str]:
    """The summary of the test cells; of all, where no cell is one."""
    for cells in ("test", "all"):
        if cells in _names(summary, dim) and summary.sel({dim: cells}).notnull().any():
            return summary.sel({dim: cells}), f"{cells} cells"
    return summary.isel({dim: 0}), "all cells"


def _by_scale(
    summary: xr.DataArray, variable: str, across: Sequence[str], caption: str
) -> Table:
    """A row for each variable and scale, with what there is `across` in columns."""
    inner = across[-1]
    rows = []
    for name in _names(summary, variable):
        for scale in _names(summary, "scale"):
            values = summary.sel({variable: name, "scale": scale}).transpose(*across)
            if values.isnull().all():
                continue
            metrics = values.coords["metric"].broadcast_like(values)
            pairs = zip(values.values.flat, metrics.values.flat, strict=True)
            rows.append((label(name), scale, *(number(v, str(m)) for v, m in pairs)))
    heads, groups = [title(n) for n in _names(summary, inner)], []
    if len(across) > 1:
        groups = [(title(n), len(heads)) for n in _names(summary, across[0])]
        heads *= len(groups)
    columns = ("variable", "scale", *heads)
    return Table(caption, columns, rows, heads=2, groups=groups, note=_SCORES)


def _regions(summary: xr.DataArray, where: str) -> Table:
    """NSE by region."""
    summary = summary.sel(scale=REGIONAL_SCALE, metric="nse")
    variables = _names(summary, "variable")
    statistics = [s for s in STATISTICS if s in _names(summary, "statistic")]
    rows = []
    for region in _names(summary, "region"):
        values = summary.sel(region=region, statistic=statistics)
        values = values.transpose("statistic", "variable").values.ravel()
        if not np.isnan(values).all():
            rows.append((region, *(number(value, "nse") for value in values)))
    return Table(
        f"NSE of the model by climate region, {REGIONAL_SCALE}, {where}",
        ("region", *(variables * len(statistics))),
        rows,
        groups=[(STATISTICS[s], len(variables)) for s in statistics],
    )


def _names(values: xr.DataArray | xr.Dataset, dim: str) -> list[str]:
    return list(map(str, values[dim].values))
