"""What the members of a study cost: measured once on a run of each, and kept there."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from posegrid.datasets.options import from_values
from posegrid.datasets.skeletons import Skeleton
from posegrid.experiments.reports.matrices import StudyResults
from posegrid.models.interface import Lifter
from posegrid.orchestration import checkpoint
from posegrid.orchestration.complexity import Complexity, SpeedSettings, measure
from posegrid.orchestration.recipe_tables import DataSettings, EvaluationSettings
from posegrid.orchestration.settings import Settings, fingerprint
from posegrid.orchestration.stage import MODEL_ARTIFACT
from posegrid.orchestration.tracking import Tracking, Trial

TAG = "posegrid.complexity."
QUICK = SpeedSettings(batch=32, warm_up=1, repetitions=5, most_s=5.0)
"""Enough for a table; `posegrid complexity` takes more time."""
MOST_S = 15.0
"""Seconds after which a report measures no further networks."""
MOST_FLOPS = 3e12
"""Operations of one window, roughly, beyond which a report does not measure: on a CPU it would take minutes."""


def log_complexity(tracking: Tracking, run_id: str, label: str, found: Complexity, settings: Settings) -> None:
    """Log what a model costs under a pattern: metrics, and a tag that says how they were measured."""
    values = {"flops per pose": found.flops_per_pose, "poses per s": found.poses_per_s, "parameters": found.parameters}
    tracking.log_metrics(run_id, {f"complexity {label}/{name}": value for name, value in values.items()})
    described = {**asdict(found), "scored": _scored(settings.evaluation, settings.data)}
    tracking.set_tags(run_id, {TAG + label: json.dumps(described)})


def _logged(trial: Trial, label: str, evaluation: EvaluationSettings, data: DataSettings) -> Complexity | None:
    """What was logged for a model that is lifted in the same way, if anything."""
    text = trial.tags.get(TAG + label)
    values = json.loads(text) if text else {}
    if values.pop("scored", "") != _scored(evaluation, data):
        return None
    return from_values(Complexity, values, f"tag {TAG + label} of run {trial.run_id}")


def _scored(evaluation: EvaluationSettings, data: DataSettings) -> str:
    """Identity of what decides the cost of a pose beside the network: how it is scored."""
    return fingerprint([asdict(evaluation), asdict(data)])


def costs_of_members(
    tracking: Tracking, results: StudyResults, say: Callable[[str], None]
) -> dict[tuple[str, str], Complexity]:
    """(member label, test pattern label) -> cost, on the first trained run of each member.

    What is not logged yet is measured here, in a few seconds for each network and MOST_S for all; `posegrid complexity`
    must do it for networks that take longer. Members of one network share what is known of it. Nothing for studies of
    older versions.
    """
    found: dict[tuple[str, str], Complexity] = {}
    shared: dict[str, Complexity] = {}
    until, late = time.monotonic() + MOST_S, 0
    for label, trials in results.trials.items():
        trial = next((trial for trial in trials.values() if trial.trained), None)
        if trial is None or label not in results.scoring:
            continue
        own, early = _Measured(tracking, trial, results.skeleton), time.monotonic() < until
        scoring, where = results.scoring[label], f"study {results.name}, member {label}"
        evaluation = from_values(EvaluationSettings, scoring["evaluation"], where)
        data = from_values(DataSettings, scoring["data"], where)
        for column, pattern in results.tests.items():
            same = fingerprint([column, _scored(evaluation, data), _network(trial)])
            cost = shared.get(same) or _logged(trial, column, evaluation, data)
            if cost is None and early:
                cost = own.measured(column, pattern, evaluation, data)
            elif cost is None:
                late += 1
            if cost is not None:
                found[label, column] = shared[same] = own.known = cost
        if own.note:
            say(f"{label}: {own.note}")
    if late:
        say(f"what a pose costs is not measured for {late} models and patterns yet: repeat posegrid report")
    return found


def _network(trial: Trial) -> list[tuple[str, str]]:
    """What decides the network of a run; runs that do not say it share nothing."""
    said = [
        (name, value) for name, value in sorted(trial.params.items()) if name.startswith(("model.", "conditioner."))
    ]
    return [*said, ("parameters", trial.params.get("parameters", ""))] if said else [("run", trial.run_id)]


def rough_flops(model: Lifter, settings: Settings, joints: int) -> float:
    """About how many operations it takes to lift a window: 2 for each weight and token, in every evaluation."""
    evaluations = 1
    if model.chain is not None:
        steps = settings.evaluation.steps or model.chain.steps or settings.model.get("steps", 1)
        evaluations = settings.evaluation.hypotheses * steps
    weights = sum(weight.numel() for weight in model.parameters())
    return 2.0 * weights * settings.data.frames * joints * evaluations


class _Measured:
    """The network of a run, fetched when something must be measured."""

    def __init__(self, tracking: Tracking, trial: Trial, skeleton: Skeleton) -> None:
        self._tracking = tracking
        self._trial = trial
        self._skeleton = skeleton
        self._fetched: tuple[Lifter, Settings] | None = None
        self.known: Complexity | None = None
        """The same network under another pattern."""
        self.note = ""

    def _model(self) -> tuple[Lifter, Settings]:
        if self._fetched is None:
            with self._tracking.fetched(self._trial.run_id, MODEL_ARTIFACT) as file:
                model, settings, _ = checkpoint.load_model(file)
            self._fetched = model, settings
        return self._fetched

    def measured(
        self, column: str, pattern: dict, evaluation: EvaluationSettings, data: DataSettings
    ) -> Complexity | None:
        """Measure and log; None, and a note, where that would take long or is not possible."""
        model, settings = self._model()
        settings = replace(settings, evaluation=evaluation, data=data)
        if rough_flops(model, settings, len(self._skeleton)) > MOST_FLOPS:
            self.note = f"costs are not measured here, it would take long: posegrid complexity {self._trial.run_id}"
            return None
        try:
            cost = measure(model, settings, self._skeleton, pattern, how=QUICK, known=self.known)
        except ValueError as error:  # it reads more than keypoints: the report is worth having without its costs
            self.note = f"costs are not measured: {error}"
            return None
        log_complexity(self._tracking, self._trial.run_id, column, cost, settings)
        self.note = f"measured what a pose costs ({cost.device}, batches of {cost.batch} windows)"
        return cost
