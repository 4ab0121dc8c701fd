"""What a pose costs: floating-point operations, parameters, poses per second on a device.

Operations are counted by torch while the model lifts: 2 for each multiply-add of matrix products and convolutions,
which leaves out norms, softmax and activations. They are counted for one lift of each window, without the mirrored one
of flip averaging, and divided by the poses that a window is scored for: its frames, or one where every frame has a
window of its own. Where only some frames are lifted and the rest is interpolated, the cost is that of a lifted one.
Legend: N windows, L frames, J joints.
"""

import time
from dataclasses import dataclass
from functools import cache
from statistics import median

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from posegrid.datasets.occlusions import registry as occlusions
from posegrid.datasets.occlusions.draws import WindowDraws, sequence_key
from posegrid.datasets.skeletons import Skeleton
from posegrid.models.interface import Batch, Lifter
from posegrid.orchestration.lifting import sampling_as_chosen
from posegrid.orchestration.protocol import overlap_shift
from posegrid.orchestration.settings import Settings

_WINDOWS = 240
"""Windows whose masks are drawn: a multiple of all usual numbers of places that a visible frame can have."""


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """How poses per second are measured."""

    batch: int = 64
    """Windows lifted at once; fewer if one batch would take longer than `most_s`."""
    warm_up: int = 2
    """Lifts before the clock starts."""
    repetitions: int = 7
    """Lifts that are timed; their median counts."""
    most_s: float = 30.0
    """Seconds after which no further repetition starts; one is always timed."""

    def __post_init__(self) -> None:
        if min(self.batch, self.repetitions) < 1 or self.warm_up < 0 or not self.most_s > 0:
            raise ValueError(
                f"speed is measured with batch {self.batch}, {self.repetitions} repetitions, {self.warm_up} lifts to "
                f"warm up and at most {self.most_s} s; batch and repetitions are at least 1, the time is above 0, and "
                "warm_up at least 0. Change the one outside."
            )


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """What one pose costs."""

    parameters: int
    """Weights of the network, those of a frozen conditioner included."""
    flops_per_pose: float
    """Floating-point operations of an output pose, 2 for each multiply-add; mean over the windows of the pattern."""
    poses_per_s: float
    """Output poses per second on `device`."""
    poses: int
    """Output poses of a window."""
    batch: int
    """Windows lifted at once when the speed was measured."""
    device: str
    """What measured the speed."""


def measure(
    model: Lifter,
    settings: Settings,
    skeleton: Skeleton,
    pattern: dict,
    *,
    device: torch.device | None = None,
    how: SpeedSettings | None = None,
    known: Complexity | None = None,
) -> Complexity:
    """Count and time a model on made-up windows whose frames are hidden as the resolved pattern says.

    `known`: the same model under another pattern; its speed is taken where the pattern costs as many operations.
    A diffusion model samples as the settings say. The model ends on `device`, in evaluation mode. Raises ValueError if
    the pattern does not fit the windows.
    """
    device, how = device or torch.device("cpu"), how or SpeedSettings()
    model = model.to(device).eval()
    visible, name = _drawn_masks(settings, skeleton, pattern), device_name(device)
    poses = poses_of_a_window(model, settings)
    with sampling_as_chosen(model, settings):
        flops = flops_of_windows(model, settings, visible, device) / poses
        if known is not None and known.device == name and np.isclose(flops, known.flops_per_pose, rtol=1e-6):
            return known
        batch, seconds = seconds_of_a_batch(model, settings, visible, device, how)
    return Complexity(
        parameters=sum(weight.numel() for weight in model.parameters()),
        flops_per_pose=flops,
        poses_per_s=batch * poses / seconds,
        poses=poses,
        batch=batch,
        device=name,
    )


def poses_of_a_window(model: Lifter, settings: Settings) -> int:
    """Output poses for which a window is lifted: one where only one counts, those that the window before does not show
    where windows overlap, else all of its frames."""
    if model.output_frame is not None or settings.evaluation.score == "centre":
        return 1
    return overlap_shift(settings) if settings.evaluation.score == "overlap" else settings.data.frames


def flops_of_windows(model: Lifter, settings: Settings, visible: np.ndarray, device: torch.device) -> float:
    """Mean number of operations to lift a window, over windows with masks (N, L, J).

    Masks that show equally many frames cost alike, so that one of each kind is counted; only the two extremes where
    these cost the same.
    """
    seen = visible.any(axis=2).sum(axis=1)
    _, first, times = np.unique(seen, return_index=True, return_counts=True)

    @cache
    def counted(row: int) -> int:
        # fused attention is one operation, which not every device's counter knows; as matrix products it is counted
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            _lift(model, _made_up(visible[row : row + 1], device), settings)
        return counter.get_total_flops()

    if counted(first[0]) == counted(first[-1]):
        return float(counted(first[0]))
    return sum(int(count) * counted(row) for row, count in zip(first, times, strict=True)) / len(visible)


def seconds_of_a_batch(
    model: Lifter, settings: Settings, visible: np.ndarray, device: torch.device, how: SpeedSettings
) -> tuple[int, float]:
    """(windows in a batch, median seconds to lift it), with masks taken from (N, L, J) in order."""

    def timed(batch: Batch) -> float:
        _wait(device)
        start = time.perf_counter()
        _lift(model, batch, settings)
        _wait(device)
        return time.perf_counter() - start

    one = _made_up(visible[:1], device)
    timed(one)  # the first lift of all also sets up the device
    size = max(min(how.batch, int(how.most_s / timed(one))), 1)
    batch = _made_up(visible[np.arange(size) % len(visible)], device)
    began = time.perf_counter()
    for _ in range(how.warm_up):
        if time.perf_counter() - began < how.most_s:
            timed(batch)
    began, found = time.perf_counter(), [timed(batch)]
    while len(found) < how.repetitions and time.perf_counter() - began < how.most_s:
        found.append(timed(batch))
    return size, median(found)


def device_name(device: torch.device) -> str:
    """What people call a device: its product name, or "CPU, 2 threads"."""
    module = torch.get_device_module(device)
    name = getattr(module, "get_device_name", None)
    if name is not None:
        return str(name(device))
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def _drawn_masks(settings: Settings, skeleton: Skeleton, pattern: dict) -> np.ndarray:
    """(N, L, J) bool: masks of windows around successive lifted frames of one long recording."""
    data = settings.data
    values = {key: value for key, value in pattern.items() if key != "pattern"}
    config = occlusions.occlusion_config(pattern["pattern"], values)
    starts = (np.arange(_WINDOWS) - (data.frames - 1) // 2) * data.stride
    keys = np.full(_WINDOWS, sequence_key("complexity"), dtype=np.uint64)
    draws = WindowDraws(0, keys, starts, np.full(_WINDOWS, data.stride, dtype=np.int64))
    return occlusions.masks(pattern["pattern"], config, draws, data.frames, skeleton)


def _made_up(visible: np.ndarray, device: torch.device) -> Batch:
    """Windows of random keypoints: neither operations nor time depend on their values."""
    seen = torch.from_numpy(visible)
    keypoints = torch.rand(*visible.shape, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    return Batch(keypoints=(keypoints * seen[..., None]).to(device), visible=seen.to(device))


@torch.no_grad()
def _lift(model: Lifter, batch: Batch, settings: Settings) -> torch.Tensor:
    generator = torch.Generator(device=batch.keypoints.device).manual_seed(0)
    return model.lift(batch, generator, settings.evaluation.hypotheses)


def _wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    torch.get_device_module(device).synchronize()
