"""The tutorial runs from top to bottom, and is committed as it runs."""

import copy
import re

import nbclient
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from scripts import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
MOST = 1_000_000  # bytes


@pytest.fixture(scope="module")
def tutorial():
    return nbformat.read(TUTORIAL, as_version=4)


def of_kind(notebook, kind):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def outputs(notebook):
    return [output for cell in of_kind(notebook, "code") for output in cell.outputs]


def figures(notebook):
    return [o for o in outputs(notebook) if "image/png" in o.get("data", {})]


def wrong(notebook):
    """What should not be among the outputs."""
    return [
        output.get("text") or output.get("evalue")
        for output in outputs(notebook)
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def test_the_tutorial_runs_and_says_nothing_of_its_own(tutorial, tmp_path):
    (tmp_path / "docs").mkdir()
    for folder in ("h2mv_tf", "saved_models"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    notebook = copy.deepcopy(tutorial)
    for cell in of_kind(notebook, "code"):
        cell.outputs = []
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path / "docs")}},
    )
    client.execute()
    assert not wrong(notebook)
    assert len(figures(notebook)) == len(figures(tutorial))


def test_a_mistake_in_a_notebook_is_one_line(capsys):
    shell = InteractiveShell()
    code = "import h2mv_tf.errors\nraise h2mv_tf.errors.UserError('What to do.')"
    shell.run_cell(code)
    assert capsys.readouterr().out.strip() == "UserError: What to do."


def test_the_tutorial_is_committed_with_its_outputs(tutorial):
    nbformat.validate(tutorial)
    counts = [cell.execution_count for cell in of_kind(tutorial, "code")]
    assert counts == list(range(1, len(counts) + 1))
    assert not wrong(tutorial)
    assert TUTORIAL.stat().st_size < MOST


def test_every_figure_has_a_caption(tutorial):
    text = "\n".join(cell.source for cell in of_kind(tutorial, "markdown"))
    numbers = re.findall(r"^\*Figure (\d+)\.", text, re.MULTILINE)
    assert numbers == [str(n + 1) for n in range(len(figures(tutorial)))]


def test_its_links_lead_to_files_and_it_names_no_place_of_this_machine(tutorial):
    for cell in of_kind(tutorial, "markdown"):
        for target in re.findall(r"\]\(([^)#\s]+)", cell.source):
            assert (TUTORIAL.parent / target).exists(), target
    assert not re.search(r"/(work|root|tmp|home)/", TUTORIAL.read_text("utf-8"))
