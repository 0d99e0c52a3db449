"""Kills trainings at random moments: python benchmarks/kill_test.py --kills 20.

Each training is killed (SIGKILL) after a random time and called again, until it ends
before the next kill comes. Its weights and history are then compared, to the last bit,
with those of a training that nobody disturbed.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from h2mv_tf import console, startup  # noqa: E402

startup.import_tensorflow()

import pandas as pd  # noqa: E402

from h2mv_tf.data.synthetic import synthesize  # noqa: E402
from h2mv_tf.run_folder import RunFolder  # noqa: E402
from h2mv_tf.trained import Trained  # noqa: E402

SETTINGS = (
    "split.block_size=2",
    "model.lstm_units=32",
    "model.dropout=0.1",
    "window.length=180",
    "window.spin_up=90",
    "training.batch_size=64",
    "training.checkpoint_minutes=0.01",
)
TIMED = ["cell_days_per_second", "waiting_for_data"]
GRACE = 1.2  # of an undisturbed training's time, in which kills come


class Undisturbed:
    """What a training comes to, and how long it takes."""

    def __init__(self, run: RunFolder, seconds: float):
        self.seconds = seconds
        self.weights, self.history = outcome(run)

    def differs(self, run: RunFolder) -> str | None:
        """In what a run differs from it; None: in nothing."""
        weights, history = outcome(run)
        for n, (found, expected) in enumerate(zip(weights, self.weights, strict=True)):
            if not np.array_equal(found, expected):
                return f"weight {n} differs by {np.abs(found - expected).max():.1e}"
        if not history.equals(self.history):
            return "the history differs"
        return None


def outcome(run: RunFolder) -> tuple[Sequence[np.ndarray], pd.DataFrame]:
    """The trained weights of a run, and what its history holds but for times."""
    return Trained.of(run).weights, run.load_history().drop(columns=TIMED)


def call(run: RunFolder, settings: tuple[str, ...], log: Path) -> subprocess.Popen:
    """Begins a training, or goes on with it, as the script of a cluster's job does."""
    command = [sys.executable, str(ROOT / "trainers" / "train.py"), "--no-results"]
    command += ["--run-dir", str(run.path)]
    if run.path.exists():
        command += ["--resume"]
    else:
        command += [part for setting in settings for part in ("--set", setting)]
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output)


@click.command()
@click.option("--kills", type=click.IntRange(1), default=20, show_default=True)
@click.option("--devices", type=click.IntRange(1), default=1, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=12, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(kills: int, devices: int, epochs: int, seed: int) -> None:
    """Kills trainings, and counts those that are lost."""
    tell, rng = console.console.print, np.random.default_rng(seed)
    folder = Path(tempfile.mkdtemp(prefix="h2mv-kill-test-"))
    store, log = folder / "world.zarr", folder / "log.txt"
    synthesize(store, rows=12, columns=24, years=2, noise=0.05, seed=3)
    settings = (
        f"data.store={store}",
        f"training.epochs={epochs}",
        f"distribution.devices={devices}",
        *SETTINGS,
    )
    run, begin = RunFolder(folder / "undisturbed"), time.perf_counter()
    if call(run, settings, log).wait():
        sys.exit(f"The undisturbed training has failed; see '{log}'.")
    expected = Undisturbed(run, time.perf_counter() - begin)
    tell(f"undisturbed: {expected.seconds:.0f} s, {epochs} epochs")
    killed = runs = lost = 0
    while killed < kills:
        runs += 1
        run, moments, status = RunFolder(folder / f"run-{runs}"), [], None
        while status is None:
            process = call(run, settings, log)
            moment = rng.uniform(0, GRACE * expected.seconds)
            try:
                status = process.wait(timeout=moment if killed < kills else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
                moments.append(f"{moment:.1f}")
        wrong = f"status {status}" if status else expected.differs(run)
        lost += wrong is not None
        when = f"killed after {', '.join(moments)} s" if moments else "not killed"
        tell(f"run {runs}: {when}; {wrong or 'identical'}")
    tell(f"kills: {killed}, runs: {runs}, lost: {lost}")
    if lost:
        sys.exit(f"What they told is in '{log}'.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
