"""What README and docs say is what the software does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from h2mv_tf import config, variables

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "saved_models" / "demo" / "README.md"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "saved_models" / "README.md",
    DEMO,
]


def table(page: Path, header: str) -> list[list[str]]:
    """The cells of the table below a header line."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_readme_lists_every_output_with_its_unit():
    listed = table(ROOT / "README.md", "| output | symbol | unit |")
    expected = [
        [f"`{v.name}`", v.symbol, v.units, v.long_name]
        for v in (variables.VARIABLES[name] for name in variables.OUTPUTS)
    ]
    assert listed == expected


def test_the_configuration_page_lists_every_field_with_its_default():
    listed = {
        row[0].strip("`"): row[1].strip("`")
        for row in table(ROOT / "docs" / "training.md", "| field | default |")
    }
    listed.pop("synthetic.*")
    expected = {}
    for name, section in config.Config():
        if section is not None:
            for field, value in section:
                if isinstance(value, config.Section):
                    value = value.model_dump(exclude_none=True)
                expected[f"{name}.{field}"] = value
    assert set(listed) == set(expected)
    for field, value in expected.items():
        shown = yaml.safe_load(listed[field]) if listed[field] else None
        assert config.load(None, [f"{field}={listed[field]}"]) == config.Config(), field
        assert shown == value or str(shown) == str(value), field


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_no_place_of_this_machine(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"/(work|root|tmp|home)/", text)


@pytest.mark.parametrize(
    ("page", "count"),
    [
        ("cluster", 1),
        ("predictions", 1),
        ("cross_validation", 2),
        ("published_model", 1),
        ("tuning", 1),
    ],
)
def test_the_scripts_of_a_page_are_scripts(page, count):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    scripts = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    assert len(scripts) == count
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_search_space_of_the_tuning_page_can_be_searched(tmp_path):
    from h2mv_tf.tuning import space

    text = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    (content,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "space.yaml").write_text(content, encoding="utf-8")
    found = space.load(tmp_path / "space.yaml")
    found.refuse_unfit(config.Config(), "random")
    assert found.folds == (1, 2, 3)


@pytest.mark.parametrize("page", [ROOT / "README.md", DEMO], ids=["README", "demo"])
def test_the_python_that_a_visitor_runs_first_runs_the_demo_model(page):
    text = page.read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    for name in ("swe", "soil_moisture", "runoff"):
        assert name in result.stdout


def test_the_python_of_the_data_page_makes_a_store(tmp_path, monkeypatch):
    from h2mv_tf.data.check import Check
    from h2mv_tf.data.store import Store
    from h2mv_tf.data.survey import survey

    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, "data.md", "exec"), {})
    store = Store.open("alps.zarr")
    assert store.static_names == ("elevation", "slope")
    assert store.constraints == ("swe",)
    assert not Check.of(survey(store)).serious
