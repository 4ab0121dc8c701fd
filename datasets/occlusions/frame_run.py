"""The whole person vanishes for a run of frames (DiffHPE's `structured_frame`, "Consecutive frames" in the paper).

Quirk of the released code, kept: the run never reaches the last frame of the window.
"""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.occlusions.hiding import check_rate, hidden_count, hide, run_of_frames
from posegrid.datasets.skeletons import Skeleton


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the pattern."""

    rate: float = 0.2
    """Length of the run as a fraction of the window, rounded down to whole frames."""

    def __post_init__(self) -> None:
        check_rate(self.rate)


def masks(config: Config, draws: WindowDraws, frames: int, skeleton: Skeleton) -> np.ndarray:
    """(N, L, J) bool, True = visible. Raises ValueError where the rate hides no whole frame."""
    count = hidden_count(config.rate, frames)
    return hide(run_of_frames(draws, frames, count), skeleton.joints, skeleton)
