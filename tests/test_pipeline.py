import numpy as np
import pandas as pd
import pytest

from h2mv_tf.data.pipeline import Series, Stream, stored_statistics, training_statistics
from h2mv_tf.data.store import Observations, Store
from h2mv_tf.errors import UserError

CELLS = np.arange(5)


@pytest.fixture(scope="module")
def series():
    """Five cells whose forcing tells cell and day; from mid-January 2001 on."""
    time = pd.date_range("2001-01-15", "2002-12-31", freq="D")
    cell, day = np.meshgrid(np.arange(5.0), np.arange(len(time)), indexing="ij")
    months = np.arange(24.0)
    return Series(
        forcing=np.stack([cell, day, cell * 1000 + day], axis=-1).astype("f4"),
        static=np.arange(10, dtype="f4").reshape(5, 2),
        static_names=("a", "b"),
        observations={
            "runoff": Observations((CELLS[:, None] * 100 + months).astype("f4"), False),
            "swe": Observations((cell * 1000 + day).astype("f4"), True),
        },
        time=time,
    )


def batches(stream, number=0):
    return [
        {
            **{k: v.numpy() for k, v in batch.items() if k != "targets"},
            **{k: v.numpy() for k, v in batch["targets"].items()},
        }
        for batch in stream.epoch(number)
    ]


def test_full_windows_hold_the_whole_record_of_each_cell(series):
    (batch,) = batches(Stream(series, CELLS, batch_size=5))
    np.testing.assert_array_equal(batch["forcing"], series.forcing)
    np.testing.assert_array_equal(batch["static"], series.static)
    np.testing.assert_array_equal(batch["swe"], series.observations["swe"].values)
    assert "spin_up_forcing" not in batch


def test_a_stream_holds_the_cells_it_was_given_and_no_other(series):
    (batch,) = batches(Stream(series, np.array([4, 1]), batch_size=2))
    np.testing.assert_array_equal(batch["forcing"][:, 0, 0], [4, 1])


def test_every_batch_has_one_shape_and_nothing_is_dropped(series):
    stream = Stream(series, CELLS, batch_size=3, seed=1)
    first, second = batches(stream)
    assert {k: v.shape for k, v in first.items()} == {
        k: v.shape for k, v in second.items()
    }
    observed = [b["swe"][np.isfinite(b["swe"]).all(axis=1)] for b in (first, second)]
    cells = np.concatenate(observed)[:, 0] // 1000
    assert sorted(cells) == [0, 1, 2, 3, 4]


def test_windows_that_fill_a_batch_have_no_observation(series):
    _, last = batches(Stream(series, CELLS, batch_size=3))
    assert np.isnan(last["swe"][2]).all()
    assert np.isnan(last["runoff"][2]).all()
    assert np.isfinite(last["forcing"]).all()


def test_a_month_that_the_window_holds_in_part_is_not_compared(series):
    (batch,) = batches(Stream(series, CELLS, batch_size=5))
    january, february = slice(0, 17), slice(17, 17 + 28)
    assert (batch["month"][:, january] == -1).all()
    assert (batch["month"][:, february] == 1).all()
    assert (batch["month"][:, -31:] == 23).all()


def test_monthly_targets_stand_in_the_columns_that_the_days_name(series):
    stream = Stream(series, CELLS, batch_size=20, length=100, stride=37)
    for batch in batches(stream):
        for window in range(20):
            if np.isnan(batch["runoff"][window]).all():
                continue
            days = batch["forcing"][window, :, 1].astype(int)
            cell = batch["forcing"][window, 0, 0]
            compared = batch["month"][window] >= 0
            column = batch["month"][window][compared]
            target = batch["runoff"][window][column]
            np.testing.assert_array_equal(
                target, cell * 100 + series.month[days][compared]
            )
            whole = pd.Series(1, series.time[days]).resample("MS").sum()
            whole = whole[whole == whole.index.days_in_month]
            assert compared.sum() == whole.sum()


def test_windows_without_a_seed_cover_the_record_to_its_last_day(series):
    stream = Stream(series, CELLS[:1], batch_size=1, length=300)
    firsts = [int(b["forcing"][0, 0, 1]) for b in batches(stream)]
    assert firsts == [0, 300, len(series.time) - 300]


def test_the_spin_up_days_come_right_before_the_window(series):
    stream = Stream(
        series, CELLS[2:3], batch_size=1, length=100, spin_up=50, stride=100
    )
    batch = batches(stream)[3]
    np.testing.assert_array_equal(
        batch["spin_up_forcing"][0, :, 1], np.arange(250, 300)
    )
    np.testing.assert_array_equal(batch["forcing"][0, :, 1], np.arange(300, 400))
    assert (batch["spin_up_forcing"][0, :, 0] == 2).all()


def test_the_first_years_are_cycled_where_the_record_starts_too_late(series):
    stream = Stream(series, CELLS[:1], batch_size=1, length=30, spin_up=400)
    spin_up = batches(stream)[0]["spin_up_forcing"][0, :, 1].astype(int)
    # The record holds one whole year: the season goes on across the seam.
    np.testing.assert_array_equal(spin_up, np.arange(-400, 0) % 365)


def test_a_record_of_less_than_a_year_is_cycled_as_it_is(series):
    short = Series(
        forcing=series.forcing[:, :100],
        static=series.static,
        static_names=series.static_names,
        observations={"swe": Observations(series.forcing[:, :100, 0], True)},
        time=series.time[:100],
    )
    stream = Stream(short, CELLS[:1], batch_size=1, length=30, spin_up=150)
    spin_up = batches(stream)[0]["spin_up_forcing"][0, :, 1].astype(int)
    np.testing.assert_array_equal(spin_up, np.arange(-150, 0) % 100)


def test_the_same_seed_gives_the_same_order_and_another_epoch_another(series):
    def order(seed, epoch):
        stream = Stream(series, CELLS, batch_size=5, length=60, seed=seed)
        return np.concatenate([b["forcing"][:, 0, 2] for b in batches(stream, epoch)])

    np.testing.assert_array_equal(order(1, 0), order(1, 0))
    assert (order(1, 0) != order(1, 1)).any()
    assert (order(1, 0) != order(2, 0)).any()


def test_a_window_longer_than_the_record_is_refused(series):
    with pytest.raises(UserError, match=r"900 days does not fit a record of 716"):
        Stream(series, CELLS, batch_size=1, length=900)


def test_statistics_are_those_of_the_training_cells_alone(series):
    statistics = training_statistics(series, np.array([0, 2]))
    assert statistics.forcing["net_radiation"] == (1.0, 1.0)
    assert statistics.static["a"].mean == 2.0
    assert statistics.constraints["runoff"].mean == pytest.approx(100 + 11.5)


def test_another_cells_data_changes_no_statistic(series):
    forcing, swe = series.forcing.copy(), series.observations["swe"].values.copy()
    forcing[4], swe[4] = 1e6, 1e6
    changed = Series(
        forcing,
        series.static,
        series.static_names,
        {**series.observations, "swe": Observations(swe, True)},
        series.time,
    )
    train = np.array([0, 1, 2])
    assert training_statistics(changed, train) == training_statistics(series, train)


def test_the_deviation_of_tws_is_that_of_its_anomalies():
    values = np.array([[0.0, 2.0], [1000.0, 1002.0]], "f4")
    series = Series(
        forcing=np.ones((2, 59, 3), "f4"),
        static=np.ones((2, 1), "f4"),
        static_names=("a",),
        observations={"tws": Observations(values, False)},
        time=pd.date_range("2001-01-01", periods=59),
    )
    assert training_statistics(series, np.arange(2)).constraints["tws"].std == 1.0


def test_a_constant_input_is_centred_and_not_scaled(series, caplog):
    constant = Series(
        np.full_like(series.forcing, 7),
        series.static,
        series.static_names,
        series.observations,
        series.time,
    )
    statistics = training_statistics(constant, CELLS)
    assert statistics.forcing["net_radiation"] == (7.0, 1.0)
    assert "net_radiation" in caplog.text


def test_a_constraint_without_observation_at_the_training_cells_is_refused(series):
    swe = series.observations["swe"].values.copy()
    swe[:3] = np.nan
    gone = Series(
        series.forcing,
        series.static,
        series.static_names,
        {"swe": Observations(swe, True)},
        series.time,
    )
    with pytest.raises(UserError, match="'swe' has no observation at any of the 3"):
        training_statistics(gone, CELLS[:3])


def test_statistics_of_the_store_are_its_attributes(world, tmp_path):
    import shutil

    import zarr

    path = tmp_path / "world.zarr"
    shutil.copytree(world, path)
    with pytest.raises(UserError, match="no attribute 'mean'"):
        stored_statistics(Store.open(path), ["swe"])
    names = Store.open(path).static_names
    for group in ("rn", "prec", "tair", "swe"):
        zarr.open_group(path)[f"{group}/data"].attrs.update({"mean": 3.0, "std": 2.0})
    zarr.open_group(path)["static/data"].attrs.update(
        {"mean": list(range(len(names))), "std": [5.0] * len(names)}
    )
    statistics = stored_statistics(Store.open(path), ["swe"])
    assert statistics.constraints == {"swe": (3.0, 2.0)}
    assert statistics.forcing["precipitation"] == (3.0, 2.0)
    assert statistics.static[names[2]] == (2.0, 5.0)


def test_a_store_without_any_constraint_is_refused(world, tmp_path):
    import shutil

    path = tmp_path / "world.zarr"
    shutil.copytree(world, path)
    for group in ("tws", "et", "q", "swe", "fapar"):
        shutil.rmtree(path / group)
    with pytest.raises(UserError, match="no constraint"):
        Series.read(Store.open(path))
