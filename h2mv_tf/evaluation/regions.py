"""Regions: the main climates of Koppen and Geiger, or those of a file.

Peel et al. (2007), Hydrol. Earth Syst. Sci. 11, 1633-1644,
doi 10.5194/hess-11-1633-2007, table 1.
"""

from pathlib import Path

import numpy as np
import xarray as xr

from h2mv_tf.data.metadata import open_lazily
from h2mv_tf.errors import UserError, words

UNKNOWN, NONE = 0, "none"
PEEL = "main groups of Koppen and Geiger, Peel et al. (2007)"
CLIMATES = ("tropical", "arid", "temperate", "cold", "polar")  # A to E, from 1 on
FREEZING_POINT = 273.15  # K
# Mean days of January to December, of the Gregorian calendar.
DAYS = np.array([31, 28.2425, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
APRIL_TO_SEPTEMBER = np.arange(1, 13)[3:9]


def climates(air_temperature: xr.DataArray, precipitation: xr.DataArray):
    """The main climate group of a monthly climatology.

    arid (B):       MAP < 10 Pthreshold, before all others
    tropical (A):   Tcold >= 18
    temperate (C):  Thot > 10 and 0 < Tcold < 18
    cold (D):       Thot > 10 and Tcold <= 0
    polar (E):      Thot <= 10

    Pthreshold = 2 MAT where 70 % of the precipitation falls in winter, 2 MAT + 28 where
    70 % fall in summer, 2 MAT + 14 elsewhere. Summer is the warmer of the half years
    April to September and October to March. MAP: precipitation of the year [mm]; MAT,
    Thot, Tcold: temperature of the year, of its warmest and its coldest month [degC].
    Peel et al. (2007); arid before the others as in Beck et al. (2018), Sci. Data 5,
    180214.

    Args:
        air_temperature: Mean of each calendar month (..., month) [K].
        precipitation: Mean of each calendar month (..., month) [mm d-1].

    Returns:
        (...) int8: 1 to 5 in the order of CLIMATES; 0 where a month is missing.
    """
    celsius = air_temperature - FREEZING_POINT
    days = xr.DataArray(DAYS, {"month": np.arange(1, 13)}, ("month",))
    celsius, amount, days = xr.align(celsius, precipitation * days, days, join="right")
    known = (celsius.notnull() & amount.notnull()).all("month")
    hottest, coldest = celsius.max("month"), celsius.min("month")
    year = celsius.weighted(days).mean("month")
    total = amount.sum("month")
    in_half = amount.month.isin(APRIL_TO_SEPTEMBER)
    warmer = celsius.where(in_half).mean("month") >= celsius.where(~in_half).mean(
        "month"
    )
    half = amount.where(in_half).sum("month")
    summer = xr.where(warmer, half, total - half)
    threshold = 2 * year + 14
    threshold = threshold.where(summer < 0.7 * total, 2 * year + 28)
    threshold = threshold.where(total - summer < 0.7 * total, 2 * year)
    group = xr.full_like(total, 5, dtype="int8")
    group = group.where(hottest <= 10, xr.where(coldest > 0, 3, 4))
    group = group.where(coldest < 18, 1)
    group = group.where(total >= 10 * threshold, 2)
    return group.where(known, UNKNOWN).astype("int8")


def named(codes: xr.DataArray, names: dict[int, str], *, source: str) -> xr.DataArray:
    """Codes of regions, with what they mean.

    Args:
        codes: Number of each cell's region, 0: none.
        names: Name of each number.
        source: Where they come from, in words.
    """
    dtype = "int8" if max(names, default=0) < 128 else "int32"
    return (
        codes.astype(dtype)
        .rename("climate")
        .assign_attrs(
            long_name="region",
            flag_values=np.array([UNKNOWN, *names], dtype),
            flag_meanings=" ".join([NONE, *names.values()]),
            source=source,
        )
    )


def meanings(regions: xr.DataArray) -> dict[int, str]:
    """Name of each number of regions, but for `none`."""
    flags = zip(
        np.atleast_1d(regions.attrs["flag_values"]).tolist(),
        regions.attrs["flag_meanings"].split(),
        strict=True,
    )
    return {int(value): name for value, name in flags if int(value) != UNKNOWN}


def load(path: str | Path, land: xr.DataArray) -> xr.DataArray:
    """Regions of a file, on the cells of a store.

    Args:
        path: NetCDF file or Zarr store with one variable of whole numbers, 0 or missing
            where there is no region; `flag_values` and `flag_meanings` give names.
        land: Land mask (lat, lon) or (cell,).

    Returns:
        Of `named`, on the dims of the mask.

    Raises:
        UserError: There is no such file, it has not one variable of whole numbers, or
            other cells.
    """
    path = Path(path)
    try:
        dataset = open_lazily(path)
    except UserError:
        raise
    except Exception as error:  # the readers have a dozen kinds
        raise UserError(
            f"Cannot read regions of '{path}'. Expected a NetCDF file or a Zarr store: "
            f"{words(error)}."
        ) from error
    with dataset:
        fields = [
            v for v in dataset.data_vars.values() if set(v.dims) == set(land.dims)
        ]
        if len(fields) != 1:
            found = ", ".join(f"{v.name} {v.dims}" for v in dataset.data_vars.values())
            raise UserError(
                f"Regions of '{path}': expected one variable ({', '.join(land.dims)}); "
                f"found {found or 'none'}."
            )
        field = fields[0].transpose(*land.dims).load()
    _refuse_other_cells(field, land, path)
    values = field.fillna(UNKNOWN).where(land, UNKNOWN)
    if not (values == np.round(values)).all():
        raise UserError(
            f"Regions of '{path}': '{field.name}' has values that are no whole "
            "numbers. Expected the number of each cell's region."
        )
    codes = land.copy(data=values.values.astype("int32"))
    numbers = [int(n) for n in np.unique(codes) if n != UNKNOWN]
    return named(codes, _names(field, numbers, path), source=str(path))


def _names(field: xr.DataArray, numbers: list[int], path: Path) -> dict[int, str]:
    values = np.atleast_1d(field.attrs.get("flag_values", [])).tolist()
    words = str(field.attrs.get("flag_meanings", "")).split()
    if len(values) != len(words):
        raise UserError(
            f"Regions of '{path}': '{field.name}' has {len(values)} flag_values and "
            f"{len(words)} flag_meanings. Expected a word for each value."
        )
    known = {int(v): word for v, word in zip(values, words, strict=True)}
    return {n: known.get(n, f"region_{n}") for n in numbers}


def _refuse_other_cells(field: xr.DataArray, land: xr.DataArray, path: Path) -> None:
    same = field.shape == land.shape
    for name in ("lat", "lon"):
        if same and name in field.coords:
            same = np.allclose(field[name], land[name], atol=1e-4)
    if not same:
        raise UserError(
            f"Regions of '{path}' have other cells than the store: {field.sizes} and "
            f"{land.sizes}. Bring both to one grid."
        )
