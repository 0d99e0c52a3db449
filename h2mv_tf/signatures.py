"""Signatures: what a SavedModel of H2MV can be asked, by name and in physical units.

`serving_default` spins up and simulates; `simulate` goes on from given states and
returns the last; `spin_up` gives states, and whether they have settled; `step` is one
day; `simulate_xla` is `simulate`, compiled. Forcing comes as one array or, in those
whose name ends with `_series`, as three.
"""

from collections.abc import Callable, Mapping

import tensorflow as tf

from h2mv_tf.admission import Ranges, admitted, out_of_domain
from h2mv_tf.cell import State
from h2mv_tf.domain import Domain
from h2mv_tf.model import H2MV
from h2mv_tf.variables import DOMAIN, FORCING, PROGNOSTIC, STATES, VARIABLES

# Before the names of variables: a state in and out, which have to differ for ONNX, and
# what a cycle changes it by.
INITIAL, FINAL, DRIFT = "initial_", "final_", "drift_"
SERIES = "_series"  # behind the name of a signature
DEFAULT, XLA = "serving_default", "simulate_xla"


def signatures(
    model: H2MV, domain: Domain | None = None
) -> Mapping[str, Callable[..., dict[str, tf.Tensor]]]:
    """Functions of a model, by name; any number of cells and days.

    Args:
        model: The model.
        domain: Of its training, where it is known.

    Returns:
        `tf.function`s with one input signature each. Inputs: `forcing` (cells, days,
        3), or each forcing by its name (cells, days), without days for `step`;
        `static` (cells, static inputs); `initial_swe` etc. (cells,), of the
        LSTM (cells, units); `cycles` (). Outputs: variables of the registry by name,
        `final_swe` etc., `drift_swe` etc., and `out_of_domain`.
    """
    asked = _Asked(model, domain)
    days, static = asked.days, asked.static
    cycles = {"cycles": tf.TensorSpec((), "int32", "cycles")}
    found = {}
    for name, run, forcing, others in (
        (DEFAULT, asked.spun_up, days, static),
        ("simulate", asked.simulate, days, static | asked.state),
        ("spin_up", asked.spin_up, days, static | cycles),
        ("step", asked.step, asked.day, static | asked.state),
        (XLA, asked.simulate, days, static | asked.state),
    ):
        one = _named(run, forcing | others, jit_compile=name == XLA)
        each = {
            variable: tf.TensorSpec(spec.shape[:-1], spec.dtype, variable)
            for spec in forcing.values()
            for variable in FORCING
        }
        found[name] = one
        found[name + SERIES] = _named(_of_series(one), each | others)
    return found


class _Asked:
    """The model behind the signatures."""

    def __init__(self, model: H2MV, domain: Domain | None):
        dtype, units = model.compute_dtype, model.lstm_units
        self.model = model
        self.ranges = Ranges.of(domain, model.static_size, dtype)

        def specs(**shapes):
            return {n: tf.TensorSpec(s, dtype, n) for n, s in shapes.items()}

        self.days = specs(forcing=(None, None, len(FORCING)))
        self.day = specs(forcing=(None, len(FORCING)))
        self.static = specs(static=(None, model.static_size))
        self.state = specs(
            **{
                INITIAL + name: (None, units)
                if VARIABLES[name].kind == "memory"
                else (None,)
                for name in PROGNOSTIC
            }
        )

    def spun_up(self, forcing, static):
        weather, static_, _ = admitted(self.model, forcing, static)
        state = self.model.spin_up(weather, static_)
        outputs, _ = self.model.simulate(weather, static_, state)
        return outputs | self._about(forcing, static)

    def simulate(self, forcing, static, **states):
        inputs = admitted(self.model, forcing, static, _joined(states))
        outputs, state = self.model.simulate(*inputs)
        return outputs | _parted(state) | self._about(forcing, static)

    def step(self, forcing, static, **states):
        inputs = admitted(self.model, forcing, static, _joined(states))
        outputs, state = self.model.step(*inputs)
        return outputs | _parted(state) | self._about(forcing, static)

    def spin_up(self, forcing, static, cycles):
        weather, static_, _ = admitted(self.model, forcing, static)
        empty = self.model.empty_state(tf.shape(forcing)[0])
        _, before, state = tf.while_loop(
            lambda n, *_: n < cycles,
            lambda n, _, state: (
                n + 1,
                state,
                self.model.spin_up(weather, static_, state),
            ),
            (0, empty, empty),
        )
        drift = {
            DRIFT + name: (getattr(state, name) - getattr(before, name))[:, 0]
            for name in STATES
        }
        return _parted(state) | drift | self._about(forcing, static)

    def _about(self, forcing, static):
        return {DOMAIN[0]: out_of_domain(forcing, static, self.ranges)}


def _named(run: Callable, specs: Mapping[str, tf.TensorSpec], *, jit_compile=False):
    """A function of named tensors with just this signature."""
    function = tf.function(run, autograph=False, jit_compile=jit_compile or None)
    return function.get_concrete_function(**specs)


def _of_series(run: Callable) -> Callable:
    """A function of three series, as one of an array has it."""

    def of_series(**inputs):
        series = [inputs.pop(name) for name in FORCING]
        return run(forcing=tf.stack(series, axis=-1), **inputs)

    return of_series


def _joined(states: Mapping[str, tf.Tensor]) -> State:
    """States as the model takes them, each (cells, 1) or (cells, units)."""
    values = (states[INITIAL + name] for name in PROGNOSTIC)
    return State(*(x[:, None] if x.shape.rank == 1 else x for x in values))


def _parted(state: State) -> dict[str, tf.Tensor]:
    """States as the signatures return them."""
    return {
        FINAL + name: values if VARIABLES[name].kind == "memory" else values[:, 0]
        for name, values in zip(PROGNOSTIC, state, strict=True)
    }
