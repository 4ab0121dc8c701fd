"""Columns of a keypoint table and what lies beside it (`keypoint_table` documents the format)."""

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from posegrid.datasets.options import from_values, unknown
from posegrid.datasets.readers.joint_names import joint_named
from posegrid.datasets.skeletons import Skeleton, skeleton_named

SUFFIXES = (".csv", ".parquet")
_REQUIRED = {
    "sequence": pa.string(),
    "frame": pa.int64(),
    "joint": pa.string(),
    "x": pa.float64(),
    "y": pa.float64(),
    "confidence": pa.float64(),
}
_OPTIONAL = {"person": pa.string(), "X": pa.float64(), "Y": pa.float64(), "Z": pa.float64()}
_POSE = ("X", "Y", "Z")


@dataclass(frozen=True, kw_only=True)
class Video:
    """What the rows do not say about one video."""

    width: int | None = None
    """Image width in pixels."""
    height: int | None = None
    """Image height in pixels."""
    frame_rate: float | None = None
    """Frames per second."""


@dataclass(frozen=True, kw_only=True)
class Sidecar(Video):
    """The file beside a table: values for all videos, and for single ones."""

    skeleton: str | None = None
    """Name of the skeleton whose joints the table has."""
    sequences: dict[str, Any] = field(default_factory=dict)
    """Name of a video -> the keys of `Video` that differ for it."""

    def of(self, video: str) -> Video:
        """What holds for one video."""
        return Video(**{name: self.sequences.get(video, {}).get(name, getattr(self, name)) for name in _VIDEO_KEYS})


_VIDEO_KEYS = ("width", "height", "frame_rate")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as it was read, one entry a row."""

    file: Path
    skeleton: Skeleton
    sidecar: Sidecar
    videos: np.ndarray
    """(V,) text."""
    people: np.ndarray | None
    """(P,) text; None without the column `person`."""
    video: np.ndarray
    """(R,) int64 index into `videos`."""
    person: np.ndarray
    """(R,) int64 index into `people`, 0 without them."""
    frame: np.ndarray
    """(R,) int64."""
    joint: np.ndarray
    """(R,) int64 index into the skeleton, -1 for an unknown name."""
    joint_name: np.ndarray
    """(R,) text as it stands in the file."""
    points: np.ndarray
    """(R, 2) float64 pixels."""
    confidence: np.ndarray
    """(R,) float64."""
    poses: np.ndarray | None
    """(R, 3) float64 metres."""


def read_sidecar(file: Path) -> Sidecar:
    """What lies beside a table; defaults if nothing does. Raises ValueError for unknown keys or wrong values."""
    beside = [path for path in (file.with_suffix(".toml"), file.with_suffix(".json")) if path.is_file()]
    if not beside:
        return Sidecar()
    where = beside[0]
    try:
        text = where.read_text(encoding="utf-8")
        values = tomllib.loads(text) if where.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{where} cannot be read ({error}); expected the keys width, height, frame_rate, skeleton. Correct it."
        ) from None
    sidecar = from_values(Sidecar, values, str(where))
    videos = {
        name: from_values(Video, entry, f"{where}, sequences.{name}") for name, entry in sidecar.sequences.items()
    }
    for owner, video in {"": sidecar, **videos}.items():
        for key in _VIDEO_KEYS:
            value = getattr(video, key)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(
                    f"{where}: {key} = {value}{f' of {owner}' if owner else ''} must be positive. Correct it."
                )
    return sidecar


def read_table(file: Path, joints: str = "auto") -> Table:
    """Read a table without judging its rows. joints: name of its skeleton, "auto": the sidecar's.

    Raises ValueError if the file cannot be read, columns are missing or unknown, an entry is no number where there must
    be one, the sidecar is wrong, or the skeleton is not known.
    """
    columns = _columns(file)
    sidecar = read_sidecar(file)
    name = sidecar.skeleton if joints == "auto" else joints
    if name is None:
        raise ValueError(
            f"{file}: the skeleton is not known; expected the key skeleton in {file.with_suffix('.toml').name} beside "
            'it, such as skeleton = "coco_17". Add it, or give --option joints=NAME.'
        )
    try:
        skeleton = skeleton_named(name)
    except ValueError as error:
        where = "option joints" if joints != "auto" else f"key skeleton in {file.stem}.toml or .json beside it"
        raise ValueError(f"{file}: {error} Correct it ({where}).") from None
    videos, video = _encoded(columns["sequence"])
    names, joint = _encoded(columns["joint"])
    people, person = _encoded(columns["person"]) if "person" in columns else (None, np.zeros_like(video))
    index = np.array([-1 if (found := joint_named(skeleton, each)) is None else found for each in names.tolist()])
    strange = sorted(set(sidecar.sequences) - set(videos.tolist()))
    if strange:
        raise unknown("sequence", strange[0], f"beside {file}, key sequences", videos.tolist()[:20])
    return Table(
        file=file,
        skeleton=skeleton,
        sidecar=sidecar,
        videos=videos,
        people=people,
        video=video,
        person=person,
        frame=columns["frame"].to_numpy(),
        joint=index[joint],
        joint_name=names[joint],
        points=np.stack([_float(columns[axis]) for axis in ("x", "y")], axis=-1),
        confidence=_float(columns["confidence"]),
        poses=np.stack([_float(columns[axis]) for axis in _POSE], axis=-1) if "X" in columns else None,
    )


def _columns(file: Path) -> dict[str, pa.Array]:
    types = {**_REQUIRED, **_OPTIONAL}
    try:
        if file.suffix.lower() == ".parquet":
            table = pa.parquet.read_table(file, page_checksum_verification=True)
        else:
            options = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
            table = pa.csv.read_csv(file, convert_options=options)
        table.validate(full=True)
        names = table.column_names
        for name in names:
            if name not in types:
                raise unknown("column", name, str(file), list(types))
        missing = [name for name in _REQUIRED if name not in names]
        if "X" in names or "Y" in names or "Z" in names:
            missing += [name for name in _POSE if name not in names]
        if missing or len(set(names)) < len(names):
            raise ValueError(
                f"{file} has the columns {', '.join(names)}; expected each of {', '.join([*_REQUIRED, *missing])} "
                "once. Correct the header."
            )
        columns = {name: table[name].combine_chunks().cast(types[name]) for name in names}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} cannot be read as a table ({error}). Expected columns {', '.join(_REQUIRED)}; write numbers with "
            "a decimal point and frames as whole numbers."
        ) from None
    if not table.num_rows:
        raise ValueError(
            f"{file} has a header and no rows; expected one row a joint and frame. Write keypoints into it."
        )
    for name in ("sequence", "frame", "joint", "person"):
        if name in columns and columns[name].null_count:
            row = columns[name].is_null().to_numpy(zero_copy_only=False).argmax() + 1
            raise ValueError(f"{file}: row {row} has no {name}. Every row needs one: fill it in or remove the row.")
    return columns


def _encoded(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Sorted values and the index of each row into them."""
    coded = column.dictionary_encode()
    values = np.array(coded.dictionary.to_pylist())
    order = values.argsort(kind="stable")
    return values[order], order.argsort()[coded.indices.to_numpy()]


def _float(column: pa.Array) -> np.ndarray:
    return column.fill_null(float("nan")).to_numpy()
