"""What is lifted without a truth: one person in one video, from a keypoint file or a store. Legend: F frames, J joints.

Joints that were not seen stay hidden; nothing is interpolated unless `Reading.longest_gap` says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from posegrid.datasets.cameras import normalise_screen
from posegrid.datasets.conversions import convert
from posegrid.datasets.keypoints.gaps import fill_gaps
from posegrid.datasets.keypoints.tracks import Detections, Track, tracks_of
from posegrid.datasets.options import unknown
from posegrid.datasets.readers.keypoint_files import FORMATS, KeypointFile
from posegrid.datasets.skeletons import SKELETONS, Skeleton, skeleton_named
from posegrid.datasets.store import Sequence, Store

_LARGEST = 100_000
"""Pixels of an image's side."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How keypoint files are read, and what they do not say."""

    format: str = "auto"
    """Format of the files: auto (by name and content), coco, alphapose, mmpose, openpose, videopose3d or table."""
    joints: str = "auto"
    """Skeleton of the files' keypoints by name; auto: by what a file says, or by the number of its keypoints."""
    width: int | None = None
    """Image width in pixels, for files that do not say it."""
    height: int | None = None
    """Image height in pixels, for files that do not say it."""
    frame_rate: float | None = None
    """Frames per second, for files that do not say it."""
    least_confidence: float = 0.0
    """Keypoints of a lower confidence in [0, 1] are hidden; those of 0 always are."""
    longest_gap: int = 0
    """Gaps of a joint of up to so many frames are interpolated in time and count as seen; 0: all stay hidden."""

    def __post_init__(self) -> None:
        for key, known in (("format", FORMATS), ("joints", ("auto", *SKELETONS))):
            if getattr(self, key) not in known:
                raise unknown(key, getattr(self, key), f"option {key} of lifting", list(known))
        for key, most in (("width", _LARGEST), ("height", _LARGEST), ("frame_rate", float("inf"))):
            value = getattr(self, key)
            if value is not None and not 0 < value <= most:
                raise ValueError(f"{key} = {value} of lifting must be positive, and at most {most:g}. Correct it.")
        if not 0 <= self.least_confidence < 1 or self.longest_gap < 0:
            raise ValueError(
                f"least_confidence = {self.least_confidence} and longest_gap = {self.longest_gap} of lifting: allowed "
                "are a confidence from 0 up to but not including 1, and 0 or more frames. Correct them."
            )


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One person in one video."""

    source: str
    """File or store that it comes from."""
    video: str
    """Name of the video."""
    person: str
    """Who it is."""
    first: int
    """Number of the first frame, as the file counts."""
    frame_rate: float
    """Frames per second."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    skeleton: Skeleton
    """Which joints, in which order."""
    keypoints: np.ndarray
    """(F, J, 2) float32 normalised screen coordinates; finite where hidden, but without meaning."""
    visible: np.ndarray
    """(F, J) bool, False for joints that were not seen."""
    poses: np.ndarray | None = None
    """(F, J, 3) float32 metres, camera frame, if the file has them; NaN where unknown."""

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.video}, person {self.person}"

    def as_store(self) -> Store:
        """A store that holds nothing but these keypoints, in the split "test": windows are cut of stores."""
        sequence = Sequence(
            subject=self.person,
            action="own",
            recording=self.video,
            camera="own",
            split="test",
            offset=0,
            frames=len(self),
            frame_rate=self.frame_rate,
            width=self.width,
            height=self.height,
            camera_parameters="{}",
            images="{}",
            sha256="",
        )
        return Store(
            path=Path(self.source),
            address=self.source,
            content_hash="",
            skeleton=self.skeleton,
            source="keypoints",
            description={},
            sequences=(sequence,),
            keypoints=self.keypoints,
            confidence=self.visible,
            valid=np.broadcast_to(True, len(self)),
            poses_if_any=None,
        )

    def at_rate(self, rate: float) -> "Clip":
        """The same motion at `rate` frames per second, linear in time; the last frame is at or after the last one here.

        A joint is seen where it is in both frames that a new one lies between. 3D is left out.
        """
        if rate == self.frame_rate:
            return self
        last = len(self) - 1
        # a hair's breadth less, so that rounding adds no frame at the end
        count = int(np.ceil(last * rate / self.frame_rate * (1 - 1e-12))) + 1
        at = np.minimum(np.arange(count) * (self.frame_rate / rate), last)
        before = np.minimum(at.astype(np.int64), max(last - 1, 0))
        after, share = np.minimum(before + 1, last), (at - before)[:, None]
        visible = (self.visible[before] | (share == 1)) & (self.visible[after] | (share == 0))
        low, high = self.keypoints[before], self.keypoints[after]
        keypoints = low + (high - low) * share[..., None].astype(np.float32)
        return replace(self, frame_rate=rate, keypoints=keypoints, visible=visible, poses=None)


def clips_of_file(file: KeypointFile, skeleton: str, reading: Reading) -> Iterator[Clip]:
    """The people in a keypoint file, one after another, with the joints of the named skeleton.

    People of whom no keypoint is confident enough are left out. Raises ValueError as the file's reader does, if image
    size or frame rate are not known, or if the joints cannot be converted.
    """
    for found in file.read(reading.format, reading.joints):
        yield from clips_of_detections(found, skeleton, reading)


def clips_of_detections(found: Detections, skeleton: str, reading: Reading) -> Iterator[Clip]:
    """The people in one video, as `clips_of_file` gives them."""
    size = _size(found, reading)
    for track in tracks_of(found):
        seen = (track.confidence > 0) & (track.confidence >= reading.least_confidence)
        if seen.any():
            yield _clip(found, track, seen, skeleton, reading, *size)


def clips_of_store(store: Store, reading: Reading) -> Iterator[Clip]:
    """Every sequence of a store, one after another, read in place; its keypoints are hidden where their confidence is 0
    or below `reading.least_confidence`."""
    for sequence in store.sequences:
        rows = slice(sequence.offset, sequence.offset + sequence.frames)
        confidence = store.confidence[rows]
        seen = (confidence > 0) & (confidence >= reading.least_confidence)
        yield Clip(
            source=store.address,
            video=f"{sequence.recording}/{sequence.camera}",
            person=sequence.subject,
            first=0,
            frame_rate=sequence.frame_rate,
            width=sequence.width,
            height=sequence.height,
            skeleton=store.skeleton,
            keypoints=store.keypoints[rows],
            # stores hold interpolated keypoints where nothing was seen
            visible=seen | short_gaps(seen, reading.longest_gap),
            poses=None if store.poses_if_any is None else store.poses_if_any[rows],
        )


def short_gaps(seen: np.ndarray, longest: int) -> np.ndarray:
    """(F, J) bool: joints that are hidden in `seen` (F, J) for up to `longest` frames, between two that show them."""
    if longest < 1 or seen.all():
        return np.zeros_like(seen)
    frame = np.arange(len(seen))[:, None]
    never = -(2 * len(seen))  # so far away that no gap at an edge is short
    before = np.maximum.accumulate(np.where(seen, frame, never), axis=0)
    after = np.minimum.accumulate(np.where(seen, frame, -never)[::-1], axis=0)[::-1]
    return ~seen & (after - before <= longest + 1)


def _clip(
    found: Detections,
    track: Track,
    seen: np.ndarray,
    skeleton: str,
    reading: Reading,
    width: int,
    height: int,
    frame_rate: float,
) -> Clip:
    points = track.points
    if reading.longest_gap:
        points = fill_gaps(points, seen)
        seen = seen | short_gaps(seen, reading.longest_gap)
    points, confidence = convert(points, found.skeleton.name, skeleton, seen.astype(np.float32))
    assert confidence is not None
    poses = None
    if track.poses is not None:
        poses = convert(track.poses, found.skeleton.name, skeleton)[0].astype(np.float32)
    return Clip(
        source=found.file,
        video=found.video if found.camera == "own" else f"{found.video} {found.camera}",
        person=track.person,
        first=track.first,
        frame_rate=frame_rate,
        width=width,
        height=height,
        skeleton=skeleton_named(skeleton),
        keypoints=normalise_screen(points, width, height).astype(np.float32),
        visible=confidence > 0,
        poses=poses,
    )


def _size(found: Detections, reading: Reading) -> tuple[int, int, float]:
    known = {key: getattr(reading, key) or getattr(found, key) for key in ("width", "height", "frame_rate")}
    unsaid = [key for key, value in known.items() if value is None]
    if unsaid:
        flags = " ".join(f"--{key.replace('_', '-')} ..." for key in unsaid)
        raise ValueError(
            f"{found.file} does not say the {', '.join(unsaid)} of the video {found.video}, which lifting needs. "
            f"Expected are whole pixels and frames per second: give {flags}."
        )
    for key in ("width", "height"):
        if not isinstance(known[key], int | np.integer) or not 0 < known[key] <= _LARGEST:
            raise ValueError(
                f"{found.file}: the {key} of the video {found.video} is {known[key]!r}, expected whole pixels up to "
                f"{_LARGEST}. Correct the file, or give --{key}."
            )
    return int(known["width"]), int(known["height"]), float(known["frame_rate"])
