"""Cross-validation: a run for each fold, their predictions, and the ensemble.

    folder/fold-01 ... fold-10    run folders, each with its predictions.zarr
    folder/ensemble.zarr          mean, spread and quantiles over the folds

What is there is not made again, so that the same call continues an interrupted one,
and folds may be trained by processes of their own.
"""

import gc
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras

from h2mv_tf import predictions, training
from h2mv_tf.config import Config
from h2mv_tf.data import splits
from h2mv_tf.data.store import Store
from h2mv_tf.run_folder import RunFolder

logger = logging.getLogger(__name__)


def run_of(folder: Path, fold: int) -> RunFolder:
    """The run folder of a fold."""
    return RunFolder(folder / f"fold-{fold:02}")


def folds_of(settings: Config) -> tuple[int, ...]:
    """The folds that have cells to validate: ten, or fewer where there are few cells.

    Args:
        settings: Of the cross-validation.

    Raises:
        UserError: The store cannot be opened or split.
    """
    store = Store.open(settings.data.store, settings.data.groups)
    roles = splits.roles(
        store.land, block_size=settings.split.block_size, seed=settings.split.seed
    )
    return splits.folds(roles)


def train(
    settings: Config,
    run: RunFolder,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Trains a fold, or what is left of it.

    Args:
        settings: With the fold.
        run: Its run folder.
        callbacks: As of `training.fit`.

    Raises:
        UserError: The run was begun with other settings.
    """
    resume = run.config_file.is_file()
    if resume:
        run.refuse_other(settings)
        if run.trained:
            logger.info("%s is trained.", run.path)
            return
        if not run.resumable:
            logger.info("%s had not finished an epoch: anew.", run.path)
            shutil.rmtree(run.path)
            resume = False
    training.fit(settings, run, resume=resume, callbacks=callbacks)
    # What a training leaves behind would grow from fold to fold.
    keras.backend.clear_session()
    gc.collect()


def predicted(folder: Path, fold: int) -> bool:
    """Whether a fold has its predictions."""
    return (run_of(folder, fold).path / predictions.FILE).exists()
