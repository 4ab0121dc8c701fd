"""Writes stores: beside the target, then renamed, so that a store appears whole or not at all.

What lies beside the target `NAME` while it is made: `.NAME.lock` (held by the one process that writes),
`.NAME.work-FINGERPRINT` (parts of a preparation, see `prepare`), `.NAME.partial-PID` (a store that is being written),
`.NAME.old-PID` (the store that is being replaced). All of it is gone when a preparation has finished.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from posegrid.datasets.checks.anatomy import check_sequence
from posegrid.datasets.parts import Piece, piece_of
from posegrid.datasets.schema import SCHEMA_VERSION, SEQUENCE_SCHEMA, CameraSequence, Protocol, frame_schema
from posegrid.datasets.skeletons import Skeleton
from posegrid.datasets.store import (
    DESCRIPTION,
    FRAMES,
    SEQUENCES,
    Store,
    content_hash_of,
    left_by_a_kill,
    open_store,
    read_description,
)


def write_store(
    target: Path,
    sequences: Iterable[CameraSequence],
    *,
    source: str,
    source_config: dict[str, Any],
    skeleton: Skeleton,
    protocol: Protocol,
) -> Store:
    """Write a store and open it: `write_pieces` for sequences, with the target locked.

    Sequences are consumed one at a time: memory stays bounded by the longest of them. Raises ValueError as
    `write_pieces` and `anatomy.check_sequence` do.
    """
    with locked(target):
        return write_pieces(
            target,
            (_checked(sequence, skeleton) for sequence in sequences),
            aside=target.with_name(f".{target.name}.partial-{os.getpid()}"),
            source=source,
            source_config=source_config,
            skeleton=skeleton,
            protocol=protocol,
        )


def _checked(sequence: CameraSequence, skeleton: Skeleton) -> Piece:
    check_sequence(sequence, skeleton)
    return piece_of(sequence)


def write_pieces(
    target: Path,
    pieces: Iterable[Piece],
    *,
    aside: Path,
    source: str,
    source_config: dict[str, Any],
    skeleton: Skeleton,
    protocol: Protocol,
) -> Store:
    """Write a store into the folder `aside`, rename it to `target` and open it. The caller holds the lock.

    Excluded recordings are skipped. An existing store at `target` is replaced only after the new one is complete.
    Raises ValueError if a sequence name repeats, some sequences have poses and others not, their joints are not the
    skeleton's, a recording that trains has frames that are not valid, nothing was given, or the disk refuses.
    """
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        rows: list[dict[str, Any]] = []
        names: set[str] = set()
        with ExitStack() as stack:
            streams: dict[str, BinaryIO] = {}
            for piece in pieces:
                if protocol.excludes(piece.row["subject"], piece.row["recording"]):
                    continue
                if not streams:
                    streams = {name: stack.enter_context((aside / f"{name}.raw").open("wb")) for name in piece.columns}
                split = protocol.split_of(piece.row["subject"], piece.row["recording"])
                _check_fits(piece, split, names, set(streams), source, skeleton)
                names.add(piece.name)
                offset = rows[-1]["offset"] + rows[-1]["frames"] if rows else 0
                rows.append({**piece.row, "split": split, "offset": offset})
                for name, array in piece.columns.items():
                    streams[name].write(array.reshape(-1).data)
        if not rows:
            raise ValueError(f"source {source} gave no frames (its settings: {source_config}); nothing to store.")
        description = {
            "schema_version": SCHEMA_VERSION,
            "source": source,
            "source_config": source_config,
            "skeleton": skeleton.name,
            "flip": {"left": skeleton.left, "right": skeleton.right},
            "poses": "poses" in streams,
            "pose_unit": "metre",
            "pose_frame": "camera",
            "keypoint_unit": "normalised screen",
            "frames": rows[-1]["offset"] + rows[-1]["frames"],
            "protocol": asdict(protocol),
        }
        _write_tables(aside, frame_schema(skeleton, poses="poses" in streams), rows)
        # a round trip through JSON makes tuples lists, so that what is hashed is what will be read
        description = json.loads(json.dumps(description))
        description["content_hash"] = content_hash_of(description, rows)
        (aside / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
        _replace(aside, target)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise ValueError(
            f"the store {target} cannot be written ({error}). Make room or choose another folder, then repeat the "
            "command."
        ) from None
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return open_store(target, verify=False)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Be the only one who writes `target`; first put back a store whose replacement was killed.

    Raises ValueError if another process writes it, or if `target` exists and is no store.
    """
    file = target.with_name(f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another process is preparing {target} (it holds {file}). Wait until it has finished, or choose another "
            "folder."
        ) from None
    except OSError as error:
        raise ValueError(f"{target} cannot be written ({error}). Choose another folder.") from None
    try:
        _heal(target)
        _refuse_unless_store(target)
        yield
    finally:
        remove_leftovers(target, parts=False)
        file.unlink(missing_ok=True)  # while it is held: whoever waits for it notices that its file is gone
        lock.release()


def remove_leftovers(target: Path, *, parts: bool = True) -> None:
    """Remove what preparations of `target` left beside it; the caller holds the lock.

    parts: also work folders that hold parts, which another attempt might use.
    """
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(work-[0-9a-f]+|partial-\d+|old-\d+)")
    for entry in target.parent.iterdir():
        found = pattern.fullmatch(entry.name)
        if not found or (found[1].startswith("old") and not target.exists()):
            continue
        if parts or not any(entry.glob("parts/*.part")):
            shutil.rmtree(entry, ignore_errors=True)


def _check_fits(piece: Piece, split: str, names: set[str], columns: set[str], source: str, skeleton: Skeleton) -> None:
    """Refuse a sequence that cannot stand beside those already written."""
    if piece.name in names:
        raise ValueError(
            f"sequence {piece.name} occurs twice in source {source}; names must be unique. "
            "Remove the duplicate recording from the raw files."
        )
    if set(piece.columns) != columns:
        raise ValueError(
            f"sequence {piece.name} of source {source} {'has' if 'poses' in piece.columns else 'lacks'} 3D poses, "
            "unlike those before it. A store holds either: prepare them as two data sets."
        )
    joints = piece.columns["keypoints"].shape[1]
    if joints != len(skeleton):
        raise ValueError(
            f"sequence {piece.name} of source {source} has {joints} joints, but its skeleton {skeleton.name} has "
            f"{len(skeleton)}. The reader of this data set is at fault, or its files have another layout."
        )
    if split in ("train", "held_out") and not piece.columns["valid"].all():
        raise ValueError(
            f"sequence {piece.name} of source {source} is in the split {split} but has frames that are not valid; "
            "only test and unused recordings may. Leave it in the test split, or let its reader cut it into runs of "
            "valid frames."
        )


def _write_tables(folder: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    columns = []
    for field in schema:
        lists = pa.types.is_fixed_size_list(field.type)
        values = pa.array(np.memmap(folder / f"{field.name}.raw", dtype="<f4" if lists else np.uint8, mode="r"))
        columns.append(pa.FixedSizeListArray.from_arrays(values, field.type.list_size) if lists else values)
    with pa.OSFile(str(folder / FRAMES), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    del columns
    with pa.OSFile(str(folder / SEQUENCES), "wb") as sink, pa.ipc.new_file(sink, SEQUENCE_SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=SEQUENCE_SCHEMA))
    for field in schema:
        (folder / f"{field.name}.raw").unlink()


def _heal(target: Path) -> None:
    """Put back the store that a killed replacement had moved away (see `_replace`)."""
    old = left_by_a_kill(target)
    if old:
        os.rename(old, target)


def _refuse_unless_store(target: Path) -> None:
    if target.exists() and not (target / DESCRIPTION).exists():
        raise ValueError(f"{target} exists and is no store, so it is not replaced. Choose another folder or remove it.")


def _replace(aside: Path, target: Path) -> None:
    """Put a finished folder in place of another one; the old one goes only when the new one stands.

    A kill between the two renames leaves no target but `.NAME.old-PID`: the next `locked` puts it back, and
    `open_store` says how to.
    """
    _refuse_unless_store(target)
    if not target.exists():
        os.rename(aside, target)
        return
    if _same_content(aside, target):
        shutil.rmtree(aside)  # somebody may be reading the one that stands
        return
    old, gone = (target.with_name(f".{target.name}.{what}-{os.getpid()}") for what in ("old", "partial"))
    for folder in {old, gone} - {aside}:
        shutil.rmtree(folder, ignore_errors=True)
    os.rename(target, old)
    os.rename(aside, target)
    os.rename(old, gone)  # what is called old is always whole
    shutil.rmtree(gone)


def _same_content(aside: Path, target: Path) -> bool:
    """True if the store that stands has the hash of the new one and is undamaged."""
    try:
        return open_store(target).content_hash == read_description(aside)["content_hash"]
    except ValueError:
        return False
