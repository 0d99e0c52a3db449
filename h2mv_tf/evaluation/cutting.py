"""Space, cut into blocks of whole chunks."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf.data.writing import blocks

VALUES = 2_000_000  # of a variable that a block reads: some 500 cells of ten years


class Block(NamedTuple):
    """Cells that one task works on."""

    region: tuple[slice, ...]  # of the dims of space
    place: np.ndarray  # where in it land is, row by row
    cells: np.ndarray  # which land cells these are


def cut(
    land: xr.DataArray, tiles: list[Mapping[str, int]], *, cells: int
) -> list[Block]:
    """Cuts the land into blocks of whole chunks, row by row.

    Args:
        land: Land mask, on the dims of space.
        tiles: Sides of the chunks of the data sets, the one that is read most first:
            its chunks are kept whole, and the others' where that is not too much.
        cells: Of a block, about.
    """
    sides = {dim: min(tiles[0][dim], size) for dim, size in land.sizes.items()}
    for tile in tiles[1:]:
        both = {
            dim: min(math.lcm(side, tile[dim]), land.sizes[dim])
            for dim, side in sides.items()
        }
        if math.prod(both.values()) <= 2 * cells:
            sides = both
    if math.prod(sides.values()) > 8 * cells:  # no chunk that fits memory
        side = max(int(cells ** (1 / len(sides))), 1)
        sides = {dim: min(side, size) for dim, size in sides.items()}
    for dim in reversed(land.dims):  # along rows first
        whole = max(cells // math.prod(sides.values()), 1)
        sides[dim] = min(sides[dim] * whole, land.sizes[dim])
    number = np.full(land.size, -1)
    number[np.flatnonzero(land.values)] = np.arange(int(land.sum()))
    number = number.reshape(land.shape)
    found = []
    for region in blocks(land.sizes, sides):
        inside = number[region].ravel()
        (place,) = np.nonzero(inside >= 0)
        if len(place):
            found.append(Block(region, place, inside[place]))
    return found
