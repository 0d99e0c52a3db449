"""The stream: which windows come, in which order, and what a batch holds."""

import shutil
import tempfile

import numpy as np
import pandas as pd
import pytest
from stores import world as small_world

from h2mv_tf.data.pipeline import Stream
from h2mv_tf.data.series import Series, Tiles, source
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import survey
from h2mv_tf.data.windows import Record, Windows, observed
from h2mv_tf.data.writing import write_store, writing
from h2mv_tf.errors import UserError

CELLS = np.arange(5)
TIME = pd.date_range("2001-01-15", "2002-12-31", freq="D")
CELL, DAY = np.meshgrid(np.arange(5.0), np.arange(len(TIME)), indexing="ij")
FORCING = np.stack([CELL, DAY, CELL * 1000 + DAY], axis=-1).astype("f4")
RUNOFF = (CELLS[:, None] * 100 + np.arange(24.0)).astype("f4")
SWE = (CELL * 1000 + DAY).astype("f4")


def stream(
    cells=CELLS,
    *,
    time=TIME,
    swe=SWE,
    runoff=RUNOFF,
    batch_size=5,
    length="full",
    spin_up=365,
    stride=None,
    **options,
):
    """A stream of five cells whose forcing tells cell and day."""
    values = {"runoff": runoff, "swe": swe}
    daily = {"runoff": False, "swe": True}
    windows = Windows(time, length, spin_up, stride)
    months = len(np.unique(windows.month))
    record = Record(
        time=time,
        static=np.arange(10, dtype="f4").reshape(5, 2),
        daily=daily,
        observed=observed(values, daily, cells=5, days=len(time), months=months),
        block=np.array([0, 0, 1, 1, 2]),
    )
    series = Series(FORCING[:, : len(time)], values)
    return Stream(series, record, cells, windows, batch_size=batch_size, **options)


def batches(stream, number=0):
    return [
        {
            **{k: v.numpy() for k, v in batch.items() if k != "targets"},
            **{k: v.numpy() for k, v in batch["targets"].items()},
        }
        for batch in stream.epoch(number)
    ]


def identities(stream, number=0):
    """Cell and first day of each window, in their order, as one number."""
    return np.concatenate(
        [b["forcing"][b["weight"] > 0, 0, 2] for b in batches(stream, number)]
    )


# Batches


def test_full_windows_hold_the_whole_record_of_each_cell():
    (batch,) = batches(stream())
    np.testing.assert_array_equal(batch["forcing"], FORCING)
    np.testing.assert_array_equal(batch["static"], np.arange(10).reshape(5, 2))
    np.testing.assert_array_equal(batch["swe"], SWE)
    assert "spin_up_forcing" not in batch


def test_a_stream_holds_the_cells_it_was_given_and_no_other():
    (batch,) = batches(stream(np.array([4, 1]), batch_size=2))
    np.testing.assert_array_equal(batch["forcing"][:, 0, 0], [4, 1])


def test_every_batch_has_one_shape_and_nothing_is_dropped():
    first, second = batches(stream(batch_size=3, seed=1))
    assert {k: v.shape for k, v in first.items()} == {
        k: v.shape for k, v in second.items()
    }
    cells = np.concatenate([b["swe"][b["weight"] == 1, 0] for b in (first, second)])
    assert sorted(cells // 1000) == [0, 1, 2, 3, 4]


def test_windows_that_fill_a_batch_have_no_weight_and_no_observation():
    _, last = batches(stream(batch_size=3))
    np.testing.assert_array_equal(last["weight"], [1, 1, 0])
    assert np.isnan(last["swe"][2]).all()
    assert np.isnan(last["runoff"][2]).all()
    assert np.isfinite(last["forcing"]).all()
    assert np.isfinite(last["static"]).all()


def test_tensors_have_the_precision_that_is_asked_for():
    (batch,) = batches(stream(dtype="float64"))
    assert {v.dtype.name for k, v in batch.items() if k != "month"} == {"float64"}


def test_a_month_that_the_window_holds_in_part_is_not_compared():
    (batch,) = batches(stream())
    january, february = slice(0, 17), slice(17, 17 + 28)
    assert (batch["month"][:, january] == -1).all()
    assert (batch["month"][:, february] == 1).all()
    assert (batch["month"][:, -31:] == 23).all()


def test_monthly_targets_stand_in_the_columns_that_the_days_name():
    made = stream(batch_size=20, length=100, stride=37, spin_up=5)
    month = made.windows.month
    for batch in batches(made):
        for window in np.flatnonzero(batch["weight"]):
            days = batch["forcing"][window, :, 1].astype(int)
            cell = batch["forcing"][window, 0, 0]
            compared = batch["month"][window] >= 0
            column = batch["month"][window][compared]
            target = batch["runoff"][window][column]
            np.testing.assert_array_equal(target, cell * 100 + month[days][compared])
            whole = pd.Series(1, TIME[days]).resample("MS").sum()
            whole = whole[whole == whole.index.days_in_month]
            assert compared.sum() == whole.sum()


def test_a_window_within_a_month_compares_no_month():
    made = stream(CELLS[:1], length=10, spin_up=5, stride=10, batch_size=1)
    inside = [b for b in batches(made) if b["forcing"][0, 0, 1] == 20]
    assert (inside[0]["month"] == -1).all()


# Windows


def test_windows_without_a_seed_cover_the_record_to_its_last_day():
    made = stream(CELLS[:1], batch_size=1, length=300)
    firsts = [int(b["forcing"][0, 0, 1]) for b in batches(made)]
    assert firsts == [0, 300, len(TIME) - 300]


def test_the_spin_up_days_come_right_before_the_window():
    made = stream(CELLS[2:3], batch_size=1, length=100, spin_up=50, stride=100)
    batch = batches(made)[3]
    np.testing.assert_array_equal(
        batch["spin_up_forcing"][0, :, 1], np.arange(250, 300)
    )
    np.testing.assert_array_equal(batch["forcing"][0, :, 1], np.arange(300, 400))
    assert (batch["spin_up_forcing"][0, :, 0] == 2).all()


def test_the_first_years_are_cycled_where_the_record_starts_too_late():
    made = stream(CELLS[:1], batch_size=1, length=30, spin_up=400)
    spin_up = batches(made)[0]["spin_up_forcing"][0, :, 1].astype(int)
    # The record holds one whole year: the season goes on across the seam.
    np.testing.assert_array_equal(spin_up, np.arange(-400, 0) % 365)


def test_a_record_of_less_than_a_year_is_cycled_as_it_is():
    made = stream(
        CELLS[:1],
        time=TIME[:100],
        swe=SWE[:, :100],
        runoff=RUNOFF[:, :4],
        batch_size=1,
        length=30,
        spin_up=150,
    )
    spin_up = batches(made)[0]["spin_up_forcing"][0, :, 1].astype(int)
    np.testing.assert_array_equal(spin_up, np.arange(-150, 0) % 100)


def test_shifted_windows_lie_within_the_record_and_a_stride_of_their_place():
    made = stream(batch_size=5, length=60, spin_up=30, seed=3)
    for epoch in range(3):
        plan = made.plan(epoch)
        assert (plan.start + 60 <= len(TIME)).all()
        for cell in CELLS:
            start = np.sort(plan.start[plan.cell == cell])
            assert (start // 60 == np.arange(len(start))).all() or (
                start[-1] == len(TIME) - 60
            )


def test_only_windows_with_observations_come_and_the_others_are_counted():
    swe = SWE.copy()
    swe[:, 100:] = np.nan
    swe[3] = np.nan
    runoff = np.full_like(RUNOFF, np.nan)
    made = stream(swe=swe, runoff=runoff, length=60, stride=60, spin_up=10)
    plan = made.plan()
    # Of cells 0, 1, 2 and 4 those that start on day 0 or 60; none of cell 3.
    assert sorted(zip(plan.cell, plan.start, strict=True)) == [
        (cell, start) for cell in (0, 1, 2, 4) for start in (0, 60)
    ]
    assert plan.skipped == 5 * 12 - 8


def test_a_month_counts_as_observed_only_in_windows_that_hold_all_of_it():
    swe = np.full_like(SWE, np.nan)
    runoff = np.full_like(RUNOFF, np.nan)
    runoff[0, 1] = 1.0  # February 2001, days 17 to 44
    made = stream(swe=swe, runoff=runoff, length=40, stride=10, spin_up=10)
    plan = made.plan()
    assert (plan.cell, plan.start) == (0, 10)


def test_a_window_longer_than_the_record_is_refused():
    with pytest.raises(UserError, match=r"900 days does not fit a record of 716"):
        stream(length=900)


# Order


def test_the_same_seed_gives_the_same_order_and_another_epoch_another():
    def order(seed, epoch):
        return identities(stream(length=60, seed=seed), epoch)

    np.testing.assert_array_equal(order(1, 0), order(1, 0))
    assert not np.array_equal(order(1, 0), order(1, 1))
    assert not np.array_equal(order(1, 0), order(2, 0))


def test_cells_are_shuffled_across_blocks():
    order = identities(stream(length=60, seed=1, batch_size=12)) // 1000
    assert len(set(order[:12])) > 2


@pytest.mark.parametrize("seed", [None, 4])
def test_workers_share_the_windows_and_make_the_same_number_of_batches(seed):
    alone = stream(length=60, spin_up=10, seed=seed)
    shares = [
        stream(length=60, spin_up=10, seed=seed, shard=(n, 2), batch_size=3)
        for n in range(2)
    ]
    counts = [len(batches(share, 1)) for share in shares]
    assert counts[0] == counts[1] == shares[0].plan(1).batches
    seen = np.concatenate([identities(share, 1) for share in shares])
    np.testing.assert_array_equal(np.sort(seen), np.sort(identities(alone, 1)))


def test_workers_share_the_batches_of_a_process_that_is_alone():
    alone = stream(length=60, spin_up=10, seed=4, batch_size=6)
    shares = [
        stream(length=60, spin_up=10, seed=4, batch_size=3, shard=(n, 2))
        for n in range(2)
    ]
    together = zip(*map(batches, shares), strict=True)
    for whole, parts in zip(batches(alone), together, strict=True):
        joined = np.concatenate([part["forcing"] for part in parts])
        np.testing.assert_array_equal(joined, whole["forcing"])


def test_a_batch_is_filled_up_to_what_its_devices_divide():
    wide, narrow = (
        batches(stream(length=60, spin_up=10, batch_size=3, multiple=n)) for n in (4, 1)
    )
    assert len(wide) == len(narrow)
    for filled, batch in zip(wide, narrow, strict=True):
        assert len(filled["forcing"]) == 4
        np.testing.assert_array_equal(filled["forcing"][:3], batch["forcing"])
        assert filled["weight"][3] == 0
        assert np.isnan(filled["runoff"][3]).all()


# Reading from a store


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    """A store of 40 cells in eight blocks, one of them sea."""
    path = tmp_path_factory.mktemp("tiled") / "tiled.zarr"
    fields = small_world()
    wide = {
        name: data.isel(lat=[0, 1] * 3, lon=[0, 1, 2] * 4).assign_coords(
            lat=np.arange(6.0), lon=np.arange(12.0)
        )
        for name, data in fields.items()
    }
    random = np.random.default_rng(0)
    for name in ("rn", "prec", "tair"):
        shift = random.normal(size=wide[name].shape) / 10
        wide[name] = wide[name] + abs(shift)
    wide["mask"] = wide["mask"] * 0 + 1
    wide["mask"][:3, :3] = 0
    wide["swe"] = wide["rn"].copy(data=random.random(wide["rn"].shape))
    wide["swe"][:, 4, :] = np.nan
    write_store(path, wide, tile={"lat": 3, "lon": 3})
    return Store.open(path)


def kept(store, cache, buffer=1000):
    made = source(store, store.constraints, cache=cache, buffer=buffer)
    found = survey(store, keep=made if isinstance(made, Series) else None)
    return made, found.record


def from_store(store, cache, *, room=None, **options):
    made, record = kept(store, cache)
    if room is not None:
        made = Tiles(store, store.constraints, room)
    windows = Windows(store.time, 30, 20)
    cells = np.arange(1, len(record.static), 2)
    return Stream(made, record, cells, windows, batch_size=7, **options)


def test_what_is_read_from_the_store_is_what_memory_holds(tiled):
    memory = batches(from_store(tiled, "memory"))
    for cache, room in (("disk", None), ("none", 1000)):
        for one, other in zip(
            memory, batches(from_store(tiled, cache, room=room)), strict=True
        ):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("seed", [None, 2])
@pytest.mark.parametrize("room", [1, 5, 20])
def test_a_small_buffer_changes_the_order_and_nothing_else(tiled, room, seed):
    whole = from_store(tiled, "memory", seed=seed)
    pools = from_store(tiled, "none", room=room, seed=seed)

    def sums(stream):
        return np.sort(
            np.concatenate(
                [
                    b["forcing"][b["weight"] > 0].sum(axis=(1, 2), dtype="f8")
                    + b["spin_up_forcing"][b["weight"] > 0].sum(axis=(1, 2), dtype="f8")
                    for b in batches(stream, 1)
                ]
            )
        )

    np.testing.assert_array_equal(sums(whole), sums(pools))


def test_each_block_is_read_once_an_epoch(tiled, monkeypatch):
    made = from_store(tiled, "none", room=8, seed=1)
    read = []

    def counted(self, constraints, block):
        read.append(int(block.cells[0]))
        return request(self, constraints, block)

    request = Store.request
    monkeypatch.setattr(Store, "request", counted)
    batches(made)
    assert len(read) == len(set(read)) == len(tiled.blocks)


def test_epochs_that_run_on_are_those_that_come_one_by_one():
    made = stream(length=200, spin_up=20, stride=100, seed=4)
    numbers = list(range(3, 6))
    expected = [batches(made, number) for number in numbers]
    for known, given in zip(expected, made.epochs(numbers), strict=True):
        found = [batch["forcing"].numpy() for batch in given]
        assert len(found) == len(known)
        for batch, values in zip(known, found, strict=True):
            np.testing.assert_array_equal(values, batch["forcing"])


def test_pools_do_not_hold_more_cells_than_there_is_room_for(tiled):
    plan = from_store(tiled, "none", room=10, seed=1).plan()
    held = [len(np.unique(plan.cell[plan.pool == n])) for n in np.unique(plan.pool)]
    assert max(held) <= 10
    assert len(held) >= 3


def test_what_does_not_fit_memory_is_read_from_the_store(tiled, monkeypatch, caplog):
    monkeypatch.setattr("h2mv_tf.data.series.MEMORY_SHARE", 1e-9)
    made, _ = kept(tiled, "memory")
    assert isinstance(made, Tiles)
    assert "are read from the store in each epoch" in caplog.text


def test_a_cache_on_disk_has_no_name(tiled, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made, _ = kept(tiled, "disk")
    assert made.on_disk
    assert not list(tmp_path.iterdir())  # nor would a kill leave anything


def test_a_full_disk_is_told(tiled, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match=r"No space left on device\. Point TMPDIR to"):
        kept(tiled, "disk")


@pytest.mark.parametrize("cut", [0, 40])
def test_a_truncated_chunk_is_told_with_array_and_cell(tiled, tmp_path, cut):
    shutil.copytree(tiled.path, tmp_path / "cut.zarr")
    chunk = tmp_path / "cut.zarr/prec/data/c/0/1/0"
    chunk.write_bytes(chunk.read_bytes()[:cut])
    with pytest.raises(UserError) as caught:
        survey(Store.open(tmp_path / "cut.zarr"))
    line = str(caught.value)
    assert "a chunk of 'prec/data' with cell " in line
    assert "(lat 3, lon 0)" in line
    assert "truncated or damaged" in line
    assert "\n" not in line


def test_a_damaged_chunk_is_told(tiled, tmp_path):
    shutil.copytree(tiled.path, tmp_path / "bad.zarr")
    chunk = tmp_path / "bad.zarr/tair/data/c/0/0/1"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 255
    chunk.write_bytes(content)
    with pytest.raises(UserError, match="a chunk of 'tair/data' with cell"):
        survey(Store.open(tmp_path / "bad.zarr"))


def test_a_chunk_that_is_damaged_while_training_is_told_by_the_stream(tiled, tmp_path):
    shutil.copytree(tiled.path, tmp_path / "late.zarr")
    made = from_store(Store.open(tmp_path / "late.zarr"), "none", room=5)
    (tmp_path / "late.zarr/rn/data/c/0/1/3").write_bytes(b"no chunk")
    with pytest.raises(UserError, match="a chunk of 'rn/data' with cell"):
        list(made.batches())


def test_two_writers_do_not_meet_in_one_store(tmp_path):
    with (
        writing(tmp_path / "x.zarr", tile={"lat": 3, "lon": 3}),
        pytest.raises(UserError, match="is being written by another process"),
    ):
        write_store(tmp_path / "x.zarr", small_world())
    assert (tmp_path / "x.zarr").exists()
