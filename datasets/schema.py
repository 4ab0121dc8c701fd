"""What one recording seen by one camera is, what a data set's protocol is, and the Arrow columns both become.

Legend: F frames, J joints. Units: metres, camera frame (x right, y down, z forward), seconds; 2D in normalised screen
coordinates (width maps to [-1, 1], the aspect ratio is kept: x' = 2x/w - 1, y' = 2y/w - h/w, x and y in pixels).
"""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from posegrid.datasets.skeletons import Skeleton

SCHEMA_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One take of one subject before it is read: what a source lists cheaply."""

    subject: str
    action: str
    """Class of the motion; per-action tables average over these."""
    name: str
    """Take, unique within the subject."""
    files: tuple[str, ...] = ()
    """Raw files that it comes from; empty for generated motion."""


@dataclass(frozen=True, kw_only=True)
class CameraSequence:
    """One recording seen by one camera. Raises ValueError on inconsistent shapes, NaN or infinity."""

    subject: str
    action: str
    recording: str
    camera: str
    frame_rate: float
    """Frames per second."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    keypoints: np.ndarray
    """(F, J, 2) float32, normalised screen coordinates, as the detector saw them."""
    confidence: np.ndarray
    """(F, J) float32 in [0, 1]; all ones where the source has none."""
    poses: np.ndarray | None
    """(F, J, 3) float32, metres, camera frame, absolute (root not subtracted); None where only keypoints are known."""
    valid: np.ndarray | None = None
    """(F,) bool, False for frames that are seen but never scored; None: all count. Recordings that train have valid
    frames only: a source cuts them into runs."""
    camera_parameters: dict[str, Any] = field(default_factory=dict)
    """Plain numbers of the camera (see `cameras.Camera`), empty if unknown."""
    images: dict[str, Any] = field(default_factory=dict)
    """Where the frames' images are (see `images.places`), empty if there are none: then they can be drawn."""

    @property
    def name(self) -> str:
        """Unique name within a store: subject/recording/camera."""
        return f"{self.subject}/{self.recording}/{self.camera}"

    def __post_init__(self) -> None:
        frames, joints = self.keypoints.shape[:2]
        for what, array, shape, dtype in (
            ("keypoints", self.keypoints, (frames, joints, 2), np.float32),
            ("confidence", self.confidence, (frames, joints), np.float32),
            ("poses", self.poses, (frames, joints, 3), np.float32),
            ("valid", self.valid, (frames,), np.bool_),
        ):
            if array is None:
                continue
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"sequence {self.name}: {what} is {array.dtype} {array.shape}, expected {dtype.__name__} {shape}. "
                    "The reader of this data set is at fault, or its files have another layout than documented."
                )
            bad = ~np.isfinite(array)
            if bad.any():
                place = np.argwhere(bad)[0]
                raise ValueError(
                    f"sequence {self.name}: {what} holds {int(bad.sum())} NaN or infinite values, the first at "
                    f"frame {place[0]}, joint {place[1]}. Every value must be finite: repair or leave out this "
                    "recording."
                )


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which subjects train, which test, which recordings select, which are left out."""

    train: tuple[str, ...]
    """Training subjects."""
    test: tuple[str, ...]
    """Test subjects; never used for selection unless a run says so."""
    held_out: tuple[str, ...] = ()
    """Recordings of the training subjects ("subject/recording"), or whole ones of them ("subject"), that are kept for
    selecting epochs and settings."""
    excluded: tuple[str, ...] = ()
    """Recordings ("subject/recording") left out of the store."""
    keypoints: str = ""
    """Where the 2D comes from, such as "cpn", "projected" or "simulated detector"."""
    note: str = ""
    """What a reader of results must know about this split."""

    def excludes(self, subject: str, recording: str) -> bool:
        """Whether a recording, or the one that it was cut from, is left out of the store."""
        return not {f"{subject}/{recording}", f"{subject}/{uncut(recording)}"}.isdisjoint(self.excluded)

    def split_of(self, subject: str, recording: str) -> str:
        """ "train", "held_out", "test" or "unused" for a recording or a part that was cut from one."""
        if self.excludes(subject, recording):
            return "unused"
        if subject in self.test:
            return "test"
        if subject not in self.train:
            return "unused"
        names = {subject, f"{subject}/{recording}", f"{subject}/{uncut(recording)}"}
        return "train" if names.isdisjoint(self.held_out) else "held_out"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a store tells about where it comes from. A source that passes on another store has a function
    `origin(config, recordings)` that gives it; for others it is their name, settings and skeleton."""

    source: str
    """Name of the source."""
    source_config: dict[str, Any]
    """Its settings, as plain data."""
    skeleton: Skeleton
    """Joints of the sequences."""


def uncut(recording: str) -> str:
    """The recording that a part ("walk 1 part 2", see `CameraSequence.valid`) was cut from; others as they are."""
    return re.sub(r" part \d+$", "", recording)


def frame_schema(skeleton: Skeleton, *, poses: bool) -> pa.Schema:
    """Arrow schema of the frame table: one row a frame, fixed-size lists so that reading is zero-copy.

    poses: whether the store has 3D. `valid` is a byte a frame, because Arrow packs booleans into bits, which NumPy
    cannot read in place.
    """
    joints = len(skeleton)
    columns = [
        pa.field("keypoints", pa.list_(pa.float32(), joints * 2), metadata={"unit": "normalised screen"}),
        pa.field("confidence", pa.list_(pa.float32(), joints), metadata={"unit": "1"}),
        pa.field("valid", pa.uint8(), metadata={"unit": "0 or 1"}),
    ]
    if poses:
        columns.append(
            pa.field("poses", pa.list_(pa.float32(), joints * 3), metadata={"unit": "metre", "frame": "camera"})
        )
    return pa.schema(columns)


SEQUENCE_SCHEMA = pa.schema(
    [
        pa.field("subject", pa.string()),
        pa.field("action", pa.string()),
        pa.field("recording", pa.string()),
        pa.field("camera", pa.string()),
        pa.field("split", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("frames", pa.int64()),
        pa.field("frame_rate", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("camera_parameters", pa.string()),
        pa.field("images", pa.string()),
        pa.field("sha256", pa.string()),
    ]
)
"""Arrow schema of the sequence table: one row a sequence; `offset` is its first row in the frame table."""
