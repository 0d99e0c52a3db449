import matplotlib.dates as mdates
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh

from h2mv_tf import plots
from h2mv_tf.evaluation.metrics import metrics
from h2mv_tf.plots import looks, style
from h2mv_tf.plots.series import regional_means
from h2mv_tf.variables import VARIABLES

MONTHS = pd.date_range("2001-01-01", periods=24, freq="MS")
DAYS = pd.date_range("2001-01-01", "2004-12-31")


def history(*terms):
    table = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.0]})
    table["val_loss"] = [3.0, 1.0, 2.0]
    for term in terms:
        table[term], table[f"val_{term}"] = table["loss"], table["val_loss"]
    return table.assign(learning_rate=0.01)


def grid(values):
    """A field (lat, lon) of 2 x 3 cells; NaN is sea."""
    coordinates = {"lat": [10.0, 0.0], "lon": [0.0, 10.0, 20.0]}
    return xr.DataArray(np.array(values, "float64"), coordinates, ("lat", "lon"))


def sites(count):
    lat, lon = np.linspace(-40, 60, count), np.linspace(-100, 100, count)
    names = [f"site {n}" for n in range(count)]
    coordinates = {"lat": ("cell", lat), "lon": ("cell", lon), "name": ("cell", names)}
    return xr.DataArray(np.arange(count) / count, coordinates, ("cell",))


def field(data, name="runoff"):
    look = looks.quantity(name, data.values)
    return plots.Field(data, "Title", VARIABLES[name].units, look)


def regional(values, region=("globe",)):
    """A monthly series (region, time)."""
    values = np.broadcast_to(values, (len(region), len(MONTHS)))
    coordinates = {"region": list(region), "time": MONTHS}
    return xr.DataArray(values, coordinates, ("region", "time"))


def meshes(figure):
    """What is drawn of the fields of maps, above the white land."""
    return [
        mesh
        for axis in figure.axes
        for mesh in axis.collections
        if isinstance(mesh, QuadMesh)
        and mesh.get_zorder() > 0
        and axis.get_title("left")
    ]


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


# training


def test_each_term_has_its_panel_with_training_and_validation():
    figure = plots.loss_curves(history("tws", "swe"))
    assert [axis.get_title() for axis in figure.axes] == [
        "loss (sum of the constraints)",
        "tws",
        "swe",
    ]
    training, validation, _ = figure.axes[2].lines
    np.testing.assert_array_equal(training.get_ydata(), [3, 2, 1])
    np.testing.assert_array_equal(validation.get_ydata(), [3, 1, 2])


def test_a_term_that_is_nowhere_observed_has_an_axis_too():
    table = history("swe")
    table["swe"] = table["val_swe"] = 0.0
    _, axis = plots.loss_curves(table).axes
    assert axis.get_yscale() == "linear"


def test_the_best_epoch_is_that_of_the_least_validation_loss():
    best = plots.loss_curves(history("swe")).axes[0].lines[-1]
    assert set(best.get_xdata()) == {2}


def test_panels_without_a_term_stay_empty():
    figure = plots.loss_curves(history("tws", "swe", "runoff"))
    assert [axis.axison for axis in figure.axes] == [True] * 4 + [False] * 2


def test_each_fold_has_its_line_and_a_dot_at_its_best_epoch():
    axis = plots.fold_losses({"fold 1": history(), "fold 2": history()}).axes[0]
    assert [line.get_label() for line in axis.lines[::2]] == ["fold 1", "fold 2"]
    assert [line.get_xdata()[0] for line in axis.lines[1::2]] == [2, 2]


# words and colours


@pytest.mark.parametrize(
    ("cf", "printed"),
    [
        ("mm d-1", "mm d⁻¹"),
        ("mm K-1 d-1", "mm K⁻¹ d⁻¹"),
        ("W m-2", "W m⁻²"),
        ("mm", "mm"),
        ("1", "–"),  # noqa: RUF001
    ],
)
def test_units_are_printed_as_in_a_journal(cf, printed):
    assert style.units(cf) == printed


@pytest.mark.parametrize("name", ["swe", "runoff", "fapar", "net_radiation"])
def test_a_label_has_the_units_of_the_registry(name):
    assert style.label(name).endswith(f"[{style.units(VARIABLES[name].units)}]")


def test_the_limits_of_a_bias_are_symmetric():
    look = looks.bias("runoff", np.array([-1.0, 0.0, 5.0]))
    assert look.low == -look.high
    assert look.high > 4


def test_a_few_outliers_do_not_set_the_limits_but_an_arrow():
    values = np.append(np.linspace(0, 1, 1000), 1e6)
    look = looks.spread(values)
    assert look.high < 1.01
    assert look.extend == "max"


def test_shares_go_from_0_to_1_and_scores_up_to_1():
    values = np.array([0.4, 0.5])
    assert looks.quantity("fapar", values)[1:] == (0.0, 1.0, "neither")
    assert looks.skill(np.array([-9.0, 0.5]))[1:] == (-0.5, 1.0, "min")


def test_one_value_everywhere_has_limits_around_it():
    look = looks.quantity("soil_water_capacity", np.full(4, 200.0))
    assert look.low < 200 < look.high


# maps


def test_sea_stays_without_colour():
    figure = plots.field_maps([field(grid([[1, np.nan, 2], [3, 4, np.nan]]))])
    (mesh,) = meshes(figure)
    np.testing.assert_array_equal(
        np.ma.getmaskarray(mesh.get_array()),
        [[False, True, False], [False, False, True]],
    )


def test_land_without_a_value_is_white_below_the_map():
    land = grid([[1, 1, 0], [1, 0, 0]]).astype(bool)
    figure = plots.field_maps([field(grid([[1, np.nan, np.nan]] * 2))], land=land)
    white = next(c for c in figure.axes[0].collections if c.get_zorder() == 0)
    drawn = ~np.ma.getmaskarray(white.get_array())
    np.testing.assert_array_equal(drawn, land)


def test_a_world_from_0_to_360_degrees_is_cut_at_the_date_line():
    data = xr.DataArray(
        np.arange(8.0).reshape(2, 4),
        {"lat": [45.0, -45.0], "lon": [45.0, 135.0, 225.0, 315.0]},
        ("lat", "lon"),
    )
    (mesh,) = meshes(plots.field_maps([field(data)]))
    np.testing.assert_array_equal(mesh.get_array()[0], [2, 3, 0, 1])


def test_panels_are_lettered_with_title_and_units():
    figure = plots.field_maps([field(grid(np.ones((2, 3))))] * 2)
    titles = [axis.get_title("left") for axis in figure.axes]
    assert [t for t in titles if t] == ["(a) Title [mm d⁻¹]", "(b) Title [mm d⁻¹]"]


def test_a_few_sites_draw_no_map_but_a_line_each():
    figure = plots.field_maps([field(sites(5))])
    assert not figure.axes[0].collections
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"site {n}" for n in range(5)]


def test_many_sites_are_points_at_their_place():
    figure = plots.field_maps([field(sites(40))])
    (points,) = figure.axes[0].collections
    np.testing.assert_allclose(points.get_offsets()[:, 0], sites(40).lon)


def test_a_site_far_beyond_the_limits_is_an_arrow_at_the_edge():
    data = sites(5) - 0.2
    data[2] = -80.0
    look = looks.skill(data.values)
    axis = plots.field_maps([plots.Field(data, "NSE", "1", look)]).axes[0]
    arrow = next(line for line in axis.lines if line.get_marker() == "<")
    np.testing.assert_array_equal(arrow.get_xydata(), [[-0.5, 2]])


def test_anomalies_have_no_map_of_their_bias():
    scores = xr.concat([grid(np.ones((2, 3)))] * 3, "metric")
    scores = scores.assign_coords(metric=["nse", "kge", "bias"])
    assert [f.title for f in plots.score_fields(scores, "tws")] == ["NSE"]
    assert len(plots.score_fields(scores, "runoff")) == 3


# series


def test_a_regional_mean_weighs_the_cells_that_have_a_value_by_their_area():
    data = xr.DataArray([[1.0, 4.0, 9.0], [1.0, np.nan, 9.0]], dims=("time", "cell"))
    area = xr.DataArray([2.0, 1.0, 5.0], dims="cell")
    inside = xr.DataArray([True, True, False], dims="cell")
    mean = regional_means(data, area, {"west": inside})
    np.testing.assert_allclose(mean, [[(2 * 1 + 1 * 4) / 3, 1.0]])


def test_a_seasonal_cycle_is_the_mean_of_each_month_of_the_calendar():
    values = np.concatenate([np.arange(12.0), np.arange(12.0) + 2])
    dataset = xr.Dataset({"observed": regional(values), "simulated": regional(values)})
    dataset["members"] = xr.concat([dataset.simulated, dataset.simulated + 4], "member")
    axis = plots.seasonal_cycles({"runoff": dataset}).axes[0]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), np.arange(12) + 1)
    assert axis.get_ylabel() == "Q [mm d⁻¹]"
    shade = axis.collections[0].get_paths()[0].get_extents()
    np.testing.assert_allclose([shade.y0, shade.y1], [1, 16])


def test_the_years_are_means_of_what_the_seasonal_cycle_leaves():
    values = np.concatenate([np.arange(12.0), np.arange(12.0) + 2])
    dataset = xr.Dataset({"observed": regional(values), "simulated": regional(values)})
    axis = plots.interannual({"runoff": dataset}).axes[0]
    years = [line.get_ydata() for line in axis.lines if len(line.get_ydata()) == 2]
    np.testing.assert_allclose(years[-2:], [[-1, 1], [-1, 1]])


def test_a_region_that_is_not_observed_says_so():
    some = regional(np.array([[1.0], [np.nan]]), ("globe", "polar"))
    dataset = xr.Dataset({"observed": some, "simulated": some})
    figure = plots.seasonal_cycles({"swe": dataset})
    assert texts(figure) == ["not observed"]


def test_the_stack_of_stores_adds_up_to_tws(rng):
    parts = ("swe", "soil_moisture", "groundwater")
    storage = xr.Dataset({name: regional(rng.normal(size=24)) for name in parts})
    storage["tws"] = storage.swe + storage.soil_moisture + storage.groundwater
    figure = plots.tws_composition(storage)
    axis = next(axis for axis in figure.axes if axis.patches)
    heights = np.reshape([bar.get_height() for bar in axis.patches], (3, 12)).sum(
        axis=0
    )
    tws = next(line for line in axis.lines if line.get_label() == "TWS").get_ydata()
    np.testing.assert_allclose(heights, tws, atol=1e-12)
    # Bars stand on one another: their ends are the sums to either side of zero.
    ends = np.array(
        [[bar.get_y(), bar.get_y() + bar.get_height()] for bar in axis.patches]
    )
    ends = ends.reshape(3, 12, 2)
    np.testing.assert_allclose(
        ends.max(axis=(0, 2)) + ends.min(axis=(0, 2)), tws, atol=1e-12
    )


# scatter


def test_the_metrics_in_a_panel_are_those_of_its_points(rng):
    observed = rng.gamma(2.0, 1.0, 500)
    simulated = observed * 0.7 + rng.normal(0, 0.2, 500)
    points = plots.Points(np.append(observed, np.nan), np.append(simulated, 1.0))
    figure = plots.density_scatter({"runoff": points})
    expected = metrics(
        xr.DataArray(simulated, dims="n"), xr.DataArray(observed, dims="n"), "n"
    )
    nse, kge, r, rmse, bias = (
        float(expected.sel(metric=m)) for m in ("nse", "kge", "r", "rmse", "bias")
    )
    assert bias < 0
    assert texts(figure) == [
        f"NSE {nse:.2f}, KGE {kge:.2f}, $r$ {r:.2f}\n"
        f"RMSE {rmse:.2g}, bias \N{MINUS SIGN}{-bias:.2g} mm d⁻¹"
    ]
    assert figure.axes[0].get_title("left") == "(a) Runoff, n = 500"


def test_the_density_of_a_panel_adds_up_to_all_points(rng):
    values = rng.normal(size=1000)
    figure = plots.density_scatter({"tws": plots.Points(values, values)})
    assert figure.axes[0].collections[0].get_array().sum() == pytest.approx(100)


# skill, story, equifinality


def test_a_model_far_below_the_axis_is_an_arrow():
    summary = xr.DataArray(
        np.reshape([0.5, -7.0], (2, 1, 1, 1, 1, 1, 1)),
        {
            "model": ["h2mv", "untrained"],
            "variable": ["swe"],
            "scale": ["daily"],
            "metric": ["nse"],
            "cells": ["test"],
            "region": ["globe"],
            "statistic": ["median"],
        },
    )
    axis = plots.skill_scores(xr.Dataset({"summary": summary})).axes[0]
    arrows = [line.get_xdata() for line in axis.lines if line.get_marker() == "<"]
    np.testing.assert_array_equal(np.concatenate(arrows), [-1])


def one_cell():
    series = np.linspace(0, 1, len(DAYS))
    names = ("rainfall", "snowfall", "swe", "soil_moisture", "baseflow")
    cell = xr.Dataset({name: ("time", series) for name in names}, {"time": DAYS})
    cell["surface_runoff"] = 2 * cell.baseflow
    cell["observed_runoff"] = cell.baseflow.where(cell.time.dt.day == 1)
    cell.observed_runoff.attrs["cadence"] = "monthly"
    return cell.assign(soil_water_capacity=3.0)


def test_a_story_tells_the_years_asked_for_and_what_is_known():
    figure = plots.cell_story(one_cell(), years=(2002, 2003), heading="Here")
    assert len(figure.axes) == 4  # precipitation, snow, soil and runoff
    snow = figure.axes[1].lines[0].get_xdata()
    assert snow[0] == np.datetime64("2002-01-01")
    assert snow[-1] == np.datetime64("2003-12-31")


def test_runoff_is_stacked_of_its_parts_and_a_bar_lies_over_each_observed_month():
    axis = plots.cell_story(one_cell(), years=(2004,)).axes[3]
    *parts, observed = axis.collections
    assert len(parts) == 2
    top = parts[-1].get_paths()[0].get_extents().y1
    assert top == pytest.approx(3.0, abs=1e-6)
    assert len(observed.get_segments()) == 12


def test_the_bars_of_equifinality_end_at_their_sum():
    names = ["swe", "runoff", "fapar"]
    values = np.arange(18.0).reshape(2, 3, 3)
    dataset = xr.Dataset(
        {"decomposition": (("step", "variable", "term"), values)},
        {
            "step": ["daily", "annual"],
            "variable": names,
            "term": ["mean", "deviation", "covariance"],
        },
    )
    axis = plots.decomposition(dataset).axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["fAPAR", "SWE", "Runoff"]  # coefficients, states, fluxes
    ends = [bar.get_x() + bar.get_width() for bar in axis.containers[-1]]
    np.testing.assert_allclose(ends, [6 + 7 + 8, 0 + 1 + 2, 3 + 4 + 5])


def test_maps_of_the_spread_have_the_units_of_their_variables():
    spread = xr.concat([grid(np.ones((2, 3)))] * 2, "variable")
    spread = spread.assign_coords(variable=["swe", "runoff"])
    figure = plots.spread_maps(xr.Dataset({"spread": spread}))
    titles = [axis.get_title("left") for axis in figure.axes]
    assert [t for t in titles if t] == ["(a) SWE [mm]", "(b) Runoff [mm d⁻¹]"]


# print


def test_figures_fit_a_page_and_no_text_is_smaller_than_7_points():
    dataset = xr.Dataset({"observed": regional(1.0), "simulated": regional(2.0)})
    for figure in (
        plots.field_maps([field(grid(np.ones((2, 3))))] * 9),
        plots.seasonal_cycles({"swe": dataset, "runoff": dataset}),
        plots.cell_story(one_cell(), years=(2002,)),
    ):
        width, height = figure.get_size_inches() * 25.4
        assert width <= 180.01
        assert height <= 235.01
        figure.draw_without_rendering()
        ticks = [t for axis in figure.axes for t in axis.get_xticklabels()]
        assert min(t.get_fontsize() for t in [*ticks, *figure.texts]) >= 7


def test_a_figure_is_replaced_only_when_it_is_written(tmp_path):
    file = tmp_path / "map.png"
    file.write_text("old")
    figure = plots.field_maps([field(grid(np.ones((2, 3))))])
    assert style.save(figure, file) == file
    assert file.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [file]


def test_a_story_in_months_draws_them_at_their_middle():
    monthly = one_cell().drop_vars("soil_water_capacity")
    monthly = monthly.resample(time="MS").mean()
    monthly.observed_runoff.attrs["cadence"] = "monthly"
    figure = plots.cell_story(monthly, years=(2002,))
    assert figure.axes[1].lines[0].get_xdata()[0] == np.datetime64("2002-01-15")
    begin, _ = figure.axes[3].collections[-1].get_segments()[0][:, 0]
    assert mdates.num2date(begin).day == 1
