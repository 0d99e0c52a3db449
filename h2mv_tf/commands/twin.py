"""`python -m h2mv_tf twin`: what can be recovered from which constraints."""

from pathlib import Path

import click

from h2mv_tf import config, console
from h2mv_tf.errors import UserError

# Unless the user says otherwise: without them nothing would have a width.
DEFAULTS = {"objective.likelihood": "normal", "uncertainty.posterior": "variational"}


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="WORLD",
    help="Store with a hidden truth, as of `synthesize`.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder of all experiments, to make or to continue.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="YAML file of the trainings. By default the published settings, with a "
    "normal likelihood and a variational posterior.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Any field, as training.epochs=100; may be repeated.",
)
@click.option(
    "--samples",
    type=int,
    default=30,
    show_default=True,
    metavar="N",
    help="Draws from the posterior of each experiment, and from the prior.",
)
@click.option(
    "--leave-out",
    metavar="NAMES",
    help="Constraints that are left out, one at a time, as tws,swe; each by default.",
)
def command(
    data: Path,
    to: Path,
    config_file: Path | None,
    overrides: tuple[str, ...],
    samples: int,
    leave_out: str | None,
) -> None:
    """Trains with all constraints of a synthetic world, and leaving each of them out.

    Each experiment is a run folder in DIR, with samples of its posterior and their
    scores against the hidden truth. An interrupted call is continued by the same one.
    """
    with console.command(interrupted=f"Interrupted. The same call goes on with {to}."):
        settings = _settings(data, config_file, overrides)
        left_out = None if leave_out is None else leave_out.split(",")
        from h2mv_tf import startup

        startup.import_tensorflow()
        from h2mv_tf import distribution, twin
        from h2mv_tf.progress import ProgressBar

        if distribution.worker().count > 1:
            raise UserError(
                "Several workers train one run together, not several experiments: "
                "start trainers/train.py there, or one process with twin."
            )
        distribution.make_devices(settings.distribution.devices)
        found = twin.run(
            settings,
            to,
            left_out=left_out,
            samples=samples,
            callbacks=[ProgressBar()],
            bars=console.progress,
        )
        _print(found)
        console.console.print(f"{to / twin.RESULT}", markup=False)


def _settings(
    data: Path, config_file: Path | None, overrides: tuple[str, ...]
) -> config.Config:
    """The configuration of the trainings, on a store that has to be there."""
    written = {}
    if config_file is not None:
        written = config.read_yaml(config_file, "configuration", config.Config)
    defaults = []
    for field, value in DEFAULTS.items():
        section, name = field.split(".")
        inner = written.get(section)
        if not (isinstance(inner, dict) and name in inner):
            defaults.append(f"{field}={value}")
    settings = config.load(config_file, [*defaults, *overrides, f"data.store={data}"])
    return settings.model_copy(update={"synthetic": None})


def _print(found) -> None:
    score = found.score
    known = [str(name) for name in score["variable"].values]
    first, *others = (str(name) for name in score.experiment.values)
    nse = score.sel(metric="nse")
    difference = nse - nse.sel(experiment=first)
    console.table(
        "Hidden truth: what is lost without a constraint. NSE with all, and how far "
        "that of the others is from it",
        ("variable", first, *others),
        [
            (
                name,
                _number(nse.sel(experiment=first, variable=name)),
                *(
                    _number(difference.sel(experiment=other, variable=name), "+")
                    for other in others
                ),
            )
            for name in known
        ],
    )
    console.table(
        "Hidden truth: coverage of the 90 % interval / width of the posterior per that "
        "of the prior",
        ("variable", first, *others),
        [
            (
                name,
                *(
                    " / ".join(
                        _number(of.sel(metric=metric))
                        for metric in ("coverage_90", "relative_width")
                    )
                    for experiment in (first, *others)
                    for of in [score.sel(experiment=experiment, variable=name)]
                ),
            )
            for name in known
        ],
    )


def _number(value, sign: str = "") -> str:
    number = float(value)
    return "-" if number != number else f"{number:{sign}z.2f}"
