"""Observations of the truth, with the noise, the cadence and the gaps of products.

Arrays are (steps, cells); NaN is missing.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from h2mv_tf.data.synthetic.planet import Land
from h2mv_tf.data.synthetic.weather import Weather
from h2mv_tf.variables import ERRORS

COMPOSITE = 8  # days of a composite of fapar, counted from 1 January
DEEP_SNOW = 100.0  # mm, beyond which the retrieval sees only that it is deep
MOUNTAINS = 1500.0  # m, where there is no retrieval of snow
LOW_SUN = 60.0  # W m-2 above the atmosphere, below which fapar is not seen
GAP, LONG_GAP = 0.08, 11  # share of the months; months between two missions
LONG_RECORD = 10 * 12  # months, from which on there is a second mission
MISSING = {"evapotranspiration": 0.05, "runoff": 0.05, "swe": 0.1}
# Over the land of a world of 2 degrees and 10 years: what a part of it cannot know.
DEVIATION = {
    "tws": 75.0,
    "evapotranspiration": 1.05,
    "runoff": 1.25,
    "swe": 28.0,
    "fapar": 0.3,
}
# Of the logarithm of the factor by which a cell's noise differs from its product's.
UNEVENNESS = 0.4
STREAM, LOCAL_STREAM = 4, 5  # of the seed's random numbers


class Products:
    """What the observations of all cells have in common; `observe` makes some.

    Args:
        time: The days.
        noise: Standard deviation of the errors, in `DEVIATION`s.
        seed: Of all that is random.
        errors: Whether the noise differs from cell to cell, and its standard
            deviations are told.
    """

    def __init__(
        self, time: pd.DatetimeIndex, *, noise: float, seed: int, errors: bool = False
    ):
        self.time, self.noise, self.seed, self.errors = time, noise, seed, errors
        self.months = time[time.day == 1]
        self._month = np.flatnonzero(time.day == 1)
        self._composite = np.flatnonzero((time.day_of_year - 1) % COMPOSITE == 0)
        days = np.arange(len(time))
        # The composite of each day, and how many days of it are in the day's month.
        self._number = np.searchsorted(self._composite, days, "right") - 1
        parts = np.stack([self._number, np.searchsorted(self._month, days, "right")])
        _, part, length = np.unique(
            parts, axis=1, return_inverse=True, return_counts=True
        )
        self._alike = length[part.ravel()]
        count = len(self.months)
        generator = np.random.default_rng([seed, STREAM])
        self.tws_missing = np.zeros(count, bool)
        lost = generator.choice(count, max(round(GAP * count), 1), replace=False)
        self.tws_missing[lost] = True
        if count >= LONG_RECORD:
            start = round(0.75 * count)
            self.tws_missing[start : start + LONG_GAP] = True
        self.baseline = np.zeros(count, bool)
        self.baseline[count // 6 : count // 2] = True
        self.baseline &= ~self.tws_missing

    def steps(self, constraint: str) -> pd.DatetimeIndex:
        """The time axis of a constraint's observations."""
        return self.time if constraint == "swe" else self.months

    def monthly(self, values: np.ndarray) -> np.ndarray:
        """Means over the months of the record (months, cells).

        Args:
            values: (days, cells).
        """
        return means(values, self._month)

    def observe(
        self,
        truth: Mapping[str, np.ndarray],
        land: Land,
        weather: Weather,
        cells: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """The observations of some cells, by the name of the constraint.

        Args:
            truth: Daily outputs (days, cells).
            land: The land cells.
            weather: Their weather.
            cells: Their numbers on the grid, which seed noise and gaps.

        Returns:
            (steps, cells); and, with `errors`, their standard errors by the names of
            the registry, (cells,) where they are the same at all steps.
        """
        steps = {name: len(self.steps(name)) for name in DEVIATION}
        steps["fapar"] = len(self._composite)
        noise, chance = (
            {name: np.empty((count, len(cells))) for name, count in steps.items()}
            for _ in range(2)
        )
        gauged = np.empty(len(cells))
        deviation = {
            name: np.full(len(cells), self.noise * scale)
            for name, scale in DEVIATION.items()
        }
        for n, cell in enumerate(cells):
            generator = np.random.default_rng([self.seed, LOCAL_STREAM, cell])
            gauged[n] = generator.random()
            for name, count in steps.items():
                noise[name][:, n] = generator.standard_normal(count)
                chance[name][:, n] = generator.random(count)
            if self.errors:  # last, so that all else is as without
                for name in DEVIATION:
                    factor = np.exp(UNEVENNESS * generator.standard_normal())
                    deviation[name][n] *= factor
        noise = {name: deviation[name] * values for name, values in noise.items()}

        fapar, error = self._fapar(truth["fapar"], noise["fapar"], chance, weather)
        seen = {
            "tws": self._tws(truth["tws"], noise["tws"]),
            "swe": self._swe(truth["swe"], noise["swe"], land.elevation),
            "fapar": fapar,
        }
        for name in ("evapotranspiration", "runoff"):
            seen[name] = np.maximum(self.monthly(truth[name]) + noise[name], 0)
        for name, share in MISSING.items():
            seen[name][chance[name] < share] = np.nan
        # Few gauges in deserts.
        seen["runoff"][:, gauged < 0.3 * (1 - land.wetness)] = np.nan
        if self.errors:
            deviation["fapar"] = deviation["fapar"] * error
            seen |= {ERRORS[name]: values for name, values in deviation.items()}
        return seen

    def _tws(self, truth, noise):
        """Monthly, from the gravity of the planet, against the mean of some years."""
        values = self.monthly(truth) + noise
        values[self.tws_missing] = np.nan
        return values - values[self.baseline].mean(axis=0)

    def _swe(self, truth, noise, elevation):
        """Daily, from microwaves, which see no deep snow and none in mountains."""
        beyond = np.maximum(truth - DEEP_SNOW, 0) / DEEP_SNOW
        # A little above 100 mm, so that deep snow is told from 100 mm of snow; no
        # noise takes it back below.
        least = np.where(beyond > 0, DEEP_SNOW + np.tanh(beyond), 0)
        values = np.maximum(np.minimum(truth, DEEP_SNOW) + noise, least)
        values[truth == 0] = 0
        values[:, elevation > MOUNTAINS] = np.nan
        return values

    def _fapar(self, truth, noise, chance, weather: Weather):
        """Months of composites of 8 days, which clouds and low sun hide.

        Returns:
            The months, and their standard errors in those of a composite.
        """
        composites = np.clip(means(truth, self._composite) + noise, 0, 1)
        clouds = means(weather.clouds, self._composite)
        hidden = chance["fapar"] < 0.04 + 0.7 * np.maximum(clouds - 0.4, 0)
        hidden |= means(weather.sunshine, self._composite) < LOW_SUN
        composites[hidden] = np.nan
        # Each composite counts for its days in the month.
        daily = composites[self._number]
        there = ~np.isnan(daily)
        share = self.monthly(there)
        some = np.maximum(share, 1e-6)
        values = self.monthly(np.nan_to_num(daily)) / some
        # Their errors are independent, so that the squares of their days add up.
        squares = self.monthly(there * self._alike[:, None])
        error = np.sqrt(squares / self.months.days_in_month.values[:, None]) / some
        enough = share >= 0.25
        return np.where(enough, values, np.nan), np.where(enough, error, np.nan)


def means(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Means over periods of days (periods, cells).

    Args:
        values: (days, cells).
        starts: First day of each period.
    """
    lengths = np.diff(starts, append=len(values))
    sums = np.add.reduceat(values, starts, axis=0, dtype="float64")
    return sums / lengths[:, None]
