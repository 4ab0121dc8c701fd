"""How many windows of a training step fit into the memory of a device: measured with few, computed for many."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

FITS_NOTHING = 0
_SAFETY = 0.9
"""Share of the memory that is planned with: allocators leave gaps between tensors."""
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What is known of a size that fits."""

    windows: int
    """Windows at once, 0 if not even one fits."""
    how: str
    """A sentence that says how it was found."""


def fitting(step: Callable[[int], None], failed: int, device: torch.device, later: int, share: float = 1.0) -> Fit:
    """A number of windows below `failed` that fits.

    step: computes loss and gradient of that many windows and keeps nothing. later: bytes that a real step needs beside.
    share: of the device's memory that this process may take.
    """
    meter: Any = torch.get_device_module(device)
    half = max(failed // 2, 1) if failed > 1 else FITS_NOTHING
    if not hasattr(meter, "max_memory_allocated"):
        return Fit(windows=half, how=f"Memory cannot be measured on {device.type}, so this is half of what failed.")
    few, more = 1, 2
    try:
        one, two = (_peak(step, windows, meter, device) for windows in (few, more))
    except torch.OutOfMemoryError:
        return Fit(windows=1 if failed > more else FITS_NOTHING, how=f"Steps of {few} and {more} windows failed too.")
    each, fixed = max(two - one, 1), max(2 * one - two, 0)
    unused, all_ = meter.mem_get_info(device)
    have = min(unused + meter.memory_reserved(device), share * all_)
    windows = min(int((_SAFETY * have - fixed - later) / each), failed - 1)
    return Fit(
        windows=max(windows, FITS_NOTHING),
        how=(
            f"Measured in steps of {few} and {more} windows: {each / _MIB:.1f} MiB for each window beside "
            f"{(fixed + later) / _MIB:.0f} MiB, of {have / _MIB:.0f} MiB that this "
            f"process can have, of which {_SAFETY:.0%} are planned with."
        ),
    )


def free_unused(device: torch.device) -> None:
    """Give memory that a failed step has left back to the device."""
    empty = getattr(torch.get_device_module(device), "empty_cache", None)
    if empty is not None:
        gc.collect()
        empty()


def _peak(step: Callable[[int], None], windows: int, meter: Any, device: torch.device) -> int:
    """Bytes that were in use at once at most."""
    free_unused(device)
    meter.reset_peak_memory_stats(device)
    step(windows)
    meter.synchronize(device)
    return int(meter.max_memory_allocated(device))
