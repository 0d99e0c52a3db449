"""The search space: what is tuned, and what is refused."""

from pathlib import Path

import pytest
import yaml

from h2mv_tf import config
from h2mv_tf.errors import UserError
from h2mv_tf.tuning import space
from h2mv_tf.tuning.objective import Objective
from h2mv_tf.tuning.space import Field, Space

SPACES = Path(__file__).parents[1] / "tuning" / "spaces"
RATE = {"type": "float", "min": 0.001, "max": 0.1, "sampling": "log"}
WINDOWS = {
    "window.length": {"type": "choice", "values": ["full", 730, 1461]},
    "window.spin_up": {
        "type": "choice",
        "values": [365, 730],
        "when": {"window.length": [730, 1461]},
    },
}


@pytest.fixture
def refused(tmp_path):
    """The line with which a search space is refused."""

    def run(content, algorithm="random"):
        file = tmp_path / "space.yaml"
        if not isinstance(content, str):
            content = yaml.safe_dump(content, sort_keys=False)
        file.write_text(content)
        with pytest.raises(UserError) as caught:
            space.load(file).refuse_unfit(config.load(), algorithm)
        line = str(caught.value)
        assert "\n" not in line
        return line

    return run


@pytest.mark.parametrize(
    ("name", "settings", "algorithm"),
    [("small", "demo", "hyperband"), ("h2m", "h2mv", "bayesian")],
)
def test_a_shipped_space_fits_a_shipped_configuration(
    configs, name, settings, algorithm
):
    found = space.load(SPACES / f"{name}.yaml")
    found.refuse_unfit(config.load(configs / f"{settings}.yaml"), algorithm)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"training.lerning_rate": RATE}, "did you mean 'training.learning_rate'"),
        ({"trainin.epochs": RATE}, "unknown key"),
        ({"training.epochs.more": RATE}, "unknown key 'training.epochs.more'"),
        ({"model": RATE}, "model is 0.001"),
        ({"model.lstm_units": RATE}, "valid integer"),
        ({"training.clip_value": {**RATE, "min": 0, "sampling": "linear"}}, "than 0"),
        ({"training.clip_value": {**RATE, "min": 0}}, "logarithms need a min above 0"),
        ({"training.learning_rate": {**RATE, "min": "few"}}, "valid number"),
        ({"training.learning_rate": {**RATE, "min": 1}}, "is not below max"),
        ({"training.learning_rate": {**RATE, "step": 0.5}}, "a factor above 1"),
        ({"training.learning_rate": {**RATE, "most": 1}}, "most is unknown"),
        ({"training.learning_rate": {"type": "float", "min": 1}}, "has min and max"),
        ({"training.learning_rate": {"type": "real"}}, "'float', 'int' or 'choice'"),
        ({"training.learning_rate": 0.1}, "expected as {type: float"),
        ({"training.learning_rate": {**RATE, "step": 1000}}, "leads beyond max"),
        ({"training.learning_rate": {**RATE, "name": "rate"}}, "has a name already"),
        ({"model.code_size": {"type": "int", "min": 1, "max": 2.5}}, "whole numbers"),
        ({"model.code_size": {"type": "choice", "values": [2, "x"]}}, "valid integer"),
        ({"model.code_size": {"type": "choice", "values": [2, 2]}}, "there once"),
        ({"model.code_size": {"type": "choice", "min": 2}}, "a choice has values"),
        ({"split.fold": {"type": "int", "min": 1, "max": 3}}, "cannot be tuned"),
        (
            {"objective.saturation": {"type": "int", "min": 50, "max": 90}},
            "changes what val_loss is made of",
        ),
        (dict(reversed(WINDOWS.items())), "is not a field further up"),
        (
            {
                "training.batch_size": {"type": "choice", "values": [8, 16]},
                "training.clip_value": {**RATE, "when": {"training.batch_size": 32}},
            },
            "which it never is",
        ),
        ({}, "nothing to tune"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_in_one_line(refused, field, words):
    assert words in refused({"fields": field})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("fields: [", "is not YAML"),
        ("- 3", "is not a mapping"),
        ({"fields": {"training.learning_rate": RATE}, "goal": 1}, "goal is unknown"),
        ({}, "fields"),
        ({"fields": [{"name": "training.learning_rate", **RATE}]}, "fields by name"),
        ({"fields": {"training.learning_rate": RATE}, "folds": [11]}, "folds"),
        ({"fields": {"training.learning_rate": RATE}, "folds": [1, 1]}, "each once"),
        ({"fields": {"training.learning_rate": RATE}, "factor": 1}, "factor"),
    ],
)
def test_a_file_that_is_no_space_is_refused_in_one_line(refused, content, words):
    assert words in refused(content)


def test_hyperband_does_not_let_epochs_be_tuned(refused):
    epochs = {"training.epochs": {"type": "int", "min": 1, "max": 9}}
    assert "chooses training.epochs itself" in refused({"fields": epochs}, "hyperband")


def test_a_grid_checks_whole_numbers_like_all_others(refused):
    fields = {"fields": {"training.batch_size": {"type": "int", "min": 0, "max": 3}}}
    assert "greater than 0" in refused(fields, "grid")


def test_a_grid_asks_for_steps(refused):
    fields = {"fields": {"training.learning_rate": RATE}}
    assert "needs a step" in refused(fields, "grid")


def test_a_file_that_is_not_there_is_told_by_name(tmp_path):
    with pytest.raises(UserError, match="Cannot read search space"):
        space.load(tmp_path / "none.yaml")


def test_a_space_is_the_same_after_it_was_written():
    found = Space.model_validate({"fields": WINDOWS, "objective": "val/mean_kge/et"})
    again = yaml.safe_load(yaml.safe_dump(found.model_dump(mode="json")))
    assert Space.model_validate(again) == found


def test_choices_of_several_types_come_back_as_they_were():
    found = Space.model_validate({"fields": WINDOWS})
    for field in found.fields:
        for code, value in field.codes.items():
            assert isinstance(code, str if field.name == "window.length" else int)
            assert found.values({field.name: code}) == {field.name: value}


def test_a_truth_value_is_not_taken_for_a_number():
    field = Field(name="training.jit_compile", type="choice", values=(True, False))
    assert list(field.codes) == ["true", "false"]


def test_a_field_is_drawn_only_with_the_values_that_it_hangs_on():
    found = Space.model_validate({"fields": WINDOWS}).hyperparameters()
    spin_up = found.space[1]
    found.values = {"window.length": "full"}
    assert not found.is_active(spin_up)
    found.values = {"window.length": "730"}
    assert found.is_active(spin_up)


def test_a_grid_counts_conditional_points_where_they_are_tuned():
    # full; 730 and 1461 with two spin-ups each
    assert Space.model_validate({"fields": WINDOWS}).points() == 1 + 2 * 2


def test_the_steps_of_a_grid_are_counted():
    fields = {
        "model.code_size": {"type": "int", "min": 4, "max": 12, "step": 4},
        "training.learning_rate": {**RATE, "step": 10},
    }
    assert Space.model_validate({"fields": fields}).points() == 3 * 3


def test_a_position_follows_the_sampling():
    field = Field(name="training.learning_rate", **RATE)
    assert field.position(0.001) == 0
    assert field.position(0.01) == pytest.approx(0.5)
    assert field.position(0.1) == pytest.approx(1)
    choice = Field(name="window.length", type="choice", values=("full", 730, 1461))
    assert [choice.position(value) for value in choice.values] == [0, 0.5, 1]


def test_an_objective_is_told_in_full():
    found = Objective.parse("val/median_nse/q")
    assert str(found) == "val/median_nse/runoff/monthly"
    assert Objective.parse(str(found)) == found
    assert Objective.parse("val_loss").of_the_loss


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("test/median_nse/runoff", "kept for the end"),
        ("loss", "is no objective"),
        ("val/median_nse", "is no objective"),
        ("val/most_nse/runoff", "no known statistic"),
        ("val/median_skill/runoff", "no known metric"),
        ("val/median_nse/rain", "no known variable"),
        ("val/median_nse/runoff/hourly", "no known scale"),
        ("val/median_kge/tws", "means of anomalies"),
        ("val/median_kge/et/anomaly", "means of anomalies"),
    ],
)
def test_an_objective_that_is_none_is_refused(refused, text, words):
    fields = {"training.learning_rate": RATE}
    assert words in refused({"fields": fields, "objective": text})


def test_the_better_of_two_scores_is_the_larger_efficiency_and_the_smaller_error():
    assert Objective.parse("val/median_kge/et").maximised
    for metric in ("rmse", "bias", "alpha"):
        assert not Objective.parse(f"val/median_{metric}/et").maximised
    # Of what has an ideal, the distance from it.
    assert Objective.parse("val/median_bias/et").score(-0.3) == 0.3
    assert Objective.parse("val/median_alpha/et").score(0.75) == 0.25


def test_a_score_of_all_leaves_out_what_has_no_mean():
    constraints = ("tws", "evapotranspiration")
    assert Objective.parse("val/mean_kge/all").of(constraints) == constraints[1:]
    assert Objective.parse("val/mean_nse/all").of(constraints) == constraints
