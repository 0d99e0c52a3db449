"""`python -m h2mv_tf import-reference`: weights of the published code, as a run."""

from pathlib import Path

import click

from h2mv_tf import console

# As the published code was trained.
PUBLISHED = ("data.normalization=store", "objective.anomaly_reference=series")


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    metavar="RUN",
    help="Run folder to make; must not exist.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="STORE",
    help="Store that the weights were trained on.",
)
@click.option(
    "--normalization",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Means and deviations of the inputs, as the normalization.json of a run. By "
    "default those in CHECKPOINT, or else of the store.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="YAML file. By default the published training's: normalisation by the "
    "attributes of the store.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Any field, as training.precision=float64 or split.fold=3; may be repeated.",
)
def command(
    checkpoint: Path,
    to: Path,
    data: Path | None,
    normalization: Path | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Makes a run folder of weights of the published PyTorch code.

    CHECKPOINT is one of Lightning (.ckpt), which needs PyTorch, or an .npz of its state
    dict. The folder takes part in whatever a trained one does.
    """
    with console.command():
        from h2mv_tf import config, startup

        if config_file is None:
            overrides = (*PUBLISHED, *overrides)
        if data is not None:
            overrides = (*overrides, f"data.store={data}")
        settings = config.load(config_file, overrides)
        startup.import_tensorflow()
        from h2mv_tf.importing import import_reference
        from h2mv_tf.run_folder import RunFolder

        with console.progress("reading") as progress:
            import_reference(
                checkpoint,
                settings,
                RunFolder(to),
                moments=normalization,
                progress=progress,
            )
        console.console.print(f"Run folder: {to}", markup=False)
