"""Weights of the published code, as a run folder that is one among others."""

import json
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import xarray as xr
from click.testing import CliRunner
from numpy.testing import assert_array_equal
from reference import VALUES, WATER_CYCLE, assert_parity
from scripts import assert_one_line

from h2mv_tf import config, predictions, published
from h2mv_tf.__main__ import main
from h2mv_tf.data.store import Store
from h2mv_tf.data.writing import write_store
from h2mv_tf.errors import UserError
from h2mv_tf.model import REFERENCE_WEIGHTS
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.trained import Trained

SIZES = {"encoder_units": 6, "code_size": 3, "lstm_units": 5}
IN_WORLD = ("--set", "split.block_size=2")


def called(*arguments):
    """A verb, as a user gives it."""
    return CliRunner().invoke(main, list(map(str, arguments)))


def succeeded(*arguments):
    result = called(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def weights_of(static_size):
    """Weights of a small model under their PyTorch names."""
    rng = np.random.default_rng(0)
    encoder, code, lstm = SIZES.values()
    shapes = {
        "beta_snow": (),
        "beta_baseflow": (),
        "fc_static.fc1.weight": (encoder, static_size),
        "fc_static.fc1.bias": (encoder,),
        "fc_static.fc2.weight": (code, encoder),
        "fc_static.fc2.bias": (code,),
        "fc_static.fc3.weight": (1, code),
        "fc_static.fc3.bias": (1,),
        "lstm_fc.lstm_cell.weight_ih": (4 * lstm, 3 + code + 4),
        "lstm_fc.lstm_cell.weight_hh": (4 * lstm, lstm),
        "lstm_fc.lstm_cell.bias_ih": (4 * lstm,),
        "lstm_fc.lstm_cell.bias_hh": (4 * lstm,),
        "lstm_fc.fc.weight": (7, lstm),
        "lstm_fc.fc.bias": (7,),
    }
    return {name: rng.normal(0, 0.3, shape) for name, shape in shapes.items()}


MOMENTS = {
    "mean/forcing": np.array([60.0, 2, 280]),
    "std/forcing": np.array([50.0, 4, 12]),
    "mean/static": np.zeros(2),
    "std/static": np.ones(2),
}


@pytest.fixture
def saved(tmp_path):
    """Writes arrays as an .npz."""

    def save(arrays):
        np.savez(tmp_path / "weights.npz", **arrays)
        return tmp_path / "weights.npz"

    return save


def as_store(reference, path):
    """The reference's weather at six sites, with the moments of the published store."""
    file = reference.arrays
    cell = {name: ("cell", file[name]) for name in ("lat", "lon")}
    days = {"time": pd.to_datetime(file["time"], unit="D"), **cell}
    fields = {
        group: xr.DataArray(
            file["forcing"][:, :, n].T,
            days,
            ("time", "cell"),
            attrs={x: float(file[f"{x}/forcing"][n]) for x in ("mean", "std")},
        )
        for n, group in enumerate(("rn", "prec", "tair"))
    }
    names = [f"layer {n}" for n in range(file["static"].shape[1])]
    fields["static"] = xr.DataArray(
        file["static"].T,
        {"variable": names, **cell},
        ("variable", "cell"),
        attrs={x: file[f"{x}/static"].tolist() for x in ("mean", "std")},
    )
    fields["mask"] = xr.DataArray(np.ones(len(file["lat"])), cell, ("cell",))
    write_store(path, fields)
    return path


@pytest.fixture(scope="module")
def sites(reference, tmp_path_factory):
    return as_store(reference, tmp_path_factory.mktemp("sites") / "sites.zarr")


@pytest.fixture(scope="module", params=["float64", "float32"])
def imported(request, reference, sites, tmp_path_factory):
    """The reference as two runs: it knows its normalisation, or the store does."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "float64":
        file, given = WATER_CYCLE, ("--set", "training.precision=float64")
    else:
        file, given = folder / "state_dict.npz", ("--data", sites)
        np.savez(file, **{f"model.{k}": v for k, v in reference.weights.items()})
    succeeded("import-reference", file, "--to", folder / "run", *given)
    return RunFolder(folder / "run")


@pytest.fixture(scope="module")
def small(world, tmp_path_factory):
    """A small model on the world, normalised as a training on it would be."""
    folder = tmp_path_factory.mktemp("small")
    static_size = len(Store.open(world).static_names)
    np.savez(folder / "fold1.npz", **weights_of(static_size))
    succeeded(
        *("import-reference", folder / "fold1.npz", "--to", folder / "run"),
        *("--data", world, "--set", "data.normalization=training", *IN_WORLD),
    )
    return RunFolder(folder / "run")


# What the published code computes


def test_an_imported_run_has_the_published_numbers(imported, reference):
    trained = Trained.of(imported)
    model = trained.model()
    dtype = model.compute_dtype
    inputs = {name: tf.constant(x, dtype) for name, x in reference.inputs.items()}
    outputs = tf.function(model)(inputs)
    for name, expected in reference.outputs.items():
        assert_parity(outputs[name].numpy(), expected, VALUES, dtype)


def test_its_saved_model_has_the_published_numbers(imported, reference):
    loaded = tf.saved_model.load(str(imported.saved_model))
    simulate = loaded.signatures["serving_default"]
    dtype = simulate.structured_input_signature[1]["forcing"].dtype
    inputs = {name: tf.constant(x, dtype) for name, x in reference.inputs.items()}
    outputs = simulate(**inputs)
    for name, expected in reference.outputs.items():
        assert_parity(outputs[name].numpy(), expected, VALUES, dtype.name)


def test_its_predictions_have_the_published_numbers(
    imported, reference, sites, tmp_path
):
    if imported.split_store.exists():
        succeeded("predict", imported.path, "--to", tmp_path / "out.zarr")
    else:  # it does not know the names of its static inputs, nor a store
        assert_one_line(called("predict", imported.path), "--data")
        other = "number 1 has to be 'static_0', found 'layer 0'"
        assert_one_line(called("predict", imported.path, "--data", sites), other)
        return
    found = predictions.load(tmp_path / "out.zarr")
    for name in ("runoff", "evapotranspiration", "swe", "tws", "fapar"):
        expected = reference.outputs[name]
        assert_parity(found[name].values.T, expected, VALUES, "float32")


def test_the_configuration_has_the_sizes_of_the_weights(imported, small):
    sizes = config.load(imported.config_file).model.model_dump()
    assert sizes == config.Model().model_dump()
    assert config.load(small.config_file).model == config.Model(**SIZES)
    assert Trained.of(small).settings["lstm_units"] == SIZES["lstm_units"]


# The run folder


def test_a_store_tells_an_import_what_it_tells_a_training(small, run):
    for name in ("normalization_file", "domain_file", "leakage_file"):
        assert small.load_json(getattr(small, name)) == run.load_json(
            getattr(run, name)
        )
    assert_array_equal(Trained.of(small).roles, Trained.of(run).roles)


def test_an_imported_run_tells_where_it_is_from(small):
    origin = small.load_json(small.metrics_file)["imported"]
    assert origin["from"] == "fold1.npz"
    assert re.fullmatch("[0-9a-f]{64}", origin["sha256"])
    assert "of the training cells of" in origin["normalization"]
    settings = config.load(small.config_file)
    assert settings.provenance is not None
    assert settings.objective.anomaly_reference == "series"
    assert "Imported" in small.log_file.read_text()
    assert not small.history_file.exists()


def test_an_imported_run_without_a_store_knows_no_cells(reference, tmp_path, sites):
    """Predicted, scored, drawn and reported all the same."""
    names = Store.open(sites).static_names
    means = {"air_temperature": 280.0, "net_radiation": 60.0, "precipitation": 2.0}
    normalization = {
        "forcing": {name: {"mean": x, "std": 4.0} for name, x in means.items()},
        "static": {name: {"mean": 1.0, "std": 2.0} for name in names},
    }
    (tmp_path / "n.json").write_text(json.dumps(normalization))
    np.savez(tmp_path / "w.npz", **weights_of(len(names)))
    run = RunFolder(tmp_path / "run")
    succeeded(
        *("import-reference", tmp_path / "w.npz", "--to", run.path),
        *("--normalization", tmp_path / "n.json"),
    )
    trained = Trained.of(run)
    assert trained.roles is None
    assert trained.domain is None
    assert trained.static_names == names
    assert_array_equal(trained.model().cell.forcing_mean, [60, 2, 280])
    assert config.load(run.config_file).data.store == config.UNKNOWN
    assert_one_line(called("plot", run.path), "nothing to draw")
    succeeded("predict", run.path, "--data", sites, "--variables", "runoff")
    found = predictions.load(run.path / "predictions.zarr")
    assert not found.role.any()
    succeeded("plot", run.path)
    succeeded("report", run.path)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Imported" in page
    assert "--data unknown" not in page


@pytest.mark.slow
def test_an_imported_run_is_predicted_scored_drawn_reported_and_exported(
    small, tmp_path
):
    path = tmp_path / "run"
    shutil.copytree(small.path, path)
    succeeded("predict", path)
    table = succeeded("evaluate", path / "predictions.zarr")
    assert "untrained" in table
    assert "Left out loss_curves" in succeeded("plot", path)
    succeeded("report", path)
    page = (path / "report.html").read_text(encoding="utf-8")
    assert "fold1.npz" in page
    assert "--resume" not in page
    succeeded("export", path, "--to", tmp_path / "saved" / "small")
    assert "Not known: the weights were imported." in (
        tmp_path / "saved" / "small" / "1" / "assets" / "README.md"
    ).read_text(encoding="utf-8")
    assert "predictions" in RunFolder(path).load_json(path / "metrics.json")


# What is read


@pytest.mark.parametrize(
    "prefix", ["", "weight/", "model.", "state_dict.model.", "net/_orig_mod."]
)
def test_weights_are_found_under_any_prefix(prefix, saved):
    weights = weights_of(2)
    others = {"time": np.arange(3), "loss/tws": np.array(1.0), "fold": np.array("a")}
    prefixed = {prefix + name: value for name, value in weights.items()}
    checkpoint = published.read(saved({**others, **prefixed, **MOMENTS}))
    assert set(checkpoint.weights) == set(REFERENCE_WEIGHTS)
    for name, value in weights.items():
        assert_array_equal(checkpoint.weights[name], value)
    for field, key in zip(checkpoint.normalization, MOMENTS, strict=True):
        assert_array_equal(field, MOMENTS[key])


def test_gradients_beside_the_weights_are_no_weights(reference):
    checkpoint = published.read(WATER_CYCLE)
    for name, value in reference.weights.items():
        assert_array_equal(checkpoint.weights[name], value)


def test_two_models_in_a_file_are_refused(saved):
    weights = weights_of(2)
    both = {f"{p}.{k}": v for k, v in weights.items() for p in ("one", "two")}
    with pytest.raises(UserError, match=r"several models, under 'one\.', 'two\.'"):
        published.read(saved(both))


def changed(**values):
    return {**weights_of(2), **MOMENTS, **values}


def without(name):
    return {key: value for key, value in changed().items() if key != name}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.ones(2)}, "no weight of the published model"),
        (without("fc_static.fc2.bias"), "Missing: fc_static.fc2.bias"),
        (changed(**{"fc_static.fc4.bias": np.ones(2)}), "Unknown: fc_static.fc4.bias"),
        (
            changed(**{"fc_static.fc1.weight": np.ones(6)}),
            "fc_static.fc1.weight has shape (6,); expected two dimensions",
        ),
        (
            changed(**{"lstm_fc.lstm_cell.bias_hh": np.ones(1)}),
            "lstm_fc.lstm_cell.bias_hh of cell.bias has shape (1,); expected (20,)",
        ),
        (
            changed(**{"lstm_fc.lstm_cell.weight_ih": np.ones((20, 11))}),
            "weight_ih of cell.kernel has shape (20, 11); expected (20, 10)",
        ),
        (changed(beta_snow=np.array(np.nan)), "'beta_snow' of checkpoint"),
        (changed(beta_snow=np.array("snow")), "no finite numbers"),
        (changed(beta_snow=np.array(None)), "Object arrays cannot be loaded"),
        (without("std/static"), "it lacks std/static"),
        (changed(**{"mean/forcing": np.ones(4)}), "of 4 and 3 forcings"),
        (
            changed(**{"mean/static": np.ones(5), "std/static": np.ones(5)}),
            "has 5 static inputs, but the weights are of 2",
        ),
        (changed(**{"std/static": np.zeros(2)}), "deviation 0 of 'static_0'"),
        (weights_of(2), "Name the store that it was trained on with --data"),
    ],
)
def test_a_file_of_something_else_is_one_line(arrays, words, saved, tmp_path):
    run = tmp_path / "run"
    assert_one_line(called("import-reference", saved(arrays), "--to", run), words)
    assert not run.exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nothing.npz", None, "There is no file"),
        ("model.h5", b"", "is no checkpoint. Expected a file whose name ends with"),
        ("junk.npz", b"junk", "is no .npz, or damaged"),
        ("half.npz", WATER_CYCLE.read_bytes()[:100_000], "is no .npz, or damaged"),
        ("holed.npz", WATER_CYCLE.read_bytes(), "cannot be read: Bad CRC-32"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(name, content, words, tmp_path):
    if name == "holed.npz":
        middle = len(content) // 2
        content = content[:200_000] + bytes(middle) + content[200_000 + middle :]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = called("import-reference", tmp_path / name, "--to", tmp_path / "run")
    assert_one_line(result, words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "Cannot read"),
        ("{", "is no normalization.json of a run"),
        ("[1]", "is no normalization.json of a run"),
        ('{"forcing": {}, "static": {}}', "is no normalization.json of a run"),
    ],
)
def test_a_normalisation_that_cannot_be_read_is_one_line(
    content, words, saved, tmp_path
):
    file = tmp_path / "n.json"
    if content is not None:
        file.write_text(content)
    result = called(
        *("import-reference", saved(weights_of(2)), "--to", tmp_path / "run"),
        *("--normalization", file),
    )
    assert_one_line(result, words)


def test_what_does_not_belong_together_is_one_line(small, saved, world, tmp_path):
    static_size = len(Store.open(world).static_names)
    file = saved(weights_of(static_size))
    call = ["import-reference", file, "--to", tmp_path / "run"]
    # A world without the attributes of the published store.
    line = "has no attribute 'mean', which data.normalization: store needs"
    assert_one_line(called(*call, "--data", world), line)
    lacking = ("--set", "objective.constraints=swe", "--set", "data.groups={swe: a}")
    assert_one_line(called(*call, "--data", world, *lacking), "lacks group 'a'")
    other = json.loads(small.normalization_file.read_text())
    other["static"] = {f"x{k}": v for k, v in other["static"].items()}
    (tmp_path / "n.json").write_text(json.dumps(other))
    both = ("--data", world, "--normalization", tmp_path / "n.json")
    assert_one_line(called(*call, *both), "Expected the same names in the same order")
    assert_one_line(called(*call[:-1], small.path), "exists")
    fewer = saved(weights_of(static_size - 1))
    assert_one_line(
        called("import-reference", fewer, "--to", tmp_path / "run", "--data", world),
        f"has {static_size} static inputs, but the weights are of {static_size - 1}",
    )
    assert not (tmp_path / "run").exists()


# Checkpoints of PyTorch


def test_without_pytorch_a_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "fold1.ckpt").write_bytes(b"")
    result = called("import-reference", tmp_path / "fold1.ckpt", "--to", tmp_path / "r")
    assert_one_line(result, "pip install 'h2mv_tf[torch]'")


def lightning(torch, prefix="", **hyper_parameters):
    """What a checkpoint of Lightning holds."""
    state = {prefix + k: torch.tensor(v) for k, v in weights_of(2).items()}
    return {
        "epoch": 12,
        "global_step": 345,
        "pytorch-lightning_version": "2.0.2",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"EarlyStopping": {"best_score": torch.tensor(0.3)}},
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.01}]}
        ],
        "lr_schedulers": [],
        "hyper_parameters": {"k": 0, "device": torch.device("cpu")} | hyper_parameters,
    }


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_checkpoint_of_lightning_has_the_weights(prefix, tmp_path):
    torch = pytest.importorskip("torch")
    file = tmp_path / "fold1.ckpt"
    torch.save(lightning(torch, prefix), file)
    checkpoint = published.read(file)
    assert checkpoint.normalization is None
    for name, value in weights_of(2).items():
        assert_array_equal(checkpoint.weights[name], value)
    bare = {k: torch.tensor(v).bfloat16() for k, v in weights_of(2).items()}
    torch.save(bare, tmp_path / "state_dict.pt")
    found = published.read(tmp_path / "state_dict.pt").weights
    assert_array_equal(found["beta_snow"], bare["beta_snow"].double().numpy())


def test_a_checkpoint_becomes_a_run(tmp_path, small, world):
    torch = pytest.importorskip("torch")
    static_size = len(Store.open(world).static_names)
    state = {f"model.{k}": torch.tensor(v) for k, v in weights_of(static_size).items()}
    torch.save({"state_dict": state}, tmp_path / "fold1.ckpt")
    succeeded(
        *("import-reference", tmp_path / "fold1.ckpt", "--to", tmp_path / "run"),
        *("--normalization", small.normalization_file),
    )
    assert Trained.of(RunFolder(tmp_path / "run")).digest == Trained.of(small).digest


class Payload:
    """What a pickle runs when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    torch = pytest.importorskip("torch")
    file, trace = tmp_path / "fold1.ckpt", tmp_path / "trace"
    torch.save(lightning(torch, payload=Payload(str(trace))), file)
    result = called("import-reference", file, "--to", tmp_path / "run")
    assert_one_line(result, "weights_only=False", "fold1.npz")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_a_damaged_checkpoint_is_one_line(content, tmp_path):
    torch = pytest.importorskip("torch")
    file = tmp_path / "fold1.ckpt"
    if content is None:
        torch.save(lightning(torch), file)
        content = file.read_bytes()[:3000]
    file.write_bytes(content)
    result = called("import-reference", file, "--to", tmp_path / "run")
    assert_one_line(result, "fold1.ckpt", "damaged")
