"""A study as one Ray Tune experiment: every stage is a trial, every trial a Ray Train run (or, asked for with
`--workers 0`, a training inside the trial's own process).

Tune schedules, limits concurrency and survives failed trials. What it lacks is an order between trials, so the graph
enters through Tune's own interface for that: a searcher that proposes a stage once the one it depends on is done.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import Searcher

from posegrid.datasets.addresses import shown
from posegrid.orchestration.launch.cluster import TRIAL_SLOT
from posegrid.orchestration.launch.ray_train import fit
from posegrid.orchestration.launch.resources import Resources
from posegrid.orchestration.outages import NoAnswerError, full, not_written
from posegrid.orchestration.task import StageTask

if TYPE_CHECKING:
    # a trial's process loads this file too, and needs neither MLflow nor the models
    from posegrid.orchestration.grid import Study, Work

Progress = Callable[[str, dict[str, float]], None]
_ASK_EVERY_S = 5.0
"""Seconds between attempts to reach a tracking store that does not answer."""


def run_ray(
    study: "Study", work: "list[Work]", storage: str, resources: Resources, progress: Progress
) -> dict[str, str]:
    """Run everything that is left of a study; Ray must be connected.

    Returns stage key -> reason for every stage that failed or could not start because its conditioner failed.
    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses the result files that nobody needs here
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a stage that is only scored reports no epoch
    searcher = _ReadyStages(study, work)
    callback = _Follow(study, progress)
    tuner = tune.Tuner(
        tune.with_resources(_trial, {"cpu": resources.cpus} if resources.inside else {TRIAL_SLOT: 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=len(work),
            metric="epoch",
            mode="max",
            trial_dirname_creator=lambda trial: f"{trial.config['task']['key']}-{trial.trial_id}",
            reuse_actors=True,  # a trial's driver keeps no state, and importing torch takes longer than starting it
        ),
        run_config=tune.RunConfig(
            # Tune's own bookkeeping; what is done is known from the tracking store, so it may be lost
            name=f"study-{study.parent[:8]}",
            storage_path=str(Path(storage) / "tune") if "://" not in storage else f"{storage}/tune",
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=resources.max_failures if resources.inside else 0),
            verbose=0,
        ),
        param_space={"storage": storage, "resources": resources.plain()},
    )
    try:
        tuner.fit()
    except Exception as error:
        if full(error):  # Tune's own files; it ends the study for them
            raise not_written("the bookkeeping of this study", shown(storage), error) from error
        raise
    callback.settle()
    return {**callback.failed, **searcher.blocked}


def _trial(config: dict[str, Any]) -> None:
    task, resources = StageTask(**config["task"]), Resources(**config["resources"])
    if not resources.inside:
        fit(task, resources, config["storage"], [TuneReportCallback()])
        return
    # Most of a short trial is the start of a controller's and a worker's process, which import torch anew. Here the
    # stage runs in this process, which goes on to the next trial. What is promised stays: the state is kept after each
    # epoch, a process that dies is started again by Tune and continues, what would fail again is not tried again.
    from posegrid.orchestration.launch.local import run_task
    from posegrid.orchestration.loop import DivergenceError
    from posegrid.orchestration.pieces import BatchTooLargeError

    try:
        run_task(task, Path(config["storage"]), lambda key, metrics: tune.report(metrics))
    except (DivergenceError, BatchTooLargeError) as error:
        tune.report({_FAILED: f"{type(error).__name__}: {error}"})


_FAILED = "failed"
"""What the last report of a trial holds that ended without a result and must not be repeated."""


class _ReadyStages(Searcher):
    """Proposes stages in order as soon as all that they build on is trained."""

    def __init__(self, study: "Study", work: "list[Work]") -> None:
        super().__init__(metric="epoch", mode="max")
        self._study = study
        self._waiting = list(work)
        self._asked = 0.0
        self._running: dict[str, str] = {}
        self._fixed: dict[str, Any] = {}
        self._failed: set[str] = set()
        self._away_since: float | None = None
        self.blocked: dict[str, str] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Tune hands in the constant part of every trial's configuration."""
        self._fixed = config
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next ready stage, FINISHED at the end. None while all wait for one under way, or for the tracking store:
        Tune goes on then, and with it whatever is being trained. Raises NoAnswerError if nothing is being trained and
        the store stays away for longer than it may.
        """
        for item in list(self._waiting):
            if not self._failed.isdisjoint(item.stage.needs):
                self._waiting.remove(item)
                self._failed.add(item.stage.key)
                self.blocked[item.stage.key] = "its conditioner failed"
        under_way = set(self._running.values()) | {item.stage.key for item in self._waiting}
        for item in self._waiting:
            if under_way.isdisjoint(item.stage.needs):
                task = self._opened(item)
                if task is None:
                    return None
                self._waiting.remove(item)
                self._running[trial_id] = item.stage.key
                return {**self._fixed, "task": task.plain()}
        return None if self._waiting else Searcher.FINISHED

    def _opened(self, item: "Work") -> StageTask | None:
        """The task of a stage, its run opened; None if the tracking store does not answer now."""
        now = time.monotonic()
        if self._away_since is not None and now < self._asked + _ASK_EVERY_S:
            return None
        self._asked = now
        try:
            with self._study.tracking.at_once():
                task = self._study.task(item)
        except NoAnswerError:
            self._away_since = now if self._away_since is None else self._away_since
            if not self._running and now - self._away_since >= self._study.tracking.wait_s:
                raise
            return None
        self._away_since = None
        return task

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune says that a trial ended."""
        key = self._running.pop(trial_id)
        if error or (result or {}).get(_FAILED):
            self._failed.add(key)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: a repeated command plans anew from the tracking store."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class _Follow(tune.Callback):
    """Progress, and the only writer of a run's terminal status."""

    def __init__(self, study: "Study", progress: Progress) -> None:
        self._study = study
        self._progress = progress
        self._unsaid: dict[str, str | None] = {}
        self._asked = 0.0
        self.failed: dict[str, str] = {}

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        metrics = {name: value for name, value in result.items() if isinstance(value, int | float)}
        if "epoch" in metrics:
            self._progress(trial.config["task"]["key"], metrics)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        key, reason = trial.config["task"]["key"], (trial.last_result or {}).get(_FAILED)
        if reason:
            self.failed[key] = reason
        self._unsaid[key] = reason
        self._say()

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        key = trial.config["task"]["key"]
        self.failed[key] = _reason(trial)
        self._unsaid[key] = self.failed[key]
        self._say()

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """What the tracking store could not be told is told again. Nothing waits for it here: trainings stand still
        while Tune does."""
        if self._unsaid and time.monotonic() >= self._asked + _ASK_EVERY_S:
            self._say()

    def settle(self) -> None:
        """Tell what is left to tell; waits for the tracking store."""
        for key in list(self._unsaid):
            self._study.finish(key, failed=self._unsaid[key])
            del self._unsaid[key]

    def _say(self) -> None:
        self._asked = time.monotonic()
        with suppress(NoAnswerError), self._study.tracking.at_once():
            self.settle()


def _reason(trial: TuneTrial) -> str:
    """The last lines of what the trial said when it failed, without the frames of Ray."""
    file = trial.error_file
    text = Path(file).read_text(errors="replace").strip() if file and Path(file).exists() else "no reason given"
    lines = [line for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line.split(":")[0].strip().endswith(("Error", "Exception"))]
    return (named or lines)[-1].strip()
