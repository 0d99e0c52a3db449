"""The hidden truth: the project's physics with coefficients that are known.

They are smooth functions of the static inputs, the weather, the water stored, and
of two things that a model has to remember: how warm it was, and how far the leaves
are out.
"""

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
# Zero but for rounding: nothing to learn.
NAMES = tuple(name for name in DAILY_OUTPUTS if name != "water_balance_residual")


class Memory(NamedTuple):
    """What one day leaves to the next; each (cells,)."""

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


class WaterCycle:
    """The truth of any land cells; compiled once.

    Args:
        spin_up: Days at the start of the record that bring the stores into motion.
        cells: Most cells of a call.
    """

    def __init__(self, *, spin_up: int, cells: int):
        self._spin_up, self._cells = spin_up, cells

    def __call__(self, land: Land, weather: Weather) -> Mapping[str, np.ndarray]:
        """The daily outputs (days, cells), by name.

        Args:
            land: The land cells.
            weather: Their weather.
        """
        cells = len(land.latitude)
        # One shape in all calls: the cells that lack are the last one again.
        place = np.minimum(np.arange(self._cells), cells - 1)
        land = Land(*(tf.constant(values[place], tf.float32) for values in land))
        forcing = np.stack([values[:, place] for values in weather[:3]], axis=1)
        series = _simulate(land, tf.constant(forcing), self._spin_up).numpy()
        return {name: series[:, n, :cells] for n, name in enumerate(NAMES)}


# Autograph would take longer to read the physics than the days take to run.
@tf.function(jit_compile=True, autograph=False)
def _simulate(land: Land, forcing, spin_up: int):
    """The daily outputs (days, names, cells).

    Args:
        land: The land cells.
        forcing: (days, 3, cells).
        spin_up: Days that are run first.
    """
    days, _, cells = forcing.shape
    nothing = tf.zeros(cells)
    memory = Memory(
        physics.WaterState(nothing, nothing, nothing),
        forcing[0, 2] - physics.FREEZING_POINT,
        nothing,
    )
    written = tf.TensorArray(tf.float32, size=days, element_shape=(len(NAMES), cells))

    def advance(step, memory, written):
        spun_up = step - spin_up
        memory, values = _day(
            land, forcing[tf.where(spun_up < 0, step, spun_up)], memory
        )
        outputs = tf.stack([values[name] for name in NAMES])
        # Of the days before, each is written over by the next.
        return step + 1, memory, written.write(tf.maximum(spun_up, 0), outputs)

    *_, written = tf.while_loop(
        lambda step, *_: step < spin_up + days, advance, (0, memory, written)
    )
    return written.stack()


def _day(land: Land, weather, memory: Memory):
    """The memory at the end of a day, and its outputs by name."""
    today = physics.Forcing(*tf.unstack(weather))
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
        soil_evaporation_coefficient=(0.1 + 0.6 * land.clay_fraction + 0.3 * moist)
        * tf.sqrt(tf.maximum(moist, 0.001)),
        transpiration_coefficient=0.8
        * growing
        * tf.tanh(2.5 * moist)
        * (1 - 0.5 * hot),
        soil_recharge_coefficient=(1 - 0.75 * moist**2) * (1 - 0.35 * frozen),
        groundwater_recharge_coefficient=(0.2 + 0.65 * land.sand_fraction)
        * (1 - 0.5 * steep),
        fapar=fapar,
    )
