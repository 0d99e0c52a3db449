"""Which variables of a data set are which of the store.

What the user names comes first, then our, CMIP's, the published code's and ECMWF's
names, then CF standard names; `+` adds up.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import xarray as xr

from h2mv_tf.data.groups import MASK
from h2mv_tf.errors import UserError
from h2mv_tf.variables import (
    CONSTRAINTS,
    ERRORS,
    FORCING,
    VARIABLES,
    Variable,
    find,
)

# Names beside those of the registry: ERA5's are in the parameter database of ECMWF,
# `lwe_thickness` is that of the GRACE products.
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "net_radiation": ("msnswrf+msnlwrf", "avg_snswrf+avg_snlwrf", "ssr+str"),
    "precipitation": ("mtpr", "avg_tprate", "tp"),
    "air_temperature": ("t2m",),
    "runoff": ("mror", "avg_rorwe", "ro"),
    "tws": ("lwe_thickness",),
}
# cfconventions.org/Data/cf-standard-names/current
OTHER_STANDARD_NAMES: Mapping[str, tuple[str, ...]] = {
    "net_radiation": (
        "surface_net_downward_shortwave_flux+surface_net_downward_longwave_flux",
    ),
    "precipitation": ("lwe_precipitation_rate",),
    "evapotranspiration": ("water_evaporation_flux", "lwe_water_evaporation_rate"),
    "swe": ("lwe_thickness_of_surface_snow_amount",),
    "fapar": (
        "fraction_of_surface_downwelling_photosynthetic_radiative_flux_"
        "absorbed_by_vegetation",
    ),
}
LAND_NAMES = (MASK, "sftlf")
LAND_STANDARD_NAMES = ("land_binary_mask", "land_area_fraction")
SERIES = (*FORCING, *CONSTRAINTS, *ERRORS.values())

Arrays = Mapping[str, xr.DataArray]


class Choice(NamedTuple):
    """The variables of the data set that the store takes."""

    series: Mapping[Variable, tuple[str, ...]]  # those that add up to each
    masks: tuple[str, ...]  # of land; the first one counts


def choose(arrays: Arrays, mapping: Mapping[str, str]) -> Choice:
    """Finds the variables of the store among those of a data set.

    Args:
        arrays: The variables of the data set, by name.
        mapping: Those that the user names, as in {"rn": "ssr+str"}.

    Raises:
        UserError: The mapping names what is not there, forcing is not found, or a
            standard name fits several variables.
    """
    named = _named(arrays, mapping)
    series = along_time(arrays)
    found = {}
    for variable in (VARIABLES[name] for name in SERIES):
        sources = named.get(variable.name)
        if sources is None:
            sources = sources_of(series, variable, _mapped)
        elif not sources and variable.name in FORCING:  # it cannot be left out
            raise _absent(series, variable, _mapped)
        if sources:
            found[variable] = sources
    masks = [*named.get(MASK, ()), *LAND_NAMES]
    for standard_name in LAND_STANDARD_NAMES:
        masks += _with_standard_name(arrays, standard_name)
    return Choice(found, tuple(dict.fromkeys(n for n in masks if n in arrays)))


def along_time(arrays: Arrays) -> Arrays:
    """The series; a single step of time is none, unless there is nothing longer.

    Args:
        arrays: The variables of the data set, by name.
    """
    series = {name: data for name, data in arrays.items() if "time" in data.dims}
    longest = max((data.sizes["time"] for data in series.values()), default=0)
    least = min(longest, 2)
    return {name: data for name, data in series.items() if data.sizes["time"] >= least}


def timeless_errors(arrays: Arrays) -> tuple[str, ...]:
    """Standard errors that are the same at all times, which are no static inputs.

    Args:
        arrays: The variables of the data set, by name.
    """
    series = along_time(arrays)
    return tuple(n for n in arrays if n not in series and find(n, ERRORS.values()))


def sources_of(
    series: Arrays, variable: Variable, choice: Callable[[Variable, str], str]
) -> tuple[str, ...]:
    """The variables of a data set that add up to one of the store's.

    Args:
        series: Those along time, by name.
        variable: Forcing, or an observation that may be missing.
        choice: How a user names it, for messages: of the variable and of the names
            of its sources, as in "ssr+str".

    Raises:
        UserError: Forcing is not found, or a standard name fits several variables.
    """
    found = _by_name(series, variable) or _by_standard_name(series, variable, choice)
    if not found and variable.name in FORCING:
        raise _absent(series, variable, choice)
    return found


def _absent(
    series: Arrays, variable: Variable, choice: Callable[[Variable, str], str]
) -> UserError:
    return UserError(
        f"there is no {variable.label}. Looked for the names "
        f"{', '.join(_names(variable))} and the standard names "
        f"{', '.join(_standard_names(variable))}; found along time: "
        f"{', '.join(series) or 'nothing'}. Name it with "
        f"{choice(variable, 'VARIABLE')}."
    )


def _mapped(variable: Variable, names: str) -> str:
    return f"--map {variable.group}={names}"


def _named(arrays: Arrays, mapping: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What the user names, by name of the registry or `mask`."""
    named = {}
    for key, value in mapping.items():
        variable = find(key, SERIES)
        if variable is None and key != MASK:
            groups = [VARIABLES[name].group for name in SERIES]
            raise UserError(
                f"--map {key}={value} names no variable of the store. Expected one of "
                f"{', '.join([*groups, MASK])}."
            )
        names = tuple(part.strip() for part in value.split("+") if part.strip())
        for name in names:
            if name not in arrays:
                raise UserError(
                    f"--map {key}={value}: there is no '{name}'. Found: "
                    f"{', '.join(arrays)}."
                )
        named[variable.name if variable else MASK] = names
    return named


def _by_name(series: Arrays, variable: Variable) -> tuple[str, ...]:
    for names in _names(variable):
        if all(name in series for name in names.split("+")):
            return tuple(names.split("+"))
    return ()


def _by_standard_name(
    series: Arrays, variable: Variable, choice: Callable[[Variable, str], str]
) -> tuple[str, ...]:
    for standard_names in _standard_names(variable):
        terms = [_means_of(series, name) for name in standard_names.split("+")]
        if all(len(names) == 1 for names in terms):
            return tuple(name for names in terms for name in names)
        if all(terms):
            several = " and ".join(", ".join(n) for n in terms if len(n) > 1)
            hint = "+".join(names[0] for names in terms)
            raise UserError(
                f"{variable.label} could be any of {several}, by their standard name. "
                f"Choose, as in {choice(variable, hint)}."
            )
    return ()


def _means_of(series: Arrays, standard_name: str) -> list[str]:
    """Of several variables with a standard name the means, if there are any."""
    names = _with_standard_name(series, standard_name)
    means = [n for n in names if "time: mean" in methods(series[n])]
    return means or names


def _with_standard_name(arrays: Arrays, standard_name: str) -> list[str]:
    return [
        name
        for name, data in arrays.items()
        if data.attrs.get("standard_name") == standard_name
    ]


def methods(data: xr.DataArray) -> str:
    """The CF `cell_methods` of an array, "" where it has none."""
    return str(data.attrs.get("cell_methods", ""))


def _names(variable: Variable) -> list[str]:
    own = (variable.name, variable.group, variable.cmip, variable.published)
    other = OTHER_NAMES.get(variable.name, ())
    return list(dict.fromkeys(name for name in (*own, *other) if name))


def _standard_names(variable: Variable) -> list[str]:
    other = OTHER_STANDARD_NAMES.get(variable.name, ())
    return [name for name in (variable.standard_name, *other) if name]
