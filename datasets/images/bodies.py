"""Bodies made of capsules around any skeleton: which joints they hang on, how thick they are, what they wear.

Radii are those of an adult whose thigh and shank together measure 0.89 m (about Human3.6M's mean) and grow with the
legs; they are ours, chosen to look like people. Legend: N images, J joints, K parts, P points.
"""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.skeletons import Skeleton

_LEGS = 0.89
"""Thigh and shank of the body that the radii below describe, metres."""
_SLACK = 0.05
"""A joint counts as hidden if something lies in front of its own limb by more than this, metres."""

CLOTHES = ("skin", "face", "hair", "shirt", "emblem", "sleeve", "trousers", "shin", "shoes")
"""What a part may wear; `wardrobe` gives the colours in this order."""

_PLACES: dict[str, tuple[str, ...]] = {
    "Hip": ("Hip", "0.5 LHip + 0.5 RHip"),
    "Thorax": ("Thorax", "0.5 LShoulder + 0.5 RShoulder"),
    "Spine": ("Spine", "Spine2", "0.5 Hip + 0.5 Thorax"),
    "Neck": ("Neck", "HeadBase", "0.5 Thorax + 0.5 Head", "Nose"),
    "Head": ("Head", "1.55 Neck - 0.55 Thorax"),
    "Skull0": ("0.8 Neck + 0.2 Head",),
    "Skull1": ("0.45 Neck + 0.55 Head",),
    "Belly": ("0.5 Hip + 0.5 Spine",),
    "Chest": ("0.3 Spine + 0.7 Thorax",),
    "LRib": ("0.6 Chest + 0.4 LShoulder",),
    "RRib": ("0.6 Chest + 0.4 RShoulder",),
    "LWaist": ("0.3 Spine + 0.7 LHip",),
    "RWaist": ("0.3 Spine + 0.7 RHip",),
    "LHand": ("1.35 LWrist - 0.35 LElbow",),
    "RHand": ("1.35 RWrist - 0.35 RElbow",),
}
"""Points that parts hang on, as sums of joints or points above; the first line whose names are all known is taken."""

_PARTS: tuple[tuple[str, str, float, str, str], ...] = (
    ("LHip", "RHip", 0.105, "trousers", "trousers"),
    ("Belly", "Spine", 0.115, "shirt", "shirt"),
    ("Spine", "Chest", 0.125, "shirt", "emblem"),
    ("LShoulder", "RShoulder", 0.062, "shirt", "shirt"),
    ("LRib", "LWaist", 0.085, "shirt", "shirt"),
    ("RRib", "RWaist", 0.085, "shirt", "shirt"),
    ("Thorax", "Neck", 0.05, "skin", "skin"),
    ("Skull0", "Skull1", 0.098, "hair", "face"),
    ("LHip", "LKnee", 0.075, "trousers", "trousers"),
    ("RHip", "RKnee", 0.075, "trousers", "trousers"),
    ("LKnee", "LFoot", 0.052, "shin", "shin"),
    ("RKnee", "RFoot", 0.052, "shin", "shin"),
    ("LFoot", "LToe", 0.045, "shoes", "shoes"),
    ("RFoot", "RToe", 0.045, "shoes", "shoes"),
    ("LShoulder", "LElbow", 0.047, "shirt", "shirt"),
    ("RShoulder", "RElbow", 0.047, "shirt", "shirt"),
    ("LElbow", "LWrist", 0.038, "sleeve", "sleeve"),
    ("RElbow", "RWrist", 0.038, "sleeve", "sleeve"),
    ("LWrist", "LHand", 0.04, "skin", "skin"),
    ("RWrist", "RHand", 0.04, "skin", "skin"),
)
"""From, to, radius in metres, what it wears at the back and at the front (face and emblem tell front from back)."""

_TRUNK = ("Hip", "Spine", "Thorax", "Spine1", "Spine2", "Spine3")
_OWN_RADIUS = {**dict.fromkeys(_TRUNK, 0.16), "LHip": 0.15, "RHip": 0.15, "LShoulder": 0.1, "RShoulder": 0.1,
               "Neck": 0.11, "Head": 0.11}  # fmt: skip
"""How deep a joint lies in its own part of the body seen from any side, metres; the others 0.06."""

_SKIN = np.array([[241, 205, 180], [224, 180, 148], [198, 146, 110], [150, 102, 72], [98, 64, 46]], dtype=np.float64)
_HAIR = np.array([[30, 24, 22], [66, 44, 30], [120, 84, 46], [190, 160, 98], [140, 138, 136]], dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Capsules:
    """The parts of N bodies."""

    start: np.ndarray
    """(N, K, 3) float64, metres, camera frame."""
    end: np.ndarray
    """(N, K, 3) float64."""
    radius: np.ndarray
    """(N, K) float64, metres; 0 for parts that are not there."""
    front: np.ndarray
    """(N, 3) unit vectors in which the body faces."""


class Body:
    """Builds capsules around poses of one skeleton. Raises ValueError if the skeleton lacks limbs."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self._weights = {name: row for name, row in zip(skeleton.joints, np.eye(len(skeleton)), strict=True)}
        limbs = [side + limb for side in "LR" for limb in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Foot")]
        missing = [name for name in limbs if name not in self._weights]
        if missing:
            raise ValueError(
                f"skeleton {skeleton.name} lacks {', '.join(missing)}, so no body can be drawn around it. Read images "
                "from files, or add the joints."
            )
        for name, lines in _PLACES.items():
            line = next(line for line in lines if all(word in self._weights for word in _words(line)))
            self._weights[name] = _sum(line, self._weights)
        starts, ends = ([part[0] for part in _PARTS], [part[1] for part in _PARTS])
        # toes are found from the pose, see `capsules`
        nowhere = np.zeros(len(skeleton))
        self._ends = [np.array([self._weights.get(name, nowhere) for name in names]) for names in (starts, ends)]
        self.clothes = np.array([[CLOTHES.index(part[3]), CLOTHES.index(part[4])] for part in _PARTS])
        """(K, 2) index into `CLOTHES`: back, front."""
        self.own_radius = np.array([_OWN_RADIUS.get(name, 0.06) for name in skeleton.joints])
        """(J,) depth of a joint in its limb, metres."""

    def capsules(self, poses: np.ndarray, girth: np.ndarray | float = 1.0) -> Capsules:
        """Parts of the bodies (N, J, 3), metres; `girth` (N,) makes people thinner or stouter."""
        poses = np.asarray(poses, dtype=np.float64)
        # einsum sums joint by joint in one order, so that a row does not depend on the others; matmul's would
        start, end = (np.einsum("kj,njc->nkc", weights, poses) for weights in self._ends)
        scale = self.scale(poses)
        front = self.front(poses)
        for part, (_, name, *_) in enumerate(_PARTS):
            if name.endswith("Toe"):
                ankle, knee = self.joint(poses, name[0] + "Foot"), self.joint(poses, name[0] + "Knee")
                end[:, part] = ankle + _foot(ankle - knee, front) * (0.16 * scale)[:, None]
        # a part without length has no direction: give it a tenth of a millimetre
        flat = np.linalg.norm(end - start, axis=-1) < 1e-4
        end[..., 1] += np.where(flat, 1e-4, 0.0)
        radius = np.array([part[2] for part in _PARTS]) * (scale * girth)[:, None]
        return Capsules(start=start, end=end, radius=radius, front=front)

    def joint(self, poses: np.ndarray, name: str) -> np.ndarray:
        """(N, 3) a joint or point of poses (N, J, 3) by name."""
        return np.einsum("j,njc->nc", self._weights[name], poses)

    def scale(self, poses: np.ndarray) -> np.ndarray:
        """(N,) size of the bodies as a multiple of the one the radii describe, from the legs, in [0.2, 2]."""
        total = np.zeros(len(poses))
        for side in "LR":
            hip, knee, foot = (self.joint(poses, side + name) for name in ("Hip", "Knee", "Foot"))
            total += np.linalg.norm(hip - knee, axis=-1) + np.linalg.norm(knee - foot, axis=-1)
        return np.clip(total / 2 / _LEGS, 0.2, 2.0)

    def front(self, poses: np.ndarray) -> np.ndarray:
        """(N, 3) unit vectors in which the chest faces: to the left cross upwards; towards the camera if undefined."""
        left = self.joint(poses, "LShoulder") - self.joint(poses, "RShoulder")
        left += self.joint(poses, "LHip") - self.joint(poses, "RHip")
        return _unit(np.cross(left, self.joint(poses, "Thorax") - self.joint(poses, "Hip")))

    def margin(self, poses: np.ndarray) -> np.ndarray:
        """(N, J) how far in front of a joint something must be to hide it, metres: the joint's own limb and 5 cm."""
        return self.scale(poses)[:, None] * (self.own_radius + _SLACK)


def wardrobe(seed: int, subject_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (N, len(CLOTHES), 3) float64 in [0, 255] and girths (N,), the same for a subject in all its recordings.

    subject_keys: (N,) uint64, from `sequence_key` of the subject's name.
    """
    draws = WindowDraws(seed, subject_keys, np.zeros(len(subject_keys), dtype=np.int64))
    shirt, trousers, emblem = (draws.uniform(3) * span + least for least, span in ((30, 225), (15, 150), (20, 235)))
    skin, hair = (table[draws.integers(len(table))] for table in (_SKIN, _HAIR))
    shoes = draws.uniform(3) * 120 + 15
    long_sleeves, long_trousers = draws.uniform(1) < 0.5, draws.uniform(1) < 0.75
    girth = 0.9 + 0.25 * draws.uniform()
    worn = {
        "skin": skin, "face": skin, "hair": hair, "shirt": shirt, "emblem": emblem, "trousers": trousers,
        "sleeve": np.where(long_sleeves, shirt, skin), "shin": np.where(long_trousers, trousers, skin), "shoes": shoes,
    }  # fmt: skip
    return np.stack([worn[name] for name in CLOTHES], axis=1), girth


def _foot(shank: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Direction of the toes: where the body faces, across the shank, turned down a little."""
    down = _unit(shank)
    across = front - np.sum(front * down, axis=-1, keepdims=True) * down
    return _unit(_unit(across) + 0.25 * down)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-6, vectors / np.maximum(length, 1e-12), np.array([0.0, 0.0, -1.0]))


def _words(line: str) -> list[str]:
    return [word for word in line.split() if word[0].isalpha()]


def _sum(line: str, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Parse "0.5 LHip + 0.5 RHip" or "Hip" into weights of the joints."""
    words = line.split()
    if len(words) == 1:
        return weights[line]
    sign = -1.0 if words[2] == "-" else 1.0
    return float(words[0]) * weights[words[1]] + sign * float(words[3]) * weights[words[4]]
