"""Batch normalisation over the global batch, on any device.

`torch.nn.SyncBatchNorm` refuses tensors on the CPU, where our proof "one and N workers train alike" runs.
"""

import torch
from torch import Tensor, nn

from posegrid.models.collectives import sum_over_workers, world_size


class BatchNorm1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d` whose training statistics come from all workers' windows; the same layer for a single worker.

    State-dict keys, running statistics (unbiased variance) and evaluation are those of the parent.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C) or (N, C, M): normalised per C."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        over = [axis for axis in range(input.ndim) if axis != 1]
        local_variance, local_mean = torch.var_mean(input, over, correction=0)
        # Workers may hold different numbers of values, and sums of squares lose digits: float64 for these few numbers.
        local = torch.stack([local_mean.double(), local_variance.double() + local_mean.double().square()])
        count = torch.full_like(local[:1], input.numel() // input.shape[1])
        total = sum_over_workers(torch.cat([local * count, count]))
        mean, square, values = total[0] / total[2], total[1] / total[2], total[2]
        variance = (square - mean.square()).clamp_min(0)
        with torch.no_grad():
            self._follow(mean, variance * values / (values - 1))
        scale = (variance + self.eps).rsqrt().to(input.dtype) * self.weight
        shift = self.bias - mean.to(input.dtype) * scale
        shape = [-1 if axis == 1 else 1 for axis in range(input.ndim)]
        return torch.addcmul(shift.view(shape), input, scale.view(shape))

    def _follow(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        """Move the running statistics towards those of this batch."""
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased_variance.to(self.running_var.dtype), self.momentum)
