"""Lifts a split for scoring: whole windows, or every frame from the window around it.

Legend: N windows, L frames, J joints. What comes back does not depend on the number of workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from posegrid.datasets.centred_windows import Interpolation, windows_around
from posegrid.datasets.store import Store
from posegrid.datasets.windows import Windows, consecutive_windows, epoch_seed, gather
from posegrid.models.flip import lift_flip_averaged
from posegrid.models.interface import Batch, Lifter
from posegrid.orchestration.batches import Masks, cut_of, make_batch, pose_shape, scoring_batches
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


@dataclass(frozen=True, kw_only=True)
class Lifted:
    """Windows of one step on one worker, lifted."""

    windows: Windows
    """N windows; their weights say which frames count."""
    keypoints: np.ndarray
    """(N, L, J, 2) what the model saw, hidden ones 0."""
    visible: np.ndarray
    """(N, L, J) bool."""
    predicted: np.ndarray
    """(N, L, J, 3) float64 metres, mean of the hypotheses."""
    target: np.ndarray
    """(N, L, J, 3) float64 metres."""


def lifted_windows(
    model: Lifter, store: Store, settings: Settings, masks: Masks, split: str, workers: Workers
) -> Iterator[Lifted]:
    """This worker's share of a split, lifted as `evaluation.score` says.

    Raises ValueError if the model returns one frame of a window, but whole windows are scored.
    """
    chosen = settings.evaluation
    if chosen.score == "centre":
        yield from _around_every_frame(model, store, settings, masks, split, workers)
        return
    if model.output_frame is not None:
        raise one_frame_only(settings, model)
    generator = torch.Generator(device=workers.device)
    batches = scoring_batches(
        store, settings, masks, split, workers, mask_seed=chosen.seed, batch=chosen.batch, every=chosen.every
    )
    for step, (windows, batch) in enumerate(batches):
        generator.manual_seed(epoch_seed(chosen.seed, step))
        assert batch.poses is not None
        yield Lifted(
            windows=windows,
            keypoints=batch.keypoints.cpu().numpy(),
            visible=batch.visible.cpu().numpy(),
            predicted=_mean_pose(model, batch, generator, settings, store).double().cpu().numpy(),
            target=batch.poses.double().cpu().numpy(),
        )


def one_frame_only(settings: Settings, model: Lifter) -> ValueError:
    """The error for a model of one frame that should lift whole windows."""
    return ValueError(
        f'evaluation.score = "{settings.evaluation.score}" (recipe {settings.name}), but {type(model).__name__} lifts '
        'one frame of a window. Set evaluation.score = "centre".'
    )


def _around_every_frame(
    model: Lifter, store: Store, settings: Settings, masks: Masks, split: str, workers: Workers
) -> Iterator[Lifted]:
    """Scored are consecutive windows of all stored frames, so that coherence over time means the same as elsewhere;
    each of their frames is lifted from an input window of its own."""
    chosen, data = settings.evaluation, settings.data
    windows = consecutive_windows(store, split, data.frames, data.tail)[:: chosen.every]
    at = (data.frames - 1) // 2 if model.output_frame is None else model.output_frame
    size = max(chosen.batch // data.frames, workers.world)
    generator = torch.Generator(device=workers.device)
    for step, first in enumerate(range(0, len(windows), size)):
        whole = windows[first : first + size]
        share = workers.share(len(whole))
        mine = whole[share]
        if not len(mine):
            continue
        frames = Interpolation(store, whole, chosen.lift_every)
        rows = frames.needed_by(share)
        inputs = windows_around(
            store,
            frames.sequence[rows],
            frames.frame[rows],
            data.frames,
            at,
            **cut_of(data),
        )
        visible = masks.visible(inputs, chosen.seed)
        batch = make_batch(store, inputs, visible, workers, len(frames.frame), rows=rows)
        generator.manual_seed(epoch_seed(chosen.seed, step))
        lifted = _mean_pose(model, batch, generator, settings, store)
        lifted = lifted[:, 0 if model.output_frame is not None else at]
        # a frame between two lifted ones counts as visible where both are
        seen = frames.filled(visible[:, at].astype(np.float32), share, rows) > 0.999
        keypoints, target = gather(store, mine)
        yield Lifted(
            windows=mine,
            keypoints=keypoints * seen[..., None],
            visible=seen,
            predicted=frames.filled(lifted.double().cpu().numpy(), share, rows),
            target=target.astype(np.float64),
        )


def _mean_pose(
    model: Lifter, batch: Batch, generator: torch.Generator, settings: Settings, store: Store
) -> torch.Tensor:
    """(B, L or 1, J, 3): mean of the hypotheses, averaged with the mirrored input if the recipe says so."""
    chosen = settings.evaluation
    if chosen.flip:
        pose = pose_shape(store, settings.data)
        return lift_flip_averaged(model, batch, generator, pose, chosen.hypotheses).mean(1)
    return model.lift(batch, generator, chosen.hypotheses).mean(1)
