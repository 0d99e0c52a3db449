"""Simulates cells on a device: the model, compiled once."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import tensorflow as tf

from h2mv_tf.admission import Ranges, out_of_domain
from h2mv_tf.cell import State
from h2mv_tf.inference.job import Job
from h2mv_tf.model import H2MV
from h2mv_tf.trained import Trained
from h2mv_tf.variables import DOMAIN, OUTPUTS

# Worked out for the balance, whatever is asked for.
OF_BALANCE = (
    "water_balance_residual",
    "corrected_precipitation",
    "evapotranspiration",
    "runoff",
    "tws",
)
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
        self.cells, self.device = job.cells, device
        with tf.device(device):
            self.model = H2MV.from_config(dict(settings))
        self.ranges = Ranges.of(None, self.model.static_size, INPUTS)
        outputs = [name for name in job.names if name in OUTPUTS]
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
        key = (device, *sizes, job.names, job.spin_up, job.cells, job.compiled)
        kept = cls._kept.pop(key, None) or cls(trained.settings, job, device)
        kept.model.set_weights(trained.weights)
        kept.ranges = Ranges.of(trained.domain, kept.model.static_size, INPUTS)
        cls._kept[key] = kept
        while len(cls._kept) > KEPT:
            cls._kept.pop(next(iter(cls._kept)))
        return kept

    def __call__(
        self, forcing: np.ndarray, static: np.ndarray, state: State | None = None
    ) -> tuple[dict[str, np.ndarray], State]:
        """Simulates cells.

        Args:
            forcing: (cells, days, 3); as many cells as the job says, or fewer.
            static: (cells, static inputs).
            state: At the start of the first day, where there is no spin-up.

        Returns:
            Outputs by name, (cells, days), (cells,) or (), with the storage at the
            start of the first day (cells,) [mm]; and the state at the end of the last.
        """
        count = len(forcing)
        # Those that lack are the last one again: one shape, one program.
        rows = np.minimum(np.arange(self.cells), count - 1)
        with tf.device(self.device):
            if state is not None:
                dtype = self.model.compute_dtype
                state = State(*(tf.constant(x[rows], dtype) for x in state))
            inputs = (
                tf.constant(forcing[rows]),
                tf.constant(static[rows]),
                Ranges(*map(tf.constant, self.ranges)),
                state,
            )
            # A program for each length, on purpose: TensorFlow would warn of it.
            values, final = self._run.get_concrete_function(*inputs)(*inputs)
        arrays = {name: value.numpy() for name, value in values.items()}
        outputs = {
            name: value[:count] if value.ndim else value
            for name, value in arrays.items()
        }
        return outputs, State(*(x.numpy()[:count] for x in final))

    def capacity(self, static: np.ndarray) -> np.ndarray:
        """Soil water capacity (cells,) [mm].

        Args:
            static: (cells, static inputs).
        """
        with tf.device(self.device):
            return self.model.encode(static)[1].numpy()[:, 0]

    def _run(self, forcing, static, ranges, state):
        for _ in range(self._spin_up):
            state = self.model.spin_up(forcing, static, state)
        values, final = self.model.simulate(forcing, static, state, self._outputs)
        storage = state.swe + state.soil_moisture + state.groundwater
        share = out_of_domain(forcing, static, ranges)
        return values | {INITIAL: storage[:, 0], DOMAIN[0]: share}, final
