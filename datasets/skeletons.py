"""Named skeletons: joints, parents, mirror pairs, bones.

Source of the Human3.6M numbers: the 32-point motion-capture skeleton of Human3.6M (Ionescu et al., 2014) reduced to
the 17 joints that VideoPose3D (Pavllo et al., 2019), MixSTE and DiffHPE use.
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

SKELETONS = {skeleton.name: skeleton for skeleton in (H36M_17,)}


def skeleton_named(name: str) -> Skeleton:
    """The skeleton of that name. Raises ValueError listing the known ones."""
    if name not in SKELETONS:
        raise ValueError(f"skeleton {name!r} is unknown. Known: {', '.join(sorted(SKELETONS))}.")
    return SKELETONS[name]
