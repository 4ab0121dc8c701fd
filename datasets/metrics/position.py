"""Position errors of predicted poses: MPJPE, P-MPJPE, N-MPJPE, each before any averaging.

Legend: W windows, L frames, J joints. Any leading axes are accepted, (W, L) is the usual case. Metres in, metres out.
Averages are taken over all joints including the root, as every published number does (see `summary.py`).
"""

import numpy as np


def mpjpe(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(W, L, J) distance of each predicted joint from its target; the mean is MPJPE (protocol 1).

    predicted, target: (W, L, J, 3). Nothing is aligned: root-relative in, root-relative out.
    """
    predicted, target = checked_poses(predicted, target)
    return _distance(predicted, target)


def p_mpjpe(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(W, L, J) distance after the best rotation, scale and shift of each frame; the mean is P-MPJPE (protocol 2).

    The alignment minimises the sum of squared distances over proper rotations (no mirroring), see Gower, "Generalized
    Procrustes analysis" (1975) and Umeyama, "Least-squares estimation of transformation parameters" (1991), equations
    40-42. A frame whose predicted joints all coincide cannot be scaled: it is moved to the target's centre.
    """
    predicted, target = checked_poses(predicted, target)
    predicted = predicted - predicted.mean(axis=-2, keepdims=True)
    target = target - target.mean(axis=-2, keepdims=True)
    # With H = P^T G = U S V^T the row vectors of P are turned by U V^T.
    u, singular, vt = np.linalg.svd(np.swapaxes(predicted, -1, -2) @ target)
    # A mirroring is turned into the nearest rotation by flipping the direction with the least singular value.
    sign = np.where(np.linalg.det(u) * np.linalg.det(vt) < 0, -1.0, 1.0)
    u[..., :, -1] *= sign[..., None]
    singular[..., -1] *= sign
    size = np.square(predicted).sum(axis=(-1, -2))
    scale = _ratio(singular.sum(axis=-1), size)
    return _distance(predicted @ (scale[..., None, None] * (u @ vt)), target)


def n_mpjpe(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(W, L, J) distance after the best scale of each frame; the mean is N-MPJPE (Rhodin et al., 2018).

    scale = sum <P, G> / sum <P, P> over the joints of a frame, without re-centring, as VideoPose3D computes it. A frame
    of zeros keeps its zeros.
    """
    predicted, target = checked_poses(predicted, target)
    scale = _ratio((predicted * target).sum(axis=(-1, -2)), np.square(predicted).sum(axis=(-1, -2)))
    return _distance(scale[..., None, None] * predicted, target)


def checked_poses(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 of one shape (..., J, 3). Raises ValueError on other shapes, NaN or infinity."""
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if predicted.shape != target.shape or predicted.ndim < 2 or predicted.shape[-1] != 3:
        raise ValueError(
            f"predicted is {predicted.shape} and target {target.shape}; both must have one shape (W, L, J, 3)."
        )
    for what, poses in (("predicted", predicted), ("target", target)):
        if not np.isfinite(poses).all():
            bad = np.argwhere(~np.isfinite(poses))
            raise ValueError(
                f"{what} poses hold {len(bad)} values that are NaN or infinite, the first at index "
                f"{tuple(bad[0].tolist())} of {poses.shape}. Every value must be finite: "
                + ("the model has diverged." if what == "predicted" else "prepare the data set again.")
            )
    return predicted, target


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    difference = first - second
    return np.sqrt(np.einsum("...c,...c->...", difference, difference))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
