"""One variable of the store: its sources added up, in native units, on its cells.

All is lazy: a `Field` tells how its values come about, and `flow` computes them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf.data.ingest.cells import Cells
from h2mv_tf.data.ingest.days import Stamps, Steps, gaps, stepped
from h2mv_tf.data.ingest.names import methods
from h2mv_tf.data.ingest.sources import Source
from h2mv_tf.data.units import (
    converted,
    converts,
    is_amount,
    is_per_month,
    per_day,
)
from h2mv_tf.errors import UserError
from h2mv_tf.variables import Variable


class Field(NamedTuple):
    """A series of the store.

    Attributes:
        variable: Of the registry.
        data: (time, lat, lon) or (time, cell), lazy, in single precision; its
            attributes are those of the store.
        names: The variables of the source that were added up.
        notes: What was changed on the way: variable of the source, words.
    """

    variable: Variable
    data: xr.DataArray
    names: tuple[str, ...]
    notes: tuple[tuple[str, str], ...]


def field(
    source: Source,
    variable: Variable,
    names: Sequence[str],
    *,
    cells: Cells,
    period: slice,
    stamps: Stamps | None,
) -> Field:
    """The field of one variable.

    Args:
        source: The files.
        variable: Of the registry.
        names: Variables of the source that add up to it.
        cells: Those that are wanted.
        period: Of the dates that are wanted.
        stamps: Where in their step the time stamps are.

    Raises:
        UserError: Units or dims are not as they have to be, or nothing is left.
    """
    terms = [
        _term(source, variable, name, cells=cells, stamps=stamps) for name in names
    ]
    data = sum(xr.align(*(term.data for term in terms), join="inner"))
    notes = tuple(
        (name, note)
        for name, term in zip(names, terms, strict=True)
        for note in term.notes
    )
    data = data.sel(time=period)
    if not data.sizes["time"]:
        raise UserError(
            f"{variable.label} ({'+'.join(names)}) has no value in the period that is "
            "asked for."
        )
    found = dict.fromkeys(str(source.arrays[name].attrs["units"]) for name in names)
    data = data.where(np.isfinite(data)).astype("float32")
    data = data.assign_coords({k: v.compute() for k, v in data.coords.items()})
    data.attrs = variable.attributes | {
        "source": "+".join(names),
        "source_units": ", ".join(found),
    }
    return Field(variable, data, tuple(names), notes)


def _term(
    source: Source, variable: Variable, name: str, *, cells: Cells, stamps
) -> Steps:
    """One variable of the source, in double precision and native units."""
    data = cells.cut(in_order(source.arrays[name], "time"))
    found = data.attrs.get("units")
    if found is None:
        raise UserError(
            f"'{name}' has no units. Expected {variable.label}, or units that convert "
            "to it: set its attribute units."
        )
    amounts = is_amount(found, variable.units)
    steps = stepped(data, amounts=amounts, stamps=stamps, bounded=source.bounded(name))
    try:
        values = native(steps, found, variable, methods(data))
    except UserError as error:
        raise UserError(
            f"{error} Mend its attribute units, or choose otherwise with --map "
            f"{variable.group}=VARIABLE."
        ) from error
    return steps._replace(data=cells.regridded(values))


def in_order(data: xr.DataArray, *leading: str) -> xr.DataArray:
    """The array with its dims in the store's order; others have to be of size 1.

    Args:
        data: Of the source.
        leading: Dims before those of space.

    Raises:
        UserError: It has other dims.
    """
    space = ("cell",) if "cell" in data.dims else ("lat", "lon")
    dims = (*leading, *space)
    other = [dim for dim in data.dims if dim not in dims and data.sizes[dim] == 1]
    data = data.squeeze(other, drop=True)
    if set(data.dims) != set(dims):
        raise UserError(
            f"'{data.name}' has dims ({', '.join(map(str, data.dims))}). Expected "
            f"{', '.join(dims)}, in any order."
        )
    return data.transpose(*dims)


def native(steps: Steps, found: str, variable: Variable, how: str) -> xr.DataArray:
    """Values in the units of the registry, in double precision.

    Args:
        steps: Of days or months, lazy.
        found: Their units.
        variable: Of the registry.
        how: Their CF cell methods.

    Raises:
        UserError: The units do not convert.
    """
    data, wanted = steps.data.astype("float64"), variable.units
    amounts = is_amount(found, wanted)
    total = amounts and (steps.summed or "time: sum" in how)
    if total or (converts(found, wanted) and is_per_month(found, wanted)):
        if steps.per == "month":
            # A month has the days that it has.
            days = xr.DataArray(
                np.asarray(data.indexes["time"].days_in_month), dims="time"
            )
            data = data / days
            found = per_day(found) if total else f"{found} month d-1"
        elif total and steps.per == "day":
            found = per_day(found)
    if not converts(found, wanted):
        raise UserError(
            f"'{data.name}' has units '{found}', which do not convert to "
            f"{variable.label}.{_advice(found, amounts)}"
        )
    return data.copy(data=data.data.map_blocks(converted, found, wanted, dtype=float))


def _advice(found: str, amounts: bool) -> str:
    """For sums over a day that do not tell that they are."""
    if not amounts:
        return ""
    return f" If it is the sum of each day, its units are '{per_day(found)}'."


def on_common_days(fields: Sequence[Field]) -> tuple[list[Field], tuple[str, ...]]:
    """The fields on the days that all have, and notes on what was cut off.

    Args:
        fields: The forcing.

    Raises:
        UserError: A field is not daily, has gaps, or they have no day in common.
    """
    spans = {}
    for found in fields:
        time = found.data.indexes["time"]
        what = gaps(time) or "1 time step" * (len(time) < 2)
        if what:
            raise UserError(
                "time has to be daily without gaps, or of regular steps within days; "
                f"'{'+'.join(found.names)}' has {what}. Fill the gaps."
            )
        spans["+".join(found.names)] = (time[0], time[-1])
    starts, ends = zip(*spans.values(), strict=True)
    start, end = max(starts), min(ends)
    told = ", ".join(f"{k} {a:%Y-%m-%d} to {b:%Y-%m-%d}" for k, (a, b) in spans.items())
    if start >= end:
        raise UserError(f"the forcing has no days in common: {told}.")
    notes = ()
    if (min(starts), max(ends)) != (start, end):
        notes = (f"cut to the days that all forcing has: {told}",)
    days = slice(start, end)
    return [f._replace(data=f.data.sel(time=days)) for f in fields], notes
