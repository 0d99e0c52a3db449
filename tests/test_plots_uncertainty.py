"""Figures of the posterior say what its scores say."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import beta, binom

from h2mv_tf import figures, plots, predictions, report
from h2mv_tf.config import Config
from h2mv_tf.figures.folder import PROBABILISTIC as FILE
from h2mv_tf.figures.folder import Folder
from h2mv_tf.figures.material import Material
from h2mv_tf.plots import style, twin
from h2mv_tf.plots.uncertainty import color_bars
from h2mv_tf.report.parts import number
from h2mv_tf.report.uncertainty import section
from h2mv_tf.run_folder import RunFolder

# Variable -> parameters of the beta distribution that its PIT has: 1, 1 is calibrated,
# less is a U of narrow samples, more a hump of wide ones.
OBSERVED = {
    "tws": (1.0, 1.0),
    "evapotranspiration": (0.85, 0.95),
    "runoff": (1.1, 0.8),
    "swe": (1.0, 1.1),
    "fapar": (0.6, 0.6),
}
HIDDEN = {
    "soil_water_capacity": (0.8, 1.2),
    "soil_moisture": (0.7, 0.9),
    "groundwater": (0.3, 0.3),
    "transpiration": (0.9, 1.0),
    "soil_evaporation": (0.6, 0.8),
    "baseflow": (0.4, 0.5),
    "groundwater_recharge_coefficient": (1.5, 1.5),
    "snowmelt_factor": (0.5, 0.4),
    "relative_soil_moisture": (0.8, 0.8),
}
PAIRS = 3000
LEVELS, NOMINAL, BINS = [0.5, 0.9], np.arange(1, 20) / 20, 20
SPREADS = {"tws": 15.0, "swe": 8.0, "soil_water_capacity": 60.0, "groundwater": 20.0}
EXPERIMENTS = {
    "without tws": {"groundwater": 3.5, "soil_water_capacity": 1.6},
    "without evapotranspiration": {"transpiration": 2.2, "soil_evaporation": 2.4},
    "all": {},
    "without runoff": {"baseflow": 2.6, "groundwater": 1.3},
    "without swe": {"snowmelt_factor": 4.2},
    "without fapar": {"transpiration": 1.2, "soil_evaporation": 1.3},
}


def calibration(parameters, dim, prefix, *, tested):
    """Scores of variables whose PIT has a beta distribution, from its closed form."""
    names, cells = list(parameters), ["test", "all"]
    count, edges = len(names), np.linspace(0, 1, BINS + 1)
    below = {name: beta(*shape).cdf for name, shape in parameters.items()}
    shares = np.array([np.diff(cdf(edges)) for cdf in below.values()])
    inside = [
        [cdf(0.5 + level / 2) - cdf(0.5 - level / 2) for level in LEVELS]
        for cdf in below.values()
    ]
    groups = np.geomspace(0.4, 2.2, 10)
    spread = np.array([SPREADS.get(name, 0.3) * groups for name in names])
    narrow = np.array([(1 / (a + b) + 0.5) ** 0.7 for a, b in parameters.values()])
    error = spread * narrow[:, None] * np.linspace(1.15, 0.9, 10)
    values = {
        "pit": ((dim, "bin"), shares),
        "reliability": ((dim, "nominal"), [cdf(NOMINAL) for cdf in below.values()]),
        "coverage": ((dim, "level"), inside),
        "sharpness": ((dim, "level"), np.outer(spread.mean(axis=1), [1.35, 3.29])),
        "spread": ((dim, "group"), spread),
        "error": ((dim, "group"), error),
        "spread_skill": ((dim,), 1 / narrow),
        "crps": ((dim,), 0.56 * error.mean(axis=1)),
        "crps_deterministic": ((dim,), 0.8 * error.mean(axis=1)),
    }
    coordinates = {dim: names, "level": LEVELS, "nominal": NOMINAL}
    scores = xr.Dataset(values, coordinates).expand_dims(cells=cells, axis=-1)
    if not tested:
        scores = scores.where(scores.cells == "all")
    counts = np.full((count, 2), [PAIRS * tested, 9 * PAIRS])
    scores["count"] = (dim, "cells"), counts
    return scores.rename({name: f"{prefix}{name}" for name in scores.data_vars})


def grid(rows, columns):
    """A wet west and a dry east (lat, lon) from 0 to 1; the corners are sea."""
    lat, lon = np.linspace(70, -50, rows), np.linspace(-110, 140, columns)
    west, north = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    values = 0.5 + 0.3 * np.sin(3 * west + 1) * np.cos(4 * north) + 0.15 * (west - 0.5)
    sea = np.hypot(west - 0.5, north - 0.5) > 0.6
    return xr.DataArray(np.where(sea, np.nan, values), {"lat": lat, "lon": lon})


def sites(count):
    lat, lon = np.linspace(-40, 60, count), np.linspace(-100, 100, count)
    names = [f"site {n}" for n in range(count)]
    coordinates = {"lat": ("cell", lat), "lon": ("cell", lon), "name": ("cell", names)}
    return xr.DataArray(np.linspace(0.1, 0.9, count), coordinates, ("cell",))


def probabilistic(*, space=None, tested=True):
    """A probabilistic evaluation, as probabilistic.nc has it."""
    space = grid(6, 9) if space is None else space
    scores = xr.merge(
        [
            calibration(OBSERVED, "variable", "", tested=tested),
            calibration(HIDDEN, "truth_variable", "truth_", tested=tested),
        ]
    )
    shares = xr.concat([0.4 * space, 1 - 0.5 * space], "level").assign_coords(
        level=LEVELS
    )
    scores["truth_coverage_map"] = xr.concat([shares] * len(HIDDEN), "truth_variable")
    names = [*HIDDEN, "swe"]
    place = xr.DataArray(np.arange(len(names)), {"width_variable": names})
    relative = (1.1 - space) * (0.7 + 0.08 * place)
    prior = xr.DataArray([SPREADS.get(n, 0.3) for n in names], place.coords)
    scores["relative_width"] = relative.transpose("width_variable", ...)
    scores["posterior_width"] = (relative * prior).transpose("width_variable", ...)
    return scores


def experiments():
    """Twin experiments, in which a constraint constrains what `EXPERIMENTS` says."""
    names, metrics = [*HIDDEN], ["nse", "relative_width"]
    values = np.empty((len(EXPERIMENTS), len(names), len(metrics)))
    for row, lost in enumerate(EXPERIMENTS.values()):
        for column, name in enumerate(names):
            wider = lost.get(name, 1.0 + 0.01 * row)
            skill = 0.8 - 0.04 * column
            values[row, column] = skill - 0.35 * (wider - 1), 0.2 * wider
    coordinates = {
        "experiment": list(EXPERIMENTS),
        "variable": names,
        "metric": metrics,
    }
    return xr.Dataset({"score": (tuple(coordinates), values)}, coordinates)


def panel(figure, title):
    """The panel with a title, whatever its letter."""
    (found,) = (
        axis
        for axis in figure.axes
        if axis.get_title("left").partition(") ")[2] == title
    )
    return found


def drawn(axis, label):
    return next(line for line in axis.lines if line.get_label() == label)


def mesh(axis):
    """The colours of a map, above its white land."""
    return next(m for m in axis.collections if m.colorbar is not None).get_array()


# observations and hidden truth


def test_a_calibrated_variable_lies_on_the_diagonal():
    axis = panel(plots.reliability(probabilistic()), "Observations")
    x, y = drawn(axis, "TWS").get_data()
    np.testing.assert_allclose(y, x)
    narrow = drawn(axis, "fAPAR").get_ydata()
    assert narrow[0] > NOMINAL[0]
    assert narrow[-1] < NOMINAL[-1]


def test_the_truth_has_a_panel_only_where_it_is_known():
    scores = probabilistic()
    observed = scores.drop_vars([v for v in scores if v.startswith("truth_")])
    for draw in (plots.reliability, plots.coverage):
        assert len(draw(scores).axes) == 2
        assert len(draw(observed).axes) == 1
    assert len(plots.pit_histograms(observed).axes) == len(OBSERVED)


def test_the_bars_of_a_pit_have_an_area_of_1():
    axis = panel(plots.pit_histograms(probabilistic()), "Groundwater")
    area = sum(bar.get_height() * bar.get_width() for bar in axis.patches[:BINS])
    assert area == pytest.approx(1)


def test_the_band_of_a_pit_is_of_the_pairs_of_the_cells_that_are_shown():
    scores = probabilistic()
    *_, band = panel(plots.pit_histograms(scores), "TWS").patches
    low, high = binom.interval(0.95, PAIRS, 1 / BINS)
    ends = band.get_y(), band.get_y() + band.get_height()
    np.testing.assert_allclose(ends, np.array([low, high]) / PAIRS * BINS)
    uncounted = plots.pit_histograms(scores.drop_vars("count"))
    assert len(panel(uncounted, "TWS").patches) == BINS


def test_spread_stands_against_error_on_axes_of_the_same_limits():
    scores = probabilistic()
    axis = panel(plots.spread_skill(scores), "Groundwater")
    chosen = scores.sel(truth_variable="groundwater", cells="test")
    *_, points = axis.lines
    np.testing.assert_array_equal(points.get_xdata(), chosen.truth_spread)
    np.testing.assert_array_equal(points.get_ydata(), chosen.truth_error)
    assert axis.get_xlim() == axis.get_ylim()
    assert axis.get_xlabel() == "Spread [mm]"
    ratio = float(chosen.truth_spread_skill)
    assert axis.texts[0].get_text() == f"spread / error {ratio:.2f}"


def test_a_group_without_spread_is_shown_too():
    scores = probabilistic()
    scores["spread"] = scores.spread.where(
        scores.spread > scores.spread.min("group"), 0
    )
    axis = panel(plots.spread_skill(scores), "SWE")
    assert axis.get_xscale() == "linear"
    assert axis.lines[-1].get_xdata()[0] == 0


def test_each_variable_has_its_coverage_in_a_row_of_its_own():
    scores = probabilistic()
    axis = panel(plots.coverage(scores), "Hidden truth")
    rows = [label.get_text() for label in axis.get_yticklabels()]
    assert len(rows) == len(HIDDEN)
    assert rows[0] == "Groundwater recharge coefficient"  # learned ones first
    known = scores.truth_coverage.sel(truth_variable="groundwater", cells="test")
    found = [
        line.get_xdata()[rows.index("Groundwater")]
        for line in axis.lines
        if len(line.get_xdata()) == len(rows)
    ]
    np.testing.assert_allclose(found, known)


def test_all_cells_are_shown_where_none_tests():
    figure = plots.coverage(probabilistic(tested=False))
    (*_, values) = panel(figure, "Observations").lines[:4]
    assert np.isfinite(values.get_xdata()).all()
    *_, band = panel(plots.pit_histograms(probabilistic(tested=False)), "TWS").patches
    low, _ = binom.interval(0.95, 9 * PAIRS, 1 / BINS)
    assert band.get_y() == pytest.approx(low / (9 * PAIRS) * BINS)


# maps


def test_a_map_of_widths_goes_from_the_data_to_the_prior():
    figure = plots.width_maps(probabilistic())
    for bar in color_bars(figure):
        assert (bar.vmin, bar.vmax) == (0, 1)
        words = [label.get_text() for label in bar.ax.get_xticklabels()]
        assert words == ["0 (data)", "0.5", "1 (prior)"]
    shown = mesh(panel(figure, "Soil moisture [–]"))  # noqa: RUF001
    expected = probabilistic().relative_width.sel(width_variable="soil_moisture")
    np.testing.assert_allclose(shown.filled(np.nan), expected)


def test_without_a_prior_the_widths_have_the_units_of_their_variables():
    figure = plots.width_maps(probabilistic().drop_vars("relative_width"))
    assert panel(figure, "Soil water capacity [mm]")


def test_the_map_of_coverage_is_of_the_interval_of_90_percent():
    figure = plots.truth_coverage_maps(probabilistic())
    shown = mesh(panel(figure, "Groundwater [–]"))  # noqa: RUF001
    np.testing.assert_allclose(shown.filled(np.nan), 1 - 0.5 * grid(6, 9))


def test_widths_of_a_few_sites_have_a_line_each():
    figure = plots.width_maps(probabilistic(space=sites(5)))
    assert not color_bars(figure)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [f"site {n}" for n in range(5)]


# twin experiments


def test_the_table_of_a_twin_has_the_score_of_each_experiment():
    figure = twin.skill(experiments())
    table = figure.axes[0]
    heads = [label.get_text() for label in table.get_xticklabels()]
    assert heads[:3] == ["all\nconstraints", "without\nTWS", "without\nET"]
    row = list(HIDDEN).index("groundwater")
    texts = [text.get_text() for text in table.texts]
    score = experiments().score.sel(variable="groundwater", metric="nse")
    alone = float(score.sel(experiment="without tws"))
    assert alone < 0
    assert texts[row * len(heads) + 1] == f"\N{MINUS SIGN}{-alone:.2f}"
    colors = table.collections[0].get_array()
    np.testing.assert_array_equal(colors[:, 0], 0)  # nothing differs from itself
    assert colors[row, 1] == pytest.approx(alone - float(score.sel(experiment="all")))


def test_a_score_that_is_not_known_is_a_dash_without_colour():
    known = experiments()
    hidden = (known["variable"] == "baseflow") & (known.experiment == "without swe")
    table = twin.skill(known.where(~hidden)).axes[0]
    assert [text.get_text() for text in table.texts].count("–") == 1  # noqa: RUF001
    assert np.ma.count_masked(table.collections[0].get_array()) == 1


def test_widths_are_relative_to_those_with_all_constraints():
    axis = twin.widths(experiments()).axes[0]
    ratios = drawn(axis, "without TWS").get_xdata()
    expected = EXPERIMENTS["without tws"]["groundwater"] / 1.02
    assert ratios[list(HIDDEN).index("groundwater")] == pytest.approx(expected)
    assert axis.get_xscale() == "log"


@pytest.mark.parametrize("space", [grid(6, 9), sites(5)], ids=["grid", "sites"])
def test_a_widening_is_centred_on_1_and_told_as_a_ratio(space):
    names = ["groundwater", "soil_water_capacity", "runoff"]
    wider = xr.concat([4 * space, space**0, space], "width_variable")
    figure = twin.widening_maps(wider.assign_coords(width_variable=names))
    bars = color_bars(figure)
    axes = [bar.ax for bar in bars] or figure.axes
    assert len(axes) == 2  # of runoff there is none
    for bar in bars:
        assert bar.vmin == -bar.vmax
    figure.draw_without_rendering()
    ticks = zip(axes[0].get_xticks(), axes[0].get_xticklabels(), strict=True)
    for tick, label in ticks:
        assert float(label.get_text()) == pytest.approx(2**tick, rel=0.05)


def test_figures_of_samples_fit_a_page_and_no_text_is_clipped():
    scores = probabilistic()
    wider = scores.relative_width + 1
    for figure in (
        plots.reliability(scores),
        plots.pit_histograms(scores),
        plots.spread_skill(scores),
        plots.coverage(scores),
        plots.width_maps(scores),
        plots.truth_coverage_maps(scores),
        twin.skill(experiments()),
        twin.widths(experiments()),
        twin.widening_maps(wider),
    ):
        width, height = figure.get_size_inches() * 25.4
        assert width <= 180.01
        assert height <= 235.01
        figure.set_dpi(style.DPI)
        figure.draw_without_rendering()
        needed = figure.get_tightbbox()
        assert needed.x0 > -0.01
        assert needed.y0 > -0.01
        assert needed.x1 < figure.get_figwidth() + 0.01
        assert needed.y1 < figure.get_figheight() + 0.01


# folders


@pytest.fixture
def run(tmp_path):
    """A run folder as a training leaves it, but for the model."""
    run = RunFolder(tmp_path / "run")
    with run.made():
        pass
    run.save_config(Config(data={"store": "world.zarr"}))
    table = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "val_loss": [2.0, 1.5]})
    table.to_csv(run.history_file, index=False)
    return run


def evaluated(run, scores, of="samples"):
    folder = run.path / f"{of}.evaluation"
    folder.mkdir()
    scores.to_netcdf(folder / FILE)


NAMES = {
    "coverage",
    "reliability",
    "pit_histograms",
    "spread_skill",
    "width_maps",
    "truth_coverage_maps",
}


@pytest.mark.parametrize("of", ["samples", "predictions"])
def test_a_folder_with_evaluated_samples_gets_their_figures(run, of):
    evaluated(run, probabilistic(), of)
    files = figures.draw(run.path, formats=("png",))
    assert {file.stem for file in files} == {"loss_curves", *NAMES}


def test_a_figure_that_samples_have_nothing_for_is_left_out(run):
    scores = probabilistic()
    evaluated(run, scores.drop_vars([v for v in scores if v.startswith("truth_")]))
    files = {file.stem for file in figures.draw(run.path, formats=("png",))}
    assert NAMES - files == {"truth_coverage_maps"}


def samples(file):
    """Samples of 2 x 3 cells and a month, the mean of which is 2 mm a day."""
    space, days = ("lat", "lon"), pd.date_range("2001-01-01", periods=31)
    values = np.broadcast_to([[[[1.0]]], [[[3.0]]]], (2, 31, 2, 3))
    bounds = predictions.time_bounds(days, monthly=False)
    xr.Dataset(
        {
            "runoff": (("realization", "time", *space), values, {"units": "mm d-1"}),
            "time_bnds": bounds,
            "cell_area": (space, np.ones((2, 3))),
            "role": (space, np.ones((2, 3), "int8")),
        },
        {
            "realization": [0, 1],
            "member": ("realization", ["", ""]),
            "time": days,
            "lat": [10.0, 0.0],
            "lon": [0.0, 10.0, 20.0],
        },
        {predictions.MARK: "native", predictions.SAMPLES_OF: "posterior"},
    ).to_zarr(file, zarr_format=2, consolidated=False)


def test_samples_that_wait_for_an_evaluation_are_told(run, caplog):
    samples(run.path / "samples.zarr")
    with caplog.at_level("INFO"):
        figures.draw(run.path, formats=("png",))
    assert "the samples have not been evaluated" in caplog.text
    page = report.write(run.path).read_text(encoding="utf-8")
    assert "Evaluation of the samples: " in page
    assert "samples.zarr --data world.zarr" in page


def test_where_nothing_else_was_predicted_the_mean_of_samples_is_drawn(run):
    samples(run.path / "samples.zarr")
    means = Material(Folder(run.path)).means
    np.testing.assert_array_equal(means.runoff, np.full((2, 3), 2.0))


# the report


def test_a_report_has_the_numbers_of_the_samples(run):
    scores = probabilistic()
    evaluated(run, scores)
    observed, hidden = section(
        run.path / "samples.evaluation" / FILE, run.figures
    ).tables
    assert observed.caption == "Samples against observations, test cells"
    chosen = scores.sel(truth_variable="groundwater", cells="test")
    expected = [
        number(float(chosen.truth_crps)),
        number(float(chosen.truth_crps_deterministic)),
        *(f"{share:.2f}" for share in chosen.truth_coverage.values),
        number(float(chosen.truth_sharpness.sel(level=0.9))),
        f"{float(chosen.truth_spread_skill):.2f}",
    ]
    assert ("Groundwater [mm]", *expected) in hidden.rows


def test_a_report_tells_what_samples_say_of_the_constants(run):
    scores = probabilistic()
    scores["constant_mean"] = "constant_name", [0.95]
    scores["constant_quantile"] = ("constant_name", "quantile"), [[0.9, 0.99]]
    scores["constant_truth"] = "constant_name", [0.93]
    names = {"constant_name": ["snowfall_correction"], "quantile": [0.05, 0.95]}
    evaluated(run, scores.assign_coords(names))
    *_, table = section(run.path / "samples.evaluation" / FILE, run.figures).tables
    assert table.columns == ("constant", "mean", "5 %", "95 %", "truth")
    ((name, *values),) = table.rows
    assert name.startswith("Snowfall correction")
    assert values == ["0.950", "0.900", "0.990", "0.930"]


def test_a_page_has_a_section_on_uncertainty_only_where_samples_are_evaluated(run):
    heading = ">Uncertainty</h2>"
    assert heading not in report.write(run.path).read_text(encoding="utf-8")
    evaluated(run, probabilistic())
    files = figures.draw(run.path, formats=("png",))
    page = report.write(run.path).read_text(encoding="utf-8")
    assert heading in page
    assert page.count("<img") == len(files)
