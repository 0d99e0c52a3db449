"""Writing a store: block by block, under a lock, there only when it is whole.

    with writing("globe.zarr", plan={"source": "era5.nc"}) as writer:
        writer.declare("rn", template)
        for block in blocks(template):
            if not writer.holds(("rn", *block)):
                writer.put("rn", values, block)

The store grows in a hidden folder beside its name. Where that is interrupted, a
second call with the same plan goes on from the last block.
"""

import contextlib
import itertools
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dask.array
import filelock
import numcodecs
import numpy as np
import xarray as xr
import zarr

from h2mv_tf.errors import UserError

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1_000_000  # all days of a tile of neighbouring cells
SPACE = ("lat", "lon", "cell")
# Within the hidden folder.
STORE, PLAN, JOURNAL, LOCK = "store", "plan.json", "journal.txt", "lock"
SCRATCH = "scratch"
CHUNKS = "chunks_written"  # attribute of a store: how many files each array has


class Writer:
    """Writes the arrays of a store; made by `writing`.

    Args:
        folder: The hidden folder.
        tile: Cells of a chunk along each dimension of space.
        zarr_format: 2 or 3.
    """

    def __init__(self, folder: Path, tile: Mapping[str, int], zarr_format: int):
        self.tile, self.zarr_format = tile, zarr_format
        self.scratch = folder / SCRATCH  # gone when the store is whole
        self._store, self._journal = folder / STORE, folder / JOURNAL
        self._done = set(self._journal.read_text(encoding="utf-8").splitlines())

    def declare(self, group: str, template: xr.DataArray | xr.Dataset) -> None:
        """Makes the arrays of a group without values: missing, or zero for integers.

        Args:
            group: Group of the store.
            template: The array `data`, or several with names of their own: dims,
                coordinates, types and attributes; their values are not looked at.
        """
        if self.holds(("declared", group)):
            return
        if isinstance(template, xr.DataArray):
            template = template.to_dataset(name="data")
        empty, encoding = {}, {}
        for name, data in template.data_vars.items():
            values = dask.array.zeros(data.shape, dtype=data.dtype, chunks=-1)
            empty[name] = storable(data.copy(data=values))
            encoding[name] = {"chunks": self.chunks(data), **self._compression()}
            if data.dtype.kind == "f":
                encoding[name]["_FillValue"] = data.dtype.type(np.nan)
        xr.Dataset(empty, attrs=template.attrs).to_zarr(
            self._store,
            group=group,
            mode="a",
            zarr_format=self.zarr_format,
            consolidated=False,
            compute=False,
            encoding=encoding,
        )
        self._note(("declared", group))

    def put(
        self,
        group: str,
        values: np.ndarray,
        region: Sequence[slice] = (),
        name: str = "data",
    ) -> None:
        """Writes values into an array.

        Args:
            group: Group of the store.
            values: Of the region's shape.
            region: Where to, a slice for each dimension; everywhere by default.
                Two calls must not meet in one chunk.
            name: Name of the array in its group.
        """
        array = zarr.open_array(self._store / group / name, mode="r+")
        array[tuple(region) or ...] = values

    def holds(self, key: Sequence) -> bool:
        """Whether the part of this key was written, by this call or one before."""
        return _line(key) in self._done

    def finish(self, key: Sequence) -> None:
        """Notes that the part of this key is written, so that it is not redone."""
        self._note(key)

    def chunks(self, template: xr.DataArray) -> tuple[int, ...]:
        """The chunks that an array of the store gets: its whole series of a tile."""
        return tuple(
            min(size, self.tile.get(dim, size)) for dim, size in template.sizes.items()
        )

    def close(self, attributes: Mapping[str, object]) -> None:
        """Ends the writing.

        Args:
            attributes: Of the whole store.
        """
        root = zarr.open_group(self._store, mode="r+")
        chunks = {
            name: array.nchunks_initialized
            for name, array in root.members(max_depth=None)
            if isinstance(array, zarr.Array)
        }
        root.attrs.update({**attributes, CHUNKS: chunks})

    def _note(self, key: Sequence) -> None:
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(_line(key) + "\n")
        self._done.add(_line(key))

    def _compression(self) -> dict:
        # Weather compresses little: what counts is how fast it is read.
        if self.zarr_format == 2:
            return {"compressors": numcodecs.Blosc("lz4", shuffle=1)}
        blosc = zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle")
        return {"compressors": (blosc, zarr.codecs.Crc32cCodec())}


@contextlib.contextmanager
def writing(
    path: str | Path,
    *,
    tile: Mapping[str, int],
    plan: Mapping[str, object] | None = None,
    attributes: Mapping[str, object] | None = None,
    zarr_format: int = 3,
) -> Iterator[Writer]:
    """Writes a store; it appears under its name when the block ends without error.

    Args:
        path: Where to; must not exist.
        tile: Cells of a chunk along each dimension of space, of `tile_of`.
        plan: What is written, as JSON: an interrupted call is continued by one of
            the same plan. Without a plan nothing is left behind.
        attributes: Of the whole store, as its source.
        zarr_format: 2 or 3.

    Raises:
        UserError: The path exists, is being written, or cannot be written.
    """
    path = Path(path)
    refuse_existing(path)
    folder = path.with_name(f".{path.name}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    keep = False
    try:
        _begin(folder, plan, zarr_format)
        keep = plan is not None
        writer = Writer(folder, tile, zarr_format)
        yield writer
        writer.close({"Conventions": "CF-1.11", **(attributes or {})})
        refuse_existing(path)
        (folder / STORE).rename(path)
        keep = False
    except OSError as error:
        hint = f" Call again to continue, or remove '{folder}'." if keep else ""
        raise _unwritable(path, error, hint) from error
    except Exception:  # but not an interruption
        keep = False
        raise
    finally:
        lock.release()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Raises a UserError where the path exists."""
    if path.exists():
        raise UserError(f"'{path}' exists. Remove it, or choose another name.")


def write_store(
    path: str | Path,
    fields: Mapping[str, xr.DataArray],
    *,
    tile: Mapping[str, int] | None = None,
    attributes: Mapping[str, object] | None = None,
    zarr_format: int = 3,
) -> None:
    """Writes a store that fits memory.

    Args:
        path: Where to; must not exist.
        fields: Array of each group, of the dims that `Store` reads.
        tile: Cells of a chunk along each dimension of space; by default of 1 MB.
        attributes: Of the whole store, as its source.
        zarr_format: 2 or 3.

    Raises:
        UserError: The path exists, or cannot be written.
    """
    days = max((field.sizes.get("time", 1) for field in fields.values()), default=1)
    spatial = {dim for field in fields.values() for dim in field.dims if dim in SPACE}
    with writing(
        path,
        tile=tile or tile_of(days, spatial),
        attributes=attributes,
        zarr_format=zarr_format,
    ) as writer:
        for group, field in fields.items():
            writer.declare(group, field)
            writer.put(group, field.values)


def tile_of(days: int, dims: Sequence[str]) -> dict[str, int]:
    """Cells of a chunk along each dimension of space: CHUNK_BYTES of daily series.

    All arrays of a store share it, so that a tile's series are read together.

    Args:
        days: Length of the daily series.
        dims: Dimensions of space, `lat` and `lon` or `cell`.
    """
    cells = max(CHUNK_BYTES / (days * np.dtype("float32").itemsize), 1)
    return {dim: max(int(cells ** (1 / len(dims))), 1) for dim in dims}


def blocks(sizes: Mapping[str, int], tile: Mapping[str, int]) -> list[tuple[slice]]:
    """Regions of space that cover a store without meeting in a chunk, row by row.

    Args:
        sizes: Cells along each dimension of space.
        tile: Cells of a block along each, a multiple of the chunk's.
    """
    sides = (
        [slice(n, min(n + tile[dim], size)) for n in range(0, size, tile[dim])]
        for dim, size in sizes.items()
    )
    return list(itertools.product(*sides))


def storable(field: xr.DataArray) -> xr.DataArray:
    """The array without its source's encoding, and with text that Zarr 3 can hold."""
    field = field.drop_encoding()
    for name, coordinate in field.coords.items():
        if coordinate.dtype.kind in "UT":  # neither is in the specification
            text = coordinate.values.astype(object)
            text = (coordinate.dims, text, coordinate.attrs)
            field = field.assign_coords({name: text})
    return field


def _locked(folder: Path, path: Path) -> filelock.FileLock:
    """Held by one process at a time, and free as soon as that one is gone."""
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise UserError(
            f"'{path}' is being written by another process. Wait until it is there, or "
            "choose another name."
        ) from error
    return lock


def _begin(folder: Path, plan: Mapping | None, zarr_format: int) -> None:
    """Continues what a call of the same plan has left, or starts anew."""
    wanted = json.dumps({"plan": plan, "zarr_format": zarr_format}, sort_keys=True)
    written = folder / PLAN
    if plan is not None and written.exists():
        if written.read_text(encoding="utf-8") == wanted:
            return
        logger.info("'%s' was begun with other sources or options: anew.", folder)
    for part in (STORE, SCRATCH):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / SCRATCH).mkdir()
    zarr.open_group(folder / STORE, mode="w", zarr_format=zarr_format)
    (folder / JOURNAL).write_text("", encoding="utf-8")
    written.write_text(wanted, encoding="utf-8")


def _unwritable(path: Path, error: OSError, hint: str = "") -> UserError:
    return UserError(f"Cannot write '{path}': {error.strerror or error}.{hint}")


def _line(key: Sequence) -> str:
    return json.dumps([str(part) for part in key])
