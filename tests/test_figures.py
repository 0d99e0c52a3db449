"""What a folder has is drawn; what it lacks is told."""

import logging
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner
from matplotlib.image import imread

from h2mv_tf import figures, predictions
from h2mv_tf.commands.plot import command
from h2mv_tf.data.splits import TEST, spatial_blocks
from h2mv_tf.data.store import Store
from h2mv_tf.errors import UserError
from h2mv_tf.figures.cell import asked_for, known_of, last_years, liveliest
from h2mv_tf.figures.folder import Folder, Missing
from h2mv_tf.figures.material import Material
from h2mv_tf.plots import style
from h2mv_tf.plots.scatter import scores

EVALUATED = ("tws", "swe")
METRICS = ("nse", "kge", "r", "alpha", "rmse", "bias")


@pytest.fixture(scope="module")
def truth(world):
    """The truth of a world as if it were predictions, in memory."""
    store = Store.open(world)
    dataset = store.truth().load().transpose("time", ...)
    roles = spatial_blocks(store.land.values, block_size=2)
    dataset = dataset.assign_coords(
        cell_area=predictions.cell_area(store.land),
        role=store.land.copy(data=roles.astype("int8")),
    )
    dataset.attrs = {predictions.MARK: "native", "store": str(world), "fold": 1}
    return dataset


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch):
    monkeypatch.setattr(style, "DPI", 60)
    monkeypatch.setitem(style.PARAMETERS, "pdf.fonttype", 3)


def write(dataset, path):
    path.parent.mkdir(exist_ok=True)
    time = dataset.indexes["time"]
    dataset["time_bnds"] = predictions.time_bounds(time, monthly=False)
    dataset.drop_encoding().chunk(time=-1).to_zarr(path, consolidated=False)


def history(folder):
    folder.mkdir(exist_ok=True)
    table = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "val_loss": [2.0, 1.5]})
    table.to_csv(folder / "history.csv", index=False)


def evaluation(dataset, folder):
    """Scores that are random, of the schema of an evaluation."""
    rng = np.random.default_rng(1)
    regions, space = ["globe", "cold"], predictions.space(dataset)
    coordinates = {
        "model": ["h2mv", "untrained"],
        "variable": list(EVALUATED),
        "scale": ["daily", "monthly"],
        "metric": list(METRICS),
    }
    shape = [len(values) for values in coordinates.values()]
    of_sets = {"cells": ["test", "all"], "region": regions}
    cells = {dim: dataset.sizes[dim] for dim in space}
    shares = ["snow_share", "soil_share", "groundwater_share"]
    result = xr.Dataset(
        {
            "score": ((*coordinates, *space), rng.random((*shape, *cells.values()))),
            "summary": (
                (*coordinates, *of_sets, "statistic"),
                rng.random((*shape, 2, 2, 1)),
            ),
            "emergent_summary": (("quantity", *of_sets), rng.random((3, 2, 2))),
            "climate": (space, np.full(list(cells.values()), 4, "int8")),
        },
        {**coordinates, **of_sets, "statistic": ["median"], "quantity": shares},
    )
    result["score"] = result.score.where(dataset.role != 0)
    result.climate.attrs = {"flag_values": [0, 4], "flag_meanings": "none cold"}
    folder.mkdir()
    result.drop_vars(["role", "cell_area"], errors="ignore").to_netcdf(
        folder / "scores.nc"
    )


@pytest.fixture(scope="module")
def run(truth, tmp_path_factory):
    """A run folder with all that there may be."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    history(folder)
    write(truth, folder / "predictions.zarr")
    evaluation(truth, folder / "predictions.evaluation")
    return folder


@pytest.fixture(scope="module")
def material(run):
    return Material(Folder(run))


@pytest.fixture(scope="module")
def sites(truth, world, tmp_path_factory):
    """Predictions of four sites, and their store."""
    folder = tmp_path_factory.mktemp("sites")
    land = np.flatnonzero(Store.open(world).land)[[0, 10, 20, 30]]
    names = np.array(["Berlin", "Bergen", "Basel", "Rome"], np.dtypes.StringDType())

    def at_sites(data):
        if "lat" not in data.dims:
            return data
        flat = data.stack(cell=("lat", "lon"), create_index=False).isel(cell=land)
        return flat.assign_coords(name=("cell", names))

    store = folder / "store.zarr"
    for group in ("rn", "prec", "tair", "static", "mask", "swe", "q"):
        data = xr.open_zarr(world, group=group, consolidated=False).load()
        at_sites(data).drop_encoding().to_zarr(
            store, group=group, mode="a", consolidated=False
        )
    dataset = at_sites(truth).assign_coords(
        cell_area=("cell", np.ones(4)), role=("cell", np.array([1, 11, 2, 3], "int8"))
    )
    dataset.attrs = {**truth.attrs, "store": str(store)}
    write(dataset, folder / "run" / "predictions.zarr")
    return folder / "run"


def test_everything_that_a_run_has_is_drawn_twice_and_nothing_is_blank(
    run, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    files = figures.draw(run, to=tmp_path)
    names = [
        "loss_curves",
        "roles",
        "means",
        *(f"scores_{name}" for name in EVALUATED),
        "skill",
        "seasonal_cycles",
        "interannual",
        "scatter",
        "tws_composition",
        "story",
    ]
    assert [file.name for file in files] == [
        f"{name}.{suffix}" for name in names for suffix in ("png", "pdf")
    ]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    for file in files:
        if file.suffix == ".png":
            colors = np.unique(imread(file)[::3, ::3, :3].reshape(-1, 3), axis=0)
            assert len(colors) > 6, file.name
        else:
            assert file.read_bytes().startswith(b"%PDF")
            assert file.stat().st_size < 1e6
    assert "Left out" not in caplog.text


def test_a_folder_with_a_history_only_draws_the_loss_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    history(tmp_path)
    (file,) = figures.draw(tmp_path, formats=("png",))
    assert file == tmp_path / "figures" / "loss_curves.png"
    assert "Left out roles, means, " in caplog.text
    assert "python -m h2mv_tf predict makes them" in caplog.text


def test_a_cross_validation_shades_the_range_of_its_folds(truth, tmp_path):
    for number, factor in enumerate((0.5, 1.0, 2.0), start=1):
        folder = tmp_path / f"fold-{number:02d}"
        history(folder)
        few = truth[["runoff"]] * np.float32(factor)
        write(few.assign_attrs(truth.attrs), folder / "predictions.zarr")
    write(truth[["runoff"]], tmp_path / "ensemble.zarr")
    found = Folder(tmp_path)
    assert list(found.histories) == ["fold 01", "fold 02", "fold 03"]
    series = Material(found).series["runoff"]
    assert series.sizes["member"] == 3
    np.testing.assert_allclose(series.members[1], series.simulated, rtol=1e-5)
    np.testing.assert_allclose(series.members[2], 2 * series.simulated, rtol=1e-5)
    with pytest.raises(Missing, match="equifinality"):
        _ = found.equifinality


def test_regional_series_are_means_of_test_cells_and_months_that_both_have(
    material, truth, world
):
    observed = Store.open(world).observed("evapotranspiration").load()
    test = truth.role == TEST
    month = "2001-07-01"
    known = test & observed.sel(time=month).notnull()
    weight = truth.cell_area.where(known, 0.0)
    simulated = truth.evapotranspiration.sel(time="2001-07").mean("time").fillna(0)
    expected = float((simulated * weight).sum() / weight.sum())
    found = material.series["evapotranspiration"].sel(region="globe", time=month)
    assert float(found.simulated) == pytest.approx(expected, rel=1e-5)


def test_storage_adds_up_and_means_of_ratios_are_ratios_of_means(material, truth):
    storage = material.storage
    parts = storage.swe + storage.soil_moisture + storage.groundwater
    np.testing.assert_allclose(parts, storage.tws, rtol=1e-5)
    expected = truth.transpiration.mean("time") / truth.evapotranspiration.mean("time")
    found = material.means.transpiration_fraction
    np.testing.assert_allclose(found, expected.where(found.notnull()), rtol=1e-4)


def test_the_points_of_a_perfect_prediction_score_close_to_one(material):
    assert scores(material.points["runoff"])["nse"] > 0.9
    snow = material.points["swe"]
    assert len(snow.observed) > 5 * len(material.points["runoff"].observed)
    assert scores(snow)["nse"] > 0.9  # deep snow, of which nothing is seen, agrees


def test_the_liveliest_cell_is_a_test_cell(material):
    place = liveliest(material)
    assert place.title.endswith("test cell")
    cell = known_of(material, place)
    assert last_years(cell) == [2001, 2002]
    assert {"precipitation", "observed_swe", "soil_water_capacity"} <= set(cell)
    assert cell.observed_runoff.attrs["cadence"] == "monthly"


def test_a_cell_is_found_by_its_place_in_either_count_of_longitudes(material):
    lat, lon = (float(material.land[c][n]) for c, n in (("lat", 4), ("lon", 2)))
    inside = asked_for(material, f"{lat + 1},{lon - 1}")
    assert inside.index == asked_for(material, f"{lat},{lon + 360}").index
    assert inside.index == {"lat": 4, "lon": 2}


def test_sites_draw_lines_and_series_by_name(sites, tmp_path):
    material = Material(Folder(sites), cells="all")
    assert list(material.series["swe"].region.values) == [
        "Berlin",
        "Bergen",
        "Basel",
        "Rome",
    ]
    files = figures.draw(sites, to=tmp_path, cell="Bergen", formats=("png",))
    drawn = {file.stem for file in files}
    assert {"means", "seasonal_cycles", "scatter", "story"} <= drawn
    assert asked_for(material, "Bergen").title == "Bergen, test cell"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Bergn", "There is no site 'Bergn'.*names: Bergen"),
        ("89,0", "There is no site within 1 degree.*nearest is"),
    ],
)
def test_an_unknown_site_is_told_with_the_nearest(sites, words, told):
    with pytest.raises(UserError, match=told):
        figures.draw(sites, cell=words)
    assert not (sites / "figures").exists()


@pytest.mark.parametrize(
    ("make", "options", "told"),
    [
        (lambda path: None, [], "There is no folder"),
        (lambda path: path.mkdir(), [], "There is nothing to draw"),
        (history, ["--cell", "1,2"], "Cannot find cell '1,2'"),
        (history, ["--format", "png,tiff"], "Cannot write figures as 'tiff'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, make, options, told):
    make(tmp_path / "run")
    result = CliRunner().invoke(command, [str(tmp_path / "run"), *options])
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_cell_at_sea_and_another_store_are_refused(run, sites):
    land = Folder(run).store.land
    row, column = np.argwhere(~land.values)[0]
    sea = f"{float(land.lat[row])},{float(land.lon[column])}"
    with pytest.raises(UserError, match="no land at"):
        figures.draw(run, cell=sea)
    with pytest.raises(UserError, match="other cells"):
        figures.draw(run, store=Folder(sites).store)


def test_the_command_draws_what_there_is(tmp_path):
    history(tmp_path)
    result = CliRunner().invoke(command, [str(tmp_path), "--format", "png"])
    assert result.exit_code == 0
    assert "1 figure, each as png." in result.stdout


def test_figures_do_without_tensorflow():
    code = "import sys, h2mv_tf.figures; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
