"""What one recording seen by one camera is, what a data set's protocol is, and the Arrow columns both become.

Legend: F frames, J joints. Units: metres, camera frame (x right, y down, z forward), seconds; 2D in normalised screen
coordinates (width maps to [-1, 1], the aspect ratio is kept: x' = 2x/w - 1, y' = 2y/w - h/w, x and y in pixels).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from posegrid.datasets.skeletons import Skeleton

SCHEMA_VERSION = 1


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
    poses: np.ndarray
    """(F, J, 3) float32, metres, camera frame, absolute (root not subtracted)."""
    camera_parameters: dict[str, Any] = field(default_factory=dict)
    """Plain numbers of the camera (see `cameras.Camera`), empty if unknown."""

    @property
    def name(self) -> str:
        """Unique name within a store: subject/recording/camera."""
        return f"{self.subject}/{self.recording}/{self.camera}"

    def __post_init__(self) -> None:
        frames, joints = self.poses.shape[:2]
        for what, array, shape in (
            ("keypoints", self.keypoints, (frames, joints, 2)),
            ("confidence", self.confidence, (frames, joints)),
            ("poses", self.poses, (frames, joints, 3)),
        ):
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(
                    f"sequence {self.name}: {what} is {array.dtype} {array.shape}, expected float32 {shape}. "
                    "The reader of this data set is at fault, or its files have another layout than documented."
                )
            bad = ~np.isfinite(array)
            if bad.any():
                frame, joint = np.argwhere(bad)[0][:2]
                raise ValueError(
                    f"sequence {self.name}: {what} holds {int(bad.sum())} NaN or infinite values, the first at "
                    f"frame {frame}, joint {joint}. Every value must be finite: repair or leave out this recording."
                )


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which subjects train, which test, which recordings select, which are left out."""

    train: tuple[str, ...]
    """Training subjects."""
    test: tuple[str, ...]
    """Test subjects; never used for selection unless a run says so."""
    held_out: tuple[str, ...] = ()
    """Recordings of the training subjects ("subject/recording") kept for selecting epochs and settings."""
    excluded: tuple[str, ...] = ()
    """Recordings ("subject/recording") left out of the store."""
    note: str = ""
    """What a reader of results must know about this split."""

    def split_of(self, subject: str, recording: str) -> str:
        """ "train", "held_out", "test" or "unused" for a recording."""
        if f"{subject}/{recording}" in self.excluded:
            return "unused"
        if subject in self.test:
            return "test"
        if subject not in self.train:
            return "unused"
        return "held_out" if f"{subject}/{recording}" in self.held_out else "train"


def frame_schema(skeleton: Skeleton) -> pa.Schema:
    """Arrow schema of the frame table: one row a frame, float32, fixed-size lists so that reading is zero-copy."""
    joints = len(skeleton)
    return pa.schema(
        [
            pa.field("keypoints", pa.list_(pa.float32(), joints * 2), metadata={"unit": "normalised screen"}),
            pa.field("confidence", pa.list_(pa.float32(), joints), metadata={"unit": "1"}),
            pa.field("poses", pa.list_(pa.float32(), joints * 3), metadata={"unit": "metre", "frame": "camera"}),
        ]
    )


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
        pa.field("sha256", pa.string()),
    ]
)
"""Arrow schema of the sequence table: one row a sequence; `offset` is its first row in the frame table."""
