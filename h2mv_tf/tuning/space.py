"""The search space: which fields of the configuration are tuned, and between what.

    objective: val_loss
    fields:
      training.learning_rate: {type: float, min: 0.001, max: 0.1, sampling: log}
      model.lstm_units: {type: int, min: 32, max: 128, step: 32}
      training.batch_size: {type: choice, values: [16, 32, 64]}

Everything is checked against the typed configuration before the first trial.
"""

import contextlib
import functools
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
import yaml
from pydantic import Field as Bounded

from h2mv_tf import config
from h2mv_tf.config import Config, Section
from h2mv_tf.errors import UserError
from h2mv_tf.tuning.objective import VALIDATION_LOSS, Objective

if TYPE_CHECKING:
    import keras_tuner

logger = logging.getLogger(__name__)

# Sections that a search does not choose, as they make the data and its roles.
FIXED = ("provenance", "synthetic", "split", "data")
GOLDEN = 0.618  # somewhere between two ends, at no round number


class Field(Section):
    """A field of the configuration, and the values it may take.

    Attributes:
        name: Of the field, dotted.
        type: Kind of its values.
        min: The least, of a number.
        max: The largest, of a number.
        step: From one number to the next; the factor where sampling is log.
        sampling: Whether numbers are drawn evenly, or their logarithms are.
        values: Of a choice.
        when: Values of other fields, further up, with which this one is tuned; with
            others it is as in the configuration.
    """

    name: str
    type: Literal["float", "int", "choice"]
    min: float | None = None
    max: float | None = None
    step: pydantic.PositiveFloat | None = None
    sampling: Literal["linear", "log"] = "linear"
    values: tuple[Any, ...] = ()
    when: dict[str, tuple[Any, ...]] = Bounded(default={})

    @pydantic.field_validator("when", mode="before")
    @classmethod
    def _several(cls, when: Any) -> Any:
        """One value may stand without brackets."""
        if not isinstance(when, dict):
            raise ValueError("expected a field and its values, as {window.length: 365}")
        return {k: v if isinstance(v, list | tuple) else (v,) for k, v in when.items()}

    @pydantic.model_validator(mode="after")
    def _sound(self) -> "Field":
        if self.type == "choice":
            if not self.values or (self.min, self.max, self.step) != (None,) * 3:
                raise ValueError("a choice has values, and nothing else")
            if len(self.codes) < len(self.values):
                raise ValueError("each value of a choice stands there once")
            return self
        if self.values or self.min is None or self.max is None:
            raise ValueError(f"a {self.type} has min and max, and no values")
        if self.min >= self.max:
            raise ValueError(f"min {self.min:g} is not below max {self.max:g}")
        if self.step is not None and self.step > (
            self.max / self.min if self.sampling == "log" else self.max - self.min
        ):
            raise ValueError(f"step {self.step:g} leads beyond max {self.max:g}")
        if self.sampling == "log" and self.min <= 0:
            raise ValueError(f"logarithms need a min above 0; found {self.min:g}")
        if self.sampling == "log" and self.step is not None and self.step <= 1:
            raise ValueError("the step of logarithms is a factor above 1")
        if self.type == "int":
            for number in (self.min, self.max, self.step or 1):
                if number != int(number):
                    raise ValueError(f"an int has whole numbers; found {number:g}")
        return self

    @property
    def codes(self) -> dict[Any, Any]:
        """The values of a choice by what KerasTuner calls them.

        It knows numbers or words of one type, and takes true for 1.
        """
        if {type(value) for value in self.values} in ({int}, {float}):
            return {value: value for value in self.values}
        return {_words(value): value for value in self.values}

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.type == "int" or {type(value) for value in self.values} == {int}

    @property
    def words(self) -> str:
        """The field as it stands in a search space."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return f"{content.pop('name')}: {_words(content)}"

    def position(self, value: Any) -> float:
        """Where a value lies, from 0 to 1."""
        if self.type == "choice":
            # Equal, if not the same: a column with gaps has 64.0 for 64.
            place = next(n for n, own in enumerate(self.values) if own == value)
            return place / max(len(self.values) - 1, 1)
        if self.sampling == "log":
            return math.log(value / self.min) / math.log(self.max / self.min)
        return (value - self.min) / (self.max - self.min)

    def may_be(self, value: Any) -> bool:
        """Whether a value is one that the field may take."""
        if self.type == "choice":
            return _words(value) in map(_words, self.values)
        if type(value) is not int and (self.type == "int" or type(value) is not float):
            return False
        step = self.step or (1 if self.type == "int" else None)
        on_step = (
            self.sampling == "log" or step is None or not (value - self.min) % step
        )
        return self.min <= value <= self.max and on_step

    def examples(self) -> tuple[Any, ...]:
        """Values that are valid only if all are."""
        if self.type == "choice":
            return self.values
        if self.type == "int":
            return int(self.min), int(self.max)
        return self.min, self.min + GOLDEN * (self.max - self.min), self.max

    def declare(self, space: "keras_tuner.HyperParameters") -> None:
        """Tells KerasTuner of the field, in the scope of its conditions."""
        if self.type == "choice":
            space.Choice(self.name, list(self.codes))
            return
        add, kind = (space.Int, int) if self.type == "int" else (space.Float, float)
        step = None if self.step is None else kind(self.step)
        ends = kind(self.min), kind(self.max)
        add(self.name, *ends, step=step, sampling=self.sampling)


class Space(Section):
    """A search space.

    Attributes:
        objective: What trials are judged by.
        folds: The folds over which it is averaged; that of the configuration by
            default.
        factor: Of Hyperband: how many times longer the best of a round go on, and
            which share of them that is.
        fields: What is tuned.
    """

    objective: str = VALIDATION_LOSS
    folds: tuple[Annotated[int, Bounded(ge=1, le=10)], ...] | None = None
    factor: Annotated[int, Bounded(ge=2)] = 3
    fields: tuple[Field, ...]

    @pydantic.field_validator("objective")
    @classmethod
    def _canonical(cls, objective: str) -> str:
        return str(Objective.parse(objective))

    @pydantic.field_validator("fields", mode="before")
    @classmethod
    def _named(cls, fields: Any) -> Any:
        """Fields as a mapping from their names."""
        if isinstance(fields, dict):
            for name, field in fields.items():
                if not isinstance(field, dict):
                    raise ValueError(
                        f"{name} is {field!r}; expected as {{type: float, min: 0.001, "
                        "max: 0.1}"
                    )
                if "name" in field:
                    raise ValueError(f"{name} has a name already; drop 'name'")
            return [{"name": name, **field} for name, field in fields.items()]
        raise ValueError("expected fields by name, as training.batch_size: {...}")

    @pydantic.field_serializer("fields")
    def _by_name(self, fields: tuple[Field, ...]) -> dict[str, dict]:
        content = [field.model_dump(exclude_defaults=True) for field in fields]
        return {field.pop("name"): field for field in content}

    @pydantic.field_validator("fields")
    @classmethod
    def _in_order(cls, fields: tuple[Field, ...]) -> tuple[Field, ...]:
        if not fields:
            raise ValueError("there is nothing to tune")
        known: dict[str, Field] = {}
        for field in fields:
            for parent, values in field.when.items():
                if parent not in known:
                    raise ValueError(
                        f"{field.name} hangs on {parent}, which is not a field further "
                        "up"
                    )
                for value in values:
                    if not known[parent].may_be(value):
                        raise ValueError(
                            f"{field.name} hangs on {parent} being {value}, which it "
                            "never is"
                        )
            known[field.name] = field
        return fields

    @pydantic.field_validator("folds")
    @classmethod
    def _each_once(cls, folds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if folds is not None and (not folds or len(set(folds)) < len(folds)):
            raise ValueError("name one or more folds, each once")
        return folds

    @property
    def judged_by(self) -> Objective:
        """What trials are judged by."""
        return Objective.parse(self.objective)

    @functools.cached_property
    def _codes(self) -> dict[str, dict[Any, Any]]:
        return {f.name: f.codes for f in self.fields if f.type == "choice"}

    def hyperparameters(self) -> "keras_tuner.HyperParameters":
        """The space as KerasTuner knows it."""
        import keras_tuner

        space = keras_tuner.HyperParameters()
        for field in self.fields:
            with contextlib.ExitStack() as scopes:
                for parent, values in field.when.items():
                    coded = [self._code(parent, value) for value in values]
                    scopes.enter_context(space.conditional_scope(parent, coded))
                field.declare(space)
        return space

    def _code(self, name: str, value: Any) -> Any:
        for code, meant in self._codes.get(name, {}).items():
            if _words(meant) == _words(value):
                return code
        return value

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the fields, of what KerasTuner has drawn."""
        names = [field.name for field in self.fields if field.name in drawn]
        return {n: self._codes.get(n, {}).get(drawn[n], drawn[n]) for n in names}

    def points(self) -> int:
        """How many points a grid has."""
        space = self.hyperparameters().space

        def count(number: int, chosen: dict[str, Any]) -> int:
            if number == len(space):
                return 1
            field = space[number]
            if not all(condition.is_active(chosen) for condition in field.conditions):
                return count(number + 1, chosen)
            values = {*field.values, field.default}
            if not any(field.name in other.when for other in self.fields):
                return len(values) * count(number + 1, chosen)
            return sum(count(number + 1, {**chosen, field.name: v}) for v in values)

        return count(0, {})

    def refuse_unfit(self, settings: Config, algorithm: str) -> None:
        """Raises a UserError where the space does not fit a configuration.

        Args:
            settings: What the fields belong to.
            algorithm: How the next trial is chosen: Hyperband chooses the epochs
                itself, and a grid needs steps.

        Raises:
            UserError: A field is unknown, or of another type or range.
        """
        for field in self.fields:
            section = field.name.partition(".")[0]
            if section in FIXED:
                raise UserError(
                    f"{field.name} cannot be tuned: trials are compared on the same "
                    "data and cells. Drop it from the search space."
                )
            if section == "objective" and self.judged_by.of_the_loss:
                raise UserError(
                    f"{field.name} changes what {VALIDATION_LOSS} is made of, so that "
                    "trials cannot be compared by it. Drop the field, or judge by a "
                    "score: objective: val/median_nse/all."
                )
            if algorithm == "hyperband" and field.name == "training.epochs":
                raise UserError(
                    "Hyperband chooses training.epochs itself, up to that of the "
                    "configuration. Drop it from the search space."
                )
            endless = field.type == "float" or field.sampling == "log"
            if (
                algorithm == "grid"
                and field.type != "choice"
                and endless
                and (field.step is None)
            ):
                raise UserError(
                    f"A grid needs a step for {field.name}, or a choice of values."
                )
            for value in field.examples():
                try:
                    config.changed(settings, {field.name: value})
                except UserError as error:
                    raise UserError(f"Search space: {error}") from error
        windows = [f.name for f in self.fields if f.name.startswith("window.")]
        if windows and self.judged_by.of_the_loss:
            logger.warning(
                "%s changes which days the validation loss is made of; a score as "
                "val/median_nse/all compares the same days of all trials.",
                windows[0],
            )


def load(path: str | Path) -> Space:
    """Reads a search space.

    Args:
        path: A YAML file.

    Raises:
        UserError: It cannot be read, a key is unknown or a value is wrong.
    """
    content = config.read_yaml(Path(path), "search space", Space)
    try:
        return Space.model_validate(content)
    except pydantic.ValidationError as error:
        raise UserError(f"Search space '{path}': {_first(error, content)}") from error


def _first(error: pydantic.ValidationError, content: Mapping[str, Any]) -> str:
    """The first mistake, in one line."""
    mistake = error.errors()[0]
    place = list(mistake["loc"])
    if place[:1] == ["fields"] and len(place) > 1:  # by name, not by number
        place[:2] = [list(content["fields"])[place[1]]]
    where = " ".join(map(str, place))
    if mistake["type"] == "extra_forbidden":
        known = Field if len(place) > 1 else Space
        names = [name for name in known.model_fields if name != "name"]
        return f"{where} is unknown. Expected one of: {', '.join(names)}."
    words = mistake["msg"].removeprefix("Value error, ")
    return f"{where}: {words[:1].lower()}{words[1:].rstrip('.')}."


def _words(value: Any) -> str:
    """A value as one word, in YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("...\n").strip()
