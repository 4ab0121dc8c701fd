"""A clip -> its frames lifted, in order and piece by piece: memory does not grow with the length of the clip.

Windows are those on which the model is scored (`lifting.py`), here without a truth, masks or several workers: whole
windows of which each frame counts once, overlapping ones of which the mean counts, or a window around every frame.
Legend: N windows, H hypotheses, L frames of a window, J joints, n frames of a piece.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from posegrid.datasets.centred_windows import windows_around
from posegrid.datasets.occlusions.hiding import zero_hidden
from posegrid.datasets.overlapping_windows import overlapping_windows
from posegrid.datasets.store import Store
from posegrid.datasets.windows import Windows, consecutive_windows, epoch_seed, frames_of, gather_column
from posegrid.models.flip import lift_flip_averaged
from posegrid.models.interface import Batch, Lifter
from posegrid.orchestration.batches import cut_of, pose_shape
from posegrid.orchestration.lifting import one_frame_only, sampling_as_chosen
from posegrid.orchestration.protocol import overlap_shift
from posegrid.orchestration.settings import Settings

_TOKENS = 2**16
"""Joints of all frames and hypotheses that a network sees at once, unless a batch is asked for: about a gigabyte in the
widest published one."""


@dataclass(kw_only=True)
class Clock:
    """Where the time of lifting goes."""

    network_s: float = 0.0
    """Seconds spent in the network."""
    windows: int = 0
    """Windows that it lifted."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Consecutive frames of a clip, lifted."""

    hypotheses: np.ndarray
    """(n, H, J, 3) float32 metres, root-relative."""
    deviation: np.ndarray | None
    """(n, J) float32 metres: root of the summed variances of the coordinates over the hypotheses of one window; None
    for a single one. The mean over overlapping windows, and what lies between two lifted frames, do not narrow it."""

    def __len__(self) -> int:
        return len(self.hypotheses)


@torch.no_grad()
def lifted_pieces(
    model: Lifter, settings: Settings, store: Store, device: torch.device, batch: int = 0, clock: Clock | None = None
) -> Iterator[Piece]:
    """The frames of the only sequence of a store of keypoints, hidden where `store.confidence` is 0.

    Sampling depends on (`evaluation.seed`, batch), not on other clips. batch: windows lifted at once, 0:
    `usual_batch`. Raises ValueError if the model returns one frame of a window but whole ones are asked for, or if
    windows of the settings cannot be cut at this frame rate.
    """
    size = batch or usual_batch(model, settings, len(store.skeleton))
    lift = _Lift(model.eval(), settings, store, device, size, clock or Clock())
    way = {"window": lift.windows, "overlap": lift.windows, "centre": lift.around_frames}[settings.evaluation.score]
    if settings.evaluation.score != "centre" and model.output_frame is not None:
        raise one_frame_only(settings, model)
    with sampling_as_chosen(model, settings):
        yield from way()


def usual_batch(model: Lifter, settings: Settings, joints: int) -> int:
    """Windows at once: the recipe's, or fewer, so that memory stays bounded whatever their length."""
    several = settings.evaluation.hypotheses if model.chain is not None else 1
    tokens = settings.data.frames * several * joints
    return max(min(settings.evaluation.batch, _TOKENS // tokens), 1)


@dataclass(kw_only=True)
class _Sliding:
    """Sums of what windows say about frames, kept only for frames that later windows may show."""

    first: int = 0
    sums: list[np.ndarray] = field(default_factory=list)
    count: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def add(self, frame: np.ndarray, values: list[np.ndarray]) -> None:
        """Rows of each of the values (M, ...) belong to the frames (M,), none of which was taken."""
        grow = max(int(frame.max()) + 1 - self.first - len(self.count), 0)
        self.count = np.pad(self.count, (0, grow))
        if not self.sums:
            self.sums = [np.zeros((0, *value.shape[1:])) for value in values]
        self.sums = [np.concatenate([total, np.zeros((grow, *total.shape[1:]))]) for total in self.sums]
        # sums of equal frames in one pass, as `OverlapMean` does it
        order = np.argsort(frame, kind="stable")
        found, start = np.unique(frame[order] - self.first, return_index=True)
        for total, value in zip(self.sums, values, strict=True):
            total[found] += np.add.reduceat(value[order], start, axis=0, dtype=np.float64)
        self.count += np.bincount(frame - self.first, minlength=len(self.count))

    def take(self, until: int) -> list[np.ndarray]:
        """Means of the frames before `until` that were not taken yet, each of which some window showed."""
        size = until - self.first
        assert self.count[:size].all(), "a frame that no window showed"
        means = [total[:size] / self.count[:size].reshape(-1, *[1] * (total.ndim - 1)) for total in self.sums]
        self.sums, self.count, self.first = [total[size:] for total in self.sums], self.count[size:], until
        return means


class Between:
    """Rows that come piece by piece -> rows at other, evenly spaced places between them, linearly.

    Row k of what comes out lies at place k * step of what goes in; places after the last row repeat it.
    """

    def __init__(self, step: float, given: int, wanted: int) -> None:
        """given, wanted: how many rows go in and come out in all."""
        self._step, self._given, self._wanted = step, given, wanted
        self._kept: list[np.ndarray] = []
        self._kept_first = 0
        self._done = 0

    def feed(self, values: list[np.ndarray]) -> list[np.ndarray]:
        """The next rows (m, ...) of each array; returns the rows (n, ...) that are now known, n may be 0."""
        if self._kept:
            values = [np.concatenate(pair) for pair in zip(self._kept, values, strict=True)]
        end = self._kept_first + len(values[0])
        place = np.arange(self._done, self._wanted) * self._step if end == self._given else self._places(end)
        place = np.minimum(place, self._given - 1)
        before = np.minimum(place.astype(np.int64), max(self._given - 2, 0))
        share = place - before
        low, high = before - self._kept_first, np.minimum(before + 1, self._given - 1) - self._kept_first
        found = []
        for value in values:
            part = share.reshape(-1, *[1] * (value.ndim - 1))
            found.append(value[low] * (1 - part) + value[high] * part)
        self._done += len(place)
        # the last place of all lies after the last row but one
        keep = max(min(int(self._done * self._step), end - 1, self._given - 2), 0)
        self._kept, self._kept_first = [value[keep - self._kept_first :] for value in values], keep
        return found

    def _places(self, end: int) -> np.ndarray:
        """Of those not done, the places whose neighbours on both sides are known when rows up to `end` are."""
        most = int((end - 1) / self._step) + 2
        place = np.arange(self._done, min(most, self._wanted)) * self._step
        return place[np.floor(place) + 1 < end]


class _Lift:
    def __init__(
        self, model: Lifter, settings: Settings, store: Store, device: torch.device, batch: int, clock: Clock
    ) -> None:
        self._model, self._settings, self._store, self._batch = model, settings, store, batch
        self._device, self._clock = device, clock
        self._generator = torch.Generator(device=device)
        self._frames = int(store.lengths[0])

    def windows(self) -> Iterator[Piece]:
        """Whole windows: each frame from one, or the mean over all that show it."""
        data, seed = self._settings.data, self._settings.evaluation.seed
        overlap = self._settings.evaluation.score == "overlap"
        if overlap:
            shift = overlap_shift(self._settings)
            windows = overlapping_windows(self._store, "test", data.frames, shift, **cut_of(data))
        else:
            windows = consecutive_windows(self._store, "test", data.frames, "keep", **cut_of(data))
        # windows with a stride come phase by phase; by their first frames, what was taken is never shown again
        windows = windows[np.argsort(windows.start, kind="stable")]
        sliding = _Sliding()
        for step, first in enumerate(range(0, len(windows), self._batch)):
            part = windows[first : first + self._batch]
            # the seeds of scoring, so that the same windows see the same noise
            lifted = self._lifted(part, epoch_seed(seed, first if overlap else step))
            frame = frames_of(self._store, part)[0][part.weight]
            by_frame = lifted.swapaxes(1, 2)
            values = [by_frame[part.weight]]
            if lifted.shape[1] > 1:
                values.append(_variance(by_frame)[part.weight])
            sliding.add(frame, values)
            last = first + self._batch >= len(windows)
            until = self._frames if last else int(windows.start[first + self._batch])
            if until > sliding.first:
                yield _piece(sliding.take(until))

    def around_frames(self) -> Iterator[Piece]:
        """Every frame, or every n-th one, from a window of its own; those between linearly in time."""
        data, chosen = self._settings.data, self._settings.evaluation
        at = (data.frames - 1) // 2 if self._model.output_frame is None else self._model.output_frame
        frames = np.arange(0, self._frames, chosen.lift_every)
        between = Between(1 / chosen.lift_every, len(frames), self._frames)
        for step, first in enumerate(range(0, len(frames), self._batch)):
            part = frames[first : first + self._batch]
            windows = windows_around(
                self._store, np.zeros(len(part), dtype=np.int64), part, data.frames, at, **cut_of(data)
            )
            lifted = self._lifted(windows, epoch_seed(chosen.seed, step))
            lifted = lifted[:, :, 0 if self._model.output_frame is not None else at]
            values = [lifted]
            if lifted.shape[1] > 1:
                values.append(_variance(lifted))
            if chosen.lift_every > 1:
                values = between.feed(values)
            if len(values[0]):
                yield _piece(values)

    def _lifted(self, windows: Windows, seed: int) -> np.ndarray:
        """(N, H, L or 1, J, 3) float32."""
        chosen = self._settings.evaluation
        keypoints = gather_column(self._store, windows, self._store.keypoints)
        visible = gather_column(self._store, windows, self._store.confidence)
        zero_hidden(keypoints, visible)
        batch = Batch(
            keypoints=torch.from_numpy(keypoints).to(self._device), visible=torch.from_numpy(visible).to(self._device)
        )
        self._generator.manual_seed(seed)
        began = time.perf_counter()
        if chosen.flip:
            pose = pose_shape(self._store, self._settings.data)
            lifted = lift_flip_averaged(self._model, batch, self._generator, pose, chosen.hypotheses)
        else:
            lifted = self._model.lift(batch, self._generator, chosen.hypotheses)
        found = lifted.float().cpu().numpy()
        self._clock.network_s += time.perf_counter() - began
        self._clock.windows += len(windows)
        if chosen.zero_root:
            found[:, :, :, self._store.skeleton.root] = 0
        return found


def _variance(hypotheses: np.ndarray) -> np.ndarray:
    """(..., J) summed variances of the coordinates of (..., H, J, 3), with H - 1 in the denominator."""
    return hypotheses.var(axis=-3, ddof=1, dtype=np.float64).sum(axis=-1)


def _piece(values: list[np.ndarray]) -> Piece:
    deviation = np.sqrt(values[1]).astype(np.float32) if len(values) > 1 else None
    return Piece(hypotheses=values[0].astype(np.float32), deviation=deviation)
