"""The error of every single frame, for analyses that sort frames. Legend: R frames of a store, N windows, L frames."""

from dataclasses import replace

import numpy as np
import torch

from posegrid.datasets.metrics.position import mpjpe
from posegrid.datasets.store import Store
from posegrid.datasets.windows import frames_of
from posegrid.models.interface import Lifter
from posegrid.orchestration.batches import Masks
from posegrid.orchestration.lifting import lifted_windows
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


def of_every_frame(settings: Settings) -> Settings:
    """The same protocol, but all frames of a split are scored: every window, and tails are kept."""
    return replace(
        settings,
        evaluation=replace(settings.evaluation, every=1),
        data=replace(settings.data, tail="keep"),
    )


@torch.no_grad()
def errors_of_frames(
    model: Lifter, store: Store, settings: Settings, masks: Masks, split: str = "test", workers: Workers | None = None
) -> np.ndarray:
    """(R,) mean distance over the joints of each frame, metres, lifted as `evaluation.score` says; NaN for frames that
    are not scored: those of other splits, and invalid ones."""
    settings, workers = of_every_frame(settings), workers or Workers()
    found = np.full(int(store.lengths.sum()), np.nan)
    model.eval()
    for lifted in lifted_windows(model, store, settings, masks, split, workers):
        if settings.evaluation.zero_root:
            lifted.predicted[:, :, store.skeleton.root] = 0
        error = mpjpe(lifted.predicted, lifted.target).mean(axis=-1)
        frame, _ = frames_of(store, lifted.windows)
        rows = frame + store.offsets[lifted.windows.sequence][:, None]
        counts = lifted.windows.weight > 0
        found[rows[counts]] = error[counts]
    return found
