"""A study as a graph of stages: what must be trained and scored, what is already done, what depends on what.

A stage is one training (recipe, pattern, seed) with the test patterns it is scored on. A wrapper's stage depends on the
stage of its conditioner, which is trained once and shared by all that need it; a refiner's also on those of the folds,
which are its lifter trained without one subject each. Stages are identified by fingerprints and found again in the
tracking store, so that repeating a command repeats no work.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from posegrid.datasets.addresses import shown
from posegrid.datasets.store import Store
from posegrid.orchestration.batches import training_subjects
from posegrid.orchestration.finished_runs import FinishedRun
from posegrid.orchestration.protocol import scoring_protocol, window_words
from posegrid.orchestration.settings import Settings, occlusion_label
from posegrid.orchestration.task import StageTask
from posegrid.orchestration.tracking import FOLDS, STAGE, UPSTREAM, Tracking, Trial
from posegrid.orchestration.trials import DESCRIPTION, FAILURE


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One node of the graph."""

    key: str
    """Training fingerprint."""
    settings: Settings
    upstream: str | None
    """Key of the conditioner's stage."""
    folds: tuple[str, ...] = ()
    """Keys of the stages of the lifters without one subject each, in the order of the settings' `folds`."""
    given: Trial | None = None
    """Finished run that is taken as it is: a conditioner that was not trained by this study."""
    patterns: tuple[dict[str, Any], ...]
    """Resolved test patterns."""
    member: str = ""
    """Label of the member of a grid that it belongs to; empty for conditioners."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of all stages that it builds on."""
        return self.folds if self.upstream is None else (self.upstream, *self.folds)

    def lineage(self, runs: Mapping[str, str]) -> dict[str, str]:
        """Tags that name the runs it builds on, from stage key -> run id."""
        tags = {} if self.upstream is None else {UPSTREAM: runs[self.upstream]}
        return tags | ({FOLDS: ",".join(runs[key] for key in self.folds)} if self.folds else {})

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
        if self.settings.data.leave_out:
            vanilla += f" without {', '.join(self.settings.data.leave_out)}"
        seed = f" seed {self.settings.training.seed}" if self.settings.training.seed else ""
        return f"{self.kind}{vanilla} on {self.trained_on}{seed}"

    def description(self, data: str) -> str:
        """What the MLflow UI says above the numbers of its run; `data` names the data set."""
        settings, training = self.settings, self.settings.training
        length = f"{training.epochs:,} epochs" + (f" of {training.steps:,} steps" if training.steps else "")
        words = [
            f"Model {settings.model['name']}, recipe {settings.name}, windows of {window_words(settings)} frames, "
            f"trained on {data} under pattern {self.trained_on} for {length} with seed {training.seed}."
        ]
        if settings.data.leave_out:
            words.append(f"Training subjects left out: {', '.join(settings.data.leave_out)}.")
        if self.upstream is not None:
            words.append(f"Tag {UPSTREAM} names the run of its conditioner.")
        if self.patterns:
            tested = ", ".join(occlusion_label(pattern) for pattern in self.patterns)
            words.append(f"Tested under {tested}: {scoring_protocol(settings)}.")
        return " ".join(words)


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
    diverged: bool = False
    """Its loss stopped being finite, and it would do so again: what it is built on is as it was."""

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
    finished: Callable[[str], FinishedRun] | None = None,
) -> dict[str, Stage]:
    """All stages of a study by key, each after those it depends on.

    `members` are the recipes of the study, `load` reads the recipe of a conditioner, `finished` finds a conditioner
    that is given as a run. A conditioner that is itself a member is the same stage.
    """
    sources = _Sources(load=load, finished=finished)
    tests = tuple(test_patterns)
    patterns, seeds = list(train_patterns), list(seeds)
    stages: dict[str, Stage] = {}
    for member in members:
        for seed in seeds:
            for pattern in patterns:
                seeded = replace(member, training=replace(member.training, seed=seed))
                _add(stages, seeded.with_occlusion(pattern), tests, sources, store)
    return stages


@dataclass(frozen=True, kw_only=True)
class _Sources:
    """Where conditioners come from."""

    load: Callable[[str], Settings]
    finished: Callable[[str], FinishedRun] | None

    def given(self, settings: Settings) -> FinishedRun | None:
        """The run that the settings name as their conditioner, if they do."""
        assert settings.conditioner is not None
        name = settings.conditioner.run
        if not name:
            return None
        if self.finished is None:
            raise ValueError(
                f'recipe {settings.name}: conditioner.run = "{name}" was given where no runs are looked up. Use a '
                "command that trains, or conditioner.recipe."
            )
        return self.finished(name)

    def lifter(self, settings: Settings) -> Settings:
        """Settings of the conditioner to train: as those of a finished run say, or its recipe with seed and pattern."""
        assert settings.conditioner is not None
        if settings.upstream is not None:
            return Settings.from_plain(settings.upstream)
        lifter = self.load(settings.conditioner.recipe)
        return replace(lifter, training=replace(lifter.training, seed=settings.training.seed)).with_occlusion(
            settings.occlusion if settings.conditioner.occlusion == "same" else {"pattern": "none"}
        )


def _add(
    stages: dict[str, Stage],
    settings: Settings,
    tests: tuple[dict[str, Any], ...],
    sources: _Sources,
    store: Store,
) -> str:
    upstream: str | None = None
    folds: tuple[str, ...] = ()
    if settings.conditioner is not None:
        upstream, lifter = _add_conditioner(stages, settings, sources, store)
        subjects = _fold_subjects(settings, lifter, store)
        folds = tuple(_add(stages, lifter.leaving_out(subject), (), sources, store) for subject in subjects)
        given = upstream if stages[upstream].given is not None else ""
        settings = replace(settings, upstream=lifter.plain(), upstream_key=given, folds=subjects)
    key = settings.training_fingerprint(store.content_hash, upstream)
    if key not in stages:
        stages[key] = Stage(key=key, settings=settings, upstream=upstream, folds=folds, patterns=tests)
    elif tests:
        # first met as a conditioner, now as a member that is scored under its own settings
        stages[key] = replace(stages[key], settings=settings, patterns=tests)
    return key


def _add_conditioner(
    stages: dict[str, Stage], settings: Settings, sources: _Sources, store: Store
) -> tuple[str, Settings]:
    """Key and resolved settings of the conditioner's stage. It leaves out the subjects that `settings` leave out."""
    run = sources.given(settings) if settings.upstream is None else None
    lifter = sources.lifter(settings) if run is None else run.settings
    check_same_windows(settings, lifter)
    if run is not None:
        _check_same_skeleton(settings, run, store)
    missing = [subject for subject in settings.data.leave_out if subject not in lifter.data.leave_out]
    for subject in missing:
        lifter = lifter.leaving_out(subject)
    if run is not None and not missing:
        found = Stage(key=run.key, settings=lifter, upstream=None, patterns=(), given=run.trial)
        stages.setdefault(run.key, found)
        return run.key, lifter
    key = _add(stages, lifter, (), sources, store)
    resolved = stages[key].settings
    return key, replace(lifter, upstream=resolved.upstream, upstream_key=resolved.upstream_key, folds=resolved.folds)


def _fold_subjects(settings: Settings, lifter: Settings, store: Store) -> tuple[str, ...]:
    """Subjects that one more lifter each does without."""
    assert settings.conditioner is not None
    if not settings.conditioner.folds:
        return ()
    subjects = training_subjects(store.leaving_out(lifter.data.leave_out), lifter)
    if len(subjects) < 2:
        raise ValueError(
            f"recipe {settings.name}: conditioner.folds = true, but {lifter.name} trains on {len(subjects)} subject of "
            f"store {store.path}. Allowed are 2 or more, as one is left out: set conditioner.folds = false, or take a "
            "store with more subjects."
        )
    return tuple(subjects)


def _check_same_skeleton(settings: Settings, run: FinishedRun, store: Store) -> None:
    if run.skeleton != store.skeleton.name:
        raise ValueError(
            f"recipe {settings.name} builds on run {run.trial.run_id}, whose skeleton is {run.skeleton}; store "
            f"{store.path} has {store.skeleton.name}. Give a run with the store's skeleton, or another store."
        )


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
        trial = stage.given or trials.get(key)
        # a conditioner trained anew has other weights, even if by a hair: what was built on the old ones is stale
        ready = [work for above in stage.needs if not (work := found[above]).train]
        runs = {work.stage.key: work.trial.run_id for work in ready if work.trial is not None}
        stale = trial is not None and (len(runs) < len(stage.needs) or _differs(trial, stage, runs))
        train = trial is None or not trial.trained or stale
        diverged = trial is not None and trial.diverged and not stale
        wanted = {occlusion_label(pattern): pattern for pattern in stage.patterns}
        scored = {} if train or trial is None else trial.evaluated
        due = stage.score_fingerprints(data_hash)
        patterns = tuple(pattern for label, pattern in wanted.items() if scored.get(label) != due[label])
        found[key] = Work(stage=stage, trial=trial, train=train, patterns=patterns, diverged=diverged)
    return list(found.values())


def _differs(trial: Trial, stage: Stage, runs: Mapping[str, str]) -> bool:
    """True if a run was built on other runs than these (stage key -> run id)."""
    return any(trial.tags.get(tag) != value for tag, value in stage.lineage(runs).items())


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
        # whatever was trained on another conditioner run gives way; MLflow keeps deleted runs restorable
        if work.trial is not None and _differs(work.trial, stage, self.runs):
            self.tracking.delete(work.trial.run_id)
        tags = {
            STAGE: settings.name,
            "posegrid.member." + self.name: "true",
            "model": settings.model["name"],
            "trained_on": stage.trained_on,
            "selection": settings.training.select,
            "data": self.store.source,
            **stage.lineage(self.runs),
            **({"scored_every": str(settings.evaluation.every)} if settings.evaluation.every > 1 else {}),
            DESCRIPTION: stage.description(self.store.source),
        }
        params = {
            "recipe": settings.name,
            **{k: v for k, v in settings.plain().items() if k not in ("name", "upstream", "upstream_key") and v != []},
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
            tracking_wait_s=self.tracking.wait_s,
            upstream_run=None if stage.upstream is None else self.runs[stage.upstream],
            fold_runs=[self.runs[key] for key in stage.folds],
            trained=not work.train,
        )

    def finish(self, key: str, failed: str | None = None) -> None:
        """Set the terminal status of a stage's run, with the reason of a failure."""
        run_id = self.runs[key]
        if failed is not None:
            self.tracking.set_tags(run_id, {FAILURE: failed[:4000]})
        self.tracking.finish(run_id, "FINISHED" if failed is None else "FAILED")


def open_study(name: str, store: Store, tracking: Tracking, params: dict[str, Any], description: str) -> Study:
    """Open the parent run of a study and log the data set on it."""
    parent = tracking.open_study(name, params, description)
    _log_data(tracking, parent, store, "study")
    return Study(name=name, parent=parent, store=store, tracking=tracking)


def _log_data(tracking: Tracking, run_id: str, store: Store, context: str) -> None:
    tracking.log_data(run_id, store.source, store.content_hash, shown(store.address), context)
