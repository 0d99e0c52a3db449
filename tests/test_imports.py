"""Imports flow one way; this page is the map."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "h2mv_tf"

# Module -> the modules of the package that it may import.
ALLOWED = {
    "__init__": {"errors"},
    "variables": set(),
    "errors": set(),
    "startup": set(),
    "physics": set(),
    "cell": {"variables", "physics"},
    "time_loop": {"cell"},
    "model": {"variables", "cell", "time_loop"},
    "objective": {"variables"},
    "config": {"variables", "errors", "data.units"},
    "data": set(),
    "data.writing": {"errors"},
    "data.units": set(),
    "data.store": {"variables", "errors", "data.writing"},
    "data.splits": {"errors", "data.writing"},
    "data.windows": {"errors"},
    "data.series": {"variables", "errors", "data.store"},
    "data.survey": {
        "variables",
        "errors",
        "data.store",
        "data.series",
        "data.windows",
    },
    "data.check": {
        "variables",
        "errors",
        "data.store",
        "data.survey",
        "data.units",
    },
    "data.pipeline": {"errors", "data.series", "data.windows"},
    "data.synthetic.fields": set(),
    "data.synthetic.planet": {"data.synthetic.fields"},
    "data.synthetic.weather": {
        "physics",
        "data.synthetic.fields",
        "data.synthetic.planet",
    },
    "data.synthetic.truth": {
        "variables",
        "physics",
        "data.synthetic.planet",
        "data.synthetic.weather",
    },
    "data.synthetic.observations": {
        "data.synthetic.planet",
        "data.synthetic.weather",
    },
    "data.synthetic.world": {
        "__init__",
        "variables",
        "errors",
        "data.store",
        "data.writing",
        "data.synthetic.planet",
        "data.synthetic.weather",
        "data.synthetic.truth",
        "data.synthetic.observations",
    },
    "data.synthetic": {"data.synthetic.world"},
    "data.ingest.names": {"variables", "errors", "data.store"},
    "data.ingest.sources": {"errors"},
    "data.ingest.days": {"errors"},
    "data.ingest.cells": {"errors"},
    "data.ingest.fields": {
        "variables",
        "errors",
        "data.units",
        "data.ingest.names",
        "data.ingest.sources",
        "data.ingest.days",
        "data.ingest.cells",
    },
    "data.ingest.land": {
        "data.ingest.names",
        "data.ingest.sources",
        "data.ingest.cells",
        "data.ingest.fields",
    },
    "data.ingest.report": {"data.ingest.fields"},
    "data.ingest.flow": {
        "variables",
        "errors",
        "data.store",
        "data.writing",
        "data.ingest.sources",
        "data.ingest.cells",
        "data.ingest.fields",
        "data.ingest.report",
    },
    "data.layout": {"errors", "data.ingest.sources"},
    "data.dataset": {
        "variables",
        "errors",
        "data.check",
        "data.ingest.days",
        "data.ingest.fields",
        "data.ingest.flow",
        "data.ingest.names",
        "data.ingest.sources",
        "data.layout",
        "data.store",
        "data.units",
    },
    "data.ingest": {
        "__init__",
        "variables",
        "errors",
        "data.writing",
        "data.ingest.names",
        "data.ingest.sources",
        "data.ingest.days",
        "data.ingest.cells",
        "data.ingest.fields",
        "data.ingest.land",
        "data.ingest.report",
        "data.ingest.flow",
    },
    "domain": {"variables", "data.survey"},
    "admission": {"variables", "cell", "domain", "model"},
    "signatures": {"variables", "admission", "cell", "domain", "model"},
    "card": {"variables", "errors"},
    "warm_up": set(),
    "published": {"errors", "model"},
    "description": {"domain", "plots", "run_folder", "data.splits", "data.survey"},
    "importing": {
        "variables",
        "config",
        "description",
        "errors",
        "export",
        "model",
        "published",
        "run_folder",
        "trained",
        "untrained",
        "data.check",
        "data.splits",
        "data.store",
        "data.survey",
        "data.writing",
    },
    "commands.import_reference": {
        "config",
        "console",
        "importing",
        "run_folder",
        "startup",
    },
    "export": {
        "__init__",
        "variables",
        "card",
        "run_folder",
        "signatures",
        "trained",
        "warm_up",
        "data.writing",
    },
    "commands.export": {"console", "export", "startup", "trained"},
    "plots.style": {"variables"},
    "plots.looks": {"variables"},
    "plots.fields": {"variables", "plots.looks", "plots.style"},
    "plots.sites": {"plots.style", "plots.fields"},
    "plots.maps": {"plots.looks", "plots.style", "plots.fields", "plots.sites"},
    "plots.training": {"plots.looks", "plots.style", "plots.maps"},
    "plots.tuning": {"plots.style"},
    "plots.series": {"plots.style"},
    "plots.scatter": {
        "variables",
        "evaluation.metrics",
        "plots.looks",
        "plots.style",
    },
    "plots.skill": {"plots.style"},
    "plots.storage": {"plots.style", "plots.series"},
    "plots.story": {"plots.style"},
    "plots.equifinality": {
        "variables",
        "plots.looks",
        "plots.style",
        "plots.fields",
        "plots.maps",
    },
    "plots.uncertainty": {
        "variables",
        "plots.equifinality",
        "plots.fields",
        "plots.looks",
        "plots.maps",
        "plots.style",
    },
    "plots.twin": {
        "plots.fields",
        "plots.looks",
        "plots.maps",
        "plots.style",
        "plots.uncertainty",
    },
    "plots": {
        "plots.equifinality",
        "plots.fields",
        "plots.maps",
        "plots.scatter",
        "plots.series",
        "plots.skill",
        "plots.storage",
        "plots.story",
        "plots.training",
        "plots.tuning",
        "plots.twin",
        "plots.uncertainty",
    },
    "figures.folder": {
        "errors",
        "predictions",
        "data.store",
        "evaluation.matching",
    },
    "figures.material": {
        "variables",
        "errors",
        "predictions",
        "data.splits",
        "evaluation.blocks",
        "evaluation.regions",
        "evaluation.scales",
        "figures.folder",
        "plots",
        "plots.series",
        "plots.sites",
        "plots.storage",
    },
    "figures.cell": {
        "variables",
        "errors",
        "predictions",
        "data.splits",
        "evaluation.scales",
        "figures.folder",
        "figures.material",
        "plots.series",
        "plots.sites",
        "plots.story",
    },
    "figures": {
        "variables",
        "errors",
        "data.splits",
        "data.store",
        "figures.cell",
        "figures.folder",
        "figures.material",
        "plots",
        "plots.storage",
        "plots.style",
    },
    "commands.plot": {"console", "errors", "figures"},
    "run_folder": {"__init__", "config", "errors"},
    "predictions": {
        "variables",
        "errors",
        "data.store",
        "data.units",
        "data.writing",
    },
    "ensemble": {"variables", "errors", "predictions", "data.writing"},
    "equifinality": {
        "variables",
        "errors",
        "predictions",
        "data.splits",
        "data.writing",
    },
    "untrained": {"config", "model", "data.survey"},
    "trained": {
        "__init__",
        "card",
        "config",
        "domain",
        "errors",
        "model",
        "run_folder",
        "untrained",
        "data.store",
        "data.survey",
    },
    "inference.job": {"variables", "errors", "predictions", "data.store"},
    "restart": {"variables", "cell", "errors", "predictions", "data.writing"},
    "inference.outcome": {"variables", "domain"},
    "inference.simulator": {
        "variables",
        "admission",
        "cell",
        "model",
        "trained",
        "inference.job",
    },
    "inference.work": {
        "variables",
        "cell",
        "errors",
        "predictions",
        "restart",
        "data.check",
        "data.store",
        "data.writing",
        "inference.job",
        "inference.simulator",
    },
    "inference.hands": {
        "errors",
        "distribution",
        "trained",
        "data.store",
        "data.writing",
        "inference.job",
        "inference.simulator",
        "inference.work",
    },
    "inference.flow": {
        "__init__",
        "variables",
        "distribution",
        "errors",
        "predictions",
        "restart",
        "run_folder",
        "trained",
        "data.check",
        "data.store",
        "data.writing",
        "inference.hands",
        "inference.job",
        "inference.outcome",
        "inference.simulator",
        "inference.work",
    },
    "inference": {"inference.flow", "inference.job", "inference.outcome"},
    "library": {
        "variables",
        "card",
        "cell",
        "distribution",
        "domain",
        "errors",
        "inference",
        "inference.flow",
        "inference.hands",
        "inference.job",
        "inference.outcome",
        "inference.simulator",
        "inference.work",
        "predictions",
        "restart",
        "run_folder",
        "signatures",
        "trained",
        "data.check",
        "data.dataset",
        "data.store",
        "data.writing",
    },
    "cross_validation": {
        "config",
        "predictions",
        "run_folder",
        "training",
        "data.splits",
        "data.store",
    },
    "results": {
        "ensemble",
        "equifinality",
        "evaluation",
        "evaluation.regions",
        "evaluation.results",
        "figures",
        "inference",
        "predictions",
        "report",
        "run_folder",
        "trained",
        "data.store",
        "data.writing",
    },
    "evaluation.metrics": set(),
    "evaluation.scales": set(),
    "evaluation.regions": {"errors"},
    "evaluation.baselines": {"evaluation.scales"},
    "evaluation.balance": {"variables", "errors", "evaluation.scales"},
    "evaluation.emergent": {"evaluation.scales"},
    "evaluation.scoring": {"evaluation.metrics", "evaluation.scales"},
    "evaluation.cutting": {"data.writing"},
    "evaluation.blocks": {
        "variables",
        "evaluation.cutting",
        "evaluation.balance",
        "evaluation.baselines",
        "evaluation.emergent",
        "evaluation.regions",
        "evaluation.scales",
        "evaluation.scoring",
    },
    "evaluation.matching": {
        "variables",
        "errors",
        "data.splits",
        "data.store",
        "evaluation.blocks",
        "evaluation.emergent",
        "evaluation.scales",
    },
    "evaluation.summaries": {
        "data.splits",
        "evaluation.emergent",
        "evaluation.metrics",
        "evaluation.scoring",
    },
    "evaluation.assembly": {
        "variables",
        "data.splits",
        "evaluation.blocks",
        "evaluation.cutting",
        "evaluation.emergent",
        "evaluation.metrics",
        "evaluation.scales",
        "evaluation.summaries",
    },
    "evaluation.flow": {
        "predictions",
        "data.splits",
        "data.store",
        "evaluation.assembly",
        "evaluation.balance",
        "evaluation.baselines",
        "evaluation.blocks",
        "evaluation.cutting",
        "evaluation.matching",
        "evaluation.regions",
        "evaluation.summaries",
    },
    "evaluation.results": {
        "errors",
        "data.writing",
        "evaluation.balance",
        "evaluation.blocks",
    },
    "evaluation.tables": {"variables", "evaluation.blocks"},
    "evaluation": {"evaluation.flow"},
    "distribution": {"errors"},
    "steps": {"data.pipeline", "distribution", "model", "objective"},
    "inputs": {
        "config",
        "errors",
        "data.store",
        "data.splits",
        "data.windows",
        "data.series",
        "data.survey",
        "data.check",
    },
    "training": {
        "variables",
        "errors",
        "config",
        "description",
        "inputs",
        "data.pipeline",
        "distribution",
        "model",
        "objective",
        "export",
        "plots",
        "run_folder",
        "steps",
        "trained",
        "untrained",
    },
    "tuning": set(),
    "tuning.objective": {
        "variables",
        "errors",
        "evaluation.metrics",
        "evaluation.scales",
    },
    "tuning.space": {"config", "errors", "tuning.objective"},
    "tuning.importance": {"tuning.space"},
    "tuning.board": {"tuning.space"},
    "tuning.journal": set(),
    "tuning.folder": {
        "config",
        "errors",
        "run_folder",
        "tuning.journal",
        "tuning.space",
    },
    "tuning.oracles": {"errors", "tuning.folder", "tuning.journal"},
    "tuning.process": {"console"},
    "tuning.trial": {
        "config",
        "console",
        "distribution",
        "errors",
        "evaluation",
        "evaluation.blocks",
        "inference",
        "predictions",
        "run_folder",
        "startup",
        "trained",
        "training",
        "data.writing",
        "tuning.folder",
        "tuning.objective",
        "tuning.process",
    },
    "tuning.sweep": {
        "config",
        "console",
        "distribution",
        "errors",
        "inputs",
        "data.survey",
        "tuning.folder",
        "tuning.journal",
        "tuning.objective",
        "tuning.oracles",
        "tuning.process",
    },
    "tuning.table": {"tuning.folder", "tuning.journal"},
    "tuning.outcome": {
        "config",
        "plots",
        "plots.style",
        "run_folder",
        "tuning.board",
        "tuning.folder",
        "tuning.importance",
        "tuning.oracles",
        "tuning.space",
        "tuning.table",
    },
    "tuning.display": {
        "console",
        "tuning.folder",
        "tuning.oracles",
        "tuning.outcome",
        "tuning.table",
    },
    "console": {"errors"},
    "progress": {"variables", "console"},
    "report.parts": {"variables", "plots.style"},
    "report.scores": {"variables", "plots.style", "report.parts"},
    "report.figures": {"variables", "errors", "report.parts"},
    "report.files": {"errors"},
    "report.balance": {
        "variables",
        "run_folder",
        "report.files",
        "report.parts",
    },
    "report.training": {
        "run_folder",
        "plots.style",
        "report.figures",
        "report.files",
        "report.parts",
    },
    "report.uncertainty": {
        "report.figures",
        "report.files",
        "report.parts",
        "report.scores",
    },
    "report.contents": {
        "config",
        "errors",
        "predictions",
        "run_folder",
        "report.balance",
        "report.figures",
        "report.files",
        "report.parts",
        "report.scores",
        "report.training",
        "report.uncertainty",
    },
    "report": {"__init__", "errors", "report.contents", "report.parts"},
    "commands.report": {"console", "report"},
    "commands": set(),
    "commands.options": {"errors", "data.writing"},
    "commands.settings": {"config", "console", "data.synthetic"},
    "commands.predict": {
        "console",
        "errors",
        "inference",
        "run_folder",
        "startup",
        "trained",
        "commands.options",
        "data.writing",
    },
    "commands.evaluate": {
        "console",
        "evaluation.tables",
        "predictions",
        "results",
        "startup",
    },
    "commands.equifinality": {
        "console",
        "equifinality",
        "predictions",
        "data.writing",
    },
    "commands.ingest": {"console", "errors", "commands.options", "data.ingest"},
    "commands.synthesize": {
        "config",
        "console",
        "errors",
        "startup",
        "data.store",
        "data.synthetic",
    },
    "commands.check_data": {"config", "console", "inputs"},
    "__main__": {"__init__"},
}


def modules():
    """The files of the package by name; a folder's `__init__` has the folder's."""
    names = {
        file: ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        for file in PACKAGE.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): file for file, name in names.items()}


def imported(file: Path) -> set[str]:
    """Everything a file imports, wherever in it, by absolute name."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_modules(file: Path) -> set[str]:
    """The modules of the package that a file imports."""
    known, result = modules(), set()
    for name in imported(file):
        package, *parts = name.split(".")
        if package != "h2mv_tf":
            continue
        while parts and ".".join(parts) not in known:
            parts.pop()  # a name within a module
        result.add(".".join(parts) or "__init__")
    return result


def test_every_module_is_on_the_map():
    assert set(modules()) == set(ALLOWED)


@pytest.mark.parametrize("module", sorted(ALLOWED))
def test_a_module_imports_only_what_the_map_allows(module):
    assert imported_modules(modules()[module]) <= ALLOWED[module]


def test_the_map_has_no_circle():
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {m for m, needs in ALLOWED.items() if m not in done and needs <= done}
        assert ready, f"a circle among {set(ALLOWED) - done}"
        done |= ready


def test_the_physics_needs_tensorflow_only():
    assert {name.split(".")[0] for name in imported(PACKAGE / "physics.py")} <= {
        "tensorflow",
        "typing",
    }


@pytest.mark.parametrize("module", ["cell", "time_loop", "model", "physics"])
def test_the_model_never_reads_the_configuration(module):
    assert "config" not in ALLOWED[module]


def test_nothing_in_the_package_imports_the_scripts():
    for file in modules().values():
        roots = {name.split(".")[0] for name in imported(file)}
        assert not roots & {"trainers", "tuning", "tests"}, file


@pytest.mark.parametrize(
    "module", [name for name in sorted(ALLOWED) if name.startswith("evaluation")]
)
def test_an_evaluation_needs_no_tensorflow(module):
    needed, left = set(), {module}
    while left:
        needed |= left
        left = set().union(*(ALLOWED[name] for name in left)) - needed
    for name in needed:
        roots = {found.split(".")[0] for found in imported(modules()[name])}
        assert not roots & {"tensorflow", "keras"}, name
