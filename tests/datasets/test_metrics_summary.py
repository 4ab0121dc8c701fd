"""Sums of metrics: equal to naive loops, the same for any number of workers, splits and weights as documented."""

import re
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import pytest

from posegrid.datasets.metrics.coherence import CoherenceConfig
from posegrid.datasets.metrics.position import mpjpe, n_mpjpe, p_mpjpe
from posegrid.datasets.metrics.summary import METRICS, SPLITS, MetricSums
from posegrid.datasets.skeletons import H36M_17

ACTIONS = ("Eating", "Walking", "Sitting", "Waiting")
PUBLISHED = CoherenceConfig()


def windows_of(count: int = 40, frames: int = 9, seed: int = 0) -> dict[str, np.ndarray]:
    """Arguments of `MetricSums.add`: random poses, masks and weights; the last action never occurs."""
    generator = np.random.default_rng(seed)
    target = generator.normal(0, 0.3, (count, frames, 17, 3))
    return {
        "action_index": generator.integers(0, 3, count),
        "predicted": target + generator.normal(0, 0.05, target.shape),
        "target": target,
        "visible": generator.random((count, frames, 17)) > 0.2 * generator.integers(0, 2, (count, 1, 1)),
        "frame_weight": (generator.random((count, frames)) > 0.3 * generator.integers(0, 2, (count, 1))).astype(float),
    }


def part(windows: dict[str, np.ndarray], rows: np.ndarray | slice) -> dict[str, np.ndarray]:
    return {name: array[rows] for name, array in windows.items()}


def sums_of(windows: dict[str, np.ndarray], coherence: CoherenceConfig = PUBLISHED) -> MetricSums:
    sums = MetricSums(ACTIONS, coherence)
    sums.add(**windows)
    return sums


def naive_entries(windows: dict[str, np.ndarray], coherence: CoherenceConfig) -> list[tuple[str, int, float, bool]]:
    """(metric, action, value mm, occluded) of every entry that counts, one by one."""
    parents = list(H36M_17.parents)
    parents[11] = parents[14] = H36M_17.index(coherence.shoulder_parent)
    entries = []
    for action, predicted, target, visible, weight in zip(*windows.values(), strict=True):
        position = [error(predicted, target) for error in (mpjpe, p_mpjpe, n_mpjpe)]
        length = np.array([[np.linalg.norm(pose[j] - pose[parents[j]]) for j in range(17)] for pose in predicted])
        for frame in np.nonzero(weight)[0]:
            seen = visible[frame]
            for joint in range(17):
                for metric, errors in zip(METRICS, position, strict=False):
                    entries.append((metric, action, errors[frame, joint], not seen[joint]))
                if frame > 0:
                    step = predicted[frame, joint] - predicted[frame - 1, joint]
                    true_step = target[frame, joint] - target[frame - 1, joint]
                    both = seen[joint] and visible[frame - 1, joint]
                    entries.append(("mpjve_mm", action, np.linalg.norm(step - true_step), not both))
            for left, right in zip(H36M_17.left, H36M_17.right, strict=True):
                all_seen = all(seen[j] for j in (left, right, parents[left], parents[right]))
                entries.append(
                    ("symmetry_gap_mm", action, abs(length[frame, left] - length[frame, right]), not all_seen)
                )
        if weight.sum() >= 2:
            for joint in range(1, 17):
                deviation = np.std(length[weight > 0, joint], ddof=coherence.ddof)
                all_seen = visible[weight > 0][:, [joint, parents[joint]]].all()
                entries.append(("segment_std_mm", action, deviation, not all_seen))
    return [(metric, int(action), 1000 * float(value), bool(hidden)) for metric, action, value, hidden in entries]


def naive_means(entries: list[tuple[str, int, float, bool]]) -> dict[str, float]:
    means = {}
    for metric in METRICS:
        values = [(value, hidden) for name, _, value, hidden in entries if name == metric]
        for split, wanted in zip(SPLITS, ((True, False), (True,), (False,)), strict=True):
            chosen = [value for value, hidden in values if hidden in wanted]
            if chosen:
                means[metric + split] = float(np.mean(chosen))
    return means


@pytest.mark.parametrize(
    "coherence", [PUBLISHED, CoherenceConfig(shoulder_parent="Thorax", ddof=0)], ids=["published", "anatomical"]
)
def test_equal_naive_loops(coherence):
    windows = windows_of()
    sums = sums_of(windows, coherence)
    entries = naive_entries(windows, coherence)
    assert sums.frame_wise() == pytest.approx(naive_means(entries), rel=1e-12)
    per_action = {
        ACTIONS[action]: naive_means([entry for entry in entries if entry[1] == action]) for action in range(3)
    }
    assert sums.per_action().keys() == per_action.keys()
    for action, means in sums.per_action().items():
        assert means == pytest.approx(per_action[action], rel=1e-12)
    expected = {key: np.mean([means[key] for means in per_action.values()]) for key in sums.frame_wise()}
    assert sums.action_wise() == pytest.approx(expected, rel=1e-12)


def test_by_hand():
    """Eating: every joint is off by 30 mm throughout, Walking by 60 mm in one window of three."""
    target = np.random.default_rng(0).normal(size=(4, 5, 17, 3))
    predicted = target + np.array([0.03, 0.03, 0.06, 0])[:, None, None, None] * np.array([0, 1, 0])
    windows = {
        "action_index": np.array([0, 1, 1, 1]),
        "predicted": predicted,
        "target": target,
        "visible": np.ones((4, 5, 17), bool),
        "frame_weight": np.ones((4, 5)),
    }
    windows["predicted"][1] = target[1]
    sums = sums_of(windows)
    assert sums.frame_wise()["mpjpe_mm"] == pytest.approx((30 + 60) / 4)
    assert sums.per_action()["Walking"]["mpjpe_mm"] == pytest.approx(20)
    assert sums.action_wise()["mpjpe_mm"] == pytest.approx((30 + 20) / 2)
    assert sums.frame_wise()["p_mpjpe_mm"] == pytest.approx(0, abs=1e-9)
    assert sums.frame_wise()["mpjve_mm"] == pytest.approx(0, abs=1e-9)
    assert "mpjpe_mm/occluded" not in sums.frame_wise()
    assert sums.frame_wise()["mpjpe_mm/visible"] == sums.frame_wise()["mpjpe_mm"]


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 40])
def test_any_number_of_workers_gives_the_same_figures(workers):
    windows = windows_of()
    whole = sums_of(windows)
    parts = [sums_of(part(windows, slice(rank, None, workers))) for rank in range(workers)]
    added = reduce(add, parts)
    reduced = MetricSums.from_array(ACTIONS, PUBLISHED, np.sum([sums.to_array() for sums in parts], axis=0))
    for sums in (added, reduced):
        np.testing.assert_allclose(sums.to_array(), whole.to_array(), rtol=1e-12)
        assert sums.action_wise() == pytest.approx(whole.action_wise(), rel=1e-12)
        assert sums.frame_wise() == pytest.approx(whole.frame_wise(), rel=1e-12)


def test_a_worker_without_windows_adds_nothing():
    windows = windows_of()
    idle = sums_of(part(windows, slice(0, 0)))
    assert idle.frame_wise() == idle.action_wise() == idle.per_action() == {}
    assert np.array_equal((sums_of(windows) + idle).to_array(), sums_of(windows).to_array())


def test_large_batches_are_treated_in_chunks():
    windows = windows_of(count=700, frames=3)
    halves = sums_of(part(windows, slice(0, 350))) + sums_of(part(windows, slice(350, None)))
    np.testing.assert_allclose(sums_of(windows).to_array(), halves.to_array(), rtol=1e-12)


def test_array_goes_there_and_back():
    sums = sums_of(windows_of())
    array = sums.to_array()
    assert array.dtype == np.float64
    assert array.shape == (len(ACTIONS) * len(METRICS) * 3 * 2,)
    assert MetricSums.from_array(ACTIONS, PUBLISHED, array).action_wise() == sums.action_wise()
    array[:] = 0
    assert sums.frame_wise()


def test_counts_are_exact():
    windows = windows_of(count=6, frames=5)
    windows["frame_weight"][:] = 1
    windows["action_index"][:] = 0
    counts = dict(zip(METRICS, sums_of(windows).to_array().reshape(4, 6, 3, 2)[0, :, :, 1], strict=True))
    for metric, entries in zip(METRICS, (5 * 17, 5 * 17, 5 * 17, 4 * 17, 5 * 6, 16), strict=True):
        assert counts[metric][0] == 6 * entries
        assert counts[metric][1] + counts[metric][2] == counts[metric][0]
    assert counts["mpjpe_mm"][1] == (~windows["visible"]).sum()


@pytest.mark.parametrize("metric", ["mpjpe_mm", "p_mpjpe_mm", "n_mpjpe_mm", "mpjve_mm", "symmetry_gap_mm"])
def test_splits_are_a_weighted_mean_of_the_whole(metric):
    row = METRICS.index(metric)
    totals = sums_of(windows_of()).to_array().reshape(4, 6, 3, 2)[:, row]
    np.testing.assert_allclose(totals[:, 0], totals[:, 1] + totals[:, 2], rtol=1e-12)


def test_frames_without_weight_do_not_matter():
    """Padding on the right may hold anything."""
    windows = windows_of(frames=9)
    windows["frame_weight"][:] = np.arange(9) < 6
    changed = {name: array.copy() for name, array in windows.items()}
    changed["predicted"][:, 6:] = 99.0
    changed["visible"][:, 6:] = False
    assert np.array_equal(sums_of(changed).to_array(), sums_of(windows).to_array())
    cut = {name: array[:, :6] if array.ndim > 1 else array for name, array in windows.items()}
    np.testing.assert_allclose(sums_of(cut).to_array(), sums_of(windows).to_array(), rtol=1e-12)


def test_overlapping_last_window_counts_each_frame_and_each_pair_once():
    """13 frames in windows of 5: starts 0, 5, 8, of which the last counts two new frames."""
    generator = np.random.default_rng(0)
    target = generator.normal(size=(13, 17, 3))
    predicted = target + generator.normal(0, 0.05, target.shape)
    rows = np.array([0, 5, 8])[:, None] + np.arange(5)
    weight = np.ones((3, 5))
    weight[2, :2] = 0
    sums = sums_of(
        {
            "action_index": np.zeros(3, int),
            "predicted": predicted[rows],
            "target": target[rows],
            "visible": np.ones((3, 5, 17), bool),
            "frame_weight": weight,
        }
    )
    assert sums.frame_wise()["mpjpe_mm"] == pytest.approx(1000 * mpjpe(predicted, target).mean(), rel=1e-12)
    counts = sums.to_array().reshape(4, 6, 3, 2)[0, :, 0, 1]
    assert counts[METRICS.index("mpjpe_mm")] == 13 * 17
    # all 12 pairs but the one over the border of the first two windows
    assert counts[METRICS.index("mpjve_mm")] == 11 * 17


def test_windows_with_less_than_two_frames_have_no_deviation():
    windows = windows_of(frames=5)
    windows["frame_weight"][:] = np.arange(5) == 2
    result = sums_of(windows).frame_wise()
    assert "segment_std_mm" not in result
    assert "mpjve_mm" in result
    single = {name: array[:, 2:3] if array.ndim > 1 else array for name, array in windows.items()}
    assert {key.split("/")[0] for key in sums_of(single).frame_wise()} == set(METRICS) - {"mpjve_mm", "segment_std_mm"}


def test_one_hidden_joint_marks_what_depends_on_it():
    """The left knee is hidden in frame 2 of 5."""
    windows = windows_of(count=1, frames=5)
    windows["frame_weight"][:] = 1
    windows["visible"][:] = True
    windows["visible"][0, 2, H36M_17.index("LKnee")] = False
    sums = sums_of(windows).to_array().reshape(4, 6, 3, 2).sum(axis=0)
    occluded = dict(zip(METRICS, sums[:, 1, 1].tolist(), strict=True))
    # two pairs of frames; thigh and shin, each as a pair in one frame and as a bone in the window
    assert occluded == {
        "mpjpe_mm": 1,
        "p_mpjpe_mm": 1,
        "n_mpjpe_mm": 1,
        "mpjve_mm": 2,
        "symmetry_gap_mm": 2,
        "segment_std_mm": 2,
    }


def test_keys_are_legal_names_of_tracked_metrics():
    result = sums_of(windows_of()).frame_wise()
    assert list(result) == [metric + split for metric in METRICS for split in SPLITS]
    assert all(re.fullmatch(r"[A-Za-z0-9_\-. :/]+", key) for key in result)
    assert all(isinstance(value, float) for value in result.values())


def test_perfect_and_degenerate_predictions_give_finite_figures():
    windows = windows_of()
    for predicted in (windows["target"], np.zeros_like(windows["target"])):
        result = sums_of({**windows, "predicted": predicted}).frame_wise()
        assert all(np.isfinite(value) for value in result.values())
    perfect = sums_of({**windows, "predicted": windows["target"]}).action_wise()
    assert max(perfect[metric] for metric in METRICS[:4]) < 1e-9


def test_float32_and_boolean_weights_are_welcome():
    windows = windows_of()
    single = {**windows, "frame_weight": windows["frame_weight"] > 0}
    for name in ("predicted", "target"):
        single[name] = windows[name].astype(np.float32)
    assert sums_of(single).action_wise() == pytest.approx(sums_of(windows).action_wise(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("action_index", lambda array: array + 2, "action_index must hold integers from 0 to 3"),
        ("action_index", lambda array: array.astype(float), "action_index must hold integers"),
        ("action_index", lambda array: array[:-1], r"action_index is \(39,\), expected \(40,\)"),
        ("predicted", lambda array: array[:, :, :16], r"expected \(W, L, 17, 3\): skeleton h36m_17"),
        ("predicted", lambda array: array * np.nan, "NaN or infinite"),
        ("target", lambda array: array[:, 1:], r"target is \(40, 8, 17, 3\)"),
        ("visible", lambda array: array.astype(float), "visible is float64, expected bool"),
        ("visible", lambda array: array[:, :, 0], r"visible is \(40, 9\)"),
        ("frame_weight", lambda array: array * 0.5, "frame_weight must be 0"),
        ("frame_weight", lambda array: array[:, :1], r"frame_weight is \(40, 1\)"),
    ],
)
def test_wrong_arguments_are_refused_and_leave_the_sums_alone(name, change, message):
    windows = windows_of()
    sums = MetricSums(ACTIONS, PUBLISHED)
    with pytest.raises(ValueError, match=message):
        sums.add(**{**windows, name: change(windows[name])})
    assert not sums.to_array().any()


def test_sums_of_different_settings_do_not_mix():
    sums = MetricSums(ACTIONS, PUBLISHED)
    others = (
        MetricSums(ACTIONS[::-1], PUBLISHED),
        MetricSums(ACTIONS, CoherenceConfig(ddof=0)),
        MetricSums(ACTIONS, PUBLISHED, replace(H36M_17, name="another")),
    )
    for other in others:
        with pytest.raises(ValueError, match="cannot be added"):
            sums + other
    with pytest.raises(ValueError, match=r"metric sums of 2 actions are \(72,\), got \(144,\)"):
        MetricSums.from_array(ACTIONS[:2], PUBLISHED, sums.to_array())
    with pytest.raises(ValueError, match="none may repeat"):
        MetricSums(("Eating", "Eating"), PUBLISHED)
