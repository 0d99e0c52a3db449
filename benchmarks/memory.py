"""The memory of a long training, epoch by epoch: python benchmarks/memory.py.

Draws the curve of docs/reliability.md with --figure.
"""

import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from h2mv_tf import console, startup  # noqa: E402

startup.import_tensorflow()

import keras  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import psutil  # noqa: E402

from h2mv_tf import config, distribution, training  # noqa: E402
from h2mv_tf.data.synthetic import synthesize  # noqa: E402
from h2mv_tf.run_folder import RunFolder  # noqa: E402

SETTINGS = (
    "split.block_size=2",
    "window.length=365",
    "window.spin_up=365",
    "training.batch_size=64",
    "training.patience=1000000",
    "training.checkpoint_minutes=0.05",
)
EARLY, GROWTH = 10, 1.05  # epoch that the last one is held against, and how


class Memory(keras.callbacks.Callback):
    """Resident memory of this process after each epoch [MB]."""

    def __init__(self):
        super().__init__()
        self.resident: list[float] = []

    def on_epoch_end(self, epoch, logs=None):
        """Notes it."""
        self.resident.append(psutil.Process().memory_info().rss / 1e6)


@click.command()
@click.option("--epochs", type=click.IntRange(EARLY), default=200, show_default=True)
@click.option("--devices", type=click.IntRange(1), default=2, show_default=True)
@click.option("--figure", type=click.Path(path_type=Path), help="PNG to draw.")
def main(epochs: int, devices: int, figure: Path | None) -> None:
    """Trains on a small world, and tells how the memory grows."""
    distribution.make_devices(devices)
    memory = Memory()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "world.zarr"
        synthesize(store, rows=12, columns=24, years=3, noise=0.05, seed=3)
        overrides = [
            f"data.store={store}",
            f"training.epochs={epochs}",
            f"distribution.devices={devices}",
            *SETTINGS,
        ]
        run = RunFolder(Path(folder) / "run")
        training.fit(config.load(None, overrides), run, callbacks=[memory])
    found = memory.resident
    numbers = sorted({1, EARLY, *range(50, epochs, 50), epochs})
    console.table(
        "Resident memory",
        ("epoch", "MB", f"of epoch {EARLY}"),
        [
            (f"{n}", f"{found[n - 1]:.0f}", f"{found[n - 1] / found[EARLY - 1]:.3f}")
            for n in numbers
        ],
    )
    if figure is not None:
        _draw(found, figure)
    if found[-1] > GROWTH * found[EARLY - 1]:
        sys.exit("It grows.")


def _draw(found: list[float], figure: Path) -> None:
    drawn, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.plot(range(1, len(found) + 1), found, color="#0072b2")
    axes.axhline(GROWTH * found[EARLY - 1], color="0.5", linestyle="--", linewidth=1)
    axes.annotate(
        f"5 % above epoch {EARLY}",
        (len(found), GROWTH * found[EARLY - 1]),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        color="0.35",
    )
    axes.set(xlabel="epoch", ylabel="resident memory (MB)", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    drawn.savefig(figure, dpi=200)


if __name__ == "__main__":
    main()
