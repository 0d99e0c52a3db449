"""The store: weather, static inputs and observations of cells, as Zarr.

One Zarr store (format 2 or 3) holds a group for each variable, each with one
array `data` of dims (time, lat, lon) on a grid or (time, cell) for sites and
basins; static inputs are (variable, ...), and standard errors of observations may
be without time. `Store` reads the cells of the land
mask as (cells, time) arrays, block by block along the chunks; what the values are
worth, `survey` and `check` tell. `writing` is its inverse.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorstore
import xarray as xr
import zarr

from h2mv_tf.data.groups import (
    DAY,
    ERROR_GROUPS,
    MASK,
    OBSERVED,
    REQUIRED,
    STATIC,
    TRUTH,
    days,
    forcing_days,
    meaning,
    opened,
    period,
    present,
)
from h2mv_tf.data.metadata import readable, refuse_unsafe
from h2mv_tf.data.writing import CHUNKS, blocks, open_array
from h2mv_tf.errors import (
    UnreadableError,
    UserError,
    listed,
    printable,
    quoted,
    shown,
    words,
)
from h2mv_tf.variables import CONSTRAINT_OF, CONSTRAINTS, ERRORS, FORCING, VARIABLES


class Block(NamedTuple):
    """A rectangle of cells that are read together."""

    region: tuple[slice, ...]  # of the dims of the mask
    cells: np.ndarray  # which land cells lie in it
    place: np.ndarray  # where in it, row by row


class Calendar(NamedTuple):
    """How the time axis of a constraint lies on the forcing's."""

    daily: bool  # daily steps; monthly otherwise
    place: np.ndarray  # for each day or month of the forcing its step, or -1
    time: pd.DatetimeIndex  # of the constraint


@dataclass(frozen=True)
class Store:
    """The land cells of a store; made by `Store.open`.

    Attributes:
        path: Where the store is.
        groups: Group of each variable, by its name in the published layout.
        land: Land mask, (lat, lon) or (cell,).
        time: The days of the forcing.
        static_names: Names of the static inputs, in order.
        constraints: Names of the constraints that the store observes.
        errors: Those of them whose standard errors the store has, too.
        start: Which step of the forcing's arrays is the first of `time`.
    """

    path: Path
    groups: Mapping[str, str]
    land: xr.DataArray
    time: pd.DatetimeIndex
    static_names: tuple[str, ...]
    constraints: tuple[str, ...]
    errors: tuple[str, ...] = ()
    start: int = 0

    # How messages tell what to do about a cell, and about units.
    leaving_out = "set the cell's mask to 0"
    converting = "`python -m h2mv_tf ingest` does it"

    @property
    def label(self) -> str:
        """The store in words, for messages."""
        return f"Store '{self.path}'"

    @classmethod
    def open(cls, path: str | Path, groups: Mapping[str, str] | None = None) -> "Store":
        """Opens a store and checks its layout; of the data only the mask is read.

        Args:
            path: The Zarr store.
            groups: Groups whose names differ from the published layout, as in
                {"et": "et_xbase"}.

        Raises:
            UserError: There is no store, it is damaged, archived or would execute
                what is in it, a group is missing or of an unknown layout, there is
                no land, or time is not daily or has gaps.
        """
        path = Path(path)
        with readable(f"Store '{path}'"):
            return cls._opened_at(path, groups)

    @classmethod
    def _opened_at(cls, path: Path, groups: Mapping[str, str] | None) -> "Store":
        known = (*REQUIRED, *OBSERVED, *ERROR_GROUPS)
        groups = {group: group for group in known} | dict(groups or {})
        found = present(path)
        whole = [f"{groups[group]}/data" for group in (MASK, STATIC)]
        refuse_unsafe(path, whole=whole)
        for group in (*REQUIRED, *(k for k, v in groups.items() if k != v)):
            if groups[group] not in found:
                raise UserError(
                    f"Store '{path}' lacks group '{quoted(groups[group], 50)}'"
                    f"{meaning(group)}. Found: {listed(found)}. Add the group, or "
                    "name the one that holds it in data.groups."
                )
        mask = opened(path, groups, MASK)
        land = mask.fillna(0) != 0
        if not land.any():
            raise UserError(
                f"The mask of store '{path}' has no land: all {land.size} cells are "
                "0. Expected 1 where there is land."
            )
        static = opened(path, groups, STATIC)
        names = static["variable"].values if "variable" in static.coords else ()
        constraints = tuple(
            name for name in CONSTRAINTS if groups[VARIABLES[name].group] in found
        )
        return cls(
            path=path,
            groups=groups,
            land=land,
            time=forcing_days(path, groups),
            static_names=tuple(printable(str(name)) for name in names)
            or tuple(f"static_{n}" for n in range(static.sizes["variable"])),
            constraints=constraints,
            errors=tuple(
                name
                for name in constraints
                if groups[VARIABLES[ERRORS[name]].group] in found
            ),
        )

    def during(self, begin: str | None = None, end: str | None = None) -> "Store":
        """The store as if its forcing were of some days only.

        Args:
            begin: The first of them, as "2001-01-31"; the store's by default.
            end: The last of them; the store's by default.

        Raises:
            UserError: A day cannot be read or is none of the store's, or the last one
                comes before the first.
        """
        first = 0 if begin is None else self._place_of(begin)
        last = len(self.time) - 1 if end is None else self._place_of(end)
        if last < first:
            raise UserError(
                f"The period ends before it begins: {self.time[first]:%Y-%m-%d} to "
                f"{self.time[last]:%Y-%m-%d}. Give its first day, then its last."
            )
        time = self.time[first : last + 1]
        return replace(self, time=time, start=self.start + first)

    def of_cells(self, wanted: xr.DataArray) -> "Store":
        """The store with some of its land cells only.

        Args:
            wanted: Whether each cell is, on the dims of the land mask.
        """
        return replace(self, land=self.land & wanted.transpose(*self.land.dims).values)

    def _place_of(self, text: str) -> int:
        """Which of the days this is."""
        try:
            day = pd.Timestamp(date.fromisoformat(text))
        except ValueError as error:
            raise UserError(
                f"Cannot read the day '{text}'. Expected YYYY-MM-DD, as "
                f"{self.time[0]:%Y-%m-%d}."
            ) from error
        if day not in self.time:
            raise UserError(
                f"Store '{self.path}' has no weather of {day:%Y-%m-%d}, only of "
                f"{period(self.time)}. Choose days among these."
            )
        return self.time.get_loc(day)

    @cached_property
    def months(self) -> np.ndarray:
        """The calendar months of the forcing, counted from year 0."""
        return np.unique(_month(self.time))

    @cached_property
    def cells(self) -> xr.Dataset:
        """The land cells: `lat`, `lon` [degrees] and, where it has one, `name`."""
        cells = _flat(self.land)[self._land_index]
        coordinates = [c for c in ("lat", "lon", "name") if c in cells.coords]
        return cells.coords.to_dataset()[coordinates].reset_coords()

    @cached_property
    def static_units(self) -> Mapping[str, str]:
        """Units of the static inputs, where the store has them."""
        units = self._array(STATIC).coords.get("units")
        if units is None or units.dims != ("variable",):
            return {}
        names = (printable(str(unit)) for unit in units.values)
        return dict(zip(self.static_names, names, strict=True))

    @cached_property
    def _land_index(self) -> np.ndarray:
        return np.flatnonzero(self.land.values)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The land, cut along the chunks of the forcing, row by row.

        No two blocks meet in a chunk of the forcing, so that a pass over the blocks
        reads each of them once.
        """
        sides = dict.fromkeys(self.land.dims, 1)
        for name in FORCING:
            chunks = self.chunks(VARIABLES[name].group)
            sides = {dim: math.lcm(side, chunks[dim]) for dim, side in sides.items()}
        return self.cut(sides)

    def cut(self, sides: Mapping[str, int]) -> tuple[Block, ...]:
        """The land, cut into rectangles, row by row; those without land are left out.

        Args:
            sides: Cells along each dimension of space.
        """
        number = np.full(self.land.size, -1)
        number[self._land_index] = np.arange(len(self._land_index))
        number = number.reshape(self.land.shape)
        found = []
        for region in blocks(self.land.sizes, sides):
            inside = number[region].ravel()
            (place,) = np.nonzero(inside >= 0)
            if len(place):
                found.append(Block(region, inside[place], place))
        return tuple(found)

    def chunks(self, group: str) -> dict[str, int]:
        """Size of a group's chunks along each dimension."""
        data = self._array(group)
        chunks = data.encoding.get("preferred_chunks", data.sizes)
        return {dim: min(chunks[dim], size) for dim, size in data.sizes.items()}

    def attributes(self, group: str) -> Mapping[str, object]:
        """The attributes of a group's array."""
        return self._array(group).attrs

    def static(self) -> np.ndarray:
        """Static inputs of the land cells (cells, static inputs), NaN: missing.

        Raises:
            UserError: A chunk cannot be read.
        """
        everywhere = tuple(slice(None) for _ in self.land.dims)
        cells = np.arange(len(self._land_index))
        return self._read(STATIC, Block(everywhere, cells, self._land_index))

    def forcing(self, name: str, block: Block) -> np.ndarray:
        """A forcing at the cells of a block (cells, days), NaN: missing.

        Args:
            name: Its name in the registry.
            block: Of `blocks`.

        Raises:
            UserError: A chunk cannot be read.
        """
        return self._read(VARIABLES[name].group, block)

    def observations(self, constraint: str, block: Block) -> np.ndarray:
        """Observations of a constraint at the cells of a block.

        Args:
            constraint: Its name in the registry, or that of its standard error.
            block: Of `blocks`.

        Returns:
            (cells, days) or (cells, months) on the forcing's calendar, NaN: missing.

        Raises:
            UserError: A chunk cannot be read.
        """
        values = self._read(VARIABLES[constraint].group, block)
        return self._on_calendar(constraint, values)

    def calendar(self, constraint: str) -> Calendar:
        """How the time axis of a constraint lies on the forcing's.

        Args:
            constraint: Its name in the registry, or that of its standard error; of
                one without time it is the constraint's.

        Raises:
            UserError: The store lacks it, its time is neither daily nor monthly
                or has a step twice, or none of it lies in the forcing's period; a
                standard error has other steps than its constraint.
        """
        if constraint not in self._calendars:
            find = (
                self._calendar_of_error
                if constraint in CONSTRAINT_OF
                else self._calendar
            )
            self._calendars[constraint] = find(constraint)
        return self._calendars[constraint]

    @cached_property
    def _calendars(self) -> dict[str, Calendar]:
        return {}

    def _calendar_of_error(self, error: str) -> Calendar:
        constraint, variable = CONSTRAINT_OF[error], VARIABLES[error]
        where = f"{variable.label} (group '{self.groups[variable.group]}')"
        if constraint not in self.errors:
            raise UserError(
                f"Store '{self.path}' lacks {where}. Found those of: "
                f"{', '.join(self.errors) or 'none'}. Add the group, or leave "
                f"'{constraint}' out of objective.errors."
            )
        own = self.calendar(constraint)
        if "time" not in self._array(variable.group).dims:
            return own
        calendar = self._on_forcing(error, "objective.errors")
        if calendar.daily != own.daily:
            steps = {True: "daily", False: "monthly"}
            raise UserError(
                f"Store '{self.path}': {where} is {steps[calendar.daily]}, and "
                f"'{constraint}' is {steps[own.daily]}. Bring both to the same steps, "
                f"or leave '{constraint}' out of objective.errors."
            )
        return calendar

    def _calendar(self, constraint: str) -> Calendar:
        variable = VARIABLES[constraint]
        if constraint not in self.constraints:
            raise UserError(
                f"Store '{self.path}' lacks constraint '{constraint}' "
                f"[{variable.units}] (group '{self.groups[variable.group]}'). Found: "
                f"{', '.join(self.constraints) or 'none'}. Add the group, or drop it "
                "from objective.constraints."
            )
        return self._on_forcing(constraint, "objective.constraints")

    def _on_forcing(self, name: str, field: str) -> Calendar:
        """The calendar of an array's own time.

        Args:
            name: Its name in the registry.
            field: Of the configuration, which asks for it.
        """
        variable = VARIABLES[name]
        what = "Standard error" if name in CONSTRAINT_OF else "Constraint"
        where = f"'{name}' [{variable.units}] of store '{self.path}'"
        time = days(self._array(variable.group), where)
        daily = len(time) > 1 and bool(np.median(np.diff(time)) == DAY)
        steps = time if daily else pd.Index(_month(time))
        if not steps.is_unique:
            raise UserError(
                f"{what} {where} is neither daily nor monthly: "
                f"{time[steps.duplicated()][0]:%Y-%m-%d} is the second step of its "
                f"{'day' if daily else 'month'}. Average it to days or months."
            )
        place = steps.get_indexer(self.time if daily else pd.Index(self.months))
        if (place < 0).all():
            raise UserError(
                f"{what} {where} has no observation in the period of the "
                f"forcing, {period(self.time)}; it covers {period(time)}. Drop it "
                f"from {field}, or bring the two periods together."
            )
        return Calendar(daily, place, time)

    def observed(self, name: str) -> xr.DataArray:
        """Forcing or observations on the store's grid, read when they are asked for.

        Args:
            name: Name of a forcing, constraint or standard error in the registry.

        Returns:
            (time, lat, lon) or (time, cell) with dask, in native units, NaN at sea and
            where missing. Time is the day, or the first day of the month; `attrs`
            has `cadence`, daily or monthly.

        Raises:
            UserError: The store lacks it, or its time is neither daily nor monthly.
        """
        with readable(f"'{name}' of store '{self.path}'"):
            return self._observed(name)

    def _observed(self, name: str) -> xr.DataArray:
        data = self._array(VARIABLES[name].group)
        time, cadence = self.time, "daily"
        if name not in FORCING:
            calendar = self.calendar(name)
            time = calendar.time
            if not calendar.daily:
                time, cadence = time.to_period("M").to_timestamp(), "monthly"
        chunks = self.chunks(VARIABLES[name].group)
        if "time" not in data.dims:
            data = data.expand_dims(time=len(time))
        data = data.assign_coords(time=time).chunk(chunks).where(self.land)
        attributes = {**VARIABLES[name].attributes, "cadence": cadence}
        return data.rename(name).astype("float32").assign_attrs(attributes)

    def truth(self) -> xr.Dataset | None:
        """The hidden truth of a synthetic world, read when it is asked for.

        Returns:
            Variables by registry name, (time, lat, lon), (lat, lon) or (), NaN at sea;
            None where the store has none.
        """
        with readable(f"The truth of store '{self.path}'"):
            if TRUTH not in present(self.path):
                return None
            return xr.open_zarr(self.path, group=TRUTH, consolidated=False)

    def missing_chunks(self) -> Mapping[str, int]:
        """Chunks that a group's array has lost since it was written, where known."""
        lost = {}
        with readable(self.label):
            root = zarr.open_group(self.path, mode="r", use_consolidated=False)
            written = root.attrs.get(CHUNKS)
            written = written if isinstance(written, Mapping) else {}
            for group, name in self.groups.items():
                key = f"{name}/data"
                if isinstance(written.get(key), int) and key in root:
                    lost[group] = written[key] - root[key].nchunks_initialized
        return {group: count for group, count in lost.items() if count > 0}

    def stored_moments(self, name: str) -> tuple[float, float]:
        """The attributes `mean` and `std` of a variable's array.

        Args:
            name: A forcing or constraint of the registry.

        Raises:
            UserError: The array has no such attributes.
        """
        mean, std = self._moments(VARIABLES[name].group, ())
        return float(mean), float(std)

    def stored_static_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The attributes `mean` and `std` of the static inputs, one per input."""
        return self._moments(STATIC, (len(self.static_names),))

    def describe(self, cell: int) -> str:
        """A land cell in words, for messages."""
        row = self.cells.isel(cell=cell)
        name = f"{row['name'].item()}, " if "name" in row else ""
        return f"cell {cell} ({name}lat {row.lat.item():g}, lon {row.lon.item():g})"

    def _moments(
        self, group: str, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The attributes `mean` and `std` of a group's array, of this shape."""
        attributes = self._array(group).attrs
        where = f"Group '{self.groups[group]}' of store '{self.path}'"
        found = []
        for name in ("mean", "std"):
            if name not in attributes:
                raise UserError(
                    f"{where} has no attribute '{name}', which data.normalization: "
                    "store needs. Set it, or take data.normalization: training."
                )
            try:
                values = np.asarray(attributes[name], "float64")
                least = 0 if name == "std" else -np.inf
                if not (np.isfinite(values) & (values > least)).all():
                    raise ValueError("nothing can be scaled by it")
                found.append(np.broadcast_to(values, shape))
            except (TypeError, ValueError, OverflowError) as error:
                kind = "positive " * (name == "std") + "number"
                expected = " or ".join([f"a {kind}", *map(str, shape)])
                raise UserError(
                    f"{where} has the attribute {name} = {shown(attributes[name])}. "
                    f"Expected {expected}. Mend it, or take data.normalization: "
                    "training."
                ) from error
        mean, std = found
        return mean, std

    def request(
        self, constraints: Sequence[str], block: Block
    ) -> Callable[[], dict[str, np.ndarray]]:
        """Begins to read the forcing and the constraints of a block.

        Args:
            constraints: Their names in the registry, and those of standard errors.
            block: Of `blocks`.

        Returns:
            Waits, and gives the values by name as `forcing` and `observations` do.
        """
        variables = [VARIABLES[name] for name in (*FORCING, *constraints)]
        begun = [(v.name, self._request(v.group, block)) for v in variables]
        return lambda: {
            name: self._on_calendar(name, wait()) if name in constraints else wait()
            for name, wait in begun
        }

    def _on_calendar(self, constraint: str, values: np.ndarray) -> np.ndarray:
        """Values on the steps of a constraint, brought to the forcing's calendar.

        Args:
            constraint: Its name in the registry, or that of its standard error.
            values: (cells, steps), or (cells,) where they are the same at all steps.
        """
        place = self.calendar(constraint).place
        if values.ndim == 1:
            return np.where(place >= 0, values[:, None], np.float32(np.nan))
        if np.array_equal(place, np.arange(values.shape[1])):
            return values
        return np.where(place >= 0, values[:, place], np.float32(np.nan))

    def _read(self, group: str, block: Block) -> np.ndarray:
        """The cells of a block (cells, ...) in single precision, NaN: missing."""
        return self._request(group, block)()

    def _request(self, group: str, block: Block) -> Callable[[], np.ndarray]:
        """Begins to read the cells of a block."""
        data, fast = self._array(group), self._fast(group)
        try:
            begun = fast[(..., *block.region)].read() if fast is not None else None
        except Exception as error:  # each codec has its own
            raise self._unreadable(group, block, error) from error

        def wait() -> np.ndarray:
            try:
                if begun is not None:
                    values = begun.result()
                else:
                    values = data.variable[(..., *block.region)].values
                values = np.asarray(values, "float32")
            except Exception as error:  # each codec has its own
                raise self._unreadable(group, block, error) from error
            # Chunks that are not there are missing values, as all are of a lost disk.
            if not _is_array(self.path / self.groups[group] / "data"):
                raise UnreadableError(
                    f"{self.label} has gone while it was read: there is no "
                    f"'{self.groups[group]}/data' any more. Is its disk connected?"
                )
            values = values.reshape(*values.shape[: -len(block.region)], -1)
            if len(block.place) < values.shape[-1]:
                values = values[..., block.place]
            if np.isinf(values).any():
                values = np.where(np.isinf(values), np.float32(np.nan), values)
            return values.T

        return wait

    def _fast(self, group: str) -> tensorstore.TensorStore | None:
        """The array without Zarr's Python; None where xarray has to decode it."""
        if group not in self._opened:
            self._opened[group] = _without_python(
                self.path / self.groups[group] / "data",
                self._array(group),
                self._steps(group),
            )
        return self._opened[group]

    @cached_property
    def _opened(self) -> dict[str, tensorstore.TensorStore | None]:
        return {}

    def _unreadable(self, group: str, block: Block, error: Exception) -> UserError:
        cells = self.describe(block.cells[0])
        if len(block.cells) > 1:
            cells += f" to {self.describe(block.cells[-1])}"
        where = f"Store '{self.path}': a chunk of '{self.groups[group]}/data'"
        if isinstance(error, MemoryError):
            return UnreadableError(
                f"{where} with {cells} does not fit the memory of this machine. Make "
                "the store anew, in smaller chunks."
            )
        return UnreadableError(
            f"{where} with {cells} is truncated or damaged. Copy the store again, or "
            f"make it anew. The reader says: {words(error)}"
        )

    def _array(self, group: str) -> xr.DataArray:
        """A group's array on the cells of the mask, read when it is asked for."""
        if group not in self._arrays:
            self._arrays[group] = self._on_mask(group)
        return self._arrays[group]

    @cached_property
    def _arrays(self) -> dict[str, xr.DataArray]:
        return {}

    def _on_mask(self, group: str) -> xr.DataArray:
        with readable(f"Group '{self.groups[group]}' of store '{self.path}'"):
            return self._fitted(group)

    def _fitted(self, group: str) -> xr.DataArray:
        data = opened(self.path, self.groups, group)
        where = f"Group '{self.groups[group]}' of store '{self.path}'"
        if not set(self.land.dims) <= set(data.dims):
            raise UserError(
                f"{where} has dims ({', '.join(data.dims)}); the mask has "
                f"({', '.join(self.land.dims)}). Bring both to one list of cells."
            )
        for name in dict.fromkeys((*self.land.dims, "lat", "lon")):
            same = data.sizes.get(name) == self.land.sizes.get(name)
            if same and name in data.coords and name in self.land.coords:
                same = np.array_equal(data[name], self.land[name])
            if not same:
                raise UserError(
                    f"{where} and the mask differ in {name}. Bring both to one list "
                    "of cells."
                )
        return data[self._steps(group)]

    def _steps(self, group: str) -> slice:
        """What of an array's first dimension is read."""
        if group not in (VARIABLES[name].group for name in FORCING):
            return slice(None)
        return slice(self.start, self.start + len(self.time))


def _without_python(
    path: Path, data: xr.DataArray, steps: slice
) -> tensorstore.TensorStore | None:
    """An array for TensorStore to read, an order of magnitude faster than by Zarr.

    Args:
        path: The array.
        data: The same, as xarray decodes it.
        steps: What of its first dimension is read.

    Returns:
        None where the values have to be decoded beyond what Zarr does.
    """
    packed = {"scale_factor", "add_offset"} & set(data.encoding)
    try:
        filled = not np.isnan(data.encoding.get("_FillValue", np.nan))
        if packed or data.dtype.kind != "f" or filled:
            return None
        return open_array(path)[steps] if _stored_dims(path) == data.dims else None
    except Exception:  # what it does not know, xarray may
        return None


def _is_array(path: Path) -> bool:
    """Whether an array is there, of format 3 or 2."""
    return (path / "zarr.json").exists() or (path / ".zarray").exists()


def _stored_dims(path: Path) -> tuple[str, ...]:
    """The dimensions of an array in the order in which it is stored."""
    array = zarr.open_array(path, mode="r")
    if array.metadata.zarr_format == 2:
        return tuple(array.attrs.get("_ARRAY_DIMENSIONS", ()))
    return tuple(array.metadata.dimension_names or ())


def _flat(data: xr.DataArray) -> xr.DataArray:
    """The array with one dimension `cell` for space, which comes last."""
    if "cell" in data.dims:
        return data.transpose(..., "cell")
    return data.stack(cell=("lat", "lon"), create_index=False)


def _month(time: pd.DatetimeIndex) -> np.ndarray:
    return np.asarray(time.year * 12 + time.month - 1)
