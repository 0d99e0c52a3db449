"""Units, as CF writes them; an amount of water is a depth, at 1000 kg m-3.

>>> float(converted(2.0, "kg m-2 s-1", "mm d-1"))
172800.0
"""

import re

import numpy as np
import pint
from cf_xarray.units import units

WATER = pint.Context()
for _per_area, _depth in (
    ("[mass] / [length] ** 2", "[length]"),
    ("[mass] / [length] ** 2 / [time]", "[length] / [time]"),
):
    WATER.add_transformation(
        _per_area, _depth, lambda _, amount: amount / units("1000 kg m-3")
    )
EQUIVALENT = " of water equivalent"
LONGEST = 200  # characters
# The parser works out powers of numbers, as 10^6, and would do so for days with 9^9^9.
_POWER = re.compile(r"[\d.)]\s*(?:\*\*|\^|[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+)")
_LARGE_POWER = re.compile(
    r"(?:\*\*|\^)\W*\d{4}|[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]{4}"
)


def converted(values, found: str, wanted: str):
    """Values in other units.

    Args:
        values: Numbers or an array.
        found: Their units.
        wanted: Units to convert to.

    Raises:
        Exception: The units are unknown or do not convert; the parser has a dozen
            kinds, so use `converts` first.
    """
    return units.Quantity(values, _unit(found)).to(_unit(wanted), WATER).magnitude


def quantity(given: float | str, wanted: str) -> float:
    """A number in the units that are wanted.

    Args:
        given: A number in these units, or with its own, as "15 cm".
        wanted: Units.

    Raises:
        ValueError: It cannot be read, or its units do not convert.
    """
    if not isinstance(given, str):
        return float(given)
    number, _, found = given.strip().partition(" ")
    try:
        value = float(number)
    except ValueError:
        value, found = np.nan, ""
    if not (np.isfinite(value) and converts(found or wanted, wanted)):
        raise ValueError(
            f"'{given}' is no number in units that convert to {wanted}, as "
            f"'15 {wanted}'"
        )
    return float(converted(value, found or wanted, wanted))


def _unit(text: str) -> pint.Unit:
    text = str(text).replace(EQUIVALENT, "")
    powers = len(_POWER.findall(text))
    if len(text) > LONGEST or powers > 1 or _LARGE_POWER.search(text):
        raise ValueError("units with powers of powers, or longer than any")
    return units.Unit(text)


def converts(found: str, wanted: str) -> bool:
    """Whether units are known and convert to others."""
    try:
        converted(np.ones(1), found, wanted)
    except Exception:  # the parser of pint raises a dozen kinds
        return False
    return True


def same_units(found: str, wanted: str) -> bool:
    """Whether numbers in these units are numbers in those."""
    if not converts(found, wanted):
        return False
    numbers = np.array([0.0, 1.0])
    return bool(np.allclose(converted(numbers, found, wanted), numbers, rtol=1e-6))


def per_day(found: str) -> str:
    """Units of an amount that gathered in a day."""
    return f"{found} d-1"


def is_amount(found: str, wanted: str) -> bool:
    """Whether units are those of an amount where a rate is wanted."""
    return not converts(found, wanted) and converts(per_day(found), wanted)


def is_per_month(found: str, wanted: str) -> bool:
    """Whether units are of a rate per month, whose length differs."""
    return converts(found, wanted) and "month" in str(_unit(found))
