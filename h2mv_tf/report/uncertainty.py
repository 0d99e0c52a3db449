"""Whether the samples of a posterior are right, and what the data constrain."""

from pathlib import Path

import xarray as xr

from h2mv_tf.report import figures, files
from h2mv_tf.report.parts import Section, Table, label, number, title
from h2mv_tf.report.scores import where_tested

FIGURES = (
    "coverage",
    "reliability",
    "pit_histograms",
    "spread_skill",
    "width_maps",
    "truth_coverage_maps",
)
# What is held against what: the dimension of its variables, and what stands before the
# names of its scores.
COMPARED = {
    "Samples against observations": ("variable", ""),
    "Samples against the hidden truth": ("truth_variable", "truth_"),
}
COLUMNS = {
    "CRPS": ("crps", None),
    "error of the mean": ("crps_deterministic", None),
    "of 50 %": ("coverage", 0.5),
    "of 90 %": ("coverage", 0.9),
    "width of 90 %": ("sharpness", 0.9),
    "spread / error": ("spread_skill", None),
}
GROUPS = (("units of the variable", 2), ("coverage", 2), ("spread", 2))
SHARES = ("coverage", "spread_skill")  # told to the hundredth
NOTE = (
    "CRPS is the error of a distribution: for samples that are all alike, the mean "
    "absolute error of the mean, beside it. Coverage: share of values within the "
    "central interval of the samples, whose mean width has the units of the variable. "
    "Spread / error: root mean square of the samples' deviation per that of the error "
    "of their mean; below 1 they are too narrow."
)
CONSTANT, CONSTANTS = "constant_", "constant_name"  # of scores, of their dimension


def section(file: Path, pictures: Path) -> Section:
    """Tables and figures of an evaluation of samples; empty where there is none.

    Args:
        file: The evaluation.
        pictures: Folder of the figures.

    Raises:
        UserError: It cannot be read.
    """
    if not file.exists():
        return Section("Uncertainty")
    with files.dataset(file) as scores:
        tables = [
            *(
                _calibration(scores, caption, dim, prefix)
                for caption, (dim, prefix) in COMPARED.items()
                if f"{prefix}coverage" in scores
            ),
            _constants(scores),
        ]
        return Section(
            "Uncertainty",
            text=scores.attrs.get("notes", ""),
            tables=[table for table in tables if table.rows],
            figures=figures.embed(pictures, only=FIGURES),
        )


def _calibration(scores: xr.Dataset, caption: str, dim: str, prefix: str) -> Table:
    """A row for each variable."""
    _, where = where_tested(scores[f"{prefix}coverage"])
    chosen = scores.sel(cells=where.removesuffix(" cells"))
    rows = []
    for name in map(str, scores[dim].values):
        values = []
        for score, level in COLUMNS.values():
            data = chosen[f"{prefix}{score}"].sel({dim: name})
            if level is not None:
                data = data.sel(level=level, method="nearest")
            values.append((data.item(), score))
        texts = [number(value, "r" if s in SHARES else "") for value, s in values]
        rows.append((label(name), *texts))
    return Table(
        f"{caption}, {where}", ("variable", *COLUMNS), rows, groups=GROUPS, note=NOTE
    )


def _constants(scores: xr.Dataset) -> Table:
    """What the samples say of the constants, and the truth where there is one."""
    columns = {}
    for key, data in scores.data_vars.items():
        name = str(key)
        if not name.startswith(CONSTANT):
            continue
        if data.ndim == 1:
            columns[title(name.removeprefix(CONSTANT))] = data
            continue
        (quantile,) = set(data.dims) - {CONSTANTS}
        for level in data[quantile].values:
            columns[f"{100 * level:g} %"] = data.sel({quantile: level})
    names = map(str, scores[CONSTANTS].values) if columns else ()
    rows = [
        (
            label(name),
            *(number(data.sel({CONSTANTS: name}).item()) for data in columns.values()),
        )
        for name in names
    ]
    return Table("Samples of the global constants", ("constant", *columns), rows)
