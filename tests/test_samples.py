"""Samples: of a posterior, of a prior, of an ensemble, and of both."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose, assert_array_equal
from small import small_settings

from h2mv_tf import inference, predictions
from h2mv_tf.commands import options
from h2mv_tf.commands.predict import command
from h2mv_tf.data import splits
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import survey
from h2mv_tf.errors import UserError
from h2mv_tf.inference import Sampling, flow
from h2mv_tf.trained import Trained
from h2mv_tf.variables import BALANCE

VARIABLES = ("runoff", "soil_moisture", "soil_water_capacity", "baseflow_fraction")
VARIATIONAL = ("objective.likelihood=normal", "uncertainty.posterior=variational")


@pytest.fixture(scope="module")
def store(world):
    return Store.open(world)


@pytest.fixture(scope="module")
def member(store):
    """An untrained model, of a seed."""
    statistics = survey(store).statistics(np.arange(20))

    def make(*overrides, seed=0):
        settings = small_settings(store.path, *overrides, f"training.seed={seed}")
        trained = Trained.untrained(settings, statistics)
        trained.attributes["run"] = f"runs/seed-{seed}"
        return trained

    return make


@pytest.fixture(scope="module")
def variational(member):
    return member(*VARIATIONAL)


@pytest.fixture(scope="module")
def predict(store, tmp_path_factory):
    def run(trained, count, store=store, devices=1, **options):
        path = tmp_path_factory.mktemp("samples") / "out.zarr"
        fields = {k: options.pop(k) for k in Sampling._fields if k in options}
        sampling = Sampling(count, **fields)
        options = {"variables": VARIABLES, **options}
        inference.predict(
            trained, store, path, sampling=sampling, devices=devices, **options
        )
        return predictions.load(path)

    return run


@pytest.fixture(scope="module")
def kept(predict, variational):
    return predict(variational, 5, keep=True)


def test_each_variable_has_its_realizations_and_cf_says_so(kept, store):
    assert kept.runoff.dims == ("realization", "time", "lat", "lon")
    assert kept.soil_water_capacity.dims == ("realization", "lat", "lon")
    assert kept.baseflow_fraction.dims == ("realization",)
    assert kept.out_of_domain.dims == ("lat", "lon")
    assert kept.realization.attrs["standard_name"] == "realization"
    assert list(kept.member.values) == ["seed-0"] * 5
    assert kept.attrs["samples_of"] == "posterior"
    noise = json.loads(kept.attrs["noise"])["seed-0"]
    assert noise.keys() == set(store.constraints)
    assert noise["swe"]["likelihood"] == "normal"


def test_the_balance_closes_in_every_realization(kept):
    for name, limit in zip(BALANCE, (1e-3, 1e-3 * kept.sizes["time"]), strict=True):
        worst = abs(kept[name]).max(("lat", "lon"))
        assert worst.sizes == {"realization": 5}
        assert (worst < limit).all()


def test_samples_differ_in_every_cell(kept):
    land = kept.soil_water_capacity.isel(realization=0).notnull()
    assert (kept.soil_water_capacity.std("realization").where(land, 1) > 0).all()
    assert len(np.unique(kept.baseflow_fraction)) == 5


def test_a_summary_is_that_of_the_realizations(kept, predict, variational):
    found = predict(variational, 5, quantiles=(0.0, 0.5, 1.0))
    for name in VARIABLES:
        of = kept[name]
        assert_allclose(found[name], of.mean("realization"), rtol=1e-5, atol=1e-5)
        spread = of.std("realization", ddof=1)
        assert_allclose(found[f"{name}_spread"], spread, rtol=1e-3, atol=1e-5)
        levels = of.quantile([0.0, 0.5, 1.0], "realization")
        assert_allclose(found[f"{name}_quantile"], levels, rtol=1e-5, atol=1e-5)
    assert "over the samples" in found.runoff_spread.attrs["long_name"]
    summary = predictions.summarised(kept)
    assert "realization" not in summary.dims
    assert_allclose(summary.runoff, found.runoff, rtol=1e-5, atol=1e-5)
    assert_allclose(summary.largest_residual, found.largest_residual)


@pytest.mark.parametrize("how", [{"memory": 2e6}, {"devices": 3}, {"monthly": True}])
def test_memory_devices_and_steps_change_no_sample(kept, predict, variational, how):
    found = predict(variational, 5, keep=True, **how)
    expected = kept.runoff
    if "monthly" in how:
        expected = expected.resample(time="MS").mean()
    assert_allclose(found.runoff, expected, rtol=1e-4, atol=1e-5)
    assert_array_equal(found.soil_water_capacity, kept.soil_water_capacity)


def test_a_seed_makes_the_same_samples_and_another_one_others(
    kept, predict, variational
):
    again = predict(variational, 3, keep=True)
    assert_array_equal(
        again.soil_water_capacity, kept.soil_water_capacity.isel(realization=slice(3))
    )
    other = predict(variational, 3, keep=True, seed=1)
    assert not np.allclose(again.baseflow_fraction, other.baseflow_fraction)


def test_samples_of_the_prior_are_wider_than_those_of_a_posterior(
    kept, predict, variational
):
    prior = predict(variational, 40, keep=True, prior=True)
    assert prior.attrs["samples_of"] == "prior"
    logs = np.log(prior.soil_water_capacity)
    # As the configuration has it: median 200 mm, deviation 0.8.
    assert float(logs.mean()) == pytest.approx(np.log(200), abs=0.1)
    assert float(logs.std()) == pytest.approx(0.8, abs=0.1)
    width = prior.baseflow_fraction.std()
    assert width > 3 * kept.baseflow_fraction.std()


def test_draws_of_the_prior_know_nothing_of_each_other(predict, variational):
    prior = predict(variational, 60, keep=True, prior=True)
    cell = prior.soil_water_capacity.stack(cell=("lat", "lon")).dropna("cell")
    drawn = np.stack(
        [
            np.log(cell.isel(cell=0)),
            np.log(cell.isel(cell=1)),
            np.log(prior.baseflow_fraction / (1 - prior.baseflow_fraction)),
        ]
    )
    apart = np.corrcoef(drawn)[np.triu_indices(3, 1)]
    assert np.all(abs(apart) < 0.5)


def test_a_prior_that_was_left_out_is_told(predict, member):
    given = member("objective.likelihood=normal", "priors.baseflow_fraction=null")
    with pytest.raises(UserError, match="has no prior of baseflow_fraction"):
        predict(given, 4, prior=True)


def test_an_ensemble_gives_a_sample_of_each_model(predict, member):
    members = [member(seed=seed) for seed in (1, 2, 3)]
    found = predict(members, 3, keep=True)
    assert list(found.member.values) == ["seed-1", "seed-2", "seed-3"]
    assert "fold" not in found.attrs
    assert json.loads(found.attrs["noise"]) == {f"seed-{n}": {} for n in (1, 2, 3)}
    for n, one in enumerate(members):
        constant = one.constants["baseflow_fraction"]
        assert float(found.baseflow_fraction[n]) == pytest.approx(constant, rel=1e-5)
    alone = predict([members[1], members[2]], 2, keep=True)
    assert_allclose(found.runoff[1], alone.runoff[0], rtol=1e-4, atol=1e-5)


def test_an_ensemble_of_posteriors_mixes_members_and_draws(predict, member):
    found = predict([member(*VARIATIONAL, seed=s) for s in (1, 2)], 6, keep=True)
    assert list(found.member.values) == ["seed-1", "seed-2"] * 3
    of_one = found.soil_water_capacity.isel(realization=slice(0, None, 2))
    assert (of_one.std("realization").max() > 0).all()


@pytest.mark.parametrize(
    ("count", "settings", "words"),
    [
        (5, (), "has no posterior to draw from"),
        (1, VARIATIONAL, "expected 2 or more"),
    ],
)
def test_samples_that_there_are_not_are_refused(
    predict, member, count, settings, words
):
    with pytest.raises(UserError, match=words) as caught:
        predict(member(*settings), count)
    assert "\n" not in str(caught.value)


def test_fewer_samples_than_members_and_members_of_two_kinds_are_refused(
    predict, member
):
    with pytest.raises(UserError, match="one of each"):
        predict([member(seed=s) for s in (1, 2, 3)], 2)
    with pytest.raises(UserError, match="differ in lstm_units: 5 and 4"):
        predict([member(seed=1), member("model.lstm_units=4", seed=2)], 2)


def test_members_that_cannot_be_told_apart_or_were_judged_elsewhere_are_refused(
    predict, member, store
):
    with pytest.raises(UserError, match="2 models have one name, out of: seed-1"):
        predict([member(seed=1), member(seed=1)], 2)
    one, other = (
        dataclasses.replace(
            member(seed=seed),
            roles=splits.roles(store.land, block_size=2, seed=seed).rename("role"),
        )
        for seed in (1, 2)
    )
    with pytest.raises(UserError, match="differ in their test cells"):
        predict([one, other], 2)


def test_a_block_is_as_small_as_memory_asks_for():
    assert flow.tile_sides(365, ("lat", "lon")) == {"lat": 16, "lon": 16}
    assert flow.tile_sides(365, ("lat", "lon"), 20.0) == {"lat": 4, "lon": 4}
    assert flow.tile_sides(365, ("cell",), 0.2) == {"cell": 1}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--seed", "1"], "are of samples"),
        (["--quantiles", "0.5"], "are of samples"),
        (["--realizations"], "are of samples"),
        (
            ["--samples", "9", "--realizations", "--quantiles", "0.5"],
            "not both: all quantiles follow",
        ),
    ],
)
def test_options_that_would_say_nothing_are_refused(run, given, words):
    result = CliRunner().invoke(command, [str(run.path), *given])
    assert result.exit_code
    assert words in " ".join(result.output.split())


def test_a_prior_without_a_likelihood_is_refused(predict, member):
    with pytest.raises(UserError, match="has no priors"):
        predict(member(), 4, prior=True)


def test_samples_have_no_restart_file(predict, variational, tmp_path):
    with pytest.raises(UserError, match="a state of its own"):
        predict(variational, 3, save_state=tmp_path / "state.zarr")


def test_quantiles_are_read_and_wrong_ones_refused():
    assert options.quantiles("0.95,0.5") == (0.5, 0.95)
    for text in ("", "2", "half"):
        with pytest.raises(UserError, match="Cannot read --quantiles"):
            options.quantiles(text)
