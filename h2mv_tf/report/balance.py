"""Whether the water balance closes, in whatever was simulated."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from h2mv_tf.report import files
from h2mv_tf.report.parts import (
    DAILY,
    NOTHING,
    Section,
    Table,
    Verdict,
    number,
    rate,
)
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.variables import CLOSED


class Residual(NamedTuple):
    """The water balance of one simulation."""

    what: str
    largest: float  # mm d-1, over cells and days
    closure: float | None = None  # mm, over the whole period
    days: int | None = None
    cell: str = ""


def tested(metrics: Mapping) -> list[Residual]:
    """The balance on the test cells at the end of the training."""
    if "test" not in metrics:
        return []
    return [Residual("trained model, test cells", metrics["test"]["residual"])]


def noted(metrics: Mapping) -> list[Residual]:
    """The balance that predictions noted when they were made."""
    return [
        _residual(f"{Path(path).name}, all cells", balance)
        for path, balance in metrics.get("predictions", {}).items()
    ]


def evaluated(simulated: Path) -> list[Residual]:
    """The balance that an evaluation worked out anew from the predictions."""
    balance = files.mapping(files.evaluation(simulated) / "metrics.json").get(
        "water_balance"
    )
    return [_residual(f"{simulated.name}, evaluated", balance)] if balance else []


def _residual(what: str, balance: Mapping) -> Residual:
    cell = balance.get("cell") or {}
    largest = balance.get("largest_residual")
    return Residual(
        what,
        math.nan if largest is None else largest,
        balance.get("largest_closure"),
        balance.get("days"),
        ", ".join(f"{name} {value}" for name, value in cell.items()),
    )


def worst(runs: Sequence[RunFolder], results: Mapping) -> list[Residual]:
    """Of each kind of residual the one of the worst fold."""
    kinds: dict[str, list[tuple[str, Residual]]] = {}
    for run in runs:
        metrics, name = results[run.path.name], run.path.name
        simulated = files.simulated(run.path, files.PREDICTIONS)
        for residual in (*tested(metrics), *noted(metrics), *evaluated(simulated)):
            kinds.setdefault(residual.what, []).append((name, residual))
    residuals = []
    for found in kinds.values():
        name, residual = max(found, key=lambda pair: _badness(pair[1]))
        words = f"{residual.what}, worst of {len(found)} folds: {name}"
        residuals.append(residual._replace(what=words))
    return residuals


def _badness(residual: Residual) -> tuple[bool, float]:
    """Orders residuals; what is no number is worse than any."""
    return not math.isfinite(residual.largest), abs(residual.largest)


def section(residuals: Sequence[Residual]) -> Section:
    """The section on the water balance, with whether it closes."""
    if not residuals:
        return Section("Water balance")
    largest = max(residuals, key=_badness)
    good = abs(largest.largest) <= CLOSED  # no number does not close
    words = (
        f"The water balance {'closes' if good else 'does not close'}: the largest "
        f"residual of a cell and day is {rate(largest.largest)} ({largest.what}); the "
        f"limit is {CLOSED:g} {DAILY}."
    )
    simulated = any(residual.days for residual in residuals)
    columns = ("simulation", f"largest residual [{DAILY}]")
    if simulated:
        columns += ("largest closure [mm]", "days")
    if any(residual.cell for residual in residuals):
        columns += ("cell of the largest residual",)
    rows = [
        (
            residual.what,
            number(residual.largest),
            number(residual.closure),
            f"{residual.days or NOTHING}",
            residual.cell or NOTHING,
        )[: len(columns)]
        for residual in residuals
    ]
    note = "Residual: of a cell and day. "
    if simulated:
        note += "Closure: the residuals of a cell added up over all days."
    table = Table(
        "Corrected precipitation less evapotranspiration, runoff and storage change",
        columns,
        rows,
        note=note,
    )
    return Section("Water balance", verdict=Verdict(good, words), tables=[table])
