"""Emergent quantities: what no term of the objective asks for by itself.

Ratios of amounts over the whole period, and how much of the variability of the water
stored is snow's, the soil's and the groundwater's.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf.evaluation.scales import is_daily

ENERGY = "available_energy"
RATIOS = {
    "transpiration_fraction": ("transpiration", "evapotranspiration"),
    "runoff_ratio": ("runoff", "corrected_precipitation"),
    "evaporative_fraction": ("evapotranspiration", ENERGY),
}
SHARES = {
    "snow_share": "swe",
    "soil_share": "soil_moisture",
    "groundwater_share": "groundwater",
}
QUANTITIES = (*RATIOS, *SHARES)
FLUXES = tuple(dict.fromkeys(n for pair in RATIOS.values() for n in pair))
STORES = tuple(SHARES.values())
# As in physics.py, which needs TensorFlow.
LATENT_HEAT = 2.45  # MJ kg-1
MEGAJOULE_PER_WATT_DAY = 0.0864  # MJ d-1 W-1


def available_energy(net_radiation: xr.DataArray) -> xr.DataArray:
    """Net radiation as the water that it could evaporate [mm d-1].

    E = max(0.0864 Rn / 2.45, 0)

    Args:
        net_radiation: Daily mean net radiation [W m-2].
    """
    return np.maximum(MEGAJOULE_PER_WATT_DAY * net_radiation / LATENT_HEAT, 0)


def amount(flux: xr.DataArray) -> xr.DataArray:
    """The water that a flux moves in all its steps (...) [mm]; NaN with a gap.

    Args:
        flux: (..., time) [mm d-1], daily or monthly.
    """
    index = pd.DatetimeIndex(flux.time.values)
    days = np.ones(len(index)) if is_daily(flux.time) else np.array(index.days_in_month)
    return (flux * xr.DataArray(days, dims="time")).sum("time", skipna=False)


def quantities(
    amounts: Mapping[str, xr.DataArray], stores: Mapping[str, xr.DataArray]
) -> xr.DataArray:
    """The emergent quantities of cells, or of regions.

    transpiration_fraction = T / ET       runoff_ratio = Q / corrected P
    evaporative_fraction = ET / E         share of x = cov(x, TWS) / var(TWS)

    T, ET, Q, P and E are amounts over the whole period. TWS is the sum of the stores,
    and covariances are those of monthly means, the seasonal cycle included. As TWS is
    the sum, the covariance shares of its stores add up to one, and a store that moves
    against the others has a negative share. The ratio of mean absolute deviations of
    Getirana et al. (2017), J. Hydrometeorol. 18, 3061-3081, is never negative and does
    not add up.

    Args:
        amounts: (...) [mm] by name, of FLUXES; what is missing gives NaN.
        stores: Monthly means (..., time) [mm] by name, of STORES.

    Returns:
        (quantity, ...) in the order of QUANTITIES; NaN where a denominator is 0.
    """
    found = {}
    for quantity, (part, whole) in RATIOS.items():
        if part in amounts and whole in amounts:
            of = amounts[whole]
            found[quantity] = amounts[part] / of.where(of > 0)
    if all(name in stores for name in STORES):
        deviations = {
            n: stores[n] - stores[n].mean("time", skipna=False) for n in STORES
        }
        tws = sum(deviations.values())
        variance = (tws**2).mean("time", skipna=False)
        for quantity, name in SHARES.items():
            covariance = (deviations[name] * tws).mean("time", skipna=False)
            found[quantity] = covariance / variance.where(variance > 0)
    nothing = xr.DataArray(np.nan)
    arrays = xr.broadcast(*(found.get(name, nothing) for name in QUANTITIES))
    index = xr.DataArray(list(QUANTITIES), dims="quantity", name="quantity")
    return xr.concat(arrays, index, coords="minimal", compat="override").rename(None)
