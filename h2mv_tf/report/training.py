"""What the training of a run, or of the folds, came to."""

from collections.abc import Mapping, Sequence

import pandas as pd

from h2mv_tf.plots import style
from h2mv_tf.plots.training import best_row
from h2mv_tf.report import figures, files
from h2mv_tf.report.parts import DAILY, NOTHING, Section, Table, number
from h2mv_tf.run_folder import RunFolder


def objective(run: RunFolder, metrics: Mapping) -> Section:
    """Loss and terms: of training and validation in the best epoch, and of the test.

    Args:
        run: The run folder.
        metrics: What its metrics.json holds so far.
    """
    columns: dict[str, Mapping[str, float]] = {}
    text = ""
    if run.history_file.is_file():
        history = run.load_history()
        best = history.loc[best_row(history)]
        columns["training"] = best
        columns["validation"] = {
            name.removeprefix("val_"): value
            for name, value in best.items()
            if name.startswith("val_")
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
    terms = (*next(reversed(columns.values())),)
    texts = {
        name: {term: number(column.get(term)) for term in terms}
        for name, column in columns.items()
    }
    if "test" in metrics:
        counts = metrics["test"].get("counts", {})
        texts[f"test {metrics.get('counted', 'windows')}"] = {
            term: f"{counts.get(term, '')}" for term in terms
        }
    # The sum comes below what it is of.
    rows = [
        (style.title(term), *(text[term] for text in texts.values()))
        for term in sorted(terms, key=lambda name: name == "loss")
    ]
    table = Table(
        f"{metrics.get('measure', 'terms').capitalize()}, by term",
        ("term", *texts),
        rows,
        note="Of training: the mean over the batches of the epoch. The loss is the sum "
        "of the constraints' terms.",
    )
    return Section(
        "Objective",
        text=text,
        tables=[table],
        figures=figures.embed(run.figures, only=["loss_curves"]),
    )


def cells(run: RunFolder) -> Section:
    """How many cells have each role, and how far from the training cells they are."""
    shown = figures.embed(run.figures, only=["roles"])
    leakage = files.mapping(run.leakage_file)
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


def folds(runs: Sequence[RunFolder], results: Mapping[str, Mapping]) -> Table:
    """How well each fold did.

    Args:
        runs: Their run folders.
        results: The metrics of each, by name of the folder.
    """
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
        (
            run.path.name,
            *(f"{v:.0f}" if v == v else NOTHING for v in row[:2]),
            *map(number, row[2:]),
        )
        for run, row in zip(runs, values.values, strict=True)
    ]
    for word, row in (("mean", values.mean()), ("standard deviation", values.std())):
        texts.append((word, *map(number, row[:5]), NOTHING))
    return Table(
        "The folds: losses and water balance",
        (
            "fold",
            "epochs",
            "best epoch",
            "validation loss",
            "test loss",
            "test loss, untrained",
            f"largest residual [{DAILY}]",
        ),
        texts,
    )
