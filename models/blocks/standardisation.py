"""Mean and standard deviation of what a network reads or predicts, gathered while it trains."""

import torch
from torch import Tensor, nn

from posegrid.models.collectives import sum_over_workers

SMALLEST_DEVIATION = 1e-4
"""Coordinates that hardly vary, such as a root that is always zero, are divided by this instead."""


class Standardisation(nn.Module):
    """z-scores per coordinate with the statistics of all values seen so far, over all workers.

    No momentum: every value counts the same, so after some hundred batches the statistics stand still as those of a
    pass over the training data would. They are saved with the weights. Before the first batch: mean 0, deviation 1.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, *shape: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, values: Tensor) -> None:
        """Take in values (..., *shape) of this worker."""
        flat = values.detach().double().flatten(0, -1 - self.mean.ndim)
        # Sums are taken about the present mean, so that they do not lose digits.
        centred = flat - self.mean
        count = torch.full_like(centred[0], len(flat))
        total = sum_over_workers(torch.stack([centred.sum(0), centred.square().sum(0), count]))
        shift, square, arrived = total[0] / total[2], total[1] / total[2], total[2]
        weight = arrived / (self.count + arrived)
        spread = square - shift.square()
        change = weight * (spread - self.variance + (1 - weight) * shift.square())
        self.variance.copy_((self.variance + change).clamp_min(0))
        self.mean.copy_(self.mean + weight * shift)
        self.count.add_(arrived.flatten()[0].long())

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of every coordinate."""
        return self.variance.sqrt().clamp_min(SMALLEST_DEVIATION)

    def forward(self, values: Tensor) -> Tensor:
        """z-scores of values (..., *shape)."""
        return (values - self.mean) / self.deviation

    def undone(self, scores: Tensor) -> Tensor:
        """Values of z-scores (..., *shape)."""
        return torch.addcmul(self.mean, scores, self.deviation)
