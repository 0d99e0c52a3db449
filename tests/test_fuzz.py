"""Whatever others have written, what comes of it is a result or one clear line."""

import io
import json
import tarfile
import zipfile

import fuzzing
import psutil
import pytest
import yaml
from fuzzing import (
    YAML,
    counted,
    damaged,
    damaged_json,
    inputs,
    line,
    rearranged,
    refused,
)
from stores import MONTHS, at_sites, field, world

from h2mv_tf import architecture, archive, config
from h2mv_tf.card import ASSETS, FILE, Card
from h2mv_tf.data import metadata
from h2mv_tf.data.check import Check
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import Statistics, stored_statistics, survey
from h2mv_tf.data.writing import write_store
from h2mv_tf.domain import Domain
from h2mv_tf.errors import UserError, words

pytestmark = pytest.mark.filterwarnings("ignore")
MOST_MEMORY = 1_500_000_000  # bytes that a test may come to need


@pytest.fixture(autouse=True)
def in_little_memory(monkeypatch):
    """Sizes are refused that are large for these inputs; what slips by is noticed."""
    monkeypatch.setattr(metadata, "memory", lambda: 20_000_000)
    monkeypatch.setattr(architecture, "memory", lambda: 200_000_000)
    monkeypatch.setattr(metadata, "MOST_CHUNKS", 500)
    before = psutil.Process().memory_info().rss
    yield
    assert psutil.Process().memory_info().rss - before < MOST_MEMORY


# Configurations

FIELDS = sorted(config._keys(config.Config))


def overrides(number):
    """Some overrides: mostly of fields that there are, with any values."""
    for _ in range(number.choice([1, 1, 1, 2, 3])):
        key = number.choice(FIELDS)
        if number.random() < 0.1:  # as it is by default
            section, _, name = key.partition(".")
            known = getattr(config.Config(), section)
            plain = getattr(known, name.partition(".")[0], None)
            yield f"{key}={json.dumps(plain, default=str)}"
            continue
        if number.random() < 0.15:
            key = number.choice(
                [key + "x", key[1:], "." + key, key + ".a", key.upper(), "a\x00"]
            )
        value = number.choice(YAML)
        if number.random() < 0.2:
            value = damaged(number, value.encode("utf-8", "replace")).decode(
                "utf-8", "replace"
            )
        yield f"{key}={value}"


def taken(settings):
    """What is taken can be written and read again."""
    assert config.parse(settings.to_yaml()) == settings


def test_an_override_is_taken_or_refused_in_one_line():
    with counted("overrides") as counts:
        for seed, number in inputs(4500, 0):
            given = list(overrides(number))
            if number.random() < 0.5:
                given.insert(0, "objective.likelihood=normal")
            found = refused(seed, lambda given=given: taken(config.load(None, given)))
            counts["taken" if found is None else "refused"] += 1
    assert min(counts.values()) > 100


def documents():
    """Sections of valid configurations, a few together, as plain values."""
    likely = ["objective.likelihood=normal", "uncertainty.posterior=variational"]
    kinds = [
        config.load(None, ["synthetic.years=2", "data.groups={et: et_xbase}"]),
        config.load(None, [*likely, "objective.errors=[tws]"]),
    ]
    return [kind.model_dump(mode="json", exclude_none=True) for kind in kinds]


def test_a_configuration_file_is_taken_or_refused_in_one_line(tmp_path):
    known, file = documents(), tmp_path / "config.yaml"
    with counted("configurations") as counts:
        for seed, number in inputs(2000, 10_000_000):
            whole = number.choice(known)
            sections = number.sample(list(whole), number.randint(1, 2))
            content = {name: whole[name] for name in sections}
            if number.random() < 0.5:
                content = rearranged(number, content)
            text = (
                yaml.safe_dump(content, allow_unicode=True) if _short(content) else "a"
            )
            if number.random() < 0.3:
                text = text.replace(": ", f": {number.choice(YAML)} ", 1)
            written = text.encode("utf-8", "surrogatepass")
            if number.random() < 0.5:
                written = damaged(number, written)
            file.write_bytes(written)
            found = refused(seed, lambda: taken(config.load(file)))
            counts["taken" if found is None else "refused"] += 1
    assert min(counts.values()) > 100


def _short(content):
    """Whether Python can write it: it refuses numbers of many digits."""
    try:
        yaml.safe_dump(content)
    except ValueError:
        return False
    return True


# Stores


def small_store(path, zarr_format, layout):
    fields = world()
    fields["tws"] = field(-20, MONTHS)
    if layout == "grid":
        fields["swe"], fields["tws_sigma"] = field(5), field(2, MONTHS)
    for data in fields.values():
        data.attrs = {"mean": 1.5, "std": 2.5, "units": "mm"}
    if layout == "sites":
        fields = at_sites(fields)
    write_store(path, fields, zarr_format=zarr_format, attributes={"title": "small"})
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store of each format and layout, and its files."""
    found = []
    for zarr_format, layout in ((2, "grid"), (3, "grid"), (2, "sites"), (3, "sites")):
        path = tmp_path_factory.mktemp("s") / "s"
        small_store(path, zarr_format, layout)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        found.append((path, files))
    return found


def examined(path, seed):
    """What `check-data` finds in a store, and what others read of it."""
    store = Store.open(path)
    check = Check.of(survey(store, errors=store.errors))
    for finding in check.findings:
        line(seed, str(finding))
    for row in check.rows:
        line(seed, f"{row.name} {row.units} {row.chunks} {row.period} {row.low:g}")
    stored_statistics(store, store.constraints)
    store.truth()
    for name in store.constraints:
        store.observed(name)


def is_metadata(file):
    return file.name == "zarr.json" or file.name.startswith(".z")


def changed(number, file):
    """A file of a store, changed: metadata as a tree, chunks as bytes."""
    content = file.read_bytes()
    return (
        damaged_json(number, content) if is_metadata(file) else damaged(number, content)
    )


def test_a_store_is_taken_or_refused_in_one_line(stores):
    with counted("stores") as counts:
        for seed, number in inputs(1500, 20_000_000):
            path, files = number.choice(stores)
            wanted = number.random() < 0.8
            chosen = number.choice([f for f in files if is_metadata(f) == wanted])
            before = chosen.read_bytes()
            chosen.write_bytes(changed(number, chosen))
            try:
                found = refused(seed, lambda path=path, seed=seed: examined(path, seed))
            finally:
                chosen.write_bytes(before)
            counts["taken" if found is None else "refused"] += 1
    assert min(counts.values()) > 100


# What travels with a model


@pytest.fixture(scope="module")
def model_card():
    return (fuzzing.DEMO / ASSETS / FILE).read_bytes()


def read_card(folder):
    """All of a card that a loaded model uses before its weights."""
    card = Card.read(folder)
    config.validated(card.configuration)
    try:
        architecture.checked(card.settings)
        Statistics.from_dict(card.normalization)
    except ValueError as error:  # which `Trained` puts into its line
        raise UserError(words(error)) from error


def test_a_model_card_is_taken_or_refused_in_one_line(tmp_path, model_card):
    file = tmp_path / ASSETS / FILE
    file.parent.mkdir()
    with counted("model cards") as counts:
        for seed, number in inputs(400, 30_000_000):
            file.write_bytes(damaged_json(number, model_card))
            found = refused(seed, lambda: read_card(tmp_path))
            counts["taken" if found is None else "refused"] += 1
    assert min(counts.values()) > 20


def test_moments_and_ranges_are_taken_or_refused_in_one_line(model_card):
    normalization = json.loads(model_card)["normalization"]
    units = {"forcing": {"rn": {"low": 1.0, "high": 2.0}}, "static": {}, "units": {}}
    domain = {**units, "period": ["2001-01-01", "2001-12-31"], "cells": 3}

    def read(kind, content):
        try:
            kind.from_dict(content)
        except ValueError as error:
            raise UserError(words(error)) from error

    with counted("moments and ranges") as counts:
        for seed, number in inputs(1500, 40_000_000):
            kind, known = number.choice([(Statistics, normalization), (Domain, domain)])
            content = rearranged(number, known)
            found = refused(
                seed, lambda kind=kind, content=content: read(kind, content)
            )
            counts["taken" if found is None else "refused"] += 1
    assert min(counts.values()) > 50


# Archives


def archives():
    """A store as archives of each kind."""
    files = {
        "s/.zgroup": b'{"zarr_format": 2}',
        "s/a/.zattrs": b"{}" * 40,
        "s/a/0": b"\0" * 400,
    }
    for mode in ("zip", "w:", "w:gz", "w:bz2", "w:xz"):
        content = io.BytesIO()
        if mode == "zip":
            with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
                for name, values in files.items():
                    made.writestr(name, values)
        else:
            with tarfile.open(fileobj=content, mode=mode) as made:
                for name, values in files.items():
                    about = tarfile.TarInfo(name)
                    about.size = len(values)
                    made.addfile(about, io.BytesIO(values))
        yield content.getvalue()


def test_an_archive_is_unpacked_or_refused_in_one_line(tmp_path):
    known, file = list(archives()), tmp_path / "x.archive"
    with counted("archives") as counts:
        for seed, number in inputs(1000, 50_000_000):
            file.write_bytes(damaged(number, number.choice(known)))
            to = tmp_path / str(seed)
            found = refused(seed, lambda to=to: archive.unpack(file, to))
            if found is not None:
                assert not to.exists(), seed
            counts["taken" if found is None else "refused"] += 1
    taken = counts["taken"]
    assert len(list(tmp_path.iterdir())) == 1 + taken  # nothing beside, and no remains
    assert min(counts.values()) > 50
