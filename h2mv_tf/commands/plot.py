"""`python -m h2mv_tf plot`: the figures of a run or a cross-validation."""

from pathlib import Path

import click

from h2mv_tf import console
from h2mv_tf.errors import UserError

FORMATS = ("png", "pdf", "svg", "eps")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="STORE",
    help="Store that was predicted; by default where the predictions say it is.",
)
@click.option(
    "--cell",
    metavar="LAT,LON|NAME",
    help="Cell whose story is told; by default the test cell with the liveliest year.",
)
@click.option(
    "--cells",
    type=click.Choice(["test", "all"]),
    default="test",
    show_default=True,
    help="Cells of the comparisons with observations.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder to write to; FOLDER/figures by default.",
)
@click.option(
    "--format",
    "formats",
    default="png,pdf",
    show_default=True,
    help=f"Of the files: {', '.join(FORMATS)}, joined by commas.",
)
def command(
    folder: Path,
    data: Path | None,
    cell: str | None,
    cells: str,
    to: Path | None,
    formats: str,
) -> None:
    """Draws what FOLDER, of a run or a cross-validation, has something for.

    Figures of an older call are replaced.
    """
    with console.command():
        chosen = _formats(formats)
        from h2mv_tf import figures

        with console.progress("drawing") as progress:
            files = figures.draw(
                folder,
                store=data,
                cell=cell,
                cells=cells,
                to=to,
                formats=chosen,
                progress=progress,
            )
        count = len(files) // len(chosen)
        place = files[0].parent if files else folder
        console.console.print(
            f"{place}: {count} figure{'s' * (count != 1)}, each as {formats}.",
            markup=False,
        )


def _formats(words: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(word.strip().lower() for word in words.split(",")))
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(
            f"Cannot write figures as '{unknown[0]}'. Expected --format of "
            f"{', '.join(FORMATS)}, joined by commas."
        )
    return formats
