"""`H2MVCell`: one day of the hybrid model, as a Keras RNN cell.

An LSTM reads the weather, the code of the static inputs and the storages of
the day before, and predicts the coefficients of the water cycle; the physics
takes the step.

Keras hands over (cells, features). A day is computed with the cells last,
(features, cells): what is done to a quantity then runs along memory, and a gate
or a coefficient is a block of rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from h2mv_tf import physics, variables

# What brings the states near one before the LSTM reads them [mm].
STATE_SCALES = physics.WaterState(swe=100.0, soil_moisture=200.0, groundwater=200.0)
POSITIVE = 2  # leading coefficients that are unbounded above: softplus, not sigmoid


class State(NamedTuple):
    """What one day hands to the next.

    Each is (cells, 1) or (cells, units); within a day (1, cells) or (units, cells).
    """

    swe: tf.Tensor  # mm
    soil_moisture: tf.Tensor  # mm
    groundwater: tf.Tensor  # mm
    fapar: tf.Tensor  # 1
    lstm_hidden: tf.Tensor
    lstm_carry: tf.Tensor

    @property
    def water(self) -> physics.WaterState:
        """The storages alone."""
        return physics.WaterState(self.swe, self.soil_moisture, self.groundwater)

    def transposed(self) -> "State":
        """Cells last where they were first, and back."""
        return State(*map(tf.transpose, self))


class Gates(NamedTuple):
    """The gates of the LSTM, each (units, cells), between their bounds."""

    input: tf.Tensor
    forget: tf.Tensor
    candidate: tf.Tensor
    output: tf.Tensor


class Head(NamedTuple):
    """Draws of what turns the LSTM's output into a day's physics."""

    snowfall_correction: tf.Tensor  # (draws,) before its sigmoid
    baseflow_fraction: tf.Tensor  # (draws,) before its sigmoid
    coefficient_kernel: tf.Tensor  # (draws, units, 7)
    coefficient_bias: tf.Tensor  # (draws, 7)


class Preparation(NamedTuple):
    """What is the same on every day of a series, worked out once before it.

    What is added to or multiplied with a cell's numbers comes for each cell, so that
    no gradient is summed over cells before the last day.
    """

    kernel: tf.Tensor  # (4 units, 3 + 4 + units): forcing, states, hidden
    gate_bias: tf.Tensor  # (4 units, cells): bias and static code
    coefficient_kernel: tf.Tensor  # (7, units); of several draws (draws, 7, units)
    coefficient_bias: tf.Tensor  # (7, cells)
    forcing_mean: tf.Tensor  # (3, 1)
    forcing_std: tf.Tensor  # (3, 1)
    parameters: physics.Parameters  # each (1, cells)


@keras.saving.register_keras_serializable("h2mv_tf")
class H2MVCell(keras.Layer):
    """One day of the water cycle with learned coefficients.

    Args:
        code_size: Length of the code of the static inputs.
        units: Size of the LSTM.
        outputs: Names of the variables to return, of
            `variables.DAILY_OUTPUTS`; all of them by default.
        **kwargs: Of `keras.Layer`.

    Call arguments:
        inputs: (cells, 3 + code_size + 1): forcing in physical units and the
            order of the registry, static code, soil water capacity [mm].
        states: A `State`, or its tensors in order.

    Returns:
        The outputs (cells, len(outputs)) in native units, and the new states.

    Raises:
        ValueError: An output is not a daily variable of the registry.

    Example:
        >>> layer = keras.layers.RNN(H2MVCell(12), return_sequences=True)
        >>> layer(tf.zeros((4, 365, 3 + 12 + 1))).shape
        TensorShape([4, 365, 31])
    """

    def __init__(
        self,
        code_size: int,
        *,
        units: int = 100,
        outputs: Sequence[str] = variables.DAILY_OUTPUTS,
        **kwargs,
    ):
        super().__init__(**kwargs)
        unknown = set(outputs) - set(variables.DAILY_OUTPUTS)
        if unknown:
            raise ValueError(
                f"H2MVCell cannot return {', '.join(sorted(unknown))}. Expected "
                f"daily variables: {', '.join(variables.DAILY_OUTPUTS)}."
            )
        self.code_size = code_size
        self.units = units
        self.outputs = tuple(outputs)
        self.state_size = State(1, 1, 1, 1, units, units)
        self.output_size = len(self.outputs)

    def build(self, input_shape=None):
        """Creates the weights; their shapes do not depend on the input's."""
        forcing, coefficients = len(variables.FORCING), len(variables.COEFFICIENTS)
        features = forcing + self.code_size + len(physics.WaterState._fields) + 1
        self.kernel = self.add_weight(
            name="kernel",
            shape=(features, 4 * self.units),
            initializer="glorot_uniform",
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, 4 * self.units),
            initializer="orthogonal",
        )
        self.bias = self.add_weight(
            name="bias",
            shape=(4 * self.units,),
            initializer=_unit_forget_bias,
        )
        self.coefficient_kernel = self.add_weight(
            name="coefficient_kernel",
            shape=(self.units, coefficients),
            initializer="glorot_uniform",
        )
        self.coefficient_bias = self.add_weight(
            name="coefficient_bias", shape=(coefficients,), initializer="zeros"
        )
        # Behind a sigmoid: 0.95 and 0.0025 at the start.
        self.snowfall_correction = self.add_weight(
            name="snowfall_correction",
            shape=(),
            initializer=keras.initializers.Constant(3.0),
        )
        self.baseflow_fraction = self.add_weight(
            name="baseflow_fraction",
            shape=(),
            initializer=keras.initializers.Constant(-6.0),
        )
        # Normalisation travels with the weights, so that the model takes
        # physical units wherever it is loaded.
        self.forcing_mean = self.add_weight(
            name="forcing_mean", shape=(forcing,), initializer="zeros", trainable=False
        )
        self.forcing_std = self.add_weight(
            name="forcing_std", shape=(forcing,), initializer="ones", trainable=False
        )
        self.built = True

    def prepare(
        self, code, soil_water_capacity, head: Head | None = None
    ) -> Preparation:
        """What a day needs and does not change from day to day.

        Args:
            code: Code of the static inputs (cells, code_size).
            soil_water_capacity: (cells, 1) [mm].
            head: Draws, of which each is for as many cells: the cells of the first
                draw come first. By default the cell's own weights are for all.
        """
        of_forcing, of_code, of_state = tf.split(
            tf.convert_to_tensor(self.kernel),
            [len(variables.FORCING), self.code_size, -1],
            num=3,
        )
        kernel = tf.concat([of_forcing, of_state, self.recurrent_kernel], 0)
        cells = tf.zeros_like(soil_water_capacity)
        constants, bias = self.constants(head), self.coefficient_bias
        coefficient_kernel = tf.transpose(self.coefficient_kernel)
        if head is not None:
            draws = head.coefficient_kernel.shape[0]
            count = tf.shape(cells)[0] // draws
            bias = tf.repeat(head.coefficient_bias, count, axis=0)
            constants = {
                name: tf.repeat(value, count)[:, None]
                for name, value in constants.items()
            }
            coefficient_kernel = tf.transpose(head.coefficient_kernel, [0, 2, 1])
            if draws == 1:
                coefficient_kernel = coefficient_kernel[0]
        return Preparation(
            kernel=tf.transpose(kernel),
            gate_bias=tf.transpose(code @ of_code + self.bias),
            coefficient_kernel=coefficient_kernel,
            coefficient_bias=tf.transpose(cells + bias),
            forcing_mean=self.forcing_mean[:, None],
            forcing_std=self.forcing_std[:, None],
            parameters=physics.Parameters(
                soil_water_capacity=tf.transpose(soil_water_capacity),
                **{name: tf.transpose(cells + constants[name]) for name in constants},
            ),
        )

    def constants(self, head: Head | None = None) -> dict[str, tf.Tensor]:
        """The parameters that are the same everywhere, behind their sigmoids.

        Args:
            head: Draws; by default the cell's own weights.
        """
        of = self if head is None else head
        return {
            "snowfall_correction": tf.sigmoid(of.snowfall_correction),
            "baseflow_fraction": tf.sigmoid(of.baseflow_fraction),
        }

    def call(self, inputs, states):
        """One day, from inputs that `keras.layers.RNN` can hand over."""
        forcing, code, capacity = tf.split(
            inputs, [len(variables.FORCING), self.code_size, 1], axis=1
        )
        outputs, new_state = one_day(
            tf.transpose(forcing),
            State(*states).transposed(),
            self.prepare(code, capacity),
            self.outputs,
        )
        return tf.transpose(outputs), list(new_state.transposed())

    def get_initial_state(self, batch_size=None) -> list[tf.Tensor]:
        """Empty stores, no vegetation and a silent LSTM."""
        return list(empty_state(batch_size, self.units, self.compute_dtype))

    def get_config(self):
        """Arguments of the constructor."""
        return {
            **super().get_config(),
            "code_size": self.code_size,
            "units": self.units,
            "outputs": list(self.outputs),
        }


def one_day(
    forcing, state: State, day: Preparation, outputs: Sequence[str]
) -> tuple[tf.Tensor, State]:
    """One day of the hybrid model; the one description of it.

    Args:
        forcing: (3, cells) in physical units.
        state: State at the start of the day.
        day: What `H2MVCell.prepare` gave.
        outputs: Names of the daily variables to return; none to spin up.

    Returns:
        The outputs (len(outputs), cells) and the state at the end of the day.
    """
    read = features(forcing, state, day)
    opened = gates(read, day.kernel, day.gate_bias)
    return behind_the_gates(opened, forcing, state, day, outputs)


def features(forcing, state: State, day: Preparation):
    """What the LSTM reads on a day, besides the static code (3 + 4 + units, cells)."""
    return tf.concat(
        [
            (forcing - day.forcing_mean) / day.forcing_std,
            state.swe / STATE_SCALES.swe,
            state.soil_moisture / STATE_SCALES.soil_moisture,
            state.groundwater / STATE_SCALES.groundwater,
            state.fapar,
            state.lstm_hidden,
        ],
        0,
    )


def gates(read, kernel, bias) -> Gates:
    """The gates of the LSTM: a product, in which nearly all of a day's work is.

    Args:
        read: Of `features`.
        kernel: (4 units, features).
        bias: (4 units, cells).
    """
    i, f, g, o = tf.split(kernel @ read + bias, len(Gates._fields), 0)
    return Gates(tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o))


def slopes(gates: Gates) -> Gates:
    """Derivatives of the bounds of `gates`, from what it gave."""
    i, f, g, o = gates
    return Gates(i * (1 - i), f * (1 - f), 1 - g * g, o * (1 - o))


def behind_the_gates(
    gates: Gates, forcing, state: State, day: Preparation, outputs: Sequence[str]
) -> tuple[tf.Tensor, State]:
    """What a day does once its gates are known; otherwise as `one_day`."""
    carry = gates.forget * state.lstm_carry + gates.input * gates.candidate
    hidden = gates.output * tf.tanh(carry)
    coefficients = learned_coefficients(
        _by_draw(day.coefficient_kernel, hidden) + day.coefficient_bias
    )
    weather = physics.Forcing(*tf.split(forcing, len(variables.FORCING), 0))
    water, fluxes = physics.step(state.water, weather, coefficients, day.parameters)
    new_state = State(*water, coefficients.fapar, hidden, carry)
    if not outputs:
        return hidden[:0], new_state
    diagnostics = physics.diagnostics(
        state.water, water, fluxes, weather, coefficients, day.parameters
    )
    values = {
        **coefficients._asdict(),
        **water._asdict(),
        **fluxes._asdict(),
        **diagnostics._asdict(),
    }
    return tf.concat([values[name] for name in outputs], 0), new_state


def _by_draw(kernel, hidden):
    """The product of each draw's kernel with the cells that it is for (7, cells).

    Args:
        kernel: (7, units), or (draws, 7, units).
        hidden: (units, cells), the cells of the first draw first.
    """
    if kernel.shape.rank == 2:
        return kernel @ hidden
    draws, rows, units = kernel.shape
    by_draw = tf.reshape(hidden, (units, draws, -1))
    return tf.reshape(tf.einsum("dru,udc->rdc", kernel, by_draw), (rows, -1))


def learned_coefficients(raw) -> physics.Coefficients:
    """The coefficients within their bounds: softplus, then sigmoid."""
    positive = tf.split(tf.nn.softplus(raw[:POSITIVE]), POSITIVE, 0)
    fractions = len(variables.COEFFICIENTS) - POSITIVE
    return physics.Coefficients(
        *positive, *tf.split(tf.sigmoid(raw[POSITIVE:]), fractions, 0)
    )


def empty_state(cells, units: int, dtype) -> State:
    """Empty stores, no vegetation and a silent LSTM, for a number of cells."""
    sizes = (*(1,) * (len(State._fields) - 2), units, units)
    return State(*(tf.zeros((cells, size), dtype) for size in sizes))


def _unit_forget_bias(shape, dtype=None):
    """Zeros, and ones for the forget gate (Jozefowicz et al., 2015)."""
    units = shape[0] // 4
    return tf.cast(tf.repeat([0.0, 1.0, 0.0], [units, units, 2 * units]), dtype)
