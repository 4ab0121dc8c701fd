"""Errors of motion and of the body: velocity, left-right symmetry, bones that change length.

Legend: W windows, L frames, J joints. Metres in, metres (per frame) out, nothing averaged.
Symmetry gap and segment deviation are equations 13 and 14 of DiffHPE (ICCV Workshops 2023). Its released code differs
from its text in two points, both settings of `CoherenceConfig`, the defaults giving the published numbers.
"""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.metrics.position import checked_poses, mpjpe
from posegrid.datasets.skeletons import Skeleton

_SHOULDERS = ("LShoulder", "RShoulder")


@dataclass(frozen=True, kw_only=True)
class CoherenceConfig:
    """Which bones are measured, and by which estimator."""

    shoulder_parent: str = "Spine"
    """Joint at the other end of both shoulder bones: "Spine" as published, "Thorax" as in the anatomical skeleton."""
    ddof: int = 1
    """Standard deviation over n frames divides by n - ddof: 1 as published, 0 as in equation 14."""

    def __post_init__(self) -> None:
        if self.ddof not in (0, 1):
            raise ValueError(
                f"coherence: ddof is {self.ddof!r}, allowed are 0 (equation 14) and 1 (published numbers)."
            )


def measured_bones(skeleton: Skeleton, shoulder_parent: str) -> np.ndarray:
    """(bones, 2) joint indices (child, parent) in the order of the children; `shoulder_parent` replaces two parents."""
    shoulders = skeleton.indices(_SHOULDERS)
    parent_of_shoulders = skeleton.index(shoulder_parent)
    if parent_of_shoulders in shoulders:
        raise ValueError(
            f'coherence: shoulder_parent is "{shoulder_parent}", a shoulder itself. Use "Spine" or "Thorax".'
        )
    return np.array(
        [(child, parent_of_shoulders if child in shoulders else parent) for child, parent in skeleton.bones]
    )


def mirrored_bones(skeleton: Skeleton, shoulder_parent: str) -> tuple[np.ndarray, np.ndarray]:
    """Two (pairs,) arrays of indices into `measured_bones`: bones that end in a left joint, and their mirror images."""
    child = measured_bones(skeleton, shoulder_parent)[:, 0].tolist()
    pairs = sorted(zip(skeleton.left, skeleton.right, strict=True))
    return np.array([child.index(left) for left, _ in pairs]), np.array([child.index(right) for _, right in pairs])


def velocity_error(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(W, L-1, J) distance between predicted and true displacement from one frame to the next; the mean is MPJVE.

    predicted, target: (W, L, J, 3). Differences stay within windows; entry t belongs to the frames t and t + 1.
    """
    predicted, target = checked_poses(predicted, target)
    return mpjpe(np.diff(predicted, axis=-3), np.diff(target, axis=-3))


def velocity_error_concatenated(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(W*L-1, J) as MixSTE's evaluation computes it: windows are joined end to end before taking differences.

    Jumps over the border of two windows count, and so does the jump back before an overlapping last window.
    """
    predicted, target = checked_poses(predicted, target)
    joined = (-1, *predicted.shape[-2:])
    return velocity_error(predicted.reshape(joined), target.reshape(joined))


def bone_lengths(poses: np.ndarray, skeleton: Skeleton, shoulder_parent: str = "Spine") -> np.ndarray:
    """(W, L, bones) lengths of `measured_bones`. poses: (W, L, J, 3)."""
    if poses.shape[-2:] != (len(skeleton), 3):
        raise ValueError(f"poses are {poses.shape}, expected (W, L, {len(skeleton)}, 3): skeleton {skeleton.name}.")
    bones = measured_bones(skeleton, shoulder_parent)
    return mpjpe(poses[..., bones[:, 0], :], poses[..., bones[:, 1], :])


def symmetry_gap(poses: np.ndarray, skeleton: Skeleton, shoulder_parent: str = "Spine") -> np.ndarray:
    """(W, L, pairs) absolute difference of the lengths of a left bone and its mirror image (DiffHPE, equation 13)."""
    lengths = bone_lengths(poses, skeleton, shoulder_parent)
    left, right = mirrored_bones(skeleton, shoulder_parent)
    return np.abs(lengths[..., left] - lengths[..., right])


def segment_std(
    poses: np.ndarray,
    skeleton: Skeleton,
    shoulder_parent: str = "Spine",
    ddof: int = 1,
    frame_weight: np.ndarray | None = None,
) -> np.ndarray:
    """(W, bones) standard deviation of each bone's length over the frames of its window (DiffHPE, equation 14).

    frame_weight: (W, L) of 0 and 1, the frames to use; all by default. Windows with fewer than two such frames get 0:
    a deviation does not exist there, and `MetricSums` does not count them.
    """
    lengths = bone_lengths(poses, skeleton, shoulder_parent)
    weight = np.ones(lengths.shape[:-1]) if frame_weight is None else np.asarray(frame_weight, np.float64)
    frames = weight.sum(axis=-1)
    mean = np.einsum("wlb,wl->wb", lengths, weight) / np.maximum(frames, 1)[:, None]
    squares = np.einsum("wlb,wl->wb", np.square(lengths - mean[:, None]), weight)
    return np.sqrt(np.where(frames[:, None] >= 2, squares, 0) / np.maximum(frames - ddof, 1)[:, None])
