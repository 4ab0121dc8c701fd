"""Errors of single frames, errors by speed, and strides that follow the speed, against plain loops."""

from dataclasses import replace
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import write_toy
from untrained import Untrained

from posegrid.datasets.metrics.speed import SpeedBins, adaptive_strides
from posegrid.datasets.store import Store
from posegrid.datasets.windows import Windows
from posegrid.models.interface import Batch, Lifter
from posegrid.orchestration import adaptive, checkpoint
from posegrid.orchestration.adaptive import Detections, StridePolicy, compare_policies, simulate, whole_windows
from posegrid.orchestration.batches import Masks, pose_shape
from posegrid.orchestration.evaluation import evaluate
from posegrid.orchestration.frame_errors import errors_of_frames, of_every_frame
from posegrid.orchestration.motion_speed import errors_by_speed, true_speeds
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers

POLICY = StridePolicy(short=4, long=8, threshold=0.05, hold=12)


@pytest.fixture
def uplift(lifter_settings: Settings) -> Settings:
    """A tiny Uplift and Upsample: nine tokens, two frames apart."""
    model: dict[str, Any] = {"name": "uplift_upsample", "width": 16, "spatial_width": 4, "spatial_depth": 1}
    model |= {"temporal_depth": 1, "heads": 2, "strides": [3, 3], "paddings": [0, 0]}
    plain = lifter_settings.plain() | {"model": model, "data": {"frames": 9, "stride": 2}}
    plain |= {"occlusion": {"pattern": "sparse_frames", "strides": [4, 8]}}
    plain["evaluation"] = {"score": "centre", "lift_every": 2, "batch": 270, "every": 3}
    return Settings.from_plain(plain, "test")


@pytest.fixture
def model(toy_store: Store, uplift: Settings) -> Lifter:
    torch.manual_seed(0)
    return checkpoint.build(uplift, pose_shape(toy_store, uplift.data)).eval()


class Sees(Untrained):
    """Returns the keypoints that it sees as poses, moved by `off` metres: what is hidden stays at the last seen place.

    Made for tests, it looks back along the window only.
    """

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.off = off

    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        seen = batch.visible.any(-1)
        order = torch.where(seen, torch.arange(seen.shape[1]), 0).cummax(1).values
        held = torch.take_along_dim(batch.keypoints, order[..., None, None], 1)
        poses = torch.cat([held, torch.zeros_like(held[..., :1])], -1)
        poses[..., 1:, 2] += self.off
        return poses[:, None]


class Exact(Sees):
    """Returns the truth, moved by `off` metres."""

    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        assert batch.poses is not None
        return batch.poses[:, None] + self.off


def test_errors_of_frames_are_those_of_the_evaluation(toy_store: Store, uplift: Settings, model: Lifter) -> None:
    pattern = {"pattern": "sparse_frames", "strides": [8], "shift": "video"}
    error = errors_of_frames(model, toy_store, uplift, Masks(toy_store, pattern))
    scores = evaluate(model, toy_store, of_every_frame(uplift), pattern, Workers()).sums
    assert 1000 * np.nanmean(error) == pytest.approx(scores.frame_wise()["mpjpe_mm"], rel=1e-9)
    test = np.concatenate([np.full(s.frames, s.split == "test") for s in toy_store.sequences])
    assert np.array_equal(np.isfinite(error), test)
    for index, action in ((6, "walk"), (7, "sit")):  # the test recordings, one of each action
        rows = slice(toy_store.offsets[index], toy_store.offsets[index] + toy_store.lengths[index])
        assert 1000 * error[rows].mean() == pytest.approx(scores.per_action()[action]["mpjpe_mm"], rel=1e-9)


def test_speeds_sort_errors_by_the_motion_of_the_truth(toy_store: Store, lifter_settings: Settings) -> None:
    speed = true_speeds(toy_store)
    first = toy_store.offsets
    assert np.isnan(speed[first]).all()
    poses = toy_store.poses.astype(np.float64)
    for row in (1, 40, int(first[3]) + 5):
        steps = [
            np.linalg.norm((poses[row, j] - poses[row, 0]) - (poses[row - 1, j] - poses[row - 1, 0])) for j in range(17)
        ]
        assert speed[row] == pytest.approx(50 * np.mean(steps))
    bins = SpeedBins(width=0.05, count=8)
    sums = errors_by_speed(Exact(0.003), toy_store, lifter_settings, {"pattern": "none"}, bins)
    filled = sums.frames() > 0
    assert sums.mpjpe_mm()[filled] == pytest.approx(3 * 3**0.5, rel=1e-4)  # the same in every bin
    tested = [index for index, s in enumerate(toy_store.sequences) if s.split == "test"]
    assert sums.frames().sum() == sum(toy_store.lengths[index] - 1 for index in tested)
    wanted = [0] * 9
    for index in tested:
        for row in range(first[index] + 1, first[index] + toy_store.lengths[index]):
            wanted[min(int(speed[row] // 0.05), 8)] += 1
    assert sums.frames().tolist() == wanted


def test_constant_detections_are_the_pattern_of_the_video(toy_store: Store) -> None:
    starts = np.arange(-8, 90, 2)
    windows = Windows(
        sequence=np.full(len(starts), 6), start=starts, weight=np.ones((len(starts), 9)), stride=np.full(len(starts), 2)
    )
    for stride in (4, 8):
        pattern = Masks(toy_store, {"pattern": "sparse_frames", "strides": [stride], "shift": "video"})
        strides = np.full(int(toy_store.lengths.sum()), stride)
        assert np.array_equal(Detections(toy_store, strides).visible(windows, 0), pattern.visible(windows, 0))


def test_windows_beside_the_detections_are_refused(toy_store: Store) -> None:
    windows = Windows(
        sequence=np.full(1, 6), start=np.array([3]), weight=np.ones((1, 9)), stride=np.full(1, 2, dtype=np.int64)
    )
    with pytest.raises(ValueError, match="lift_every"):
        Detections(toy_store, np.full(int(toy_store.lengths.sum()), 8)).visible(windows, 0)


def test_policies_of_one_stride_are_scored_as_usual(toy_store: Store, uplift: Settings, model: Lifter) -> None:
    short, long, both = compare_policies(model, toy_store, uplift, POLICY)
    lengths = [toy_store.lengths[index] for index in toy_store.of_split("test")]
    for one, stride in ((short, 4), (long, 8)):
        pattern = {"pattern": "sparse_frames", "strides": [stride], "shift": "video"}
        usual = evaluate(model, toy_store, of_every_frame(uplift), pattern, Workers()).sums.frame_wise()["mpjpe_mm"]
        assert one.mpjpe_mm == pytest.approx(usual, rel=1e-9)
        assert one.detections == sum(ceil(length / stride) for length in lengths)
    assert long.detections <= both.detections <= short.detections
    assert set(both.strides) <= {0, 4, 8}
    assert np.array_equal(both.strides > 0, np.isfinite(both.errors))


def replayed(store: Store, index: int, policy: StridePolicy, own: int, tokens: int) -> tuple[list[int], set[int]]:
    """One video frame by frame, as `Sees` estimates it: (stride in force at each frame, frames with a detection)."""
    keypoints = store.keypoints[store.offsets[index] : store.offsets[index] + store.lengths[index]].astype(np.float64)
    rate = store.sequences[index].frame_rate
    strides: list[int] = []
    detected: set[int] = set()
    last_fast = None
    for frame in range(len(keypoints)):
        fast = last_fast is not None and frame - 1 - last_fast < policy.hold
        if frame % policy.short == 0 or not strides:
            stride = policy.short if fast else policy.long
        strides.append(stride)
        if frame % stride:
            continue
        detected.add(frame)
        held, poses = None, []
        for step in range(tokens):
            at = frame - own * (tokens - 1 - step)
            # before the start the first frame is repeated, as often as the long stride asks
            if (at >= 0 and at in detected) or (at < 0 and at % policy.long == 0):
                held = keypoints[max(at, 0)]
            poses.append(np.zeros((17, 2)) if held is None else held)
        steps = [np.mean(np.linalg.norm((b - b[:1]) - (a - a[:1]), axis=-1)) * rate / own for a, b in pairwise(poses)]
        if max(steps[-(policy.long // own) :]) > policy.threshold:
            last_fast = frame
    return strides, detected


@pytest.mark.parametrize("threshold", [0.0, 0.08, 0.1, 0.12, 99.0])
def test_simulation_equals_a_frame_by_frame_replay(toy_store: Store, uplift: Settings, threshold: float) -> None:
    policy = replace(POLICY, threshold=threshold)
    indices = np.arange(8)
    strides, estimated = simulate(Sees(), toy_store, uplift, policy, indices, Workers())
    for index in indices:
        rows = slice(toy_store.offsets[index], toy_store.offsets[index] + toy_store.lengths[index])
        wanted, detected = replayed(toy_store, index, policy, 2, 9)
        assert strides[rows].tolist() == wanted
        assert set(np.flatnonzero(np.isfinite(estimated[rows]))) == detected
        # the documented rule, from the estimates of earlier frames
        rule = adaptive_strides(estimated[rows], slow=8, fast=4, threshold=threshold, hold=12)
        grid = np.arange(4, toy_store.lengths[index], 4)
        assert np.array_equal(strides[rows][grid], rule[grid - 1])
    if threshold == 99.0:
        assert set(strides) == {8}
    if threshold == 0.08:
        assert {4, 8} == set(strides)


def test_strides_do_not_look_ahead(toy_store: Store, uplift: Settings, tmp_path: Path) -> None:
    """A store that ends earlier gives the same strides until then."""
    early = write_toy(tmp_path / "store", frames=50)
    policy, indices = replace(POLICY, threshold=0.1), np.arange(8)
    whole, _ = simulate(Sees(), toy_store, uplift, policy, indices, Workers())
    part, _ = simulate(Sees(), early, uplift, policy, indices, Workers())
    for index in indices:
        frames = early.lengths[index]
        assert np.array_equal(part[early.offsets[index] :][:frames], whole[toy_store.offsets[index] :][:frames])
    assert len(set(part)) == 2


def test_the_sequence_face_has_the_weights_of_the_centre(toy_store: Store, uplift: Settings, model: Lifter) -> None:
    whole = whole_windows(model, toy_store, uplift).eval()
    assert whole.output_frame is None
    for name, value in model.state_dict().items():
        assert whole.state_dict()[name].equal(value)
    assert whole_windows(whole, toy_store, uplift) is whole
    centre = Sees()
    centre.output_frame = 4
    settings = replace(uplift, model={"name": "videopose3d"})
    with pytest.raises(ValueError, match="lifts one frame of a window"):
        whole_windows(centre, toy_store, settings)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"short": 3, "long": 9}, "an input stride of 3 frames does not fit windows"),
        ({"short": 4, "long": 20}, "an input stride of 20 frames does not fit windows"),
    ],
)
def test_strides_that_do_not_fit_the_windows(
    toy_store: Store, uplift: Settings, model: Lifter, changes: dict[str, int], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        compare_policies(model, toy_store, uplift, replace(POLICY, **changes))  # type: ignore[arg-type]


def test_a_model_that_never_missed_a_frame_is_refused(toy_store: Store, lifter_settings: Settings) -> None:
    with pytest.raises(ValueError, match="trained with pattern 'none'"):
        compare_policies(Sees(), toy_store, lifter_settings, POLICY)


@pytest.mark.parametrize("wrong", [{"short": 0}, {"long": 4}, {"long": 10}, {"hold": 0}, {"threshold": -1.0}])
def test_wrong_policies(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Change the one outside"):
        replace(POLICY, **wrong)


def test_recent_speed_covers_the_long_stride(toy_store: Store, uplift: Settings) -> None:
    """Motion between the last two detections counts, older motion does not."""
    strides = np.full(int(toy_store.lengths.sum()), 8)
    found = [
        adaptive._newest_speed(
            Sees(), toy_store, uplift, replace(POLICY, long=long), np.array([6]), 16, strides, Workers()
        )[0]
        for long in (8, 16)
    ]
    keypoints = toy_store.keypoints[toy_store.offsets[6] :].astype(np.float64)
    moved = [
        np.linalg.norm((keypoints[b] - keypoints[b, 0]) - (keypoints[a] - keypoints[a, 0]), axis=-1).mean() * 25
        for a, b in ((8, 16), (0, 8))
    ]
    assert found == pytest.approx([moved[0], max(moved)], rel=1e-5)
