"""Scripts and verbs, run as a user runs them."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def loaded(script):
    """The command of a script that is no module of the package."""
    spec = importlib.util.spec_from_file_location("script", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def assert_one_line(result, *words):
    """A mistake: status 2 and one line on it, at the end."""
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    line = result.output.strip().splitlines()[-1]
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line
    assert "Traceback" not in result.output
