"""A sweep: workers that ask an oracle for trials, and train them.

    folder = SweepFolder(Path("runs/sweep"))
    search(folder, begin(folder, wanted), workers=2)

On one machine the workers are threads around one oracle, each of which waits for the
process of its trial. On several, KerasTuner's environment variables make one process
the chief, which serves the oracle, and the others workers.
"""

import contextlib
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import keras_tuner
import psutil
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial
from keras_tuner.src import config as keras_tuner_config
from keras_tuner.src.engine import conditions

from h2mv_tf import console, distribution, inputs
from h2mv_tf.config import changed
from h2mv_tf.data.survey import Survey
from h2mv_tf.errors import UserError
from h2mv_tf.tuning import oracles, process
from h2mv_tf.tuning.folder import Result, Settings, SweepFolder, TrialFolder
from h2mv_tf.tuning.journal import FROM, Journal
from h2mv_tf.tuning.objective import Objective

logger = logging.getLogger(__name__)

IP, PORT, NAME = (
    f"KERASTUNER_{name}" for name in ("ORACLE_IP", "ORACLE_PORT", "TUNER_ID")
)
CHIEF = "chief"
GPUS = "CUDA_VISIBLE_DEVICES"
# A trial trains alone, whoever started the workers of its search.
ALONE = {"TF_CONFIG": "", "SLURM_STEP_NUM_TASKS": "1"}
POLL = 0.2  # seconds, between questions to an oracle that has to wait
PATIENCE = 3600.0  # seconds that a worker waits for its chief, as KerasTuner's do
MOMENT = 5.0  # seconds in which a worker ends the process of its trial
LINGER = 30.0  # seconds that a chief waits for workers to hear that there is no more
OF_THE_DATA = {"data", "window", "split", "objective"}  # sections
POINTS = 16  # of a space that are tried before it is said that none can be trained
LOST = 5  # trials that may fail before one has not

Watch = Callable[[oracles.Remembering], None]

# KerasTuner prints the traceback of each failure, and the values of each condition
# that it sends.
keras_tuner_config.DEBUG = False
conditions.print = lambda *_: None


class Worker(BaseTuner):
    """Asks an oracle for trials, and trains each in a process of its own.

    Args:
        oracle: Of the sweep.
        folder: Of the sweep.
        settings: Of the sweep.
        name: Of the worker; the same after it was started again.
        share: Numbers of the GPUs or cores that are its own; none where it only serves.
        tells: Whether it says what it trains.
    """

    def __init__(
        self,
        oracle: oracles.Remembering,
        folder: SweepFolder,
        settings: Settings,
        name: str,
        share: Sequence[int] = (),
        *,
        tells: bool = False,
    ):
        path = folder.path.resolve()
        super().__init__(oracle=oracle, directory=path.parent, project_name=path.name)
        self.tuner_id = name
        self.folder, self.settings = folder, settings
        self.share, self.tells = share, tells
        self._stopped = threading.Event()

    def save(self) -> None:
        """Nothing: there is the journal."""

    def stop(self) -> None:
        """Ends the search of this worker, and the process of its trial."""
        self._stopped.set()

    def _wait(self) -> None:
        """Waits for a moment, unless it is to stop.

        Raises:
            KeyboardInterrupt: It is to stop.
        """
        if self._stopped.wait(POLL):
            raise KeyboardInterrupt

    def pre_create_trial(self) -> None:
        """Waits: an oracle that has to wait would be asked again at once."""
        self._wait()

    def on_trial_begin(self, trial: Trial) -> None:
        """Says what it trains."""
        if self.tells:
            logger.info("%s trains trial %d.", self.tuner_id, int(trial.trial_id))

    def run_trial(self, trial: Trial) -> float:
        """Trains a trial, or reads what it came to.

        Raises:
            FailedTrialError: It has failed.
            KeyboardInterrupt: It was interrupted.
        """
        folder = self.folder.trial(trial.trial_id)
        try:
            result = folder.load_result()
            if result is None:
                result = self._train(folder, trial.hyperparameters.values)
        except Exception as error:  # of the search, not of the trial
            words = " ".join(f"{type(error).__name__}: {error}".split())
            raise keras_tuner.errors.FatalRuntimeError(
                f"The search cannot go on in '{folder.path}': {words}"
            ) from error
        if result.failed:
            raise keras_tuner.errors.FailedTrialError(result.reason)
        return result.score

    def _train(self, folder: TrialFolder, drawn: Mapping[str, Any]) -> Result:
        folder.path.mkdir(parents=True, exist_ok=True)
        begin, folds, reason = time.perf_counter(), {}, None
        for fold in self.settings.folds:
            if folder.load_fold(fold) is None:  # as before an interruption
                try:
                    self._prepare(folder, fold, drawn)
                except UserError as error:
                    reason = str(error)
                else:
                    reason = self._train_fold(folder, fold, drawn.get(FROM))
            if reason is not None:
                break
            folds[fold] = folder.load_fold(fold)
        # Another worker may have had it, after their chief was started again.
        result = folder.load_result()
        seconds = time.perf_counter() - begin
        return result or folder.save_result(folds, reason, seconds)

    def _prepare(self, folder: TrialFolder, fold: int, drawn: Mapping) -> None:
        """Writes the configuration of a fold, with the devices that it has."""
        settings = self.settings.trained(drawn, fold)
        devices = distribution.used(
            settings.distribution.devices,
            distribution.worth(self.share),
            settings.training.batch_size,
        )
        settings = changed(settings, {"distribution.devices": devices})
        folder.config_file(fold).write_text(settings.to_yaml(), encoding="utf-8")

    def _train_fold(
        self, folder: TrialFolder, fold: int, before: str | None
    ) -> str | None:
        """Why the training of a fold has failed; None where it has not."""
        arguments = [str(folder.path), str(fold), self.settings.space.objective]
        if before is not None:
            arguments += ["--begun-by", str(self.folder.trial(before).path)]
        log, gpus = folder.log_file(fold), distribution.has_gpus()
        environment = ALONE | ({GPUS: _gpus(self.share)} if gpus else {})
        with process.started("tuning.trial", arguments, log, environment) as child:
            if not gpus and hasattr(psutil.Process, "cpu_affinity"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(child.pid).cpu_affinity(self.share)
            while (status := child.poll()) is None:
                self._wait()
        if status == process.FULL:
            raise OSError(f"the disk is full; see '{log}'")
        if -status in process.INTERRUPTIONS or status in console.INTERRUPTIONS:
            raise KeyboardInterrupt
        # A crash after its result was written, as it ended, is none of the trial.
        if folder.load_fold(fold) is None:
            return process.reason(status, log)
        return None


def begin(folder: SweepFolder, wanted: Settings) -> Settings:
    """Begins a sweep, or continues the one that is there.

    Args:
        folder: Of the sweep.
        wanted: What is to be searched, and how.

    Returns:
        What is searched, with the trials that are planned.

    Raises:
        UserError: The sweep was begun with other settings, no point of the space can be
            trained, or it is not said how many trials there are.
    """
    if folder.settings_file.is_file():
        folder.refuse_other(wanted)
        planned = _planned(wanted, folder.load_settings())
    else:
        planned = _planned(wanted)
        refuse_untrainable(wanted)
    folder.save_settings(planned)
    return planned


def _planned(wanted: Settings, begun: Settings | None = None) -> Settings:
    """Settings with the trials of a search, which may go on from one that was begun."""
    asked, plan = wanted.max_trials, {"max_trials": wanted.max_trials}
    if wanted.algorithm == "hyperband":
        known = begun.brackets if begun else ()
        there = begun.trials if begun else 0
        if begun and (asked is None or asked <= there):
            return begun  # brackets are not broken off
        more = oracles.brackets(
            asked and asked - there,
            wanted.configuration.training.epochs,
            wanted.space.factor,
            most=len(known[0]) if known else None,
        )
        plan["brackets"] = (*known, *(tuple(map(tuple, rounds)) for rounds in more))
    elif wanted.algorithm == "grid":
        points = wanted.space.points()
        plan["max_trials"] = min(asked or points, points)
    elif asked is None:
        if begun:
            return begun
        raise UserError(
            f"A {wanted.algorithm} search has no end of its own: say how many trials, "
            "as --max-trials 20."
        )
    return (begun or wanted).model_copy(update=plan)


def search(
    folder: SweepFolder,
    settings: Settings,
    *,
    workers: int = 1,
    watch: Watch = lambda oracle: None,
) -> oracles.Remembering:
    """Runs the trials that are left of a sweep, here or as the chief of others.

    Args:
        folder: Of the sweep.
        settings: Of the sweep.
        workers: Trials at a time, where this process is no chief.
        watch: Called with the oracle, several times a second.

    Returns:
        The oracle, which knows all trials.

    Raises:
        UserError: What the journal holds is of another version, a folder cannot be
            written, or no trial can be trained.
    """
    oracle, served = _oracle(folder, settings), is_chief()
    oracle.replay(elsewhere=served)
    if served:
        if workers > 1:
            raise UserError(
                "A chief trains nothing itself: start a worker for each of --workers."
            )
        _serve(Worker(oracle, folder, settings, CHIEF), watch)
        return oracle
    shares = distribution.shares(workers)
    tuners = [
        Worker(oracle, folder, settings, f"tuner{n}", share)
        for n, share in enumerate(shares)
    ]
    _run(tuners, lambda: _watched(oracle, watch))
    return oracle


def work(folder: SweepFolder, wanted: Settings) -> None:
    """Trains what a chief elsewhere hands out, until there is no more.

    Args:
        folder: Of the sweep, which the chief can see as well.
        wanted: As of the chief.

    Raises:
        UserError: The chief is gone, or searches something else.
    """
    begin = time.monotonic()
    while not folder.settings_file.is_file():
        time.sleep(POLL)
        if time.monotonic() - begin > PATIENCE:
            raise UserError(
                f"There is no sweep in '{folder.path}'. Start the chief, with the same "
                "--run-dir on a disk that both can see."
            )
    folder.refuse_other(wanted)
    settings, share = folder.load_settings(), distribution.shares(1)[0]
    oracle = _oracle(folder, settings)
    _run([Worker(oracle, folder, settings, os.environ[NAME], share, tells=True)])


def is_chief() -> bool:
    """Whether this process serves the oracle to workers elsewhere."""
    return _has_chief() and CHIEF in os.environ[NAME]


def is_worker() -> bool:
    """Whether this process works for a chief elsewhere."""
    return _has_chief() and CHIEF not in os.environ[NAME]


def _has_chief() -> bool:
    for name in (IP, PORT, NAME):
        if os.environ.get(name) == "":  # KerasTuner would take it as set
            del os.environ[name]
    there = [name for name in (IP, PORT, NAME) if name in os.environ]
    if there and there != [NAME] and len(there) < 3:
        lacking = next(n for n in (IP, PORT, NAME) if n not in there)
        raise UserError(
            f"{there[0]} is set, but {lacking} is not. docs/tuning.md shows what a "
            "chief and its workers need."
        )
    return len(there) == 3


def refuse_untrainable(settings: Settings) -> None:
    """Raises a UserError where no point of the search space can be trained on the data.

    Args:
        settings: Of the sweep.
    """
    space = settings.space.hyperparameters()
    tried: set[str] = set()
    mistakes: list[UserError] = []
    for point in range(POINTS):
        try:
            trained = settings.trained(_drawn(space, point), settings.folds[0])
            needed = trained.model_dump_json(include=OF_THE_DATA)
            if needed in tried:
                continue
            tried.add(needed)
            # Nothing of it is kept.
            found = inputs.prepare(changed(trained, {"data.cache": "none"})).survey
            _refuse_unscored(settings.space.judged_by, found)
        except UserError as error:
            mistakes.append(error)
        else:
            return
    if len({str(mistake) for mistake in mistakes}) == 1:  # nothing of the points
        raise mistakes[0]
    raise UserError(
        f"No point of the search space can be trained, of {len(mistakes)} that were "
        "tried. "
        f"The first one: {mistakes[0]}"
    )


def _refuse_unscored(objective: Objective, found: Survey) -> None:
    """Raises a UserError where an objective looks at what the store does not have."""
    if objective.of_the_loss:
        return
    for name in objective.of(found.constraints):
        if name not in found.constraints:
            raise UserError(
                f"The objective {objective} looks at {name}, which is not trained on. "
                f"Found: {', '.join(found.constraints)}."
            )
        if objective.scale == "daily" and not found.record.daily[name]:
            raise UserError(
                f"The objective {objective} looks at days of {name}, which is observed "
                "monthly. Choose another scale or variable."
            )


def _drawn(space: keras_tuner.HyperParameters, seed: int) -> dict[str, Any]:
    """A point of a space."""
    found = keras_tuner.HyperParameters()
    for number, field in enumerate(space.space):
        found.merge([field])
        if found.is_active(field):
            found.values[field.name] = field.random_sample(seed * 1000 + number)
    return found.values


def _oracle(folder: SweepFolder, settings: Settings) -> oracles.Remembering:
    return oracles.make(
        settings.algorithm,
        settings.space.hyperparameters(),
        maximised=settings.space.judged_by.maximised,
        seed=settings.seed,
        plan=[[oracles.Round(*r) for r in rounds] for rounds in settings.brackets],
        limit=None if settings.brackets else settings.max_trials,
        journal=Journal(folder.journal_file),
        result=lambda trial_id: folder.trial(trial_id).load_result(),
    )


def _gpus(share: Sequence[int]) -> str:
    """A share as CUDA numbers GPUs, of which this process may see a part."""
    seen = os.environ.get(GPUS, "").split(",")
    return ",".join(seen[n] if n < len(seen) and seen[n] else f"{n}" for n in share)


def _run(workers: Sequence[Worker], watch: Callable[[], None] = lambda: None) -> None:
    """Runs workers, each in a thread, until all have done or one cannot go on."""
    failures: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def work(worker: Worker) -> None:
        try:
            worker.search()
        except BaseException as error:  # raised where the user is told
            failures.put(error)

    threads = [
        threading.Thread(target=work, args=(worker,), daemon=True, name=worker.tuner_id)
        for worker in workers
    ]
    for thread in threads:
        thread.start()
    try:
        while failures.empty() and any(thread.is_alive() for thread in threads):
            time.sleep(POLL)
            watch()
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:  # one that waits for its chief ends with this process
            thread.join(MOMENT)
    if not failures.empty():
        raise _told(failures.get())
    watch()


def _serve(chief: Worker, watch: Watch) -> None:
    """Serves an oracle until its workers have heard that there is no more."""
    oracle = chief.oracle
    _refuse_taken_port()
    threading.Thread(target=chief.search, daemon=True, name=CHIEF).start()
    try:
        while not oracle.finished or oracle.ongoing_trials:
            time.sleep(POLL)
            _watched(oracle, watch)
    finally:
        oracle.closed = oracle.finished or sys.exc_info()[0] is UserError
        told = time.monotonic()
        while oracle.closed and oracle.tuner_ids and time.monotonic() - told < LINGER:
            time.sleep(POLL)


def _refuse_taken_port() -> None:
    """Raises a UserError where the chief cannot serve: gRPC would share a port."""
    try:
        with socket.socket() as tried:
            # Not in the way are connections of a chief that was killed.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((os.environ[IP], int(os.environ[PORT])))
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"The chief cannot serve on {os.environ[IP]}:{os.environ[PORT]}: {error}. "
            f"Expected an address of this machine and a free port in {IP} and {PORT}."
        ) from error


def _watched(oracle: oracles.Remembering, watch: Watch) -> None:
    """Watches a search, and ends it where nothing but failures come."""
    watch(oracle)
    if oracle.failure is not None:
        words = oracle.failure.strerror or oracle.failure
        raise UserError(f"The journal of the search cannot be written: {words}.")
    ended = [oracle.trials[trial_id] for trial_id in tuple(oracle.end_order)]
    if len(ended) >= LOST and all(trial.message for trial in ended):
        raise UserError(
            f"All of {len(ended)} trials have failed, the last one as: "
            f"{ended[-1].message} Mend it, and search with another --run-dir."
        )


def _told(error: BaseException) -> BaseException:
    """An error of a worker, in words where the user can mend it."""
    if isinstance(error, grpc.RpcError):
        return UserError(
            f"The chief of this search at {os.environ[IP]}:{os.environ[PORT]} does "
            "not answer. Start it again, and then this worker: nothing is lost."
        )
    if isinstance(error, keras_tuner.errors.FatalError):
        return UserError(str(error))
    return error
