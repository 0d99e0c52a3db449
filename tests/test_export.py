"""What somebody gets who has the SavedModel, and TensorFlow, and nothing else."""

import json
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from numpy.testing import assert_allclose, assert_array_equal
from scripts import ROOT, assert_one_line

from h2mv_tf import variables
from h2mv_tf.__main__ import main
from h2mv_tf.card import ASSETS, CLIENT, FILE, PAGE, Card
from h2mv_tf.errors import UserError
from h2mv_tf.export import export, next_version
from h2mv_tf.signatures import signatures
from h2mv_tf.trained import Trained

LONGEST = 88  # columns
DEMO = ROOT / "saved_models" / "demo"
CLIENT_WITHOUT_US = """
    import json, os, sys
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import numpy as np
    import tensorflow as tf

    path, data, result = sys.argv[1:]
    loaded = tf.saved_model.load(path)
    assert not any("h2mv" in name for name in sys.modules)
    card = json.loads(tf.io.read_file(loaded.model_card.asset_path).numpy())
    runs = {"static": np.array([v["name"] for v in card["static"]])}
    series = np.load(data)
    for name, cells, days in (("a", 5, 60), ("b", 2, 25)):
        given = {
            "forcing": tf.constant(series["forcing"][:cells, :days]),
            "static": tf.constant(series["static"][:cells]),
        }
        spun = loaded.signatures["spin_up"](**given, cycles=tf.constant(1))
        start = {
            "initial_" + v["name"]: spun["final_" + v["name"]] for v in card["state"]
        }
        for signature, others in (("serving_default", {}), ("simulate_xla", start)):
            outputs = loaded.signatures[signature](**given, **others)
            runs |= {f"{name}/{signature}/{k}": v.numpy() for k, v in outputs.items()}
    np.savez(result, **runs)
"""


BALANCE_OF_THE_DEMO = """
    import json, os, sys
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(sys.argv[1])
    card = json.loads(tf.io.read_file(model.model_card.asset_path).numpy())
    days = np.arange(730)
    season, rain = -np.cos(days / 58.1), np.random.default_rng(0).gamma(0.3, 8, 730)
    forcing = [np.stack([80 + 70 * season, rain, 280 + 12 * season], axis=-1)]
    given = {
        "forcing": tf.constant(forcing, "float32"),
        "static": tf.constant([[v["mean"] for v in card["static"]]], "float32"),
    }
    ask = model.signatures
    start = ask["spin_up"](**given, cycles=tf.constant(1))
    found = ask["simulate"](
        **given,
        **{"initial_" + v["name"]: start["final_" + v["name"]] for v in card["state"]},
    )
    found, start = ({k: v.numpy() for k, v in x.items()} for x in (found, start))
    sums = {name: values.sum(dtype="float64") for name, values in found.items()}
    stores = ("swe", "soil_moisture", "groundwater")
    growth = sum((found["final_" + n] - start["final_" + n]).item() for n in stores)
    lost = sums["evapotranspiration"] + sums["runoff"]
    print(np.abs(found["water_balance_residual"]).max())
    print(sums["corrected_precipitation"] - lost - growth, sums["evapotranspiration"])
    assert not any("h2mv" in name for name in sys.modules)
"""


@pytest.fixture(scope="module")
def trained(run):
    return Trained.of(run)


@pytest.fixture(scope="module")
def saved_model(trained, tmp_path_factory):
    """A SavedModel; not to be changed."""
    path = tmp_path_factory.mktemp("saved_models") / "small" / "1"
    export(trained, path)
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory, weather, trained, saved_model):
    """Inputs, and what a process without this project computed of them."""
    folder = tmp_path_factory.mktemp("client")
    rng = np.random.default_rng(1)
    moments = np.array(list(trained.statistics.static.values()))
    series = {
        "forcing": weather(rng, 5, 60).astype("f4"),
        "static": rng.normal(*moments.T, (5, len(moments))).astype("f4"),
    }
    np.savez(folder / "series.npz", **series)
    paths = (saved_model, folder / "series.npz", folder / "result.npz")
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CLIENT_WITHOUT_US), *map(str, paths)],
        cwd="/",
        env={},  # no PYTHONPATH leads to the project
        check=True,
        timeout=300,
    )
    return series, np.load(folder / "result.npz")


@pytest.mark.parametrize("signature", ["serving_default", "simulate_xla"])
@pytest.mark.parametrize(("name", "cells", "days"), [("a", 5, 60), ("b", 2, 25)])
def test_a_process_without_this_project_gets_the_models_numbers(
    trained, served, name, cells, days, signature
):
    series, result = served
    given = {
        "forcing": series["forcing"][:cells, :days],
        "static": series["static"][:cells],
    }
    expected = trained.model()(given)
    assert set(expected) == set(variables.OUTPUTS)
    for variable, values in expected.items():
        found = result[f"{name}/{signature}/{variable}"]
        assert found.shape == values.shape, variable
        assert_allclose(found, values, rtol=1e-4, atol=1e-4, err_msg=variable)


def test_it_gets_a_closed_water_balance(served):
    _, result = served
    for signature in ("serving_default", "simulate_xla"):
        residual = result[f"a/{signature}/water_balance_residual"]
        assert np.abs(residual).max() < 1e-3


def test_it_reads_the_order_of_the_static_inputs_off_the_card(trained, served):
    _, result = served
    assert tuple(result["static"]) == trained.static_names


def test_the_card_tells_where_the_model_comes_from(trained, saved_model, world, run):
    card = Card.read(saved_model)
    assert card.training.data == str(world)
    assert card.training.constraints == variables.CONSTRAINTS
    assert card.training.period == ("2001-01-01", "2002-12-31")
    assert card.metrics["test"] == run.load_json(run.metrics_file)["test"]
    assert {"h2mv_tf", "tensorflow", "keras", "numpy"} <= set(card.versions)
    assert "10.5194/gmd-18-2921-2025" in card.citation


def test_the_card_tells_the_range_of_every_input(trained, saved_model):
    card = Card.read(saved_model)
    assert [v.name for v in card.forcing] == list(variables.FORCING)
    for variable in (*card.forcing, *card.static):
        assert variable.low <= variable.mean <= variable.high
    for variable in card.forcing:
        assert variable.units == variables.VARIABLES[variable.name].units
    assert {v.name: v.units for v in card.static}["elevation"] == "m"


def test_the_card_names_the_tensors_of_every_signature(saved_model):
    card, loaded = Card.read(saved_model), tf.saved_model.load(str(saved_model))
    assert set(card.signatures) == set(loaded.signatures)
    for name, signature in card.signatures.items():
        function = loaded.signatures[name]
        assert set(signature.outputs) == set(function.structured_outputs), name
        specs = {
            spec.name: spec for spec in function.structured_input_signature[1].values()
        }
        for key, tensor in signature.inputs.items():
            assert tensor.tensor == f"{name}_{key}:0"
            assert tensor.shape == tuple(specs[key].shape)
            assert tensor.dtype == specs[key].dtype.name


def test_the_page_has_every_variable_and_a_client_of_ten_lines(saved_model):
    page = (saved_model / ASSETS / PAGE).read_text()
    card = Card.read(saved_model)
    for variable in (*card.forcing, *card.static, *card.state, *card.outputs):
        assert f"`{variable.name}`" in page
    lines = [line for line in CLIENT.splitlines() if line]
    assert len(lines) == 10
    assert max(map(len, lines)) <= LONGEST


def test_the_client_of_the_page_runs(saved_model, tmp_path):
    page = (saved_model / ASSETS / PAGE).read_text()
    _, _, client = page.partition("```python\n")
    client, _, _ = client.partition("```")
    client = client.replace(Card.read(saved_model).path, str(saved_model))
    result = subprocess.run(
        [sys.executable, "-c", client],
        cwd=tmp_path,
        env={"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == list(variables.OUTPUTS)
    assert all(np.isfinite(float(row[1])) for row in rows)


def test_a_saved_model_is_opened_as_the_run_that_it_is_of(trained, saved_model):
    for path in (saved_model, saved_model.parent):
        found = Trained.open(path)
        assert found.digest == trained.digest
        assert found.static_names == trained.static_names
        assert found.statistics == trained.statistics
        assert found.domain == trained.domain
        assert found.attributes["configuration"] == trained.attributes["configuration"]


def test_double_precision_stays(trained, run, tmp_path):
    model = trained.model()
    settings = {**model.get_config(), "dtype": "float64"}
    double = type(model).from_config(settings)
    rng = np.random.default_rng(0)
    weights = [w + 1e-10 * rng.random(w.shape) for w in model.get_weights()]
    double.set_weights(weights)
    own = {**vars(trained), "settings": settings, "weights": double.get_weights()}
    export(Trained(**own), tmp_path / "1")
    assert (
        Card.read(tmp_path / "1").signatures["step"].inputs["static"].dtype == "float64"
    )
    for found, expected in zip(
        Trained.open(tmp_path).weights, double.get_weights(), strict=True
    ):
        assert found.dtype == "float64"
        assert_array_equal(found, expected)


def test_versions_are_numbered_and_the_last_one_is_opened(saved_model, tmp_path):
    assert next_version(tmp_path / "new") == tmp_path / "new" / "1"
    for version in ("2", "10"):
        shutil.copytree(saved_model, tmp_path / version)
    (tmp_path / "notes").mkdir()
    assert next_version(tmp_path) == tmp_path / "11"
    assert Trained.open(tmp_path).attributes["run"] == str(tmp_path / "10")


def test_an_export_is_there_only_when_it_is_whole(trained, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("h2mv_tf.warm_up.write", fail)
    with pytest.raises(UserError, match="No space left"):
        export(trained, tmp_path / "model" / "1")
    assert list((tmp_path / "model").iterdir()) == []


def test_every_run_folder_has_a_saved_model_of_its_own(run, trained):
    assert Trained.open(run.saved_model).digest == trained.digest


def test_the_command_writes_the_next_version(run, tmp_path):
    for version in ("1", "2"):
        result = CliRunner().invoke(
            main,
            [
                "export",
                str(run.path),
                "--to",
                str(tmp_path / "m"),
                "--licence",
                "CC0-1.0",
            ],
        )
        assert result.exit_code == 0, result.output
        assert str(tmp_path / "m" / version) in result.output
        assert Card.read(tmp_path / "m" / version).licence == "CC0-1.0"


@pytest.mark.parametrize("verb", ["export", "predict"])
def test_what_is_no_model_is_refused_in_one_line(verb, tmp_path):
    result = CliRunner().invoke(
        main, [verb, str(tmp_path / "none"), "--to", str(tmp_path / "m")]
    )
    assert_one_line(result, "none", "is not a run folder")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / ASSETS / FILE).unlink(), "no model card"),
        (lambda path: (path / ASSETS / FILE).write_text("{"), "cannot be read"),
        (
            lambda path: (path / "variables" / "variables.index").unlink(),
            "weights of SavedModel",
        ),
    ],
)
def test_a_damaged_saved_model_is_refused_in_one_line(
    saved_model, tmp_path, damage, words
):
    shutil.copytree(saved_model, tmp_path / "1")
    damage(tmp_path / "1")
    with pytest.raises(UserError, match=words) as caught:
        Trained.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_card_of_another_version_is_refused(saved_model, tmp_path):
    shutil.copytree(saved_model, tmp_path / "1")
    file = tmp_path / "1" / ASSETS / FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), "new_key": 1}))
    with pytest.raises(UserError, match="new_key"):
        Card.read(tmp_path / "1")


def test_the_demo_is_small_and_of_this_version():
    size = sum(file.stat().st_size for file in DEMO.rglob("*") if file.is_file())
    assert size < 5e6
    trained = Trained.open(DEMO)
    card = Card.read(DEMO / "1")
    assert card.path == "saved_models/demo/1"
    assert trained.domain.cells == card.training.cells
    functions = signatures(trained.model(), trained.domain)
    for name, function in functions.items():
        assert set(card.signatures[name].outputs) == set(function.structured_outputs)


def test_a_process_without_this_project_closes_the_balance_of_the_demo(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BALANCE_OF_THE_DEMO), str(DEMO / "1")],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    residual, closure, evaporation = map(float, result.stdout.split())
    assert residual < 1e-3
    assert abs(closure) < 0.1  # mm, in two years
    assert 100 < evaporation < 2000  # mm in two years
