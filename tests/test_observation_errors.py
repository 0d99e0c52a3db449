"""Standard errors of observations: read, checked, streamed, made and taken in."""

import numpy as np
import pytest
import xarray as xr
from cf import grid
from click.testing import CliRunner
from small import small_settings
from stores import (
    DAYS,
    MONTHS,
    at_sites,
    field,
    observations,
    on_land,
    with_value,
    world,
)

from h2mv_tf import config, inputs, training
from h2mv_tf.__main__ import main as h2mv_tf
from h2mv_tf.data.check import Check
from h2mv_tf.data.pipeline import Stream
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import survey
from h2mv_tf.data.synthetic import synthesize
from h2mv_tf.data.synthetic.observations import DEVIATION, UNEVENNESS
from h2mv_tf.data.writing import write_store
from h2mv_tf.errors import UserError
from h2mv_tf.variables import CONSTRAINT_OF, CONSTRAINTS, ERRORS, VARIABLES

NORMAL = "objective.likelihood=normal"
UNEVEN = {"rows": 9, "columns": 14, "years": 3, "noise": 0.01, "seed": 3}


def map_of_errors(level=2.0):
    return field(level).isel(time=0, drop=True)


def weighed_world():
    """Monthly storage with its errors, and daily snow with a map of them."""
    return world() | {
        "tws": field(5, MONTHS),
        "tws_sigma": field(1, MONTHS),
        "swe": field(5),
        "swe_sigma": map_of_errors(),
    }


def checked(store):
    return Check.of(survey(store, errors=store.errors))


def refuse(store):
    checked(store).refuse()


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A synthetic world that tells its errors, and the same one without."""
    folder = tmp_path_factory.mktemp("uneven")
    synthesize(folder / "with.zarr", **UNEVEN, errors=True)
    synthesize(folder / "without.zarr", **UNEVEN)
    return folder / "with.zarr", folder / "without.zarr"


def group(path, name):
    return xr.open_zarr(path, group=name, consolidated=False).load()


# Registry


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_an_error_has_the_units_and_the_group_of_its_constraint(constraint):
    variable, error = VARIABLES[constraint], VARIABLES[ERRORS[constraint]]
    assert error.units == variable.units
    assert error.group == f"{variable.group}_sigma"
    assert error.long_name == f"standard error of {variable.long_name}"
    assert CONSTRAINT_OF[error.name] == constraint


# Store


def test_a_store_tells_whose_errors_it_has(stored):
    store = stored(weighed_world())
    assert store.constraints == ("tws", "swe")
    assert store.errors == ("tws", "swe")


def test_an_error_without_its_constraint_is_none(stored):
    fields = weighed_world()
    del fields["tws"]
    assert stored(fields).errors == ("swe",)


@pytest.mark.parametrize("arranged", [dict, at_sites])
def test_errors_are_read_as_they_were_written(stored, arranged):
    store = stored(arranged(weighed_world()))
    np.testing.assert_array_equal(
        observations(store, "tws_error"), on_land(field(1, MONTHS))
    )


@pytest.mark.parametrize("arranged", [dict, at_sites])
def test_an_error_without_time_is_the_same_on_all_steps(stored, arranged):
    store = stored(arranged(weighed_world()))
    expected = np.tile(on_land(map_of_errors())[:, None], len(DAYS))
    np.testing.assert_array_equal(observations(store, "swe_error"), expected)


def test_an_error_without_time_is_there_only_where_its_constraint_has_a_step(stored):
    fields = weighed_world()
    fields["swe"] = fields["swe"].isel(time=slice(10, None))
    store = stored(fields)
    found = observations(store, "swe_error")
    assert found.shape == observations(store, "swe").shape
    np.testing.assert_array_equal(np.isnan(found).any(axis=0), np.arange(90) < 10)


def test_a_shorter_series_of_errors_lies_on_the_calendar_of_the_forcing(stored):
    fields = weighed_world()
    fields["tws_sigma"] = fields["tws_sigma"].isel(time=slice(1, None))
    store = stored(fields)
    found = observations(store, "tws_error")
    np.testing.assert_array_equal(store.calendar("tws_error").place, [-1, 0, 1])
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_array_equal(found[:, 1:], on_land(fields["tws_sigma"]))


def test_errors_are_requested_beside_forcing_and_constraints(stored):
    store = stored(weighed_world())
    (block,) = store.blocks
    values = store.request(("swe", "swe_error", "tws_error"), block)()
    assert list(values)[3:] == ["swe", "swe_error", "tws_error"]
    for name in ("swe", "swe_error", "tws_error"):
        np.testing.assert_array_equal(values[name], observations(store, name))


def test_errors_on_the_grid_are_those_of_the_arrays(stored):
    store = stored(weighed_world())
    of_snow, of_storage = store.observed("swe_error"), store.observed("tws_error")
    assert of_snow.dims == ("time", "lat", "lon")
    assert (of_snow.attrs["cadence"], of_storage.attrs["cadence"]) == (
        "daily",
        "monthly",
    )
    np.testing.assert_array_equal(of_snow.time, DAYS)
    for data in (of_snow, of_storage):
        np.testing.assert_array_equal(on_land(data), observations(store, data.name))


def test_a_group_of_errors_can_have_another_name(stored):
    fields = weighed_world()
    fields["tws_err"] = fields.pop("tws_sigma")
    store = stored(fields, {"tws_sigma": "tws_err"})
    assert store.errors == ("tws", "swe")
    np.testing.assert_array_equal(
        observations(store, "tws_error"), on_land(field(1, MONTHS))
    )


def test_the_name_of_a_mapped_group_of_errors_has_to_be_there(refusal):
    line = refusal(weighed_world(), groups={"tws_sigma": "tws_err"})
    assert "lacks group 'tws_err' (tws_error [mm])" in line


def test_an_error_of_other_steps_than_its_constraint_is_refused(refusal):
    line = refusal(weighed_world() | {"tws_sigma": field(1)}, refuse)
    assert "tws_error [mm] (group 'tws_sigma') is daily, and 'tws' is monthly" in line
    assert "objective.errors" in line


def test_an_error_that_is_not_there_is_told_by_its_group(refusal):
    fields = weighed_world()
    del fields["tws_sigma"]
    line = refusal(fields, lambda store: store.calendar("tws_error"))
    assert "lacks tws_error [mm] (group 'tws_sigma'). Found those of: swe." in line


def test_errors_of_another_period_are_refused(refusal):
    late = field(1, MONTHS.shift(12, freq="MS"))
    line = refusal(weighed_world() | {"tws_sigma": late}, refuse)
    assert "Standard error 'tws_error'" in line
    assert "Drop it from objective.errors" in line


def test_a_map_of_errors_of_other_dims_is_refused(refusal):
    wrong = map_of_errors().rename(lat="row")
    line = refusal(weighed_world() | {"swe_sigma": wrong}, refuse)
    assert "(time, lat, lon) or (time, cell) or (lat, lon) or (cell)" in line


# Survey and check


def test_errors_are_no_constraints(stored):
    store = stored(weighed_world())
    found = survey(store, errors=("tws", "swe"))
    assert found.constraints == ("tws", "swe")
    assert found.errors == ("tws", "swe")
    assert found.record.daily == {
        "tws": False,
        "swe": True,
        "tws_error": False,
        "swe_error": True,
    }
    bare = survey(store)
    assert bare.errors == ()
    cells = np.arange(4)
    assert found.statistics(cells) == bare.statistics(cells)


def test_errors_where_nothing_is_observed_make_no_window(stored):
    fields = weighed_world()
    fields["tws"] = with_value(fields["tws"], np.nan, step=1)
    fields["swe"] = with_value(fields["swe"], np.nan, step=0)
    store = stored(fields)
    with_errors = survey(store, errors=store.errors).observed
    np.testing.assert_array_equal(with_errors.days, survey(store).observed.days)
    np.testing.assert_array_equal(with_errors.months, survey(store).observed.months)
    assert not with_errors.days[0].any()
    np.testing.assert_array_equal(with_errors.months[0], [True, False, False])


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "is 0"), (-1.5, "is -1.5"), (np.nan, "is missing"), (np.inf, "is missing")],
)
def test_an_error_of_no_use_is_told_with_its_cell_and_month(refusal, value, words):
    fields = weighed_world()
    fields["tws_sigma"] = with_value(fields["tws_sigma"], value, cell=(1, 0), step=1)
    line = refusal(fields, refuse)
    assert (
        f"tws_error [mm] (group 'tws_sigma') {words} at cell 2 (lat 40, lon 0) in "
        "2001-02, where 'tws' is observed, first of 2 such values. Errors are standard "
        "deviations above 0: mend it, or set objective.errors to leave it out." in line
    )


def test_an_error_of_no_use_is_told_with_its_day_and_mapped_group(refusal):
    fields = weighed_world()
    fields["snow_err"] = with_value(field(1), 0, step=3)
    line = refusal(fields, refuse, {"swe_sigma": "snow_err"})
    assert "swe_error [mm] (group 'snow_err') is 0 at cell 0" in line
    assert "on 2001-01-04, where 'swe' is observed, first of 87" in line


@pytest.mark.parametrize("value", [0, -1, np.nan])
def test_an_error_may_be_anything_where_nothing_is_observed(stored, value):
    fields = weighed_world()
    for name, replaced in (("tws", np.nan), ("tws_sigma", value)):
        fields[name] = with_value(fields[name], replaced, step=1)
    assert not checked(stored(fields)).serious


def test_errors_in_other_units_are_told(refusal):
    fields = weighed_world()
    fields["tws_sigma"].attrs["units"] = "m"
    line = refusal(fields, refuse)
    assert "tws_error [mm] has the units 'm', which convert to mm" in line


def test_errors_are_rows_of_the_check(stored):
    rows = {row.name: row for row in checked(stored(weighed_world())).rows}
    assert rows["tws_error"].units == "mm"
    assert rows["tws_error"].step == "monthly"
    assert rows["tws_error"].missing == 0
    assert rows["swe_error"].low == on_land(map_of_errors()).min()
    assert rows["swe_error"].chunks == "2 x 3"


@pytest.fixture
def weighed_store(tmp_path):
    """A store that has an error of 0."""
    fields = weighed_world()
    fields["tws_sigma"] = with_value(fields["tws_sigma"], 0, step=1)
    write_store(tmp_path / "store.zarr", fields)
    return tmp_path / "store.zarr"


def check_data(path, *overrides):
    arguments = ["check-data", str(path)]
    for override in ("split.block_size=1", "split.fold=4", *overrides):
        arguments += ["--set", override]
    return CliRunner().invoke(h2mv_tf, arguments, env={"COLUMNS": "250"})


def test_the_command_refuses_an_error_that_a_training_would_take(weighed_store):
    result = check_data(weighed_store, NORMAL)
    assert result.exit_code == 1
    assert "error: tws_error [mm] (group 'tws_sigma') is 0" in result.output
    assert "swe_error" in result.output


def test_the_command_notes_an_error_that_squares_do_not_take(weighed_store):
    result = check_data(weighed_store)
    assert result.exit_code == 0, result.output
    assert "note: tws_error [mm] (group 'tws_sigma') is 0" in result.output


def test_an_error_that_is_not_asked_for_is_not_checked(weighed_store):
    result = check_data(weighed_store, NORMAL, "objective.errors=[swe]")
    assert result.exit_code == 0, result.output
    assert "swe_error" in result.output
    assert "tws_error" not in result.output


# Inputs


def prepared(path, *overrides):
    return inputs.prepare(small_settings(path, *overrides))


def test_a_likelihood_takes_all_errors_that_the_store_has(uneven):
    found = prepared(uneven[0], NORMAL)
    assert found.survey.errors == CONSTRAINTS
    assert found.survey.constraints == CONSTRAINTS
    assert tuple(found.statistics.constraints) == CONSTRAINTS
    assert tuple(found.source.observations) == (*CONSTRAINTS, *ERRORS.values())


def test_squares_take_no_errors(uneven):
    found = prepared(uneven[0])
    assert found.survey.errors == ()
    assert tuple(found.source.observations) == CONSTRAINTS


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["objective.errors=[swe,tws]"], ("tws", "swe")),
        (["objective.errors=[]"], ()),
        (["objective.constraints=[tws,runoff]"], ("tws", "runoff")),
        (["objective.constraints=[tws]", "objective.errors=[tws,et]"], ("tws",)),
    ],
)
def test_errors_are_those_asked_for_of_the_chosen_constraints(
    uneven, overrides, expected
):
    found = prepared(uneven[0], NORMAL, *overrides)
    assert found.survey.errors == expected


def test_a_store_without_errors_does_for_a_likelihood(uneven):
    assert prepared(uneven[1], NORMAL).survey.errors == ()


def test_an_error_that_the_store_lacks_cannot_be_asked_for(uneven):
    with pytest.raises(UserError) as caught:
        prepared(uneven[1], NORMAL, "objective.errors=[et]")
    line = str(caught.value)
    assert "objective.errors names 'evapotranspiration'" in line
    assert "(group 'et_sigma')" in line
    assert "\n" not in line


def streamed(found):
    """The windows of the test cells, in order, and their batches."""
    stream = Stream(
        found.source,
        found.survey.record,
        found.split.test,
        found.windows,
        batch_size=4,
    )
    return stream.plan(), list(stream.batches())


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_errors_are_streamed_beside_their_constraints(uneven, cache):
    found = prepared(uneven[0], NORMAL, f"data.cache={cache}")
    plan, batches = streamed(found)
    store = found.survey.store
    targets = {
        name: np.concatenate([batch["targets"][name] for batch in batches])
        for name in (*CONSTRAINTS, *ERRORS.values())
    }
    for name, error in ERRORS.items():
        assert targets[error].shape == targets[name].shape
        assert (targets[error][~np.isnan(targets[name])] > 0).all()
    snow = observations(store, "swe_error")
    months = observations(store, "fapar_error")
    for row, (cell, start) in enumerate(zip(plan.cell, plan.start, strict=True)):
        days = slice(start, start + found.windows.days)
        np.testing.assert_array_equal(targets["swe_error"][row], snow[cell, days])
        first = found.windows.month[start]
        inside = months[cell, first : first + found.windows.months]
        np.testing.assert_array_equal(
            targets["fapar_error"][row, : len(inside)], inside
        )
    assert len(plan.cell) > 4


def test_a_window_that_fills_a_batch_has_no_errors(uneven):
    found = prepared(uneven[0], NORMAL)
    _, batches = streamed(found)
    filling = np.asarray(batches[-1]["weight"]) == 0
    assert filling.any()
    for error in ERRORS.values():
        assert np.isnan(np.asarray(batches[-1]["targets"][error])[filling]).all()


def test_the_objective_gets_errors_wherever_something_is_observed(uneven):
    task = training.prepare(small_settings(uneven[0], NORMAL))
    assert task.objective.names == CONSTRAINTS
    (batch, *_) = task.test.batches()
    for constraint in task.objective.constraints:
        pairs = task.objective.pairs(
            constraint, 0 * batch["forcing"][:, :, 0], batch["targets"], batch["month"]
        )
        observed, errors = pairs.observed.numpy(), pairs.errors.numpy()
        assert observed.any()
        assert (errors > 0).all()
        stored = batch["targets"][ERRORS[constraint.name]].numpy()
        np.testing.assert_array_equal(errors[observed], stored[observed])


# Synthetic worlds


@pytest.mark.parametrize("name", ["rn", "prec", "tair", "static", "mask", "truth"])
def test_all_but_the_noise_is_as_without_errors(uneven, name):
    with_errors, without = (group(path, name) for path in uneven)
    xr.testing.assert_identical(with_errors, without)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_the_gaps_are_as_without_errors(uneven, constraint):
    with_errors, without = (
        group(path, VARIABLES[constraint].group).data for path in uneven
    )
    np.testing.assert_array_equal(with_errors.isnull(), without.isnull())
    assert not np.array_equal(with_errors, without, equal_nan=True)


def test_a_world_has_no_errors_unless_they_are_asked_for(uneven):
    assert Store.open(uneven[1]).errors == ()
    assert Store.open(uneven[0]).errors == CONSTRAINTS


def noise_of(path, constraint):
    """Observation less truth where the noise is all there is between (steps, cells)."""
    store, truth = Store.open(path), group(path, "truth")
    mask = store.land.values
    seen = group(path, VARIABLES[constraint].group).data.values[:, mask]
    true = truth[constraint]
    if constraint != "swe":
        true = true.resample(time="MS").mean()
    true = true.values[:, mask]
    difference = seen - true
    if constraint == "tws":  # against another baseline
        return difference - np.nanmean(difference, axis=0)
    # Beyond the reach of what cuts the noise off.
    reach = 8 * UNEVEN["noise"] * DEVIATION[constraint]
    free = true > reach
    if constraint == "swe":
        free &= true < 100 - reach
    return np.where(free, difference, np.nan)


@pytest.mark.parametrize("constraint", ["tws", "evapotranspiration", "runoff", "swe"])
def test_the_errors_are_those_of_the_noise(uneven, constraint):
    noise = noise_of(uneven[0], constraint)
    sigma = group(uneven[0], f"{VARIABLES[constraint].group}_sigma").data
    assert sigma.dims == ("lat", "lon")
    cells = np.isfinite(noise).sum(axis=0) >= 20
    assert cells.sum() >= 6
    noise, sigma = noise[:, cells], sigma.values[Store.open(uneven[0]).land.values]
    deviation = np.sqrt(np.nanmean(noise**2, axis=0))
    count = np.isfinite(noise).sum(axis=0)
    # Within four standard errors of a standard deviation.
    assert (abs(deviation / sigma[cells] - 1) < 4 / np.sqrt(2 * count)).all()


def test_the_noise_differs_from_cell_to_cell_and_product_to_product(uneven):
    land = Store.open(uneven[0]).land.values
    factors = np.stack(
        [
            np.log(group(uneven[0], f"{VARIABLES[name].group}_sigma").data.values[land])
            - np.log(UNEVEN["noise"] * DEVIATION[name])
            for name in CONSTRAINTS
            if name != "fapar"
        ]
    )
    assert abs(np.median(factors)) < 4 * UNEVENNESS / np.sqrt(factors.size)
    assert factors.std() == pytest.approx(UNEVENNESS, rel=0.25)
    assert abs(np.corrcoef(factors) - np.eye(4)).max() < 0.5


def test_a_month_of_many_composites_has_less_error_than_one_of_few(uneven):
    sigma = group(uneven[0], "fapar_sigma").data
    seen = group(uneven[0], "fapar").data
    assert sigma.dims == ("time", "lat", "lon")
    np.testing.assert_array_equal(sigma.isnull(), seen.isnull())
    # A month has at most 5 composites and at least 8 days of one.
    ratio = (sigma.max("time") / sigma.min("time")).values
    assert np.nanmax(ratio) < np.sqrt(5) * 1.01
    assert np.nanmax(ratio) > 1.3


def test_months_of_fapar_differ_by_their_errors_from_one_draw_of_noise_to_the_next(
    tmp_path,
):
    """Two worlds of one truth and the same gaps, so that only the noise differs."""
    settings = UNEVEN | {"years": 1}
    little, much = tmp_path / "little.zarr", tmp_path / "much.zarr"
    synthesize(little, **settings | {"noise": 1e-9}, errors=True)
    synthesize(much, **settings | {"noise": 0.02}, errors=True)
    noise = group(much, "fapar").data - group(little, "fapar").data
    sigma = group(much, "fapar_sigma").data
    inside = (group(little, "fapar").data > 0.15) & (group(little, "fapar").data < 0.85)
    scaled = (noise / sigma).where(inside)
    count = int(scaled.count())
    assert count > 150
    assert float(scaled.std()) == pytest.approx(1, abs=4 / np.sqrt(2 * count))


def test_errors_do_not_depend_on_the_tiles(tmp_path, uneven):
    synthesize(tmp_path / "tiles.zarr", **UNEVEN, errors=True, tile=4, truth="none")
    for name in ("tws_sigma", "fapar_sigma"):
        xr.testing.assert_equal(
            group(tmp_path / "tiles.zarr", name), group(uneven[0], name)
        )


def test_a_world_with_errors_is_fit_to_train_on(uneven):
    assert not checked(Store.open(uneven[0])).serious


def test_a_world_without_noise_has_no_errors_to_tell(tmp_path):
    with pytest.raises(UserError, match="noise=0 has no errors to tell"):
        synthesize(tmp_path / "exact.zarr", **UNEVEN | {"noise": 0}, errors=True)
    assert not list(tmp_path.iterdir())


def test_the_command_makes_a_world_with_errors(tmp_path):
    path = tmp_path / "world.zarr"
    arguments = ["synthesize", "--to", str(path), "--rows", "6", "--columns", "9"]
    result = CliRunner().invoke(
        h2mv_tf, [*arguments, "--years", "1", "--errors", "--truth", "none"]
    )
    assert result.exit_code == 0, result.output
    assert Store.open(path).errors == CONSTRAINTS


def test_the_settings_of_a_configuration_make_a_world_with_errors(tmp_path):
    settings = config.Synthetic(rows=6, columns=9, years=1, errors=True)
    synthesize(tmp_path / "world.zarr", **settings.model_dump(), truth="none")
    assert Store.open(tmp_path / "world.zarr").errors == CONSTRAINTS


# Ingest


@pytest.mark.parametrize("name", ["tws_error", "tws_sigma"])
def test_errors_along_time_are_taken_in_and_converted(ingested, name):
    source = grid()
    for variable, level in (("tws", 0.1), (name, 0.01)):
        source[variable] = source["tair"] * 0 + level
        source[variable].attrs["units"] = "m"
    store, report = ingested(source)
    assert store.errors == ("tws",)
    np.testing.assert_allclose(observations(store, "tws_error"), 10)
    assert "tws_error" in {row.name for row in report.rows}


def test_errors_without_time_are_no_static_inputs(ingested):
    source = grid()
    for variable in ("tws", "tws_sigma", "elevation"):
        source[variable] = source["tair"] * 0 + 1
        source[variable].attrs["units"] = "mm"
    for variable in ("tws_sigma", "elevation"):
        source[variable] = source[variable].isel(time=0, drop=True)
    store, report = ingested(source)
    assert store.static_names == ("elevation",)
    assert store.errors == ()
    assert any("tws_sigma left out" in note for note in report.notes)
