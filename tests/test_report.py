"""The report, as a reader and as a browser see it."""

import base64
import html
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner
from matplotlib.figure import Figure

from h2mv_tf import __version__, report
from h2mv_tf.__main__ import main as h2mv_tf
from h2mv_tf.config import Config
from h2mv_tf.errors import UserError
from h2mv_tf.report.parts import number
from h2mv_tf.run_folder import RunFolder

BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
browser_test = pytest.mark.skipif(
    BROWSER is None, reason="needs chromium, which .ci/run installs where it can"
)

STORE = "data/<b>R&D</b>.zarr"
LOSSES = {"tws": 0.19654443, "runoff": 0.8711833953857422, "swe": 6.164e-17}
UNTRAINED = {"tws": 0.3132762, "runoff": 0.87357597, "swe": 6.164e-17}
METRICS = ("nse", "kge", "rmse", "percent_bias")
TITLE = "Made up <i>for a test</i>"
NONE = ["\u2013"]
# step, variable, term
DIFFERENCES = np.arange(1, 13).reshape(2, 2, 3) / 100


class Page(HTMLParser):
    """What a page is made of: its elements, its tables, its text."""

    def __init__(self, file: Path):
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: list[list[list[str]]] = []
        self.words = ""
        self._cell: list[str] | None = None
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self._cell = self.tables[-1][-1]

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self._cell = None

    def handle_data(self, data):
        self.words += data
        if self._cell is not None:
            self._cell[-1] += data

    def all(self, tag):
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, *head):
        """The numbers of the first row with this head, in any table."""
        for table in self.tables:
            for row in table:
                if tuple(row[: len(head)]) == head:
                    return row[len(head) :]
        raise AssertionError(f"no row {head} in {self.tables}")


def trained(folder, fold=1, residual=6.5e-05):
    """A run folder as a training leaves it, but for the model."""
    run = RunFolder(folder)
    with run.made():
        pass
    run.save_config(Config(data={"store": STORE}, split={"fold": fold}))
    results = {
        key: {"loss": sum(terms.values()), "terms": terms, "residual": residual}
        | {"counts": dict.fromkeys(terms, 5)}
        for key, terms in (("untrained", UNTRAINED), ("test", LOSSES))
    }
    best = {"best_epoch": 1, "validation_loss": 0.4}
    best |= {"measure": "mean squared error", "counted": "windows"}
    run.save_json(run.metrics_file, results | best)
    losses = {"loss": 2.8, "tws": 0.3, "val_loss": 0.4, "val_tws": 0.091203}
    run.save_history([{"epoch": 1, **losses}, {"epoch": 2, **losses, "val_loss": 0.5}])
    cells = {"train": 35, "validation": 4, "test": 5}
    distances = {"validation": 3305.4, "test": 2223.9}
    run.save_json(run.leakage_file, {"cells": cells, "least_distance_km": distances})
    for name in ("loss_curves", "roles"):
        draw(run.figures / f"{name}.png")
    return run


def draw(file):
    """A small figure, which differs from one name to another."""
    file.parent.mkdir(exist_ok=True)
    figure = Figure(figsize=(3, 2))
    figure.subplots().set_title(file.stem)
    figure.savefig(file, dpi=100)


def scores():
    """An evaluation of numbers that tell where they come from."""
    names = {
        "model": ["h2mv", "untrained", "mean seasonal cycle"],
        "variable": ["runoff", "swe"],
        "scale": ["daily", "monthly"],
        "metric": list(METRICS),
        "cells": ["test", "all"],
        "region": ["globe", "arid"],
        "statistic": ["mean series", "mean", "median"],
    }
    shape = [len(values) for values in names.values()]
    summary = np.arange(math.prod(shape), dtype="float64").reshape(shape) / 100
    dataset = xr.Dataset(coords=names | {"quantity": ["runoff_ratio"]})
    dataset["summary"] = tuple(names), summary
    # A monthly constraint has no days.
    monthly = (dataset["variable"] == "runoff") & (dataset.scale == "daily")
    dataset["summary"] = dataset.summary.where(~monthly)
    of_truth = dataset.summary.isel(model=0, drop=True) + 20
    dataset["truth_summary"] = of_truth.rename(variable="truth_variable")
    for name, value in (("emergent_summary", 0.31), ("emergent_truth_summary", 0.42)):
        sizes = ("quantity", "cells", "region")
        dataset[name] = sizes, np.full((1, 2, 2), value)
    return dataset


def evaluated(predictions, largest_residual=8.1e-05):
    folder = predictions.with_suffix(".evaluation")
    folder.mkdir()
    scores().to_netcdf(folder / "scores.nc")
    balance = {"largest_residual": largest_residual, "largest_closure": 0.0021}
    balance |= {"cell": {"lat": 50.0, "lon": -12.9}, "days": 730}
    (folder / "metrics.json").write_text(json.dumps({"water_balance": balance}))


def simulated(file):
    """Predictions, of which a report reads the attributes and the time axis."""
    space, days = ("lat", "lon"), pd.date_range("2001-01-01", periods=3)
    dataset = xr.Dataset(
        {
            "runoff": (("time", *space), np.ones((3, 1, 2)), {"units": "mm d-1"}),
            "time_bnds": (("time", "bnds"), np.zeros((3, 2))),
            "cell_area": (space, np.ones((1, 2))),
            "role": (space, np.ones((1, 2), "int8")),
        },
        {"time": days, "lat": [10.0], "lon": [20.0, 21.0]},
        {"h2mv_tf_profile": "native", "title": TITLE, "configuration": "not: again"},
    )
    dataset.to_zarr(file, consolidated=False)


@pytest.fixture
def bare(tmp_path):
    """A run folder in which nothing but the configuration is there yet."""
    run = RunFolder(tmp_path / "bare")
    with run.made():
        pass
    run.save_config(Config(data={"store": STORE}))
    return run.path


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run folder with everything."""
    run = trained(tmp_path_factory.mktemp("runs") / "full")
    simulated(run.path / "predictions.zarr")
    evaluated(run.path / "predictions.zarr")
    for name in ("seasonal_cycles", "scores_swe", "my_own"):
        draw(run.figures / f"{name}.png")
    report.write(run.path)
    return run.path


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """A cross-validation of two folds, the second of which leaks water."""
    folder = tmp_path_factory.mktemp("folds") / "cv"
    trained(folder / "fold-01")
    trained(folder / "fold-02", fold=2, residual=0.0023)
    simulated(folder / "ensemble.zarr")
    evaluated(folder / "ensemble.zarr")
    differences = xr.Dataset(
        {
            "decomposition": (("step", "variable", "term"), DIFFERENCES),
            "total": (("step", "variable"), DIFFERENCES.sum(axis=2)),
            "relative_spread": (("variable", "cell"), [[0.1, 0.2, 0.9], [1, 1, 1]]),
        },
        {
            "step": ["daily", "annual"],
            "variable": ["runoff", "swe"],
            "term": ["mean", "deviation", "covariance"],
        },
    )
    (folder / "equifinality").mkdir()
    differences.to_netcdf(folder / "equifinality" / "equifinality.nc")
    draw(folder / "figures" / "equifinality.png")
    report.write(folder)
    return folder


@pytest.fixture(scope="module", params=["full", "folds"])
def page(request):
    """The page on either folder."""
    return Page(request.getfixturevalue(request.param) / "report.html")


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.8711833953857422, "", "0.871"),
        (0.87, "", "0.870"),
        (6.164e-17, "", "6.16e-17"),
        (3305.4, "", "3305"),
        (123.4, "", "123"),
        (0, "", "0"),
        (None, "", "\u2013"),
        (math.nan, "nse", "\u2013"),
        (-0.001, "nse", "0.00"),
        (-33.126, "kge", "-33.13"),
        (12.34, "percent_bias", "12.3"),
        (-1.19e-14, "bias", "0"),
    ],
)
def test_a_number_has_three_digits_or_what_is_usual_for_its_metric(value, metric, text):
    assert number(value, metric) == text


def test_the_configuration_stands_on_the_page_as_it_is(full):
    page = Page(full / "report.html")
    written = (full / "config.yaml").read_text(encoding="utf-8")
    assert written in page.words
    assert "commit" in written
    assert STORE in written


def test_what_made_the_run_is_told_at_the_top(full):
    page = Page(full / "report.html")
    top = page.words[: page.words.index("The water balance")]
    for words in ("Run full", f"h2mv_tf {__version__}", STORE, "1 of 10", "UTC"):
        assert words in top


def test_the_table_has_the_numbers_of_the_metrics(full):
    page = Page(full / "report.html")
    assert page.row("TWS") == ["0.300", "0.0912", "0.197", "0.313", "5"]
    assert page.row("Runoff") == [*NONE * 2, "0.871", "0.874", "5"]
    assert page.row("SWE") == [*NONE * 2, "6.16e-17", "6.16e-17", "5"]
    assert page.row("Loss")[:2] == ["2.80", "0.400"]
    assert page.row("Loss")[2] == number(sum(LOSSES.values()))
    assert page.row("validation") == ["4", "3305"]
    assert "is epoch 1, whose" in page.words


def test_the_table_of_skill_has_the_numbers_of_the_evaluation(full):
    page = Page(full / "report.html")
    chosen = scores().summary.sel(cells="test", region="globe", statistic="median")
    for scale, head in (("daily", ("SWE [mm]", "daily")), ("monthly", ("monthly",))):
        values = chosen.sel(variable="swe", scale=scale)
        expected = [
            number(values.sel(metric=metric, model=model).item(), metric)
            for metric in ("nse", "kge", "rmse")
            for model in values.model.values
        ]
        rows = [row for table in page.tables for row in table]
        assert [*head, *expected] in rows
    # Runoff is monthly: its days have no row.
    assert page.row("Runoff [mm d⁻¹]")[0] == "monthly"


def test_truth_and_emergent_quantities_are_on_the_page(full):
    page = Page(full / "report.html")
    of_truth = scores().truth_summary.sel(scale="daily", truth_variable="swe")
    of_truth = of_truth.sel(cells="test", region="globe", statistic="median")
    expected = [
        number(of_truth.sel(metric=m).item(), m) for m in ("nse", "kge", "rmse")
    ]
    assert page.row("SWE [mm]", expected[0]) == expected[1:]
    assert page.row("arid", "0.31") == ["0.42"]


def test_the_water_balance_stands_first_with_its_limit(full):
    page = Page(full / "report.html")
    assert [a["class"] for a in page.all("p") if "verdict" in a.get("class", "")] == [
        "verdict good"
    ]
    words = " ".join(page.words.split())
    assert "The water balance closes" in words
    assert "8.10e-05 mm d⁻¹ (predictions.zarr, evaluated)" in words
    assert "the limit is 0.001 mm d⁻¹" in words
    row = page.row("predictions.zarr, evaluated")
    assert row == ["8.10e-05", "0.00210", "730", "lat 50.0, lon -12.9"]


@pytest.mark.parametrize("residual", [0.0011, math.nan, None])
def test_a_water_balance_that_is_not_known_to_close_does_not(tmp_path, residual):
    run = trained(tmp_path / "run")
    evaluated(run.path / "predictions.zarr", residual)
    words = Page(report.write(run.path)).words
    assert "The water balance does not close" in words
    assert "The water balance closes" not in words


def test_predictions_tell_of_themselves(full):
    page = Page(full / "report.html")
    assert TITLE in page.words
    assert "2001-01-01 to 2001-01-03" in page.words
    assert "not: again" not in page.words


def test_every_figure_is_embedded_once_and_captioned(full):
    page = Page(full / "report.html")
    files = sorted((full / "figures").glob("*.png"))
    assert len(files) == len(page.all("img")) == 5
    for file in files:
        assert page.source.count(base64.b64encode(file.read_bytes()).decode()) == 1
    captions = re.findall(
        r"<figcaption><b>Figure (\d)\.</b> (.+)</figcaption>", page.source
    )
    assert [number for number, _ in captions] == ["1", "2", "3", "4", "5"]
    assert captions[-1][1] == "My own."
    assert "each cell: SWE" in captions[2][1]


def test_a_half_written_figure_is_left_out(tmp_path):
    run = trained(tmp_path / "run")
    (run.figures / ".skill.png").write_bytes(b"half")
    assert len(Page(report.write(run.path)).all("img")) == 2


def test_a_full_folder_lacks_nothing(full):
    assert "Not here yet" not in Page(full / "report.html").words


def test_what_is_missing_is_named_with_its_command(bare):
    page = Page(report.write(bare))
    part = page.words[page.words.index("Results on the test cells") :]
    store = f"'{STORE}'"
    for command in (
        f"python trainers/train.py --resume --run-dir {bare}",
        f"python -m h2mv_tf predict {bare}",
        f"python -m h2mv_tf evaluate {bare}/predictions.zarr --data {store}",
        f"python -m h2mv_tf plot {bare}",
    ):
        assert command in part
    assert not page.tables
    assert "Water balance" not in page.words


def test_what_a_cross_validation_lacks_is_named_with_its_command(tmp_path):
    trained(tmp_path / "cv" / "fold-01")
    run = RunFolder(tmp_path / "cv" / "fold-02")
    with run.made():
        pass
    run.save_config(Config())
    page = Page(report.write(tmp_path / "cv"))
    again = (
        f"python trainers/cross_validate.py --config {tmp_path}/cv/fold-01/config.yaml "
        f"--run-dir {tmp_path}/cv"
    )
    for words in (
        f"Results of fold-02: {again}",
        f"Ensemble: {again}",
        f"python -m h2mv_tf evaluate {tmp_path}/cv/ensemble.zarr --data",
        f"python -m h2mv_tf equifinality {tmp_path}/cv",
        f"python -m h2mv_tf plot {tmp_path}/cv",
    ):
        assert words in page.words
    assert page.row("fold-02") == ["0", *NONE * 5]


def test_a_cross_validation_shows_its_folds_and_the_worst_balance(folds):
    page = Page(folds / "report.html")
    loss, untrained = (number(sum(terms.values())) for terms in (LOSSES, UNTRAINED))
    expected = ["2", "1", "0.400", loss, untrained]
    assert page.row("fold-01") == [*expected, "6.50e-05"]
    assert page.row("fold-02") == [*expected, "0.00230"]
    assert page.row("mean")[3] == loss
    words = " ".join(page.words.split())
    assert "The water balance does not close" in words
    assert (
        "0.00230 mm d⁻¹ (trained model, test cells, worst of 2 folds: fold-02" in words
    )


def test_equifinality_is_shown_term_by_term(folds):
    page = Page(folds / "report.html")
    for kind, name, n, spread in (("flux", "Runoff", 0, 0.2), ("state", "SWE", 1, 1.0)):
        values = [v for step in DIFFERENCES[:, n] for v in (*step, step.sum())]
        assert page.row(kind, name) == [number(v) for v in (*values, spread)]


def test_html_in_a_name_is_only_text(page):
    assert STORE in page.words
    assert STORE not in page.source
    assert html.escape(STORE) in page.source
    assert not page.all("i")


def test_a_page_needs_nothing_but_itself(page):
    for _, attributes in page.elements:
        for key in ("src", "href", "srcset", "data", "poster", "action"):
            if key in attributes:
                assert attributes[key].startswith(("#", "data:"))
    assert not page.all("script")
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_a_page_can_be_read_by_those_who_do_not_see_it(page):
    known = [a["id"] for _, a in page.elements if "id" in a]
    assert len(set(known)) == len(known)
    references = [a["href"] for a in page.all("a")]
    references += [
        f"#{a['aria-labelledby']}" for _, a in page.elements if "aria-labelledby" in a
    ]
    assert {reference.removeprefix("#") for reference in references} <= set(known)
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    assert all(head["scope"] for head in page.all("th"))
    assert len(page.all("caption")) == len(page.tables) > 0
    assert len(page.all("h1")) == 1
    for table in page.tables:
        assert all(any(cell for cell in row) for row in table)


def test_a_report_is_written_over_an_older_one_and_leaves_nothing_behind(bare):
    (bare / "report.html").write_text("older")
    before = {path.name for path in bare.iterdir()}
    assert report.write(bare) == bare / "report.html"
    assert Page(bare / "report.html").all("main")
    assert {path.name for path in bare.iterdir()} == before


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("figures/skill.png", "python -m h2mv_tf plot"),
        ("metrics.json", "JSON"),
        ("predictions.evaluation/scores.nc", "NetCDF"),
    ],
)
def test_a_broken_file_is_named_in_one_line(bare, file, words):
    (bare / file).parent.mkdir(exist_ok=True)
    (bare / file).write_text("{broken")
    with pytest.raises(UserError, match=Path(file).name) as caught:
        report.write(bare)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (bare / "report.html").exists()


def test_the_verb_prints_where_the_report_is(bare, tmp_path):
    for arguments, file in (
        ([], bare / "report.html"),
        (["--to", f"{tmp_path / 'page.html'}"], tmp_path / "page.html"),
    ):
        result = CliRunner().invoke(h2mv_tf, ["report", f"{bare}", *arguments])
        assert result.exit_code == 0, result.output
        assert result.output == f"{file}\n"
        assert file.is_file()


def test_the_verb_refuses_in_one_line(bare, tmp_path):
    for arguments, words in (
        ([f"{tmp_path}"], "is no run folder and no cross-validation"),
        ([f"{tmp_path / 'none'}"], "is no run folder and no cross-validation"),
        ([f"{bare}", "--to", f"{tmp_path / 'none' / 'page.html'}"], "Cannot write"),
    ):
        result = CliRunner().invoke(h2mv_tf, ["report", *arguments])
        assert result.exit_code == 2
        assert result.output.startswith("error: ")
        assert words in result.output
        assert result.output.count("\n") == 1


def test_a_report_needs_no_tensorflow():
    code = "import sys, h2mv_tf.report; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Measures a page in a frame of some width, and writes what it finds into itself.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body>
<iframe width="{width}" height="800" srcdoc="{page}"></iframe>
<script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const all = (what) => [...page.querySelectorAll(what)];
  const seen = (element) => element.getBoundingClientRect().height > 0;
  const style = (what) => page.defaultView.getComputedStyle(page.querySelector(what));
  document.body.dataset.found = JSON.stringify({{
    sections: all("section > h2").filter(seen).map((head) => head.textContent),
    tables: all("table").filter(seen).length,
    figures: all("img").map((image) => image.naturalWidth),
    shown: all("img").map((image) => image.getBoundingClientRect().width),
    width: page.documentElement.scrollWidth,
    numbers: style("td").textAlign,
    paper: style("body").backgroundColor,
    figure: style("img").backgroundColor,
    requests: page.defaultView.performance.getEntriesByType("resource")
      .map((entry) => entry.name).filter((name) => !name.startsWith("data:")),
  }});
}};
</script>
"""


@pytest.fixture
def browser(tmp_path):
    """Runs the browser without a net; gives what it prints."""

    def run(*arguments, dark=False):
        command = [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu"),
            *("--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"),
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        ]
        result = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@browser_test
@pytest.mark.parametrize(("width", "dark"), [(1400, False), (360, True)])
def test_a_browser_shows_sections_tables_and_figures(
    full, tmp_path, browser, width, dark
):
    source = (full / "report.html").read_text(encoding="utf-8")
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.format(width=width, page=html.escape(source)))
    dom = browser("--window-size=1500,1000", "--dump-dom", harness.as_uri(), dark=dark)
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', dom)[1]))
    assert found["sections"] == [
        *("Water balance", "Objective", "Cells", "Skill", "Synthetic truth"),
        *("Emergent quantities", "Figures", "Configuration", "Predictions"),
    ]
    assert found["tables"] == len(Page(full / "report.html").tables)
    assert found["figures"] == [300] * 5
    assert all(100 < shown <= width for shown in found["shown"])
    assert found["width"] <= width  # what is wider scrolls by itself
    assert found["numbers"] == "right"
    assert found["requests"] == []
    assert (found["paper"] == "rgb(255, 255, 255)") != dark
    assert found["figure"] == "rgb(255, 255, 255)"


@browser_test
def test_a_browser_paints_the_page(folds, tmp_path, browser):
    picture = tmp_path / "page.png"
    page = (folds / "report.html").as_uri()
    browser("--window-size=1400,1000", f"--screenshot={picture}", page)
    painted = matplotlib.image.imread(picture)[..., :3]
    assert painted.shape[:2] == (1000, 1400)
    # Paper for the most part, and on it ink, and the red of a balance that fails.
    paper = (painted > 0.99).all(axis=-1).mean()
    assert 0.5 < paper < 0.99
    red = (painted[..., 0] > 0.5) & (painted[..., 1:] < 0.2).all(axis=-1)
    assert red.sum() > 100
