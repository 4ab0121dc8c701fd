"""A model + data + one occlusion pattern -> metrics. One evaluator for regressors and diffusion models."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from posegrid.datasets.metrics.breakdown import BreakdownSums
from posegrid.datasets.metrics.coherence import CoherenceConfig
from posegrid.datasets.metrics.hypotheses import HypothesisSums
from posegrid.datasets.metrics.position import mpjpe
from posegrid.datasets.metrics.summary import MetricSums
from posegrid.datasets.store import Store
from posegrid.datasets.windows import gather
from posegrid.models.interface import Lifter
from posegrid.orchestration.batches import Masks, scoring_windows, training_splits
from posegrid.orchestration.lifting import Lifted, lifted_windows
from posegrid.orchestration.score_tables import Breakdown, Recordings, recording_sums
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a scored pattern came to."""

    sums: MetricSums
    """Sums of every metric per action; equal on every worker."""
    recordings: Recordings
    """The same per recording."""
    breakdown: BreakdownSums
    """Where the position error lies; equal on every worker."""
    sets: HypothesisSums | None
    """Sums of the metrics of sets of hypotheses, if there are several of each window; equal on every worker."""
    examples: dict[str, np.ndarray] = field(repr=False)
    """Windows of the first batch to draw (first worker only, else empty): keypoints, visible, predicted, target, with
    the names of their recordings, first frame, frames from one to the next, frames per second, width and height."""


@torch.no_grad()
def evaluate(
    model: Lifter,
    store: Store,
    settings: Settings,
    occlusion: dict[str, Any],
    workers: Workers,
    *,
    split: str = "test",
) -> Scores:
    """Score a model on all windows of a split under one resolved pattern, lifted as `evaluation.score` says.

    The hypotheses of a window become one pose as `evaluation.aggregation` says, and are scored as a set. Masks and
    sampling noise are the same for any number of workers.
    """
    chosen = settings.evaluation
    model.eval()
    masks = Masks(store, occlusion)
    coherence = CoherenceConfig(shoulder_parent=chosen.shoulder_parent, ddof=chosen.ddof)
    sums, breakdown = recording_sums(store, coherence), Breakdown(store, settings, split)
    sets = HypothesisSums(store.actions, len(store.skeleton), chosen.hypotheses)
    action_of = np.array([store.actions.index(sequence.action) for sequence in store.sequences])
    examples: dict[str, np.ndarray] = {}
    for lifted in lifted_windows(model, store, settings, masks, split, workers):
        actions = action_of[lifted.windows.sequence]
        sums.add(lifted.windows.sequence, lifted.predicted, lifted.target, lifted.visible, lifted.windows.weight)
        breakdown.add(lifted)
        if lifted.hypotheses.shape[1] > 1:
            sets.add(actions, lifted.hypotheses, lifted.target, lifted.visible, lifted.windows.weight)
        if workers.first and not examples:
            examples = _examples(store, lifted)
    total = MetricSums.from_array(sums.actions, coherence, workers.sum(sums.to_array()), store.skeleton)
    recordings = Recordings(sums=total, sequences=store.sequences)
    breakdown.sums.set_array(workers.sum(breakdown.sums.to_array()))
    several = chosen.hypotheses > 1
    if several:  # on every worker, also where a regressor gave one hypothesis
        sets.set_array(workers.sum(sets.to_array()))
    return Scores(
        sums=recordings.by_action(store.actions),
        recordings=recordings,
        breakdown=breakdown.sums,
        sets=sets if several and sets.frame_wise() else None,
        examples=examples,
    )


def _examples(store: Store, lifted: Lifted) -> dict[str, np.ndarray]:
    """The best, median and worst window of a batch by MPJPE, as float32, with where they come from."""
    order = np.argsort(mpjpe(lifted.predicted, lifted.target).mean(axis=(1, 2)))
    chosen = order[[0, len(order) // 2, -1]]
    windows = lifted.windows[chosen]
    own = [store.sequences[index] for index in windows.sequence]
    stride = np.ones(len(chosen), dtype=np.int64) if windows.stride is None else windows.stride
    found = {name: getattr(lifted, name)[chosen] for name in ("keypoints", "visible", "predicted", "target")}
    return {
        **{name: array.astype(bool if name == "visible" else np.float32) for name, array in found.items()},
        "recording": np.array([sequence.name for sequence in own]),
        "start": windows.start,
        "stride": stride,
        "frame_rate": np.array([sequence.frame_rate for sequence in own]) / stride,
        "size": np.array([[sequence.width, sequence.height] for sequence in own]),
    }


def mean_pose_mpjpe_mm(store: Store, settings: Settings) -> float:
    """Control: MPJPE in mm of predicting the mean pose of the training windows for every test window."""
    total, count = np.zeros(()), 0
    for index in store.of_split(*training_splits(settings)):
        rows = slice(store.sequences[index].offset, store.sequences[index].offset + store.sequences[index].frames)
        poses = store.poses[rows].astype(np.float64)
        total = total + (poses - poses[:, store.skeleton.root, None]).sum(0)
        count += len(poses)
    windows = scoring_windows(store, settings, "test")[:: settings.evaluation.every]
    error, joints = 0.0, 0
    for first in range(0, len(windows), settings.evaluation.batch):
        part = windows[first : first + settings.evaluation.batch]
        target = gather(store, part)[1].astype(np.float64)
        errors = mpjpe(np.broadcast_to(total / count, target.shape), target)[part.weight]
        error, joints = error + errors.sum(), joints + errors.size
    return float(1000 * error / joints)
