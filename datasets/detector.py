"""A stated model of what a 2D keypoint detector gets wrong, for sources that have no detections of their own.

Each keypoint gets white jitter, a slowly wandering error (first-order autoregressive), and rare bursts in which it sits
somewhere else altogether. The defaults are our choice: chosen to look like a detector fine-tuned on Human3.6M, whose
keypoints are a few pixels off in images 1000 px wide. They are not fitted to any detector.

Legend: F frames, J joints.
"""

from dataclasses import dataclass, fields

import numpy as np

from posegrid.datasets.occlusions.draws import sequence_key
from posegrid.datasets.skeletons import Skeleton


@dataclass(frozen=True, kw_only=True)
class Config:
    """How the simulated detector errs. Lengths are pixels of an image 1000 px wide and grow with the width."""

    jitter_px: float = 1.8
    """Standard deviation of the error that is fresh in every frame, per axis."""
    drift_px: float = 3.0
    """Standard deviation of the error that changes slowly, per axis."""
    drift_seconds: float = 0.25
    """Time after which the slow error has lost all but 1/e of its correlation."""
    end_factor: float = 1.5
    """Jitter and drift of the joints at the ends of the tree (wrists, feet, head) are this much larger."""
    outlier_rate: float = 0.004
    """Share of keypoints that are grossly wrong, in [0, 1)."""
    outlier_px: float = 40.0
    """Standard deviation of a gross error, per axis."""
    outlier_seconds: float = 0.12
    """How long a gross error stays."""
    swap_rate: float = 0.0
    """Share of frames in which a joint and its mirror are taken for each other, in [0, 1); off by default."""
    confidence_px: float = 15.0
    """Error at which the confidence has fallen to one half."""
    confidence_spread: float = 0.15
    """The confidence is lowered by a random share of up to this much, in [0, 1], so that it is no exact error gauge."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not np.isfinite(value) or value < 0:
                raise ValueError(f"detector.{field.name} = {value}: expected a number of at least 0. Correct it.")
        for name in ("outlier_rate", "swap_rate"):
            if getattr(self, name) >= 1:
                raise ValueError(f"detector.{name} = {getattr(self, name)}: expected a share in [0, 1). Lower it.")
        if self.confidence_px == 0 or self.drift_seconds == 0 or self.confidence_spread > 1:
            raise ValueError(
                f"detector.confidence_px = {self.confidence_px}, drift_seconds = {self.drift_seconds}, "
                f"confidence_spread = {self.confidence_spread}: the first two must be above 0, the last at most 1."
            )


def noise_generator(seed: int, sequence: str) -> np.random.Generator:
    """Generator of one sequence: the same for a seed and a name, whatever is read before or in another process."""
    if seed < 0:
        raise ValueError(f"seed = {seed} in the options of the data source: expected an integer of at least 0.")
    return np.random.default_rng([seed, sequence_key(sequence)])


def detect(
    config: Config,
    generator: np.random.Generator,
    screen: np.ndarray,
    *,
    skeleton: Skeleton,
    width: int,
    height: int,
    frame_rate: float,
) -> tuple[np.ndarray, np.ndarray]:
    """What the detector reports for true screen positions `screen` (F, J, 2).

    Returns keypoints (F, J, 2) float32 in screen coordinates and confidence (F, J) float32 in [0, 1]. Keypoints cannot
    leave the image: what lies outside is reported at the border, with the confidence its error earns.
    """
    frames, joints = screen.shape[:2]
    ends = np.setdiff1d(np.arange(joints), skeleton.parents)
    factor = np.ones((joints, 1))
    factor[ends] = config.end_factor

    taken = _swapped(config, generator, screen, skeleton, frame_rate)
    error_px = factor * config.jitter_px * generator.standard_normal(screen.shape)
    error_px += factor * config.drift_px * _drift(generator, screen.shape, config.drift_seconds * frame_rate)
    burst = _bursts(generator, (frames, joints), config.outlier_rate, config.outlier_seconds * frame_rate)
    # one displacement for a whole burst: drawn for every frame, taken from the frame in which the burst began
    displacement = config.outlier_px * generator.standard_normal(screen.shape)
    began = np.take_along_axis(displacement, np.maximum(burst, 0)[..., None], axis=0)
    error_px += np.where(burst[..., None] >= 0, began, 0.0)

    # a pixel of a 1000 px image is 2 / 1000 of the screen's width, whatever the real width is
    keypoints = taken + error_px * 2e-3
    border = np.array([1.0, height / width])
    keypoints = np.clip(keypoints, -border, border)
    distance_px = np.linalg.norm(keypoints - screen, axis=-1) / 2e-3
    confidence = 1 / (1 + (distance_px / config.confidence_px) ** 2)
    confidence *= 1 - config.confidence_spread * generator.random((frames, joints))
    return keypoints.astype(np.float32), confidence.astype(np.float32)


def _drift(generator: np.random.Generator, shape: tuple[int, ...], correlation_frames: float) -> np.ndarray:
    """Stationary first-order autoregressive noise of unit variance along the first axis.

    y[t] = a y[t-1] + e[t] is a sum of a^i e[t-i]; doubling its length in each pass takes log2(F) array operations
    where the recurrence itself would need a loop over frames.
    """
    keep = np.exp(-1 / correlation_frames)
    noise = generator.standard_normal(shape)
    noise[1:] *= np.sqrt(1 - keep**2)
    step, weight = 1, keep
    while step < len(noise) and weight > 1e-12:
        noise[step:] += weight * noise[:-step]
        step, weight = 2 * step, weight**2
    return noise


def _bursts(generator: np.random.Generator, shape: tuple[int, ...], share: float, length_frames: float) -> np.ndarray:
    """(F, ...) int64: for each entry the frame in which its burst began, -1 outside bursts; `share` of it is burst."""
    length = max(1, round(length_frames))
    start_rate = 1 - (1 - share) ** (1 / length)
    frames = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    latest = np.maximum.accumulate(np.where(generator.random(shape) < start_rate, frames, -length), axis=0)
    return np.where(frames - latest < length, latest, -1)


def _swapped(
    config: Config, generator: np.random.Generator, screen: np.ndarray, skeleton: Skeleton, frame_rate: float
) -> np.ndarray:
    if config.swap_rate == 0:
        return screen
    pairs = len(skeleton.left)
    swap = _bursts(generator, (len(screen), pairs), config.swap_rate, config.outlier_seconds * frame_rate) >= 0
    left, right = list(skeleton.left), list(skeleton.right)
    taken = screen.copy()
    taken[:, left] = np.where(swap[..., None], screen[:, right], screen[:, left])
    taken[:, right] = np.where(swap[..., None], screen[:, left], screen[:, right])
    return taken
