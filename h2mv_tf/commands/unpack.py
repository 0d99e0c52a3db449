"""`python -m h2mv_tf unpack`: an archived store, run or model becomes a folder."""

from pathlib import Path

import click

from h2mv_tf import console


@click.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--largest",
    type=click.FloatRange(1),
    default=200,
    show_default=True,
    metavar="TIMES",
    help="How many times the size of the archive its files may have.",
)
def command(archive: Path, folder: Path, largest: float) -> None:
    """Unpacks ARCHIVE, of ZIP or tar, into FOLDER, which must not exist.

    A Zarr store, a run folder or a SavedModel: the other verbs read folders. An archive
    with names that lead out of the folder, with links, or damaged is refused, and
    nothing is left of it.
    """
    with console.command():
        from h2mv_tf.archive import unpack

        count = unpack(archive, folder, largest=largest)
        console.console.print(
            f"{folder}: {count} file{'s' * (count != 1)}.", markup=False
        )
