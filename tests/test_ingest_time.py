"""Ingest: from any time steps to days and months, or one clear line."""

import hypothesis
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from cf import DAYS, UNITS, grid, sites
from hypothesis import strategies as st
from stores import forcing, observations

pytestmark = pytest.mark.filterwarnings("error")

RAIN, HEAT = list(UNITS).index("prec"), list(UNITS).index("tair")


def at_steps(time, **units):
    """Sites whose every variable counts the steps: 0, 1, 2, ..., and 100 a site."""
    source = sites(time=time)
    count = np.arange(len(time))[:, None] + 100 * np.arange(3)
    for name in UNITS:
        source[name] = source[name].copy(data=count.astype("float32"))
        source[name].attrs["units"] = units.get(name, UNITS[name])
    source["prec"] = source["prec"].copy(data=source["prec"].values / 100)
    return source.assign(tair=(source["tair"] / 100 + 250).assign_attrs(units="K"))


def hours(days=3, freq="h", start="2001-01-30"):
    """Time stamps at the start of the steps of whole days."""
    return pd.date_range(start, periods=days * round(24 / _hours(freq)), freq=freq)


def _hours(freq):
    return pd.Timedelta(pd.tseries.frequencies.to_offset(freq)) / pd.Timedelta(hours=1)


# Within days


@pytest.mark.parametrize("freq", ["h", "3h", "30min"])
def test_steps_within_days_are_averaged(ingested, freq):
    time = hours(freq=freq)
    store, report = ingested(at_steps(time, prec="mm h-1"))
    count = len(time) // 3
    means = (count - 1) / 2 + count * np.arange(3)
    np.testing.assert_array_equal(store.time, DAYS[:3])
    np.testing.assert_allclose(forcing(store)[0, :, RAIN], 24 * means / 100, rtol=1e-6)
    np.testing.assert_allclose(forcing(store)[0, :, HEAT], 250 + means / 100, rtol=1e-6)
    assert f"rn, prec, tair: means of the {count} steps of a day" in report.notes


def test_amounts_within_days_are_added_up_from_stamps_at_the_end(ingested):
    # As in ERA5: the rain of 00:00 fell on the day before.
    time = hours() + pd.Timedelta(hours=1)
    source = at_steps(time, prec="m")
    rain = np.full((72, 3), 1e-3, "float32")
    rain[23] = 5e-3  # stamped 2001-01-31 00:00
    source["prec"] = source["prec"].copy(data=rain)
    source = source.drop_vars(["rn", "tair"])
    other = at_steps(hours()).drop_vars("prec")
    store, report = ingested({"rain": source, "other": other})
    np.testing.assert_allclose(forcing(store)[:, 0, RAIN], 28, rtol=1e-6)
    np.testing.assert_allclose(forcing(store)[:, 1:, RAIN], 24, rtol=1e-6)
    assert "prec: sums of the 24 steps of a day" in report.notes


def test_the_user_may_tell_that_stamps_are_at_the_start(ingested):
    source = at_steps(hours(), prec="mm")
    source["prec"] = (source["prec"] * 100 % 7).assign_attrs(units="mm")
    store, _ = ingested(source, stamps="start")
    sums = source["prec"].values[:, 0].reshape(3, 24).sum(axis=1)
    np.testing.assert_allclose(forcing(store)[0, :, RAIN], sums, rtol=1e-6)


def test_days_that_are_not_whole_at_the_ends_are_left_out_and_told(ingested):
    time = hours(days=4)[5:-1]
    store, report = ingested(at_steps(time))
    np.testing.assert_array_equal(store.time, DAYS[1:3])
    np.testing.assert_allclose(
        forcing(store)[0, :, HEAT], 250 + (19 + 11.5 + 24 * np.arange(2)) / 100
    )
    assert any("not whole at the ends left out" in note for note in report.notes)


def test_running_totals_of_energy_and_rain_give_the_total_of_the_day(ingested):
    # As in ERA5-Land: from 01:00 to 00:00 of the next day, since midnight.
    time = hours(days=4) + pd.Timedelta(hours=1)
    rng = np.random.default_rng(1)
    rain = rng.gamma(0.3, 1e-3, (4, 24, 3))
    glow = np.abs(rng.normal(0, 3e5, (4, 24, 3)))
    source = at_steps(time, prec="m", rn="J m-2")
    for name, steps in (("prec", rain), ("rn", glow)):
        totals = steps.cumsum(axis=1).reshape(96, 3)
        source[name] = source[name].copy(data=totals)
    store, report = ingested(source)
    np.testing.assert_array_equal(store.time, DAYS[1:4])  # the first lacks a tair
    np.testing.assert_allclose(
        forcing(store)[:, :, RAIN], 1000 * rain.sum(axis=1)[1:].T, rtol=1e-5
    )
    np.testing.assert_allclose(
        forcing(store)[:, :, 0], glow.sum(axis=1)[1:].T / 86400, rtol=1e-5
    )
    assert any("prec: running totals since midnight" in n for n in report.notes)


def test_a_missing_step_makes_a_missing_day(refused, ingested):
    time = hours()
    line = refused(at_steps(time).isel(time=np.r_[:30, 31:72]))
    assert "net_radiation [W m-2] (rn) is missing at Halifax" in line
    assert "on 2001-01-31, first of 3 missing values" in line


def test_observations_miss_the_day_of_a_missing_step(ingested):
    source = at_steps(hours())
    snow = source["rn"].copy(deep=True).rename("swe").assign_attrs(units="mm")
    snow[30, 1] = np.nan
    store, _ = ingested(source.assign(swe=snow))
    missing = np.isnan(observations(store, "swe"))
    np.testing.assert_array_equal(missing, [[0, 0, 0], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("time", "words"),
    [
        (pd.date_range("2001-01-30", periods=30, freq="5h"), "do not divide a day"),
        (hours().delete(5).insert(5, pd.Timestamp("2001-01-30 05:20")), "do not fit"),
        (hours(days=1)[3:20], "no whole day"),
        (hours().delete(5).insert(5, hours()[4]), "2001-01-30 04:00 twice"),
    ],
)
def test_irregular_steps_are_refused(refused, time, words):
    line = refused(at_steps(time))
    assert "'rn'" in line
    assert words in line


# Where the stamps are


def test_bounds_tell_where_a_step_is(ingested):
    source = at_steps(DAYS + pd.Timedelta(days=1))  # at the end of each day
    source["time_bnds"] = (
        ("time", "nv"),
        np.stack([DAYS, DAYS + pd.Timedelta(days=1)], axis=1),
    )
    source["time"].attrs["bounds"] = "time_bnds"
    source["time"].encoding["units"] = "hours since 2000-01-01"
    store, _ = ingested(source, stamps="start")
    np.testing.assert_array_equal(store.time, DAYS)
    assert "time_bnds" not in store.static_names


def test_days_may_be_stamped_at_their_end(ingested):
    store, _ = ingested(at_steps(DAYS + pd.Timedelta(days=1)), stamps="end")
    np.testing.assert_array_equal(store.time, DAYS)


# Daily sums


def test_daily_sums_are_taken_where_their_cell_methods_tell(ingested):
    source = at_steps(DAYS, prec="m")
    source["prec"] = (source["prec"] * 0 + 0.004).assign_attrs(
        units="m", cell_methods="area: mean time: sum"
    )
    store, _ = ingested(source)
    np.testing.assert_allclose(forcing(store)[:, :, RAIN], 4, rtol=1e-6)


# Longer steps of observations


def with_slow(values, time, units="mm", name="tws", **attributes):
    """A hundred days of forcing, and observations of other steps at the sites."""
    time = pd.DatetimeIndex(time)
    values = np.broadcast_to(np.asarray(values, "float64")[:, None], (len(time), 3))
    slow = sites(time=time)[["rn"]].rename(rn=name)
    slow[name] = slow[name].copy(data=values).assign_attrs(units=units, **attributes)
    forced = at_steps(pd.date_range("2001-01-01", periods=100))
    return {"forcing": forced, "slow": slow}


def test_months_may_be_stamped_anywhere_in_them(ingested):
    stamps = ["2001-01-16 12:00", "2001-02-15", "2001-03-31"]
    store, _ = ingested(with_slow([1, 2, 3], stamps))
    assert not store.calendar("tws").daily
    np.testing.assert_allclose(observations(store, "tws")[0, :3], [1, 2, 3])


def test_two_solutions_of_a_month_are_averaged(ingested):
    # As in GRACE, whose months are not those of the calendar.
    stamps = ["2001-01-03", "2001-01-30", "2001-03-15"]
    store, report = ingested(with_slow([1, 2, 5], stamps))
    values = observations(store, "tws")[0]
    assert (values[0], values[2]) == (1.5, 5)
    assert np.isnan(values[1])
    assert any("tws: steps of" in note for note in report.notes)


def test_composites_of_eight_days_become_months(ingested):
    time = pd.date_range("2001-01-01", periods=12, freq="8D")
    store, report = ingested(with_slow(np.arange(12) / 100, time, "1", "fapar"))
    values = observations(store, "fapar")[0]
    np.testing.assert_allclose(values[:3], [0.015, 0.055, 0.095], rtol=1e-6)
    assert "fapar: steps of 8 days averaged to months" in report.notes


@pytest.mark.parametrize(
    ("units", "methods"), [("mm month-1", {}), ("mm", {"cell_methods": "time: sum"})]
)
def test_amounts_of_a_month_are_of_its_days(ingested, units, methods):
    time = pd.date_range("2001-01-01", periods=3, freq="MS")
    slow = with_slow([31, 56, 93], time, units, "et", **methods)
    store, _ = ingested(slow)
    observed = observations(store, "evapotranspiration")
    np.testing.assert_allclose(observed[:, :3], [[1, 2, 3]] * 3, rtol=1e-6)


def test_years_are_too_long(refused):
    time = pd.date_range("1999-01-01", periods=4, freq="YS")
    line = refused(with_slow([1, 2, 3, 4], time))
    assert "'tws' has steps of 365 days" in line


# Periods


def test_a_period_is_cut_out(ingested):
    time = pd.date_range("2000-12-01", "2001-03-31")
    store, report = ingested(sites(time=time), period=("2001-01", "2001-02-15"))
    assert [f"{day:%F}" for day in report.period] == ["2001-01-01", "2001-02-15"]
    np.testing.assert_array_equal(
        forcing(store)[:, :, HEAT],
        sites(time=time)["tair"].sel(time=slice("2001-01-01", "2001-02-15")).values.T,
    )


def test_a_period_without_data_is_refused(refused):
    line = refused(sites(), period=("2010", "2011"))
    assert "net_radiation [W m-2] (rn) has no value in the period" in line


def test_forcing_of_different_periods_is_cut_to_the_common_one_and_told(ingested):
    source = sites(time=DAYS)
    parts = {
        "radiation": source[["rn"]].isel(time=slice(0, 5)),
        "weather": source[["prec", "tair"]].isel(time=slice(2, 6)),
    }
    store, report = ingested(parts)
    np.testing.assert_array_equal(store.time, DAYS[2:5])
    (note,) = (note for note in report.notes if note.startswith("cut to"))
    assert "rn 2001-01-30 to 2001-02-03, prec 2001-02-01 to 2001-02-04" in note


def test_forcing_without_a_common_day_is_refused(refused):
    source = sites(time=DAYS)
    parts = {
        "a": source[["rn"]].isel(time=slice(0, 3)),
        "b": source[["prec", "tair"]].isel(time=slice(3, 6)),
    }
    assert "the forcing has no days in common: rn 2001-01-30 to" in refused(parts)


# Any calendar, any gaps


@hypothesis.settings(max_examples=15)
@hypothesis.given(
    calendar=st.sampled_from(
        ["standard", "proleptic_gregorian", "noleap", "360_day", "julian"]
    ),
    gaps=st.lists(st.integers(1, 8), max_size=2, unique=True),
)
def test_a_calendar_and_its_gaps_are_taken_or_refused_by_name(
    tmp_path_factory, calendar, gaps
):
    from h2mv_tf.data.ingest import ingest
    from h2mv_tf.errors import UserError

    folder = tmp_path_factory.mktemp("calendar")
    time = xr.date_range("2001-02-24", periods=10, calendar=calendar, use_cftime=True)
    source = grid(time=pd.date_range("2001-02-24", periods=10)).assign_coords(time=time)
    source.drop_isel(time=np.array(gaps, int)).to_netcdf(folder / "source.nc")
    refused = ""
    try:
        report = ingest(folder / "source.nc", folder / "store.zarr")
    except UserError as error:
        refused = str(error)
    if calendar not in ("standard", "proleptic_gregorian"):
        assert f"calendar '{calendar}'" in refused
    elif gaps:
        before = pd.Timestamp("2001-02-24") + pd.Timedelta(days=min(gaps) - 1)
        assert f"{before:%F} followed by" in refused
    else:
        assert refused == ""
        assert [f"{day:%F}" for day in report.period] == ["2001-02-24", "2001-03-05"]
    assert (folder / "store.zarr").exists() == (not refused)
