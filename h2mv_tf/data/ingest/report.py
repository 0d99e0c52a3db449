"""What ingest took from where, counted part by part."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf.data.ingest.fields import Field


class Row(NamedTuple):
    """Where one variable of the store came from; range and gaps are of the land."""

    group: str
    name: str
    source: str  # variables of the data set, those joined by `+` added up
    source_units: str
    units: str
    minimum: float
    maximum: float
    missing: float  # share of the values


class Report(NamedTuple):
    """What ingest took from where."""

    rows: tuple[Row, ...]
    cells: int  # of land
    period: tuple[pd.Timestamp, pd.Timestamp]
    notes: tuple[str, ...]


class Extent(NamedTuple):
    """Range and gaps of values."""

    low: float = np.inf
    high: float = -np.inf
    missing: int = 0
    count: int = 0

    @classmethod
    def of(cls, values: np.ndarray) -> "Extent":
        """That of some values.

        Args:
            values: Of any shape; NaN is missing.
        """
        missing = int(np.isnan(values).sum())
        if missing == values.size:
            return cls(missing=missing, count=missing)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        return cls(low, high, missing, values.size)

    def __or__(self, other: "Extent") -> "Extent":
        """That of both."""
        return Extent(
            min(self.low, other.low),
            max(self.high, other.high),
            self.missing + other.missing,
            self.count + other.count,
        )


class Tally(NamedTuple):
    """What was found in a part of the cells."""

    land: int
    lacking: Mapping[str, int]  # cells of the mask that lack something
    negative: Extent  # precipitation that rounding left below zero
    extents: Mapping[str, Extent]  # by group, static inputs by `static/NAME`

    def as_json(self) -> dict[str, Any]:
        """For the notes of an interrupted call."""
        return {**self._asdict(), "extents": dict(self.extents)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Tally":
        """The inverse of `as_json`."""
        extents = {name: Extent(*of) for name, of in values["extents"].items()}
        negative = Extent(*values["negative"])
        return cls(values["land"], values["lacking"], negative, extents)

    @classmethod
    def total(cls, parts: Iterable["Tally"]) -> "Tally":
        """That of all parts."""
        land, negative = 0, Extent()
        lacking: Counter[str] = Counter()
        extents: dict[str, Extent] = {}
        for part in parts:
            land, negative = land + part.land, negative | part.negative
            lacking.update(part.lacking)
            for name, extent in part.extents.items():
                extents[name] = extents.get(name, Extent()) | extent
        return cls(land, lacking, negative, extents)

    def notes(self) -> tuple[str, ...]:
        """What was changed, in words."""
        left_out = tuple(
            f"{cells} cells left out: they lack {what}"
            for what, cells in self.lacking.items()
            if cells
        )
        if not self.negative.count:
            return left_out
        rounded = (
            f"{self.negative.count} values of precipitation from "
            f"{self.negative.low:.2g} to 0 mm d-1 set to 0"
        )
        return (rounded, *left_out)


def rows(
    fields: Iterable[Field], static: xr.DataArray, found: Tally
) -> tuple[Row, ...]:
    """The rows of a report.

    Args:
        fields: The series.
        static: The static inputs (variable, ...).
        found: Range and gaps.
    """
    about = {}
    for variable, data in ((field.variable, field.data) for field in fields):
        about[variable.group] = (variable.group, variable.name, data.attrs)
    for name, source, units in zip(
        static["variable"].values,
        static["source"].values,
        static["units"].values,
        strict=True,
    ):
        about[f"static/{name}"] = (
            "static",
            str(name),
            {"source": str(source), "units": str(units)},
        )
    return tuple(
        _row(*of, found.extents.get(key, Extent())) for key, of in about.items()
    )


def _row(group: str, name: str, about: Mapping[str, str], extent: Extent) -> Row:
    known = extent.missing < extent.count
    return Row(
        group=group,
        name=name,
        source=about["source"],
        source_units=about.get("source_units", about["units"]),
        units=about["units"],
        minimum=extent.low if known else np.nan,
        maximum=extent.high if known else np.nan,
        missing=extent.missing / max(extent.count, 1),
    )
