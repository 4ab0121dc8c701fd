"""A study without Ray: what is trained, what is shared, what a repetition does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posegrid.datasets.store import Store
from posegrid.orchestration import checkpoint
from posegrid.orchestration.grid import Study, Work, build_stages, open_study, remaining_work
from posegrid.orchestration.launch.local import run_local
from posegrid.orchestration.settings import Settings, occlusion_values
from posegrid.orchestration.tracking import UPSTREAM, Tracking

PATTERNS = [occlusion_values(name, "test") for name in ("none", "leg_run")]
Run = Callable[..., list[Work]]


def runner(store: Store, tracking: Tracking, lifter: Settings, wrapper: Settings, storage: Path) -> Run:
    """A function that runs the study of lifter and wrapper on two patterns and returns what was left to do."""

    def once(tests: list[dict[str, Any]] = PATTERNS, stop_after: int | None = None) -> list[Work]:
        stages = build_stages([lifter, wrapper], PATTERNS, tests, [0], lambda _: lifter, store)
        work = remaining_work(stages, tracking.trials(), store.content_hash)
        study: Study = open_study("s", store, tracking, {}, "")
        for item in work:
            if item.done and item.trial is not None:
                study.runs[item.stage.key] = item.trial.run_id
        left = [item for item in work if not item.done]
        epochs = 0

        def progress(key: str, metrics: dict[str, float]) -> None:
            nonlocal epochs
            epochs += 1
            if epochs == stop_after:
                raise KeyboardInterrupt

        run_local(study, left, storage, progress)
        return left

    return once


@pytest.fixture
def run(
    toy_store: Store, tracking: Tracking, lifter_settings: Settings, wrapper_settings: Settings, tmp_path: Path
) -> Run:
    """The study in an experiment of its own."""
    return runner(toy_store, tracking, lifter_settings, wrapper_settings, tmp_path / "state")


def keys(tracking: Tracking) -> dict[str, str]:
    """Run name -> run id of all live trials."""
    return {trial.tags["mlflow.runName"]: trial.run_id for trial in tracking.trials().values()}


def test_conditioner_is_trained_once_and_shared(run: Run, tracking: Tracking) -> None:
    left = run()
    assert [item.stage.name for item in left] == [
        "tiny on none",
        "tiny on leg_run",
        "tiny wrapper on none",
        "tiny wrapper on leg_run",
    ]
    trials = tracking.trials()
    wrapper = trials[left[3].stage.key]
    assert wrapper.tags[UPSTREAM] == trials[left[1].stage.key].run_id
    assert wrapper.status == "FINISHED"
    assert {"test none/mpjpe_mm", "test leg_run/mpjpe_mm occluded", "train/loss"} <= wrapper.metrics.keys()
    assert wrapper.tags["mlflow.note.content"] == (
        "Model diffhpe, recipe tiny wrapper, windows of 9 frames, trained on toy under pattern leg_run for 3 epochs "
        "with seed 0. Tag posegrid.upstream names the run of its conditioner. Tested under none, leg_run: whole "
        "windows, tails dropped."
    )
    # three epochs, each logged once
    assert [p.step for p in tracking._client.get_metric_history(wrapper.run_id, "train/loss")] == [0, 1, 2]


def test_repetition_does_nothing(run: Run, tracking: Tracking) -> None:
    run()
    before = keys(tracking)
    assert run() == []
    assert keys(tracking) == before


def test_new_test_pattern_is_scored_without_training(run: Run, tracking: Tracking) -> None:
    run()
    before = keys(tracking)
    left = run([*PATTERNS, occlusion_values("frame_run", "test")])
    assert [(item.train, [p["pattern"] for p in item.patterns]) for item in left] == [(False, ["frame_run"])] * 4
    assert keys(tracking) == before
    assert all("test frame_run/mpjpe_mm" in trial.metrics for trial in tracking.trials().values())


def test_deleted_lifter_is_trained_again_with_what_depends_on_it(run: Run, tracking: Tracking) -> None:
    run()
    before = keys(tracking)
    tracking.delete(before["tiny on leg_run"])
    left = run()
    assert [item.stage.name for item in left] == ["tiny on leg_run", "tiny wrapper on leg_run"]
    after = keys(tracking)
    assert {name for name in before if before[name] != after[name]} == {"tiny on leg_run", "tiny wrapper on leg_run"}
    assert len(after) == 4


def test_deleted_wrapper_is_trained_alone(run: Run, tracking: Tracking) -> None:
    run()
    before = keys(tracking)
    tracking.delete(before["tiny wrapper on none"])
    assert [item.stage.name for item in run()] == ["tiny wrapper on none"]
    assert run() == []


@pytest.mark.parametrize(("stop_after", "begun_with_ray"), [(1, False), (5, True), (11, False)])
def test_killed_study_continues_and_ends_like_an_undisturbed_one(
    run: Run,
    tracking: Tracking,
    stop_after: int,
    begun_with_ray: bool,
    toy_store: Store,
    lifter_settings: Settings,
    wrapper_settings: Settings,
    tmp_path: Path,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(stop_after=stop_after)
    if begun_with_ray:  # Ray Train keeps the same state in a folder of its own
        (state,) = (file for file in (tmp_path / "state").rglob("state.pt") if checkpoint.read(file)["epoch"] == 1)
        (state.parent / "checkpoint_2026-11-22_02-00-00").mkdir()
        state.rename(state.parent / "checkpoint_2026-11-22_02-00-00" / "state.pt")
    run()
    killed = tracking.trials()
    for trial in killed.values():
        steps = [point.step for point in tracking._client.get_metric_history(trial.run_id, "train/loss")]
        assert steps == [0, 1, 2]
        assert trial.status == "FINISHED"
    undisturbed = Tracking.open(tracking.uri, f"{tracking.experiment} undisturbed")
    runner(toy_store, undisturbed, lifter_settings, wrapper_settings, tmp_path / "other state")()
    reference = undisturbed.trials()
    for key, trial in killed.items():
        same = {name: value for name, value in trial.metrics.items() if not name.startswith(("time/", "cost/"))}
        wanted = {
            name: value for name, value in reference[key].metrics.items() if not name.startswith(("time/", "cost/"))
        }
        assert same == wanted
