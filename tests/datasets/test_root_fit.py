"""Where a pose stands, recovered from its own projection; rays, the inverse of the projection."""

import numpy as np
import pytest

from posegrid.datasets.cameras import h36m_cameras, project, unproject
from posegrid.datasets.root_fit import fitted_root


def poses_and_roots(count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    poses = generator.normal(0, 0.3, (count, 17, 3))
    poses -= poses[:, :1]
    return poses, generator.uniform([-1, -1, 3], [1, 1, 6], (count, 3))


@pytest.mark.parametrize("index", range(4))
def test_rays_are_the_inverse_of_the_projection(index: int) -> None:
    camera = h36m_cameras()["S9"][index]
    poses, roots = poses_and_roots()
    points = poses + roots[:, None]
    rays = unproject(project(points, camera), camera)
    inside = (np.abs(points[..., :2] / points[..., 2:]) < 0.5).all(-1)
    assert inside.mean() > 0.8
    np.testing.assert_allclose(rays[inside], (points[..., :2] / points[..., 2:])[inside], atol=1e-9)


def test_exact_rays_give_the_root_whatever_is_hidden() -> None:
    poses, roots = poses_and_roots()
    points = poses + roots[:, None]
    rays = points[..., :2] / points[..., 2:]
    seen = np.random.default_rng(1).random(rays.shape[:-1]) > 0.5
    hidden_noise = np.where(seen[..., None], rays, 7.0)
    found, known = fitted_root(poses, hidden_noise, seen)
    assert known.all()
    np.testing.assert_allclose(found, roots, atol=1e-9)


def test_noisy_rays_give_the_least_squares_solution() -> None:
    poses, roots = poses_and_roots(3)
    points = poses + roots[:, None]
    rays = points[..., :2] / points[..., 2:] + np.random.default_rng(2).normal(0, 0.01, (3, 17, 2))
    found, _ = fitted_root(poses, rays, np.ones((3, 17), bool))
    for row in range(3):
        rows, right = [], []
        for joint in range(17):
            for axis in range(2):
                line = [0.0, 0.0, -rays[row, joint, axis]]
                line[axis] = 1.0
                rows.append(line)
                right.append(rays[row, joint, axis] * poses[row, joint, 2] - poses[row, joint, axis])
        np.testing.assert_allclose(found[row], np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0])


def test_too_few_joints_and_poses_behind_the_camera_are_unknown() -> None:
    poses, roots = poses_and_roots(2)
    points = poses + roots[:, None]
    rays = points[..., :2] / points[..., 2:]
    seen = np.zeros((2, 17), bool)
    seen[0, :2] = seen[1, :3] = True
    assert fitted_root(poses, rays, seen)[1].tolist() == [False, True]
    behind, known = fitted_root(-poses, rays, np.ones((2, 17), bool))  # seen through the lens upside down
    assert not known.any()
    np.testing.assert_array_equal(behind, [[0, 0, 1]] * 2)
