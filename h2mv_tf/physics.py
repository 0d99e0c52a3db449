"""The equations of the water cycle, in the order of the paper.

Baghirov et al. (2025), Geosci. Model Dev. 18, 2921-2943,
doi 10.5194/gmd-18-2921-2025.

Pure functions of tensors that broadcast against each other, elementwise over
cells; the shape of the result is the shape of the inputs. The time step is one
day, so an amount in a day [mm] and a flux [mm d-1] have the same number.
Temperatures are in degC, except in `Forcing`, which is as the store has it.

All branches are minima and maxima, and no ratio is taken that can be 0/0:
gradients are finite everywhere.
"""

from typing import NamedTuple

import tensorflow as tf

FREEZING_POINT = 273.15  # K
LATENT_HEAT = 2.45  # MJ kg-1, of vaporisation at about 20 degC
MEGAJOULE_PER_WATT_DAY = 0.0864  # MJ d-1 W-1


class Forcing(NamedTuple):
    """The weather of one day, in the order of the registry."""

    net_radiation: tf.Tensor  # W m-2
    precipitation: tf.Tensor  # mm d-1
    air_temperature: tf.Tensor  # K


class Coefficients(NamedTuple):
    """What the network learns per cell and day, in the order of its output."""

    snowmelt_factor: tf.Tensor  # mm K-1 d-1
    interception_capacity: tf.Tensor  # mm d-1
    soil_evaporation_coefficient: tf.Tensor  # 1
    transpiration_coefficient: tf.Tensor  # 1
    soil_recharge_coefficient: tf.Tensor  # 1
    groundwater_recharge_coefficient: tf.Tensor  # 1
    fapar: tf.Tensor  # 1


class Parameters(NamedTuple):
    """What the model learns once per cell, or once for the globe."""

    soil_water_capacity: tf.Tensor  # mm
    snowfall_correction: tf.Tensor  # 1
    baseflow_fraction: tf.Tensor  # d-1


class WaterState(NamedTuple):
    """The water stored in a cell [mm]."""

    swe: tf.Tensor
    soil_moisture: tf.Tensor
    groundwater: tf.Tensor


class Fluxes(NamedTuple):
    """The water that moves in one day [mm d-1]."""

    snowfall: tf.Tensor
    rainfall: tf.Tensor
    corrected_precipitation: tf.Tensor
    snowmelt: tf.Tensor
    interception_evaporation: tf.Tensor
    soil_evaporation: tf.Tensor
    transpiration: tf.Tensor
    evapotranspiration: tf.Tensor
    water_input: tf.Tensor
    soil_recharge: tf.Tensor
    groundwater_recharge: tf.Tensor
    surface_runoff: tf.Tensor
    baseflow: tf.Tensor
    runoff: tf.Tensor


class Diagnostics(NamedTuple):
    """What follows from states and fluxes of a day and feeds back on nothing."""

    evaporative_fraction: tf.Tensor  # 1
    soil_recharge_fraction: tf.Tensor  # 1
    groundwater_recharge_fraction: tf.Tensor  # 1
    surface_runoff_fraction: tf.Tensor  # 1
    relative_soil_moisture: tf.Tensor  # 1
    tws: tf.Tensor  # mm
    water_balance_residual: tf.Tensor  # mm d-1


def available_energy(net_radiation):
    """Net radiation as the water that it could evaporate [mm d-1].

    E = max(0.0864 Rn / 2.45, 0)

    Args:
        net_radiation: Daily mean net radiation [W m-2].
    """
    return tf.maximum(MEGAJOULE_PER_WATT_DAY * net_radiation / LATENT_HEAT, 0)


def snowfall_and_rainfall(precipitation, air_temperature, snowfall_correction):
    """Precipitation by its phase: corrected snowfall and rainfall [mm d-1].

    snowfall = b_snow P [T <= 0]      rainfall = P [T > 0]

    Args:
        precipitation: Precipitation [mm d-1].
        air_temperature: Daily mean air temperature [degC].
        snowfall_correction: Learned factor on snowfall [1].
    """
    freezing = tf.cast(air_temperature <= 0, precipitation.dtype)
    return snowfall_correction * precipitation * freezing, precipitation * (
        1 - freezing
    )


def snowmelt(swe, air_temperature, snowmelt_factor):
    """Degree-day melt, limited by the snow there is [mm d-1].

    M = min(SWE, a_melt max(T, 0))

    Args:
        swe: Snow water equivalent at the start of the day [mm].
        air_temperature: Daily mean air temperature [degC].
        snowmelt_factor: Learned degree-day factor [mm K-1 d-1].
    """
    return tf.minimum(swe, snowmelt_factor * tf.maximum(air_temperature, 0))


def interception_evaporation(rainfall, energy, interception_capacity, fapar):
    """Evaporation of rain held by the canopy [mm d-1].

    Ei = min(rainfall, f a_i, E)

    Args:
        rainfall: Rainfall [mm d-1].
        energy: Available energy [mm d-1].
        interception_capacity: Learned capacity of a full canopy [mm d-1].
        fapar: Fraction of absorbed photosynthetically active radiation [1].
    """
    return tf.minimum(tf.minimum(rainfall, fapar * interception_capacity), energy)


def soil_evaporation(soil_moisture, energy, soil_evaporation_coefficient, fapar):
    """Evaporation from the soil not shaded by vegetation [mm d-1].

    Es = (1 - f) a_s min(E1, SM)

    Args:
        soil_moisture: Soil moisture [mm].
        energy: Energy left by interception [mm d-1].
        soil_evaporation_coefficient: Learned share [1].
        fapar: Fraction of absorbed photosynthetically active radiation [1].
    """
    supply = tf.minimum(energy, soil_moisture)
    return (1 - fapar) * soil_evaporation_coefficient * supply


def transpiration(soil_moisture, energy, transpiration_coefficient, fapar):
    """Transpiration of the vegetation [mm d-1].

    T = f a_t min(E2, SM1)

    Args:
        soil_moisture: Soil moisture left by soil evaporation [mm].
        energy: Energy left by interception and soil evaporation [mm d-1].
        transpiration_coefficient: Learned share [1].
        fapar: Fraction of absorbed photosynthetically active radiation [1].
    """
    return fapar * transpiration_coefficient * tf.minimum(energy, soil_moisture)


def soil_recharge(water_input, deficit, soil_recharge_coefficient):
    """Water that the soil takes up [mm d-1].

    soil_recharge = a_r min(W, SMmax - SM2)

    The published code writes min(1, deficit / max(W, 1e-8)) a_r W, which is
    the same algebra with a division.

    Args:
        water_input: Water that reaches the soil surface [mm d-1].
        deficit: Room left in the soil [mm].
        soil_recharge_coefficient: Learned share [1].
    """
    return soil_recharge_coefficient * tf.minimum(water_input, deficit)


def baseflow(groundwater, baseflow_fraction):
    """Outflow of the groundwater store of the start of the day [mm d-1].

    Qb = b_base GW

    Args:
        groundwater: Groundwater storage at the start of the day [mm].
        baseflow_fraction: Learned share [d-1].
    """
    return baseflow_fraction * groundwater


def step(
    state: WaterState,
    forcing: Forcing,
    coefficients: Coefficients,
    parameters: Parameters,
) -> tuple[WaterState, Fluxes]:
    """The water cycle of one day.

    Args:
        state: Storages at the start of the day.
        forcing: The weather of the day.
        coefficients: The coefficients of the day.
        parameters: The parameters of the cells.

    Returns:
        The storages at the end of the day and the fluxes between.
    """
    celsius = forcing.air_temperature - FREEZING_POINT
    fapar = coefficients.fapar

    snow, rain = snowfall_and_rainfall(
        forcing.precipitation, celsius, parameters.snowfall_correction
    )
    melt = snowmelt(state.swe, celsius, coefficients.snowmelt_factor)
    swe = tf.maximum(state.swe + snow - melt, 0)

    energy = available_energy(forcing.net_radiation)
    from_canopy = interception_evaporation(
        rain, energy, coefficients.interception_capacity, fapar
    )
    energy -= from_canopy
    from_soil = soil_evaporation(
        state.soil_moisture, energy, coefficients.soil_evaporation_coefficient, fapar
    )
    energy -= from_soil
    soil = state.soil_moisture - from_soil
    from_leaves = transpiration(
        soil, energy, coefficients.transpiration_coefficient, fapar
    )
    soil -= from_leaves

    water_input = rain + melt - from_canopy
    to_soil = soil_recharge(
        water_input,
        parameters.soil_water_capacity - soil,
        coefficients.soil_recharge_coefficient,
    )
    excess = water_input - to_soil
    to_groundwater = coefficients.groundwater_recharge_coefficient * excess
    surface = excess - to_groundwater
    base = baseflow(state.groundwater, parameters.baseflow_fraction)

    new_state = WaterState(
        swe=swe,
        soil_moisture=soil + to_soil,
        groundwater=state.groundwater + to_groundwater - base,
    )
    fluxes = Fluxes(
        snowfall=snow,
        rainfall=rain,
        corrected_precipitation=rain + snow,
        snowmelt=melt,
        interception_evaporation=from_canopy,
        soil_evaporation=from_soil,
        transpiration=from_leaves,
        evapotranspiration=from_canopy + from_soil + from_leaves,
        water_input=water_input,
        soil_recharge=to_soil,
        groundwater_recharge=to_groundwater,
        surface_runoff=surface,
        baseflow=base,
        runoff=surface + base,
    )
    return new_state, fluxes


def water_balance_residual(state: WaterState, new_state: WaterState, fluxes: Fluxes):
    """What the balance of the day fails to close by [mm d-1].

    rainfall + snowfall - ET - Q - d(SWE + SM + GW), on *corrected*
    precipitation. Zero but for rounding.

    Args:
        state: Storages at the start of the day.
        new_state: Storages at the end of the day.
        fluxes: Fluxes of the day.
    """
    # Store by store, so that two large sums do not cancel.
    change = sum(new - old for new, old in zip(new_state, state, strict=True))
    return (
        fluxes.corrected_precipitation
        - fluxes.evapotranspiration
        - fluxes.runoff
        - change
    )


def recharge_fractions(water_input, deficit, coefficients: Coefficients):
    """Shares of the water input that go to soil, groundwater and runoff [1].

    soil = a_r min(1, deficit / W)   groundwater = a_g (1 - soil)
    runoff = (1 - a_g)(1 - soil)

    Without water input these are the shares that a first drop would take, as
    in the published code.

    Args:
        water_input: Water that reaches the soil surface [mm d-1].
        deficit: Room left in the soil before the recharge [mm].
        coefficients: The coefficients of the day.
    """
    filled = tf.where(
        water_input > deficit,
        tf.math.divide_no_nan(deficit, water_input),
        tf.ones_like(water_input),
    )
    soil = coefficients.soil_recharge_coefficient * filled
    to_groundwater = coefficients.groundwater_recharge_coefficient
    return soil, to_groundwater * (1 - soil), (1 - to_groundwater) * (1 - soil)


def diagnostics(
    state: WaterState,
    new_state: WaterState,
    fluxes: Fluxes,
    forcing: Forcing,
    coefficients: Coefficients,
    parameters: Parameters,
) -> Diagnostics:
    """Ratios, sums and the balance of one day.

    Args:
        state: Storages at the start of the day.
        new_state: Storages at the end of the day, of `step`.
        fluxes: Fluxes of the day, of `step`.
        forcing: The weather of the day.
        coefficients: The coefficients of the day.
        parameters: The parameters of the cells.
    """
    capacity = parameters.soil_water_capacity
    deficit = capacity - (
        state.soil_moisture - fluxes.soil_evaporation - fluxes.transpiration
    )
    to_soil, to_groundwater, to_runoff = recharge_fractions(
        fluxes.water_input, deficit, coefficients
    )
    return Diagnostics(
        evaporative_fraction=tf.math.divide_no_nan(
            fluxes.evapotranspiration, available_energy(forcing.net_radiation)
        ),
        soil_recharge_fraction=to_soil,
        groundwater_recharge_fraction=to_groundwater,
        surface_runoff_fraction=to_runoff,
        relative_soil_moisture=new_state.soil_moisture / capacity,
        tws=new_state.swe + new_state.soil_moisture + new_state.groundwater,
        water_balance_residual=water_balance_residual(state, new_state, fluxes),
    )
