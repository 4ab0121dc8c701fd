"""Where the position error lies: by joint, by how long a joint was hidden, by speed of motion.

Legend: W windows, L frames, J joints. All windows are pooled (frame-wise), all actions alike.
"""

from itertools import pairwise

import numpy as np

from posegrid.datasets.metrics.speed import SpeedBins
from posegrid.datasets.metrics.summary import SPLITS

GAPS = (1, 2, 3, 5, 9, 17, 33, 65)
"""Shortest gap of each bin, frames; the last one is open."""
_MM_PER_M = 1000.0


def gap_lengths(visible: np.ndarray) -> np.ndarray:
    """(W, L, J) int: frames in a row, within the window, in which that joint is hidden; 0 where it is visible."""
    frames = visible.shape[1]
    number = np.arange(frames)[None, :, None]
    before = np.maximum.accumulate(np.where(visible, number, -1), axis=1)
    after = np.minimum.accumulate(np.where(visible, number, frames)[:, ::-1], axis=1)[:, ::-1]
    return np.where(visible, 0, after - before - 1)


class BreakdownSums:
    """(total mm, entries) of the distance between joint and target. Sums over parts add up.

    By joint: an entry a frame, over all, hidden and visible ones. By gap: an entry for each hidden joint and frame. By
    speed of the true pose: an entry a frame, its mean over the joints.
    """

    def __init__(self, joints: tuple[str, ...], bins: SpeedBins) -> None:
        self.joints = tuple(joints)
        self.bins = bins
        self._joints = np.zeros((len(joints), len(SPLITS), 2))
        self._gaps = np.zeros((len(GAPS), 2))
        self._speeds = np.zeros((bins.count + 1, 2))

    def add(
        self,
        error: np.ndarray,
        visible: np.ndarray,
        frame_weight: np.ndarray,
        speed: np.ndarray,
        *,
        gaps: bool = True,
    ) -> None:
        """Count windows: error (W, L, J) metres, visible (W, L, J) bool, frame_weight (W, L) of 0 and 1, speed (W, L)
        m/s, NaN where it is unknown. `gaps` is False where neighbouring frames were not seen together.

        Raises ValueError for other shapes.
        """
        if error.shape != visible.shape or error.shape[2] != len(self.joints):
            raise ValueError(
                f"error is {error.shape} and visible {visible.shape}, expected (W, L, {len(self.joints)}) of both. "
                "Give arrays of the same windows."
            )
        if frame_weight.shape != error.shape[:2] or speed.shape != error.shape[:2]:
            raise ValueError(
                f"frame_weight is {frame_weight.shape} and speed {speed.shape}, expected {error.shape[:2]}: one "
                "value a frame."
            )
        counts = np.broadcast_to(np.asarray(frame_weight)[..., None] > 0, error.shape)
        for split, chosen in enumerate((counts, counts & ~visible, counts & visible)):
            self._joints[:, split, 0] += _MM_PER_M * (error * chosen).sum(axis=(0, 1))
            self._joints[:, split, 1] += chosen.sum(axis=(0, 1))
        if gaps:
            hidden = counts & ~visible
            index = np.searchsorted(GAPS, gap_lengths(visible)[hidden], side="right") - 1
            self._fill(self._gaps, index, error[hidden])
        known = counts[..., 0] & np.isfinite(speed)
        index = np.searchsorted(self.bins.edges, speed[known], side="right") - 1
        self._fill(self._speeds, index, error[known].mean(axis=-1))

    @staticmethod
    def _fill(sums: np.ndarray, index: np.ndarray, error: np.ndarray) -> None:
        for column, value in enumerate((_MM_PER_M * error, None)):
            sums[:, column] += np.bincount(index, value, minlength=len(sums))

    def to_array(self) -> np.ndarray:
        """Flat float64 copy: add these over all workers."""
        return np.concatenate([part.ravel() for part in (self._joints, self._gaps, self._speeds)])

    def set_array(self, array: np.ndarray) -> None:
        """Take over sums that were added over all workers."""
        first = 0
        for part in (self._joints, self._gaps, self._speeds):
            part[:] = np.asarray(array[first : first + part.size], np.float64).reshape(part.shape)
            first += part.size

    def rows(self) -> list[tuple[str, str, str, int, float]]:
        """("joint", "gap" or "speed"; which one; "all", "occluded" or "visible"; entries; mean mm), none of them empty.

        Gaps are named by their shortest and longest length in frames ("3-4", "65+"), speeds by the bin's ends in m/s.
        """
        ends = [f"{low}-{high - 1}" if high - 1 > low else f"{low}" for low, high in pairwise(GAPS)]
        edges = [f"{edge:g}" for edge in np.round(self.bins.edges, 9)]
        bins = [f"{low}-{high}" for low, high in pairwise(edges)]
        named = [
            *(
                ("joint", joint, split.strip("/") or "all", sums)
                for joint, splits in zip(self.joints, self._joints, strict=True)
                for split, sums in zip(SPLITS, splits, strict=True)
            ),
            *(("gap", name, "occluded", sums) for name, sums in zip([*ends, f"{GAPS[-1]}+"], self._gaps, strict=True)),
            *(("speed", name, "all", sums) for name, sums in zip([*bins, f"{edges[-1]}+"], self._speeds, strict=True)),
        ]
        return [(by, of, split, int(sums[1]), float(sums[0] / sums[1])) for by, of, split, sums in named if sums[1]]
