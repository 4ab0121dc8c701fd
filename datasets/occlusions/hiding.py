"""What the patterns share: how many frames a rate hides, a run of frames, and frames x joints -> mask.

Legend: N windows, L frames, J joints.
"""

from math import ceil

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.skeletons import Skeleton


def check_rate(rate: float) -> None:
    """Raises ValueError unless rate is a fraction in [0, 1)."""
    if not 0 <= rate < 1:
        raise ValueError(f"rate is {rate}, allowed are fractions from 0 up to but not including 1: 0.2 means 20 %.")


def check_joints(joints: tuple[str, ...]) -> None:
    """Raises ValueError unless there is a joint; whether the skeleton has it is seen when masks are drawn."""
    if not joints:
        raise ValueError('joints is empty, at least one joint name is needed, such as "RKnee".')


def hidden_count(rate: float, frames: int) -> int:
    """floor(rate * L), the published count. Raises ValueError where it is 0 although the rate is not."""
    count = int(rate * frames)
    if rate > 0 and count == 0:
        # Rounded up to four digits, so that the number shown really gives one frame.
        least = ceil(10_000 / frames) / 10_000
        remedy = f"the least rate is {least}. Raise the rate or use longer windows."
        raise ValueError(
            f"rate {rate} of {frames} frames is {rate * frames:.3g} frames, less than one. "
            f"Windows of {frames} frames are too short for this rate; "
            + (remedy if least < 1 else "use longer windows.")
        )
    return count


def run_of_frames(draws: WindowDraws, frames: int, count: int) -> np.ndarray:
    """(N, L) bool, True on `count` consecutive frames, the start uniform in {0, ..., L - count - 1}.

    As published, start L - count is never drawn: the last frame is always visible.
    """
    assert 0 <= count < frames
    start = draws.integers(frames - count)[:, None]
    frame = np.arange(frames)
    return (frame >= start) & (frame < start + count)


def hide(hidden_NL: np.ndarray, joints: tuple[str, ...], skeleton: Skeleton) -> np.ndarray:
    """(N, L, J) bool mask, True = visible: the named joints are hidden together in the frames marked (N, L)."""
    rows = np.ones((2, len(skeleton)), dtype=bool)
    rows[1, skeleton.indices(joints)] = False
    # four times as fast as broadcasting over the joints
    return np.take(rows, hidden_NL.view(np.int8), axis=0)


def zero_hidden(keypoints: np.ndarray, visible: np.ndarray) -> None:
    """Set hidden keypoints (N, L, J, 2) float32 to (0, 0), in place; visible is (N, L, J) bool.

    Both coordinates at once as one number of eight bytes: NumPy's broadcasting over the short axis takes ten times as
    long, longer than gathering the windows.
    """
    np.copyto(keypoints.view(np.int64)[..., 0], 0, where=~visible)
