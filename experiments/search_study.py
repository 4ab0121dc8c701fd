"""Run a search: round after round of trials, then the winner with other seeds, scored on the test subjects.

A trial is a stage like those of grids: found again by its fingerprint, continued from its checkpoint. What was proposed
follows from what is in the tracking store, so that a repeated command, also after a kill, trains nothing twice.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from statistics import fmean

from posegrid.datasets.store import Store
from posegrid.experiments import studies
from posegrid.experiments.planning import Plan, plan
from posegrid.experiments.progress import Progress, Say
from posegrid.experiments.search_files import ResolvedSearch
from posegrid.orchestration.grid import Study, Work, open_study, remaining_work
from posegrid.orchestration.outages import NoAnswerError
from posegrid.orchestration.search import Outcome, Proposal, next_round, winner
from posegrid.orchestration.tracking import Tracking, Trial

OBJECTIVE = "search/objective"
"""Metric of a trial's run: the lowest value of what the search minimises."""
OPTIMISTIC = "optimistic"
"""Tag of runs that were selected on the test subjects."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """A search on a data set."""

    name: str
    """Of the study."""
    resolved: ResolvedSearch
    store: Store
    runs: Callable[[], Tracking]
    """Where conditioners are looked up that are given as finished runs."""
    gpu: bool

    def trials(self, proposals: list[Proposal]) -> Plan:
        """A round of trials, which are not scored on the test subjects."""
        planned = self._plan(proposals)
        return replace(planned, stages={key: replace(one, patterns=()) for key, one in planned.stages.items()})

    def replicates(self, proposal: Proposal) -> Plan:
        """A proposal with the seeds of the replicates, scored on the test patterns."""
        return self._plan([proposal], self.resolved.search.replicates)

    def _plan(self, proposals: list[Proposal], seeds: tuple[int, ...] = ()) -> Plan:
        grid = self.resolved.grid(proposals, seeds)
        return plan(self.name, grid, self.store, tracking=self.runs, gpu=self.gpu)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search came to."""

    study: Study
    outcomes: list[Outcome]
    """All trials, in the order of their proposals."""
    best: Outcome
    diverged: int
    """Runs of the winner that diverged, and so are not in its scores."""


def run(planned: SearchPlan, where: studies.Where, say: Say) -> Found:
    """Run whatever is left of a search.

    Raises ValueError before anything is written if it cannot run; RuntimeError if trials failed for another reason than
    a loss that is not finite, or if all diverged. What is done is kept.
    """
    strategy = planned.resolved.strategy
    outcomes: list[Outcome] = []
    proposals = next_round(strategy, outcomes)
    round_plan = planned.trials(proposals)
    studies.check_workers(round_plan.stages.values(), where)
    tracking = Tracking.open(where.tracking)
    with studies.only_one(planned.name, where.storage), ExitStack() as stack:
        runner = _Runner(planned=planned, tracking=tracking, where=where, say=say, stack=stack)
        with _status(runner):
            while proposals:
                first, last = proposals[0].trial, proposals[-1].trial
                runner.run(round_plan, f"round {proposals[0].round}, trials {first} to {last}")
                outcomes += runner.outcomes(round_plan, proposals)
                proposals = next_round(strategy, outcomes)
                if proposals:
                    round_plan = planned.trials(proposals)
            best = winner(strategy, outcomes)
            final = planned.replicates(best.proposal)
            runner.run(final, f"the best, trial {best.proposal.trial}, with seeds {_listed(final)}")
            assert runner.study is not None
            finished = runner.replicates(final)
            studies.log_members(runner.study, finished)
    diverged = sum(len(found) - len(finished.members[label]) for label, found in final.members.items())
    return Found(study=runner.study, outcomes=outcomes, best=best, diverged=diverged)


@dataclass(kw_only=True)
class _Runner:
    """Runs plans one after another as one study. Ray is started when there is work for it."""

    planned: SearchPlan
    tracking: Tracking
    where: studies.Where
    say: Say
    stack: ExitStack
    study: Study | None = None
    launch: studies.Launch | None = None

    def run(self, planned: Plan, what: str) -> None:
        """Train and score whatever is left of a plan. Raises RuntimeError if a stage failed but did not diverge."""
        work = remaining_work(planned.stages, self.tracking.trials(), planned.store.content_hash)
        left = [item for item in work if not item.done and not item.diverged]
        self.say(f"study {planned.name}, {what}: {len(work)} stages, {len(work) - len(left)} done, {len(left)} to run")
        if left and self.launch is None:
            self.launch = self.stack.enter_context(studies.launcher(self.where, self.say, planned.store))
        if self.study is None:
            self.study = self._open(planned)
        studies.take_over(self.study, work)
        self._close_diverged(work)
        if not left:
            return
        assert self.launch is not None
        failed = self.launch(self.study, left, Progress(left, self.say))
        trials = self.tracking.trials()
        others = {key: why for key, why in failed.items() if key not in trials or not trials[key].diverged}
        for key in failed.keys() - others.keys():
            self.say(f"{planned.stages[key].name} diverged: {failed[key]}")
        if others:
            reasons = "\n".join(f"  {planned.stages[key].name}: {why}" for key, why in others.items())
            raise RuntimeError(
                f"{len(others)} of {len(left)} stages did not finish:\n{reasons}\n"
                "What is done is kept: repeat the command to run the rest."
            )

    def outcomes(self, planned: Plan, proposals: list[Proposal]) -> list[Outcome]:
        """What the trials of a round came to, in their order; logged in their runs too."""
        trials = self.tracking.trials()
        found = []
        for proposal in proposals:
            label = self.planned.resolved.member(proposal).label
            runs = [trials[key] for key in planned.members[label].values()]
            for one in runs:
                self._mark(one, proposal)
            whole = not any(one.diverged for one in runs)
            found.append(
                Outcome(
                    proposal=proposal,
                    objective=fmean(self._objective(one) for one in runs) if whole else None,
                    runs=tuple(one.run_id for one in runs),
                )
            )
        return found

    def replicates(self, planned: Plan) -> Plan:
        """The winner's runs without those that diverged. Raises RuntimeError if none is left."""
        trials = self.tracking.trials()
        left = {}
        for label, runs in planned.members.items():
            for key in runs.values():
                self._mark(trials[key], None)
            left[label] = {where: key for where, key in runs.items() if not trials[key].diverged}
        if not any(left.values()):
            raise RuntimeError(
                "the best trial diverged with all seeds of `replicates`, so there is nothing to score. Lower the range "
                "of training.lr in the search's space, or set training.gradient_clip."
            )
        return replace(planned, members=left)

    def _objective(self, trial: Trial) -> float:
        """Lowest value of what is minimised, logged once in the run."""
        if OBJECTIVE in trial.metrics:
            return trial.metrics[OBJECTIVE]
        value = self.tracking.lowest(trial.run_id, self.planned.resolved.search.metric)
        self.tracking.log_metrics(trial.run_id, {OBJECTIVE: value})
        return value

    def _mark(self, trial: Trial, proposal: Proposal | None) -> None:
        """Tags by which the study's trials and winner are found in the UI."""
        name = self.planned.name
        if proposal is None:
            tags = {f"posegrid.winner.{name}": "true"}
        else:
            tags = {f"posegrid.trial.{name}": f"{proposal.trial}, round {proposal.round}"}
        if self.planned.resolved.search.select_on == "test":
            tags[OPTIMISTIC] = "epoch and hyperparameters selected on the test subjects"
        if tags.items() - trial.tags.items():
            self.tracking.set_tags(trial.run_id, tags)

    def _open(self, planned: Plan) -> Study:
        search = self.planned.resolved.search
        params = {
            "search": search.title,
            "recipe": search.recipe,
            "data": planned.store.source,
            "minimise": search.unit,
            "space": {key: vars(parameter) for key, parameter in search.parameters.items()},
        }
        study = open_study(planned.name, planned.store, self.tracking, params, search.title)
        self.tracking.set_tags(study.parent, {"posegrid.kind": "search", "selection": search.select_on})
        return study

    def _close_diverged(self, work: list[Work]) -> None:
        """Give runs their status that diverged just before the command was killed."""
        for item in work:
            if item.diverged and item.trial is not None and item.trial.status != "FAILED":
                self.tracking.finish(item.trial.run_id, "FAILED")


@contextmanager
def _status(runner: _Runner) -> Iterator[None]:
    """Terminal status of the parent run."""
    try:
        yield
    except BaseException:
        if runner.study is not None:
            with suppress(NoAnswerError), runner.tracking.at_once():  # whoever ends the command does not wait
                runner.tracking.finish(runner.study.parent, "FAILED")
        raise
    assert runner.study is not None
    runner.tracking.finish(runner.study.parent, "FINISHED")


def _listed(planned: Plan) -> str:
    return ", ".join(str(seed) for seed in planned.grid.seeds)
