"""`python -m h2mv_tf export`: a trained model as a SavedModel, for everybody."""

from pathlib import Path

import click

from h2mv_tf import console


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    metavar="NAME",
    help="Folder of the versions of a model, as saved_models/globe.",
)
@click.option(
    "--licence",
    default="MIT",
    show_default=True,
    help="Of the weights, which may depend on the data that they are trained on.",
)
def command(run: Path, to: Path, licence: str) -> None:
    """Writes the next version of a SavedModel: NAME/1, NAME/2 and so on.

    RUN is a run folder, or a SavedModel to be written anew. TensorFlow Serving takes
    the folder NAME as it is.
    """
    with console.command():
        from h2mv_tf import startup

        startup.import_tensorflow()
        from h2mv_tf.export import export, next_version
        from h2mv_tf.trained import Trained

        path = next_version(to)
        card = export(Trained.open(run), path, licence=licence)
        names = [name for name in card.signatures if not name.endswith("_series")]
        console.console.print(
            f"{path}: {', '.join(names)}; what it is, in assets/README.md",
            markup=False,
        )
