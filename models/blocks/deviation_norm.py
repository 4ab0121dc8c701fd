"""The layer norm of "The Annotated Transformer", which several released lifters have inherited."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DeviationNorm(nn.Module):
    """w (x - mean) / (s + 1e-6) + b with the unbiased standard deviation s, over the last axis.

    Computed by the fused layer norm, whose deviation is biased: the ratio goes into the weight. Its epsilon is added to
    the variance instead of the deviation, which differs by less than 1e-6 / s of the result.
    """

    def __init__(self, width: int, epsilon: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.ratio = ((width - 1) / width) ** 0.5
        self.epsilon = (epsilon * self.ratio) ** 2

    def forward(self, values: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return F.layer_norm(values, self.weight.shape, self.weight * self.ratio, self.bias, self.epsilon)
