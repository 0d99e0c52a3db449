"""Results: what a trained run or a cross-validation comes to.

    of_run(RunFolder(Path("runs/first")))

Predictions, their scores, figures and a page, each by the module of its name and each
only where it is not there yet.
"""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import xarray as xr

from h2mv_tf import (
    ensemble,
    equifinality,
    evaluation,
    figures,
    inference,
    predictions,
    report,
)
from h2mv_tf.data.store import Store
from h2mv_tf.evaluation import probabilistic
from h2mv_tf.evaluation import regions as region_maps
from h2mv_tf.evaluation import results as scores
from h2mv_tf.files import refuse_existing
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.trained import Trained

logger = logging.getLogger(__name__)

DRAWS = 50  # of a posterior
DAYS_OF_A_MONTH = 30
LARGEST = 5e9  # bytes of predictions that are made without being asked for
SATURATION = 100.0  # mm of SWE

# Makes a progress bar with these words.
Bars = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@contextlib.contextmanager
def silent(what: str) -> Iterator[Callable[[int, int], None]]:
    """No progress bar."""
    yield lambda done, total: None


def of_run(run: RunFolder, *, bars: Bars = silent) -> None:
    """All results of a trained run, on the store that it was trained on.

    Args:
        run: Its run folder.
        bars: Shows progress.

    Raises:
        UserError: The store is gone, or the water balance does not close.
    """
    model = Trained.of(run)
    store = model.open_store()
    size = predicted_bytes(store)
    if size > LARGEST:
        logger.info(
            "All variables of all days would take %.0f GB, which nobody asked for: "
            "`python -m h2mv_tf predict %s` makes them, or with --variables a part.",
            size / 1e9,
            run.path,
        )
    else:
        path = predicted(run, bars=bars)
        if not scores_of(path).exists():
            evaluated(path, bars=bars)
    if model.settings.get("variational") and DRAWS * size / DAYS_OF_A_MONTH <= LARGEST:
        _judged(run, bars)
    illustrated(run.path, bars=bars)


def _judged(run: RunFolder, bars: Bars) -> None:
    """Samples of a run's posterior and prior, and how right they are."""
    sampling = inference.Sampling(DRAWS, keep=True)
    prior, samples = (
        predicted(run, file=file, sampling=of, monthly=True, bars=bars)
        for file, of in (
            (predictions.PRIOR, sampling._replace(prior=True)),
            (predictions.SAMPLES, sampling),
        )
    )
    if not scores_of(samples).exists():
        evaluated(samples, prior=prior, untrained=False, bars=bars)


def of_cross_validation(folder: Path, *, bars: Bars = silent) -> None:
    """All results of the folds of a cross-validation together.

    Args:
        folder: With a run for each fold, which has its predictions.
        bars: Shows progress.

    Raises:
        UserError: The folds cannot be compared.
    """
    path = combined(folder, bars=bars)
    if not scores_of(path).exists():
        evaluated(path, bars=bars)
    compared = folder / equifinality.FOLDER
    if not compared.exists():
        members = predictions.of_folds(folder)
        folds = {name: predictions.load(path) for name, path in members.items()}
        with bars("comparing") as progress:
            found = equifinality.equifinality(folds, progress=progress)
        equifinality.save(found, compared)
    illustrated(folder, bars=bars)


def predicted(
    run: RunFolder, *, file: str = predictions.FILE, bars: Bars = silent, **options
) -> Path:
    """The predictions of a run for the store that it was trained on.

    Args:
        run: Its run folder.
        file: Their name in it.
        bars: Shows progress.
        **options: As of `inference.predict`.

    Returns:
        Where they are.
    """
    path = run.path / file
    if path.exists():
        return path
    model = Trained.of(run)
    with bars("simulating") as progress:
        outcome = inference.predict(
            model, model.open_store(), path, progress=progress, **options
        )
    run.note_predictions(path, outcome._asdict())
    outcome.tell(path)
    return path


def combined(folder: Path, *, bars: Bars = silent, **options) -> Path:
    """The ensemble of the folds of a cross-validation.

    Args:
        folder: With a run for each fold, which has its predictions.
        bars: Shows progress.
        **options: As of `ensemble.combine`.

    Returns:
        Where it is.
    """
    path = folder / predictions.ENSEMBLE
    if not path.exists():
        with bars("combining") as progress:
            ensemble.combine(
                predictions.of_folds(folder), path, progress=progress, **options
            )
        logger.info("Ensemble: %s", path)
    return path


def evaluated(
    path: Path,
    *,
    data: Path | None = None,
    to: Path | None = None,
    untrained: bool = True,
    regions: Path | None = None,
    saturation: float | None = SATURATION,
    prior: Path | None = None,
    bars: Bars = silent,
) -> xr.Dataset:
    """Scores predictions, and writes the scores beside them.

    Of samples the mean is scored as other predictions are, and then their spread, where
    there are enough of them.

    Args:
        path: Where they are.
        data: The store with the observations; by default that of the predictions.
        to: Folder to make; by default beside them, of `scores_of`.
        untrained: Compare with the untrained model, where it is known how it was made.
        regions: A file of regions; main climates by default.
        saturation: As of `evaluation.evaluate`.
        prior: Samples of the prior, to compare the widths of samples with.
        bars: Shows progress.

    Returns:
        The scores of `evaluation.evaluate`; `evaluation.results.of_samples` reads
        those of the spread.

    Raises:
        UserError: As of `evaluation.evaluate` and `probabilistic.evaluate`; the folder
            exists; there is a prior, and too few samples to compare with it.
    """
    to = to or scores_of(path)
    refuse_existing(to)
    samples = predictions.load(path)
    dataset = predictions.summarised(samples)
    store = predictions.store_of(dataset, data)
    named = None if regions is None else region_maps.load(regions, store.land)
    evaluation.refuse_unfit(dataset, store)
    of_prior = None if prior is None else predictions.load(prior)
    count = samples.sizes.get(predictions.REALIZATION, 0)
    judged = count >= probabilistic.FEWEST
    if judged or of_prior is not None:
        probabilistic.refuse_unfit(samples, store, of_prior)
    if untrained and "normalization" not in dataset.attrs:
        logger.info(
            "No untrained model to compare with: the predictions do not know how "
            "theirs was made."
        )
        untrained = False
    with contextlib.ExitStack() as stack:
        before = None
        if untrained:
            scratch = stack.enter_context(_beside(to))
            with bars("simulating, untrained") as progress:
                before = inference.untrained(dataset, store, scratch, progress=progress)
        progress = stack.enter_context(bars("scoring"))
        found = evaluation.evaluate(
            dataset,
            store,
            untrained=before,
            regions=named,
            saturation=saturation,
            progress=progress,
        )
    of_samples = None
    if judged:
        with bars("scoring, samples") as progress:
            of_samples = probabilistic.evaluate(
                samples, store, prior=of_prior, saturation=saturation, progress=progress
            )
        of_samples.attrs |= {"predictions": str(path), "store": str(store.path)}
    elif count:
        few = (
            f"The spread of {count} samples is not judged: expected "
            f"{probabilistic.FEWEST} or more."
        )
        found.attrs["notes"] = "\n".join(filter(None, [found.attrs["notes"], few]))
    found.attrs |= {"predictions": str(path), "store": str(store.path)}
    scores.write(found, to, days=dataset.sizes["time"], samples=of_samples)
    return found


def illustrated(folder: Path, *, bars: Bars = silent) -> Path:
    """The figures of a run or a cross-validation, and the page with all of it.

    Args:
        folder: Of the run or the cross-validation.
        bars: Shows progress.

    Returns:
        Where the page is.
    """
    with bars("drawing") as progress:
        figures.draw(folder, progress=progress)
    page = report.write(folder)
    logger.info("Report: %s", page)
    return page


def scores_of(path: Path) -> Path:
    """The folder of the scores of predictions."""
    return path.with_suffix(".evaluation")


def predicted_bytes(store: Store) -> float:
    """What all variables of all days of a store take, uncompressed."""
    series = len(predictions.SERIES) * np.dtype("float32").itemsize
    return float(store.land.sum()) * len(store.time) * series


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A place for what is needed for a while, on the same disk as the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}.", dir=folder.parent
    ) as scratch:
        yield Path(scratch) / "untrained.zarr"
