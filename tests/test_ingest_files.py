"""Ingest: many files, contradictions, broken files, and calls that do not end."""

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from cf import DAYS, UNITS, grid
from stores import forcing

from h2mv_tf.data import writing
from h2mv_tf.data.ingest import ingest
from h2mv_tf.data.store import Store
from h2mv_tf.data.writing import Writer
from h2mv_tf.errors import UserError

pytestmark = pytest.mark.filterwarnings("error")

LITTLE = 2e4  # bytes of memory: many parts


def parts(source, days=3):
    """A file for each variable and each few days."""
    return {
        f"{name}_{start}": source[[name]].isel(time=slice(start, start + days))
        for name in UNITS
        for start in range(0, source.sizes["time"], days)
    }


# Several files


def test_files_are_joined_whatever_their_order(ingested):
    files = parts(grid())
    store, report = ingested(dict(reversed(files.items())))
    expected = [grid()[name].values.reshape(len(DAYS), -1).T for name in UNITS]
    np.testing.assert_array_equal(forcing(store), np.stack(expected, axis=-1))
    assert [row.source for row in report.rows[:3]] == list(UNITS)


def test_patterns_name_files(tmp_path):
    for name, part in parts(grid()).items():
        part.to_netcdf(tmp_path / f"{name}.nc")
    pattern = str(tmp_path / "*.nc")
    report = ingest([pattern, tmp_path / "rn_0.nc"], tmp_path / "store.zarr")
    assert report.period == (DAYS[0], DAYS[-1])
    with pytest.raises(UserError, match=r"no file '.*\*\.grib'"):
        ingest(tmp_path / "*.grib", tmp_path / "other.zarr")


def test_what_does_not_change_may_have_a_file_of_its_own(ingested):
    fixed = grid().drop_vars([*UNITS, "time"])
    fixed["mask"] = (("lat", "lon"), [[1, 0, 1], [0, 1, 0]])
    fixed["elevation"] = (("lat", "lon"), np.arange(6.0).reshape(2, 3), {"units": "m"})
    fixed["geopotential"] = fixed["elevation"].expand_dims(time=DAYS[:1])  # as in ERA5
    store, _ = ingested({"fixed": fixed, "forcing": grid()})
    assert store.land.sum() == 3
    assert store.static_names == ("elevation", "geopotential")


def test_files_may_overlap_where_they_agree(ingested):
    source = grid()
    files = {"a": source.isel(time=slice(0, 4)), "b": source.isel(time=slice(2, 6))}
    store, _ = ingested(files)
    np.testing.assert_array_equal(store.time, DAYS)
    np.testing.assert_array_equal(
        forcing(store)[0, :, 2], source["tair"].values[:, 0, 0]
    )


def test_files_that_tell_different_values_of_a_day_are_refused(refused):
    source = grid()
    later = source.isel(time=slice(2, 6)).copy(deep=True)
    later["prec"][1, 0, 2] += 1
    line = refused({"a": source.isel(time=slice(0, 4)), "b": later})
    assert "a.nc' and '" in line
    assert "b.nc' hold different values of 'prec' from 2001-02-02 00:00 on" in line
    assert "1 of 12 that both have" in line


def test_masks_that_differ_are_refused(refused):
    source = grid().assign(mask=(("lat", "lon"), np.ones((2, 3))))
    other = source[["mask"]].copy(deep=True)
    other["mask"][0, 0] = 0
    assert "different values of 'mask': 1 of 6" in refused({"a": source, "b": other})


def test_units_that_differ_between_files_are_refused(refused):
    warm = grid().isel(time=slice(3, 6))
    warm["tair"] = (warm["tair"] - 273.15).assign_attrs(units="degC")
    line = refused({"a": grid().isel(time=slice(0, 3)), "b": warm})
    assert "give 'tair' different units: K and degC" in line


def test_files_of_different_cells_are_refused(refused):
    other = grid(lon=(0.0, 10.0, 30.0)).isel(time=slice(3, 6))
    line = refused({"a": grid().isel(time=slice(0, 3)), "b": other})
    assert "hold 'rn' at different places: lon 20 and 30" in line


# Files that break


def test_a_part_that_cannot_be_read_is_told_with_its_file(tmp_path):
    source = grid(lat=np.arange(30.0), lon=np.arange(30.0))
    rng = np.random.default_rng(0)
    warm = source["tair"] + rng.normal(size=source["tair"].shape)
    source["tair"] = warm.assign_attrs(units="K")
    source[["rn", "prec"]].to_netcdf(tmp_path / "a.nc")
    source[["tair"]].to_netcdf(
        tmp_path / "b.nc", encoding={"tair": {"zlib": True, "fletcher32": True}}
    )
    broken = bytearray((tmp_path / "b.nc").read_bytes())
    middle = len(broken) // 2
    broken[middle : middle + 100] = bytes(100)
    (tmp_path / "b.nc").write_bytes(broken)
    with pytest.raises(UserError) as caught:
        ingest(tmp_path / "?.nc", tmp_path / "store.zarr")
    assert "b.nc' cannot be read at 'tair'; it may be truncated" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nc", "b.nc"]


def test_a_chunk_of_zarr_that_was_cut_off_is_told(tmp_path):
    source = grid()
    source.to_zarr(tmp_path / "source.zarr", zarr_format=2, consolidated=False)
    chunk = tmp_path / "source.zarr" / "prec" / "0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(UserError, match=r"source\.zarr' cannot be read at 'prec'"):
        ingest(tmp_path / "source.zarr", tmp_path / "store.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["source.zarr"]


# Calls that do not come to their end


SMALL = 4 * 90 * 6 * 6  # bytes of a chunk: 90 days of 6 x 6 cells
WHOLE = "whole.zarr"


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A source of many parts, and beside it the store that it makes; its report."""
    folder = tmp_path_factory.mktemp("long")
    source = grid(
        lat=np.arange(40.0, 20, -2),
        lon=np.arange(0.0, 24, 2),
        time=pd.date_range("2001-01-01", periods=90),
    )
    maps = {name: {"zlib": True, "chunksizes": (1, 10, 12)} for name in UNITS}
    source.to_netcdf(folder / "long.nc", encoding=maps)
    report = ingest(folder / "long.nc", folder / WHOLE)
    return folder / "long.nc", report


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(writing, "CHUNK_BYTES", SMALL)


def assert_same(source, store):
    """The store is the one that was made at once."""
    for group in (*UNITS, "static", "mask"):
        a, b = (
            xr.open_zarr(path, group=group, consolidated=False)["data"].values
            for path in (source.with_name(WHOLE), store)
        )
        np.testing.assert_array_equal(a, b)
    assert not list(store.parent.glob(".*partial"))


def interrupt_after(share):
    def progress(done, total):
        if done > share * total:
            raise KeyboardInterrupt

    return progress


def test_little_memory_makes_the_same_store(long, tmp_path, small_chunks):
    source, whole = long
    counts = []
    report = ingest(
        source,
        tmp_path / "store.zarr",
        memory=LITTLE,
        progress=lambda done, total: counts.append((done, total)),
    )
    total = counts[-1][1]
    assert total > 10
    assert counts == [(n, total) for n in range(total + 1)]
    assert report == whole
    assert_same(source, tmp_path / "store.zarr")


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_an_interrupted_call_goes_on(long, tmp_path, small_chunks, share):
    source, whole = long
    store, options = tmp_path / "store.zarr", {"memory": LITTLE}
    with pytest.raises(KeyboardInterrupt):
        ingest(source, store, **options, progress=interrupt_after(share))
    assert not store.exists()
    (folder,) = tmp_path.glob(".*partial")
    done = set((folder / "journals" / "1.txt").read_text().splitlines())
    assert len(done) > 5
    with pytest.raises(KeyboardInterrupt):  # and once more, before it has done any
        ingest(source, store, **options, progress=interrupt_after(-1))
    assert done == set((folder / "journals" / "1.txt").read_text().splitlines())
    assert ingest(source, store, **options) == whole
    assert_same(source, store)


def test_other_options_begin_anew(long, tmp_path, small_chunks):
    source, _ = long
    with pytest.raises(KeyboardInterrupt):
        ingest(
            source,
            tmp_path / "store.zarr",
            memory=LITTLE,
            progress=interrupt_after(0.9),
        )
    report = ingest(source, tmp_path / "store.zarr", period=("2001-02", "2001-03"))
    assert [f"{day:%F}" for day in report.period] == ["2001-02-01", "2001-03-31"]
    assert len(Store.open(tmp_path / "store.zarr").time) == 59


def test_a_killed_call_leaves_no_store_and_goes_on(long, tmp_path, small_chunks):
    source, whole = long
    code = (
        "import os; from h2mv_tf.data import ingest, writing\n"
        "def die(done, total):\n"
        "    if done == total - 2: os.kill(os.getpid(), 9)\n"
        f"writing.CHUNK_BYTES = {SMALL}\n"
        f"ingest.ingest({str(source)!r}, 'store.zarr', memory={LITTLE}, progress=die)"
    )
    env = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, check=False
    )
    assert done.returncode == -9
    assert not (tmp_path / "store.zarr").exists()
    assert ingest(source, tmp_path / "store.zarr", memory=LITTLE) == whole
    assert_same(source, tmp_path / "store.zarr")


def test_a_full_disk_is_told_and_the_call_goes_on_later(
    long, tmp_path, small_chunks, monkeypatch
):
    source, whole = long
    put, room = Writer.put, iter(range(5))

    def fill(*args, **options):
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "put", fill)
        with pytest.raises(UserError) as caught:
            ingest(source, tmp_path / "store.zarr", memory=LITTLE)
    line = str(caught.value)
    assert "\n" not in line
    assert "store.zarr': No space left on device. Call again to continue" in line
    assert not (tmp_path / "store.zarr").exists()
    assert ingest(source, tmp_path / "store.zarr", memory=LITTLE) == whole
    assert_same(source, tmp_path / "store.zarr")
