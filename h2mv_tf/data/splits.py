"""Which cells train, validate and test.

Neighbouring cells share weather, so grids are split in spatial blocks; the
recipe reproduces the published folds on any mask. Sites and basins, which have
no grid, are split cell by cell in the same proportions.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from h2mv_tf.data.writing import storable
from h2mv_tf.errors import UserError

SEA, TEST = 0, 11  # the other roles, 1 to 10, are the fold that the cell validates
FOLDS = 10
EARTH_RADIUS = 6371.0  # km
TEST_SETS = 13  # one of which tests


class Split(NamedTuple):
    """Indices of the land cells in each role of a fold."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def spatial_blocks(land: np.ndarray, *, block_size: int = 5, seed: int = 1):
    """The role of every cell of a grid.

    Blocks are numbered row by row and shuffled; of 13 sets the first tests. The
    same generator, going on, shuffles the blocks anew into 10 sets for the folds.

    Args:
        land: Land mask (lat, lon).
        block_size: Cells along the side of a block; the last may be smaller.
        seed: Of the shuffling.

    Returns:
        (lat, lon): 0 sea, 11 test, 1..10 the fold in which the cell validates.
    """
    land = np.asarray(land, bool)
    rows, columns = (-(-size // block_size) for size in land.shape)
    row, column = np.indices(land.shape) // block_size
    block = row * columns + column
    # The generator of the published code; NumPy keeps its stream frozen.
    generator = np.random.RandomState(seed)
    roles = np.zeros(land.shape, "uint8")
    tested = _shuffled_sets(rows * columns, TEST_SETS, generator)[0]
    for fold, members in enumerate(
        _shuffled_sets(rows * columns, FOLDS, generator), start=1
    ):
        roles[np.isin(block, members)] = fold
    roles[np.isin(block, tested)] = TEST
    return np.where(land, roles, SEA)


def random_cells(land: np.ndarray, *, seed: int = 1) -> np.ndarray:
    """The role of every cell of a list of sites or basins.

    Args:
        land: Land mask (cell,).
        seed: Of the shuffling.

    Returns:
        (cell,): 0 sea, 11 test, 1..10 the fold in which the cell validates; with
        fewer than 10 cells to validate there are fewer folds.
    """
    cells = np.flatnonzero(land)
    generator = np.random.default_rng(seed)
    cells = generator.permutation(cells)
    tested = max(round(len(cells) / TEST_SETS), 1)
    roles = np.zeros(len(land), "uint8")
    roles[cells[:tested]] = TEST
    for fold, members in enumerate(np.array_split(cells[tested:], FOLDS), start=1):
        roles[members] = fold
    return roles


def roles(land: xr.DataArray, *, block_size: int = 5, seed: int = 1) -> xr.DataArray:
    """The role of every cell of a store, on its grid or list of cells.

    Args:
        land: Land mask (lat, lon) or (cell,).
        block_size: Cells along the side of a block of a grid.
        seed: Of the shuffling.

    Raises:
        UserError: There are fewer than three land cells.
    """
    count = int(land.sum())
    if count < 3:
        raise UserError(
            f"Training needs three land cells or more, one to train, one to validate "
            f"and one to test; found {count}."
        )
    if land.ndim == 1:
        values = random_cells(land.values, seed=seed)
    else:
        values = spatial_blocks(land.values, block_size=block_size, seed=seed)
    return land.copy(data=values).assign_attrs(
        long_name="role of the cell",
        flag_values=[SEA, *range(1, FOLDS + 1), TEST],
        flag_meanings=" ".join(
            ["sea", *(f"validates_fold_{k}" for k in range(1, FOLDS + 1)), "test"]
        ),
    )


def save(roles: xr.DataArray, path: str | Path) -> None:
    """Writes the roles as a Zarr store with the variable `role`."""
    storable(roles).to_dataset(name="role").to_zarr(
        path, zarr_format=3, consolidated=False
    )


def leakage(roles: xr.DataArray, fold: int) -> dict[str, dict[str, float]]:
    """How well a fold keeps the roles apart.

    Args:
        roles: Of `roles`.
        fold: 1 to 10.

    Returns:
        `cells` of each role, and `least_distance_km` from the training cells to
        the nearest cell of each other role: 0 would be a cell with two roles.
    """
    of_land = _flat(roles)
    cells = split(roles, fold)
    latitude, longitude = np.radians(of_land.lat.values), np.radians(of_land.lon.values)
    place = np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ],
        axis=-1,
    )
    nearest = cKDTree(place[cells.train])
    distances = {}
    for role in ("validation", "test"):
        chord = nearest.query(place[getattr(cells, role)])[0].min()
        distances[role] = round(2 * EARTH_RADIUS * float(np.arcsin(chord / 2)), 1)
    counts = {role: len(members) for role, members in cells._asdict().items()}
    return {"cells": counts, "least_distance_km": distances}


def folds(roles: xr.DataArray) -> tuple[int, ...]:
    """The folds that have cells to validate; few sites have fewer than ten.

    Args:
        roles: Of `roles`.
    """
    return tuple(sorted({int(role) for role in np.unique(roles)} - {SEA, TEST}))


def split(roles: xr.DataArray, fold: int) -> Split:
    """The land cells in each role of one fold.

    Args:
        roles: Of `roles`.
        fold: 1 to 10.

    Returns:
        Indices into the land cells, in their order.

    Raises:
        UserError: A role is left without a cell.
    """
    of_land = roles.values[roles.values != SEA]
    result = Split(
        train=np.flatnonzero((of_land != TEST) & (of_land != fold)),
        validation=np.flatnonzero(of_land == fold),
        test=np.flatnonzero(of_land == TEST),
    )
    for role, cells in result._asdict().items():
        if not len(cells):
            held = folds(roles)
            raise UserError(
                f"Fold {fold} has no {role} cell among {len(of_land)} land cells. "
                f"Folds with cells to validate: {', '.join(map(str, held))}. Choose "
                "one of them in split.fold, or a smaller split.block_size."
            )
    return result


def _flat(roles: xr.DataArray) -> xr.DataArray:
    """The roles of the land cells, with their places."""
    if roles.ndim > 1:
        roles = roles.stack(cell=roles.dims, create_index=False)
    return roles[roles.values != SEA]


def _shuffled_sets(items: int, sets: int, generator) -> list[np.ndarray]:
    order = np.arange(items)
    generator.shuffle(order)
    return np.array_split(order, sets)
