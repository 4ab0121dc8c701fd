"""Starting from the weights of another run: what identifies it, what is refused, what a kill and a finer start do."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import filmed
import pytest
import torch

from posegrid.datasets.cameras import h36m_cameras
from posegrid.datasets.store import Store
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.grid import Study, Work, build_stages, open_study, remaining_work
from posegrid.orchestration.initial import INITIAL, digest, load_initial, with_initial
from posegrid.orchestration.launch.local import run_local
from posegrid.orchestration.loop import train
from posegrid.orchestration.recipe_tables import InitialSettings
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import Tracking
from posegrid.orchestration.workers import Workers

NONE = {"pattern": "none"}
Run = Callable[..., list[Work]]


def start(settings: Settings, source: object, **training: Any) -> Settings:
    """The same recipe with initial weights and other training."""
    changed = replace(settings.training, **training)
    return replace(settings, name="fine", training=changed, initial=InitialSettings(source=str(source)))


@pytest.fixture
def run(toy_store: Store, tracking: Tracking, tmp_path: Path) -> Run:
    """Plans and runs one recipe on the toy store; returns what was left to do."""

    def once(settings: Settings, stop_after: int | None = None) -> list[Work]:
        ready = with_initial(settings, toy_store, lambda: tracking)
        stages = build_stages([ready], [NONE], [NONE], [0], lambda _: ready, toy_store)
        work = remaining_work(stages, tracking.trials(), toy_store.content_hash)
        study: Study = open_study("s", toy_store, tracking, {}, "")
        left = [item for item in work if not item.done]
        epochs = 0

        def progress(key: str, metrics: dict[str, float]) -> None:
            nonlocal epochs
            epochs += 1
            if epochs == stop_after:
                raise KeyboardInterrupt

        failed = run_local(study, left, tmp_path / "state", progress)
        assert not failed
        return left

    return once


def only(tracking: Tracking, left: list[Work]) -> str:
    """Run id of the one stage."""
    return tracking.trials()[left[0].stage.key].run_id


def trained(store: Store, settings: Settings, tracking: Tracking) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss of the first epoch and the last weights, without a run."""
    torch.manual_seed(settings.training.seed)
    model = checkpoint.build(settings, pose_shape(store, settings.data))
    if settings.initial is not None:
        load_initial(model, settings, tracking)
    losses: list[float] = []
    weights = train(model, model, store, settings, Workers(), lambda found, _: losses.append(found["train/loss"]))
    return losses[0], weights


def weights_of(tracking: Tracking, run_id: str) -> dict[str, torch.Tensor]:
    """Weights that a run logged."""
    with tracking.fetched(run_id, "model/model.pt") as file:
        return copy.deepcopy(checkpoint.load_model(file)[0].state_dict())


def test_training_continues_from_the_weights_of_a_run(run: Run, tracking: Tracking, lifter_settings: Settings) -> None:
    source = only(tracking, run(lifter_settings))
    # a learning rate of nearly nothing leaves the weights as they were handed over
    left = run(start(lifter_settings, source, epochs=1, lr=1e-12, select="last"))
    fine = tracking.trials()[left[0].stage.key]
    before, after = weights_of(tracking, source), weights_of(tracking, fine.run_id)
    assert all(torch.allclose(before[name], after[name], atol=1e-8) for name in before)
    assert fine.tags[INITIAL] == source
    assert fine.params["initial.source"] == source
    assert fine.params["initial.key"] == tracking.trial(source).key
    assert fine.params["initial.digest"] == digest(before)
    assert fine.metrics["test none/mpjpe_mm"] == pytest.approx(tracking.trial(source).metrics["test none/mpjpe_mm"])
    assert run(start(lifter_settings, source, epochs=1, lr=1e-12, select="last")) == []


def test_identity_is_that_of_the_weights(
    run: Run, tracking: Tracking, lifter_settings: Settings, toy_store: Store, tmp_path: Path
) -> None:
    source = only(tracking, run(lifter_settings))
    other = only(tracking, run(replace(lifter_settings, training=replace(lifter_settings.training, epochs=1))))
    with tracking.fetched(source, "model/model.pt") as file:
        content = checkpoint.read(file)
    checkpoint.write(tmp_path / "copy.pt", content)  # the same weights in a file with other bytes

    def key(settings: Settings) -> str:
        ready = with_initial(settings, toy_store, lambda: tracking)
        return ready.training_fingerprint(toy_store.content_hash)

    assert key(start(lifter_settings, source)) == key(start(lifter_settings, tmp_path / "copy.pt"))
    keys = {key(lifter_settings), key(start(lifter_settings, source)), key(start(lifter_settings, other))}
    assert len(keys) == 3
    ready = with_initial(start(lifter_settings, tmp_path / "copy.pt"), toy_store, None)
    assert Settings.from_plain(ready.plain()) == ready
    # a wrapper built on it is another one too
    upstream = {"conditioner": None, "model": lifter_settings.model}
    wrappers = {
        replace(lifter_settings, upstream={**one.plain(), **upstream}).training_fingerprint("h")
        for one in (ready, lifter_settings)
    }
    assert len(wrappers) == 2


@pytest.mark.parametrize("stop_after", [1, 3])
def test_after_a_kill_the_checkpoint_counts(
    run: Run, tracking: Tracking, lifter_settings: Settings, stop_after: int, tmp_path: Path, toy_store: Store
) -> None:
    source = only(tracking, run(lifter_settings))
    with tracking.fetched(source, "model/model.pt") as file:
        checkpoint.write(tmp_path / "start.pt", checkpoint.read(file))
    fine = start(lifter_settings, tmp_path / "start.pt", epochs=4)
    planned = with_initial(fine, toy_store, None)
    with pytest.raises(KeyboardInterrupt):
        run(fine, stop_after=stop_after)
    left = run(fine)
    resumed = weights_of(tracking, only(tracking, left))
    _, undisturbed = trained(toy_store, planned, tracking)
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in resumed)


def test_what_does_not_fit_is_listed(
    run: Run, tracking: Tracking, lifter_settings: Settings, wrapper_settings: Settings, toy_store: Store
) -> None:
    source = only(tracking, run(lifter_settings))

    def refused(settings: Settings, match: str, where: Callable[[], Tracking] | None = lambda: tracking) -> None:
        with pytest.raises(ValueError, match=match):
            with_initial(start(settings, source), toy_store, where)

    deeper = replace(lifter_settings, model={**lifter_settings.model, "depth": 2})
    refused(deeper, rf'initial.source = "{source}" \(recipe fine\) has other weights .*missing: .*\(\d+\). \[model\]')
    longer = replace(lifter_settings, data=replace(lifter_settings.data, frames=11))
    refused(longer, r"other shape: frame_position \(9, 16\) instead of \(11, 16\) \(1\).*change them, or the source")
    refused(wrapper_settings, r"frozen conditioner.*remove \[initial\].*tiny:initial.source")
    refused(lifter_settings, "no runs are looked up here", None)


def test_sources_that_are_none_are_refused(
    tracking: Tracking, lifter_settings: Settings, toy_store: Store, tmp_path: Path
) -> None:
    untrained = tracking.open_trial("k", "n", tracking.open_study("s", {}, ""), {}, {})
    checkpoint.write(tmp_path / "state.pt", {"epoch": 1})
    for source, match in (
        (untrained, "without a trained model.*Finish its training"),
        ("0123", "is not in"),
        ("", "is empty: this recipe starts from .* --from RUN"),
        (tmp_path / "none.pt", "does not exist"),
        (tmp_path / "state.pt", "no posegrid model file"),
    ):
        with pytest.raises(ValueError, match=match):
            with_initial(start(lifter_settings, source), toy_store, lambda: tracking)


def test_a_file_that_changes_before_a_worker_reads_it_is_refused(
    tracking: Tracking, lifter_settings: Settings, toy_store: Store, tmp_path: Path
) -> None:
    shape = pose_shape(toy_store, lifter_settings.data)
    for name in ("planned", "other"):
        model = checkpoint.build(lifter_settings, shape)  # drawn anew
        content = checkpoint.model_file(lifter_settings, shape, model.state_dict(), {"skeleton": "h36m_17"})
        content["data"]["skeleton"] = toy_store.skeleton.name
        checkpoint.write(tmp_path / f"{name}.pt", content)
    ready = with_initial(start(lifter_settings, tmp_path / "planned.pt"), toy_store, None)
    load_initial(model, ready, tracking)
    (tmp_path / "other.pt").rename(tmp_path / "planned.pt")
    with pytest.raises(ValueError, match=r"other weights on this worker.*Give every node the same file"):
        load_initial(model, ready, tracking)


def test_another_skeleton_is_refused(lifter_settings: Settings, toy_store: Store, tmp_path: Path) -> None:
    shape = pose_shape(toy_store, lifter_settings.data)
    weights = checkpoint.build(lifter_settings, shape).state_dict()
    checkpoint.write(tmp_path / "m.pt", checkpoint.model_file(lifter_settings, shape, weights, {"skeleton": "other"}))
    with pytest.raises(ValueError, match=r"skeleton other, the store .* Use a store or a source"):
        with_initial(start(lifter_settings, tmp_path / "m.pt"), toy_store, None)


def test_pretraining_before_random_cameras_gives_a_better_start(tmp_path: Path, tracking: Tracking) -> None:
    """Motion seen by one camera, then that of other people seen by others, which one camera does not prepare for."""
    cameras = h36m_cameras()
    motion = [one for seed in range(4) for one in filmed.sequences("A", f"walk {seed}", cameras["S1"][:1], seed, 2)]
    known = filmed.write(tmp_path / "motion", motion)
    target = [
        *filmed.sequences("B", "walk 1", cameras["S7"][2:], 8, 2),
        *filmed.sequences("C", "walk 1", cameras["S9"], 9, 2),
    ]
    wanted = filmed.write(tmp_path / "target", target)
    before = Settings.from_plain(
        {
            "name": "before",
            "model": {"name": "mlp", "width": 48, "depth": 1},
            "data": {"frames": 9, "cameras": "random"},
            "training": {"epochs": 20, "batch": 16, "lr": 3e-3, "grid": 1, "flip_pairs": True, "select": "last"},
        }
    )
    first_losses = []
    for initial in (None, "stored", "random"):
        fine = replace(before, data=replace(before.data, cameras="stored"))
        fine = replace(fine, training=replace(fine.training, epochs=1, lr=1e-4))
        if initial is not None:
            chosen = replace(before, data=replace(before.data, cameras=initial))
            _, weights = trained(known, chosen, tracking)
            data = {"skeleton": known.skeleton.name}
            file = tmp_path / f"{initial}.pt"
            checkpoint.write(file, checkpoint.model_file(chosen, pose_shape(known, chosen.data), weights, data))
            fine = with_initial(replace(fine, initial=InitialSettings(source=str(file))), wanted, None)
        first_losses.append(trained(wanted, fine, tracking)[0])
    fresh, stored, random = first_losses
    print(first_losses)
    assert random < 0.5 * fresh
    assert random < 0.8 * stored
