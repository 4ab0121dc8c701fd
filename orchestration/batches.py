"""Store + settings -> batches on a device, the same windows, masks and order for any number of workers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from posegrid.datasets.centred_windows import grid_windows
from posegrid.datasets.metrics.coherence import measured_bones
from posegrid.datasets.occlusions import registry as occlusions
from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.occlusions.hiding import zero_hidden
from posegrid.datasets.random_cameras import RandomCameras
from posegrid.datasets.skeletons import Skeleton
from posegrid.datasets.store import Store
from posegrid.datasets.windows import (
    Windows,
    consecutive_windows,
    epoch_seed,
    gather,
    sequence_keys,
    shuffled,
    training_count,
    training_windows,
)
from posegrid.models.interface import Batch, PoseShape
from posegrid.models.registry import lifter_class
from posegrid.orchestration.pictures import Pictures, pictures_of
from posegrid.orchestration.pieces import check_pieces
from posegrid.orchestration.protocol import overlap_shift
from posegrid.orchestration.recipe_tables import DataSettings
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


def pose_shape(store: Store, data: DataSettings) -> PoseShape:
    """What a model must know of the data."""
    return shape_of(store.skeleton, data)


def shape_of(skeleton: Skeleton, data: DataSettings) -> PoseShape:
    """What a model must know of a skeleton and of windows, where there is no store."""
    return PoseShape(
        frames=data.frames,
        joints=len(skeleton),
        parents=skeleton.parents,
        left=skeleton.left,
        right=skeleton.right,
    )


def cut_of(data: DataSettings) -> dict[str, Any]:
    """How all windows of a recipe are cut, as arguments of the functions that make them."""
    return {"stride": data.stride, "frame_rate": data.frame_rate, "edges": data.edges}


def training_splits(settings: Settings) -> tuple[str, ...]:
    """Held-out recordings train too unless they select: recipes that select on the test subjects use them all."""
    return ("train",) if settings.training.select == "held_out" else ("train", "held_out")


def training_subjects(store: Store, settings: Settings) -> list[str]:
    """Names of those whose recordings train, sorted."""
    return sorted({store.sequences[index].subject for index in store.of_split(*training_splits(settings))})


def steps_per_epoch(store: Store, settings: Settings) -> int:
    """Optimisation steps of one epoch: `training.steps`, or all; the last incomplete batch is left out."""
    return settings.training.steps or _possible_steps(store, settings)


def _possible_steps(store: Store, settings: Settings) -> int:
    data, training, cut = settings.data, settings.training, cut_of(settings.data)
    if training.grid:
        count = len(grid_windows(store, training_splits(settings), data.frames, training.grid, **cut))
    else:
        count = training_count(store, training_splits(settings), data.frames, **cut)
    return max(count * (1 + (training.flip or training.flip_pairs)) // training.batch, 1)


def epoch_windows(store: Store, settings: Settings, epoch: int) -> Windows:
    """The training windows of an epoch, before they are shuffled: a function of (seed, epoch) alone."""
    data, training, cut = settings.data, settings.training, cut_of(settings.data)
    splits = training_splits(settings)
    if training.grid:
        return grid_windows(store, splits, data.frames, training.grid, **cut)
    return training_windows(store, splits, data.frames, seed=training.seed, epoch=epoch, **cut)


def scoring_windows(store: Store, settings: Settings, split: str) -> Windows:
    """All windows of a split on which models are scored, in order."""
    data = settings.data
    return consecutive_windows(store, split, data.frames, data.tail, **cut_of(data))


class Masks:
    """Draws the masks of one pattern; keeps the sequence keys, which are made once per store."""

    def __init__(self, store: Store, occlusion: dict[str, Any]) -> None:
        values = {key: value for key, value in occlusion.items() if key != "pattern"}
        self._pattern = occlusion["pattern"]
        self._config = occlusions.occlusion_config(self._pattern, values)
        self._skeleton = store.skeleton
        self._keys = sequence_keys(store)

    def visible(self, windows: Windows, seed: int) -> np.ndarray:
        """(N, L, J) bool, a function of (seed, sequence name, window start and stride) alone."""
        draws = WindowDraws(seed, self._keys[windows.sequence], windows.start, windows.stride)
        frames = windows.weight.shape[1]
        return occlusions.masks(self._pattern, self._config, draws, frames, self._skeleton)


def make_batch(
    store: Store,
    windows: Windows,
    visible: np.ndarray,
    workers: Workers,
    total: int,
    *,
    mirrored: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    filmed: tuple[np.ndarray, np.ndarray] | None = None,
    pictures: Pictures | None = None,
) -> Batch:
    """Gather windows; hidden keypoints become (0, 0), the image centre, as in DiffHPE's released code.

    mirrored: (N,) bool, windows that become their mirror image (before keypoints are hidden). rows: (N,) rows of the
    global batch, where they are not every world-th one. filmed: what other cameras see of the windows, instead of what
    the stored ones saw. pictures: where the model's pictures come from, if it reads any.
    """
    keypoints, poses = gather(store, windows) if filmed is None else filmed
    if filmed is None and mirrored is not None and mirrored.any():
        order = list(store.skeleton.mirror)
        for array in (keypoints, poses):
            array[mirrored] = array[mirrored][:, :, order]
            array[mirrored, :, :, 0] *= -1
    zero_hidden(keypoints, visible)
    return Batch(
        keypoints=torch.from_numpy(keypoints).to(workers.device, non_blocking=True),
        visible=torch.from_numpy(visible).to(workers.device, non_blocking=True),
        poses=torch.from_numpy(poses).to(workers.device, non_blocking=True),
        rank=workers.rank,
        world=workers.world,
        total=total,
        rows=None if rows is None else torch.from_numpy(rows).to(workers.device),
        images=None if pictures is None else pictures.of(windows, mirrored).to(workers.device, non_blocking=True),
        subject=torch.from_numpy(store.subject_of[windows.sequence]).to(workers.device),
    )


def training_batches(store: Store, settings: Settings, masks: Masks, epoch: int, workers: Workers) -> Iterator[Batch]:
    """Batches of one epoch for this worker.

    Windows, order, masks and random cameras depend on (seed, epoch) alone: a resumed run continues with the same data,
    and N workers share the batches that one worker would see.
    """
    seed = settings.training.seed
    windows = epoch_windows(store, settings, epoch)
    count, pairs = len(windows), settings.training.flip_pairs
    order = shuffled(count * (1 + settings.training.flip), seed=seed, epoch=epoch)
    if pairs:
        order = np.stack([order, order + count], axis=1).ravel()
    size = min(settings.training.batch, len(order))
    order = order[: settings.training.steps * size or None]
    mask_seed, camera_seed = epoch_seed(seed + 1, epoch), epoch_seed(seed + 2, epoch)
    cameras = RandomCameras(store, training_splits(settings)) if settings.data.cameras == "random" else None
    pictures = pictures_of(store, settings)
    for first in range(0, len(order) - size + 1, size):
        items = order[first : first + size][workers.share(size)]
        mine, mirrored = windows[items % count], items >= count
        visible = masks.visible(mine, mask_seed)
        if mirrored.any() and not pairs:  # a mirror image has an occlusion of its own
            visible[mirrored] = masks.visible(mine[mirrored], mask_seed + 1)
        filmed = None
        if cameras is not None:
            own = mirrored & (not pairs)  # and a camera of its own
            filmed = cameras.film(mine, cameras.drawn(mine, camera_seed, own), mirrored)
        yield make_batch(store, mine, visible, workers, size, mirrored=mirrored, filmed=filmed, pictures=pictures)


def scoring_batches(
    store: Store,
    settings: Settings,
    masks: Masks,
    split: str,
    workers: Workers,
    *,
    mask_seed: int,
    batch: int,
    every: int = 1,
) -> Iterator[tuple[Windows, Batch]]:
    """All consecutive windows of a split in order, with this worker's share of each batch (never empty).

    `batch` is in windows over all workers; `every` keeps every n-th window.
    """
    windows = scoring_windows(store, settings, split)[::every]
    pictures = pictures_of(store, settings)
    size = max(batch, workers.world)
    for first in range(0, len(windows), size):
        whole = windows[first : first + size]
        mine = whole[workers.share(len(whole))]
        if len(mine):
            visible = masks.visible(mine, mask_seed)
            yield mine, make_batch(store, mine, visible, workers, len(whole), pictures=pictures)


def check_stage(store: Store, settings: Settings, patterns: list[dict[str, Any]]) -> None:
    """Refuse before training what would fail later: splits that are empty, windows that do not fit, masks that cannot
    be drawn, joints that the skeleton lacks. Raises ValueError."""
    training = settings.training
    check_pieces(lifter_class(settings.model["name"]), settings)
    store = store.leaving_out(settings.data.leave_out)
    _check_selecting_recordings(store, settings)
    windows = epoch_windows(store, settings, 0)
    possible = _possible_steps(store, settings)
    if training.steps > possible:
        raise ValueError(
            f"training.steps = {training.steps} (recipe {settings.name}), but the training windows of store "
            f"{store.path} fill {possible} batches of {training.batch}. Lower training.steps and raise "
            "training.epochs, or set it to 0 (all windows once)."
        )
    if settings.data.cameras == "random":
        RandomCameras(store, training_splits(settings)).check(windows)
    pictures = pictures_of(store, settings)
    if pictures is not None:
        pictures.reader.check()
    Masks(store, settings.occlusion).visible(windows[:1], 0)
    scored = {"test"} if patterns else set()
    for split in scored | ({training.select} - {"last"}):
        windows = scoring_windows(store, settings, split)
    for pattern in patterns:
        Masks(store, pattern).visible(windows[:1], 0)
    overlap_shift(settings)
    measured_bones(store.skeleton, settings.evaluation.shoulder_parent)


def _check_selecting_recordings(store: Store, settings: Settings) -> None:
    left_out = settings.data.leave_out
    if not left_out or settings.training.select != "held_out":
        return
    if not any(sequence.split == "held_out" for sequence in store.sequences):
        raise ValueError(
            f'recipe {settings.name} selects the epoch on held-out recordings (training.select = "held_out"), but '
            f"without {', '.join(left_out)} there are none: a subject that is left out must not select either. "
            'Allowed here: "last" or "test". Set training.select, or hold out recordings of more subjects.'
        )
