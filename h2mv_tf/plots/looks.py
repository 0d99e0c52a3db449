"""Colour maps of quantities and their limits.

Scientific colour maps, of even steps that colour-blind readers see, too: Crameri et al.
(2020), Nat. Commun. 11, 5444, doi 10.1038/s41467-020-19160-7.
"""

from typing import NamedTuple

import cmcrameri.cm as scientific
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap

from h2mv_tf.variables import VARIABLES

_WATER, _SNOW, _PLANTS = scientific.lapaz_r, scientific.devon_r, scientific.bamako_r
_EVAPORATION, _ERROR = scientific.navia_r, scientific.lajolla_r
# Without its greys, which would be sea.
_SOIL = LinearSegmentedColormap.from_list(
    "soil", scientific.bilbao_r(np.linspace(0.3, 1, 256))
)
_DRY_WET, _PINK_GREEN = scientific.vik_r, scientific.bam  # little: red, pink
# Tol (2021), told apart by colour-blind readers, too: a colour for each of ten folds.
DISTINCT = (
    *("#332288", "#DDCC77", "#88CCEE", "#CC6677", "#117733"),
    *("#AA4499", "#44AA99", "#882255", "#999933", "#661100"),
)
COLORMAPS = {
    "swe": _SNOW,
    "snowfall": _SNOW,
    "snowmelt": _SNOW,
    "fapar": _PLANTS,
    "transpiration": _PLANTS,
    "transpiration_fraction": _PLANTS,
    "evapotranspiration": _EVAPORATION,
    "soil_evaporation": _EVAPORATION,
    "interception_evaporation": _EVAPORATION,
    "evaporative_fraction": _EVAPORATION,
    "soil_water_capacity": _SOIL,
}


class Look(NamedTuple):
    """How values turn into colours.

    Attributes:
        colormap: The colour map.
        low: Value of its first colour.
        high: Value of its last one.
        extend: The ends beyond which there are values, as a colour bar has it.
    """

    colormap: Colormap
    low: float
    high: float
    extend: str


def quantity(name: str, values: np.ndarray) -> Look:
    """The look of a variable, or of a ratio, itself.

    From zero where it is never negative and comes near it; shares from 0 to 1.

    Args:
        name: Its name.
        values: The values that are drawn; NaN is none.
    """
    colormap = _shortened(COLORMAPS.get(name, _WATER))
    bounds = VARIABLES[name].bounds if name in VARIABLES else (0.0, 1.0)
    if bounds == (0.0, 1.0):
        return Look(colormap, 0.0, 1.0, _extend(values, 0.0, 1.0))
    low, high = robust(values)
    if low >= 0 and low < 0.3 * high:
        low = 0.0
    return Look(colormap, low, high, _extend(values, low, high))


def spread(values: np.ndarray) -> Look:
    """The look of an error, a deviation, or another length: from zero up."""
    high = max(robust(values)[1], 0.0) or 1.0
    return Look(_shortened(_ERROR), 0.0, high, _extend(values, 0.0, high))


def bias(name: str, values: np.ndarray) -> Look:
    """The look of a difference: as far to both sides of 0.

    Args:
        name: Variable that differs; more of it is blue, of plants green.
        values: The values that are drawn.
    """
    reach = float(np.abs(robust(values)).max()) or 1.0
    return Look(_difference(name), -reach, reach, _extend(values, -reach, reach))


def ratio(name: str, values: np.ndarray) -> Look:
    """The look of a ratio of which 1 is perfect: always the same, from 0.5 to 1.5.

    Args:
        name: Variable that it is of; more of it is blue, of plants green.
        values: The values that are drawn.
    """
    return Look(_difference(name), 0.5, 1.5, _extend(values, 0.5, 1.5))


def skill(values: np.ndarray, low: float = -0.5) -> Look:
    """The look of a score of which 1 is perfect: always the same, down to `low`."""
    return Look(scientific.imola, low, 1.0, _extend(values, low, 1.0))


def robust(values: np.ndarray, share: float = 0.02) -> tuple[float, float]:
    """Limits that leave out a share of the values at either end."""
    values = np.asarray(values)[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.quantile(values, [share, 1 - share]))
    if low == high:  # one value, in the middle
        reach = 0.1 * abs(low) or 1.0
        low, high = low - reach, high + reach
    return low, high


def distinct(count: int) -> list[str]:
    """So many colours for things without an order, such as folds."""
    return [DISTINCT[n % len(DISTINCT)] for n in range(count)]


def flat(color) -> Colormap:
    """A colour map of one colour."""
    return ListedColormap([color])


def _difference(name: str) -> Colormap:
    return _PINK_GREEN if COLORMAPS.get(name) is _PLANTS else _DRY_WET


def _extend(values: np.ndarray, low: float, high: float) -> str:
    """The ends of a colour bar beyond which there are values."""
    values = np.asarray(values)[np.isfinite(values)]
    # Rounding is not beyond.
    margin = 1e-6 * (high - low)
    below, above = (values < low - margin).any(), (values > high + margin).any()
    return {
        (False, False): "neither",
        (True, False): "min",
        (False, True): "max",
        (True, True): "both",
    }[bool(below), bool(above)]


def _shortened(colormap: Colormap) -> Colormap:
    """Without its darkest, which are hard to tell from lines."""
    colors = colormap(np.linspace(0.0, 0.92, 256))
    return LinearSegmentedColormap.from_list(f"{colormap.name} shortened", colors)
