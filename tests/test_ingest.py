"""Ingest: what comes out is what went in, in the registry's units, or one clear line.

Data sets are made here, as small files with the habits of real ones; the last
tests read real ERA5 data where it lies beside the project.
"""

import subprocess
import sys
import warnings
from pathlib import Path

import netCDF4  # noqa: F401  its import may warn of NumPy's version
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from cf import DAYS, SITES, UNITS, grid, sites
from stores import forcing, observations

from h2mv_tf.data.ingest import ingest
from h2mv_tf.data.store import Store
from h2mv_tf.errors import UserError
from h2mv_tf.variables import VARIABLES

ERA5 = Path(__file__).parents[2] / "shared/real/era5_daily_canadian_cities_1990_1993.nc"
pytestmark = pytest.mark.filterwarnings("error")


# Layouts


def test_sites_come_through_with_their_values_places_and_names(ingested):
    source = sites()
    store, report = ingested(source)
    for column, name in enumerate(UNITS):
        np.testing.assert_array_equal(
            forcing(store)[:, :, column], source[name].transpose().values
        )
    assert forcing(store).dtype == np.float32
    assert list(store.cells["name"].values) == ["Halifax", "Iqaluit", "Montréal"]
    np.testing.assert_array_equal(store.cells["lat"], SITES["lat"])
    np.testing.assert_array_equal(store.cells["lon"], SITES["lon"])
    np.testing.assert_array_equal(store.time, DAYS)
    assert report.cells == 3
    assert report.period == (DAYS[0], DAYS[-1])


@pytest.mark.parametrize("lat", [(50.0, 40.0), (40.0, 50.0)])
@pytest.mark.parametrize("lon", [(0.0, 10.0, 350.0), (-10.0, 0.0, 10.0)])
def test_grids_run_from_north_to_south_and_from_west_to_east(ingested, lat, lon):
    source = grid(lat=lat, lon=lon)
    store, _ = ingested(source)
    np.testing.assert_array_equal(store.land["lat"], [50, 40])
    np.testing.assert_array_equal(store.land["lon"], [-10, 0, 10])
    west = np.argsort([x - 360 if x > 180 else x for x in lon])
    expected = source["tair"].sel(lat=[50, 40]).isel(lon=west)
    np.testing.assert_array_equal(
        forcing(store)[:, :, 2], expected.values.reshape(len(DAYS), -1).T
    )


@pytest.mark.parametrize(
    "renamed",
    [
        {"lat": "latitude", "lon": "longitude"},
        {"lat": "y", "lon": "x", "time": "valid_time"},
    ],
)
def test_coordinates_are_known_by_long_and_by_standard_names(ingested, renamed):
    source = grid()
    for name, long in (("lat", "latitude"), ("lon", "longitude"), ("time", "time")):
        source[name].attrs["standard_name"] = long
    store, _ = ingested(source.rename(renamed))
    np.testing.assert_array_equal(forcing(store), ingested_plain(source))


def ingested_plain(source):
    """Forcing (cells, days, 3) of a grid, without ingest."""
    return np.stack(
        [source[name].values.reshape(len(DAYS), -1).T for name in UNITS], axis=-1
    )


def test_coordinates_need_not_be_the_dimensions(ingested):
    source = grid().rename_dims(lat="row", lon="column")
    source = source.drop_indexes(["lat", "lon"])
    store, _ = ingested(source)
    np.testing.assert_array_equal(forcing(store), ingested_plain(source))
    np.testing.assert_array_equal(store.land["lat"], [50, 40])


@pytest.mark.parametrize("dims", [("lon", "lat", "time"), ("lat", "time", "lon")])
def test_dims_come_in_any_order(ingested, dims):
    source = grid()
    store, _ = ingested(source.transpose(*dims))
    np.testing.assert_array_equal(forcing(store), ingested_plain(source))


def test_a_dim_of_size_one_is_no_hindrance(ingested):
    source = grid()
    raised = source.assign(tair=source["tair"].expand_dims(height=[2.0], axis=1))
    store, _ = ingested(raised)
    np.testing.assert_array_equal(forcing(store), ingested_plain(source))


def test_sites_may_have_their_places_and_names_as_plain_variables(ingested):
    source = sites("station").drop_vars("station").reset_coords()
    source["station_name"] = ("station", np.array(["a", "b", "ö"], object))
    source["station_id"] = ("station", [7, 8, 9], {"cf_role": "timeseries_id"})
    store, _ = ingested(source)
    assert list(store.cells["name"].values) == ["a", "b", "ö"]
    np.testing.assert_array_equal(store.cells["lat"], SITES["lat"])
    assert "station_id" not in store.static_names


def test_a_variable_that_is_called_cell_is_no_hindrance(ingested):
    source = sites().assign(cell=("location", [7, 8, 9]))
    store, _ = ingested(source)
    assert "cell" not in store.static_names
    np.testing.assert_array_equal(forcing(store)[..., 2], source["tair"].values.T)


def test_names_in_bytes_are_text_afterwards(ingested):
    source = sites("station").drop_vars("station")
    source["name"] = ("station", [n.encode() for n in ("Québec", "Malmö", "Ulm")])
    store, _ = ingested(source)
    assert list(store.cells["name"].values) == ["Québec", "Malmö", "Ulm"]


def test_sites_without_names_have_none(ingested):
    store, _ = ingested(sites().drop_vars("location"))
    assert "name" not in store.cells


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_is_read_and_both_formats_written(ingested, zarr_format):
    source = grid()
    store, _ = ingested(source, suffix=".zarr", zarr_format=zarr_format)
    assert (store.path / ".zgroup").exists() == (zarr_format == 2)
    np.testing.assert_array_equal(forcing(store), ingested_plain(source))


# Time


def test_noon_stamps_become_days(ingested):
    noon = DAYS + pd.Timedelta(hours=12)
    store, report = ingested(sites(time=noon))
    np.testing.assert_array_equal(store.time, DAYS)
    assert report.period == (DAYS[0], DAYS[-1])
    raw = xr.open_zarr(store.path, group="rn", consolidated=False, chunks=None)
    np.testing.assert_array_equal(raw["time"], DAYS)


def test_days_out_of_order_are_sorted_with_their_values(ingested):
    source = sites()
    store, _ = ingested(source.isel(time=[3, 0, 5, 1, 4, 2]))
    np.testing.assert_array_equal(store.time, DAYS)
    np.testing.assert_array_equal(forcing(store)[:, :, 0], source["rn"].values.T)


@pytest.mark.parametrize(
    ("time", "found"),
    [
        (
            pd.date_range("2001-01-01", periods=4, freq="MS"),
            "2001-01-01 followed by 2001-02-01, first of 3 such steps",
        ),
        (DAYS.delete(2), "2001-01-31 followed by 2001-02-02, first of 1"),
        (DAYS[:1], "1 time step"),
    ],
)
def test_time_that_is_not_daily_is_refused(refused, time, found):
    line = refused(sites(time=time))
    assert "time has to be daily without gaps" in line
    assert found in line


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_other_calendars_are_refused_by_name(refused, calendar):
    time = xr.date_range("2001-01-01", periods=6, calendar=calendar, use_cftime=True)
    line = refused(sites(time=time))
    assert f"calendar '{calendar}'" in line
    assert "convert_calendar" in line


def test_time_without_dates_is_refused(refused):
    assert "without dates" in refused(sites(time=np.arange(6)))


# Units


FORCING_UNITS = {  # what one stored value is in native units
    "rn": [
        ("W m-2", 40, 40),
        ("W m**-2", 40, 40),
        ("J m-2 d-1", 86400 * 40, 40),
        ("MJ m-2 day-1", 8.64, 100),
    ],
    "prec": [
        ("mm d-1", 5, 5),
        ("mm day-1", 5, 5),
        ("mm/day", 5, 5),
        ("kg m-2 s-1", 5 / 86400, 5),
        ("kg m-2 d-1", 5, 5),
        ("m s-1", 5e-3 / 86400, 5),
        ("mm h-1", 0.5, 12),
        ("cm d-1", 0.5, 5),
    ],
    "tair": [
        ("K", 280, 280),
        ("degC", 10, 283.15),
        ("Celsius", -10, 263.15),
        ("degF", 50, 283.15),
    ],
}


@pytest.mark.parametrize("case", range(8))
def test_forcing_comes_in_any_units_that_convert(ingested, case):
    source = sites()
    cases = {name: of[case % len(of)] for name, of in FORCING_UNITS.items()}
    for name, (units, stored, _) in cases.items():
        source[name] = xr.full_like(source[name], stored, "float64")
        source[name].attrs = {"units": units}
    store, report = ingested(source)
    for column, (name, (units, _, native)) in enumerate(cases.items()):
        np.testing.assert_allclose(forcing(store)[:, :, column], native, rtol=1e-6)
        row = report.rows[column]
        assert (row.group, row.source) == (name, name)
        assert (row.source_units, row.units) == (units, UNITS[name])
        assert (row.minimum, row.maximum) == pytest.approx((native, native))
        raw = xr.open_zarr(store.path, group=name, consolidated=False, chunks=None)
        assert raw["data"].attrs["units"] == UNITS[name]
        assert raw["data"].attrs["source_units"] == units


CONSTRAINT_UNITS = {
    "tws": [("cm", -3, -30), ("kg m-2", -30, -30)],
    "evapotranspiration": [("kg m-2 s-1", 2 / 86400, 2), ("mm d-1", 2, 2)],
    "runoff": [("mm d-1", 2, 2), ("m s-1", 2e-3 / 86400, 2)],
    "swe": [
        ("m", 0.25, 250),
        ("kg m-2", 250, 250),
        ("m of water equivalent", 0.25, 250),
    ],
    "fapar": [("%", 25, 0.25), ("1", 0.25, 0.25), ("", 0.25, 0.25)],
}


@pytest.mark.parametrize("case", range(3))
def test_constraints_too(ingested, case):
    source = sites()
    cases = {name: of[case % len(of)] for name, of in CONSTRAINT_UNITS.items()}
    for name, (units, stored, _) in cases.items():
        group = VARIABLES[name].group
        source[group] = xr.full_like(source["rn"], stored, "float64")
        source[group].attrs = {"units": units}
    store, _ = ingested(source)
    assert store.constraints == tuple(cases)
    for name, (_, _, native) in cases.items():
        assert store.calendar(name).daily
        np.testing.assert_allclose(observations(store, name), native, rtol=1e-6)


@pytest.mark.parametrize("units", ["kg m-2", "", "furlong", "mm of rain", "("])
def test_units_that_do_not_convert_are_refused(refused, units):
    source = sites()
    source["prec"].attrs["units"] = units
    line = refused(source)
    assert f"'prec' has units '{units}'" in line
    assert "precipitation [mm d-1]" in line
    assert "--map prec=" in line


@pytest.mark.parametrize(("name", "units"), [("prec", "m"), ("rn", "J m-2")])
def test_sums_of_a_day_are_told_what_their_units_are(refused, name, units):
    source = sites()
    source[name].attrs["units"] = units
    assert f"If it is the sum of each day, its units are '{units} d-1'" in refused(
        source
    )


def test_missing_units_are_refused(refused):
    source = sites()
    del source["tair"].attrs["units"]
    line = refused(source)
    assert "'tair' has no units. Expected air_temperature [K]" in line


def test_forcing_beyond_all_weather_is_refused(refused):
    source = sites()
    source["tair"] = source["tair"] - 273.15
    source["tair"].attrs["units"] = "K"
    line = refused(source)
    assert "air_temperature [K] (tair) has to lie between 170 and 340" in line
    assert "found -23.15 at Halifax, lat 44.5, lon -63.4 on 2001-01-30" in line
    assert "units 'K' right?" in line


# Finding variables


def cmip():
    """Sites with CMIP names and no net radiation, only its two parts."""
    source = sites(tair="tas", prec="pr")
    source["rss"] = source["rn"] + 8
    source["rls"] = source["rn"] * 0 - 8
    for part in ("rss", "rls"):
        source[part].attrs["units"] = "W m-2"
    return source


def test_net_radiation_is_the_sum_of_its_parts(ingested):
    source = cmip()
    store, report = ingested(source.drop_vars("rn"))
    np.testing.assert_array_equal(forcing(store)[:, :, 0], source["rn"].values.T)
    assert report.rows[0].source == "rss+rls"


def test_parts_in_different_units_are_converted_before_they_are_added(ingested):
    source = cmip()
    source["rls"] = source["rls"] * 86400
    source["rls"].attrs["units"] = "J m-2 d-1"
    store, report = ingested(source.drop_vars("rn"))
    np.testing.assert_allclose(
        forcing(store)[:, :, 0], source["rn"].values.T, atol=1e-4
    )
    assert report.rows[0].source_units == "W m-2, J m-2 d-1"


@pytest.mark.parametrize("key", ["rn", "net_radiation", "rss+rls"])
def test_the_user_has_the_first_word(ingested, key):
    source = cmip().rename(rss="ssr", rls="str")
    source["rn"][:] = 0
    store, report = ingested(source, mapping={key: "ssr + str"})
    np.testing.assert_array_equal(
        forcing(store)[:, :, 0], (source["ssr"] + source["str"]).values.T
    )
    assert report.rows[0].source == "ssr+str"


def test_an_own_name_comes_before_a_standard_name(ingested):
    source = sites()
    source["snw"] = xr.full_like(source["rn"], 3)
    source["snw"].attrs = {"units": "kg m-2", "standard_name": "surface_snow_amount"}
    source["swe"] = xr.full_like(source["rn"], 0.25)
    source["swe"].attrs = {"units": "m"}
    store, report = ingested(source)
    assert (observations(store, "swe") == 250).all()
    assert [row.source for row in report.rows if row.group == "swe"] == ["swe"]


STANDARD_NAMES = [
    {
        "rn": ("surface_net_downward_radiative_flux", "W m-2"),
        "prec": ("precipitation_flux", "mm d-1"),
        "tair": ("air_temperature", "K"),
        "tws": ("land_water_amount", "kg m-2"),
        "et": ("water_evapotranspiration_flux", "mm d-1"),
        "q": ("runoff_flux", "mm d-1"),
        "swe": ("surface_snow_amount", "kg m-2"),
        "fapar": (
            "fraction_of_surface_downwelling_photosynthetic_radiative_flux_"
            "absorbed_by_vegetation",
            "1",
        ),
    },
    {
        "prec": ("lwe_precipitation_rate", "mm d-1"),
        "et": ("lwe_water_evaporation_rate", "mm d-1"),
        "swe": ("lwe_thickness_of_surface_snow_amount", "mm"),
    },
]


@pytest.mark.parametrize("standard_names", STANDARD_NAMES)
def test_variables_are_known_by_standard_name(ingested, standard_names):
    source = sites()
    for number, (group, (standard_name, units)) in enumerate(standard_names.items()):
        data = source.get(group, sites()["rn"] * 0).rename(f"var{number}")
        data.attrs = {"units": units, "standard_name": standard_name}
        source = source.drop_vars(group, errors="ignore").assign({data.name: data})
    _, report = ingested(source)
    taken = {row.group: row.source for row in report.rows}
    for number, group in enumerate(standard_names):
        assert taken[group] == f"var{number}"


def test_parts_are_known_by_standard_name(ingested):
    source = cmip().rename(rss="a", rls="b")
    source["a"].attrs["standard_name"] = "surface_net_downward_shortwave_flux"
    source["b"].attrs["standard_name"] = "surface_net_downward_longwave_flux"
    _, report = ingested(source.drop_vars("rn"))
    assert report.rows[0].source == "a+b"


def temperatures(methods):
    """Sites with several temperatures of one standard name."""
    source = sites()
    for name, method in methods.items():
        source[name] = source["tair"] + len(name)
        source[name].attrs = {"units": "K", "standard_name": "air_temperature"}
        source[name].attrs["cell_methods"] = method
    return source.drop_vars("tair")


def test_of_several_with_a_standard_name_the_daily_mean_is_taken(ingested):
    source = temperatures(
        {
            "highest": "time: maximum within days",
            "average": "area: time: mean (interval: 1 hour)",
            "lowest": "time: minimum within days",
        }
    )
    store, report = ingested(source)
    np.testing.assert_array_equal(forcing(store)[:, :, 2], source["average"].values.T)
    assert report.rows[2].source == "average"


@pytest.mark.parametrize("method", ["time: mean", "time: point"])
def test_otherwise_the_choice_is_the_users(refused, method):
    line = refused(temperatures({"here": method, "there": method}))
    assert "air_temperature [K] could be any of here, there" in line
    assert "--map tair=here" in line


def test_an_ambiguous_part_is_named(refused):
    source = cmip().rename(rss="a", rls="b")
    source["a"].attrs["standard_name"] = "surface_net_downward_shortwave_flux"
    source["b"].attrs["standard_name"] = "surface_net_downward_longwave_flux"
    source["c"] = source["b"]
    line = refused(source.drop_vars("rn"))
    assert "any of b, c" in line
    assert "--map rn=a+b" in line


def test_forcing_that_is_not_there_is_named_with_what_was_looked_for(refused):
    line = refused(sites(prec="rain"))
    assert "there is no precipitation [mm d-1]" in line
    assert "names precipitation, prec, pr" in line
    assert "standard names precipitation_flux, lwe_precipitation_rate" in line
    assert "found along time: rn, rain, tair" in line
    assert "--map prec=VARIABLE" in line


def test_a_variable_without_time_is_no_forcing(refused):
    source = sites()
    source["prec"] = source["prec"].isel(time=0)
    assert "there is no precipitation" in refused(source)


def test_the_mapping_names_what_exists(refused):
    line = refused(sites(), mapping={"prec": "rain+snow"})
    assert "--map prec=rain+snow: there is no 'rain'. Found: rn, prec, tair" in line


def test_the_mapping_is_of_the_stores_variables(refused):
    line = refused(sites(), mapping={"wind": "rn"})
    assert "--map wind=rn names no variable of the store" in line
    assert "rn, prec, tair, tws, et, q, swe, fapar, tws_sigma, " in line
    assert "fapar_sigma, mask" in line


def test_the_mapping_cannot_leave_out_forcing(refused):
    assert "there is no precipitation" in refused(sites(), mapping={"prec": ""})


def test_a_constraint_can_be_left_out(ingested, refused):
    humid = sites()
    humid["q"] = xr.full_like(humid["rn"], 0.01)
    humid["q"].attrs = {"units": "kg kg-1", "standard_name": "specific_humidity"}
    assert "'q' has units 'kg kg-1', which do not convert to runoff" in refused(humid)
    store, _ = ingested(humid, mapping={"q": ""})
    assert store.constraints == ()


def test_missing_observations_stay_missing(ingested):
    source = sites()
    source["et"] = source["prec"].copy(deep=True)
    source["et"][0, :] = np.nan
    source["et"][1, 0] = np.inf
    store, report = ingested(source)
    missing = np.isnan(observations(store, "evapotranspiration"))
    assert missing[:, 0].all()
    assert missing[0, 1]
    assert missing.sum() == 4
    (row,) = (row for row in report.rows if row.group == "et")
    assert row.missing == pytest.approx(4 / 18)
    assert np.isfinite(row.maximum)


def test_fill_values_are_missing_values(ingested):
    source = sites()
    source["et"] = source["prec"].copy(deep=True)
    source["et"][0, 0] = np.nan
    source["et"].encoding = {
        "_FillValue": -9999,
        "dtype": "int16",
        "scale_factor": 0.125,
    }
    store, _ = ingested(source)
    observed = observations(store, "evapotranspiration")
    assert np.isnan(observed[0, 0])
    np.testing.assert_allclose(observed[:, 1], source["prec"].values[1], atol=0.07)


# Precipitation below zero


def test_rounding_below_zero_is_no_rain_and_is_counted(ingested):
    source = sites()
    source["prec"][:2, 0] = -5e-10 * 86400
    source["prec"][2, 1] = -0.09
    store, report = ingested(source)
    assert (forcing(store)[0, :2, 1] == 0).all()
    assert forcing(store)[1, 2, 1] == 0
    assert (forcing(store)[..., 1] == 0).sum() == 3
    assert any("3 values of precipitation from -0.09 to 0" in n for n in report.notes)
    assert report.rows[1].minimum == 0


def test_rain_is_not_counted_as_rounding(ingested):
    _, report = ingested(sites())
    assert not any("precipitation from" in note for note in report.notes)


def test_more_than_rounding_below_zero_is_refused(refused):
    source = sites()
    source["prec"][3, 1] = -0.2
    line = refused(source)
    assert "precipitation [mm d-1] (prec) has to lie between 0 and 2500" in line
    assert "found -0.2 at Iqaluit, lat 63.75, lon -68.4 on 2001-02-02" in line


# Land and gaps


def test_cells_without_any_forcing_are_sea(ingested):
    source = grid()
    source = source.where((source.lat != 50) | (source.lon != 10))
    store, report = ingested(source)
    expected = [[True, False, True], [True, True, True]]
    np.testing.assert_array_equal(store.land, expected)
    assert report.cells == 5
    assert any("1 cells left out: they lack forcing" in note for note in report.notes)
    assert np.isfinite(forcing(store)).all()
    assert np.isfinite(store.static()).all()
    assert all(row.missing == 0 for row in report.rows)


@pytest.mark.parametrize("gap", [np.nan, np.inf])
def test_a_gap_in_forcing_is_refused_with_variable_cell_and_date(refused, gap):
    source = sites()
    source["prec"][2:, 2] = gap
    line = refused(source)
    assert "precipitation [mm d-1] (prec) is missing at Montréal" in line
    assert "lat -10, lon 25 on 2001-02-01, first of 4 missing values" in line


def test_one_forcing_missing_where_others_are_not_is_a_gap(refused):
    source = grid()
    source["tair"][:, 1, 2] = np.nan
    line = refused(source)
    assert "air_temperature [K] (tair) is missing at lat 40, lon 20" in line
    assert "on 2001-01-30, first of 6" in line


def test_no_forcing_at_all_is_refused(refused):
    source = sites()
    for name in UNITS:
        source[name][:] = np.nan
    line = refused(source)
    assert "none of the 3 cells is land: 3 cells left out: they lack forcing" in line


MASKS = {
    "mask": ("1", [[0, 1, 1], [0, 1, 0]]),
    "sftlf": ("%", [[0, 100, 51], [50, 80, 20]]),
    "lsm": ("1", [[0, 1, 0.51], [0.5, 0.8, 0.2]]),
    "frac": ("%", [[0, 100, 51], [50, 80, np.nan]]),
}


@pytest.mark.parametrize(
    ("name", "over_time"), [*((name, False) for name in MASKS), ("lsm", True)]
)
def test_a_land_mask_is_taken_by_name_or_standard_name(ingested, name, over_time):
    units, values = MASKS[name]
    source = grid()
    source["prec"][2, 0, 0] = np.nan  # sea may have gaps
    source[name] = (("lat", "lon"), np.array(values, float), {"units": units})
    if name in ("lsm", "frac"):
        source[name].attrs["standard_name"] = (
            "land_binary_mask" if name == "lsm" else "land_area_fraction"
        )
    if over_time:
        source[name] = source[name].expand_dims(time=source["time"])
    store, report = ingested(source)
    np.testing.assert_array_equal(
        store.land, [[False, True, True], [False, True, False]]
    )
    assert report.cells == 3
    assert name not in store.static_names


def test_the_user_may_name_the_mask(ingested):
    source = grid()
    source["ours"] = (("lat", "lon"), [[0, 1, 1], [0, 1, 0]])
    source["mask"] = (("lat", "lon"), np.ones((2, 3)))
    store, _ = ingested(source, mapping={"mask": "ours"})
    assert store.land.sum() == 3
    assert not {"ours", "mask"} & set(store.static_names)


def test_land_of_the_mask_without_forcing_is_left_out_and_counted(ingested):
    source = grid()
    source = source.where((source.lat != 50) | (source.lon != 10))
    source["mask"] = (("lat", "lon"), [[0, 1, 1], [0, 1, 0]])
    store, report = ingested(source)
    assert store.land.sum() == report.cells == 2
    assert any("1 cells left out: they lack forcing" in note for note in report.notes)


def test_a_mask_without_land_is_refused(refused):
    source = grid()
    source["mask"] = (("lat", "lon"), np.zeros((2, 3)))
    assert "none of the 6 cells is land: 'mask' is 0 everywhere" in refused(source)


# Static inputs


def test_static_inputs_are_the_numbers_without_time(ingested):
    source = grid()
    source["elevation"] = (("lon", "lat"), np.arange(6.0).reshape(3, 2), {"units": "m"})
    source["soil_type"] = (("lat", "lon"), np.arange(6).reshape(2, 3))
    source["crs"] = ((), 0, {"grid_mapping_name": "latitude_longitude"})
    source["lat_bnds"] = (("lat", "bnds"), np.zeros((2, 2)))
    source["comment"] = (("lat", "lon"), np.full((2, 3), "x"))
    store, report = ingested(source)
    assert store.static_names == ("elevation", "soil_type")
    np.testing.assert_array_equal(
        store.static(), np.stack([[0, 2, 4, 1, 3, 5], np.arange(6)], axis=-1)
    )
    rows = [row for row in report.rows if row.group == "static"]
    assert [(row.name, row.source, row.units) for row in rows] == [
        ("elevation", "elevation", "m"),
        ("soil_type", "soil_type", ""),
    ]
    assert (rows[0].minimum, rows[0].maximum) == (0, 5)


def test_a_coordinate_of_the_sites_is_a_static_input(ingested):
    source = sites().assign_coords(elevation=("location", [1.0, 2.0, 3.0]))
    store, _ = ingested(source)
    assert store.static_names == ("elevation",)
    np.testing.assert_array_equal(store.static(), [[1], [2], [3]])


def test_where_there_are_none_they_are_derived_and_named(ingested):
    source = sites()
    store, report = ingested(source)
    assert store.static_names == (
        "latitude",
        "longitude",
        "mean_net_radiation",
        "mean_precipitation",
        "mean_air_temperature",
    )
    expected = [
        SITES["lat"],
        SITES["lon"],
        *(source[name].astype("float64").mean("time") for name in UNITS),
    ]
    np.testing.assert_allclose(store.static(), np.transpose(expected), rtol=1e-6)
    assert any("derived latitude, longitude, mean_net" in n for n in report.notes)


def test_position_is_derived_on_grids_too(ingested):
    store, _ = ingested(grid())
    np.testing.assert_array_equal(store.static()[:, 0], [50, 50, 50, 40, 40, 40])
    np.testing.assert_array_equal(store.static()[:, 1], [0, 10, 20, 0, 10, 20])


@pytest.mark.parametrize("gap", [np.nan, np.inf])
def test_cells_that_lack_a_static_input_are_left_out_and_counted(ingested, gap):
    source = sites().assign(elevation=("location", [1.0, gap, 3.0]))
    store, report = ingested(source)
    assert list(store.cells["name"].values) == ["Halifax", "Montréal"]
    assert any("1 cells left out: they lack elevation" in n for n in report.notes)


def test_a_static_input_that_is_nowhere_is_refused(refused):
    source = sites().assign(elevation=("location", np.full(3, np.nan)))
    line = refused(source)
    assert "none of the 3 cells is land: 3 cells left out: they lack elevation" in line


# What is refused as a whole


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no file '.*nothing\.nc'"):
        ingest(tmp_path / "nothing.nc", tmp_path / "store.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["text", "truncated", "folder"])
def test_what_is_neither_netcdf_nor_zarr_is_told(tmp_path, kind):
    source = tmp_path / "source.nc"
    if kind == "folder":
        source.mkdir()
    elif kind == "text":
        source.write_text("a,b\n1,2\n")
    else:
        sites().to_netcdf(tmp_path / "whole.nc")
        source.write_bytes((tmp_path / "whole.nc").read_bytes()[:500])
    with pytest.raises(UserError) as caught:
        ingest(source, tmp_path / "store.zarr")
    line = str(caught.value)
    assert "\n" not in line
    assert f"'{source}' cannot be read; expected NetCDF or Zarr" in line
    assert not (tmp_path / "store.zarr").exists()


def test_what_exists_is_never_overwritten(tmp_path):
    sites().to_netcdf(tmp_path / "source.nc")
    (tmp_path / "store.zarr").write_text("dear to someone")
    with pytest.raises(UserError, match=r"store\.zarr' exists"):
        ingest(tmp_path / "source.nc", tmp_path / "store.zarr")
    assert (tmp_path / "store.zarr").read_text() == "dear to someone"


@pytest.mark.parametrize("name", ["time", "lat", "lon"])
def test_a_missing_coordinate_is_named(refused, name):
    long = {"lat": "latitude", "lon": "longitude"}.get(name, name)
    line = refused(grid().drop_vars(name))
    assert f"there is no coordinate {long}" in line


def test_a_curvilinear_grid_is_refused(refused):
    lat, lon = np.meshgrid([50.0, 40.0], [0.0, 10.0, 20.0], indexing="ij")
    source = grid().rename_dims(lat="y", lon="x").drop_vars(["lat", "lon"])
    source = source.assign_coords(lat=(("y", "x"), lat), lon=(("y", "x"), lon))
    line = refused(source)
    assert "the layout is unknown: time(time), lat(y, x), lon(y, x)" in line


def test_a_further_dim_is_refused(refused):
    source = grid()
    source["tair"] = source["tair"].expand_dims(member=2)
    line = refused(source)
    assert "'tair' has dims (member, time, lat, lon)" in line
    assert "Expected time, lat, lon" in line


# What the store says of itself


def test_arrays_carry_cf_attributes_and_their_source(ingested):
    source = cmip().drop_vars("rn").assign_attrs(title="Test", history="made")
    store, _ = ingested(source)
    raw = xr.open_zarr(store.path, group="rn", consolidated=False, chunks=None)
    attributes = raw["data"].attrs
    assert attributes["standard_name"] == "surface_net_downward_radiative_flux"
    assert attributes["long_name"]
    assert attributes["source"] == "rss+rls"
    assert raw["data"].dtype == np.float32
    assert raw["lat"].attrs["units"] == "degrees_north"
    mask = xr.open_zarr(store.path, group="mask", consolidated=False, chunks=None)
    assert mask["data"].attrs["standard_name"] == "land_binary_mask"
    root = xr.open_zarr(store.path, consolidated=False, chunks=None).attrs
    assert root["title"] == "Test"
    assert root["source"] == "source.nc"
    first, second = root["history"].split("\n")
    assert "ingest source.nc" in first
    assert second == "made"


# Real data


@pytest.fixture(scope="module")
def era5(tmp_path_factory):
    if not ERA5.exists():
        pytest.skip(f"the real data are not there: {ERA5}")
    path = tmp_path_factory.mktemp("era5") / "store.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = ingest(ERA5, path)
    with xr.open_dataset(ERA5) as source:
        return source.load(), Store.open(path), report


def test_era5_forcing_is_found_summed_and_converted(era5):
    source, store, _ = era5
    series = forcing(store)
    assert series.shape == (5, 1461, 3)
    rn, prec, tair = np.moveaxis(series, -1, 0)
    np.testing.assert_allclose(rn, source["rss"] + source["rls"], atol=1e-4)
    pr = source["pr"].values.astype("float64") * 86400
    np.testing.assert_allclose(prec, np.maximum(pr, 0), rtol=1e-6)
    assert pr.min() < 0
    np.testing.assert_array_equal(tair, source["tas"])


def test_era5_snow_is_in_millimetres(era5):
    source, store, _ = era5
    assert store.constraints == ("swe",)
    assert store.calendar("swe").daily
    np.testing.assert_allclose(
        observations(store, "swe"), 1000 * source["swe"], rtol=1e-6
    )


def test_era5_cities_keep_their_names_and_places(era5):
    source, store, _ = era5
    names = ["Halifax", "Montréal", "Iqaluit", "Saskatoon", "Victoria"]
    assert list(store.cells["name"].values) == names
    np.testing.assert_array_equal(store.cells["lat"], source["lat"])
    np.testing.assert_array_equal(store.cells["lon"], source["lon"])


def test_era5_report_tells_what_was_taken_from_where(era5):
    _, _, report = era5
    taken = {
        row.group: (row.source, row.source_units, row.units) for row in report.rows
    }
    assert taken["rn"] == ("rss+rls", "W m-2", "W m-2")
    assert taken["prec"] == ("pr", "kg m-2 s-1", "mm d-1")
    assert taken["tair"] == ("tas", "K", "K")
    assert taken["swe"] == ("swe", "m", "mm")
    assert report.cells == 5
    assert [str(day.date()) for day in report.period] == ["1990-01-01", "1993-12-31"]
    assert any("234 values of precipitation" in note for note in report.notes)
    assert all(row.missing == 0 for row in report.rows)


def test_ingest_prints_nothing_and_needs_no_tensorflow(tmp_path):
    sites().to_netcdf(tmp_path / "source.nc")
    code = (
        "import sys; from h2mv_tf.data.ingest import ingest; "
        "ingest('source.nc', 'store.zarr'); "
        "assert 'tensorflow' not in sys.modules"
    )
    # Inside libraries: with NumPy from 2.5 on, and in Matplotlib before 3.10.8.
    modules = (
        "flox.xrdtypes",
        "matplotlib._fontconfig_pattern",
        "matplotlib._mathtext",
    )
    ignored = [f"-Wignore::DeprecationWarning:{module}" for module in modules]
    strict = ["-W", "error", *ignored]
    done = subprocess.run(
        [sys.executable, *strict, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
