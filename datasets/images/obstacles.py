"""Things that stand in front of people in rendered images: textured boards that face the camera, and striped poles.

Where they are depends on (seed, sequence, frame) alone. Legend: N images, O obstacles of an image.
"""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws


@dataclass(frozen=True, kw_only=True)
class Obstacles:
    """O obstacles in each of N images; each is a board or a pole."""

    is_board: np.ndarray
    """(N, O) bool"""
    depth: np.ndarray
    """(N, O) float64 metres along the optical axis; the middle of a pole."""
    corner: np.ndarray
    """(N, O, 2) left and top of a board, pixels of the crop."""
    size: np.ndarray
    """(N, O, 2) width and height of a board, pixels of the crop."""
    texture: np.ndarray
    """(N, O) float64 in [0, 1): which of the textures."""
    start: np.ndarray
    """(N, O, 3) one end of a pole, metres, camera frame."""
    end: np.ndarray
    """(N, O, 3) the other."""
    radius: np.ndarray
    """(N, O) of a pole, metres."""
    colours: np.ndarray
    """(N, O, 2, 3) of a pole, in [0, 255]."""


def place_obstacles(
    count: int,
    draws: WindowDraws,
    poses: np.ndarray,
    joints: np.ndarray,
    nearest_m: np.ndarray,
    shape: tuple[int, int],
) -> Obstacles:
    """`count` obstacles per image, each before a random joint and nearer than the whole body.

    poses: (N, J, 3) metres; joints: (N, J, 2) pixels of the crop; nearest_m: (N,) depth of the body's nearest point;
    shape: height and width of the crop. Boards measure 15 to 40 % of the crop's width a side, poles 0.5 to 1.5 m by
    3 to 9 cm radius.
    """
    rows = np.arange(len(poses))[:, None]
    is_board = draws.uniform(count) < 0.6
    joint = (draws.uniform(count) * poses.shape[1]).astype(np.int64)
    depth = nearest_m[:, None] * (0.65 + 0.25 * draws.uniform(count))
    size = shape[1] * (0.15 + 0.25 * draws.uniform(count, 2))
    jitter = (draws.uniform(count, 2) - 0.5) * size
    corner = joints[rows, joint] + jitter - size / 2
    anchor = poses[rows, joint]
    middle = anchor * (depth / np.maximum(anchor[..., 2], 0.1))[..., None]
    angle = 2 * np.pi * draws.uniform(count)
    half = 0.25 + 0.5 * draws.uniform(count)
    along = np.stack([np.cos(angle), np.sin(angle), 0.3 * (draws.uniform(count) - 0.5)], axis=-1) * half[..., None]
    return Obstacles(
        is_board=is_board,
        depth=depth,
        corner=corner,
        size=size,
        texture=draws.uniform(count),
        start=middle - along,
        end=middle + along,
        radius=0.03 + 0.06 * draws.uniform(count),
        colours=draws.uniform(count, 2, 3) * 255,
    )
