"""Commands: `python -m h2mv_tf VERB --help`."""

from pathlib import Path

import click

from h2mv_tf import __version__, console
from h2mv_tf.errors import UserError


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


if __name__ == "__main__":
    main()
