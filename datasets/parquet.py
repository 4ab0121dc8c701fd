"""A store as Parquet files, for people who look at data with other tools, and what a reader of them checks.

A folder with
- `frames.parquet`: a row a frame, one row group a sequence: subject, action, recording, camera, frame (0, 1, ...),
  time_s, valid, then for each joint NAME_x, NAME_y (normalised screen), NAME_confidence and, where there is 3D,
  NAME_X_m, NAME_Y_m, NAME_Z_m (metres, camera frame). No two names differ by case alone: many tools would take them
  for one.
- `sequences.parquet`: the sequence table of the store. Sequences lie in the frame table in its order.
- `store.json`: the store's description, with source, settings, protocol and content hash.

The source `parquet` reads such a folder back. Legend: F frames, J joints.
"""

import json
import os
import shutil
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from posegrid.datasets.schema import SEQUENCE_SCHEMA, CameraSequence
from posegrid.datasets.skeletons import Skeleton
from posegrid.datasets.store import DESCRIPTION, Sequence, Store

FRAMES, SEQUENCES = "frames.parquet", "sequences.parquet"
KEYS = ("subject", "action", "recording", "camera")
_PARTS = {"keypoints": ("_x", "_y"), "confidence": ("_confidence",), "poses": ("_X_m", "_Y_m", "_Z_m")}
"""What stands after the joint in the column names of each array."""
_AGAIN = "Export the store again, or correct the file."


def joint_columns(skeleton: Skeleton, array: str) -> list[str]:
    """Names of the columns of "keypoints", "confidence" or "poses", in the order of the array's values."""
    return [joint + part for joint in skeleton.joints for part in _PARTS[array]]


def export(store: Store, folder: Path) -> None:
    """Write a store as Parquet into a new folder; memory stays bounded by the longest sequence.

    Raises ValueError if the folder exists or cannot be written.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists, so nothing is exported there. Choose a new folder, or remove it.")
    aside = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        schema = _frame_schema(store)
        with pq.ParquetWriter(aside / FRAMES, schema, compression="zstd", write_page_checksum=True) as writer:
            for sequence in store.sequences:
                writer.write_table(_frame_table(store, sequence, schema), row_group_size=sequence.frames)
        rows = [asdict(sequence) for sequence in store.sequences]
        pq.write_table(
            pa.Table.from_pylist(rows, SEQUENCE_SCHEMA), aside / SEQUENCES, compression="zstd", write_page_checksum=True
        )
        shutil.copyfile(store.path / DESCRIPTION, aside / DESCRIPTION)
        aside.rename(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise ValueError(
            f"{folder} cannot be written ({error}). Make room or choose another folder, then repeat the command."
        ) from None
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _frame_schema(store: Store) -> pa.Schema:
    fields = [pa.field(name, pa.string()) for name in KEYS]
    fields += [pa.field("frame", pa.int32()), pa.field("time_s", pa.float64()), pa.field("valid", pa.bool_())]
    for array in _arrays(store.poses_if_any is not None):
        fields += [pa.field(name, pa.float32()) for name in joint_columns(store.skeleton, array)]
    return pa.schema(fields)


def _frame_table(store: Store, sequence: Sequence, schema: pa.Schema) -> pa.Table:
    rows, frame = slice(sequence.offset, sequence.offset + sequence.frames), np.arange(sequence.frames, dtype=np.int32)
    columns = [pa.repeat(getattr(sequence, name), sequence.frames) for name in KEYS]
    columns += [pa.array(frame), pa.array(frame / sequence.frame_rate), pa.array(store.valid[rows])]
    for array in _arrays(store.poses_if_any is not None):
        # one contiguous row for each column of the table
        values = np.ascontiguousarray(getattr(store, array)[rows].reshape(sequence.frames, -1).T)
        columns += [pa.array(row) for row in values]
    return pa.Table.from_arrays(columns, schema=schema)


def _arrays(poses: bool) -> tuple[str, ...]:
    return ("keypoints", "confidence", "poses") if poses else ("keypoints", "confidence")


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def read_json(file: Path) -> dict[str, Any]:
    """The description of an export. Raises ValueError if it is damaged or lacks something."""
    try:
        description = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read ({error}). {_AGAIN}") from None
    wanted = {"source": str, "source_config": dict, "skeleton": str, "poses": bool, "protocol": dict}
    wanted["content_hash"] = str
    for key, kind in wanted.items():
        if not isinstance(description, dict) or not isinstance(description.get(key), kind):
            raise ValueError(f'{file} lacks "{key}" (expected {kind.__name__}). {_AGAIN}')
    return description


def read_sequences(file: Path) -> list[dict[str, Any]]:
    """The rows of a sequence table in order, with `offset` counted anew. Raises ValueError if it is damaged, lacks a
    column or a value, or repeats a name."""
    table = _table(_opened(file, _stamp(file)), file, None)
    _check_columns(file, table.schema, SEQUENCE_SCHEMA.names)
    table = table.select(SEQUENCE_SCHEMA.names)
    empty = [name for name in table.column_names if table[name].null_count]
    if empty or not len(table):
        raise ValueError(f"{file} has no rows, or empty values in the columns {', '.join(empty) or 'all'}. {_AGAIN}")
    try:
        rows = table.cast(SEQUENCE_SCHEMA).to_pylist()
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{file} has a column of another type ({error}). {_AGAIN}") from None
    seen: set[str] = set()
    total = 0
    for row in rows:
        name = sequence_name(row)
        if name in seen or row["frames"] < 1 or not 0 < row["frame_rate"] < float("inf"):
            raise ValueError(
                f"{file}: sequence {name} occurs twice, or has {row['frames']} frames at {row['frame_rate']} per "
                f"second; expected unique names, at least one frame and a positive rate. {_AGAIN}"
            )
        seen.add(name)
        row["offset"], total = total, total + row["frames"]
    return rows


def sequence_name(row: dict[str, Any]) -> str:
    """subject/recording/camera."""
    return f"{row['subject']}/{row['recording']}/{row['camera']}"


def check_frames(file: Path, rows: list[dict[str, Any]], skeleton: Skeleton, *, poses: bool) -> None:
    """Compare columns, types and number of rows of a frame table with what is expected, without reading it."""
    opened = _opened(file, _stamp(file))
    schema, found = opened.schema_arrow, opened.metadata.num_rows
    numbers = [name for array in _arrays(poses) for name in joint_columns(skeleton, array)]
    _check_columns(file, schema, [*KEYS, "frame", "valid", *numbers])
    kinds = {name: (pa.types.is_floating, "decimal numbers") for name in numbers}
    kinds |= {"frame": (pa.types.is_integer, "whole numbers"), "valid": (pa.types.is_boolean, "true or false")}
    for name, (is_kind, kind) in kinds.items():
        if not is_kind(schema.field(name).type):
            raise ValueError(f"{file}: column {name} is {schema.field(name).type}, expected {kind}. {_AGAIN}")
    expected = sum(row["frames"] for row in rows)
    if found != expected:
        raise ValueError(
            f"{file} has {found} rows, but its {SEQUENCES} tells {expected} frames. Set `frames` of the sequences that "
            "were cut to their number of rows, or export the store again."
        )


def read_frames(file: Path, row: dict[str, Any], skeleton: Skeleton, *, poses: bool) -> CameraSequence:
    """One sequence of a frame table. Raises ValueError if its rows are not where its row of the sequence table tells,
    frames are out of order, or a value is empty or not finite."""
    name = sequence_name(row)
    table = _rows(file, row["offset"], row["frames"])
    _check_keys(file, table, row)
    frame = _numbers(file, table, ["frame"], name)[0]
    wrong = np.flatnonzero(frame != np.arange(row["frames"]))
    if len(wrong):
        raise ValueError(
            f"{file}: frames of {name} are out of order: row {row['offset'] + wrong[0]} holds frame {frame[wrong[0]]}, "
            f"expected {wrong[0]}. Sort the rows by sequence and frame, and number frames from 0 without gaps."
        )
    arrays = {
        array: _numbers(file, table, joint_columns(skeleton, array), name).T.astype(np.float32)
        for array in _arrays(poses)
    }
    frames, joints = row["frames"], len(skeleton)
    try:
        return CameraSequence(
            subject=row["subject"],
            action=row["action"],
            recording=row["recording"],
            camera=row["camera"],
            frame_rate=row["frame_rate"],
            width=row["width"],
            height=row["height"],
            keypoints=np.ascontiguousarray(arrays["keypoints"]).reshape(frames, joints, 2),
            confidence=np.ascontiguousarray(arrays["confidence"]),
            poses=np.ascontiguousarray(arrays["poses"]).reshape(frames, joints, 3) if poses else None,
            valid=_numbers(file, table, ["valid"], name)[0].astype(np.bool_),
            camera_parameters=_json(file, row, "camera_parameters"),
            images=_json(file, row, "images"),
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _check_keys(file: Path, table: pa.Table, row: dict[str, Any]) -> None:
    for key in KEYS:
        column = table[key].cast(pa.string())
        if pc.all(pc.equal(column, row[key]), skip_nulls=False).as_py() is not True:
            wrong = next(index for index, value in enumerate(column.to_pylist()) if value != row[key])
            raise ValueError(
                f"{file}: row {row['offset'] + wrong} has {key} {column[wrong].as_py()!r}, expected {row[key]!r} of "
                f"sequence {sequence_name(row)}. Sequences must lie in the order of {SEQUENCES}, each in one piece."
            )


def _numbers(file: Path, table: pa.Table, columns: list[str], name: str) -> np.ndarray:
    """(columns, F) values. Raises ValueError if one is empty: what is not known is not a number."""
    for column in columns:
        if table[column].null_count:
            raise ValueError(
                f"{file}: column {column} has {table[column].null_count} empty values in sequence {name}. "
                "Every value must be there: mark frames that do not count in the column valid."
            )
    return np.stack([table[column].to_numpy() for column in columns])


def _json(file: Path, row: dict[str, Any], key: str) -> dict[str, Any]:
    try:
        value = json.loads(row[key])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(
            f"{file.with_name(SEQUENCES)}: {key} of {sequence_name(row)} is no JSON object: {row[key]!r}. {_AGAIN}"
        )
    return value


def _check_columns(file: Path, schema: pa.Schema, wanted: list[str]) -> None:
    missing = [name for name in wanted if schema.names.count(name) != 1]
    if missing:
        raise ValueError(
            f"{file} lacks {len(missing)} columns, or has them twice: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. {_AGAIN}"
        )


def _rows(file: Path, first: int, count: int) -> pa.Table:
    """Rows of a table. Row groups need not be those of the export: other tools write their own."""
    stamp = _stamp(file)
    ends = _row_group_ends(file, stamp)
    one, last = np.searchsorted(ends, [first, first + count - 1], side="right")
    groups = [_row_group(file, stamp, int(index)) for index in range(one, last + 1)]
    begin = 0 if one == 0 else int(ends[one - 1])
    return pa.concat_tables(groups).slice(first - begin, count)


@lru_cache(maxsize=4)
def _row_group_ends(file: Path, stamp: int) -> np.ndarray:
    metadata = _opened(file, stamp).metadata
    return np.cumsum([metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)])


@lru_cache(maxsize=2)
def _row_group(file: Path, stamp: int, index: int) -> pa.Table:
    """A row group, kept per process: tools that write large ones put several sequences into each."""
    return _table(_opened(file, stamp), file, index)


def _table(opened: pq.ParquetFile, file: Path, row_group: int | None) -> pa.Table:
    try:
        table = opened.read() if row_group is None else opened.read_row_group(row_group)
        table.validate(full=True)  # damaged text would otherwise be noticed late
        return table
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from None


def _stamp(file: Path) -> int:
    return file.stat().st_mtime_ns


@lru_cache(maxsize=2)
def _opened(file: Path, stamp: int) -> pq.ParquetFile:
    """An open file, kept per process: the description of thousands of column chunks takes long to read."""
    try:
        return pq.ParquetFile(file, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file} is no readable Parquet file ({error}). {_AGAIN}")
