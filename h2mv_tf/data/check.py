"""Check: what is wrong with a store, and how to mend it.

    check = Check.of(survey(Store.open("globe.zarr")))
    check.refuse()

A finding is serious where a training would fail or learn something wrong; the
others are for the user to know.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from h2mv_tf.data.groups import DAY, OBSERVED, STATIC
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import Summary, Survey
from h2mv_tf.data.units import converts, same_units
from h2mv_tf.errors import UserError, printable, quoted
from h2mv_tf.variables import (
    CONSTRAINT_OF,
    CONSTRAINTS,
    FORCING,
    VARIABLES,
    Variable,
)

LARGE_BLOCK = 256e6  # bytes that are read together; more calls for other chunks
YEAR = 365  # days
PERCENT = 1.5  # a fraction above it is taken for percent


class Finding(NamedTuple):
    """Something that is wrong with a variable, or worth knowing."""

    variable: str
    serious: bool  # a training would fail, or learn something wrong
    what: str
    mend: str

    def __str__(self) -> str:
        return printable(f"{self.what} {self.mend}".strip())


class Row(NamedTuple):
    """A variable of the store; range and gaps are of the land."""

    name: str
    units: str
    low: float
    high: float
    plausible: str
    missing: float  # share of the values
    unobserved: int  # cells without any value
    period: str
    step: str
    gaps: int  # steps that are left out of the time axis
    chunks: str


@dataclass(frozen=True)
class Check:
    """A row for each variable, and what was found.

    Attributes:
        store: Where the store is.
        rows: The variables.
        findings: What is wrong, the most serious first.
    """

    store: str
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, survey: Survey, *, weighed: bool = True) -> "Check":
        """Checks a store.

        Args:
            survey: What a pass over it found.
            weighed: Whether standard errors count in a training; if not, they are
                for the user to know.
        """
        store = survey.store
        found = []
        for name, summary in survey.series.items():
            found += _forcing(store, VARIABLES[name], summary)
            found += _observations(VARIABLES[name], summary)
            found += _errors(store, VARIABLES[name], summary)
            found += _units(store, VARIABLES[name], summary)
        if not weighed:
            found = [
                finding._replace(serious=False)
                if finding.variable in CONSTRAINT_OF
                else finding
                for finding in found
            ]
        found += [*_static(store, survey.static), *_structure(survey)]
        return cls(
            store=str(store.path),
            rows=tuple(_rows(survey)),
            findings=tuple(sorted(found, key=lambda finding: not finding.serious)),
        )

    @classmethod
    def failed(
        cls, path: object, error: UserError, before: "Check | None" = None
    ) -> "Check":
        """The check of a store that cannot be trained with at all.

        Args:
            path: Where the store is.
            error: Why not.
            before: What was found until then.
        """
        finding = Finding("store", True, str(error), "")
        if before is None:
            return cls(str(path), (), (finding,))
        return cls(before.store, before.rows, (finding, *before.findings))

    @property
    def serious(self) -> tuple[Finding, ...]:
        """The findings that a training would fail of."""
        return tuple(finding for finding in self.findings if finding.serious)

    def refuse(self) -> None:
        """Raises a UserError where there is a serious finding."""
        if not self.serious:
            return
        first, *others = self.serious
        more = ""
        if others:
            more = (
                f" There {'is' if len(others) == 1 else 'are'} {len(others)} more: see "
                f"`python -m h2mv_tf check-data {self.store}`."
            )
        raise UserError(f"Store '{self.store}': {first}{more}")


def _structure(survey: Survey) -> Iterator[Finding]:
    """What is wrong with its groups and chunks."""
    store = survey.store
    if not survey.constraints:
        yield Finding(
            "store",
            True,
            "It observes no constraint, so there is nothing to train on.",
            f"Add one of the groups {', '.join(OBSERVED)}.",
        )
    for group, count in store.missing_chunks().items():
        yield Finding(
            group,
            True,
            f"{count} chunks of '{store.groups[group]}/data' are gone since it was "
            "written.",
            "Copy the store again, or make it anew.",
        )
    cells = max(len(block.cells) for block in store.blocks)
    size = 4 * len(store.time) * cells
    if size > LARGE_BLOCK:
        yield Finding(
            "store",
            False,
            f"Of the forcing {size / 1e6:,.0f} MB have to be read together, as its "
            "chunks hold maps rather than series.",
            "`python -m h2mv_tf ingest` makes a store of series.",
        )


def _units(store: Store, variable: Variable, summary: Summary) -> Iterator[Finding]:
    """Units that the values or the attribute tell to be others."""
    stated = store.attributes(variable.group).get("units")
    convert = "Convert it (`python -m h2mv_tf ingest` does), or mend the attribute."
    if stated is not None and not same_units(str(stated), variable.units):
        how = "convert to" if converts(str(stated), variable.units) else "are not like"
        yield Finding(
            variable.name,
            True,
            f"{variable.label} has the units '{quoted(str(stated), 50)}', which {how} "
            f"{variable.units}.",
            convert,
        )
        return
    peak = np.fmax.reduce(np.fmax(abs(summary.low), abs(summary.high)), initial=0)
    long = len(store.time) >= YEAR and summary.count.any()
    if long and (doubt := doubt_of(variable, peak)):
        serious = stated is None and variable.name in FORCING
        yield Finding(variable.name, serious, doubt, convert)


def doubt_of(variable: Variable, peak: float) -> str:
    """Tells that the units may be others; nothing where the values are usual.

    Args:
        variable: Of the registry.
        peak: The largest absolute value of a record of a year or more.
    """
    if variable.peak is None or peak >= variable.peak:
        return ""
    return (
        f"{variable.label} does not go beyond {peak:.2g} anywhere, though "
        f"{variable.peak:g} is little. Its units may be others."
    )


def refuse_forcing(
    store: Store, name: str, values: np.ndarray, cells: np.ndarray
) -> None:
    """Refuses forcing that is missing or out of bounds, before anything reads it.

    Args:
        store: Where it is from.
        name: Its name in the registry.
        values: (cells, days).
        cells: Which land cells these are.

    Raises:
        UserError: It cannot be simulated with.
    """
    variable = VARIABLES[name]
    summary = Summary.of(values, variable.bounds)
    for finding in _unusable(store, variable, summary, cells):
        raise UserError(f"{store.label}: {finding}")


def refuse_static(store: Store, static: np.ndarray) -> None:
    """Refuses static inputs that are missing.

    Args:
        store: Where they are from.
        static: (cells, static inputs).

    Raises:
        UserError: One is missing at a land cell.
    """
    for finding in _static(store, static):
        if finding.serious:
            raise UserError(f"{store.label}: {finding}")


def _forcing(store: Store, variable: Variable, summary: Summary) -> Iterator[Finding]:
    """Forcing is there, within bounds and not constant."""
    if variable.name not in FORCING:
        return
    yield from _unusable(store, variable, summary, np.arange(len(summary.count)))
    if _constant(summary):
        yield Finding(
            variable.name,
            True,
            f"{variable.label} is {summary.low[0]:g} everywhere on all days.",
            "Weather changes: look where it comes from.",
        )


def _unusable(
    store: Store, variable: Variable, summary: Summary, cells: np.ndarray
) -> Iterator[Finding]:
    """Forcing that is missing, or beyond what is possible."""
    (lacking,) = np.nonzero(summary.missing >= 0)
    if len(lacking):
        cell = lacking[0]
        total = int((len(store.time) - summary.count).sum())
        yield Finding(
            variable.name,
            True,
            f"{variable.label} is missing at {store.describe(cells[cell])} on "
            f"{store.time[summary.missing[cell]]:%Y-%m-%d}, first of {total} missing "
            "values.",
            f"Every land cell needs it: fill it, or {store.leaving_out}.",
        )
    (outside,) = np.nonzero(summary.outside)
    low, high = variable.bounds
    if len(outside):
        cell = outside[0]
        hint = "Convert its units"
        if variable.name == "air_temperature" and np.nanmax(abs(summary.high)) < low:
            hint = "It looks like degC: convert it to K"
        yield Finding(
            variable.name,
            True,
            f"{variable.label} has to lie between {low:g} and {high:g}; found "
            f"{summary.outsider[cell]:g} at {store.describe(cells[cell])} on "
            f"{store.time[summary.first_outside[cell]]:%Y-%m-%d}, first of "
            f"{int(summary.outside.sum())} values.",
            f"{hint} ({store.converting}).",
        )


def _observations(variable: Variable, summary: Summary) -> Iterator[Finding]:
    """Observations are there, and what the model can reach."""
    if variable.name not in CONSTRAINTS:
        return
    count = int(summary.count.sum())
    if not count:
        yield Finding(
            variable.name,
            True,
            f"Constraint '{variable.name}' has no observation at any land cell in the "
            "period of the forcing.",
            "Drop it from objective.constraints, or add observations.",
        )
        return
    low, high = variable.bounds
    if high is not None and np.nanmax(summary.high) > PERCENT * high:
        yield Finding(
            variable.name,
            True,
            f"{variable.label} goes up to {np.nanmax(summary.high):g}; a fraction is "
            f"at most {high:g}. It looks like percent.",
            "Divide it by 100 (`python -m h2mv_tf ingest` does).",
        )
    elif summary.outside.any():
        share = summary.outside.sum() / count
        yield Finding(
            variable.name,
            False,
            f"{share:.2%} of the values of {variable.label} are such as the model "
            f"cannot reach, as it stays within {_range(low, high)}.",
            "They count like any other.",
        )
    if _constant(summary):
        value = np.nanmin(summary.low)
        yield Finding(
            variable.name,
            False,
            f"{variable.label} is {value:g} wherever it is observed.",
            "It tells little: drop it from objective.constraints, maybe.",
        )


def _errors(store: Store, variable: Variable, summary: Summary) -> Iterator[Finding]:
    """Standard errors are there wherever something is observed, and above 0."""
    (unusable,) = np.nonzero(summary.outside)
    if variable.name not in CONSTRAINT_OF or not len(unusable):
        return
    cell, constraint = unusable[0], CONSTRAINT_OF[variable.name]
    value = summary.outsider[cell]
    when = _when(store, variable.name, summary.first_outside[cell])
    yield Finding(
        variable.name,
        True,
        f"{variable.label} (group '{store.groups[variable.group]}') is "
        f"{'missing' if np.isnan(value) else f'{value:g}'} at "
        f"{store.describe(cell)} {when}, where '{constraint}' is observed, first of "
        f"{int(summary.outside.sum())} such values.",
        "Errors are standard deviations above 0: mend it, or set objective.errors to "
        "leave it out.",
    )


def _when(store: Store, name: str, step: int) -> str:
    """A step of observations in words."""
    if store.calendar(name).daily:
        return f"on {store.time[step]:%Y-%m-%d}"
    year, month = divmod(store.months[step], 12)
    return f"in {year:04d}-{month + 1:02d}"


def _static(store: Store, static: np.ndarray) -> Iterator[Finding]:
    """Static inputs are there, and not constant."""
    names = zip(store.static_names, static.T, strict=True)
    for name, values in names:
        (lacking,) = np.nonzero(np.isnan(values))
        if len(lacking):
            yield Finding(
                name,
                True,
                f"static input '{name}' is missing at {store.describe(lacking[0])}, "
                f"first of {len(lacking)} missing values.",
                f"Every land cell needs it: fill it, or {store.leaving_out}.",
            )
        elif len(values) > 1 and values.min() == values.max():
            yield Finding(
                name,
                False,
                f"Static input '{name}' is {values[0]:g} at all cells.",
                "It tells nothing: drop it, maybe.",
            )


def _rows(survey: Survey) -> Iterator[Row]:
    store = survey.store
    for name, summary in survey.series.items():
        variable = VARIABLES[name]
        steps, time = len(store.time), store.time
        step, gaps = "daily", 0
        if name not in FORCING:
            calendar = store.calendar(name)
            steps, time = len(calendar.place), calendar.time
            step = "daily" if calendar.daily else "monthly"
            gaps = _gaps(time, calendar.daily)
        yield Row(
            name=name,
            units=variable.units,
            low=float(np.fmin.reduce(summary.low)),
            high=float(np.fmax.reduce(summary.high)),
            plausible=_range(*variable.bounds),
            missing=1 - float(summary.count.sum()) / (steps * len(summary.count)),
            unobserved=int((summary.count == 0).sum()),
            period=f"{time[0]:%Y-%m-%d} to {time[-1]:%Y-%m-%d}",
            step=step,
            gaps=gaps,
            chunks=_chunks(store, variable.group),
        )
    for name, values in zip(store.static_names, survey.static.T, strict=True):
        yield Row(
            name=name,
            units=store.static_units.get(name, ""),
            low=float(np.fmin.reduce(values)),
            high=float(np.fmax.reduce(values)),
            plausible="",
            missing=float(np.isnan(values).mean()),
            unobserved=int(np.isnan(values).sum()),
            period="",
            step="static",
            gaps=0,
            chunks=_chunks(store, STATIC),
        )


def _gaps(time: pd.DatetimeIndex, daily: bool) -> int:
    """Steps between the first and the last that a time axis leaves out."""
    if daily:
        return int((time[-1] - time[0]) / DAY) + 1 - len(time)
    months = time.year * 12 + time.month
    return int(months[-1] - months[0]) + 1 - len(time)


def _chunks(store: Store, group: str) -> str:
    return " x ".join(str(size) for size in store.chunks(group).values())


def _constant(summary: Summary) -> bool:
    low, high = np.fmin.reduce(summary.low), np.fmax.reduce(summary.high)
    return bool(low == high) and summary.count.sum() > 1


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return "any"
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"
