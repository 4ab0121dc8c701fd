"""Velocity error, symmetry gap, segment deviation: hand-computed cases, naive loops, invariants, released figures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets.metrics.coherence import (
    CoherenceConfig,
    bone_lengths,
    measured_bones,
    mirrored_bones,
    segment_std,
    symmetry_gap,
    velocity_error,
    velocity_error_concatenated,
)
from posegrid.datasets.skeletons import H36M_17

PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
PARENTS = ("Spine", "Thorax")


@pytest.fixture
def poses():
    """Predicted and target (4, 9, 17, 3) metres."""
    generator = np.random.default_rng(0)
    target = generator.normal(0, 0.3, (4, 9, 17, 3))
    return target + generator.normal(0, 0.05, target.shape), target


def fixture_of(name: str):
    file = PARITY / f"{name}.npz"
    if not file.is_file():
        pytest.skip(f"parity fixture {file.name} is not here")
    with np.load(file) as arrays:
        return dict(arrays)


def assert_parity(fixture: dict, key: str, value: np.ndarray) -> None:
    tolerance = json.loads(str(fixture["config_json"]))["tolerance"]
    np.testing.assert_allclose(value, fixture[f"output_{key}"], rtol=1e-5, atol=tolerance["atol"][key])


def moving_body(frames: int = 9, windows: int = 3) -> np.ndarray:
    """(W, L, 17, 3): joints turn freely, bones keep lengths that are equal left and right (shoulders on the spine)."""
    generator = np.random.default_rng(5)
    poses = np.zeros((windows, frames, 17, 3))
    bones = measured_bones(H36M_17, "Spine").tolist()
    length = dict.fromkeys(range(17), 0.0) | {child: 0.1 + 0.02 * child for child, _ in bones}
    length |= {right: length[left] for left, right in zip(H36M_17.left, H36M_17.right, strict=True)}
    for child, parent in bones:
        direction = generator.normal(size=(windows, frames, 3))
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        poses[:, :, child] = poses[:, :, parent] + length[child] * direction
    return poses


def line_of_bones(lengths: dict[str, list[float]]) -> np.ndarray:
    """(1, L, 17, 3): each named joint lies that far along x from the hip, per frame; all others on the hip."""
    frames = len(next(iter(lengths.values())))
    poses = np.zeros((1, frames, 17, 3))
    for joint, values in lengths.items():
        poses[0, :, H36M_17.index(joint), 0] = values
    return poses


def test_velocity_error_by_hand():
    """The prediction moves 3 cm along x where the target moves 4 cm along y, then both rest."""
    predicted, target = np.zeros((1, 3, 2, 3)), np.zeros((1, 3, 2, 3))
    predicted[0, 1:, 0, 0] = 0.03
    target[0, 1:, 0, 1] = 0.04
    np.testing.assert_allclose(velocity_error(predicted, target), [[[0.05, 0], [0, 0]]], atol=1e-15)


def test_velocity_error_equals_a_naive_loop(poses):
    predicted, target = poses
    errors = velocity_error(predicted, target)
    assert errors.shape == (4, 8, 17)
    for window, frame, joint in np.ndindex(4, 8, 17):
        step = predicted[window, frame + 1, joint] - predicted[window, frame, joint]
        true_step = target[window, frame + 1, joint] - target[window, frame, joint]
        assert errors[window, frame, joint] == pytest.approx(np.linalg.norm(step - true_step), abs=1e-14)


def test_concatenated_velocity_adds_the_borders_of_windows(poses):
    predicted, target = poses
    errors = velocity_error_concatenated(predicted, target)
    assert errors.shape == (4 * 9 - 1, 17)
    inside = np.delete(errors, [8, 17, 26], axis=0)
    np.testing.assert_allclose(inside, velocity_error(predicted, target).reshape(32, 17), atol=1e-15)
    jump = (predicted[1, 0] - predicted[0, -1]) - (target[1, 0] - target[0, -1])
    np.testing.assert_allclose(errors[8], np.linalg.norm(jump, axis=-1), atol=1e-15)


def test_velocity_error_ignores_constant_offsets(poses):
    predicted, target = poses
    offset = np.random.default_rng(1).normal(size=(4, 1, 17, 3))
    np.testing.assert_allclose(
        velocity_error(predicted + offset, target), velocity_error(predicted, target), atol=1e-14
    )
    assert velocity_error(target + offset, target).max() < 1e-14


def test_flipping_both_permutes_velocity_errors(poses):
    order = list(H36M_17.mirror)
    flipped = [(pose * [-1, 1, 1])[:, :, order] for pose in poses]
    np.testing.assert_allclose(velocity_error(*flipped), velocity_error(*poses)[:, :, order], atol=1e-14)


def test_windows_of_one_frame_have_no_velocity(poses):
    assert velocity_error(poses[0][:, :1], poses[1][:, :1]).shape == (4, 0, 17)


def test_published_bones_hang_the_shoulders_on_the_spine():
    names = [[H36M_17.joints[joint] for joint in bone] for bone in measured_bones(H36M_17, "Spine")]
    assert len(names) == 16
    assert ["LShoulder", "Spine"] in names
    assert ["RShoulder", "Spine"] in names
    anatomical = measured_bones(H36M_17, "Thorax").tolist()
    assert anatomical == [list(bone) for bone in H36M_17.bones]


@pytest.mark.parametrize("parent", PARENTS)
def test_paired_bones_are_mirror_images(parent):
    bones = measured_bones(H36M_17, parent)
    left, right = mirrored_bones(H36M_17, parent)
    assert left.tolist() == [3, 4, 5, 10, 11, 12]
    assert right.tolist() == [0, 1, 2, 13, 14, 15]
    mirror = np.array(H36M_17.mirror)
    assert np.array_equal(mirror[bones[left]], bones[right])


def test_symmetry_gap_by_hand():
    poses = line_of_bones({"LHip": [0.5, 0.2], "RHip": [0.4, 0.4], "LKnee": [0.5, 0.2], "RKnee": [0.4, 0.4]})
    gap = symmetry_gap(poses, H36M_17)
    assert gap.shape == (1, 2, 6)
    # thighs have length 0 on both sides; shins hang from the knees, feet lie on the hip
    np.testing.assert_allclose(gap[0], [[0.1, 0, 0.1, 0, 0, 0], [0.2, 0, 0.2, 0, 0, 0]], atol=1e-15)


def test_segment_std_by_hand():
    poses = line_of_bones({"Head": [1.0, 2.0, 3.0]})
    head = measured_bones(H36M_17, "Spine")[:, 0].tolist().index(10)
    assert segment_std(poses, H36M_17)[0, head] == pytest.approx(1)
    assert segment_std(poses, H36M_17, ddof=0)[0, head] == pytest.approx(np.sqrt(2 / 3))
    assert np.delete(segment_std(poses, H36M_17), head).max() == 0
    weight = np.array([[1, 0, 1]])
    assert segment_std(poses, H36M_17, frame_weight=weight)[0, head] == pytest.approx(np.sqrt(2))
    assert segment_std(poses, H36M_17, frame_weight=np.array([[1, 0, 0]])).max() == 0


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("ddof", [0, 1])
def test_coherence_equals_naive_loops(parent, ddof, poses):
    predicted = poses[0]
    weight = np.random.default_rng(2).integers(0, 2, (4, 9))
    weight[:, :2] = 1
    gap = symmetry_gap(predicted, H36M_17, parent)
    deviation = segment_std(predicted, H36M_17, parent, ddof)
    weighted = segment_std(predicted, H36M_17, parent, ddof, weight)
    parents = list(H36M_17.parents)
    parents[11] = parents[14] = H36M_17.index(parent)

    def length(window: int, joint: int) -> np.ndarray:
        return np.linalg.norm(predicted[window, :, joint] - predicted[window, :, parents[joint]], axis=-1)

    for window in range(4):
        for pair, (left, right) in enumerate(zip(H36M_17.left, H36M_17.right, strict=True)):
            np.testing.assert_allclose(
                gap[window, :, pair], abs(length(window, left) - length(window, right)), atol=1e-14
            )
        for bone in range(16):
            lengths = length(window, bone + 1)
            assert deviation[window, bone] == pytest.approx(np.std(lengths, ddof=ddof))
            assert weighted[window, bone] == pytest.approx(np.std(lengths[weight[window] > 0], ddof=ddof))


def test_unbiased_factor_at_27_frames():
    poses = np.random.default_rng(0).normal(size=(3, 27, 17, 3))
    np.testing.assert_allclose(
        segment_std(poses, H36M_17, ddof=1), np.sqrt(27 / 26) * segment_std(poses, H36M_17, ddof=0), rtol=1e-12
    )


def test_rigid_symmetric_body_has_no_gap_and_no_deviation():
    poses = moving_body()
    assert symmetry_gap(poses, H36M_17).max() < 1e-14
    assert segment_std(poses, H36M_17).max() < 1e-14


@pytest.mark.parametrize("parent", PARENTS)
def test_coherence_ignores_rigid_motion_per_frame_and_scales_linearly(parent, poses):
    predicted = poses[0]
    generator = np.random.default_rng(3)
    turn = np.linalg.qr(generator.normal(size=(4, 9, 3, 3)))[0]
    moved = predicted @ turn + generator.normal(size=(4, 9, 1, 3))
    for measure in (symmetry_gap, segment_std):
        value = measure(predicted, H36M_17, parent)
        np.testing.assert_allclose(measure(moved, H36M_17, parent), value, atol=1e-13)
        np.testing.assert_allclose(measure(2.5 * predicted, H36M_17, parent), 2.5 * value, atol=1e-13)


@pytest.mark.parametrize("parent", PARENTS)
def test_gap_ignores_flips(parent, poses):
    flipped = (poses[0] * [-1, 1, 1])[:, :, list(H36M_17.mirror)]
    np.testing.assert_allclose(
        symmetry_gap(flipped, H36M_17, parent), symmetry_gap(poses[0], H36M_17, parent), atol=1e-14
    )


def test_point_poses_have_no_gap_and_no_deviation():
    poses = np.full((2, 9, 17, 3), 0.3)
    assert symmetry_gap(poses, H36M_17).max() == 0
    assert segment_std(poses, H36M_17).max() == 0


def test_wrong_settings_and_skeletons_are_refused(poses):
    with pytest.raises(ValueError, match="ddof is 2, allowed are 0"):
        CoherenceConfig(ddof=2)
    with pytest.raises(ValueError, match="no joint 'Thorx'; did you mean 'Thorax'"):
        measured_bones(H36M_17, "Thorx")
    with pytest.raises(ValueError, match='shoulder_parent is "RShoulder", a shoulder itself'):
        measured_bones(H36M_17, "RShoulder")
    with pytest.raises(ValueError, match=r"expected \(W, L, 17, 3\)"):
        bone_lengths(poses[0][:, :, 1:], H36M_17)
    unnamed = replace(H36M_17, name="unnamed", joints=tuple(f"joint{index}" for index in range(17)))
    with pytest.raises(ValueError, match="skeleton unnamed has no joint 'LShoulder'"):
        symmetry_gap(poses[0], unnamed)


def test_parity_with_the_velocities_of_mixste():
    fixture = fixture_of("metrics_lifting")
    predicted, target = fixture["input_predicted"], fixture["input_target"]
    assert_parity(fixture, "velocity_within_windows", velocity_error(predicted, target).mean())
    assert_parity(fixture, "velocity_per_window", velocity_error(predicted, target).mean(axis=(1, 2)))
    assert_parity(fixture, "velocity_concatenated", velocity_error_concatenated(predicted, target).mean())


def test_parity_with_the_coherence_of_diffhpe():
    fixture = fixture_of("metrics_diffhpe")
    average = fixture["input_samples"].mean(axis=1)
    left, right = mirrored_bones(H36M_17, "Spine")
    assert np.array_equal(measured_bones(H36M_17, "Spine"), fixture["output_bones"])
    assert np.array_equal(left, fixture["output_bones_left"])
    assert np.array_equal(right, fixture["output_bones_right"])
    gap = 1000 * symmetry_gap(average, H36M_17)
    deviation = 1000 * segment_std(average, H36M_17)
    assert_parity(fixture, "bone_lengths_mm", 1000 * bone_lengths(average, H36M_17).swapaxes(1, 2))
    assert_parity(fixture, "symmetry_gap_mm", gap.mean())
    assert_parity(fixture, "symmetry_gap_squared", np.square(gap).mean())
    assert_parity(fixture, "symmetry_gap_per_bone_mm", gap.mean(axis=(0, 1)))
    assert_parity(fixture, "segment_std_mm", deviation.mean())
    assert_parity(fixture, "segment_variance", np.square(deviation).mean())
    assert_parity(fixture, "segment_std_per_bone_mm", deviation.mean(axis=0))
