"""The store: the published layout as it is, land cells out, one line for bad input."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from stores import (
    DAYS,
    GRID,
    LAND,
    LEVEL,
    MONTHS,
    at_sites,
    field,
    forcing,
    observations,
    on_land,
    refuse,
    with_value,
    world,
)

from h2mv_tf.data.store import Store
from h2mv_tf.data.writing import Writer, storable, write_store
from h2mv_tf.errors import UserError

pytestmark = pytest.mark.filterwarnings("error")


def write_plainly(path, fields, zarr_format=3):
    """As anyone would, who has xarray and not this project."""
    for group, data in fields.items():
        data.to_dataset(name="data").to_zarr(
            path, group=group, zarr_format=zarr_format, consolidated=False
        )


# Reading


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("layout", ["grid", "sites"])
def test_the_published_layout_is_read_as_plain_xarray_writes_it(
    tmp_path, zarr_format, layout
):
    fields = world()
    fields["tws"] = field(-20, MONTHS)
    fields["swe"] = field(5)
    for data in fields.values():
        data.attrs = {"mean": 1.5, "std": 2.5}
    fields["static"].attrs = {"mean": [1.0, 2.0], "std": [3.0, 4.0]}
    # Text of fixed length, which is what a list of names is, is not in format 3.
    written = {k: storable(v) for k, v in fields.items()}
    if layout == "sites":
        written = {k: storable(v) for k, v in at_sites(fields).items()}
    write_plainly(tmp_path / "plain.zarr", written, zarr_format)

    store = Store.open(tmp_path / "plain.zarr")
    assert store.static_names == ("elevation", "sand")
    assert store.constraints == ("tws", "swe")
    np.testing.assert_array_equal(store.time, DAYS)
    np.testing.assert_array_equal(store.cells["lat"], [50, 50, 40, 40])
    np.testing.assert_array_equal(store.cells["lon"], [10, 20, 0, 20])
    expected = np.stack([on_land(fields[group]) for group in LEVEL], axis=-1)
    np.testing.assert_array_equal(forcing(store), expected)
    np.testing.assert_array_equal(store.static(), on_land(fields["static"]))
    tws, swe = observations(store, "tws"), observations(store, "swe")
    assert not store.calendar("tws").daily
    assert store.calendar("swe").daily
    np.testing.assert_array_equal(tws, on_land(fields["tws"]))
    np.testing.assert_array_equal(swe, on_land(fields["swe"]))
    for array in (forcing(store), store.static(), tws, swe):
        assert array.dtype == np.float32
    assert store.stored_moments("air_temperature") == (1.5, 2.5)
    mean, std = store.stored_static_moments()
    np.testing.assert_array_equal(mean, [1, 2])
    np.testing.assert_array_equal(std, [3, 4])
    if layout == "sites":
        assert list(store.cells["name"].values) == list("bcdf")


def test_one_number_is_the_moment_of_every_static_input(stored):
    fields = world()
    fields["static"].attrs = {"mean": 1.0, "std": 3.0}
    mean, std = stored(fields).stored_static_moments()
    assert mean.tolist() == [1, 1]
    assert std.tolist() == [3, 3]


@pytest.mark.parametrize("group", ["mask", "tair", "static"])
def test_the_order_of_dims_makes_no_difference(stored, group):
    fields = world()
    fields[group] = fields[group].transpose("lon", "lat", ...)
    store = stored(fields)
    fields = world()
    expected = np.stack([on_land(fields[name]) for name in LEVEL], axis=-1)
    np.testing.assert_array_equal(forcing(store), expected)
    np.testing.assert_array_equal(store.static(), on_land(fields["static"]))
    np.testing.assert_array_equal(store.cells["lat"], [50, 50, 40, 40])
    assert store.land.dims == ("lat", "lon")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_longitude_may_come_before_latitude_on_a_square(stored, zarr_format):
    fields = {k: data.isel(lon=slice(2)) for k, data in world().items()}
    expected = fields["tair"].values[:, [0, 1], [1, 0]].T  # the land cells
    turned = {k: data.transpose(..., "lon", "lat") for k, data in fields.items()}
    found = forcing(stored(turned, zarr_format=zarr_format))[..., 2]
    np.testing.assert_array_equal(found, expected.astype("float32"))


@pytest.mark.parametrize("dtype", ["bool", "int8", "float32", "missing"])
def test_land_is_where_the_mask_is_neither_zero_nor_missing(stored, dtype):
    fields = world()
    mask = fields["mask"]
    fields["mask"] = mask.where(mask == 1) if dtype == "missing" else mask.astype(dtype)
    np.testing.assert_array_equal(stored(fields).land, LAND == 1)


def test_static_inputs_without_names_are_numbered(stored):
    fields = world()
    fields["static"] = fields["static"].drop_vars("variable")
    assert stored(fields).static_names == ("static_0", "static_1")


def test_stamps_at_noon_are_days(stored):
    fields = world()
    for group in LEVEL:
        fields[group]["time"] = DAYS + pd.Timedelta(hours=12)
    np.testing.assert_array_equal(stored(fields).time, DAYS)


def test_groups_may_have_other_names(stored):
    fields = world()
    fields["et_xbase"], fields["et"] = field(1, MONTHS), field(9, MONTHS)
    store = stored(fields, {"et": "et_xbase"})
    np.testing.assert_array_equal(
        observations(store, "evapotranspiration"), on_land(fields["et_xbase"])
    )


def test_forcing_groups_may_have_other_names(stored):
    fields = world()
    fields["mswep"] = fields.pop("prec")
    store = stored(fields, {"prec": "mswep"})
    np.testing.assert_array_equal(forcing(store)[..., 1], on_land(fields["mswep"]))


def test_monthly_observations_lie_on_the_months_of_the_forcing(stored):
    fields = world()
    # Mid-month stamps, from before the forcing into it; February is not there.
    months = pd.to_datetime(["2000-11-15", "2000-12-16", "2001-01-16", "2001-03-16"])
    fields["fapar"] = field(0.1, months)
    store = stored(fields)
    values_read = observations(store, "fapar")
    assert not store.calendar("fapar").daily
    values = on_land(fields["fapar"])
    assert values_read.shape == (4, 3)
    np.testing.assert_array_equal(values_read[:, 0], values[:, 2])
    assert np.isnan(values_read[:, 1]).all()
    np.testing.assert_array_equal(values_read[:, 2], values[:, 3])


def test_daily_observations_lie_on_the_days_of_the_forcing(stored):
    fields = world()
    days = pd.date_range("2001-03-30", "2001-04-20")
    fields["swe"] = field(5, days)
    store = stored(fields)
    values_read = observations(store, "swe")
    assert store.calendar("swe").daily
    assert values_read.shape == (4, len(DAYS))
    assert np.isnan(values_read[:, :-2]).all()
    np.testing.assert_array_equal(values_read[:, -2:], on_land(fields["swe"])[:, :2])


def test_days_without_observations_may_be_left_out_of_the_time_axis(stored):
    fields = world()
    fields["swe"] = field(5).isel(time=[0, 1, 2, 5, 6, 7])
    store = stored(fields)
    values_read = observations(store, "swe")
    assert store.calendar("swe").daily
    seen = np.isfinite(values_read).all(axis=0)
    np.testing.assert_array_equal(np.flatnonzero(seen), [0, 1, 2, 5, 6, 7])


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_observed(stored, nothing):
    fields = world()
    fields["swe"] = with_value(field(5), nothing)
    values = observations(stored(fields), "swe")
    assert np.isnan(values[0, 3:]).all()
    assert np.isfinite(values[1:]).all()
    assert np.isfinite(values[0, :3]).all()


def test_months_are_those_of_the_forcing(stored):
    january = 2001 * 12
    np.testing.assert_array_equal(
        stored(world()).months, [january, january + 1, january + 2]
    )


def test_sea_may_miss_anything(stored):
    fields = world()
    fields["rn"] = with_value(fields["rn"], np.nan, cell=(0, 0))
    fields["tair"] = with_value(fields["tair"], 7.0, cell=(1, 1))
    fields["static"] = with_value(fields["static"], np.nan, cell=(0, 0), step=0)
    store = stored(fields)
    assert np.isfinite(forcing(store)).all()
    assert np.isfinite(store.static()).all()


# What is refused: layout


@pytest.mark.parametrize("name", ["nothing", "file", "folder"])
def test_what_is_no_store_is_told(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("no store")
    with pytest.raises(UserError) as caught:
        Store.open(tmp_path / name)
    line = str(caught.value)
    assert f"no Zarr store at '{tmp_path / name}'" in line
    assert "rn, prec, tair, static, mask" in line
    assert "h2mv_tf ingest" in line


@pytest.mark.parametrize(
    ("group", "label"),
    [
        ("rn", "(net_radiation [W m-2])"),
        ("prec", "(precipitation [mm d-1])"),
        ("tair", "(air_temperature [K])"),
        ("static", "(static inputs)"),
        ("mask", "(land mask)"),
    ],
)
def test_a_missing_group_is_named_with_what_it_holds(refusal, group, label):
    fields = world()
    del fields[group]
    line = refusal(fields)
    assert f"lacks group '{group}' {label}. Found: " in line
    found = line.split("Found: ")[1].split(".")[0]
    assert found.split(", ") == sorted(fields)


def test_a_mapped_group_has_to_be_there(refusal):
    line = refusal(world(), groups={"et": "et_xbase"})
    assert "lacks group 'et_xbase' (evapotranspiration [mm d-1])" in line
    assert "data.groups" in line


def test_a_group_without_data_is_told(tmp_path):
    fields = world()
    rain = fields.pop("prec")
    write_plainly(tmp_path / "x.zarr", {k: storable(v) for k, v in fields.items()})
    rain.to_dataset(name="rain").to_zarr(
        tmp_path / "x.zarr", group="prec", consolidated=False
    )
    with pytest.raises(UserError, match=r"'prec' .* has no array 'data'\. Found: rain"):
        Store.open(tmp_path / "x.zarr")


@pytest.mark.parametrize(
    ("group", "change", "found", "expected"),
    [
        ("tair", dict(lat="y"), "time, y, lon", "(time, lat, lon) or (time, cell)"),
        ("tair", dict(time="day"), "day, lat, lon", "(time, lat, lon) or (time, cell)"),
        ("static", dict(variable="band"), "band, lat, lon", "(variable, lat, lon)"),
        ("mask", dict(lon="x"), "lat, x", "(lat, lon) or (cell)"),
    ],
)
def test_an_unknown_layout_is_told(refusal, group, change, found, expected):
    fields = world()
    fields[group] = fields[group].drop_vars(change).rename(change)
    line = refusal(fields, refuse)
    assert f"Group '{group}'" in line
    assert f"has dims ({found})" in line
    assert f"Expected {expected}" in line


@pytest.mark.parametrize(
    ("group", "extra"), [("tair", "height"), ("mask", "time"), ("static", "time")]
)
def test_a_dim_too_many_is_told(refusal, group, extra):
    fields = world()
    fields[group] = fields[group].expand_dims({extra: 2})
    line = refusal(fields, refuse)
    assert f"Group '{group}'" in line
    assert f"has dims ({extra}, " in line


def test_a_mask_without_coordinates_is_told(refusal):
    fields = world()
    fields["mask"] = fields["mask"].drop_vars(["lat", "lon"])
    assert "Group 'mask'" in (line := refusal(fields))
    assert "has no coordinate lat, lon" in line


def test_a_mask_without_land_is_told(refusal):
    fields = world()
    fields["mask"] = fields["mask"] * 0
    line = refusal(fields)
    assert "has no land: all 6 cells are 0" in line
    assert "Expected 1 where there is land" in line


@pytest.mark.parametrize("change", ["fewer", "fewer and nameless", "elsewhere"])
def test_groups_on_other_cells_are_told(refusal, change):
    fields = world()
    tair = fields["tair"]
    fields["tair"] = {
        "fewer": tair.isel(lat=[0]),
        "fewer and nameless": tair.isel(lat=[0]).drop_vars(["lat", "lon"]),
        "elsewhere": tair.assign_coords(lat=tair["lat"] + 1),
    }[change]
    line = refusal(fields, refuse)
    assert "Group 'tair'" in line
    assert "and the mask differ in lat" in line


def test_sites_in_another_order_are_told(refusal):
    fields = at_sites(world())
    fields["tair"] = fields["tair"].isel(cell=slice(None, None, -1))
    line = refusal(fields, refuse)
    assert "Group 'tair'" in line
    assert "and the mask differ in lat" in line


def test_a_grid_in_a_store_of_sites_is_told(refusal):
    fields = world()
    fields["mask"] = at_sites(fields)["mask"]
    line = refusal(fields, refuse)
    assert "Group 'rn'" in line
    assert "has dims (time, lat, lon); the mask has (cell)" in line


# What is refused: time


def test_gaps_in_time_are_told(refusal):
    fields = world()
    for group in LEVEL:
        fields[group] = fields[group].drop_isel(time=[10, 11, 40])
    line = refusal(fields)
    assert "has to be daily without gaps" in line
    assert "found 2001-01-10 followed by 2001-01-13, first of 2 such steps" in line


def test_time_that_is_not_daily_is_told(refusal):
    fields = world() | {group: field(level, MONTHS) for group, level in LEVEL.items()}
    line = refusal(fields)
    assert "found 2001-01-01 followed by 2001-02-01, first of 2" in line
    assert "Average it to days" in line


def test_one_day_is_no_series(refusal):
    fields = world()
    for group in LEVEL:
        fields[group] = fields[group].isel(time=[0])
    assert "found one day" in refusal(fields)


def test_forcing_on_different_days_is_told(refusal):
    fields = world()
    fields["tair"] = fields["tair"].isel(time=slice(1, None))
    line = refusal(fields)
    assert "Groups 'rn' and 'tair'" in line
    assert "2001-01-01 to 2001-03-31 (90 steps) and 2001-01-02 to 2001-03-31" in line


def test_another_calendar_is_told(refusal):
    fields = world()
    time = xr.date_range("2001-01-01", periods=90, calendar="noleap", use_cftime=True)
    for group in LEVEL:
        fields[group] = fields[group].assign_coords(time=time)
    line = refusal(fields)
    assert "Group 'rn'" in line
    assert "has calendar 'noleap'" in line
    assert "convert_calendar" in line


def test_a_missing_time_axis_is_told(refusal):
    fields = world()
    fields["prec"] = fields["prec"].drop_vars("time")
    line = refusal(fields)
    assert "Group 'prec'" in line
    assert "has no time" in line


# What is refused: constraints and attributes


def test_a_missing_constraint_is_told(refusal):
    fields = world() | {"swe": field(5)}
    line = refusal(fields, lambda store: store.calendar("runoff"))
    assert "lacks constraint 'runoff' [mm d-1] (group 'q'). Found: swe." in line
    assert "objective.constraints" in line


def test_a_constraint_outside_of_the_period_is_told(refusal):
    fields = world() | {"tws": field(0, MONTHS + pd.DateOffset(years=3))}
    line = refusal(fields, lambda store: store.calendar("tws"))
    assert "'tws' [mm]" in line
    assert "no observation in the period of the forcing, 2001-01-01 to 2001-03" in line
    assert "it covers 2004-01-01 to 2004-03-01 (3 steps)" in line


def test_two_steps_in_a_month_are_told(refusal):
    dekads = pd.date_range("2001-01-03", periods=6, freq="8D")
    fields = world() | {"fapar": field(0.1, dekads)}
    line = refusal(fields, lambda store: store.calendar("fapar"))
    assert "Constraint 'fapar' [1]" in line
    assert (
        "neither daily nor monthly: 2001-01-11 is the second step of its month" in line
    )


def test_two_steps_in_a_day_are_told(refusal):
    twice = DAYS.insert(5, DAYS[5])
    fields = world() | {"swe": field(5, twice)}
    line = refusal(fields, lambda store: store.calendar("swe"))
    assert "2001-01-06 is the second step of its day" in line


@pytest.mark.parametrize("lacking", ["mean", "std"])
def test_moments_that_are_not_stored_are_told(refusal, lacking):
    fields = world()
    fields["tair"].attrs = {"mean": 1.0, "std": 2.0}
    del fields["tair"].attrs[lacking]
    line = refusal(fields, lambda store: store.stored_moments("air_temperature"))
    assert "Group 'tair'" in line
    assert f"has no attribute '{lacking}'" in line
    assert "data.normalization: training" in line


# Writing


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_is_written_is_read_back(stored, zarr_format):
    fields = world()
    store = stored(fields, zarr_format=zarr_format)
    assert zarr.open_group(store.path, mode="r").metadata.zarr_format == zarr_format
    raw = xr.open_zarr(store.path, group="tair", consolidated=False, chunks=None)
    xr.testing.assert_identical(raw["data"].drop_attrs().rename(None), fields["tair"])


def test_a_store_carries_its_attributes(tmp_path):
    write_store(tmp_path / "x.zarr", world(), attributes={"title": "A world"})
    attributes = zarr.open_group(tmp_path / "x.zarr", mode="r").attrs
    assert attributes["title"] == "A world"
    assert attributes["Conventions"].startswith("CF-")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "kind", [str, object, "T", pd.Index], ids=["fixed", "object", "numpy", "pandas"]
)
def test_text_of_any_kind_can_be_written(stored, kind, zarr_format):
    text = ["Montréal", "b"]
    names = pd.Index(text) if kind is pd.Index else np.array(text, kind)
    fields = world()
    # `concat` keeps the text of pandas as it is; `assign_coords` would not.
    parts = list(fields["static"].drop_vars("variable"))
    static = xr.concat(parts, pd.Index(names, name="variable"))
    if kind is not pd.Index:
        static = static.assign_coords(variable=names)
    fields["static"] = static.assign_coords(
        note=("variable", names, {"comment": "kept"})
    )
    store = stored(fields, zarr_format=zarr_format)
    assert store.static_names == ("Montréal", "b")
    raw = xr.open_zarr(store.path, group="static", consolidated=False, chunks=None)
    assert list(raw["note"].values) == ["Montréal", "b"]
    assert raw["note"].attrs == {"comment": "kept"}


def test_the_encoding_of_the_source_is_left_behind(stored):
    fields = world()
    for array in (fields["mask"]["lat"], fields["tair"]):
        array.encoding = {"dtype": "int16", "scale_factor": 100.0}
    store = stored(fields)
    np.testing.assert_array_equal(store.land["lat"], GRID["lat"])
    np.testing.assert_array_equal(forcing(store)[..., 2], on_land(fields["tair"]))


def test_a_chunk_is_the_whole_series_of_a_tile_of_cells(stored):
    days = pd.date_range("2001-01-01", periods=1000)
    values = np.zeros((1000, 40, 60), "float32")
    grid = {"lat": np.arange(40.0), "lon": np.arange(60.0)}
    large = xr.DataArray(values, {"time": days, **grid}, ("time", "lat", "lon"))
    path = stored(world() | {"swe": large}).path
    chunks = zarr.open_array(path / "swe/data", mode="r").chunks
    assert chunks == (1000, 15, 15)  # 1 MB is 250 such series
    assert zarr.open_array(path / "tair/data", mode="r").chunks == (90, 2, 3)


def test_an_existing_path_is_refused_and_kept(tmp_path):
    (tmp_path / "x.zarr").write_text("dear to someone")
    with pytest.raises(UserError, match=r"x\.zarr' exists"):
        write_store(tmp_path / "x.zarr", world())
    assert (tmp_path / "x.zarr").read_text() == "dear to someone"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, error):
    def fail(self, *args):
        raise error("the disk is on fire")

    monkeypatch.setattr(Writer, "put", fail)
    with pytest.raises(error):
        write_store(tmp_path / "x.zarr", world())
    assert not list(tmp_path.iterdir())


def test_the_store_is_not_there_until_it_is_whole(tmp_path, monkeypatch):
    seen = []

    def watched(self, *args):
        seen.append((tmp_path / "x.zarr").exists())
        return put(self, *args)

    put = Writer.put
    monkeypatch.setattr(Writer, "put", watched)
    write_store(tmp_path / "x.zarr", world())
    assert seen == [False] * 5
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]


def test_folders_on_the_way_are_made(tmp_path):
    write_store(tmp_path / "a/b/x.zarr", world())
    assert Store.open(tmp_path / "a/b/x.zarr").land.sum() == 4


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"Cannot write .*Not a directory"):
        write_store(tmp_path / "file" / "store.zarr", world())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
