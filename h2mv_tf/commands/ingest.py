"""`python -m h2mv_tf ingest`: CF data sets become a store."""

from pathlib import Path

import click

from h2mv_tf import console
from h2mv_tf.commands import options
from h2mv_tf.errors import UserError


@click.command()
@click.argument("sources", nargs=-1, required=True)
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
@click.option(
    "--regrid",
    type=click.FloatRange(0, 90, min_open=True),
    metavar="DEGREES",
    help="Average to a coarser grid, by area.",
)
@click.option("--period", metavar="START/END", help="As 2001/2010-06-30.")
@click.option("--box", metavar="W,S,E,N", help="In degrees.")
@click.option(
    "--stamps",
    type=click.Choice(["start", "end"]),
    help="Where in its step a time stamp is, if the file has no bounds of time.",
)
@click.option(
    "--memory",
    default="2GB",
    show_default=True,
    metavar="SIZE",
    help="Limit of the values in hand.",
)
def command(
    sources: tuple[str, ...],
    to: Path,
    pairs: tuple[str, ...],
    regrid: float | None,
    period: str | None,
    box: str | None,
    stamps: str | None,
    memory: str,
) -> None:
    """Turns CF data sets, NetCDF or Zarr, into a store to train on.

    SOURCES are files or patterns, as 'era5/*.nc'. Variables are found by name or by CF
    standard_name, averaged to days, and their units converted. An interrupted call is
    continued by the same one.
    """
    with console.command(interrupted=f"Interrupted. The same call goes on with {to}."):
        from h2mv_tf.data import ingest as ingestion

        settings = {
            "mapping": _mapping(pairs),
            "regrid": regrid,
            "period": _period(period),
            "box": _box(box),
            "stamps": stamps,
            "memory": options.size(memory),
        }
        with console.progress("ingesting") as progress:
            report = ingestion.ingest(sources, to, progress=progress, **settings)
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


def _mapping(pairs: tuple[str, ...]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        group, equals, names = pair.partition("=")
        if not (group and equals):
            raise UserError(f"Cannot read --map '{pair}'. Expected rn=ssr+str.")
        mapping[group] = names
    return mapping


def _period(text: str | None) -> tuple[str | None, str | None]:
    import pandas as pd

    if text is None:
        return None, None
    start, _, end = text.partition("/")
    try:
        ordered = pd.Period(start).start_time < pd.Period(end).end_time
    except (ValueError, AttributeError):
        ordered = False
    if not ordered:
        raise UserError(
            f"Cannot read --period '{text}'. Expected the first and the last date, as "
            "2001/2010 or 2001-10-01/2002-09-30."
        )
    return start, end


def _box(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        west, south, east, north = map(float, text.split(","))
        known = -90 <= south < north <= 90 and max(abs(west), abs(east)) <= 180
    except ValueError:
        known = False
    if not known:
        raise UserError(
            f"Cannot read --box '{text}'. Expected W,S,E,N in degrees, west and east "
            "from -180 to 180, and south below north."
        )
    return west, south, east, north
