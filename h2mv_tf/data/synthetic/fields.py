"""Random fields on the sphere: sums of waves in space, that linger in time.

A field is a sum of plane waves cos(k x + phase) over unit vectors x: seamless, the
same on every grid, and known at any cell without its neighbours (random Fourier
features, Rahimi and Recht, 2007).
"""

import itertools

import numpy as np

EARTH_RADIUS = 6371.0  # km
POINTS = 4096  # that are summed up together


def unit_vectors(latitude, longitude) -> np.ndarray:
    """Points on the unit sphere (points, 3).

    Args:
        latitude: (points,) [degrees].
        longitude: (points,) [degrees].
    """
    latitude, longitude = np.radians(latitude), np.radians(longitude)
    across = np.cos(latitude)
    return np.stack(
        [across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)], -1
    )


def rough_field(
    points: np.ndarray,
    generator: np.random.Generator,
    *,
    longest: float,
    shortest: float,
    slope: float,
    waves: int,
) -> np.ndarray:
    """A field with a power law for its spectrum, as the height of land has.

    Args:
        points: Unit vectors (points, 3).
        generator: Of random numbers.
        longest: Least wave number, in radians around the sphere.
        shortest: Greatest wave number.
        slope: Of amplitude against wave number, on logarithmic scales: 0.5 and
            above; the higher, the smoother.
        waves: How many.

    Returns:
        (points,), of mean 0 and deviation 1 over all such fields.
    """
    number = np.geomspace(longest, shortest, waves)
    direction = generator.standard_normal((3, waves))
    vectors = number * direction / np.linalg.norm(direction, axis=0)
    phase = generator.uniform(0, 2 * np.pi, waves)
    amplitude = number**-slope
    amplitude *= np.sqrt(2 / np.sum(amplitude**2))
    parts = [
        np.cos(points[n : n + POINTS] @ vectors + phase) @ amplitude
        for n in range(0, len(points), POINTS)
    ]
    return np.concatenate(parts)


class Drift:
    """A smooth field that changes from day to day, of mean 0 and deviation 1.

    Its correlation in space is a Matern function of smoothness 3/2, in time that
    of a first-order autoregression.

    Args:
        days: Length of the series.
        generator: Of random numbers.
        length: Of the correlation in space [km].
        persistence: Correlation of a day with the day before.
        waves: How many.
    """

    def __init__(
        self,
        days: int,
        generator: np.random.Generator,
        *,
        length: float,
        persistence: float,
        waves: int = 150,
    ):
        # The spectrum of a Matern function is Student's distribution.
        scale = np.sqrt(generator.chisquare(3, waves) / 3) * length / EARTH_RADIUS
        self._vectors = generator.standard_normal((3, waves)) / scale
        noise = generator.standard_normal((days, 2 * waves))
        self._series = autoregression(noise, persistence) / np.sqrt(waves)

    def at(self, points: np.ndarray) -> np.ndarray:
        """The field at points (days, points).

        Args:
            points: Unit vectors (points, 3).
        """
        angle = points @ self._vectors
        return self._series @ np.concatenate([np.cos(angle), np.sin(angle)], axis=1).T


def autoregression(noise: np.ndarray, persistence: float) -> np.ndarray:
    """First-order autoregressive series of deviation 1, in place of white noise.

    Args:
        noise: (days, series) of deviation 1; is overwritten.
        persistence: Correlation of a day with the day before.
    """
    noise[1:] *= np.sqrt(1 - persistence**2)
    for before, day in itertools.pairwise(noise):
        day += persistence * before
    return noise
