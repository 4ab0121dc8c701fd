"""Only every s-th frame of a recording has a 2D pose: detections are spent sparsely (Uplift and Upsample, WACV 2023).

In a frame without a pose all joints are hidden. A window whose frames lie `data.stride` apart (the paper's s_out) shows
every (s / s_out)-th of them, so each stride s must be a multiple of s_out.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.skeletons import Skeleton


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the pattern."""

    strides: tuple[int, ...] = (4,)
    """Stored frames from one frame with a pose to the next (s_in). Several: each window draws one of them uniformly, by
    itself (the paper's multi-stride training)."""
    shift: Literal["random", "centre", "video"] = "random"
    """Where the poses are. "random": each of the s / s_out possible places is drawn alike (training). "centre": the
    window's centre, frame (L-1) // 2, has one (the paper's validation). "video": frames divisible by s, counted from
    the start of the recording (test); windows must then start on a multiple of their own stride."""

    def __post_init__(self) -> None:
        if not self.strides or min(self.strides) < 1 or len(set(self.strides)) < len(self.strides):
            raise ValueError(
                f"strides are {list(self.strides)}, allowed are different whole numbers of frames from 1. "
                "Give at least one, such as [4, 10, 20]."
            )
        if self.shift not in ("random", "centre", "video"):
            raise ValueError(f'shift is {self.shift!r}, allowed are "random", "centre" and "video". Choose one.')


def masks(config: Config, draws: WindowDraws, frames: int, skeleton: Skeleton) -> np.ndarray:
    """(N, L, J) bool, True = visible.

    Raises ValueError where a stride is no multiple of a window's own stride, where a window is too short to show a pose
    at every place, and with "video" where windows start between the frames that can have one.
    """
    strides = np.array(config.strides, dtype=np.int64)
    _check(strides, draws.strides, frames)
    # one stride needs no draw, but draws one all the same: its places are then those of the same window among several
    chosen = strides[draws.integers(len(strides))]
    if config.shift == "video":
        _check_starts(draws)
        first = -draws.starts % chosen // draws.strides
    elif config.shift == "centre":
        first = np.full(len(draws), (frames - 1) // 2)
    else:
        # floor(u * m) for a number of places m that differs between windows
        first = (draws.uniform() * (chosen // draws.strides)).astype(np.int64)
    seen_NL = (np.arange(frames) - first[:, None]) % (chosen // draws.strides)[:, None] == 0
    return np.repeat(seen_NL[:, :, None], len(skeleton), axis=2)


def _check(strides: np.ndarray, own: np.ndarray, frames: int) -> None:
    for stride in np.unique(own):
        wrong = strides[strides % stride != 0]
        if len(wrong):
            raise ValueError(
                f"strides has {wrong[0]}, but the frames of a window lie {stride} apart (data.stride, times the ratio "
                f"of frame rates): strides must be multiples of {stride}. Change the strides or data.stride."
            )
        if strides.max(initial=0) > frames * stride:
            raise ValueError(
                f"strides has {strides.max()}, but a window covers {frames} x {stride} = {frames * stride} frames, so "
                "some windows would show no pose at all. Use smaller strides or longer windows."
            )


def _check_starts(draws: WindowDraws) -> None:
    between = np.flatnonzero(draws.starts % draws.strides)
    if len(between):
        start, stride = draws.starts[between[0]], draws.strides[between[0]]
        raise ValueError(
            f'shift is "video", but {len(between)} of {len(draws)} windows see none of its frames: one starts at frame '
            f"{start} and shows every {stride}-th frame from there. Windows must start on a multiple of {stride}: set "
            f'evaluation.score = "centre" and evaluation.lift_every = {stride} in the recipe.'
        )
