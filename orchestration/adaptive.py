"""Detect people often only while they move fast (Uplift and Upsample, supplement, Fig. 4), and what that costs.

The whole of a video is simulated as it would happen. A decision is taken at every frame that may have a detection: the
stride in force follows from what was estimated before that frame. Where a detection is made, a window that ends with it
is lifted as a sequence; the speed of its newest poses, those within the last long stride, is the estimate. Fast motion
switches to the short stride, which stays until `hold` frames brought none. Errors are those of the usual protocol with
the detections that were made. Legend: S sequences, N windows, L frames of a window, R frames of a store, J joints.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from posegrid.datasets.centred_windows import windows_around
from posegrid.datasets.metrics.speed import detected_frames, speeds
from posegrid.datasets.store import Store
from posegrid.datasets.windows import Windows, frames_of, strides_and_spans
from posegrid.models.interface import Lifter
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import Masks, cut_of, make_batch, pose_shape
from posegrid.orchestration.frame_errors import errors_of_frames
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


@dataclass(frozen=True, kw_only=True)
class StridePolicy:
    """When people are detected."""

    short: int = 4
    """Stored frames between detections while people move fast."""
    long: int = 20
    """Stored frames between detections otherwise."""
    threshold: float = 0.5
    """Estimated speed in m/s above which motion is fast."""
    hold: int = 50
    """Stored frames without fast motion after which the long stride returns. The paper gives no number."""

    def __post_init__(self) -> None:
        if min(self.short, self.hold) < 1 or self.long <= self.short or self.long % self.short or self.threshold < 0:
            raise ValueError(
                f"adaptive stride: short {self.short}, long {self.long}, hold {self.hold} frames, threshold "
                f"{self.threshold} m/s; short and hold are at least 1, long is a multiple of short above it, and the "
                "threshold at least 0. Change the one outside."
            )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a policy comes to on a split."""

    name: str
    """"short", "long" or "adaptive"."""
    errors: np.ndarray = field(repr=False)
    """(R,) metres, mean over the joints; NaN for frames that are not scored."""
    strides: np.ndarray = field(repr=False)
    """(R,) stride in force; 0 for frames of other splits."""
    speeds: np.ndarray = field(repr=False)
    """(R,) estimated speed in m/s at frames where one was made, NaN elsewhere; all NaN for constant strides."""
    detections: int
    """2D detections made."""

    @property
    def mpjpe_mm(self) -> float:
        """Mean over all scored frames, mm."""
        return float(1000 * np.nanmean(self.errors))


class Detections(Masks):
    """Masks of frames that have a detection: those divisible by the stride in force, which is kept for every frame."""

    def __init__(self, store: Store, strides: np.ndarray) -> None:
        """strides: (R,) stride in force, at least 1 in the sequences that are lifted."""
        self._store = store
        self._strides = strides

    def visible(self, windows: Windows, seed: int) -> np.ndarray:
        """(N, L, J) bool. Frames beyond the ends of a sequence, which repeat a frame, go on with its last stride, as
        with a constant one. Raises ValueError where windows see none of the frames that can have a detection."""
        frame, length = frames_of(self._store, windows)
        rows = np.clip(frame, 0, length - 1) + self._store.offsets[windows.sequence][:, None]
        seen_NL = frame % self._strides[rows] == 0
        if not seen_NL.any(axis=1).all():
            raise ValueError(
                f"{int((~seen_NL.any(axis=1)).sum())} of {len(windows)} windows show no frame with a detection: their "
                "frames lie beside the strides, or they are too short. Set evaluation.lift_every to the recipe's "
                "data.stride, and use strides shorter than a window."
            )
        return np.repeat(seen_NL[:, :, None], len(self._store.skeleton), axis=2)


def compare_policies(
    model: Lifter,
    store: Store,
    settings: Settings,
    policy: StridePolicy,
    *,
    split: str = "test",
    workers: Workers | None = None,
) -> list[Outcome]:
    """Always the short stride, always the long one, and adaptive, on all videos of a split.

    Raises ValueError if the model was not trained with frames missing, if it cannot lift whole windows, or if the
    strides do not fit its windows.
    """
    workers = workers or Workers()
    _check(store, settings, policy, split)
    indices = np.array(store.of_split(split), dtype=np.int64)
    nothing = np.full(int(store.lengths.sum()), np.nan)
    found = []
    for name in ("short", "long", "adaptive"):
        if name == "adaptive":
            sequences = whole_windows(model, store, settings).to(workers.device).eval()
            strides, estimated = simulate(sequences, store, settings, policy, indices, workers)
        else:
            strides, estimated = _constant(store, indices, getattr(policy, name)), nothing
        made = sum(int(detected_frames(strides[_rows(store, index)]).sum()) for index in indices)
        errors = errors_of_frames(model, store, settings, Detections(store, strides), split, workers)
        found.append(Outcome(name=name, errors=errors, strides=strides, speeds=estimated, detections=made))
    return found


def whole_windows(model: Lifter, store: Store, settings: Settings) -> Lifter:
    """The model, or one with its weights that returns all frames of a window. Raises ValueError if there is none."""
    if model.output_frame is None:
        return model
    if "output" not in settings.model:
        raise ValueError(
            f"{settings.model['name']} (recipe {settings.name}) lifts one frame of a window, but the speed at the end "
            "of a window must be estimated as well. Use a model of whole windows, or uplift_upsample."
        )
    chosen = replace(settings, model={**settings.model, "output": "sequence"})
    whole = checkpoint.build(chosen, pose_shape(store, settings.data))
    checkpoint.load_weights(whole, model.state_dict(), f"the model of recipe {settings.name}")
    return whole


@torch.no_grad()
def simulate(
    model: Lifter, store: Store, settings: Settings, policy: StridePolicy, indices: np.ndarray, workers: Workers
) -> tuple[np.ndarray, np.ndarray]:
    """((R,) stride in force, (R,) estimated speed) of the adaptive policy on sequences `indices` (S,), all at once.

    The stride at a frame depends on detections at earlier frames alone. `model` lifts whole windows.
    """
    strides = _constant(store, indices, policy.long)
    estimated = np.full(len(strides), np.nan)
    offsets, lengths = store.offsets[indices], store.lengths[indices]
    last = np.full(len(indices), -policy.hold - 1)  # frame of the last fast motion
    for frame in range(0, int(lengths.max(initial=0)), policy.short):
        running = np.flatnonzero(lengths > frame)
        fast = frame - 1 - last[running] < policy.hold
        until = np.minimum(frame + np.arange(policy.short), lengths[running[fast], None] - 1)
        strides[offsets[running[fast], None] + until] = policy.short
        detecting = running[fast | (frame % policy.long == 0)]
        if not len(detecting):
            continue
        speed = _newest_speed(model, store, settings, policy, indices[detecting], frame, strides, workers)
        estimated[offsets[detecting] + frame] = speed
        last[detecting[speed > policy.threshold]] = frame
    return strides, estimated


def _newest_speed(
    model: Lifter,
    store: Store,
    settings: Settings,
    policy: StridePolicy,
    sequence: np.ndarray,
    frame: int,
    strides: np.ndarray,
    workers: Workers,
) -> np.ndarray:
    """(N,) largest speed in m/s within the long stride before a frame, from windows that end with it."""
    data = settings.data
    at = np.full(len(sequence), frame, dtype=np.int64)
    windows = windows_around(store, sequence, at, data.frames, data.frames - 1, **cut_of(data))
    visible = Detections(store, strides).visible(windows, 0)
    batch = make_batch(store, windows, visible, workers, len(windows))
    generator = torch.Generator(device=workers.device).manual_seed(settings.evaluation.seed)
    poses = model.lift(batch, generator, settings.evaluation.hypotheses).mean(1).double().cpu().numpy()
    own = np.ones(len(sequence), dtype=np.int64) if windows.stride is None else windows.stride
    rates = np.array([store.sequences[index].frame_rate for index in sequence]) / own
    speed_NL = speeds(poses, 1.0, store.skeleton.root)[:, 1:] * rates[:, None]
    # the steps of the last long stride, of which there are at least one
    recent = np.arange(speed_NL.shape[1], 0, -1) <= np.maximum(policy.long // own, 1)[:, None]
    return np.where(recent, speed_NL, 0).max(axis=1)


def _constant(store: Store, indices: np.ndarray, stride: int) -> np.ndarray:
    """(R,) one stride for the frames of some sequences, 0 elsewhere."""
    strides = np.zeros(int(store.lengths.sum()), dtype=np.int64)
    for index in indices:
        strides[_rows(store, index)] = stride
    return strides


def _rows(store: Store, index: int) -> slice:
    return slice(int(store.offsets[index]), int(store.offsets[index] + store.lengths[index]))


def _check(store: Store, settings: Settings, policy: StridePolicy, split: str) -> None:
    if settings.occlusion["pattern"] != "sparse_frames":
        raise ValueError(
            f"recipe {settings.name} was trained with pattern {settings.occlusion['pattern']!r}, so its model does not "
            "know frames without a 2D pose. Use a run that was trained with sparse_frames."
        )
    data = settings.data
    _, own, _ = strides_and_spans(store, (split,), data.frames, data.stride, data.frame_rate)
    for stride in (policy.short, policy.long):
        if (stride % own).any() or (stride > data.frames * own).any():
            raise ValueError(
                f"an input stride of {stride} frames does not fit windows of {data.frames} frames that lie "
                f"{', '.join(map(str, np.unique(own)))} apart: it must be a multiple of that, and not longer than a "
                "window. Change --short or --long."
            )
