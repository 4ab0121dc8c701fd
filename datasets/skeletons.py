"""Named skeletons: joints, parents, mirror pairs, bones.

Source of the Human3.6M numbers: the 32-point motion-capture skeleton of Human3.6M (Ionescu et al., 2014) reduced to
the 17 joints that VideoPose3D (Pavllo et al., 2019), MixSTE and DiffHPE use.

One name means one place of the body in all skeletons, so that occlusions and `conversions` work by name. The names are
Human3.6M's, also where another data set says it differently:

| name | place | called elsewhere |
|---|---|---|
| `Hip` | pelvis, between the hips | MidHip, root |
| `LFoot`, `RFoot` | ankle | LAnkle, left_ankle |
| `Thorax` | base of the neck, between the shoulders | Neck (OpenPose, Halpe), neck (MPI-INF-3DHP) |
| `Neck` | face, about the height of the nose | Nose, Neck/Nose, head (MPI-INF-3DHP) |
| `Head` | top of the head | head top |

A detector's `Nose` is the tip of the nose on the image: close to `Neck`, not the same, so it keeps its own name. Joints
of SMPL's body model that have no such place are named `Spine1` to `Spine3`, `NeckBase` and `HeadBase`.

Every skeleton is one tree. Where the data set has no pelvis the root is the most central joint that it does have: the
nose for COCO (shoulders hang on it, hips on the shoulders), the thorax for OpenPose's 18 joints.
"""

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """A tree of joints with mirror pairs.

    `parents[j]` is the index of the parent of joint j, -1 for the root. `left[i]` and `right[i]` mirror each other.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.joints) == len(self.parents)
        assert len(self.left) == len(self.right)
        assert len(set(self.joints)) == len(self.joints), f"{self.name}: joint names repeat"

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def root(self) -> int:
        """Index of the root joint."""
        return self.parents.index(-1)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) pairs in the order of the children."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent >= 0)

    @property
    def mirror(self) -> tuple[int, ...]:
        """Permutation that swaps left and right joints; an involution."""
        order = list(range(len(self)))
        for left, right in zip(self.left, self.right, strict=True):
            order[left], order[right] = right, left
        return tuple(order)

    def index(self, joint: str) -> int:
        """Index of a joint by name. Raises ValueError naming the nearest joint."""
        try:
            return self.joints.index(joint)
        except ValueError:
            near = get_close_matches(joint, self.joints, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"skeleton {self.name} has no joint {joint!r}; {hint}Joints: {', '.join(self.joints)}."
            ) from None

    def indices(self, joints: tuple[str, ...]) -> list[int]:
        """Indices of several joints by name."""
        return [self.index(joint) for joint in joints]


H36M_17 = Skeleton(
    name="h36m_17",
    joints=(
        "Hip", "RHip", "RKnee", "RFoot", "LHip", "LKnee", "LFoot", "Spine", "Thorax",
        "Neck", "Head", "LShoulder", "LElbow", "LWrist", "RShoulder", "RElbow", "RWrist",
    ),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    left=(4, 5, 6, 11, 12, 13),
    right=(1, 2, 3, 14, 15, 16),
)  # fmt: skip

H36M_32_TO_17 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""Which of the 32 motion-capture points are kept, in the order of `H36M_17` (the others are static or duplicates)."""

H36M_16 = Skeleton(
    name="h36m_16",
    joints=(
        "Hip", "RHip", "RKnee", "RFoot", "LHip", "LKnee", "LFoot", "Spine", "Thorax",
        "Head", "LShoulder", "LElbow", "LWrist", "RShoulder", "RElbow", "RWrist",
    ),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 8, 10, 11, 8, 13, 14),
    left=(4, 5, 6, 10, 11, 12),
    right=(1, 2, 3, 13, 14, 15),
)  # fmt: skip
"""Human3.6M without `Neck` (Martinez et al., 2017, whose stacked hourglass detects MPII's 16 joints)."""

UPLIFT_17 = Skeleton(
    name="uplift_17",
    joints=(
        "RFoot", "RKnee", "RHip", "LHip", "LKnee", "LFoot", "Hip", "Thorax", "Spine", "Neck", "Head",
        "RWrist", "RElbow", "RShoulder", "LShoulder", "LElbow", "LWrist",
    ),
    parents=(1, 2, 6, 6, 3, 4, -1, 8, 6, 7, 9, 12, 13, 7, 7, 14, 15),
    left=(5, 4, 3, 16, 15, 14),
    right=(0, 1, 2, 11, 12, 13),
)  # fmt: skip
"""Human3.6M's joints in the order of Uplift and Upsample (Einfalt et al., 2023)."""

MPI_INF_3DHP_17 = Skeleton(
    name="mpi_inf_3dhp_17",
    joints=(
        "Head", "Thorax", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist",
        "RHip", "RKnee", "RFoot", "LHip", "LKnee", "LFoot", "Hip", "Spine", "Neck",
    ),
    parents=(16, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1),
    left=(5, 6, 7, 11, 12, 13),
    right=(2, 3, 4, 8, 9, 10),
)  # fmt: skip
"""MPI-INF-3DHP (Mehta et al., 2017) in the order of its test set and of P-STMO's files."""

COCO_17 = Skeleton(
    name="coco_17",
    joints=(
        "Nose", "LEye", "REye", "LEar", "REar", "LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist", "RWrist",
        "LHip", "RHip", "LKnee", "RKnee", "LFoot", "RFoot",
    ),
    parents=(-1, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
    left=(1, 3, 5, 7, 9, 11, 13, 15),
    right=(2, 4, 6, 8, 10, 12, 14, 16),
)  # fmt: skip
"""COCO (Lin et al., 2014). It has no pelvis: the root is the nose."""

HALPE_26 = Skeleton(
    name="halpe_26",
    joints=(
        *COCO_17.joints, "Head", "Thorax", "Hip",
        "LBigToe", "RBigToe", "LSmallToe", "RSmallToe", "LHeel", "RHeel",
    ),
    parents=(18, 0, 0, 1, 2, 18, 18, 5, 6, 7, 8, 19, 19, 11, 12, 13, 14, 0, 19, -1, 15, 16, 15, 16, 15, 16),
    left=(1, 3, 5, 7, 9, 11, 13, 15, 20, 22, 24),
    right=(2, 4, 6, 8, 10, 12, 14, 16, 21, 23, 25),
)  # fmt: skip
"""Halpe (Fang et al., 2022), body and feet: what AlphaPose calls Halpe-26."""

BODY_25 = Skeleton(
    name="body_25",
    joints=(
        "Nose", "Thorax", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist",
        "Hip", "RHip", "RKnee", "RFoot", "LHip", "LKnee", "LFoot", "REye", "LEye", "REar", "LEar",
        "LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel",
    ),
    parents=(1, 8, 1, 2, 3, 1, 5, 6, -1, 8, 9, 10, 8, 12, 13, 0, 0, 15, 16, 14, 14, 14, 11, 11, 11),
    left=(5, 6, 7, 12, 13, 14, 16, 18, 19, 20, 21),
    right=(2, 3, 4, 9, 10, 11, 15, 17, 22, 23, 24),
)  # fmt: skip
"""OpenPose's BODY_25 (Cao et al., 2019)."""

OPENPOSE_18 = Skeleton(
    name="openpose_18",
    joints=(
        "Nose", "Thorax", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist",
        "RHip", "RKnee", "RFoot", "LHip", "LKnee", "LFoot", "REye", "LEye", "REar", "LEar",
    ),
    parents=(1, -1, 1, 2, 3, 1, 5, 6, 1, 8, 9, 1, 11, 12, 0, 0, 14, 15),
    left=(5, 6, 7, 11, 12, 13, 15, 17),
    right=(2, 3, 4, 8, 9, 10, 14, 16),
)  # fmt: skip
"""OpenPose's COCO model, which 3DPW's 2D poses use. It has no pelvis: the root is the thorax."""

SMPL_24 = Skeleton(
    name="smpl_24",
    joints=(
        "Hip", "LHip", "RHip", "Spine1", "LKnee", "RKnee", "Spine2", "LFoot", "RFoot", "Spine3", "LToe", "RToe",
        "NeckBase", "LCollar", "RCollar", "HeadBase", "LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist", "RWrist",
        "LHand", "RHand",
    ),
    parents=(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
    left=(1, 4, 7, 10, 13, 16, 18, 20, 22),
    right=(2, 5, 8, 11, 14, 17, 19, 21, 23),
)  # fmt: skip
"""The kinematic tree of SMPL (Loper et al., 2015). Its joints are those of a skinned mesh: even hips and shoulders lie
centimetres from Human3.6M's, so a conversion is approximate; a joint regressor on the vertices is exact."""

SKELETONS = {
    skeleton.name: skeleton
    for skeleton in (
        H36M_17,
        H36M_16,
        UPLIFT_17,
        MPI_INF_3DHP_17,
        COCO_17,
        HALPE_26,
        BODY_25,
        OPENPOSE_18,
        SMPL_24,
    )
}


def skeleton_named(name: str) -> Skeleton:
    """The skeleton of that name. Raises ValueError listing the known ones."""
    if name not in SKELETONS:
        raise ValueError(f"skeleton {name!r} is unknown. Known: {', '.join(sorted(SKELETONS))}.")
    return SKELETONS[name]
