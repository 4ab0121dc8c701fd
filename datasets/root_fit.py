"""Where in front of the camera a root-relative pose stands, from what the camera saw of it.

Legend: J joints; any leading axes. Metres, camera frame.
"""

import numpy as np

_FEWEST = 3
"""Seen joints that a fit needs: two rays already fix three numbers, but so badly that nothing can be judged by it."""


def fitted_root(poses: np.ndarray, rays: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 3) float64 position of the root that brings the joints nearest to their rays, and (...,) bool: it is known.

    poses: (..., J, 3) root-relative. rays: (..., J, 2) X/Z and Y/Z of what was seen (`cameras.unproject`). seen:
    (..., J) bool, joints that count. Minimises sum (X + t_x - u (Z + t_z))^2 + (Y + t_y - v (Z + t_z))^2, which is
    linear in t: the distances across the rays times the depth, so that near and far joints count alike in metres.
    Unknown where fewer than three joints are seen or the fit lies behind the camera; the position is then (0, 0, 1).
    """
    poses, rays = np.asarray(poses, np.float64), np.asarray(rays, np.float64)
    weight = np.asarray(seen, np.float64)
    u, v = rays[..., 0], rays[..., 1]
    right = u * poses[..., 2] - poses[..., 0], v * poses[..., 2] - poses[..., 1]
    matrix = np.zeros((*u.shape[:-1], 3, 3))
    count = weight.sum(-1)
    matrix[..., 0, 0] = matrix[..., 1, 1] = count
    matrix[..., 0, 2] = matrix[..., 2, 0] = -(weight * u).sum(-1)
    matrix[..., 1, 2] = matrix[..., 2, 1] = -(weight * v).sum(-1)
    matrix[..., 2, 2] = (weight * (u**2 + v**2)).sum(-1)
    vector = np.stack([(weight * right[0]).sum(-1), (weight * right[1]).sum(-1)], axis=-1)
    depth_part = -(weight * (u * right[0] + v * right[1])).sum(-1)
    vector = np.concatenate([vector, depth_part[..., None]], axis=-1)
    enough = count >= _FEWEST
    matrix[~enough] = np.eye(3)
    # joints on one ray leave the depth open; the smallest depth then is 0, which counts as unknown
    root = (np.linalg.pinv(matrix, hermitian=True) @ vector[..., None])[..., 0]
    known = enough & (root[..., 2] + poses[..., 2].min(-1) > 0)
    return np.where(known[..., None], root, [0.0, 0.0, 1.0]), known
