"""The registry: every variable of the model, its names, units and bounds.

The only home of names and units. Physics outputs, export signatures, Zarr
attributes, plots and documentation read it; nothing else spells a unit.

    >>> VARIABLES["runoff"].units
    'mm d-1'
    >>> find("mrro").name
    'runoff'
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal[
    "forcing",
    "coefficient",
    "parameter",
    "constant",
    "state",
    "flux",
    "diagnostic",
    "balance",
    "memory",
    "domain",
    "error",
]


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One variable of the model.

    Attributes:
        name: The name it has everywhere in this project.
        symbol: The symbol of the paper, in plain text.
        long_name: What it is, in the field's words.
        units: Native units, as CF writes them.
        kind: forcing, coefficient (learned, per cell and day), parameter
            (learned, per cell), constant (learned, global), state, flux,
            diagnostic, balance (of a whole simulation, per cell), memory (of the
            network, per cell), domain (of the inputs, per cell), or error (of an
            observation).
        published: Its name in the published code.
        cmip: Its CMIP name, or several joined by `+` that are added up.
        standard_name: Its CF standard name; None where CF has none.
        group: The Zarr group of the published store layout that holds it.
        cadence: For constraints, the time step on which it is compared.
        bounds: Physically plausible range in native units; None is open.
        peak: What a record over land goes beyond somewhere; where none does, its
            units may be others.
    """

    name: str
    symbol: str = ""
    long_name: str
    units: str
    kind: Kind
    published: str = ""
    cmip: str = ""
    standard_name: str | None = None
    group: str | None = None
    cadence: Literal["daily", "monthly"] | None = None
    bounds: tuple[float | None, float | None] = (None, None)
    peak: float | None = None

    @property
    def label(self) -> str:
        """The name with its unit, as it stands on an axis or in a message."""
        return f"{self.name} [{self.units}]"

    @property
    def attributes(self) -> dict[str, str]:
        """CF attributes of an array of this variable in native units."""
        attributes = {"long_name": self.long_name, "units": self.units}
        if self.standard_name:
            attributes["standard_name"] = self.standard_name
        return attributes


_FRACTION = (0.0, 1.0)
_POSITIVE = (0.0, None)

_REGISTRY = (
    # forcing
    Variable(
        name="net_radiation",
        symbol="Rn",
        long_name="net downward radiation at the surface",
        units="W m-2",
        kind="forcing",
        published="rn",
        cmip="rss+rls",
        standard_name="surface_net_downward_radiative_flux",
        group="rn",
        bounds=(-500.0, 1000.0),
        peak=50.0,
    ),
    Variable(
        name="precipitation",
        symbol="P",
        long_name="precipitation",
        units="mm d-1",
        kind="forcing",
        published="prec",
        cmip="pr",
        standard_name="precipitation_flux",
        group="prec",
        bounds=(0.0, 2500.0),
        peak=5.0,
    ),
    Variable(
        name="air_temperature",
        symbol="T",
        long_name="near-surface air temperature",
        units="K",
        kind="forcing",
        published="tair",
        cmip="tas",
        standard_name="air_temperature",
        group="tair",
        bounds=(170.0, 340.0),
    ),
    # learned, per cell and day, in the order of the network's output
    Variable(
        name="snowmelt_factor",
        symbol="a_melt",
        long_name="degree-day factor of snowmelt",
        units="mm K-1 d-1",
        kind="coefficient",
        published="alpha_snow_melt",
        bounds=_POSITIVE,
    ),
    Variable(
        name="interception_capacity",
        symbol="a_i",
        long_name="interception capacity of a full canopy",
        units="mm d-1",
        kind="coefficient",
        published="alpha_Ei",
        bounds=_POSITIVE,
    ),
    Variable(
        name="soil_evaporation_coefficient",
        symbol="a_s",
        long_name="soil evaporation per available energy or water",
        units="1",
        kind="coefficient",
        published="alpha_Es",
        bounds=_FRACTION,
    ),
    Variable(
        name="transpiration_coefficient",
        symbol="a_t",
        long_name="transpiration per available energy or water",
        units="1",
        kind="coefficient",
        published="alpha_T",
        bounds=_FRACTION,
    ),
    Variable(
        name="soil_recharge_coefficient",
        symbol="a_r",
        long_name="share of the infiltrable water that recharges the soil",
        units="1",
        kind="coefficient",
        published="alpha_r_soil",
        bounds=_FRACTION,
    ),
    Variable(
        name="groundwater_recharge_coefficient",
        symbol="a_g",
        long_name="share of the excess water that recharges the groundwater",
        units="1",
        kind="coefficient",
        published="alpha_r_gw",
        bounds=_FRACTION,
    ),
    Variable(
        name="fapar",
        symbol="f",
        long_name="fraction of absorbed photosynthetically active radiation",
        units="1",
        kind="coefficient",
        published="fAPAR_nn",
        group="fapar",
        cadence="monthly",
        bounds=_FRACTION,
        peak=0.05,
    ),
    # learned, per cell
    Variable(
        name="soil_water_capacity",
        symbol="SMmax",
        long_name="maximum soil moisture",
        units="mm",
        kind="parameter",
        published="sm_max",
        bounds=_POSITIVE,
    ),
    # learned, global
    Variable(
        name="snowfall_correction",
        symbol="b_snow",
        long_name="correction factor of snowfall",
        units="1",
        kind="constant",
        published="beta_snow",
        bounds=_FRACTION,
    ),
    Variable(
        name="baseflow_fraction",
        symbol="b_base",
        long_name="share of the groundwater that leaves as baseflow in a day",
        units="d-1",
        kind="constant",
        published="beta_baseflow",
        bounds=_FRACTION,
    ),
    # states, at the end of the day
    Variable(
        name="swe",
        symbol="SWE",
        long_name="snow water equivalent",
        units="mm",
        kind="state",
        published="swe",
        cmip="snw",
        standard_name="surface_snow_amount",
        group="swe",
        cadence="daily",
        bounds=_POSITIVE,
        peak=2.0,
    ),
    Variable(
        name="soil_moisture",
        symbol="SM",
        long_name="soil moisture",
        units="mm",
        kind="state",
        published="SM",
        cmip="mrso",
        standard_name="mass_content_of_water_in_soil",
        bounds=_POSITIVE,
    ),
    Variable(
        name="groundwater",
        symbol="GW",
        long_name="groundwater storage",
        units="mm",
        kind="state",
        published="GW",
        bounds=_POSITIVE,
    ),
    # fluxes
    Variable(
        name="snowfall",
        long_name="corrected snowfall",
        units="mm d-1",
        kind="flux",
        published="snow_acc",
        cmip="prsn",
        standard_name="snowfall_flux",
        bounds=_POSITIVE,
    ),
    Variable(
        name="rainfall",
        long_name="rainfall",
        units="mm d-1",
        kind="flux",
        cmip="prra",
        standard_name="rainfall_flux",
        bounds=_POSITIVE,
    ),
    Variable(
        name="corrected_precipitation",
        long_name="rainfall plus corrected snowfall",
        units="mm d-1",
        kind="flux",
        published="prec_actual",
        bounds=_POSITIVE,
    ),
    Variable(
        name="snowmelt",
        symbol="M",
        long_name="snowmelt",
        units="mm d-1",
        kind="flux",
        published="snow_melt",
        cmip="snm",
        standard_name="surface_snow_melt_flux",
        bounds=_POSITIVE,
    ),
    Variable(
        name="interception_evaporation",
        symbol="Ei",
        long_name="evaporation of intercepted rain",
        units="mm d-1",
        kind="flux",
        published="Ei",
        cmip="evspsblveg",
        standard_name="water_evaporation_flux_from_canopy",
        bounds=_POSITIVE,
    ),
    Variable(
        name="soil_evaporation",
        symbol="Es",
        long_name="evaporation from the soil",
        units="mm d-1",
        kind="flux",
        published="Es",
        cmip="evspsblsoi",
        standard_name="water_evaporation_flux_from_soil",
        bounds=_POSITIVE,
    ),
    Variable(
        name="transpiration",
        symbol="T",
        long_name="transpiration",
        units="mm d-1",
        kind="flux",
        published="T",
        cmip="tran",
        standard_name="transpiration_flux",
        bounds=_POSITIVE,
    ),
    Variable(
        name="evapotranspiration",
        symbol="ET",
        long_name="evapotranspiration",
        units="mm d-1",
        kind="flux",
        published="ET",
        cmip="evspsbl",
        standard_name="water_evapotranspiration_flux",
        group="et",
        cadence="monthly",
        bounds=_POSITIVE,
        peak=0.5,
    ),
    Variable(
        name="water_input",
        symbol="W",
        long_name="water that reaches the soil surface",
        units="mm d-1",
        kind="flux",
        published="water_input",
        bounds=_POSITIVE,
    ),
    Variable(
        name="soil_recharge",
        long_name="recharge of the soil",
        units="mm d-1",
        kind="flux",
        published="r_soil",
        bounds=_POSITIVE,
    ),
    Variable(
        name="groundwater_recharge",
        long_name="recharge of the groundwater",
        units="mm d-1",
        kind="flux",
        published="r_gw",
        cmip="qgwr",
        bounds=_POSITIVE,
    ),
    Variable(
        name="surface_runoff",
        symbol="Qs",
        long_name="surface runoff",
        units="mm d-1",
        kind="flux",
        published="runoff_surface",
        cmip="mrros",
        standard_name="surface_runoff_flux",
        bounds=_POSITIVE,
    ),
    Variable(
        name="baseflow",
        symbol="Qb",
        long_name="baseflow",
        units="mm d-1",
        kind="flux",
        published="baseflow",
        cmip="mrrob",
        standard_name="subsurface_runoff_flux",
        bounds=_POSITIVE,
    ),
    Variable(
        name="runoff",
        symbol="Q",
        long_name="total runoff",
        units="mm d-1",
        kind="flux",
        published="runoff_total",
        cmip="mrro",
        standard_name="runoff_flux",
        group="q",
        cadence="monthly",
        bounds=_POSITIVE,
        peak=0.1,
    ),
    # diagnostics
    Variable(
        name="evaporative_fraction",
        symbol="EF",
        long_name="evapotranspiration per available energy",
        units="1",
        kind="diagnostic",
        published="EF",
        bounds=_FRACTION,
    ),
    Variable(
        name="soil_recharge_fraction",
        long_name="soil recharge per water input",
        units="1",
        kind="diagnostic",
        published="r_soil_t_fractions",
        bounds=_FRACTION,
    ),
    Variable(
        name="groundwater_recharge_fraction",
        long_name="groundwater recharge per water input",
        units="1",
        kind="diagnostic",
        published="r_gw_fraction",
        bounds=_FRACTION,
    ),
    Variable(
        name="surface_runoff_fraction",
        long_name="surface runoff per water input",
        units="1",
        kind="diagnostic",
        published="runoff_surface_fraction",
        bounds=_FRACTION,
    ),
    Variable(
        name="relative_soil_moisture",
        long_name="soil moisture per soil water capacity",
        units="1",
        kind="diagnostic",
        published="rel_SM",
        bounds=_FRACTION,
    ),
    Variable(
        name="tws",
        symbol="TWS",
        long_name="terrestrial water storage",
        units="mm",
        kind="diagnostic",
        published="tws",
        cmip="mrtws",
        standard_name="land_water_amount",
        group="tws",
        cadence="monthly",
        peak=5.0,
    ),
    Variable(
        name="tws_anomaly",
        long_name="terrestrial water storage less its mean over the series",
        units="mm",
        kind="diagnostic",
        published="tws_anomaly",
    ),
    Variable(
        name="water_balance_residual",
        long_name="corrected precipitation less losses and storage change",
        units="mm d-1",
        kind="diagnostic",
    ),
    # of a whole simulation
    Variable(
        name="largest_residual",
        long_name="largest water balance residual of a day",
        units="mm d-1",
        kind="balance",
        bounds=_POSITIVE,
    ),
    Variable(
        name="water_balance_closure",
        long_name="corrected precipitation less losses and storage change, in all",
        units="mm",
        kind="balance",
    ),
    # what the LSTM hands from day to day, beside the states and fapar
    Variable(
        name="lstm_hidden",
        long_name="output of the LSTM",
        units="1",
        kind="memory",
        bounds=(-1.0, 1.0),
    ),
    Variable(
        name="lstm_carry",
        long_name="cell state of the LSTM",
        units="1",
        kind="memory",
    ),
    # of the inputs of a simulation
    Variable(
        name="out_of_domain",
        long_name="share of days with an input beyond its range in the training",
        units="1",
        kind="domain",
        bounds=_FRACTION,
    ),
)

# In the order of the paper's objective.
CONSTRAINTS = ("tws", "evapotranspiration", "runoff", "swe", "fapar")


def _standard_error(variable: Variable) -> Variable:
    """The standard error of a constraint's observations."""
    return Variable(
        name=f"{variable.name}_error",
        long_name=f"standard error of {variable.long_name}",
        units=variable.units,
        kind="error",
        group=f"{variable.group}_sigma",
        bounds=_POSITIVE,
    )


_REGISTRY += tuple(_standard_error(v) for v in _REGISTRY if v.name in CONSTRAINTS)

VARIABLES: Mapping[str, Variable] = MappingProxyType({v.name: v for v in _REGISTRY})
# By constraint the name of its standard error.
ERRORS = MappingProxyType({name: f"{name}_error" for name in CONSTRAINTS})
CONSTRAINT_OF = MappingProxyType({error: name for name, error in ERRORS.items()})


def names(*kinds: Kind) -> tuple[str, ...]:
    """Names of all variables of the given kinds, in the order of the registry."""
    return tuple(v.name for v in _REGISTRY if v.kind in kinds)


FORCING = names("forcing")
COEFFICIENTS = names("coefficient")
STATES = names("state")
FLUXES = names("flux")
BALANCE = names("balance")
DOMAIN = names("domain")
# What one day hands to the next, in the order of `cell.State`.
PROGNOSTIC = (*STATES, "fapar", *names("memory"))
OUTPUTS = names("coefficient", "parameter", "constant", "state", "flux", "diagnostic")
# The anomaly needs the whole series, so no single day can give it.
STEP_OUTPUTS = tuple(name for name in OUTPUTS if name != "tws_anomaly")
DAILY_OUTPUTS = tuple(
    name
    for name in STEP_OUTPUTS
    if VARIABLES[name].kind not in ("parameter", "constant")
)
# The largest water balance residual that rounding explains [mm d-1].
CLOSED = 1e-3
# Compared as anomalies, and standardised by the deviation alone.
ANOMALIES = ("tws",)


def find(name: str, among: Iterable[str] = VARIABLES) -> Variable | None:
    """The variable that a name stands for, in whichever vocabulary it is given.

    Args:
        name: A name of this project, of the store's groups, of the published
            code or of CMIP.
        among: Names of the variables that may be meant.

    Returns:
        The first variable that carries the name; None if there is none.
    """
    candidates = [VARIABLES[n] for n in among]
    for key in ("name", "group", "cmip", "published"):
        for variable in candidates:
            if name and getattr(variable, key) == name:
                return variable
    return None
