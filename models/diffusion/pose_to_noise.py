"""From a clean pose to a lifter's noisy one and back: the diffusion of D3PRefiner, whose "noise" is a noisy pose.

With A_k = sqrt(alpha_bar_k), B_k = sqrt(1 - alpha_bar_k) and C_k = A_k + B_k, a noisy pose eps = x_0 + e gives

    x_k = A_k x_0 + B_k eps = C_k x_0 + B_k e,    k = 0 .. T

so that x_T is (all but) the lifter's output, and a predicted error e takes it back. The paper's eq. 7 lacks a root and
its eq. 8 has eps for e; eqs. 3 and 9, which are followed, agree with each other. C_k is 1 at both ends and sqrt(2) half
way: the pose is magnified on the way.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from posegrid.models.diffusion.schedules import cosine

PredictError = Callable[[Tensor, int], Tensor]
"""(pose at step k, k) -> predicted error of the same shape."""


def alpha_bars(steps: int, exact_end: bool = False) -> Tensor:
    """alpha_bar_k of the cosine schedule for k = 0 .. T, (T + 1,) float64, alpha_bar_0 = 1.

    exact_end: alpha_bar_T = 0 instead of some 1e-6, so that x_T is the noisy pose exactly.
    """
    bars = torch.cat([torch.ones(1, dtype=torch.float64, device="cpu"), cosine(steps).alpha_bar])
    if exact_end:
        bars[-1] = 0.0
    return bars


def uniform_steps(steps: int, evaluations: int) -> list[int]:
    """`evaluations` steps from T down, evenly spaced, ending with 0: 50, 25, 0 for T = 50 and K = 2."""
    return [round(steps * (evaluations - index) / evaluations) for index in range(evaluations + 1)]


class PoseToNoise(nn.Module):
    """The process with its coefficients, float64, beside the model's weights."""

    noise_scale: Tensor
    pose_scale: Tensor

    def __init__(self, bars: Tensor):
        """bars: (T + 1,) float64 alpha_bar_0 .. alpha_bar_T."""
        super().__init__()
        self.steps = len(bars) - 1
        self.register_buffer("noise_scale", (1 - bars).sqrt(), persistent=False)
        self.register_buffer("pose_scale", bars.sqrt() + (1 - bars).sqrt(), persistent=False)

    def noised(self, clean: Tensor, error: Tensor, step: Tensor) -> Tensor:
        """x_k = C_k x_0 + B_k e (eq. 3). clean, error (B, ...), steps (B,)."""
        pose_scale, noise_scale = self.at(step, clean)
        return pose_scale * clean + noise_scale * error

    def clean(self, noisy: Tensor, error: Tensor, step: Tensor) -> Tensor:
        """x_0 = (x_k - B_k e) / C_k: the inverse of `noised`."""
        pose_scale, noise_scale = self.at(step, noisy)
        return (noisy - noise_scale * error) / pose_scale

    def jump(self, noisy: Tensor, error: Tensor, step: Tensor, to: Tensor) -> Tensor:
        """x_k' from x_k with the same error (eq. 9); at k' = 0 the clean pose."""
        return self.noised(self.clean(noisy, error, step), error, to)

    def denoised(self, noisy: Tensor, predict: PredictError, steps: Sequence[int]) -> Tensor:
        """The clean pose (B, ...) from x_T, which `noisy` stands for: one prediction at each of `steps` but the last.

        steps: descending from T, ending with 0. Nothing is drawn.
        """
        state = noisy
        for step, to in pairwise(steps):
            now, then = (torch.tensor([k], device=noisy.device) for k in (step, to))
            state = self.jump(state, predict(state, step), now, then)
        return state

    def at(self, step: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """C_k and B_k of steps (B,) or (1,), shaped and typed to be multiplied with `like` (B, ...)."""
        shape = (-1,) + (1,) * (like.ndim - 1)
        return tuple(scale[step].to(like.dtype).view(shape) for scale in (self.pose_scale, self.noise_scale))  # type: ignore[return-value]
