"""An articulated body: proportions, joint limits, and from posture to the 17 joints of Human3.6M.

Trunk, head and arms are forward kinematics of joint angles; legs, and hands that reach for something, are placed by the
closed solution of a two-bone chain, which keeps feet where they stand. Bone lengths are exact in both.

Legend: F frames. Body axes: x forward, y left, z up. Sides: 0 left, 1 right. Metres, radians.
"""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.skeletons import H36M_17

SIDES = (1.0, -1.0)
"""Sign of y of the left and the right side."""

ARM_LIMITS = np.radians([[-60.0, 180.0], [-30.0, 180.0], [-90.0, 90.0], [0.0, 150.0]])
"""Lowest and highest shoulder flexion, abduction, inward rotation and elbow flexion."""
TRUNK_LIMITS = np.radians([[-20.0, 50.0], [-25.0, 25.0], [-30.0, 30.0]])
"""Lowest and highest flexion, bend to the right and twist, of the lumbar and the thoracic joint each."""
HEAD_LIMITS = np.radians([[-50.0, 45.0], [-30.0, 30.0], [-70.0, 70.0]])
"""Lowest and highest nodding, bend to the right and turn of the head."""
MOST_FLEXED = np.radians(150.0)
"""Largest flexion of knees and elbows."""

_STRAIGHTEST = 0.9985
"""No limb is stretched beyond this share of its length: at 1 the direction of its bend would be undefined."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """Segment lengths as shares of body height, after Drillis and Contini (1966) as printed in Winter,
    "Biomechanics and Motor Control of Human Movement".

    Upper arm, shoulder and hip widths differ from there: they follow where Human3.6M's skeleton has these joints.
    """

    height: float
    """Body height, metres."""
    leg_scale: float = 1.0
    """Legs of this person relative to the average."""
    width_scale: float = 1.0
    """Hips and shoulders of this person relative to the average."""

    @property
    def thigh(self) -> float:
        """Hip to knee."""
        return 0.245 * self.height * self.leg_scale

    @property
    def shank(self) -> float:
        """Knee to ankle."""
        return 0.246 * self.height * self.leg_scale

    @property
    def ankle_height(self) -> float:
        """Ankle above the floor when the foot is flat."""
        return 0.039 * self.height

    @property
    def half_hips(self) -> float:
        """Middle of the hips to a hip joint."""
        return 0.075 * self.height * self.width_scale

    @property
    def half_shoulders(self) -> float:
        """Neck base to a shoulder joint."""
        return 0.086 * self.height * self.width_scale

    @property
    def trunk(self) -> tuple[float, float]:
        """Hips to spine, spine to neck base; shorter where the legs are longer."""
        scale = self.height * (2 - self.leg_scale)
        return 0.138 * scale, 0.146 * scale

    @property
    def neck(self) -> float:
        """Neck base to nose."""
        return 0.066 * self.height

    @property
    def head(self) -> float:
        """Nose to top of the head."""
        return 0.065 * self.height

    @property
    def upper_arm(self) -> float:
        """Shoulder to elbow."""
        return 0.163 * self.height

    @property
    def forearm(self) -> float:
        """Elbow to wrist."""
        return 0.146 * self.height


@dataclass(kw_only=True)
class Posture:
    """What a body does in each frame; `joints_of` turns it into positions."""

    root: np.ndarray
    """(F, 3) middle of the hips in the world."""
    heading: np.ndarray
    """(F,) where the body faces, about z."""
    pelvis: np.ndarray
    """(F, 3) tilt forward, left side raised, turn to the left, relative to the heading."""
    lumbar: np.ndarray
    """(F, 3) flexion, bend to the right, twist to the left, of the trunk's lower joint."""
    chest: np.ndarray
    """(F, 3) the same of its upper joint."""
    head: np.ndarray
    """(F, 3) nodding, bend to the right, turn to the left."""
    arms: np.ndarray
    """(F, 2, 4) shoulder flexion, abduction, inward rotation, elbow flexion."""
    ankles: np.ndarray
    """(F, 2, 3) where the ankles should be in the world."""
    toes: np.ndarray
    """(F, 2) heading of the feet; knees bend that way."""
    leg_soft_from: float
    """Share of a leg's length from which it stretches reluctantly, below 0.995."""
    hand_targets: np.ndarray
    """(F, 2, 3) where the wrists should be in the world."""
    hand_weights: np.ndarray
    """(F, 2) 0: the arm's angles count, 1: the target counts."""


def turn_x(angle: np.ndarray) -> np.ndarray:
    """(F, 3, 3) rotations about x."""
    zero, one = np.zeros_like(angle), np.ones_like(angle)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([one, zero, zero, zero, c, -s, zero, s, c], axis=-1).reshape(*angle.shape, 3, 3)


def turn_y(angle: np.ndarray) -> np.ndarray:
    """(F, 3, 3) rotations about y: positive leans z forward."""
    zero, one = np.zeros_like(angle), np.ones_like(angle)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c, zero, s, zero, one, zero, -s, zero, c], axis=-1).reshape(*angle.shape, 3, 3)


def turn_z(angle: np.ndarray) -> np.ndarray:
    """(F, 3, 3) rotations about z: positive turns to the left."""
    zero, one = np.zeros_like(angle), np.ones_like(angle)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c, -s, zero, s, c, zero, zero, zero, one], axis=-1).reshape(*angle.shape, 3, 3)


def two_bones(
    start: np.ndarray,
    target: np.ndarray,
    first: float,
    second: float,
    pole: np.ndarray,
    *,
    soft_from: float | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Middle and end (F, 3) of a chain of two bones from `start` towards `target`, bent towards `pole` (F, 3).

    The distance is held between the most flexed chain and the straightest. From `soft_from` (a number or (F, 1)) times
    the full length on the end lags behind its target: a hard stop would make knees and elbows snap.
    """
    distance = np.linalg.norm(target - start, axis=-1, keepdims=True)
    along = _unit(target - start)
    soft, longest = soft_from * (first + second), _STRAIGHTEST * (first + second)
    beyond = np.maximum(distance - soft, 0.0)
    shortest = np.sqrt(first**2 + second**2 + 2 * first * second * np.cos(MOST_FLEXED))
    distance = np.clip(np.minimum(distance, soft), shortest, None)
    distance = distance + (longest - soft) * (1 - np.exp(-beyond / (longest - soft)))
    foot = (distance**2 + first**2 - second**2) / (2 * distance)
    rise = np.sqrt(np.maximum(first**2 - foot**2, 0.0))
    return start + foot * along + rise * _unit(_across(pole, along)), start + distance * along


def joints_of(body: Body, posture: Posture) -> np.ndarray:
    """(F, 17, 3) world positions in the order of `skeletons.H36M_17`. Angles beyond the limits are held at them."""
    lumbar = np.clip(posture.lumbar, *TRUNK_LIMITS.T)
    chest = np.clip(posture.chest, *TRUNK_LIMITS.T)
    head = np.clip(posture.head, *HEAD_LIMITS.T)
    arms = np.clip(posture.arms, *ARM_LIMITS.T)

    hips_turn = turn_z(posture.heading + posture.pelvis[:, 2]) @ _bent(posture.pelvis[:, 0], posture.pelvis[:, 1])
    spine_turn = hips_turn @ _bent(lumbar[:, 0], lumbar[:, 1]) @ turn_z(lumbar[:, 2])
    chest_turn = spine_turn @ _bent(chest[:, 0], chest[:, 1]) @ turn_z(chest[:, 2])
    # half of the head's movement happens in the neck, half at the skull
    neck_turn = chest_turn @ turn_z(head[:, 2] / 2) @ _bent(head[:, 0] / 2, head[:, 1] / 2)
    head_turn = neck_turn @ turn_z(head[:, 2] / 2) @ _bent(head[:, 0] / 2, head[:, 1] / 2)

    spine = posture.root + spine_turn[..., 2] * body.trunk[0]
    thorax = spine + chest_turn[..., 2] * body.trunk[1]
    nose = thorax + neck_turn @ _direction(30.0) * body.neck
    crown = nose + head_turn @ _direction(-15.0) * body.head

    joints = {"Hip": posture.root, "Spine": spine, "Thorax": thorax, "Neck": nose, "Head": crown}
    for side, (letter, sign) in enumerate(zip("LR", SIDES, strict=True)):
        hip = posture.root + sign * body.half_hips * hips_turn[..., 1]
        toes = posture.toes[:, side]
        pole = np.stack([np.cos(toes), np.sin(toes), np.zeros_like(toes)], axis=-1) + 0.12 * sign * hips_turn[..., 1]
        knee, ankle = two_bones(
            hip, posture.ankles[:, side], body.thigh, body.shank, pole, soft_from=posture.leg_soft_from
        )
        joints |= {f"{letter}Hip": hip, f"{letter}Knee": knee, f"{letter}Foot": ankle}
        shoulder, elbow, wrist = _arm(body, chest_turn, thorax, arms[:, side], posture, side)
        joints |= {f"{letter}Shoulder": shoulder, f"{letter}Elbow": elbow, f"{letter}Wrist": wrist}
    return np.stack([joints[name] for name in H36M_17.joints], axis=1)


def _arm(
    body: Body, chest_turn: np.ndarray, thorax: np.ndarray, angles: np.ndarray, posture: Posture, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sign = SIDES[side]
    flexion, abduction, rotation, elbow_flexion = angles.T
    weight, target = posture.hand_weights[:, side, None], posture.hand_targets[:, side]
    # the shoulder joint rises with the arm: about a quarter of the elevation above 60 degrees
    elevation = np.arccos(np.clip(np.cos(flexion) * np.cos(abduction), -1.0, 1.0))
    aimed = target - thorax
    aimed = np.arccos(np.clip(-np.sum(aimed * chest_turn[..., 2], axis=-1) / np.linalg.norm(aimed, axis=-1), -1, 1))
    elevation = elevation + weight[:, 0] * (aimed - elevation)
    lift = 0.25 * np.maximum(elevation - np.radians(60.0), 0.0) - np.radians(10.0)
    shoulder = thorax + chest_turn @ turn_x(sign * lift) @ np.array([0.0, sign, 0.0]) * body.half_shoulders

    upper_turn = chest_turn @ turn_y(-flexion) @ turn_x(sign * abduction) @ turn_z(-sign * rotation)
    elbow = shoulder - upper_turn[..., 2] * body.upper_arm
    wrist = elbow - (upper_turn @ turn_y(-elbow_flexion))[..., 2] * body.forearm
    # with weight 0 the chain reproduces the angles, because the pole then is where they put the elbow
    # the hand goes round the shoulder, not through it
    swerve = chest_turn @ np.array([0.7, 0.25 * sign, 0.0]) * body.upper_arm * 4 * weight * (1 - weight)
    aim = wrist + weight * (target - wrist) + swerve
    bend = _across(elbow - shoulder, _unit(wrist - shoulder))
    pole = (1 - weight) * _unit(bend) + weight * _elbow_side(chest_turn, _unit(aim - shoulder), sign)
    soft_from = _STRAIGHTEST - 0.003 - 0.085 * weight
    reached = two_bones(shoulder, aim, body.upper_arm, body.forearm, pole, soft_from=soft_from)
    free = weight == 0
    return shoulder, np.where(free, elbow, reached[0]), np.where(free, wrist, reached[1])


def _elbow_side(chest_turn: np.ndarray, chord: np.ndarray, sign: float) -> np.ndarray:
    """(F, 3) where the elbow of a reaching arm points: backwards when the arm hangs, downwards when it is stretched
    forward, and between these by the shortest rotation from hanging to `chord` (F, 3), shoulder to wrist."""
    hanging = -chest_turn[..., 2]
    back = chest_turn @ np.array([-1.0, 0.25 * sign, 0.0])
    axis = np.cross(hanging, chord)
    cosine = np.sum(hanging * chord, axis=-1, keepdims=True)
    turned = np.cross(axis, back)
    return back + turned + np.cross(axis, turned) / np.maximum(1 + cosine, 0.05)


def _across(vector: np.ndarray, along: np.ndarray) -> np.ndarray:
    return vector - np.sum(vector * along, axis=-1, keepdims=True) * along


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-9)


def _bent(flexion: np.ndarray, to_right: np.ndarray) -> np.ndarray:
    return turn_y(flexion) @ turn_x(to_right)


def _direction(forward_degrees: float) -> np.ndarray:
    angle = np.radians(forward_degrees)
    return np.array([np.sin(angle), 0.0, np.cos(angle)])
