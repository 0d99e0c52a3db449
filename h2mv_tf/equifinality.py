"""Equifinality: what the folds of a cross-validation disagree about, and how.

Models that fit the same observations may do so with different coefficients, storages
and fluxes. The mean squared difference of each pair of folds, in units of their mean
variance, is the sum of three terms: of their means, of their standard deviations, and
of what is left, a lack of covariance. Baghirov et al. (2025), section 2.6.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np
import xarray as xr

from h2mv_tf import predictions
from h2mv_tf.data.splits import TEST
from h2mv_tf.errors import UserError
from h2mv_tf.files import made
from h2mv_tf.variables import VARIABLES, find, names

COMPARED = names("coefficient", "state", "flux")
STEPS = ("daily", "annual")
FOLDER = "equifinality"  # of a cross-validation


class Decomposition(NamedTuple):
    """The normalised mean squared difference of two series, averaged over pairs.

    The three terms add up to it. None has units.
    """

    mean: float  # (mean_i - mean_j)^2
    deviation: float  # (std_i - std_j)^2
    covariance: float  # 2 (std_i std_j - cov_ij)

    @property
    def total(self) -> float:
        """The normalised mean squared difference."""
        return self.mean + self.deviation + self.covariance


def decomposition(members: da.Array | np.ndarray) -> Decomposition:
    """Splits the mean squared difference of all pairs of members.

        mean((x_i - x_j)^2) = (m_i - m_j)^2 + (s_i - s_j)^2 + 2 (s_i s_j - c_ij)

    each over (s_i^2 + s_j^2) / 2, averaged over the pairs. Out of core with dask.

    Args:
        members: (members, ...), finite: a member's values of all cells and steps.

    Returns:
        NaN where all members are constant, as there is nothing to compare then.
    """
    # Each member comes in chunks of its own; their products need them together.
    values = da.asarray(members).rechunk({0: -1}).astype("float64")
    values = values.reshape(len(values), -1)
    mean = values.mean(axis=1)
    rest = values - mean[:, None]
    mean, covariance = dask.compute(mean, rest @ rest.T / values.shape[1])
    variance = np.diag(covariance)
    deviation = np.sqrt(variance)
    terms = []
    for i, j in itertools.combinations(range(len(mean)), 2):
        scale = (variance[i] + variance[j]) / 2
        if scale > 0:
            parts = (
                (mean[i] - mean[j]) ** 2,
                (deviation[i] - deviation[j]) ** 2,
                2 * (deviation[i] * deviation[j] - covariance[i, j]),
            )
            terms.append([part / scale for part in parts])
    return Decomposition(*np.mean(terms, axis=0) if terms else [np.nan] * 3)


def compared(asked: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the registry that are compared.

    Args:
        asked: In any vocabulary of the registry; None: all that can be.

    Raises:
        UserError: A name is no coefficient, state or flux.
    """
    if asked is None:
        return COMPARED
    found = [(name, find(name, COMPARED)) for name in asked]
    for name, variable in found:
        if variable is None:
            raise UserError(
                f"'{name}' is no coefficient, state or flux. Expected any of: "
                f"{', '.join(COMPARED)}."
            )
    return tuple(variable.name for _, variable in found)


def save(result: xr.Dataset, folder: str | Path) -> None:
    """Writes a comparison as equifinality.nc and, without its maps, equifinality.csv.

    Args:
        result: Of `equifinality`.
        folder: To make; must not exist.

    Raises:
        UserError: It exists, or cannot be written.
    """
    with made(folder) as partial:
        result.to_netcdf(partial / "equifinality.nc")
        table = result["decomposition"].to_series().unstack("term")
        table = table[list(Decomposition._fields)].assign(
            total=result["total"].to_series(), kind=result["kind"].to_series()
        )
        table.to_csv(partial / "equifinality.csv")


def equifinality(
    folds: Mapping[str, xr.Dataset],
    *,
    variables: Sequence[str] = COMPARED,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Compares the folds on the test cells, variable by variable.

    Args:
        folds: Daily predictions of each fold, of `predictions.load`.
        variables: Names of the registry; all coefficients, states and fluxes by
            default, as far as the predictions have them.
        progress: Called with the number of variables that are done, and of all.

    Returns:
        `decomposition` (step, variable, term) and their sum `total` (step, variable),
        for days and for means of whole years; `spread` (variable, ...), the standard
        deviation over the folds of the mean over time, in the variable's units, and
        `relative_spread`, the same per standard deviation in space.

    Raises:
        UserError: There are fewer than two folds, they differ in cells, days or
            variables, or no test cell is known.
    """
    first = _alike(folds)
    compared = [name for name in variables if name in first]
    if not compared:
        raise UserError(
            "The predictions have none of the variables that are compared. Expected "
            f"any of: {', '.join(variables)}."
        )
    terms, spreads, relative = [], [], []
    for n, name in enumerate(compared):
        if progress is not None:
            progress(n, len(compared))
        members = [fold[name] for fold in folds.values()]
        terms.append([_terms(members, step) for step in STEPS])
        spread, mean = dask.compute(*_spread(members))
        spreads.append(spread)
        relative.append(spread / mean.std().where(mean.std() > 0))
    if progress is not None:
        progress(len(compared), len(compared))
    labels = xr.DataArray(compared, dims="variable", name="variable")
    result = xr.Dataset(
        {
            "decomposition": (("variable", "step", "term"), np.array(terms)),
            "spread": xr.concat(spreads, labels),
            "relative_spread": xr.concat(relative, labels),
        },
        {
            "variable": compared,
            "step": list(STEPS),
            "term": list(Decomposition._fields),
            "kind": ("variable", [VARIABLES[name].kind for name in compared]),
        },
    )
    result["total"] = result["decomposition"].sum("term", skipna=False)
    result["decomposition"].attrs = {
        "long_name": "normalised mean squared difference of two folds",
        "units": "1",
    }
    result["spread"].attrs["long_name"] = "spread of the folds' means over time"
    result["relative_spread"].attrs["units"] = "1"
    return result.transpose("step", "variable", ...).assign_attrs(
        folds=list(folds), test_cells=int((first[predictions.ROLE] == TEST).sum())
    )


def _alike(folds: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The first of the folds, which all have the same cells, days and variables."""
    if len(folds) < 2:
        raise UserError(
            f"There are predictions of {len(folds)} fold; two or more are compared. "
            "Make them with trainers/cross_validate.py."
        )
    predictions.refuse_different(folds)
    first = next(iter(folds.values()))
    if first.attrs.get("frequency") != "daily":
        raise UserError(
            "The predictions are monthly; folds are compared day by day. Predict them "
            "without --monthly."
        )
    if not (first[predictions.ROLE] == TEST).any():
        raise UserError(
            "The predictions have no cell that tested the training, which is where "
            "folds are compared. Predict the store that they were trained on."
        )
    return first


def _terms(members: Sequence[xr.DataArray], step: str) -> Decomposition:
    stacked = xr.concat([_of_test_cells(member) for member in members], "fold")
    if step == "annual":
        days = stacked.time.dt
        whole = days.dayofyear.groupby(days.year).count() >= 365
        stacked = stacked.groupby(days.year).mean().sel(year=whole)
    if not stacked.size:
        return Decomposition(np.nan, np.nan, np.nan)
    return decomposition(stacked.transpose("fold", ...).data)


def _of_test_cells(data: xr.DataArray) -> xr.DataArray:
    """(time, cell) of the test cells."""
    space = predictions.space(data)
    place = np.nonzero(data[predictions.ROLE].transpose(*space).values == TEST)
    index = {d: xr.DataArray(n, dims="cell") for d, n in zip(space, place, strict=True)}
    return data.isel(index).drop_vars([n for n in data.coords if n != "time"])


def _spread(members: Sequence[xr.DataArray]) -> tuple[xr.DataArray, xr.DataArray]:
    """The spread of the folds' means over time, and the mean of them."""
    means = xr.concat(
        [m.astype("float64").mean("time", skipna=False) for m in members], "fold"
    )
    return means.std("fold", ddof=1, skipna=False), means.mean("fold", skipna=False)
