"""`python -m h2mv_tf check-data`: what is wrong with a store, and what it needs."""

import sys
from pathlib import Path

import click

from h2mv_tf import console

UNFIT = 1  # exit status where a store cannot be trained with


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="YAML file of the training that the store is meant for.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Any field of it, as window.length=365; may be repeated.",
)
def command(store: Path, config_file: Path | None, overrides: tuple[str, ...]) -> None:
    """Tells what is wrong with a store, and what training on it will need.

    Exit status 1 where a training would fail, or learn something wrong.
    """
    with console.command():
        from h2mv_tf import config, inputs

        settings = config.load(config_file, (*overrides, f"data.store={store}"))
        with console.progress("reading") as progress:
            found, needs = inputs.examine(settings, progress)
        if found.rows:
            _print_rows(f"{store}", found.rows)
        for finding in found.findings:
            kind = "error" if finding.serious else "note"
            console.console.print(f"{kind}: {finding}", markup=False)
        if needs is not None:
            _print_needs(needs)
        if found.serious:
            console.console.print("A training would fail, or learn something wrong.")
            sys.exit(UNFIT)
        console.console.print("Fit to train on.")


def _print_rows(title: str, rows) -> None:
    columns = {
        "variable": lambda row: row.name,
        "units": lambda row: row.units,
        "range": lambda row: f"{row.low:.4g} to {row.high:.4g}",
        "plausible": lambda row: row.plausible,
        "missing": lambda row: f"{row.missing:.1%}",
        "cells without": lambda row: f"{row.unobserved}",
        "step": lambda row: row.step,
        "period": lambda row: row.period,
        "gaps": lambda row: f"{row.gaps}" if row.period else "",
        "chunks": lambda row: row.chunks,
    }
    table = [[text(row) for text in columns.values()] for row in rows]
    console.table(title, columns, table)


def _print_needs(needs) -> None:
    console.table(
        "Training",
        ("role", "cells", "windows", "without observation, left out"),
        [
            (role, f"{cells}", f"{needs.windows[role]}", f"{needs.skipped[role]}")
            for role, cells in needs.cells.items()
        ],
    )
    console.console.print(
        f"Series: {needs.series / 1e6:,.0f} MB, of which {needs.held / 1e6:,.0f} MB "
        f"are held in memory (data.cache).\n"
        f"An epoch: {needs.cell_days / 1e6:,.2f} million cell-days with spin-up, in "
        f"batches of {needs.batch}; roughly {_duration(needs.seconds)}."
    )


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 1):.0f} s"
