"""How fast windows come from a store, against plain xarray: the table of docs/.

python benchmarks/pipeline.py
python benchmarks/pipeline.py --json
"""

import json
import os
import re
import subprocess
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
from h2mv_tf.data.groups import MASK, STATIC  # noqa: E402
from h2mv_tf.data.series import Series, Tiles, cell_bytes, source  # noqa: E402
from h2mv_tf.data.store import Store  # noqa: E402
from h2mv_tf.data.survey import survey  # noqa: E402
from h2mv_tf.data.windows import Windows  # noqa: E402
from h2mv_tf.data.writing import write_store  # noqa: E402
from h2mv_tf.variables import CONSTRAINTS, FORCING, VARIABLES  # noqa: E402

BATCH = 64  # windows of ten years
PLAIN_CELLS = 40  # that are read the plain way; the rest would take minutes
EPOCHS = 5
GROUPS = [VARIABLES[name].group for name in (*FORCING, *CONSTRAINTS)] + [STATIC, MASK]


@click.command(context_settings={"max_content_width": 88})
@click.option("--cells", default=2000, show_default=True, help="Land cells.")
@click.option("--years", default=10, show_default=True, help="Length of the record.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
@click.option("--peak-of", hidden=True, type=click.Path(path_type=Path))
def main(cells: int, years: int, as_json: bool, peak_of: Path | None) -> None:
    """Times the stream on local disk, and measures its memory."""
    startup.import_tensorflow()
    if peak_of is not None:
        print(json.dumps(_stream_in_little_memory(peak_of)))  # noqa: T201
        return
    with tempfile.TemporaryDirectory(prefix="h2mv_tf-") as folder:
        store = Path(folder) / "store.zarr"
        _make(store, cells, years)
        rows = _speeds(store)
        large = Path(folder) / "large.zarr"
        _make(large, 4 * cells, years)
        command = [sys.executable, __file__, "--peak-of", str(large)]
        output = subprocess.run(command, capture_output=True, text=True, check=True)
        memory = json.loads(output.stdout.splitlines()[-1])
    added = memory["peak"] - memory["before"]
    plain = rows["plain: open_zarr, isel"]
    console.table(
        f"{cells} cells, {years} years, all constraints, {os.cpu_count()} cores",
        ("way", "million cell-days per second", "ratio"),
        [(way, f"{v:.3g}", f"{v / plain:.3g}") for way, v in rows.items()],
    )
    console.console.print(
        f"An epoch over {memory['series']:,.0f} MB of series in a buffer of "
        f"{memory['buffer']:,.0f} MB adds {added:,.0f} MB to the "
        f"{memory['before']:,.0f} MB that TensorFlow and all the rest take before."
    )
    if as_json:
        result = {
            "stream_mcd_s": round(rows["stream: cache none"], 3),
            "plain_mcd_s": round(plain, 5),
            "ratio": round(rows["stream: cache none"] / plain, 1),
            "peak_memory_mb": round(added),
        }
        print(json.dumps(result))  # noqa: T201


def _make(path: Path, cells: int, years: int) -> None:
    """A store of weather-like numbers; what they mean is of no matter here."""
    random = np.random.default_rng(0)
    rows = int(np.sqrt(cells * 0.8))
    grid = {"lat": np.linspace(60, -60, rows), "lon": np.arange(-(-cells // rows))}
    end = f"{2000 + years}-12-31"
    days = pd.date_range("2001-01-01", end)
    months = pd.date_range("2001-01-01", end, freq="MS")
    season = np.sin(2 * np.pi * np.arange(len(days)) / 365.25)[:, None, None]

    def field(time, values) -> xr.DataArray:
        return xr.DataArray(
            values.astype("float32"), {"time": time, **grid}, ("time", "lat", "lon")
        )

    shape = (len(days), *map(len, grid.values()))

    def normal():
        return random.standard_normal(shape, "float32")

    rain = random.standard_exponential(shape, "float32")
    fields = {
        "rn": field(days, 80 + 60 * season + 20 * normal()),
        "prec": field(days, 6 * rain * (normal() > 0)),
        "tair": field(days, 280 + 12 * season + 3 * normal()),
        "swe": field(days, np.where(season < -0.3, 40 + 5 * normal(), 0)),
    }
    for group in ("tws", "et", "q", "fapar"):
        values = random.random((len(months), *shape[1:]))
        fields[group] = field(months, 10 * values if group == "tws" else values)
    static = random.normal(size=(30, *shape[1:])).astype("float32")
    names = np.array([f"input_{n}" for n in range(30)], object)
    fields[STATIC] = xr.DataArray(
        static, {"variable": names, **grid}, ("variable", "lat", "lon")
    )
    land = np.arange(static[0].size).reshape(shape[1:]) < cells
    fields[MASK] = xr.DataArray(land.astype("uint8"), grid, ("lat", "lon"))
    write_store(path, fields)


def _speeds(path: Path) -> dict[str, float]:
    """Million cell-days per second of each way."""
    store = Store.open(path)
    rows = {
        "plain: open_zarr, isel": _plain(path, store, chunks="auto"),
        "plain: open_zarr(chunks=None), isel": _plain(path, store, chunks=None),
    }
    held = source(store, store.constraints, cache="memory", buffer=1)
    begin = time.perf_counter()
    found = survey(store, keep=held)
    cell_days = len(found.static) * len(store.time)
    rows["survey: one pass, statistics"] = cell_days / (time.perf_counter() - begin)
    room = len(found.static) // 4
    tiles = Tiles(store, store.constraints, room)
    rows["stream: cache none"] = _stream(tiles, found)
    rows["stream: cache memory"] = _stream(held, found)
    year = Windows(store.time, 365, 365)
    rows["stream: cache none, windows of a year"] = _stream(tiles, found, year)
    return {way: speed / 1e6 for way, speed in rows.items()}


def _plain(path: Path, store: Store, chunks) -> float:
    """Cell by cell, `isel` of every group, as one would write it."""
    options = {} if chunks == "auto" else {"chunks": chunks}
    groups = [
        xr.open_zarr(path, group=group, consolidated=False, **options)["data"]
        for group in GROUPS
    ]
    step = store.land.size // PLAIN_CELLS
    begin = time.perf_counter()
    for place in range(0, PLAIN_CELLS * step, step):
        row, column = divmod(place, store.land.sizes["lon"])
        for data in groups:
            data.isel(lat=row, lon=column).values  # noqa: B018
    return PLAIN_CELLS * len(store.time) / (time.perf_counter() - begin)


def _stream(of: Series | Tiles, found, windows: Windows | None = None) -> float:
    from h2mv_tf.data.pipeline import Stream

    windows = windows or Windows(found.store.time)
    cells = np.arange(len(found.static))
    batch = BATCH * len(found.store.time) // (windows.days + 365 * (not windows.full))
    stream = Stream(of, found.record, cells, windows, batch_size=batch, seed=0)
    # As a training reads them: the start is part of it, and nothing is kept from one
    # epoch for the next.
    begin = time.perf_counter()
    for batches in stream.epochs(range(EPOCHS)):
        for _ in batches:
            pass
    seconds = time.perf_counter() - begin
    return sum(map(stream.cell_days, range(EPOCHS))) / seconds


def _stream_in_little_memory(path: Path) -> dict[str, float]:
    """Peak memory of an epoch over a store ten times as large as the buffer [MB]."""
    store = Store.open(path)
    found = survey(store)
    one = cell_bytes(store, store.constraints)
    size = one * len(found.static) / 1e6
    tiles = source(store, store.constraints, cache="none", buffer=size / 10)
    before = _memory("VmRSS")
    _stream(tiles, found)
    return {
        "series": size,
        "buffer": size / 10,
        "before": before,
        "peak": _memory("VmHWM"),
    }


def _memory(kind: str) -> float:
    """Memory of this process as Linux counts it [MB]: VmRSS now, VmHWM at most."""
    # The peak of `resource` would be that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return float(re.search(rf"{kind}:\s+(\d+) kB", status)[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
