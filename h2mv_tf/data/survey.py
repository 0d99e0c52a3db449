"""Survey: one pass over a store, and what it tells of every cell.

Moments, ranges and gaps of each variable at each cell, from which follow the
statistics of any set of cells, out of core and in double precision.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from h2mv_tf.data.series import Series, read
from h2mv_tf.data.store import Store
from h2mv_tf.data.windows import Observed, Record, observed
from h2mv_tf.errors import UserError, quoted, shown, words
from h2mv_tf.variables import (
    ANOMALIES,
    CONSTRAINT_OF,
    CONSTRAINTS,
    ERRORS,
    FORCING,
    VARIABLES,
)

logger = logging.getLogger(__name__)

# Deviation of a constraint: what is below is no weather, and would overflow in a loss.
LEAST = 1e-9

NOWHERE = -1


class Moments(NamedTuple):
    """Mean and standard deviation, in native units."""

    mean: float
    std: float


@dataclass(frozen=True)
class Statistics:
    """Moments of every input and observation, by name."""

    forcing: Mapping[str, Moments]
    static: Mapping[str, Moments]
    constraints: Mapping[str, Moments]

    def to_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        """Plain numbers, as normalization.json holds them."""
        return {
            part: {
                name: moments._asdict() for name, moments in getattr(self, part).items()
            }
            for part in ("forcing", "static", "constraints")
        }

    @classmethod
    def from_dict(cls, parts: Mapping[str, Mapping]) -> "Statistics":
        """The inverse of `to_dict`.

        Raises:
            ValueError: It is something else, or what cannot scale anything.
        """
        try:
            found = cls(
                **{
                    part: {
                        str(name): Moments(**dict(moments))
                        for name, moments in dict(values).items()
                    }
                    for part, values in dict(parts).items()
                }
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"no moments of inputs: {words(error)}") from error
        for values in (found.forcing, found.static, found.constraints):
            for name, moments in values.items():
                if not all(
                    isinstance(x, int | float) and abs(x) < np.inf for x in moments
                ):
                    raise ValueError(
                        f"'{quoted(name, 50)}' has moments {shown(tuple(moments))}"
                    )
        return found


class Summary(NamedTuple):
    """A variable at each cell; every field is (cells,)."""

    count: np.ndarray  # values that are there
    months: np.ndarray  # with a value, of what was told where months begin; else count
    mean: np.ndarray  # native units, 0 where there is none
    squares: np.ndarray  # sum of squared deviations from the cell's mean
    low: np.ndarray  # least value, NaN where there is none
    high: np.ndarray
    missing: np.ndarray  # first step without a value, -1 where there is none
    # Values beyond the registry's bounds; of standard errors, at steps that are
    # observed, those that are not above 0, or missing.
    outside: np.ndarray
    first_outside: np.ndarray  # first step with one, -1 where there is none
    outsider: np.ndarray  # the value there, NaN where there is none

    @classmethod
    def of(
        cls, values: np.ndarray, bounds: tuple, starts: np.ndarray | None = None
    ) -> "Summary":
        """The summary of series (cells, steps), NaN where there is no value.

        Args:
            values: The series.
            bounds: Of the registry.
            starts: First step of each month, to count months.
        """
        there = ~np.isnan(values)
        count = there.sum(axis=1)
        months = count
        if starts is not None:
            months = np.logical_or.reduceat(there, starts, axis=1).sum(axis=1)
        gaps = count < values.shape[1]
        # Most series have no gaps, and lie within the bounds: nothing to look for.
        filled = np.where(there, values, 0) if gaps.any() else values
        mean = filled.sum(axis=1, dtype="float64") / np.maximum(count, 1)
        deviations = filled - mean[:, None]
        if gaps.any():
            deviations *= there
        low = np.fmin.reduce(values, axis=1, initial=np.nan)
        high = np.fmax.reduce(values, axis=1, initial=np.nan)
        lower, upper = (np.nan if bound is None else bound for bound in bounds)
        outside = np.zeros(len(values), int)
        first_outside = np.full(len(values), NOWHERE)
        outsider = np.full(len(values), np.nan)
        for cell in np.flatnonzero((low < lower) | (high > upper)):
            (steps,) = np.nonzero((values[cell] < lower) | (values[cell] > upper))
            outside[cell], first_outside[cell] = len(steps), steps[0]
            outsider[cell] = values[cell, steps[0]]
        return cls(
            count=count,
            months=months,
            mean=mean,
            squares=np.einsum("cs,cs->c", deviations, deviations),
            low=low,
            high=high,
            missing=np.where(gaps, there.argmin(axis=1), NOWHERE),
            outside=outside,
            first_outside=first_outside,
            outsider=outsider,
        )

    @classmethod
    def of_errors(cls, errors: np.ndarray, observations: np.ndarray) -> "Summary":
        """The summary of standard errors.

        Args:
            errors: (cells, steps), NaN where there is none.
            observations: Whose they are (cells, steps), NaN where there is none.
        """
        unusable = ~np.isnan(observations) & ~(errors > 0)
        outside, first = unusable.sum(axis=1), unusable.argmax(axis=1)
        outsider = errors[np.arange(len(errors)), first]
        return cls.of(errors, (None, None))._replace(
            outside=outside,
            first_outside=np.where(outside > 0, first, NOWHERE),
            outsider=np.where(outside > 0, outsider, np.nan),
        )


@dataclass(frozen=True)
class Survey:
    """What a pass over a store found.

    Attributes:
        store: The store.
        series: Summary of each forcing, constraint and standard error, by name.
        static: Static inputs (cells, static inputs), NaN: missing.
        observed: Where there are observations of any constraint.
    """

    store: Store
    series: Mapping[str, Summary]
    static: np.ndarray
    observed: Observed

    @property
    def record(self) -> Record:
        """What the stream needs to know of all cells."""
        blocks = np.empty(len(self.static), "int32")
        for number, block in enumerate(self.store.blocks):
            blocks[block.cells] = number
        return Record(
            time=self.store.time,
            static=self.static,
            daily={
                name: self.store.calendar(name).daily
                for name in self.series
                if name not in FORCING
            },
            observed=self.observed,
            block=blocks,
        )

    @property
    def constraints(self) -> tuple[str, ...]:
        """Names of the constraints that were looked at."""
        return tuple(name for name in self.series if name in ERRORS)

    @property
    def errors(self) -> tuple[str, ...]:
        """Names of the constraints whose standard errors were looked at."""
        return tuple(name for name in self.constraints if ERRORS[name] in self.series)

    def statistics(self, cells: np.ndarray) -> Statistics:
        """Statistics of the training cells.

        Args:
            cells: The training cells.

        Raises:
            UserError: A constraint has no observation at any training cell.
        """
        for name in self.constraints:
            if not self.series[name].count[cells].any():
                raise UserError(
                    f"Constraint '{name}' has no observation at any of the "
                    f"{len(cells)} training cells. Drop it from "
                    "objective.constraints, or choose another split.fold."
                )
        moments = {
            name: _moments(name, Summary(*(part[cells] for part in self.series[name])))
            for name in (*FORCING, *self.constraints)
        }
        static = Summary.of(self.static[cells].T, (None, None))
        return Statistics(
            forcing={name: moments[name] for name in FORCING},
            static={
                name: _moments(name, Summary(*(part[[n]] for part in static)))
                for n, name in enumerate(self.store.static_names)
            },
            constraints={name: moments[name] for name in self.constraints},
        )


def survey(
    store: Store,
    constraints: Sequence[str] | None = None,
    *,
    errors: Sequence[str] = (),
    keep: Series | None = None,
    progress=None,
) -> Survey:
    """Reads all land cells once.

    Args:
        store: The store.
        constraints: Names of the constraints; all that the store has by default.
        errors: Those of them whose standard errors are read, too.
        keep: Takes in what is read, so that it need not be read again.
        progress: Called with the number of blocks read and of all blocks.

    Raises:
        UserError: A time axis is of no use, or a chunk cannot be read.
    """
    names = store.constraints if constraints is None else tuple(constraints)
    daily = {name: store.calendar(name).daily for name in names}
    observations = (*names, *(ERRORS[name] for name in errors))
    starts = np.flatnonzero(np.diff(store.time.month, prepend=0))
    parts, cells = [], []
    reading = read(store, observations, store.blocks)
    for number, (block, values) in enumerate(reading, start=1):
        if keep is not None:
            keep.put(block, values)
        seen = observed(
            values,
            daily,
            cells=len(block.cells),
            days=len(store.time),
            months=len(store.months),
        )
        summaries = {
            name: Summary.of_errors(series, values[CONSTRAINT_OF[name]])
            if name in CONSTRAINT_OF
            else Summary.of(
                series, VARIABLES[name].bounds, starts if daily.get(name) else None
            )
            for name, series in values.items()
        }
        parts.append((summaries, seen))
        cells.append(block.cells)
        if progress is not None:
            progress(number, len(store.blocks))
    order = np.argsort(np.concatenate(cells))

    def joined(pick) -> np.ndarray:
        return np.concatenate([pick(*part) for part in parts])[order]

    return Survey(
        store=store,
        series={
            name: Summary(
                *(
                    joined(lambda s, _, name=name, n=n: s[name][n])
                    for n in range(len(Summary._fields))
                )
            )
            for name in (*FORCING, *observations)
        },
        static=store.static(),
        observed=Observed(joined(lambda _, o: o.days), joined(lambda _, o: o.months)),
    )


def stored_statistics(store: Store, constraints: Sequence[str]) -> Statistics:
    """Statistics that the store's arrays carry in their attributes.

    Args:
        store: The store.
        constraints: Names of the constraints.

    Raises:
        UserError: An array has no attributes `mean` and `std`.
    """
    mean, std = store.stored_static_moments()
    return Statistics(
        forcing={name: Moments(*store.stored_moments(name)) for name in FORCING},
        static={
            name: Moments(float(mean[n]), float(std[n]))
            for n, name in enumerate(store.static_names)
        },
        constraints={
            name: Moments(*store.stored_moments(name)) for name in constraints
        },
    )


def _moments(name: str, cells: Summary) -> Moments:
    """Moments over cells; a constant has a deviation of one native unit."""
    count = cells.count.sum()
    mean = (cells.count * cells.mean).sum() / count
    low, high = (part[cells.count > 0] for part in (cells.low, cells.high))
    squares, constant = cells.squares.sum(), bool((low == high).all())
    if name in ANOMALIES:  # each cell's are taken from its own mean
        mean = 0.0
    else:
        squares += (cells.count * (cells.mean - mean) ** 2).sum()
        constant = constant and len(np.unique(low)) == 1
    deviation = float(np.sqrt(squares / count))
    if constant or (name in CONSTRAINTS and deviation < LEAST):
        deviation = 1.0
        logger.warning("%s is %g at all training cells: not scaled.", name, mean)
    return Moments(float(mean), deviation)
