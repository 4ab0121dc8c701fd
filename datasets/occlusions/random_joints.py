"""Each joint of each frame is hidden by itself (DiffHPE's `random`, "Random" in the paper)."""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.occlusions.hiding import check_rate
from posegrid.datasets.skeletons import Skeleton


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the pattern."""

    rate: float = 0.2
    """Probability that a joint is hidden in a frame."""

    def __post_init__(self) -> None:
        check_rate(self.rate)


def masks(config: Config, draws: WindowDraws, frames: int, skeleton: Skeleton) -> np.ndarray:
    """(N, L, J) bool, True = visible: kept iff a uniform number exceeds the rate."""
    return draws.uniform(frames, len(skeleton)) > config.rate
