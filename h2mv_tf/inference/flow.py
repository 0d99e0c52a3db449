"""From a trained model and a store to predictions."""

import contextlib
import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf import __version__, distribution, predictions, restart
from h2mv_tf.data.check import refuse_static
from h2mv_tf.data.store import Block, Store
from h2mv_tf.data.writing import (
    ALONE,
    CHUNKS,
    Shard,
    Writer,
    tile_of,
    writing,
)
from h2mv_tf.ensemble import OF_ONE_MODEL
from h2mv_tf.errors import UserError
from h2mv_tf.files import refuse_existing
from h2mv_tf.inference import hands
from h2mv_tf.inference.job import (
    COPIES,
    Job,
    asked_for,
    cells_at_once,
    draws_at_once,
    grouped,
)
from h2mv_tf.inference.outcome import Outcome, beyond, static_beyond
from h2mv_tf.inference.samples import Samples, Sampling
from h2mv_tf.inference.samples import draw as drawn_samples
from h2mv_tf.inference.simulator import Simulator
from h2mv_tf.inference.work import Work, summary
from h2mv_tf.predictions import MARK, Profile
from h2mv_tf.run_folder import git_commit
from h2mv_tf.trained import Trained
from h2mv_tf.variables import DOMAIN, names

logger = logging.getLogger(__name__)

MEMORY = 2e9  # bytes, of the values in hand
SAVED = ("state",)  # key of the part of predictions that is the restart file


def predict(
    trained: Trained | Sequence[Trained],
    store: Store,
    to: str | Path,
    *,
    variables: Sequence[str] | None = None,
    sampling: Sampling | None = None,
    profile: Profile = "native",
    netcdf: bool = False,
    monthly: bool = False,
    spin_up: int | None = None,
    initial_state: str | Path | None = None,
    save_state: str | Path | None = None,
    memory: float = MEMORY,
    devices: distribution.Devices = "auto",
    shard: Shard = ALONE,
    cluster: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome | None:
    """Simulates the cells of a store, and writes what the model says of them.

    An interrupted call is continued by one of the same arguments.

    Args:
        trained: The model, or the members of an ensemble.
        store: Weather and static inputs; observations are not needed. `Store.during`
            selects a period.
        to: What to make; must not exist.
        variables: Names of the registry; all by default. The water balance is
            always there.
        sampling: Simulate samples, of a posterior or an ensemble; by default one of
            each member of an ensemble.
        profile: Whose names and units.
        netcdf: Write a NetCDF file instead of a Zarr store.
        monthly: Write means of months instead of days.
        spin_up: Passes over the series that bring the stores into motion; one by
            default.
        initial_state: Restart file to start from instead.
        save_state: Restart file to make of the end of the last day, NetCDF where its
            name ends with .nc, or else Zarr; must not exist.
        memory: Bytes of the values in hand.
        devices: That share the work, as in `distribution.strategy`.
        shard: Which of the processes that write this store together this is.
        cluster: Address of a dask scheduler, whose workers do it.
        progress: Called with the number of cells that are done, and of all.

    Returns:
        What it comes to; None where other shards are still at work.

    Raises:
        UserError: The model and the store or the state do not fit, a variable is
            unknown, a path exists or cannot be written, the water balance is open, or
            there are no such samples.
    """
    to = Path(to)
    refuse_existing(to)
    members = [trained] if isinstance(trained, Trained) else list(trained)
    trained = members[0]
    for member in members:
        member.require(store)
    if len(members) > 1 and sampling is None:
        sampling = Sampling(len(members))
    asked = asked_for(variables)
    time = _steps(store, monthly)
    workers = ["cluster"] if cluster else distribution.own_devices(devices)
    most = math.inf
    if sampling is not None and sampling.keep:  # all of a block are held
        of_cell = sampling.count * len(time) * len(asked) * np.dtype("f4").itemsize
        most = memory / len(workers) / COPIES / of_cell
    tile = tile_sides(len(time), store.land.dims, most)
    blocks = store.cut(tile)
    mine = blocks[shard.index - 1 :: shard.count]
    samples, sampled = None, {}
    if sampling is not None:
        if initial_state is not None or save_state is not None:
            raise UserError(
                "Samples have no restart file: each has a state of its own. Leave out "
                "--initial-state and --save-state, or --samples."
            )
        samples = drawn_samples(members, store, sampling)
        sampled = {"quantiles": sampling.quantiles, "realizations": sampling.keep}
    count = 1 if samples is None else len(samples)
    cells = cells_at_once(store, mine, memory / len(workers), count)
    if samples is not None:
        sampled["draws"] = draws_at_once(cells, samples.most_of_a_member)
    job = Job(
        names=asked,
        profile=profile,
        monthly=monthly,
        spin_up=0 if initial_state is not None else spin_up or 1,
        cells=cells,
        initial_state=None if initial_state is None else Path(initial_state).resolve(),
        **sampled,
    )
    saved = None if save_state is None else Path(save_state)
    # How many cells are simulated together changes no number.
    plan = {
        "to": str(to.resolve()),
        "model": [member.digest for member in members],
        "samples": None if sampling is None else sampling._asdict(),
        "store": str(store.path.resolve()),
        "period": [f"{store.time[0]}", f"{store.time[-1]}"],
        "cells": int(store.land.sum()),
        "job": [asked, profile, monthly, job.spin_up],
        "initial state": _start(trained, store, initial_state, spin_up),
        "saved state": None if saved is None else str(saved.resolve()),
        "tile": tile,
        "version": __version__,
    }
    call = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    # A call that was killed in its last moment may have left the state alone.
    saving = saved is not None and not restart.is_of(saved, call)
    if saving:
        _refuse_unfit_path(saved, to)
    static = store.static()
    refuse_static(store, static)
    _tell_beyond(trained, static)
    origin = provenance(trained, store, job)
    parts = [_key(block) for block in blocks]
    # A sample of a tile is a chunk, so that one of many can be read.
    chunk = {**tile, predictions.REALIZATION: 1}
    shared = {"tile": chunk, "plan": plan, "shard": shard}
    with writing(
        to,
        attributes=lambda whole: {
            "title": "Predictions of H2MV, a hybrid model of the land water cycle",
            "days_simulated": len(store.time),
            "frequency": "monthly" if monthly else "daily",
            MARK: profile,
            **origin,
            **(
                trained.attributes if samples is None else of_samples(samples, sampling)
            ),
            **_out_of_domain(whole, trained),
        },
        parts=parts if saved is None else [*parts, SAVED],
        finish=as_netcdf if netcdf else None,
        **shared,
    ) as writer:
        declare(writer, trained, store, time, job, samples)
        writers = [writer]
        with contextlib.ExitStack() as stack:
            if saving:
                state = writing(
                    saved,
                    attributes=restart.attributes(
                        trained.digest, **origin, **{restart.CALL: call}
                    ),
                    parts=parts,
                    finish=as_netcdf if saved.suffix == ".nc" else None,
                    **shared,
                )
                writers.append(stack.enter_context(state))
                declare_state(writers[-1], trained, store)
            todo = [b for b in mine if not all(w.holds(_key(b)) for w in writers)]
            count = sum(len(block.cells) for block in mine)
            ready = count - sum(len(block.cells) for block in todo)
            if ready:
                left = len(mine) - len(todo)
                logger.info("Continuing: %d of %d blocks are done.", left, len(mine))
            groups = grouped(todo, job.cells)
            targets = [each.arrays for each in writers]
            if cluster:
                done = hands.on_cluster(
                    cluster, trained, job, store, targets, groups, samples, call
                )
            else:
                works = [
                    Work(
                        Simulator.of(trained, job, device),
                        job,
                        store,
                        static,
                        *targets,
                        samples=samples,
                    )
                    for device in workers[: len(groups)]
                ]
                done = hands.on_devices(works, groups)
            for group in done:
                for block in group:
                    # The state first: it holds all that the predictions hold.
                    for each in reversed(writers):
                        each.finish(_key(block))
                    ready += len(block.cells)
                if progress is not None:
                    progress(ready, count)
        if saved is not None and saved.exists():
            writer.finish(SAVED)
    if not to.exists():
        return None
    return Outcome.of(predictions.load(to), len(store.time))


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


def provenance(trained: Trained, store: Store, job: Job) -> dict[str, str]:
    """Attributes that tell where predictions, or a state, come from.

    Args:
        trained: The model.
        store: Where its weather is from.
        job: What was asked for.
    """
    commit = git_commit()
    version = f"h2mv_tf {__version__}" + f" ({commit})" * (commit is not None)
    model = trained.attributes.get("run", "untrained")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    start = f", from {job.initial_state}" if job.initial_state is not None else ""
    return {
        "source": version,
        "history": f"{now}: simulated by {version} with model {model} and {store.path}"
        + start,
        "references": predictions.REFERENCES,
        "store": str(store.path),
    }


def declare(
    writer: Writer,
    trained: Trained,
    store: Store,
    time: pd.DatetimeIndex,
    job: Job,
    samples: Samples | None,
) -> None:
    """Makes the arrays of a job, and fills those that need no simulation."""
    template = predictions.template(
        store.land,
        time,
        job.names,
        profile=job.profile,
        monthly=job.monthly,
        quantiles=job.quantiles if not job.realizations else (),
        members="samples",
        realizations=samples.names if job.realizations else (),
    )
    if trained.domain is None:
        template[DOMAIN[0]].attrs["comment"] = (
            "The ranges of the training are not known, only what is plausible."
        )
    roles = trained.role_of(store)
    predictions.declare(writer, store.land, template, roles, monthly=job.monthly)
    for name in names("constant"):
        if name not in job.names:
            continue
        values = {name: np.float32(trained.constants[name])}
        if samples is not None:
            values = summary(name, samples.constants()[name].astype("float32"), job)
        for key, value in values.items():
            registered, suffix = predictions.without_suffix(key)
            stored = predictions.stored_name(registered, job.profile)
            writer.put("", value, name=stored + suffix)


def of_samples(samples: Samples, sampling: Sampling) -> dict[str, object]:
    """Attributes of predictions that tell what their samples are of."""
    count, members = len(samples), samples.members
    several = len(members) > 1
    found = dict(members[0].attributes)
    if several:
        found = {k: v for k, v in found.items() if k not in OF_ONE_MODEL}
        paths = {each.name: each.attributes.get("run", "") for each in members}
        found["members"] = json.dumps(paths)
    return found | {
        "title": f"Samples of H2MV: {count}" + f" of {len(members)} models" * several,
        predictions.SAMPLES_OF: "prior" if sampling.prior else "posterior",
        predictions.NOISE: json.dumps({each.name: each.noise for each in members}),
    }


def declare_state(writer: Writer, trained: Trained, store: Store) -> None:
    """Makes the arrays of a restart file."""
    template = restart.template(
        store.land,
        store.time[-1],
        units=trained.settings["lstm_units"],
        dtype=trained.weights[0].dtype,
    )
    writer.declare("", template)


def tile_sides(
    steps: int, dims: Sequence[str], most: float = math.inf
) -> dict[str, int]:
    """Cells of a chunk along each dimension of space: powers of two, to fill groups.

    Args:
        steps: Of a series.
        dims: Dimensions of space.
        most: Cells that it has room for.
    """
    sides = tile_of(steps, dims)
    fitting = max(most, 1) ** (1 / len(dims))
    sides = {dim: int(min(side, fitting)) for dim, side in sides.items()}
    return {dim: 1 << (side.bit_length() - 1) for dim, side in sides.items()}


def _start(
    trained: Trained, store: Store, path: str | Path | None, spin_up: int | None
) -> list[str] | None:
    """What tells an initial state from others; None where there is a spin-up."""
    if path is None:
        return None
    if spin_up is not None:
        raise UserError(
            "Give --spin-up or --initial-state, not both: a spin-up is what leads to a "
            "state where there is none."
        )
    state = restart.load(path)
    restart.refuse_other(state, trained.digest, store.land, store.time[0])
    history = state.attrs.get("history", "")
    return [str(Path(path).resolve()), f"{restart.day_of(state)}", history]


def _refuse_unfit_path(saved: Path, to: Path) -> None:
    refuse_existing(saved)
    if saved.resolve() == to.resolve():
        raise UserError(
            f"Predictions and state cannot both be '{to}'. Choose two names, in --to "
            "and --save-state."
        )


def _out_of_domain(whole: Path, trained: Trained) -> dict[str, object]:
    with xr.open_zarr(whole, consolidated=False) as found:
        return beyond(found[DOMAIN[0]], trained.domain)


def _tell_beyond(trained: Trained, static: np.ndarray) -> None:
    """Tells which static inputs are such as the training has not seen."""
    if trained.domain is None:
        return
    words = static_beyond(static, trained.static_names, trained.domain)
    if words:
        logger.info("Static inputs beyond their ranges in the training: %s.", words)


def _steps(store: Store, monthly: bool) -> pd.DatetimeIndex:
    if not monthly:
        return store.time
    return store.time.to_period("M").unique().to_timestamp()


def _key(block: Block) -> tuple:
    return ("block", *block.region)
