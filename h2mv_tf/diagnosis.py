"""Diagnosis: where in a batch numbers cease to be finite.

Forward in the order of computation: weights, inputs, the days of the spin-up and of the
window, the terms of the objective. Where all these are finite it is a gradient: of one
window, and of the last of its days, as the way back takes them from last to first.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from h2mv_tf import variables
from h2mv_tf.cell import State, one_day
from h2mv_tf.model import H2MV
from h2mv_tf.steps import Part, Trainer, inputs_of

Kind = Literal["weight", "input", "value", "term", "gradient"]
# In the order of computation: a storage is what its fluxes leave.
ORDER = tuple(
    name
    for kind in ("coefficient", "flux", "state", "diagnostic")
    for name in variables.names(kind)
    if name in variables.DAILY_OUTPUTS
)


class Finding(NamedTuple):
    """The first number that is not finite."""

    kind: Kind
    variable: str  # name in the registry, of a static input, a weight or a term
    window: int | None = None  # row of the batch; None: of no one in particular
    day: int | None = None  # of the window, from 0; of its spin-up where that is set
    spin_up: bool = False


def diagnose(
    trainer: Trainer,
    batch: Mapping,
    counts: Mapping[str, tf.Tensor],
    *,
    number: int | None = None,
    warmth: float = 1.0,
) -> Finding | None:
    """Finds the first number of a batch that is not finite.

    Args:
        trainer: Before the step.
        batch: As of `Trainer.step`.
        counts: Of each term, over all devices.
        number: Of the batch in a stream that is evaluated; None in a step.
        warmth: As of `Trainer.step`.

    Returns:
        None where all are finite.
    """
    for weight in trainer.model.weights:
        if not np.isfinite(weight.numpy()).all():
            return Finding("weight", weight_name(weight))
    parts = trainer.parts(batch, number)
    for look in (_inputs, _values, _terms):
        for part in parts:
            if found := look(trainer, part):
                return _within(found, part)
    if number is None:
        for part in parts:
            if found := _gradient(trainer, part, counts, warmth):
                return _within(found, part)
    return None


def weight_name(weight: keras.Variable) -> str:
    """The name of a weight within its model."""
    return weight.path.partition("/")[2]


def _within(found: Finding, part: Part) -> Finding:
    """What was found in a device's part, by the rows of the batch."""
    window = None if found.window is None else found.window + part.first
    return found._replace(window=window)


def _inputs(trainer: Trainer, part: Part) -> Finding | None:
    counted = part.batch["weight"].numpy() > 0
    for name in ("static", "spin_up_forcing", "forcing"):
        if name not in part.batch:
            continue
        wrong = ~np.isfinite(part.batch[name].numpy())
        wrong &= counted.reshape(-1, *[1] * (wrong.ndim - 1))
        if not wrong.any():
            continue
        if name == "static":
            window, column = np.argwhere(wrong)[0]
            return Finding("input", f"static input {column + 1}", int(window))
        day, window, column = np.argwhere(wrong.transpose(1, 0, 2))[0]
        spin_up = name != "forcing"
        variable = variables.FORCING[column]
        return Finding("input", variable, int(window), int(day), spin_up)
    return None


def _values(trainer: Trainer, part: Part) -> Finding | None:
    """The first value of the model that is not finite, day by day."""
    counted = part.batch["weight"].numpy() > 0
    outputs = (*ORDER, *variables.names("parameter", "constant"))
    state = trainer.model.empty_state(len(counted))
    spin_up = part.batch.get("spin_up_forcing", part.batch["forcing"])
    for forcing, spins in ((spin_up, True), (part.batch["forcing"], False)):
        found, state = _simulated(trainer, part, forcing, state, outputs)
        for name in variables.names("parameter", "constant"):
            wrong = ~np.isfinite(np.broadcast_to(found[name], counted.shape)) & counted
            if wrong.any():
                return Finding("value", name, int(wrong.argmax()))
        series = np.stack([found[name].numpy() for name in ORDER])
        wrong = ~np.isfinite(series) & counted[:, None]
        if wrong.any():
            day, variable, window = np.argwhere(wrong.transpose(2, 0, 1))[0]
            return Finding("value", ORDER[variable], int(window), int(day), spins)
    return None


def _simulated(trainer: Trainer, part: Part, forcing, state: State, outputs):
    """The outputs over some weather, as the device would find them, and the state."""

    @tf.function(autograph=False)
    def simulated():
        return trainer.model.simulate(
            forcing,
            part.batch["static"],
            state,
            outputs,
            seed=part.seed if part.dropping else None,
            drawn=trainer.drawn(part),
        )

    return simulated()


def _terms(trainer: Trainer, part: Part) -> Finding | None:
    """A term that is not finite although what is simulated is."""
    batch, drawn = part.batch, trainer.drawn(part)
    predictions = tf.function(trainer.model, autograph=False)(
        inputs_of(batch),
        outputs=trainer.objective.names,
        seed=part.seed if part.dropping else None,
        drawn=drawn,
    )

    def wrong(first: int, end: int) -> list[str]:
        """Terms of some windows alone that are not finite."""
        of_some = {**batch, "targets": _only(batch["targets"], first, end)}
        found = trainer.terms(of_some, predictions, drawn, part.seed)
        return [name for name, term in found.items() if not np.isfinite(term.total)]

    window = _narrowed(lambda *windows: bool(wrong(*windows)), len(batch["weight"]))
    if window is None:
        return None
    first, end = window
    if first == end:  # without any observation: a prior
        return Finding("term", wrong(0, 0)[0])
    names = wrong(first, end)
    return Finding("term", names[0], first if end - first == 1 else None)


def _gradient(
    trainer: Trainer, part: Part, counts: Mapping, warmth: float
) -> Finding | None:
    """A gradient that is not finite although the terms are."""

    def of_some(first: int, end: int) -> Part:
        targets = _only(part.batch["targets"], first, end)
        return part._replace(batch={**part.batch, "targets": targets})

    def wrong(first: int, end: int) -> list[str]:
        """Weights whose gradients of some windows alone are not finite."""
        found = trainer.gradients(of_some(first, end), counts, warmth)
        weights = trainer.model.trainable_variables
        return [
            weight_name(weight)
            for weight, gradient in zip(weights, found, strict=True)
            if not np.isfinite(gradient.numpy()).all()
        ]

    window = _narrowed(
        lambda *windows: bool(wrong(*windows)), len(part.batch["weight"])
    )
    if window is None:
        return None
    first, end = window
    if end - first != 1:  # of a prior, or of a sum that only together is too large
        return Finding("gradient", wrong(first, end)[0])
    weather = trainer.weather_gradient(of_some(first, end), counts, warmth)
    days = np.flatnonzero(~np.isfinite(weather[first].numpy()).all(axis=1))
    if not len(days):
        return Finding("gradient", wrong(first, end)[0], first)
    day = int(days[-1])
    variable = _steepest(trainer, part, first, day) or wrong(first, end)[0]
    return Finding("gradient", variable, first, day)


def _steepest(trainer: Trainer, part: Part, window: int, day: int) -> str | None:
    """The first variable of a day whose own slopes are not finite."""
    model: H2MV = trainer.model
    forcing = part.batch["forcing"]
    state = tf.function(model.spin_up, autograph=False)(
        part.batch.get("spin_up_forcing", forcing),
        part.batch["static"],
        seed=part.seed if part.dropping else None,
        drawn=trainer.drawn(part),
    )
    if day:
        _, state = _simulated(trainer, part, forcing[:, :day], state, ())
    preparation = model.prepare(
        part.batch["static"],
        part.seed if part.dropping else None,
        trainer.drawn(part),
    )
    weather, state = tf.transpose(forcing[:, day]), state.transposed()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((weather, state))
        values, _ = one_day(weather, state, preparation, ORDER)
        values = [values[n, window] for n in range(len(ORDER))]
    for name, value in zip(ORDER, values, strict=True):
        slopes = tape.gradient(value, [weather, *state], unconnected_gradients="zero")
        if not all(np.isfinite(slope[:, window].numpy()).all() for slope in slopes):
            return name
    return None


def _only(targets: Mapping, first: int, end: int) -> dict:
    """Observations of some windows; the others have none."""

    def kept(target):
        rows = tf.range(len(target))[:, None]
        nothing = tf.constant(np.nan, target.dtype)
        return tf.where((rows >= first) & (rows < end), target, nothing)

    return {name: kept(target) for name, target in targets.items()}


def _narrowed(wrong, windows: int) -> tuple[int, int] | None:
    """The fewest windows that are wrong without the others.

    Args:
        wrong: Whether some windows alone, from the first to before the end, are.
        windows: Of the batch.

    Returns:
        First and end; both 0 where it takes no window, None where nothing is wrong.
    """
    if not wrong(0, windows):
        return None
    if wrong(0, 0):
        return 0, 0
    first, end = 0, windows
    while end - first > 1:
        middle = (first + end) // 2
        if wrong(first, middle):
            end = middle
        elif wrong(middle, end):
            first = middle
        else:
            break
    return first, end
