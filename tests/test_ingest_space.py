"""Ingest: the box, the coarser grid, and sources on different cells."""

import hypothesis
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from cf import DAYS, UNITS, grid, sites
from hypothesis import strategies as st
from stores import forcing, observations

from h2mv_tf.data.ingest import ingest
from h2mv_tf.data.ingest.cells import Cells
from h2mv_tf.data.store import Store

pytestmark = pytest.mark.filterwarnings("error")


def globe(size, south=-90.0, north=90.0, west=0.0, east=360.0):
    """A grid whose cells have their edges at multiples of their size."""
    lat = np.arange(north - size / 2, south, -size)
    return grid(lat=lat, lon=np.arange(west + size / 2, east, size), time=DAYS[:3])


# Boxes


@pytest.mark.parametrize(
    ("box", "lon"),
    [
        ((-60, -30, 60, 30), [-45, -15, 15, 45]),
        ((140, -30, -140, 30), [-165, 165]),  # across the date line
    ],
)
def test_a_box_is_cut_out_around_the_cells_centres(ingested, box, lon):
    store, report = ingested(globe(30), box=box)
    np.testing.assert_array_equal(store.land["lon"], lon)
    np.testing.assert_array_equal(store.land["lat"], [15, -15])
    assert report.cells == 2 * len(lon)


def test_sites_in_the_box_are_taken(ingested):
    store, _ = ingested(sites(), box=(-70, 40, -60, 90))
    assert list(store.cells["name"].values) == ["Halifax", "Iqaluit"]
    np.testing.assert_array_equal(
        forcing(store)[:, :, 2], sites()["tair"].values[:, :2].T
    )


def test_an_empty_box_is_refused_with_where_the_cells_are(refused):
    line = refused(grid(), box=(100, -10, 120, 10))
    assert "no cell of 'rn' in the box 100,-10,120,10" in line
    assert "lat 40 to 50, lon 0 to 20" in line


# Coarser grids


def test_a_coarse_cell_is_the_mean_by_area(ingested):
    source = globe(1, south=0, north=60, west=0, east=60)
    store, _ = ingested(source, regrid=30)
    np.testing.assert_array_equal(store.land["lat"], [45, 15])
    np.testing.assert_array_equal(store.land["lon"], [15, 45])
    north, south = np.radians(source.lat.values + 0.5), np.radians(source.lat - 0.5)
    area = xr.DataArray(np.sin(north) - np.sin(south), source.lat.coords)
    for column, name in enumerate(UNITS):
        part = source[name].isel(time=1).sel(lat=slice(60, 30), lon=slice(30, 60))
        mean = part.astype("float64").weighted(area).mean()
        assert forcing(store)[1, 1, column] == pytest.approx(float(mean), rel=1e-6)


def test_cells_around_the_poles_and_the_date_line_are_shared_out(ingested):
    # As in ERA5: centres at the poles and at longitude 0, here every 10 degrees.
    source = grid(lat=np.arange(90.0, -91, -10), lon=np.arange(0.0, 360, 10))
    values = 250 + source.lon / 36 + 0 * source["tair"]
    source["tair"] = values.transpose("time", ...).assign_attrs(units="K")
    store, _ = ingested(source, regrid=20, box=None)
    assert store.land.shape == (9, 18)
    tair = forcing(store)[:, 0, 2].reshape(9, 18)
    # Of 160 and 200 degrees half each, and of 170 all: 2 parts of 2.
    lon = store.land["lon"].values
    for at, parts in ((170, (160, 170, 180)), (-10, (340, 350, 0)), (10, (0, 10, 20))):
        expected = np.average(250 + np.array(parts) / 36, weights=[1, 2, 1])
        np.testing.assert_allclose(tair[:, list(lon).index(at)], expected, rtol=1e-6)


def test_a_coarse_cell_needs_values_on_half_of_its_area(ingested):
    source = globe(10, south=-10, north=10, west=0, east=40)
    parts = np.array([[1, 0, 1, 0], [1, 0, 0, 0]])  # a half and a quarter
    seen = xr.DataArray(parts, source["rn"].isel(time=0, drop=True).coords)
    store, report = ingested(source.where(seen == 1), regrid=20)
    np.testing.assert_array_equal(store.land, [[True, False]])
    assert any("1 cells left out: they lack forcing" in n for n in report.notes)


def test_the_mask_becomes_land_where_more_than_half_is(ingested):
    source = globe(15, south=0, north=30, west=0, east=60)
    land = np.array([[0, 0, 1, 1], [1, 1, 0, 0]])  # the equator has more area
    source["mask"] = (("lat", "lon"), land)
    source["elevation"] = (("lat", "lon"), land * 100.0)
    store, _ = ingested(source, regrid=30)
    np.testing.assert_array_equal(store.land, [[True, False]])
    share = np.sin(np.radians(15)) / np.sin(np.radians(30))
    np.testing.assert_allclose(store.static(), [[100 * share]], rtol=1e-5)


@pytest.mark.parametrize(
    ("source", "resolution", "words"),
    [
        (grid(), 15, "--regrid 15 is no whole multiple of the resolution of 'rn', 10"),
        (grid(), 5, "--regrid 5 is no whole multiple"),
        (sites(), 10, "--regrid needs a grid; found a list of sites"),
        (grid(lat=(50, 40, 20)), 20, "lat of 'rn' is 50, 40, 20"),
        (grid(), 40, "no whole cell of 40 degrees: its lat is from 35 to 55"),
    ],
)
def test_what_cannot_be_averaged_is_refused(refused, source, resolution, words):
    assert words in refused(source, regrid=resolution)


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    factor=st.integers(1, 4),
    rows=st.integers(1, 3),
    columns=st.integers(1, 4),
    corner=st.tuples(st.integers(-60, 40), st.integers(-150, 100)),
    size=st.sampled_from([0.25, 0.5, 2.0]),
    seed=st.integers(0, 99),
)
def test_averaging_conserves_the_total(factor, rows, columns, corner, size, seed):
    coarse = factor * size
    south, west = (
        origin + np.floor((at - origin) / coarse) * coarse
        for at, origin in zip(corner, (-90, -180), strict=True)
    )
    lat = south + size * (np.arange(rows * factor)[::-1] + 0.5)
    lon = west + size * (np.arange(columns * factor) + 0.5)
    hypothesis.assume(len(lat) > 1 and len(lon) > 1)
    values = np.random.default_rng(seed).normal(size=(1, len(lat), len(lon)))
    fine = xr.DataArray(
        values, {"time": DAYS[:1], "lat": lat, "lon": lon}, ("time", "lat", "lon")
    )
    means = Cells(resolution=coarse).regridded(fine)
    assert means.shape == (1, rows, columns)

    def total(data, size):
        edges = [np.sin(np.radians(data.lat + side * size / 2)) for side in (1, -1)]
        return float((data * (edges[0] - edges[1]) * size).sum())

    assert total(means, coarse) == pytest.approx(total(fine, size), abs=1e-9)


# Sources on different cells


def snowy(size):
    """Forcing every 10 degrees, and snow on cells of another size."""
    snow = globe(size, south=-40, north=40, west=0, east=80)["prec"].rename("swe")
    return {
        "forcing": globe(10, south=-40, north=40, west=0, east=80),
        "snow": snow.assign_attrs(units="mm").to_dataset(),
    }


def test_sources_of_different_resolutions_meet_on_the_coarser_grid(ingested):
    store, _ = ingested(snowy(5), regrid=20)
    assert store.land.shape == (3, 4)  # from 30 degrees south to north
    assert observations(store, "swe").shape == (12, 3)


def test_without_it_they_are_refused(refused):
    line = refused(snowy(5))
    assert "'rn' and 'swe' are at different places: 8 and 16 values of lat" in line
    assert "--regrid" in line


def test_rounded_coordinates_are_the_same_cells(ingested):
    sources = snowy(10)
    snow = sources["snow"]
    sources["snow"] = snow.assign_coords(lon=snow.lon.values.astype("float32") + 1e-4)
    store, _ = ingested(sources)
    assert store.constraints == ("swe",)
    np.testing.assert_array_equal(store.land["lon"], sources["forcing"].lon)


def test_one_point_that_was_cut_out_is_a_site(ingested):
    store, _ = ingested(grid().isel(lat=0, lon=1))
    assert store.land.dims == ("cell",)
    np.testing.assert_array_equal(store.cells["lat"], [50])
    np.testing.assert_array_equal(store.cells["lon"], [10])
    np.testing.assert_array_equal(
        forcing(store)[0, :, 2], grid()["tair"].isel(lat=0, lon=1)
    )


# Any grid, any chunks, any memory


@hypothesis.settings(max_examples=8)
@hypothesis.given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    north_up=st.booleans(),
    shift=st.integers(0, 8),
    chunks=st.tuples(st.integers(1, 20), st.integers(1, 7), st.integers(1, 9)),
    memory=st.sampled_from([2e3, 2e4, 2e9]),
    sea=st.integers(0, 2**16),
)
def test_any_grid_in_any_chunks_arrives_as_it_is(
    tmp_path_factory, shape, north_up, shift, chunks, memory, sea
):
    time = pd.date_range("2001-01-01", periods=20)
    lat = np.linspace(60, -60, shape[0]) if shape[0] > 1 else [10.0]
    lon = np.arange(-170, -170 + 40 * shape[1], 40.0)
    source = grid(lat=lat, lon=lon, time=time)
    land = np.random.default_rng(sea).random(shape) < 0.7
    land[0, 0] = True
    source["mask"] = (("lat", "lon"), land.astype("i1"))
    stored = source.assign_coords(lon=source.lon % 360).roll(
        lon=shift, roll_coords=True
    )
    if not north_up:
        stored = stored.isel(lat=slice(None, None, -1))
    folder = tmp_path_factory.mktemp("grid")
    chunks = tuple(map(min, chunks, (20, *shape)))
    encoding = {name: {"chunks": chunks} for name in UNITS}
    stored.to_zarr(
        folder / "source", encoding=encoding, zarr_format=2, consolidated=False
    )
    report = ingest(folder / "source", folder / "store", memory=memory)
    store = Store.open(folder / "store")
    assert report.cells == land.sum()
    np.testing.assert_array_equal(store.land, land)
    for column, name in enumerate(UNITS):
        expected = source[name].values[:, land].T
        np.testing.assert_array_equal(forcing(store)[..., column], expected)
        raw = xr.open_zarr(folder / "store", group=name, consolidated=False)["data"]
        assert np.isnan(raw.values[:, ~land]).all()
