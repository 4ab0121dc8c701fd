"""MPJPE, P-MPJPE and N-MPJPE: hand-computed cases, independent formulas, invariants, figures of the released code."""

import json
from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets.metrics.position import mpjpe, n_mpjpe, p_mpjpe
from posegrid.datasets.skeletons import H36M_17

PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
ALL = (mpjpe, p_mpjpe, n_mpjpe)
X, Y, Z = np.eye(3)


@pytest.fixture
def poses():
    """Predicted and target (5, 7, 17, 3) metres, root-relative."""
    generator = np.random.default_rng(0)
    target = generator.normal(0, 0.3, (5, 7, 17, 3))
    target -= target[:, :, :1]
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


def rotations(count: int, seed: int = 1) -> np.ndarray:
    """(count, 3, 3) proper rotations."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(count, 3, 3)))
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]
    q[np.linalg.det(q) < 0, :, 0] *= -1
    return q


def p_mpjpe_by_quaternions(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """One frame (J, 3), Horn's closed form (1987): the best rotation is the top eigenvector of a 4 x 4 matrix."""
    p, g = predicted - predicted.mean(0), target - target.mean(0)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = p.T @ g
    matrix = np.array(
        [
            [xx + yy + zz, yz - zy, zx - xz, xy - yx],
            [yz - zy, xx - yy - zz, xy + yx, zx + xz],
            [zx - xz, xy + yx, yy - xx - zz, yz + zy],
            [xy - yx, zx + xz, yz + zy, zz - xx - yy],
        ]
    )
    w, *vector = np.linalg.eigh(matrix)[1][:, -1]
    u = np.array(vector)
    turned = p + 2 * (w * np.cross(u, p) + np.cross(u, np.cross(u, p)))
    scale = (turned * g).sum() / (p * p).sum()
    return np.sqrt(((scale * turned - g) ** 2).sum(-1))


def test_mpjpe_by_hand():
    target = np.zeros((1, 1, 2, 3))
    predicted = np.array([[[[0.03, 0.04, 0.0], [0.0, 0.0, 0.0]]]])
    assert mpjpe(predicted, target).tolist() == [[[0.05, 0.0]]]


def test_p_mpjpe_by_hand():
    """The cross is stretched along x: no turn, scale (4 + 2) / (8 + 2) = 0.6."""
    errors = p_mpjpe(np.array([2 * X, -2 * X, Y, -Y]) + 5 * Z, np.array([X, -X, Y, -Y]))
    np.testing.assert_allclose(errors, [0.2, 0.2, 0.4, 0.4], atol=1e-12)


def test_p_mpjpe_of_a_mirrored_octahedron_by_hand():
    """One axis stays mirrored whatever the turn, and the scale becomes (2 + 2 - 2) / 6 = 1/3."""
    target = np.array([X, -X, Y, -Y, Z, -Z])
    errors = np.sort(p_mpjpe(target * [-1, 1, 1], target))
    np.testing.assert_allclose(errors, [2 / 3] * 4 + [4 / 3] * 2, atol=1e-12)


def test_n_mpjpe_by_hand():
    """Scale (1 + 3) / (1 + 1) = 2."""
    np.testing.assert_allclose(n_mpjpe(np.array([X, X]), np.array([X, 3 * X])), [1, 1], atol=1e-12)


def test_equal_naive_formulas(poses):
    predicted, target = poses
    for window, frame in np.ndindex(5, 7):
        p, g = predicted[window, frame], target[window, frame]
        for joint in range(17):
            assert mpjpe(predicted, target)[window, frame, joint] == pytest.approx(np.linalg.norm(p[joint] - g[joint]))
        np.testing.assert_allclose(p_mpjpe(predicted, target)[window, frame], p_mpjpe_by_quaternions(p, g), rtol=1e-9)
        scale = np.linalg.lstsq(p.reshape(-1, 1), g.ravel(), rcond=None)[0][0]
        np.testing.assert_allclose(
            n_mpjpe(predicted, target)[window, frame], np.linalg.norm(scale * p - g, axis=1), rtol=1e-9
        )


def test_p_mpjpe_equals_quaternions_where_mirroring_would_be_better():
    generator = np.random.default_rng(4)
    for _ in range(50):
        target = generator.normal(size=(17, 3))
        predicted = target * [-1, 1, 1] + generator.normal(0, 0.1, (17, 3))
        np.testing.assert_allclose(p_mpjpe(predicted, target), p_mpjpe_by_quaternions(predicted, target), rtol=1e-8)


@pytest.mark.parametrize("error", ALL)
def test_flipping_both_permutes_the_errors(error, poses):
    predicted, target = ((pose * [-1, 1, 1])[:, :, list(H36M_17.mirror)] for pose in poses)
    np.testing.assert_allclose(error(predicted, target), error(*poses)[:, :, list(H36M_17.mirror)], atol=1e-12)


@pytest.mark.parametrize("error", ALL)
def test_same_poses_have_no_error(error, poses):
    assert np.abs(error(poses[1], poses[1])).max() < 1e-14


@pytest.mark.parametrize("error", ALL)
def test_turning_both_changes_nothing_and_scaling_both_scales(error, poses):
    turn = rotations(1)[0]
    np.testing.assert_allclose(error(*(pose @ turn for pose in poses)), error(*poses), atol=1e-12)
    np.testing.assert_allclose(error(*(3 * pose for pose in poses)), 3 * error(*poses), atol=1e-12)


def test_p_mpjpe_ignores_similarity_transforms(poses):
    predicted, target = poses
    generator = np.random.default_rng(2)
    scale = generator.uniform(0.2, 5, (5, 7, 1, 1))
    moved = scale * predicted @ rotations(35).reshape(5, 7, 3, 3) + generator.normal(size=(5, 7, 1, 3))
    np.testing.assert_allclose(p_mpjpe(moved, target), p_mpjpe(predicted, target), atol=1e-12)
    similar = scale * target @ rotations(35).reshape(5, 7, 3, 3) + generator.normal(size=(5, 7, 1, 3))
    assert p_mpjpe(similar, target).max() < 1e-12


def test_p_mpjpe_of_a_mirrored_pose_is_not_zero(poses):
    target = poses[1]
    assert p_mpjpe(target * [-1, 1, 1], target).mean(axis=-1).min() > 0.05


def test_p_mpjpe_never_has_a_larger_sum_of_squares(poses):
    squares = [np.square(error(*poses)).sum(axis=-1) for error in (p_mpjpe, n_mpjpe, mpjpe)]
    assert (squares[0] <= squares[1]).all()
    assert (squares[1] <= squares[2]).all()


def test_n_mpjpe_ignores_positive_scales(poses):
    predicted, target = poses
    for scale in (0.01, 0.7, 40.0):
        np.testing.assert_allclose(n_mpjpe(scale * predicted, target), n_mpjpe(predicted, target), atol=1e-12)


def test_zeroed_root_makes_the_mean_sixteen_seventeenths(poses):
    predicted, target = poses
    predicted[:, :, 0] = 0
    errors = mpjpe(predicted, target)
    assert errors.mean() == pytest.approx(16 / 17 * errors[:, :, 1:].mean(), rel=1e-12)


def test_any_leading_axes(poses):
    predicted, target = poses
    for error in ALL:
        whole = error(predicted, target)
        np.testing.assert_allclose(error(predicted[2, 3], target[2, 3]), whole[2, 3], atol=1e-15)
        np.testing.assert_allclose(error(predicted[None], target[None])[0], whole, atol=1e-15)
        assert error(predicted[:0], target[:0]).shape == (0, 7, 17)


@pytest.mark.parametrize("error", ALL)
@pytest.mark.parametrize("shape", ["zero", "one point", "line", "plane"])
def test_degenerate_poses_give_finite_errors(error, shape, poses):
    full = poses[0]
    flat = {
        "zero": np.zeros_like(full),
        "one point": np.full_like(full, 0.1),
        "line": full * [1, 0, 0],
        "plane": full * [1, 1, 0],
    }[shape]
    for predicted, target in ((flat, full), (full, flat), (flat, flat)):
        errors = error(predicted, target)
        assert np.isfinite(errors).all()
        assert np.square(errors).sum() <= np.square(mpjpe(predicted, target)).sum() + 1e-12
    assert error(flat, flat).max() < 1e-12


def test_pose_that_shrank_to_a_point_is_moved_to_the_centre(poses):
    target = poses[1]
    centred = target - target.mean(axis=2, keepdims=True)
    expected = np.linalg.norm(centred, axis=-1)
    np.testing.assert_allclose(p_mpjpe(np.zeros_like(target), target), expected, atol=1e-12)


@pytest.mark.parametrize("error", ALL)
def test_wrong_arrays_are_refused(error, poses):
    predicted, target = poses
    with pytest.raises(ValueError, match=r"predicted is \(5, 7, 17, 3\) and target \(5, 7, 16, 3\)"):
        error(predicted, target[:, :, 1:])
    with pytest.raises(ValueError, match="must have one shape"):
        error(predicted[..., :2], target[..., :2])
    predicted[1, 2, 3, 0] = np.nan
    with pytest.raises(ValueError, match=r"1 values that are NaN or infinite, the first at index \(1, 2, 3, 0\)"):
        error(predicted, target)


def test_inputs_are_not_changed(poses):
    copies = [pose.copy() for pose in poses]
    for error in ALL:
        error(*poses)
    assert all(np.array_equal(pose, copy) for pose, copy in zip(poses, copies, strict=True))


def test_parity_with_the_metrics_of_videopose3d_and_mixste():
    fixture = fixture_of("metrics_lifting")
    predicted, target = fixture["input_predicted"], fixture["input_target"]
    errors = mpjpe(predicted, target)
    assert_parity(fixture, "mpjpe", errors.mean())
    assert_parity(fixture, "mpjpe_per_window", errors.mean(axis=(1, 2)))
    assert_parity(fixture, "mpjpe_per_joint_mm", 1000 * errors.mean(axis=(0, 1)))
    assert_parity(fixture, "weighted_mpjpe_joints", (errors * fixture["input_joint_weights"]).mean())
    assert_parity(fixture, "weighted_mpjpe_frames", (errors * fixture["input_frame_weights"]).mean())
    assert_parity(fixture, "p_mpjpe", p_mpjpe(predicted, target).mean())
    assert_parity(fixture, "p_mpjpe_per_frame", p_mpjpe(predicted, target).mean(axis=2))
    assert_parity(fixture, "p_mpjpe_similar", p_mpjpe(fixture["input_similar"], target).mean())
    assert_parity(fixture, "p_mpjpe_mirrored", p_mpjpe(fixture["input_mirrored"], target).mean())
    assert_parity(fixture, "n_mpjpe", n_mpjpe(predicted, target).mean())
    assert_parity(fixture, "n_mpjpe_scaled", n_mpjpe(3.7 * predicted, target).mean())


def test_parity_with_the_metrics_of_diffhpe():
    fixture = fixture_of("metrics_diffhpe")
    target = fixture["input_target"]
    average = fixture["input_samples"].mean(axis=1)
    assert_parity(fixture, "mpjpe_average_mm", 1000 * mpjpe(average, target).mean())
    assert_parity(fixture, "joint_error_mm", 1000 * mpjpe(average, target).mean(axis=(0, 1)))
    assert_parity(fixture, "p_mpjpe", 1000 * p_mpjpe(average, target).mean())
    for choice in ("best", "worst"):
        poses = fixture[f"output_pose_{choice}_mm"] / 1000
        assert_parity(fixture, f"mpjpe_{choice}_mm", 1000 * mpjpe(poses, target).mean())
