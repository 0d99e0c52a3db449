import io

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from h2mv_tf import plots
from h2mv_tf.plots import style
from h2mv_tf.tuning import board
from h2mv_tf.tuning.importance import importance
from h2mv_tf.tuning.space import Field

RATE, UNITS, BATCH = "training.learning_rate", "model.lstm_units", "training.batch_size"
LENGTH, DROPOUT = "window.length", "model.dropout"
SCALES = {RATE: "log", UNITS: "linear", BATCH: (16, 32, 64), DROPOUT: "linear"}
FIELDS = (
    Field(name=RATE, type="float", min=1e-4, max=1e-1, sampling="log"),
    Field(name=UNITS, type="int", min=16, max=128),
    Field(name=BATCH, type="choice", values=(16, 32, 64)),
    Field(
        name=DROPOUT, type="float", min=0.0, max=0.5, when={BATCH: (16, 32)}
    ),  # not active with 64
)


def sweep(scores, **columns):
    """The table of a random sweep; a score of None is a failed trial."""
    count = len(scores)
    rng = np.random.default_rng(7)
    trials = pd.DataFrame({"trial": np.arange(count)})
    trials["score"] = np.array(scores, "float64")
    failed = trials["score"].isna()
    trials["status"] = np.where(failed, "failed", "completed")
    trials["epochs"] = trials["best_epoch"] = 30
    trials["seconds"] = 600.0
    ends = pd.to_timedelta(600.0 * (trials["trial"] + 1), unit="s")
    trials["ended"] = pd.Timestamp("2026-01-01") + ends
    trials["bracket"] = trials["round"] = trials["promoted_from"] = np.nan
    trials["origin"] = trials["trial"]
    trials["reason"] = np.where(failed, "the loss is not a number", None)
    trials[RATE] = 10 ** rng.uniform(-4, -1, count)
    trials[UNITS] = rng.integers(16, 129, count)
    trials[BATCH] = np.array([16, 32, 64])[rng.integers(0, 3, count)]
    dropout = rng.uniform(0, 0.5, count)
    trials[DROPOUT] = np.where(trials[BATCH] == 64, np.nan, dropout)
    return trials.assign(**columns)


def hyperband(scores, promoted, epochs=(3, 9)):
    """A sweep of two budgets: scores of the first round, and of those that went on."""
    first = sweep(scores, bracket=1, round=0, epochs=epochs[0])
    second = first.set_index("trial").loc[list(promoted)].reset_index()
    second = second.assign(
        promoted_from=second["trial"],
        trial=len(scores) + np.arange(len(promoted)),
        score=list(promoted.values()),
        round=1,
        epochs=epochs[1],
        ended=second["ended"] + pd.Timedelta("1D"),
    )
    return pd.concat([first, second], ignore_index=True)


def lines(axis, marker):
    return [line for line in axis.lines if line.get_marker() == marker]


def words(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def marked(axis):
    """What is drawn of completed trials at their score (trial, 2)."""
    return axis.collections[0].get_offsets()


def top(axis):
    return axis.get_ylim()[1]


# scores of fields


def test_each_field_has_a_panel_of_scores_against_its_values():
    trials = sweep([0.5, 0.4, 0.6])
    figure = plots.scores_of_fields(trials, SCALES, "val_loss")
    assert [axis.get_xlabel() for axis in figure.axes] == list(SCALES)
    expected = np.column_stack([np.log10(trials[RATE]), trials["score"]])
    np.testing.assert_allclose(marked(figure.axes[0]), expected)


def test_scores_that_span_little_have_a_linear_axis_and_others_a_logarithmic_one():
    near = plots.scores_of_fields(sweep([1.0, 2.0, 2.9]), SCALES, "loss").axes[0]
    wide = plots.scores_of_fields(sweep([1.0, 10.0, 100.0]), SCALES, "loss").axes[0]
    np.testing.assert_allclose(marked(near)[:, 1], [1, 2, 2.9])
    np.testing.assert_allclose(marked(wide)[:, 1], [0, 1, 2])
    labels = [label.get_text() for label in wide.get_yticklabels()]
    assert labels == ["1", "2", "5", "10", "20", "50", "100"]


def test_negative_scores_and_skill_have_a_linear_axis():
    for scores, maximise in (([-1.0, 0.1, 0.9], False), ([0.1, 0.4, 0.9], True)):
        axis = plots.scores_of_fields(sweep(scores), SCALES, "s", maximise).axes[0]
        np.testing.assert_allclose(marked(axis)[:, 1], scores)


def test_a_diverged_trial_is_an_arrow_at_the_worst_edge_and_does_not_squash_the_rest():
    scores = [0.5, 0.6, 0.7, 0.8, 0.55, 0.65, 0.75, 1e9]
    figure = plots.scores_of_fields(sweep(scores), SCALES, "val_loss")
    for axis in figure.axes:
        assert top(axis) < 1
        at_value, arrows = axis.collections
        assert at_value.get_offsets()[:, 1].max() == 0.8
        np.testing.assert_allclose(arrows.get_offsets()[:, 1], [0.955])
    assert "beyond the axis" in legend(figure)


def test_of_a_score_to_maximise_the_outliers_are_low():
    scores = [0.5, 0.6, 0.7, 0.8, 0.55, 0.65, 0.75, -1e9]
    axis = plots.scores_of_fields(sweep(scores), SCALES, "nse", maximise=True).axes[0]
    assert axis.get_ylim()[0] > 0
    np.testing.assert_allclose(axis.collections[1].get_offsets()[:, 1], [0.045])


def test_a_much_better_trial_is_no_outlier():
    scores = [0.5, 0.6, 0.7, 0.8, 0.55, 0.65, 0.75, 1e-6]
    figure = plots.scores_of_fields(sweep(scores), SCALES, "val_loss")
    assert len(marked(figure.axes[0])) == 8
    assert "beyond the axis" not in legend(figure)


@pytest.mark.parametrize(("maximise", "height"), [(False, 0.955), (True, 0.045)])
def test_a_failed_trial_is_a_cross_at_the_worst_edge(maximise, height):
    trials = sweep([0.5, None, 0.6])
    figure = plots.scores_of_fields(trials, SCALES, "score", maximise)
    (cross,) = lines(figure.axes[0], "x")
    np.testing.assert_allclose(
        cross.get_xydata(), [[np.log10(trials[RATE][1]), height]]
    )
    assert "failed" in legend(figure)


@pytest.mark.parametrize(("maximise", "best"), [(False, 1), (True, 2)])
def test_the_best_trial_has_a_star(maximise, best):
    trials = sweep([0.5, 0.4, 0.6])
    axis = plots.scores_of_fields(trials, SCALES, "score", maximise).axes[1]
    (star,) = lines(axis, "*")
    np.testing.assert_allclose(
        star.get_xydata(), [[trials[UNITS][best], trials["score"][best]]]
    )


def test_trials_of_a_choice_stand_side_by_side_at_it_and_always_in_the_same_way():
    trials = sweep([0.5, 0.4, 0.6, 0.7], **{BATCH: [16, 16, 64, 64]})
    first, second = (
        marked(plots.scores_of_fields(trials, SCALES, "val_loss").axes[2])[:, 0]
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert len(set(first)) == 4
    np.testing.assert_array_equal(np.round(first), [0, 0, 2, 2])


def test_choices_are_told_by_what_they_are():
    trials = sweep(
        [0.5, 0.4, 0.6], **{LENGTH: pd.Series(["full", 365, None], dtype=object)}
    )
    scales = {LENGTH: ("full", 365, None), BATCH: (16.0, 32.0, 64.0)}
    length, batch = plots.scores_of_fields(trials, scales, "val_loss").axes
    labels = [label.get_text() for label in length.get_xticklabels()]
    assert labels == ["full", "365", "None"]
    np.testing.assert_array_equal(np.round(marked(length)[:, 0]), [0, 1, 2])
    assert [label.get_text() for label in batch.get_xticklabels()] == ["16", "32", "64"]


def test_a_trial_is_not_in_the_panel_of_a_field_that_was_not_active():
    trials = sweep([0.5, 0.4, 0.6], **{DROPOUT: [0.1, np.nan, 0.3]})
    figure = plots.scores_of_fields(trials, SCALES, "val_loss")
    drawn = np.ma.filled(marked(figure.axes[3])[:, 0], np.nan)
    np.testing.assert_array_equal(drawn[np.isfinite(drawn)], [0.1, 0.3])
    trials[DROPOUT] = np.nan
    assert words(plots.scores_of_fields(trials, SCALES, "val_loss")) == ["not active"]


def test_a_running_trial_is_not_drawn():
    trials = sweep([0.5, 0.4, None])
    trials.loc[2, ["status", "ended"]] = "running", pd.NaT
    figure = plots.scores_of_fields(trials, SCALES, "val_loss")
    assert legend(figure) == ["trial", "best trial"]
    assert not lines(figure.axes[0], "x")


def test_colours_are_epochs_in_hyperband_only():
    trials = hyperband([0.5, 0.6, 0.7, 0.8], {0: 0.3, 2: 0.4})
    figure = plots.scores_of_fields(trials, SCALES, "val_loss")
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "epochs"
    assert [label.get_text() for label in bar.get_yticklabels()] == ["3", "9"]
    colors = figure.axes[0].collections[0].get_facecolors()
    assert len(np.unique(colors[:4], axis=0)) == 1
    assert len(np.unique(colors, axis=0)) == 2
    # Stopped early, at different epochs: no budgets.
    stopped = sweep([0.5, 0.6, 0.7], epochs=[10, 20, 30])
    assert len(plots.scores_of_fields(stopped, SCALES, "val_loss").axes) == len(SCALES)


def test_small_numbers_are_written_as_powers():
    trials = sweep([0.5, 0.4], **{RATE: [1e-6, 1e-2]})
    axis = plots.scores_of_fields(trials, {RATE: "log"}, "val_loss").axes[0]
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert labels == ["10⁻⁶", "10⁻⁴", "10⁻²"]


# best so far


def test_the_best_so_far_steps_when_a_better_trial_ends():
    trials = sweep([0.5, 0.6, None, 0.4])  # one each ten minutes
    axis = plots.best_so_far(trials, "val_loss").axes[0]
    (line,) = (line for line in axis.lines if line.get_label() == "best so far")
    np.testing.assert_allclose(
        line.get_xydata(), [[10, 0.5], [20, 0.5], [40, 0.4], [40, 0.4]]
    )
    assert line.get_drawstyle() == "steps-post"
    assert axis.get_xlabel() == "minutes since the first trial began"
    (cross,) = lines(axis, "x")
    np.testing.assert_allclose(cross.get_xydata(), [[30, 0.045]])


def test_the_best_so_far_is_the_greatest_where_more_is_better_in_order_of_ends():
    trials = sweep([0.5, 0.6, 0.55])
    trials["ended"] = trials["ended"][::-1].to_numpy()  # the last ends first
    axis = plots.best_so_far(trials, "nse", maximise=True).axes[0]
    (line,) = (line for line in axis.lines if line.get_label() == "best so far")
    np.testing.assert_allclose(line.get_ydata(), [0.55, 0.6, 0.6, 0.6])


def test_a_long_sweep_is_told_in_hours_and_a_longer_one_in_days():
    for factor, unit, last in ((24, "hours", 12), (480, "days", 10)):
        trials = sweep([0.5, 0.4, 0.6])
        trials["seconds"] *= factor
        begin = pd.Timestamp("2026-01-01", tz="UTC")
        trials["ended"] = begin + pd.to_timedelta(trials["seconds"].cumsum(), unit="s")
        axis = plots.best_so_far(trials, "val_loss").axes[0]
        assert axis.get_xlabel().startswith(unit)
        assert marked(axis)[:, 0].max() == pytest.approx(last)


# parallel coordinates


def test_each_configuration_has_one_line_through_its_values_to_its_score():
    trials = sweep([0.5, 0.4, 0.6, None], **{UNITS: [16, 32, 64, 128]})
    axis = plots.parallel_coordinates(trials, {UNITS: "linear"}, "val_loss").axes[0]
    (drawn,) = axis.collections
    shares = np.array([segment[:, 1] for segment in drawn.get_segments()])
    assert len(shares) == 3
    # The worst first, and the best above it; 128 units were tried, and failed.
    low, high = style.sided([16, 128], 0.03)
    expected = (np.array([64, 16, 32]) - low) / (high - low)
    np.testing.assert_allclose(shares[:, 0], expected)
    np.testing.assert_allclose(shares[:, 1], [1, 0.5, 0])


def test_a_configuration_that_went_on_has_one_line_of_its_longest_trial():
    trials = hyperband([0.5, 0.6, 0.7, 0.8], {0: 0.3, 2: 0.4})
    axis = plots.parallel_coordinates(trials, SCALES, "val_loss").axes[0]
    (drawn,) = axis.collections
    segments = drawn.get_segments()
    assert len(segments) == 4
    epochs = np.array([segment[len(SCALES), 1] for segment in segments])
    np.testing.assert_array_equal(epochs > 0.5, [False, False, True, True])
    assert "epochs" in words(axis.figure)


@pytest.mark.parametrize(("maximise", "best"), [(False, 1), (True, 2)])
def test_the_best_line_is_thick_and_on_top(maximise, best):
    trials = sweep([0.5, 0.4, 0.6], **{UNITS: [16, 64, 128]})
    scales = {UNITS: "linear"}
    axis = plots.parallel_coordinates(trials, scales, "score", maximise).axes[0]
    (line,) = (line for line in axis.lines if line.get_label() == "best trial")
    low, high = style.sided([16, 128], 0.03)
    assert line.get_ydata()[0] == pytest.approx(
        (trials[UNITS][best] - low) / (high - low)
    )
    assert line.get_ydata()[-1] == float(maximise)
    others = axis.collections[0]
    assert line.get_zorder() > others.get_zorder()
    assert line.get_linewidth() > 2 * others.get_linewidths()[0]


def test_a_field_that_was_not_active_is_met_below_its_axis():
    trials = sweep([0.5, 0.4, 0.6], **{DROPOUT: [0.1, np.nan, 0.3]})
    figure = plots.parallel_coordinates(trials, {DROPOUT: "linear"}, "val_loss")
    (drawn,) = figure.axes[0].collections
    below = [segment[0, 1] < 0 for segment in drawn.get_segments()]
    assert below == [False, False, True]
    assert "inactive" in words(figure)


def test_a_diverged_trial_ends_beyond_the_axis_of_parallel_coordinates():
    scores = [0.5, 0.6, 0.7, 0.8, 0.55, 0.65, 0.75, 1e9]
    axis = plots.parallel_coordinates(sweep(scores), SCALES, "val_loss").axes[0]
    ends = np.array([s[-1, 1] for s in axis.collections[0].get_segments()])
    assert ends[0] > 1
    assert ends[1:].max() == 1
    (arrow,) = lines(axis, "^")
    np.testing.assert_allclose(arrow.get_xydata(), [[len(SCALES), ends[0]]])


def test_headings_are_the_last_part_of_a_name_where_that_is_enough():
    trials = sweep([0.5, 0.4])
    trials = trials.assign(**{"training.seed": [1, 2], "split.seed": [1, 2]})
    scales = {RATE: "log", "training.seed": "linear", "split.seed": "linear"}
    found = words(plots.parallel_coordinates(trials, scales, "val_loss"))
    expected = {"learning\nrate", "training\nseed", "split\nseed", "val_loss"}
    assert expected <= set(found)


@pytest.mark.parametrize("objective", ["val_loss", "val/median_nse/runoff"])
def test_no_text_overlaps_with_eleven_fields_on_the_width_of_a_page(objective):
    names = {
        "model.encoder_units": "log",
        "model.code_size": "linear",
        "model.encoder_layers": (1, 2, 3),
        "model.dropout": "linear",
        "model.lstm_units": "log",
        "training.learning_rate": "log",
        "training.weight_decay": "log",
        "training.clip_value": "log",
        "window.length": ("full", 365, 730),
        "window.spin_up": (365, 730, 1095),
        "training.batch_size": (64, 128, 256, 512),
    }
    rng = np.random.default_rng(3)
    trials = sweep(rng.uniform(0.4, 0.9, 20))
    for name, scale in names.items():
        drawn = 10 ** rng.uniform(-6, 2, 20)
        if not isinstance(scale, str):
            drawn = pd.Series([scale[n] for n in rng.integers(0, len(scale), 20)])
        trials[name] = drawn
    figure = plots.parallel_coordinates(trials, names, objective)
    assert figure.get_figwidth() == pytest.approx(180 / 25.4)
    figure.savefig(io.BytesIO(), format="png")
    texts = figure.axes[0].texts
    assert min(text.get_fontsize() for text in texts) >= 7
    boxes = [text.get_window_extent() for text in texts]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1


# sweeps of which there is little to draw

DRAWINGS = (
    lambda trials: plots.scores_of_fields(trials, SCALES, "val_loss"),
    lambda trials: plots.parallel_coordinates(trials, SCALES, "val_loss"),
    lambda trials: plots.best_so_far(trials, "val_loss"),
)


@pytest.mark.parametrize("draw", DRAWINGS)
def test_a_single_trial_is_drawn(draw):
    figure = draw(sweep([0.5]))
    figure.savefig(io.BytesIO(), format="png")
    assert "no trial was completed" not in words(figure)


@pytest.mark.parametrize("draw", DRAWINGS)
def test_where_all_trials_failed_the_figure_says_so(draw):
    figure = draw(sweep([None, None, None]))
    figure.savefig(io.BytesIO(), format="png")
    assert "no trial was completed" in words(figure)


@pytest.mark.parametrize("draw", DRAWINGS)
def test_trials_of_the_same_score_are_drawn(draw):
    draw(sweep([0.5] * 4)).savefig(io.BytesIO(), format="png")


# importance


def test_the_one_field_that_matters_is_found():
    trials = sweep(np.zeros(60))
    trials["score"] = (np.log10(trials[RATE]) + 2) ** 2
    found = importance(trials, FIELDS)
    table = found.table.set_index("field")["importance"]
    assert found.table["field"][0] == RATE
    assert table[RATE] > 0.5
    assert table.drop(RATE).abs().max() < 0.05
    assert found.explained > 0.8


def test_how_badly_a_trial_diverged_changes_nothing():
    trials = sweep(np.zeros(20))
    trials["score"] = trials[UNITS] + 10 * np.log10(trials[RATE]) ** 2
    expected = importance(trials, FIELDS[:2])
    trials.loc[trials["score"].idxmax(), "score"] = 1e30
    found = importance(trials, FIELDS[:2])
    pd.testing.assert_frame_equal(found.table, expected.table)
    assert found.explained == expected.explained


def test_of_noise_a_forest_explains_nothing():
    trials = sweep(np.random.default_rng(5).random(60))
    assert importance(trials, FIELDS).explained < 0.1


def test_a_configuration_is_not_recognised_in_the_trial_that_it_went_on_in():
    noise = np.random.default_rng(5).random(40)
    trials = hyperband(noise, dict(enumerate(noise)))  # goes on with the same score
    assert importance(trials, FIELDS[:1]).explained < 0.1
    leaking = importance(trials.assign(origin=trials["trial"]), FIELDS[:1])
    assert leaking.explained > 0.3


def test_the_budget_is_a_field_of_hyperband():
    scores = np.random.default_rng(5).uniform(1, 2, 40)
    trials = hyperband(scores, dict(enumerate(scores[:20] / 100)))
    found = importance(trials, FIELDS[:1]).table
    assert list(found["field"]) == ["epochs", RATE]
    # Where a trial stopped is no budget.
    stopped = sweep(scores, epochs=np.arange(40) + 10)
    assert list(importance(stopped, FIELDS[:1]).table["field"]) == [RATE]


def test_a_grid_that_has_its_values_in_turns_hides_no_field():
    values = (16, 32, 64, 128, 256)
    field = Field(name=BATCH, type="choice", values=values)
    turns = np.arange(40) % 5
    trials = sweep(turns / 10, **{BATCH: np.array(values)[turns]})
    assert importance(trials, [field]).table["importance"][0] > 0.5


def test_choices_in_a_column_with_gaps_are_known():
    field = Field(name=BATCH, type="choice", values=(16, 32, 64), when={UNITS: (16,)})
    trials = sweep(np.random.default_rng(5).random(30))
    trials[BATCH] = trials[BATCH].astype("float64").where(trials["trial"] % 2 == 0)
    assert set(importance(trials, [field]).table["field"]) == {BATCH}


def test_whether_a_conditional_field_was_active_may_matter():
    trials = sweep(np.random.default_rng(5).random(60))
    active = trials[DROPOUT].notna()
    trials[DROPOUT] = np.where(active, 0.05, np.nan)  # at a tenth, or in the middle
    trials["score"] += 2 * active
    found = importance(trials, [FIELDS[0], FIELDS[3]])
    assert found.table["field"][0] == DROPOUT
    assert found.explained > 0.5


def test_little_says_nothing():
    scores = np.linspace(0, 1, 10)
    assert importance(sweep(scores), FIELDS[:1]) is not None
    assert importance(sweep([*scores[:9], None]), FIELDS) is None
    assert importance(sweep(np.ones(20)), FIELDS) is None
    four = np.arange(10) % 4
    assert importance(sweep(scores, origin=four), FIELDS) is None


def bars():
    columns = {"importance": [0.1, 0.6, -0.01], "deviation": [0.05, 0.2, 0.02]}
    return pd.DataFrame({"field": [UNITS, RATE, BATCH], **columns})


def test_importances_are_bars_with_deviations_the_greatest_on_top():
    axis = plots.importance_of_fields(bars(), 0.63).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        RATE,
        UNITS,
        BATCH,
    ]
    np.testing.assert_allclose(
        [bar.get_width() for bar in axis.patches], [0.6, 0.1, -0.01]
    )
    assert axis.yaxis_inverted()
    (errors,) = axis.collections
    np.testing.assert_allclose(errors.get_segments()[0][:, 0], [0.4, 0.8])
    assert "explains 63 %" in axis.get_title("left")


def test_a_forest_that_explains_nothing_says_so():
    for explained in (0.0, -0.12):
        title = plots.importance_of_fields(bars(), explained).axes[0].get_title("left")
        assert "explains nothing" in title
    assert "R² = −0.12" in title  # noqa: RUF001


# TensorBoard


def events(folder):
    """The event file of a folder, read: (accumulator, content of the HParams)."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    content = accumulator.PluginTagToContent(metadata.PLUGIN_NAME)
    return accumulator, {
        tag.rpartition("/")[2]: metadata.parse_experiment_plugin_data(value)
        if tag == metadata.EXPERIMENT_TAG
        else value
        for tag, value in content.items()
    }


def session(folder):
    """Score, values, name and status of a trial."""
    accumulator, content = events(folder)
    start = metadata.parse_session_start_info_plugin_data(content["session_start_info"])
    end = metadata.parse_session_end_info_plugin_data(content["session_end_info"])
    values = {
        name: getattr(value, value.WhichOneof("kind"))
        for name, value in start.hparams.items()
    }
    scores = {
        tag: tf.make_ndarray(accumulator.Tensors(tag)[-1].tensor_proto).item()
        for tag in accumulator.Tags()["tensors"]
        if not tag.startswith("_hparams_")
    }
    return scores, values, start, end


def test_every_trial_is_a_session_with_its_values_and_score(tmp_path):
    trials = sweep([0.5, 0.25, None, None])
    trials.loc[3, "status"] = "running"
    board.write(tmp_path / "logs", trials, FIELDS, "val_loss")
    sessions = sorted(path.name for path in (tmp_path / "logs").glob("*/"))
    assert sessions == ["0000", "0001", "0002"]
    for number, name in enumerate(sessions):
        scores, values, start, end = session(tmp_path / "logs" / name)
        trial = trials.iloc[number]
        assert start.group_name == name
        assert values == trial[[field.name for field in FIELDS]].dropna().to_dict()
        assert end.end_time_secs - start.start_time_secs == pytest.approx(600)
        if trial["status"] == "completed":
            assert scores == {"val_loss": trial["score"], "epochs": 30}
            assert end.status == api_pb2.STATUS_SUCCESS
        else:
            assert scores == {}
            assert end.status == api_pb2.STATUS_FAILURE


def test_the_experiment_tells_the_domain_of_each_field(tmp_path):
    fields = (
        *FIELDS[:3],
        Field(name="a", type="choice", values=(False, True)),
        Field(name="b", type="choice", values=("full", 365)),
        Field(name="c", type="choice", values=(["et"], ["et", "tws"])),
        Field(name="d", type="choice", values=(1, 0.5)),
    )
    board.write(tmp_path / "logs", sweep([]), fields, "val_loss")
    _, content = events(tmp_path / "logs")
    experiment = content["experiment"]
    infos = {info.name: info for info in experiment.hparam_infos}
    for name, low, high in ((RATE, 1e-4, 1e-1), (UNITS, 16, 128)):
        interval = infos[name].domain_interval
        assert (interval.min_value, interval.max_value) == (low, high)
    discrete = {
        name: [getattr(v, v.WhichOneof("kind")) for v in info.domain_discrete.values]
        for name, info in infos.items()
        if name not in (RATE, UNITS)
    }
    assert discrete == {
        BATCH: [16, 32, 64],
        "a": [False, True],
        "b": ["365", "full"],
        "c": ["['et', 'tws']", "['et']"],
        "d": [0.5, 1],
    }
    assert [info.name.tag for info in experiment.metric_infos] == ["val_loss", "epochs"]


def test_values_have_the_type_of_their_domain(tmp_path):
    fields = (
        Field(name="a", type="choice", values=(False, True)),
        Field(name="b", type="choice", values=("full", 365)),
        Field(name="c", type="choice", values=(["et"], ["et", "tws"])),
        Field(name="d", type="int", min=1, max=9),
    )
    trials = sweep([0.5, 0.25])
    trials["a"] = [True, False]
    trials["b"] = pd.Series([365, "full"], dtype=object)
    trials["c"] = pd.Series([["et", "tws"], ["et"]], dtype=object)
    trials["d"] = [3.0, np.nan]  # a column with a gap
    board.write(tmp_path / "logs", trials, fields, "val_loss")
    _, first, _, _ = session(tmp_path / "logs" / "0000")
    _, second, _, _ = session(tmp_path / "logs" / "0001")
    assert first == {"a": True, "b": "365", "c": "['et', 'tws']", "d": 3}
    assert second == {"a": False, "b": "full", "c": "['et']"}


def test_writing_again_replaces_what_was_written(tmp_path):
    trials = sweep([0.5, 0.25, None])
    board.write(tmp_path / "logs", trials, FIELDS, "val_loss")
    trials.loc[0, "score"] = 0.75
    board.write(tmp_path / "logs", trials[:2], FIELDS, "val_loss")
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    files = [path for path in (tmp_path / "logs").rglob("*") if path.is_file()]
    assert len(files) == 3  # the experiment, and two trials
    assert session(tmp_path / "logs" / "0000")[0]["val_loss"] == 0.75


def test_what_an_interrupted_call_left_behind_is_no_part_of_the_next(tmp_path):
    left = tmp_path / ".logs.partial" / "0009"
    left.mkdir(parents=True)
    (left / "events").touch()
    board.write(tmp_path / "logs", sweep([0.5]), FIELDS, "val_loss")
    assert [path.name for path in (tmp_path / "logs").glob("*/")] == ["0000"]
