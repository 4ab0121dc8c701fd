"""Left arm and right leg vanish together in scattered frames (DiffHPE's `random_left_arm_right_leg`).

The paper ("Random leg and arm") hides each frame with the probability `rate`; the released code, which this file
follows, hides exactly floor(rate * L) distinct frames of every window.
"""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.occlusions.hiding import check_joints, check_rate, hidden_count, hide
from posegrid.datasets.skeletons import Skeleton


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the pattern."""

    rate: float = 0.4
    """Fraction of the frames of a window that are hidden, rounded down to whole frames."""
    joints: tuple[str, ...] = ("RHip", "RKnee", "RFoot", "LShoulder", "LElbow", "LWrist")
    """Names of the joints that are hidden together; hip and shoulder belong to their limb."""

    def __post_init__(self) -> None:
        check_rate(self.rate)
        check_joints(self.joints)


def masks(config: Config, draws: WindowDraws, frames: int, skeleton: Skeleton) -> np.ndarray:
    """(N, L, J) bool, True = visible. Raises ValueError where the rate hides no whole frame."""
    count = hidden_count(config.rate, frames)
    # The frames with the smallest of L independent numbers are a uniformly chosen subset of that size.
    order_NL = np.argsort(draws.uniform(frames), axis=1, kind="stable")
    hidden_NL = np.zeros(order_NL.shape, dtype=bool)
    np.put_along_axis(hidden_NL, order_NL[:, :count], True, axis=1)
    return hide(hidden_NL, config.joints, skeleton)
