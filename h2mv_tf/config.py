"""The configuration: typed, strict, from YAML and dotted overrides.

Every number that a user may change lives here, with the published model's value
as its default. Sections are frozen; an unknown key is an error that names the
nearest right one.

    config = load("trainers/configs/h2mv.yaml", ["training.epochs=50"])
"""

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import Field, NonNegativeFloat, PositiveFloat

from h2mv_tf import variables
from h2mv_tf.data.units import quantity
from h2mv_tf.documents import parsed_yaml
from h2mv_tf.errors import LONG, UserError, quoted, shown, words

LONGEST_WARM_UP = 50  # epochs, where none is given
UNKNOWN = Path("unknown")  # data.store of weights that were imported without one
LONGEST_FILE = 10_000_000  # bytes
PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]


class Section(pydantic.BaseModel):
    """Part of the configuration."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class Data(Section):
    """Where the data is and how it is scaled."""

    store: Path = Path("data/demo.zarr")
    # Groups whose names differ from the published layout, as in {et: et_xbase}.
    groups: dict[str, str] = {}
    # Means and deviations: of the training cells of the fold, or the attributes
    # `mean` and `std` of the store's arrays.
    normalization: Literal["training", "store"] = "training"
    # Where the series are held: in memory, decoded on disk (in TMPDIR), or nowhere,
    # so that each epoch reads the store. What does not fit memory is read, too.
    cache: Literal["memory", "disk", "none"] = "memory"
    buffer: PositiveInt = 1000  # MB of series that are held where the store is read

    @pydantic.field_validator("store", mode="before")
    @classmethod
    def _possible_path(cls, store: object):
        if isinstance(store, str | Path) and "\0" in str(store):
            raise ValueError("a path has no null characters")
        return store

    @pydantic.field_validator("groups")
    @classmethod
    def _known_groups(cls, groups: dict[str, str]) -> dict[str, str]:
        known = [v.group for v in variables.VARIABLES.values() if v.group]
        known += ["static", "mask"]
        for group, name in groups.items():
            if group not in known:
                raise ValueError(
                    f"the published layout has no group '{quoted(group, 50)}'"
                    f"{_nearest(group, known)}"
                )
            inside = name.isprintable() and not {"/", "\\"} & set(name)
            if not inside or name in ("", ".", ".."):
                raise ValueError(
                    f"'{quoted(name, 50)}' is no name of a group. Expected one without "
                    "slashes, of the store itself"
                )
        return groups


class Window(Section):
    """What one sample is."""

    # Days, or `full`: the whole record, spun up on itself.
    length: int | Literal["full"] = "full"
    # Days before the window that bring the stores into motion, without gradient.
    # Where the record starts too late its first years are cycled.
    spin_up: PositiveInt = 365
    # Days from one window to the next; null: the length, so that none overlap.
    stride: PositiveInt | None = None

    @pydantic.field_validator("length", mode="before")
    @classmethod
    def _days_or_full(cls, length: object):
        if length == "full" or (type(length) is int and 1 < length < 2**31):
            return length
        raise ValueError("expected a number of days of at least 2, or full")


class Split(Section):
    """Which cells train, validate and test."""

    fold: Annotated[int, Field(ge=1, le=10)] = 1
    block_size: PositiveInt = 5  # cells along the side of a spatial block
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1


class Model(Section):
    """The networks."""

    encoder_units: PositiveInt = 150  # of each hidden layer of the static encoder
    encoder_layers: PositiveInt = 1  # hidden ones
    code_size: PositiveInt = 12
    lstm_units: PositiveInt = 100
    # Share of each hidden layer of the encoder that a training step leaves out.
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Objective(Section):
    """What the model is held against."""

    # Names of the registry or of the store's groups; null: all that the store has.
    constraints: tuple[str, ...] | None = None
    # Centre TWS on the observed months of both, or, as published, the prediction
    # on its whole series.
    anomaly_reference: Literal["matched", "series"] = "matched"
    saturation: PositiveFloat = 100.0  # mm of SWE above which deeper is not seen
    # The published unweighted sum of mean squared errors, or the distribution of an
    # observation's error, whose width is learned for each constraint.
    likelihood: Literal["mse", "normal", "laplace", "student_t"] = "mse"
    # Of student_t; with more it is a normal distribution, and float32 has no gradient.
    degrees_of_freedom: Annotated[float, Field(gt=2, le=100)] = 4.0
    # Of a likelihood: errors are alike from step to step, as far as is learned.
    autocorrelation: bool = True
    # Of a likelihood: constraints whose standard errors the store tells, as in the
    # group tws_sigma; null: all that it has.
    errors: tuple[str, ...] | None = None

    @pydantic.field_validator("constraints", "errors", mode="before")
    @classmethod
    def _one_or_more(cls, constraints: object):
        return constraints.split(",") if isinstance(constraints, str) else constraints

    @pydantic.field_validator("constraints", "errors")
    @classmethod
    def _canonical(cls, constraints: tuple[str, ...] | None):
        if constraints is None:
            return None
        found = [variables.find(c, variables.CONSTRAINTS) for c in constraints]
        for given, variable in zip(constraints, found, strict=True):
            if variable is None:
                raise ValueError(
                    f"'{quoted(given, 50)}' is not a constraint"
                    f"{_nearest(given, variables.CONSTRAINTS)}"
                )
        canonical = tuple(variable.name for variable in found)
        if len(set(canonical)) < len(canonical):
            raise ValueError("name constraints, each once")
        return canonical

    @pydantic.field_validator("constraints")
    @classmethod
    def _any(cls, constraints: tuple[str, ...] | None):
        if constraints == ():
            raise ValueError("name one or more constraints")
        return constraints


Amount = float | str  # in native units, or with units, as "15 cm"


class LogNormal(Section):
    """A prior whose logarithm is normal."""

    distribution: Literal["LogNormal"] = "LogNormal"
    median: Amount
    deviation: PositiveFloat  # of the logarithm
    # A static input that the median is a multiple of: as "150 mm m-1" per soil_depth.
    per: str | None = None


class Normal(Section):
    """A normal prior."""

    distribution: Literal["Normal"] = "Normal"
    mean: Amount
    deviation: Amount


class Gamma(Section):
    """A gamma prior."""

    distribution: Literal["Gamma"] = "Gamma"
    mean: Amount
    concentration: PositiveFloat


class Beta(Section):
    """A beta prior of a fraction: as if so many had been seen for it and against it."""

    distribution: Literal["Beta"] = "Beta"
    concentration1: PositiveFloat
    concentration0: PositiveFloat


class LogitNormal(Section):
    """A prior of a fraction whose logit, log(x / (1 - x)), is normal."""

    distribution: Literal["LogitNormal"] = "LogitNormal"
    median: Amount
    deviation: PositiveFloat  # of the logit


CapacityPrior = Annotated[
    LogNormal | Normal | Gamma, Field(discriminator="distribution")
]
FractionPrior = Annotated[
    Beta | LogitNormal | Normal, Field(discriminator="distribution")
]


def _refuse_impossible(prior: Section, variable: variables.Variable) -> None:
    """Raises a ValueError where a parameter could never be as its prior says."""
    low, high = variable.bounds
    for field in ("median", "mean"):
        given = getattr(prior, field, None)
        if given is None or getattr(prior, "per", None):
            continue
        centre = quantity(given, variable.units)
        if not (centre > low and (high is None or centre < high)):
            beyond = f"above {low:g}" + ("" if high is None else f" and below {high:g}")
            raise ValueError(
                f"{field} is {centre:g} {variable.units}, and it has to lie {beyond}"
            )
    if isinstance(prior, Normal) and not quantity(prior.deviation, variable.units) > 0:
        raise ValueError(f"deviation is {prior.deviation}, and it has to be above 0")


class Priors(Section):
    """What is known of the parameters before anything is observed.

    They count where there is a likelihood; null leaves a parameter without.
    """

    soil_water_capacity: CapacityPrior | None = LogNormal(median=200.0, deviation=0.8)
    snowfall_correction: FractionPrior | None = Beta(
        concentration1=4.0, concentration0=1.0
    )
    baseflow_fraction: FractionPrior | None = LogitNormal(median=0.01, deviation=1.5)

    @pydantic.field_validator("*")
    @classmethod
    def _possible(cls, prior: Section | None, info: pydantic.ValidationInfo):
        if prior is not None:
            _refuse_impossible(prior, variables.VARIABLES[info.field_name])
        return prior


class Uncertainty(Section):
    """What is learned of the parameters: points, or distributions."""

    posterior: Literal["none", "variational"] = "none"
    # Whether the weights of the last layer, which gives the coefficients, have a
    # distribution, beside the parameters.
    last_layer: bool = True
    weight_deviation: PositiveFloat = 1.0  # of the normal prior of these weights
    # Of the correlations between them: 0 has none, mean field.
    rank: Annotated[int, Field(ge=0, le=100)] = 0
    # Epochs until constraints count by their observations instead of all alike, and
    # the priors in full; null: half of all epochs, 50 at most.
    warm_up: Annotated[int, Field(ge=0)] | None = None


class Training(Section):
    """The optimiser and when it stops."""

    epochs: PositiveInt = 500
    batch_size: PositiveInt = 256  # windows
    learning_rate: PositiveFloat = 0.01
    weight_decay: NonNegativeFloat = 0.01
    clip_value: PositiveFloat = 0.5  # of each gradient
    patience: PositiveInt = 30  # epochs without a better validation loss
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["float32", "float64"] = "float32"
    jit_compile: bool = True  # compile the training step with XLA
    # MB that the days of a batch may keep for the way back on each device. What does
    # not fit is worked out twice.
    memory: PositiveInt = 500
    # The same numbers again on the same devices, where TensorFlow has two ways.
    deterministic: bool = True
    checkpoint_minutes: PositiveFloat = 10.0  # from one checkpoint to the next
    # What follows a step whose loss or gradient is not finite: the end of the
    # training, or the next step.
    on_nonfinite: Literal["stop", "skip"] = "stop"
    most_skipped: PositiveInt = 10  # in a row, before the training ends after all


class Distribution(Section):
    """Who shares each batch."""

    # Devices of this process: auto takes all GPUs, or else the cores.
    devices: PositiveInt | Literal["auto"] = "auto"


class Synthetic(Section):
    """The synthetic world that is made where `data.store` does not exist yet."""

    rows: Annotated[int, Field(ge=5)] = 20  # from pole to pole
    columns: Annotated[int, Field(ge=5)] = 40  # around the planet
    years: PositiveInt = 3
    noise: NonNegativeFloat = 0.05  # of the observations, in standard deviations
    # Whether the noise differs from cell to cell, and the store tells how large it is.
    errors: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Provenance(Section):
    """What made a run, written into its config.yaml."""

    version: str
    commit: str | None = None
    created: str


class Config(Section):
    """The whole configuration."""

    data: Data = Data()
    window: Window = Window()
    split: Split = Split()
    model: Model = Model()
    objective: Objective = Objective()
    priors: Priors = Priors()
    uncertainty: Uncertainty = Uncertainty()
    training: Training = Training()
    distribution: Distribution = Distribution()
    synthetic: Synthetic | None = None
    provenance: Provenance | None = None

    @pydantic.model_validator(mode="after")
    def _with_a_likelihood(self):
        """Errors, priors and posteriors are of densities, not of a sum of squares."""
        if self.objective.likelihood == "mse":
            given = {
                "priors": self.priors != Priors(),
                "objective.errors": bool(self.objective.errors),
                "uncertainty.posterior": self.uncertainty.posterior != "none",
            }
            for field in (name for name, wanted in given.items() if wanted):
                raise ValueError(
                    f"{field} is set, but objective.likelihood is mse, which knows no "
                    "probabilities. Choose objective.likelihood: normal, laplace or "
                    "student_t"
                )
            return self
        if self.warm_up >= self.training.epochs:
            raise ValueError(
                f"uncertainty.warm_up is {self.warm_up}, but "
                f"training.epochs is {self.training.epochs}: a likelihood is judged "
                "after its warm-up. Shorten it, or train for longer"
            )
        if self.uncertainty.posterior != "none":
            for name, prior in self.priors:
                if prior is None:
                    raise ValueError(
                        f"priors.{name} is null, but uncertainty.posterior is "
                        f"{self.uncertainty.posterior}: a posterior needs a prior"
                    )
        return self

    @property
    def warm_up(self) -> int:
        """Epochs of a likelihood's warm-up; none without a likelihood."""
        if self.objective.likelihood == "mse":
            return 0
        given = self.uncertainty.warm_up
        half = min(LONGEST_WARM_UP, self.training.epochs // 2)
        return half if given is None else given

    def to_yaml(self) -> str:
        """The configuration as `load` reads it."""
        settings = self.model_dump(mode="json")
        return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration.

    Args:
        path: A YAML file; the defaults without one.
        overrides: As `training.learning_rate=0.005`; values are YAML.

    Raises:
        UserError: The file cannot be read, a key is unknown or a value is wrong.
    """
    settings = {} if path is None else read_yaml(Path(path), "configuration", Config)
    for override in overrides:
        _set(settings, override)
    try:
        return Config.model_validate(settings)
    except pydantic.ValidationError as error:
        where = "The configuration" if path is None else f"Configuration '{path}'"
        raise UserError(f"{where}: {_first(error)}") from error


def parse(text: str) -> Config:
    """Reads a configuration that `Config.to_yaml` wrote.

    Raises:
        UserError: It is no YAML, or of a version that knows other keys.
    """
    try:
        content = parsed_yaml(text)
    except ValueError as error:
        raise UserError(f"The configuration is not YAML: {words(error)}.") from error
    return validated(content)


def validated(content: object) -> Config:
    """A configuration of plain values.

    Args:
        content: Sections by name, with their fields by name.

    Raises:
        UserError: A field is unknown or a value is wrong.
    """
    try:
        return Config.model_validate(content)
    except pydantic.ValidationError as error:
        raise UserError(f"The configuration: {_first(error)}") from error


def changed(settings: Config, values: Mapping[str, Any]) -> Config:
    """A configuration with other values of some fields.

    Args:
        settings: The configuration.
        values: By dotted name.

    Raises:
        UserError: A field is unknown or a value is wrong.
    """
    content = settings.model_dump()
    for key, value in values.items():
        *sections, field = key.split(".")
        inner = content
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise UserError(f"unknown key '{key}'{_nearest_key([key])}")
        inner[field] = value
    try:
        return Config.model_validate(content)
    except pydantic.ValidationError as error:
        raise UserError(_first(error)) from error


def difference(begun: Config, wanted: Config) -> tuple[str, Any, Any] | None:
    """The first field in which two trainings differ: its name and both values.

    What made them is left out, and how a synthetic world is made that is there.
    """
    first, second = begun.model_dump(), wanted.model_dump()
    for section in first.keys() - {"provenance", "synthetic"}:
        for field, value in first[section].items():
            if value != second[section][field]:
                return f"{section}.{field}", value, second[section][field]
    return None


def read_yaml(path: Path, what: str, content: type[Section]) -> dict[str, Any]:
    """The content of a YAML file.

    Args:
        path: The file.
        what: What it is to be, in words.
        content: What is expected in it.

    Raises:
        UserError: It cannot be read, or is no mapping.
    """
    name = f"{what[:1].upper()}{what[1:]} '{path}'"
    try:
        with path.open("rb") as file:
            content_read = file.read(LONGEST_FILE)
        settings = parsed_yaml(content_read.decode("utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {what} '{path}': {words(error)}.") from error
    except ValueError as error:
        raise UserError(f"{name} is not YAML: {words(error)}.") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(
            f"{name} is not a mapping. Expected keys {', '.join(content.model_fields)}."
        )
    return settings


def _set(settings: dict[str, Any], override: str) -> None:
    """Applies one `section.field=value`."""
    key, equals, text = override.partition("=")
    *sections, field = key.strip().split(".")
    if not equals or not field:
        raise UserError(
            f"Cannot read override '{quoted(override)}'. Expected section.field=value, "
            "as training.learning_rate=0.005."
        )
    try:
        value = parsed_yaml(text)
    except ValueError as error:
        raise UserError(
            f"Override '{quoted(override)}' has no YAML value: {words(error)}."
        ) from error
    for section in sections:
        inner = settings.get(section)
        settings[section] = settings = dict(inner) if isinstance(inner, dict) else {}
    settings[field] = value


def _first(error: pydantic.ValidationError) -> str:
    """The first mistake, in one line."""
    mistake = error.errors(include_url=False)[0]
    # Of priors, pydantic names the distribution, too.
    tags = {prior.__name__ for prior in (LogNormal, Normal, Gamma, Beta, LogitNormal)}
    location = [str(part) for part in mistake["loc"] if str(part) not in tags]
    key = ".".join(location)
    if mistake["type"] == "extra_forbidden":
        return f"unknown key '{quoted(key)}'{_nearest_key(location)}"
    known = set(_keys(Config))
    while key not in known and "." in key:
        key = key.rpartition(".")[0]
    reason = mistake["msg"].removeprefix("Value error, ")
    reason = quoted(reason[:1].lower() + reason[1:], 2 * LONG)
    if key not in known:  # of several sections together
        return f"{reason}."
    if mistake["type"].startswith("union_tag"):
        kind = Config.model_fields[location[0]].annotation.model_fields[location[1]]
        names = [k.__name__ for k in _sections(kind.annotation)]
        reason = f"it needs a distribution, one of: {', '.join(names)}"
    found = shown(mistake["input"])
    if mistake["type"] == "missing":
        return f"{key} is missing; expected it in {found}."
    return f"{key} is {found}, but {reason}."


def _nearest_key(location: Sequence[str]) -> str:
    keys = list(_keys(Config))
    same_field = [k for k in keys if k.split(".")[-1] == location[-1]]
    if same_field:
        return f"; did you mean '{same_field[0]}'?"
    section = ".".join(location[:-1])
    siblings = [k for k in keys if k.rpartition(".")[0] == section]
    expected = f". Expected one of: {', '.join(siblings)}."
    return _nearest(".".join(location), keys) or expected


def _nearest(name: str, among: Iterable[str]) -> str:
    if len(name) > LONG:  # which takes long to compare
        return ""
    close = difflib.get_close_matches(name, list(among), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _keys(section: type[Section], prefix: str = "") -> Iterable[str]:
    """All dotted keys, sections included, each once."""
    found: dict[str, None] = {}
    for name, field in section.model_fields.items():
        found[prefix + name] = None
        for kind in _sections(field.annotation):
            found |= dict.fromkeys(_keys(kind, f"{prefix}{name}."))
    return found


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [s for part in typing.get_args(annotation) for s in _sections(part)]
