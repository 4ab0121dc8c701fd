"""The camera of every sequence of a store as one table, so that images of different cameras are handled at once.

Same model as `cameras.project`, which takes one camera at a time; this one takes a camera per row and also goes back
from the screen to rays. Legend: S sequences, N images, Q points.
"""

import json

import numpy as np

from posegrid.datasets.cameras import Camera
from posegrid.datasets.store import Sequence, Store

_STEPS = 16
"""Fixed-point steps that undo the lens: always as many, so that a row does not depend on the others."""
_LOST = 1e-3
"""Error after these steps at which a point has no ray, in units of X/Z: about a pixel."""


def intrinsics_of(store: Store) -> np.ndarray:
    """(S, 9) float64 as `Camera.intrinsics` has them; NaN rows where a sequence says nothing about its camera.

    Raises ValueError naming the sequence if its camera parameters are damaged.
    """
    table = np.full((len(store.sequences), 9), np.nan)
    cameras: dict[str, np.ndarray] = {}
    for index, sequence in enumerate(store.sequences):
        text = sequence.camera_parameters
        if text not in cameras:
            cameras[text] = _parsed(sequence)
        table[index] = cameras[text]
    return table


def _parsed(sequence: Sequence) -> np.ndarray:
    try:
        plain = json.loads(sequence.camera_parameters)
        return Camera.from_plain(plain).intrinsics if plain else np.full(9, np.nan)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"sequence {sequence.name}: its camera cannot be read ({error})") from None


def fitted_intrinsics(poses: np.ndarray, screen: np.ndarray) -> np.ndarray:
    """(9,) pinhole that best explains keypoints (F, J, 2) of absolute poses (F, J, 3), by least squares, no distortion.

    For sequences whose camera is not known. Raises ValueError if no joint is in front of the camera.
    """
    ahead = poses[..., 2] > 0.01
    rays = poses[ahead][:, :2].astype(np.float64) / poses[ahead][:, 2:]
    if len(rays) < 3 or rays.std(axis=0).min() < 1e-6:
        raise ValueError("no camera is stored, and the poses do not determine one: too few joints lie in front of it.")
    fitted = np.zeros(9)
    for axis in range(2):
        design = np.stack([rays[:, axis], np.ones(len(rays))], axis=1)
        fitted[[axis, axis + 2]] = np.linalg.lstsq(design, screen[ahead][:, axis].astype(np.float64), rcond=None)[0]
    return fitted


def project(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Camera points (N, Q, 3) to screen (N, Q, 2), float64, each row with its own camera (N, 9), with distortion."""
    points = np.asarray(points, dtype=np.float64)
    depth = np.where(points[..., 2:] == 0, 1e-9, points[..., 2:])
    return distort(np.clip(points[..., :2] / depth, -1, 1), intrinsics)


def distort(rays: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """X/Z and Y/Z (N, Q, 2) to screen (N, Q, 2)."""
    bent = _bent(rays, intrinsics)
    return bent * intrinsics[:, None, :2] + intrinsics[:, None, 2:4]


def rays_through(screen: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Screen points (N, Q, 2) to X/Z and Y/Z (N, Q, 2): the inverse of `distort`, by fixed-point steps.

    Points so far outside the image that the lens polynomial turns back have no ray; they get that of an ideal lens, so
    that the answer stays finite.
    """
    wanted = (screen - intrinsics[:, None, 2:4]) / intrinsics[:, None, :2]
    rays = wanted.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_STEPS):
            rays += wanted - _bent(rays, intrinsics)
        lost = ~(np.abs(wanted - _bent(rays, intrinsics)).max(axis=-1) < _LOST)
    rays[lost] = wanted[lost]
    return rays


def _bent(rays: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    k1, k2, k3, p1, p2 = (intrinsics[:, index, None, None] for index in range(4, 9))
    x, y = rays[..., :1], rays[..., 1:]
    squared = x**2 + y**2
    factor = 1 + squared * (k1 + squared * (k2 + squared * k3)) + p1 * x + p2 * y
    return np.concatenate([x * factor + p1 * squared, y * factor + p2 * squared], axis=-1)
