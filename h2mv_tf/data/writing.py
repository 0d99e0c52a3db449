"""Writing a store: block by block, under a lock, there only when it is whole.

    with writing("globe.zarr", plan={"source": "era5.nc"}) as writer:
        writer.declare("rn", template)
        for block in blocks(template):
            if not writer.holds(("rn", *block)):
                writer.put("rn", values, block)

The store grows in a hidden folder beside its name. Where that is interrupted, a
second call with the same plan goes on from the last block. Several processes write one
store as its shards: each notes what it has done, and the last one ends the writing.
"""

import contextlib
import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import dask.array
import numcodecs
import numpy as np
import tensorstore
import xarray as xr
import zarr

from h2mv_tf.errors import UnreadableError, UserError, told_by_the_system
from h2mv_tf.files import (
    UnwritableError,
    busy,
    only_one,
    partial_of,
    refuse_existing,
)
from h2mv_tf.locks import FOREVER, held

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1_000_000  # all days of a tile of neighbouring cells
SPACE = ("lat", "lon", "cell")
# Within the hidden folder.
STORE, PLAN, JOURNALS = "store", "plan.json", "journals"
SCRATCH, FINISHED = "scratch", "finished"
PATIENCE = 600  # seconds that a shard waits for another to begin or to end
CONVENTIONS = "CF-1.11"
CHUNKS = "chunks_written"  # attribute of a store: how many files each array has


class Shard(NamedTuple):
    """One of the processes that write a store together."""

    index: int  # from 1
    count: int


ALONE = Shard(1, 1)


class Arrays:
    """The arrays of a store that is being written, for whoever has values for them.

    Args:
        store: Where the store grows.
    """

    def __init__(self, store: Path):
        self.store = store
        self._opened: dict[Path, tensorstore.TensorStore] = {}

    def begin(
        self,
        group: str,
        values: np.ndarray,
        region: Sequence[slice] = (),
        name: str = "data",
        dims: Sequence[int] | None = None,
    ) -> Callable[[], None]:
        """Begins to write values, which may not change until it is done.

        Args:
            group: Group of the store.
            values: Of the region's shape, but for `dims`.
            region: Where to, a slice for each dimension; everywhere by default.
                Two calls must not meet in one chunk.
            name: Name of the array in its group.
            dims: Which of the array's dimensions each of the values' is.

        Returns:
            Waits until they are written, and raises an OSError where they cannot be.
        """
        path = self.store / group / name
        if path not in self._opened:
            self._opened[path] = open_array(path, write=True)
        target = self._opened[path][tuple(region) or ...]
        if dims is not None:
            target = target.transpose(list(dims))
        written = target.write(np.asarray(values))

        def wait() -> None:
            try:
                written.result()
            except ValueError as error:  # the library's kind of all that goes wrong
                if (said := told_by_the_system(error)) is None:
                    raise
                raise OSError(said) from error

        return wait


class Writer:
    """Writes the arrays of a store; made by `writing`.

    Args:
        path: Of the store when it is whole.
        tile: Cells of a chunk along each dimension of space.
        zarr_format: 2 or 3.
        shard: Which of the processes that write it together this is.
    """

    def __init__(
        self, path: Path, tile: Mapping[str, int], zarr_format: int, shard: Shard
    ):
        self.tile, self.zarr_format, self._path = tile, zarr_format, path
        folder = partial_of(path)
        self.scratch = folder / SCRATCH  # gone when the store is whole
        self.store = folder / STORE
        self._journals = folder / JOURNALS
        self._journal = self._journals / f"{shard.index}.txt"
        self._done = self._noted()
        self.arrays = Arrays(self.store)

    def declare(self, group: str, template: xr.DataArray | xr.Dataset) -> None:
        """Makes the arrays of a group without values: missing, or zero for integers.

        Args:
            group: Group of the store.
            template: The array `data`, or several with names of their own: dims,
                coordinates, types and attributes; their values are not looked at.
        """
        with _together(self._path):
            if not self.holds_all([("declared", group)]):
                self._declare(group, template)
                self._note(("declared", group))

    def _declare(self, group: str, template: xr.DataArray | xr.Dataset) -> None:
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
            self.store,
            group=group or None,
            mode="a",
            zarr_format=self.zarr_format,
            consolidated=False,
            compute=False,
            encoding=encoding,
        )

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
        self.arrays.begin(group, values, region, name)()

    def holds(self, key: Sequence) -> bool:
        """Whether the part of this key was written, by this call or one before."""
        return _line(key) in self._done

    def finish(self, key: Sequence) -> None:
        """Notes that the part of this key is written, so that it is not redone."""
        self._note(key)

    def holds_all(self, keys: Sequence[Sequence]) -> bool:
        """Whether all these parts are written, by whichever shard."""
        self._done |= self._noted()
        return all(map(self.holds, keys))

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
        root = zarr.open_group(self.store, mode="r+")
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

    def _noted(self) -> set[str]:
        """What all processes have noted."""
        texts = (file.read_text(encoding="utf-8") for file in self._journals.iterdir())
        return {line for text in texts for line in text.splitlines()}

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
    attributes: Mapping[str, object] | Callable[[Path], Mapping] | None = None,
    zarr_format: int = 3,
    shard: Shard = ALONE,
    parts: Sequence[Sequence] = (),
    finish: Callable[[Path, Path], None] | None = None,
) -> Iterator[Writer]:
    """Writes a store; it appears under its name when the block ends without error.

    Args:
        path: Where to; must not exist.
        tile: Cells of a chunk along each dimension of space, of `tile_of`.
        plan: What is written, as JSON: an interrupted call is continued by one of
            the same plan. Without a plan nothing is left behind.
        attributes: Of the whole store, as its source; or what finds them in it.
        zarr_format: 2 or 3.
        shard: Which of the processes that write it together this is; they share a
            plan.
        parts: Keys of all parts: without one of them the store is not whole, and
            waits for the other shards.
        finish: Makes another file of the whole store, given both paths.

    Raises:
        UserError: The path exists, is being written, or cannot be written.
    """
    path = Path(path)
    refuse_existing(path)
    folder = partial_of(path)
    keep = False
    with contextlib.ExitStack() as stack:
        try:
            with _together(path):
                refuse_existing(path)  # another process may have been faster
                folder.mkdir(exist_ok=True)
                stack.enter_context(_own_part(path, shard))
        except OSError as error:
            raise UnwritableError.of(path, error) from error
        try:
            with _together(path):
                _begin(path, plan, zarr_format, shard)
            keep = plan is not None
            writer = Writer(path, tile, zarr_format, shard)
            yield writer
            with only_one(path, patience=FOREVER):  # another shard may just end it
                if writer.holds_all(parts):
                    if callable(attributes):
                        attributes = attributes(folder / STORE)
                    writer.close({"Conventions": CONVENTIONS, **(attributes or {})})
                    refuse_existing(path)
                    whole = folder / STORE
                    if finish is not None:
                        whole = folder / FINISHED
                        finish(folder / STORE, whole)
                    whole.rename(path)
                    keep = False
        except OSError as error:
            if shard.count > 1 and path.exists():  # another shard was the last
                return
            hint = f" Call again to continue, or remove '{folder}'." if keep else ""
            raise UnwritableError.of(path, error, hint) from error
        except (UnwritableError, UnreadableError):  # as of a mount that has gone
            raise
        except UserError:  # the same call would end the same way
            keep = shard.count > 1
            raise
        finally:
            if not keep:
                _remove(path)


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


def open_array(path: Path, *, write: bool = False) -> tensorstore.TensorStore:
    """An array of a store by TensorStore, an order of magnitude faster than Zarr's own.

    Args:
        path: The array.
        write: Whether it will be written.

    Raises:
        ValueError: It has a codec that TensorStore does not know.
    """
    driver = "zarr3" if (path / "zarr.json").exists() else "zarr"
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}}
    return tensorstore.open(spec, read=True, write=write, open=True).result()


def _together(path: Path) -> contextlib.AbstractContextManager[None]:
    """Holds back the other processes, in what they must not do at the same time."""
    return only_one(path, patience=PATIENCE)


def _remove(path: Path) -> None:
    """Removes what was begun."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a disk may have no room for the lock
            stack.enter_context(_together(path))
        shutil.rmtree(partial_of(path), ignore_errors=True)


@contextlib.contextmanager
def _own_part(path: Path, shard: Shard) -> Iterator[None]:
    """Keeps others from what this process writes: its shard, or alone the whole.

    Raises:
        UserError: Another process writes it.
    """
    folder = partial_of(path)
    with held(folder / f"{shard.index}of{shard.count}.lock", busy(path)):
        for file in folder.glob("*of*.lock"):
            count = int(file.stem.partition("of")[2])
            if count != shard.count:
                with held(file, busy(path)):
                    pass  # its holder is gone
        yield


def _begin(path: Path, plan: Mapping | None, zarr_format: int, shard: Shard) -> None:
    """Continues what a call of the same plan has left, or starts anew."""
    folder = partial_of(path)
    wanted = json.dumps({"plan": plan, "zarr_format": zarr_format}, sort_keys=True)
    written = folder / PLAN
    if plan is not None and written.exists():
        if written.read_text(encoding="utf-8") == wanted:
            return
        if shard.count > 1:
            raise UserError(
                f"'{path}' was begun with other sources or options. Give all shards "
                f"the same ones, or remove '{folder}'."
            )
        logger.info("'%s' was begun with other sources or options: anew.", folder)
    for part in (STORE, SCRATCH, JOURNALS):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / SCRATCH).mkdir()
    (folder / JOURNALS).mkdir()
    zarr.open_group(folder / STORE, mode="w", zarr_format=zarr_format)
    written.write_text(wanted, encoding="utf-8")


def _line(key: Sequence) -> str:
    return json.dumps([str(part) for part in key])
