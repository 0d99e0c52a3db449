"""The hidden truth: the project's physics with coefficients that are known.

They are smooth functions of the static inputs, the weather, the water stored, and
of two things that a model has to remember: how warm it was, and how far the leaves
are out.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from h2mv_tf import physics
from h2mv_tf.data.synthetic.planet import Land
from h2mv_tf.data.synthetic.weather import Weather
from h2mv_tf.variables import DAILY_OUTPUTS

SNOWFALL_CORRECTION, BASEFLOW_FRACTION = 0.9, 0.015
WARMTH_MEMORY, LEAF_MEMORY = 20.0, 15.0  # days
SPIN_UP = 5 * 365  # days at least: where the stores began is forgotten to 0.1 mm
# Zero but for rounding: nothing to learn.
NAMES = tuple(name for name in DAILY_OUTPUTS if name != "water_balance_residual")


class Memory(NamedTuple):
    """What one day leaves to the next."""

    water: physics.WaterState
    warmth: tf.Tensor  # air temperature of the last weeks [degC]
    leaves: tf.Tensor  # fapar [1]


def soil_water_capacity(land: Land):
    """Water that the soil can hold [mm]: deep and fine soils hold more.

    Args:
        land: The land cells.
    """
    return 30 + 210 * land.soil_depth * (1 - 0.7 * land.sand_fraction)


def parameters(land: Land) -> physics.Parameters:
    """The parameters of the truth.

    Args:
        land: The land cells.
    """
    return physics.Parameters(
        soil_water_capacity=soil_water_capacity(land),
        snowfall_correction=SNOWFALL_CORRECTION,
        baseflow_fraction=BASEFLOW_FRACTION,
    )


def water_cycle(land: Land, weather: Weather) -> Mapping[str, np.ndarray]:
    """The daily outputs (days, cells) of the truth, by name.

    The stores are brought into motion by the first years of the record.

    Args:
        land: The land cells; calls with as many of them share a program.
        weather: Their weather.
    """
    land = Land(*(tf.constant(values, tf.float32) for values in land))
    forcing = physics.Forcing(*map(tf.constant, weather[:3]))
    # All days at once: only the memory has to be followed from day to day.
    _, values = _day(land, forcing, _memories(land, forcing))
    shape = weather.precipitation.shape  # of some coefficients only the cells
    return {name: np.broadcast_to(values[name].numpy(), shape) for name in NAMES}


# Autograph would take longer to read the physics than the days take to run.
@tf.function(jit_compile=True, autograph=False)
def _memories(land: Land, forcing: physics.Forcing) -> Memory:
    """What each day finds of the day before (days, cells).

    Args:
        land: The land cells.
        forcing: (days, cells) each.
    """
    days, cells = forcing.precipitation.shape
    cycle = min(days, SPIN_UP)
    spin_up = math.ceil(SPIN_UP / cycle) * cycle
    weather = tf.stack(forcing, axis=1)
    nothing = tf.zeros(cells)
    celsius = forcing.air_temperature[0] - physics.FREEZING_POINT
    first = Memory(physics.WaterState(nothing, nothing, nothing), celsius, nothing)
    count = len(tf.nest.flatten(first))
    written = tf.TensorArray(tf.float32, size=days, element_shape=(count, cells))

    def advance(step, memory, written):
        day = step - spin_up
        # Of the days of the spin-up, each is written over by the next.
        written = written.write(tf.maximum(day, 0), tf.stack(tf.nest.flatten(memory)))
        today = weather[tf.where(day < 0, step % cycle, day)]
        memory, _ = _day(land, physics.Forcing(*tf.unstack(today)), memory)
        return step + 1, memory, written

    *_, written = tf.while_loop(
        lambda step, *_: step < spin_up + days, advance, (0, first, written)
    )
    return tf.nest.pack_sequence_as(first, tf.unstack(written.stack(), axis=1))


def _day(land: Land, today: physics.Forcing, memory: Memory):
    """The memory at the end of a day, and its outputs by name."""
    fixed = parameters(land)
    celsius = today.air_temperature - physics.FREEZING_POINT
    moist = memory.water.soil_moisture / fixed.soil_water_capacity
    warmth = memory.warmth + (celsius - memory.warmth) / WARMTH_MEMORY
    wanted = full_leaves(land, warmth, moist)
    leaves = memory.leaves + (wanted - memory.leaves) / LEAF_MEMORY

    coefficients = coefficients_of(
        land, today, warmth=warmth, moist=moist, snow=memory.water.swe, fapar=leaves
    )
    water, fluxes = physics.step(memory.water, today, coefficients, fixed)
    diagnostics = physics.diagnostics(
        memory.water, water, fluxes, today, coefficients, fixed
    )
    values = {}
    for part in (coefficients, water, fluxes, diagnostics):
        values |= part._asdict()
    return Memory(water, warmth, leaves), values


def full_leaves(land: Land, warmth, moist):
    """The fapar that the leaves grow or wither towards [1].

    Trees keep half of their leaves in winter; grass needs warmth and water.

    Args:
        land: The land cells.
        warmth: Air temperature of the last weeks [degC].
        moist: Soil moisture per capacity [1].
    """
    growing = tf.sigmoid((warmth - 7) / 3)
    trees = land.tree_cover * (0.5 + 0.5 * growing)
    grass = land.grass_cover * growing * tf.sqrt(tf.maximum(moist, 0.02))
    return tf.clip_by_value(0.95 * trees + 0.85 * grass, 0.01, 0.95)


def coefficients_of(
    land: Land, today: physics.Forcing, *, warmth, moist, snow, fapar
) -> physics.Coefficients:
    """The coefficients of a day.

    Args:
        land: The land cells.
        today: The weather of the day.
        warmth: Air temperature of the last weeks [degC].
        moist: Soil moisture per capacity at the start of the day [1].
        snow: Snow water equivalent at the start of the day [mm].
        fapar: Of the day [1].
    """
    sunny = tf.sigmoid((today.net_radiation - 60) / 30)
    growing = tf.sigmoid((warmth - 7) / 3)
    hot = tf.sigmoid((today.air_temperature - physics.FREEZING_POINT - 35) / 2)
    frozen = snow / (snow + 20)
    steep = land.ruggedness / (land.ruggedness + 300)
    return physics.Coefficients(
        snowmelt_factor=(2 + 2.5 * (1 - land.tree_cover)) * (0.6 + 0.4 * sunny),
        interception_capacity=0.4 + 2.2 * land.tree_cover,
        soil_evaporation_coefficient=(0.2 + 0.6 * land.clay_fraction + 0.3 * moist)
        * tf.sqrt(tf.maximum(moist, 0.001)),
        transpiration_coefficient=0.8
        * growing
        * tf.tanh(2.5 * moist)
        * (1 - 0.5 * hot),
        soil_recharge_coefficient=(1 - 0.8 * moist**3) * (1 - 0.25 * frozen),
        groundwater_recharge_coefficient=(0.2 + 0.65 * land.sand_fraction)
        * (1 - 0.5 * steep),
        fapar=fapar,
    )
