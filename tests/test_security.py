"""What others have written is data: it is read or refused, and never executed."""

import errno
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import fuzzing
import h5py
import keras
import numcodecs.pickles
import numpy as np
import pytest
import stores
import xarray as xr
import zarr
from fuzzing import one_line
from stores import MONTHS, at_sites, field, refuse, world

from h2mv_tf import architecture, config, errors, predictions, published
from h2mv_tf.card import ASSETS, FILE
from h2mv_tf.data import metadata, units
from h2mv_tf.data.ingest import ingest
from h2mv_tf.data.store import Store
from h2mv_tf.data.writing import write_store
from h2mv_tf.documents import parsed_json, parsed_yaml
from h2mv_tf.errors import UserError, printable, shown
from h2mv_tf.model import H2MV
from h2mv_tf.report.parts import Section
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.trained import Trained

FORCING = ("net_radiation", "precipitation", "air_temperature")


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.fixture
def unsafe(monkeypatch):
    """Numcodecs as it was up to 0.16.5, and is where the user allows it."""
    monkeypatch.setattr(
        numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False
    )


@pytest.fixture
def trap(tmp_path, unsafe):
    """A file that is there if anything was executed, and a pickle that does it."""
    file = tmp_path / "executed"
    yield file, pickle.dumps(Evil(file))
    assert not file.exists()


@pytest.fixture(params=[2, 3], ids=["zarr2", "zarr3"])
def small(tmp_path, request):
    return stores.small(tmp_path / "small.zarr", request.param)


def declare(array, **changes):
    """Changes the metadata of an array."""
    file = array / ".zarray"
    file = file if file.exists() else array / "zarr.json"
    content = json.loads(file.read_text())
    if file.name == "zarr.json" and "chunks" in changes:
        chunks = {"chunk_shape": changes.pop("chunks")}
        changes["chunk_grid"] = {"name": "regular", "configuration": chunks}
    file.write_text(json.dumps(content | changes))


def chunks_of(array):
    """The files of its chunks."""
    return [
        f
        for f in sorted(array.rglob("*"))
        if f.is_file() and f.suffix != ".json" and not f.name.startswith(".z")
    ]


# YAML and JSON


@pytest.mark.parametrize("value", fuzzing.YAML, ids=range(len(fuzzing.YAML)))
@pytest.mark.parametrize("name", ["training.epochs", "data.store", "data.groups.et"])
def test_a_value_that_a_parser_stumbles_over_is_one_line_or_taken(name, value):
    def call():
        settings = config.load(None, [f"{name}={value}"])
        assert config.parse(settings.to_yaml()) == settings

    fuzzing.refused(0, call)


@pytest.mark.parametrize(
    "code",
    [
        "!!python/object/apply:pathlib.Path.touch [{file}]",
        "!!python/object/new:pathlib.Path [{file}]",
        "!!python/name:os.system",
    ],
)
def test_yaml_with_tags_of_code_executes_nothing(tmp_path, trap, code):
    file, _ = trap
    text = f"training: {{epochs: {code.format(file=file)}}}"
    (tmp_path / "config.yaml").write_text(text)
    one_line(lambda: config.load(tmp_path / "config.yaml"), "is not YAML", "tag")
    one_line(lambda: config.load(None, [f"training.epochs={code}"]), "tag")


def bomb(levels, merged=False):
    """A few bytes of YAML that mean ten to the power of levels."""
    lines = ["a0: &a0 {x: 1}" if merged else "a0: &a0 [x]"]
    for n in range(levels):
        aliases = ", ".join([f"*a{n}"] * 10)
        value = f"{{<<: [{aliases}]}}" if merged else f"[{aliases}]"
        lines.append(f"a{n + 1}: &a{n + 1} {value}")
    return "\n".join(lines)


@pytest.mark.parametrize("merged", [False, True])
def test_aliases_that_multiply_are_refused(tmp_path, merged):
    (tmp_path / "config.yaml").write_text(bomb(12, merged))
    one_line(lambda: config.load(tmp_path / "config.yaml"), "aliases")


def test_aliases_as_people_use_them_are_read():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a"
    assert parsed_yaml(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("&a [*a]", "contains itself"),
        ("[" * 100 + "]" * 100, "nested deeper"),
        ("[" * 20_000, "nested deeper"),
        ("a: " + "9" * 1000, "1000 digits"),
        ("#" * 300_000, "300000 characters"),
    ],
)
def test_yaml_that_is_larger_than_it_should_be_is_refused(text, what):
    with pytest.raises(ValueError, match=what):
        parsed_yaml(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [("[" * 100_000, "nested"), ("9" * 5000, "5000 digits"), ("{", "Expecting")],
)
def test_json_that_is_larger_than_it_should_be_is_refused(text, what):
    with pytest.raises(ValueError, match=what):
        parsed_json(text)


@pytest.mark.parametrize("name", ["../../x", "/etc", "a/b", "..", "", "a\\b", "a\x1bb"])
def test_a_group_lies_in_its_store(name):
    with pytest.raises(UserError, match="no name of a group"):
        config.validated({"data": {"groups": {"et": name}}})


def test_a_mapped_group_that_climbs_out_is_not_opened(small, tmp_path):
    shutil.copytree(small / "tws", tmp_path / "elsewhere")
    one_line(lambda: Store.open(small, {"et": "../elsewhere"}), "lacks group")


# Messages


def test_a_message_is_one_line_that_a_terminal_shows():
    error = UserError("name '\x1b[2Jevil\nname\ud800\u202e' is wrong")
    assert str(error) == "name '\\x1b[2Jevil name\\ud800\\u202e' is wrong"
    assert printable("Größe in m²") == "Größe in m²"
    assert len(str(UserError("x" * 10**6))) == errors.LONGEST


def test_what_a_message_quotes_is_short_however_large_it_is():
    nested = [0]
    for _ in range(60):
        nested = [nested] * 60
    for value in (nested, "x" * 10**6, 10**5000, {1: nested}, object()):
        assert len(shown(value)) <= errors.LONG
    assert shown([1, "a"]) == "[1, 'a']"


def test_names_of_a_store_do_not_steer_the_terminal(tmp_path):
    fields = world()
    names = ["\x1b[2Jsand", "clay\nsilt"]
    fields["static"] = fields["static"].assign_coords(variable=names)
    write_store(tmp_path / "store.zarr", fields)
    assert Store.open(tmp_path / "store.zarr").static_names == (
        "\\x1b[2Jsand",
        "clay silt",
    )


def test_a_report_shows_what_others_wrote_as_text():
    from h2mv_tf.report import _TEMPLATES, contents
    from h2mv_tf.report.parts import Table

    evil = "<script>alert(1)</script>"
    table = Table(evil, [evil, evil], [[evil, evil]], groups=[(evil, 1)], note=evil)
    section = Section(
        evil, text=evil, facts=[(evil, evil)], tables=[table], verbatim=evil
    )
    page = contents.Page(evil, [(evil, evil)], [section], [])
    text = _TEMPLATES.get_template("report.html.j2").render(
        page=page, now=np.datetime64("2001-01-01").astype(object), version=evil
    )
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 8


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ESTALE])
def test_a_report_that_cannot_be_written_is_one_line(
    run_of_others, monkeypatch, number
):
    from h2mv_tf import report

    def failing(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", failing)
    monkeypatch.setattr(Path, "unlink", failing)  # as where nothing can be changed
    one_line(
        lambda: report.write(run_of_others.path), "report.html", os.strerror(number)
    )


def test_little_memory_is_told_as_such():
    def call():
        with metadata.readable("Store 'x'"):
            raise MemoryError

    one_line(call, "does not fit the memory")
    assert architecture.memory() == metadata.memory() > 1e8


# Units, which a library works out


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9",
        "2^10^9",
        "m⁹⁹⁹⁹⁹⁹⁹⁹",
        "9⁹⁹⁹⁹⁹⁹⁹⁹",
        "(9**999)**9999",
        "m**9**9**9",
        "m" * 999,
    ],
)
def test_units_that_would_take_days_to_work_out_are_none(text):
    assert fuzzing.refused(0, lambda: units.converts(text, "mm")) is None
    assert not units.converts(text, "mm")


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("W m^-2", "W m-2"),
        ("kg m**-2 s**-1", "mm d-1"),
        ("kg s**-1 m-2", "mm d-1"),
        ("m²", "m2"),
    ],
)
def test_units_with_powers_are_read(found, wanted):
    assert units.converts(found, wanted)


def test_units_of_a_store_that_would_take_days_are_told(tmp_path):
    fields = world()
    fields["prec"].attrs["units"] = "9**9**9**9 mm"
    write_store(tmp_path / "s.zarr", fields | {"tws": field(-20, MONTHS)})
    line = one_line(lambda: refuse(Store.open(tmp_path / "s.zarr")))
    assert "units '9**9**9**9 mm', which are not like mm d-1" in line


# Zarr stores


def plant(array, evil):
    """Puts a pickle where the values of an array of format 2 are."""
    array.mkdir(parents=True, exist_ok=True)
    content = {
        "zarr_format": 2,
        "shape": [2],
        "chunks": [2],
        "dtype": "|O",
        "fill_value": None,
        "order": "C",
        # The first of which makes Zarr take it for text.
        "filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}],
        "compressor": None,
    }
    (array / ".zarray").write_text(json.dumps(content))
    (array / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["lat"]}')
    (array / "0").write_bytes(evil)


def test_the_trap_of_these_tests_springs(tmp_path, unsafe):
    file = tmp_path / "executed"
    plant(tmp_path / "array", pickle.dumps(Evil(file)))
    with pytest.raises(Exception, match=r"."):
        zarr.open_array(tmp_path / "array", mode="r")[:]
    assert file.exists()


@pytest.mark.parametrize("group", ["mask/lat", "prec/lat", "elsewhere/lat"])
def test_a_store_with_pickles_is_refused_before_it_is_read(tmp_path, trap, group):
    path = tmp_path / "store.zarr"
    write_store(path, world(), zarr_format=2)
    (path / "elsewhere").mkdir()
    (path / "elsewhere" / ".zgroup").write_text('{"zarr_format": 2}')
    shutil.rmtree(path / group, ignore_errors=True)
    plant(path / group, trap[1])
    one_line(lambda: Store.open(path), "codec 'pickle'", "executes")


@pytest.mark.parametrize("consolidated", [False, True])
def test_other_data_with_pickles_are_refused_as_well(tmp_path, trap, consolidated):
    path = tmp_path / "data.zarr"
    xr.Dataset({"x": ("lat", [1.0, 2.0])}).to_zarr(path, zarr_format=2)
    if consolidated:
        about = json.loads((path / ".zmetadata").read_text())
        about["metadata"]["x/.zarray"]["filters"] = [{"id": "pickle"}]
        (path / ".zmetadata").write_text(json.dumps(about))
    else:
        plant(path / "lat", trap[1])
    one_line(lambda: predictions.load(path), "executes")
    one_line(lambda: ingest(path, tmp_path / "to.zarr"), "executes")


def test_consolidated_metadata_that_say_otherwise_are_not_believed(tmp_path):
    path = tmp_path / "store.zarr"
    write_store(path, world(), zarr_format=2)
    zarr.consolidate_metadata(path, zarr_format=2)
    about = json.loads((path / ".zmetadata").read_text())
    about["metadata"]["mask/data/.zarray"]["shape"] = [10**6, 10**6]
    about["metadata"] = {k: v for k, v in about["metadata"].items() if "prec" not in k}
    (path / ".zmetadata").write_text(json.dumps(about))
    assert Store.open(path).land.shape == (2, 3)


@pytest.mark.parametrize(
    ("array", "changes", "wanted"),
    [
        ("mask/data", {"shape": [10**6, 10**6]}, "memory for"),
        ("static/data", {"shape": [2, 10**6, 10**7]}, "memory for"),
        ("prec/time", {"shape": [10**12]}, "memory for"),
        ("prec/time", {"shape": [10**6], "chunks": [1]}, "in 1e+06 chunks"),
        ("tair/data", {"chunks": [90, 10**6, 10**6]}, "memory for"),
        ("mask/lat", {"shape": [-2]}, "cannot be read"),
        ("mask/lat", {"chunks": [0]}, "Store"),
        ("rn/data", {"chunks": [-1, 2, 3]}, "cannot be read"),
        ("rn/data", {"shape": [90, 2]}, "cannot be read"),
        ("mask/data", {"shape": "many"}, "cannot be read"),
    ],
)
def test_an_array_that_cannot_be_is_one_line(small, array, changes, wanted):
    declare(small / array, **changes)
    one_line(lambda: refuse(Store.open(small)), wanted, "small.zarr")


def test_long_text_that_only_the_type_tells_of_is_refused(tmp_path):
    path = tmp_path / "store.zarr"
    write_store(path, world(), zarr_format=2)
    declare(
        path / "static" / "variable",
        shape=[1000],
        dtype="<U500000000",
        filters=None,
        fill_value="",
    )
    one_line(lambda: Store.open(path), "static/variable", "memory for")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 10**5, b'{"shape": 3}']
)
@pytest.mark.parametrize("name", ["mask/data", "prec/time", "mask", "."])
def test_metadata_that_are_none_are_one_line(small, name, content):
    files = [
        f
        for f in (small / name).iterdir()
        if f.name in (".zarray", ".zgroup", "zarr.json")
    ]
    files[0].write_bytes(content)
    line = fuzzing.refused(0, lambda: refuse(Store.open(small)))
    assert line is not None or name == "."  # of which Zarr can do without


@pytest.mark.parametrize("array", ["prec/data", "mask/data", "mask/lat", "prec/time"])
@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "short"])
def test_a_damaged_chunk_is_one_line(small, array, damage):
    for chunk in chunks_of(small / array):
        content = chunk.read_bytes()
        chunk.write_bytes(
            {
                "cut": content[: len(content) // 2],
                "empty": b"",
                "garbage": b"\x07" * len(content),
                # The whole of another array: a chunk that unpacks to another size.
                "short": chunks_of(small / "tair" / "lat")[0].read_bytes()[:-3],
            }[damage]
        )
    one_line(lambda: refuse(Store.open(small)), "small.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_text_that_claims_billions_of_words_is_refused_before_there_is_room_for_them(
    tmp_path, zarr_format
):
    path = tmp_path / "store.zarr"
    write_store(path, world(), zarr_format=zarr_format)
    array = path / "static" / "variable"
    (chunk,) = chunks_of(array)
    names = numcodecs.VLenUTF8().encode(np.array(["elevation", "sand"], object))
    claim = (2**31).to_bytes(4, "little") + bytes(names)[4:]
    packed = numcodecs.Blosc() if zarr_format == 2 else numcodecs.Zstd()
    chunk.write_bytes(packed.encode(claim))
    one_line(lambda: Store.open(path), "static/variable", "truncated or damaged")
    chunk.write_bytes(packed.encode(bytes(names)))
    assert Store.open(path).static_names == ("elevation", "sand")


def test_damaged_names_of_sites_are_one_line(tmp_path):
    path = tmp_path / "sites.zarr"
    write_store(path, at_sites(world() | {"tws": field(-20, MONTHS)}))
    for chunk in chunks_of(path / "tws" / "name"):
        chunk.write_bytes(b"\x07" * chunk.stat().st_size)
    one_line(lambda: Store.open(path).observed("tws"), "sites.zarr", "cannot be read")


@pytest.mark.parametrize(
    ("name", "moment", "value"),
    [
        ("prec", "mean", "NaN"),
        ("prec", "mean", '"many"'),
        ("static", "mean", "[1, 2, 3]"),
        ("prec", "std", "0.0"),
        ("static", "std", "[1, -1]"),
    ],
)
def test_moments_of_a_store_that_scale_nothing_are_one_line(
    tmp_path, name, moment, value
):
    fields = world()
    fields[name].attrs = {"mean": 0.0, "std": 1.0, moment: "VALUE"}
    write_store(tmp_path / "s.zarr", fields, zarr_format=2)
    file = tmp_path / "s.zarr" / name / "data" / ".zattrs"
    file.write_text(file.read_text().replace('"VALUE"', value))
    store = Store.open(tmp_path / "s.zarr")
    ask = (
        store.stored_static_moments
        if name == "static"
        else (lambda: store.stored_moments("precipitation"))
    )
    one_line(ask, f"attribute {moment}", "Expected a ", "number")


def test_a_mask_of_text_is_one_line(tmp_path):
    path = tmp_path / "store.zarr"
    write_store(path, world(), zarr_format=2)
    mask = world()["mask"].astype(str).astype(object).to_dataset(name="data")
    mask.to_zarr(path, group="mask", mode="w", zarr_format=2, consolidated=False)
    one_line(lambda: Store.open(path), "holds text", "Expected numbers")


def test_a_store_that_goes_while_it_is_read_is_told(small):
    store = Store.open(small)
    assert np.isfinite(store.forcing("precipitation", store.blocks[0])).all()
    shutil.rmtree(small)
    one_line(
        lambda: store.forcing("precipitation", store.blocks[0]),
        "has gone",
        "small.zarr",
    )


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_fails_while_a_store_is_opened_is_told(small, monkeypatch, number):
    def failing(*_, **__):
        raise OSError(number, os.strerror(number), str(small / "prec"))

    monkeypatch.setattr(xr, "open_zarr", failing)
    one_line(lambda: Store.open(small), os.strerror(number), "small.zarr")


# Models of others


@pytest.fixture
def run_of_others(tmp_path):
    """A run folder as a training leaves it, of an untrained model."""
    run = RunFolder(tmp_path / "run")
    for folder in (run.checkpoints, run.figures):
        folder.mkdir(parents=True)
    run.save_config(config.load(None, ["model.lstm_units=4", "model.encoder_units=4"]))
    moments = {"mean": 1.0, "std": 2.0}
    parts = {
        "forcing": dict.fromkeys(FORCING, moments),
        "static": {"sand": moments, "clay": moments},
        "constraints": {},
    }
    run.save_json(run.normalization_file, parts)
    run.save_json(run.metrics_file, {})
    H2MV(2, encoder_units=4, lstm_units=4).save(run.model_file)
    return run


def test_the_run_of_others_of_these_tests_is_read(run_of_others):
    assert Trained.open(run_of_others.path).static_names == ("sand", "clay")


def rewritten(file, **parts):
    """Writes a `.keras` file with other parts."""
    with zipfile.ZipFile(file) as before:
        content = {name: before.read(name) for name in before.namelist()}
    content |= parts
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as after:
        for name, value in content.items():
            after.writestr(name, value)


def test_a_keras_file_with_code_is_refused_and_not_executed(run_of_others, trap):
    path = str(trap[0])
    model = keras.Sequential([keras.layers.Lambda(lambda x: os.mkdir(path))])
    model.save(run_of_others.model_file)
    one_line(lambda: Trained.open(run_of_others.path), "'Sequential'", "expected H2MV")


@pytest.mark.parametrize(
    "change",
    [
        {"registered_name": "Functional"},
        {"class_name": "Lambda", "module": "keras.layers", "registered_name": "Lambda"},
        {"compile_config": {"loss": {"module": "os", "class_name": "system"}}},
        {"config": {"name": "x", "dtype": {"module": "os", "class_name": "system"}}},
    ],
)
def test_a_keras_file_of_other_classes_is_refused(run_of_others, change):
    file = run_of_others.model_file
    with zipfile.ZipFile(file) as archived:
        content = json.loads(archived.read("config.json"))
    rewritten(file, **{"config.json": json.dumps(content | change)})
    one_line(lambda: Trained.open(run_of_others.path), "run folder")


@pytest.mark.parametrize("name", ["../../evil.py", "/tmp/evil.py", "assets/x"])
def test_a_keras_file_with_other_parts_is_refused(run_of_others, name):
    rewritten(run_of_others.model_file, **{name: "x"})
    one_line(lambda: Trained.open(run_of_others.path), "it holds", "config.json")


def test_a_keras_file_that_is_none_is_one_line(run_of_others):
    content = run_of_others.model_file.read_bytes()
    for damaged in (b"", b"evil", content[:-30], content[: len(content) // 2]):
        run_of_others.model_file.write_bytes(damaged)
        one_line(lambda: Trained.open(run_of_others.path), "cannot be read")


def test_a_keras_file_that_unpacks_to_far_more_is_refused(run_of_others):
    rewritten(run_of_others.model_file, **{"model.weights.h5": bytes(50_000_000)})
    one_line(lambda: Trained.open(run_of_others.path), "cannot be read")


def test_weights_that_lie_in_other_files_are_not_read(run_of_others, tmp_path):
    secret = tmp_path / "secret.h5"
    with zipfile.ZipFile(run_of_others.model_file) as archived:
        secret.write_bytes(archived.read("model.weights.h5"))
    buffer = io.BytesIO()
    with h5py.File(secret) as known, h5py.File(buffer, "w") as linked:
        for name in known:
            linked[name] = h5py.ExternalLink(str(secret), f"/{name}")
    rewritten(run_of_others.model_file, **{"model.weights.h5": buffer.getvalue()})
    one_line(lambda: Trained.open(run_of_others.path), "cannot be read")
    with pytest.raises(UserError) as caught:
        Trained.open(run_of_others.path)
    assert "ExternalLink" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "change",
    [
        {"lstm_units": 10**6},
        {"encoder_units": 10**6, "encoder_layers": 3},
        {"rank": 10**9},
        {"static_size": "2"},
        {"evil": 1},
        {"lstm_units": 10**12},
    ],
)
def test_networks_that_no_memory_holds_are_not_built(run_of_others, change):
    file = run_of_others.model_file
    with zipfile.ZipFile(file) as archived:
        content = json.loads(archived.read("config.json"))
    content["config"] |= change
    rewritten(file, **{"config.json": json.dumps(content)})
    one_line(lambda: Trained.open(run_of_others.path), "cannot be read")


@pytest.mark.parametrize("name", ["normalization_file", "metrics_file", "config_file"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"[" * 10**5, b"\xff", b'{"a": 1}']
)
def test_other_files_of_a_run_that_are_damaged_are_one_line(
    run_of_others, name, content
):
    getattr(run_of_others, name).write_bytes(content)
    fuzzing.refused(0, lambda: Trained.open(run_of_others.path))


@pytest.fixture
def model_of_others(tmp_path):
    """A SavedModel, to be changed."""
    shutil.copytree(fuzzing.DEMO, tmp_path / "model")
    return tmp_path / "model"


def change_card(model, **changes):
    file = model / ASSETS / FILE
    content = json.loads(file.read_text())
    for part, change in changes.items():
        content[part] = content[part] | change if isinstance(change, dict) else change
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("part", "change", "wanted"),
    [
        ("settings", {"lstm_units": 10**6}, "memory for"),
        ("settings", {"lstm_units": 7}, "shape"),
        ("settings", {"dtype": {"module": "os", "class_name": "system"}}, "no H2MV"),
        ("configuration", {"data": {"store": "\0"}}, "data.store"),
        ("configuration", {"evil": 1}, "unknown key 'evil'"),
        ("normalization", {"forcing": {"x": {"mean": "1", "std": 1}}}, "moments"),
        ("normalization", {"static": {}}, "static inputs"),
        ("signatures", 3, "signatures"),
    ],
)
def test_a_card_that_is_not_of_its_model_is_one_line(
    model_of_others, part, change, wanted
):
    change_card(model_of_others, **{part: change})
    one_line(lambda: Trained.open(model_of_others), wanted)


def test_weights_of_a_saved_model_that_are_damaged_are_one_line(model_of_others):
    for file in (model_of_others / "variables").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    one_line(lambda: Trained.open(model_of_others), "cannot be read")


def test_a_checkpoint_with_pickled_arrays_is_refused_and_not_executed(tmp_path, trap):
    values = np.array([Evil(trap[0])], dtype=object)
    np.savez(tmp_path / "evil.npz", **{"fc_static.fc1.weight": values})
    one_line(lambda: published.read(tmp_path / "evil.npz"), "cannot be read")


def test_a_checkpoint_that_claims_more_than_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "memory", lambda: 1e6)
    name = {"fc_static.fc1.weight": np.zeros(10**6)}
    np.savez_compressed(tmp_path / "bomb.npz", **name)
    one_line(lambda: published.read(tmp_path / "bomb.npz"), "memory does not hold")
    header = b"\x93NUMPY\x01\x00v\x00"
    about = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"
    with zipfile.ZipFile(tmp_path / "claim.npz", "w") as made:
        made.writestr("fc_static.fc1.weight.npy", header + about.ljust(117) + b"\n")
    one_line(lambda: published.read(tmp_path / "claim.npz"), "cannot be read")
