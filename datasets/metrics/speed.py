"""Error by speed of motion, and an input stride that follows the speed (Uplift and Upsample, WACV 2023, supplement).

Legend: F frames, J joints. The speed of a frame is how far its joints moved since the frame before, relative to the
root, on average over all joints, in metres per second. It is that of the true poses where errors are sorted by it, and
that of estimated ones where it decides how often people are detected.
"""

from dataclasses import dataclass

import numpy as np

_MM_PER_M = 1000.0
_BLOCK = 2**16
"""Frames treated at once: bounds memory where poses are read from a file."""


@dataclass(frozen=True, kw_only=True)
class SpeedBins:
    """Bins of equal width from 0, and one more for everything faster. The paper gives no width."""

    width: float = 0.1
    """Width of a bin, metres per second."""
    count: int = 15
    """Bins of this width."""

    def __post_init__(self) -> None:
        if not 0 < self.width < np.inf or self.count < 1:
            raise ValueError(
                f"speed bins: width is {self.width} m/s and count {self.count}; both must be above 0. "
                "The defaults, 0.1 and 15, reach to 1.5 m/s."
            )

    @property
    def edges(self) -> np.ndarray:
        """(count + 1,) speeds between the bins, m/s; beyond the last one follows the bin of everything faster."""
        return np.arange(self.count + 1) * self.width


def speeds(poses: np.ndarray, frame_rate: float, root: int = 0) -> np.ndarray:
    """(..., F) speed of every frame, m/s; NaN for the first, which has no frame before it.

    poses: (..., F, J, 3) metres, one recording without gaps along F. Moving all joints alike does not change it.
    """
    poses = np.asarray(poses, np.float64)
    if poses.ndim < 3 or poses.shape[-1] != 3 or not -poses.shape[-2] <= root < poses.shape[-2]:
        raise ValueError(f"poses are {poses.shape} and root is {root}; poses must be (..., F, J, 3) with such a joint.")
    if not 0 < frame_rate < np.inf:
        raise ValueError(f"frame_rate is {frame_rate}; it must be above 0 frames per second. Take it from the store.")
    step = np.diff(poses - poses[..., root, None, :], axis=-3)
    found = np.full(poses.shape[:-2], np.nan)
    found[..., 1:] = np.sqrt(np.einsum("...c,...c->...", step, step)).mean(axis=-1) * frame_rate
    return found


def speeds_of_recordings(
    poses: np.ndarray, offsets: np.ndarray, frame_rates: np.ndarray, root: int = 0, valid: np.ndarray | None = None
) -> np.ndarray:
    """(R,) speed of every row of a frame table, m/s; NaN where a recording starts and next to invalid poses.

    poses: (R, J, 3) metres, recordings one after the other; offsets (S,) first row of each, ascending from 0;
    frame_rates (S,) frames per second; valid: (R,) bool.
    """
    offsets, frame_rates = np.asarray(offsets), np.asarray(frame_rates, np.float64)
    if len(offsets) != len(frame_rates) or (len(offsets) and offsets[0] != 0) or (np.diff(offsets) < 0).any():
        raise ValueError(
            f"offsets {offsets.shape} and frame_rates {frame_rates.shape} must have an entry for each recording, and "
            "offsets must ascend from 0: take both from one store."
        )
    found = np.full(len(poses), np.nan)
    for first in range(0, len(poses), _BLOCK):
        before = max(first - 1, 0)  # one frame more, so that the first of a block has one before it
        block = speeds(poses[before : first + _BLOCK], 1.0, root)
        found[first : first + _BLOCK] = block[first - before :]
    rows = np.arange(len(poses))
    found *= frame_rates[np.searchsorted(offsets, rows, side="right") - 1]
    found[offsets[offsets < len(poses)]] = np.nan
    if valid is not None:
        found[~(valid & np.append(True, valid[:-1]))] = np.nan
    return found


class SpeedSums:
    """(total error, frames) of each bin. Sums over parts add up to the sum over everything, in any order."""

    def __init__(self, bins: SpeedBins) -> None:
        self.bins = bins
        self._sums = np.zeros((bins.count + 1, 2))

    def add(self, speed: np.ndarray, error: np.ndarray, weight: np.ndarray | None = None) -> None:
        """Count frames: speed m/s and error metres (mean over the joints), of one shape; weight of 0 and 1, all by
        default. Frames without a speed (NaN) do not count. A speed on an edge belongs to the faster bin."""
        speed, error = np.asarray(speed, np.float64), np.asarray(error, np.float64)
        counts = np.ones(speed.shape, dtype=bool) if weight is None else np.asarray(weight) > 0
        if error.shape != speed.shape or counts.shape != speed.shape:
            raise ValueError(f"speed is {speed.shape}, error {error.shape}, weight {counts.shape}: one value a frame.")
        counts = counts & ~np.isnan(speed)
        if not np.isfinite(error[counts]).all():
            raise ValueError("errors hold NaN or infinity in frames that count; check predictions and targets.")
        index = np.searchsorted(self.bins.edges, speed[counts], side="right") - 1
        for column, value in enumerate((error[counts] * _MM_PER_M, None)):
            self._sums[:, column] += np.bincount(index, value, minlength=self.bins.count + 1)

    def __add__(self, other: "SpeedSums") -> "SpeedSums":
        if self.bins != other.bins:
            raise ValueError(f"sums over unlike bins cannot be added: {self.bins} and {other.bins}. Use the same bins.")
        return self.from_array(self.bins, self.to_array() + other.to_array())

    def to_array(self) -> np.ndarray:
        """Flat float64 copy, laid out as (bin, [total mm, frames]): add these over all workers."""
        return self._sums.ravel().copy()

    @classmethod
    def from_array(cls, bins: SpeedBins, array: np.ndarray) -> "SpeedSums":
        """The sums whose `to_array` is `array`."""
        sums = cls(bins)
        if np.shape(array) != (sums._sums.size,):
            raise ValueError(
                f"sums over {bins.count} speed bins are ({sums._sums.size},), got {np.shape(array)}: all workers must "
                "use the same bins and the same version."
            )
        sums._sums[:] = np.asarray(array, np.float64).reshape(sums._sums.shape)
        return sums

    def mpjpe_mm(self) -> np.ndarray:
        """(count + 1,) mean error of each bin, mm; NaN where no frame is."""
        total, frames = self._sums.T
        return np.divide(total, frames, out=np.full(len(frames), np.nan), where=frames > 0)

    def frames(self) -> np.ndarray:
        """(count + 1,) frames of each bin."""
        return self._sums[:, 1].astype(np.int64)

    def cdf(self) -> np.ndarray:
        """(count + 1,) share of frames slower than the upper edge of each bin; 1 for the last. NaN without frames."""
        frames = self._sums[:, 1]
        return np.cumsum(frames) / frames.sum() if frames.any() else np.full(len(frames), np.nan)


def adaptive_strides(
    speed: np.ndarray, *, slow: int = 20, fast: int = 5, threshold: float = 0.5, hold: int = 50
) -> np.ndarray:
    """(F,) input stride at every frame: `fast` from a frame whose speed exceeds the threshold (m/s) until it has stayed
    at or below it for `hold` frames, `slow` elsewhere. Frames of unknown speed (NaN) exceed nothing.

    Each entry follows from this frame's speed and earlier ones. `fast` must divide `slow`, so that every detection of
    the slow stride is one of the fast stride too. The paper gives no number for `hold`.
    """
    speed = np.asarray(speed, np.float64)
    if speed.ndim != 1 or min(slow, fast, hold) < 1 or slow % fast:
        raise ValueError(
            f"adaptive strides: speed is {speed.shape}, slow {slow}, fast {fast}, hold {hold}; speed must be (F,), the "
            "others at least 1, and fast must divide slow. Change the one that does not fit."
        )
    frame = np.arange(len(speed))
    last = np.maximum.accumulate(np.where(speed > threshold, frame, -hold)) if len(speed) else frame
    return np.where(frame - last < hold, fast, slow)


def detected_frames(strides: np.ndarray) -> np.ndarray:
    """(F,) bool: frames with a detection, those divisible by the stride in force: ceil(F / s) for one s."""
    strides = np.asarray(strides)
    return np.arange(len(strides)) % strides == 0
