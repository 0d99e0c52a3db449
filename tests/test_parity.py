"""The port: the numbers of the published code from its weights."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose
from reference import VALUES, assert_parity

from h2mv_tf import variables
from h2mv_tf.model import H2MV, REFERENCE_WEIGHTS
from h2mv_tf.objective import Objective, mean_terms

PUBLISHED = [n for n in variables.OUTPUTS if variables.VARIABLES[n].published]
STATES = variables.PROGNOSTIC
SOME_DAYS = 16e6  # bytes, of the 32e6 that would keep all in double precision
GRADIENTS = {"float64": 1e-7, "float32": 1e-4}


class Port(NamedTuple):
    """What our code makes of the reference's weights, weather and targets."""

    dtype: str
    outputs: dict
    spun_up: dict
    losses: dict
    gradients: dict


@pytest.fixture(scope="module", params=["float64", "float32"])
def port(request, reference):
    dtype = request.param
    model = H2MV.from_reference(reference.weights, reference.normalization, dtype=dtype)
    objective = Objective(reference.constraints, anomaly_reference="series")
    constant = {name: tf.constant(x, dtype) for name, x in reference.inputs.items()}
    targets = {name: tf.constant(x, dtype) for name, x in reference.targets.items()}
    month = tf.constant(reference.month)

    @tf.function
    def run():
        forcing, static = constant["forcing"], constant["static"]
        with tf.GradientTape() as tape:
            state = model.spin_up(forcing, static)
            outputs, _ = model.simulate(
                forcing, static, state, training=True, memory=SOME_DAYS
            )
            losses = mean_terms(objective.terms(outputs, targets, month))
            losses["sum"] = sum(losses.values())
        weights = {p: model.reference_weight(p) for p in REFERENCE_WEIGHTS.values()}
        gradients = tape.gradient(
            losses["sum"], {path: weight.value for path, weight in weights.items()}
        )
        return outputs, state._asdict(), losses, gradients

    return Port(dtype, *tf.nest.map_structure(lambda x: x.numpy(), run()))


def test_the_reference_holds_every_output_that_has_a_published_name(reference):
    assert list(reference.outputs) == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_output_is_the_published_one(name, port, reference):
    expected = reference.outputs[name]
    assert_parity(port.outputs[name], expected, VALUES, port.dtype)
    if port.dtype == "float64":  # small values too
        tiny = 1e-11 * np.abs(expected).max()
        assert_allclose(port.outputs[name], expected, rtol=1e-9, atol=tiny)


@pytest.mark.parametrize("name", STATES)
def test_the_spun_up_state_is_the_published_one(name, port, reference):
    expected = reference.spun_up[name]
    assert_parity(port.spun_up[name], expected, VALUES, port.dtype)
    if port.dtype == "float64":  # small values too
        tiny = 1e-11 * np.abs(expected).max()
        assert_allclose(port.spun_up[name], expected, rtol=1e-9, atol=tiny)


@pytest.mark.parametrize("name", [*variables.CONSTRAINTS, "sum"])
def test_a_term_of_the_loss_is_the_published_one(name, port, reference):
    if name not in reference.losses:
        pytest.skip(f"the reference lacks {name}")
    assert_parity(port.losses[name], reference.losses[name], VALUES, port.dtype)


@pytest.mark.parametrize("name", REFERENCE_WEIGHTS)
def test_the_gradient_of_a_weight_is_the_published_one(name, port, reference):
    # Both biases of the LSTM have the gradient of their sum.
    gradient = port.gradients[REFERENCE_WEIGHTS[name]].T
    assert_parity(gradient, reference.gradients[name], GRADIENTS, port.dtype)


def test_every_weight_of_the_reference_has_a_place(reference):
    assert set(REFERENCE_WEIGHTS) == set(reference.weights)
    assert set(REFERENCE_WEIGHTS) == set(reference.gradients)


def test_every_trained_weight_comes_from_the_reference(reference):
    model = H2MV.from_reference(reference.weights, reference.normalization)
    placed = {model.reference_weight(p).path for p in REFERENCE_WEIGHTS.values()}
    assert placed == {weight.path for weight in model.trainable_variables}
    assert model.compute_dtype == "float64"


def test_the_two_biases_of_the_lstm_are_added_up(reference):
    model = H2MV.from_reference(reference.weights, reference.normalization)
    biases = [reference.weights[f"lstm_fc.lstm_cell.bias_{x}h"] for x in "ih"]
    assert_allclose(model.cell.bias.numpy(), sum(biases), rtol=1e-15)


@pytest.mark.parametrize("name", REFERENCE_WEIGHTS)
def test_a_missing_weight_is_refused(name, reference):
    weights = {k: v for k, v in reference.weights.items() if k != name}
    with pytest.raises(ValueError, match=rf"Missing: {name}\. Unknown: none"):
        H2MV.from_reference(weights, reference.normalization)


def test_an_unknown_weight_is_refused(reference):
    weights = {**reference.weights, "fc_static.fc9.bias": np.zeros(3)}
    with pytest.raises(ValueError, match=r"Missing: none\. Unknown: fc_static\.fc9"):
        H2MV.from_reference(weights, reference.normalization)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("fc_static.fc1.bias", "hidden_layer.bias"),
        ("fc_static.fc3.weight", "capacity_layer.kernel"),
        ("lstm_fc.lstm_cell.weight_ih", "cell.kernel"),
        ("lstm_fc.lstm_cell.weight_hh", "cell.recurrent_kernel"),
        ("lstm_fc.fc.bias", "cell.coefficient_bias"),
    ],
)
def test_a_weight_of_the_wrong_shape_is_refused(name, path, reference):
    weights = dict(reference.weights)
    weights[name] = np.concatenate([weights[name]] * 2, axis=-1)
    with pytest.raises(ValueError, match=rf"{path} has shape .* expected"):
        H2MV.from_reference(weights, reference.normalization)
