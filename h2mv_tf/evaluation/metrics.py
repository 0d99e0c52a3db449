"""How well a series follows another: efficiencies, errors and their parts.

The formulas are those of the library `scores` (Leeuwenburg et al. 2024, J. Open Source
Softw. 9, 6889). Ours is which pairs count, and that what is not defined is NaN instead
of a warning or an infinity.
"""

import numpy as np
import xarray as xr
from scores import continuous

METRICS = (
    "nse",
    "kge",
    "kge_2012",
    "r",
    "alpha",
    "beta",
    "rmse",
    "ubrmse",
    "bias",
    "percent_bias",
)
IN_UNITS = ("rmse", "ubrmse", "bias")  # of the variable; the others have none, or %
OF_ONE_PAIR = ("rmse", "bias")
VARIATION = 1e-9  # of the largest value; series that vary less are constant


def metrics(
    prediction: xr.DataArray,
    observation: xr.DataArray,
    dim: str,
    *,
    anomalies: bool | xr.DataArray = False,
) -> xr.DataArray:
    """Scores a prediction against an observation, along one dimension.

    nse = 1 - sum((p - o)^2) / sum((o - mean o)^2)          Nash and Sutcliffe (1970)
    kge = 1 - sqrt((r - 1)^2 + (alpha - 1)^2 + (beta - 1)^2)       Gupta et al. (2009)
    kge_2012: with alpha / beta, the ratio of the coefficients of variation, in place
        of alpha                                                   Kling et al. (2012)
    r: Pearson's; alpha = std p / std o; beta = mean p / mean o
    rmse = sqrt(mean((p - o)^2)); ubrmse = std(p - o); bias = mean(p - o), so that
        rmse^2 = ubrmse^2 + bias^2
    percent_bias = 100 sum(p - o) / sum(o)

    A deviation is that of the population. Only pairs count of which both are there.

    Not defined, and so NaN: everything without a pair; everything but rmse and bias of
    one pair; nse, r, alpha and kge where the observation is constant; r and kge where
    the prediction is; beta, percent_bias and kge where the observations' mean is 0.

    Args:
        prediction: (..., dim), in any units, NaN: missing.
        observation: (..., dim), in the same units, NaN: missing.
        dim: The dimension along which there are pairs.
        anomalies: Whether means are zero by construction, as those of anomalies, or
            where (...): there kge, kge_2012, beta and percent_bias are not defined.

    Returns:
        (metric, ...) in double precision, in the order of METRICS.
    """
    both = prediction.notnull() & observation.notnull()
    prediction, observation = (
        _filled(series.astype("float64"), both, np.nan)
        for series in (prediction, observation)
    )
    if both.sizes[dim] < 2:  # of which the library can make no variance
        padding = {dim: (0, 2 - both.sizes[dim])}
        both, prediction, observation = (
            array.pad(padding, constant_values=missing)
            for array, missing in (
                (both, False),
                (prediction, np.nan),
                (observation, np.nan),
            )
        )
    count = both.sum(dim)
    # Filled before and masked after: no formula sees a series that it divides by 0 for.
    ramp = xr.DataArray(np.arange(1.0, both.sizes[dim] + 1), dims=dim)
    prediction, observation = (
        _filled(series, count > 0, ramp) for series in (prediction, observation)
    )
    vary = ~_constant(observation, dim)
    both_vary = vary & ~_constant(prediction, dim)
    has_mean = (observation.mean(dim) != 0) & ~xr.DataArray(anomalies)
    found = _differences(prediction, observation, dim) | _relations(
        _filled(prediction, vary, ramp), _filled(observation, vary, ramp), dim
    )
    defined = {
        "nse": vary,
        "kge": both_vary & has_mean,
        "kge_2012": both_vary & has_mean,
        "r": both_vary,
        "alpha": vary,
        "beta": has_mean,
        "percent_bias": has_mean,
    }
    for name, values in found.items():
        sound = (count >= (1 if name in OF_ONE_PAIR else 2)) & np.isfinite(values)
        found[name] = values.where(sound & defined.get(name, True))
    index = xr.DataArray(list(METRICS), dims="metric", name="metric")
    arrays = [found[name].drop_vars(dim, errors="ignore") for name in METRICS]
    return xr.concat(arrays, index, coords="minimal", compat="override").rename(None)


def _relations(prediction, observation, dim: str) -> dict[str, xr.DataArray]:
    """What needs an observation that varies."""
    pair = {"fcst": prediction, "obs": observation, "reduce_dims": dim}
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = continuous.kge(**pair, include_components=True)
        r, alpha, beta = parts.rho, parts.alpha, parts.beta
        # Of the same parts, which the library would work out anew.
        kge_2012 = 1 - np.sqrt((r - 1) ** 2 + (alpha / beta - 1) ** 2 + (beta - 1) ** 2)
    return {
        "nse": continuous.nse(**pair),
        "kge": parts.kge,
        "kge_2012": kge_2012,
        "r": r,
        "alpha": alpha,
    }


def _differences(prediction, observation, dim: str) -> dict[str, xr.DataArray]:
    """What needs no variation."""
    pair = {"fcst": prediction, "obs": observation, "reduce_dims": dim}
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "beta": continuous.multiplicative_bias(**pair),
            "percent_bias": continuous.pbias(**pair),
            "rmse": continuous.rmse(**pair),
            "ubrmse": (prediction - observation).std(dim),
            "bias": continuous.additive_bias(**pair),
        }


def _filled(series: xr.DataArray, sound: xr.DataArray, filling) -> xr.DataArray:
    """A series where it is sound, filled elsewhere; most are sound everywhere."""
    return series if bool(sound.all()) else series.where(sound, filling)


def _constant(series: xr.DataArray, dim: str) -> xr.DataArray:
    """Whether nothing but rounding varies."""
    high, low = series.max(dim), series.min(dim)
    largest = np.maximum(np.abs(high), np.abs(low))
    return high - low <= VARIATION * largest
