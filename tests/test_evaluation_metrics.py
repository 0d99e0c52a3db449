"""The parts of an evaluation by themselves: values worked by hand, and limits."""

import hydroeval
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from h2mv_tf import objective, physics
from h2mv_tf.evaluation import (
    balance,
    baselines,
    blocks,
    emergent,
    regions,
    scales,
    scoring,
)
from h2mv_tf.evaluation.metrics import METRICS, metrics

YEARS = pd.date_range("2001-01-01", "2002-12-31")
MONTHS = pd.date_range("2001-01-01", periods=24, freq="MS")


def series(values, time=None):
    """(cell, time) of a list of values, or of lists."""
    values = np.atleast_2d(np.asarray(values, "float64"))
    coordinates = {} if time is None else {"time": time[: values.shape[1]]}
    return xr.DataArray(values, coordinates, ("cell", "time"))


def scored(prediction, observation, **options):
    found = metrics(series(prediction), series(observation), "time", **options)
    return dict(zip(METRICS, found.isel(cell=0).values, strict=True))


# Metrics


def test_every_metric_has_the_value_worked_by_hand():
    # Means 3 and 2; deviations -2, 0, 2 and -1, 0, 1; errors 0, 1, 2.
    found = scored([1, 3, 5], [1, 2, 3])
    expected = {
        "nse": 1 - 5 / 2,
        "r": 1,
        "alpha": 2,
        "beta": 1.5,
        "kge": 1 - np.sqrt(0 + 1 + 0.25),
        "kge_2012": 1 - np.sqrt(0 + (2 / 1.5 - 1) ** 2 + 0.25),
        "rmse": np.sqrt(5 / 3),
        "ubrmse": np.sqrt(2 / 3),
        "bias": 1,
        "percent_bias": 50,
    }
    assert found == pytest.approx(expected, abs=1e-12)
    assert set(expected) == set(METRICS)


def test_metrics_agree_with_an_independent_library(rng):
    observation = rng.gamma(2, 3, (40, 200))
    prediction = observation * rng.uniform(0.5, 1.5, (40, 1)) + rng.normal(
        0, 2, (40, 200)
    )
    observation[rng.random(observation.shape) < 0.2] = np.nan
    found = metrics(series(prediction), series(observation), "time")
    for n in range(40):
        pair = prediction[n], observation[n]
        kge, r, alpha, beta = hydroeval.evaluator(hydroeval.kge, *pair)[:, 0]
        expected = {
            "nse": hydroeval.evaluator(hydroeval.nse, *pair)[0],
            "kge": kge,
            "r": r,
            "alpha": alpha,
            "beta": beta,
            "kge_2012": hydroeval.evaluator(hydroeval.kgeprime, *pair)[0, 0],
            "rmse": hydroeval.evaluator(hydroeval.rmse, *pair)[0],
            # Of this library, observed minus simulated.
            "percent_bias": -hydroeval.evaluator(hydroeval.pbias, *pair)[0],
        }
        ours = found.isel(cell=n)
        for name, value in expected.items():
            assert abs(float(ours.sel(metric=name)) - value) < 1e-10, name


def test_a_perfect_prediction_scores_one_and_errs_by_nothing(rng):
    values = rng.random(50)
    found = scored(values, values)
    for name in ("nse", "kge", "kge_2012", "r", "alpha", "beta"):
        assert found[name] == pytest.approx(1, abs=1e-12)
    for name in ("rmse", "ubrmse", "bias", "percent_bias"):
        assert found[name] == pytest.approx(0, abs=1e-12)


def test_the_error_is_that_of_the_mean_and_of_the_rest(rng):
    found = scored(rng.random(50) + 3, rng.random(50))
    assert found["rmse"] ** 2 == pytest.approx(
        found["ubrmse"] ** 2 + found["bias"] ** 2
    )


def test_only_pairs_count():
    nan = np.nan
    whole = scored([1, 3, 5], [1, 2, 3])
    assert scored([1, 9, 3, 5, nan], [1, nan, 2, 3, 7]) == pytest.approx(whole)


def defined(found):
    return {name for name, value in found.items() if np.isfinite(value)}


def test_one_pair_has_an_error_and_nothing_else():
    found = scored([1, 3], [np.nan, 2])
    assert defined(found) == {"rmse", "bias"}
    assert found["bias"] == 1
    assert defined(scored([3], [2])) == {"rmse", "bias"}


@pytest.mark.parametrize("size", [0, 1, 3])
def test_nothing_is_defined_without_a_pair(size):
    assert defined(scored([1.0] * size, [np.nan] * size)) == set()


# 0.1 has no exact mean, so that its variance is not exactly 0.
@pytest.mark.parametrize("level", [2, 0.1])
def test_a_constant_observation_has_no_efficiency(level):
    found = scored([1, 2, 3] * 20, [level] * 60)
    assert defined(found) == {"beta", "rmse", "ubrmse", "bias", "percent_bias"}


def test_a_constant_prediction_is_scored_without_correlation():
    found = scored([0.1] * 60, [1, 2, 3] * 20)
    assert defined(found) == set(METRICS) - {"kge", "kge_2012", "r"}
    assert found["alpha"] == pytest.approx(0, abs=1e-12)


def test_no_ratio_is_taken_to_a_mean_of_zero():
    assert defined(scored([1, 2, 4], [0, 0, 0])) == {"rmse", "ubrmse", "bias"}
    undefined = {"kge", "kge_2012", "beta", "percent_bias"}
    assert defined(scored([1, 2, 4], [-1, 0, 1])) == set(METRICS) - undefined


def test_anomalies_have_no_ratio_of_means():
    found = scored([1.1, 2, 3], [1, 2, 3], anomalies=True)
    assert defined(found) == set(METRICS) - {"kge", "kge_2012", "beta", "percent_bias"}


def test_a_cell_does_not_change_the_score_of_another():
    alone = scored([1, 3, 5], [1, 2, 3])
    observation = series([[1, 2, 3], [np.nan] * 3, [4, 4, 4]])
    prediction = series([[1, 3, 5], [1, 2, 3], [1, 2, 3]])
    found = metrics(prediction, observation, "time").isel(cell=0)
    assert dict(zip(METRICS, found.values, strict=True)) == pytest.approx(alone)


# Scales


def test_months_are_averaged_over_the_observed_days_alone():
    days = pd.date_range("2001-01-01", "2001-01-31")
    prediction = series(np.arange(31.0), days)
    observation = series(np.full(31, np.nan), days)
    observation[0, [2, 4]] = [10, 20]
    pair = scales.base_pairs(prediction, observation)["monthly"]
    assert pair.prediction.values.tolist() == [[3]]
    assert pair.observation.values.tolist() == [[15]]


def test_half_a_month_is_not_compared():
    days = pd.date_range("2001-01-15", "2001-03-14")
    observed = pd.date_range("2001-01-01", periods=3, freq="MS")
    prediction = series(np.arange(len(days)), days)
    pair = scales.base_pairs(prediction, series([1, 2, 3], observed))["monthly"]
    assert pair.observation.time.dt.month.values.tolist() == [2]
    assert pair.observation.values.tolist() == [[2]]
    assert pair.prediction.values.tolist() == [[17 + 13.5]]
    with_days = scales.base_pairs(prediction, prediction)
    assert with_days["daily"].observation.sizes["time"] == len(days)
    assert with_days["monthly"].observation.time.dt.month.values.tolist() == [2]


def test_monthly_observations_have_no_daily_scale():
    pairs = scales.base_pairs(
        series(np.arange(len(YEARS)), YEARS), series(np.arange(24), MONTHS)
    )
    assert list(scales.at_pairs(pairs)) == ["monthly", "seasonal", "anomaly"]


def test_a_month_with_a_gap_in_the_prediction_is_not_compared():
    prediction = series(np.arange(len(YEARS), dtype=float), YEARS)
    prediction[0, 5] = np.nan
    pair = scales.base_pairs(prediction, series(np.arange(24), MONTHS))["monthly"]
    assert pair.observation.isnull().values.tolist() == [[True] + [False] * 23]


def test_cycle_and_anomaly_are_those_worked_by_hand():
    observation = np.arange(24.0)  # January has 0 and 12
    observation[[1, 14]] = np.nan  # February is observed in no, March in one year
    observation[13] = np.nan
    prediction = 2 * np.arange(24.0)
    pairs = scales.at_pairs(
        scales.base_pairs(series(prediction, MONTHS), series(observation, MONTHS))
    )
    seasonal, anomaly = pairs["seasonal"], pairs["anomaly"]
    assert seasonal.observation.values[0, :4].tolist()[::2] == [6, 2]
    assert seasonal.prediction.values[0, :4].tolist()[::2] == [12, 4]
    assert np.isnan(seasonal.observation.values[0, 1])
    assert anomaly.observation.values[0, [0, 12]].tolist() == [-6, 6]
    assert anomaly.prediction.values[0, [0, 12]].tolist() == [-12, 12]
    # Of a month that is observed once there is no anomaly.
    assert np.isnan(anomaly.observation.values[0, [1, 2, 13, 14]]).all()


def test_one_year_has_no_anomaly():
    base = scales.base_pairs(series(np.arange(12.0), MONTHS), series(range(12), MONTHS))
    scores, count = scoring.scored(base)
    of_anomaly = scales.SCALES.index("anomaly")
    assert count[of_anomaly] == 0
    assert np.isnan(scores[of_anomaly]).all()
    assert count[scales.SCALES.index("seasonal")] == 12


def test_what_has_no_anomaly_has_no_score_of_rounding():
    cycle = np.tile(np.arange(12) / 7 + 0.1, 2)
    base = scales.base_pairs(series(cycle, MONTHS), series(cycle + 0.3, MONTHS))
    scores, _ = scoring.scored(base)
    of_anomaly = scores[scales.SCALES.index("anomaly"), :, 0]
    assert np.isnan(of_anomaly[METRICS.index("nse")])
    assert of_anomaly[METRICS.index("rmse")] == 0


def test_anomalies_are_centred_on_the_observed_months():
    observation = [np.nan, 1, 2, 3]
    pair = scales.base_pairs(
        series([100, 5, 6, 10], MONTHS), series(observation, MONTHS), anomalies=True
    )["monthly"]
    assert pair.prediction.values[0, 1:].tolist() == [-2, -1, 3]
    assert pair.observation.values[0, 1:].tolist() == [-1, 0, 1]
    assert np.isnan(pair.prediction.values[0, 0])


def test_deep_snow_agrees_with_deeper_only_where_both_are_deep():
    days = YEARS[:31]
    prediction, observation = np.full(31, 80.0), np.full(31, 80.0)
    prediction[:3] = 300, 300, 90
    observation[:3] = 101, 99, 101
    pair = scales.base_pairs(
        series(prediction, days), series(observation, days), saturation=100
    )["daily"]
    difference = (pair.prediction - pair.observation).values[0]
    assert difference[:3].tolist() == [0, 201, -11]
    assert blocks.SATURATING == objective.SATURATING


def test_a_monthly_prediction_meets_the_mean_of_the_observed_days():
    observation = series(np.full(len(YEARS), np.nan), YEARS)
    observation[0, [0, 1]] = [1, 3]
    pairs = scales.base_pairs(series(np.arange(24.0) + 5, MONTHS), observation)
    assert list(pairs) == ["monthly"]
    assert pairs["monthly"].observation.values[0, 0] == 2
    assert pairs["monthly"].prediction.values[0, 0] == 5


# Regions

# Mean of the months [degC] and precipitation [mm d-1] of made-up places.
WARM, MILD, HARSH = 26 * np.ones(12), 12 * np.ones(12), np.zeros(12)
SUMMER = np.cos(2 * np.pi * (np.arange(12) - 6) / 12)  # warmest in July


@pytest.mark.parametrize(
    ("celsius", "rain", "climate"),
    [
        (WARM, 5 * np.ones(12), "tropical"),
        (WARM, 0.3 * np.ones(12), "arid"),
        (MILD + 8 * SUMMER, 3 * np.ones(12), "temperate"),
        (MILD - 8 * SUMMER, 3 * np.ones(12), "temperate"),  # of the south
        (HARSH + 15 * SUMMER, 2 * np.ones(12), "cold"),
        (HARSH + 5 * SUMMER, 2 * np.ones(12), "polar"),
        (HARSH - 30 + 5 * SUMMER, np.zeros(12), "polar"),
        (WARM, np.zeros(12), "arid"),
    ],
)
def test_made_up_climates_have_their_group(celsius, rain, climate):
    assert group(celsius, rain) == regions.CLIMATES.index(climate) + 1


def group(celsius, rain):
    month = {"month": np.arange(1, 13)}
    return int(
        regions.climates(
            xr.DataArray(celsius + 273.15, month), xr.DataArray(rain, month)
        )
    )


def test_rain_in_summer_has_to_be_more_before_a_place_is_no_desert():
    # At 15 degC the threshold is 10 (2 x 15 + 28) = 580 mm with rain in summer,
    # 440 mm with rain all over the year and 300 mm with rain in winter.
    celsius = 15 + 10 * SUMMER
    in_summer = np.isin(np.arange(1, 13), np.arange(4, 10))

    def climate(summer, millimetres):
        share = np.where(in_summer, summer, 1 - summer) / 6
        return group(celsius, millimetres * share / regions.DAYS)

    arid, temperate = 2, 3
    assert (climate(0.8, 575), climate(0.8, 585)) == (arid, temperate)
    assert (climate(0.5, 435), climate(0.5, 445)) == (arid, temperate)
    assert (climate(0.2, 295), climate(0.2, 305)) == (arid, temperate)


def test_a_place_with_a_month_missing_has_no_climate():
    assert group(np.where(np.arange(12) == 3, np.nan, 20.0), np.ones(12)) == 0


def test_regions_of_a_file_have_its_names(tmp_path):
    land = xr.DataArray([True, True, True], dims="cell")
    land = land.assign_coords(lat=("cell", [1.0, 2, 3]), lon=("cell", [4.0, 5, 6]))
    codes = land.copy(data=np.array([3, 7, 0], "int16")).assign_attrs(
        flag_values=np.array([3, 7], "int16"), flag_meanings="amazon congo"
    )
    codes.to_dataset(name="basin").to_netcdf(tmp_path / "basins.nc")
    found = regions.load(tmp_path / "basins.nc", land)
    assert regions.meanings(found) == {3: "amazon", 7: "congo"}
    np.testing.assert_array_equal(found, [3, 7, 0])


# Baselines


def test_the_baseline_is_the_cycle_of_the_training_cells_of_the_region():
    months = pd.date_range("2001-01-01", periods=13, freq="MS")
    values = np.arange(13.0)
    observation = series([values, values + 10, values + 500], months)
    # Two training cells of area 1 and 3 in the first region, none in the second.
    weights = np.array([[1.0, 3, 0], [0, 0, 0]])
    cycle = baselines.seasonal_cycle(observation, weights)
    january = (1 * 6 + 3 * 16) / 4
    assert cycle.mean[0, :2].tolist() == [january, (1 * 1 + 3 * 11) / 4]
    assert np.isnan(cycle.mean[1]).all()
    steps = xr.DataArray(months, {"time": months}, ("time",))
    found = baselines.predicted(cycle.mean, np.array([0, 1]), steps)
    assert found.values[0, [0, 12]].tolist() == [january, january]
    assert np.isnan(found.values[1]).all()


def test_the_baseline_adds_up_over_blocks(rng):
    observation = series(rng.random((6, len(YEARS))), YEARS)
    weights = rng.random((2, 6))
    whole = baselines.seasonal_cycle(observation, weights).mean
    parts = [
        baselines.seasonal_cycle(observation[rows], weights[:, rows])
        for rows in (slice(0, 2), slice(2, 6))
    ]
    np.testing.assert_allclose((parts[0] + parts[1]).mean, whole, rtol=1e-12)


def test_each_day_of_the_year_has_its_place_in_the_cycle():
    days = pd.date_range("2000-01-01", "2001-12-31")
    place = baselines.slots(xr.DataArray(days, dims="time"), daily=True)
    assert place[:366].tolist() == list(range(366))
    of_year = days[366:]
    assert place[366:][of_year.day_of_year == 60] == 60  # 1 March, behind 29 February
    assert place[-1] == 365


# Emergent quantities


def test_emergent_quantities_are_those_worked_by_hand():
    amounts = {
        "transpiration": xr.DataArray(30.0),
        "evapotranspiration": xr.DataArray(60.0),
        "runoff": xr.DataArray(20.0),
        "corrected_precipitation": xr.DataArray(80.0),
        emergent.ENERGY: xr.DataArray(120.0),
    }
    stores = {
        "swe": xr.DataArray([0.0, 2, 0, -2], dims="time"),
        "soil_moisture": xr.DataArray([10.0, 14, 10, 6], dims="time"),
        "groundwater": xr.DataArray([5.0, 4, 5, 6], dims="time"),
    }
    found = emergent.quantities(amounts, stores)
    # TWS moves by 2 + 4 - 1 = 5.
    expected = [0.5, 0.25, 0.5, 2 / 5, 4 / 5, -1 / 5]
    np.testing.assert_allclose(found, expected)


def test_shares_of_the_stores_add_up_to_one(rng):
    stores = {
        name: xr.DataArray(rng.normal(size=(20, 36)), dims=("cell", "time"))
        for name in emergent.STORES
    }
    found = emergent.quantities({}, stores).sel(quantity=list(emergent.SHARES))
    np.testing.assert_allclose(found.sum("quantity"), 1)
    assert float(found.std()) > 0.01


def test_available_energy_is_that_of_the_physics(rng):
    net_radiation = rng.normal(50, 80, 30)
    found = emergent.available_energy(xr.DataArray(net_radiation, dims="time"))
    np.testing.assert_allclose(found, physics.available_energy(net_radiation))


def test_an_amount_counts_the_days_of_its_months():
    months = pd.date_range("2001-01-01", periods=2, freq="MS")
    flux = xr.DataArray([2.0, 1.0], {"time": months}, ("time",))
    assert float(emergent.amount(flux)) == 2 * 31 + 28


# Water balance


def balanced(days):
    """Variables of a cell whose balance closes: it rains 5, 2 leave, 3 stay."""
    level = 3.0 * np.arange(days)[None]
    return {
        "corrected_precipitation": np.full((1, days), 5.0),
        "evapotranspiration": np.full((1, days), 1.5),
        "runoff": np.full((1, days), 0.5),
        "swe": level / 3,
        "soil_moisture": level / 3,
        "groundwater": level / 3,
    }


def result(variables, time=YEARS[:10]):
    found = balance.Balance(xr.DataArray(time, dims="time"))
    for name, values in variables.items():
        found.add(name, values)
    return found.result()


def test_a_balance_that_closes_has_no_residual():
    largest, closure = result(balanced(10))
    assert largest == pytest.approx([0])
    assert closure == pytest.approx([0])


def test_a_leak_is_found_on_its_day():
    variables = balanced(10)
    variables["runoff"][0, 4] += 0.25
    largest, closure = result(variables)
    assert largest == pytest.approx([0.25], rel=1e-3)
    assert closure == pytest.approx([-0.25])


def test_a_balance_needs_days_and_every_variable():
    variables = balanced(10)
    assert result(variables, MONTHS[:10]) is None
    variables.pop("swe")
    assert result(variables) is None
