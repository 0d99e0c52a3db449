"""The oracles: KerasTuner's, which remember by the journal, and Hyperband.

    oracle = make("random", space, maximised=False, seed=0, plan=(), limit=20, ...)

An oracle says which trial is next. It may be asked by several workers at once.
"""

import itertools
import math
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.oracles import (
    BayesianOptimizationOracle,
    GridSearchOracle,
    RandomSearchOracle,
)
from sklearn.exceptions import ConvergenceWarning

from h2mv_tf.errors import UserError
from h2mv_tf.tuning.folder import Result
from h2mv_tf.tuning.journal import (
    BRACKET,
    DRAWN,
    ENDED,
    EPOCHS,
    FROM,
    ROUND,
    Event,
    Journal,
)

SCORE = "score"
DRAWS = 1000  # seeds of a trial, more than it takes
STRIDE = 1_000_003  # between the seeds of sweeps, so that their draws do not overlap


def make(
    algorithm: str,
    space: keras_tuner.HyperParameters,
    *,
    maximised: bool,
    seed: int,
    plan: Sequence[Sequence["Round"]],
    **options,
) -> "Remembering":
    """The oracle of an algorithm.

    Args:
        algorithm: hyperband, bayesian, random or grid.
        space: Of `Space.hyperparameters`.
        maximised: Whether the larger score is the better one.
        seed: Of the draws.
        plan: Brackets of Hyperband.
        **options: Of `Remembering`.
    """
    options |= {
        "hyperparameters": space,
        "objective": keras_tuner.Objective(SCORE, "max" if maximised else "min"),
        "seed": (seed * STRIDE + 1) % 2**32 or 1,  # KerasTuner takes 0 for any
    }
    if algorithm == "hyperband":
        return Hyperband(brackets=plan, **options)
    if algorithm == "bayesian":
        # Its own default of three for each field leaves a short search all at random.
        return Bayesian(num_initial_points=max(len(space.space), 3), **options)
    return {"random": Random, "grid": Grid}[algorithm](**options)


class Remembering:
    """What all oracles here have in common: a limit, a journal, and exact results.

    Args:
        journal: Where it is noted what was drawn and has ended.
        result: Reads the result of a trial that has ended.
        limit: Trials at most; None where the oracle itself knows when to stop.
        **options: Of KerasTuner's oracle.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        result: Callable[[str], Result | None],
        limit: int | None,
        **options,
    ):
        # KerasTuner's own lock is not released where something goes wrong.
        self._lock = threading.RLock()
        # Neither a limit, on whose digits the names of trials would hang, nor one on
        # failures.
        super().__init__(
            max_trials=None, max_consecutive_failed_trials=sys.maxsize, **options
        )
        self.verbose = 0
        self.limit = limit
        self._journal, self._result = journal, result
        self._replayed: Mapping | None = None  # values of the draw that is replayed
        # Trials that were begun before this process, and by whom.
        self._in_flight: dict[str, str | None] = {}
        self.finished = False  # whether a worker was told that there is no more
        self.closed = False  # whether there is no more, whatever there was
        self.failure: OSError | None = None  # of the journal

    def replay(self, *, elsewhere: bool = False) -> None:
        """Draws and ends again what the journal holds.

        Args:
            elsewhere: Whether workers may still train what they have begun. Each goes
                on with its own; another takes it only where there is nothing else.

        Raises:
            UserError: What is drawn is not what was drawn.
        """
        with self._lock:
            self._journal.mend()
            workers: dict[str, str | None] = {}
            for event in self._journal:
                self._replayed = event.values or {}
                if event.kind == ENDED:
                    self.end_trial(self.trials[event.trial])
                    continue
                workers[event.trial] = event.worker if elsewhere else None
                self._seed_state = event.seed
                # By a name of its own: who worked on it does not matter any more.
                trial = self.create_trial(event.trial)
                drawn = trial.hyperparameters.values
                if (trial.trial_id, drawn) != (event.trial, dict(event.values)):
                    raise UserError(
                        f"'{self._journal.file}' was written by another version of "
                        "KerasTuner or of this package, which draws other trials. "
                        "Finish the sweep with that version, or choose another "
                        "--run-dir."
                    )
            self._replayed = None
            begun = [trial.trial_id for trial in self.ongoing_trials.values()]
            self._in_flight = {trial_id: workers[trial_id] for trial_id in begun}
            self.ongoing_trials, self.tuner_ids = {}, set()

    def create_trial(self, tuner_id: str) -> Trial:
        """The trial of a worker: the one it has, one in flight, or the next."""
        with self._lock:
            own = [i for i, name in self._in_flight.items() if name in (None, tuner_id)]
            if self.closed:
                trial = self._stopped(tuner_id)
            elif tuner_id in self.ongoing_trials:
                trial = self.ongoing_trials[tuner_id]
            elif own:
                trial = self._taken(own[0], tuner_id)
            else:
                trial = self._next(tuner_id)
                if trial.status != TrialStatus.RUNNING and self._in_flight:
                    trial = self._taken(next(iter(self._in_flight)), tuner_id)
            self.finished |= trial.status == TrialStatus.STOPPED
            return trial

    def _taken(self, trial_id: str, tuner_id: str) -> Trial:
        """A trial in flight, for a worker."""
        del self._in_flight[trial_id]
        self._retry_queue = [trial_id]
        return super().create_trial(tuner_id)

    def _next(self, tuner_id: str) -> Trial:
        """What is drawn next, if anything is."""
        seed, known = self._seed_state, len(self.trials)
        over = self.limit is not None and known >= self.limit
        if over and self._replayed is None:
            return self._stopped(tuner_id)
        trial = super().create_trial(tuner_id)
        if len(self.trials) > known and self._replayed is None:
            values = trial.hyperparameters.values
            self._note(Event(DRAWN, trial.trial_id, values, seed, tuner_id))
        return trial

    def _stopped(self, tuner_id: str) -> Trial:
        """What tells a worker that there is no more."""
        self.tuner_ids.discard(tuner_id)
        return Trial(self.get_space(), status=TrialStatus.STOPPED)

    def update_trial(self, trial_id, metrics, step=0) -> Trial:
        """Nothing: results are read where they are exact, as the trial ends."""
        return self.trials[trial_id]

    def end_trial(self, trial: Trial) -> None:
        """Ends a trial, with the result that it has left; only once."""
        with self._lock:
            trial = self.trials[trial.trial_id]
            if trial.trial_id not in self.end_order:
                self._end(trial)
            # Whoever else has it, after its chief was started again.
            self._in_flight.pop(trial.trial_id, None)
            self.ongoing_trials = {
                name: other
                for name, other in self.ongoing_trials.items()
                if other.trial_id != trial.trial_id
            }

    def _end(self, trial: Trial) -> None:
        result = self._result(trial.trial_id)
        if result is None:
            raise UserError(
                f"Trial {int(trial.trial_id)} has ended, says '{self._journal.file}', "
                "but its result is gone. Restore its folder, or choose another "
                "--run-dir."
            )
        trial.status, trial.message = TrialStatus.COMPLETED, result.reason
        if result.failed:
            trial.status = TrialStatus.FAILED
        else:
            super().update_trial(trial.trial_id, {SCORE: result.score})
        super().end_trial(trial)
        if self._replayed is None:
            self._note(Event(ENDED, trial.trial_id))

    def _note(self, event: Event) -> None:
        """Notes an event; where that fails, the search is to end."""
        try:
            self._journal.note(event)
        except OSError as error:
            self.failure = error
            raise

    def save(self, *_) -> None:
        """Nothing: there is the journal."""

    def _save_trial(self, trial) -> None:
        """Nothing: there is the journal."""


class Random(Remembering, RandomSearchOracle):
    """Points drawn at random."""


class Grid(Remembering, GridSearchOracle):
    """All points, one after the other."""

    def _next(self, tuner_id: str) -> Trial:
        """The next point, from which those after it follow before it has ended."""
        known = len(self.trials)
        trial = super()._next(tuner_id)
        if len(self.trials) > known:
            self._populate_next.append(trial.trial_id)
        return trial


class Bayesian(Remembering, BayesianOptimizationOracle):
    """Where a Gaussian process of what was found expects the most."""

    def populate_space(self, trial_id: str) -> dict:
        """The values of the next trial; at random where the best were tried."""
        if self._replayed is not None:  # a process takes seconds for each trial
            return {"status": TrialStatus.RUNNING, "values": dict(self._replayed)}
        # The same after an interruption: the draws of a trial hang on its number.
        self._seed_state = self.seed + DRAWS * int(trial_id)
        self._random_state = np.random.RandomState(self._seed_state % 2**32)
        with warnings.catch_warnings():  # of length scales of fields without effect
            warnings.simplefilter("ignore", ConvergenceWarning)
            response = super().populate_space(trial_id)
        if response["values"] and self._duplicate(response["values"]):
            return self._random_populate_space()
        return response


class Round(NamedTuple):
    """A round of a bracket."""

    trials: int
    epochs: int


class Hyperband(Remembering, keras_tuner.Oracle):
    """Many short trials, of which the best go on. Li et al. (2018), algorithm 1.

    A round is promoted from when all of its trials have ended, and draws are in one
    order, so that the trials do not depend on how many workers there are, or on which
    is faster. KerasTuner's own promotes in the order in which trials end; and a trial
    of its brackets that fails leaves them without a winner.

    Args:
        brackets: Rounds of each bracket.
        **options: Of `Remembering`.
    """

    def __init__(self, *, brackets: Sequence[Sequence[Round]], **options):
        super().__init__(**options)
        self.brackets = brackets

    def populate_space(self, trial_id: str) -> dict:
        """The values of the next trial, or what to wait for."""
        for bracket, rounds in enumerate(self.brackets):
            before: list[Trial] = []
            for number, (size, epochs) in enumerate(rounds):
                drawn = self._trials_of(bracket, number)
                values = None
                if number == 0 and len(drawn) < size:
                    values = self._random_values()
                elif number and len(drawn) < size:
                    if any(t.status == TrialStatus.RUNNING for t in before):
                        break  # this bracket waits, the next need not
                    ranked = self._ranked(before)
                    if len(drawn) < len(ranked):
                        best = ranked[len(drawn)]
                        values = {**best.hyperparameters.values, FROM: best.trial_id}
                if values is not None:
                    tags = {EPOCHS: epochs, ROUND: number, BRACKET: bracket}
                    return {"status": TrialStatus.RUNNING, "values": values | tags}
                before = drawn
        status = TrialStatus.IDLE if self.ongoing_trials else TrialStatus.STOPPED
        return {"status": status}

    def _trials_of(self, bracket: int, number: int) -> list[Trial]:
        tags = {BRACKET: bracket, ROUND: number}
        return [
            trial
            for trial in self.trials.values()
            if tags.items() <= trial.hyperparameters.values.items()
        ]

    def _ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that have not failed, the best first."""
        sign = -1 if self.objective.direction == "max" else 1
        sound = [t for t in trials if t.status == TrialStatus.COMPLETED]
        return sorted(sound, key=lambda trial: (sign * trial.score, trial.trial_id))

    def _compute_values_hash(self, values: Mapping) -> str:
        """Of the fields alone: a promoted trial is no new point."""
        drawn = {k: v for k, v in values.items() if not k.startswith("tuner/")}
        return super()._compute_values_hash(drawn)


def brackets(
    trials: int | None, epochs: int, factor: int, most: int | None = None
) -> list[list[Round]]:
    """The brackets of Hyperband.

    A bracket of s + 1 rounds begins with n = ceil(S / (s + 1) factor^s) trials of
    epochs factor^-s epochs each, where S is the number of rounds of the first bracket;
    of each round the best of each factor go on. Li et al. (2018), algorithm 1.

    Args:
        trials: Of all brackets together: the first has as many rounds as they allow,
            and brackets follow until they are used up. None: each bracket once.
        epochs: That the longest trials are trained.
        factor: By which rounds get longer, and smaller.
        most: Rounds of the first bracket, at most.
    """
    deepest = 0
    while factor ** (deepest + 1) <= epochs and deepest + 1 < (most or epochs):
        deepest += 1

    def rounds(s: int) -> list[Round]:
        first = math.ceil((deepest + 1) / (s + 1) * factor**s)
        return [
            Round(first // factor**i, math.ceil(epochs / factor ** (s - i)))
            for i in range(s + 1)
        ]

    if trials is None:
        return [rounds(s) for s in range(deepest, -1, -1)]
    while deepest and size([rounds(deepest)]) > trials:
        deepest -= 1
    plan: list[list[Round]] = []
    for s in itertools.cycle(range(deepest, -1, -1)):
        left = trials - size(plan)
        if left == 0:
            return plan
        if size([rounds(s)]) <= left:
            plan.append(rounds(s))
        elif s == 0:
            plan.append([Round(left, epochs)])


def size(plan: Sequence[Sequence[Round]]) -> int:
    """Trials of all brackets."""
    return sum(round.trials for rounds in plan for round in rounds)
