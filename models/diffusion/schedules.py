"""Noise schedules, in float64.

Step t = 0 .. S - 1 adds noise of variance beta_t; step index 0 is the least noisy one.
"""

from dataclasses import dataclass
from math import cos, pi

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Coefficients of every step, each (S,) float64 on the CPU."""

    beta: Tensor
    """Variance added by step t."""
    alpha: Tensor
    """1 - beta_t."""
    alpha_bar: Tensor
    """Product of alpha_0 .. alpha_t: the share of the clean signal's power left after step t."""
    sigma: Tensor
    """Deviation of the ancestral reverse step, sqrt(beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)); sigma_0 = 0."""

    def __len__(self) -> int:
        return len(self.beta)


def from_betas(betas: list[float]) -> Schedule:
    """The schedule of the given variances."""
    beta = torch.tensor(betas, dtype=torch.float64, device="cpu")
    alpha = 1 - beta
    alpha_bar = alpha.cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64, device="cpu"), alpha_bar[:-1]])
    sigma = (beta * (1 - before) / (1 - alpha_bar)).sqrt()
    return Schedule(beta=beta, alpha=alpha, alpha_bar=alpha_bar, sigma=sigma)


def cosine(steps: int, beta_cap: float = 0.999, offset: float = 0.008) -> Schedule:
    """Nichol and Dhariwal's cosine schedule: alpha_bar(u) = cos^2((u + offset) / (1 + offset) pi / 2), beta capped."""

    def alpha_bar(u: float) -> float:
        return cos((u + offset) / (1 + offset) * pi / 2) ** 2

    return from_betas([min(1 - alpha_bar((t + 1) / steps) / alpha_bar(t / steps), beta_cap) for t in range(steps)])
