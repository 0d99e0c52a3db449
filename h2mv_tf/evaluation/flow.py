"""An evaluation from its data sets to the scores, block by block."""

import functools
import logging
import threading
from collections.abc import Callable, Sequence

import dask
import numpy as np
import xarray as xr

from h2mv_tf.data.splits import SEA, TEST
from h2mv_tf.data.store import Store
from h2mv_tf.evaluation import assembly, balance, matching, regions
from h2mv_tf.evaluation.blocks import Block, Part, Survey, cut
from h2mv_tf.evaluation.summaries import Domain

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


def evaluate(
    predictions: xr.Dataset,
    store: Store,
    *,
    untrained: xr.Dataset | None = None,
    regions: xr.DataArray | None = None,
    saturation: float | None = 100.0,
    cells: int = 500,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Scores predictions against the observations of a store, and its truth.

    Works block by block through dask, with whichever scheduler is set: threads by
    default. What a constraint, a scale or a region lacks is NaN and told in
    `attrs["notes"]`, one note a line.

    Args:
        predictions: Of `predictions.load`: (time, lat, lon) or (time, cell), native
            units, with `cell_area` and `role`.
        store: The store with the observations; the same cells.
        untrained: Predictions of the untrained model, on the same cells and steps.
        regions: Of `regions.load`; the main climates of the store's weather by default.
        saturation: Snow water equivalent beyond which observations say only "deep"
            [mm]: where observation and prediction both exceed it, they agree, as in the
            objective; None compares all depths.
        cells: Of a block, about.
        progress: Called with the number of tasks that are done, and of all.

    Returns:
        Scores, counts and summaries, as docs/evaluation.md lists them.

    Raises:
        UserError: The cells differ, nothing can be compared, or the water balance of
            the predictions does not close.
    """
    found = matching.match(predictions, store, untrained, saturation)
    sources, notes = found.sources, list(found.notes)
    blocks = cut(store.land, matching.tiles(sources), cells=cells)
    land = np.flatnonzero(store.land.values)
    area = _of_land(predictions, "cell_area", land, 1.0).astype("float64")
    role = _of_land(predictions, "role", land, SEA).astype("int8")
    if not (role != SEA).any():
        notes.append(
            "The role of the cells is not known here: no test cells, and no mean "
            "seasonal cycle of training cells."
        )
    count = _Count(2 * len(blocks), progress)

    climate, codes = _climate_and_codes(regions, land)
    training = area * matching.is_training(role, predictions.attrs.get("fold"))
    tasks = [
        functools.partial(
            sources.survey,
            block,
            None if climate is None else climate[block.cells],
            codes,
            training[block.cells],
        )
        for block in blocks
    ]
    surveys: Sequence[Survey] = _run(tasks, count)
    climates = np.zeros(len(land), "int32")
    for block, survey in zip(blocks, surveys, strict=True):
        climates[block.cells] = survey.climate
    named = _named(regions, store, climates)
    domain = Domain(
        land=store.land,
        area=area,
        test=role == TEST,
        position=np.searchsorted(codes, climates),
        names=_names(named, codes),
    )
    cycles = _cycles(surveys)
    notes += _regions_without_training(domain, cycles)

    tasks = [
        functools.partial(
            sources.part,
            block,
            domain.position[block.cells],
            domain.weights(block.cells),
            cycles,
        )
        for block in blocks
    ]
    parts: Sequence[Part] = _run(tasks, count)
    result = assembly.dataset(sources, domain, blocks, parts, role)
    result["climate"] = named
    result = _with_balance(result, predictions, domain, blocks, parts)
    notes += assembly.unobserved(result)
    return result.assign_attrs(notes="\n".join(notes))


class _Count:
    """Counts tasks where they run in threads of this process."""

    def __init__(self, total: int, progress: Progress | None):
        self._total, self._progress, self._done = total, progress, 0
        self._lock = threading.Lock()

    def one_more(self) -> None:
        if self._progress is not None:
            with self._lock:
                self._done += 1
                self._progress(self._done, self._total)


def _run(tasks: Sequence[Callable], count: _Count) -> Sequence:
    """Results of tasks, by dask."""
    with dask.diagnostics.Callback(posttask=lambda *_: count.one_more()):
        return dask.compute(*(dask.delayed(task, pure=False)() for task in tasks))
