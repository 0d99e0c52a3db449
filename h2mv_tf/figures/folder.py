"""What a run folder, or that of a cross-validation, holds to draw."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import xarray as xr

from h2mv_tf import predictions
from h2mv_tf.data.metadata import readable
from h2mv_tf.data.store import Store
from h2mv_tf.documents import parsed_yaml
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation.matching import refuse_other_cells

ENSEMBLE, PREDICTIONS, SAMPLES = "ensemble", "predictions", "samples"
SUFFIXES = (".zarr", ".nc")
FOLDS = "fold-*"
HISTORY = "history.csv"
SCORES, PROBABILISTIC = "scores.nc", "probabilistic.nc"
EQUIFINALITY = Path("equifinality", "equifinality.nc")


class Missing(Exception):  # noqa: N818  no error: there is less to draw
    """Why a figure cannot be drawn, in words."""


@dataclass(frozen=True)
class Folder:
    """A folder of results, each of which is read when it is asked for.

    Attributes:
        path: The folder.
        given: The store; None for the one that the predictions name.
    """

    path: Path
    given: Store | Path | None = None

    def require(self) -> None:
        """Raises a UserError where there is no folder, or nothing in it to draw."""
        if not self.path.is_dir():
            raise UserError(
                f"There is no folder '{self.path}'. Expected that of a run or of a "
                "cross-validation, as trainers/train.py makes it."
            )
        others = self._equifinality.is_file() or self.has_samples
        if not (self.histories or self._file or others):
            raise UserError(
                f"There is nothing to draw in '{self.path}'. Expected history.csv, "
                "predictions.zarr, ensemble.zarr or folders fold-01, fold-02, ... of a "
                "training."
            )

    @cached_property
    def folds(self) -> tuple[Path, ...]:
        """The run folders of a cross-validation; none where it is a run itself."""
        return tuple(sorted(p for p in self.path.glob(FOLDS) if p.is_dir()))

    @cached_property
    def histories(self) -> dict[str, pd.DataFrame]:
        """The history of the run or of each fold, as far as there is one."""
        files = [folder / HISTORY for folder in (self.path, *self.folds)]
        return {
            file.parent.name.replace("-", " "): pd.read_csv(file)
            for file in files
            if file.is_file()
        }

    @cached_property
    def predictions(self) -> xr.Dataset:
        """The predictions of the run, or of the ensemble; the mean of samples.

        Raises:
            Missing: There are none.
        """
        if self._file is None:
            verb = "trainers/cross_validate.py" if self.folds else "-m h2mv_tf predict"
            raise Missing(f"there are no predictions; python {verb} makes them.")
        return predictions.summarised(predictions.load(self._file))

    @cached_property
    def members(self) -> tuple[xr.Dataset, ...]:
        """The predictions of each fold of a cross-validation."""
        files = [_found(folder, PREDICTIONS) for folder in self.folds]
        return tuple(
            predictions.summarised(predictions.load(file)) for file in files if file
        )

    @property
    def configuration(self) -> dict:
        """The configuration of the training, as far as the predictions tell it.

        Raises:
            Missing: There are no predictions.
        """
        return parsed_yaml(self.predictions.attrs.get("configuration") or "{}")

    @cached_property
    def store(self) -> Store:
        """The store that is predicted.

        Raises:
            Missing: It is not known, or no longer where it was.
            UserError: It is another one.
        """
        given = self.given
        if given is None:
            given = self.predictions.attrs.get("store")
            if not given or not Path(given).is_dir():
                raise Missing(
                    f"the store of the predictions, '{given}', is not there; --data "
                    "STORE tells where the observations are."
                )
        if isinstance(given, str | Path):
            groups = self.configuration.get("data", {}).get("groups")
            given = Store.open(given, groups)
        refuse_other_cells(self.predictions, given.land, f"store '{given.path}'")
        return given

    @cached_property
    def scores(self) -> xr.Dataset:
        """The evaluation.

        Raises:
            Missing: There is none.
        """
        name = ENSEMBLE if self.folds else PREDICTIONS
        file = (self._file or self.path / f"{name}.zarr").with_suffix(".evaluation")
        if not (file / SCORES).is_file():
            raise Missing(
                "there is no evaluation; python -m h2mv_tf evaluate makes it."
            )
        scores = _loaded(file / SCORES)
        if "score" not in scores:
            raise Missing("the store observes nothing that could be evaluated.")
        return scores

    @property
    def has_samples(self) -> bool:
        """Whether there are samples, or their evaluation."""
        return bool(self._samples or self._evaluated_samples)

    @cached_property
    def probabilistic(self) -> xr.Dataset:
        """The evaluation of samples.

        Raises:
            Missing: They have not been evaluated.
        """
        if self._evaluated_samples is None:
            raise Missing(
                "the samples have not been evaluated; python -m h2mv_tf evaluate does "
                "it."
            )
        return _loaded(self._evaluated_samples)

    @cached_property
    def equifinality(self) -> xr.Dataset:
        """How the folds differ.

        Raises:
            Missing: It has not been worked out, or there are no folds.
        """
        if not self._equifinality.is_file():
            raise Missing(
                "the folds have not been compared; python -m h2mv_tf equifinality "
                "does it."
            )
        return _loaded(self._equifinality)

    @property
    def _equifinality(self) -> Path:
        return self.path / EQUIFINALITY

    @cached_property
    def _file(self) -> Path | None:
        """What figures are of; samples where nothing else was predicted."""
        names = (ENSEMBLE, PREDICTIONS, SAMPLES)
        return next(filter(None, (_found(self.path, name) for name in names)), None)

    @cached_property
    def _samples(self) -> Path | None:
        return _found(self.path, SAMPLES)

    @cached_property
    def _evaluated_samples(self) -> Path | None:
        """The evaluation of samples; of predictions, where these are samples."""
        names = (SAMPLES, ENSEMBLE, PREDICTIONS)
        files = (self.path / f"{n}.evaluation" / PROBABILISTIC for n in names)
        return next((file for file in files if file.is_file()), None)


def _found(folder: Path, name: str) -> Path | None:
    files = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((file for file in files if file.exists()), None)


def _loaded(file: Path) -> xr.Dataset:
    with readable(f"'{file}'"), xr.open_dataset(file) as opened:
        return opened.load()
