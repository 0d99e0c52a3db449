"""Commands: `python -m h2mv_tf VERB --help`."""

import sys
from pathlib import Path

import click

from h2mv_tf import __version__, console
from h2mv_tf.errors import UserError

UNFIT = 1  # exit status of check-data where a store cannot be trained with


@click.group(context_settings={"max_content_width": 88})
@click.version_option(__version__, prog_name="h2mv_tf")
def main() -> None:
    """Hybrid model of the land water cycle."""


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    metavar="STORE",
    help="Zarr store to make; must not exist.",
)
@click.option(
    "--map",
    "pairs",
    multiple=True,
    metavar="GROUP=NAMES",
    help="Where a variable comes from, as rn=ssr+str; may be repeated.",
)
def ingest(source: Path, to: Path, pairs: tuple[str, ...]) -> None:
    """Turns a CF data set, NetCDF or Zarr, into a store to train on.

    Variables are found by name or by CF standard_name, and their units converted.
    """
    with console.command():
        from h2mv_tf.data import ingest as ingestion

        mapping = {}
        for pair in pairs:
            group, equals, names = pair.partition("=")
            if not (group and equals and names):
                raise UserError(f"Cannot read --map '{pair}'. Expected rn=ssr+str.")
            mapping[group] = names
        report = ingestion.ingest(source, to, mapping=mapping)
        start, end = report.period
        console.table(
            f"{to}: {report.cells} cells, {start:%Y-%m-%d} to {end:%Y-%m-%d}",
            ("variable", "from", "units", "range", "missing"),
            [
                (
                    row.name,
                    f"{row.source} [{row.source_units}]",
                    row.units,
                    f"{row.minimum:.4g} to {row.maximum:.4g}",
                    f"{row.missing:.0%}",
                )
                for row in report.rows
            ],
        )
        for note in report.notes:
            console.console.print(note, markup=False)


@main.command("check-data")
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
def check_data(
    store: Path, config_file: Path | None, overrides: tuple[str, ...]
) -> None:
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
        f"An epoch: {needs.steps} steps, {needs.cell_days / 1e6:,.2f} million "
        f"cell-days with spin-up, roughly {_duration(needs.seconds)}."
    )


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 1):.0f} s"


if __name__ == "__main__":
    main()
