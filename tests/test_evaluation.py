"""Evaluations of a small world, of its truth with noise as predictions."""

import json
import logging
import shutil

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner

from h2mv_tf.__main__ import main as h2mv_tf
from h2mv_tf.data import splits
from h2mv_tf.data.store import Store
from h2mv_tf.data.writing import write_store
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation import evaluate, regions, results, tables
from h2mv_tf.evaluation.metrics import METRICS
from h2mv_tf.predictions import BOUNDS, MARK, cell_area
from h2mv_tf.variables import VARIABLES

KEPT = ("evapotranspiration", "runoff", "corrected_precipitation")
FEW = (*KEPT, "transpiration", "swe", "soil_moisture", "groundwater", "tws", "fapar")


def predicted(store, names=None, noise=0.05):
    """The truth as predictions; what the balance needs is exact, the rest is noisy."""
    truth = store.truth().load()
    generator = np.random.default_rng(7)
    data = {}
    for name in names or truth.data_vars:
        values = truth[name]
        exact = name in KEPT or VARIABLES[name].kind == "state"
        if "time" in values.dims and not exact:
            factor = 1 + noise * generator.standard_normal(values.shape)
            values = (values * factor).astype("float32")
        data[name] = values
    land = store.land
    role = splits.roles(land, block_size=2).astype("int8")
    found = xr.Dataset(data).assign_coords(cell_area=cell_area(land), role=role)
    zero = found[next(iter(KEPT))] * 0
    found["water_balance_residual"] = zero
    found["largest_residual"] = zero.isel(time=0, drop=True)
    found["water_balance_closure"] = zero.isel(time=0, drop=True)
    return found.assign_attrs(fold=1)


def written(predictions, path, **attributes):
    """The predictions as `predict` writes them."""
    for name, data in predictions.data_vars.items():
        units = {"largest_residual": "mm d-1", "water_balance_closure": "mm"}
        known = VARIABLES[name].units if name in VARIABLES else units[name]
        data.attrs = {"units": known}
    day = np.timedelta64(1, "D")
    time = predictions.time.values
    bounds = (("time", "bnds"), np.stack([time, time + day], axis=1))
    whole = predictions.assign({BOUNDS: bounds}).drop_encoding()
    whole.attrs |= {MARK: "native", "frequency": "daily", **attributes}
    whole.to_zarr(path, zarr_format=3, consolidated=False)
    return path


@pytest.fixture(scope="module")
def store(world):
    return Store.open(world)


@pytest.fixture(scope="module")
def predictions(store):
    return predicted(store)


@pytest.fixture(scope="module")
def few(store):
    """Predictions of what the constraints and the balance need."""
    return predicted(store, FEW)


@pytest.fixture(scope="module")
def lean(store):
    """Predictions of two constraints, for what is the same with all."""
    return predicted(store, ["evapotranspiration", "tws"])


@pytest.fixture(scope="module")
def result(predictions, store):
    untrained = predictions * 0.5
    return evaluate(predictions, store, untrained=untrained)


@pytest.fixture
def changed(world, tmp_path):
    """A copy of the world without truth, with an array changed by a function."""

    def run(group, edit):
        path = tmp_path / f"changed_{len(list(tmp_path.iterdir()))}.zarr"
        ignored = shutil.ignore_patterns("truth")
        shutil.copytree(world, path, ignore=ignored)
        array = zarr.open_group(path)[f"{group}/data"]
        values = array[:]
        edit(values)
        array[:] = values
        return Store.open(path)

    return run


@pytest.fixture
def refusal():
    """The one line with which an evaluation is refused."""

    def run(*arguments, **options):
        with pytest.raises(UserError) as caught:
            evaluate(*arguments, **options)
        line = str(caught.value)
        assert "\n" not in line
        return line

    return run


# The data set


def test_every_model_is_scored_on_every_constraint_and_scale(result):
    assert result.model.values.tolist() == ["h2mv", "untrained", "mean seasonal cycle"]
    assert set(result["variable"].values) == {
        "tws",
        "evapotranspiration",
        "runoff",
        "swe",
        "fapar",
    }
    median = result.summary.sel(
        cells="all", region="globe", statistic="median", metric="rmse"
    )
    daily = np.isfinite(median.sel(scale="daily"))
    assert daily.sel(variable="swe").all()
    assert not daily.drop_sel(variable="swe").any()
    for scale in ("monthly", "seasonal", "anomaly"):
        assert np.isfinite(median.sel(scale=scale)).all()


def test_scores_stand_on_the_land_alone(result, store):
    score = result.score.sel(model="h2mv", variable="swe", scale="daily", metric="rmse")
    assert score.dims == store.land.dims
    assert np.isfinite(score.where(~store.land)).sum() == 0
    pairs = result["count"].sel(variable="swe", scale="daily")
    np.testing.assert_array_equal(np.isfinite(score), pairs > 0)


def test_the_trained_model_is_better_than_the_baselines(result):
    nse = result.summary.sel(
        cells="test", region="globe", statistic="median", metric="nse", scale="monthly"
    )
    assert (nse.sel(model="h2mv") > nse.sel(model="untrained")).all()
    assert (nse.sel(model="h2mv") > nse.sel(model="mean seasonal cycle")).all()


def test_a_cell_is_scored_as_by_hand(result, predictions, store):
    row, column = map(int, np.argwhere(store.land.values)[11])
    model = predictions.evapotranspiration[:, row, column].astype("float64")
    months = model.resample(time="MS").mean()
    seen = store.observed("evapotranspiration")[:, row, column].load()
    both = seen.notnull()
    error = (months - seen).values[both]
    expected = 1 - (error**2).mean() / seen.values[both].var()
    found = result.score.sel(
        model="h2mv", variable="evapotranspiration", scale="monthly", metric="nse"
    )
    assert float(found[row, column]) == pytest.approx(expected, rel=1e-5)


def test_anomalies_of_storage_have_no_ratio_of_means(result):
    tws = result.summary.sel(variable="tws", model="h2mv")
    for metric in ("kge", "kge_2012", "beta", "percent_bias"):
        assert not np.isfinite(tws.sel(metric=metric)).any()
    assert np.isfinite(tws.sel(metric="nse", scale="monthly", cells="all")).any()


def test_the_truth_against_itself_is_perfect_in_every_hidden_variable(result, store):
    exact = [n for n in KEPT if n in result.truth_variable] + ["groundwater"]
    of = result.truth_summary.sel(
        truth_variable=exact, cells="all", region="globe", scale="daily"
    )
    np.testing.assert_allclose(of.sel(metric="nse", statistic="median"), 1)
    np.testing.assert_allclose(of.sel(metric="rmse", statistic="mean"), 0, atol=1e-12)
    hidden = set(result.truth_variable.values)
    assert {"snowmelt_factor", "soil_water_capacity", "groundwater"} <= hidden
    noisy = result.truth_summary.sel(
        truth_variable="baseflow", cells="all", region="globe", scale="daily"
    )
    assert 0.5 < float(noisy.sel(metric="r", statistic="median")) < 0.9999


def test_parameters_are_held_against_the_truth_as_maps(result):
    capacity = result.truth_pattern.sel(
        truth_variable="soil_water_capacity", cells="all", region="globe"
    )
    assert float(capacity.sel(metric="nse")) == pytest.approx(1)
    constant = result.constant.sel(constant_name="snowfall_correction")
    assert constant.values.tolist() == pytest.approx([0.9, 0.9])


def test_emergent_quantities_of_the_truth_stand_beside_the_models(result):
    summary, truth = result.emergent_summary, result.emergent_truth_summary
    exact = ["runoff_ratio", "evaporative_fraction", "snow_share", "groundwater_share"]
    for quantity in exact:
        np.testing.assert_allclose(
            summary.sel(quantity=quantity), truth.sel(quantity=quantity), rtol=1e-6
        )
    shares = result.emergent.sel(quantity=["snow_share", "soil_share"]).sum("quantity")
    shares = shares + result.emergent.sel(quantity="groundwater_share")
    np.testing.assert_allclose(shares.values[np.isfinite(shares.values)], 1)
    fraction = summary.sel(
        quantity="transpiration_fraction", cells="all", region="globe"
    )
    assert 0 < float(fraction) < 1


def test_a_perfect_prediction_of_what_is_observed_scores_one(lean, store):
    months = lean.evapotranspiration.astype("float64").resample(time="MS").mean()
    found = evaluate(lean[["evapotranspiration"]], Observing(store, months))
    score = found.score.sel(model="h2mv", scale="monthly")
    for metric in ("nse", "kge", "kge_2012", "r", "alpha", "beta"):
        values = score.sel(metric=metric).values
        np.testing.assert_allclose(values[np.isfinite(values)], 1, atol=1e-6)


class Observing:
    """A store that shows what it is given."""

    def __init__(self, store, months):
        self._store, self._months = store, months
        self.constraints = (months.name,)

    def __getattr__(self, name):
        return getattr(self._store, name)

    def observed(self, name):
        return self._months if name in self.constraints else self._store.observed(name)

    def truth(self):
        return None


# Blocks, regions, areas


def test_the_result_does_not_depend_on_the_blocks(few, store):
    names = ["evapotranspiration", "tws", "transpiration", "swe"]
    tiled = few[names].chunk(lat=3, lon=5)
    with dask.config.set(scheduler="synchronous"):
        one = evaluate(tiled, store, cells=10_000)
        many = evaluate(tiled, store, cells=15)
    # Where a mean of anomalies is zero, what is left is rounding.
    xr.testing.assert_allclose(one, many, rtol=1e-7, atol=1e-9)


def test_progress_counts_to_the_end(lean, store):
    seen = []
    evaluate(lean, store, progress=lambda *counts: seen.append(counts))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))


def test_means_are_weighted_by_area(tmp_path):
    months = pd.date_range("2001-01-01", periods=12, freq="MS")
    observation = xr.DataArray(
        np.stack([np.arange(12.0), np.arange(12.0) + 4]),
        {"time": months},
        ("cell", "time"),
    )
    prediction = observation + xr.DataArray([1.0, 5.0], dims="cell")
    found = evaluate(*_sites(prediction, observation, [3.0, 1.0], tmp_path))
    bias = found.summary.sel(
        model="h2mv", scale="monthly", metric="bias", cells="all", region="all sites"
    )[0]
    assert float(bias.sel(statistic="mean")) == pytest.approx((3 * 1 + 1 * 5) / 4)
    assert float(bias.sel(statistic="median")) == pytest.approx(3)
    assert float(bias.sel(statistic="mean series")) == pytest.approx(2)


def _sites(prediction, observation, area, folder):
    """Predictions of two sites, and a store that observes them."""
    days = pd.date_range("2001-01-01", "2001-12-31")
    cells = {"lat": ("cell", [10.0, 20.0]), "lon": ("cell", [0.0, 1.0])}
    daily = prediction.reindex(time=days, method="ffill").assign_coords(cells)
    daily = daily.transpose("time", "cell")
    predictions = daily.to_dataset(name="evapotranspiration").assign_coords(
        cell_area=("cell", area), role=("cell", np.array([0, 0], "int8"))
    )
    weather = xr.full_like(daily, 1.0).astype("float32")
    fields = {group: weather for group in ("rn", "prec")}
    fields["tair"] = weather + 280
    fields["static"] = xr.DataArray(
        [[1.0, 2.0]], {"variable": ["sand"], **cells}, ("variable", "cell")
    )
    fields["mask"] = xr.DataArray([1, 1], cells, ("cell",))
    fields["et"] = observation.assign_coords(cells).transpose("time", "cell")
    write_store(folder / "sites.zarr", fields)
    return predictions, Store.open(folder / "sites.zarr")


def test_without_roles_there_is_no_test_and_it_is_said(lean, store):
    unknown = lean.assign_coords(role=lean.role * 0)
    found = evaluate(unknown, store)
    assert not np.isfinite(found.summary.sel(cells="test")).any()
    assert np.isfinite(found.summary.sel(cells="all", region="globe")).any()
    assert "role of the cells is not known" in found.notes
    assert "mean seasonal cycle" not in found.model


def test_a_region_without_observations_is_nan_and_told(lean, changed, result):
    climate = result.climate.values
    names = regions.meanings(result.climate)
    code = int(np.bincount(climate[climate > 0]).argmax())
    store = changed(
        "et", lambda values: values.__setitem__((..., climate == code), np.nan)
    )
    found = evaluate(lean, store)
    row = found.summary.sel(variable="evapotranspiration", region=names[code])
    assert not np.isfinite(row).any()
    assert f"evapotranspiration: no observation at all in {names[code]}" in found.notes
    assert "no observed training cell" in found.notes
    others = found.summary.sel(
        variable="evapotranspiration", region="globe", cells="all"
    )
    assert np.isfinite(others.sel(metric="rmse", scale="monthly", model="h2mv")).all()


def test_regions_may_be_given(lean, store):
    halves = xr.where(store.land, xr.where(store.land.lon < 0, 1, 2), 0)
    halves = regions.named(
        halves.transpose(*store.land.dims), {1: "west", 2: "east"}, source="a test"
    )
    found = evaluate(lean, store, regions=halves)
    assert found.region.values.tolist() == ["globe", "west", "east"]
    count = found.cell_count.sel(cells="all").values
    assert count[0] == count[1] + count[2] == int(store.land.sum())
    assert count[1] == int((store.land & (store.land.lon < 0)).sum())


def test_the_baseline_has_never_seen_a_test_cell(lean, store, changed):
    test = lean.role.values == splits.TEST
    assert test.any()

    def edit(values):
        values[..., test] += 3

    before, after = evaluate(lean, store), evaluate(lean, changed("et", edit))
    of = {"model": "mean seasonal cycle", "variable": "evapotranspiration"}
    elsewhere = lean.role != splits.TEST
    xr.testing.assert_identical(
        before.score.sel(of).where(elsewhere), after.score.sel(of).where(elsewhere)
    )
    bias = after.score.sel(of) - before.score.sel(of)
    bias = bias.sel(scale="monthly", metric="bias").values[test]
    np.testing.assert_allclose(bias[np.isfinite(bias)], -3, atol=1e-5)


def test_a_validating_cell_teaches_the_baseline_nothing(lean, store, changed):
    validating = lean.role.values == 1
    assert validating.any()

    def edit(values):
        values[..., validating] += 3

    store_before, store_after = store, changed("et", edit)
    of = {"model": "mean seasonal cycle", "variable": "evapotranspiration"}
    training = (lean.role != 1) & (lean.role != splits.TEST)
    before, after = (
        evaluate(lean, of_store).score.sel(of).where(training)
        for of_store in (store_before, store_after)
    )
    xr.testing.assert_identical(before, after)


def test_each_hemisphere_has_a_baseline_of_its_own(lean, store, changed):
    south = lean.lat < 0

    def edit(values):
        values[:, ~south.values] += 3

    of = {"model": "mean seasonal cycle", "variable": "evapotranspiration"}
    before, after = (
        evaluate(lean, of_store).score.sel(of).where(south)
        for of_store in (store, changed("et", edit))
    )
    assert before.notnull().any()
    xr.testing.assert_identical(before, after)


# The water balance


def test_a_balance_that_does_not_close_is_refused(lean, store, refusal):
    leaking = lean.copy(deep=True)
    row, column = map(int, np.argwhere(store.land.values)[5])
    leaking["largest_residual"][row, column] = 2e-3
    line = refusal(leaking, store)
    assert "does not close: 0.002 mm d-1" in line
    assert f"lat {float(store.land.lat[row]):g}" in line
    assert "0.001 or less" in line


def test_water_that_the_model_did_not_miss_is_missed_all_the_same(few, store, refusal):
    leaking = few.copy(deep=True)
    row, column = map(int, np.argwhere(store.land.values)[5])
    leaking["runoff"][100, row, column] += 0.5
    assert "does not close: 0.5 mm d-1" in refusal(leaking, store)


def test_the_log_tells_how_well_the_balance_closes(few, store, caplog):
    with caplog.at_level(logging.INFO, logger="h2mv_tf"):
        found = evaluate(few, store)
    assert "Water balance: it closes to" in caplog.text
    assert float(found.largest_residual.max()) < 1e-3
    assert found.water_balance_closure.dims == store.land.dims


# What cannot be compared


def test_other_cells_are_refused(few, store, refusal):
    line = refusal(few.isel(lat=slice(1, None)), store)
    assert "other cells" in line
    assert "8 x 14" in line
    assert "9 x 14" in line
    assert "other cells" in refusal(few.assign_coords(lon=few.lon + 1), store)
    sites = few.stack(cell=("lat", "lon"), create_index=False)
    assert "no lat and lon" in refusal(sites, store)


def test_a_constraint_that_is_not_predicted_is_left_out_and_told(few, store):
    found = evaluate(few[["runoff"]], store)
    assert "fapar" not in found["variable"]
    assert "fapar is left out: it is observed, but not predicted." in found.notes


def test_predictions_without_any_constraint_are_refused(few, changed, refusal):
    store = changed("et", lambda values: None)
    line = refusal(few[["soil_moisture"]], store)
    assert "Nothing of the predictions can be compared" in line
    assert "soil_moisture" in line


def test_another_period_leaves_observations_out(few, changed, refusal):
    later = few.assign_coords(time=few.time + np.timedelta64(4000, "D"))
    line = refusal(later, changed("et", lambda values: None))
    assert "none of its observations" in line


def test_part_of_the_period_is_compared_with_its_own_months(few, store):
    found = evaluate(few[["runoff", "swe"]].isel(time=slice(20, 200)), store)
    assert int(found["count"].sel(variable="runoff", scale="monthly").max()) <= 5
    assert int(found["count"].sel(variable="swe", scale="daily").max()) <= 180


def test_monthly_predictions_are_scored_by_the_month(few, store, result):
    maps = few[["largest_residual", "water_balance_closure"]]
    monthly = few.drop_vars(["water_balance_residual", *maps])
    monthly = monthly.resample(time="MS").mean().merge(maps)
    found = evaluate(monthly, store, untrained=few)
    assert "monthly predictions are compared" in found.notes
    scale = {"variable": "runoff", "scale": "monthly", "model": "h2mv"}
    xr.testing.assert_allclose(
        found.summary.sel(scale), result.summary.sel(scale), rtol=1e-4
    )
    # Its own daily truth, by way of the untrained model.
    by_day = found.summary.sel({**scale, "model": "untrained"})
    xr.testing.assert_allclose(
        by_day.drop_vars("model"),
        found.summary.sel(scale).drop_vars("model"),
        rtol=1e-4,
    )


# Files and the screen


def test_the_table_has_every_summary_once(result):
    frame = results.table(result)
    assert list(frame.columns) == results.COLUMNS
    assert not frame.duplicated(results.COLUMNS[:-1]).any()
    row = frame.query(
        "against == 'observations' and model == 'untrained' and variable == 'swe' and "
        "scale == 'daily' and metric == 'kge' and cells == 'test' and "
        "region == 'globe' and statistic == 'median'"
    )
    expected = result.summary.sel(
        model="untrained",
        variable="swe",
        scale="daily",
        metric="kge",
        cells="test",
        region="globe",
        statistic="median",
    )
    assert row["value"].tolist() == [float(expected)]
    assert set(frame["against"]) == {"observations", "truth", ""}


def test_tables_fit_a_narrow_screen(result):
    for table in tables.tables(result):
        rows = [table.columns, *table.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        assert sum(widths) + 3 * len(widths) <= 100, table.title


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments):
        arguments = ["evaluate", *map(str, arguments)]
        return CliRunner().invoke(h2mv_tf, arguments)

    return invoke


def test_the_command_writes_its_files_and_prints_its_tables(
    run, predictions, world, tmp_path
):
    out = written(predictions, tmp_path / "predictions.zarr")
    done = run(out, "--data", world)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "predictions.evaluation"
    assert sorted(path.name for path in folder.iterdir()) == [
        "metrics.json",
        "scores.csv",
        "scores.nc",
    ]
    for words in ("Against observations", "Against the truth", "Emergent", "Water bal"):
        assert words in done.output
    with xr.open_dataset(folder / "scores.nc") as scores:
        assert scores.score.dims[:4] == ("model", "variable", "scale", "metric")
        assert scores.metric.values.tolist() == list(METRICS)
    metrics = json.loads((folder / "metrics.json").read_text())
    water = metrics["water_balance"]
    assert water["largest_residual"] < 1e-3
    assert set(water["cell"]) == {"lat", "lon"}
    assert water["days"] == predictions.sizes["time"]
    assert metrics["test"]["runoff"]["monthly"]["nse"] > 0.5
    assert metrics["test"]["tws"]["monthly"]["kge"] is None
    assert pd.read_csv(folder / "scores.csv").columns.tolist() == results.COLUMNS
    # A second time nothing is overwritten.
    again = run(out, "--data", world)
    assert again.exit_code == 2
    assert "exists" in again.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "predictions.evaluation",
        "predictions.zarr",
    ]


def test_the_command_refuses_in_one_line_and_leaves_nothing(run, few, world, tmp_path):
    leaking = few.copy(deep=True)
    leaking["largest_residual"] = leaking["largest_residual"] + 1
    out = written(leaking, tmp_path / "leaking.zarr")
    done = run(out, "--data", world, "--to", tmp_path / "scores")
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    assert done.output.startswith("error: The water balance")
    assert [path.name for path in tmp_path.iterdir()] == ["leaking.zarr"]


def test_the_command_tells_what_is_missing(run, few, world, tmp_path):
    done = run(tmp_path / "nothing.zarr", "--data", world)
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    out = written(few, tmp_path / "few.zarr")
    done = run(out)
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "--data" in done.output
    done = run(out, "--data", world, "--regions", tmp_path / "nothing.nc")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "nothing.nc" in done.output
