"""The store: weather, static inputs and observations of cells, as Zarr.

One Zarr store (format 2 or 3) holds a group for each variable, each with one
array `data` of dims (time, lat, lon) on a grid or (time, cell) for sites and
basins; static inputs are (variable, ...). `Store` reads the cells of the land
mask as (cells, time) arrays and refuses what training could not use.
`writing` is its inverse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from h2mv_tf.errors import UserError
from h2mv_tf.variables import CONSTRAINTS, FORCING, VARIABLES

MASK, STATIC = "mask", "static"
REQUIRED = (*(VARIABLES[name].group for name in FORCING), STATIC, MASK)
OBSERVED = tuple(VARIABLES[name].group for name in CONSTRAINTS)
LAYOUTS = (("lat", "lon"), ("cell",))
DAY = np.timedelta64(1, "D")


class Observations(NamedTuple):
    """Observations of one constraint on the calendar of the forcing."""

    values: np.ndarray  # (cells, days) or (cells, months), native units, NaN: missing
    daily: bool  # daily steps; monthly otherwise


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
    """

    path: Path
    groups: Mapping[str, str]
    land: xr.DataArray
    time: pd.DatetimeIndex
    static_names: tuple[str, ...]
    constraints: tuple[str, ...]

    @classmethod
    def open(cls, path: str | Path, groups: Mapping[str, str] | None = None) -> "Store":
        """Opens a store and checks its layout; of the data only the mask is read.

        Args:
            path: The Zarr store.
            groups: Groups whose names differ from the published layout, as in
                {"et": "et_xbase"}.

        Raises:
            UserError: There is no store, a group is missing or of an unknown
                layout, there is no land, or time is not daily or has gaps.
        """
        path = Path(path)
        groups = {group: group for group in (*REQUIRED, *OBSERVED)} | dict(groups or {})
        present = _groups(path)
        for group in (*REQUIRED, *(k for k, v in groups.items() if k != v)):
            if groups[group] not in present:
                raise UserError(
                    f"Store '{path}' lacks group '{groups[group]}'{_label(group)}. "
                    f"Found: {', '.join(present) or 'none'}. Add the group, or name "
                    "the one that holds it in data.groups."
                )
        mask = _open(path, groups, MASK)
        land = mask.fillna(0) != 0
        if not land.any():
            raise UserError(
                f"The mask of store '{path}' has no land: all {land.size} cells are "
                "0. Expected 1 where there is land."
            )
        static = _open(path, groups, STATIC)
        names = static["variable"].values if "variable" in static.coords else ()
        return cls(
            path=path,
            groups=groups,
            land=land,
            time=_forcing_days(path, groups),
            static_names=tuple(map(str, names))
            or tuple(f"static_{n}" for n in range(static.sizes["variable"])),
            constraints=tuple(
                name for name in CONSTRAINTS if groups[VARIABLES[name].group] in present
            ),
        )

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
    def _land_index(self) -> np.ndarray:
        return np.flatnonzero(self.land.values)

    def forcing(self) -> np.ndarray:
        """Forcing of the land cells (cells, days, 3), in the registry's order.

        Raises:
            UserError: A value is missing, or lies outside the registry's bounds.
        """
        fields = []
        for name in FORCING:
            values = self._read(VARIABLES[name].group)
            self._refuse_missing(values, VARIABLES[name].label)
            self._refuse_out_of_bounds(values, name)
            fields.append(values)
        return np.stack(fields, axis=-1)

    def static(self) -> np.ndarray:
        """Static inputs of the land cells (cells, static inputs).

        Raises:
            UserError: A value is missing.
        """
        values = self._read(STATIC)
        for column, name in zip(values.T, self.static_names, strict=True):
            self._refuse_missing(column[:, None], f"static input '{name}'")
        return values

    def observations(self, constraint: str) -> Observations:
        """Observations of a constraint at the land cells.

        Args:
            constraint: Its name in the registry.

        Raises:
            UserError: The store lacks it, its time is neither daily nor monthly
                or has a step twice, or none of it lies in the forcing's period.
        """
        variable = VARIABLES[constraint]
        where = f"'{constraint}' [{variable.units}] of store '{self.path}'"
        if constraint not in self.constraints:
            raise UserError(
                f"Store '{self.path}' lacks constraint '{constraint}' "
                f"[{variable.units}] (group '{self.groups[variable.group]}'). Found: "
                f"{', '.join(self.constraints) or 'none'}. Add the group, or drop it "
                "from objective.constraints."
            )
        time = _time(_open(self.path, self.groups, variable.group), where)
        daily = len(time) > 1 and bool(np.median(np.diff(time)) == DAY)
        steps = time if daily else pd.Index(_month(time))
        if not steps.is_unique:
            raise UserError(
                f"Constraint {where} is neither daily nor monthly: "
                f"{time[steps.duplicated()][0]:%Y-%m-%d} is the second step of its "
                f"{'day' if daily else 'month'}. Average it to days or months."
            )
        values = self._read(variable.group)
        values[~np.isfinite(values)] = np.nan
        place = steps.get_indexer(self.time if daily else pd.Index(self.months))
        on_calendar = np.where(place >= 0, values[:, place], np.float32(np.nan))
        if np.isnan(on_calendar).all():
            raise UserError(
                f"Constraint {where} has no observation in the period of the "
                f"forcing, {_period(self.time)}; it covers {_period(time)}. Drop it "
                "from objective.constraints, or bring the two periods together."
            )
        return Observations(on_calendar, daily)

    def stored_moments(self, name: str) -> tuple[float, float]:
        """The attributes `mean` and `std` of a variable's array.

        Args:
            name: A forcing or constraint of the registry.

        Raises:
            UserError: The array has no such attributes.
        """
        return tuple(float(v) for v in self._attributes(VARIABLES[name].group))

    def stored_static_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The attributes `mean` and `std` of the static inputs, one per input."""
        shape = (len(self.static_names),)
        mean, std = (
            np.broadcast_to(np.asarray(values, "float64"), shape)
            for values in self._attributes(STATIC)
        )
        return mean, std

    def describe(self, cell: int) -> str:
        """A land cell in words, for messages."""
        row = self.cells.isel(cell=cell)
        name = f"{row['name'].item()}, " if "name" in row else ""
        return f"cell {cell} ({name}lat {row.lat.item():g}, lon {row.lon.item():g})"

    def _attributes(self, group: str) -> tuple:
        data = _open(self.path, self.groups, group)
        try:
            return data.attrs["mean"], data.attrs["std"]
        except KeyError as error:
            raise UserError(
                f"Group '{self.groups[group]}' of store '{self.path}' has no attribute "
                f"{error}, which data.normalization: store needs. Set it, or take "
                "data.normalization: training."
            ) from error

    def _read(self, group: str) -> np.ndarray:
        """The land cells of a group, (cells, ...) in single precision."""
        data = _open(self.path, self.groups, group)
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
        cells = _flat(data).values[..., self._land_index]
        return np.ascontiguousarray(np.moveaxis(cells, -1, 0), dtype="float32")

    def _refuse_missing(self, values: np.ndarray, label: str) -> None:
        missing = ~np.isfinite(values)
        if missing.any():
            cell, step = np.argwhere(missing)[0]
            when = f" on {self.time[step]:%Y-%m-%d}" if values.shape[1] > 1 else ""
            raise UserError(
                f"Store '{self.path}': {label} is missing at {self.describe(cell)}"
                f"{when}, first of {missing.sum()} missing values. Every land cell "
                "needs it: fill it, or set the cell's mask to 0."
            )

    def _refuse_out_of_bounds(self, values: np.ndarray, name: str) -> None:
        low, high = VARIABLES[name].bounds
        outside = (values < low) | (values > high)
        if outside.any():
            cell, step = np.argwhere(outside)[0]
            hint = "Convert its units"
            if name == "air_temperature" and abs(values).max() < low:
                hint = "It looks like degC: convert it to K"
            raise UserError(
                f"Store '{self.path}': {VARIABLES[name].label} has to lie between "
                f"{low:g} and {high:g}; found {values[cell, step]:g} at "
                f"{self.describe(cell)} on {self.time[step]:%Y-%m-%d}, first of "
                f"{outside.sum()} values. {hint} (`python -m h2mv_tf ingest` does it)."
            )


def _groups(path: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(zarr.open_group(path, mode="r").group_keys()))
    except FileNotFoundError as error:
        raise UserError(
            f"There is no Zarr store at '{path}'. Expected a folder with the groups "
            f"{', '.join(REQUIRED)}. `python -m h2mv_tf ingest FILE --to STORE` makes "
            "one."
        ) from error


def _open(path: Path, groups: Mapping[str, str], group: str) -> xr.DataArray:
    """The array of a group, (..., lat, lon) or (..., cell), read when it is asked for.

    Args:
        path: The store.
        groups: As in `Store`.
        group: Its name in the published layout, which tells what it holds.
    """
    dataset = xr.open_zarr(path, group=groups[group], consolidated=False, chunks=None)
    where = f"Group '{groups[group]}' of store '{path}'"
    if "data" not in dataset:
        raise UserError(
            f"{where} has no array 'data'. Found: {', '.join(dataset.data_vars)}."
        )
    data = dataset["data"]
    first = {MASK: (), STATIC: ("variable",)}.get(group, ("time",))
    layouts = [(*first, *layout) for layout in LAYOUTS]
    dims = next((layout for layout in layouts if set(layout) == set(data.dims)), None)
    if dims is None:
        expected = " or ".join(f"({', '.join(layout)})" for layout in layouts)
        raise UserError(
            f"{where} has dims ({', '.join(data.dims)}). Expected {expected}."
        )
    missing = {"lat", "lon"} - set(data.coords)
    if group == MASK and missing:
        raise UserError(f"{where} has no coordinate {', '.join(sorted(missing))}.")
    return data.transpose(*dims)


def _time(data: xr.DataArray, where: str) -> pd.DatetimeIndex:
    """The days of an array's time axis."""
    index = data.indexes.get("time")
    if not isinstance(index, pd.DatetimeIndex):
        found = "no time" if index is None else f"calendar '{data.time.dt.calendar}'"
        raise UserError(
            f"{where} has {found}. Expected a time axis of the standard calendar; "
            "convert it with xarray's convert_calendar."
        )
    return index.normalize()


def _forcing_days(path: Path, groups: Mapping[str, str]) -> pd.DatetimeIndex:
    """The days of the forcing, which are the same for all its variables."""
    axes = {}
    for name in FORCING:
        data = _open(path, groups, VARIABLES[name].group)
        group = groups[VARIABLES[name].group]
        axes[group] = _time(data, f"Group '{group}' of store '{path}'")
    (first, time), *others = axes.items()
    for group, other in others:
        if not other.equals(time):
            raise UserError(
                f"Groups '{first}' and '{group}' of store '{path}' differ in their "
                f"days: {_period(time)} and {_period(other)}. Cut them to one period."
            )
    steps = np.diff(time)
    wrong = np.flatnonzero(steps != DAY)
    if len(time) < 2 or wrong.size:
        found = "one day"
        if wrong.size:
            before, after = time[wrong[0]], time[wrong[0] + 1]
            found = f"{before:%Y-%m-%d} followed by {after:%Y-%m-%d}, first of "
            found += f"{wrong.size} such steps"
        raise UserError(
            f"The forcing of store '{path}' has to be daily without gaps; found "
            f"{found}. Average it to days, or fill the gaps."
        )
    return time


def _flat(data: xr.DataArray) -> xr.DataArray:
    """The array with one dimension `cell` for space, which comes last."""
    if "cell" in data.dims:
        return data.transpose(..., "cell")
    return data.stack(cell=("lat", "lon"), create_index=False)


def _month(time: pd.DatetimeIndex) -> np.ndarray:
    return np.asarray(time.year * 12 + time.month - 1)


def _period(time: Sequence) -> str:
    return f"{time[0]:%Y-%m-%d} to {time[-1]:%Y-%m-%d} ({len(time)} steps)"


def _label(group: str) -> str:
    """What a group holds, for messages."""
    for variable in VARIABLES.values():
        if variable.group == group:
            return f" ({variable.label})"
    return " (land mask)" if group == MASK else " (static inputs)"
