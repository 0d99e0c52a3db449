"""A small synthetic world, as a store in the published layout.

A planet with continents, climate zones, seasons and rainy spells. Its hidden
truth is the project's own physics with coefficients that are known functions
of static inputs, weather and soil moisture; its observations are the truth with
noise and gaps, in the cadence of the real products. Everything follows from a
seed; nothing is downloaded.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
import xarray as xr

from h2mv_tf import physics
from h2mv_tf.data.store import MASK, STATIC
from h2mv_tf.data.writing import write_store
from h2mv_tf.variables import ANOMALIES, CONSTRAINTS, FORCING, VARIABLES

FIRST_DAY = "2001-01-01"
LAND_SHARE = 0.35
POLAR_SEA = 72  # degrees; ice sheets are not this model's
MISSING_SHARE = 0.1  # of the observations
SNOWFALL_CORRECTION, BASEFLOW_FRACTION = 0.9, 0.015


class Land(NamedTuple):
    """The static inputs of the land cells; each (cells,)."""

    latitude: np.ndarray  # degrees north
    elevation: np.ndarray  # m
    wetness: np.ndarray  # 0 in deserts to 1 in rain forests
    tree_cover: np.ndarray  # 1
    grass_cover: np.ndarray  # 1
    sand_fraction: np.ndarray  # 1
    soil_depth: np.ndarray  # m


def synthesize(
    path: str | Path,
    *,
    rows: int,
    columns: int,
    years: int,
    noise: float,
    seed: int,
) -> None:
    """Makes a synthetic world and writes it as a store.

    Args:
        path: Where to; must not exist.
        rows: Cells from pole to pole.
        columns: Cells around the planet.
        years: Length of the record.
        noise: Standard deviation of the errors of the observations, in standard
            deviations of what is observed.
        seed: Of all that is random.

    Raises:
        UserError: The path exists.
    """
    generator = np.random.default_rng(seed)
    mask, land = planet(rows, columns, generator)
    time = pd.date_range(FIRST_DAY, f"{2000 + years}-12-31", freq="D")
    forcing = weather(land, time, generator)
    truth = water_cycle(land, forcing)

    fields = {MASK: mask.astype("uint8").assign_attrs(long_name="land mask")}
    fields[STATIC] = _on_grid(
        np.stack(land), mask, {"variable": np.array(Land._fields, object)}
    )
    for name, values in zip(FORCING, np.moveaxis(forcing, -1, 0), strict=True):
        fields[VARIABLES[name].group] = _on_grid(values.T, mask, {"time": time}, name)
    for name in CONSTRAINTS:
        values, steps = _observed(name, truth[name], time, noise, generator)
        fields[VARIABLES[name].group] = _on_grid(values.T, mask, {"time": steps}, name)
    settings = dict(rows=rows, columns=columns, years=years, noise=noise, seed=seed)
    write_store(path, fields, attributes={"title": "synthetic world", **settings})


def planet(rows: int, columns: int, generator) -> tuple[xr.DataArray, Land]:
    """Continents, and the static inputs of their cells.

    Args:
        rows: Cells from pole to pole.
        columns: Cells around the planet.
        generator: Of random numbers.

    Returns:
        The land mask (lat, lon), latitude from north to south, and the land.
    """
    latitude = 90 - (np.arange(rows) + 0.5) * 180 / rows
    longitude = -180 + (np.arange(columns) + 0.5) * 360 / columns
    height, soil, moisture, trees = (
        _smooth_field(rows, columns, generator) for _ in range(4)
    )
    lat = np.broadcast_to(latitude[:, None], height.shape)
    height[np.abs(lat) > POLAR_SEA] -= 10
    mask = height > np.quantile(height, 1 - LAND_SHARE)
    lat = lat[mask]
    # Wet at the equator and in the storm tracks, dry in the subtropics.
    zones = 0.45 + 0.4 * np.cos(np.radians(6 * lat)) * np.exp(-np.abs(lat) / 60)
    wetness = np.clip(zones + 0.15 * moisture[mask], 0.05, 1)
    tree_cover = np.clip(wetness + 0.15 * trees[mask] - 0.1, 0, 0.9)
    land = Land(
        latitude=lat,
        elevation=np.maximum(height[mask] - height[mask].min(), 0) * 600,
        wetness=wetness,
        tree_cover=tree_cover,
        grass_cover=(1 - tree_cover) * np.clip(1.3 * wetness, 0.05, 0.9),
        sand_fraction=np.clip(0.5 + 0.2 * soil[mask], 0.05, 0.95),
        soil_depth=np.clip(1 + 0.4 * soil[mask] + 0.5 * tree_cover, 0.2, 3),
    )
    coordinates = {
        "lat": (
            "lat",
            latitude,
            {"units": "degrees_north", "standard_name": "latitude"},
        ),
        "lon": (
            "lon",
            longitude,
            {"units": "degrees_east", "standard_name": "longitude"},
        ),
    }
    return xr.DataArray(mask, coordinates, ("lat", "lon")), land


def weather(land: Land, time: pd.DatetimeIndex, generator) -> np.ndarray:
    """Daily forcing with seasons, weather that lasts for days, and rainy spells.

    Args:
        land: The land cells.
        time: The days.
        generator: Of random numbers.

    Returns:
        (cells, days, 3) in the registry's order and units.
    """
    shape = (len(land.latitude), len(time))
    latitude = np.radians(land.latitude)[:, None]
    # 1 in high summer of either hemisphere, -1 in winter; warmest in late July.
    season = np.sin(2 * np.pi * (time.day_of_year.values - 110) / 365.25)
    season = season * np.sign(latitude)

    clouds = _persistent_noise(shape, 0.7, generator)
    sun = np.cos(latitude) + 0.45 * season * np.abs(np.sin(latitude))
    net_radiation = 150 * np.maximum(sun, -0.1) - 25 * clouds - 15

    swing = 3 + 20 * np.abs(np.sin(latitude))
    lapse = 0.0065 * land.elevation[:, None]
    air_temperature = 302 - 40 * np.sin(latitude) ** 2 + swing * season - lapse
    air_temperature += (1 + 4 * np.abs(np.sin(latitude))) * _persistent_noise(
        shape, 0.85, generator
    )
    wetness = land.wetness[:, None] * (1 + 0.3 * season * np.cos(3 * latitude))
    wet_day = _persistent_noise(shape, 0.5, generator) > 1 - 1.4 * wetness
    amount = generator.gamma(0.8, 1, shape) * (3 + 8 * wetness)
    # Cold air holds less water: 7 % for each degree (Clausius-Clapeyron).
    amount *= np.minimum(1.07 ** (air_temperature - 288), 1)
    return np.stack(
        [net_radiation, np.where(wet_day, amount, 0), air_temperature], axis=-1
    ).astype("float32")


def water_cycle(land: Land, forcing: np.ndarray) -> dict[str, np.ndarray]:
    """The hidden truth: the constraints as the physics gives them.

    Args:
        land: The land cells.
        forcing: (cells, days, 3).

    Returns:
        (cells, days) for each constraint, of the second pass over the series.
    """
    land = Land(*(tf.constant(values, tf.float32) for values in land))
    parameters = physics.Parameters(
        soil_water_capacity=40 + 250 * land.soil_depth * (1 - 0.6 * land.sand_fraction),
        snowfall_correction=SNOWFALL_CORRECTION,
        baseflow_fraction=BASEFLOW_FRACTION,
    )

    @tf.function
    def run(forcing, state, warmth):
        days = tf.shape(forcing)[0]
        written = tf.TensorArray(tf.float32, size=days)
        for day in tf.range(days):
            today = physics.Forcing(*tf.unstack(forcing[day], axis=-1))
            warmth += (today.air_temperature - warmth) / 20
            coefficients = _coefficients(land, today, state, parameters, warmth)
            new_state, fluxes = physics.step(state, today, coefficients, parameters)
            values = {
                "tws": sum(new_state),
                **new_state._asdict(),
                **fluxes._asdict(),
                **coefficients._asdict(),
            }
            state = new_state
            written = written.write(day, tf.stack([values[n] for n in CONSTRAINTS]))
        return written.stack(), state, warmth

    by_day = tf.transpose(forcing, [1, 0, 2])
    empty = tf.zeros_like(land.latitude)
    _, *spun_up = run(by_day, physics.WaterState(empty, empty, empty), by_day[0, :, 2])
    series = run(by_day, *spun_up)[0].numpy()
    return {name: series[:, n].T for n, name in enumerate(CONSTRAINTS)}


def _coefficients(land: Land, today, state, parameters, warmth) -> physics.Coefficients:
    """The coefficients of the truth, from land, weather and soil moisture."""
    moist = state.soil_moisture / parameters.soil_water_capacity
    growing = tf.sigmoid((warmth - 281) / 3)
    leaves = 0.85 * land.tree_cover * (0.5 + 0.5 * growing)
    leaves += 0.8 * land.grass_cover * growing * tf.sqrt(tf.maximum(moist, 0.02))
    sunny = tf.sigmoid(today.net_radiation / 40 - 1)
    return physics.Coefficients(
        snowmelt_factor=2 + 3 * (1 - land.tree_cover) * (0.5 + 0.5 * sunny),
        interception_capacity=0.5 + 2.5 * land.tree_cover,
        soil_evaporation_coefficient=0.1 + 0.5 * (1 - land.sand_fraction) * moist,
        transpiration_coefficient=0.9 * growing * tf.tanh(2 * moist),
        soil_recharge_coefficient=1 - 0.8 * moist**2,
        groundwater_recharge_coefficient=0.2 + 0.6 * land.sand_fraction,
        fapar=tf.clip_by_value(leaves, 0.01, 0.95),
    )


def _observed(name: str, truth, time, noise: float, generator):
    """Observations of a constraint (cells, steps), and the time of the steps."""
    frame = pd.DataFrame(truth.T, index=time)
    if VARIABLES[name].cadence == "monthly":
        frame = frame.resample("MS").mean()
    values = frame.to_numpy().T
    values = values + noise * values.std() * generator.standard_normal(values.shape)
    if name in ANOMALIES:
        values = values - values.mean(axis=1, keepdims=True)
    else:
        low, high = VARIABLES[name].bounds
        values = np.clip(values, low, high)
    values[generator.random(values.shape) < MISSING_SHARE] = np.nan
    return values, frame.index


def _on_grid(values, mask: xr.DataArray, leading: dict, name: str = "") -> xr.DataArray:
    """Values of the land cells (steps, cells) on the grid, NaN at sea."""
    ((dim, steps),) = leading.items()
    grid = np.full((len(steps), *mask.shape), np.nan, "float32")
    grid[:, mask.values] = values
    attributes = VARIABLES[name].attributes if name else {"long_name": "static inputs"}
    return xr.DataArray(
        grid, {dim: steps, **mask.coords}, (dim, *mask.dims), attrs=attributes
    )


def _smooth_field(rows: int, columns: int, generator) -> np.ndarray:
    """A random field that varies over a fifth of the planet: mean 0, deviation 1."""
    # Periodic around the planet; twice as high as needed, so that the poles differ.
    spectrum = np.fft.rfft2(generator.standard_normal((2 * rows, columns)))
    meridional = np.fft.fftfreq(2 * rows, 0.5 / rows)[:, None]
    zonal = np.fft.rfftfreq(columns, 1 / columns)
    spectrum *= np.exp(-(meridional**2 + zonal**2) / 2 / 2.5**2)
    field = np.fft.irfft2(spectrum, (2 * rows, columns))[:rows]
    return (field - field.mean()) / field.std()


def _persistent_noise(shape, persistence: float, generator) -> np.ndarray:
    """First-order autoregressive noise of deviation 1, (cells, days)."""
    noise = generator.standard_normal(shape)
    for day in range(1, shape[1]):
        noise[:, day] *= np.sqrt(1 - persistence**2)
        noise[:, day] += persistence * noise[:, day - 1]
    return noise
