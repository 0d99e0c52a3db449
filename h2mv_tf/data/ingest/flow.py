"""From maps to series: the values of a source into a store, in bounded memory.

A source has one map after the other, a store has all days of a tile of cells. What
does not fit memory goes by way of a scratch array that is cut both ways, so that
each part of the source is read once, however little memory there is:

    source  --some days at a time-->  scratch  --some cells at a time-->  store

What is done is noted beside the store, so that an interrupted call goes on.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
import zarr

from h2mv_tf.data.groups import MASK, STATIC
from h2mv_tf.data.ingest.cells import quietly
from h2mv_tf.data.ingest.fields import Field
from h2mv_tf.data.ingest.report import Extent, Tally
from h2mv_tf.data.ingest.sources import Source
from h2mv_tf.data.writing import Writer, blocks
from h2mv_tf.errors import UserError
from h2mv_tf.variables import FORCING

ROUNDING = 0.1  # mm d-1; precipitation that is negative by less than this is none
THREADS = min(os.cpu_count() or 1, 8)
# Shares of the memory limit; the rest is for what is converted on the way.
CELLS_SHARE, DAYS_SHARE, CHUNK_SHARE = 0.4, 0.125, 0.1 / THREADS
LARGEST_CHUNK = 64e6  # bytes; larger ones are not read faster
VALUE = np.dtype("float32").itemsize  # bytes
# Bytes of a day of a cell: its forcing, one constraint, and what compares them.
DAY_OF_CELL = VALUE * (len(FORCING) + 3)

Region = tuple[slice, ...]  # of the dims of space
Progress = Callable[[int, int], None]


class Content(NamedTuple):
    """What a store will hold.

    Attributes:
        fields: The forcing and the constraints, on the same cells.
        mask: 1 on land; None where all cells with forcing are.
        static: Static inputs (variable, ...); those that are derived from the
            forcing are still missing.
        means: The derived ones, for each forcing.
    """

    fields: Mapping[str, Field]
    mask: xr.DataArray | None
    static: xr.DataArray
    means: Mapping[str, str]

    @property
    def place(self) -> xr.DataArray:
        """One map, with its coordinates."""
        return self.static.isel(variable=0, drop=True)


def chunk_bytes(memory: float) -> float:
    """How much of a source each thread reads at once [bytes].

    Args:
        memory: Limit of the memory [bytes].
    """
    return min(memory * CHUNK_SHARE, LARGEST_CHUNK)


class Flow:
    """Fills a store.

    Args:
        source: The files.
        content: What the store will hold.
        writer: Of the store.
        memory: Limit of the values in hand [bytes].
    """

    def __init__(self, source: Source, content: Content, writer: Writer, memory: float):
        self._source, self._content, self._writer = source, content, writer
        self._memory = memory
        place = content.place
        days = max(field.data.sizes["time"] for field in content.fields.values())
        cells = memory * CELLS_SHARE / (DAY_OF_CELL * days)
        self._sides = sides(place.sizes, writer.tile, cells)
        self._regions = blocks(place.sizes, self._sides)

    def run(self, progress: Progress) -> Tally:
        """Writes all arrays.

        Args:
            progress: Called with the number of parts that are done, and of all.

        Returns:
            What was found on the way.

        Raises:
            UserError: A file cannot be read, forcing has gaps or values that no
                weather has, or there is no land.
        """
        self._declare()
        slabs = [
            (field, slab)
            for field in self._content.fields.values()
            if self._needs_scratch(field)
            for slab in self._slabs(field)
        ]
        total = len(slabs) + len(self._regions)
        for done, (field, slab) in enumerate(slabs):
            progress(done, total)
            self._into_scratch(field, slab)
        for done, region in enumerate(self._regions):
            progress(len(slabs) + done, total)
            self._into_store(region)
        progress(total, total)
        found = Tally.total(self._noted(region) for region in self._regions)
        if not found.land:
            mask, cells = self._content.mask, self._content.place.size
            reason = "; ".join(found.notes())
            reason = reason or f"'{mask.attrs['source']}' is 0 everywhere"
            raise UserError(f"none of the {cells} cells is land: {reason}.")
        return found

    def _declare(self) -> None:
        content, writer = self._content, self._writer
        source = "cells with forcing"
        if content.mask is not None:
            source = content.mask.attrs["source"]
        about = {"long_name": "land mask", "standard_name": "land_binary_mask"}
        place = xr.zeros_like(content.place, "int8")
        writer.declare(MASK, place.assign_attrs(about, source=source))
        writer.declare(STATIC, content.static)
        for field in content.fields.values():
            writer.declare(field.variable.group, field.data)

    # Days at a time

    def _needs_scratch(self, field: Field) -> bool:
        """Whether a part of the source would be read for many regions."""
        shared = 1.0
        for dim, side in self._sides.items():
            chunk, size = max(field.data.chunksizes[dim]), field.data.sizes[dim]
            shared *= max(min(chunk, size) / min(side, size), 1)
        return shared > 2

    def _slabs(self, field: Field) -> list[slice]:
        """Days that fit memory, of whole chunks of the source."""
        days, cells = field.data.sizes["time"], self._content.place.size
        fitting = self._memory * DAYS_SHARE / (VALUE * cells)
        chunk = max(field.data.chunksizes["time"])
        length = max(int(fitting // chunk) * chunk, 1)
        return [slice(n, min(n + length, days)) for n in range(0, days, length)]

    def _into_scratch(self, field: Field, slab: slice) -> None:
        key = ("scratch", field.variable.name, slab)
        if self._writer.holds(key):
            return
        values = self._compute(field, field.data.isel(time=slab))
        if slab.start == 0:
            zarr.create_array(
                self._scratch(field),
                shape=field.data.shape,
                chunks=(slab.stop, *(self._side(dim) for dim in self._sides)),
                dtype="float32",
                overwrite=True,
            )
        zarr.open_array(self._scratch(field), mode="r+")[slab] = values
        self._writer.finish(key)

    def _scratch(self, field: Field) -> str:
        return str(self._writer.scratch / field.variable.group)

    def _side(self, dim: str) -> int:
        return min(self._sides[dim], self._content.place.sizes[dim])

    # Cells at a time

    def _into_store(self, region: Region) -> None:
        if self._notes(region).exists():
            return
        content, writer = self._content, self._writer
        forcing = {name: self._read(content.fields[name], region) for name in FORCING}
        negative = without_rounding(forcing["precipitation"])
        static = content.static.values[(slice(None), *region)].copy()
        land, lacking = self._land(region, forcing, static)
        for name, values in forcing.items():
            self._refuse_unusable(content.fields[name], values, land, region)
        names = list(content.static["variable"].values)
        for name, mean in content.means.items():
            values = forcing[name][:, land].mean(axis=0, dtype="float64")
            static[names.index(mean)][land] = values

        extents = {}
        for name, field in content.fields.items():
            values = forcing.pop(name) if name in forcing else self._read(field, region)
            group = field.variable.group
            extents[group] = Extent.of(values[:, land])
            if land.any():
                values[:, ~land] = np.nan
                writer.put(group, values, (slice(None), *region))
        for name, values in zip(names, static, strict=True):
            extents[f"{STATIC}/{name}"] = Extent.of(values[land])
        writer.put(STATIC, static, (slice(None), *region))
        writer.put(MASK, land.astype("int8"), region)
        tally = Tally(int(land.sum()), lacking, negative, extents)
        self._notes(region).write_text(json.dumps(tally.as_json()), encoding="utf-8")

    def _read(self, field: Field, region: Region) -> np.ndarray:
        """All days of a region; may be written to."""
        if self._needs_scratch(field):
            scratch = zarr.open_array(self._scratch(field), mode="r")
            return scratch[(slice(None), *region)]
        return self._compute(field, field.data[(slice(None), *region)])

    def _compute(self, field: Field, data: xr.DataArray) -> np.ndarray:
        try:
            with quietly():
                values = data.data.compute(scheduler="threads", num_workers=THREADS)
        except MemoryError:
            raise
        except Exception as error:  # readers raise what they like
            raise self._source.unreadable(field.names, error) from error
        return values if values.flags.writeable else values.copy()

    def _land(
        self, region: Region, forcing: Mapping[str, np.ndarray], static: np.ndarray
    ) -> tuple[np.ndarray, dict[str, int]]:
        """The cells of the mask that have data, and how many lack what."""
        missing = [np.isnan(values).all(axis=0) for values in forcing.values()]
        lacking = {"forcing": np.logical_and.reduce(missing)}
        for name, values in zip(
            self._content.static["variable"].values, static, strict=True
        ):
            if name not in self._content.means.values():
                lacking[str(name)] = np.isnan(values)
        land = np.ones(missing[0].shape, bool)
        if self._content.mask is not None:
            land = self._content.mask.values[region].copy()
        counts = {}
        for what, cells in lacking.items():
            counts[what] = int((land & cells).sum())
            land &= ~cells
        return land, counts

    def _refuse_unusable(
        self, field: Field, values: np.ndarray, land: np.ndarray, region: Region
    ) -> None:
        """Forcing has no gaps, and no values that no weather has."""
        variable, about = field.variable, field.data.attrs
        low, high = variable.bounds
        what = f"{variable.label} ({about['source']})"
        least = "" if len(self._regions) == 1 else "at least "
        missing = np.isnan(values) & land
        if missing.any():
            raise UserError(
                f"{what} is missing at {self._first(missing, field, region)}, "
                f"first of {least}{int(missing.sum())} missing values. A cell has all "
                "forcing on every day, or none on any: fill the gaps, or take the cell "
                "out of the mask."
            )
        outside = ((values < low) | (values > high)) & land
        if outside.any():
            raise UserError(
                f"{what} has to lie between {low:g} and {high:g}; found "
                f"{values[outside][0]:g} at {self._first(outside, field, region)}, "
                f"first of {least}{int(outside.sum())} values. Are its units "
                f"'{about['source_units']}' right?"
            )

    def _first(self, wrong: np.ndarray, field: Field, region: Region) -> str:
        """Cell and date of the first wrong value, in words."""
        day, *cell = np.argwhere(wrong)[0]
        place = self._content.place[region][tuple(cell)]
        name = f"{place['name'].item()}, " if "name" in place.coords else ""
        date = field.data.indexes["time"][day]
        return f"{name}lat {place.lat:g}, lon {place.lon:g} on {date:%Y-%m-%d}"

    # What an interrupted call has found

    def _notes(self, region: Region):
        start = "-".join(str(part.start) for part in region)
        return self._writer.scratch / f"region-{start}.json"

    def _noted(self, region: Region) -> Tally:
        text = self._notes(region).read_text(encoding="utf-8")
        return Tally.from_json(json.loads(text))


def sides(
    sizes: Mapping[str, int], tile: Mapping[str, int], cells: float
) -> dict[str, int]:
    """Sides of regions of at most so many cells, or else of one tile.

    They are wide rather than high, as the rows of a map lie one after the other.

    Args:
        sizes: Cells along each dimension of space.
        tile: Those of a tile.
        cells: Of a region.
    """
    found, fitting = dict(tile), cells / math.prod(tile.values())
    for dim in reversed(tile):
        across = math.ceil(sizes[dim] / tile[dim])
        count = max(min(int(fitting), across), 1)
        found[dim] = tile[dim] * count
        fitting /= count
    return found


def without_rounding(precipitation: np.ndarray) -> Extent:
    """Sets to zero, in place, what packing has left a little negative.

    Args:
        precipitation: May be written to [mm d-1].
    """
    negative = (precipitation < 0) & (precipitation >= -ROUNDING)
    found = Extent.of(precipitation[negative])
    precipitation[negative] = 0
    return found
