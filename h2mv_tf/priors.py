"""Priors: what is known of the parameters before anything is observed.

From the configuration to distributions of tensorflow-probability, in native units.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from h2mv_tf import config
from h2mv_tf.data.store import Store
from h2mv_tf.data.units import quantity
from h2mv_tf.errors import UserError
from h2mv_tf.variables import VARIABLES

tfd = tfp.distributions

CAPACITY = "soil_water_capacity"
CONSTANTS = ("snowfall_correction", "baseflow_fraction")


class Scaled(NamedTuple):
    """A prior in native units, whose centre may be a multiple of a static input."""

    prior: config.Section
    centre: float  # median or mean; 0 where the distribution has neither
    deviation: float  # of a normal prior
    bounds: tuple[float, float]  # that a normal prior is cut off at
    column: int | None = None  # of the static inputs

    def distribution(self, static, dtype: str) -> tfd.Distribution:
        """The prior of each cell.

        Args:
            static: Raw static inputs (cells, static inputs).
            dtype: Of its values.
        """
        prior = self.prior

        def number(value):
            return tf.cast(value, dtype)

        centre = number(self.centre)
        if self.column is not None:
            centre *= tf.cast(static, dtype)[:, self.column]
        match prior.distribution:
            case "LogNormal":
                return tfd.LogNormal(tf.math.log(centre), number(prior.deviation))
            case "Normal":
                low, high = (number(bound) for bound in self.bounds)
                width = number(self.deviation)
                return tfd.TruncatedNormal(centre, width, low, high)
            case "Gamma":
                shape = number(prior.concentration)
                return tfd.Gamma(shape, shape / centre)
            case "LogitNormal":
                logit = tf.math.log(centre / (1 - centre))
                return tfd.LogitNormal(logit, number(prior.deviation))
            case "Beta":
                return tfd.Beta(
                    number(prior.concentration1), number(prior.concentration0)
                )


class Priors:
    """The priors of a configuration, for the cells of a store.

    Args:
        settings: The configuration.
        store: Whose static inputs a prior may depend on.

    Raises:
        UserError: The store lacks the static input of a prior, its units do not fit,
            or it is not above 0 somewhere.
    """

    def __init__(self, settings: config.Config, store: Store):
        self.weight_deviation = settings.uncertainty.weight_deviation
        self.scaled: dict[str, Scaled] = {
            name: _scaled(name, prior, store)
            for name, prior in settings.priors
            if prior is not None
        }

    def capacity(self, static, dtype: str = "float64") -> tfd.Distribution:
        """The prior of the soil water capacity [mm] of cells (cells,).

        Args:
            static: Raw static inputs (cells, static inputs).
            dtype: Of its values.
        """
        return self.scaled[CAPACITY].distribution(static, dtype)

    def constant(self, name: str, dtype: str = "float64") -> tfd.Distribution:
        """The prior of a global constant.

        Args:
            name: Its name.
            dtype: Of its values.
        """
        return self.scaled[name].distribution(None, dtype)


def _scaled(name: str, prior: config.Section, store: Store) -> Scaled:
    """A prior in native units."""
    units, field = VARIABLES[name].units, f"priors.{name}"
    per = getattr(prior, "per", None)
    given = getattr(prior, "median", getattr(prior, "mean", 0.0))
    deviation = 0.0
    if isinstance(prior, config.Normal):
        deviation = quantity(prior.deviation, units)
    low, high = VARIABLES[name].bounds
    bounds = (low, np.inf if high is None else high)
    if per is None:
        return Scaled(prior, quantity(given, units), deviation, bounds)
    if per not in store.static_names:
        raise UserError(
            f"{field}.per is '{per}', which is no static input of store "
            f"'{store.path}'. Found: {', '.join(store.static_names)}."
        )
    column = store.static_names.index(per)
    values = store.static()[:, column]
    if not values.min() > 0:
        cell = store.describe(int(np.argmin(values)))
        raise UserError(
            f"{field}.per is '{per}', which has to be above 0 everywhere; found "
            f"{values.min():g} at {cell}. Choose another static input, or none."
        )
    of_static = store.static_units.get(per, "1")
    wanted = units if of_static == "1" else f"{units} / ({of_static})"
    try:
        centre = quantity(given, wanted)
    except ValueError as error:
        raise UserError(f"{field}.median: {error}, per {per}.") from error
    if not centre > 0:
        raise UserError(f"{field}.median is {given}, and it has to lie above 0.")
    return Scaled(prior, centre, deviation, bounds, column)
