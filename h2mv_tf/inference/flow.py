"""From a trained model and a store to predictions."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf import __version__, distribution, predictions
from h2mv_tf.data.check import refuse_static
from h2mv_tf.data.store import Block, Store
from h2mv_tf.data.writing import (
    ALONE,
    CHUNKS,
    Shard,
    Writer,
    refuse_existing,
    tile_of,
    writing,
)
from h2mv_tf.inference import hands
from h2mv_tf.inference.job import Job, asked_for, cells_at_once, grouped
from h2mv_tf.inference.simulator import Simulator
from h2mv_tf.inference.work import Work
from h2mv_tf.predictions import MARK, Profile
from h2mv_tf.run_folder import git_commit
from h2mv_tf.trained import Trained
from h2mv_tf.variables import BALANCE, names

logger = logging.getLogger(__name__)

MEMORY = 2e9  # bytes, of the values in hand


class Balance(NamedTuple):
    """How well the water balance closes over all cells that were simulated."""

    largest_residual: float  # of a cell and day [mm d-1]
    largest_closure: float  # of a cell over the whole period [mm]
    days: int

    @classmethod
    def of(cls, dataset: xr.Dataset, days: int) -> "Balance":
        """The balance of predictions.

        Args:
            dataset: Of `predictions.load`.
            days: That were simulated.
        """
        residual, closure = (float(abs(dataset[name]).max()) for name in BALANCE)
        return cls(residual, closure, days)


def predict(
    trained: Trained,
    store: Store,
    to: str | Path,
    *,
    variables: Sequence[str] | None = None,
    profile: Profile = "native",
    netcdf: bool = False,
    monthly: bool = False,
    spin_up: int = 1,
    memory: float = MEMORY,
    devices: distribution.Devices = "auto",
    shard: Shard = ALONE,
    cluster: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Balance | None:
    """Simulates the cells of a store, and writes what the model says of them.

    An interrupted call is continued by one of the same arguments.

    Args:
        trained: The model.
        store: Weather and static inputs; observations are not needed.
        to: What to make; must not exist.
        variables: Names of the registry; all by default. The water balance is
            always there.
        profile: Whose names and units.
        netcdf: Write a NetCDF file instead of a Zarr store.
        monthly: Write means of months instead of days.
        spin_up: Passes over the series that bring the stores into motion.
        memory: Bytes of the values in hand.
        devices: That share the work, as in `distribution.strategy`.
        shard: Which of the processes that write this store together this is.
        cluster: Address of a dask scheduler, whose workers do it.
        progress: Called with the number of cells that are done, and of all.

    Returns:
        How well the water balance closes; None where other shards are still at work.

    Raises:
        UserError: The model and the store do not fit, a variable is unknown, the
            path exists or cannot be written, or the water balance is open.
    """
    to = Path(to)
    refuse_existing(to)
    trained.require(store)
    static = store.static()
    refuse_static(store, static)
    asked = asked_for(variables)
    time = _steps(store, monthly)
    tile = tile_sides(len(time), store.land.dims)
    blocks = store.cut(tile)
    mine = blocks[shard.index - 1 :: shard.count]
    workers = ["cluster"] if cluster else distribution.own_devices(devices)
    job = Job(
        names=asked,
        profile=profile,
        monthly=monthly,
        spin_up=spin_up,
        cells=cells_at_once(store, mine, memory / len(workers)),
    )
    # How many cells are simulated together changes no number.
    plan = {
        "model": trained.digest,
        "store": str(store.path.resolve()),
        "period": [f"{time[0]}", f"{time[-1]}"],
        "cells": int(store.land.sum()),
        "job": [asked, profile, monthly, spin_up],
        "tile": tile,
        "version": __version__,
    }
    with writing(
        to,
        tile=tile,
        plan=plan,
        attributes={
            "title": "Predictions of H2MV, a hybrid model of the land water cycle",
            "days_simulated": len(store.time),
            **provenance(trained.attributes, store, profile, monthly),
        },
        shard=shard,
        parts=[_key(block) for block in blocks],
        finish=as_netcdf if netcdf else None,
    ) as writer:
        declare(writer, trained, store, time, job)
        todo = [block for block in mine if not writer.holds(_key(block))]
        if len(todo) < len(mine):
            ready = len(mine) - len(todo)
            logger.info("Continuing: %d of %d blocks are done.", ready, len(mine))
        groups = grouped(todo, job.cells)
        if cluster:
            arrays = writer.arrays
            done = hands.on_cluster(cluster, trained, job, store, arrays, groups)
        else:
            works = [
                Work(
                    Simulator.of(trained, job, device),
                    job,
                    store,
                    static,
                    writer.arrays,
                )
                for device in workers[: len(groups)]
            ]
            done = hands.on_devices(works, groups)
        total = sum(len(block.cells) for block in mine)
        count = total - sum(len(block.cells) for block in todo)
        for group in done:
            for block in group:
                writer.finish(_key(block))
                count += len(block.cells)
            if progress is not None:
                progress(count, total)
    if not to.exists():
        return None
    return Balance.of(predictions.load(to), len(store.time))


def untrained(
    dataset: xr.Dataset,
    store: Store,
    to: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """What the model said before it was trained, of all that the store observes.

    Args:
        dataset: Predictions of the trained model, which know how it was made.
        store: Where they were made from.
        to: Zarr store to make.
        progress: As of `predict`.

    Raises:
        UserError: They do not know how the model was made.
    """
    trained = Trained.before_training(dataset.attrs)
    predict(
        trained,
        store,
        to,
        variables=store.constraints,
        monthly=dataset.attrs["frequency"] == "monthly",
        progress=progress,
    )
    return predictions.load(to)


def as_netcdf(store: Path, to: Path) -> None:
    """Writes predictions that are a Zarr store as a NetCDF file, chunk by chunk.

    Args:
        store: The Zarr store.
        to: The file.
    """
    with xr.open_zarr(store, consolidated=False, decode_cf=False) as dataset:
        encoding = {
            name: {
                "zlib": True,
                "complevel": 1,
                "chunksizes": data.encoding["chunks"],
            }
            for name, data in dataset.data_vars.items()
            if data.ndim
        }
        dataset.attrs.pop(CHUNKS, None)  # of the Zarr store
        dataset.drop_encoding().to_netcdf(to, engine="netcdf4", encoding=encoding)


def provenance(attributes: Mapping, store: Store, profile: str, monthly: bool) -> dict:
    """Attributes that tell where predictions come from.

    Args:
        attributes: Of the model.
        store: Where its weather is from.
        profile: Whose names and units they have.
        monthly: Whether they are means of months.
    """
    commit = git_commit()
    version = f"h2mv_tf {__version__}" + f" ({commit})" * (commit is not None)
    model = attributes.get("run", "untrained")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "source": version,
        "history": f"{now}: simulated by {version} with model {model} and {store.path}",
        "references": predictions.REFERENCES,
        "store": str(store.path),
        "frequency": "monthly" if monthly else "daily",
        MARK: profile,
        **attributes,
    }


def declare(
    writer: Writer, trained: Trained, store: Store, time: pd.DatetimeIndex, job: Job
) -> None:
    """Makes the arrays of a job, and fills those that need no simulation."""
    template = predictions.template(
        store.land, time, job.names, profile=job.profile, monthly=job.monthly
    )
    roles = trained.role_of(store)
    predictions.declare(writer, store.land, template, roles, monthly=job.monthly)
    for name in names("constant"):
        if name in job.names:
            value = np.float32(trained.constants[name])
            stored = predictions.stored_name(name, job.profile)
            writer.put("", value, name=stored)


def tile_sides(steps: int, dims: Sequence[str]) -> dict[str, int]:
    """Cells of a chunk along each dimension of space: powers of two, to fill groups.

    Args:
        steps: Of a series.
        dims: Dimensions of space.
    """
    sides = tile_of(steps, dims)
    return {dim: 1 << (side.bit_length() - 1) for dim, side in sides.items()}


def _steps(store: Store, monthly: bool) -> pd.DatetimeIndex:
    if not monthly:
        return store.time
    return store.time.to_period("M").unique().to_timestamp()


def _key(block: Block) -> tuple:
    return ("block", *block.region)
