"""A disk that is really full, or cannot be written: one line, and nothing is lost.

A file system of some kilobytes, which only the administrator of a machine can mount;
elsewhere these tests are skipped, and others have the system's errors put in.
"""

import contextlib
import errno
import os
import shutil
import subprocess

import click
import pytest
from click.testing import CliRunner
from scripts import assert_one_line, within
from small import small_settings

from h2mv_tf import console, inference, results, training
from h2mv_tf.data.store import Store
from h2mv_tf.data.synthetic import synthesize
from h2mv_tf.errors import UserError, told_by_the_system, words
from h2mv_tf.export import export
from h2mv_tf.files import made
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.trained import Trained

FULL, LARGE = "No space left on device", "size=50m"


@pytest.fixture
def disk(tmp_path):
    """Mounts a small file system, and gives it other options later."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(options, again=False):
        options = f"{'remount,' * again}{options}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if (
            shutil.which("mount") is None
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("only an administrator can mount a small file system")
        return folder

    yield mounted
    subprocess.run(["umount", "--lazy", folder], capture_output=True, check=False)


def refused(call):
    """The line with which a call is refused."""
    with pytest.raises(UserError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    return line


def evaluated(world, run, to):
    predictions = to.parent.parent / "predictions.zarr"
    model, store = Trained.of(run), Store.open(world)
    inference.predict(model, store, predictions, variables=["runoff"], devices=1)
    results.evaluated(predictions, to=to, untrained=False)


@pytest.mark.parametrize(
    "write",
    [
        lambda world, run, to: synthesize(
            to, rows=9, columns=14, years=1, noise=0.0, seed=0
        ),
        lambda world, run, to: inference.predict(
            Trained.of(run), Store.open(world), to, devices=1
        ),
        lambda world, run, to: export(Trained.of(run), to),
        evaluated,
    ],
    ids=["synthesize", "predict", "export", "evaluate"],
)
def test_what_does_not_fit_is_one_line(write, world, run, disk):
    to = disk("size=16k") / "made"
    line = refused(lambda: write(world, run, to))
    assert f"Cannot write '{to}': " in line
    assert FULL in line or "as on a full disk" in line
    assert not to.exists()


def test_a_training_keeps_what_it_has_and_goes_on_when_there_is_room(
    world, run, disk, monkeypatch
):
    monkeypatch.setattr(training, "export", lambda model, path: None)
    folder = disk(LARGE)
    other = RunFolder(folder / "run")

    steps = training.TrainingLoop._steps

    def full(*arguments):
        """Takes steps on a disk on which there is no room any more."""
        ballast = (folder / "ballast").open("wb", buffering=0)
        with ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(1 << 16))
        assert not shutil.disk_usage(folder).free
        steps(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingLoop, "_steps", full)
        line = refused(lambda: training.fit(small_settings(world), other))
    assert f"Cannot write '{other.path}': {FULL}." in line
    (folder / "ballast").unlink()
    training.fit(other.resumed_config(), other, resume=True)
    losses = [r.load_history()["loss"] for r in (other, run)]
    assert list(losses[0]) == list(losses[1])


def test_a_disk_that_is_only_read_is_one_line(world, disk):
    folder = disk("ro,size=1m")
    line = refused(lambda: training.fit(small_settings(world), RunFolder(folder / "r")))
    assert f"Cannot write '{folder / 'r'}': Read-only file system." in line


# What libraries make of it


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EROFS, "Read-only file system", "x.png"), "'x.png': Read-only"),
        (OSError(errno.ESTALE, "Stale file handle"), "Stale file handle"),
        (RuntimeError("NetCDF: HDF error"), "as on a full disk"),
        (
            ValueError(f"RESOURCE_EXHAUSTED: Error writing [OS error 28: {FULL}]"),
            FULL,
        ),
    ],
)
def test_what_the_system_says_is_one_line_of_every_command(error, words):
    @click.command()
    def fails():
        with console.command():
            raise error

    assert_one_line(CliRunner().invoke(fails), words)


def test_a_mistake_of_ours_is_not_hidden():
    @click.command()
    def fails():
        with console.command():
            raise ValueError("a mistake")

    assert isinstance(CliRunner().invoke(fails).exception, ValueError)


def test_a_folder_that_a_library_could_not_write_is_one_line(tmp_path):
    def write():
        with made(tmp_path / "folder") as folder:
            (folder / "some").touch()
            raise RuntimeError(f"; {FULL}")  # as TensorFlow has it

    assert refused(write) == f"Cannot write '{tmp_path / 'folder'}': {FULL}."
    assert not list(tmp_path.iterdir())


# What libraries tell


LIBRARIES = {
    "tensorstore": "import tensorstore as ts; ts.open({{'driver': 'zarr3', 'kvstore': "
    "{{'driver': 'file', 'path': {path!r}}}}}, create=True, dtype=ts.float32, "
    "shape=[99999]).result()[:].write(np.random.rand(99999).astype('f4')).result()",
    "plain": "open({path!r}, 'wb', buffering=0).write(bytes(10000)); "
    "open({path!r}, 'ab', buffering=0).write(bytes(10000))",
    "hdf5": "import h5py; h5py.File({path!r}, 'w')['x'] = np.random.rand(99999)",
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_the_system_says_is_found_in_errors_of_libraries(tmp_path, library):
    code = (
        "import numpy as np\n"
        "from h2mv_tf.errors import told_by_the_system\n"
        f"try: {LIBRARIES[library].format(path=str(tmp_path / 'x'))}\n"
        "except Exception as error: print(told_by_the_system(error))\n"
    )
    result = within(5000, code)
    assert os.strerror(errno.EFBIG) in result.stdout, result.stdout + result.stderr


def test_other_errors_are_not_the_systems():
    assert told_by_the_system(ValueError("shapes differ")) is None
    assert told_by_the_system(KeyError("x")) is None
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b")
    assert told_by_the_system(full) == "'a/b': No space left on device"
    assert words(full) == told_by_the_system(full)
