"""Gaussian diffusion: the forward process and what a noise prediction says about the clean signal.

Legend: B windows; signals are (B, ...), steps (B,) integers.
"""

from torch import Tensor, nn

from posegrid.models.diffusion.schedules import Schedule


class GaussianDiffusion(nn.Module):
    """q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I) with the coefficients beside the model's weights."""

    signal_scale: Tensor
    noise_scale: Tensor

    def __init__(self, schedule: Schedule):
        super().__init__()
        self.schedule = schedule
        self.register_buffer("signal_scale", schedule.alpha_bar.sqrt().float(), persistent=False)
        self.register_buffer("noise_scale", (1 - schedule.alpha_bar).sqrt().float(), persistent=False)

    def noised(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise."""
        signal_scale, noise_scale = self._at(step, clean)
        return signal_scale * clean + noise_scale * noise

    def clean(self, noisy: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """x_0 = (x_t - sqrt(1 - alpha_bar_t) noise) / sqrt(alpha_bar_t): the inverse of `noised`."""
        signal_scale, noise_scale = self._at(step, noisy)
        return (noisy - noise_scale * noise) / signal_scale

    def _at(self, step: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1,) + (1,) * (like.ndim - 1)
        return self.signal_scale[step].view(shape), self.noise_scale[step].view(shape)
