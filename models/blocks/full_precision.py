"""Layers that compute with float32 numbers where the rest of the network runs on bfloat16 ones."""

import torch
from torch import Tensor, nn


class FullPrecisionLinear(nn.Linear):
    """A linear layer that autocast leaves alone, for the last one of a lifter.

    A bfloat16 number has 8 binary digits: coordinates of half a metre would come out in steps of 2 mm.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., D in) -> (..., D out), of the kind of the weights."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))
