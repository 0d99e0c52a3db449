"""An evaluation from its data sets to the scores, block by block."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from h2mv_tf.data.splits import SEA
from h2mv_tf.data.store import Store
from h2mv_tf.evaluation import assembly, balance, matching
from h2mv_tf.evaluation.baselines import by_hemisphere
from h2mv_tf.evaluation.blocks import Part, Sources, Survey
from h2mv_tf.evaluation.cutting import VALUES, Block, cut
from h2mv_tf.evaluation.regions import CLIMATES, NONE, PEEL, UNKNOWN, meanings, named
from h2mv_tf.evaluation.summaries import Domain
from h2mv_tf.evaluation.tasks import Progress, counter, run
from h2mv_tf.predictions import space

logger = logging.getLogger(__name__)


def evaluate(
    predictions: xr.Dataset,
    store: Store,
    *,
    untrained: xr.Dataset | None = None,
    regions: xr.DataArray | None = None,
    saturation: float | None = 100.0,
    cells: int | None = None,
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
        cells: Of a block, at most, where chunks let it; by default as many as 2 million
            values make.
        progress: Called with the number of tasks that are done, and of all.

    Returns:
        Scores, counts and summaries, as docs/evaluation.md lists them.

    Raises:
        UserError: The cells differ, nothing can be compared, or the water balance of
            the predictions does not close.
    """
    sources, notes = matching.match(predictions, store, untrained, saturation)
    told = _reported(predictions)
    land = np.flatnonzero(store.land.values)
    role = _of_land(predictions, "role", land, SEA).astype("int8")
    area = _of_land(predictions, "cell_area", land, 1.0).astype("float64")
    training = area * matching.is_training(role, predictions.attrs.get("fold"))
    if not (role != SEA).any():
        notes.append(
            "The role of the cells is not known here: there are no test cells, and no "
            "mean seasonal cycle of training cells."
        )
    cells = cells or max(VALUES // predictions.sizes["time"], 1)
    blocks = cut(store.land, matching.tiles(sources), cells=cells)
    advance = counter(2 * len(blocks), progress)

    known = None if regions is None else regions.values.ravel()[land]
    words = dict(enumerate(CLIMATES, start=1)) if known is None else meanings(regions)
    codes = np.array([UNKNOWN, *sorted(words)])
    latitude = store.land.lat.broadcast_like(store.land).transpose(*store.land.dims)
    south = latitude.values.ravel()[land] < 0
    climates, cycles = _surveyed(
        sources, blocks, known, codes, training, south, advance
    )
    domain = Domain(
        land=store.land,
        area=area,
        role=role,
        position=np.searchsorted(codes, climates),
        names=(NONE, *(words[code] for code in codes[1:])),
    )
    of_cycle = by_hemisphere(domain.position, south)
    notes += _without_cycle(domain, of_cycle, cycles)
    tasks = [
        functools.partial(
            sources.part,
            block,
            of_cycle[block.cells],
            domain.groups(block.cells),
            cycles,
        )
        for block in blocks
    ]
    parts: Sequence[Part] = run(tasks, advance)
    result = assembly.dataset(sources, domain, blocks, parts)
    if regions is None:
        codes_on_space = domain.on_space(climates, fill=UNKNOWN)
        result["climate"] = named(codes_on_space, words, source=PEEL)
    else:
        result["climate"] = regions.rename("climate").reset_coords(drop=True)
    result = _with_balance(result, told, domain, blocks, parts)
    if balance.LARGEST in result:
        balance.refuse(result[balance.LARGEST])
        _log_balance(result)
    notes += assembly.unobserved(result, domain)
    return result.assign_attrs(notes="\n".join(notes))


def refuse_unfit(predictions: xr.Dataset, store: Store) -> None:
    """Raises a UserError where `evaluate` would without a look at the values.

    Args:
        predictions: As for `evaluate`.
        store: As for `evaluate`.

    Raises:
        UserError: The cells differ, nothing can be compared, or the water balance of
            the predictions does not close, as the model found itself.
    """
    matching.match(predictions, store, None, None)
    _reported(predictions)


def _reported(predictions: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray] | None:
    told = balance.reported(predictions)
    if told is not None:
        balance.refuse(told[0])
    return told


def _log_balance(result: xr.Dataset) -> None:
    logger.info(
        "Water balance: it closes to %.2g mm d-1 on the worst day of the worst cell, "
        "and to %.2g mm over the whole period.",
        float(result[balance.LARGEST].max()),
        float(np.abs(result[balance.CLOSURE]).max()),
    )


def _surveyed(
    sources: Sources,
    blocks: Sequence[Block],
    known: np.ndarray | None,
    codes: np.ndarray,
    training: np.ndarray,
    south: np.ndarray,
    advance: Callable[[], None],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The region of each cell, and each region's mean seasonal cycle by constraint."""
    tasks = [
        functools.partial(
            sources.survey,
            block,
            None if known is None else known[block.cells],
            codes,
            training[block.cells],
            south[block.cells],
        )
        for block in blocks
    ]
    surveys: Sequence[Survey] = run(tasks, advance)
    climates = np.zeros(len(training), "int32")
    for block, survey in zip(blocks, surveys, strict=True):
        climates[block.cells] = survey.climate
    return climates, _cycles(surveys)


def _of_land(data: xr.Dataset, name: str, land: np.ndarray, missing) -> np.ndarray:
    """A coordinate of predictions on the land cells."""
    if name not in data.coords and name not in data:
        return np.full(len(land), missing)
    values = data[name].transpose(*space(data)).values.ravel()[land]
    return np.nan_to_num(values, nan=missing)


def _cycles(surveys: Sequence[Survey]) -> dict[str, np.ndarray]:
    """The mean seasonal cycle of training cells by constraint (region, slot)."""
    together: dict = {}
    for survey in surveys:
        for name, cycle in survey.cycles.items():
            together[name] = together[name] + cycle if name in together else cycle
    return {name: cycle.mean for name, cycle in together.items()}


def _without_cycle(
    domain: Domain, of_cycle: np.ndarray, cycles: Mapping[str, np.ndarray]
) -> list[str]:
    """Constraints and regions with a cell that has no cycle, in words."""
    notes = []
    for name, cycle in cycles.items():
        lacking = np.isnan(cycle[of_cycle]).all(axis=1)
        empty = [
            region
            for region, place in domain.regions.items()
            if place is not None and lacking[domain.position == place].any()
        ]
        if empty:
            notes.append(
                f"{name}: no observed training cell in {', '.join(empty)}, and so no "
                "mean seasonal cycle to compare with there."
            )
    return notes


def _with_balance(
    result: xr.Dataset,
    found: tuple[xr.DataArray, xr.DataArray] | None,
    domain: Domain,
    blocks: Sequence[Block],
    parts: Sequence[Part],
) -> xr.Dataset:
    """Adds the water balance of each cell, the worse of what was told and found."""
    residual, closure = (np.full(domain.area.shape, np.nan) for _ in range(2))
    if found is not None:
        land = np.flatnonzero(domain.land.values)
        residual, closure = (
            data.transpose(*domain.land.dims).values.ravel()[land].astype("float64")
            for data in found
        )
    for block, part in zip(blocks, parts, strict=True):
        if part.balance is not None:
            largest, closed = part.balance
            residual[block.cells] = np.fmax(residual[block.cells], largest)
            if found is None:
                closure[block.cells] = closed
    if np.isnan(residual).all():
        return result
    result[balance.LARGEST] = domain.on_space(residual).assign_attrs(
        long_name="largest absolute residual of the water balance of a day",
        units="mm d-1",
    )
    result[balance.CLOSURE] = domain.on_space(closure).assign_attrs(
        long_name="what the water balance of the whole period fails to close by",
        units="mm",
    )
    return result
