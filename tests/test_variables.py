import dataclasses
from collections import Counter, defaultdict

import pytest

from h2mv_tf import physics, variables
from h2mv_tf.cell import State
from h2mv_tf.variables import VARIABLES, Variable, find, names

VOCABULARIES = ("name", "group", "cmip", "published")


def given(field):
    """All values of a field that are filled in."""
    values = (getattr(variable, field) for variable in VARIABLES.values())
    return [value for value in values if value]


@pytest.mark.parametrize(
    ("record", "kinds"),
    [
        (physics.Forcing, ("forcing",)),
        (physics.Coefficients, ("coefficient",)),
        (physics.Parameters, ("parameter", "constant")),
        (physics.WaterState, ("state",)),
        (physics.Fluxes, ("flux",)),
    ],
)
def test_the_records_of_the_physics_are_the_registry_in_its_order(record, kinds):
    assert record._fields == names(*kinds)


def test_a_state_of_the_cell_is_the_prognostic_variables_in_their_order():
    assert State._fields == variables.PROGNOSTIC


def test_the_diagnostics_of_a_day_are_those_of_the_registry_but_the_anomaly():
    daily = [name for name in names("diagnostic") if name != "tws_anomaly"]
    assert list(physics.Diagnostics._fields) == daily


def test_names_keeps_the_order_of_the_registry_whatever_the_order_asked():
    assert names("constant", "forcing") == names("forcing", "constant")
    assert names("constant") == ("snowfall_correction", "baseflow_fraction")
    assert names() == ()


def test_every_variable_stands_under_its_own_name():
    assert all(name == variable.name for name, variable in VARIABLES.items())


def test_the_model_returns_all_but_what_goes_in_and_what_is_of_a_whole_simulation():
    others = set(names("forcing", "balance", "memory", "domain", "error"))
    assert set(variables.OUTPUTS) == set(VARIABLES) - others
    assert len(set(variables.OUTPUTS)) == len(variables.OUTPUTS)


def test_a_daily_output_is_neither_a_parameter_nor_needs_the_series():
    rest = set(variables.OUTPUTS) - set(variables.DAILY_OUTPUTS)
    assert rest == {*names("parameter", "constant"), "tws_anomaly"}
    assert len(set(variables.DAILY_OUTPUTS)) == len(variables.DAILY_OUTPUTS)
    step = set(variables.OUTPUTS) - set(variables.STEP_OUTPUTS)
    assert step == {"tws_anomaly"}


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_has_a_long_name_and_units_of_the_model(name):
    variable = VARIABLES[name]
    assert variable.long_name.strip()
    assert variable.units in {
        "1",
        "K",
        "mm",
        "d-1",
        "mm d-1",
        "mm K-1 d-1",
        "W m-2",
    }


@pytest.mark.parametrize(("kind", "units"), [("state", "mm"), ("flux", "mm d-1")])
def test_storages_are_depths_and_fluxes_are_depths_per_day(kind, units):
    assert {VARIABLES[name].units for name in names(kind)} == {units}


@pytest.mark.parametrize("field", [*VOCABULARIES, "standard_name", "long_name"])
def test_no_two_variables_share_a_name(field):
    assert [name for name, times in Counter(given(field)).items() if times > 1] == []


def test_a_word_means_one_variable_in_all_vocabularies():
    meanings = defaultdict(set)
    for variable in VARIABLES.values():
        for vocabulary in VOCABULARIES:
            meanings[getattr(variable, vocabulary)].add(variable.name)
    del meanings[""], meanings[None]
    assert {word: who for word, who in meanings.items() if len(who) > 1} == {}


def test_what_cf_names_has_a_cmip_name():
    unnamed = [v.name for v in VARIABLES.values() if v.standard_name and not v.cmip]
    assert unnamed == []


def test_the_constraints_are_what_has_a_group_and_a_cadence():
    observed = {v.name for v in VARIABLES.values() if v.cadence}
    assert observed == set(variables.CONSTRAINTS)
    assert all(VARIABLES[name].group for name in observed)
    assert [n for n in variables.CONSTRAINTS if VARIABLES[n].cadence == "daily"] == [
        "swe"
    ]


def test_bounds_are_in_order():
    for variable in VARIABLES.values():
        least, most = variable.bounds
        assert least is None or most is None or least < most


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_find_knows_every_word_of_every_vocabulary(vocabulary):
    for variable in VARIABLES.values():
        word = getattr(variable, vocabulary)
        if word:
            assert find(word) is variable


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("runoff", "runoff"),  # ours
        ("q", "runoff"),  # the store's
        ("mrro", "runoff"),  # CMIP's
        ("runoff_total", "runoff"),  # the published code's
        ("rss+rls", "net_radiation"),
        ("T", "transpiration"),
        ("fAPAR_nn", "fapar"),
    ],
)
def test_find_translates(word, name):
    assert find(word) is VARIABLES[name]


def test_find_gives_nothing_for_an_unknown_word():
    assert find("snowdrift") is None


def test_find_gives_nothing_for_an_empty_word():
    assert find("") is None


def test_find_looks_only_among_the_given_names():
    assert find("mrro", among=("swe", "runoff")) is VARIABLES["runoff"]
    assert find("mrro", among=("swe", "baseflow")) is None


def test_find_prefers_our_own_names():
    registry = [VARIABLES["swe"], VARIABLES["tws"]]
    assert [find(v.name, among=("tws", "swe")) for v in registry] == registry


def test_the_label_is_the_name_with_its_unit():
    assert VARIABLES["snowmelt_factor"].label == "snowmelt_factor [mm K-1 d-1]"


def test_attributes_are_those_of_cf():
    assert VARIABLES["runoff"].attributes == {
        "long_name": "total runoff",
        "units": "mm d-1",
        "standard_name": "runoff_flux",
    }


def test_no_standard_name_is_invented():
    assert VARIABLES["groundwater"].attributes == {
        "long_name": "groundwater storage",
        "units": "mm",
    }


def test_the_registry_cannot_be_changed():
    with pytest.raises(TypeError):
        VARIABLES["rain"] = VARIABLES["rainfall"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        VARIABLES["runoff"].units = "inches"


def test_a_variable_is_described_by_keywords_alone():
    with pytest.raises(TypeError):
        Variable("depth", "D")
