"""Which joint of a skeleton a name in somebody's file means, and which skeleton a list of names or a count means."""

from collections.abc import Sequence
from difflib import get_close_matches

from posegrid.datasets.skeletons import SKELETONS, Skeleton

BY_COUNT = {17: "coco_17", 18: "openpose_18", 25: "body_25", 26: "halpe_26", 133: "coco_17", 136: "halpe_26"}
"""Number of keypoints a person -> skeleton of the first ones: COCO-WholeBody (133) begins with COCO, Halpe-136 with
Halpe-26. Human3.6M's 17 joints are told from COCO's by their names only."""

_OTHER_NAMES = {
    "ankle": "foot", "root": "hip", "pelvis": "hip", "midhip": "hip", "neckbase": "neck", "headtop": "head",
}  # fmt: skip
_NECK_IS_THORAX = ("halpe_26", "body_25", "openpose_18")


def joint_named(skeleton: Skeleton, name: str) -> int | None:
    """Index of the joint that a file calls `name`, or None.

    Case, blanks, `_`, `-` and "left"/"right" in place of "L"/"R" do not matter: `LFoot`, `left_ankle`, `l ankle` and
    `LAnkle` are one. `Neck` is the thorax in Halpe's and OpenPose's skeletons, as they call it.
    """
    own = {joint.lower(): index for index, joint in enumerate(skeleton.joints)}
    plain = "".join(letter for letter in name.lower() if letter not in " _-")
    for side in ("left", "right"):
        plain = side[0] + plain[len(side) :] if plain.startswith(side) else plain
    if plain not in own:
        side, rest = (plain[:1], plain[1:]) if plain[1:] == "ankle" else ("", plain)
        plain = side + _OTHER_NAMES.get(rest, rest)
    if plain == "neck" and skeleton.name in _NECK_IS_THORAX:
        plain = "thorax"
    return own.get(plain)


def nearest_joint(skeleton: Skeleton, name: str) -> str:
    """ "did you mean ...? " with the most similar joint, empty if none is similar."""
    near = get_close_matches(name.lower(), [joint.lower() for joint in skeleton.joints], 1)
    match = next((joint for joint in skeleton.joints if near and joint.lower() == near[0]), None)
    return f"did you mean {match!r}? " if match else ""


def skeleton_of_names(names: Sequence[str]) -> Skeleton | None:
    """The skeleton whose joints these names are, in this order, or None."""
    for skeleton in SKELETONS.values():
        if len(skeleton) == len(names) and [joint_named(skeleton, name) for name in names] == list(range(len(names))):
            return skeleton
    return None
