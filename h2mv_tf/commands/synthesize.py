"""`python -m h2mv_tf synthesize`: a world whose truth is known."""

from pathlib import Path

import click

from h2mv_tf import console
from h2mv_tf.errors import UserError


@click.command()
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
@click.option(
    "--errors",
    is_flag=True,
    help="Noise that differs from cell to cell, and how large it is: tws_sigma, ...",
)
@click.option("--seed", type=int, help="Of all that is random; 0 by default.")
@click.option(
    "--truth",
    type=click.Choice(["daily", "monthly", "none"]),
    default="daily",
    show_default=True,
    help="What is stored of the hidden truth.",
)
def command(to: Path, resolution: float | None, truth: str, **options) -> None:
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
