"""How fast a training step and a simulation are: the tables of docs/performance.md.

python benchmarks/throughput.py
python benchmarks/throughput.py --variants saved_model
python benchmarks/throughput.py --days 5844 --variants fast,fast_mirrored --json
"""

import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from h2mv_tf import console, startup  # noqa: E402

startup.import_tensorflow()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from h2mv_tf import config, distribution  # noqa: E402
from h2mv_tf.cell import State  # noqa: E402
from h2mv_tf.data.survey import Moments, Statistics  # noqa: E402
from h2mv_tf.export import export  # noqa: E402
from h2mv_tf.model import H2MV, Normalization  # noqa: E402
from h2mv_tf.objective import Constraint, Objective  # noqa: E402
from h2mv_tf.signatures import FINAL, INITIAL, XLA  # noqa: E402
from h2mv_tf.steps import Trainer  # noqa: E402
from h2mv_tf.trained import Trained  # noqa: E402
from h2mv_tf.variables import CONSTRAINTS, FORCING, PROGNOSTIC, VARIABLES  # noqa: E402

# Memory of the process before it computes; what a variant takes comes on top.
PROCESS = psutil.Process().memory_info().rss

FLOPS = 97e3  # of a cell-day in one pass
PASSES = {"train": 4, "simulate": 2}  # spin-up, forward, and two for the way back
STATIC = 30
PRODUCTS = ((107, 400), (400, 107), (512, 512), (1024, 1024))  # features to outputs
VARIANTS = ("keras_rnn", "fast", "fast_mirrored")
SAVED_MODEL = "saved_model"  # simulations alone, in a table of their own


class PlainH2MV(H2MV):
    """The model with `keras.layers.RNN` for its time loop."""

    def __init__(self, static_size: int, **kwargs):
        super().__init__(static_size, **kwargs)
        self.cell.outputs = CONSTRAINTS
        self.cell.output_size = len(CONSTRAINTS)

    def spin_up(self, forcing, static, state=None, **_):
        """As of `H2MV`."""
        state = state or self.empty_state(tf.shape(forcing)[0])
        return tf.nest.map_structure(
            tf.stop_gradient, self.simulate(forcing, static, state)[1]
        )

    def simulate(self, forcing, static, state, outputs=CONSTRAINTS, **_):
        """As of `H2MV`, for daily outputs."""
        of_cell = tf.concat(self.encode(static), 1)[:, None]
        of_cell = tf.repeat(of_cell, tf.shape(forcing)[1], axis=1)
        rnn = keras.layers.RNN(self.cell, return_sequences=True, return_state=True)
        series, *state = rnn(
            tf.concat([forcing, of_cell], 2), initial_state=list(state)
        )
        values = dict(zip(CONSTRAINTS, tf.unstack(series, axis=2), strict=True))
        return {name: values[name] for name in outputs}, State(*state)


@click.command(context_settings={"max_content_width": 88})
@click.option("--cells", default=256, show_default=True, help="Cells of a batch.")
@click.option("--days", default=730, show_default=True, help="Days of a record.")
@click.option(
    "--variants", default=",".join((*VARIANTS, SAVED_MODEL)), show_default=True
)
@click.option("--steps", default=7, show_default=True, help="Timed, after warm-up.")
@click.option("--memory", type=int, help="training.memory [MB].")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(
    cells: int,
    days: int,
    variants: str,
    steps: int,
    memory: int | None,
    as_json: bool,
) -> None:
    """Times each variant on random weather, and the processor's matrix product."""
    chosen = variants.split(",")
    if unknown := set(chosen) - {*VARIANTS, SAVED_MODEL}:
        raise click.BadParameter(
            f"{', '.join(unknown)}. Expected: {', '.join((*VARIANTS, SAVED_MODEL))}.",
            param_hint="--variants",
        )
    # Makes the logical devices, which has to come first.
    mirrored = distribution.strategy("auto", cells)
    gflops = _product_speed()
    batch = _batch(cells, days)
    found = {
        variant: _measured(
            PlainH2MV if variant == "keras_rnn" else H2MV,
            mirrored if variant == "fast_mirrored" else None,
            batch,
            steps,
            memory,
        )
        for variant in chosen
        if variant != SAVED_MODEL
    }
    for row in found.values():
        for what, passes in PASSES.items():
            flops = row[f"{what}_kcd_s"] * 1e3 * passes * FLOPS
            row[f"{what}_share"] = round(flops / gflops / 1e9, 3)
    if found:
        _print(found, cells, days, mirrored.num_replicas_in_sync, gflops)
    served = _served(batch, steps) if SAVED_MODEL in chosen else {}
    if served:
        console.table(
            f"Simulations from a given state, all outputs, {cells} cells, {days} days; "
            f"loading takes {served.pop('load_s'):.1f} s",
            ("where", "simulate [1000 cell-days/s]", "share of in process"),
            [
                (name, f"{speed:.0f}", f"{speed / served['in process']:.2f}")
                for name, speed in served.items()
            ],
        )
    if as_json:
        result = {"matmul_gflops": round(gflops, 1), "variants": found, **served}
        print(json.dumps(result))  # noqa: T201


def _print(
    found: dict[str, dict], cells: int, days: int, devices: int, gflops: float
) -> None:
    console.table(
        f"{cells} cells, {days} days; fast_mirrored on {devices} devices; matrix "
        f"product {gflops:.0f} GFLOP/s",
        (
            "variant",
            "train [1000 cell-days/s]",
            "simulate",
            "train [share of product]",
            "simulate",
            "peak memory [MB]",
            "compile [s]",
        ),
        [
            (
                variant,
                *(f"{row[f'{what}_kcd_s']:.0f}" for what in PASSES),
                *(f"{row[f'{what}_share']:.2f}" for what in PASSES),
                f"{row['peak_memory_mb']:.0f}",
                f"{row['compile_s']:.1f}",
            )
            for variant, row in found.items()
        ],
    )


def _product_speed() -> float:
    """The best of several matrix products in float32 on all cores [GFLOP/s]."""
    best = 0.0
    for inner, columns in PRODUCTS:
        for rows in (256, 1024, 4096):
            left, right = (
                tf.random.normal((rows, inner)),
                tf.random.normal((inner, columns)),
            )
            for jit_compile in (False, True):
                product = tf.function(tf.matmul, jit_compile=jit_compile)
                times = _times(lambda p=product, a=left, b=right: p(a, b), 20)
                best = max(best, 2 * rows * inner * columns / min(times))
    return best / 1e9


def _measured(
    kind: type[H2MV],
    strategy: tf.distribute.Strategy | None,
    batch: dict,
    steps: int,
    memory: int | None,
) -> dict[str, float]:
    """Speeds, memory and time to compile of one variant."""
    gc.collect()
    tf.config.experimental.reset_memory_stats("CPU:0")
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        model = kind(STATIC)
        model.set_normalization(
            Normalization(
                forcing_mean=np.array([80, 2.5, 283]),
                forcing_std=np.array([60, 5, 15]),
                static_mean=np.zeros(STATIC),
                static_std=np.ones(STATIC),
            )
        )
        optimizer = keras.optimizers.AdamW(1e-3)
        optimizer.build(model.trainable_variables)
    plain = kind is PlainH2MV  # as Keras runs it on a CPU: without XLA
    trainer = Trainer(
        model,
        _objective(),
        optimizer,
        strategy=strategy,
        clip_value=0.5,
        memory=memory and memory * 1e6,
        jit_compile=not plain,
    )

    @tf.function(jit_compile=not plain, autograph=False)
    def one(forcing, static):
        series = {"forcing": forcing, "static": static}
        return model(series, outputs=CONSTRAINTS)

    @tf.function(autograph=False)
    def simulate(series):
        # A compiled function itself would be run where its variables are not.
        return strategy.run(lambda series: one(**series), (series,))

    series = distribution.dealt(
        {name: batch[name] for name in ("forcing", "static")}, strategy
    )
    cell_days = np.prod(batch["forcing"].shape[:2])
    begin = time.perf_counter()
    _wait(trainer.step(batch))
    compiled = time.perf_counter() - begin
    train = _times(lambda: trainer.step(batch), steps)
    peak = tf.config.experimental.get_memory_info("CPU:0")["peak"]
    run = _times(lambda: strategy.experimental_local_results(simulate(series)), steps)
    return {
        "train_kcd_s": round(cell_days / statistics.median(train) / 1e3, 1),
        "simulate_kcd_s": round(cell_days / statistics.median(run) / 1e3, 1),
        "peak_memory_mb": round((PROCESS + peak) / 1e6),
        "compile_s": round(compiled - statistics.median(train), 1),
    }


def _served(batch: dict, steps: int) -> dict[str, float]:
    """Speeds of a simulation in process and through a SavedModel, and its loading."""
    one = Moments(0.0, 1.0)
    statistics_ = Statistics(
        dict.fromkeys(FORCING, Moments(80.0, 60.0)),
        {f"static_{n}": one for n in range(STATIC)},
        dict.fromkeys(CONSTRAINTS, one),
    )
    trained = Trained.untrained(config.load(), statistics_)
    model = trained.model()
    with tempfile.TemporaryDirectory() as folder:
        export(trained, Path(folder) / "1")
        begin = time.perf_counter()
        loaded = tf.saved_model.load(f"{folder}/1")
        load = time.perf_counter() - begin
    given = {name: batch[name] for name in ("forcing", "static")}
    spun = loaded.signatures["spin_up"](**given, cycles=tf.constant(1))
    state = {name: spun[FINAL + name] for name in PROGNOSTIC}
    named = {INITIAL + name: values for name, values in state.items()}

    @tf.function(jit_compile=True, autograph=False)
    def in_process(forcing, static, state):
        return model.simulate(forcing, static, state)

    columns = State(*(x[:, None] if x.ndim == 1 else x for x in state.values()))
    ways = {
        "in process": lambda: in_process(**given, state=columns),
        XLA: lambda: loaded.signatures[XLA](**given, **named),
        "simulate": lambda: loaded.signatures["simulate"](**given, **named),
    }
    times = {name: [] for name in ways}
    for n in range(steps + 2):  # in turns, as the machine may be shared
        for name, way in ways.items():
            begin = time.perf_counter()
            _wait(way())
            if n >= 2:
                times[name].append(time.perf_counter() - begin)
    cell_days = np.prod(batch["forcing"].shape[:2])
    speeds = {n: cell_days / statistics.median(t) / 1e3 for n, t in times.items()}
    return speeds | {"load_s": load}


def _times(what: Callable, count: int) -> list[float]:
    """Seconds of each run, after two to warm up."""
    times = []
    for n in range(count + 2):
        begin = time.perf_counter()
        _wait(what())
        if n >= 2:
            times.append(time.perf_counter() - begin)
    return times


def _wait(result) -> None:
    for tensor in tf.nest.flatten(result):
        tensor.numpy()


def _batch(cells: int, days: int) -> dict:
    """A batch as of the stream: random weather, and observations of everything."""
    random = np.random.default_rng(0)
    months = days // 28 + 1
    weather = (
        random.normal(80, 60, (cells, days)),
        random.gamma(0.25, 10, (cells, days)),
        random.normal(280, 12, (cells, days)),
    )
    month = np.broadcast_to(np.arange(days) * 12 // 365, (cells, days))
    targets = {
        name: random.normal(size=(cells, days if _daily(name) else months))
        for name in CONSTRAINTS
    }
    return tf.nest.map_structure(
        lambda x: tf.constant(x, "int32" if x.dtype == "int64" else "float32"),
        {
            "forcing": np.stack(weather, -1),
            "static": random.normal(size=(cells, STATIC)),
            "month": month,
            "targets": targets,
            "weight": np.ones(cells),
        },
    )


def _objective() -> Objective:
    return Objective(
        [
            Constraint(name=name, mean=0.0, std=1.0, daily=_daily(name))
            for name in CONSTRAINTS
        ]
    )


def _daily(name: str) -> bool:
    return VARIABLES[name].cadence == "daily"


if __name__ == "__main__":
    main()
