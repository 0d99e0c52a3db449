"""Trains and predicts all folds: python trainers/cross_validate.py --run-dir runs/cv.

One run folder for each fold, and an ensemble of their predictions. The same call
continues an interrupted one; in an array of jobs each trains a fold with --fold, and
a call without it makes the ensemble in the end.
"""

import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from h2mv_tf import console  # noqa: E402
from h2mv_tf.commands import options, settings  # noqa: E402
from h2mv_tf.errors import UserError  # noqa: E402

CONFIGS = ROOT / "trainers" / "configs"


@click.command(context_settings={"max_content_width": 88})
@settings.options
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of all folds, to make or to continue.",
)
@click.option(
    "--fold",
    "chosen",
    type=int,
    multiple=True,
    help="Train and predict this fold only; may be repeated.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Trainings of each fold, which begin with other weights: a deep ensemble.",
)
@click.option(
    "--variables",
    metavar="NAMES",
    help="To predict, as runoff,swe; all by default.",
)
@click.option(
    "--quantiles",
    default="0.05,0.5,0.95",
    show_default=True,
    help="Of the ensemble.",
)
@click.option(
    "--results/--no-results",
    default=True,
    show_default=True,
    help="Score, draw and report each fold and all of them.",
)
def main(
    config_file: Path | None,
    data: Path | None,
    run_dir: Path,
    overrides: tuple[str, ...],
    chosen: tuple[int, ...],
    seeds: int,
    variables: str | None,
    quantiles: str,
    results: bool,
) -> None:
    """Trains a model for each fold, predicts with it, and combines the predictions."""
    again = f"Interrupted. The same call goes on with {run_dir}."
    with console.command(interrupted=again):
        levels = options.quantiles(quantiles)
        names = None if variables is None else tuple(variables.split(","))
        from h2mv_tf import startup

        startup.import_tensorflow()
        from h2mv_tf import cross_validation, distribution, inference
        from h2mv_tf import results as resulting
        from h2mv_tf.progress import ProgressBar

        if distribution.worker().count > 1:
            raise UserError(
                "Several workers train one fold together, not all of them: start "
                "trainers/train.py there, or an array of jobs with --fold here."
            )
        inference.asked_for(names)
        given = settings.read(CONFIGS, config_file, data, overrides)
        distribution.make_devices(given.distribution.devices)
        settings.make_synthetic_world(given)
        folds = cross_validation.folds_of(given)
        for fold in chosen:
            if fold not in folds:
                raise UserError(
                    f"There is no fold {fold}. Expected one of "
                    f"{', '.join(map(str, folds))}."
                )
        members = [
            cross_validation.Member(fold, seed)
            for fold in folds
            for seed in range(seeds)
        ]
        trained = 0
        for member in members:
            if chosen and member.fold not in chosen:
                continue
            run = cross_validation.run_of(run_dir, member)
            if trained and not run.trained and startup.crowded():
                startup.start_again()
            trained += not run.trained
            which = f", seed {member.seed + 1} of {seeds}" * (seeds > 1)
            console.console.print(
                f"\n[bold]Fold {member.fold} of {len(folds)}{which}[/bold]"
            )
            of_member = member.settings(given)
            cross_validation.train(of_member, run, callbacks=[ProgressBar()])
            resulting.predicted(run, variables=names, bars=console.progress)
            if results:
                resulting.of_run(run, bars=console.progress)
        lacking = [
            member.fold
            for member in members
            if not cross_validation.predicted(run_dir, member)
        ]
        if lacking and chosen:
            lacking = ", ".join(map(str, dict.fromkeys(lacking)))
            console.console.print(
                f"Still to be trained: folds {lacking}. A call without --fold makes "
                "the ensemble in the end; `python -m h2mv_tf predict` makes one of "
                f"those that are in {run_dir}."
            )
            return
        resulting.combined(run_dir, quantiles=levels, bars=console.progress)
        if results:
            resulting.of_cross_validation(run_dir, bars=console.progress)
        _print_folds([cross_validation.run_of(run_dir, member) for member in members])


def _print_folds(runs) -> None:
    metrics = [run.load_json(run.metrics_file) for run in runs]
    names = list(metrics[0]["test"]["terms"])
    console.table(
        "Test cells: terms of the objective",
        ("fold", "best epoch", "validation", "loss", *names),
        [
            (
                run.path.name,
                f"{found['best_epoch']}",
                f"{found['validation_loss']:.3g}",
                f"{found['test']['loss']:.3g}",
                *(f"{found['test']['terms'][name]:.3g}" for name in names),
            )
            for run, found in zip(runs, metrics, strict=True)
        ],
    )


if __name__ == "__main__":
    main()
