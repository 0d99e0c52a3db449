"""Simulates cells on a device: the model, compiled once."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import tensorflow as tf

from h2mv_tf.inference.job import Job
from h2mv_tf.model import H2MV
from h2mv_tf.trained import Trained
from h2mv_tf.variables import OUTPUTS

# Worked out for the balance, whatever is asked for.
OF_BALANCE = (
    "water_balance_residual",
    "corrected_precipitation",
    "evapotranspiration",
    "runoff",
    "tws",
)
INITIAL = "initial_storage"
KEPT = 8  # simulators, for two programs on a few devices


class Simulator:
    """Simulates cells on one device, always as many at a time.

    Args:
        settings: Of the model's constructor.
        job: What is asked for.
        device: Name of the device.
    """

    # The last ones are kept: to compile one takes seconds, and models that differ in
    # their weights alone share it.
    _kept: ClassVar[dict[tuple, "Simulator"]] = {}

    def __init__(self, settings: Mapping, job: Job, device: str):
        self.cells, self.device = job.cells, device
        with tf.device(device):
            self.model = H2MV.from_config(dict(settings))
        outputs = [name for name in job.names if name in OUTPUTS]
        self._outputs = tuple(dict.fromkeys((*outputs, *OF_BALANCE)))
        self._spin_up = job.spin_up
        self._run = tf.function(self._run, jit_compile=True, autograph=False)

    @classmethod
    def of(cls, trained: Trained, job: Job, device: str) -> "Simulator":
        """The simulator of a model: that of the model before, where it fits.

        Args:
            trained: The model.
            job: What is asked for.
            device: Name of the device.
        """
        sizes = sorted((k, str(v)) for k, v in trained.settings.items() if k != "name")
        key = (device, *sizes, job.names, job.spin_up, job.cells)
        kept = cls._kept.pop(key, None) or cls(trained.settings, job, device)
        kept.model.set_weights(trained.weights)
        cls._kept[key] = kept
        while len(cls._kept) > KEPT:
            cls._kept.pop(next(iter(cls._kept)))
        return kept

    def __call__(
        self, forcing: np.ndarray, static: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Simulates cells.

        Args:
            forcing: (cells, days, 3); as many cells as the job says, or fewer.
            static: (cells, static inputs).

        Returns:
            Outputs by name, (cells, days), (cells,) or (); and the storage at the
            start of the first day (cells,) [mm].
        """
        count = len(forcing)
        # Those that lack are the last one again: one shape, one program.
        rows = np.minimum(np.arange(self.cells), count - 1)
        with tf.device(self.device):
            values = self._run(tf.constant(forcing[rows]), tf.constant(static[rows]))
        arrays = {name: value.numpy() for name, value in values.items()}
        return {
            name: value[:count] if value.ndim else value
            for name, value in arrays.items()
        }

    def _run(self, forcing, static):
        state = None
        for _ in range(self._spin_up):
            state = self.model.spin_up(forcing, static, state)
        values, _ = self.model.simulate(forcing, static, state, self._outputs)
        storage = state.swe + state.soil_moisture + state.groundwater
        return values | {INITIAL: storage[:, 0]}
