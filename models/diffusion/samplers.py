"""Samplers: functions from noise to a clean signal, all with the signature of `ancestral`."""

from collections.abc import Callable

from torch import Tensor

from posegrid.models.diffusion.schedules import Schedule

PredictNoise = Callable[[Tensor, int], Tensor]
"""(noisy signal, step index) -> predicted noise of the same shape."""
NoiseAt = Callable[[int], Tensor]
"""k -> the k-th draw of a chain: 0 is the initial state, k >= 1 is added after the k-th evaluation of the network."""


def ancestral(predict_noise: PredictNoise, schedule: Schedule, noise_at: NoiseAt) -> Tensor:
    """Ho et al.'s ancestral sampling over all steps, S - 1 first.

    mu = (x_t - beta_t / sqrt(1 - alpha_bar_t) noise) / sqrt(alpha_t); x_{t-1} = mu + sigma_t z, and mu at t = 0.
    """
    beta, alpha, sigma = schedule.beta.tolist(), schedule.alpha.tolist(), schedule.sigma.tolist()
    remaining = (1 - schedule.alpha_bar).tolist()
    state = noise_at(0)
    for evaluation, step in enumerate(reversed(range(len(schedule))), start=1):
        noise = predict_noise(state, step)
        state = (state - noise * (beta[step] / remaining[step] ** 0.5)) / alpha[step] ** 0.5
        if step > 0:
            state = state + noise_at(evaluation) * sigma[step]
    return state
