"""What is scored under each protocol, with a model that knows which frame it sees."""

from dataclasses import replace
from pathlib import Path

import gang
import numpy as np
import pytest
import torch
from torch import Tensor

from posegrid.datasets.centred_windows import grid_windows
from posegrid.datasets.store import Store
from posegrid.models.interface import Batch, Lifter
from posegrid.orchestration.batches import Masks, training_batches
from posegrid.orchestration.evaluation import evaluate
from posegrid.orchestration.lifting import lifted_windows
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


class Doubles(Lifter):
    """Returns twice the keypoints as poses, so that a prediction tells which frames were seen."""

    def __init__(self, output_frame: int | None = None) -> None:
        super().__init__()
        self.output_frame = output_frame
        self.calls = 0

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        raise NotImplementedError

    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        self.calls += len(batch.keypoints)
        poses = torch.cat([2 * batch.keypoints, torch.zeros_like(batch.keypoints[..., :1])], -1)[:, None]
        noise = batch.draw(lambda count: torch.randn(count, generator=generator))
        poses = poses + 1e-3 * noise[:, None, None, None, None]
        return poses if self.output_frame is None else poses[:, :, self.output_frame, None]


def scored(settings: Settings, **changes: object) -> Settings:
    return replace(settings, evaluation=replace(settings.evaluation, **changes))


@pytest.mark.parametrize("output_frame", [None, 4, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_frame_is_lifted_from_its_own_window(
    toy_store: Store, lifter_settings: Settings, output_frame: int | None, stride: int
) -> None:
    settings = replace(lifter_settings, data=replace(lifter_settings.data, tail="keep", stride=stride))
    model, masks = Doubles(output_frame), Masks(toy_store, {"pattern": "none"})
    counted = 0
    for lifted in lifted_windows(model, toy_store, scored(settings, score="centre"), masks, "test", Workers()):
        np.testing.assert_allclose(lifted.predicted[..., :2], 2 * lifted.keypoints, atol=6e-3)
        counted += int(lifted.windows.weight.sum())
    assert counted == toy_store.lengths[toy_store.of_split("test")].sum()
    assert model.calls >= counted


def test_frames_between_lifted_ones_are_interpolated(toy_store: Store, lifter_settings: Settings) -> None:
    settings = scored(lifter_settings, score="centre", lift_every=3, batch=18)
    masks = Masks(toy_store, {"pattern": "none"})
    index = toy_store.of_split("test")[0]
    sequence = toy_store.sequences[index]
    truth = 2.0 * toy_store.keypoints[sequence.offset : sequence.offset + sequence.frames].astype(np.float64)
    frames = np.arange(sequence.frames)
    kept = frames[::3]
    for lifted in lifted_windows(Doubles(), toy_store, settings, masks, "test", Workers()):
        for row, start in enumerate(lifted.windows.start):
            if lifted.windows.sequence[row] != index:
                continue
            wanted = np.stack(
                [np.interp(np.arange(start, start + 9), kept, truth[kept, 5, axis]) for axis in (0, 1)], -1
            )
            np.testing.assert_allclose(lifted.predicted[row, :, 5, :2], wanted, atol=6e-3)


def test_a_model_of_one_frame_refuses_whole_windows(toy_store: Store, lifter_settings: Settings) -> None:
    with pytest.raises(ValueError, match=r'evaluation\.score = "centre"'):
        evaluate(Doubles(4), toy_store, lifter_settings, {"pattern": "none"}, Workers())


def test_flip_averaging_of_an_equivariant_model_changes_nothing(toy_store: Store, lifter_settings: Settings) -> None:
    class Exact(Doubles):
        def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
            self.calls += len(batch.keypoints)
            return torch.cat([batch.keypoints, batch.keypoints[..., 1:]], -1)[:, None]

    plain, flipped = Exact(), Exact()
    first = evaluate(plain, toy_store, lifter_settings, {"pattern": "arm_leg"}, Workers()).sums.action_wise()
    second = evaluate(
        flipped, toy_store, scored(lifter_settings, flip=True), {"pattern": "arm_leg"}, Workers()
    ).sums.action_wise()
    assert first == pytest.approx(second, rel=1e-6)
    assert flipped.calls == 2 * plain.calls


def test_mirrored_copies_double_the_epoch(toy_store: Store, lifter_settings: Settings) -> None:
    training = replace(lifter_settings.training, flip=True, grid=9, batch=1)
    settings = replace(lifter_settings, training=training)
    batches = list(training_batches(toy_store, settings, Masks(toy_store, {"pattern": "none"}), 0, Workers()))
    windows = grid_windows(toy_store, ("train",), 9, 9)
    assert len(batches) == 2 * len(windows)
    seen = {batch.poses.numpy().round(5).tobytes() for batch in batches}  # type: ignore[union-attr]
    mirror = list(toy_store.skeleton.mirror)
    for batch in batches:
        image = batch.poses.numpy()[:, :, mirror] * np.float32([-1, 1, 1])  # type: ignore[union-attr]
        assert (image.round(5) + np.float32(0)).tobytes() in {
            (np.frombuffer(one, np.float32) + np.float32(0)).tobytes() for one in seen
        }


@pytest.mark.slow
def test_two_workers_score_every_frame_like_one(toy_store: Store, wrapper_settings: Settings, tmp_path: Path) -> None:
    lifter = {**wrapper_settings.plain(), "model": {"name": "diffhpe", "channels": 8, "blocks": 2, "steps": 4}}
    lifter |= {"conditioner": None, "training": {"epochs": 1, "batch": 8, "lr": 1e-3, "flip": True, "grid": 9}}
    lifter["evaluation"] = {"score": "centre", "lift_every": 2, "batch": 45, "every": 3, "flip": True}
    found = []
    for world in (1, 2):
        out = tmp_path / f"{world}.pt"
        gang.run(world, gang.train_and_score, str(toy_store.path), lifter, str(out))
        found.append(torch.load(out, weights_only=True))
    assert found[0]["losses"] == pytest.approx(found[1]["losses"], rel=1e-4)
    assert found[0]["metrics"] == pytest.approx(found[1]["metrics"], rel=1e-3)
