"""Windows that overlap by a fixed share, and the mean over all that show a frame.

Legend: N windows, L frames of a window, H hypotheses, F frames of a recording, J joints.
"""

import numpy as np

from posegrid.datasets.store import Store
from posegrid.datasets.windows import Windows, counted_up, counted_windows, interleaved


def overlapping_windows(
    store: Store,
    split: str,
    frames: int,
    shift: int,
    *,
    stride: int = 1,
    frame_rate: float = 0.0,
    edges: str = "drop",
) -> Windows:
    """Windows of a split that start `shift` of their frames apart; the last one ends with its sequence.

    Every frame of the split is in at least one. Sequences shorter than a window are padded by repeating their last
    frame. Strides and edges mean what they do for `consecutive_windows`, whose windows these are with shift = L and
    tail "overlap". Order: sequence, start. Raises ValueError as `strides_and_spans` does.
    """
    sequence, step, phase, length, _ = interleaved(store, split, frames, stride, frame_rate)
    last = np.maximum(length - frames, 0)
    counts = -(-last // shift) + 1
    sequence, step, phase, last = (np.repeat(column, counts) for column in (sequence, step, phase, last))
    first = np.minimum(counted_up(counts) * shift, last)
    return counted_windows(store, sequence, phase + first * step, step, frames, edges)


class OverlapMean:
    """The mean over all windows of one recording that show a frame, each with the same weight."""

    def __init__(self, frames: int) -> None:
        self._count = np.zeros(frames)
        self._sum: np.ndarray | None = None

    def add(self, frame: np.ndarray, values: np.ndarray) -> None:
        """Add windows: values (N, L, ...) of the frames (N, L) of the recording; frames outside it are left out."""
        inside = (frame >= 0) & (frame < len(self._count))
        frame, values = frame[inside], values[inside]
        if self._sum is None:
            self._sum = np.zeros((len(self._count), *values.shape[1:]))
        # sums of equal frames in one pass: `np.add.at` with rows takes ten times as long
        order = np.argsort(frame, kind="stable")
        found, first = np.unique(frame[order], return_index=True)
        self._sum[found] += np.add.reduceat(values[order], first, axis=0, dtype=np.float64)
        self._count += np.bincount(frame, minlength=len(self._count))

    def of(self, frame: np.ndarray) -> np.ndarray:
        """(..., ) float64 means of the frames, which some window must have shown."""
        assert self._sum is not None
        count = self._count[frame]
        assert count.all(), "a frame that no window showed"
        return self._sum[frame] / count.reshape(*count.shape, *[1] * (self._sum.ndim - 1))
