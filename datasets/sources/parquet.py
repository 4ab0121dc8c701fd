"""Stores that were exported as Parquet (`posegrid export`), looked at or edited with other tools, and come back.

An export that was not touched becomes the store that it came from: same source, settings, protocol and content hash,
and that is checked. One that was edited must be declared so: its store says that it is edited, and from what.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from posegrid.datasets import parquet
from posegrid.datasets.options import from_values
from posegrid.datasets.parts import piece_of
from posegrid.datasets.schema import CameraSequence, Origin, Protocol, Recording
from posegrid.datasets.skeletons import H36M_17, Skeleton, skeleton_named
from posegrid.datasets.store import DESCRIPTION as STORE_FILE
from posegrid.datasets.store import content_hash_of

DESCRIPTION = "A store exported as Parquet with `posegrid export`, as it was or edited."
SKELETON = H36M_17
PROTOCOL = Protocol(train=(), test=(), note="That of the exported store.")
"""Skeleton and protocol are those of the exported store; these stand in until one is read."""

_FILES = (parquet.FRAMES, parquet.SEQUENCES, STORE_FILE)
_EDITED = "If that was meant, declare it with --option edited=true; otherwise export the store again."


@dataclass(frozen=True, kw_only=True)
class Config:
    """How an export is taken."""

    edited: bool = False
    """True accepts an export that was changed; the store then names `parquet` as its source."""


def list_recordings(config: Config, raw: Path | None) -> list[Recording]:
    """Recordings in the order of the export. Compares the tables with each other, without reading frames.

    Raises ValueError if a file or column is missing or damaged, the tables contradict each other, or they were changed
    and `config` does not say so.
    """
    missing = [name for name in _FILES if raw is None or not (raw / name).is_file()]
    if raw is None or missing:
        raise ValueError(
            f"data source parquet: {', '.join(missing)} missing in the raw folder {raw}. Pass a folder that "
            "`posegrid export STORE FOLDER` made with --raw."
        )
    raw = raw.resolve()
    export = _export(raw, _stamp(raw))
    parquet.check_frames(raw / parquet.FRAMES, export.rows, export.skeleton, poses=export.description["poses"])
    found = content_hash_of(export.description, export.rows)
    if found != export.description["content_hash"] and not config.edited:
        raise ValueError(
            f"{raw}: {STORE_FILE} or {parquet.SEQUENCES} was changed after the export (hash {found[:12]}, recorded "
            f"{export.description['content_hash'][:12]}). {_EDITED}"
        )
    for row in export.rows:
        split = export.protocol.split_of(row["subject"], row["recording"])
        if row["split"] != split:
            raise ValueError(
                f"{raw / parquet.SEQUENCES}: {parquet.sequence_name(row)} has split {row['split']!r}, but the protocol "
                f"in {STORE_FILE} makes it {split!r}. Change the protocol there, or with --protocol."
            )
    recordings = [
        Recording(subject=subject, action=action, name=name, files=tuple(str(raw / file) for file in _FILES))
        for (subject, name, action), _ in groupby(
            export.rows, lambda row: (row["subject"], row["recording"], row["action"])
        )
    ]
    if len({(recording.subject, recording.name) for recording in recordings}) < len(recordings):
        raise ValueError(
            f"{raw / parquet.SEQUENCES}: rows of one recording do not stand together, or have several actions. Sort "
            f"them, and the frames in {parquet.FRAMES} alike."
        )
    return recordings


def read_recording(config: Config, recording: Recording) -> list[CameraSequence]:
    """The sequences of a recording. Raises ValueError for damage, values that are missing or not finite, frames out of
    order, and values that changed since the export while `config` does not say so."""
    raw = _raw(recording)
    export = _export(raw, _stamp(raw))
    wanted = (recording.subject, recording.name)
    sequences = []
    for row in export.rows:
        if (row["subject"], row["recording"]) != wanted:
            continue
        file = raw / parquet.FRAMES
        sequence = parquet.read_frames(file, row, export.skeleton, poses=export.description["poses"])
        if not config.edited and piece_of(sequence).row["sha256"] != row["sha256"]:
            raise ValueError(f"{file}: values of sequence {sequence.name} were changed after the export. {_EDITED}")
        sequences.append(sequence)
    return sequences


def protocol(config: Config, recordings: list[Recording]) -> Protocol:
    """That of the exported store, or what its description was edited to."""
    return _export(_raw(recordings[0]), _stamp(_raw(recordings[0]))).protocol


def origin(config: Config, recordings: list[Recording]) -> Origin:
    """What the exported store said; an edited one says from which store it comes."""
    export = _export(_raw(recordings[0]), _stamp(_raw(recordings[0])))
    source, settings = export.description["source"], export.description["source_config"]
    if config.edited:
        settings = {
            "edited": True,
            "exported_source": source,
            "exported_config": settings,
            "exported_hash": export.description["content_hash"],
        }
        source = "parquet"
    return Origin(source=source, source_config=settings, skeleton=export.skeleton)


@dataclass(frozen=True, kw_only=True)
class _Export:
    description: dict[str, Any]
    rows: list[dict[str, Any]]
    skeleton: Skeleton
    protocol: Protocol


def _raw(recording: Recording) -> Path:
    return Path(recording.files[0]).parent


def _stamp(raw: Path) -> tuple[int, ...]:
    return tuple((raw / name).stat().st_mtime_ns for name in _FILES)


@lru_cache(maxsize=2)
def _export(raw: Path, stamp: tuple[int, ...]) -> _Export:
    """Description and sequence table, kept per process: every recording asks for them. `stamp` are the files' times."""
    description = parquet.read_json(raw / STORE_FILE)
    return _Export(
        description=description,
        rows=parquet.read_sequences(raw / parquet.SEQUENCES),
        skeleton=skeleton_named(description["skeleton"]),
        protocol=from_values(Protocol, description["protocol"], f"{raw / STORE_FILE}, protocol"),
    )
