"""Searches for hyperparameters: python tuning/tune.py --run-dir runs/sweep.

On the demo world and in the space tuning/spaces/small.yaml, unless others are named.
The same call continues an interrupted search.
"""

import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from h2mv_tf import console  # noqa: E402
from h2mv_tf.commands import settings  # noqa: E402

CONFIGS = ROOT / "trainers" / "configs"
SPACES = ROOT / "tuning" / "spaces"
SHOWN = 5  # trials on the screen in the end


@click.command(context_settings={"max_content_width": 88})
@settings.options
@click.option(
    "--search-space",
    "space_file",
    type=click.Path(path_type=Path),
    default=SPACES / "small.yaml",
    help="YAML file: which fields are tuned, and between what. By default "
    "tuning/spaces/small.yaml.",
)
@click.option(
    "--algorithm",
    type=click.Choice(["hyperband", "bayesian", "random", "grid"]),
    default="hyperband",
    show_default=True,
    help="How the next trial is chosen.",
)
@click.option(
    "--max-trials",
    type=click.IntRange(1),
    metavar="N",
    help="Trials, at most. A later call may ask for more.",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    required=True,
    help="Sweep folder to make or to continue.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of what is drawn.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Trials at a time, which share the GPUs or cores of this machine.",
)
def main(
    config_file: Path | None,
    data: Path | None,
    overrides: tuple[str, ...],
    space_file: Path,
    algorithm: str,
    max_trials: int | None,
    run_dir: Path,
    seed: int,
    workers: int,
) -> None:
    """Searches for the configuration that learns best, trial by trial."""
    again = f"Interrupted. The same call goes on with {run_dir}."
    with console.command(interrupted=again):
        from h2mv_tf.tuning import folder, space

        found = space.load(space_file)
        given = settings.read(CONFIGS, config_file, data, overrides)
        found.refuse_unfit(given, algorithm)
        sweep = folder.SweepFolder(run_dir)
        sweep.refuse_foreign()
        console.console.print(f"Search space: {space_file}", markup=False)
        wanted = folder.Settings(
            algorithm=algorithm,
            seed=seed,
            max_trials=max_trials,
            space=found,
            configuration=given,
        )

        from h2mv_tf import startup

        startup.import_tensorflow()
        from h2mv_tf.tuning import display, outcome
        from h2mv_tf.tuning import sweep as searching

        if searching.is_worker():
            searching.work(sweep, wanted)
            return
        with sweep.held():
            settings.make_synthetic_world(given)
            planned = searching.begin(sweep, wanted)
            _print_plan(planned)
            with display.shown(sweep, planned) as watch:
                oracle = searching.search(sweep, planned, workers=workers, watch=watch)
            trials = outcome.kept(sweep, planned, oracle)
            outcome.illustrated(sweep, planned, trials)
            _print_results(sweep, planned, trials, outcome)


def _print_plan(planned) -> None:
    """How many trials there are, and how long they train."""
    if not planned.brackets:
        console.console.print(f"At most {planned.max_trials} trials.")
        return
    for rounds in planned.brackets:
        words = [f"{trials} of {epochs} epochs" for trials, epochs in rounds]
        console.console.print(f"Hyperband: {', the best '.join(words)}.")


def _print_results(sweep, planned, trials, outcome) -> None:
    """The best trials, and what to do with them."""
    columns, rows = outcome.best_trials(trials, planned, SHOWN)
    failed = int((trials["status"] == "failed").sum())
    title = f"The best of {len(trials)} trials"
    console.table(title + f", of which {failed} failed" * bool(failed), columns, rows)
    console.console.print(f"Sweep folder: {sweep.path}", markup=False)
    if failed < len(trials):
        command = f"python trainers/train.py --config {sweep.best_file}"
        console.console.print(f"Train the best: {command}", markup=False)


if __name__ == "__main__":
    main()
