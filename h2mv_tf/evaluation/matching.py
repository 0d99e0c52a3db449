"""What of predictions and store can be held against each other."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf.data.splits import SEA, TEST
from h2mv_tf.data.store import Store
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation import scales
from h2mv_tf.evaluation.blocks import SIMULATED, TRUE, Sources
from h2mv_tf.evaluation.emergent import FLUXES, STORES
from h2mv_tf.variables import FORCING, VARIABLES, names

SCORED_KINDS = ("coefficient", "state", "flux", "diagnostic")
# Hidden only in that no observation shows them: the first is always 0, the second tws.
NOT_HIDDEN = ("water_balance_residual", "tws_anomaly")
NEAR = 1e-4  # degrees, within which two grids are one


class Match(NamedTuple):
    """What is evaluated, and what is not, in words."""

    sources: Sources
    notes: list[str]


def match(
    predictions: xr.Dataset,
    store: Store,
    untrained: xr.Dataset | None,
    saturation: float | None,
) -> Match:
    """Finds what can be compared.

    Args:
        predictions: Of the model.
        store: The store.
        untrained: Predictions of the untrained model, or None.
        saturation: As in `Sources`.

    Raises:
        UserError: The cells differ, or no constraint can be compared.
    """
    refuse_other_cells(predictions, store.land, f"store '{store.path}'")
    if untrained is not None:
        refuse_other_cells(untrained, store.land, f"store '{store.path}'")
    notes: list[str] = []
    observed = _observed(predictions, store, untrained, notes)
    series, parameters = _truth(predictions, store, notes)
    if not observed and not series:
        raise UserError(
            f"Nothing of the predictions can be compared with store '{store.path}'. "
            f"Predicted: {', '.join(map(str, predictions.data_vars)) or 'nothing'}; "
            f"observed: {', '.join(store.constraints) or 'nothing'}. " + " ".join(notes)
        )
    lacking = [n for n in (*FLUXES, *STORES) if n in VARIABLES and n not in predictions]
    if lacking:
        notes.append(
            f"Emergent quantities that need {', '.join(lacking)} are left out: the "
            "predictions do not have it."
        )
    return Match(
        Sources(
            space=tuple(map(str, store.land.dims)),
            predictions=predictions,
            untrained=untrained,
            observed=observed,
            truth=series,
            parameters=parameters,
            constants=_constants(predictions, store),
            forcing={name: store.observed(name) for name in FORCING},
            saturation=saturation,
        ),
        notes,
    )


def refuse_other_cells(data: xr.Dataset, land: xr.DataArray, where: str) -> None:
    """Raises a UserError where a data set has other cells than the land mask.

    Args:
        data: The data set.
        land: Land mask, (lat, lon) or (cell,).
        where: What the mask is of, in words.
    """
    found = {dim: data.sizes.get(dim) for dim in land.dims}
    same = found == dict(land.sizes)
    for name in ("lat", "lon"):
        if same and name in data.coords:
            same = np.allclose(data[name], land[name], atol=NEAR, rtol=0)
    if not same:
        raise UserError(
            f"The predictions have other cells than {where}: {_cells(data, land)} and "
            f"{_cells(land, land)}. Predict on this store, or name the one that was "
            "predicted on in --data."
        )


def is_training(role: np.ndarray, fold: int | None) -> np.ndarray:
    """Whether cells trained the model.

    Args:
        role: 0 sea or unknown, 11 test, 1 to 10 the fold in which a cell validates.
        fold: Of the run; None for an ensemble, in which all but test cells train.
    """
    return (role != SEA) & (role != TEST) & (role != (SEA if fold is None else fold))


def tiles(sources: Sources) -> list[dict[str, int]]:
    """Sides of the chunks of the data sets, those of the predictions first."""
    found = []
    for data in (*sources.predictions.data_vars.values(), *sources.observed.values()):
        chunks = data.variable.chunksizes
        if "time" in data.dims and set(sources.space) <= set(chunks):
            found.append({dim: chunks[dim][0] for dim in sources.space})
    whole = {dim: sources.predictions.sizes[dim] for dim in sources.space}
    unique = [tile for n, tile in enumerate(found) if tile not in found[:n]]
    return unique or [whole]


def _observed(predictions, store, untrained, notes) -> dict[str, xr.DataArray]:
    found = {}
    for name in store.constraints:
        if name not in predictions:
            notes.append(f"{name} is left out: it is observed, but not predicted.")
            continue
        if untrained is not None and name not in untrained:
            raise UserError(
                f"The untrained model does not predict '{name}'. Predict all variables "
                "with it that the trained model predicts."
            )
        try:
            data = store.observed(name)
        except UserError as error:
            notes.append(f"{name} is left out: {error}")
            continue
        if not scales.covered(data.time, predictions.time).any():
            notes.append(
                f"{name} is left out: none of its observations is in a day or a whole "
                "month of the predictions."
            )
            continue
        if scales.is_daily(data.time) and not scales.is_daily(predictions.time):
            notes.append(
                f"{name}: monthly predictions are compared with the mean of the days "
                "that were observed."
            )
        found[name] = data
    return found


def _truth(predictions, store, notes) -> tuple[dict, dict]:
    """Series of the truth on the steps of the predictions, and its parameters."""
    truth = store.truth()
    if truth is None:
        return {}, {}
    hidden = [n for n in names(*SCORED_KINDS) if n not in NOT_HIDDEN]
    series = {n: truth[n] for n in hidden if n in truth and n in predictions}
    parameters = {
        n: truth[n] for n in names("parameter") if n in truth and n in predictions
    }
    if series:
        steps = scales.covered(truth.time, predictions.time)
        if not steps.any():
            notes.append("The truth has no step in the period of the predictions.")
            return {}, parameters
        series = {n: data.isel(time=steps) for n, data in series.items()}
    lacking = [n for n in hidden if n in truth and n not in predictions]
    if lacking:
        notes.append(f"Known truth that is not predicted: {', '.join(lacking)}.")
    return series, parameters


def _constants(predictions: xr.Dataset, store: Store) -> dict[str, dict[str, float]]:
    sources = {SIMULATED: predictions, TRUE: store.truth()}
    return {
        name: {
            of: float(data[name])
            for of, data in sources.items()
            if data is not None and name in data
        }
        for name in names("constant")
    }


def _cells(data: xr.Dataset | xr.DataArray, land: xr.DataArray) -> str:
    missing = [str(dim) for dim in land.dims if dim not in data.sizes]
    if missing:
        sizes = ", ".join(f"{dim}: {size}" for dim, size in data.sizes.items())
        return f"no {' and '.join(missing)} among ({sizes})"
    words = [" x ".join(f"{data.sizes[dim]}" for dim in land.dims)]
    for name in ("lat", "lon"):
        if name in data.coords:
            low, high = float(data[name].min()), float(data[name].max())
            words.append(f"{name} {low:g} to {high:g}")
    return ", ".join(words)
