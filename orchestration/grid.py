"""A study as a graph of stages: what must be trained and scored, what is already done, what depends on what.

A stage is one training (recipe, pattern, seed) with the test patterns it is scored on. A wrapper's stage depends on the
stage of its conditioner, which is trained once and shared by all that need it. Stages are identified by fingerprints
and found again in the tracking store, so that repeating a command repeats no work.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from posegrid.datasets.addresses import shown
from posegrid.datasets.store import Store
from posegrid.orchestration.settings import Settings, occlusion_label
from posegrid.orchestration.task import StageTask
from posegrid.orchestration.tracking import STAGE, UPSTREAM, Tracking, Trial


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One node of the graph."""

    key: str
    """Training fingerprint."""
    settings: Settings
    upstream: str | None
    """Key of the conditioner's stage."""
    patterns: tuple[dict[str, Any], ...]
    """Resolved test patterns."""
    member: str = ""
    """Label of the member of a grid that it belongs to; empty for conditioners."""

    def score_fingerprints(self, data_hash: str) -> dict[str, str]:
        """Test pattern label -> fingerprint of how it is scored."""
        return {occlusion_label(p): self.settings.evaluation_fingerprint(p, data_hash) for p in self.patterns}

    @property
    def trained_on(self) -> str:
        """Label of the training pattern."""
        return occlusion_label(self.settings.occlusion)

    @property
    def kind(self) -> str:
        """What stages that take equally long share: the member, or the recipe of a conditioner."""
        return self.member or self.settings.name

    @property
    def name(self) -> str:
        """What people read: member or recipe, pattern, and what else differs from the plain wrapper."""
        vanilla = ""
        if not self.member and self.settings.conditioner is not None and self.settings.conditioner.occlusion == "none":
            vanilla = " (vanilla conditioner)"
        seed = f" seed {self.settings.training.seed}" if self.settings.training.seed else ""
        return f"{self.kind}{vanilla} on {self.trained_on}{seed}"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is left to do for a stage."""

    stage: Stage
    trial: Trial | None
    """Its live run, if there is one."""
    train: bool
    """Weights are missing, or those of its conditioner were made anew."""
    patterns: tuple[dict[str, Any], ...]
    """Test patterns that are not scored yet."""

    @property
    def done(self) -> bool:
        """Nothing is left but, perhaps, marking the run as finished."""
        return not self.train and not self.patterns


def build_stages(
    members: Iterable[Settings],
    train_patterns: Iterable[dict[str, Any]],
    test_patterns: Iterable[dict[str, Any]],
    seeds: Iterable[int],
    load: Callable[[str], Settings],
    store: Store,
) -> dict[str, Stage]:
    """All stages of a study by key, each after the one it depends on.

    `members` are the recipes of the study, `load` reads the recipe of a conditioner. A conditioner that is itself a
    member is the same stage.
    """
    tests = tuple(test_patterns)
    patterns, seeds = list(train_patterns), list(seeds)
    stages: dict[str, Stage] = {}
    for member in members:
        for seed in seeds:
            for pattern in patterns:
                seeded = replace(member, training=replace(member.training, seed=seed))
                _add(stages, seeded.with_occlusion(pattern), tests, load, store)
    return stages


def _add(
    stages: dict[str, Stage],
    settings: Settings,
    tests: tuple[dict[str, Any], ...],
    load: Callable[[str], Settings],
    store: Store,
) -> str:
    upstream = None
    if settings.conditioner is not None:
        lifter = load(settings.conditioner.recipe)
        check_same_windows(settings, lifter)
        lifter = replace(lifter, training=replace(lifter.training, seed=settings.training.seed)).with_occlusion(
            settings.occlusion if settings.conditioner.occlusion == "same" else {"pattern": "none"}
        )
        upstream = _add(stages, lifter, (), load, store)
        settings = replace(settings, upstream=lifter.plain())
    key = settings.training_fingerprint(store.content_hash)
    if key not in stages:
        stages[key] = Stage(key=key, settings=settings, upstream=upstream, patterns=tests)
    elif tests:
        # first met as a conditioner, now as a member that is scored under its own settings
        stages[key] = replace(stages[key], settings=settings, patterns=tests)
    return key


def check_same_windows(settings: Settings, lifter: Settings) -> None:
    """Raises ValueError if a wrapper and its conditioner cut windows of different length or frame rate."""
    for name in ("frames", "stride", "frame_rate"):
        own, other = getattr(settings.data, name), getattr(lifter.data, name)
        if own != other:
            raise ValueError(
                f"recipe {settings.name} uses windows with data.{name} = {own:g}, its conditioner {lifter.name} with "
                f"{other:g}. Set data.{name} to the same number in both recipes."
            )


def remaining_work(stages: dict[str, Stage], trials: dict[str, Trial], data_hash: str) -> list[Work]:
    """What is left of each stage, given the live trials. Order: conditioners first."""
    found: dict[str, Work] = {}
    for key, stage in stages.items():
        trial = trials.get(key)
        train = trial is None or not trial.trained
        if stage.upstream is not None:
            above = found[stage.upstream]
            # a conditioner trained anew has other weights, even if by a hair: what was built on the old ones is stale
            stale = above.train or above.trial is None
            train = train or stale or trial.tags.get(UPSTREAM) != above.trial.run_id  # type: ignore[union-attr]
        wanted = {occlusion_label(pattern): pattern for pattern in stage.patterns}
        scored = {} if train or trial is None else trial.evaluated
        due = stage.score_fingerprints(data_hash)
        patterns = tuple(pattern for label, pattern in wanted.items() if scored.get(label) != due[label])
        found[key] = Work(stage=stage, trial=trial, train=train, patterns=patterns)
    return list(found.values())


@dataclass
class Study:
    """An opened study: opens the run of each stage when its turn comes and says what its workers must do."""

    name: str
    parent: str
    """Run id of the parent run."""
    store: Store
    tracking: Tracking
    runs: dict[str, str] = field(default_factory=dict)
    """Run id of each stage that is done or under way."""

    def task(self, work: Work) -> StageTask:
        """Open (or reopen) the run of a stage whose upstream is done."""
        stage, settings = work.stage, work.stage.settings
        upstream = None if stage.upstream is None else self.runs[stage.upstream]
        # whatever was trained on another conditioner run gives way; MLflow keeps deleted runs restorable
        if work.trial is not None and upstream is not None and work.trial.tags.get(UPSTREAM) != upstream:
            self.tracking.delete(work.trial.run_id)
        tags = {
            STAGE: settings.name,
            "posegrid.member." + self.name: "true",
            "model": settings.model["name"],
            "trained_on": stage.trained_on,
            "selection": settings.training.select,
            "data": self.store.source,
            **({} if upstream is None else {UPSTREAM: upstream}),
            **({"scored_every": str(settings.evaluation.every)} if settings.evaluation.every > 1 else {}),
        }
        params = {
            "recipe": settings.name,
            **{k: v for k, v in settings.plain().items() if k not in ("name", "upstream")},
        }
        run_id = self.tracking.open_trial(stage.key, stage.name, self.parent, params, tags)
        self.runs[stage.key] = run_id
        _log_data(self.tracking, run_id, self.store, "training")
        return StageTask(
            key=stage.key,
            run_id=run_id,
            settings=settings.plain(),
            patterns=list(work.patterns),
            store=self.store.address,
            data_hash=self.store.content_hash,
            tracking=self.tracking.uri,
            upstream_run=upstream,
            trained=not work.train,
        )

    def finish(self, key: str, failed: str | None = None) -> None:
        """Set the terminal status of a stage's run, with the reason of a failure."""
        run_id = self.runs[key]
        if failed is not None:
            self.tracking.set_tags(run_id, {"failure": failed[:4000]})
        self.tracking.finish(run_id, "FINISHED" if failed is None else "FAILED")


def open_study(name: str, store: Store, tracking: Tracking, params: dict[str, Any], description: str) -> Study:
    """Open the parent run of a study and log the data set on it."""
    parent = tracking.open_study(name, params, description)
    _log_data(tracking, parent, store, "study")
    return Study(name=name, parent=parent, store=store, tracking=tracking)


def _log_data(tracking: Tracking, run_id: str, store: Store, context: str) -> None:
    tracking.log_data(run_id, store.source, store.content_hash, shown(store.address), context)
