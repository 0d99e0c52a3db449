"""`H2MV`: the hybrid model, from raw forcing to every variable of the registry."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from h2mv_tf import time_loop, variables
from h2mv_tf.cell import H2MVCell, Head, Preparation, State, empty_state, one_day
from h2mv_tf.noise import Noise, ObservationNoise
from h2mv_tf.posterior import Normals, Posterior

LEAK = 0.01  # slope of LeakyReLU in the published model; Keras' default is 0.3
CAPACITY_OFFSET = 100.0  # starts the soil water capacity near 100 mm
LEAST_CAPACITY = 1.0  # mm
GENERATOR = (
    "philox"  # of random integers: the same on every device, with XLA and without
)
NORMALS = 100  # from here on seeds are of draws; below, of layers that drop units
LARGE = 80.0  # from here on softplus(x) is x, in double precision too


class Normalization(NamedTuple):
    """Means and standard deviations of the inputs, in native units."""

    forcing_mean: np.ndarray  # (3,)
    forcing_std: np.ndarray  # (3,)
    static_mean: np.ndarray  # (static_size,)
    static_std: np.ndarray  # (static_size,)


class Drawn(NamedTuple):
    """Draws of the parameters, the cells of the first draw first."""

    soil_water_capacity: tf.Tensor  # (draws * cells, 1) [mm]
    head: Head


@keras.saving.register_keras_serializable("h2mv_tf")
class H2MV(keras.Model):
    """Hybrid model of the water cycle with multiple vegetation.

    A dense network encodes the static inputs and gives each cell its soil
    water capacity; an LSTM gives each day its coefficients; the physics of
    `h2mv_tf.physics` turns them into storages and fluxes. Baghirov et al.
    (2025), section 2.

    Args:
        static_size: Number of static inputs.
        encoder_units: Size of each hidden layer of the static encoder.
        encoder_layers: Number of its hidden layers.
        code_size: Size of the static code.
        lstm_units: Size of the LSTM.
        dropout: Share of each hidden layer that a call with a seed leaves out.
        observed: Names of the constraints whose noise is learned.
        variational: Whether the parameters have distributions, which `draw` draws
            from. Without draws the model is that of their centres.
        last_layer: Whether those include the weights of the layer that gives the
            coefficients.
        rank: Of the correlations between the weights that have a distribution.
        **kwargs: Of `keras.Model`; `dtype="float64"` computes in double.

    Call arguments:
        inputs: A dictionary with `forcing` (cells, days, 3) in W m-2, mm d-1
            and K, in the order of the registry; `static` (cells, static_size);
            and, where the spin-up is not over the series itself,
            `spin_up_forcing` (cells, days, 3).
        outputs: Names of the variables to return; all by default.
        training: Whether a gradient will be asked for. The time loop then has its
            own, which takes less time and memory than TensorFlow's.
        memory: Bytes that the days may keep for that gradient.
        seed: Two integers, (2,), that choose what dropout leaves out: for each cell
            and unit, on all days of spin-up and simulation alike. Without a seed
            nothing is left out, in training neither.
        drawn: Of `draw`; the centres by default.

    Returns:
        A dictionary by registry name, in native units: (cells, days) for what
        changes daily, (cells,) for parameters, () for global constants.

    Example:
        >>> model = H2MV(static_size=2)
        >>> series = {"forcing": tf.zeros((4, 365, 3)), "static": tf.zeros((4, 2))}
        >>> model(series)["runoff"].shape
        TensorShape([4, 365])
    """

    def __init__(
        self,
        static_size: int,
        *,
        encoder_units: int = 150,
        encoder_layers: int = 1,
        code_size: int = 12,
        lstm_units: int = 100,
        dropout: float = 0.0,
        observed: Sequence[str] = (),
        variational: bool = False,
        last_layer: bool = True,
        rank: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, size in {
            "static_size": static_size,
            "encoder_units": encoder_units,
            "encoder_layers": encoder_layers,
            "code_size": code_size,
            "lstm_units": lstm_units,
        }.items():
            if size < 1:
                raise ValueError(f"H2MV needs {name} of at least 1; found {size}.")
        if not 0 <= dropout < 1:
            raise ValueError(
                f"H2MV needs dropout of at least 0 and below 1; found {dropout}."
            )
        self.static_size = static_size
        self.encoder_units = encoder_units
        self.encoder_layers = encoder_layers
        self.code_size = code_size
        self.lstm_units = lstm_units
        self.dropout = dropout
        policy = self.dtype_policy
        self.hidden_layer = keras.layers.Dense(
            encoder_units, name="encoder_hidden", dtype=policy
        )
        self.deeper_layers = [
            keras.layers.Dense(encoder_units, name=f"encoder_hidden_{n}", dtype=policy)
            for n in range(2, encoder_layers + 1)
        ]
        self.code_layer = keras.layers.Dense(
            code_size, name="encoder_code", dtype=policy
        )
        self.capacity_layer = keras.layers.Dense(
            1, name="soil_water_capacity", dtype=policy
        )
        self.cell = H2MVCell(code_size, units=lstm_units, name="cell", dtype=policy)
        self.observed = tuple(observed)
        self.variational, self.last_layer, self.rank = variational, last_layer, rank
        if observed:
            self.observation_noise = ObservationNoise(
                observed, name="noise", dtype=policy
            )
        self.build()

    def build(self, input_shape=None):
        """Creates the weights; their shapes do not depend on the input's."""
        if self.built:
            return
        self.static_mean = self.add_weight(
            name="static_mean",
            shape=(self.static_size,),
            initializer="zeros",
            trainable=False,
        )
        self.static_std = self.add_weight(
            name="static_std",
            shape=(self.static_size,),
            initializer="ones",
            trainable=False,
        )
        self.hidden_layer.build((None, self.static_size))
        for layer in (*self.deeper_layers, self.code_layer):
            layer.build((None, self.encoder_units))
        self.capacity_layer.build((None, self.code_size))
        self.cell.build()
        if self.variational:
            self.posterior = Posterior(
                int(sum(np.prod(part.shape) for part in self.uncertain)),
                self.code_size,
                self.rank,
                name="posterior",
                dtype=self.dtype_policy,
            )
        self.built = True

    def set_normalization(self, normalization: Normalization) -> None:
        """Sets the constants that bring raw inputs to mean 0 and deviation 1."""
        self.cell.forcing_mean.assign(normalization.forcing_mean)
        self.cell.forcing_std.assign(normalization.forcing_std)
        self.static_mean.assign(normalization.static_mean)
        self.static_std.assign(normalization.static_std)

    def encode(self, static, seed=None) -> tuple[tf.Tensor, tf.Tensor]:
        """The static code (cells, code_size) and the soil water capacity [mm].

        SMmax = softplus(x + 100) + 1, which is at least 1 mm, (cells, 1).

        Args:
            static: Raw static inputs (cells, static_size).
            seed: As in a call.
        """
        static = tf.cast(static, self.compute_dtype)
        hidden = (static - self.static_mean) / self.static_std
        for n, layer in enumerate((self.hidden_layer, *self.deeper_layers)):
            hidden = leaky_relu(layer(hidden))
            if self.dropout and seed is not None:
                hidden = dropped(hidden, self.dropout, folded(seed, n))
        code = leaky_relu(self.code_layer(hidden))
        raw = self.capacity_layer(code)
        return code, softplus(raw + CAPACITY_OFFSET) + LEAST_CAPACITY

    @property
    def uncertain(self) -> tuple[keras.Variable, ...]:
        """The weights that have a distribution, where the model is variational."""
        own = self.cell
        parts = (own.snowfall_correction, own.baseflow_fraction)
        if self.last_layer:
            parts += (own.coefficient_kernel, own.coefficient_bias)
        return parts

    def noise(self, *, of_others: bool = False) -> dict[str, Noise]:
        """What is learned of the observations' errors, by constraint.

        Args:
            of_others: Of cells that no training has seen; by default of training cells.
        """
        if not self.observed:
            return {}
        layer = self.observation_noise
        return layer.of_others() if of_others else layer.by_name()

    def normals(self, cells: int, seed, draws: int = 1) -> Normals:
        """Random numbers for draws.

        Args:
            cells: Of each draw.
            seed: Two integers, (2,).
            draws: How many.
        """
        shapes = Normals(
            (draws * cells, 1), (draws, self.posterior.size), (draws, self.rank)
        )
        return Normals(
            *(
                tf.random.stateless_normal(
                    shape,
                    folded(seed, NORMALS + n),
                    dtype=self.compute_dtype,
                    alg=GENERATOR,
                )
                for n, shape in enumerate(shapes)
            )
        )

    def draw(self, static, normals: Normals, *, seed=None) -> Drawn:
        """Draws of the parameters from their distributions.

        Args:
            static: Raw static inputs (draws * cells, static_size).
            normals: Of `normals`.
            seed: As in a call.
        """
        code, centre = self.encode(static, seed)
        deviation = self.posterior.capacity_deviation(code)
        weights = [tf.convert_to_tensor(part) for part in self.uncertain]
        flat = tf.concat([tf.reshape(part, [-1]) for part in weights], 0)
        drawn = self.posterior.weights_at(flat, normals)
        parts = tf.split(drawn, [int(np.prod(part.shape)) for part in weights], axis=1)
        draws = normals.weights.shape[0]
        parts = [
            tf.reshape(part, (draws, *weight.shape))
            for part, weight in zip(parts, weights, strict=True)
        ]
        if not self.last_layer:
            own = (self.cell.coefficient_kernel, self.cell.coefficient_bias)
            parts += [tf.repeat(tf.convert_to_tensor(w)[None], draws, 0) for w in own]
        return Drawn(
            soil_water_capacity=centre * tf.exp(deviation * normals.capacity),
            head=Head(*parts),
        )

    def prepare(self, static, seed=None, drawn: Drawn | None = None) -> Preparation:
        """What the days of a series have in common.

        Args:
            static: Raw static inputs (cells, static_size).
            seed: As in a call.
            drawn: As in a call.
        """
        code, capacity = self.encode(static, seed)
        if drawn is None:
            return self.cell.prepare(code, capacity)
        return self.cell.prepare(code, drawn.soil_water_capacity, drawn.head)

    def empty_state(self, cells) -> State:
        """Empty stores, for a number of cells."""
        return empty_state(cells, self.lstm_units, self.compute_dtype)

    def spin_up(
        self,
        forcing,
        static,
        state: State | None = None,
        *,
        seed=None,
        drawn: Drawn | None = None,
    ) -> State:
        """The state after one pass over the series, without gradient.

        Args:
            forcing: (cells, days, 3).
            static: (cells, static_size).
            state: Where to start; empty stores by default.
            seed: As in a call.
            drawn: As in a call.
        """
        forcing = tf.cast(forcing, self.compute_dtype)
        if state is None:
            state = self.empty_state(tf.shape(forcing)[0])
        return time_loop.spin_up(forcing, state, self.prepare(static, seed, drawn))

    def step(
        self,
        forcing,
        static,
        state: State,
        outputs: Sequence[str] = variables.STEP_OUTPUTS,
    ) -> tuple[dict[str, tf.Tensor], State]:
        """Runs the model over one day.

        Args:
            forcing: (cells, 3).
            static: (cells, static_size).
            state: State at the start of the day.
            outputs: Names of the variables to return.

        Returns:
            The outputs by name, (cells,) or (), and the state at the end of the day.

        Raises:
            ValueError: An output is not one of a day.
        """
        _refuse_unknown(outputs, variables.STEP_OUTPUTS)
        day = self.prepare(static)
        daily = [name for name in outputs if name in variables.DAILY_OUTPUTS]
        forcing = tf.transpose(tf.cast(forcing, self.compute_dtype))
        values, state = one_day(forcing, state.transposed(), day, daily)
        values = {name: values[n] for n, name in enumerate(daily)}
        values |= self._learned(day)
        return {name: values[name] for name in outputs}, state.transposed()

    def simulate(
        self,
        forcing,
        static,
        state: State,
        outputs: Sequence[str] = variables.OUTPUTS,
        *,
        training: bool = False,
        memory: float | None = None,
        seed=None,
        drawn: Drawn | None = None,
    ) -> tuple[dict[str, tf.Tensor], State]:
        """Runs the model from a given state.

        Args:
            forcing: (cells, days, 3).
            static: (cells, static_size).
            state: State at the start of the first day.
            outputs: Names of the variables to return.
            training: As in a call.
            memory: As in a call.
            seed: As in a call.
            drawn: As in a call; global constants are then (draws,).

        Returns:
            The outputs by name, and the state at the end of the last day.

        Raises:
            ValueError: An output is not in the registry.
        """
        _refuse_unknown(outputs, variables.OUTPUTS)
        day = self.prepare(static, seed, drawn)
        daily = [name for name in outputs if name in variables.DAILY_OUTPUTS]
        if "tws_anomaly" in outputs and "tws" not in daily:
            daily.append("tws")
        series, state = time_loop.simulate(
            tf.cast(forcing, self.compute_dtype),
            state,
            day,
            daily,
            memory=(memory or time_loop.MEMORY) if training else None,
        )
        values = {name: series[n] for n, name in enumerate(daily)}
        if "tws_anomaly" in outputs:
            tws = values["tws"]
            values["tws_anomaly"] = tws - tf.reduce_mean(tws, axis=1, keepdims=True)
        values |= self._learned(day, None if drawn is None else drawn.head)
        return {name: values[name] for name in outputs}, state

    def _learned(
        self, day: Preparation, head: Head | None = None
    ) -> dict[str, tf.Tensor]:
        """What the model has learned of the cells and of the globe."""
        capacity = day.parameters.soil_water_capacity[0]
        return {"soil_water_capacity": capacity, **self.cell.constants(head)}

    def call(
        self,
        inputs,
        outputs: Sequence[str] = variables.OUTPUTS,
        *,
        training: bool = False,
        memory: float | None = None,
        seed=None,
        drawn: Drawn | None = None,
    ):
        """Spins up from empty stores, then simulates."""
        forcing, static = inputs["forcing"], inputs["static"]
        before = inputs.get("spin_up_forcing", forcing)
        state = self.spin_up(before, static, seed=seed, drawn=drawn)
        return self.simulate(
            forcing,
            static,
            state,
            outputs,
            training=training,
            memory=memory,
            seed=seed,
            drawn=drawn,
        )[0]

    def get_config(self):
        """Arguments of the constructor."""
        return {
            **super().get_config(),
            "static_size": self.static_size,
            "encoder_units": self.encoder_units,
            "encoder_layers": self.encoder_layers,
            "code_size": self.code_size,
            "lstm_units": self.lstm_units,
            "dropout": self.dropout,
            "observed": list(self.observed),
            "variational": self.variational,
            "last_layer": self.last_layer,
            "rank": self.rank,
        }

    @classmethod
    def from_reference(
        cls,
        weights: Mapping[str, np.ndarray],
        normalization: Normalization | None = None,
        *,
        dtype: str = "float64",
    ) -> "H2MV":
        """The model with the weights of the published PyTorch code.

        Args:
            weights: Arrays under their PyTorch names: linear layers are
                (out, in), the gates are stacked i, f, g, o, and the LSTM has two
                bias vectors, which are added up.
            normalization: Of the inputs; may be set later.
            dtype: Precision of the model.

        Raises:
            ValueError: A weight is missing, unknown or of the wrong shape.
        """
        missing = set(REFERENCE_WEIGHTS) - set(weights)
        unknown = set(weights) - set(REFERENCE_WEIGHTS)
        if missing or unknown:
            raise ValueError(
                "The weights are not those of the published model. "
                f"Missing: {', '.join(sorted(missing)) or 'none'}. "
                f"Unknown: {', '.join(sorted(unknown)) or 'none'}."
            )
        for name in (n for n in REFERENCE_WEIGHTS if ".weight" in n):
            if np.ndim(weights[name]) != 2:
                shape = np.shape(weights[name])
                raise ValueError(
                    f"Weight {name} has shape {shape}; expected two dimensions."
                )
        encoder_units, static_size = np.shape(weights["fc_static.fc1.weight"])
        model = cls(
            static_size,
            encoder_units=encoder_units,
            code_size=np.shape(weights["fc_static.fc2.weight"])[0],
            lstm_units=np.shape(weights["lstm_fc.fc.weight"])[1],
            dtype=dtype,
        )
        totals: dict[str, np.ndarray] = {}
        for name, path in REFERENCE_WEIGHTS.items():
            shape, expected = (
                np.shape(weights[name]),
                model.reference_weight(path).shape,
            )
            if shape != tuple(expected[::-1]):
                raise ValueError(
                    f"Weight {name} of {path} has shape {shape}; expected "
                    f"{tuple(expected[::-1])}."
                )
            totals[path] = totals.get(path, 0) + np.asarray(weights[name]).T
        for path, value in totals.items():
            model.reference_weight(path).assign(value)
        if normalization is not None:
            model.set_normalization(normalization)
        return model

    def reference_weight(self, path: str) -> keras.Variable:
        """The variable at a path of `REFERENCE_WEIGHTS`."""
        value = self
        for attribute in path.split("."):
            value = getattr(value, attribute)
        return value


def _refuse_unknown(outputs: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in outputs if name not in known]
    if unknown:
        raise ValueError(
            f"H2MV has no output '{unknown[0]}'. Expected any of: {', '.join(known)}."
        )


def leaky_relu(x):
    """Rectifier with the published model's slope.

    TensorFlow's own takes its slope in single precision: 2e-8 off in float64.
    """
    return tf.maximum(x, LEAK * x)


def dropped(hidden, share: float, seed):
    """A hidden layer without a share of its units, the others scaled up for them.

    Args:
        hidden: (cells, units).
        share: Of the units that are left out.
        seed: Two integers, (2,), as of `folded`.
    """

    def uniform(shape, dtype):
        # From integers: XLA makes other fractions of the same random bits.
        bits = tf.random.stateless_uniform(
            shape, seed, minval=None, maxval=None, dtype="int32", alg=GENERATOR
        )
        return tf.cast(bits, dtype) / 2**32 + 0.5

    return tf.nn.experimental.general_dropout(hidden, share, uniform)


def folded(seed, number):
    """The seed of one of several things that share a seed: a layer, a device.

    Args:
        seed: Two integers, (2,).
        number: Which of them.
    """
    return tf.random.experimental.stateless_fold_in(
        tf.cast(seed, "int64"), tf.cast(number, "int64"), alg=GENERATOR
    )


def softplus(x):
    """TensorFlow's own, to the last digit.

    LiteRT takes the exponential of x, which overflows near 88: below the capacity.
    """
    return tf.where(x > LARGE, x, tf.nn.softplus(tf.minimum(x, LARGE)))


# PyTorch name in the published model -> where the weight lives here. Ours are
# transposed; two that lead to one place are added up.
REFERENCE_WEIGHTS = {
    "beta_snow": "cell.snowfall_correction",
    "beta_baseflow": "cell.baseflow_fraction",
    "fc_static.fc1.weight": "hidden_layer.kernel",
    "fc_static.fc1.bias": "hidden_layer.bias",
    "fc_static.fc2.weight": "code_layer.kernel",
    "fc_static.fc2.bias": "code_layer.bias",
    "fc_static.fc3.weight": "capacity_layer.kernel",
    "fc_static.fc3.bias": "capacity_layer.bias",
    "lstm_fc.lstm_cell.weight_ih": "cell.kernel",
    "lstm_fc.lstm_cell.weight_hh": "cell.recurrent_kernel",
    "lstm_fc.lstm_cell.bias_ih": "cell.bias",
    "lstm_fc.lstm_cell.bias_hh": "cell.bias",
    "lstm_fc.fc.weight": "cell.coefficient_kernel",
    "lstm_fc.fc.bias": "cell.coefficient_bias",
}
