"""Commands: `python -m h2mv_tf VERB --help`."""

from pathlib import Path

import click

from h2mv_tf import __version__, console


@click.group()
@click.version_option(__version__, prog_name="h2mv_tf")
def main() -> None:
    """Hybrid model of the land water cycle."""


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--to", type=click.Path(path_type=Path), required=True, metavar="STORE")
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="GROUP=NAMES",
    help="Where a variable comes from, as rn=ssr+str; may be repeated.",
)
def ingest(source: Path, to: Path, mapping: tuple[str, ...]) -> None:
    """Turns a CF data set (NetCDF or Zarr) into a store.

    Variables are found by name or CF standard name, and units converted.
    """
    with console.command():
        from h2mv_tf.data import ingest as ingestion

        report = ingestion.ingest(source, to, mapping=_pairs(mapping))
        console.console.print(report)


if __name__ == "__main__":
    main()
