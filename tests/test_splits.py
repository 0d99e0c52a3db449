"""Splits: the published folds, cell by cell, and what must hold on any mask."""

import hypothesis
import numpy as np
import pytest
import xarray as xr
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
from reference import SPLITS

from h2mv_tf.data import splits
from h2mv_tf.errors import UserError

FOLDS = range(1, 11)

with np.load(SPLITS) as file:
    PUBLISHED = {
        key.removesuffix("/mask"): (
            file[key].astype(bool),
            file[key.removesuffix("mask") + "split"],
        )
        for key in file.files
        if key.endswith("/mask")
    }

masks = arrays.arrays(
    bool, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=33)
).filter(lambda mask: mask.sum() >= 3)


def grid(mask):
    rows, columns = mask.shape
    places = {"lat": np.arange(rows)[::-1] - 40.5, "lon": np.arange(columns) + 0.5}
    return xr.DataArray(mask, places, ("lat", "lon"))


def sites(mask):
    mask = np.asarray(mask, bool)
    places = {name: ("cell", np.arange(mask.size) / 7) for name in ("lat", "lon")}
    return xr.DataArray(mask, places, ("cell",))


def blocks(shape, size):
    """Number of the block that each cell lies in."""
    row, column = np.indices(shape) // size
    return row * 1000 + column


# The published folds


def test_there_are_published_folds():
    assert PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_roles_are_the_published_ones_cell_by_cell(name):
    mask, published = PUBLISHED[name]
    roles = splits.roles(grid(mask))
    np.testing.assert_array_equal(roles, published)
    assert roles.dims == ("lat", "lon")


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_fold_is_the_published_one_cell_by_cell(name, fold):
    mask, published = PUBLISHED[name]
    train, validation, test = splits.split(splits.roles(grid(mask)), fold)
    land = published[mask]
    np.testing.assert_array_equal(validation, np.flatnonzero(land == fold))
    np.testing.assert_array_equal(test, np.flatnonzero(land == 11))
    others = [other for other in FOLDS if other != fold]
    np.testing.assert_array_equal(train, np.flatnonzero(np.isin(land, others)))


# Any grid


@hypothesis.given(mask=masks, size=strategies.integers(1, 7))
def test_every_land_cell_has_one_role_and_the_sea_none(mask, size):
    roles = splits.roles(grid(mask), block_size=size).values
    np.testing.assert_array_equal(roles == splits.SEA, ~mask)
    assert set(np.unique(roles[mask])) <= {*FOLDS, splits.TEST}


@hypothesis.given(mask=masks, size=strategies.integers(1, 7))
def test_cells_of_a_block_share_a_role(mask, size):
    roles = splits.roles(grid(mask), block_size=size).values
    block = blocks(mask.shape, size)
    for number in np.unique(block[mask]):
        assert len(set(roles[mask & (block == number)])) == 1


@hypothesis.given(mask=masks)
def test_train_validation_and_test_are_disjoint_and_complete(mask):
    roles = splits.roles(grid(mask), block_size=1)
    for fold in set(roles.values[mask].tolist()) - {splits.TEST}:
        try:
            split = splits.split(roles, fold)
        except UserError:
            continue  # a role without a cell, which other tests are about
        together = np.concatenate(split)
        np.testing.assert_array_equal(np.sort(together), np.arange(mask.sum()))


@pytest.mark.parametrize("shape", [(37, 53), (36, 72), (11, 120), (40, 50)])
def test_grids_need_not_be_a_multiple_of_the_block(shape):
    mask = np.ones(shape, bool)
    roles = splits.roles(grid(mask))
    # 13 sets of blocks test, 10 validate; the rim's blocks are smaller.
    assert abs((roles == splits.TEST).mean() - 1 / 13) < 0.03
    for fold in FOLDS:
        train, validation, test = splits.split(roles, fold)
        assert abs(len(validation) / mask.size - 12 / 130) < 0.05
        assert len(train) > 5 * len(validation)
        assert len(train) + len(validation) + len(test) == mask.size


def test_every_cell_off_the_test_set_validates_once():
    roles = splits.roles(grid(np.ones((37, 53), bool)))
    count = np.zeros(roles.size, int)
    for fold in FOLDS:
        count[splits.split(roles, fold).validation] += 1
    np.testing.assert_array_equal(count, (roles.values != splits.TEST).ravel())


@pytest.mark.parametrize("size", [1, 3, 5, 8])
def test_the_size_of_the_blocks_is_a_choice(size):
    mask = np.ones((48, 48), bool)
    roles = splits.roles(grid(mask), block_size=size).values
    right = roles[:, :-1] != roles[:, 1:]
    borders = np.flatnonzero(right.any(axis=0)) + 1
    assert borders.size
    assert (borders % size == 0).all()
    assert size in borders


def test_land_elsewhere_does_not_change_the_role_of_a_cell():
    mask = np.ones((30, 40), bool)
    few = mask & (np.random.default_rng(1).random(mask.shape) < 0.4)
    full = splits.roles(grid(mask)).values
    np.testing.assert_array_equal(splits.roles(grid(few)).values[few], full[few])


def test_a_fold_without_cells_is_told():
    mask = np.ones((10, 10), bool)  # four blocks for ten folds
    roles = splits.roles(grid(mask))
    held = sorted(set(roles.values.ravel().tolist()) - {splits.TEST})
    empty = next(fold for fold in FOLDS if fold not in held)
    with pytest.raises(UserError) as caught:
        splits.split(roles, empty)
    line = str(caught.value)
    assert f"Fold {empty} has no validation cell among 100 land cells" in line
    assert f"Folds with cells to validate: {', '.join(map(str, held))}" in line
    assert "split.block_size" in line


# Sites


@pytest.mark.parametrize("count", range(3, 41))
def test_sites_have_a_cell_in_each_role_of_every_fold(count):
    for seed in range(5):
        roles = splits.roles(sites(np.ones(count)), seed=seed)
        folds = set(roles.values.tolist()) - {splits.TEST}
        assert folds == set(range(1, min(count - 1, 10) + 1))
        for fold in folds:
            split = splits.split(roles, fold)
            assert min(map(len, split)) >= 1
            np.testing.assert_array_equal(
                np.sort(np.concatenate(split)), np.arange(count)
            )


@pytest.mark.parametrize("count", [130, 1000])
def test_sites_are_split_in_the_proportions_of_grids(count):
    roles = splits.roles(sites(np.ones(count))).values
    assert (roles == splits.TEST).sum() == round(count / 13)
    sizes = [(roles == fold).sum() for fold in FOLDS]
    assert max(sizes) - min(sizes) <= 1


def test_sites_are_drawn_at_random():
    roles = splits.roles(sites(np.ones(130))).values
    tested = np.flatnonzero(roles == splits.TEST)
    assert np.ptp(tested) > 30


def test_sites_outside_of_the_mask_have_no_role():
    mask = np.arange(20) % 3 > 0
    roles = splits.roles(sites(mask))
    np.testing.assert_array_equal(roles.values == splits.SEA, ~mask)
    split = splits.split(roles, 1)
    np.testing.assert_array_equal(np.sort(np.concatenate(split)), np.arange(mask.sum()))


# Few cells, seeds, attributes


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("layout", ["sites", "grid"])
def test_fewer_than_three_cells_are_an_error(count, layout):
    mask = np.arange(12) < count
    land = sites(mask) if layout == "sites" else grid(mask.reshape(3, 4))
    with pytest.raises(UserError, match=f"three land cells or more.* found {count}"):
        splits.roles(land)


@pytest.mark.parametrize(
    "land", [sites(np.ones(60)), grid(np.ones((30, 40), bool))], ids=["sites", "grid"]
)
def test_the_seed_alone_decides(land):
    first = splits.roles(land, seed=3)
    xr.testing.assert_identical(splits.roles(land, seed=3), first)
    assert (splits.roles(land, seed=4) != first).any()


def test_roles_tell_what_their_numbers_mean():
    roles = splits.roles(grid(np.ones((30, 40), bool)))
    meanings = roles.attrs["flag_meanings"].split()
    named = dict(zip(roles.attrs["flag_values"], meanings, strict=True))
    assert named[splits.SEA] == "sea"
    assert named[splits.TEST] == "test"
    assert named[7] == "validates_fold_7"
    np.testing.assert_array_equal(np.unique(roles), [*FOLDS, splits.TEST])
