"""Simulates cells on a device: the model, compiled once."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import tensorflow as tf

from h2mv_tf.admission import Ranges, out_of_domain
from h2mv_tf.cell import Head, State
from h2mv_tf.inference.job import Job
from h2mv_tf.model import H2MV, Drawn
from h2mv_tf.trained import Trained
from h2mv_tf.variables import DOMAIN, OUTPUTS, names

# Worked out for the balance, whatever is asked for.
OF_BALANCE = (
    "water_balance_residual",
    "corrected_precipitation",
    "evapotranspiration",
    "runoff",
    "tws",
)
CONSTANTS = names("constant")
INITIAL = "initial_storage"
INPUTS = "float32"  # as the store has them
KEPT = 8  # simulators, for two programs on a few devices


class Simulator:
    """Simulates cells on one device, always as many at a time.

    Args:
        settings: Of the model's constructor.
        job: What is asked for.
        device: Name of the device.
    """

    # The last ones are kept: to compile one takes seconds, and models that differ in
    # their weights and domain alone share it.
    _kept: ClassVar[dict[tuple, "Simulator"]] = {}

    def __init__(self, settings: Mapping, job: Job, device: str):
        self.cells, self.draws, self.device = job.cells, job.draws, device
        with tf.device(device):
            self.model = H2MV.from_config(dict(settings))
        self.ranges = Ranges.of(None, self.model.static_size, INPUTS)
        outputs = [
            name for name in job.names if name in OUTPUTS and name not in CONSTANTS
        ]
        self._outputs = tuple(dict.fromkeys((*outputs, *OF_BALANCE)))
        self._spin_up = job.spin_up
        jit_compile = job.compiled or None
        self._run = tf.function(self._run, jit_compile=jit_compile, autograph=False)

    @classmethod
    def of(cls, trained: Trained, job: Job, device: str) -> "Simulator":
        """The simulator of a model: that of the model before, where it fits.

        Args:
            trained: The model.
            job: What is asked for.
            device: Name of the device.
        """
        sizes = sorted((k, str(v)) for k, v in trained.settings.items() if k != "name")
        shape = (job.spin_up, job.cells, job.draws)
        key = (device, *sizes, job.names, *shape, job.compiled)
        kept = cls._kept.pop(key, None) or cls(trained.settings, job, device)
        kept.take(trained)
        cls._kept[key] = kept
        while len(cls._kept) > KEPT:
            cls._kept.pop(next(iter(cls._kept)))
        return kept

    def take(self, trained: Trained) -> None:
        """Simulates with another model of the same kind from now on."""
        self.model.set_weights(trained.weights)
        self.ranges = Ranges.of(trained.domain, self.model.static_size, INPUTS)

    def __call__(
        self,
        forcing: np.ndarray,
        static: np.ndarray,
        state: State | None = None,
        drawn: Drawn | None = None,
    ) -> tuple[dict[str, np.ndarray], State]:
        """Simulates cells.

        Args:
            forcing: (cells, days, 3); as many cells as the job says, or fewer.
            static: (cells, static inputs).
            state: At the start of the first day, where there is no spin-up.
            drawn: Parameters of as many draws as the job says, or fewer.

        Returns:
            Outputs by name, (cells, days) or (cells,), with the storage at the start
            of the first day (cells,) [mm], but without what is global; and the state
            at the end of the last. Of draws all have the draws as a first dimension.
        """
        count = len(forcing)
        # Those that lack are the last one again: one shape, one program.
        rows = np.minimum(np.arange(self.cells), count - 1)
        with tf.device(self.device):
            dtype = self.model.compute_dtype
            if state is not None:
                state = State(*(tf.constant(x[rows], dtype) for x in state))
            if drawn is not None:
                draws = len(drawn.head.coefficient_bias)
                those = np.minimum(np.arange(self.draws), draws - 1)
                capacity = drawn.soil_water_capacity.reshape(draws, count)
                parts = (
                    capacity[np.ix_(those, rows)].reshape(-1, 1),
                    Head(*(part[those] for part in drawn.head)),
                )
                drawn = tf.nest.map_structure(
                    lambda part: tf.constant(part, dtype), Drawn(*parts)
                )
                rows = np.tile(rows, self.draws)
            inputs = (
                tf.constant(forcing[rows]),
                tf.constant(static[rows]),
                Ranges(*map(tf.constant, self.ranges)),
                state,
                drawn,
            )
            # A program for each length, on purpose: TensorFlow would warn of it.
            values, final = self._run.get_concrete_function(*inputs)(*inputs)

        def cut(value: tf.Tensor) -> np.ndarray:
            array = value.numpy()
            if drawn is None:
                return array[:count]
            return array.reshape(self.draws, -1, *array.shape[1:])[:draws, :count]

        return {k: cut(value) for k, value in values.items()}, State(*map(cut, final))

    def capacity(self, static: np.ndarray) -> np.ndarray:
        """Soil water capacity (cells,) [mm].

        Args:
            static: (cells, static inputs).
        """
        with tf.device(self.device):
            return self.model.encode(static)[1].numpy()[:, 0]

    def _run(self, forcing, static, ranges, state, drawn):
        for _ in range(self._spin_up):
            state = self.model.spin_up(forcing, static, state, drawn=drawn)
        values, final = self.model.simulate(
            forcing, static, state, self._outputs, drawn=drawn
        )
        storage = state.swe + state.soil_moisture + state.groundwater
        share = out_of_domain(forcing, static, ranges)
        return values | {INITIAL: storage[:, 0], DOMAIN[0]: share}, final
