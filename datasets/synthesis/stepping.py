"""Feet that stand where they were put down, and the height of the hips above them.

Legend: F frames. A stride is one cycle of one leg: it stands for the share `stance` of it and swings for the rest.
"""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.synthesis.body import SIDES, Body
from posegrid.datasets.synthesis.curves import cyclic, smoothed


@dataclass(frozen=True, kw_only=True)
class Gait:
    """How a leg moves within a stride."""

    stance: float
    """Share of a stride in which the foot is on the floor: above 0.5 walking, below running."""
    lift: tuple[float, float, float, float]
    """Height of the ankle above its standing height at lift-off and at 28, 55 and 80 % of the swing, metres."""
    half_width: float
    """Distance of each foot from the line of travel, metres."""

    def knots(self) -> np.ndarray:
        """(8,) points of the stride through which height and progress of the ankle run."""
        swing = 1 - self.stance
        standing = np.array([0.0, 0.55, 0.8, 1.0]) * self.stance
        return np.concatenate([standing, self.stance + np.array([0.28, 0.55, 0.8, 0.95]) * swing])


WALK = Gait(stance=0.62, lift=(0.10, 0.13, 0.07, 0.045), half_width=0.075)
RUN = Gait(stance=0.38, lift=(0.17, 0.33, 0.27, 0.11), half_width=0.05)
SHUFFLE = Gait(stance=0.62, lift=(0.07, 0.10, 0.07, 0.03), half_width=0.11)
"""Steps made while turning or shifting about on the spot."""

_PROGRESS = np.array([0.0, 0.0, 0.012, 0.07, 0.30, 0.62, 0.90, 0.99])
"""Share of the way to the next footprint at the knots: the ankle moves ahead while the heel is lifted."""


def stride_phase(phase: np.ndarray, side: int) -> np.ndarray:
    """(F,) strides of one leg; it lands where this is a whole number. The right leg is half a stride behind."""
    return phase - 0.5 * side


def ankle_paths(
    body: Body, base: np.ndarray, heading: np.ndarray, phase: np.ndarray, gait: Gait, stagger: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ankles (F, 2, 3) in the world and the heading of the feet (F, 2).

    base: (F, 2) point of the floor below the body. phase: (F,) strides done, increasing. stagger: (2,) metres by which
    each foot stands ahead of the body. A footprint lies where the body is in the middle of the stance; the less two
    footprints differ, the lower the foot is lifted between them, so nobody marches on the spot.
    """
    frames = np.arange(len(base))
    ankles = np.empty((len(base), 2, 3))
    toes = np.empty((len(base), 2))
    for side, sign in enumerate(SIDES):
        strides = stride_phase(phase, side)
        first = int(np.floor(strides[0]))
        number = np.arange(first, int(np.floor(strides[-1])) + 2)
        middle = np.interp(number + gait.stance / 2, strides, frames)
        facing = np.interp(middle, frames, heading)
        print_x = np.interp(middle, frames, base[:, 0])
        print_y = np.interp(middle, frames, base[:, 1])
        ahead, across = stagger[side], sign * gait.half_width
        prints = np.stack(
            [
                print_x + ahead * np.cos(facing) - across * np.sin(facing),
                print_y + ahead * np.sin(facing) + across * np.cos(facing),
            ],
            axis=-1,
        )
        here = np.floor(strides).astype(int) - first
        step = prints[here + 1] - prints[here]
        turned = facing[here + 1] - facing[here]
        length = np.sqrt(np.sum(step**2, axis=-1) + (0.2 * turned) ** 2)
        done = cyclic(strides, gait.knots(), _PROGRESS, gain=1.0) - np.floor(strides)
        heights = np.array([0.0, 0.0, 0.35 * gait.lift[0], *gait.lift, 0.012])
        up = cyclic(strides, gait.knots(), heights) * length / np.sqrt(length**2 + 0.12**2)
        ankles[:, side, :2] = prints[here] + done[:, None] * step
        ankles[:, side, 2] = body.ankle_height + up
        toes[:, side] = facing[here] + done * turned + sign * np.radians(7.0)
    return ankles, toes


def hip_height(
    body: Body, base: np.ndarray, heading: np.ndarray, ankles: np.ndarray, straightness: float, frame_rate: float
) -> np.ndarray:
    """(F,) height of the hips above the floor from which both ankles are within reach, smoothed over time.

    base: (F, 2) floor point below the hips. straightness: share of the leg's full length that is used.
    """
    reach = straightness * (body.thigh + body.shank)
    limits = []
    for side, sign in enumerate(SIDES):
        across = sign * body.half_hips * np.stack([-np.sin(heading), np.cos(heading)], axis=-1)
        apart = np.sum((base + across - ankles[:, side, :2]) ** 2, axis=-1)
        limits.append(ankles[:, side, 2] + np.sqrt(np.maximum(reach**2 - apart, 0.04)))
    # a soft minimum, exact where both are equal: the legs take turns in limiting the height, unnoticeably
    sharpness = 60.0
    lowest = (np.log(2) - np.logaddexp(-sharpness * limits[0], -sharpness * limits[1])) / sharpness
    even = smoothed(lowest, 0.075 * frame_rate)
    # smoothing takes the hips too high where a step is widest: walk with knees bent a little more instead
    return even - 2 * smoothed(np.maximum(even - lowest, 0.0), 0.3 * frame_rate)
