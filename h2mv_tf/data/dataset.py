"""An xarray data set, in memory or of dask, that is read as a store is.

    store = DatasetStore.of(dataset, ("elevation", "slope"))
    store.request((), store.blocks[0])()["air_temperature"]  # (cells, days) [K]

Forcing is found under every name that `ingest` knows, and converted to native units.
Sea is where a forcing is missing on all days.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf.data.check import YEAR, doubt_of
from h2mv_tf.data.ingest.days import Steps, gaps
from h2mv_tf.data.ingest.fields import native
from h2mv_tf.data.ingest.flow import sides, without_rounding
from h2mv_tf.data.ingest.names import along_time, methods, sources_of
from h2mv_tf.data.ingest.sources import axis_of, dates, lacking
from h2mv_tf.data.layout import Layout
from h2mv_tf.data.store import Block, Store
from h2mv_tf.data.units import converted, converts
from h2mv_tf.errors import UserError
from h2mv_tf.variables import FORCING, VARIABLES, Variable

BLOCK = 2e8  # bytes of the forcing that dask reads at once
AT_ONCE = 128  # cells of a block that is in memory: enough for a device
# Static inputs that a data set has as coordinates, by names that `axis_of` knows.
COORDINATES = {"latitude": "lat", "longitude": "lon", "lat": "lat", "lon": "lon"}

Static = Mapping[str, object]  # numbers or arrays by name, as a data set has them


@dataclass(frozen=True, kw_only=True)
class DatasetStore(Store):
    """The land cells of a data set; made by `DatasetStore.of`.

    Attributes:
        series: Each forcing (time, lat, lon) or (time, cell), lazy, in native units.
        layout: How the cells lie in the data set.
        tile: Cells of a block along each dimension of space.
        ranges: The least and the largest value of each forcing.
        inputs: Static inputs of the land cells (cells, static inputs), NaN: missing.
    """

    series: Mapping[str, xr.DataArray]
    layout: Layout
    tile: Mapping[str, int]
    ranges: Mapping[str, tuple[float, float]]
    inputs: np.ndarray

    label = "The data set"
    leaving_out = "make its forcing NaN on all days"
    converting = "set its attribute `units` right, and it is done"

    @classmethod
    def of(
        cls,
        dataset: xr.Dataset,
        static_names: Sequence[str],
        *,
        static: Static | None = None,
        units: Mapping[str, str] | None = None,
    ) -> "DatasetStore":
        """Finds forcing and static inputs in a data set, and looks at all values.

        Args:
            dataset: Of days, without gaps.
            static_names: Of the static inputs, in order.
            static: Those that the data set does not have.
            units: Of the static inputs, where they are known.

        Raises:
            UserError: Forcing or a static input is not there or has units that do not
                convert, time is not daily, or there is no land.
        """
        try:
            return cls._of(dataset, tuple(static_names), static or {}, units or {})
        except UserError as error:
            raise UserError(f"{cls.label}: {error}") from None

    @classmethod
    def _of(cls, dataset, static_names, static, units) -> "DatasetStore":
        if not isinstance(dataset, xr.Dataset):
            raise UserError(
                f"it is a {type(dataset).__name__}. Expected an xarray.Dataset of "
                "daily weather; a table of pandas becomes one by table.to_xarray()."
            )
        axis = axis_of(dataset, "time")
        if axis is None or len(axis.dims) != 1:
            raise UserError(
                f"{lacking('time', dataset)} Expected a dimension of days, as "
                "dataset.expand_dims(time=[day]) makes it."
            )
        time, (along,) = _days(axis), axis.dims
        terms = _terms(dataset, along)
        layout = Layout.of(dataset, terms[FORCING[0]][0], along)
        arranged = {name: list(map(layout.arranged, of)) for name, of in terms.items()}
        tile = _tile(arranged[FORCING[0]][0])
        series = {
            name: _series(VARIABLES[name], of, tile) for name, of in arranged.items()
        }
        there, ranges = _looked_at(series)
        if len(time) >= YEAR:
            _refuse_doubtful(terms, ranges)
        land = xr.DataArray(there, layout.places.coords, layout.dims)
        inputs = _static(dataset, layout, static_names, static, units)
        return cls(
            path=Path(dataset.encoding.get("source", "xarray.Dataset")),
            groups={},
            land=land,
            time=time,
            static_names=static_names,
            constraints=(),
            series=series,
            layout=layout,
            tile=tile,
            ranges=ranges,
            inputs=inputs[there.ravel()],
        )

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The land, cut into rectangles that are read at once."""
        return self.cut(self.tile)

    def static(self) -> np.ndarray:
        """Static inputs of the land cells (cells, static inputs), NaN: missing."""
        return self.inputs

    def request(
        self, constraints: Sequence[str], block: Block
    ) -> Callable[[], dict[str, np.ndarray]]:
        """What reads the forcing of a block, as that of `Store.request` does."""
        region = dict(zip(self.land.dims, block.region, strict=True))
        lazy = [self.series[name].isel(region).data for name in FORCING]

        def read() -> dict[str, np.ndarray]:
            found = {}
            for name, values in zip(FORCING, dask.compute(*lazy), strict=True):
                cells = values.reshape(len(values), -1)[:, block.place]
                found[name] = cells.T.astype("float32")
            without_rounding(found["precipitation"])
            return found

        return read

    def describe(self, cell: int) -> str:
        """A land cell in words, for messages."""
        if np.isnan(self.cells.lat.values[cell]):  # it is not known where it lies
            return f"cell {cell}"
        return super().describe(cell)


def _days(axis: xr.DataArray) -> pd.DatetimeIndex:
    """The days of an axis of time."""
    time = dates(axis)
    what = gaps(time) or "no day" * (not len(time))
    if what:
        raise UserError(
            f"time has to be daily without gaps; found {what}. Average it to days, as "
            "dataset.resample(time='D').mean() does, or fill the gaps."
        )
    return time.normalize().rename("time")


def _terms(dataset: xr.Dataset, time: str) -> dict[str, list[xr.DataArray]]:
    """The variables that add up to each forcing, all on the same dims."""
    variables = {str(name): data for name, data in dataset.data_vars.items()}
    renamed = {
        name: data.rename({time: "time"})
        if time in data.dims and time != "time"
        else data
        for name, data in variables.items()
    }
    series = along_time(renamed)
    sources = {name: sources_of(series, VARIABLES[name], _assigned) for name in FORCING}
    wanted = [name for of in sources.values() for name in of]
    chosen = dataset[list(dict.fromkeys(wanted))]
    if not chosen.chunks or chosen.nbytes <= BLOCK:
        chosen = chosen.compute()
    # One rain for many temperatures is an experiment, too.
    whole = iter(xr.broadcast(*(chosen[name] for name in wanted)))
    return {name: [next(whole) for _ in of] for name, of in sources.items()}


def _assigned(variable: Variable, names: str) -> str:
    """How a user names the sources of a forcing."""
    total = " + ".join(f"dataset['{name}']" for name in names.split("+"))
    return f"dataset.assign({variable.name}={total})"


def _tile(series: xr.DataArray) -> dict[str, int]:
    """Cells of a block: whole chunks of dask where they are small."""
    space = {dim: size for dim, size in series.sizes.items() if dim != "time"}
    if not series.chunks:
        return sides(space, dict.fromkeys(space, 1), AT_ONCE)
    most = BLOCK / (len(FORCING) * series.sizes["time"] * np.dtype("float64").itemsize)
    chunks = {dim: max(series.chunksizes[dim]) for dim in space}
    if math.prod(chunks.values()) > most:
        chunks = dict.fromkeys(space, 1)
    return sides(space, chunks, most)


def _series(
    variable: Variable, terms: Sequence[xr.DataArray], tile: Mapping[str, int]
) -> xr.DataArray:
    """A forcing in native units, lazy; what is not finite is missing."""
    total = 0
    for term in terms:
        lazy = term if term.chunks else term.chunk({"time": -1, **tile})
        found = str(term.attrs.get("units", variable.units))
        try:
            total = total + native(Steps(lazy, "day"), found, variable, methods(term))
        except UserError as error:
            raise UserError(f"{error} Mend its attribute units.") from error
    return total.where(np.isfinite(total))


def _looked_at(
    series: Mapping[str, xr.DataArray],
) -> tuple[np.ndarray, dict[str, tuple[float, float]]]:
    """Where there is land, and the range of each forcing, in one pass."""
    found = {
        name: (
            data.notnull().any("time"),
            data.fillna(np.inf).min(),
            data.fillna(-np.inf).max(),
        )
        for name, data in series.items()
    }
    (found,) = dask.compute(found)
    land = np.logical_and.reduce([there.values for there, _, _ in found.values()])
    if not land.any():
        empty = [name for name, (there, _, _) in found.items() if not there.any()]
        raise UserError(
            f"no cell has all forcing; {', '.join(empty) or 'each'} is missing on all "
            "days. Is it all sea?"
        )
    return land, {name: (float(a), float(b)) for name, (_, a, b) in found.items()}


def _refuse_doubtful(
    terms: Mapping[str, Sequence[xr.DataArray]],
    ranges: Mapping[str, tuple[float, float]],
) -> None:
    """Refuses a year without units whose values are not those of native units."""
    for name, of in terms.items():
        without = [term for term in of if "units" not in term.attrs]
        doubt = doubt_of(VARIABLES[name], max(map(abs, ranges[name])))
        if without and doubt:
            source = without[0].name
            raise UserError(
                f"{doubt} Tell them, as in dataset['{source}'].attrs['units'] = "
                f"'{VARIABLES[name].units}'."
            )


def _static(
    dataset: xr.Dataset,
    layout: Layout,
    names: Sequence[str],
    given: Static,
    units: Mapping[str, str],
) -> np.ndarray:
    """Static inputs of all cells (cells, static inputs) in single precision."""
    found, missing = [], []
    for name in names:
        values = given[name] if name in given else _in(dataset, name)
        if values is None:
            missing.append(name + f" [{units[name]}]" * bool(units.get(name)))
            continue
        cells = layout.of_cells(name, values)
        found.append(_in_units(name, cells, values, units.get(name)))
    if missing:
        raise UserError(
            f"it lacks {len(missing)} of the model's {len(names)} static inputs: "
            f"{', '.join(missing)}. Add them as variables without time, or give them "
            "as in static={'" + missing[0].split(" ")[0] + "': 1.5}."
        )
    return np.stack(found, axis=-1).astype("float32")


def _in(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
    if name in dataset.variables:
        return dataset[name]
    return axis_of(dataset, COORDINATES[name]) if name in COORDINATES else None


def _in_units(
    name: str, cells: np.ndarray, given: object, wanted: str | None
) -> np.ndarray:
    """Values in the units of the training, where both are known."""
    found = given.attrs.get("units") if isinstance(given, xr.DataArray) else None
    if not found or not wanted:
        return cells
    if not converts(found, wanted):
        raise UserError(
            f"static input '{name}' has units '{found}', which do not convert to "
            f"'{wanted}'. Mend its attribute units."
        )
    return converted(cells, found, wanted)
