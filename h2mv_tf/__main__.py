"""Commands: `python -m h2mv_tf VERB --help`."""

import sys
from pathlib import Path

import click

from h2mv_tf import __version__, console
from h2mv_tf.errors import UserError

LEAST_MEMORY = 50e6  # bytes, for ingest
UNFIT = 1  # exit status of check-data where a store cannot be trained with


@click.group(context_settings={"max_content_width": 88})
@click.version_option(__version__, prog_name="h2mv_tf")
def main() -> None:
    """Hybrid model of the land water cycle."""


@main.command()
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
def ingest(
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

        options = {
            "mapping": _mapping(pairs),
            "regrid": regrid,
            "period": _period(period),
            "box": _box(box),
            "stamps": stamps,
            "memory": _bytes(memory),
        }
        with console.progress("ingesting") as progress:
            report = ingestion.ingest(sources, to, progress=progress, **options)
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


@main.command()
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    metavar="STORE",
    help="Zarr store to make; must not exist.",
)
@click.option("--rows", type=int, help="Cells from pole to pole; 20 by default.")
@click.option("--columns", type=int, help="Cells around the planet; 40 by default.")
@click.option(
    "--resolution",
    type=float,
    metavar="DEGREES",
    help="Side of a cell, in place of rows and columns.",
)
@click.option("--years", type=int, help="Length of the record; 3 by default.")
@click.option(
    "--noise",
    type=float,
    help="Errors of the observations, in standard deviations; 0.05 by default.",
)
@click.option("--seed", type=int, help="Of all that is random; 0 by default.")
@click.option(
    "--truth",
    type=click.Choice(["daily", "monthly", "none"]),
    default="daily",
    show_default=True,
    help="What is stored of the hidden truth.",
)
def synthesize(to: Path, resolution: float | None, truth: str, **options) -> None:
    """Makes a synthetic world: weather, observations and the truth behind them.

    An interrupted call is continued by the same one.
    """
    with console.command(
        interrupted=f"Interrupted. The same command goes on with {to}."
    ):
        from h2mv_tf import config, startup

        given = {name: value for name, value in options.items() if value is not None}
        if resolution is not None:
            if given.keys() & {"rows", "columns"}:
                raise UserError("Give --resolution, or --rows and --columns; not both.")
            given |= _grid_of(resolution)
        settings = {**config.Synthetic().model_dump(), **given}
        startup.import_tensorflow()
        from h2mv_tf.data import store, synthetic

        with console.progress("making") as progress:
            synthetic.synthesize(to, **settings, truth=truth, progress=progress)
        made = store.Store.open(to)
        first, *_, last = made.time
        console.console.print(
            f"{to}: {made.cells.sizes['cell']} land cells, {first:%Y-%m-%d} to "
            f"{last:%Y-%m-%d}.\nTrain on it: python trainers/train.py --data {to}",
            markup=False,
        )


def _grid_of(resolution: float) -> dict[str, int]:
    rows = round(180 / resolution) if resolution > 0 else 0
    if abs(rows * resolution - 180) > 1e-6:
        raise UserError(
            f"--resolution {resolution:g} does not divide the 180 degrees from pole to "
            "pole. Choose one that does, as 1, 2 or 2.5."
        )
    return {"rows": rows, "columns": 2 * rows}


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


def _bytes(text: str) -> float:
    from dask.utils import parse_bytes

    try:
        size = parse_bytes(text)
    except ValueError:
        size = 0
    if size < LEAST_MEMORY:
        raise UserError(
            f"Cannot work in --memory '{text}'. Expected {LEAST_MEMORY / 1e6:g}MB or "
            "more, as 2GB."
        )
    return size


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
        f"An epoch: {needs.cell_days / 1e6:,.2f} million cell-days with spin-up, in "
        f"batches of {needs.batch}; roughly {_duration(needs.seconds)}."
    )


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 1):.0f} s"


if __name__ == "__main__":
    main()
