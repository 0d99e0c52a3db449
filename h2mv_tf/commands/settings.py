"""What the training scripts begin with: a configuration, and data to train on."""

from pathlib import Path

import click

from h2mv_tf import config, console

OPTIONS = (
    click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        help="YAML file. By default configs/demo.yaml, and with --data "
        "configs/h2mv.yaml.",
    ),
    click.option("--data", type=click.Path(path_type=Path), help="Store to train on."),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Any field, as training.learning_rate=0.005; may be repeated.",
    ),
)


def options(command):
    """Gives a script the options that `read` takes."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def read(
    configs: Path,
    config_file: Path | None,
    data: Path | None,
    overrides: tuple[str, ...],
) -> config.Config:
    """The configuration of a training.

    Args:
        configs: Folder of the shipped ones.
        config_file: The user's; by default the shipped one of the published model,
            or, without data, that of the demo.
        data: Store to train on; that of the configuration by default.
        overrides: As of `config.load`.

    Raises:
        UserError: As of `config.load`.
    """
    if config_file is None:
        config_file = configs / ("h2mv.yaml" if data else "demo.yaml")
    if data:
        overrides = (*overrides, f"data.store={data}")
    settings = config.load(config_file, overrides)
    console.console.print(f"Configuration: {config_file}", markup=False)
    # A store that is named has to be there.
    return settings.model_copy(update={"synthetic": None}) if data else settings


def make_synthetic_world(settings: config.Config) -> None:
    """Makes the world of a configuration that has one, unless it is there."""
    store = settings.data.store
    if settings.synthetic is None or store.exists():
        return
    from h2mv_tf.data.synthetic import synthesize

    console.console.print(f"Making a synthetic world: {store}", markup=False)
    synthesize(store, **settings.synthetic.model_dump())
