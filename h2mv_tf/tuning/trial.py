"""The training of one fold of a trial: python -m h2mv_tf.tuning.trial.

A process of its own, so that no memory is left behind and no crash ends the search.
It is what `trainers/train.py` does, without its exports, and then the score.
"""

import errno
import shutil
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from h2mv_tf import config, console, locks
from h2mv_tf.config import Config
from h2mv_tf.errors import UserError
from h2mv_tf.files import UnwritableError, made
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.tuning import process
from h2mv_tf.tuning.folder import FoldResult, TrialFolder
from h2mv_tf.tuning.objective import Objective


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("fold", type=int)
@click.argument("objective", type=Objective.parse)
@click.option("--begun-by", type=click.Path(path_type=Path))
def main(path: Path, fold: int, objective: Objective, begun_by: Path | None) -> None:
    """Trains a fold of the trial at PATH, and writes its score."""
    process.end_with_parent()
    with console.command():
        trial = TrialFolder(path)
        before = None if begun_by is None else TrialFolder(begun_by)
        try:
            # Waits for another process that trains it: one whose search was killed
            # ends in a moment, one of a worker elsewhere leaves its result.
            with locks.held(trial.lock_file(fold), "", patience=locks.FOREVER):
                if trial.load_fold(fold) is None:
                    trial.save_fold(fold, trained(trial, fold, objective, before))
        except (OSError, UnwritableError) as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            sys.exit(process.FULL)


def trained(
    trial: TrialFolder, fold: int, objective: Objective, before: TrialFolder | None
) -> FoldResult:
    """What the training of a fold comes to; goes on where it was interrupted.

    Args:
        trial: The trial.
        fold: The fold, of which there is a configuration.
        objective: What it is judged by.
        before: The trial from whose last epoch it goes on; None: from nothing.

    Raises:
        UserError: It cannot be trained.
    """
    from h2mv_tf import startup

    startup.import_tensorflow()
    from h2mv_tf import distribution, training

    settings, run = config.load(trial.config_file(fold)), trial.run(fold)
    distribution.make_devices(settings.distribution.devices)
    if before is not None and not run.path.exists():
        _copy(before.run(fold), run, settings)
    training.fit(settings, run, resume=run.path.exists(), exports=False)
    metrics = run.load_json(run.metrics_file)
    if objective.of_the_loss:
        score = metrics["validation_loss"]
    else:
        score = measured(run, settings, objective)
    return FoldResult(
        score=score,
        epochs=len(run.load_history()),
        best_epoch=int(metrics["best_epoch"]),
    )


def _copy(before: RunFolder, run: RunFolder, settings: Config) -> None:
    """A run with the epochs that another one has trained."""
    with made(run.path) as partial:
        shutil.copytree(before.path, partial, dirs_exist_ok=True)
        RunFolder(partial).save_config(settings)


def measured(run: RunFolder, settings: Config, objective: Objective) -> float:
    """The score of a run on its validation cells, as `evaluate` has it.

    Args:
        run: The trained run.
        settings: Of its training.
        objective: A score.

    Raises:
        UserError: It is not defined of any validation cell.
    """
    from h2mv_tf import evaluation, inference, predictions
    from h2mv_tf.evaluation.blocks import H2MV
    from h2mv_tf.trained import Trained

    model, fold = Trained.of(run), settings.split.fold
    store = model.open_store()
    names = objective.of(settings.objective.constraints or store.constraints)
    store = store.of_cells(model.roles == fold)
    with tempfile.TemporaryDirectory(dir=run.path) as scratch:
        path = Path(scratch) / predictions.FILE
        devices = settings.distribution.devices
        inference.predict(model, store, path, variables=names, devices=devices)
        found = evaluation.evaluate(predictions.load(path), store)
    values = found.summary.reindex(variable=list(names)).sel(
        model=H2MV,
        metric=objective.metric,
        scale=objective.scale,
        statistic=objective.statistic,
        cells="all",
    )
    values = values.isel(region=0).values
    if np.isnan(values).any():
        lacking = names[int(np.isnan(values).argmax())]
        raise UserError(
            f"No validation cell of fold {fold} has a {objective.scale} "
            f"{objective.metric} of {lacking}. Choose another objective or fold."
        )
    return float(np.mean([objective.score(value) for value in values]))


if __name__ == "__main__":
    main()
