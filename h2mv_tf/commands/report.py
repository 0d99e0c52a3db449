"""`python -m h2mv_tf report`: one page on a run or a cross-validation."""

from pathlib import Path

import click

from h2mv_tf import console


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write. By default report.html in the folder.",
)
def command(folder: Path, to: Path | None) -> None:
    """Writes one page with the configuration, tables, figures and water balance.

    FOLDER is a run folder or a cross-validation's. The page needs no other file, and
    an older one is replaced.
    """
    with console.command():
        from h2mv_tf import report

        console.console.print(f"{report.write(folder, to)}", markup=False)
