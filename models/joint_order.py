"""What published models tie to the order of joints: numbers for Human3.6M-17, and the parts of any skeleton."""

from posegrid.models.interface import PoseShape

H36M_17_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
"""Parents of the Human3.6M-17 joints: hip, right leg, left leg, spine to head, left arm, right arm."""

MIXSTE_JOINT_WEIGHTS = (
    1.0, 1.0, 2.5, 2.5, 1.0, 2.5, 2.5, 1.0, 1.0, 1.0, 1.5, 1.5, 4.0, 4.0, 1.5, 4.0, 4.0,
)  # fmt: skip
"""Weights w_j of MixSTE's loss as released; the paper gives weights per body part, which the code does not follow."""

NON_LOCAL_GROUPS = ((2, 3), (5, 6), (1, 4), (0, 7), (8, 9, 10), (15, 16), (12, 13), (11, 14))
"""Groups of joints that DiffHPE's non-local layer means to pool: lower legs, hips, trunk, neck and head, arms."""

MARTINEZ_UNREAD = (9,)
"""Neck/Nose, which the 16 keypoints of SimpleBaseline lack."""


def require_h36m_17(pose: PoseShape, setting: str, remedy: str) -> None:
    """Raise ValueError unless the skeleton is Human3.6M-17, which `setting` needs."""
    if pose.parents != H36M_17_PARENTS:
        raise ValueError(
            f"skeleton of {pose.joints} joints with parents {pose.parents} was given, but {setting} is defined for the "
            f"17 joints of Human3.6M only (parents {H36M_17_PARENTS}). {remedy}"
        )


def body_parts(pose: PoseShape) -> tuple[int, ...]:
    """Part of every joint: 0 for head and trunk, 1, 2, ... for the limbs in the order of their first joint.

    A limb is a connected piece of the skeleton all of whose joints are left, or all right. This gives the lists that
    STCFormer was released with, for Human3.6M-17 and for the 17 joints of MPI-INF-3DHP.
    """
    side = {joint: "left" for joint in pose.left} | {joint: "right" for joint in pose.right}

    def base(joint: int) -> int:
        """The limb's joint nearest to the root."""
        parent = pose.parents[joint]
        return base(parent) if side.get(parent) == side[joint] else joint

    bases = {joint: base(joint) for joint in side}
    number: dict[int, int] = {}
    for joint in sorted(side):
        number.setdefault(bases[joint], len(number) + 1)
    return tuple(number[bases[joint]] if joint in side else 0 for joint in range(pose.joints))
