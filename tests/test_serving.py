"""Every block of docs/serving.md is run, and its numbers are those of TensorFlow."""

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from h2mv_tf import variables
from h2mv_tf.signatures import XLA
from h2mv_tf.trained import Trained

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "serving.md"
MODEL = "saved_models/demo/1"
NEEDED = {  # modules, by the section that cannot do without
    "A client by REST": ["requests", "tensorflow_serving"],
    "A client by gRPC": ["grpc", "tensorflow_serving"],
    "LiteRT": ["ai_edge_litert"],
    "ONNX": ["tf2onnx", "onnxruntime"],
}
PORTS = {"A client by REST": "8501", "A client by gRPC": "8500"}
OTHERS = ["simulate", "spin_up", "step"]  # besides serving_default


class Block(NamedTuple):
    """A block of the page that a reader copies."""

    section: str
    language: str
    code: str

    def __str__(self):
        return f"{self.section}, {self.language}"


def blocks():
    """The blocks of the page but those that are marked as not run."""
    pattern = r"^##+ ([^\n]*)$|^(<!-- not run[^\n]*\n)?```(python|bash)\n(.*?)^```"
    section, found = "", []
    text = PAGE.read_text(encoding="utf-8")
    for heading, skipped, language, code in re.findall(pattern, text, re.M | re.S):
        section = heading or section
        if language and not skipped:
            found.append(Block(section, language, code))
    return found


class Copied:
    """The page in the hands of a reader: a folder, and what each section leaves."""

    def __init__(self, folder):
        self.folder = folder
        self.results = {}

    @functools.cached_property
    def model(self):
        return tf.saved_model.load(str(self.folder / MODEL))

    def section(self, name):
        """The names that the blocks of a section define; they run once."""
        for module in NEEDED.get(name, ()):
            pytest.importorskip(module)
        if name == "C" and not (shutil.which("cc") and sys.platform == "linux"):
            pytest.skip("no C compiler on Linux")
        if name not in self.results:
            names = {}
            with contextlib.chdir(self.folder), self.server(name) as port:
                for block in blocks():
                    if block.section == name:
                        self.run(block, names, port)
            self.results[name] = names
        return self.results[name]

    def run(self, block, names, port=None):
        code = block.code.replace("saved_models/first", "saved_models/demo")
        if port:
            assert f"localhost:{PORTS[block.section]}" in code
            code = code.replace(PORTS[block.section], str(port))
        if block.language == "python":
            exec(compile(code, str(block), "exec"), names)
            return
        paths = [Path(sys.executable).parent, os.environ["PATH"]]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            env=os.environ
            | {"PATH": os.pathsep.join(map(str, paths)), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    def server(self, section):
        if section not in PORTS:
            return contextlib.nullcontext()
        import stand_ins

        start = stand_ins.rest if "REST" in section else stand_ins.remote
        return start("demo", self.model.signatures)

    def ask(self, signature, **inputs):
        """What TensorFlow says."""
        function = self.model.signatures[signature]
        outputs = function(**{k: tf.constant(v) for k, v in inputs.items()})
        return {name: values.numpy() for name, values in outputs.items()}


@pytest.fixture(scope="module")
def page(tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("page")
    (folder / "runs").mkdir()
    (folder / "runs" / "first").symlink_to(run.path)
    (folder / "docs").symlink_to(PAGE.parent)
    page = Copied(folder)
    page.section("Export")
    page.section("Some weather")
    return page


@pytest.fixture(scope="module")
def series(page):
    return dict(np.load(page.folder / "series.npz"))


@pytest.fixture(scope="module")
def expected(page, series):
    """What the default signature gives for the weather of the page."""
    return page.ask("serving_default", **series)


@pytest.fixture(scope="module")
def inputs(page, series):
    """Inputs of another number of cells and days than those of the page."""

    def of(signature):
        forcing, static = series["forcing"][:3, :40], series["static"][:3]
        spun_up = page.ask("spin_up", forcing=forcing, static=static, cycles=1)
        state = {
            name.replace("final_", "initial_"): values
            for name, values in spun_up.items()
            if name.startswith("final_")
        }
        others = {"spin_up": {"cycles": np.array(2, "int32")}}.get(signature, state)
        if signature == "step":
            forcing = forcing[:, 0]
        return {"forcing": forcing, "static": static, **others}

    return of


def assert_same(found, expected):
    """All outputs within what single precision leaves of them after the series."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert np.shape(found[name]) == values.shape, name
        np.testing.assert_allclose(
            found[name], values, rtol=1e-4, atol=1e-3, err_msg=name
        )


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_every_block_runs(page, block):
    page.section(block.section)


def test_the_page_lists_every_signature(page):
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text("utf-8"), re.M))
    names = {name.removesuffix("_series") for name in page.model.signatures}
    assert listed == names


def test_two_halves_of_the_python_client_are_one_run(page, series):
    names = page.section("Python")
    whole = page.ask(
        "simulate",
        **series,
        **{k: v for k, v in names["initial"](names["spun_up"]).items()},
    )
    np.testing.assert_allclose(names["runoff"], whole["runoff"], rtol=1e-5, atol=1e-5)


def test_saved_model_cli_writes_every_variable(page, expected):
    page.section("The command line: saved_model_cli")
    files = sorted((page.folder / "outputs").glob("*.npy"))
    assert_same({file.stem: np.load(file) for file in files}, expected)


def test_a_network_learns_through_the_layer_and_tunes_it(page):
    names = page.section("Inside another network: Keras")
    losses = names["losses"]
    assert losses[7] < losses[0] / 2, "by what is in front of the layer"
    assert losses[-1] < losses[7], "by the layer too"
    assert 1.1 < names["factors"].mean() < 1.3, "towards the 1.2 of the truth"


def test_the_layer_computes_with_the_weights_that_were_tuned(page):
    names = page.section("Inside another network: Keras")
    layer = names["hydrology"]
    trained = Trained.open(page.folder / MODEL).model().trainable_variables
    assert len(layer.trainable_weights) == len(trained)
    for weight in layer.trainable_weights:
        same = [np.array_equal(weight, before) for before in map(np.asarray, trained)]
        # The capacity learns only where a soil fills up.
        assert not any(same) or "soil_water_capacity" in weight.path
    truth = {"forcing": names["truth"], "static": names["series"]["static"]}
    assert np.abs(layer(truth)["tws"] - names["observed"]).max() > 0.1


def test_a_stream_of_batches_is_one_call(page, expected):
    names = page.section("Streams: tf.data")
    np.testing.assert_allclose(
        names["runoff"], expected["runoff"], rtol=1e-5, atol=1e-5
    )


def test_warm_up_requests_are_answered_by_every_signature(page):
    prediction_log_pb2 = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2"
    )
    import stand_ins

    folder = page.folder / MODEL / "assets.extra"
    (file,) = folder.iterdir()
    assert file.name == "tf_serving_warmup_requests"
    asked = set()
    for record in tf.data.TFRecordDataset(str(file)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        assert request.model_spec.name == "demo"
        signature = request.model_spec.signature_name
        outputs = page.model.signatures[signature](**stand_ins.inputs(request))
        assert all(np.all(np.isfinite(values)) for values in outputs.values())
        asked.add(signature)
    assert asked == {name for name in page.model.signatures if XLA not in name}


def test_the_folder_of_a_model_has_its_versions_by_number(page):
    (version,) = (page.folder / MODEL).parent.iterdir()
    assert version.name == "1"
    assert (version / "saved_model.pb").is_file()
    assert {path.name for path in (version / "variables").iterdir()} == {
        "variables.index",
        "variables.data-00000-of-00001",
    }


def test_rest_gives_the_numbers_of_the_model(page, expected):
    assert_same(page.section("A client by REST")["outputs"], expected)


def test_grpc_gives_the_numbers_of_the_model(page):
    found = page.section("A client by gRPC")["outputs"]
    assert set(variables.OUTPUTS) < set(found)
    names = page.section("Python")
    np.testing.assert_allclose(found["runoff"], names["runoff"], rtol=1e-5, atol=1e-5)


def test_litert_gives_the_numbers_of_tensorflow(page, expected):
    found = page.section("LiteRT")["outputs"]
    assert expected["soil_water_capacity"].min() > 80, "where exp overflows soon"
    assert_same(found, expected)


@pytest.mark.parametrize("signature", OTHERS)
def test_litert_runs_the_other_signatures_on_other_sizes(page, inputs, signature):
    page.section("LiteRT")
    from ai_edge_litert.interpreter import Interpreter

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(page.folder / MODEL), signature_keys=[signature]
    )
    interpreter = Interpreter(model_content=converter.convert())
    runner = interpreter.get_signature_runner(signature)
    asked = inputs(signature)
    for cells in (3, 1):
        some = {k: v[:cells] if np.ndim(v) else v for k, v in asked.items()}
        assert_same(runner(**some), page.ask(signature, **some))


def test_onnx_gives_the_numbers_of_tensorflow(page, expected):
    assert_same(page.section("ONNX")["outputs"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("signature", OTHERS)
def test_onnx_runs_the_other_signatures_on_other_sizes(page, inputs, signature):
    page.section("ONNX")
    import onnxruntime

    (convert,) = (b for b in blocks() if (b.section, b.language) == ("ONNX", "bash"))
    code = convert.code.replace("serving_default", signature)
    code = code.replace("demo.onnx", "other.onnx")
    with contextlib.chdir(page.folder):
        page.run(
            convert._replace(code=code.replace("demo.onnx", "other.onnx")), {}, None
        )
        session = onnxruntime.InferenceSession("other.onnx")
    names = [output.name for output in session.get_outputs()]
    asked = inputs(signature)
    found = dict(zip(names, session.run(names, asked), strict=True))
    assert_same(found, page.ask(signature, **asked))


def test_c_prints_the_runoff_of_tensorflow(page, expected):
    page.section("C")
    printed = np.loadtxt(page.folder / "runoff.txt")
    np.testing.assert_allclose(printed, expected["runoff"], rtol=1e-5, atol=1e-5)


def test_c_says_in_a_line_what_it_does_not_find(page):
    page.section("C")
    for words in (["nowhere", "1", "1", "1", "a:0", "b:0", "c:0"], [MODEL]):
        done = subprocess.run(
            ["./runoff", *words],
            cwd=page.folder,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
        )
        assert done.returncode in (1, 2)
        assert done.stderr.strip().splitlines()[-1].startswith(("The model", "usage"))


def test_what_the_tools_need_is_installed_for_the_suite():
    tools = (ROOT / "requirements-serving.txt").read_text().splitlines()[1:]
    assert set(tools) <= set((ROOT / "requirements-dev.txt").read_text().splitlines())
