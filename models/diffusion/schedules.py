"""Noise schedules, in float64.

Step t = 0 .. S - 1 adds noise of variance beta_t; step index 0 is the least noisy one.
"""

from dataclasses import dataclass
from math import cos, pi
from typing import Literal

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


def linear(steps: int, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Ho et al.'s schedule: variances from `first` to `last` in equal steps. DiffPose: 51 steps to 1e-3."""
    return from_betas(torch.linspace(first, last, steps, dtype=torch.float64, device="cpu").tolist())


def sampling_times(total: int, steps: int, spacing: Literal["ends", "skip"] = "ends") -> list[int]:
    """Which of `total` steps a chain of `steps` evaluations visits, highest first.

    "ends": the integer parts of K + 1 even points from -1 to total - 1 without the lowest, as D3DP: starts at the
    noisiest step. "skip": 0, s, 2 s, ... with s = total // steps, as DDIM's uniform skip: ends at step 0. All steps
    give all, with either. Raises ValueError unless 1 <= steps <= total, or for another spacing.
    """
    if not 1 <= steps <= total:
        raise ValueError(
            f"a chain of {steps} steps was asked for (evaluation.steps), but the model was trained with {total}. "
            f"Allowed are 1 to {total}: choose one of them."
        )
    if spacing == "ends":
        return [total * (number + 1) // steps - 1 for number in reversed(range(steps))]
    if spacing == "skip":
        return [total // steps * number for number in reversed(range(steps))]
    raise ValueError(f'spacing "{spacing}" of sampling times is unknown. Known: ends, skip. Choose one of them.')
