"""Lifts a split for scoring: whole windows once, whole windows that overlap, or every frame from the window around it.

Legend: N windows, L frames, J joints. What comes back does not depend on the number of workers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from posegrid.datasets.centred_windows import Interpolation, windows_around
from posegrid.datasets.overlapping_windows import OverlapMean, overlapping_windows
from posegrid.datasets.store import Store
from posegrid.datasets.windows import Windows, consecutive_windows, epoch_seed, frames_of, gather
from posegrid.models.diffusion.chain import Chain
from posegrid.models.flip import lift_flip_averaged
from posegrid.models.interface import Batch, Lifter
from posegrid.orchestration.batches import Masks, cut_of, make_batch, pose_shape, scoring_batches, scoring_windows
from posegrid.orchestration.hypotheses import aggregated
from posegrid.orchestration.pictures import pictures_of
from posegrid.orchestration.protocol import overlap_shift
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
    hypotheses: np.ndarray
    """(N, H, L, J, 3) float32 metres."""
    predicted: np.ndarray
    """(N, L, J, 3) float64 metres, what `evaluation.aggregation` makes of them."""
    target: np.ndarray
    """(N, L, J, 3) float64 metres."""


def lifted_windows(
    model: Lifter, store: Store, settings: Settings, masks: Masks, split: str, workers: Workers
) -> Iterator[Lifted]:
    """This worker's share of a split, lifted as `evaluation.score` says.

    Raises ValueError if the model returns one frame of a window, but whole windows are scored, and what `chosen_chain`
    raises.
    """
    lift = {"window": _whole_windows, "overlap": _overlapping, "centre": _around_every_frame}[settings.evaluation.score]
    with sampling_as_chosen(model, settings):
        yield from lift(model, store, settings, masks, split, workers)


@contextmanager
def sampling_as_chosen(model: Lifter, settings: Settings) -> Iterator[None]:
    """Within it the model samples as `chosen_chain` says."""
    own = model.chain
    model.chain = chosen_chain(model, settings)
    try:
        yield
    finally:
        model.chain = own


def chosen_chain(model: Lifter | type[Lifter], settings: Settings) -> Chain | None:
    """How the model samples when it is scored: its own way, changed where the recipe says so.

    Raises ValueError if it is no diffusion model, if the sampler does not read eta, or for more steps than it was
    trained with.
    """
    chosen = settings.evaluation
    asked: dict[str, Any] = {
        name: value
        for name, value in (("sampler", chosen.sampler), ("steps", chosen.steps), ("eta", chosen.eta))
        if value is not None
    }
    if not asked:
        return model.chain
    name = (model if isinstance(model, type) else type(model)).__name__
    said = " and ".join(f"evaluation.{name} = {value}" for name, value in asked.items())
    if model.chain is None:
        raise ValueError(
            f"{said} (recipe {settings.name}), but {name} does not sample: it is no diffusion model. "
            "Allowed are these keys for models that do: leave them out here."
        )
    chain = replace(model.chain, **asked)
    if "eta" in asked and chain.sampler != "ddim":
        raise ValueError(
            f'{said} (recipe {settings.name}), but the sampler is "{chain.sampler}", which does not read eta. Allowed '
            'is eta with "ddim": set evaluation.sampler = "ddim", or leave eta out.'
        )
    trained = settings.model.get("steps")
    if trained is not None and chain.steps > trained:
        raise ValueError(
            f"{said} (recipe {settings.name}), but the model is trained with model.steps = {trained}. Allowed are 1 to "
            f"{trained} steps, and 0 for all: lower evaluation.steps."
        )
    return chain


def _whole_windows(
    model: Lifter, store: Store, settings: Settings, masks: Masks, split: str, workers: Workers
) -> Iterator[Lifted]:
    chosen = settings.evaluation
    if model.output_frame is not None:
        raise one_frame_only(settings, model)
    generator = torch.Generator(device=workers.device)
    batches = scoring_batches(
        store, settings, masks, split, workers, mask_seed=chosen.seed, batch=chosen.batch, every=chosen.every
    )
    for step, (windows, batch) in enumerate(batches):
        generator.manual_seed(epoch_seed(chosen.seed, step))
        assert batch.poses is not None
        yield _lifted(
            store,
            settings,
            windows,
            _hypotheses(model, batch, generator, settings, store).float().cpu().numpy(),
            batch.keypoints.cpu().numpy(),
            batch.visible.cpu().numpy(),
            batch.poses.double().cpu().numpy(),
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
    pictures = pictures_of(store, settings)
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
        batch = make_batch(store, inputs, visible, workers, len(frames.frame), rows=rows, pictures=pictures)
        generator.manual_seed(epoch_seed(chosen.seed, step))
        lifted = _hypotheses(model, batch, generator, settings, store)
        lifted = lifted[:, :, 0 if model.output_frame is not None else at]
        # a frame between two lifted ones counts as visible where both are
        seen = frames.filled(visible[:, at].astype(np.float32), share, rows) > 0.999
        keypoints, target = gather(store, mine)
        # hypotheses are interpolated one by one: their spread is right on lifted frames, too small between them
        between = frames.filled(lifted.double().cpu().numpy(), share, rows).astype(np.float32)
        between = np.ascontiguousarray(between.swapaxes(1, 2))
        yield _lifted(store, settings, mine, between, keypoints * seen[..., None], seen, target.astype(np.float64))


def _overlapping(
    model: Lifter, store: Store, settings: Settings, masks: Masks, split: str, workers: Workers
) -> Iterator[Lifted]:
    """Scored are the windows of score = "window" under the same masks, each frame as the mean over all windows that
    show it. Recordings are shared among the workers whole, because neighbouring windows need one another."""
    chosen, data = settings.evaluation, settings.data
    if model.output_frame is not None:
        raise one_frame_only(settings, model)
    scored = scoring_windows(store, settings, split)[:: chosen.every]
    inputs = overlapping_windows(store, split, data.frames, overlap_shift(settings), **cut_of(data))
    # with tail = "drop" the frames after the last scored window are occluded too: their masks are those of "keep"
    masked = scoring_windows(store, replace(settings, data=replace(data, tail="keep")), split)
    generator, pictures = torch.Generator(device=workers.device), pictures_of(store, settings)
    for index in np.unique(scored.sequence)[workers.share(len(np.unique(scored.sequence)))]:
        rows, frames = scored[scored.sequence == index], int(store.lengths[index])
        visible = _visible_frames(store, masked[masked.sequence == index], masks, chosen.seed)
        wanted = np.zeros(frames, dtype=bool)
        wanted[_inside(store, rows)] = True
        numbers = np.flatnonzero(inputs.sequence == index)
        numbers = numbers[wanted[_inside(store, inputs[numbers])].any(axis=1)]
        mean = OverlapMean(frames)
        for first in range(0, len(numbers), chosen.batch):
            part = inputs[numbers[first : first + chosen.batch]]
            seen, count = visible[_inside(store, part)], len(part)
            batch = make_batch(store, part, seen, workers, count, rows=np.arange(count), pictures=pictures)
            generator.manual_seed(epoch_seed(chosen.seed, int(numbers[first])))  # whichever worker lifts it
            lifted = _hypotheses(model, batch, generator, settings, store).float().cpu().numpy()
            mean.add(frames_of(store, part)[0], lifted.swapaxes(1, 2))
        for first in range(0, len(rows), chosen.batch):
            part = rows[first : first + chosen.batch]
            frame = _inside(store, part)
            keypoints, target = gather(store, part)
            # the mean of the h-th hypotheses of all windows: their spread is smaller than that of one window
            hypotheses = np.ascontiguousarray(mean.of(frame).swapaxes(1, 2), dtype=np.float32)
            seen = visible[frame]
            yield _lifted(store, settings, part, hypotheses, keypoints * seen[..., None], seen, target.astype(float))


def _visible_frames(store: Store, windows: Windows, masks: Masks, seed: int) -> np.ndarray:
    """(F, J) bool: the masks of the windows of one recording, put together; a frame has that of its first window."""
    visible = np.ones((int(store.lengths[windows.sequence[0]]), len(store.skeleton)), dtype=bool)
    # the last assignment stays: in reverse order that of the first window, and of the frame rather than of its padding
    visible[_inside(store, windows)[::-1, ::-1]] = masks.visible(windows, seed)[::-1, ::-1]
    return visible


def _inside(store: Store, windows: Windows) -> np.ndarray:
    """(N, L) frames of the recordings; the last one in place of those beyond it."""
    frame, length = frames_of(store, windows)
    return np.clip(frame, 0, length - 1)


def _hypotheses(
    model: Lifter, batch: Batch, generator: torch.Generator, settings: Settings, store: Store
) -> torch.Tensor:
    """(B, H, L or 1, J, 3), each averaged with that of the mirrored input if the recipe says so."""
    chosen = settings.evaluation
    if chosen.flip:
        pose = pose_shape(store, settings.data)
        return lift_flip_averaged(model, batch, generator, pose, chosen.hypotheses)
    return model.lift(batch, generator, chosen.hypotheses)


def _lifted(
    store: Store,
    settings: Settings,
    windows: Windows,
    hypotheses: np.ndarray,
    keypoints: np.ndarray,
    visible: np.ndarray,
    target: np.ndarray,
) -> Lifted:
    name, root = settings.evaluation.aggregation, store.skeleton.root
    if settings.evaluation.zero_root:
        hypotheses[:, :, :, root] = 0
    predicted = aggregated(name, hypotheses, store, windows, keypoints, visible, target)
    return Lifted(
        windows=windows,
        keypoints=keypoints,
        visible=visible,
        hypotheses=hypotheses,
        predicted=predicted,
        target=target,
    )
