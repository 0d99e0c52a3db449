"""What a folder holds, as sections of a page."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf import config, predictions
from h2mv_tf.errors import UserError
from h2mv_tf.report import figures, scores
from h2mv_tf.report.parts import NOTHING, Section, Table, Verdict, number
from h2mv_tf.run_folder import RunFolder

CLOSED = 1e-3  # mm d-1, the largest residual that rounding explains, as in training
COMMIT = 12  # characters of a commit that one reads
FOLDS = "fold-*"
PREDICTIONS, ENSEMBLE = "predictions.zarr", "ensemble.zarr"
TRAINED = ("loss_curves", "roles")  # figures that a training draws


class Missing(NamedTuple):
    """Something that is not there yet, and the command that makes it."""

    what: str
    command: str


class Page(NamedTuple):
    """All of a report.

    Attributes:
        title: Its title.
        facts: What made the run, by name.
        sections: What it has.
        missing: What it could have.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    missing: Sequence[Missing]


class Residual(NamedTuple):
    """The water balance of one simulation."""

    what: str
    largest: float  # mm d-1, over cells and days
    closure: float | None = None  # mm, over the whole period
    days: int | None = None
    cell: str = ""


def read(folder: Path) -> Page:
    """Reads what a run folder, or a cross-validation's, holds so far.

    Raises:
        UserError: It is neither, or something in it cannot be read.
    """
    runs = [RunFolder(file.parent) for file in folder.glob(f"{FOLDS}/config.yaml")]
    runs.sort(key=lambda run: run.path.name)
    run = RunFolder(folder)
    if not runs and not run.config_file.is_file():
        raise UserError(
            f"'{folder}' is no run folder and no cross-validation: it has neither "
            "config.yaml nor fold-01/config.yaml. Train with: python trainers/train.py "
            "--run-dir DIR"
        )
    return _cross_validation(folder, runs) if runs else _run(run)


def _run(run: RunFolder) -> Page:
    settings = config.load(run.config_file)
    path, metrics = run.path, _json(run.metrics_file)
    simulated = path / PREDICTIONS
    residuals = [
        *_tested(metrics, "trained model, test cells"),
        *_simulated(simulated, "predictions, all cells"),
    ]
    sections = [
        _balance(residuals),
        _objective(run, metrics),
        _cells(run),
        *_evaluation(simulated),
        Section("Figures", figures=figures.embed(run.figures, without=TRAINED)),
        _configuration(run, "The resolved configuration, as config.yaml has it."),
        _provenance(simulated),
    ]
    store = settings.data.store
    missing = _missing(
        {
            ("results on the test cells", "test" in metrics): (
                f"python trainers/train.py --resume --run-dir {_quoted(path)}"
            ),
            ("predictions", simulated.exists()): (
                f"python -m h2mv_tf predict {_quoted(path)} --data {_quoted(store)}"
            ),
            ("evaluation", _scores_file(simulated).exists()): (
                f"python -m h2mv_tf evaluate {_quoted(simulated)} --data "
                f"{_quoted(store)}"
            ),
            ("figures of the results", _drawn(run.figures)): (
                f"python -m h2mv_tf plot {_quoted(path)}"
            ),
        }
    )
    facts = (*_facts(settings), ("Fold", f"{settings.split.fold} of 10"))
    return _page(f"Run {_name(path)}", facts, sections, missing)


def _cross_validation(path: Path, runs: Sequence[RunFolder]) -> Page:
    settings = config.load(runs[0].config_file)
    results = {run.path.name: _json(run.metrics_file) for run in runs}
    ensemble = path / ENSEMBLE
    residuals = []
    for run in runs:
        name = run.path.name
        residuals += _tested(results[name], f"{name}, trained model, test cells")
        residuals += _simulated(run.path / PREDICTIONS, f"{name}, predictions")
    residuals += _simulated(ensemble, "ensemble mean")
    file = path / "equifinality" / "equifinality.nc"
    sections = [
        _balance(residuals),
        Section("Folds", tables=[_folds(runs, results)]),
        *_evaluation(ensemble),
        Section("Equifinality", tables=_tables(file, scores.equifinality)),
        Section("Figures", figures=figures.embed(path / "figures")),
        _configuration(
            runs[0],
            f"The resolved configuration of {runs[0].path.name}, as its config.yaml has "
            "it. Between folds, split.fold differs.",
        ),
        _provenance(ensemble),
    ]
    unfinished = [name for name, metrics in results.items() if "test" not in metrics]
    store = settings.data.store
    missing = _missing(
        {
            ("results of " + ", ".join(unfinished), not unfinished): (
                f"python trainers/cross_validate.py --resume --run-dir {_quoted(path)}"
            ),
            ("ensemble", ensemble.exists()): (
                f"python trainers/cross_validate.py --resume --run-dir {_quoted(path)}"
            ),
            ("evaluation of the ensemble", _scores_file(ensemble).exists()): (
                f"python -m h2mv_tf evaluate {_quoted(ensemble)} --data "
                f"{_quoted(store)}"
            ),
            ("equifinality of the folds", file.exists()): (
                f"python -m h2mv_tf equifinality {_quoted(path)}"
            ),
            ("figures", _drawn(path / "figures")): (
                f"python -m h2mv_tf plot {_quoted(path)}"
            ),
        }
    )
    facts = (*_facts(settings), ("Folds", f"{len(runs)}"))
    return _page(f"Cross-validation {_name(path)}", facts, sections, missing)


def _page(title: str, facts, sections: Sequence[Section], missing) -> Page:
    return Page(title, facts, [s for s in sections if not s.empty], missing)


def _facts(settings: config.Config) -> list[tuple[str, str]]:
    facts = []
    if settings.provenance:
        made = settings.provenance
        created = datetime.fromisoformat(made.created)
        commit, *dirty = (made.commit or "unknown").split("-")
        facts = [
            ("Trained", f"{created:%Y-%m-%d %H:%M %Z}"),
            ("Version", f"h2mv_tf {made.version}"),
            ("Commit", commit[:COMMIT] + " with changes" * bool(dirty)),
        ]
    return [*facts, ("Store", f"{settings.data.store}")]


def _missing(parts: Mapping[tuple[str, bool], str]) -> list[Missing]:
    return [Missing(what, command) for (what, made), command in parts.items() if not made]


def _drawn(folder: Path) -> bool:
    """Whether there are other figures than a training draws."""
    return any(file.stem not in TRAINED for file in folder.glob("*.png"))


def _tested(metrics: Mapping, what: str) -> list[Residual]:
    """The water balance on the test cells, where it has been worked out."""
    return [Residual(what, metrics["test"]["residual"])] if "test" in metrics else []


def _simulated(simulated: Path, what: str) -> list[Residual]:
    """The water balance of predictions, where they have been evaluated."""
    balance = _json(_evaluated(simulated) / "metrics.json").get("water_balance")
    if not balance:
        return []
    cell = balance.get("cell") or {}
    place = ", ".join(
        f"{value:g}" if isinstance(value, float) else f"{value}"
        for value in (cell.get(key) for key in ("name", "lat", "lon"))
        if value is not None
    )
    largest = balance.get("largest_residual")
    return [
        Residual(
            what,
            # What is no number does not close.
            math.nan if largest is None else largest,
            balance.get("largest_closure"),
            balance.get("days"),
            place,
        )
    ]


def _balance(residuals: Sequence[Residual]) -> Section:
    if not residuals:
        return Section("Water balance")
    good = all(abs(residual.largest) <= CLOSED for residual in residuals)
    worst = max(residuals, key=lambda r: (math.isnan(r.largest), abs(r.largest)))
    words = (
        f"The water balance {'closes' if good else 'does not close'}: the largest "
        f"daily residual is {number(worst.largest)} mm d-1 ({worst.what}); the limit "
        f"is {CLOSED:g} mm d-1."
    )
    simulated = any(residual.days for residual in residuals)
    columns = ["simulation", "largest residual [mm d-1]"]
    if simulated:
        columns += ["largest closure [mm]", "days", "cell of the residual"]
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
    table = Table(
        "Corrected precipitation less evapotranspiration, runoff and storage change",
        columns,
        rows,
        note="Residual: of a cell in a day. Closure: of a cell over the whole period."
        * simulated,
    )
    return Section("Water balance", verdict=Verdict(good, words), tables=[table])


def _objective(run: RunFolder, metrics: Mapping) -> Section:
    """Loss and terms: of training and validation in the best epoch, and of the test."""
    columns: dict[str, Mapping[str, float]] = {}
    text = ""
    if run.history_file.is_file():
        history = run.load_history()
        best = history.loc[history["val_loss"].idxmin()]
        columns["training"] = best
        columns["validation"] = {
            name.removeprefix("val_"): value for name, value in best.items() if name.startswith("val_")
        }
        text = (
            f"The best of {len(history)} epochs by validation loss is epoch "
            f"{best['epoch']:.0f}, whose weights are kept."
        )
    for key, column in (("test", "test"), ("untrained", "test, untrained")):
        if key in metrics:
            columns[column] = {"loss": metrics[key]["loss"], **metrics[key]["terms"]}
    if not columns:
        return Section("Objective")
    windows = metrics.get("test", {}).get("windows", {})
    terms = [*list(columns.values())[-1]] if metrics else list(columns["validation"])
    rows = []
    for term in sorted(terms, key=lambda name: name == "loss"):
        values = [number(column.get(term)) for column in columns.values()]
        count = f"{windows.get(term, '')}" if windows else None
        rows.append((term, *values, *([count] if windows else [])))
    heads = ("term", *columns, *(["test windows"] if windows else []))
    table = Table(
        "Mean squared error of standardised values [1], by constraint",
        heads,
        rows,
        note="Of training: the mean over the batches of the epoch. The loss is the sum "
        "of the terms.",
    )
    return Section(
        "Objective",
        text=text,
        tables=[table],
        figures=figures.embed(run.figures, only=["loss_curves"]),
    )


def _cells(run: RunFolder) -> Section:
    shown = figures.embed(run.figures, only=["roles"])
    leakage = _json(run.leakage_file)
    if not leakage:
        return Section("Cells", figures=shown)
    distances = leakage.get("least_distance_km", {})
    rows = [
        (role, f"{cells}", number(distances.get(role)))
        for role, cells in leakage["cells"].items()
    ]
    table = Table(
        "Cells by role, and how near they come to a training cell",
        ("role", "cells", "least distance [km]"),
        rows,
    )
    return Section("Cells", tables=[table], figures=shown)


def _folds(runs: Sequence[RunFolder], results: Mapping[str, Mapping]) -> Table:
    rows = []
    for run in runs:
        metrics = results[run.path.name]
        test, untrained = metrics.get("test", {}), metrics.get("untrained", {})
        epochs = len(run.load_history()) if run.history_file.is_file() else 0
        rows.append(
            (
                epochs,
                metrics.get("best_epoch"),
                metrics.get("validation_loss"),
                test.get("loss"),
                untrained.get("loss"),
                test.get("residual"),
            )
        )
    values = pd.DataFrame(rows, dtype="float64")
    texts = [
        (run.path.name, *(f"{v:.0f}" if v == v else NOTHING for v in row[:2]), *map(number, row[2:]))
        for run, row in zip(runs, values.values, strict=True)
    ]
    for word, row in (("mean", values.mean()), ("standard deviation", values.std())):
        texts.append((word, *map(number, row[:5]), NOTHING))
    return Table(
        "The folds: losses [1] and water balance",
        (
            "fold",
            "epochs",
            "best epoch",
            "validation loss",
            "test loss",
            "test loss, untrained",
            "largest residual [mm d-1]",
        ),
        texts,
    )


def _evaluation(simulated: Path) -> list[Section]:
    file = _scores_file(simulated)
    tables = {
        "Skill": _tables(file, scores.skill),
        "Synthetic truth": _tables(file, scores.truth),
        "Emergent quantities": _tables(file, scores.emergent),
    }
    return [Section(title, tables=tables[title]) for title in tables]


def _configuration(run: RunFolder, text: str) -> Section:
    verbatim = run.config_file.read_text(encoding="utf-8")
    return Section("Configuration", text=text, verbatim=verbatim)


def _provenance(simulated: Path) -> Section:
    """What the predictions say about themselves."""
    if not simulated.exists():
        return Section("Predictions")
    dataset = predictions.load(simulated)
    facts = [("path", f"{simulated}")]
    if "time" in dataset.dims:
        facts.append(("period", predictions.period(dataset)))
    facts += [
        (name.replace("_", " "), f"{value}")
        for name, value in dataset.attrs.items()
        if name != "configuration"
    ]
    return Section("Predictions", facts=facts)


def _evaluated(simulated: Path) -> Path:
    return simulated.with_suffix(".evaluation")


def _scores_file(simulated: Path) -> Path:
    return _evaluated(simulated) / "scores.nc"


def _tables(file: Path, of) -> list[Table]:
    """The tables of a NetCDF file, where it is there."""
    if not file.exists():
        return []
    try:
        dataset = xr.open_dataset(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"'{file}' is not NetCDF. Remove it, and make it again with the command that "
            "made it."
        ) from error
    with dataset:
        return of(dataset)


def _json(file: Path) -> dict:
    """A JSON file; nothing where there is none."""
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"'{file}' is not JSON: {error}.") from error


def _name(path: Path) -> str:
    return path.resolve().name


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
