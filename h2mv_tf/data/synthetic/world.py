"""A synthetic world from its settings to a store, tile by tile."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf import __version__
from h2mv_tf.data.groups import MASK, STATIC, TRUTH
from h2mv_tf.data.synthetic import planet as planets
from h2mv_tf.data.synthetic import truth as truths
from h2mv_tf.data.synthetic.observations import Products
from h2mv_tf.data.synthetic.planet import Land, Planet
from h2mv_tf.data.synthetic.weather import Climate
from h2mv_tf.data.writing import Writer, blocks, tile_of, writing
from h2mv_tf.errors import UserError
from h2mv_tf.variables import CONSTRAINTS, ERRORS, FORCING, VARIABLES

FIRST_YEAR = 2001
REGION_BYTES = 300e6  # of the outputs that are held to be written together
# Cells that are made together, always as many: sums of other sizes would differ in
# their last bits, and the world with the size of its tiles.
TOGETHER = 64
RANGES = {
    "rows": (5, 1800),
    "columns": (5, 3600),
    "years": (1, 200),
    "noise": (0, 100),
    "seed": (0, 2**32 - 1),
}

Truth = Literal["daily", "monthly", "none"]


def synthesize(
    path: str | Path,
    *,
    rows: int,
    columns: int,
    years: int,
    noise: float,
    seed: int,
    errors: bool = False,
    truth: Truth = "daily",
    tile: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Makes a synthetic world and writes it as a store.

    An interrupted call is continued by one of the same settings.

    Args:
        path: Where to; must not exist.
        rows: Cells from pole to pole.
        columns: Cells around the planet.
        years: Length of the record.
        noise: Standard deviation of the errors of the observations, in standard
            deviations of what is observed.
        seed: Of all that is random.
        errors: Whether the noise differs from cell to cell, and groups as `tws_sigma`
            tell its standard deviations. All but the noise is as without.
        truth: Whether the group `truth` holds days, monthly means or is left out.
        tile: Cells of a chunk along latitude and longitude; by default of 1 MB.
        progress: Called with the number of tiles that are done, and of all.

    Raises:
        UserError: A setting is out of range, the path exists, or cannot be written.
    """
    settings = dict(
        rows=rows, columns=columns, years=years, noise=noise, seed=seed, errors=errors
    )
    _validate(settings, truth)
    time = pd.date_range(
        f"{FIRST_YEAR}-01-01", f"{FIRST_YEAR + years - 1}-12-31", freq="D"
    )
    sides = tile_of(len(time), ("lat", "lon"))
    if tile is not None:
        sides = dict.fromkeys(sides, tile)
    plan = {**settings, "truth": truth, "tile": sides, "version": __version__}
    with writing(
        path,
        tile=sides,
        plan=plan,
        attributes={"title": "synthetic world", **settings},
    ) as writer:
        products = Products(time, noise=noise, seed=seed, errors=errors)
        world = _World(planets.planet(rows, columns, seed), products, truth)
        world.declare(writer)
        tiles = world.tiles(sides)
        for done, region in enumerate(tiles):
            if progress is not None:
                progress(done, len(tiles))
            if not writer.holds((TRUTH, *region)):
                world.write(writer, region)
                writer.finish((TRUTH, *region))
        if progress is not None:
            progress(len(tiles), len(tiles))


class _World:
    """A world of which any tile can be made."""

    def __init__(self, planet: Planet, products: Products, truth: Truth):
        self.planet, self.products, self.truth = planet, products, truth
        self.time = products.time
        self.climate = Climate(self.time, products.seed)

    def tiles(self, sides: Mapping[str, int]) -> list[tuple[slice, slice]]:
        """Regions with land that are made one at a time, each of whole chunks.

        Args:
            sides: Cells of a chunk along each dimension.
        """
        outputs = len(self.time) * len(truths.NAMES) * np.dtype("float32").itemsize
        cells = REGION_BYTES / outputs / np.prod(list(sides.values()))
        chunks = max(int(np.sqrt(cells)), 1)
        regions = blocks(
            self.planet.mask.sizes, {dim: chunks * side for dim, side in sides.items()}
        )
        return [r for r in regions if self.planet.mask.values[r].any()]

    def declare(self, writer: Writer) -> None:
        """Makes all arrays, and fills those without time."""
        mask = self.planet.mask.astype("uint8").assign_attrs(long_name="land mask")
        writer.declare(MASK, mask)
        writer.put(MASK, mask.values)
        names = np.array(Land._fields, object)
        units = ("variable", np.array(planets.UNITS, object))
        static = self._template(
            {"variable": ("variable", names)}, {"long_name": "static inputs"}
        ).assign_coords(units=units)
        writer.declare(STATIC, static)
        writer.put(STATIC, self._on_grid(np.stack(self.planet.land)))
        for name in FORCING:
            writer.declare(VARIABLES[name].group, self._series(name, self.time))
        for name in CONSTRAINTS:
            steps = self.products.steps(name)
            writer.declare(VARIABLES[name].group, self._series(name, steps))
            if self.products.errors:
                error = VARIABLES[ERRORS[name]]
                # Months of fapar are of few or many composites; others are alike.
                data = self._template({}, error.attributes)
                if name == "fapar":
                    data = self._series(error.name, steps)
                writer.declare(error.group, data)
        if self.truth == "none":
            return
        steps = self.time if self.truth == "daily" else self.products.months
        arrays = {name: self._series(name, steps) for name in truths.NAMES}
        parameters = truths.parameters(self.planet.land)._asdict()
        for name, values in parameters.items():
            arrays[name] = self._template({}, VARIABLES[name].attributes)
            if not np.ndim(values):
                arrays[name] = arrays[name].isel(lat=0, lon=0, drop=True)
        writer.declare(TRUTH, xr.Dataset(arrays))
        for name, values in parameters.items():
            on_grid = self._on_grid(values) if np.ndim(values) else np.float32(values)
            writer.put(TRUTH, on_grid, name=name)

    def write(self, writer: Writer, region: tuple[slice, slice]) -> None:
        """Makes the cells of a region, and writes them."""
        number = self.planet.number[region]
        cells = number[number >= 0]
        parts = [
            self._arrays(cells[n : n + TOGETHER])
            for n in range(0, len(cells), TOGETHER)
        ]
        for group, name in list(parts[0]):
            values = np.concatenate([part.pop((group, name)) for part in parts], -1)
            steps = values.shape[:-1]  # none where it has no time
            grid = np.full((*steps, *number.shape), np.nan, "float32")
            grid[..., number >= 0] = values
            writer.put(group, grid, (*(slice(n) for n in steps), *region), name)

    def _arrays(self, cells: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        """What is stored of some cells, by group and name of the array.

        All are (steps, cells), but for standard errors that are the same at all steps,
        (cells,).

        Args:
            cells: Their numbers among the land cells, at most `TOGETHER`.
        """
        count = len(cells)
        # Those that lack are the last one again.
        cells = cells[np.minimum(np.arange(TOGETHER), count - 1)]
        land = Land(*(values[cells] for values in self.planet.land))
        places = np.flatnonzero(self.planet.mask.values)[cells]
        weather = self.climate.weather(land, self.planet.points[cells], places)
        truth = truths.water_cycle(land, weather)
        seen = self.products.observe(truth, land, weather, places)
        arrays = {}
        for name, values in (weather._asdict() | seen).items():
            if name in VARIABLES:
                arrays[VARIABLES[name].group, "data"] = values
        for name, values in truth.items():
            if self.truth == "daily":
                arrays[TRUTH, name] = values
            elif self.truth == "monthly":
                arrays[TRUTH, name] = self.products.monthly(values)
        return {key: values[..., :count] for key, values in arrays.items()}

    def _series(self, name: str, steps: pd.DatetimeIndex) -> xr.DataArray:
        return self._template({"time": ("time", steps)}, VARIABLES[name].attributes)

    def _template(self, leading: dict, attributes: dict) -> xr.DataArray:
        """An array on the grid, whose values take no memory."""
        coordinates = {**leading, **self.planet.mask.coords}
        sizes = [len(values) for _, values in leading.values()]
        nothing = np.broadcast_to(np.float32(0), (*sizes, *self.planet.mask.shape))
        return xr.DataArray(
            nothing, coordinates, (*leading, *self.planet.mask.dims), attrs=attributes
        )

    def _on_grid(self, values: np.ndarray) -> np.ndarray:
        """Values of the land cells (..., cells) on the grid, NaN at sea."""
        mask = self.planet.mask.values
        grid = np.full((*values.shape[:-1], *mask.shape), np.nan, "float32")
        grid[..., mask] = values
        return grid


def _validate(settings: Mapping[str, float], truth: str) -> None:
    for name, (low, high) in RANGES.items():
        if not low <= settings[name] <= high:
            raise UserError(
                f"A synthetic world of {name}={settings[name]} cannot be made. "
                f"Expected {low} to {high}."
            )
    if settings["errors"] and not settings["noise"]:
        raise UserError(
            "A synthetic world of noise=0 has no errors to tell. Choose noise above 0, "
            "or leave out errors."
        )
    if truth not in get_args(Truth):
        raise UserError(
            f"truth={truth!r} is unknown. Expected {', '.join(get_args(Truth))}."
        )
