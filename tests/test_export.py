import subprocess
import sys
import textwrap

import numpy as np
import pytest

from h2mv_tf import variables
from h2mv_tf.export import export
from h2mv_tf.model import H2MV

CLIENT = """
    import os, sys
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import numpy as np
    import tensorflow as tf

    path, data, result = sys.argv[1:]
    simulate = tf.saved_model.load(path).signatures["serving_default"]
    assert not any("h2mv" in name for name in sys.modules)
    series = np.load(data)
    runs = {}
    for name, cells, days in (("a", 5, 60), ("b", 2, 25)):
        outputs = simulate(
            forcing=tf.constant(series["forcing"][:cells, :days]),
            static=tf.constant(series["static"][:cells]),
        )
        runs |= {f"{name}/{k}": v.numpy() for k, v in outputs.items()}
    np.savez(result, **runs)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory, weather):
    """A model, its inputs, and what a process without this project computed."""
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(1)
    model = H2MV(4, encoder_units=6, code_size=3, lstm_units=5)
    model.cell.forcing_mean.assign([60, 3, 274])
    model.cell.forcing_std.assign([60, 5, 8])
    series = {
        "forcing": weather(rng, 5, 60).astype("f4"),
        "static": rng.normal(size=(5, 4)).astype("f4"),
    }
    export(model, folder / "model")
    np.savez(folder / "series.npz", **series)
    subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(CLIENT),
            *(str(folder / name) for name in ("model", "series.npz", "result.npz")),
        ],
        cwd="/",
        env={},  # no PYTHONPATH leads to the project
        check=True,
        timeout=300,
    )
    return model, series, np.load(folder / "result.npz")


def test_a_process_without_this_project_gets_every_output_by_name(served):
    _, _, result = served
    assert {k for k in result.files if k.startswith("a/")} == {
        f"a/{name}" for name in variables.OUTPUTS
    }


@pytest.mark.parametrize(("run", "cells", "days"), [("a", 5, 60), ("b", 2, 25)])
def test_it_gets_the_models_numbers_for_any_number_of_cells_and_days(
    served, run, cells, days
):
    model, series, result = served
    expected = model(
        {
            "forcing": series["forcing"][:cells, :days],
            "static": series["static"][:cells],
        }
    )
    for name, values in expected.items():
        found = result[f"{run}/{name}"]
        assert found.shape == values.shape, name
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-4)


def test_it_gets_a_closed_water_balance(served):
    _, _, result = served
    assert np.abs(result["a/water_balance_residual"]).max() < 1e-3
