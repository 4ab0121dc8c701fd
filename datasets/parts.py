"""Part files: what was read of one recording, kept until the store is put together.

A part is one file: a line with the sha256 and the length of a JSON header, the header (one row a sequence, with the
sha256 of the sequence's bytes), then the columns of each sequence, raw and in order. So a part tells by itself whether
it is whole, and which bytes a store takes from it. Legend: F frames, J joints.
"""

import hashlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posegrid.datasets.schema import CameraSequence
from posegrid.datasets.store import sequence_digest

_DTYPES = {"keypoints": "<f4", "confidence": "<f4", "valid": "u1", "poses": "<f4"}
_WIDTHS: dict[str, tuple[int, ...]] = {"keypoints": (2,), "confidence": (), "poses": (3,)}
_LENGTH_DIGITS = 12
_PREFIX = 64 + 1 + _LENGTH_DIGITS + 1
"""Bytes of the first line: digest, blank, length of the header, newline."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A sequence as it is written: its row of the sequence table (without split and offset) and its columns."""

    row: dict[str, Any]
    columns: dict[str, np.ndarray]
    """keypoints (F, J, 2), confidence (F, J), valid (F,) uint8 and, if there are any, poses (F, J, 3), in the order in
    which they are hashed; floats are little-endian float32."""

    @property
    def name(self) -> str:
        """Unique name within a store: subject/recording/camera."""
        return f"{self.row['subject']}/{self.row['recording']}/{self.row['camera']}"


def piece_of(sequence: CameraSequence) -> Piece:
    """What a store keeps of a sequence; hashes its bytes. Raises ValueError if it has no frames."""
    frames = len(sequence.keypoints)
    if not frames:
        raise ValueError(f"sequence {sequence.name} has no frames. Leave this recording out of the raw files.")
    valid = np.ones(frames, dtype=np.bool_) if sequence.valid is None else sequence.valid
    columns = {
        "keypoints": np.ascontiguousarray(sequence.keypoints, dtype="<f4"),
        "confidence": np.ascontiguousarray(sequence.confidence, dtype="<f4"),
        "valid": np.ascontiguousarray(valid).view(np.uint8),
    }
    if sequence.poses is not None:
        columns["poses"] = np.ascontiguousarray(sequence.poses, dtype="<f4")
    row = {
        "subject": sequence.subject,
        "action": sequence.action,
        "recording": sequence.recording,
        "camera": sequence.camera,
        "frames": frames,
        "frame_rate": float(sequence.frame_rate),
        "width": int(sequence.width),
        "height": int(sequence.height),
        "camera_parameters": json.dumps(sequence.camera_parameters, sort_keys=True),
        "images": json.dumps(sequence.images, sort_keys=True),
        "sha256": sequence_digest(columns.values()),
    }
    return Piece(row=row, columns=columns)


def encoded(key: str, pieces: Sequence[Piece]) -> list[Any]:
    """The buffers of a part file in order; `key` says which recording it is."""
    sequences = [
        {"row": piece.row, "joints": piece.columns["keypoints"].shape[1], "columns": list(piece.columns)}
        for piece in pieces
    ]
    header = json.dumps({"key": key, "sequences": sequences}, sort_keys=True).encode()
    first = f"{hashlib.sha256(header).hexdigest()} {len(header):0{_LENGTH_DIGITS}d}\n".encode()
    return [first + header, *(array.reshape(-1).data for piece in pieces for array in piece.columns.values())]


def write_part(file: Path, buffers: Sequence[Any]) -> None:
    """Write beside `file`, then rename: a part exists whole or not at all. Raises ValueError if the disk refuses."""
    aside = file.with_name(f"{file.name}.{socket.gethostname()}-{os.getpid()}")
    try:
        with aside.open("wb") as stream:
            for buffer in buffers:
                stream.write(buffer)
        os.replace(aside, file)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ValueError(
            f"{file} cannot be written ({error}); preparing needs room for three times the frames of the store beside "
            "it. Make room or choose another --out, then repeat the command: finished recordings are kept."
        ) from None


def read_part(file: Path, key: str, *, verify: bool) -> list[Piece] | None:
    """The sequences of a part, mapped from the file; None if it is absent, damaged or of another recording.

    `verify` hashes the frames too; the header and the file's length are always checked.
    """
    try:
        content = np.memmap(file, dtype=np.uint8, mode="r")
        pieces = _decoded(content, key)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # if so, it is read again
        return None
    if verify and any(sequence_digest(piece.columns.values()) != piece.row["sha256"] for piece in pieces):
        return None
    return pieces


def _decoded(content: np.ndarray, key: str) -> list[Piece]:
    """Raises ValueError, KeyError, TypeError or AttributeError for anything but a whole part of that recording."""
    digest, length = bytes(content[:_PREFIX]).decode("ascii").split()
    start = _PREFIX + int(length)
    text = bytes(content[_PREFIX:start])
    if hashlib.sha256(text).hexdigest() != digest:
        raise ValueError("damaged header")
    header = json.loads(text)
    if header["key"] != key:
        raise ValueError("part of another recording")
    pieces = []
    for found in header["sequences"]:
        frames, columns = found["row"]["frames"], {}
        for name in found["columns"]:
            shape = (frames,) if name == "valid" else (frames, found["joints"], *_WIDTHS[name])
            dtype = np.dtype(_DTYPES[name])
            size = int(np.prod(shape)) * dtype.itemsize
            columns[name] = np.frombuffer(content[start : start + size], dtype=dtype).reshape(shape)
            start += size
        pieces.append(Piece(row=found["row"], columns=columns))
    if start != len(content):
        raise ValueError("cut or too long")
    return pieces
