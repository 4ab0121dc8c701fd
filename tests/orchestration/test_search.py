"""Which trials a search proposes: a function of the search and of the results, whatever the method."""

from collections.abc import Callable
from typing import Any

import pytest

from posegrid.orchestration.search import Outcome, Strategy, importances, next_round, winner
from posegrid.orchestration.search_space import Parameter, override, space_of

SPACE = {
    "training.lr": Parameter(kind="log", low=1e-5, high=1e-1),
    "model.dropout": Parameter(kind="uniform", low=0.0, high=0.5),
    "model.depth": Parameter(kind="int", low=1, high=4),
    "model.strides": Parameter(values=([3, 3], [3, 3, 3])),
}
Values = dict[str, Any]


def bowl(values: Values) -> float | None:
    """An objective with its minimum at lr = 1e-3, dropout = 0.1; it diverges for large rates."""
    from math import log10

    if values["training.lr"] > 3e-2:
        return None
    return (log10(values["training.lr"]) + 3) ** 2 + 10 * (values["model.dropout"] - 0.1) ** 2


def play(
    strategy: Strategy, objective: Callable[[Values], float | None], outcomes: list[Outcome] | None = None
) -> list[Outcome]:
    """Answer all proposals; starts behind the given outcomes."""
    outcomes = list(outcomes or [])
    while proposals := next_round(strategy, outcomes):
        outcomes += [Outcome(proposal=one, objective=objective(one.values)) for one in proposals]
    return outcomes


def strategy(method: str, trials: int = 20, **more: Any) -> Strategy:
    return Strategy(space=SPACE, method=method, trials=trials, **more)


@pytest.mark.parametrize("method", ["random", "tpe", "halving"])
def test_proposals_repeat_lie_in_the_space_and_follow_the_seed(method: str) -> None:
    first, again = (play(strategy(method), bowl) for _ in range(2))
    assert first == again
    drawn = [outcome.proposal for outcome in first if outcome.proposal.round == 0]
    assert all(SPACE[key].contains(value) for one in drawn for key, value in one.values.items())
    assert len({str(one.values) for one in drawn}) == len(drawn)
    assert drawn[0].values != next_round(strategy(method, seed=1), [])[0].values


@pytest.mark.parametrize("method", ["tpe", "halving"])
def test_a_search_that_was_stopped_proposes_what_it_would_have_proposed(method: str) -> None:
    whole = play(strategy(method, rounds=3), bowl)
    rounds = 1 + max(outcome.proposal.round for outcome in whole)
    assert rounds > 2
    for complete in range(rounds):
        known = [outcome for outcome in whole if outcome.proposal.round < complete]
        assert play(strategy(method, rounds=3), bowl, known) == whole


def test_tpe_reads_the_results() -> None:
    many = strategy("tpe", trials=40, startup=8, at_once=4)
    up, down = play(many, bowl), play(many, lambda values: -(bowl(values) or 0.0))
    same = [one.proposal == other.proposal for one, other in zip(up, down, strict=True)]
    assert same[:8] == [True] * 8
    assert not any(same[8:])
    # beside what as many random trials find: the objective is known, its minimum is 0
    drawn = play(strategy("random", trials=40), bowl)
    late = [one.objective for one in up[20:] if one.objective is not None]
    plain = [one.objective for one in drawn[20:] if one.objective is not None]
    assert sum(late) / len(late) < 0.5 * sum(plain) / len(plain)


def test_a_longer_search_begins_with_the_trials_of_the_shorter_one() -> None:
    for method in ("random", "tpe"):
        short, long = play(strategy(method, trials=12), bowl), play(strategy(method, trials=20), bowl)
        assert long[:12] == short


def test_first_trial_has_the_given_values() -> None:
    own = {"training.lr": 2.7014e-4, "model.dropout": 0.27038, "model.depth": 2, "model.strides": [3, 3, 3]}
    for method in ("random", "tpe", "halving"):
        proposals = next_round(strategy(method, first=own), [])
        assert proposals[0].values == own
        assert all(one.values != own for one in proposals[1:])


def test_halving_keeps_the_best_third_and_trains_it_three_times_longer() -> None:
    scores = {0: 5.0, 1: 1.0, 2: None, 3: 2.0, 4: 9.0, 5: 3.0, 6: 1.5, 7: 8.0, 8: 1.0}
    halving = strategy("halving", trials=9, rounds=3, keep=3)
    outcomes: list[Outcome] = []
    seen = []
    while proposals := next_round(halving, outcomes):
        seen.append(([one.trial for one in proposals], proposals[0].share))
        # later rounds turn the order round: what was best before must not win
        sign = -1 if proposals[0].round else 1
        outcomes += [
            Outcome(proposal=one, objective=None if (score := scores[one.trial]) is None else sign * score)
            for one in proposals
        ]
    assert [trials for trials, _ in seen] == [list(range(9)), [1, 6, 8], [6]]
    assert [share for _, share in seen] == pytest.approx([1 / 9, 1 / 3, 1.0])
    best = winner(halving, outcomes)
    assert (best.proposal.trial, best.proposal.round) == (6, 2)
    assert best.proposal.values == next_round(halving, [])[6].values


def test_winner_is_the_lowest_and_the_earlier_of_equals() -> None:
    random = strategy("random", trials=4)
    proposals = next_round(random, [])
    outcomes = [
        Outcome(proposal=one, objective=score) for one, score in zip(proposals, [None, 2.0, 1.0, 1.0], strict=True)
    ]
    assert winner(random, outcomes).proposal.trial == 2
    with pytest.raises(RuntimeError, match=r"every trial diverged \(4 of 4\)"):
        winner(random, [Outcome(proposal=one, objective=None) for one in proposals])


def test_halving_ends_where_all_trials_diverged() -> None:
    halving = strategy("halving", trials=3)
    outcomes = [Outcome(proposal=one, objective=None) for one in next_round(halving, [])]
    assert next_round(halving, outcomes) == []


def test_importance_belongs_to_the_key_that_decides() -> None:
    random = strategy("random", trials=30)
    outcomes = play(random, lambda values: values["model.dropout"])
    found = importances(random, outcomes)
    assert set(found) == set(SPACE)
    assert found["model.dropout"] > 0.8
    assert importances(random, outcomes[:3]) == {}


def test_rounding_keeps_four_digits_and_the_range() -> None:
    rate = Parameter(kind="log", low=1.00004e-4, high=0.1)
    assert rate.rounded(0.0123456) == 0.01235
    assert rate.rounded(1.00005e-4) == rate.low
    assert override("training.lr", 2.5e-05) == "training.lr=2.5e-05"
    assert override("model.last", "draw") == 'model.last="draw"'


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"kind": "logg", "low": 1, "high": 2}, 'did you mean "log"'),
        ({"kind": "log", "low": 0.0, "high": 1.0}, "allowed are numbers above 0"),
        ({"kind": "uniform", "low": 1.0, "high": 1.0}, "low below high"),
        ({"kind": "uniform", "low": 1.0, "high": float("inf")}, "two finite numbers"),
        ({"kind": "uniform", "low": 1.0}, "needs low and high"),
        ({"kind": "int", "low": 1.5, "high": 3.0}, "whole numbers"),
        ({"values": []}, "a list of values is needed"),
        ({"values": [1, 2], "low": 0}, "without low and high"),
        ({"values": [[3, 3], [3, 3]]}, "each value once"),
        ({"lower": 1.0}, 'key "lower"'),
    ],
)
def test_ranges_that_are_none_name_the_key(table: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=r"training\.lr") as raised:
        space_of({"training.lr": table}, "space")
    assert expected in str(raised.value)


def test_keys_without_quotes_are_explained() -> None:
    with pytest.raises(ValueError, match="Write the key in quotes"):
        space_of({"training": {"lr": {"kind": "log", "low": 1e-4, "high": 1e-2}}}, "space")
    with pytest.raises(ValueError, match="nothing to search"):
        space_of({}, "space")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"method": "asha"}, "Known: halving, random, tpe"), ({"trials": 0}, "trials = 0"), ({"keep": 1}, "keep = 1")],
)
def test_strategies_that_are_none(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Strategy(**{"space": SPACE, "method": "tpe", "trials": 4} | changes)
