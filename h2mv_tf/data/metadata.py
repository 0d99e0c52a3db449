"""Metadata: what a Zarr store says of its arrays, judged before any of it is read.

A store may be of anybody. Some codecs execute what they decode, and a few bytes of
metadata can claim arrays that no memory holds.
"""

import contextlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numcodecs
import numpy as np
import psutil
import xarray as xr

from h2mv_tf import archive
from h2mv_tf.documents import parsed_json
from h2mv_tf.errors import UserError, quoted, words

# Of an array of format 2, of anything of format 3, of all of a store of format 2.
ARRAY, EITHER, CONSOLIDATED = ".zarray", "zarr.json", ".zmetadata"
ATTRIBUTES = ("attributes", ".zattrs")
METADATA = (ARRAY, EITHER, CONSOLIDATED, ".zattrs")
# Of a chunk of Blosc: bytes of its header, the last of which tell how long it is.
BLOSC_HEADER, BLOSC_LENGTH = 16, 12
TEXT_COUNT = 4  # bytes of a chunk of text that tell how many words it has
EXECUTING = ("pickle",)  # codecs whose data are programs
LARGEST_FILE = 50_000_000  # bytes of metadata
MOST_CHUNKS = 100_000  # of an array that is read at once
DEEPEST = 3  # groups within groups
SHARE = 0.5  # of the memory that one array may take
LARGEST_SIZE = 2**63
VALUE = 8  # bytes of a value, at least, once it is decoded


class Declared(NamedTuple):
    """What an array says of itself, as far as it can be understood."""

    name: str  # within the store
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    value: float  # bytes
    text: bool  # of any length
    packing: tuple[Mapping, ...]  # what is done to the bytes of a chunk, in order


@contextlib.contextmanager
def readable(what: str) -> Iterator[None]:
    """Tells in one line what goes wrong while others' data are read.

    Args:
        what: What is read, as it begins a sentence.

    Raises:
        UserError: In place of whatever a reader has raised.
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{what} does not fit the memory of this machine.") from error
    except Exception as error:  # Zarr, xarray and their codecs raise what they like
        raise UserError(
            f"{what} cannot be read: {words(error)}. It may be damaged: copy it again, "
            "or make it anew."
        ) from error


def refuse_unsafe(store: Path, *, whole: Collection[str] = ()) -> None:
    """Refuses a Zarr store that would execute something, or that no memory holds.

    Args:
        store: The folder.
        whole: Arrays that are read at once, by their name in the store; others of one
            dimension are, too.

    Raises:
        UserError: The metadata are no JSON, name a codec that executes what it
            decodes, or claim arrays or chunks that are too large.
    """
    most = memory()
    for array in _arrays(store):
        where = f"Array '{quoted(array.name)}' of store '{store}'"
        at_once = array.name in whole or len(array.shape) < 2
        sizes = {"chunks": _product(array.chunk) * array.value}
        if at_once:
            sizes["values"] = _product(array.shape) * max(array.value, VALUE)
        for what, size in sizes.items():
            if size > most:
                raise UserError(
                    f"{where} tells of {what} of {size / 1e9:.3g} GB, and there is "
                    f"memory for {most / 1e9:.3g} GB. It is damaged, or for a larger "
                    "machine."
                )
        if at_once:
            parts = zip(array.shape, array.chunk, strict=False)
            count = _product(-(-size // max(side, 1)) for size, side in parts)
            if count > MOST_CHUNKS:
                raise UserError(
                    f"{where} is in {count:.3g} chunks, and it is read at once; "
                    f"expected {MOST_CHUNKS} at most. Make the store anew."
                )
            _refuse_damaged(store, array, where)


def open_lazily(path: Path, **options) -> xr.Dataset:
    """Opens a Zarr store or NetCDF file of others; values are read when asked for.

    Args:
        path: Where it is.
        **options: Of xarray.

    Raises:
        UserError: It is an archive, or a store that `refuse_unsafe` refuses.
        Exception: It cannot be read; the readers have a dozen kinds.
    """
    archive.refuse(path)
    if path.is_dir():
        refuse_unsafe(path)
        return xr.open_zarr(path, consolidated=False, **options)
    return xr.open_dataset(path, **options)


def memory() -> float:
    """Bytes that one array may take."""
    return SHARE * psutil.virtual_memory().total


def _arrays(store: Path) -> Iterator[Declared]:
    """The arrays of a store, without looking at the files of their chunks."""
    groups = [(store, 0)]
    while groups:
        folder, depth = groups.pop()
        content = _metadata(folder)
        if content is not None:
            yield _declared(str(folder.relative_to(store)), content)
        elif depth <= DEEPEST:
            inner = sorted(path for path in folder.iterdir() if path.is_dir())
            groups += [(path, depth + 1) for path in inner]


def _metadata(folder: Path) -> Mapping | None:
    """The metadata of an array; None where a folder is none.

    Raises:
        UserError: They are no JSON, or name a codec that executes what it decodes.
    """
    found = None
    for name in (ARRAY, EITHER, CONSOLIDATED):
        file = folder / name
        try:
            size = file.stat().st_size
        except FileNotFoundError:
            continue
        if not file.is_file() or size > LARGEST_FILE:
            raise UserError(
                f"'{file}' is no file of at most {LARGEST_FILE / 1e6:g} MB, as "
                "metadata are. Copy the store again."
            )
        try:
            content = parsed_json(file.read_bytes().decode())
        except ValueError as error:
            raise UserError(
                f"'{file}' is no JSON: {words(error)}. Copy the store again, or make "
                "it anew."
            ) from error
        if not isinstance(content, Mapping):
            raise UserError(f"'{file}' is no metadata of Zarr. Copy the store again.")
        _refuse_executing(file, content)
        if name == ARRAY or content.get("node_type") == "array":
            found = content
    return found


def _refuse_executing(file: Path, content: object) -> None:
    """Refuses a codec whose data are programs, wherever it is named."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key.endswith(ATTRIBUTES):
                continue
            if isinstance(value, str) and any(
                word in value.lower() for word in EXECUTING
            ):
                raise UserError(
                    f"'{file}' names the codec '{quoted(value, 30)}', which executes "
                    "what it reads. Such stores are not opened: ask for one without."
                )
            _refuse_executing(file, value)
    elif isinstance(content, list):
        for value in content:
            _refuse_executing(file, value)


def _refuse_damaged(store: Path, array: Declared, where: str) -> None:
    """Refuses chunks for which numcodecs would reach beyond their data.

    Of a chunk of Blosc that is cut it may copy what lies behind it in memory, and for
    text it makes room for as many words as a chunk tells, before it reads any.
    """
    blosc = bool(array.packing) and array.packing[-1].get("id") == "blosc"
    if not (blosc or array.text):
        return
    folder = store / array.name
    for file in folder.rglob("*"):
        if file.name in METADATA or not file.is_file():
            continue
        content = file.read_bytes()
        told = int.from_bytes(content[BLOSC_LENGTH:BLOSC_HEADER], "little")
        damaged = blosc and told != len(content)
        if array.text and not damaged:
            damaged = _words(array, content) > _product(array.chunk)
        if damaged:
            raise UserError(
                f"{where}: the chunk '{file.relative_to(folder)}' is truncated or "
                "damaged. Copy the store again, or make it anew."
            )


def _words(array: Declared, chunk: bytes) -> int:
    """How many words a chunk of text tells of; 0 where only its reader knows."""
    try:
        for codec in reversed(array.packing):
            chunk = numcodecs.get_codec(dict(codec)).decode(chunk)
        return int.from_bytes(bytes(memoryview(chunk)[:TEXT_COUNT]), "little")
    except Exception:  # of a codec that is not known, or damage, which it tells of
        return 0


def _declared(name: str, content: Mapping) -> Declared:
    grid = content.get("chunk_grid")
    chunks = content.get("chunks")
    if isinstance(grid, Mapping) and isinstance(grid.get("configuration"), Mapping):
        chunks = grid["configuration"].get("chunk_shape")
    kind = content.get("dtype", content.get("data_type"))
    codecs = _codecs(content)
    return Declared(
        name=name,
        shape=_sizes(content.get("shape")),
        chunk=_sizes(chunks),
        value=_bytes(kind),
        text=bool(codecs) and str(codecs[0]["id"]).startswith("vlen"),
        packing=tuple(c for c in codecs if not str(c["id"]).startswith("vlen")),
    )


def _codecs(content: Mapping) -> list[Mapping]:
    """What is done to the values of a chunk, in order, as numcodecs names it."""
    steps = content.get("codecs")
    if steps is None:  # format 2
        filters = content.get("filters")
        steps = [
            *(filters if isinstance(filters, list) else []),
            content.get("compressor"),
        ]
        return [step for step in steps if isinstance(step, Mapping) and "id" in step]
    steps = steps if isinstance(steps, list) else []
    named = [step.get("name") if isinstance(step, Mapping) else step for step in steps]
    # How it was packed, the packed data tell.
    return [{"id": str(name)} for name in named]


def _sizes(numbers: object) -> tuple[int, ...]:
    """The sizes along dimensions; what is no size, Zarr refuses."""
    if isinstance(numbers, int):
        numbers = [numbers]
    numbers = numbers if isinstance(numbers, list) else []
    return tuple(n for n in numbers if isinstance(n, int) and n >= 0)


def _product(sizes: Iterable[int]) -> float:
    """Their product, however large they are."""
    return math.prod(float(min(size, LARGEST_SIZE)) for size in sizes)


def _bytes(kind: object) -> float:
    """Bytes of a value; of a kind that is not known those of a number."""
    if isinstance(kind, Mapping):  # of format 3, with a length
        configuration = kind.get("configuration")
        lengths = configuration.values() if isinstance(configuration, Mapping) else ()
        return _product([max((n for n in lengths if isinstance(n, int)), default=1)])
    try:
        return max(np.dtype(str(kind)).itemsize, 1)
    except (TypeError, ValueError, SyntaxError):
        return VALUE
