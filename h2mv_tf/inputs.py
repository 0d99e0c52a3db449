"""Inputs: from a configuration to the data of a training, checked.

What the store holds, which cells train, their statistics, and what a training on
them needs. Imports neither TensorFlow nor Keras.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf.config import Config
from h2mv_tf.data import series, splits
from h2mv_tf.data.check import Check
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import Statistics, Survey, stored_statistics, survey
from h2mv_tf.data.windows import Windows
from h2mv_tf.errors import UserError
from h2mv_tf.variables import ERRORS, VARIABLES

# Of a training step on two cores, in float32: of each day, and of each cell and
# day. They stretch with the time of the matrix product that a day costs.
DAY_SECONDS, CELL_DAY_SECONDS = 50e-6, 1.5e-6
PRODUCT_SECONDS = 0.18e-3  # of PRODUCT, on the machine where these were measured
PRODUCT = (256, 122, 400)


class Inputs(NamedTuple):
    """What a model is trained on."""

    survey: Survey
    source: series.Series | series.Tiles
    roles: xr.DataArray
    split: splits.Split
    windows: Windows
    statistics: Statistics
    check: Check


class Needs(NamedTuple):
    """What a training will need."""

    cells: dict[str, int]  # of each role
    windows: dict[str, int]  # of each role, of an epoch
    skipped: dict[str, int]  # windows that have no observation
    cell_days: int  # of an epoch, spin-up included
    batch: int  # windows
    series: int  # bytes of all series
    held: int  # bytes of them that are in memory
    seconds: float  # of an epoch, roughly


def prepare(config: Config, progress: Callable | None = None) -> Inputs:
    """Reads and checks all that a training needs.

    Args:
        config: The configuration.
        progress: Called with the number of blocks read and of all blocks.

    Raises:
        UserError: The store cannot be trained with.
    """
    store = Store.open(config.data.store, config.data.groups)
    errors = _errors(config, store) if _weighed(config) else ()
    source, found = _read(config, store, errors, progress)
    checked = Check.of(found)
    checked.refuse()
    return _prepared(config, store, source, found, checked)


def examine(
    config: Config, progress: Callable | None = None
) -> tuple[Check, Needs | None]:
    """Checks the store of a configuration, and tells what a training will need.

    Args:
        config: The configuration.
        progress: Called with the number of blocks read and of all blocks.

    Returns:
        The check, and the needs where it finds nothing serious.
    """
    checked = None
    try:
        store = Store.open(config.data.store, config.data.groups)
        source, found = _read(config, store, _errors(config, store), progress)
        checked = Check.of(found, weighed=_weighed(config))
        if checked.serious:
            return checked, None
        inputs = _prepared(config, store, source, found, checked)
    except UserError as error:
        return Check.failed(config.data.store, error, checked), None
    return checked, needs(config, inputs)


def _weighed(config: Config) -> bool:
    """Whether standard errors of observations count; squares know none."""
    return config.objective.likelihood != "mse"


def _errors(config: Config, store: Store) -> tuple[str, ...]:
    """The chosen constraints whose standard errors are asked for, and are there."""
    names = config.objective.constraints or store.constraints
    asked = config.objective.errors
    if asked is None:
        asked = store.errors
    lacking = [name for name in asked if name not in store.errors]
    if lacking and _weighed(config):
        variable = VARIABLES[ERRORS[lacking[0]]]
        raise UserError(
            f"objective.errors names '{lacking[0]}', but store '{store.path}' lacks "
            f"{variable.label} (group '{store.groups[variable.group]}'). Found those "
            f"of: {', '.join(store.errors) or 'none'}. Add the group, or leave "
            f"'{lacking[0]}' out of objective.errors."
        )
    return tuple(name for name in names if name in store.errors and name in asked)


def _read(
    config: Config, store: Store, errors: tuple[str, ...], progress: Callable | None
):
    """Where the series of a store are held, and what a pass over it found."""
    names = config.objective.constraints or store.constraints
    source = series.source(
        store,
        (*names, *(ERRORS[name] for name in errors)),
        cache=config.data.cache,
        buffer=config.data.buffer,
    )
    keep = source if isinstance(source, series.Series) else None
    return source, survey(store, names, errors=errors, keep=keep, progress=progress)


def _prepared(
    config: Config,
    store: Store,
    source: series.Series | series.Tiles,
    found: Survey,
    checked: Check,
) -> Inputs:
    roles = splits.roles(
        store.land, block_size=config.split.block_size, seed=config.split.seed
    )
    split = splits.split(roles, config.split.fold)
    for role in ("validation", "test"):
        cells = getattr(split, role)
        if not any(found.series[name].count[cells].any() for name in found.constraints):
            raise UserError(
                f"None of the {len(cells)} {role} cells has an observation. Choose "
                "another split.fold or split.seed, or a smaller split.block_size."
            )
    if config.data.normalization == "store":
        statistics = stored_statistics(store, found.constraints)
    else:
        statistics = found.statistics(split.train)
    windows = Windows(store.time, **config.window.model_dump())
    return Inputs(found, source, roles, split, windows, statistics, checked)


def needs(config: Config, inputs: Inputs) -> Needs:
    """What a training will need.

    Args:
        config: The configuration.
        inputs: Of `prepare`.
    """
    windows = inputs.windows
    plans = {
        role: windows.plan(cells, inputs.survey.observed)
        for role, cells in inputs.split._asdict().items()
    }
    count = {role: len(plan.cell) for role, plan in plans.items()}
    batch = min(config.training.batch_size, max(count["train"], 1))
    steps = -(-count["train"] // batch)
    days = windows.days + (windows.days if windows.full else windows.spin_up)
    one = series.cell_bytes(inputs.survey.store, tuple(inputs.survey.record.daily))
    held = len(inputs.survey.static) * one
    if isinstance(inputs.source, series.Tiles):
        held = min(held, 2 * inputs.source.room * one)
    elif inputs.source.on_disk:
        held = 0
    return Needs(
        cells={role: len(cells) for role, cells in inputs.split._asdict().items()},
        windows=count,
        skipped={role: plan.skipped for role, plan in plans.items()},
        cell_days=count["train"] * days,
        batch=batch,
        series=len(inputs.survey.static) * one,
        held=held,
        seconds=steps * days * (DAY_SECONDS + batch * CELL_DAY_SECONDS) * _slowness(),
    )


def _slowness() -> float:
    """How much longer this machine takes than the one that was measured."""
    rows, inner, columns = PRODUCT
    left, right = np.ones((rows, inner), "f4"), np.ones((inner, columns), "f4")
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - begin)
    return min(times) / PRODUCT_SECONDS
