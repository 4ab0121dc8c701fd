"""From the skeletons of CMU's files to the 17 joints of Human3.6M.

CMU's motion comes in two skeletons that put joints at different places: Acclaim's hips and shoulders are nodes of bones
fitted to each subject, the BVH conversion squeezed everybody into one figure. Two steps make them mean the same.

1. Points. Each joint is a weighted sum of nodes, or a point fixed to a node (see the tables). Where they lie:
   Hip          middle of the two hip joints (the files' own root lies up to 10 cm above it)
   R/LHip       hip joints: Acclaim end of r/lhipjoint, BVH r/lThigh
   R/LKnee      Acclaim end of r/lfemur, BVH r/lShin
   R/LFoot      ankles: Acclaim end of r/ltibia, BVH r/lFoot
   Thorax       neck base, 2 to 3 cm above the line of the shoulders: Acclaim the thorax bone prolonged by 65 %, for its
                end lies 5 cm below them; BVH between the collars and the neck, all of them fixed to the chest
   Spine        half-way between Hip and Thorax along the spine: between the ends of lowerback and upperback, between
                abdomen and chest
   Neck         the nose: the files have none, so a point fixed to the head, 6 cm ahead of the base of the skull
   Head         top of the head, fixed to the head too: Acclaim's head bone ends at the forehead
   R/LShoulder  Acclaim end of r/lclavicle, BVH r/lShldr
   R/LElbow     Acclaim end of r/lhumerus, BVH r/lForeArm
   R/LWrist     Acclaim end of r/lwrist, since lradius and lwrist together are the forearm (lwrist only twists);
                BVH r/lHand
2. Bones. Their directions are kept, their lengths are set (`lengths_of`): legs, arms and trunk keep what was measured
   for the subject but share it between their bones as Human3.6M's subjects do; widths, neck and head get the size
   Human3.6M's subjects have for legs of that length. Without this step shoulders are 20 cm from the neck base in one
   format and 12 cm in the other, and thighs 9 cm shorter than shanks in BVH. Bones are thus constant and symmetric.
   The price: hands and feet move by up to a few centimetres against the recorded ones.

Legend: F frames. Axes as in the files: y up, z forward, x to the left of a subject that faces z.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posegrid.datasets.readers.kinematics import MocapMotion
from posegrid.datasets.skeletons import H36M_17


@dataclass(frozen=True)
class _Point:
    """Weights of nodes, and an offset (metres, in the zero pose's axes) that turns with the node `fixed_to`."""

    weights: Mapping[str, float]
    fixed_to: str = ""
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


def _sides(parts: dict[str, str]) -> dict[str, _Point]:
    return {
        f"{letter}{joint}": _Point({node.format(letter.lower()): 1.0})
        for joint, node in parts.items()
        for letter in "LR"
    }


ACCLAIM_POINTS: Mapping[str, _Point] = {
    "Hip": _Point({"lhipjoint": 0.5, "rhipjoint": 0.5}),
    "Spine": _Point({"lowerback": 0.6, "upperback": 0.4}),
    "Thorax": _Point({"thorax": 1.65, "upperback": -0.65}),
    "Neck": _Point({"upperneck": 1.0}, "head", (0.0, 0.0, 0.065)),
    "Head": _Point({"head": 1.7, "upperneck": -0.7}, "head", (0.0, 0.0, 0.01)),
} | _sides(
    {
        "Hip": "{}hipjoint", "Knee": "{}femur", "Foot": "{}tibia",
        "Shoulder": "{}clavicle", "Elbow": "{}humerus", "Wrist": "{}wrist",
    }
)  # fmt: skip
"""Human3.6M joint -> nodes of an ASF skeleton (the ends of its bones)."""

BVH_POINTS: Mapping[str, _Point] = {
    "Hip": _Point({"lThigh": 0.5, "rThigh": 0.5}),
    "Spine": _Point({"abdomen": 0.4, "chest": 0.6}),
    "Thorax": _Point({"neck": 1 / 3, "lCollar": 1 / 3, "rCollar": 1 / 3}),
    "Neck": _Point({"head": 1.0}, "head", (0.0, 0.045, 0.045)),
    "Head": _Point({"head": 1.0}, "head", (0.0, 0.19, 0.0)),
} | _sides(
    {
        "Hip": "{}Thigh", "Knee": "{}Shin", "Foot": "{}Foot",
        "Shoulder": "{}Shldr", "Elbow": "{}ForeArm", "Wrist": "{}Hand",
    }
)  # fmt: skip
"""Human3.6M joint -> nodes of the cgspeed BVH conversion."""


def h36m_points(motion: MocapMotion, points: Mapping[str, _Point], metres: float, file: Path) -> np.ndarray:
    """(F, 17, 3) the points of step 1. metres: what one unit of the file's positions is.

    Raises ValueError naming the nodes the file's skeleton lacks.
    """
    needed = {node for point in points.values() for node in (*point.weights, point.fixed_to) if node}
    missing = sorted(needed - set(motion.nodes))
    if missing:
        raise ValueError(
            f"{file}: its skeleton lacks the joints {', '.join(missing)}. Supported are CMU's own ASF/AMC files and "
            "the BVH conversion of cgspeed.com with joint names such as lShldr: fetch one of these."
        )
    joints = []
    for name in H36M_17.joints:
        point = points[name]
        nodes = motion.positions[:, [motion.node(node) for node in point.weights]]
        position = np.einsum("fnc,n->fc", nodes, np.array([*point.weights.values()]) * metres)
        if point.fixed_to:
            position = position + motion.rotations[:, motion.node(point.fixed_to)] @ np.array(point.offset)
        joints.append(position)
    return np.stack(joints, axis=1)


def lengths_of(points: np.ndarray) -> dict[str, float]:
    """Bone lengths of step 2 from points (F, 17, 3), keyed by the child joint, metres.

    Measured lengths are medians over frames and means of both sides.
    """
    median = {
        H36M_17.joints[child]: float(np.median(np.linalg.norm(points[:, child] - points[:, parent], axis=-1)))
        for child, parent in H36M_17.bones
    }
    leg = sum(median[f"{side}{joint}"] for side in "LR" for joint in ("Knee", "Foot")) / 2
    arm = sum(median[f"{side}{joint}"] for side in "LR" for joint in ("Elbow", "Wrist")) / 2
    trunk = median["Spine"] + median["Thorax"]
    # shares and ratios are those of Human3.6M's mean bone lengths (m): thigh, shank .44; spine .24, .25; upper arm .28,
    # forearm .25; half hips .13; half shoulders .15; neck, head .11
    lengths = {
        "Spine": 0.49 * trunk, "Thorax": 0.51 * trunk, "Neck": 0.125 * leg, "Head": 0.125 * leg,
    }  # fmt: skip
    for side in "LR":
        lengths |= {
            f"{side}Hip": 0.148 * leg, f"{side}Knee": 0.5 * leg, f"{side}Foot": 0.5 * leg,
            f"{side}Shoulder": 0.170 * leg, f"{side}Elbow": 0.53 * arm, f"{side}Wrist": 0.47 * arm,
        }  # fmt: skip
    return lengths


def with_lengths(points: np.ndarray, lengths: Mapping[str, float]) -> np.ndarray:
    """(F, 17, 3) with the root and all bone directions of `points` and the given lengths."""
    shaped = points.copy()
    for child, parent in H36M_17.bones:
        bone = points[:, child] - points[:, parent]
        bone = bone / np.linalg.norm(bone, axis=-1, keepdims=True)
        shaped[:, child] = shaped[:, parent] + lengths[H36M_17.joints[child]] * bone
    return shaped
