"""Trains H2MV: python trainers/train.py.

Without arguments it makes a small synthetic world, once, and trains on that. On
your own store: python trainers/train.py --data STORE
"""

import sys
from datetime import datetime
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from h2mv_tf import console  # noqa: E402
from h2mv_tf.commands import settings  # noqa: E402
from h2mv_tf.errors import UserError  # noqa: E402
from h2mv_tf.run_folder import RunFolder  # noqa: E402

CONFIGS = ROOT / "trainers" / "configs"
RUNS = Path("runs")


@click.command(context_settings={"max_content_width": 88})
@settings.options
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    help="Run folder to make. By default runs/ and the time.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the run folder of --run-dir, or else the newest in runs/.",
)
@click.option(
    "--results/--no-results",
    default=True,
    show_default=True,
    help="Predict, score, draw and report when it is trained.",
)
@click.option(
    "--profile", is_flag=True, help="Write a trace of a few steps for TensorBoard."
)
def main(
    config_file: Path | None,
    data: Path | None,
    run_dir: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
    results: bool,
    profile: bool,
) -> None:
    """Trains the hybrid model, and tells what it has learned."""
    with console.command(interrupted="Interrupted; --resume continues the run."):
        from h2mv_tf import startup

        startup.import_tensorflow()
        from h2mv_tf import distribution, training
        from h2mv_tf.progress import ProgressBar

        worker = distribution.worker()
        if worker.count > 1 and run_dir is None:
            raise UserError(
                f"{worker.count} workers train together: name the run folder that "
                "they share with --run-dir."
            )
        console.console.quiet = not worker.chief  # one of them talks
        if resume:
            _refuse_with_resume(config=config_file, data=data)
            run = RunFolder(run_dir or _newest_run())
            given = run.resumed_config(overrides)
        else:
            run = RunFolder(run_dir or RUNS / f"{datetime.now():%Y-%m-%dT%H-%M-%S}")
            given = settings.read(CONFIGS, config_file, data, overrides)
            if worker.chief:
                run.refuse_existing()
            distribution.make_devices(given.distribution.devices)
            if worker.count == 1:
                settings.make_synthetic_world(given)
        training.fit(
            given,
            run,
            resume=resume,
            profile=profile,
            callbacks=[ProgressBar()] if worker.chief else [],
        )
        if worker.chief:
            _print_results(run)
            if results:
                from h2mv_tf import results as resulting

                resulting.of_run(run, bars=console.progress)


def _refuse_with_resume(**options: Path | None) -> None:
    for name, value in options.items():
        if value is not None:
            raise UserError(
                f"--resume goes on with the run's own configuration and data; drop "
                f"--{name}."
            )


def _newest_run() -> Path:
    # Hidden ones are not whole.
    runs = [file.parent for file in RUNS.glob("[!.]*/config.yaml")]
    if not runs:
        raise UserError(f"There is no run folder in '{RUNS}' to resume.")
    return max(runs, key=lambda run: run.stat().st_mtime)


def _print_results(run: RunFolder) -> None:
    from h2mv_tf.data.metadata import readable

    with readable(f"'{run.metrics_file}'"):
        metrics = run.load_json(run.metrics_file)
        untrained, test = metrics["untrained"], metrics["test"]
        rows = [
            (name, f"{untrained['terms'][name]:.3g}", f"{term:.3g}", f"{windows}")
            if (windows := test["counts"][name])
            else (name, "not observed", "not observed", "0")
            for name, term in test["terms"].items()
        ]
        rows.append(("loss", f"{untrained['loss']:.3g}", f"{test['loss']:.3g}", ""))
    console.table(
        f"Test cells: {metrics['measure']}",
        ("constraint", "untrained", "trained", metrics["counted"]),
        rows,
    )
    console.console.print(
        f"Largest water balance residual: {test['residual']:.1e} mm d-1\n"
        f"Best epoch: {metrics['best_epoch']}\n"
        f"Run folder: {run.path}"
    )


if __name__ == "__main__":
    main()
