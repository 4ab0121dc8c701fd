"""Lifted poses as a Parquet file: one row a person and frame, written piece by piece.

| column | meaning |
|---|---|
| `video`, `person`, `frame`, `time_s` | frame: number as the input counts; time since its frame 0, seconds |
| `visible_joints` | joints that the model saw in this frame; 0: the pose is a guess from other frames |
| `JOINT_x_px`, `JOINT_y_px` | the keypoint that the model saw, pixels; empty where hidden |
| `JOINT_X_mm`, `JOINT_Y_mm`, `JOINT_Z_mm` | the pose, mm from the root joint: x right, y down, z forward |
| `JOINT_std_mm` | with several hypotheses: their spread, root of the summed variances of the coordinates |
| `JOINT_true_X_mm`, ... | the truth in the same frame, if the input has 3D; empty where it does not |
| `hypotheses_mm` | on request: H x J x 3 numbers, hypothesis by hypothesis, joint by joint |

The schema's metadata says unit, frame and root; the file's, key `posegrid`, is JSON with these and skeleton, videos,
model, protocol and notes: `pyarrow.parquet.read_metadata(file).metadata[b"posegrid"]`.
Legend: n rows, H hypotheses, J joints.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from posegrid.datasets.skeletons import Skeleton, skeleton_named

FORMAT = "posegrid-poses-1"
UNIT, FRAME = "millimetre", "camera axes (x right, y down, z forward), relative to the root joint"
_KEY = b"posegrid"
_ROWS = 8192
"""Rows of a group: what is held in memory until it is written, and what a reader of some frames reads."""


@dataclass(frozen=True, kw_only=True)
class PoseRows:
    """Consecutive frames of one person."""

    frame: np.ndarray
    """(n,) int64 numbers of the frames."""
    time_s: np.ndarray
    """(n,) float64 seconds."""
    keypoints_px: np.ndarray
    """(n, J, 2) float32 pixels; NaN where hidden."""
    poses_mm: np.ndarray
    """(n, J, 3) float32."""
    deviation_mm: np.ndarray | None = None
    """(n, J) float32."""
    truth_mm: np.ndarray | None = None
    """(n, J, 3) float32; NaN where unknown."""
    hypotheses_mm: np.ndarray | None = None
    """(n, H, J, 3) float32."""

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def visible(self) -> np.ndarray:
        """(n, J) bool."""
        return np.isfinite(self.keypoints_px[..., 0])


_KEYPOINTS, _POSES, _DEVIATION = ("_x_px", "_y_px"), ("_X_mm", "_Y_mm", "_Z_mm"), ("_std_mm",)
_TRUTH = ("_true_X_mm", "_true_Y_mm", "_true_Z_mm")
"""What stands after the joint in the names of columns."""


class PoseWriter:
    """Writes rows in the order in which they come; the first ones decide which columns there are. See `pose_writer`."""

    def __init__(self, file: Path, skeleton: Skeleton) -> None:
        self.about: dict[str, Any] = {}
        """What the metadata says beside the skeleton and the units; to be set before the end."""
        self._file, self._skeleton = file, skeleton
        self._schema = pa.schema([])
        self._hypotheses = 0
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def add(self, video: str, person: str, rows: PoseRows) -> None:
        """Add frames of one person. A truth that the first rows did not have is left out."""
        if self._writer is None:
            self._schema = _schema(self._skeleton, rows)
            self._hypotheses = 0 if rows.hypotheses_mm is None else rows.hypotheses_mm.shape[1]
            self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd", write_page_checksum=True)
        self._waiting.append(_table(video, person, rows, self._skeleton, self._schema))
        if sum(len(table) for table in self._waiting) >= _ROWS:
            self._flush()

    def finish(self) -> None:
        """Write what waits, and the metadata."""
        assert self._writer is not None, "nothing was lifted"
        self._flush()
        described: dict[str, Any] = {"format": FORMAT, "skeleton": self._skeleton.name}
        described["joints"] = list(self._skeleton.joints)
        described |= {"parents": list(self._skeleton.parents), "root": self._skeleton.joints[self._skeleton.root]}
        described |= {
            "unit": UNIT,
            "frame": FRAME,
            "keypoints": "pixels of the image, from the upper left corner; empty: hidden from the model",
            "std": "root of the summed variances of x, y and z over the hypotheses of a window",
            "hypotheses_kept": self._hypotheses,
        }
        self._writer.add_key_value_metadata({_KEY.decode(): json.dumps(described | self.about)})
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            assert self._writer is not None
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks(), row_group_size=2 * _ROWS)
            self._waiting = []

    def abandon(self) -> None:
        """Close an unfinished file."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def pose_writer(file: Path, skeleton: Skeleton) -> Iterator[PoseWriter]:
    """Writes a pose file aside and renames it when the block ends well: `file` appears whole or not at all.

    Raises ValueError if it cannot be written.
    """
    aside = file.with_name(f".{file.name}.partial-{os.getpid()}")
    writer = PoseWriter(aside, skeleton)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield writer
        writer.finish()
        os.replace(aside, file)
    except OSError as error:
        raise ValueError(
            f"{file} cannot be written ({error}). Allowed is a file in a folder with room: name another one."
        ) from None
    finally:
        with suppress(OSError):  # a full disk may refuse this too, and has been told of
            writer.abandon()
        if aside.is_file():
            aside.unlink()


def _schema(skeleton: Skeleton, rows: PoseRows) -> pa.Schema:
    fields = [pa.field("video", pa.string()), pa.field("person", pa.string())]
    fields += [pa.field("frame", pa.int64()), pa.field("time_s", pa.float64()), pa.field("visible_joints", pa.int16())]
    parts = [_KEYPOINTS, _POSES]
    parts += [_DEVIATION] if rows.deviation_mm is not None else []
    parts += [_TRUTH] if rows.truth_mm is not None else []
    fields += [pa.field(joint + end, pa.float32()) for part in parts for joint in skeleton.joints for end in part]
    if rows.hypotheses_mm is not None:
        each = rows.hypotheses_mm.shape[1] * len(skeleton) * 3
        fields.append(pa.field("hypotheses_mm", pa.list_(pa.float32(), each)))
    # what any reader of Arrow shows; the rest is known at the end only
    return pa.schema(fields, {"unit": UNIT, "frame": FRAME, "root": skeleton.joints[skeleton.root]})


def _table(video: str, person: str, rows: PoseRows, skeleton: Skeleton, schema: pa.Schema) -> pa.Table:
    count = len(rows)
    columns = [pa.repeat(video, count), pa.repeat(person, count), pa.array(rows.frame), pa.array(rows.time_s)]
    columns.append(pa.array(rows.visible.sum(axis=1).astype(np.int16)))
    truth = rows.truth_mm
    if truth is None and f"{skeleton.joints[0]}{_TRUTH[0]}" in schema.names:
        truth = np.full(rows.poses_mm.shape, np.nan)
    for values, part in (
        (rows.keypoints_px, _KEYPOINTS),
        (rows.poses_mm, _POSES),
        (rows.deviation_mm, _DEVIATION),
        (truth, _TRUTH),
    ):
        if values is not None and f"{skeleton.joints[0]}{part[0]}" in schema.names:
            flat = np.ascontiguousarray(values.reshape(count, -1).T, dtype=np.float32)
            # NaN becomes empty. NumPy's mask, as Arrow's own conversion imports pandas first
            columns += [pa.array(row, mask=np.isnan(row)) for row in flat]
    if rows.hypotheses_mm is not None:
        kind = schema.field("hypotheses_mm").type
        flat = np.ascontiguousarray(rows.hypotheses_mm, dtype=np.float32).reshape(-1)
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), kind.list_size))
    return pa.Table.from_arrays(columns, schema=schema)


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PoseClip:
    """Frames of one person as they stand in a pose file."""

    video: str
    person: str
    skeleton: Skeleton
    frame_rate: float
    """Frames per second of the video."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    rows: PoseRows
    about: dict[str, Any] = field(repr=False)
    """The file's metadata."""


def is_pose_file(file: Path) -> bool:
    """Whether `read_poses` can read it."""
    try:
        return bool(read_about(file))
    except ValueError:
        return False


def read_about(file: Path) -> dict[str, Any]:
    """The metadata of a pose file. Raises ValueError if it is none."""
    try:
        metadata = pq.read_metadata(file).metadata or {}
        about = json.loads(metadata.get(_KEY, b"{}"))
    except (OSError, pa.ArrowException, ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} cannot be read as Parquet ({error}). Expected is a file of `posegrid lift`."
        ) from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(
            f"{file} holds no lifted poses (metadata `posegrid` does not say {FORMAT}). Expected is what `posegrid "
            "lift` writes: lift keypoints first."
        )
    return about


def read_poses(
    file: Path, video: str | None = None, person: str | None = None, first: int | None = None, count: int | None = None
) -> PoseClip:
    """Up to `count` frames of one person from frame number `first` on; by default all of whoever comes first.

    Raises ValueError if the file is none of lifted poses, or lacks the video, the person or the frames.
    """
    about = read_about(file)
    clips = [one for one in about["clips"] if video in (None, one["video"]) and person in (None, one["person"])]
    if not clips:
        known = ", ".join(f"{one['video']} ({one['person']})" for one in about["clips"][:20])
        raise ValueError(
            f"{file} has no video {video or 'at all'} with person {person or 'at all'}. It holds (person in brackets): "
            f"{known}. Choose among them."
        )
    chosen = clips[0]
    skeleton = skeleton_named(about["skeleton"])
    wanted = [("video", "=", chosen["video"]), ("person", "=", chosen["person"])]
    begin = chosen["first"] if first is None else first
    wanted += [("frame", ">=", begin)]
    if count is not None:
        wanted += [("frame", "<", begin + count)]
    table = pq.read_table(file, filters=wanted, page_checksum_verification=True)
    if not len(table):
        end = chosen["first"] + chosen["frames"] - 1
        raise ValueError(
            f"{file}: {chosen['video']}, person {chosen['person']} has the frames {chosen['first']} to {end}, none of "
            f"them from {begin} on{'' if count is None else f' within {count}'}. Choose frames among them."
        )
    table = table.take(pc.sort_indices(table, sort_keys=[("frame", "ascending")]))
    deviation = _if_any(table, skeleton, _DEVIATION)
    rows = PoseRows(
        frame=table["frame"].to_numpy(),
        time_s=table["time_s"].to_numpy(),
        keypoints_px=_array(table, skeleton, _KEYPOINTS),
        poses_mm=_array(table, skeleton, _POSES),
        deviation_mm=None if deviation is None else deviation[..., 0],
        truth_mm=_if_any(table, skeleton, _TRUTH),
        hypotheses_mm=_hypotheses(table, skeleton),
    )
    return PoseClip(
        video=chosen["video"],
        person=chosen["person"],
        skeleton=skeleton,
        frame_rate=chosen["frame_rate"],
        width=chosen["width"],
        height=chosen["height"],
        rows=rows,
        about=about,
    )


def _if_any(table: pa.Table, skeleton: Skeleton, part: tuple[str, ...]) -> np.ndarray | None:
    return _array(table, skeleton, part) if skeleton.joints[0] + part[0] in table.column_names else None


def _array(table: pa.Table, skeleton: Skeleton, part: tuple[str, ...]) -> np.ndarray:
    columns = [table[joint + end].to_numpy() for joint in skeleton.joints for end in part]
    return np.stack(columns, axis=-1).reshape(len(table), len(skeleton), len(part)).astype(np.float32)


def _hypotheses(table: pa.Table, skeleton: Skeleton) -> np.ndarray | None:
    if "hypotheses_mm" not in table.column_names:
        return None
    values = table["hypotheses_mm"].combine_chunks().flatten().to_numpy()
    return values.reshape(len(table), -1, len(skeleton), 3)
