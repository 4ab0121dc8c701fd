"""Writes stores: beside the target, then renamed, so that a store appears whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from posegrid.datasets.schema import SCHEMA_VERSION, SEQUENCE_SCHEMA, CameraSequence, Protocol, frame_schema
from posegrid.datasets.skeletons import Skeleton
from posegrid.datasets.store import (
    DESCRIPTION,
    FRAMES,
    SEQUENCES,
    Store,
    content_hash_of,
    open_store,
    read_description,
    sequence_digest,
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
    """Write a store and open it.

    Sequences are consumed one at a time: memory stays bounded by the longest of them. Excluded recordings are skipped.
    An existing store at `target` is replaced only after the new one is complete.
    Raises ValueError if a sequence name repeats, some sequences have poses and others not, a recording that trains has
    frames that are not valid, or nothing was given.
    """
    aside = target.with_name(f".{target.name}.partial-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        rows: list[dict[str, Any]] = []
        names: set[str] = set()
        with ExitStack() as stack:
            streams: dict[str, BinaryIO] = {}
            for sequence in sequences:
                if f"{sequence.subject}/{sequence.recording}" in protocol.excluded:
                    continue
                columns = _columns(sequence)
                if not streams:
                    streams = {name: stack.enter_context((aside / f"{name}.raw").open("wb")) for name in columns}
                row = _row(sequence, protocol.split_of(sequence.subject, sequence.recording), columns)
                _check_fits(row, sequence.name, names, columns, streams, source)
                names.add(sequence.name)
                row["offset"] = rows[-1]["offset"] + rows[-1]["frames"] if rows else 0
                rows.append(row)
                for name, array in columns.items():
                    streams[name].write(array.data)
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
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return open_store(target, verify=False)


def _columns(sequence: CameraSequence) -> dict[str, np.ndarray]:
    """What is written and hashed, in this order."""
    frames = len(sequence.keypoints)
    valid = np.ones(frames, dtype=np.bool_) if sequence.valid is None else sequence.valid
    columns = {
        "keypoints": np.ascontiguousarray(sequence.keypoints, dtype="<f4"),
        "confidence": np.ascontiguousarray(sequence.confidence, dtype="<f4"),
        "valid": np.ascontiguousarray(valid).view(np.uint8),
    }
    if sequence.poses is not None:
        columns["poses"] = np.ascontiguousarray(sequence.poses, dtype="<f4")
    return columns


def _row(sequence: CameraSequence, split: str, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        "subject": sequence.subject,
        "action": sequence.action,
        "recording": sequence.recording,
        "camera": sequence.camera,
        "split": split,
        "frames": len(sequence.keypoints),
        "frame_rate": float(sequence.frame_rate),
        "width": int(sequence.width),
        "height": int(sequence.height),
        "camera_parameters": json.dumps(sequence.camera_parameters, sort_keys=True),
        "images": json.dumps(sequence.images, sort_keys=True),
        "sha256": sequence_digest(columns.values()),
    }


def _check_fits(
    row: dict[str, Any],
    name: str,
    names: set[str],
    columns: dict[str, np.ndarray],
    streams: dict[str, BinaryIO],
    source: str,
) -> None:
    """Refuse a sequence that cannot stand beside those already written."""
    if name in names:
        raise ValueError(
            f"sequence {name} occurs twice in source {source}; names must be unique. "
            "Remove the duplicate recording from the raw files."
        )
    if set(columns) != set(streams):
        raise ValueError(
            f"sequence {name} of source {source} {'has' if 'poses' in columns else 'lacks'} 3D poses, unlike those "
            "before it. A store holds either: prepare them as two data sets."
        )
    if row["split"] in ("train", "held_out") and not columns["valid"].all():
        raise ValueError(
            f"sequence {name} of source {source} is in the split {row['split']} but has frames that are not valid; "
            "only test recordings may. Its reader must cut it into runs of valid frames."
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
