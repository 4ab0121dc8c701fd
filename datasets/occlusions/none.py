"""Nothing is hidden (DiffHPE's `no_miss`)."""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.skeletons import Skeleton


@dataclass(frozen=True, kw_only=True)
class Config:
    """This pattern has no settings."""


def masks(config: Config, draws: WindowDraws, frames: int, skeleton: Skeleton) -> np.ndarray:
    """(N, L, J) bool, True = visible: all True."""
    return np.ones((len(draws), frames, len(skeleton)), dtype=bool)
