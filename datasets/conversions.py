"""Poses and keypoints of one named skeleton -> another one.

Joints of the same name are copied. What the source lacks is a fixed linear combination of what it has:

| wanted | from | why |
|---|---|---|
| `Hip` | midpoint of `LHip` and `RHip` | the usual pelvis of COCO keypoints |
| `Thorax` | `NeckBase`, otherwise the midpoint of the shoulders | OpenPose defines its neck like this |
| `Spine` | `Spine2`, otherwise the midpoint of `Hip` and `Thorax` | Human3.6M's lies halfway |
| `Neck` | `Nose`, `HeadBase`, otherwise the midpoint of `Thorax` and `Head` | Human3.6M's is level with the nose |
| `Head` | `HeadBase` + (`HeadBase` - `NeckBase`) | neck and head are about equally long |
| `Head` | eyes + 0.5 (eyes - `Thorax`), eyes being their midpoint | twice as far from the shoulders as from the top |

Other code puts `Head` between the eyes; Human3.6M's is the top of the head, hence the extrapolation. A derived joint is
as confident as the least confident joint it comes from.

| from | to `h36m_17` | from `h36m_17` |
|---|---|---|
| `uplift_17`, `mpi_inf_3dhp_17` | exact, a permutation | exact, its inverse |
| `h36m_16` | approximate: `Neck` | exact, `Neck` is dropped |
| `halpe_26` | approximate: `Spine`, `Neck` | - |
| `body_25` | approximate: `Spine`, `Neck`, `Head` | - |
| `openpose_18` | approximate: `Hip`, `Spine`, `Neck`, `Head` | - |
| `coco_17` | approximate: `Hip`, `Thorax`, `Spine`, `Neck`, `Head` | - |
| `smpl_24` | approximate in every joint: SMPL's are not Human3.6M's, use a joint regressor where it matters | - |

Exact is about names and weights: MPI-INF-3DHP's markerless joints are not in the very places of Human3.6M's either.
Any other pair works that needs no more than this, such as `halpe_26` to `coco_17`.
"""

from functools import cache

import numpy as np

from posegrid.datasets.skeletons import SKELETONS, skeleton_named

_RULES: tuple[tuple[str, dict[str, float]], ...] = (
    ("Hip", {"LHip": 0.5, "RHip": 0.5}),
    ("Thorax", {"NeckBase": 1.0}),
    ("Thorax", {"LShoulder": 0.5, "RShoulder": 0.5}),
    ("Spine", {"Spine2": 1.0}),
    ("Spine", {"Hip": 0.5, "Thorax": 0.5}),
    ("Head", {"HeadBase": 2.0, "NeckBase": -1.0}),
    ("Head", {"LEye": 0.75, "REye": 0.75, "Thorax": -0.5}),
    ("Neck", {"Nose": 1.0}),
    ("Neck", {"HeadBase": 1.0}),
    ("Neck", {"Thorax": 0.5, "Head": 0.5}),
)
"""Joint and the weights that make it, each sum 1; the first rule counts whose joints the source has or gets by a rule
above it."""


def convert(
    points: np.ndarray, source: str, target: str, confidence: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Points (..., J, C) of the skeleton named `source` -> (..., K, C) of `target`, same dtype (integers: float64).

    `confidence` (..., J) becomes (..., K), the minimum over the joints that a joint comes from; None stays None.
    Coordinates may be pixels, normalised screen coordinates or metres: every rule commutes with shifts and scales.
    Raises ValueError if a skeleton is unknown, `target` has joints that `source` cannot give, or the shape is wrong.
    """
    matrix = conversion_matrix(source, target)
    joints = matrix.shape[1]
    if points.ndim < 2 or points.shape[-2] != joints or (confidence is not None and confidence.shape[-1] != joints):
        shapes = f"points {points.shape}" + ("" if confidence is None else f", confidence {confidence.shape}")
        raise ValueError(
            f"conversion of {source} to {target} got {shapes}; {source} has {joints} joints, so points must be "
            f"(..., {joints}, coordinates) and confidence (..., {joints}). Name the skeleton that the points have."
        )
    parts = matrix != 0
    alone = parts.sum(axis=1) == 1
    first = parts.argmax(axis=1)
    points = points if points.dtype.kind == "f" else points.astype(np.float64)
    # copied joints are taken by index, bit for bit
    converted = points[..., first, :]
    if not alone.all():
        used = parts[~alone].any(axis=0)
        derived = np.einsum("ks,...sc->...kc", matrix[~alone][:, used], points[..., used, :])
        converted[..., ~alone, :] = derived.astype(points.dtype)
    if confidence is None:
        return converted, None
    least = confidence[..., first]
    for joint in np.flatnonzero(~alone):
        least[..., joint] = confidence[..., parts[joint]].min(axis=-1)
    return converted, least


def is_exact(source: str, target: str) -> bool:
    """Whether every joint of `target` is a joint of `source` (see the table above)."""
    have, want = skeleton_named(source), skeleton_named(target)
    return set(want.joints) <= set(have.joints) and (source == target or "smpl_24" not in (source, target))


def targets_of(source: str) -> tuple[str, ...]:
    """Names of the skeletons that `source` can be converted to."""
    return tuple(target for target in SKELETONS if _weights(source, target)[1] == ())


def conversion_matrix(source: str, target: str) -> np.ndarray:
    """(K, J) float64 weights: row k makes joint k of `target` of the joints of `source`; each row sums to 1. Read-only.

    Raises ValueError naming the joints that cannot be had and the conversions that are possible.
    """
    have, want = skeleton_named(source), skeleton_named(target)
    matrix, missing = _weights(source, target)
    if missing:
        sources = [name for name in SKELETONS if target in targets_of(name)]
        raise ValueError(
            f"skeleton {have.name} cannot be converted to {want.name}: it says nothing of {', '.join(missing)}. "
            f"Possible from {have.name}: {', '.join(targets_of(have.name))}; possible to {want.name}: "
            f"{', '.join(sources)}. Choose one of these."
        )
    return matrix


@cache
def _weights(source: str, target: str) -> tuple[np.ndarray, tuple[str, ...]]:
    have, want = SKELETONS[source], SKELETONS[target]
    known = {joint: row for joint, row in zip(have.joints, np.eye(len(have)), strict=True)}
    for joint, weights in _RULES:
        if joint not in known and all(name in known for name in weights):
            known[joint] = sum((weight * known[name] for name, weight in weights.items()), np.zeros(len(have)))
    missing = tuple(joint for joint in want.joints if joint not in known)
    matrix = np.zeros((len(want), len(have))) if missing else np.stack([known[joint] for joint in want.joints])
    matrix.setflags(write=False)
    return matrix, missing
