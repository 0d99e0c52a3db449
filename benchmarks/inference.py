"""How fast predictions are made, and what writing them and sampling cost.

python benchmarks/inference.py                 # 2,000 cells x 10 years
python benchmarks/inference.py --cells 500     # memory does not depend on them
python benchmarks/inference.py --cells 10      # samples that share a device
"""

import dataclasses
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pandas as pd
import xarray as xr

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from h2mv_tf import console, startup  # noqa: E402

startup.import_tensorflow()

from h2mv_tf import distribution  # noqa: E402
from h2mv_tf.config import Config, load  # noqa: E402
from h2mv_tf.data.store import Store  # noqa: E402
from h2mv_tf.data.survey import survey  # noqa: E402
from h2mv_tf.data.writing import write_store, writing  # noqa: E402
from h2mv_tf.inference import flow, hands  # noqa: E402
from h2mv_tf.inference.job import (  # noqa: E402
    MOST_CELLS,
    Job,
    asked_for,
    cells_at_once,
    draws_at_once,
    grouped,
)
from h2mv_tf.inference.samples import Sampling, draw  # noqa: E402
from h2mv_tf.inference.simulator import Simulator  # noqa: E402
from h2mv_tf.inference.work import Work  # noqa: E402
from h2mv_tf.trained import Trained  # noqa: E402
from h2mv_tf.variables import FORCING, VARIABLES  # noqa: E402

STATIC = 30
POSTERIOR = {"objective.likelihood": "normal", "uncertainty.posterior": "variational"}


class Nowhere:
    """Takes values, and writes nothing."""

    def begin(self, *_):
        """Has nothing to wait for."""
        return lambda: None


NOWHERE = Nowhere()


@click.command(context_settings={"max_content_width": 88})
@click.option("--cells", default=2000, show_default=True, help="Land cells.")
@click.option("--years", default=10, show_default=True, help="Length of the record.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--samples", default=20, show_default=True, help="Of a posterior.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(cells: int, years: int, repeats: int, samples: int, as_json: bool) -> None:
    """Times the same blocks with and without writing, and samples of them, in turn."""
    devices = distribution.own_devices()
    with tempfile.TemporaryDirectory(prefix="h2mv_tf-") as name:
        folder = Path(name)
        store = _store(folder / "store.zarr", cells, years)
        statistics = survey(store, ()).statistics(np.arange(cells))
        trained = Trained.untrained(Config(), statistics)
        size = min(MOST_CELLS, cells)
        job = Job(asked_for(None), "native", False, 1, size)
        static = store.static()
        works = [
            Work(Simulator.of(trained, job, device), job, store, static, NOWHERE)
            for device in devices
        ]
        groups = grouped(store.cut(flow.tile_sides(len(store.time), ["cell"])), size)
        sampling = _sampling(store, statistics, job, samples, devices)
        for each in (works, sampling):
            list(hands.on_devices(each, groups[: len(each)]))  # compiles
        seconds = {"simulated": [], "written, too": [], "a sample": []}
        for n in range(repeats):
            seconds["simulated"].append(_seconds(works, groups, NOWHERE))
            seconds["a sample"].append(_seconds(sampling, groups, NOWHERE) / samples)
            plan = {"tile": flow.tile_sides(len(store.time), ["cell"])}
            with writing(folder / f"{n}.zarr", **plan) as writer:
                flow.declare(writer, trained, store, store.time, job, None)
                seconds["written, too"].append(_seconds(works, groups, writer.arrays))
            written = sum(f.stat().st_size for f in (folder / f"{n}.zarr").rglob("*"))
            shutil.rmtree(folder / f"{n}.zarr")
    medians = {what: float(np.median(times)) for what, times in seconds.items()}
    simulated, both, sample = medians.values()
    found = {
        "simulated_kcd_s": round(cells * len(store.time) / simulated / 1e3, 1),
        "written_kcd_s": round(cells * len(store.time) / both / 1e3, 1),
        "share_of_writing": round(1 - simulated / both, 3),
        "cost_of_a_sample": round(sample / simulated, 3),
        "written_mb": round(written / 1e6),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }
    console.table(
        f"{cells} cells x {years} years, {len(job.names)} variables, "
        f"{len(devices)} devices",
        ("", "1000 cell-days/s", "s"),
        [
            (what, f"{cells * len(store.time) / median / 1e3:.0f}", f"{median:.1f}")
            for what, median in medians.items()
        ],
    )
    console.console.print(
        f"Writing takes {found['share_of_writing']:.0%} of the time, "
        f"{found['written_mb']:,} MB. A sample, with its share of the statistics, "
        f"takes {found['cost_of_a_sample']:.2f} of a simulation. Peak of the process: "
        f"{found['peak_mb']:,} MB."
    )
    if as_json:
        print(json.dumps(found))  # noqa: T201


def _seconds(works, groups, arrays) -> float:
    for work in works:
        work.arrays = arrays
    begin = time.perf_counter()
    list(hands.on_devices(works, groups))
    return time.perf_counter() - begin


def _sampling(store, statistics, job: Job, count: int, devices) -> list[Work]:
    """What simulates and summarises samples of a posterior."""
    settings = load(None, [f"{k}={v}" for k, v in POSTERIOR.items()])
    trained = Trained.untrained(settings, statistics)
    drawn = draw([trained], store, Sampling(count))
    cells = cells_at_once(store, store.cut({"cell": 1}), flow.MEMORY, count)
    job = dataclasses.replace(
        job,
        cells=cells,
        draws=draws_at_once(cells, count),
        quantiles=Sampling(count).quantiles,
    )
    static = store.static()
    return [
        Work(
            Simulator.of(trained, job, device),
            job,
            store,
            static,
            NOWHERE,
            samples=drawn,
        )
        for device in devices
    ]


def _store(path: Path, cells: int, years: int) -> Store:
    """Random weather."""
    random = np.random.default_rng(0)
    days = pd.date_range("2001-01-01", f"{2000 + years}-12-31")
    places = {"lat": ("cell", random.uniform(-60, 80, cells))}
    places["lon"] = ("cell", random.uniform(-180, 180, cells))
    season = 12 * np.cos(2 * np.pi * days.day_of_year.values / 365)[:, None]
    shape = (len(days), cells)
    weather = {
        "net_radiation": random.normal(80, 40, shape) - season,
        "precipitation": random.gamma(0.3, 8, shape),
        "air_temperature": random.normal(280, 4, shape) - season,
    }
    fields = {
        VARIABLES[name].group: xr.DataArray(
            weather[name].astype("float32"), {"time": days, **places}, ("time", "cell")
        )
        for name in FORCING
    }
    static = random.normal(size=(STATIC, cells)).astype("float32")
    fields["static"] = xr.DataArray(static, places, ("variable", "cell"))
    fields["mask"] = xr.DataArray(np.ones(cells, "uint8"), places, ("cell",))
    write_store(path, fields)
    return Store.open(path)


if __name__ == "__main__":
    main()
