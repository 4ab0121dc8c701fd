"""The Arrow store: one memory-mapped table of frames, one table of sequences, one JSON description.

Frames lie in one uncompressed record batch, so that every column is one contiguous array which is read in place (no
copy, pages shared by all processes of a machine). `store_writer` makes stores. Legend: F frames of the store, J joints.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from posegrid.datasets.addresses import is_address
from posegrid.datasets.schema import SCHEMA_VERSION, SEQUENCE_SCHEMA
from posegrid.datasets.skeletons import Skeleton, skeleton_named

FRAMES, SEQUENCES, DESCRIPTION = "frames.arrow", "sequences.arrow", "store.json"
_SHAPES: dict[str, tuple[int, ...]] = {"keypoints": (2,), "confidence": (), "poses": (3,)}
"""What a value of each column of joints is."""


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """A row of the sequence table: where the frames of one recording and camera lie."""

    subject: str
    action: str
    recording: str
    camera: str
    split: str
    """"train", "held_out", "test" or "unused"."""
    offset: int
    """First row in the frame table."""
    frames: int
    """Number of frames."""
    frame_rate: float
    """Frames per second."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    camera_parameters: str
    """Camera as JSON text, "{}" if unknown."""
    images: str
    """Where its images are as JSON text, "{}" if there are none."""
    sha256: str
    """Digest of the sequence's bytes."""

    @property
    def name(self) -> str:
        """Unique name: subject/recording/camera."""
        return f"{self.subject}/{self.recording}/{self.camera}"


@dataclass(frozen=True, kw_only=True)
class Store:
    """An open store. The arrays are read-only views of the mapped file: gather before changing anything."""

    path: Path
    """Folder of its files on this machine."""
    address: str
    """Folder or address that it was opened with: what other machines open."""
    content_hash: str
    """sha256 over description, sequence table and frame bytes."""
    skeleton: Skeleton
    source: str
    """Name of the source that prepared it."""
    description: dict[str, Any] = field(repr=False)
    sequences: tuple[Sequence, ...] = field(repr=False)
    keypoints: np.ndarray = field(repr=False)
    """(F, J, 2) float32 normalised screen coordinates."""
    confidence: np.ndarray = field(repr=False)
    """(F, J) float32 in [0, 1]."""
    valid: np.ndarray = field(repr=False)
    """(F,) bool, False for frames that are never scored."""
    poses_if_any: np.ndarray | None = field(repr=False)
    """`poses`, or None in a store of keypoints only."""

    @property
    def poses(self) -> np.ndarray:
        """(F, J, 3) float32 metres, camera frame, absolute. Raises ValueError if the store has keypoints only."""
        if self.poses_if_any is None:
            raise ValueError(
                f"store {self.path} has keypoints but no 3D poses (source {self.source}), so nothing can be trained or "
                "scored on it. Use it for lifting, or prepare a data set with poses."
            )
        return self.poses_if_any

    @property
    def columns(self) -> list[np.ndarray]:
        """The arrays in the order in which they are hashed."""
        columns = [self.keypoints, self.confidence, self.valid]
        return columns if self.poses_if_any is None else [*columns, self.poses_if_any]

    @property
    def actions(self) -> tuple[str, ...]:
        """All actions, sorted: the index order of per-action tables."""
        return tuple(sorted({sequence.action for sequence in self.sequences}))

    @cached_property
    def offsets(self) -> np.ndarray:
        """(S,) int64 first row of each sequence."""
        return np.array([sequence.offset for sequence in self.sequences], dtype=np.int64)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(S,) int64 frames of each sequence."""
        return np.array([sequence.frames for sequence in self.sequences], dtype=np.int64)

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """All subjects, sorted: the number of a subject is its index here."""
        return tuple(sorted({sequence.subject for sequence in self.sequences}))

    @cached_property
    def subject_of(self) -> np.ndarray:
        """(S,) int64 number of each sequence's subject, an index into `subjects`."""
        return np.array([self.subjects.index(sequence.subject) for sequence in self.sequences], dtype=np.int64)

    def leaving_out(self, subjects: tuple[str, ...]) -> "Store":
        """The same store in which nothing of some training subjects trains or selects: their split becomes "unused".

        Test recordings keep their split. Raises ValueError for a subject that has no training recordings.
        """
        training = ("train", "held_out")
        known = sorted({sequence.subject for sequence in self.sequences if sequence.split in training})
        for subject in subjects:
            if subject not in known:
                raise ValueError(
                    f'subject "{subject}" of data.leave_out has no training recordings in store {self.path}. Allowed: '
                    f"{', '.join(known)}. Choose among them, or leave data.leave_out empty."
                )
        if not subjects:
            return self
        left = tuple(
            replace(one, split="unused") if one.subject in subjects and one.split in training else one
            for one in self.sequences
        )
        return replace(self, sequences=left)

    def of_split(self, *splits: str) -> list[int]:
        """Indices of the sequences of these splits. Raises ValueError if there are none."""
        found = [index for index, sequence in enumerate(self.sequences) if sequence.split in splits]
        if not found:
            have = sorted({sequence.split for sequence in self.sequences})
            raise ValueError(
                f"store {self.path} has no sequences in the split {' or '.join(splits)} (present: {', '.join(have)}). "
                "Prepare a data set whose protocol has that split, or choose another one."
            )
        return found


def sequence_digest(arrays: Iterable[np.ndarray]) -> str:
    """sha256 over the bytes of a sequence's columns: keypoints, confidence, valid and, if there are any, poses, each
    in row-major order, floats little-endian."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def content_hash_of(description: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Hash over canonical text; the frame bytes enter through the digest of each sequence."""
    core = {key: value for key, value in description.items() if key != "content_hash"}
    text = json.dumps([core, rows], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def left_by_a_kill(path: Path) -> Path | None:
    """The former content of a store whose replacement was killed half-way, if there is no store at `path`."""
    if path.exists() or not path.parent.is_dir():
        return None
    pattern = re.compile(rf"\.{re.escape(path.name)}\.old-\d+")
    found = [
        entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name) and (entry / DESCRIPTION).is_file()
    ]
    return max(found, key=lambda entry: entry.stat().st_mtime_ns, default=None)


def read_description(path: Path) -> dict[str, Any]:
    """The JSON description of a store. Raises ValueError if it is absent, unreadable or of another version."""
    file = path / DESCRIPTION
    old = left_by_a_kill(path)
    if old:
        raise ValueError(
            f"no data store at {path}: the preparation that was replacing it was killed half-way. Its former content "
            f"is whole: put it back with `mv {old} {path}`, or repeat the preparation to get the new content."
        )
    if not file.is_file():
        raise ValueError(
            f"no data store at {path} ({DESCRIPTION} is missing). "
            "Make one with `posegrid prepare SOURCE --out FOLDER` and pass that folder with --data."
        )
    try:
        description = json.loads(file.read_text())
        version = description["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}). Prepare the data set again.") from None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"store {path} has schema version {version}, this posegrid reads {SCHEMA_VERSION}. Prepare it again."
        )
    return description


def open_store(path: Path | str, *, verify: bool = True) -> Store:
    """Open a store memory-mapped: a folder, or an address such as s3://bucket/path, whose copy in the cache of this
    machine is opened (see `store_cache`).

    `verify` recomputes the content hash from every byte (about a second per gigabyte); commands do it once before any
    work starts, workers compare the recorded hash instead.
    Raises ValueError if files are missing, cut, of another version, or if the hash does not match.
    """
    if is_address(path):
        from posegrid.datasets.store_cache import local_store  # which opens what it fetched

        return replace(open_store(local_store(path, verify=verify), verify=False), address=str(path))
    path = Path(path).resolve()
    description = read_description(path)
    try:
        content_hash, source = str(description["content_hash"]), str(description["source"])
        table = pa.ipc.open_file(pa.memory_map(str(path / FRAMES))).read_all()
        table.validate()  # sizes, not values
        rows = _rows(path / SEQUENCES)
        skeleton = skeleton_named(description["skeleton"])
        arrays: dict[str, np.ndarray] = {
            column: _in_place(table[column].chunk(0).flatten(), pa.float32(), np.dtype("<f4")).reshape(
                -1, len(skeleton), *shape
            )
            for column, shape in _SHAPES.items()
            if column != "poses" or description["poses"]
        }
        valid = _in_place(table["valid"].chunk(0), pa.uint8(), np.dtype("u1")).view(np.bool_)
        sequences = tuple(Sequence(**row) for row in rows)
    except (OSError, pa.ArrowException, KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"store {path} cannot be read ({error}). Prepare the data set again.") from None
    store = Store(
        path=path,
        address=str(path),
        content_hash=content_hash,
        skeleton=skeleton,
        source=source,
        description=description,
        sequences=sequences,
        keypoints=arrays["keypoints"],
        confidence=arrays["confidence"],
        valid=valid,
        poses_if_any=arrays.get("poses"),
    )
    if verify:
        verify_store(store)
    return store


def _rows(file: Path) -> list[dict[str, Any]]:
    table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    table.validate(full=True)  # or damaged texts are looked for beyond the end of the file, which ends the process
    table = table.cast(SEQUENCE_SCHEMA)
    empty = [name for name in table.column_names if table[name].null_count]
    if empty:
        raise TypeError(f"{file.name} has empty values in the columns {', '.join(empty)}")
    return table.to_pylist()


def _in_place(values: pa.Array, kind: pa.DataType, dtype: np.dtype) -> np.ndarray:
    """The mapped values themselves. Arrow's own `to_numpy` imports pandas first, which takes half a second."""
    if values.type != kind or values.null_count:
        raise TypeError(f"a column holds {values.type} with {values.null_count} empty values, expected {kind}")
    return np.frombuffer(values.buffers()[1], dtype=dtype, count=len(values), offset=values.offset * dtype.itemsize)


def verify_store(store: Store) -> None:
    """Recompute every digest. Raises ValueError naming the first damaged sequence."""
    again = "The files changed after they were prepared: prepare the data set again."
    for sequence in store.sequences:
        rows = slice(sequence.offset, sequence.offset + sequence.frames)
        found = sequence_digest(array[rows] for array in store.columns)
        if found != sequence.sha256:
            raise ValueError(
                f"store {store.path}: the hash of sequence {sequence.name} does not match its frames "
                f"(recorded {sequence.sha256[:12]}, found {found[:12]}). {again}"
            )
    rows_plain = [asdict(sequence) for sequence in store.sequences]
    found = content_hash_of(store.description, rows_plain)
    if found != store.content_hash:
        raise ValueError(
            f"store {store.path}: the content hash does not match (recorded {store.content_hash[:12]}, "
            f"found {found[:12]}). {again}"
        )
