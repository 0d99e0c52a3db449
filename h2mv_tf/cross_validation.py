"""Cross-validation: a run for each fold, their predictions, and the ensemble.

    folder/fold-01 ... fold-10    run folders, each with its predictions.zarr
    folder/fold-01-seed-1 ...     others of the fold, which begin with other weights
    folder/ensemble.zarr          mean, spread and quantiles over the folds

What is there is not made again, so that the same call continues an interrupted one,
and folds may be trained by processes of their own.
"""

import gc
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras

from h2mv_tf import predictions, training
from h2mv_tf.config import Config, changed
from h2mv_tf.data import splits
from h2mv_tf.data.store import Store
from h2mv_tf.run_folder import RunFolder

logger = logging.getLogger(__name__)

SEEDS = 2**32  # as many as there are


class Member(NamedTuple):
    """One of the trainings."""

    fold: int
    seed: int = 0  # which of the fold's

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"fold-{self.fold:02}" + (f"-seed-{self.seed}" if self.seed else "")

    def settings(self, settings: Config) -> Config:
        """The configuration of this training.

        Args:
            settings: Of the cross-validation.
        """
        seed = (settings.training.seed + self.seed) % SEEDS
        fields = {"split.fold": self.fold, "training.seed": seed}
        return changed(settings, fields)


def run_of(folder: Path, member: Member) -> RunFolder:
    """The run folder of a training."""
    return RunFolder(folder / member.name)


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
    training.fit(settings, run, resume=resume, callbacks=callbacks)
    # What a training leaves behind would grow from fold to fold.
    keras.backend.clear_session()
    gc.collect()


def predicted(folder: Path, member: Member) -> bool:
    """Whether a training has its predictions."""
    return (run_of(folder, member).path / predictions.FILE).exists()
