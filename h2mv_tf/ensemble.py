"""Ensemble: the folds' predictions as one, with mean, spread and quantiles.

The mean stands under the variable's own name, so that an ensemble is read, evaluated
and drawn as the predictions of a single model are.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf import predictions
from h2mv_tf.data.writing import blocks, tile_of, writing
from h2mv_tf.errors import UserError
from h2mv_tf.files import refuse_existing
from h2mv_tf.predictions import AREA, QUANTILE, ROLE, SERIES, SPREAD
from h2mv_tf.variables import BALANCE, VARIABLES

QUANTILES = (0.05, 0.5, 0.95)
OF_ONE_MODEL = (  # attributes
    *("fold", "run", "history"),
    *("cells_out_of_domain", "share_out_of_domain", "domain"),
)


def combine(
    members: Mapping[str, str | Path],
    to: str | Path,
    *,
    variables: Sequence[str] | None = None,
    quantiles: Sequence[float] = QUANTILES,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the ensemble of some predictions, tile by tile.

    An interrupted call is continued by one of the same arguments.

    Args:
        members: Where the predictions of each member are, by its name.
        to: Zarr store to make.
        variables: Names of the registry; all that the members have by default.
        quantiles: From 0 to 1.
        progress: Called with the number of tiles that are done, and of all.

    Raises:
        UserError: There are fewer than two members, they differ in cells, steps or
            variables, or the path exists or cannot be written.
    """
    refuse_existing(Path(to))
    datasets = {name: predictions.load(path) for name, path in members.items()}
    first = _alike(datasets)
    chosen = [name for name in VARIABLES if name in first]
    if variables is not None:
        wanted = {*variables, *predictions.ALWAYS}
        chosen = [name for name in chosen if name in wanted]
    time = pd.DatetimeIndex(first.time.values)
    monthly = first.attrs["frequency"] == "monthly"
    space = predictions.space(first)
    # Sea is where no member has a value.
    land = first["largest_residual"].transpose(*space).notnull().compute()
    land = land.drop_vars([AREA, ROLE])
    tile = tile_of(len(time), space)
    regions = blocks(land.sizes, tile)
    regions = [region for region in regions if land.values[region].any()]
    plan = {
        "members": {name: str(Path(path).resolve()) for name, path in members.items()},
        "made": [dataset.attrs["history"] for dataset in datasets.values()],
        "variables": chosen,
        "quantiles": list(quantiles),
    }
    attributes = {k: v for k, v in first.attrs.items() if k not in OF_ONE_MODEL}
    attributes |= {
        "title": f"{first.attrs['title']}: mean of {len(datasets)} members",
        "history": "\n".join(dataset.attrs["history"] for dataset in datasets.values()),
        "members": json.dumps(plan["members"]),
        predictions.MARK: "native",
    }
    with writing(
        to,
        tile=tile,
        plan=plan,
        attributes=attributes,
        parts=[("tile", *region) for region in regions],
    ) as writer:
        template = predictions.template(
            land, time, chosen, monthly=monthly, quantiles=quantiles
        )
        predictions.declare(writer, land, template, first[ROLE], monthly=monthly)
        for name in chosen:
            if not first[name].ndim:
                _write(writer, datasets, name, (), quantiles)
        for n, region in enumerate(regions):
            if progress is not None:
                progress(n, len(regions))
            if not writer.holds(("tile", *region)):
                for name in chosen:
                    if first[name].ndim:
                        _write(writer, datasets, name, region, quantiles)
                writer.finish(("tile", *region))
        if progress is not None:
            progress(len(regions), len(regions))


class Statistics(NamedTuple):
    """What members say together of a variable."""

    mean: np.ndarray
    spread: np.ndarray  # standard deviation of the sample
    levels: np.ndarray  # (quantiles, ...)


def statistics(
    values: np.ndarray, quantiles: Sequence[float], *, worst: bool = False
) -> Statistics:
    """Mean, spread and quantiles of members.

    Args:
        values: (members, ...); two members or more.
        quantiles: From 0 to 1.
        worst: In place of the mean the value that is farthest from 0, as of a
            balance: the worst of them says how well it closes.
    """
    mean = values.mean(axis=0, dtype="float64").astype("float32")
    if worst:
        place = np.abs(np.nan_to_num(values)).argmax(axis=0)
        mean = np.take_along_axis(values, place[None], 0)[0]
    spread = values.std(axis=0, ddof=1, dtype="float64").astype("float32")
    # Sorted once for all of them: NumPy's own looks for gaps, which there are not.
    ordered = np.sort(values, axis=0)
    below = np.asarray(quantiles) * (len(values) - 1)
    low = np.floor(below).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    share = (below - low).reshape(-1, *[1] * mean.ndim).astype("float32")
    levels = ordered[low] * (1 - share) + ordered[high] * share
    return Statistics(mean, spread, levels)


def _write(writer, datasets, name: str, region: tuple, quantiles) -> None:
    """Writes what the members say of a variable in a region."""
    values = np.stack([_read(d[name], region) for d in datasets.values()])
    place = (slice(None), *region) if name in SERIES else region
    mean, spread, levels = statistics(values, quantiles, worst=name in BALANCE)
    writer.put("", mean, place, name=name)
    writer.put("", spread, place, name=name + SPREAD)
    writer.put("", levels, (slice(None), *place), name=name + QUANTILE)


def _read(data: xr.DataArray, region: tuple) -> np.ndarray:
    space = predictions.space(data) if region else ()
    place = dict(zip(space, region, strict=True))
    return data.isel(place).transpose(..., *space).values


def _alike(datasets: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The first of the members, which all have its cells, steps and variables."""
    if len(datasets) < 2:
        raise UserError(f"An ensemble has two members or more; found {len(datasets)}.")
    predictions.refuse_different(datasets)
    (_, first), *others = datasets.items()
    for name, other in others:
        lacking = [v for v in first.data_vars if v not in other]
        if lacking:
            raise UserError(
                f"The predictions of '{name}' lack '{lacking[0]}', which those of the "
                "first member have. Predict all members with the same options."
            )
    return first
