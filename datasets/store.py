"""The Arrow store: one memory-mapped table of frames, one table of sequences, one JSON description.

A store is a folder that appears whole or not at all: it is written beside its target and renamed. Frames lie in one
uncompressed record batch, so that every column is one contiguous array which is read in place (no copy, pages shared
by all processes of a machine). Legend: F frames of the store, J joints.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from posegrid.datasets.schema import SCHEMA_VERSION, SEQUENCE_SCHEMA, CameraSequence, Protocol, frame_schema
from posegrid.datasets.skeletons import Skeleton, skeleton_named

FRAMES, SEQUENCES, DESCRIPTION = "frames.arrow", "sequences.arrow", "store.json"
_COLUMNS = ("keypoints", "confidence", "poses")


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
    poses: np.ndarray = field(repr=False)
    """(F, J, 3) float32 metres, camera frame, absolute."""

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


def _sequence_digest(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype="<f4").data)
    return digest.hexdigest()


def _content_hash(description: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Hash over canonical text; the frame bytes enter through the digest of each sequence."""
    core = {key: value for key, value in description.items() if key != "content_hash"}
    text = json.dumps([core, rows], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_store(
    target: Path,
    sequences: Iterable[CameraSequence],
    *,
    source: str,
    source_config: dict[str, Any],
    skeleton: Skeleton,
    protocol: Protocol,
) -> Store:
    """Write a store and open it.

    Sequences are consumed one at a time: memory stays bounded by the longest of them. Excluded recordings are skipped.
    An existing store at `target` is replaced only after the new one is complete.
    Raises ValueError if a sequence name repeats or nothing was given.
    """
    aside = target.with_name(f".{target.name}.partial-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        rows: list[dict[str, Any]] = []
        names: set[str] = set()
        offset = 0
        raw = {column: (aside / f"{column}.raw").open("wb") for column in _COLUMNS}
        try:
            for sequence in sequences:
                split = protocol.split_of(sequence.subject, sequence.recording)
                if f"{sequence.subject}/{sequence.recording}" in protocol.excluded:
                    continue
                if sequence.name in names:
                    raise ValueError(
                        f"sequence {sequence.name} occurs twice in source {source}; names must be unique. "
                        "Remove the duplicate recording from the raw files."
                    )
                names.add(sequence.name)
                arrays = [np.ascontiguousarray(getattr(sequence, column), dtype="<f4") for column in _COLUMNS]
                for column, array in zip(_COLUMNS, arrays, strict=True):
                    raw[column].write(array.data)
                rows.append(
                    {
                        "subject": sequence.subject,
                        "action": sequence.action,
                        "recording": sequence.recording,
                        "camera": sequence.camera,
                        "split": split,
                        "offset": offset,
                        "frames": len(sequence.poses),
                        "frame_rate": float(sequence.frame_rate),
                        "width": int(sequence.width),
                        "height": int(sequence.height),
                        "camera_parameters": json.dumps(sequence.camera_parameters, sort_keys=True),
                        "sha256": _sequence_digest(arrays),
                    }
                )
                offset += len(sequence.poses)
        finally:
            for stream in raw.values():
                stream.close()
        if not offset:
            raise ValueError(f"source {source} gave no frames (its settings: {source_config}); nothing to store.")
        description = {
            "schema_version": SCHEMA_VERSION,
            "source": source,
            "source_config": source_config,
            "skeleton": skeleton.name,
            "pose_unit": "metre",
            "pose_frame": "camera",
            "keypoint_unit": "normalised screen",
            "frames": offset,
            "protocol": asdict(protocol),
        }
        _write_tables(aside, frame_schema(skeleton), rows, offset)
        # a round trip through JSON makes tuples lists, so that what is hashed is what will be read
        description = json.loads(json.dumps(description))
        description["content_hash"] = _content_hash(description, rows)
        (aside / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
        _replace(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return open_store(target, verify=False)


def _write_tables(folder: Path, schema: pa.Schema, rows: list[dict[str, Any]], frames: int) -> None:
    columns = []
    for index, column in enumerate(_COLUMNS):
        values = np.memmap(folder / f"{column}.raw", dtype="<f4", mode="r")
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values), schema.field(index).type.list_size))
    with pa.OSFile(str(folder / FRAMES), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    assert all(len(column) == frames for column in columns)
    del columns
    with pa.OSFile(str(folder / SEQUENCES), "wb") as sink, pa.ipc.new_file(sink, SEQUENCE_SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=SEQUENCE_SCHEMA))
    for column in _COLUMNS:
        (folder / f"{column}.raw").unlink()


def _replace(aside: Path, target: Path) -> None:
    """Put a finished folder in place of another one; the old one goes only when the new one stands."""
    if not target.exists():
        os.rename(aside, target)
        return
    if (target / DESCRIPTION).exists() and _same_content(aside, target):
        shutil.rmtree(aside)  # somebody may be reading the one that stands
        return
    if not (target / DESCRIPTION).exists():
        raise ValueError(f"{target} exists and is no store, so it is not replaced. Choose another folder or remove it.")
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    os.rename(target, old)
    os.rename(aside, target)
    shutil.rmtree(old)


def _same_content(aside: Path, target: Path) -> bool:
    """True if the store that stands has the hash of the new one and is undamaged."""
    try:
        return open_store(target).content_hash == read_description(aside)["content_hash"]
    except ValueError:
        return False


def read_description(path: Path) -> dict[str, Any]:
    """The JSON description of a store. Raises ValueError if it is absent, unreadable or of another version."""
    file = path / DESCRIPTION
    if not file.is_file():
        raise ValueError(
            f"no data store at {path} ({DESCRIPTION} is missing). "
            "Make one with `posegrid prepare SOURCE --out FOLDER` and pass that folder with --data."
        )
    try:
        description = json.loads(file.read_text())
        version = description["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error}). Prepare the data set again.") from None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"store {path} has schema version {version}, this posegrid reads {SCHEMA_VERSION}. Prepare it again."
        )
    return description


def open_store(path: Path, *, verify: bool = True) -> Store:
    """Open a store memory-mapped.

    `verify` recomputes the content hash from every byte (about a second per gigabyte); commands do it once before any
    work starts, workers compare the recorded hash instead.
    Raises ValueError if files are missing, cut, of another version, or if the hash does not match.
    """
    path = Path(path).resolve()
    description = read_description(path)
    try:
        content_hash, source = str(description["content_hash"]), str(description["source"])
        table = pa.ipc.open_file(pa.memory_map(str(path / FRAMES))).read_all()
        rows = pa.ipc.open_file(pa.memory_map(str(path / SEQUENCES))).read_all().to_pylist()
        skeleton = skeleton_named(description["skeleton"])
        arrays = {
            column: table[column].chunk(0).flatten().to_numpy(zero_copy_only=True).reshape(-1, len(skeleton), *shape)
            for column, shape in (("keypoints", (2,)), ("confidence", ()), ("poses", (3,)))
        }
        sequences = tuple(Sequence(**row) for row in rows)
    except (OSError, pa.ArrowException, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"store {path} cannot be read ({error}). Prepare the data set again.") from None
    store = Store(
        path=path,
        content_hash=content_hash,
        skeleton=skeleton,
        source=source,
        description=description,
        sequences=sequences,
        **arrays,
    )
    if verify:
        verify_store(store)
    return store


def verify_store(store: Store) -> None:
    """Recompute every digest. Raises ValueError naming the first damaged sequence."""
    again = "The files changed after they were prepared: prepare the data set again."
    for sequence in store.sequences:
        rows = slice(sequence.offset, sequence.offset + sequence.frames)
        found = _sequence_digest(getattr(store, column)[rows] for column in _COLUMNS)
        if found != sequence.sha256:
            raise ValueError(
                f"store {store.path}: the hash of sequence {sequence.name} does not match its frames "
                f"(recorded {sequence.sha256[:12]}, found {found[:12]}). {again}"
            )
    rows_plain = [asdict(sequence) for sequence in store.sequences]
    found = _content_hash(store.description, rows_plain)
    if found != store.content_hash:
        raise ValueError(
            f"store {store.path}: the content hash does not match (recorded {store.content_hash[:12]}, "
            f"found {found[:12]}). {again}"
        )
