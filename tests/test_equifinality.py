"""What the folds disagree about."""

import itertools

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from reference import SPLITS

from h2mv_tf.data.splits import TEST
from h2mv_tf.equifinality import STEPS, decomposition, equifinality
from h2mv_tf.errors import UserError


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("variable", ["a", "b", "c"])
@pytest.mark.parametrize("chunks", [-1, (1, 7, 11)])
def test_the_terms_are_those_of_the_published_code(variable, chunks):
    with np.load(SPLITS) as reference:
        members = [reference[f"equifinality/fold{k}/{variable}"] for k in range(1, 5)]
        expected = [
            float(reference[f"equifinality/{term}/{variable}"])
            for term in ("mds", "ssd", "covariance", "msd")
        ]
    found = decomposition(da.from_array(np.stack(members), chunks))
    np.testing.assert_allclose([*found, found.total], expected, rtol=1e-9)


def test_the_terms_of_two_short_series_by_hand():
    # Means 1 and 2, deviations 1 and 2, covariance -2.
    found = decomposition(np.array([[0.0, 2.0], [4.0, 0.0]]))
    scale = (1 + 4) / 2
    assert found.mean == pytest.approx(1 / scale)
    assert found.deviation == pytest.approx(1 / scale)
    assert found.covariance == pytest.approx(2 * (2 + 2) / scale)
    assert found.total == pytest.approx((16 + 4) / 2 / scale)


def test_equal_members_differ_in_nothing_and_constants_cannot_be_compared():
    one = np.arange(12.0).reshape(3, 4)
    assert decomposition(np.stack([one, one, one])).total == pytest.approx(0, abs=1e-12)
    assert np.isnan(decomposition(np.ones((3, 5))).total)


@pytest.fixture
def folds(rng):
    """Three folds of a grid of 2 x 3 cells, four of land, two of which test."""
    time = pd.date_range("2001-03-01", "2003-12-31")
    role = np.array([[0, TEST, 1], [TEST, 0, 2]], "int8")

    def fold():
        values = rng.normal(3, 1, (len(time), 2, 3)).astype("float32")
        values[:, role == 0] = np.nan
        runoff = xr.DataArray(values, dims=("time", "lat", "lon"))
        return xr.Dataset(
            {"runoff": runoff, "swe": 2 * runoff, "snowmelt_factor": runoff + 1},
            {
                "time": time,
                "lat": [10.0, 0.0],
                "lon": [0.0, 1.0, 2.0],
                "role": (("lat", "lon"), role),
            },
            {"frequency": "daily"},
        ).chunk({"lat": 1, "lon": 2})

    return {f"fold-{k:02}": fold() for k in (1, 2, 3)}


@pytest.mark.filterwarnings("error")
def test_only_test_cells_and_whole_years_are_compared(folds):
    found = equifinality(folds)
    values = np.stack([f.runoff.values for f in folds.values()])
    # Row by row: cells (0, 1) and (1, 0).
    tested = np.stack([values[:, :, 0, 1], values[:, :, 1, 0]], axis=-1)
    for step in STEPS:
        if step == "annual":
            year = pd.DatetimeIndex(folds["fold-01"].time.values).year
            tested = np.stack([tested[:, year == y].mean(1) for y in (2002, 2003)], 1)
        pairs = itertools.combinations(tested.astype("float64"), 2)
        expected = np.mean(
            [np.mean((a - b) ** 2) / ((a.var() + b.var()) / 2) for a, b in pairs]
        )
        total = found.total.sel(step=step, variable="runoff")
        assert float(total) == pytest.approx(expected, rel=1e-5)
    assert list(found.variable) == ["snowmelt_factor", "swe", "runoff"]
    assert list(found.kind) == ["coefficient", "state", "flux"]
    assert found.attrs["test_cells"] == 2


def test_the_spread_is_that_of_the_means_over_time_on_land_only(folds):
    found = equifinality(folds)
    means = np.stack([f.swe.mean("time", dtype="float64") for f in folds.values()])
    expected = means.std(axis=0, ddof=1)
    np.testing.assert_allclose(found.spread.sel(variable="swe"), expected, rtol=1e-9)
    assert np.isnan(found.spread.isel(variable=0, lat=0, lon=0))


def test_folds_that_cannot_be_compared_are_refused(folds):
    one, two, _ = folds.values()
    with pytest.raises(UserError, match="two or more"):
        equifinality({"fold-01": one})
    with pytest.raises(
        UserError, match="differs from the first predictions in its time"
    ):
        equifinality({"fold-01": one, "fold-02": two.isel(time=slice(1, None))})
    monthly = one.assign_attrs(frequency="monthly")
    with pytest.raises(UserError, match="without --monthly"):
        equifinality({"fold-01": monthly, "fold-02": monthly})
    untested = one.assign_coords(role=one.role * 0)
    with pytest.raises(UserError, match="no cell that tested"):
        equifinality({"fold-01": untested, "fold-02": untested})
    bare = one.drop_vars(list(one.data_vars))
    with pytest.raises(UserError, match="none of the variables"):
        equifinality({"fold-01": bare, "fold-02": bare})
