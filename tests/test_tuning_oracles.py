"""What is tried next: the same after an interruption, whoever is faster."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2mv_tf.errors import UserError
from h2mv_tf.tuning import oracles
from h2mv_tf.tuning.folder import Result
from h2mv_tf.tuning.journal import EPOCHS, FROM, Event, Journal
from h2mv_tf.tuning.oracles import Round, brackets, size
from h2mv_tf.tuning.space import Space

ALGORITHMS = ("hyperband", "bayesian", "random", "grid")
SPACE = Space.model_validate(
    {
        "fields": {
            "training.learning_rate": {
                "type": "float",
                "min": 0.001,
                "max": 0.1,
                "sampling": "log",
                "step": 10,
            },
            "model.code_size": {"type": "int", "min": 2, "max": 5},
            "window.length": {"type": "choice", "values": ["full", 90]},
            "window.spin_up": {
                "type": "int",
                "min": 10,
                "max": 12,
                "when": {"window.length": 90},
            },
        }
    }
)


def score(values):
    """Made up: a smooth one, so that a Gaussian process has something to learn."""
    rate = math.log10(values["training.learning_rate"])
    return (rate + 2) ** 2 + values["model.code_size"] / 10


@pytest.fixture
def asked(tmp_path):
    """An oracle with a journal; trials in `failing` fail."""

    def make(
        algorithm, *, limit=7, failing=(), name="journal", seed=4, elsewhere=False
    ):
        oracle = None

        def result(trial_id):
            if int(trial_id) in failing:
                return Result(None, "made to fail", {}, 1.0, "")
            return Result(score(oracle.trials[trial_id].hyperparameters.values), *REST)

        oracle = oracles.make(
            algorithm,
            SPACE.hyperparameters(),
            maximised=False,
            seed=seed,
            plan=brackets(limit, epochs=9, factor=3),
            journal=Journal(tmp_path / name),
            result=result,
            limit=None if algorithm == "hyperband" else limit,
        )
        oracle.replay(elsewhere=elsewhere)
        return oracle

    return make


REST = (None, {}, 1.0, "")


def run(oracle, most=math.inf, worker="tuner0"):
    """Runs trials one after the other; those that were run."""
    done = 0
    while done < most:
        trial = oracle.create_trial(worker)
        if trial.status != "RUNNING":
            break
        oracle.end_trial(trial)
        done += 1
    return drawn(oracle)


def drawn(oracle):
    return {n: dict(t.hyperparameters.values) for n, t in oracle.trials.items()}


def test_brackets_are_those_of_the_algorithm():
    # Worked by hand from Li et al. (2018), algorithm 1, with R = 81 and eta = 3.
    first = [rounds[0] for rounds in brackets(None, 81, 3)]
    assert first == [(81, 1), (34, 3), (15, 9), (8, 27), (5, 81)]
    assert brackets(None, 81, 3)[1] == [(34, 3), (11, 9), (3, 27), (1, 81)]


def test_few_trials_make_fewer_rounds_of_more_epochs():
    assert brackets(13, 15, 3) == [[Round(9, 2), Round(3, 5), Round(1, 15)]]
    assert brackets(4, 15, 3) == [[Round(3, 5), Round(1, 15)]]
    assert brackets(3, 15, 3) == 3 * [[Round(1, 15)]]


@given(trials=st.integers(1, 200), epochs=st.integers(1, 500), factor=st.integers(2, 5))
def test_brackets_come_to_the_trials_asked_for_and_train_somebody_to_the_end(
    trials, epochs, factor
):
    plan = brackets(trials, epochs, factor)
    assert size(plan) == trials
    for rounds in plan:
        assert rounds[-1].epochs == epochs
        assert all(0 < r.epochs <= epochs and r.trials > 0 for r in rounds)
        assert sorted(r.epochs for r in rounds) == [r.epochs for r in rounds]


def test_the_best_of_a_round_go_on_from_their_own_weights(asked):
    oracle = asked("hyperband", limit=13)
    found = run(oracle)
    first = {n: v for n, v in found.items() if v[EPOCHS] == 1}
    best = sorted(first, key=lambda n: (oracle.trials[n].score, n))[:3]
    second = {n: v for n, v in found.items() if v[EPOCHS] == 3}
    assert [v[FROM] for v in second.values()] == best
    for values in second.values():
        assert SPACE.values(values) == SPACE.values(found[values[FROM]])


def test_a_round_waits_for_all_before_it_promotes(asked):
    oracle = asked("hyperband", limit=13)
    held = oracle.create_trial("slow")
    found = run(oracle)
    assert len(found) == 9  # of the first round; nothing goes on without the slow one
    assert oracle.create_trial("fast").status == "IDLE"
    oracle.end_trial(held)
    assert len(run(oracle)) == 13


def test_failed_trials_do_not_go_on_and_leave_a_winner(asked):
    oracle = asked("hyperband", limit=13, failing=range(7))
    found = run(oracle)
    promoted = [int(values[FROM]) for values in found.values() if FROM in values]
    assert set(promoted).isdisjoint(range(7))
    assert any(values[EPOCHS] == 9 for values in found.values())


@pytest.mark.parametrize("algorithm", ["hyperband", "random", "grid"])
def test_trials_do_not_depend_on_who_is_faster(asked, algorithm):
    alone = run(asked(algorithm, limit=20, name="alone"))
    oracle = asked(algorithm, limit=20, name="together")
    held = [oracle.create_trial(f"slow{n}") for n in range(2)]
    run(oracle, most=9, worker="fast")
    for trial in held:
        oracle.end_trial(trial)
    together = run(oracle)

    def points(found):
        """The fields and epochs, and of promoted ones those of where they began."""
        return sorted(
            str((SPACE.values(v), v.get(EPOCHS), v.get("tuner/round")))
            for v in found.values()
        )

    assert points(together) == points(alone)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("after", [0, 5])
def test_an_interrupted_search_goes_on_as_if_it_were_not(asked, algorithm, after):
    whole = run(asked(algorithm, name="whole", failing=[1]))
    first = asked(algorithm, failing=[1])
    run(first, most=after)
    in_flight = first.create_trial("tuner0")
    again = asked(algorithm, failing=[1])
    next_one = again.create_trial("another")
    assert next_one.trial_id == in_flight.trial_id
    assert next_one.hyperparameters.values == in_flight.hyperparameters.values
    again.end_trial(next_one)
    assert run(again) == whole


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_seed_gives_the_same_trials_and_another_others(asked, algorithm):
    first, same, other = (
        run(asked(algorithm, name=name, seed=seed))
        for name, seed in {"first": 7, "same": 7, "other": 8}.items()
    )
    assert first == same
    assert (first == other) == (algorithm == "grid")


def test_a_seed_of_zero_is_a_seed(asked):
    assert run(asked("random", name="a", seed=0)) == run(
        asked("random", name="b", seed=0)
    )


def test_a_grid_tries_every_point_once(asked):
    found = run(asked("grid", limit=100))
    points = {str(sorted(values.items())) for values in found.values()}
    assert len(points) == len(found) == SPACE.points() == 3 * 4 * (1 + 3)


def test_a_gaussian_process_finds_what_is_good(asked):
    # Four at random, one for each field, and six that have learned from them.
    found = run(asked("bayesian", limit=10))
    scores = [score(values) for values in found.values()]
    assert min(scores[4:]) == pytest.approx(0.2)  # the best point of the space


def test_no_point_is_tried_twice_at_random_or_by_a_gaussian_process(asked):
    for algorithm in ("random", "bayesian"):
        found = run(asked(algorithm, limit=9, name=algorithm)).values()
        assert len({str(values) for values in found}) == 9


def test_a_trial_that_has_ended_does_not_end_again(asked):
    oracle = asked("random")
    trial = oracle.create_trial("tuner0")
    oracle.end_trial(trial)
    oracle.end_trial(trial)
    assert oracle.end_order == [trial.trial_id]
    assert len([e for e in oracle._journal if e.kind == "ended"]) == 1


def test_a_grid_needs_no_trial_to_end_before_the_next_begins(asked):
    oracle = asked("grid", limit=9)
    trials = [oracle.create_trial(f"tuner{n}") for n in range(4)]
    assert [trial.status for trial in trials] == 4 * ["RUNNING"]
    assert len({str(trial.hyperparameters.values) for trial in trials}) == 4


def test_workers_go_on_with_their_own_when_their_chief_was_started_again(asked):
    before = asked("random", limit=6)
    own = {name: before.create_trial(name).trial_id for name in ("a", "b", "lost")}
    chief = asked("random", limit=6, elsewhere=True)
    # One ended its trial meanwhile, and says so before it asks for the next.
    chief.end_trial(before.trials[own["a"]])
    assert chief.create_trial("b").trial_id == own["b"]
    assert chief.create_trial("a").trial_id not in own.values()
    assert len(run(chief, worker="a")) == 6
    # What nobody came back for is done in the end.
    assert own["lost"] in chief.end_order


def test_a_trial_that_two_workers_had_ends_once_and_leaves_both_free(asked):
    asked("random", limit=2).create_trial("slow")
    chief = asked("random", limit=2, elsewhere=True)
    found = run(chief, worker="fast")
    assert len(found) == 2  # the slow one's too, as there was nothing else
    chief.end_trial(chief.trials["0000"])
    assert chief.end_order == ["0001", "0000"]
    assert chief.create_trial("slow").status == "STOPPED"
    assert chief.ongoing_trials == {}


def test_a_line_that_a_kill_has_cut_is_dropped(asked, tmp_path):
    whole = run(asked("random", name="whole"))
    run(asked("random"), most=3)
    journal = tmp_path / "journal"
    journal.write_bytes(journal.read_bytes()[:-9])
    oracle = asked("random")
    assert len(oracle.end_order) == 2
    assert run(oracle) == whole


def test_a_journal_of_another_version_is_refused(asked, tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.note(Event("drawn", "0000", {"training.learning_rate": 3.0}, 1))
    with pytest.raises(UserError, match="another version"):
        asked("random")


def test_more_trials_go_on_from_those_that_were_there(asked):
    few = run(asked("random", limit=3))
    more = run(asked("random", limit=6))
    assert len(more) == 6
    assert few.items() <= more.items()
