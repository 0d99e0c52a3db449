"""The water balance: what predictions fail to close by."""

import numpy as np
import xarray as xr

from h2mv_tf.errors import UserError
from h2mv_tf.evaluation.scales import DAY, is_daily
from h2mv_tf.variables import CLOSED

LARGEST, CLOSURE = "largest_residual", "water_balance_closure"
RESIDUAL = "water_balance_residual"
INPUT, LOSSES = "corrected_precipitation", ("evapotranspiration", "runoff")
STORES = ("swe", "soil_moisture", "groundwater")
NEEDED = (INPUT, *LOSSES, *STORES)
ROUNDING = 2.0**-23  # of storage kept in single precision, today's and yesterday's


class Balance:
    """The balance of cells, to which one variable after the other is added.

    residual = corrected P - ET - Q - d(SWE + SM + GW), from the second day on.

    Args:
        time: Steps of the predictions; months have no balance, as the mean of a store
            over a month is not what it ends with.
    """

    def __init__(self, time: xr.DataArray):
        self._consecutive = np.diff(time.values) == DAY
        self._left = set(NEEDED) if is_daily(time) else {None}
        self._residual, self._stored = 0.0, 0.0

    def add(self, name: str, values: np.ndarray) -> None:
        """Adds a variable.

        Args:
            name: Its name; what has no part in the balance is passed over.
            values: (cell, time) [mm d-1] or [mm].
        """
        if name not in self._left:
            return
        self._left.remove(name)
        if name in STORES:
            self._residual = self._residual - np.diff(values, axis=1)
            self._stored = self._stored + np.maximum(values[:, 1:], values[:, :-1])
        else:
            sign = 1 if name == INPUT else -1
            self._residual = self._residual + sign * values[:, 1:]

    def result(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Largest absolute residual of a day [mm d-1] and closure [mm] of each cell.

        The rounding of stores in single precision is taken off the first, and the
        second is the sum of the residuals. None where a variable is missing.
        """
        if self._left:
            return None
        residual = np.where(self._consecutive, self._residual, 0)
        beyond = np.maximum(np.abs(residual) - ROUNDING * self._stored, 0)
        return beyond.max(axis=1, initial=0), residual.sum(axis=1)


def reported(predictions: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray] | None:
    """Largest residual [mm d-1] and closure [mm] of each cell, as the model found them.

    Args:
        predictions: With `largest_residual` and `water_balance_closure`, or else the
            `water_balance_residual` of each day.

    Returns:
        Both (*space); None where the predictions have neither.
    """
    if LARGEST in predictions and CLOSURE in predictions:
        return predictions[LARGEST].compute(), predictions[CLOSURE].compute()
    if RESIDUAL not in predictions:
        return None
    residual = predictions[RESIDUAL].astype("float64")
    return np.abs(residual).max("time").compute(), residual.sum("time").compute()


def refuse(residual: xr.DataArray) -> None:
    """Raises a UserError where the balance of a day does not close.

    Args:
        residual: Largest absolute residual of each cell (*space) [mm d-1].
    """
    largest = float(residual.max())
    if largest > CLOSED:
        cell = place(residual)
        where = ", ".join(f"{name} {value}" for name, value in cell.items())
        raise UserError(
            f"The water balance of the predictions does not close: {largest:.3g} mm "
            f"d-1 on the worst day, at {where}; expected {CLOSED:g} or less. "
            "Predict again; where that does not help, the model is broken."
        )


def place(residual: xr.DataArray) -> dict[str, object]:
    """Where the largest residual is: `lat`, `lon` and, where it has one, `name`."""
    worst = residual.where(residual.notnull(), -1.0).argmax(...)
    cell = residual[worst].reset_coords()
    return {
        name: str(cell[name].item()) if name == "name" else round(cell[name].item(), 4)
        for name in ("name", "lat", "lon")
        if name in cell
    }
