import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

from h2mv_tf.objective import (
    Constraint,
    Objective,
    Term,
    masked_mean,
    mean_terms,
    monthly_means,
)
from h2mv_tf.variables import CONSTRAINTS

NAN = np.nan
CELLS, DAYS, MONTHS = 4, 90, 3
MONTH = np.tile(np.repeat(np.arange(MONTHS, dtype="int32"), 30), (CELLS, 1))


def array(*rows):
    return tf.constant(rows, "float64")


def loss(constraint, prediction, target, month, **settings):
    """Loss of one constraint and the gradient of its prediction."""
    objective = Objective([constraint], **settings)
    prediction = tf.convert_to_tensor(prediction, "float64")
    target = tf.convert_to_tensor(target, "float64")
    month = tf.convert_to_tensor(month, "int32")
    name = constraint.name
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        terms = objective.terms({name: prediction}, {name: target}, month)
        value = mean_terms(terms)[name]
    return float(value), tape.gradient(value, prediction).numpy()


def daily(name, mean=0.0, std=1.0):
    return Constraint(name=name, mean=mean, std=std, daily=True)


def monthly(name, mean=0.0, std=1.0):
    return Constraint(name=name, mean=mean, std=std, daily=False)


@pytest.fixture
def constraints():
    """Every constraint once: both cadences, and one daily that is compared monthly."""
    return (
        monthly("tws", 5.0, 90.0),
        daily("evapotranspiration", 1.5, 1.2),
        monthly("runoff", 1.0, 0.8),
        daily("swe", 30.0, 60.0),
        monthly("fapar", 0.4, 0.3),
    )


@pytest.fixture
def predictions(rng):
    scales = {
        "tws": 300,
        "evapotranspiration": 5,
        "runoff": 4,
        "swe": 200,
        "fapar": 1,
    }
    return {n: tf.constant(s * rng.random((CELLS, DAYS))) for n, s in scales.items()}


@pytest.fixture
def targets(rng, constraints, predictions):
    """Observations with gaps; of runoff the last cell has none, the second one."""
    observations = {}
    for constraint in constraints:
        steps = DAYS if constraint.daily else MONTHS
        scale = np.max(predictions[constraint.name])
        values = scale * rng.random((CELLS, steps))
        values[rng.random(values.shape) < 0.3] = NAN
        values[0, 0] = scale / 2
        observations[constraint.name] = values
    observations["runoff"][1] = [NAN, 1.0, NAN]
    observations["runoff"][-1] = NAN
    return {name: tf.constant(values) for name, values in observations.items()}


# Means


def test_monthly_means_worked_by_hand():
    month = tf.constant([[0, 0, 1, 1, 1], [-1, 1, 1, 2, 2]])
    values = array([1, 3, 4, 5, 9], [100, 2, 4, 7, 8])
    means, complete = monthly_means(values, month, 3)
    assert_array_equal(means, [[2, 6, 0], [0, 3, 7.5]])
    assert_array_equal(complete, [[True, True, False], [False, True, True]])


def test_monthly_means_are_over_the_observed_days_only():
    month = tf.constant([[0, 0, 0, 1, 1]])
    observed = tf.constant([[True, False, True, False, False]])
    means, complete = monthly_means(array([1, 50, 3, 60, 70]), month, 2, observed)
    assert_array_equal(means, [[2, 0]])
    assert_array_equal(complete, [[True, False]])


def test_the_masked_mean_worked_by_hand():
    mask = tf.constant([[True, False, True], [False, False, False]])
    assert_array_equal(masked_mean(array([1, 50, 3], [7, 8, 9]), mask), [2, 0])


def test_the_mean_of_a_term_is_its_total_per_cell():
    terms = {
        "swe": Term(tf.constant(6.0), tf.constant(4.0)),
        "runoff": Term(tf.constant(0.0), tf.constant(0.0)),
    }
    assert {k: float(v) for k, v in mean_terms(terms).items()} == {
        "swe": 1.5,
        "runoff": 0.0,
    }


# Values worked by hand


def test_a_monthly_term_worked_by_hand():
    # Means 2 and 4 against 1 and 8: errors 1 / 2 and -4 / 2.
    value, gradient = loss(
        monthly("runoff", 5.0, 2.0), [[1, 3, 3, 5]], [[1, 8]], [[0, 0, 1, 1]]
    )
    assert_allclose(value, (0.25 + 4) / 2)
    # d/dx of (error / std)^2 / 2 months, shared by the 2 days of each.
    assert_allclose(gradient, [[0.125, 0.125, -0.5, -0.5]])


def test_a_daily_term_worked_by_hand():
    value, gradient = loss(
        daily("swe", 3.0, 10.0), [[10, 20, 50]], [[0, 40, NAN]], [[0, 0, 0]]
    )
    assert_allclose(value, (1 + 4) / 2)
    assert_allclose(gradient, [[0.1, -0.2, 0]])


def test_an_anomaly_term_worked_by_hand():
    # Months of 10, 20, 90, the last unobserved: -5, 5 against -2, 2.
    month = [[0, 0, 1, 1, 2, 2]]
    prediction, target = [[9, 11, 19, 21, 80, 100]], [[3, 7, NAN]]
    value, _ = loss(monthly("tws", 1e3, 2.0), prediction, target, month)
    assert_allclose(value, (3 / 2) ** 2)
    # Centred on the series' mean of 40: -30, -20 against -2, 2.
    value, _ = loss(
        monthly("tws", 1e3, 2.0),
        prediction,
        target,
        month,
        anomaly_reference="series",
    )
    assert_allclose(value, (14**2 + 11**2) / 2)


def test_the_mean_of_the_observations_cancels(predictions, targets):
    def term(mean):
        constraint = monthly("runoff", mean, 0.8)
        return loss(constraint, predictions["runoff"], targets["runoff"], MONTH)[0]

    assert_allclose(term(0.0), term(50.0), rtol=1e-10)


def test_a_perfect_prediction_costs_nothing(constraints, predictions):
    for constraint in constraints:
        prediction = predictions[constraint.name]
        target = prediction
        if not constraint.daily:
            target, _ = monthly_means(prediction, MONTH, MONTHS)
        value, gradient = loss(constraint, prediction, target, MONTH)
        assert_allclose(value, 0, atol=1e-20, err_msg=constraint.name)
        assert_allclose(gradient, 0, atol=1e-12, err_msg=constraint.name)


# Missing observations


def test_a_cell_without_observation_is_left_out_of_the_mean():
    prediction, month = [[3.0, 3.0], [9.0, 9.0]], [[0, 1], [0, 1]]
    value, gradient = loss(monthly("runoff"), prediction, [[1, NAN], [NAN, NAN]], month)
    assert_allclose(value, 4)  # not 2
    assert_allclose(gradient, [[4, 0], [0, 0]])


def test_a_cell_counts_once_however_many_observations_it_has():
    prediction, month = [[3.0, 3.0], [2.0, 2.0]], [[0, 1], [0, 1]]
    value, _ = loss(monthly("runoff"), prediction, [[1, 1], [1, NAN]], month)
    assert_allclose(value, (4 + 1) / 2)


@pytest.mark.parametrize("anomaly_reference", ["matched", "series"])
@pytest.mark.parametrize("observed_daily", [True, False])
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_no_observation_at_all_costs_nothing_and_has_no_gradient(
    name, observed_daily, anomaly_reference, predictions
):
    constraint = Constraint(name=name, mean=1.0, std=2.0, daily=observed_daily)
    target = np.full((CELLS, DAYS if observed_daily else MONTHS), NAN)
    value, gradient = loss(
        constraint,
        predictions[name],
        target,
        MONTH,
        anomaly_reference=anomaly_reference,
    )
    assert value == 0
    assert_array_equal(gradient, 0)


@pytest.mark.parametrize("missing", [NAN, np.inf, -np.inf])
@pytest.mark.parametrize("anomaly_reference", ["matched", "series"])
def test_a_missing_value_never_reaches_loss_or_gradient(
    missing, anomaly_reference, constraints, predictions, targets
):
    for constraint in constraints:
        name = constraint.name
        target = targets[name].numpy()
        assert np.isnan(target).any()
        assert np.isfinite(target).any()
        target[np.isnan(target)] = missing
        value, gradient = loss(
            constraint,
            predictions[name],
            target,
            MONTH,
            anomaly_reference=anomaly_reference,
        )
        assert np.isfinite(value), name
        assert value > 0, name
        assert np.isfinite(gradient).all(), name
        assert gradient.any(), name


def test_what_is_not_observed_pulls_on_nothing(constraints, predictions, targets):
    for constraint in constraints:
        name = constraint.name
        _, gradient = loss(constraint, predictions[name], targets[name], MONTH)
        seen = np.isfinite(targets[name])
        if not constraint.daily:
            seen = np.take_along_axis(seen, MONTH, axis=1)
        assert not gradient[~seen].any(), name


# Saturation of snow


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        (150, 300, 0.0),  # both deep
        (150, 90, 0.36),  # the prediction alone
        (90, 150, 0.36),  # the observation alone
        (100, 150, 0.25),  # 100 mm is not above 100 mm
        (150, 100, 0.25),
        (90, 80, 0.01),
    ],
)
def test_deep_snow_costs_nothing_only_if_both_are_deep(prediction, target, expected):
    value, gradient = loss(daily("swe", 0, 100.0), [[prediction]], [[target]], [[0]])
    assert_allclose(value, expected)
    assert (gradient != 0) == (expected != 0)


def test_a_deep_day_counts_as_a_day():
    value, _ = loss(daily("swe"), [[150, 3]], [[300, 1]], [[0, 0]])
    assert_allclose(value, 2)


def test_the_saturation_can_be_set():
    arguments = (daily("swe"), [[15, 3]], [[30, 1]], [[0, 0]])
    assert_allclose(loss(*arguments, saturation=10.0)[0], 2)
    assert_allclose(loss(*arguments)[0], (15**2 + 2**2) / 2)


def test_only_snow_saturates():
    value, _ = loss(monthly("runoff"), [[150.0]], [[300.0]], [[0]])
    assert_allclose(value, 150**2)


# Anomalies


@pytest.mark.parametrize("observed_daily", [True, False])
@pytest.mark.parametrize("shifted", ["prediction", "target"])
def test_a_matched_anomaly_does_not_feel_a_constant(
    shifted, observed_daily, rng, predictions
):
    constraint = Constraint(name="tws", mean=5.0, std=90.0, daily=observed_daily)
    pair = {
        "prediction": predictions["tws"].numpy(),
        "target": 300 * rng.random((CELLS, DAYS if observed_daily else MONTHS)),
    }
    pair["target"][:, ::3] = NAN
    moved = {**pair, shifted: pair[shifted] + 1234.0}
    value, gradient = loss(constraint, **pair, month=MONTH)
    again, gradient_again = loss(constraint, **moved, month=MONTH)
    assert value > 0.01
    assert_allclose(again, value, rtol=1e-10)
    assert_allclose(gradient_again, gradient, rtol=1e-8, atol=1e-12)


def test_a_matched_anomaly_ignores_what_no_one_observed(predictions):
    target = [[10.0, 40.0, NAN]] * CELLS
    changed = predictions["tws"].numpy()
    changed[:, 60:] += 1e3
    values = [
        [
            loss(monthly("tws"), x, target, MONTH, anomaly_reference=reference)[0]
            for x in (predictions["tws"], changed)
        ]
        for reference in ("matched", "series")
    ]
    (matched, matched_again), (series, series_again) = values
    assert_allclose(matched_again, matched, rtol=1e-12)
    assert abs(series_again - series) > 1


def test_only_storage_is_compared_as_an_anomaly():
    value, _ = loss(monthly("runoff"), [[3.0, 3.0]], [[1.0, 1.0]], [[0, 1]])
    assert_allclose(value, 4)


# Months


def test_daily_observations_are_averaged_over_the_observed_days():
    # Both means over the days 1 and 3 of month 0, and day 5 of month 1.
    prediction, target = [[2, 99, 4, 99, 7]], [[1, NAN, 3, NAN, 4]]
    value, gradient = loss(
        daily("evapotranspiration"), prediction, target, [[0, 0, 0, 1, 1]]
    )
    assert_allclose(value, ((3 - 2) ** 2 + (7 - 4) ** 2) / 2)
    assert_allclose(gradient, [[0.5, 0, 0.5, 0, 3]])


def test_daily_observations_of_daily_and_monthly_constraints_differ():
    prediction, target, month = [[1.0, 3.0]], [[3.0, 1.0]], [[0, 0]]
    assert_allclose(loss(daily("swe"), prediction, target, month)[0], 4)
    assert_allclose(loss(daily("fapar"), prediction, target, month)[0], 0)
    assert daily("swe").compared_daily
    assert not daily("fapar").compared_daily
    assert not monthly("swe").compared_daily


def test_snow_observed_monthly_is_compared_monthly():
    value, _ = loss(monthly("swe"), [[1.0, 3.0, 8.0]], [[3.0, 4.0]], [[0, 0, 1]])
    assert_allclose(value, ((2 - 3) ** 2 + (8 - 4) ** 2) / 2)


@pytest.mark.parametrize("name", ["runoff", "tws"])
def test_a_month_of_column_minus_one_is_not_compared(name):
    month = [[-1, -1, 0, 1, 2, -1]]
    value, gradient = loss(
        monthly(name), [[99, 98, 2, 4, 9, 97]], [[1.0, 5.0, 3.0]], month
    )
    alone, pull = loss(monthly(name), [[2, 4, 9]], [[1.0, 5.0, 3.0]], [[0, 1, 2]])
    assert_allclose(value, alone)
    assert_allclose(gradient[:, 2:5], pull)
    assert not gradient[:, [0, 1, 5]].any()


def test_daily_observations_of_a_month_of_column_minus_one_are_not_compared():
    value, gradient = loss(
        daily("evapotranspiration"), [[99, 2, 4]], [[1, 1, 1]], [[-1, 0, 0]]
    )
    assert_allclose(value, 4)
    assert_allclose(gradient, [[0, 2, 2]])


def test_a_target_month_outside_the_series_is_not_compared():
    value, _ = loss(monthly("runoff"), [[3.0, 3.0]], [[50.0, 1.0, 60.0]], [[1, 1]])
    assert_allclose(value, 4)


def test_cells_may_lie_in_different_months():
    value, gradient = loss(
        monthly("runoff"),
        [[2, 4, 9], [2, 4, 9]],
        [[0, 0], [0, 0]],
        [[0, 0, 1], [0, 1, 1]],
    )
    assert_allclose(value, ((9 + 81) / 2 + (4 + 6.5**2) / 2) / 2)
    assert_allclose(gradient, [[0.75, 0.75, 4.5], [1, 1.625, 1.625]])


@pytest.mark.parametrize("days", [1, 2, 30, 59, 366])
def test_daily_observations_find_room_for_every_month_of_a_window(days):
    # The shortest way through the most months starts on 31 January.
    lengths = [1, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 28]
    month = np.repeat(np.arange(len(lengths)), lengths)[None, :days].astype("int32")
    value, _ = loss(
        daily("fapar"),
        month + 1.0,
        np.zeros((1, days)),
        month,
    )
    present = np.unique(month) + 1.0
    assert_allclose(value, np.mean(present**2))


# Sums over batches


def test_half_batches_add_up_to_the_whole(constraints, predictions, targets):
    objective = Objective(constraints)

    def terms(cells):
        return objective.terms(
            {name: value[cells] for name, value in predictions.items()},
            {name: value[cells] for name, value in targets.items()},
            MONTH[cells],
        )

    whole, first, second = terms(slice(None)), terms(slice(2)), terms(slice(2, 4))
    for name in whole:
        total = first[name].total + second[name].total
        assert_allclose(total, whole[name].total, rtol=1e-12, err_msg=name)
        assert first[name].count + second[name].count == whole[name].count
    assert whole["runoff"].count == CELLS - 1
    assert second["runoff"].count == 1


@pytest.mark.parametrize("anomaly_reference", ["matched", "series"])
def test_counts_are_the_cells_of_the_terms(
    anomaly_reference, constraints, predictions, targets
):
    month = MONTH.copy()
    month[:, 30:] = -1  # so that some cells lose all they have
    objective = Objective(constraints, anomaly_reference=anomaly_reference)
    counts = objective.counts(targets, month)
    terms = objective.terms(predictions, targets, month)
    assert {k: float(v) for k, v in counts.items()} == {
        k: float(v.count) for k, v in terms.items()
    }
    observed = np.isfinite(targets["runoff"][:, 0]).sum()
    assert counts["runoff"] == observed
    assert counts["runoff"] < objective.counts(targets, MONTH)["runoff"]


def test_terms_stand_in_the_order_of_the_constraints(constraints, predictions, targets):
    objective = Objective(constraints[::-1])
    assert objective.names == CONSTRAINTS[::-1]
    assert tuple(objective.terms(predictions, targets, MONTH)) == CONSTRAINTS[::-1]


def test_the_terms_of_a_compiled_graph_are_the_same(constraints, predictions, targets):
    objective = Objective(constraints)
    plain = objective.terms(predictions, targets, MONTH)
    compiled = tf.function(objective.terms, jit_compile=True)
    month = tf.constant(MONTH)
    for name, term in compiled(predictions, targets, month).items():
        assert_allclose(term.total, plain[name].total, rtol=1e-12, err_msg=name)
        assert_array_equal(term.count, plain[name].count, err_msg=name)


def test_terms_have_the_dtype_of_the_prediction(constraints, predictions, targets):
    single = [
        {name: tf.cast(value, "float32") for name, value in values.items()}
        for values in (predictions, targets)
    ]
    for term in Objective(constraints).terms(*single, MONTH).values():
        assert term.total.dtype == "float32"
        assert term.count.dtype == "float32"


# Bad input


@pytest.mark.parametrize("name", ["snowdrift", "soil_moisture", "et", ""])
def test_what_is_no_constraint_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' is not a constraint"):
        monthly(name)


@pytest.mark.parametrize("std", [0.0, -1.0, NAN])
def test_a_deviation_that_is_not_positive_is_refused(std):
    with pytest.raises(ValueError, match=f"deviation above 0; found {std}"):
        monthly("swe", std=std)


@pytest.mark.parametrize("numbers", [{"mean": NAN}, {"std": np.inf}])
def test_statistics_that_are_not_finite_are_refused(numbers):
    with pytest.raises(ValueError, match="swe"):
        monthly("swe", **numbers)


def test_an_objective_without_constraints_is_refused():
    with pytest.raises(ValueError, match="found none"):
        Objective([])


def test_a_constraint_given_twice_is_refused():
    with pytest.raises(ValueError, match="different constraints; found swe, swe"):
        Objective([monthly("swe"), daily("swe")])


def test_an_unknown_reference_of_the_anomaly_is_refused():
    with pytest.raises(ValueError, match="nearest"):
        Objective([monthly("tws")], anomaly_reference="nearest")


def test_a_month_beyond_the_last_column_is_not_compared(rng):
    values = rng.normal(size=(3, 60))
    month = np.repeat([[0, 1, 2]], 20, axis=1) * np.ones((3, 1), int)
    means, any_day = monthly_means(values, month.astype("int32"), 2)
    assert_allclose(means, values.reshape(3, 3, 20).mean(axis=2)[:, :2])
    assert np.all(any_day)
