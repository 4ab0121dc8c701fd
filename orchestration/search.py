"""How a search chooses its trials: rounds of proposals, a function of the search and of the results so far.

A round is proposed when the round before it is complete, whatever finished first in it, and results are told in the
order of the trials. So the same search and the same results lead to the same proposals, on any number of machines, and
a search that was killed proposes again what it had proposed: what is trained already is then recognised by its
fingerprint.

Drawing is left to Optuna: independent draws, or its tree-structured Parzen estimator (TPE). Its sampler is made anew
with the search's seed and taken through all rounds so far, which takes milliseconds, so nothing of it has to be kept.

- "random": one round of all trials.
- "tpe": a first round of `startup` random trials, then rounds of `at_once`, which TPE draws knowing all earlier rounds;
  within a round it takes the others as bad ("constant liar"), so that they lie apart. Smaller rounds use more of what
  is known, larger ones more machines.
- "halving": successive halving by rounds. The first round trains all trials, drawn at random, for a small share of the
  epochs, each later one the best `1 / keep` of them for `keep` times as long, the last one for all epochs. A round
  trains anew: a run of a ninth of the epochs has a schedule of its own that ends there, which a longer run could not
  continue, and the runs of a round are compared at the end of their schedules. So r rounds of equal cost take as long
  as r / (r - (r - 1) / keep) times those that would continue.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posegrid.datasets.options import unknown
from posegrid.orchestration.search_space import Parameter, Space

if TYPE_CHECKING:
    # Optuna takes a second to import, and commands that do not search need none of it
    import optuna

METHODS = ("random", "tpe", "halving")


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """What is searched and how. Raises ValueError for numbers that make no search."""

    space: Space
    method: str
    trials: int
    """Trials of the first round of "halving", of all rounds otherwise."""
    seed: int = 0
    """Seed of what is drawn."""
    startup: int = 8
    """tpe: random trials of the first round."""
    at_once: int = 4
    """tpe: trials of each later round."""
    rounds: int = 3
    """halving: number of rounds."""
    keep: int = 3
    """halving: one of so many trials is kept, and trained so many times longer."""
    first: dict[str, Any] = field(default_factory=dict)
    """Values of the first trial, in place of drawn ones; empty: drawn too."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown("method", self.method, "key method", list(METHODS))
        for name, least in (("trials", 1), ("startup", 1), ("at_once", 1), ("rounds", 1), ("keep", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed are {least} and more. Raise it.")

    def share(self, number: int) -> float:
        """Share of the epochs that a round trains for, in (0, 1]."""
        return float(self.keep) ** (number + 1 - self.rounds) if self.method == "halving" else 1.0


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Values to try."""

    trial: int
    """Number of the trial; a trial that survives a round keeps it."""
    round: int
    """Number of the round, from 0."""
    values: dict[str, Any]
    """Key of the recipe -> value."""
    share: float = 1.0
    """Share of the recipe's epochs to train for."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a proposal came to."""

    proposal: Proposal
    objective: float | None
    """What is minimised; None if the trial diverged."""
    runs: tuple[str, ...] = ()
    """Run ids: one for each training pattern and seed."""


def next_round(strategy: Strategy, outcomes: Sequence[Outcome]) -> list[Proposal]:
    """The proposals of the first round that has no outcomes yet; none if the search is complete.

    outcomes: of all earlier rounds, each round whole, in the order of its proposals.
    """
    rounds = _halving(strategy, outcomes) if strategy.method == "halving" else _drawn(strategy, outcomes)
    for proposals in rounds:
        if proposals and not _of_round(outcomes, proposals[0].round):
            return proposals
    return []


def winner(strategy: Strategy, outcomes: Sequence[Outcome]) -> Outcome:
    """The best trial that was trained for all epochs, the earlier of equals. Raises RuntimeError if all diverged."""
    last = strategy.rounds - 1 if strategy.method == "halving" else None
    whole = [outcome for outcome in outcomes if last is None or outcome.proposal.round == last]
    found = _ranked(whole)
    if not found:
        raise RuntimeError(
            f"every trial diverged ({len(outcomes)} of {len(outcomes)}): there is no winner. Lower the range of "
            "training.lr in the search's space, or set training.gradient_clip."
        )
    return found[0]


def importances(strategy: Strategy, outcomes: Sequence[Outcome]) -> dict[str, float]:
    """How much of the objective's variance each key explains (functional ANOVA of Hutter et al., ICML 2014, by Optuna).

    Only trials of the first round count with "halving", since later ones are trained for longer. Empty where fewer than
    four trials finished or a single key is searched.
    """
    finished = [one for one in outcomes if one.objective is not None]
    if strategy.method == "halving":
        finished = [one for one in finished if one.proposal.round == 0]
    if len(finished) < 4 or len(strategy.space) < 2:
        return {}
    import optuna

    study = _study(optuna.samplers.RandomSampler(seed=strategy.seed))
    distributions = {key: _distribution(parameter) for key, parameter in strategy.space.items()}
    for one in finished:
        params = {key: _to_optuna(strategy.space[key], value) for key, value in one.proposal.values.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=one.objective))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=strategy.seed)
    return {
        key: float(value) for key, value in optuna.importance.get_param_importances(study, evaluator=evaluator).items()
    }


def _drawn(strategy: Strategy, outcomes: Sequence[Outcome]) -> Iterator[list[Proposal]]:
    """Rounds of draws, each asked once the one before it has outcomes."""
    import optuna

    sampler: optuna.samplers.BaseSampler
    sizes = [strategy.trials]
    if strategy.method == "tpe":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of the constant liar
            sampler = optuna.samplers.TPESampler(
                seed=strategy.seed, n_startup_trials=strategy.startup, constant_liar=True
            )
        sizes = [min(strategy.startup, strategy.trials)]
        while sum(sizes) < strategy.trials:
            sizes.append(min(strategy.at_once, strategy.trials - sum(sizes)))
    else:
        sampler = optuna.samplers.RandomSampler(seed=strategy.seed)
    study = _study(sampler)
    if strategy.first:
        study.enqueue_trial({key: _to_optuna(strategy.space[key], value) for key, value in strategy.first.items()})
    distributions = {key: _distribution(parameter) for key, parameter in strategy.space.items()}
    for number, size in enumerate(sizes):
        asked = [study.ask(distributions) for _ in range(size)]
        yield [
            Proposal(
                trial=trial.number,
                round=number,
                # as the recipe has them: a value that was rounded on its way would be another run
                values=strategy.first
                if strategy.first and trial.number == 0
                else _values(strategy.space, trial.params),
                share=strategy.share(number),
            )
            for trial in asked
        ]
        for trial, outcome in zip(asked, _of_round(outcomes, number), strict=True):
            if outcome.objective is None:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)  # TPE takes it as worse than any number
            else:
                study.tell(trial, outcome.objective)


def _halving(strategy: Strategy, outcomes: Sequence[Outcome]) -> Iterator[list[Proposal]]:
    proposals = next(_drawn(strategy, []))
    for number in range(strategy.rounds):
        yield proposals
        found = _of_round(outcomes, number)
        kept = _ranked(found)[: max(1, len(found) // strategy.keep)]
        proposals = [
            Proposal(
                trial=outcome.proposal.trial,
                round=number + 1,
                values=outcome.proposal.values,
                share=strategy.share(number + 1),
            )
            for outcome in sorted(kept, key=lambda outcome: outcome.proposal.trial)
        ]


def _of_round(outcomes: Sequence[Outcome], number: int) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.proposal.round == number]


def _ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that did not diverge, best first."""
    finished = [(one.objective, one.proposal.trial, one) for one in outcomes if one.objective is not None]
    return [one for _, _, one in sorted(finished, key=lambda row: row[:2])]


def _study(sampler: "optuna.samplers.BaseSampler") -> "optuna.Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=sampler, direction="minimize")


def _distribution(parameter: Parameter) -> "optuna.distributions.BaseDistribution":
    from optuna import distributions

    if parameter.kind == "values":
        # by position: Optuna takes no lists
        return distributions.CategoricalDistribution(tuple(range(len(parameter.values))))
    low, high = parameter.extremes
    if parameter.kind == "int":
        return distributions.IntDistribution(low, high)
    return distributions.FloatDistribution(low, high, log=parameter.kind == "log")


def _to_optuna(parameter: Parameter, value: Any) -> Any:
    return list(parameter.values).index(value) if parameter.kind == "values" else value


def _values(space: Space, drawn: dict[str, Any]) -> dict[str, Any]:
    """What Optuna drew, as values of the recipe, in the order of the space."""
    values = {}
    for key, parameter in space.items():
        if parameter.kind == "values":
            values[key] = parameter.values[drawn[key]]
        else:
            values[key] = drawn[key] if parameter.kind == "int" else parameter.rounded(drawn[key])
    return values
