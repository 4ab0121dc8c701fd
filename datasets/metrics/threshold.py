"""Share of correct keypoints (PCK) and the area under its curve (AUC), as MPI-INF-3DHP's benchmark counts them.

Mehta et al., "Monocular 3D human pose estimation in the wild using improved CNN supervision" (2017), with the
choices of the evaluation code: an error of exactly the threshold is not correct, and the curve has 31 points from 0 to
150 mm. Legend: W windows, L frames, J joints. Any leading axes are accepted. Metres in, percent out. Which frames count
is the caller's business: give only frames that are valid. Averages over frames of all sequences are P-STMO's number,
the mean of the averages of six sequences is that of D3DP's instructions.
"""

import numpy as np

from posegrid.datasets.metrics.position import mpjpe
from posegrid.datasets.skeletons import Skeleton

THRESHOLD_MM = 150.0
"""Largest error of a correct joint, itself excluded: about half a head."""
AUC_THRESHOLDS_MM = np.arange(0.0, 151.0, 5.0)
"""0, 5, ..., 150: the first one contributes 0, because no error is below it."""
SCORED_JOINTS = (
    "Head", "Thorax", "LShoulder", "LElbow", "LWrist", "RShoulder", "RElbow", "RWrist",
    "LHip", "LKnee", "LFoot", "RHip", "RKnee", "RFoot",
)  # fmt: skip
"""The 14 joints that count: all but pelvis, spine and the face."""

_MM_PER_M = 1000.0


def scored_errors(predicted: np.ndarray, target: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(W, L, 14) errors in millimetres relative to the pelvis, of the joints that count, in the order of SCORED_JOINTS.

    predicted, target: (W, L, J, 3) metres in the order of `skeleton`; each loses its own `Hip`. Raises ValueError on
    other shapes, NaN, or a skeleton without one of the joints.
    """
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    joints = skeleton.indices(SCORED_JOINTS)
    if predicted.ndim < 2 or predicted.shape[-2] != len(skeleton):
        raise ValueError(
            f"predicted is {predicted.shape}, expected (W, L, {len(skeleton)}, 3): skeleton {skeleton.name}."
        )
    root = skeleton.indices(("Hip",))
    relative = mpjpe(predicted - predicted[..., root, :], target - target[..., root, :])
    return relative[..., joints] * _MM_PER_M


def pck(errors_mm: np.ndarray, threshold_mm: float = THRESHOLD_MM) -> float:
    """Percentage of errors (any shape) strictly below the threshold. Raises ValueError if there are none, or NaN."""
    return 100 * float(np.mean(_checked(errors_mm) < threshold_mm))


def auc(errors_mm: np.ndarray, thresholds_mm: np.ndarray = AUC_THRESHOLDS_MM) -> float:
    """Mean of PCK over the thresholds, percent. Raises ValueError if there are no errors, or NaN."""
    errors = np.sort(_checked(errors_mm).ravel())
    below = np.searchsorted(errors, thresholds_mm, side="left")
    return 100 * float(np.mean(below / len(errors)))


def _checked(errors_mm: np.ndarray) -> np.ndarray:
    errors = np.asarray(errors_mm, np.float64)
    if not errors.size or not np.isfinite(errors).all():
        raise ValueError(
            f"errors are {errors.shape} with {int((~np.isfinite(errors)).sum())} that are NaN or infinite; expected at "
            "least one and only finite numbers. Give the errors of valid frames."
        )
    return errors
