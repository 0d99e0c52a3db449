"""Archives of others are unpacked here and nowhere else, or not at all."""

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import fuzzing
import numpy as np
import pytest
import stores
from click.testing import CliRunner
from fuzzing import one_line
from scripts import within

from h2mv_tf import archive, predictions
from h2mv_tf.__main__ import main
from h2mv_tf.card import Card
from h2mv_tf.data.ingest import ingest
from h2mv_tf.data.store import Store
from h2mv_tf.trained import Trained


@pytest.fixture(params=[2, 3], ids=["zarr2", "zarr3"])
def small(tmp_path, request):
    return stores.small(tmp_path / "small.zarr", request.param)


def zipped(path, files, mode=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", mode) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def tarred(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as made:
        for name, content, changes in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            for key, value in changes.items():
                setattr(about, key, value)
            made.addfile(about, io.BytesIO(content))
    return path


CLIMBING = [
    "../evil",
    "a/../../evil",
    "/evil",
    "..\\evil",
    "C:\\evil",
    "C:evil",
    "a\0b",
    "..",
    "a\nb",
]


def refused_archive(path, *wanted):
    """Nothing is left of it, neither inside of its folder nor outside."""
    to = path.parent / "inner" / "to"
    before = sorted(path.parent.rglob("*"))
    line = one_line(lambda: archive.unpack(path, to), path.name, *wanted)
    shutil.rmtree(path.parent / "inner", ignore_errors=True)
    assert sorted(path.parent.rglob("*")) == before
    return line


@pytest.mark.parametrize("name", CLIMBING, ids=range(len(CLIMBING)))
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    about = zipfile.ZipInfo("plain")
    about.filename = name
    zipped(tmp_path / "x.zip", {"good": "x", about: "evil"})
    refused_archive(tmp_path / "x.zip", "leads elsewhere")
    if "\0" not in name:
        tarred(tmp_path / "x.tar.gz", ("good", b"x", {}), (name, b"evil", {}))
        refused_archive(tmp_path / "x.tar.gz", "leads elsewhere")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    member = ("link", b"", {"type": kind, "linkname": "/etc/passwd"})
    refused_archive(tarred(tmp_path / "x.tar", member, mode="w"), "is a link, a device")


def test_links_in_zip_are_refused(tmp_path):
    about = zipfile.ZipInfo("link")
    about.external_attr = 0o120777 << 16
    refused_archive(zipped(tmp_path / "x.zip", {about: "/etc/passwd"}), "is a link")


@pytest.mark.parametrize(
    "names", [("a/b", "a/b"), ("a/B", "a/b"), ("a", "a/b"), ("A", "a/b")]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(tmp_path, names):
    members = [(name, b"x", {}) for name in ("c/d", *names)]
    refused_archive(tarred(tmp_path / "x.tgz", *members), "'")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        for name in ("c/d", *names):
            made.writestr(name, "x")
    refused_archive(tmp_path / "x.zip", "'")


def test_encrypted_entries_are_refused(tmp_path):
    content = bytearray(zipped(tmp_path / "x.zip", {"a": "x"}).read_bytes())
    content[6] |= 1  # of the entry
    content[content.index(b"PK\x01\x02") + 8] |= 1  # of the list
    (tmp_path / "x.zip").write_bytes(content)
    refused_archive(tmp_path / "x.zip", "is encrypted")


def test_a_bomb_is_refused_with_its_size_and_taken_where_it_is_asked_for(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(archive, "SMALL", 1_000_000)
    files = {"store/zarr.json": "{}", "store/c/0": bytes(5_000_000)}
    path = zipped(tmp_path / "bomb.zip", files)
    line = refused_archive(path, "5 MB", "--largest")
    assert int(line.split(" times as much")[0].split()[-1]) > 200
    tarred(tmp_path / "bomb.tgz", *((n, bytes(10**6), {}) for n in "abcde"))
    refused_archive(tmp_path / "bomb.tgz", "MB or more", "--largest")
    assert archive.unpack(path, tmp_path / "to", largest=10_000) == 2
    assert (tmp_path / "to" / "c" / "0").stat().st_size == 5_000_000


def test_an_archive_that_the_disk_has_no_room_for_is_refused(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    refused_archive(zipped(tmp_path / "x.zip", {"a": "x" * 100}), "MB left")


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path):
    content = zipped(tmp_path / "x.zip", {"a": "x" * 1000}).read_bytes()
    size = (1000).to_bytes(4, "little")
    for lie in (10, 100_000):
        lied = content.replace(size, lie.to_bytes(4, "little"))
        (tmp_path / "x.zip").write_bytes(lied)
        refused_archive(tmp_path / "x.zip", "damaged")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar"])
def test_a_damaged_archive_is_refused(tmp_path, suffix):
    rng = np.random.default_rng(0)
    files = {f"a/{n}": rng.bytes(3000) for n in range(5)}
    path = tmp_path / f"x{suffix}"
    if suffix == ".zip":
        zipped(path, files, zipfile.ZIP_STORED)
        flipped = bytearray(path.read_bytes())
        flipped[5000] ^= 1  # a CRC tells
        path.write_bytes(flipped)
        refused_archive(path, "damaged", "CRC")
        zipped(path, files)
    else:
        members = [(name, content, {}) for name, content in files.items()]
        tarred(path, *members, mode="w:gz" if suffix == ".tar.gz" else "w")
    path.write_bytes(path.read_bytes()[:7000])
    refused_archive(path)
    path.write_bytes(b"")
    refused_archive(path, "no archive")


def test_an_archive_is_not_unpacked_over_anything(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a": "x"})
    (tmp_path / "to").mkdir()
    one_line(lambda: archive.unpack(path, tmp_path / "to"), "exists")
    one_line(lambda: archive.unpack(tmp_path / "no.zip", tmp_path / "o"), "no archive")


@pytest.mark.parametrize("suffix", ["zip", "tar", "gztar"])
def test_an_archived_store_is_told_and_unpacks_to_what_it_was(small, tmp_path, suffix):
    made = Path(shutil.make_archive(tmp_path / "out", suffix, tmp_path, "small.zarr"))
    for call in (
        lambda: Store.open(made),
        lambda: Trained.open(made),
        lambda: predictions.load(made),
        lambda: ingest(made, tmp_path / "to.zarr"),
    ):
        one_line(call, "is an archive", f"python -m h2mv_tf unpack {made} FOLDER")
    arguments = ["unpack", str(made), str(tmp_path / "unpacked.zarr")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    files = {
        f.relative_to(small): f.read_bytes() for f in small.rglob("*") if f.is_file()
    }
    found = tmp_path / "unpacked.zarr"
    assert {
        f.relative_to(found): f.read_bytes() for f in found.rglob("*") if f.is_file()
    } == files
    assert Store.open(found).constraints == ("tws",)
    assert f"{len(files)} files" in result.output


def test_a_zarr_zip_store_and_an_archived_model_unpack_to_folders(small, tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as made:  # nothing around it
        for file in small.rglob("*"):
            made.write(file, file.relative_to(small))
    archive.unpack(tmp_path / "s.zip", tmp_path / "s.zarr")
    assert Store.open(tmp_path / "s.zarr").land.sum() == 4
    model = shutil.make_archive(tmp_path / "m", "zip", fuzzing.DEMO.parent, "1")
    archive.unpack(model, tmp_path / "m")
    assert Card.read(tmp_path / "m") == Card.read(fuzzing.DEMO)


def test_the_verb_refuses_in_one_line_with_status_2(tmp_path):
    path = zipped(tmp_path / "x.zip", {"../evil": "x"})
    result = CliRunner().invoke(main, ["unpack", str(path), str(tmp_path / "to")])
    assert result.exit_code == 2
    assert "leads elsewhere" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_an_archive_on_a_disk_that_is_full_leaves_nothing(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a/b": os.urandom(20_000)})
    code = (
        "from h2mv_tf.archive import unpack\n"
        f"try: unpack({str(path)!r}, {str(tmp_path / 'to')!r})\n"
        "except ValueError as error: print(type(error).__name__, error)\n"
    )
    result = within(5000, code)
    assert "UnwritableError Cannot write" in result.stdout, (
        result.stdout + result.stderr
    )
    assert len(result.stdout.splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["x.zip"]
