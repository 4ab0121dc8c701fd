"""What a scored pattern leaves beside its metrics: a table of recordings, and one of where the error lies.

Reports draw recordings with replacement from the first (confidence intervals), and read the second as it is.
"""

import csv
import io
import json
import math
from dataclasses import dataclass

import numpy as np

from posegrid.datasets.metrics.breakdown import BreakdownSums
from posegrid.datasets.metrics.coherence import CoherenceConfig
from posegrid.datasets.metrics.position import mpjpe
from posegrid.datasets.metrics.speed import SpeedBins, speeds_of_recordings
from posegrid.datasets.metrics.summary import METRICS, SPLITS, MetricSums
from posegrid.datasets.store import Sequence, Store
from posegrid.datasets.windows import frames_of
from posegrid.orchestration.lifting import Lifted
from posegrid.orchestration.settings import Settings

RECORDINGS, BREAKDOWN = "per_recording.csv", "breakdown.csv"
"""Artifacts beside per_action.csv."""
ACTIONS = "actions.json"
"""The table of actions once more, as a table of MLflow: its UI lays those of several runs side by side."""
LOGGED_TABLES = "mlflow.loggedArtifacts"
"""Tag of a run that lists its tables of MLflow."""


def actions_table(rows: dict[str, dict[str, float]], tested_on: str) -> str:
    """Action -> metric -> value as a table of MLflow (pandas' "split" form); what is not finite is empty.

    MLflow's own `log_table` appends to what is there, so that a stage that is scored again would have its rows twice.
    """
    columns = list(dict.fromkeys(name for values in rows.values() for name in values))
    data = [
        [
            action,
            tested_on,
            *(round(values[name], 4) if math.isfinite(values.get(name, math.nan)) else None for name in columns),
        ]
        for action, values in rows.items()
    ]
    return json.dumps({"columns": ["action", "tested_on", *columns], "data": data})


def with_table(listed: str | None, path: str) -> str:
    """The tag `LOGGED_TABLES` with one more table, once."""
    tables = json.loads(listed or "[]")
    entry = {"path": path, "type": "table"}
    return json.dumps(tables if entry in tables else [*tables, entry])


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """Sums of every metric for each recording and camera of a store."""

    sums: MetricSums
    """One "action" for each sequence."""
    sequences: tuple[Sequence, ...]

    def by_action(self, actions: tuple[str, ...]) -> MetricSums:
        """The same, summed over the recordings of each action."""
        each = self.sums.to_array().reshape(len(self.sequences), -1)
        total = np.zeros((len(actions), each.shape[1]))
        np.add.at(total, [actions.index(sequence.action) for sequence in self.sequences], each)
        return MetricSums.from_array(actions, self.sums.coherence, total.ravel(), self.sums.skeleton)

    def csv(self) -> str:
        """One row for each recording and camera that was scored; means in mm, and how many entries they are means of:
        position errors and the symmetry gap of `frames`, MPJVE of `pairs` of frames, segment std of `windows`."""
        layout = len(self.sequences), len(METRICS), len(SPLITS), 2
        sums = self.sums.to_array().reshape(layout)[:, :, 0]
        entries, columns = sums[..., 1], {name: place for place, name in enumerate(METRICS)}
        joints = len(self.sums.skeleton)
        frames, pairs = entries[:, columns["mpjpe_mm"]] / joints, entries[:, columns["mpjve_mm"]] / joints
        windows = entries[:, columns["segment_std_mm"]] / len(self.sums.skeleton.bones)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["subject", "recording", "camera", "action", "frames", "pairs", "windows", *METRICS])
        for row in np.flatnonzero(frames):
            one = self.sequences[row]
            counts = [round(float(values[row])) for values in (frames, pairs, windows)]
            means = [f"{total / count:.6f}" if count else "" for total, count in sums[row]]
            writer.writerow([one.subject, one.recording, one.camera, one.action, *counts, *means])
        return text.getvalue()


def recording_sums(store: Store, coherence: CoherenceConfig) -> MetricSums:
    """Empty sums with a row for each sequence of a store."""
    return MetricSums(tuple(sequence.name for sequence in store.sequences), coherence, store.skeleton)


class Breakdown:
    """Sums of where the error of lifted windows lies."""

    def __init__(self, store: Store, settings: Settings, split: str) -> None:
        self._store = store
        self.sums = BreakdownSums(store.skeleton.joints, SpeedBins())
        # around every frame each frame is seen with a mask of its own: neighbours do not make a gap
        self._gaps = settings.evaluation.score != "centre"
        self._speed = np.full(int(store.lengths.sum()), np.nan, dtype=np.float32)
        for index in store.of_split(split):
            sequence = store.sequences[index]
            rows = slice(sequence.offset, sequence.offset + sequence.frames)
            root, valid = store.skeleton.root, store.valid[rows]
            self._speed[rows] = speeds_of_recordings(
                store.poses[rows], np.zeros(1, np.int64), np.array([sequence.frame_rate]), root, valid
            )

    def add(self, lifted: Lifted) -> None:
        """Count the windows of a step."""
        frame, length = frames_of(self._store, lifted.windows)
        inside = (frame >= 0) & (frame < length)
        rows = np.where(inside, frame, 0) + self._store.offsets[lifted.windows.sequence][:, None]
        self.sums.add(
            mpjpe(lifted.predicted, lifted.target),
            lifted.visible,
            lifted.windows.weight & inside,
            self._speed[rows].astype(np.float64),
            gaps=self._gaps,
        )


def breakdown_csv(sums: BreakdownSums) -> str:
    """One row for each joint, gap and speed: MPJPE in mm over all frames that count, all actions alike."""
    lines = ["by,of,split,entries,mpjpe_mm"]
    lines += [f"{by},{of},{split},{entries},{mean:.4f}" for by, of, split, entries, mean in sums.rows()]
    return "\n".join(lines) + "\n"
