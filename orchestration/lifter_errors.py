"""What a refiner must know before it trains: the errors that its lifter makes in the training windows.

Each window is lifted by the lifter that was trained without its subject, where such lifters were trained.
"""

import numpy as np
import torch

from posegrid.datasets.store import Store
from posegrid.datasets.windows import epoch_seed
from posegrid.models.interface import Lifter, Refiner
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import Masks, training_batches
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import MODEL_ARTIFACT, Tracking
from posegrid.orchestration.workers import Workers


def learn_errors(
    model: Refiner,
    fold_runs: list[str],
    settings: Settings,
    store: Store,
    tracking: Tracking,
    workers: Workers,
    *,
    settled: bool,
) -> None:
    """Give a refiner the lifters of its folds and, unless a resumed state brings them, the moments of their errors.

    The moments are those of the first epoch's batches under the training pattern, summed over all workers.
    """
    lifters: dict[int, Lifter] = {}
    for subject, run_id in zip(settings.folds, fold_runs, strict=True):
        with tracking.fetched(run_id, MODEL_ARTIFACT) as file:
            lifters[store.subjects.index(subject)] = checkpoint.load_model(file)[0].to(workers.device)
    model.use_folds(lifters)
    if not settled:
        model.settle(torch.from_numpy(workers.sum(error_sums(model, settings, store, workers))).to(workers.device))


def error_sums(model: Refiner, settings: Settings, store: Store, workers: Workers) -> np.ndarray:
    """(V,) float64 sums over this worker's share of one epoch; see `Refiner.error_sums`."""
    masks = Masks(store, settings.occlusion)
    generator = torch.Generator(device=workers.device)
    total = torch.zeros((), dtype=torch.float64, device=workers.device)
    for step, batch in enumerate(training_batches(store, settings, masks, 0, workers)):
        generator.manual_seed(epoch_seed(settings.training.seed, step))
        total = total + model.error_sums(batch, generator)
    return total.cpu().numpy()
