"""Resolve a grid on a data set and refuse what cannot work, before anything starts."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from posegrid.datasets.outline import is_outline
from posegrid.datasets.store import Store, open_store
from posegrid.experiments import catalogue
from posegrid.experiments.catalogue import Grid, Member
from posegrid.models.registry import lifter_class
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import check_stage, pose_shape
from posegrid.orchestration.finished_runs import FinishedRun, finished_run
from posegrid.orchestration.grid import Stage, build_stages
from posegrid.orchestration.hypotheses import check_aggregation
from posegrid.orchestration.initial import with_initial
from posegrid.orchestration.lifting import chosen_chain, one_frame_only
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import Tracking


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


def plan(
    name: str,
    grid: Grid,
    data: Path | str | Store,
    overrides: list[str] | None = None,
    *,
    decides: bool = True,
    tracking: Callable[[], Tracking] | None = None,
    gpu: bool = False,
) -> Plan:
    """Resolve a grid and check every stage against the data: a folder or an address, whose hash is verified, or an open
    store. On an outline (`datasets/outline.py`) only what it can decide is checked, and initial weights are left out.

    An override holds for all members, also where one is the conditioner of another, and comes after a member's own
    `set`; "RECIPE:table.key=value" holds for that recipe alone, member or not. `decides`: patterns and seeds in a
    recipe are an error, since the grid names them. `tracking`: where conditioners and initial weights are looked
    up that are given as finished runs. `gpu`: stages will train on GPUs. Raises ValueError for anything wrong.
    """
    tests = catalogue.resolve(grid.test, "test")

    labelled = {member.label: member for member in grid.members}

    @cache
    def load(label: str, recipe: str) -> Settings:
        settings = catalogue.conditioner_recipe(grid, labelled[label], recipe, overrides or []).resolved(gpu=gpu)
        return _started(settings, store, tracking)

    def load_member(member: Member) -> Settings:
        chosen = catalogue.overrides_for(member.recipe, overrides or [], member=True)
        return catalogue.member_recipe(grid, member, chosen).resolved(gpu=gpu)

    @cache
    def finished(run: str) -> FinishedRun:
        assert tracking is not None
        return finished_run(tracking(), run)

    resolved = [(member, load_member(member)) for member in grid.members]
    for _, settings in resolved if decides else ():
        _check_grid_decides(settings)
    store = data if isinstance(data, Store) else open_store(data)
    resolved = [(member, _started(settings, store, tracking)) for member, settings in resolved]
    stages: dict[str, Stage] = {}
    members: dict[str, dict[tuple[str, int], str]] = {}
    for member, settings in resolved:
        patterns = catalogue.resolve(member.train or grid.train, f"members[{member.label}].train")
        runs = None if tracking is None else finished
        built: dict[str, Stage] = {}
        for seeds, trained in catalogue.seeds_of(grid, patterns).items():
            built |= build_stages([settings], trained, tests, seeds, partial(load, member.label), store, runs)
        built = {key: replace(stage, member=member.label) if stage.patterns else stage for key, stage in built.items()}
        own = [stage for stage in built.values() if stage.patterns]
        members[member.label] = {(stage.trained_on, stage.settings.training.seed): stage.key for stage in own}
        for key, stage in built.items():
            _check_same_scoring(stages.get(key), stage)
            if key not in stages or stage.patterns:
                # a stage may be the conditioner of one member and a member itself: score it under its own settings
                stages[key] = stage
    ours = [stage for stage in stages.values() if stage.given is None]
    for stage in _unlike(ours):
        if not is_outline(store):
            check_stage(store, stage.settings, list(stage.patterns))
        if stage.patterns:
            chosen_chain(lifter_class(stage.settings.model["name"]), stage.settings)
        if stage.patterns and not is_outline(store):
            check_aggregation(stage.settings, store)
    _check_scores(store, [stage.settings for stage in ours])
    return Plan(name=name, grid=grid, store=store, stages=stages, members=members, tests=tests)


def _started(settings: Settings, store: Store, tracking: Callable[[], Tracking] | None) -> Settings:
    """Settings with what identifies the weights that they start from; on an outline nothing is started."""
    return replace(settings, initial=None) if is_outline(store) else with_initial(settings, store, tracking)


def _unlike(stages: list[Stage]) -> list[Stage]:
    """One of all stages that pass the same checks: their seed and how fast they learn make no difference."""
    found: dict[str, Stage] = {}
    for stage in stages:
        training = replace(stage.settings.training, seed=0, lr=1.0, weight_decay=0.0, epochs=1)
        same = replace(stage.settings, training=training, upstream=None, upstream_key="", initial=None)
        found.setdefault(json.dumps([same.plain(), stage.patterns], sort_keys=True), stage)
    return list(found.values())


def _check_scores(store: Store, every: list[Settings]) -> None:
    """Refuse to score whole windows of models that lift one frame, before they are trained."""
    networks = {
        (json.dumps([one.model, one.upstream and one.upstream["model"]]), one.data.frames, one.evaluation.score): one
        for one in every
    }
    for settings in networks.values():
        if settings.evaluation.score == "window":
            model = checkpoint.build(settings, pose_shape(store, settings.data))
            if model.output_frame is not None:
                raise one_frame_only(settings, model)


def _check_grid_decides(settings: Settings) -> None:
    if settings.occlusion["pattern"] != "none" or settings.training.seed:
        raise ValueError(
            f"recipe {settings.name} sets occlusion {settings.occlusion['pattern']!r} and seed "
            f"{settings.training.seed}, but the grid decides both. Leave them out of the recipe and of --set; name "
            "patterns in the grid's `train` and seeds in its `seeds` (`posegrid train` takes --occlusion and --seed)."
        )


def _check_same_scoring(first: Stage | None, second: Stage) -> None:
    if first is None or not first.patterns or not second.patterns:
        return
    if first.settings.evaluation != second.settings.evaluation:
        raise ValueError(
            f"{first.name} and {second.name} train the same thing but are scored differently "
            f"({first.settings.evaluation} and {second.settings.evaluation}). A trained model has one set of scores in "
            "a study: use the same [evaluation] in both recipes, or two studies."
        )
