"""Domain: the ranges of the inputs that a model has seen in its training.

    domain = Domain.of(survey, split.train)
    domain.forcing["air_temperature"].high

What lies beyond them is simulated, and told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from h2mv_tf.data.survey import Survey
from h2mv_tf.errors import words
from h2mv_tf.variables import FORCING


class Range(NamedTuple):
    """The least and the largest value, in native units."""

    low: float
    high: float


@dataclass(frozen=True)
class Domain:
    """What a model has seen in its training.

    Attributes:
        forcing: Range of each forcing, by its name in the registry.
        static: Range of each static input, by name.
        units: Units of the static inputs, where the store has them.
        period: First and last day.
        cells: Number of training cells.
    """

    forcing: Mapping[str, Range]
    static: Mapping[str, Range]
    units: Mapping[str, str]
    period: tuple[str, str]
    cells: int

    @classmethod
    def of(cls, survey: Survey, cells: np.ndarray) -> "Domain":
        """The domain of a training.

        Args:
            survey: What a pass over its store found.
            cells: The training cells.
        """
        store = survey.store
        return cls(
            forcing={
                name: Range(
                    float(np.fmin.reduce(survey.series[name].low[cells])),
                    float(np.fmax.reduce(survey.series[name].high[cells])),
                )
                for name in FORCING
            },
            static={
                name: Range(float(values.min()), float(values.max()))
                for name, values in zip(
                    store.static_names, survey.static[cells].T, strict=True
                )
            },
            units=dict(store.static_units),
            period=(f"{store.time[0]:%Y-%m-%d}", f"{store.time[-1]:%Y-%m-%d}"),
            cells=len(cells),
        )

    def to_dict(self) -> dict:
        """Plain numbers and words, as domain.json holds them."""
        return {
            "period": list(self.period),
            "cells": self.cells,
            "forcing": {name: r._asdict() for name, r in self.forcing.items()},
            "static": {name: r._asdict() for name, r in self.static.items()},
            "units": dict(self.units),
        }

    @classmethod
    def from_dict(cls, content: Mapping) -> "Domain":
        """The inverse of `to_dict`.

        Raises:
            ValueError: It is something else.
        """
        try:
            ranges = {
                part: {
                    str(name): Range(float(r["low"]), float(r["high"]))
                    for name, r in dict(content[part]).items()
                }
                for part in ("forcing", "static")
            }
            first, last = content["period"]
            return cls(
                **ranges,
                units={str(k): str(v) for k, v in dict(content["units"]).items()},
                period=(str(first), str(last)),
                cells=int(content["cells"]),
            )
        except (TypeError, KeyError, IndexError, OverflowError) as error:
            raise ValueError(f"no ranges of a training: {words(error)}") from error
