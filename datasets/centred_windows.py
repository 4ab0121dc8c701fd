"""Windows centred on frames: how VideoPose3D, MixSTE, STCFormer and PoseFormer train and how most of them are scored.

Legend: N windows, L frames of a window, F frames of a sequence. Frame k of a window centred on frame c is frame
c + (k - (L-1)//2) * stride of the sequence; frames beyond its ends repeat the first or the last one, with edges
"replicate_grid" the first or last one of the window that is inside (see `windows.py`).
"""

import numpy as np

from posegrid.datasets.store import Store
from posegrid.datasets.windows import Windows, frames_of, on_own_grid, strides_and_spans


def grid_windows(
    store: Store,
    splits: tuple[str, ...],
    frames: int,
    step: int,
    *,
    stride: int = 1,
    frame_rate: float = 0.0,
    edges: str = "replicate",
) -> Windows:
    """One window for every `step` frames, always the same ones: VideoPose3D's chunk generator.

    A sequence of F frames gives n = ceil(F / step) chunks of `step` frames; their grid is shifted left by
    (n * step - F) // 2, so that both ends share the padding. A window is centred on the middle of its chunk: step 1
    gives one window for every frame (PoseFormer), step = L MixSTE's windows. Padded frames count, as in those codes.
    Order: sequence, chunk. Raises ValueError as `strides_and_spans` does.
    """
    indices, strides, _ = strides_and_spans(store, splits, frames, stride, frame_rate)
    lengths = store.lengths[indices]
    counts = -(-lengths // step)
    shift = (counts * step - lengths) // 2
    sequence, own, left = (np.repeat(column, counts) for column in (indices, strides, shift))
    chunk = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    centre = chunk * step - left + (step - 1) // 2
    return Windows(
        sequence=sequence,
        start=centre - (frames - 1) // 2 * own,
        weight=np.broadcast_to(True, (len(sequence), frames)),  # millions of windows would fill memory with it
        stride=own,
        own_grid=on_own_grid(edges),
    )


def windows_around(
    store: Store,
    sequence: np.ndarray,
    frame: np.ndarray,
    frames: int,
    at: int,
    *,
    stride: int = 1,
    frame_rate: float = 0.0,
    edges: str = "replicate",
) -> Windows:
    """Windows of `frames` frames whose frame `at` is the given one: sequence (N,) and frame (N,), int64.

    at = (L-1)//2 centres them, L-1 shows the past only. Raises ValueError as `strides_and_spans` does.
    """
    splits = tuple({store.sequences[index].split for index in np.unique(sequence)})
    indices, strides, _ = strides_and_spans(store, splits, frames, stride, frame_rate)
    of_sequence = np.zeros(len(store.sequences), dtype=np.int64)
    of_sequence[indices] = strides
    weight = np.zeros((len(frame), frames), dtype=bool)
    weight[:, at] = True
    own = of_sequence[sequence]
    own_grid = on_own_grid(edges)
    return Windows(sequence=sequence, start=frame - at * own, weight=weight, stride=own, own_grid=own_grid)


class Interpolation:
    """Which frames are lifted when only every n-th one is, and how the others follow.

    Frames divisible by `every` are lifted; those between two of them are interpolated linearly in time, those after the
    last one repeat it (Uplift and Upsample, section on evaluation). every = 1 lifts all.
    """

    def __init__(self, store: Store, windows: Windows, every: int) -> None:
        """windows: the (N, L) frames that are scored."""
        frame, length = frames_of(store, windows)
        frame = np.clip(frame, 0, length - 1)
        before = frame // every * every
        after = np.minimum(before + every, (length - 1) // every * every)
        self.share = (frame - before) / np.maximum(after - before, 1)
        # one row of the frame table names a frame; many windows may need the same one
        offset = store.offsets[windows.sequence][:, None]
        rows = np.stack([before, after]) + offset
        self._unique, inverse = np.unique(rows, return_inverse=True)
        self._rows = inverse.reshape(rows.shape)
        of_row = np.empty(len(self._unique), dtype=np.int64)
        of_row[self._rows] = np.broadcast_to(windows.sequence[:, None], rows.shape)
        self.sequence = of_row
        """(M,) sequence of each frame that is lifted."""
        self.frame = self._unique - store.offsets[of_row]
        """(M,) frame within its sequence."""

    def needed_by(self, rows: np.ndarray | slice) -> np.ndarray:
        """(m,) which of the M lifted frames the given windows need, ascending."""
        return np.unique(self._rows[:, rows])

    def filled(self, lifted: np.ndarray, rows: np.ndarray | slice, present: np.ndarray) -> np.ndarray:
        """(n, L, ...) values of all frames of the given windows from those (m, ...) of the lifted frames `present`."""
        before, after = np.searchsorted(present, self._rows[:, rows])
        share = self.share[rows].reshape(*before.shape, *[1] * (lifted.ndim - 1))
        return lifted[before] * (1 - share) + lifted[after] * share
