"""The weather: seasons, storms, clouds and what the sun leaves, day by day.

Sunshine and radiation are those of FAO paper 56: Allen et al. (1998), Crop
evapotranspiration, with its numbers of equations. Arrays are (days, cells).
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from h2mv_tf.data.synthetic.fields import Drift, autoregression
from h2mv_tf.data.synthetic.planet import (
    LAPSE_RATE,
    Land,
    sea_level_temperature,
    temperature_swing,
    zonal_wetness,
)
from h2mv_tf.physics import FREEZING_POINT

YEAR = 365.25  # days
MIDSUMMER = 201  # day of the year when the north is warmest, a month after solstice
MONSOON = 9.0  # degrees by which the rain belts follow the sun
SOLAR_CONSTANT = 0.0820 * 1e6 / 60  # W m-2, of 0.0820 MJ m-2 min-1
STEFAN_BOLTZMANN = 5.67e-8  # W m-2 K-4
TAIL = 1.5  # amounts are exponential to the power of 1/1.5: Wilson and Toumi (2005)
# Shares of the variance: storms of some 1000 km, showers of a cell, and slow
# swings of the climate that make dry and wet years.
STORMS, SHOWERS, SWINGS = 0.66, 0.26, 0.08
STREAM, LOCAL_STREAM = 2, 3  # of the seed's random numbers


class Weather(NamedTuple):
    """The weather of some cells."""

    net_radiation: np.ndarray  # W m-2
    precipitation: np.ndarray  # mm d-1
    air_temperature: np.ndarray  # K
    clouds: np.ndarray  # 0 to 1
    sunshine: np.ndarray  # above the clouds [W m-2]


class Climate:
    """What the weather of all cells has in common; `weather` gives that of some.

    Args:
        time: The days.
        seed: Of all that is random.
    """

    def __init__(self, time: pd.DatetimeIndex, seed: int):
        generator, days = np.random.default_rng([seed, STREAM]), len(time)
        self.seed, self.days = seed, days
        self.day_of_year = time.day_of_year.values[:, None]
        self.storms = Drift(days, generator, length=1000, persistence=0.65)
        self.warmth = Drift(days, generator, length=1500, persistence=0.85)
        self.swings = Drift(days, generator, length=2500, persistence=0.985)

    def weather(self, land: Land, points: np.ndarray, cells: np.ndarray) -> Weather:
        """The weather of some cells; the same whichever others are asked for.

        Args:
            land: Their static inputs.
            points: Their unit vectors (cells, 3).
            cells: Their numbers on the grid, which seed what is local.
        """
        local = np.empty((2, self.days, len(cells)))
        for n, cell in enumerate(cells):
            generator = np.random.default_rng([self.seed, LOCAL_STREAM, cell])
            local[..., n] = generator.standard_normal((2, self.days))
        swings = self.swings.at(points)
        storminess = np.sqrt(STORMS) * self.storms.at(points)
        storminess += np.sqrt(SHOWERS) * autoregression(local[0], 0.45)
        storminess += np.sqrt(SWINGS) * swings
        warmth = np.sqrt(0.85) * self.warmth.at(points)
        warmth += np.sqrt(0.15) * autoregression(local[1], 0.6)

        # 1 in northern summer, -1 half a year later.
        season = np.cos(2 * np.pi * (self.day_of_year - MIDSUMMER) / YEAR)
        sunshine = extraterrestrial_radiation(land.latitude, self.day_of_year)
        # As if the cell lay farther from the sun's latitude, or nearer to it.
        wetness = zonal_wetness(land.latitude - MONSOON * season)
        wetness = np.clip(wetness + land.wetness - zonal_wetness(land.latitude), 0, 1)
        usual = usual_temperature(land, season)
        precipitation, clouds = storms(storminess, wetness, usual)

        # Clouds cool by day and warm by night.
        clouded = (clouds - 0.4) * (2 - 4 * sunshine / 450)
        polewards = np.abs(np.sin(np.radians(land.latitude)))
        temperature = usual + clouded + (1 + 3.5 * polewards) * warmth - 0.5 * swings
        radiation = net_radiation(
            sunshine, clouds, temperature, albedo(land, usual), 0.4 + 0.45 * wetness
        )
        return Weather(
            *(
                values.astype("float32")
                for values in (
                    radiation,
                    precipitation,
                    temperature + FREEZING_POINT,
                    clouds,
                    sunshine,
                )
            )
        )


def usual_temperature(land: Land, season):
    """Air temperature of a day of the year [degC].

    Args:
        land: The land cells.
        season: 1 in northern summer, -1 half a year later (days, 1).
    """
    mean = sea_level_temperature(land.latitude, land.continentality)
    mean = mean - LAPSE_RATE * land.elevation
    hemisphere = np.tanh(land.latitude / 5)
    swing = temperature_swing(land.latitude, land.continentality)
    return mean + swing * hemisphere * season


def storms(storminess, wetness, temperature) -> tuple[np.ndarray, np.ndarray]:
    """Daily precipitation [mm d-1] and clouds [1].

    It rains where the storminess is among its p highest; how much, follows from how
    far it is: with u its probability to be exceeded, R = a (-ln(u / p))^(3/2), so
    that P(R > r | wet) = exp(-(r / a)^(2/3))         Wilson and Toumi (2005),
    doi 10.1029/2005GL022465

    Args:
        storminess: Normal, of mean 0 and deviation 1.
        wetness: Of the place and season [1].
        temperature: Usual of the place and season [degC].
    """
    exceeded = 0.5 * tf.math.erfc(storminess / np.sqrt(2)).numpy()
    wet_days = 0.015 + 0.9 * wetness**1.15
    # Cold air brings less: 4 % a degree, of the 7 % of Clausius and Clapeyron.
    scale = (2.7 + 2.2 * wetness) * 1.04 ** np.minimum(temperature - 15, 6)
    depth = -np.log(np.minimum(exceeded / wet_days, 1))
    clouds = 0.1 + 0.8 * np.exp(-np.maximum(exceeded - wet_days, 0) / 0.2)
    return scale * depth**TAIL, clouds


def extraterrestrial_radiation(latitude, day_of_year):
    """Sunshine above the atmosphere, daily mean [W m-2].

    Ra = Gsc / pi d (w sin(lat) sin(s) + cos(lat) cos(s) sin(w))    FAO 56, eq. 21

    Args:
        latitude: [degrees].
        day_of_year: (days, 1).
    """
    latitude, angle = np.radians(latitude), 2 * np.pi * day_of_year / 365
    distance = 1 + 0.033 * np.cos(angle)  # eq. 23
    declination = 0.409 * np.sin(angle - 1.39)  # eq. 24
    sunset = np.arccos(np.clip(-np.tan(latitude) * np.tan(declination), -1, 1))  # 25
    return (SOLAR_CONSTANT * distance / np.pi) * (
        sunset * np.sin(latitude) * np.sin(declination)
        + np.cos(latitude) * np.cos(declination) * np.sin(sunset)
    )


def net_radiation(sunshine, clouds, temperature, albedo, humidity):
    """Net radiation at the surface, daily mean [W m-2].

    Rn = (1 - albedo) Rs - s T^4 (0.34 - 0.14 sqrt(e)) (1.35 Rs/Rso - 0.35)
    with Rs = (0.25 + 0.50 (1 - clouds)) Ra         FAO 56, eqs. 35 to 40

    Args:
        sunshine: Above the atmosphere [W m-2].
        clouds: [1].
        temperature: Air temperature [degC].
        albedo: [1].
        humidity: Relative [1].
    """
    clear, clearness = 0.75, 0.25 + 0.5 * (1 - clouds)
    vapour = 0.6108 * np.exp(17.27 * temperature / (temperature + 237.3))  # kPa, eq. 11
    lost = STEFAN_BOLTZMANN * (temperature + FREEZING_POINT) ** 4
    lost *= 0.34 - 0.14 * np.sqrt(humidity * vapour)
    lost *= 1.35 * clearness / clear - 0.35
    return (1 - albedo) * clearness * sunshine - lost


def albedo(land: Land, temperature):
    """Share of the sunshine that the ground sends back [1].

    Args:
        land: The land cells.
        temperature: Usual of the day of the year [degC]; below zero snow lies.
    """
    bare = 1 - land.tree_cover - land.grass_cover
    ground = 0.13 * land.tree_cover + 0.22 * land.grass_cover + 0.35 * bare
    snow = 0.4 * (1 - 0.7 * land.tree_cover) / (1 + np.exp(temperature / 1.5))
    return ground + snow
