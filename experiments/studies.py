"""Plan a study, run what is left of it, say what happens meanwhile."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posegrid.datasets.store import Store, open_store
from posegrid.experiments import catalogue
from posegrid.experiments.catalogue import Grid
from posegrid.orchestration.evaluation import mean_pose_mpjpe_mm
from posegrid.orchestration.grid import Stage, Study, Work, build_stages, open_study, remaining_work
from posegrid.orchestration.launch.resources import Resources
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import Tracking

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study on a data set: its stages, and which stages belong to which member."""

    name: str
    grid: Grid
    store: Store
    stages: dict[str, Stage]
    members: dict[str, dict[tuple[str, int], str]]
    """Member label -> (training pattern label, seed) -> stage key."""
    tests: list[dict[str, Any]]
    """Resolved test patterns."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a study runs and keeps its files."""

    tracking: str
    """Address of the tracking store."""
    storage: str
    """Folder or address for the state of unfinished runs; every node must reach it."""
    launch: str = "ray"
    """"ray" or "local" (one process, no Ray)."""
    address: str | None = None
    """Ray cluster to join; None starts Ray on this machine."""
    resources: Resources = field(default_factory=Resources)


def plan(name: str, grid: Grid, data: Path, overrides: list[str] | None = None) -> Plan:
    """Resolve a grid on a data set. Verifies the hash of the whole store. Raises ValueError for anything wrong."""
    store = open_store(data)
    tests = catalogue.resolve(grid.test, "test")
    stages: dict[str, Stage] = {}
    members: dict[str, dict[tuple[str, int], str]] = {}
    for member in grid.members:
        settings = catalogue.settings_of(member, overrides)
        patterns = catalogue.resolve(member.train or grid.train, "train")
        built = build_stages([settings], patterns, tests, grid.seeds, catalogue.recipe, store)
        own = [stage for stage in built.values() if stage.settings.name == settings.name and stage.patterns]
        members[member.label] = {(stage.trained_on, stage.settings.training.seed): stage.key for stage in own}
        for key, stage in built.items():
            if key not in stages or not stages[key].patterns:
                # a stage may be the conditioner of one member and a member itself: score it under its own settings
                stages[key] = stage
    return Plan(name=name, grid=grid, store=store, stages=stages, members=members, tests=tests)


def run(planned: Plan, where: Where, say: Say) -> Study:
    """Run everything that is left of a study. Raises RuntimeError at the end if stages failed; the rest is kept."""
    tracking = Tracking.open(where.tracking)
    work = remaining_work(planned.stages, tracking.trials(), planned.store.content_hash)
    study = open_study(planned.name, planned.store, tracking, _params(planned), planned.grid.title)
    left = []
    for item in work:
        if not item.done:
            left.append(item)
            continue
        assert item.trial is not None
        study.runs[item.stage.key] = item.trial.run_id
        tracking.set_tags(item.trial.run_id, {f"posegrid.member.{planned.name}": "true"})
        if item.trial.status != "FINISHED":  # killed between the last result and the end
            tracking.finish(item.trial.run_id, "FINISHED")
    _log_study(study, planned)
    say(f"study {planned.name}: {len(work)} stages, {len(work) - len(left)} done, {len(left)} to run")
    if left:
        failed = _launch(study, left, where, Progress(left, say))
        if failed:
            tracking.finish(study.parent, "FAILED")
            reasons = "\n".join(f"  {planned.stages[key].name}: {reason}" for key, reason in failed.items())
            raise RuntimeError(
                f"{len(failed)} of {len(left)} stages did not finish:\n{reasons}\n"
                "What is done is kept: repeat the command to run the rest."
            )
    tracking.finish(study.parent, "FINISHED")
    return study


def _launch(study: Study, left: list[Work], where: Where, progress: "Progress") -> dict[str, str]:
    if where.launch == "local":
        from posegrid.orchestration.launch.local import run_local

        progress.concurrent = 1
        run_local(study, left, Path(where.storage), progress)
        return {}
    from posegrid.orchestration.launch.cluster import connected

    with connected(where.address, where.resources) as cluster:
        # Ray reads its environment when it is imported, so `connected` comes first
        from posegrid.orchestration.launch.ray_tune import run_ray

        progress.concurrent = cluster.concurrent
        progress.say(
            f"Ray: {cluster.nodes} node(s), {cluster.cpus} CPU cores, {cluster.gpus} GPUs; "
            f"{cluster.concurrent} stages side by side"
        )
        return run_ray(study, left, where.storage, where.resources, progress)


def _params(planned: Plan) -> dict[str, Any]:
    return {"grid": planned.name, "data": planned.store.source, "data_hash": planned.store.content_hash[:16]}


def _log_study(study: Study, planned: Plan) -> None:
    """What the report needs to find the members again, and the control that needs no training."""
    first = next(iter(planned.stages.values())).settings
    members = {label: [[*cell, key] for cell, key in cells.items()] for label, cells in planned.members.items()}
    study.tracking.log_plain(
        study.parent,
        {
            "title": planned.grid.title,
            "members": members,
            "tests": planned.tests,
            "data_hash": planned.store.content_hash,
            "source": planned.store.source,
            "recipes": {
                label: planned.stages[next(iter(cells.values()))].settings.plain()
                for label, cells in planned.members.items()
            },
        },
        "study.json",
    )
    study.tracking.log_metrics(study.parent, {"control mean pose/mpjpe_mm": mean_pose_mpjpe_mm(planned.store, first)})


class Progress:
    """One line now and then: stages done, where each one is, estimated time left."""

    def __init__(self, left: list[Work], say: Say, every_s: float = 10.0) -> None:
        self._work = {item.stage.key: item for item in left}
        self._epoch = dict.fromkeys(self._work, 0)
        self._seconds: dict[str, float] = {}  # mean seconds of an epoch, by recipe
        self.say = say
        self.concurrent = 1
        self._every = every_s
        self._said = 0.0

    def __call__(self, key: str, metrics: dict[str, float]) -> None:
        """A stage finished an epoch."""
        settings = self._work[key].stage.settings
        self._epoch[key] = int(metrics["epoch"]) + 1
        seconds = metrics.get("time/epoch_s", 0.0)
        before = self._seconds.get(settings.name, seconds)
        self._seconds[settings.name] = 0.7 * before + 0.3 * seconds
        last = self._epoch[key] == settings.training.epochs
        if not last and time.monotonic() - self._said < self._every:
            return
        self._said = time.monotonic()
        trained = sum(self._epoch[k] >= w.stage.settings.training.epochs for k, w in self._work.items())
        loss = metrics.get("validation/loss", metrics.get("train/loss", float("nan")))
        self.say(
            f"[{trained}/{len(self._work)} trained] {self._work[key].stage.name}: epoch {self._epoch[key]}/"
            f"{settings.training.epochs}, loss {loss:.5g}, about {self._left_minutes():.0f} min of training left"
        )

    def _left_minutes(self) -> float:
        known = list(self._seconds.values())
        typical = sum(known) / len(known)
        total = 0.0
        for key, item in self._work.items():
            settings: Settings = item.stage.settings
            epochs = settings.training.epochs - self._epoch[key] if item.train else 0
            total += epochs * self._seconds.get(settings.name, typical)
        return total / self.concurrent / 60
