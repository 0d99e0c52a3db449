"""The reference arrays: what the published code computes.

Any file of the layout will do: another number of cells, days, static inputs or
units, and targets that are daily or monthly and cover only some of the months.
"""

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from h2mv_tf import variables
from h2mv_tf.model import Normalization
from h2mv_tf.objective import Constraint

DATA = Path(__file__).parent / "data"
WATER_CYCLE = Path(os.environ.get("H2MV_REFERENCE", DATA / "water_cycle.npz"))
SPLITS = Path(
    os.environ.get("H2MV_REFERENCE_SPLITS", DATA / "splits_and_equifinality.npz")
)

VALUES = {"float64": 1e-9, "float32": 1e-4}  # tolerances of outputs and states

STATES = {
    "swe": "swe_t",
    "soil_moisture": "SM_t",
    "groundwater": "GW_t",
    "fapar": "fAPAR_nn_t",
    "lstm_hidden": "h_t",
    "lstm_carry": "c_t",
}


class Reference:
    """The arrays of a file, under the names of this project.

    Args:
        path: File of the layout of `water_cycle.npz`.
    """

    def __init__(self, path):
        with np.load(path) as file:
            self.arrays = {key: file[key] for key in file.files}

    def _group(self, group):
        start = f"{group}/"
        return {
            key.removeprefix(start): value
            for key, value in self.arrays.items()
            if key.startswith(start)
        }

    @property
    def inputs(self):
        return {name: self.arrays[name] for name in ("forcing", "static")}

    @cached_property
    def weights(self):
        return self._group("weight")

    @cached_property
    def gradients(self):
        return self._group("grad")

    @property
    def normalization(self):
        return Normalization(
            *(
                self.arrays[f"{statistic}/{name}"]
                for name in ("forcing", "static")
                for statistic in ("mean", "std")
            )
        )

    @cached_property
    def outputs(self):
        """Every published output by registry name."""
        published = self._group("out")
        found = {}
        for name in variables.OUTPUTS:
            key = variables.VARIABLES[name].published
            for candidate in (key, f"{key}_ts"):
                if key and candidate in published:
                    found[name] = published[candidate]
        if "soil_water_capacity" in found:
            found["soil_water_capacity"] = found["soil_water_capacity"][:, 0]
        return found

    @cached_property
    def spun_up(self):
        """The states after the spin-up by the name they have here."""
        states = self._group("spinup_state")
        return {name: states[key] for name, key in STATES.items()}

    @cached_property
    def losses(self):
        """The terms of the objective by constraint, and their sum."""
        losses = self._group("loss")
        named = {"sum": losses.pop("loss_sum")}
        for key, value in losses.items():
            named[variables.find(key, variables.CONSTRAINTS).name] = value
        return named

    @cached_property
    def constraints(self):
        """The constraints, in the order of the objective."""
        return tuple(
            Constraint(
                name=name,
                mean=float(self.arrays[f"mean/{group}"]),
                std=float(self.arrays[f"std/{group}"]),
                daily=self._is_daily(group),
            )
            for name, group in self._observed.items()
        )

    @cached_property
    def targets(self):
        """Observations on all days, or all months, of the forcing."""
        return {
            name: self._aligned(
                self.arrays[f"target/{group}"],
                self.arrays[f"target_months/{group}"],
                self._days if self._is_daily(group) else self._months,
            )
            for name, group in self._observed.items()
        }

    @property
    def month(self):
        """Column of each day's month in the monthly targets (cells, days)."""
        column = np.searchsorted(self._months, self._days).astype("int32")
        return np.broadcast_to(column, self.arrays["forcing"].shape[:2])

    @property
    def _days(self):
        return self.arrays["forcing_months"]

    @property
    def _months(self):
        return np.arange(self._days[0], self._days[-1] + 1)

    @property
    def _observed(self):
        """The Zarr group of each constraint that the file has."""
        return {
            name: variables.VARIABLES[name].group
            for name in variables.CONSTRAINTS
            if name in self.losses
        }

    def _is_daily(self, group):
        months = self.arrays[f"target_months/{group}"]
        return len(np.unique(months)) < len(months)

    @staticmethod
    def _aligned(target, target_months, steps):
        """Puts observations on steps of the forcing that lie in their months."""
        placed = np.isin(steps, target_months)
        kept = np.isin(target_months, steps)
        aligned = np.full((len(target), len(steps)), np.nan)
        aligned[:, placed] = target[:, kept]
        return aligned


def assert_parity(actual, expected, tolerances, dtype):
    """Equal on the scale of the array.

    In double precision that is the largest error against the largest value. In
    single precision it is the root mean square of both: a share of a drop of
    water has any error, if the drop is small enough.
    """
    assert np.shape(actual) == np.shape(expected)
    size = np.linalg.norm if dtype == "float32" else lambda x: np.abs(x).max()
    error = np.subtract(actual, expected, dtype="float64").ravel()
    assert size(error) <= tolerances[dtype] * size(np.ravel(expected))
