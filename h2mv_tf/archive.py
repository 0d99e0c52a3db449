"""Archives of others, unpacked so that nothing is written but what they hold, here.

    unpack("globe.zarr.zip", "data/globe.zarr")

This package reads folders, not archives. What is in one is judged by its list before
anything is written: names that climb out, links, devices, the same name twice, and
sizes that no store has.
"""

import contextlib
import functools
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from h2mv_tf.errors import UserError, quoted, words
from h2mv_tf.files import made, refuse_existing

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LARGEST = 200.0  # times the size of the archive, without being asked for
SMALL = 100_000_000  # bytes that are unpacked however little they take in the archive
MOST_FILES = 5_000_000
PIECE = 1 << 20  # bytes
ENCRYPTED = 0x1  # flag of an entry of a ZIP archive
# On some system each of these leads elsewhere, or to a device.
FORBIDDEN = frozenset('\\:\0<>"|?*')


class Entry(NamedTuple):
    """A file in an archive."""

    name: PurePosixPath
    size: int  # bytes, once it is unpacked
    open: Callable[[], BinaryIO]


def is_archive(path: Path) -> bool:
    """Whether a path is a file whose name ends as those of archives do."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def refuse(path: Path) -> None:
    """Raises a UserError where the path is an archive."""
    if is_archive(path):
        raise UserError(
            f"'{path}' is an archive, which is not read as it is. Unpack it with: "
            f"python -m h2mv_tf unpack {path} FOLDER"
        )


def unpack(archive: str | Path, folder: str | Path, *, largest: float = LARGEST) -> int:
    """Unpacks an archive into a new folder, which is there only when all is.

    A folder that holds all of the archive is left out of the names.

    Args:
        archive: Of ZIP or tar, also compressed.
        folder: To make; must not exist.
        largest: How many times the size of the archive its files may have.

    Returns:
        How many files it holds.

    Raises:
        UserError: It cannot be read, is damaged, encrypted or larger than it may be;
            holds something else than files and folders, or names that lead
            elsewhere; the folder exists or cannot be written. Nothing is left.
    """
    archive, folder = Path(archive), Path(folder)
    refuse_existing(folder)
    with _opened(archive, largest) as entries:
        _refuse_names(archive, entries)
        _refuse_no_room(archive, folder, entries)
        common = _common(entries)
        with made(folder) as partial:
            for entry in entries:
                file = partial.joinpath(*entry.name.parts[common:])
                file.parent.mkdir(parents=True, exist_ok=True)
                _copy(archive, entry, file)
    return len(entries)


@contextlib.contextmanager
def _opened(archive: Path, largest: float) -> Iterator[list[Entry]]:
    """The files of an archive, while it is open."""
    if not archive.is_file():
        raise UserError(f"There is no archive '{archive}'.")
    with contextlib.ExitStack() as stack:
        found: list[Entry] = []
        size, packed = 0, archive.stat().st_size
        try:
            if zipfile.is_zipfile(archive):
                entries = _of_zip(
                    archive, stack.enter_context(zipfile.ZipFile(archive))
                )
            elif tarfile.is_tarfile(archive):
                entries = _of_tar(archive, stack.enter_context(tarfile.open(archive)))
            else:
                raise UserError(
                    f"'{archive}' is no archive. Expected a file of ZIP or tar."
                )
            # A list may itself be long: what it comes to is watched on the way.
            for entry in entries:
                found.append(entry)
                size += entry.size
                if size > max(largest * packed, SMALL):
                    raise UserError(
                        f"Archive '{archive}' of {packed / 1e6:,.2f} MB holds "
                        f"{size / 1e6:,.0f} MB or more, {size / packed:,.0f} times as "
                        f"much; expected {largest:g} times at most. Where you trust "
                        "it, give a larger number in --largest."
                    )
                if len(found) > MOST_FILES:
                    raise UserError(
                        f"Archive '{archive}' holds more than {MOST_FILES} files, "
                        "which no store does."
                    )
        except UserError:
            raise
        except Exception as error:  # of a damaged list the libraries raise a dozen
            raise _damaged(archive, error) from error
        if not found:
            raise UserError(f"Archive '{archive}' holds no file.")
        yield found


def _of_zip(archive: Path, file: zipfile.ZipFile) -> Iterator[Entry]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(archive, info.orig_filename, "is a link or a device")
        if info.flag_bits & ENCRYPTED:
            raise _refused(archive, info.orig_filename, "is encrypted")
        # Of `filename` the library cuts what stands behind a null character.
        name = _place(archive, info.orig_filename)
        if not info.orig_filename.endswith("/"):
            yield Entry(name, info.file_size, functools.partial(file.open, info))


def _of_tar(archive: Path, file: tarfile.TarFile) -> Iterator[Entry]:
    for member in file:
        if not (member.isfile() or member.isdir()) or member.issparse():
            raise _refused(archive, member.name, "is a link, a device or sparse")
        if member.isdir() and member.name in (".", ""):
            continue
        name = _place(archive, member.name)
        if member.isfile():
            opening = functools.partial(file.extractfile, member)
            yield Entry(name, member.size, opening)


def _place(archive: Path, name: str) -> PurePosixPath:
    """The name of an entry, where it leads to a place in the folder."""
    path = PurePosixPath(name)
    plain = name.isprintable() and not FORBIDDEN & set(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or not plain:
        raise _refused(archive, name, "leads elsewhere")
    return path


def _refuse_names(archive: Path, entries: Sequence[Entry]) -> None:
    """Refuses one name for two files, or for a file and a folder."""
    # As systems see them that take capital letters for small ones.
    files: set[str] = set()
    for entry in entries:
        name = str(entry.name).casefold()
        if name in files:
            raise _refused(archive, str(entry.name), "is there twice")
        files.add(name)
    for folder in {parent for entry in entries for parent in entry.name.parents}:
        if str(folder).casefold() in files:
            raise _refused(archive, str(folder), "is a file and a folder")


def _refuse_no_room(archive: Path, folder: Path, entries: Sequence[Entry]) -> None:
    """Refuses what the disk has no room for."""
    parent = next(place for place in folder.absolute().parents if place.exists())
    free, size = shutil.disk_usage(parent).free, sum(entry.size for entry in entries)
    if size > free:
        raise UserError(
            f"Archive '{archive}' holds {size / 1e6:,.0f} MB, but the disk of "
            f"'{folder}' has {free / 1e6:,.0f} MB left. Unpack it elsewhere."
        )


def _common(entries: Sequence[Entry]) -> int:
    """1 where all files are in one folder, which becomes the new one; or else 0."""
    inside = all(len(entry.name.parts) > 1 for entry in entries)
    return int(inside and len({entry.name.parts[0] for entry in entries}) == 1)


def _copy(archive: Path, entry: Entry, file: Path) -> None:
    """Writes one file, which is as long as its archive tells."""
    left = entry.size
    with file.open("xb") as written:
        for piece in _pieces(archive, entry):
            left -= len(piece)
            if left < 0:
                break
            written.write(piece)
    if left:
        raise _damaged(archive, f"'{entry.name}' is of another size than it tells")


def _pieces(archive: Path, entry: Entry) -> Iterator[bytes]:
    """The content of a file, a piece after the other."""
    try:
        with entry.open() as content:
            while piece := content.read(PIECE):
                yield piece
    except GeneratorExit:
        raise
    except Exception as error:  # of damaged data the libraries raise a dozen
        raise _damaged(archive, error) from error


def _refused(archive: Path, name: str, why: str) -> UserError:
    return UserError(
        f"Archive '{archive}' is not unpacked: '{quoted(name)}' {why}. Expected plain "
        "files and folders, each once. Ask for another one."
    )


def _damaged(archive: Path, error: Exception | str) -> UserError:
    reason = error if isinstance(error, str) else words(error)
    return UserError(f"Archive '{archive}' is damaged: {reason}. Copy it again.")
