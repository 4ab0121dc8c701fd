"""What is scored under each protocol, with a model that knows which frame it sees."""

from dataclasses import replace
from pathlib import Path

import gang
import numpy as np
import pytest
import torch
from torch import Tensor
from untrained import Untrained

from posegrid.datasets.centred_windows import grid_windows
from posegrid.datasets.store import Store
from posegrid.models.interface import Batch
from posegrid.orchestration.batches import Masks, steps_per_epoch, training_batches
from posegrid.orchestration.evaluation import evaluate
from posegrid.orchestration.lifting import lifted_windows
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


class Doubles(Untrained):
    """Returns twice the keypoints as poses, so that a prediction tells which frames were seen."""

    def __init__(self, output_frame: int | None = None) -> None:
        super().__init__()
        self.output_frame = output_frame
        self.calls = 0

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


def in_pairs(settings: Settings, batch: int = 8) -> Settings:
    training = replace(settings.training, flip_pairs=True, grid=9, batch=batch)
    return replace(settings, training=training).with_occlusion({"pattern": "arm_leg"})


def test_pairs_stand_side_by_side_with_one_mask(toy_store: Store, lifter_settings: Settings) -> None:
    settings = in_pairs(lifter_settings)
    masks = Masks(toy_store, settings.occlusion)
    batches = list(training_batches(toy_store, settings, masks, 0, Workers()))
    windows = grid_windows(toy_store, ("train",), 9, 9)
    assert len(batches) == steps_per_epoch(toy_store, settings) == 2 * len(windows) // 8
    mirror = list(toy_store.skeleton.mirror)
    seen = set()
    for batch in batches:
        poses, keypoints, visible = (value.numpy() for value in (batch.poses, batch.keypoints, batch.visible))  # type: ignore[union-attr]
        np.testing.assert_array_equal(poses[1::2], poses[::2][:, :, mirror] * np.float32([-1, 1, 1]))
        np.testing.assert_array_equal(visible[1::2], visible[::2])
        both = visible[::2] & visible[::2][:, :, mirror]
        assert 0.3 < both.mean() < 1
        image = keypoints[::2][:, :, mirror] * np.float32([-1, 1])
        np.testing.assert_array_equal(keypoints[1::2][both], image[both])
        assert not keypoints[~visible].any()
        seen |= {pose.tobytes() for pose in poses[::2]}
    assert len(seen) == len(windows) // 4 * 4


def test_pairs_are_the_same_for_any_number_of_workers(toy_store: Store, lifter_settings: Settings) -> None:
    settings = in_pairs(lifter_settings)
    masks = Masks(toy_store, settings.occlusion)

    def epoch(workers: Workers) -> list[Batch]:
        return list(training_batches(toy_store, settings, masks, 1, workers))

    whole, shares = epoch(Workers()), [epoch(Workers(rank=rank, world=2)) for rank in range(2)]
    for alone, first, second in zip(whole, *shares, strict=True):
        for name in ("keypoints", "visible", "poses"):
            for rank, part in enumerate((first, second)):
                assert getattr(part, name).equal(getattr(alone, name)[rank::2])


@pytest.mark.parametrize("wrong", [{"flip": True}, {"batch": 7}])
def test_pairs_need_an_even_batch_and_no_second_list(lifter_settings: Settings, wrong: dict) -> None:
    with pytest.raises(ValueError, match="pairs need an even batch, and are instead of flip"):
        replace(lifter_settings.training, **{"flip_pairs": True, "batch": 8, **wrong})


def uplift_settings(lifter_settings: Settings) -> Settings:
    """A tiny Uplift and Upsample: nine tokens, two frames apart, every second or fourth with a pose."""
    model = {"name": "uplift_upsample", "width": 16, "spatial_width": 4, "spatial_depth": 1, "temporal_depth": 2}
    model |= {"heads": 2, "strides": [3, 3], "paddings": [0, 0]}
    training = {"epochs": 2, "batch": 32, "lr": 1e-3, "grid": 5, "flip_pairs": True, "optimizer": "adamw", "ema": 0.9}
    plain = lifter_settings.plain() | {"model": model, "data": {"frames": 9, "stride": 2, "tail": "keep"}}
    plain |= {"training": {**training, "select": "last"}, "occlusion": {"pattern": "sparse_frames", "strides": [4, 8]}}
    plain["evaluation"] = {"score": "centre", "lift_every": 2, "batch": 90, "flip": True}
    return Settings.from_plain(plain, "test")


def test_sparse_frames_are_scored_on_the_frame_numbers_of_the_video(
    toy_store: Store, lifter_settings: Settings
) -> None:
    """Frames divisible by the stride of the tokens are lifted, from windows whose poses lie on the video's grid."""

    class Sees(Doubles):
        def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
            self.calls += len(batch.keypoints)
            seen.append(batch.visible.any(-1))
            return torch.zeros(len(batch.keypoints), 1, 1, 17, 3)

    settings = scored(uplift_settings(lifter_settings), flip=False)
    seen: list[Tensor] = []
    model, masks = Sees(4), Masks(toy_store, {"pattern": "sparse_frames", "strides": [8], "shift": "video"})
    lifted = [one for one in lifted_windows(model, toy_store, settings, masks, "test", Workers())]
    # tokens 8 frames apart of 17 frames: two or three have a pose
    counts = torch.cat(seen).sum(1)
    assert set(counts.tolist()) == {2, 3}
    for one in lifted:
        frame = one.windows.start[:, None] + np.arange(9)
        length = toy_store.lengths[one.windows.sequence][:, None]
        known = (frame % 8 == 0) & (frame < length)
        np.testing.assert_array_equal(one.visible.any(-1) & one.windows.weight, known & one.windows.weight)
    with pytest.raises(ValueError, match=r"evaluation\.lift_every = 2"):
        list(lifted_windows(model, toy_store, scored(settings, lift_every=1), masks, "test", Workers()))


@pytest.mark.slow
def test_two_workers_train_on_pairs_and_score_every_frame_like_one(
    toy_store: Store, lifter_settings: Settings, wrapper_settings: Settings, tmp_path: Path
) -> None:
    every = {**wrapper_settings.plain(), "model": {"name": "diffhpe", "channels": 8, "blocks": 2, "steps": 4}}
    every |= {"conditioner": None, "training": {"epochs": 1, "batch": 8, "lr": 1e-3, "flip": True, "grid": 9}}
    every["evaluation"] = {"score": "centre", "lift_every": 2, "batch": 45, "every": 3, "flip": True}
    asked = {"pairs": uplift_settings(lifter_settings), "every frame": Settings.from_plain(every)}
    found = gang.run(toy_store, {name: (2, settings) for name, settings in asked.items()}, tmp_path)
    for name, settings in asked.items():
        alone = gang.trained(Workers(), settings, toy_store)
        assert found[name]["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        assert found[name]["metrics"] == pytest.approx(alone["metrics"], rel=1e-3)


@pytest.mark.parametrize("tail", ["keep", "drop", "overlap"])
@pytest.mark.parametrize("stride", [1, 2])
def test_windows_a_whole_window_apart_score_as_whole_windows(
    toy_store: Store, lifter_settings: Settings, stride: int, tail: str
) -> None:
    """No frame is in two windows, but for the last ones of a recording, where the mask is that of the first."""
    settings = replace(lifter_settings, data=replace(lifter_settings.data, tail=tail, stride=stride))
    masks = Masks(toy_store, {"pattern": "arm_leg"})
    both = []
    for protocol in ({"score": "window"}, {"score": "overlap", "shift": 9, "batch": 5}):
        found: dict[tuple[int, int], tuple] = {}
        for one in lifted_windows(NoNoise(), toy_store, scored(settings, **protocol), masks, "test", Workers()):
            for row in range(len(one.windows)):
                place = (int(one.windows.sequence[row]), int(one.windows.start[row]))
                found[place] = (one.predicted[row], one.visible[row], one.windows.weight[row])
        both.append(found)
    assert list(both[0]) == list(both[1])
    for place, (predicted, visible, weight) in both[0].items():
        if weight.all() and tail != "overlap":
            np.testing.assert_array_equal(both[1][place][1], visible)
            np.testing.assert_allclose(both[1][place][0], predicted, atol=1e-6)
        np.testing.assert_array_equal(both[1][place][2], weight)


class NoNoise(Doubles):
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        assert batch.poses is not None
        depth = torch.zeros_like(batch.keypoints[..., :1])
        return torch.cat([2 * batch.keypoints, depth], -1)[:, None].repeat(1, hypotheses, 1, 1, 1)


@pytest.mark.parametrize("shift", [0, 1, 2, 4, 5, 7])
def test_a_frame_is_the_mean_over_all_windows_that_show_it(
    toy_store: Store, lifter_settings: Settings, shift: int
) -> None:
    class Place(NoNoise):
        """Returns the frame's number within the window."""

        def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
            return torch.arange(9.0)[None, None, :, None, None].expand(len(batch.keypoints), 1, 9, 17, 3)

    settings = replace(lifter_settings, data=replace(lifter_settings.data, tail="keep"))
    settings = scored(settings, score="overlap", shift=shift, batch=4)
    masks, step = Masks(toy_store, {"pattern": "none"}), shift or 4
    seen = 0
    for one in lifted_windows(Place(), toy_store, settings, masks, "test", Workers()):
        for row, (index, start) in enumerate(zip(one.windows.sequence, one.windows.start, strict=True)):
            last = int(toy_store.lengths[index]) - 9
            starts = sorted({*range(0, last, step), last})
            for frame in range(9):
                places = [start + frame - first for first in starts if first <= start + frame < first + 9]
                assert one.predicted[row, frame, 0, 0] == pytest.approx(np.mean(places))
                seen += 1
    assert seen >= toy_store.lengths[toy_store.of_split("test")].sum()


def test_only_windows_that_show_a_scored_frame_are_lifted(toy_store: Store, lifter_settings: Settings) -> None:
    models = {every: Doubles() for every in (1, 4)}
    for every, model in models.items():
        settings = scored(lifter_settings, score="overlap", shift=3, every=every)
        evaluate(model, toy_store, settings, {"pattern": "leg_run"}, Workers())
    assert 0 < models[4].calls < 0.6 * models[1].calls


def test_windows_further_apart_than_their_length_are_refused(toy_store: Store, lifter_settings: Settings) -> None:
    settings = scored(lifter_settings, score="overlap", shift=10)
    with pytest.raises(ValueError, match=r"evaluation\.shift = 10 .* data\.frames = 9"):
        evaluate(Doubles(), toy_store, settings, {"pattern": "none"}, Workers())
    with pytest.raises(ValueError, match='shift = 3 needs score = "overlap"'):
        scored(lifter_settings, shift=3)
    with pytest.raises(ValueError, match=r'evaluation\.score = "centre"'):
        evaluate(Doubles(4), toy_store, scored(lifter_settings, score="overlap"), {"pattern": "none"}, Workers())


def test_two_workers_share_recordings_of_overlapping_windows(toy_store: Store, lifter_settings: Settings) -> None:
    settings = scored(lifter_settings, score="overlap", batch=7, hypotheses=2)
    masks = Masks(toy_store, {"pattern": "frame_run"})

    def found(workers: Workers) -> dict[tuple[int, int], np.ndarray]:
        lifted = lifted_windows(Doubles(), toy_store, settings, masks, "test", workers)
        return {
            (int(one.windows.sequence[row]), int(one.windows.start[row])): one.hypotheses[row]
            for one in lifted
            for row in range(len(one.windows))
        }

    whole = found(Workers())
    shares = [found(Workers(rank=rank, world=2)) for rank in range(2)]
    assert all(shares)
    assert not set(shares[0]) & set(shares[1])
    together = shares[0] | shares[1]
    assert set(together) == set(whole)
    for place, values in whole.items():
        np.testing.assert_array_equal(together[place], values)
