"""Gaussian diffusion: the forward process, and what a prediction of the noise or of the clean signal says.

Legend: B windows; signals are (B, ...), steps (B,) integers or one integer for all.
"""

from collections.abc import Callable
from dataclasses import dataclass

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

    def noise(self, noisy: Tensor, clean: Tensor, step: Tensor) -> Tensor:
        """noise = (x_t - sqrt(alpha_bar_t) x_0) / sqrt(1 - alpha_bar_t): the other inverse of `noised`."""
        signal_scale, noise_scale = self._at(step, noisy)
        return (noisy - signal_scale * clean) / noise_scale

    def _at(self, step: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1,) + (1,) * (like.ndim - 1)
        return self.signal_scale[step].view(shape), self.noise_scale[step].view(shape)


@dataclass(frozen=True)
class Prediction:
    """What a network says of a noisy signal: two sides of one statement, since x_t is known."""

    clean: Tensor
    """Estimate of x_0, any shape."""
    noise: Tensor
    """Estimate of the noise in x_t, same shape."""


Network = Callable[[Tensor, int], Tensor]
"""(noisy signal, step index) -> noise or clean signal of the same shape."""
Predict = Callable[[Tensor, int], Prediction]
"""(noisy signal, step index) -> what the network says of it: what every sampler calls."""


def predicting_noise(network: Network, schedule: Schedule) -> Predict:
    """For networks that predict the noise, as DiffHPE's."""
    kept = schedule.alpha_bar.tolist()

    def predict(noisy: Tensor, step: int) -> Prediction:
        noise = network(noisy, step)
        return Prediction((noisy - (1 - kept[step]) ** 0.5 * noise) / kept[step] ** 0.5, noise)

    return predict


def predicting_clean(network: Network, schedule: Schedule) -> Predict:
    """For networks that predict the clean signal, as D3DP's."""
    kept = schedule.alpha_bar.tolist()

    def predict(noisy: Tensor, step: int) -> Prediction:
        clean = network(noisy, step)
        return Prediction(clean, (noisy - kept[step] ** 0.5 * clean) / (1 - kept[step]) ** 0.5)

    return predict


def guided(conditional: Predict, unconditional: Predict, weight: float) -> Predict:
    """Classifier-free guidance: (1 + w) conditional - w unconditional prediction (Ho and Salimans, 2021, equation 6).

    Clean signal and noise are linear in each other for a given x_t, so the rule holds for both. Weight 0 is the
    conditional prediction, -1 the unconditional one. The networks are called once each, whatever the weight.
    """

    def predict(noisy: Tensor, step: int) -> Prediction:
        with_, without = conditional(noisy, step), unconditional(noisy, step)
        return Prediction(
            (1 + weight) * with_.clean - weight * without.clean, (1 + weight) * with_.noise - weight * without.noise
        )

    return predict
