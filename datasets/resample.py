"""Motion at another frame rate."""

import numpy as np


def resample(positions: np.ndarray, source_rate: float, target_rate: float) -> np.ndarray:
    """(F, ...) positions at `source_rate` frames per second -> (F', ...) at `target_rate`, both starting together.

    Linear in time between neighbouring frames: human motion has next to nothing above 10 Hz, and positions, unlike
    Euler angles, may be averaged. F' is the number of new frames within the recording.
    """
    if source_rate == target_rate:
        return positions
    last = len(positions) - 1
    # a relative hair's breadth, so that a last frame that falls on the end is not lost to rounding
    count = int(np.floor(last * target_rate / source_rate * (1 + 1e-12))) + 1
    at = np.minimum(np.arange(count) * (source_rate / target_rate), last)
    before = np.minimum(at.astype(np.int64), max(last - 1, 0))
    share = (at - before).reshape(-1, *[1] * (positions.ndim - 1))
    return positions[before] * (1 - share) + positions[np.minimum(before + 1, last)] * share
