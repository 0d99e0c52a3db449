"""The check: each row, each mistake by its words, and its mend."""

import numpy as np
import pandas as pd
import pytest
from stores import (
    LEVEL,
    MONTHS,
    at_sites,
    field,
    forcing,
    refuse,
    with_value,
    world,
)

from h2mv_tf.data.check import Check
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import stored_statistics, survey
from h2mv_tf.data.writing import write_store
from h2mv_tf.errors import UserError

pytestmark = pytest.mark.filterwarnings("error")


def observed_world():
    return world() | {"swe": field(5)}


@pytest.mark.parametrize("gap", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("group", "label"),
    [("rn", "net_radiation [W m-2]"), ("tair", "air_temperature [K]")],
)
def test_a_gap_in_forcing_is_told_with_cell_and_first_date(refusal, group, label, gap):
    fields = observed_world()
    fields[group] = with_value(fields[group], gap, cell=(1, 0))
    line = refusal(fields, refuse)
    assert f"{label} is missing at cell 2 (lat 40, lon 0) on 2001-01-04" in line
    assert "first of 87 missing values" in line
    assert "mask to 0" in line


def test_a_site_is_told_by_name(refusal):
    fields = observed_world()
    fields["prec"] = with_value(fields["prec"], np.nan, cell=(1, 0))
    line = refusal(at_sites(fields), refuse)
    assert "precipitation [mm d-1] is missing at cell 2 (d, lat 40, lon 0)" in line


def test_a_gap_in_static_inputs_is_told_with_cell_and_no_date(refusal):
    fields = observed_world()
    fields["static"] = with_value(fields["static"], np.nan, cell=(1, 2), step=1)
    line = refusal(fields, refuse)
    assert "static input 'sand' is missing at cell 3 (lat 40, lon 20), first" in line


def test_celsius_is_recognised(refusal):
    fields = observed_world()
    fields["tair"] = fields["tair"] - 273.15
    line = refusal(fields, refuse)
    assert "air_temperature [K] has to lie between 170 and 340; found 6.85" in line
    assert "at cell 0 (lat 50, lon 10) on 2001-01-01, first of 360 values" in line
    assert "It looks like degC: convert it to K" in line


@pytest.mark.parametrize(
    ("group", "value", "between"),
    [
        ("prec", -1.0, "0 and 2500"),
        ("rn", 5000.0, "-500 and 1000"),
        ("tair", 400, "170"),
    ],
)
def test_values_beyond_the_registrys_bounds_are_told(refusal, group, value, between):
    fields = observed_world()
    fields[group] = with_value(fields[group], value)
    line = refusal(fields, refuse)
    assert f"has to lie between {between}" in line
    assert f"found {value:g} at cell 0 (lat 50, lon 10) on 2001-01-04" in line
    assert "Convert its units" in line
    assert "degC" not in line


@pytest.mark.parametrize(
    ("group", "bounds"), [("prec", (0, 2500)), ("tair", (170, 340))]
)
def test_the_bounds_themselves_are_allowed(stored, group, bounds):
    fields = observed_world()
    fields[group] = with_value(with_value(fields[group], bounds[0]), bounds[1], step=9)
    values = forcing(stored(fields))[..., list(LEVEL).index(group)]
    assert values[0, 3] == bounds[0]
    assert values[0, 9] == bounds[1]


def test_a_constraint_without_any_value_is_told(refusal):
    fields = world() | {"tws": field(0, MONTHS) * np.nan}
    line = refusal(fields, refuse)
    assert "'tws' has no observation at any land cell in the period" in line


def years(level, swing=0.0):
    """Two years of daily values that vary."""
    time = pd.date_range("2001-01-01", "2002-12-31")
    data = field(level, time)
    return data + swing * np.sin(np.arange(len(time)) / 58)[:, None, None]


def long_world():
    """Two years in plausible units."""
    fields = world() | {name: years(level, 5) for name, level in LEVEL.items()}
    return fields | {"prec": years(5), "swe": years(30)}


@pytest.fixture
def checked(stored):
    def run(fields, constraints=None):
        return Check.of(survey(stored(fields), constraints))

    return run


def words(check, serious=None):
    return [str(f) for f in check.findings if serious in (None, f.serious)]


def test_a_sound_store_has_a_row_for_each_variable_and_no_finding(checked):
    check = checked(observed_world() | {"tws": field(0, MONTHS)})
    assert check.findings == ()
    assert [row.name for row in check.rows] == [
        "net_radiation",
        "precipitation",
        "air_temperature",
        "tws",
        "swe",
        "elevation",
        "sand",
    ]
    rows = {row.name: row for row in check.rows}
    assert rows["precipitation"].units == "mm d-1"
    assert rows["precipitation"].plausible == "0 to 2500"
    assert rows["precipitation"].period == "2001-01-01 to 2001-03-31"
    assert rows["tws"].step == "monthly"
    assert rows["swe"].step == "daily"
    assert rows["swe"].chunks == "90 x 2 x 3"
    # Land is all but the first and the fifth of 2 x 3 cells.
    assert rows["net_radiation"].low == pytest.approx(50 + 1 / 256)
    assert rows["net_radiation"].high == pytest.approx(50 + 539 / 256)


def test_missing_observations_are_counted(checked):
    fields = observed_world()
    fields["swe"] = with_value(fields["swe"], np.nan, step=0)
    fields["swe"] = with_value(fields["swe"], np.nan, cell=(1, 2), step=45)
    (row,) = [row for row in checked(fields).rows if row.name == "swe"]
    assert row.unobserved == 1
    assert row.missing == pytest.approx((90 + 45) / 360)
    assert row.gaps == 0


def test_months_that_the_time_axis_leaves_out_are_gaps(checked):
    months = pd.to_datetime(["2001-01-15", "2001-03-15"])
    rows = checked(world() | {"tws": field(0, months)}).rows
    assert [row.gaps for row in rows if row.name == "tws"] == [1]


def test_all_that_is_serious_is_found_and_the_first_is_told(stored):
    fields = observed_world()
    fields["tair"] = fields["tair"] - 273.15
    fields["prec"] = with_value(fields["prec"], np.nan)
    store = stored(fields)
    check = Check.of(survey(store))
    assert [f.variable for f in check.serious] == ["precipitation", "air_temperature"]
    with pytest.raises(UserError, match="There is 1 more: see `python -m h2mv_tf"):
        check.refuse()


@pytest.mark.parametrize(
    ("group", "units", "how"),
    [
        ("prec", "kg m-2 s-1", "which convert to mm d-1"),
        ("prec", "m", "which are not like mm d-1"),
        ("tair", "degC", "which convert to K"),
        ("swe", "m", "which convert to mm"),
    ],
)
def test_units_that_the_attribute_tells_are_compared(checked, group, units, how):
    fields = observed_world()
    fields[group].attrs["units"] = units
    (line,) = words(checked(fields), serious=True)
    assert f"has the units '{units}', {how}" in line
    assert "h2mv_tf ingest" in line


@pytest.mark.parametrize("units", ["mm/day", "kg m-2 d-1", "mm d-1"])
def test_other_words_for_the_same_units_are_no_mistake(checked, units):
    fields = observed_world()
    fields["prec"].attrs["units"] = units
    assert checked(fields).findings == ()


def test_a_year_of_precipitation_in_metres_is_suspected(checked):
    fields = long_world()
    fields["prec"] = fields["prec"] / 1000
    (line,) = words(checked(fields), serious=True)
    assert "precipitation [mm d-1] does not go beyond 0.0" in line
    assert "Its units may be others" in line


def test_the_attribute_settles_a_suspicion(checked):
    fields = long_world()
    fields["prec"] = (fields["prec"] / 1000).assign_attrs(units="mm d-1")
    check = checked(fields)
    assert not check.serious
    assert "does not go beyond" in words(check)[0]


def test_little_snow_is_no_mistake(checked):
    fields = long_world()
    fields["swe"] = fields["swe"] / 100
    check = checked(fields)
    assert not check.serious
    assert "swe [mm] does not go beyond" in words(check)[0]


def test_fapar_in_percent_is_recognised(checked):
    fields = world() | {"fapar": field(40, MONTHS)}
    (line,) = words(checked(fields), serious=True)
    assert "It looks like percent. Divide it by 100" in line


def test_observations_that_the_model_cannot_reach_are_told(checked):
    fields = observed_world()
    fields["et"] = with_value(field(1, MONTHS), -0.1, step=2)
    (line,) = words(checked(fields))
    assert "8.33% of the values of evapotranspiration [mm d-1]" in line
    assert "within 0 or more" in line


@pytest.mark.parametrize("group", ["rn", "tair"])
def test_weather_that_never_changes_is_a_mistake(checked, group):
    fields = observed_world()
    fields[group] = fields[group] * 0 + 280
    (line,) = words(checked(fields), serious=True)
    assert "is 280 everywhere on all days" in line


def test_what_is_constant_and_harmless_is_a_note(checked):
    fields = observed_world()
    fields["swe"] = fields["swe"] * 0
    fields["static"][1] = 4.0
    check = checked(fields)
    assert not check.serious
    assert len(check.findings) == 2
    assert "swe [mm] is 0 wherever it is observed" in words(check)[0]
    assert "Static input 'sand' is 4 at all cells" in words(check)[1]


def test_a_store_without_any_constraint_is_refused(checked):
    (line,) = words(checked(world()), serious=True)
    assert "observes no constraint" in line
    assert "tws, et, q, swe, fapar" in line


def test_a_chunk_that_is_gone_is_counted(stored):
    store = stored(observed_world())
    (store.path / "swe/data/c/0/0/0").unlink()
    lines = words(Check.of(survey(store)), serious=True)
    assert any("1 chunks of 'swe/data' are gone" in line for line in lines)


def test_maps_are_told_where_they_cost(checked, monkeypatch):
    monkeypatch.setattr("h2mv_tf.data.check.LARGE_BLOCK", 1000)
    (line,) = words(checked(observed_world()))
    assert "chunks hold maps rather than series" in line


# What the survey knows


def test_statistics_are_those_of_the_training_cells_alone(stored):
    fields = observed_world() | {"tws": field(0, MONTHS)}
    found = survey(stored(fields))
    cells = np.array([0, 2])
    statistics = found.statistics(cells)
    expected = forcing(found.store)[cells].reshape(-1, 3).astype("f8")
    for column, moments in enumerate(statistics.forcing.values()):
        assert moments.mean == pytest.approx(expected[:, column].mean(), rel=1e-12)
        assert moments.std == pytest.approx(expected[:, column].std(), rel=1e-9)
    assert statistics.static["elevation"].mean == pytest.approx((1 + 3) / 2 / 256)
    # Each cell rises by 6 / 256 a month: the deviation is that of the anomalies.
    assert statistics.constraints["tws"] == (
        0.0,
        pytest.approx(6 / 256 * (2 / 3) ** 0.5),
    )


def test_gaps_do_not_bias_the_statistics(stored):
    fields = observed_world()
    fields["swe"] = with_value(fields["swe"], np.nan, cell=(0, 1), step=10)
    found = survey(stored(fields))
    values = np.asarray(fields["swe"].astype("f4"))[:, [0, 0], [1, 2]]
    moments = found.statistics(np.array([0, 1])).constraints["swe"]
    assert moments.mean == pytest.approx(np.nanmean(values, dtype="f8"), rel=1e-12)
    assert moments.std == pytest.approx(np.nanstd(values, dtype="f8"), rel=1e-9)


def test_months_with_an_observation_are_counted_however_few_days_they_have(stored):
    fields = observed_world()
    days = fields["swe"].time.dt.day.isin([3, 11, 19])
    fields["swe"] = fields["swe"].where(days)
    found = survey(stored(fields)).series
    assert (found["swe"].count == 3 * found["swe"].months).all()
    assert (found["swe"].months == len(MONTHS)).all()


def test_another_cells_data_changes_no_statistic(stored, tmp_path):
    fields = observed_world()
    one = survey(stored(fields)).statistics(np.array([0, 1, 2]))
    for name in ("rn", "swe", "static"):
        fields[name] = with_value(fields[name], 77.0, cell=(1, 2), step=0)
    write_store(tmp_path / "other.zarr", fields)
    other = survey(Store.open(tmp_path / "other.zarr"))
    assert other.statistics(np.array([0, 1, 2])) == one


def test_a_constant_input_is_centred_and_not_scaled(stored, caplog):
    fields = observed_world()
    fields["rn"] = fields["rn"] * 0 + 7
    statistics = survey(stored(fields)).statistics(np.arange(4))
    assert statistics.forcing["net_radiation"] == (7.0, 1.0)
    assert "net_radiation is 7" in caplog.text


def test_a_constraint_that_hardly_varies_is_not_scaled(stored, caplog):
    fields = observed_world()
    fields["swe"] = fields["swe"] * 1e-20
    assert survey(stored(fields)).statistics(np.arange(4)).constraints["swe"].std == 1
    assert "swe is " in caplog.text


def test_a_constraint_without_observation_at_the_training_cells_is_refused(stored):
    fields = observed_world()
    for cell in ((0, 1), (0, 2)):
        fields["swe"] = with_value(fields["swe"], np.nan, cell=cell, step=0)
    with pytest.raises(UserError, match="'swe' has no observation at any of the 2"):
        survey(stored(fields)).statistics(np.array([0, 1]))


def test_statistics_of_the_store_are_its_attributes(stored):
    fields = observed_world()
    with_moments = {"rn": 1.0, "prec": 2.0, "tair": 3.0, "swe": 4.0}
    for group, mean in with_moments.items():
        fields[group].attrs = {"mean": mean, "std": 2.0}
    fields["static"].attrs = {"mean": [0.0, 1.0], "std": [5.0, 5.0]}
    statistics = stored_statistics(stored(fields), ["swe"])
    assert statistics.constraints == {"swe": (4.0, 2.0)}
    assert statistics.forcing["precipitation"] == (2.0, 2.0)
    assert statistics.static["sand"] == (1.0, 5.0)


def test_a_survey_tells_where_there_are_observations(stored):
    fields = world() | {"tws": field(0, MONTHS)}
    fields["tws"] = with_value(fields["tws"], np.nan, cell=(0, 2), step=1)
    seen = survey(stored(fields)).observed
    np.testing.assert_array_equal(
        seen.months, [[True] * 3, [True, False, False], [True] * 3, [True] * 3]
    )
    assert not seen.days.any()
