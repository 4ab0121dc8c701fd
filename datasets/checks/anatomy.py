"""How long the bones of people are, and mistakes so gross that a sequence must not enter a store.

The ranges hold for children of about six years to very tall adults and for the different places that data sets mean by
one joint name; they are generous on purpose. What lies outside is worth a look, what is several times too long has
another unit.
"""

import numpy as np

from posegrid.datasets.schema import CameraSequence
from posegrid.datasets.skeletons import Skeleton

BONE_RANGES: dict[tuple[str, str], tuple[float, float]] = {
    ("_Hip", "Hip"): (0.05, 0.22), ("_Knee", "_Hip"): (0.25, 0.60), ("_Foot", "_Knee"): (0.25, 0.60),
    ("Spine", "Hip"): (0.08, 0.40), ("Thorax", "Spine"): (0.10, 0.50), ("Neck", "Thorax"): (0.03, 0.28),
    ("Head", "Neck"): (0.05, 0.30), ("Head", "Thorax"): (0.12, 0.45), ("Thorax", "Hip"): (0.28, 0.75),
    ("_Shoulder", "Thorax"): (0.06, 0.30), ("_Elbow", "_Shoulder"): (0.16, 0.42), ("_Wrist", "_Elbow"): (0.14, 0.40),
    ("Nose", "Thorax"): (0.08, 0.40), ("Head", "Nose"): (0.05, 0.30), ("_Eye", "Nose"): (0.01, 0.09),
    ("_Ear", "_Eye"): (0.04, 0.18), ("_Shoulder", "Nose"): (0.12, 0.45), ("_Hip", "_Shoulder"): (0.28, 0.75),
    ("_Hip", "Thorax"): (0.28, 0.75), ("_BigToe", "_Foot"): (0.08, 0.32), ("_SmallToe", "_Foot"): (0.07, 0.30),
    ("_Heel", "_Foot"): (0.02, 0.15), ("Spine1", "Hip"): (0.05, 0.20), ("Spine2", "Spine1"): (0.06, 0.22),
    ("Spine3", "Spine2"): (0.02, 0.15), ("_Toe", "_Foot"): (0.06, 0.22), ("NeckBase", "Spine3"): (0.10, 0.32),
    ("_Collar", "Spine3"): (0.06, 0.25), ("HeadBase", "NeckBase"): (0.04, 0.20), ("_Shoulder", "_Collar"): (0.05, 0.22),
    ("_Hand", "_Wrist"): (0.04, 0.14),
}  # fmt: skip
"""(joint, its parent) -> shortest and longest plausible bone, metres; "_" stands for "L" or "R"."""

_GROSS = 8.0
"""Factor between the bones of a sequence and typical ones from which on it cannot be a person: metres in other units
are off by 10 at least."""
_FARTHEST = 5.0
"""Screen coordinates of half of the points beyond which they must be pixels; the image ends at 1."""
_LOOKED_AT = 256
"""Frames of a sequence that `check_sequence` looks at."""


def bone_ranges(skeleton: Skeleton) -> np.ndarray:
    """(bones, 2) shortest and longest plausible length in metres, in the order of `skeleton.bones`; NaN if unknown."""
    mirrored = {*skeleton.left, *skeleton.right}
    names = [f"_{name[1:]}" if index in mirrored else name for index, name in enumerate(skeleton.joints)]
    unknown = (np.nan, np.nan)
    return np.array([BONE_RANGES.get((names[child], names[parent]), unknown) for child, parent in skeleton.bones])


def bone_lengths(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(F, bones) lengths in the unit of `poses` (F, J, 3), in the order of `skeleton.bones`."""
    child, parent = np.array(skeleton.bones).T
    return np.linalg.norm(poses[:, child] - poses[:, parent], axis=-1)


def body_scale(lengths: np.ndarray, skeleton: Skeleton) -> float:
    """Size of a body as a multiple of a typical one, from its mean bone lengths (bones,): the median over bones of
    length by middle of the plausible range. About 1 for metres, 1000 for millimetres; NaN if no range is known."""
    ranges = bone_ranges(skeleton)
    known = np.isfinite(ranges[:, 0])
    return float(np.median(lengths[known] / ranges[known].mean(axis=1))) if known.any() else float("nan")


def check_sequence(sequence: CameraSequence, skeleton: Skeleton) -> None:
    """Refuse mistakes that nobody wants in a store; looks at 256 frames at most, spread over the sequence.

    Raises ValueError for poses in another unit than metres, poses that are behind the camera or relative to their
    root, confidence outside [0, 1] and keypoints in pixels.
    """
    thin = slice(None, None, max(1, len(sequence.keypoints) // _LOOKED_AT))
    valid = np.ones(len(sequence.keypoints), np.bool_) if sequence.valid is None else sequence.valid
    where = f"sequence {sequence.name}"
    confidence = sequence.confidence
    if len(confidence) and (confidence.min() < -1e-6 or confidence.max() > 1 + 1e-6):
        raise ValueError(
            f"{where}: confidence from {confidence.min():.4g} to {confidence.max():.4g}, allowed is 0 to 1. Its reader "
            "must scale or clip what the detector gave."
        )
    seen = sequence.keypoints[thin][confidence[thin] > 0]
    # (0, 0) is what detectors write for nothing, so the larger coordinate of the upper half decides
    if len(seen) and (middle := float(np.median(np.abs(seen).max(axis=-1)))) > _FARTHEST:
        raise ValueError(
            f"{where}: half of its keypoints lie beyond {middle:.4g}, but screen coordinates run from -1 to 1 over the "
            "image. They look like pixels: its reader must normalise them by width and height."
        )
    if sequence.poses is None or not valid[thin].any() or sequence.poses.shape[1] != len(skeleton):
        return  # the store itself refuses another number of joints
    poses = sequence.poses[thin][valid[thin]].astype(np.float64)
    scale = body_scale(bone_lengths(poses, skeleton).mean(axis=0), skeleton)
    if scale > _GROSS or scale < 1 / _GROSS:
        raise ValueError(
            f"{where}: its bones are {scale:.3g} times as long as those of a person, poses must be in metres. "
            f"{_unit_hint(scale)}Set or correct the unit in the options or the reader of this data set."
        )
    depth = poses[:, skeleton.root, 2]
    if float(np.median(depth)) <= 0:
        behind = "is 0 throughout: poses relative to the root" if not depth.any() else f"is {np.median(depth):.4g} m"
        raise ValueError(
            f"{where}: the depth of its root {behind}. Poses must be absolute in the frame of a camera that looks "
            "along positive z. Its reader must keep the position of the root and turn world axes into the camera's."
        )


def _unit_hint(scale: float) -> str:
    units = {"millimetres": 1000.0, "centimetres": 100.0, "inches": 1 / 0.0254, "decimetres": 10.0, "kilometres": 1e-3}
    unit, factor = min(units.items(), key=lambda item: abs(np.log(scale / item[1])))
    return f"They look like {unit}. " if scale > 0 and abs(np.log(scale / factor)) < np.log(1.8) else ""
