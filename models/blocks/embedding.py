"""Embedding of the diffusion step."""

from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def step_table(steps: int, width: int) -> Tensor:
    """[sin(t f_i), cos(t f_i)] for t = 0 .. steps - 1 with width / 2 frequencies from 1 to 10^4, (steps, width).

    The arguments reach 10^4 times the number of steps, where float32 rounds visibly. Trained weights know the rounded
    table, so frequency and product are float32, computed on the CPU whatever device the model lives on.
    """
    half = width // 2
    frequencies = 10.0 ** (torch.arange(half, device="cpu") / (half - 1) * 4.0)
    angles = torch.arange(steps, device="cpu")[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class StepEmbedding(nn.Module):
    """Table of sinusoids and two linear layers with SiLU (CSDI's step embedding)."""

    table: Tensor

    def __init__(self, steps: int, width: int):
        super().__init__()
        self.register_buffer("table", step_table(steps, width), persistent=False)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, step: Tensor) -> Tensor:
        """Step indices (B,) -> (B, width)."""
        return F.silu(self.second(F.silu(self.first(self.table[step]))))


class TransformerStepEmbedding(nn.Module):
    """Vaswani et al.'s sinusoids of the step, Linear to twice the width, GELU, Linear back (D3DP).

    Frequencies 10000^(-i / (width / 2 - 1)); sines first, then cosines, in float32.
    """

    frequencies: Tensor

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        frequencies = torch.exp(torch.arange(half, device="cpu") * -(log(10_000) / (half - 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.first = nn.Linear(width, 2 * width)
        self.second = nn.Linear(2 * width, width)

    def forward(self, step: Tensor) -> Tensor:
        """Step indices (B,) -> (B, width)."""
        angles = step[:, None] * self.frequencies
        return self.second(F.gelu(self.first(torch.cat([angles.sin(), angles.cos()], dim=1))))
