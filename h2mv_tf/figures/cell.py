"""The cell whose story is told: which one, and all that is known of it."""

import difflib
from collections.abc import Sequence

import numpy as np
import xarray as xr

from h2mv_tf import predictions
from h2mv_tf.data.splits import SEA, TEST
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation.scales import is_daily
from h2mv_tf.figures.folder import Missing
from h2mv_tf.figures.material import Material, flat
from h2mv_tf.plots.series import seasonal_cycle
from h2mv_tf.plots.sites import names
from h2mv_tf.plots.story import HIGH, LOW, OBSERVED
from h2mv_tf.variables import FORCING

YEARS = 2  # that the story takes
FAR = 1.0  # degrees beyond which a site is another one


class Place:
    """A land cell.

    Args:
        material: What there is.
        number: Its number among the land cells.
    """

    def __init__(self, material: Material, number: int):
        flattened = np.flatnonzero(material.land)[number]
        index = np.unravel_index(flattened, material.land.shape)
        self.index = dict(zip(material.land.dims, map(int, index), strict=True))
        name = names(flat(material.land, material.land).isel(cell=[number]))[0]
        dataset = material.folder.predictions
        role = int(dataset["role"].isel(self.index))
        kinds = {
            dataset.attrs.get("fold"): ", validation cell",
            TEST: ", test cell",
            SEA: "",  # not known
        }
        self.title = name + kinds.get(role, ", training cell")


def asked_for(material: Material, words: str) -> Place:
    """The cell of a command line.

    Args:
        material: What there is.
        words: LAT,LON or the name of a site.

    Raises:
        UserError: There is no such site, or the cell is at sea or far away.
    """
    try:
        lat, lon = (float(number) for number in words.split(","))
    except ValueError:
        return _named(material, words)
    cells = flat(material.land, material.land)
    east = (cells.lon - lon + 180) % 360 - 180
    distance = np.hypot(cells.lat - lat, east * np.cos(np.radians(lat)))
    nearest = int(np.argmin(distance.values))
    if predictions.is_grid(material.land):
        inside = (
            abs(cells.lat - lat) <= _half(material.land.lat)
        ) & (abs(east) <= _half(material.land.lon))  # fmt: skip
        if not inside.any():
            raise UserError(
                f"There is no land at {lat:g},{lon:g}. The nearest land cell is "
                f"{_coordinates(cells, nearest)}."
            )
        nearest = int(np.nanargmin(distance.where(inside).values))
    elif distance[nearest] > FAR:
        raise UserError(
            f"There is no site within {FAR:g} degree of {lat:g},{lon:g}. The nearest "
            f"is {_coordinates(cells, nearest)}."
        )
    return Place(material, nearest)


def liveliest(material: Material) -> Place:
    """The cell whose snow and soil moisture change most over the year.

    Of the chosen cells, the one with the largest product of the ranges of both mean
    seasonal cycles; where there is no snow, of soil moisture alone.
    """
    ranges = {}
    for name in ("swe", "soil_moisture"):
        cycle = seasonal_cycle(material.monthly[name].isel(cell=material.chosen.values))
        ranges[name] = (cycle.max("month") - cycle.min("month")).values
    score = ranges["swe"] * ranges["soil_moisture"]
    if not score.max() > 0:
        score = ranges["soil_moisture"]
    return Place(material, int(np.flatnonzero(material.chosen)[np.nanargmax(score)]))


def known_of(material: Material, place: Place) -> xr.Dataset:
    """All series of a cell, as `plots.cell_story` wants them."""
    folder = material.folder
    dataset = folder.predictions.isel(place.index)
    suffixes = (predictions.SPREAD, predictions.QUANTILE)
    outputs = [n for n in dataset.data_vars if not str(n).endswith(suffixes)]
    cell = dataset[outputs].drop_vars("quantile", errors="ignore").load()
    for name in outputs:
        folds = f"{name}{predictions.QUANTILE}"
        if folds in dataset and "time" in dataset[folds].dims:
            quantiles = dataset[folds].load().drop_vars("quantile")
            cell[f"{name}{LOW}"] = quantiles.isel(quantile=0)
            cell[f"{name}{HIGH}"] = quantiles.isel(quantile=-1)
    try:
        store = folder.store
    except Missing:  # then without weather and observations
        return cell
    daily = is_daily(cell.time)
    wanted = {name: name for name in FORCING}
    wanted |= {f"{OBSERVED}{name}": name for name in store.constraints if name in cell}
    for key, name in wanted.items():
        try:
            series = store.observed(name).isel(place.index).load()
        except UserError:  # none in the period of the forcing
            continue
        attributes = series.attrs
        if not daily and is_daily(series.time):
            series = series.resample(time="MS").mean()
            attributes = {**attributes, "cadence": "monthly"}
        cell[key] = series.reindex(time=cell.time).assign_attrs(attributes)
    return cell.drop_vars(["lat", "lon"], errors="ignore")


def last_years(cell: xr.Dataset) -> Sequence[int]:
    """The last two calendar years that are whole; all years where there are fewer."""
    years, steps = np.unique(cell.time.dt.year, return_counts=True)
    whole = years[steps >= (365 if is_daily(cell.time) else 12)]
    return [int(year) for year in (whole if len(whole) >= YEARS else years)[-YEARS:]]


def _named(material: Material, name: str) -> Place:
    cells = flat(material.land, material.land)
    if "name" not in cells.coords:
        raise UserError(
            f"The cells of '{material.folder.path}' have no names, so that '{name}' "
            "cannot be found. Give --cell LAT,LON."
        )
    known = names(cells)
    if name not in known:
        lowered = {site.lower(): site for site in known}
        near = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.4)
        near = [lowered[site] for site in near] or known[:3]
        raise UserError(
            f"There is no site '{name}' in '{material.folder.path}'. The nearest of "
            f"its {len(known)} names: {', '.join(near)}."
        )
    return Place(material, known.index(name))


def _half(centres: xr.DataArray) -> float:
    """Half a cell [degrees], and a little that rounding takes."""
    step = np.abs(np.diff(centres)).max() if centres.size > 1 else 1.0
    return float(step) / 2 * 1.001


def _coordinates(cells: xr.DataArray, number: int) -> str:
    cell = cells.isel(cell=number)
    name = f" ({cell['name'].item()})" if "name" in cell.coords else ""
    return f"{cell.lat.item():g},{cell.lon.item():g}{name}"
