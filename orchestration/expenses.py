"""What a run has cost so far: seconds of workers and GPUs, energy, and how much of the time was no training step.

Counted from the moment a worker has its code loaded until its last scores, over all restarts: the checkpoint keeps the
sums. What was computed between the last checkpoint and a kill is not counted, nor is waiting for workers.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from posegrid.orchestration.workers import Workers

WORKER_S, GPU_S, ENERGY_WH, OUTSIDE = (
    f"cost/{name}" for name in ("worker_s", "gpu_s", "energy_wh", "share_outside_steps")
)
"""Metrics: seconds times workers; seconds times GPUs (a worker may hold a share of one); watt-hours of the workers'
GPUs, of a shared one this worker's share; share of the time that was not spent in training steps, 0 to 1."""
_JOULES_PER_WH = 3600.0


@dataclass(kw_only=True)
class Expenses:
    """Sums of one run, on each of its workers. All workers make the same calls."""

    workers: Workers
    before: Mapping[str, float] = field(default_factory=dict)
    """What an earlier part of the run came to (`plain`)."""
    clock: Callable[[], float] = time.perf_counter
    _steps_s: float = field(default=0.0, init=False)
    _began: float = field(default=0.0, init=False)
    _joules: Callable[[], float] | None = field(default=None, init=False)
    _joules_began: float = field(default=0.0, init=False)
    _energy_wh: float = field(default=0.0, init=False)
    _all_tell: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._joules = energy_counter(self.workers.device) if self.workers.gpus else None
        self._joules_began = self._joules() if self._joules is not None else 0.0

    def add_steps(self, seconds: float) -> None:
        """Count seconds of training steps."""
        self._steps_s += seconds

    def plain(self) -> dict[str, float]:
        """The sums so far, on this worker alone but for what is known of all; `before` of whoever goes on."""
        wall = self.clock() - self._began
        return {
            "wall_s": self.before.get("wall_s", 0.0) + wall,
            "steps_s": self.before.get("steps_s", 0.0) + self._steps_s,
            WORKER_S: self.before.get(WORKER_S, 0.0) + wall * self.workers.world,
            GPU_S: self.before.get(GPU_S, 0.0) + wall * self.workers.world * self.workers.gpus,
            ENERGY_WH: self.before.get(ENERGY_WH, 0.0) + self._energy_wh,
        }

    def metrics(self) -> dict[str, float]:
        """The sums so far under the names of metrics. Energy is left out where a worker's GPU does not tell it."""
        self._add_energy()
        sums = self.plain()
        found = {name: sums[name] for name in (WORKER_S, GPU_S)}
        if self._all_tell:
            found[ENERGY_WH] = sums[ENERGY_WH]
        if sums["steps_s"]:
            found[OUTSIDE] = 1 - sums["steps_s"] / sums["wall_s"]
        return found

    def _add_energy(self) -> None:
        """Of all workers, so that the first one, which logs, knows it."""
        if not self.workers.gpus:
            return
        own = 0.0 if self._joules is None else self._joules() - self._joules_began
        share = min(self.workers.gpus, 1.0)
        joules, telling = self.workers.sum(np.array([own * share, float(self._joules is not None)]))
        self._energy_wh, self._all_tell = float(joules) / _JOULES_PER_WH, telling == self.workers.world


def logged_before(metrics: Mapping[str, float]) -> dict[str, float]:
    """Sums of a finished training as its metrics tell them, for a run that is only scored anew."""
    return {name: metrics[name] for name in (WORKER_S, GPU_S, ENERGY_WH) if name in metrics}


def energy_counter(device: torch.device) -> Callable[[], float] | None:
    """What reads the joules that a GPU has used since its driver was loaded; None if nothing here can tell.

    NVML tells it, through the package nvidia-ml-py, for NVIDIA GPUs from Volta on.
    """
    properties = getattr(torch.get_device_module(device), "get_device_properties", None)
    if properties is None:
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        # by its number in the machine: what a process sees of the GPUs is numbered anew
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties(device).uuid}".encode())
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no package, no driver, a GPU that does not count: costs are told without energy
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
