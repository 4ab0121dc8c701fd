"""What `integrity` judges: numbers of one sequence, measured piece by piece, so that memory does not grow with it.

Legend: F frames, J joints, B bones. Lengths in metres, speeds in metres per second, distances on the image in pixels.
"""

import json
from dataclasses import dataclass, field

import numpy as np

from posegrid.datasets.cameras import Camera, inside_image, project
from posegrid.datasets.checks.anatomy import bone_lengths
from posegrid.datasets.store import Sequence, Store

PIECE = 2048
"""Frames that are looked at together."""
JUMP = 12.0
"""Speed of a joint that people do not reach, metres per second."""

_FINEST, _DECADES, _PER_DECADE = -3, 8, 250
"""The histogram of distances: from a thousandth of a pixel on, 250 bins for a factor of 10 (0.9 % each)."""


@dataclass
class Peak:
    """The most extreme value of a kind, and where it is."""

    value: float
    frame: int = -1
    joint: int = -1

    def raise_to(self, values: np.ndarray, first: int) -> None:
        """Take the largest of `values` (F, J), whose row 0 is frame `first`, if it is larger; -inf counts as none."""
        if values.size:
            place = int(values.argmax())
            if values.flat[place] > self.value:
                frame, joint = divmod(place, values.shape[1])
                self.value, self.frame, self.joint = float(values.flat[place]), first + frame, joint


def nothing() -> Peak:
    """A peak that any value exceeds."""
    return Peak(-np.inf)


@dataclass(kw_only=True)
class Measures:
    """Numbers of one sequence. Frames that are never scored enter none that concerns poses."""

    sequence: Sequence
    not_finite: int = 0
    """Values that are NaN or infinite."""
    first_not_finite: str = ""
    """Column, frame and joint of the first of them."""
    scored: int = 0
    """Frames that count and are finite."""
    confidence: tuple[Peak, Peak] = field(default_factory=lambda: (nothing(), nothing()))
    """Largest -confidence, largest confidence."""
    points: int = 0
    """Keypoints with a confidence above 0."""
    inside: int = 0
    """Those of them inside the image."""
    outside: Peak = field(default_factory=nothing)
    """Farthest of them from the image, pixels; negative inside."""
    depth: tuple[Peak, Peak] = field(default_factory=lambda: (nothing(), nothing()))
    """Largest -depth and largest depth of any joint."""
    root_depth: Peak = field(default_factory=nothing)
    """Largest -depth of the root."""
    bones: np.ndarray = field(default_factory=lambda: np.zeros((2, 0)))
    """(2, B) sums over frames of the lengths and of their squares."""
    speed: Peak = field(default_factory=nothing)
    """Fastest joint."""
    jumps: int = 0
    """Frames with a joint faster than `JUMP`."""
    frozen: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Column -> longest run of frames that equal the one before, and the frame at which it ends."""
    camera: Camera | None = None
    camera_error: str = ""
    """What is wrong with the camera's parameters."""
    distances: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Histogram of the distances between keypoints and projected poses (see `percentile`); empty without camera."""
    median_distance: float = float("nan")
    """Median of these distances."""
    distance: Peak = field(default_factory=nothing)
    """Largest of these distances."""

    @property
    def bone_means(self) -> np.ndarray:
        """(B,) mean lengths; NaN without scored frames."""
        return self.bones[0] / self.scored if self.scored else np.full(self.bones.shape[1], np.nan)

    @property
    def bone_deviations(self) -> np.ndarray:
        """(B,) standard deviations over time."""
        if not self.scored:
            return np.full(self.bones.shape[1], np.nan)
        return np.sqrt(np.maximum(self.bones[1] / self.scored - self.bone_means**2, 0))


def measure(store: Store, sequence: Sequence) -> Measures:
    """Measure a sequence of a store; reads each of its frames once."""
    found = Measures(sequence=sequence, bones=np.zeros((2, len(store.skeleton.bones))))
    found.camera, found.camera_error = _camera(sequence)
    if found.camera is not None and store.poses_if_any is not None:
        found.distances = np.zeros(_DECADES * _PER_DECADE, np.int64)
    runs: dict[str, int] = {}
    for start in range(0, sequence.frames, PIECE):
        stop = min(start + PIECE, sequence.frames)
        # one frame of the piece before goes along, for what compares neighbours
        before = start - min(start, 1)
        rows = slice(sequence.offset + before, sequence.offset + stop)
        keypoints, confidence = store.keypoints[rows], store.confidence[rows]
        poses = None if store.poses_if_any is None else store.poses_if_any[rows]
        usable, finite = _finite(found, store, before, start, keypoints, confidence, poses)
        usable &= store.valid[rows]
        new = slice(start - before, None)
        seen = (confidence > 0) & finite
        _measure_keypoints(found, start, keypoints[new], confidence[new], seen[new])
        _measure_frozen(found, runs, "keypoints", before, keypoints, seen.any(axis=1))
        if poses is None:
            continue
        _measure_poses(found, store, start, poses[new][usable[new]], np.flatnonzero(usable[new]))
        _measure_motion(found, before, poses, usable)
        _measure_frozen(found, runs, "poses", before, poses, usable)
        if len(found.distances):
            _measure_distances(found, start, keypoints[new], poses[new], seen[new] & usable[new, None])
    found.median_distance = percentile(found.distances, 0.5)
    return found


def percentile(histogram: np.ndarray, share: float) -> float:
    """Distance in pixels below which `share` of the counted ones lie, to 1 %; NaN if there are none."""
    if not histogram.sum():
        return float("nan")
    place = int(np.searchsorted(np.cumsum(histogram), share * histogram.sum()))
    return float(10 ** (_FINEST + (place + 0.5) / _PER_DECADE))


def _camera(sequence: Sequence) -> tuple[Camera | None, str]:
    try:
        plain = json.loads(sequence.camera_parameters)
        camera = Camera.from_plain(plain) if plain else None
    except (ValueError, TypeError, RecursionError) as error:
        return None, str(error)
    if camera and (camera.width, camera.height) != (sequence.width, sequence.height):
        size = f"{sequence.width} x {sequence.height}"
        return None, f"the camera's image is {camera.width} x {camera.height} px, the sequence's {size}"
    return camera, ""


def _finite(
    found: Measures,
    store: Store,
    before: int,
    start: int,
    keypoints: np.ndarray,
    confidence: np.ndarray,
    poses: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Which frames (F,) have finite poses, which keypoints (F, J) are finite; counts what is not."""
    good = {"keypoints": np.isfinite(keypoints).all(axis=-1), "confidence": np.isfinite(confidence)}
    if poses is not None:
        good["poses"] = np.isfinite(poses).all(axis=-1)
    for column, flags in good.items():
        bad = np.argwhere(~flags[start - before :])
        if len(bad) and not found.first_not_finite:
            joint = store.skeleton.joints[bad[0][1]]
            found.first_not_finite = f"{found.sequence.name}, {column}, frame {start + bad[0][0]}, {joint}"
        found.not_finite += len(bad)
    return good.get("poses", good["keypoints"]).all(axis=1), good["keypoints"] & good["confidence"]


def _measure_keypoints(
    found: Measures, start: int, keypoints: np.ndarray, confidence: np.ndarray, seen: np.ndarray
) -> None:
    low, high = found.confidence
    low.raise_to(np.where(np.isfinite(confidence), -confidence, -np.inf), start)
    high.raise_to(np.where(np.isfinite(confidence), confidence, -np.inf), start)
    sequence = found.sequence
    beyond = (np.abs(keypoints) - np.array([1.0, sequence.height / sequence.width], np.float32)).max(axis=-1)
    beyond[~seen] = -np.inf
    found.points += int(seen.sum())
    found.inside += int((seen & (beyond <= 0)).sum())
    found.outside.raise_to(beyond * (sequence.width / 2), start)


def _measure_poses(found: Measures, store: Store, start: int, poses: np.ndarray, frames: np.ndarray) -> None:
    """`poses` are those that are scored, `frames` says which of the piece they are."""
    if not len(poses):
        return
    found.scored += len(poses)
    depth = poses[..., 2]
    for peak, values in (
        (found.depth[0], -depth),
        (found.depth[1], depth),
        (found.root_depth, -depth[:, [store.skeleton.root]]),
    ):
        value = peak.value
        peak.raise_to(values, 0)
        if peak.value > value:
            peak.frame = start + int(frames[peak.frame])
    if found.root_depth.frame >= 0:
        found.root_depth.joint = store.skeleton.root
    lengths = bone_lengths(poses, store.skeleton).astype(np.float64)
    found.bones += np.stack([lengths.sum(axis=0), (lengths**2).sum(axis=0)])


def _measure_motion(found: Measures, before: int, poses: np.ndarray, usable: np.ndarray) -> None:
    speed = np.linalg.norm(np.diff(poses, axis=0), axis=-1) * found.sequence.frame_rate
    speed[~(usable[1:] & usable[:-1])] = -np.inf
    found.speed.raise_to(speed, before + 1)
    found.jumps += int((speed > JUMP).any(axis=1).sum())


def _measure_frozen(
    found: Measures, runs: dict[str, int], column: str, before: int, values: np.ndarray, counts: np.ndarray
) -> None:
    """Longest run of frames equal to the one before; `runs` carries a run from piece to piece."""
    same = (values[1:] == values[:-1]).all(axis=(1, 2)) & counts[1:] & counts[:-1]
    if not len(same):
        return
    place = np.arange(len(same))
    since = np.maximum.accumulate(np.where(same, -1, place))
    run = place - since + np.where(since < 0, runs.get(column, 0), 0)
    runs[column] = int(run[-1])
    longest = int(run.argmax())
    if run[longest] > found.frozen.get(column, (0, 0))[0]:
        found.frozen[column] = int(run[longest]), before + 1 + longest


def _measure_distances(
    found: Measures, start: int, keypoints: np.ndarray, poses: np.ndarray, counts: np.ndarray
) -> None:
    """Distances between keypoints and projections that lie in the image: beyond it the lens model means nothing."""
    camera, sequence = found.camera, found.sequence
    assert camera is not None
    counts = counts & (poses[..., 2] > 0)
    projected = project(poses[counts], camera)
    inside = inside_image(projected, sequence.width, sequence.height)
    apart = np.linalg.norm(projected[inside] - keypoints[counts][inside], axis=-1) * (sequence.width / 2)
    if not len(apart):
        return
    bins = ((np.log10(np.maximum(apart, 10.0**_FINEST)) - _FINEST) * _PER_DECADE).astype(np.int64)
    found.distances += np.bincount(np.minimum(bins, len(found.distances) - 1), minlength=len(found.distances))
    farthest = int(apart.argmax())
    if apart[farthest] > found.distance.value:
        frame, joint = np.argwhere(counts)[inside][farthest]
        found.distance.value, found.distance.frame = float(apart[farthest]), start + int(frame)
        found.distance.joint = int(joint)
