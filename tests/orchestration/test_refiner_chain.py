"""A refiner with the lifters of its folds as one study without Ray: what is trained, shared, repeated, resumed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posegrid.datasets.store import Store
from posegrid.datasets.windows import gather
from posegrid.models.d3prefiner import D3PRefiner
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import check_stage, epoch_windows
from posegrid.orchestration.finished_runs import FinishedRun, finished_run
from posegrid.orchestration.grid import Study, Work, build_stages, open_study, remaining_work
from posegrid.orchestration.launch.local import run_local
from posegrid.orchestration.settings import Settings, occlusion_values
from posegrid.orchestration.tracking import FOLDS, MODEL_ARTIFACT, TRAINED, UPSTREAM, Tracking, Trial

NONE = [occlusion_values("none", "test")]
Run = Callable[..., list[Work]]
CHAIN = ["tiny on none", "tiny without A on none", "tiny without B on none", "tiny refiner on none"]


TINY = {
    "name": "tiny",
    "model": {"name": "mixste", "width": 16, "depth": 1, "heads": 2, "drop_path": 0.0},
    "data": {"frames": 9},
    # the toy store holds out recordings of one subject only, so the last epoch counts
    "training": {"epochs": 2, "batch": 8, "lr": 1e-3, "select": "last"},
    "evaluation": {"batch": 16},
}
REFINER = {
    **TINY,
    "name": "tiny refiner",
    "model": {"name": "d3prefiner", "width": 16, "depth": 1, "heads": 2, "steps": 10, "correlation": 0.5},
    "conditioner": {"recipe": "tiny", "folds": True},
}


@pytest.fixture
def lifter() -> Settings:
    """Two epochs of a tiny lifter."""
    return Settings.from_plain(TINY)


@pytest.fixture
def refiner() -> Settings:
    """A tiny refiner of the tiny lifter, with folds."""
    return Settings.from_plain(REFINER)


def runner(store: Store, tracking: Tracking, lifter: Settings, storage: Path) -> Run:
    """A function that runs a study of some members and returns what was left to do."""

    def once(*members: Settings, stop_after: int | None = None) -> list[Work]:
        def finished(name: str) -> Any:
            return finished_run(tracking, name)

        stages = build_stages(members, NONE, NONE, [0], lambda _: lifter, store, finished)
        for stage in stages.values():
            if stage.given is None:
                check_stage(store, stage.settings, list(stage.patterns))
        work = remaining_work(stages, tracking.trials(), store.content_hash)
        study: Study = open_study("s", store, tracking, {}, "")
        study.runs |= {item.stage.key: item.trial.run_id for item in work if item.done and item.trial is not None}
        left = [item for item in work if not item.done]
        epochs = 0

        def progress(key: str, metrics: dict[str, float]) -> None:
            nonlocal epochs
            epochs += 1
            if epochs == stop_after:
                raise KeyboardInterrupt

        failed = run_local(study, left, storage, progress)
        assert not failed, failed
        return left

    return once


@pytest.fixture
def run(toy_store: Store, tracking: Tracking, lifter: Settings, tmp_path: Path) -> Run:
    return runner(toy_store, tracking, lifter, tmp_path / "state")


def named(tracking: Tracking) -> dict[str, str]:
    """Run name -> run id of all live trials."""
    return {trial.tags["mlflow.runName"]: trial.run_id for trial in tracking.trials().values()}


def model_of(tracking: Tracking, run_id: str) -> Any:
    with tracking.fetched(run_id, MODEL_ARTIFACT) as file:
        return checkpoint.load_model(file)[0]


@pytest.fixture(scope="module")
def chain(toy_store: Store, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Tracking]:
    """A study of the refiner that has run, in an experiment of its own, for tests that only add to it."""
    tracking = Tracking.open(tracking_uri, "refiner chain")
    run = runner(toy_store, tracking, Settings.from_plain(TINY), tmp_path_factory.mktemp("chain"))
    left = run(Settings.from_plain(REFINER))
    assert names(left) == CHAIN
    return run, tracking


def names(left: list[Work]) -> list[str]:
    return [item.stage.name for item in left]


def test_chain_trains_each_once_and_shares(chain: tuple[Run, Tracking], refiner: Settings, lifter: Settings) -> None:
    run, tracking = chain
    runs = named(tracking)
    last = tracking.trial(runs[CHAIN[-1]])
    assert last.tags[UPSTREAM] == runs["tiny on none"]
    assert last.tags[FOLDS] == f"{runs[CHAIN[1]]},{runs[CHAIN[2]]}"
    assert last.status == "FINISHED"
    assert {"test none/mpjpe_mm", "train/loss"} <= last.metrics.keys()
    assert last.params["folds"] == "['A', 'B']"
    assert run(refiner) == []
    assert named(tracking) == runs
    # other refiners of the same lifter, the lifter as a member, and a fold by its own settings share what is there
    other = Settings.from_plain({**refiner.plain(), "name": "other", "model": {**refiner.model, "diffusion": False}})
    assert names(run(refiner, other)) == ["other on none"]
    assert [(item.stage.name, item.train) for item in run(lifter, refiner)] == [("tiny on none", False)]
    assert [(item.stage.name, item.train) for item in run(lifter.leaving_out("B"))] == [(CHAIN[2], False)]


def test_folds_are_unseen_and_settle_the_noise(
    chain: tuple[Run, Tracking], refiner: Settings, toy_store: Store
) -> None:
    _, tracking = chain
    runs = named(tracking)
    model = model_of(tracking, runs["tiny refiner on none"])
    assert isinstance(model, D3PRefiner)
    errors, given = [], []
    windows = epoch_windows(toy_store, refiner, 0)
    for subject in ("A", "B"):
        fold = model_of(tracking, runs[f"tiny without {subject} on none"])
        mine = windows[np.array([toy_store.sequences[i].subject == subject for i in windows.sequence])]
        keypoints, poses = gather(toy_store, mine)
        with torch.no_grad():
            lifted = fold.head(fold.features(torch.from_numpy(keypoints))).numpy()
        errors.append((lifted - poses).reshape(-1, 51))
        given.append(np.concatenate([keypoints.reshape(-1, 34), lifted.reshape(-1, 51)], 1))
    error, known = np.concatenate(errors).astype(np.float64), np.concatenate(given).astype(np.float64)
    # the loop leaves out the last incomplete batch of 8 windows
    share = len(windows) // 8 * 8 / len(windows)
    assert share > 0.9
    np.testing.assert_allclose(model.noise.deviation, error.std(0), rtol=0.08)
    np.testing.assert_allclose(model.noise.error, error.mean(0), atol=0.08 * error.std(0).max())
    np.testing.assert_allclose(model.noise.given, known.mean(0), atol=0.05)
    # the lifter itself, trained on both, errs otherwise
    own = model.conditioner
    with torch.no_grad():
        keypoints, poses = gather(toy_store, windows)
        seen = (own.head(own.features(torch.from_numpy(keypoints))).numpy() - poses).reshape(-1, 51)  # type: ignore[operator]
    assert np.abs(np.log(model.noise.deviation.numpy() / seen.std(0))).max() > 0.08


def test_without_folds_the_lifters_own_errors_settle_the_noise(
    chain: tuple[Run, Tracking], refiner: Settings, toy_store: Store
) -> None:
    run, tracking = chain
    assert refiner.conditioner is not None
    plain = replace(refiner, name="plain", conditioner=replace(refiner.conditioner, folds=False))
    assert names(run(plain)) == ["plain on none"], "without folds it is another training"
    model = model_of(tracking, named(tracking)["plain on none"])
    keypoints, poses = gather(toy_store, epoch_windows(toy_store, plain, 0))
    with torch.no_grad():
        lifted = model.conditioner.head(model.conditioner.features(torch.from_numpy(keypoints))).numpy()
    np.testing.assert_allclose(model.noise.deviation, (lifted - poses).reshape(-1, 51).std(0), rtol=0.08)


def test_deleted_fold_is_trained_again_with_the_refiner(run: Run, tracking: Tracking, refiner: Settings) -> None:
    run(refiner)
    before = named(tracking)
    tracking.delete(before[CHAIN[1]])
    assert names(run(refiner)) == [CHAIN[1], CHAIN[3]]
    after = named(tracking)
    assert {name for name in CHAIN if before[name] != after[name]} == {CHAIN[1], CHAIN[3]}
    assert run(refiner) == []


@pytest.mark.parametrize("stop_after", [3, 7])
def test_killed_chain_continues_and_ends_like_an_undisturbed_one(
    run: Run,
    tracking: Tracking,
    refiner: Settings,
    lifter: Settings,
    stop_after: int,
    toy_store: Store,
    tmp_path: Path,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(refiner, stop_after=stop_after)
    run(refiner)
    undisturbed = Tracking.open(tracking.uri, f"{tracking.experiment} undisturbed")
    runner(toy_store, undisturbed, lifter, tmp_path / "other state")(refiner)
    reference = undisturbed.trials()
    killed = tracking.trials()
    assert len(killed) == 4
    for key, trial in killed.items():
        assert trial.status == "FINISHED"
        same = {name: value for name, value in trial.metrics.items() if not name.startswith(("time/", "cost/"))}
        assert same == {
            name: v for name, v in reference[key].metrics.items() if not name.startswith(("time/", "cost/"))
        }


def test_failed_fold_holds_the_refiner_back(
    toy_store: Store, tracking: Tracking, refiner: Settings, lifter: Settings, tmp_path: Path
) -> None:
    stages = build_stages([refiner], NONE, NONE, [0], lambda _: lifter, toy_store)
    work = remaining_work(stages, tracking.trials(), toy_store.content_hash)
    other = replace(lifter, data=replace(lifter.data, leave_out=("nobody",)))
    work[1] = replace(work[1], stage=replace(work[1].stage, settings=other))
    failed = run_local(open_study("s", toy_store, tracking, {}, ""), work, tmp_path, lambda _key, _metrics: None)
    assert list(failed) == [work[1].stage.key, work[3].stage.key]
    assert failed[work[3].stage.key] == "its conditioner failed"


def test_finished_run_is_refined_as_it_is(run: Run, tracking: Tracking, refiner: Settings, lifter: Settings) -> None:
    unlike = replace(lifter, name="unlike", training=replace(lifter.training, lr=2e-3, seed=5))
    run(replace(unlike, training=replace(unlike.training, seed=0)))
    lifter_run = named(tracking)["unlike on none"]
    assert refiner.conditioner is not None
    of_run = replace(refiner, conditioner=replace(refiner.conditioner, recipe="", run=lifter_run))
    left = run(of_run)
    # folds follow the run's own settings
    assert names(left) == ["unlike without A on none", "unlike without B on none", "tiny refiner on none"]
    assert all(item.stage.settings.training.lr == 2e-3 for item in left[:2])
    trial = tracking.trials()[left[-1].stage.key]
    assert trial.tags[UPSTREAM] == lifter_run
    refined, plain = model_of(tracking, trial.run_id), model_of(tracking, lifter_run)
    assert all(refined.conditioner.state_dict()[name].equal(value) for name, value in plain.state_dict().items())
    by_name = replace(refiner, conditioner=replace(refiner.conditioner, recipe="", run="unlike on none"))
    assert run(by_name) == []


def test_run_of_a_wrapper_is_refined_and_its_folds_have_conditioners_of_their_own(
    run: Run, tracking: Tracking, refiner: Settings, lifter: Settings, wrapper_settings: Settings
) -> None:
    short = replace(wrapper_settings.training, epochs=1, select="last")
    run(replace(wrapper_settings, training=short))
    assert refiner.conditioner is not None
    of_run = replace(refiner, conditioner=replace(refiner.conditioner, recipe="", run="tiny wrapper on none"))
    assert names(run(of_run)) == [
        "tiny without A on none",
        "tiny wrapper without A on none",
        "tiny without B on none",
        "tiny wrapper without B on none",
        "tiny refiner on none",
    ]


def test_runs_that_cannot_be_refined_are_named(
    run: Run, tracking: Tracking, refiner: Settings, lifter: Settings, toy_store: Store
) -> None:
    assert refiner.conditioner is not None

    def of_run(name: str) -> Settings:
        assert refiner.conditioner is not None
        return replace(refiner, conditioner=replace(refiner.conditioner, run=name))

    with pytest.raises(ValueError, match="run 'nothing' is not in"):
        run(of_run("nothing"))
    with pytest.raises(KeyboardInterrupt):
        run(lifter, stop_after=1)
    unfinished = named(tracking)["tiny on none"]
    with pytest.raises(ValueError, match=r"without a trained model .* finish its training"):
        run(of_run(unfinished))
    run(lifter, replace(lifter, training=replace(lifter.training, lr=5e-3)))
    with pytest.raises(ValueError, match=r"names 2 trained runs: .* Give the id of one"):
        run(of_run("tiny on none"))
    with pytest.raises(ValueError, match=r"where no runs are looked up"):
        build_stages([of_run(unfinished)], NONE, NONE, [0], lambda _: lifter, toy_store)
    other_windows = replace(of_run(unfinished), data=replace(refiner.data, frames=7))
    with pytest.raises(ValueError, match=r"data.frames = 7, its conditioner tiny with 9"):
        run(other_windows)


def test_run_of_another_skeleton_is_refused(refiner: Settings, lifter: Settings, toy_store: Store) -> None:
    trial = Trial(run_id="r", key="k", status="FINISHED", tags={TRAINED: "true"}, metrics={}, params={})
    other = FinishedRun(trial=trial, settings=lifter, skeleton="other_5")
    assert refiner.conditioner is not None
    of_run = replace(refiner, conditioner=replace(refiner.conditioner, run="r"))
    with pytest.raises(ValueError, match=r"run r, whose skeleton is other_5; store .* has h36m_17"):
        build_stages([of_run], NONE, NONE, [0], lambda _: lifter, toy_store, lambda _: other)
    untracked = FinishedRun(trial=replace(trial, key=""), settings=lifter, skeleton="h36m_17")
    stages = build_stages([of_run], NONE, NONE, [0], lambda _: lifter, toy_store, lambda _: untracked)
    assert next(iter(stages)) == "run r"
    assert [item.done for item in remaining_work(stages, {}, toy_store.content_hash)] == [True, False, False, False]


def test_folds_need_subjects_to_leave_out(
    refiner: Settings, lifter: Settings, lifter_settings: Settings, toy_store: Store
) -> None:
    alone = lifter.leaving_out("A")
    with pytest.raises(ValueError, match=r"trains on 1 subject .* conditioner.folds = false"):
        build_stages([refiner], NONE, NONE, [0], lambda _: alone, toy_store)
    # held-out recordings of a subject that is left out must not select either
    check_stage(toy_store, lifter_settings.leaving_out("A"), [])
    with pytest.raises(ValueError, match=r"without B there are none: .* Set training.select"):
        check_stage(toy_store, lifter_settings.leaving_out("B"), [])
    with pytest.raises(ValueError, match=r'subject "C" of data.leave_out has no training recordings .* Allowed: A, B'):
        check_stage(toy_store, lifter_settings.leaving_out("C"), [])


def test_refiner_that_leaves_out_a_subject_has_a_lifter_that_does(
    refiner: Settings, lifter: Settings, toy_store: Store
) -> None:
    assert refiner.conditioner is not None
    plain = replace(refiner, conditioner=replace(refiner.conditioner, folds=False))
    stages = build_stages([plain.leaving_out("A")], NONE, NONE, [0], lambda _: lifter, toy_store)
    assert [stage.settings.data.leave_out for stage in stages.values()] == [("A",), ("A",)]


def test_fingerprints_of_runs_without_folds_are_what_they_were(lifter: Settings, refiner: Settings) -> None:
    # of the tiny lifter when runs had neither folds nor subjects that are left out
    assert lifter.training_fingerprint("data") == "90250fa4a56be4a4"
    keys = {
        one.training_fingerprint("data")
        for one in (
            lifter,
            lifter.leaving_out("A"),
            lifter.leaving_out("B"),
            replace(refiner, upstream=lifter.plain()),
            replace(refiner, upstream=lifter.plain(), folds=("A", "B")),
            replace(refiner, upstream=lifter.plain(), folds=("A",)),
            replace(refiner, upstream=lifter.plain(), upstream_key="0" * 16),
        )
    }
    assert len(keys) == 7
    own = lifter.training_fingerprint("data")
    first = replace(refiner, upstream=lifter.plain(), upstream_key=own)
    assert first.training_fingerprint("data") == replace(first, upstream_key="").training_fingerprint("data")
    assert lifter.evaluation_fingerprint(NONE[0], "d") == lifter.leaving_out("A").evaluation_fingerprint(NONE[0], "d")


def test_leaving_out_concerns_training_alone(toy_store: Store) -> None:
    left = toy_store.leaving_out(("B",))
    assert {left.sequences[index].subject for index in left.of_split("train")} == {"A"}
    assert left.of_split("test") == toy_store.of_split("test")
    assert not [one for one in left.sequences if one.split == "held_out"]
    assert toy_store.leaving_out(()) is toy_store
    assert [toy_store.subjects[number] for number in toy_store.subject_of] == [s.subject for s in toy_store.sequences]


@pytest.mark.parametrize(
    ("conditioner", "message"),
    [
        ({}, "neither recipe nor run is given"),
        ({"recipe": "tiny", "occlusion": "some"}, "key occlusion"),
    ],
)
def test_conditioner_tables_that_are_wrong(refiner: Settings, conditioner: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.from_plain({**refiner.plain(), "conditioner": conditioner})


def test_folds_are_for_refiners(wrapper_settings: Settings) -> None:
    plain = wrapper_settings.plain()
    plain["conditioner"] = {"recipe": "tiny", "folds": True}
    with pytest.raises(ValueError, match=r'folds = true is given, but model "diffhpe" .* refiners'):
        Settings.from_plain(plain)
