"""The planet: continents, climate zones and the static inputs of the land."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf.data.synthetic.fields import rough_field, unit_vectors

LAND_SHARE = 0.35  # of the cells
POLAR_SEA = 60.0  # degrees, from where the land sinks: ice sheets are not for us
LAPSE_RATE = 0.0065  # K m-1, of the standard atmosphere
COLDEST_SUMMER = 6.0  # degC, of the warmest month: no glaciers
STREAM = 1  # of the seed's random numbers


class Land(NamedTuple):
    """The static inputs of the land cells; each (cells,)."""

    latitude: np.ndarray
    elevation: np.ndarray
    ruggedness: np.ndarray  # deviation of the elevation within the cell
    continentality: np.ndarray  # 0 at the coast to 1 far inland
    wetness: np.ndarray  # 0 in deserts to 1 in rain forests
    tree_cover: np.ndarray
    grass_cover: np.ndarray
    sand_fraction: np.ndarray
    clay_fraction: np.ndarray
    soil_depth: np.ndarray


UNITS = Land("degrees_north", "m", "m", "1", "1", "1", "1", "1", "1", "m")


class Planet(NamedTuple):
    """The land on its grid."""

    mask: xr.DataArray  # (lat, lon), latitude from north to south
    land: Land
    points: np.ndarray  # unit vectors of the land cells (cells, 3)
    number: np.ndarray  # of each cell of the grid (lat, lon) on land, -1 at sea


def planet(rows: int, columns: int, seed: int) -> Planet:
    """Continents, and the static inputs of their cells.

    Args:
        rows: Cells from pole to pole.
        columns: Cells around the planet.
        seed: Of all that is random; a finer grid shows the same continents.
    """
    generator = np.random.default_rng([seed, STREAM])
    latitude = 90 - (np.arange(rows) + 0.5) * 180 / rows
    longitude = -180 + (np.arange(columns) + 0.5) * 360 / columns
    lat, lon = (a.ravel() for a in np.meshgrid(latitude, longitude, indexing="ij"))
    points = unit_vectors(lat, lon)

    plates = rough_field(
        points, generator, longest=1.8, shortest=9, slope=0.6, waves=60
    )
    coasts = rough_field(
        points, generator, longest=9, shortest=300, slope=0.75, waves=1500
    )
    plates -= (np.maximum(np.abs(lat) - POLAR_SEA, 0) / 10) ** 2
    height = plates + 0.35 * coasts
    height[summer_temperature(lat, 0) < COLDEST_SUMMER + 0.1] = -np.inf
    sea_level = np.quantile(height, 1 - LAND_SHARE)
    on_land = height > sea_level

    number = np.full(on_land.shape, -1)
    number[on_land] = np.arange(on_land.sum())
    land = _land(
        lat[on_land],
        (height - sea_level)[on_land],
        (plates - sea_level)[on_land],
        points[on_land],
        generator,
    )
    mask = xr.DataArray(
        on_land.reshape(rows, columns),
        {
            "lat": ("lat", latitude, _axis("latitude", "degrees_north")),
            "lon": ("lon", longitude, _axis("longitude", "degrees_east")),
        },
        ("lat", "lon"),
    )
    return Planet(mask, land, points[on_land], number.reshape(rows, columns))


def _land(latitude, height, plates, points, generator) -> Land:
    """The static inputs, from where a cell lies and how high above the sea."""

    def field(longest, shortest):
        return rough_field(
            points, generator, longest=longest, shortest=shortest, slope=0.8, waves=300
        )

    continentality = np.clip(plates / 1.2, 0, 1)
    # Ranges run along the zero line of a field, and not everywhere along it.
    ridge = np.exp(-((field(2, 40) / 0.3) ** 2)) * _logistic(3 * field(3, 30))
    ridge *= np.minimum(height / 0.3, 1)
    elevation = 30 + 300 * height + 3200 * ridge
    summer = summer_temperature(latitude, continentality)
    elevation = np.clip(elevation, 1, (summer - COLDEST_SUMMER) / LAPSE_RATE)
    summer = summer - LAPSE_RATE * elevation

    wetness = zonal_wetness(latitude) + 0.13 * field(3, 60) - 0.12 * continentality
    wetness = np.clip(wetness + 0.15 * ridge, 0.03, 1)
    warm = _logistic((summer - 9) / 1.5)  # no trees beyond the tree line
    trees = _logistic((wetness - 0.45) / 0.08 + 0.8 * field(5, 80))
    tree_cover = 0.9 * warm * trees
    grass_cover = (1 - tree_cover) * np.clip(1.6 * wetness, 0.02, 0.9)
    texture = field(5, 100)
    sand_fraction = np.clip(0.45 + 0.16 * texture - 0.1 * (wetness - 0.4), 0.05, 0.92)
    clay_fraction = (1 - sand_fraction) * np.clip(0.42 + 0.1 * field(5, 100), 0.1, 0.8)
    soil_depth = 1.3 + 0.3 * field(5, 100) + 0.6 * tree_cover - ridge
    return Land(
        latitude=latitude,
        elevation=elevation,
        ruggedness=15 + 0.04 * elevation + 350 * ridge,
        continentality=continentality,
        wetness=wetness,
        tree_cover=tree_cover,
        grass_cover=grass_cover,
        sand_fraction=sand_fraction,
        clay_fraction=clay_fraction,
        soil_depth=np.clip(soil_depth, 0.2, 3),
    )


def sea_level_temperature(latitude, continentality):
    """Annual mean air temperature at the sea's level [degC].

    T = 28 - 44 sin(latitude)^2, the shape of the energy balance models (North, 1975),
    and milder at the coast.

    Args:
        latitude: [degrees].
        continentality: 0 at the coast to 1 far inland.
    """
    poleward = np.sin(np.radians(latitude)) ** 2
    return 28 - 44 * poleward + 6 * poleward * (1 - continentality)


def temperature_swing(latitude, continentality):
    """Half the difference of the warmest and the coldest month [K].

    Args:
        latitude: [degrees].
        continentality: 0 at the coast to 1 far inland.
    """
    return 1.5 + np.abs(np.sin(np.radians(latitude))) * (12 + 12 * continentality)


def summer_temperature(latitude, continentality):
    """Mean air temperature of the warmest month at the sea's level [degC].

    Args:
        latitude: [degrees].
        continentality: 0 at the coast to 1 far inland.
    """
    return sea_level_temperature(latitude, continentality) + temperature_swing(
        latitude, continentality
    )


def zonal_wetness(latitude):
    """Wet at the equator and in the storm tracks, dry in the subtropics [1].

    Args:
        latitude: [degrees].
    """
    return 0.48 + 0.36 * np.cos(np.radians(6 * latitude)) * np.exp(
        -np.abs(latitude) / 90
    )


def _logistic(x):
    return 1 / (1 + np.exp(-x))


def _axis(name: str, units: str) -> dict[str, str]:
    return {"standard_name": name, "units": units}
