"""Samples whose spread is known, held against observations drawn from them."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner
from scipy.stats import kstest, laplace, norm, spearmanr, t

from h2mv_tf import plots
from h2mv_tf.__main__ import main as h2mv_tf
from h2mv_tf.data.store import Store
from h2mv_tf.data.writing import write_store
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation import calibration, probabilistic, results, tables
from h2mv_tf.evaluation.predictive import Noise, Observing
from h2mv_tf.predictions import BOUNDS, MARK, cell_area
from h2mv_tf.report.uncertainty import section
from h2mv_tf.variables import VARIABLES

CELLS, REALIZATIONS = (3, 4), 40
DAYS = pd.date_range("2001-01-01", "2002-12-31")
MONTHS = pd.date_range("2001-01-01", periods=24, freq="MS")
GRID = {"lat": [50.0, 40.0, 30.0], "lon": [0.0, 10.0, 20.0, 30.0]}
SPACE = ("lat", "lon")
# Mean, deviation over realizations, and noise of the observations.
LEVEL = {
    "tws": (300.0, 20.0, 15.0),
    "evapotranspiration": (2.0, 0.3, 0.2),
    "runoff": (0.1, 0.2, 0.2),  # often at 0
    "swe": (80.0, 20.0, 10.0),  # often beyond 100 mm
    "fapar": (0.5, 0.05, 0.03),
}
PERSISTENCE = {"tws": 0.6}
HIDDEN = {"groundwater": (50.0, 10.0), "soil_water_capacity": (200.0, 30.0)}


def drawn(name, count, generator):
    """Monthly values (count, month, lat, lon) of a variable, or (count, lat, lon)."""
    mean, deviation = {**LEVEL, **HIDDEN}[name][:2]
    shape = () if name == "soil_water_capacity" else (len(MONTHS),)
    values = mean + deviation * generator.standard_normal((count, *shape, *CELLS))
    if name == "fapar":
        return np.clip(values, 0, 1)
    return values if name == "tws" else np.maximum(values, 0)


def noise(**changes):
    known = {
        name: {
            "likelihood": "normal",
            "deviation": deviation,
            "persistence": PERSISTENCE.get(name, 0.0),
            "degrees_of_freedom": None,
        }
        for name, (_, _, deviation) in LEVEL.items()
    }
    known |= changes
    return json.dumps({"": {name: n for name, n in known.items() if n is not None}})


def samples(realizations=REALIZATIONS, **changes):
    """Samples as `predict --samples --realizations` writes them, of monthly means."""
    generator = np.random.default_rng(1)
    arrays = {}
    for name in (*LEVEL, *HIDDEN):
        values = drawn(name, realizations, generator).astype("float32")
        dims = ("realization", "time", *SPACE)[-values.ndim :]
        dims = dims if values.ndim == 4 else ("realization", *SPACE)
        arrays[name] = (dims, values, {"units": VARIABLES[name].units})
    for name in ("snowfall_correction", "baseflow_fraction"):
        values = generator.uniform(0.4, 0.6, realizations)
        arrays[name] = ("realization", values, {"units": VARIABLES[name].units})
    land = xr.DataArray(np.ones(CELLS, bool), GRID, SPACE)
    role = xr.DataArray(np.full(CELLS, 1, "int8"), GRID, SPACE)
    role[0] = 11
    coordinates = {
        **GRID,
        "time": MONTHS,
        "realization": np.arange(realizations),
        "member": ("realization", np.full(realizations, "", object)),
        "cell_area": cell_area(land),
        "role": role,
    }
    attributes = {"samples_of": "posterior", "noise": noise()}
    return xr.Dataset(arrays, coordinates, {**attributes, **changes})


def by_month(days):
    return days.to_period("M").to_timestamp()


def by_day(monthly):
    """The same, each day of a month as that month."""
    return monthly.sel(time=by_month(DAYS)).assign_coords(time=DAYS)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store with observations and truth from the distribution of the samples."""
    generator = np.random.default_rng(2)
    fields = {}
    for group, level in {"rn": 50.0, "prec": 2.0, "tair": 280.0}.items():
        values = level + generator.random((len(DAYS), *CELLS))
        fields[group] = xr.DataArray(values, {"time": DAYS, **GRID}, ("time", *SPACE))
    static = generator.random((2, *CELLS))
    names = {"variable": ["elevation", "sand"], **GRID}
    fields["static"] = xr.DataArray(static, names, ("variable", *SPACE))
    fields["mask"] = xr.DataArray(np.ones(CELLS, int), GRID, SPACE)
    truth = {}
    for name, (_, _, deviation) in LEVEL.items():
        values = drawn(name, 1, generator)[0]
        truth[name] = ("time", *SPACE), values
        errors = Noise("normal", 1.0, PERSISTENCE.get(name, 0.0)).of(
            generator.standard_normal((12, len(MONTHS)))
        )
        values = values + deviation * errors.T.reshape(values.shape)
        low, high = VARIABLES[name].bounds
        values = np.clip(values, -np.inf if low is None else low, high)
        fields[VARIABLES[name].group] = xr.DataArray(
            values, {"time": MONTHS, **GRID}, ("time", *SPACE)
        )
    fields["tws"][::5] = np.nan
    swe = truth["swe"][1][MONTHS.get_indexer(by_month(DAYS))]
    swe = swe + LEVEL["swe"][2] * generator.standard_normal(swe.shape)
    swe = xr.DataArray(np.maximum(swe, 0), {"time": DAYS, **GRID}, ("time", *SPACE))
    fields["swe"] = swe
    path = tmp_path_factory.mktemp("world") / "toy.zarr"
    write_store(path, fields)
    for name in HIDDEN:
        values = drawn(name, 1, generator)[0]
        truth[name] = ("time", *SPACE)[-values.ndim :], values
    truth["baseflow_fraction"] = (), 0.5
    xr.Dataset(truth, {"time": MONTHS, **GRID}).to_zarr(
        path, group="truth", mode="a", consolidated=False
    )
    return path


@pytest.fixture(scope="module")
def store(world):
    return Store.open(world)


@pytest.fixture(scope="module")
def found(store):
    return probabilistic.evaluate(by_day(samples()), store)


@pytest.fixture
def generator():
    return np.random.default_rng(3)


def observing(name="runoff", count=REALIZATIONS, noise=None, saturation=100.0):
    return Observing(name, (noise,) * count, saturation)


# Whether the scores are right


def test_a_calibrated_toy_is_covered_as_often_as_it_says(found):
    for name in found["variable"].values:
        for level in (0.5, 0.9):
            share = float(found.coverage.sel(variable=name, level=level, cells="all"))
            sampling = np.sqrt(level * (1 - level) / (len(MONTHS) * 12))
            assert share == pytest.approx(level, abs=3.5 * sampling), name


def test_hidden_truth_is_judged_without_noise(found):
    groundwater = found.sel(truth_variable="groundwater", cells="all")
    share = float(groundwater.truth_coverage.sel(level=0.9))
    assert share == pytest.approx(0.9, abs=0.06)
    width = float(groundwater.truth_sharpness.sel(level=0.9))
    expected = 2 * norm.ppf(0.95) * HIDDEN["groundwater"][1]
    assert width == pytest.approx(expected, rel=0.1)
    assert float(groundwater.truth_spread_skill) == pytest.approx(1, abs=0.15)


def test_an_overconfident_toy_is_covered_less_often(store):
    narrow = by_day(samples(noise=noise(**dict.fromkeys(LEVEL, None))))
    mean = narrow.groundwater.mean("realization")
    narrow["groundwater"] = mean + 0.4 * (narrow.groundwater - mean)
    few = probabilistic.evaluate(narrow, store).sel(cells="all")
    truth = few.truth_coverage.sel(truth_variable="groundwater")
    assert float(truth.sel(level=0.9)) < 0.7
    assert float(truth.sel(level=0.5)) < 0.35
    assert float(few.truth_spread_skill.sel(truth_variable="groundwater")) < 0.6


def test_crps_of_a_normal_is_its_closed_form(generator):
    values = np.linspace(-3, 3, 13)
    draws = generator.standard_normal((20_000, 1)) + np.zeros(13)
    found = calibration.judged(draws, values, np.full(13, 0.5))
    of_normal = values * (2 * norm.cdf(values) - 1) + 2 * norm.pdf(values)
    expected = of_normal - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(found.crps, expected, atol=0.02)
    np.testing.assert_allclose(found.pit, norm.cdf(values), atol=0.015)


def test_crps_of_samples_that_are_all_alike_is_the_error_of_their_mean(generator):
    values = generator.standard_normal(50)
    found = calibration.judged(np.full((10, 50), 0.5), values, np.zeros(50))
    np.testing.assert_allclose(found.crps, np.abs(0.5 - values))
    np.testing.assert_array_equal(found.variance, 0)


def test_the_pit_is_the_rank_among_the_samples():
    draws = np.arange(1.0, 5)[:, None] + np.zeros(3)
    found = calibration.judged(draws, np.array([0.0, 2.0, 9.0]), np.full(3, 0.5))
    np.testing.assert_allclose(found.pit, [0.1, 0.4, 0.9])


def test_groups_of_spread_are_of_equal_size(generator):
    spread = np.repeat([1.0, 2.0, 4.0, 8.0, 16.0], 200)
    pairs = calibration.Judged(
        pit=np.full(1000, 0.5),
        crps=np.zeros(1000),
        error=2 * spread,
        variance=spread**2,
        width=np.zeros((2, 1000)),
    )
    tally = calibration.tally(pairs, np.ones((2, 1000), bool))
    found = calibration.scores([tally], ["runoff"], "variable").sel(cells="all")
    np.testing.assert_allclose(found.spread[0], np.repeat([1, 2, 4, 8, 16], 2))
    np.testing.assert_allclose(found.error, 2 * found.spread)
    assert float(found.spread_skill[0]) == pytest.approx(0.5)


def test_groups_of_spread_are_those_of_sorted_pairs(generator):
    spread = np.sort(generator.lognormal(0, 0.5, 5000))
    error = spread * generator.standard_normal(5000)
    pairs = calibration.Judged(
        pit=np.full(5000, 0.5),
        crps=np.zeros(5000),
        error=error,
        variance=spread**2,
        width=np.zeros((2, 5000)),
    )
    tally = calibration.tally(pairs, np.ones((2, 5000), bool))
    found = calibration.scores([tally], ["runoff"], "variable").sel(cells="all")
    for name, values in (("spread", spread), ("error", error)):
        expected = np.sqrt(np.square(values).reshape(10, 500).mean(axis=1))
        np.testing.assert_allclose(found[name][0], expected, rtol=0.015)


def test_scores_hang_together(found):
    reliability, pit = found.reliability, found.pit
    np.testing.assert_allclose(pit.sum("bin"), 1)
    np.testing.assert_allclose(reliability, pit.cumsum("bin")[..., :-1])
    inside = reliability.sel(nominal=0.95) - reliability.sel(nominal=0.05)
    np.testing.assert_allclose(inside, found.coverage.sel(level=0.9))
    assert (found.crps < found.crps_deterministic).all()
    assert (
        found["count"].sel(cells="all") == 3 * found["count"].sel(cells="test")
    ).all()


# What an observation of a sample would be


def test_the_pit_of_a_variable_that_is_often_0_is_uniform_if_calibrated(generator):
    count, steps = 19, 4000
    known = Noise("normal", 0.3, 0.0)
    truth = np.maximum(0.1 + 0.3 * generator.standard_normal((count + 1, steps)), 0)
    observed = np.maximum(truth[-1] + 0.3 * generator.standard_normal(steps), 0)
    predicted, seen = observing(count=count, noise=known).predictive(
        truth[:-1], observed, np.arange(steps), generator
    )
    assert 0.2 < (seen == 0).mean() < 0.8
    pit = calibration.judged(predicted, seen, generator.random(steps)).pit
    assert kstest(pit, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("likelihood", "distribution"),
    [("normal", norm()), ("laplace", laplace()), ("student_t", t(4))],
)
def test_noise_has_its_distribution_and_persists(likelihood, distribution, generator):
    known = Noise(likelihood, 2.0, 0.7, 4.0)
    errors = known.of(generator.standard_normal((4000, 3)))
    for step in range(3):
        assert kstest(errors[:, step], distribution.cdf).pvalue > 0.01
    ranks = spearmanr(errors[:, 0], errors[:, 2]).statistic
    of_normal = 6 / np.pi * np.arcsin(0.7**2 / 2)
    assert ranks == pytest.approx(of_normal, abs=0.05)


def test_noise_persists_through_a_gap(generator):
    simulated = np.zeros((4000, 2))
    predicted, _ = observing("swe", 4000, Noise("normal", 1.0, 0.5), None).predictive(
        simulated + 50, np.array([50.0, 50.0]), np.array([10, 12]), generator
    )
    assert np.corrcoef(predicted.T)[0, 1] == pytest.approx(0.25, abs=0.05)


def test_known_errors_add_to_the_noise_in_quadrature(generator):
    predicted, _ = observing("swe", 4000, Noise("normal", 3.0, 0.0), None).predictive(
        np.full((4000, 2), 50.0),
        np.array([50.0, 50.0]),
        np.arange(2),
        generator,
        np.array([0.0, 4.0]),
    )
    np.testing.assert_allclose(predicted.std(axis=0), [3, 5], rtol=0.05)


def test_storage_is_centred_on_the_observed_months_after_noise_was_added(generator):
    observed = np.array([5.0, np.nan, 7.0])
    simulated = 300 + generator.standard_normal((40, 3))
    predicted, seen = observing("tws", noise=Noise("normal", 9.0, 0.3)).predictive(
        simulated, observed, np.arange(3), generator
    )
    np.testing.assert_allclose(predicted[:, [0, 2]].mean(axis=1), 0, atol=1e-12)
    np.testing.assert_array_equal(seen[[0, 2]], [-1, 1])


def test_a_single_month_of_storage_has_no_anomaly_to_judge(generator):
    _, seen = observing("tws").predictive(
        np.zeros((REALIZATIONS, 2)), np.array([np.nan, 7.0]), np.arange(2), generator
    )
    assert np.isnan(seen).all()


def test_deep_snow_is_as_deep_as_any(store):
    deep = by_day(samples())
    deep["swe"] = deep.swe * 0 + 400
    seen, unseen = (
        probabilistic.evaluate(deep, store, saturation=saturation).sel(
            variable="swe", cells="all"
        )
        for saturation in (100.0, None)
    )
    lacking = np.maximum(100 - store.observed("swe"), 0).mean().compute()
    assert float(seen.crps) == pytest.approx(float(lacking), rel=1e-5)
    assert float(unseen.pit.sel(bin=0.025)) == 1  # above all observations
    assert float(unseen.crps) > float(seen.crps) + 200


# Blocks, and what is missing


def test_blocks_change_nothing(found, store):
    chunks = {"lat": 1, "lon": 2, "realization": 7}
    again = probabilistic.evaluate(by_day(samples()).chunk(chunks), store, cells=1)
    xr.testing.assert_allclose(again, found, rtol=1e-9)
    np.testing.assert_array_equal(again.pit, found.pit)


def test_the_map_of_coverage_is_the_rank_of_the_truth(found, store):
    ours = samples().groundwater[:, :, 1, 2].values
    truth = store.truth().groundwater[:, 1, 2].values
    below = (ours < truth.astype("float32")).sum(axis=0)
    # Whatever is drawn between two ranks, it is inside or outside of the interval.
    low, high = below / 41, (below + 1) / 41
    inside, possible = (low >= 0.05) & (high <= 0.95), (high > 0.05) & (low < 0.95)
    share = found.truth_coverage_map.sel(
        truth_variable="groundwater", level=0.9, lat=40, lon=20
    )
    assert inside.mean() <= float(share) <= possible.mean()


def test_members_without_noise_are_told_and_judged_alone(found, store):
    plain = probabilistic.evaluate(by_day(samples(noise='{"": {}}')), store)
    (note,) = plain.notes.split("\n")
    assert "tws, evapotranspiration, runoff, swe, fapar: held against" in note
    assert "mse" in note
    sharpness = plain.sharpness.sel(level=0.9, cells="all")
    assert (sharpness < found.sharpness.sel(level=0.9, cells="all")).all()
    assert not found.notes


def test_a_member_without_noise_is_named(store):
    mixed = by_day(samples(noise=json.dumps({"a": json.loads(noise())[""], "b": {}})))
    member = np.where(mixed.realization < 20, "a", "b")
    mixed = mixed.assign_coords(member=("realization", member))
    (note,) = probabilistic.evaluate(mixed, store).notes.split("\n")
    assert note.endswith("(objective.likelihood: mse) by b.")


def test_monthly_samples_are_not_held_against_daily_snow(store):
    monthly = probabilistic.evaluate(samples(), store)
    assert "swe" not in monthly["variable"].values
    assert "swe" in monthly.truth_variable.values
    assert monthly.notes.startswith("swe is left out: ")


def test_without_test_cells_scores_are_of_all(store):
    untested = by_day(samples())
    untested["role"] = untested.role * 0 + 1
    found = probabilistic.evaluate(untested, store)
    assert not np.isfinite(found.crps.sel(cells="test")).any()
    assert (found["count"].sel(cells="test") == 0).all()
    assert np.isfinite(found.crps.sel(cells="all")).all()
    assert "all cells" in found.notes


def test_a_cell_without_a_sample_is_left_out(found, store):
    gaps = by_day(samples())
    gaps["groundwater"][:, :, 0, 1] = np.nan
    gaps["tws"][:, :, 0, 1] = np.nan
    fewer = probabilistic.evaluate(gaps, store, cells=1)
    share = fewer.truth_coverage_map.sel(truth_variable="groundwater", level=0.9)
    assert np.isnan(share).values.nonzero() == (0, 1)
    for count, name in (("count", "tws"), ("truth_count", "groundwater")):
        dim = "variable" if count == "count" else "truth_variable"
        now, before = (each[count].sel({dim: name}) for each in (fewer, found))
        np.testing.assert_array_equal(now * 12, before * [9, 11])
    assert np.isfinite(fewer.crps).all()


# Widths


def test_half_the_spread_of_the_prior_is_a_relative_width_of_a_half(store):
    prior = by_day(samples(samples_of="prior"))
    posterior = by_day(samples())
    for name in HIDDEN:
        mean = prior[name].mean("realization")
        posterior[name] = mean + (prior[name] - mean) / 2
    found = probabilistic.evaluate(posterior, store, prior=prior)
    relative = found.relative_width.sel(width_variable=list(HIDDEN))
    np.testing.assert_allclose(relative, 0.5, rtol=1e-4)
    width = found.prior_width.sel(width_variable="soil_water_capacity")
    expected = samples().soil_water_capacity.std("realization", ddof=1)
    np.testing.assert_allclose(width, expected, rtol=1e-4)


def test_the_posterior_has_a_width_without_a_prior(found):
    assert "relative_width" not in found
    assert np.isfinite(found.posterior_width).all()


def refused(*arguments, **options):
    with pytest.raises(UserError) as caught:
        probabilistic.evaluate(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_simulation_of_the_prior_is_refused(store):
    line = refused(samples(), store, prior=samples())
    assert "found samples of: posterior" in line
    line = refused(samples(), store, prior=samples(3, samples_of="prior"))
    assert "The prior has 3 realizations" in line
    other = samples(samples_of="prior").assign_coords(lat=[0.0, 1.0, 2.0])
    assert "other cells" in refused(samples(), store, prior=other)


def test_noise_that_cannot_be_read_is_refused(store):
    assert "'noise'" in refused(samples(noise="many"), store)


# Files and the screen


def written(dataset, path):
    daily = dataset.sizes["time"] > 24
    step = pd.DateOffset(days=1) if daily else pd.DateOffset(months=1)
    time = pd.DatetimeIndex(dataset.time.values)
    bounds = np.stack([time, time + step], axis=1)
    dataset = dataset.assign({BOUNDS: (("time", "bnds"), bounds)})
    dataset = dataset.assign_coords(
        member=("realization", dataset.member.values.astype(str))
    )
    dataset.attrs[MARK] = "native"
    dataset.to_zarr(path, zarr_format=2, consolidated=False)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments):
        arguments = ["evaluate", *map(str, arguments)]
        return CliRunner().invoke(h2mv_tf, arguments)

    return invoke


def test_the_command_judges_samples_and_says_so(run, world, tmp_path):
    out = written(samples(), tmp_path / "samples.zarr")
    prior = written(samples(samples_of="prior"), tmp_path / "prior.zarr")
    done = run(out, "--data", world, "--prior", prior)
    assert done.exit_code == 0, done.output
    for words in ("Held-out observations", "Hidden truth", "Global constants"):
        assert words in done.output
    assert "note: swe is left out" in done.output
    folder = tmp_path / "samples.evaluation"
    samples_scores = results.of_samples(folder)
    np.testing.assert_allclose(samples_scores.relative_width, 1)
    frame = pd.read_csv(folder / "probabilistic.csv", keep_default_na=False)
    assert frame.columns.tolist() == results.SAMPLE_COLUMNS
    assert not frame.duplicated(results.SAMPLE_COLUMNS[:-1]).any()
    row = frame.query(
        "against == 'truth' and variable == 'groundwater' and score == 'coverage' and "
        "cells == 'all' and at == '0.9'"
    )
    expected = samples_scores.truth_coverage.sel(
        truth_variable="groundwater", cells="all", level=0.9
    )
    assert float(row["value"].item()) == pytest.approx(float(expected), rel=1e-7)
    metrics = json.loads((folder / "metrics.json").read_text())["probabilistic"]
    assert metrics["truth"]["all"]["groundwater"]["coverage_90"] == float(expected)
    assert metrics["constants"]["baseflow_fraction"]["truth"] == 0.5
    assert metrics["constants"]["snowfall_correction"]["truth"] is None
    assert metrics["notes"] == samples_scores.notes.split("\n")


def test_too_few_samples_are_a_note_and_their_mean_is_scored(run, world, tmp_path):
    out = written(samples(4), tmp_path / "few.zarr")
    done = run(out, "--data", world)
    assert done.exit_code == 0, done.output
    assert "note: The spread of 4 samples is not judged" in done.output
    names = {path.name for path in (tmp_path / "few.evaluation").iterdir()}
    assert names == {"scores.nc", "scores.csv", "metrics.json"}
    done = run(out, "--data", world, "--prior", out, "--to", tmp_path / "again")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "4 realizations" in done.output


def test_tables_of_samples_fit_a_narrow_screen(found):
    for table in tables.sample_tables(found):
        rows = [table.columns, *table.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        assert sum(widths) + 3 * len(widths) <= 100, table.title


def test_figures_and_report_read_what_is_evaluated(found, tmp_path):
    found.to_netcdf(tmp_path / "probabilistic.nc")
    tables = section(tmp_path / "probabilistic.nc", tmp_path).tables
    assert [table.caption.split(",")[0] for table in tables] == [
        "Samples against observations",
        "Samples against the hidden truth",
        "Samples of the global constants",
    ]
    drawn = plots.pit_histograms(found)
    assert len(drawn.axes) == len(found["variable"]) + len(HIDDEN)
