"""What a 2D detector saw in a video -> one gapless track per person. Legend: N detections, F frames, J joints."""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.keypoints.gaps import fill_gaps
from posegrid.datasets.skeletons import Skeleton

PATIENCE = 30
"""Frames after which an unlabelled person who was not seen counts as gone."""
_BEST = 10
"""Scores of a few detectors exceed 1 a little; percentages and the like are refused."""
_FAR = 1e6
"""Coordinates that are farther out are no pixels of an image."""
_SPARSE = 50
"""A track may span this many times the frames in which its person is seen."""


@dataclass(frozen=True, kw_only=True)
class Detections:
    """All that one file says about one video, in any order. Raises ValueError if numbers cannot be used."""

    video: str
    """Name of the recording."""
    file: str
    """Where it comes from, for messages."""
    skeleton: Skeleton
    """Which joints, in which order."""
    frames: np.ndarray
    """(N,) int64 frame numbers as the file counts them."""
    people: np.ndarray | None
    """(N,) text: who it is; None where the file does not say."""
    points: np.ndarray
    """(N, J, 2) float64 pixels; anything where the confidence is 0."""
    confidence: np.ndarray
    """(N, J) float64; 0: not seen. Above 1 (AlphaPose's scores reach 6) it is cut to 1."""
    poses: np.ndarray | None = None
    """(N, J, 3) float64 metres, camera frame; NaN where unknown."""
    camera: str = "own"
    """Name of the camera."""
    width: int | None = None
    """Image width in pixels, if the file says it."""
    height: int | None = None
    """Image height in pixels, if the file says it."""
    frame_rate: float | None = None
    """Frames per second, if the file says it."""
    span: tuple[int, int] | None = None
    """First and last frame that was looked at, also without anybody in it; None: first and last detection."""

    def __post_init__(self) -> None:
        finite = (np.abs(self.points) < _FAR).all(axis=-1)
        # no confidence, no point: what stands at such a joint is never used
        absent = np.isnan(self.confidence) & ~finite
        bad = (np.isnan(self.confidence) & finite) | (self.confidence < 0) | (self.confidence > _BEST)
        bad |= ~finite & (self.confidence > 0)
        if bad.any():
            row, joint = np.argwhere(bad)[0]
            raise ValueError(
                f"{self.file}: video {self.video}, frame {self.frames[row]}, joint {self.skeleton.joints[joint]}: "
                f"x, y = {self.points[row, joint].tolist()} with confidence {self.confidence[row, joint]} "
                f"({int(bad.sum())} such joints). Coordinates must be finite, below {_FAR:g} pixels, and "
                f"confidences from 0 to {_BEST}, 0 for a joint that is not seen. Correct the file."
            )
        object.__setattr__(self, "confidence", np.where(absent, 0.0, np.minimum(self.confidence, 1.0)))
        seen = self.points[self.confidence > 0]
        if len(seen) > 1 and np.abs(seen).max() <= 2:
            raise ValueError(
                f"{self.file}: video {self.video}: all coordinates lie within {seen.min():.3g} ... {seen.max():.3g}; "
                "expected pixels. Have the detector write pixels of the original image."
            )

    @property
    def extent(self) -> tuple[int, int]:
        """First and last frame of the video as far as it is known."""
        first, last = int(self.frames.min()), int(self.frames.max())
        return (min(first, self.span[0]), max(last, self.span[1])) if self.span else (first, last)


@dataclass(frozen=True, kw_only=True)
class Track:
    """One person, one row a frame, before gaps are filled."""

    person: str
    first: int
    """Number of the first frame."""
    points: np.ndarray
    """(F, J, 2) float64 pixels, 0 where not seen."""
    confidence: np.ndarray
    """(F, J) float64 in [0, 1], 0 where not seen."""
    poses: np.ndarray | None
    """(F, J, 3) float64 metres, camera frame; NaN where unknown."""

    @property
    def filled(self) -> np.ndarray:
        """(F, J, 2) float64 pixels without gaps (see `gaps.fill_gaps`)."""
        return fill_gaps(self.points, self.confidence)


def tracks_of(found: Detections) -> list[Track]:
    """The people of a video, in the order in which they appear (then by name).

    A person who is alone in the video has a track over all its frames, several people have one from the first to the
    last frame in which each is seen. Raises ValueError if a person is detected twice in a frame, or if the frame
    numbers are so sparse that they cannot be those of a video.
    """
    people = associated(found) if found.people is None else found.people
    names, person_of = np.unique(people, return_inverse=True)
    seen = (found.confidence > 0).any(axis=1)
    tracks = []
    for number, name in enumerate(names):
        rows = np.flatnonzero((person_of == number) & seen)
        if not len(rows):
            continue
        frames = found.frames[rows]
        rows, frames = rows[frames.argsort(kind="stable")], np.sort(frames)
        twice = frames[1:][np.diff(frames) == 0]
        if len(twice):
            raise ValueError(
                f"{found.file}: video {found.video}: person {name} is detected twice in frame {twice[0]} "
                f"({len(twice)} such frames). Each person must occur once a frame: correct the track numbers."
            )
        first, last = found.extent if len(names) == 1 else (int(frames[0]), int(frames[-1]))
        length = last - first + 1
        if length > _SPARSE * (len(frames) + 20):
            raise ValueError(
                f"{found.file}: video {found.video}: person {name} is seen in {len(frames)} of the frames {first} to "
                f"{last}. Numbers this sparse are not the frames of a video (single images?). Number the frames one by "
                "one."
            )
        points = np.zeros((length, *found.points.shape[1:]))
        confidence = np.zeros(points.shape[:2])
        confidence[frames - first] = found.confidence[rows]
        points[frames - first] = np.where(found.confidence[rows, :, None] > 0, found.points[rows], 0)
        poses = None
        if found.poses is not None:
            poses = np.full((length, *found.poses.shape[1:]), np.nan)
            poses[frames - first] = found.poses[rows]
        tracks.append(Track(person=str(name), first=first, points=points, confidence=confidence, poses=poses))
    return sorted(tracks, key=lambda track: (track.first, len(track.person), track.person))


def associated(found: Detections) -> np.ndarray:
    """(N,) text: people numbered "1", "2", ... in the order in which they appear, where the file does not say.

    Frame by frame, the detection and the known person whose boxes (around the seen joints) are nearest are joined
    first, and so on, as long as the centres are less than half of the larger box's diagonal apart. Whoever remains is
    a new person; who is not seen for 30 frames is gone. With one detection a frame at most, all are one person.
    """
    people = np.full(len(found.frames), "1", dtype="<U12")
    order = np.argsort(found.frames, kind="stable")
    starts = np.flatnonzero(np.diff(found.frames[order], prepend=found.frames[order[0]] - 1))
    if len(starts) == len(order):
        return people
    seen = (found.confidence > 0)[..., None]
    low = np.where(seen, found.points, np.inf).min(axis=1)
    high = np.where(seen, found.points, -np.inf).max(axis=1)
    known_low, known_high, last = np.empty((0, 2)), np.empty((0, 2)), np.empty(0, dtype=np.int64)
    for rows in np.split(order, starts[1:]):
        rows = rows[seen[rows, :, 0].any(axis=1)]
        if not len(rows):
            continue
        frame = found.frames[rows[0]]
        middle, known_middle = (low[rows] + high[rows]) / 2, (known_low + known_high) / 2
        apart = np.linalg.norm(middle[:, None] - known_middle[None], axis=-1)
        size = np.linalg.norm(high[rows] - low[rows], axis=-1)[:, None]
        size = np.maximum(size, np.linalg.norm(known_high - known_low, axis=-1)[None])
        apart[(apart >= size / 2) | (frame - last > PATIENCE)[None]] = np.inf
        person = np.full(len(rows), -1)
        while np.isfinite(apart).any():
            one, other = np.unravel_index(apart.argmin(), apart.shape)
            person[one] = other
            apart[one], apart[:, other] = np.inf, np.inf
        new = person < 0
        person[new] = len(last) + np.arange(new.sum())
        if new.any():
            room = ((0, int(new.sum())), (0, 0))
            known_low, known_high, last = np.pad(known_low, room), np.pad(known_high, room), np.pad(last, room[0])
        known_low[person], known_high[person], last[person] = low[rows], high[rows], frame
        people[rows] = (person + 1).astype(str)
    return people
