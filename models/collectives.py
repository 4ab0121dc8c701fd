"""Sums over the workers of a distributed run; without one they do nothing.

A model needs them where its loss is no plain mean over windows: batch statistics and losses that scale with themselves.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of workers of the running process group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Sum(torch.autograd.Function):
    """y = sum of x over the workers, on every worker."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every worker's loss depends on this worker's x through y, so the gradient is again a sum over the workers.
        # The wrapper that averages parameter gradients then yields the gradient of the mean of all losses.
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def sum_over_workers(value: Tensor) -> Tensor:
    """Sum over the workers with gradient; `value` itself for a single worker."""
    return value if world_size() == 1 else _Sum.apply(value)


def mean_over_workers(value: Tensor) -> Tensor:
    """Mean over the workers with gradient; `value` itself for a single worker."""
    return value if world_size() == 1 else sum_over_workers(value) / world_size()
