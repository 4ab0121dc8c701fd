"""A piece of a store's sequence as a keypoint table (`keypoint_table` says what that is), to try lifting on."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from posegrid.datasets.cameras import screen_to_pixels
from posegrid.datasets.options import unknown
from posegrid.datasets.readers.keypoint_columns import SUFFIXES
from posegrid.datasets.store import Sequence, Store


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """A joint that nobody sees for a while."""

    joint: str
    start: float
    """Seconds after the first frame that is written."""
    stop: float
    """Seconds; the frame at this time is seen again."""

    @classmethod
    def of(cls, text: str) -> "Hidden":
        """From "RWrist:1.0:1.8". Raises ValueError for anything else."""
        parts = text.split(":")
        try:
            joint, start, stop = parts[0], float(parts[1]), float(parts[2])
        except (IndexError, ValueError):
            raise ValueError(
                f'--hide "{text}" is not understood. Allowed is JOINT:START:STOP in seconds, such as RWrist:1.0:1.8. '
                "Correct it."
            ) from None
        return cls(joint=joint, start=start, stop=stop)


def export_table(
    store: Store,
    file: Path,
    name: str | None = None,
    *,
    start: float = 0.0,
    seconds: float = 4.0,
    every: int = 1,
    hide: tuple[Hidden, ...] = (),
) -> tuple[Sequence, int]:
    """Write frames of a sequence as `file` (.csv or .parquet) with its description beside it; returns the sequence and
    the number of frames.

    name: subject/recording/camera, by default the first test sequence. every: only every n-th frame. Keypoints become
    pixels; 3D is written where the store has it. Raises ValueError for another ending, an unknown sequence or joint, or
    if no frame lies there.
    """
    if file.suffix not in SUFFIXES:
        raise ValueError(
            f"{file} has another ending than a keypoint table. Allowed: {', '.join(SUFFIXES)}. Name it so."
        )
    sequences = {sequence.name: sequence for sequence in store.sequences}
    if name is None:
        name = next((one.name for one in store.sequences if one.split == "test"), store.sequences[0].name)
    if name not in sequences:
        raise unknown("sequence", name, f"store {store.path}", list(sequences)[:30])
    sequence = sequences[name]
    begin, last = round(start * sequence.frame_rate), round((start + seconds) * sequence.frame_rate)
    frames = np.arange(begin, min(last, sequence.frames), every)
    if start < 0 or every < 1 or not len(frames):
        raise ValueError(
            f"--start {start:g}, --seconds {seconds:g} and --every {every} of sequence {name} give no frame: it has "
            f"{sequence.frames / sequence.frame_rate:g} s. Allowed are times within it: change them."
        )
    rows = sequence.offset + frames
    rate = sequence.frame_rate / every
    confidence = store.confidence[rows].copy()
    for hidden in hide:
        where = slice(max(round(hidden.start * rate), 0), max(round(hidden.stop * rate), 0))
        confidence[where, store.skeleton.index(hidden.joint)] = 0
    aside = file.with_name(f".{file.stem}.partial-{os.getpid()}{file.suffix}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        table = _table(store, sequence, rows, confidence)
        if file.suffix == ".csv":
            pyarrow.csv.write_csv(table, aside, pyarrow.csv.WriteOptions(quoting_style="none"))
        else:
            pq.write_table(table, aside, compression="zstd", write_page_checksum=True)
        file.with_suffix(".toml").write_text(
            f"# describes {file.name}: {name} from {start:g} s on, from a store of source {store.source}\n"
            f'skeleton = "{store.skeleton.name}"\nwidth = {sequence.width}\nheight = {sequence.height}\n'
            f"frame_rate = {rate!r}\n"
        )
        os.replace(aside, file)
    except OSError as error:
        raise ValueError(
            f"{file} cannot be written ({error}). Allowed is a file in a folder with room: name another one."
        ) from None
    finally:
        if aside.is_file():
            aside.unlink()
    return sequence, len(frames)


def _table(store: Store, sequence: Sequence, rows: np.ndarray, confidence: np.ndarray) -> pa.Table:
    count, joints = confidence.shape
    points = screen_to_pixels(store.keypoints[rows], sequence.width, sequence.height).round(2).reshape(-1, 2)
    unseen = (confidence == 0).reshape(-1)
    # commas would need quotes
    columns = {
        "sequence": pa.repeat(sequence.recording.replace(",", " "), count * joints),
        "frame": pa.array(np.repeat(np.arange(count), joints)),
        "person": pa.repeat(sequence.subject.replace(",", " "), count * joints),
        "joint": pa.array(list(store.skeleton.joints) * count),
        "x": pa.array(points[:, 0], mask=unseen),
        "y": pa.array(points[:, 1], mask=unseen),
        "confidence": pa.array(confidence.astype(np.float64).round(3).reshape(-1)),
    }
    if store.poses_if_any is not None:
        poses = store.poses_if_any[rows].astype(np.float64).round(4).reshape(-1, 3)
        columns |= {axis: pa.array(poses[:, place]) for place, axis in enumerate("XYZ")}
    return pa.table(columns)
