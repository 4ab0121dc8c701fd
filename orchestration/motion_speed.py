"""Error by speed of motion (Uplift and Upsample, supplement, Fig. 3): where a model fails, how often people move so.

Frames are sorted by the speed of the true poses. Legend: R frames of a store.
"""

from typing import Any

import numpy as np

from posegrid.datasets.metrics.speed import SpeedBins, SpeedSums, speeds_of_recordings
from posegrid.datasets.store import Store
from posegrid.models.interface import Lifter
from posegrid.orchestration.batches import Masks
from posegrid.orchestration.frame_errors import errors_of_frames
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


def true_speeds(store: Store) -> np.ndarray:
    """(R,) speed of every frame in m/s; NaN for the first of a recording and next to invalid ones."""
    rates = np.array([sequence.frame_rate for sequence in store.sequences])
    return speeds_of_recordings(store.poses, store.offsets, rates, store.skeleton.root, store.valid)


def errors_by_speed(
    model: Lifter,
    store: Store,
    settings: Settings,
    pattern: dict[str, Any],
    bins: SpeedBins,
    *,
    split: str = "test",
    workers: Workers | None = None,
) -> SpeedSums:
    """Errors of all frames of a split under one resolved pattern, sorted into bins of true speed. Frame-wise, over all
    actions alike. Raises ValueError if no frame of the split has a speed."""
    error = errors_of_frames(model, store, settings, Masks(store, pattern), split, workers)
    speed = true_speeds(store)
    counts = np.isfinite(error) & np.isfinite(speed)
    if not counts.any():
        raise ValueError(
            f"no frame of split {split} in {store.path} has both an error and a speed: recordings need two valid "
            "frames in a row. Choose another split or store."
        )
    sums = SpeedSums(bins)
    sums.add(speed[counts], error[counts])
    return sums
