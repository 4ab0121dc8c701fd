"""Samplers: functions from noise to a clean signal, all with the signature of `Sampler`.

Notation: a chain visits the steps t_1 > t_2 > ... > t_K of the schedule and then the noise-free end, where the kept
power is 1. A = alpha_bar at the present step, A' at the next one to visit.
"""

from collections.abc import Callable, Iterator, Sequence
from math import exp, log, sqrt
from typing import Protocol

from torch import Tensor

from posegrid.models.diffusion.gaussian import Predict
from posegrid.models.diffusion.schedules import Schedule

NoiseAt = Callable[[int], Tensor]
"""k -> the k-th draw of a chain: 0 is the initial state, k >= 1 is added after the k-th evaluation of the network."""


class Sampler(Protocol):
    """What every sampler is called with."""

    def __call__(
        self,
        predict: Predict,
        schedule: Schedule,
        noise_at: NoiseAt,
        times: Sequence[int] | None = None,
        eta: float = 0.0,
    ) -> Tensor:
        """A clean signal of the shape of `noise_at(0)`.

        times: steps to visit, highest first (see `schedules.sampling_times`); None: all of the schedule. eta: how much
        noise is added on the way, for those that can choose. Draws are asked for in order and at most once each.
        """


def ddpm(
    predict: Predict, schedule: Schedule, noise_at: NoiseAt, times: Sequence[int] | None = None, eta: float = 0.0
) -> Tensor:
    """Ho et al.'s ancestral sampling (2020, algorithm 2) with the posterior's variance; eta is not read.

    mu = (x - beta / sqrt(1 - A) noise) / sqrt(alpha) with alpha = A / A' and beta = 1 - alpha, which for skipped steps
    are the coefficients of the shortened process (Nichol and Dhariwal, 2021, equation 19); x' = mu + sigma z,
    sigma^2 = beta (1 - A') / (1 - A).
    """
    state = noise_at(0)
    for evaluation, step, kept, ahead in _visited(schedule, times):
        alpha = kept / ahead
        noise = predict(state, step).noise
        state = (state - noise * ((1 - alpha) / sqrt(1 - kept))) / sqrt(alpha)
        if ahead < 1:
            state = state + noise_at(evaluation) * sqrt((1 - alpha) * (1 - ahead) / (1 - kept))
    return state


def ddim(
    predict: Predict, schedule: Schedule, noise_at: NoiseAt, times: Sequence[int] | None = None, eta: float = 0.0
) -> Tensor:
    """Song et al. (2021), equation 12: deterministic with eta = 0, the posterior of DDPM with eta = 1.

    sigma^2 = eta^2 (1 - A / A') (1 - A') / (1 - A); x' = sqrt(A') clean + sqrt(1 - A' - sigma^2) noise + sigma z.
    Raises ValueError if eta is so large that the variance left for the predicted noise is negative.
    """
    state = noise_at(0)
    for evaluation, step, kept, ahead in _visited(schedule, times):
        variance = eta**2 * (1 - kept / ahead) * (1 - ahead) / (1 - kept)
        left = 1 - ahead - variance
        if left < -1e-12:
            raise ValueError(
                f"sampler ddim was given eta = {eta:g}: the noise added after step {step} would exceed what is there. "
                "Allowed are values that keep 1 - A' - sigma^2 positive, all from 0 to 1 among them. Lower eta."
            )
        said = predict(state, step)
        state = said.clean * sqrt(ahead) + said.noise * sqrt(max(left, 0.0))
        if variance > 0:
            state = state + noise_at(evaluation) * sqrt(variance)
    return state


def dpm_solver(
    predict: Predict, schedule: Schedule, noise_at: NoiseAt, times: Sequence[int] | None = None, eta: float = 0.0
) -> Tensor:
    """DPM-Solver++(2M), Lu et al. (2022), algorithm 2: second order, deterministic, one evaluation a step; eta is not
    read.

    With the log signal-to-noise ratio l = log(sqrt(A) / sqrt(1 - A)) and h = l' - l:
    x' = sqrt((1 - A') / (1 - A)) x - sqrt(A') (e^-h - 1) D, D = clean + h / (2 h_before) (clean - clean_before).
    The first step and the last one, which ends without noise and returns the clean estimate, are of first order.
    """
    state = noise_at(0)
    before: tuple[Tensor, float] | None = None
    for _, step, kept, ahead in _visited(schedule, times):
        clean = predict(state, step).clean
        if ahead == 1:
            return clean
        length = _log_ratio(ahead) - _log_ratio(kept)
        direction = clean
        if before is not None:
            direction = clean + (clean - before[0]) * (length / (2 * before[1]))
        state = state * sqrt((1 - ahead) / (1 - kept)) - direction * (sqrt(ahead) * (exp(-length) - 1))
        before = clean, length
    return state


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "dpm_solver": dpm_solver}
"""All samplers by the name that a recipe gives them."""


def _visited(schedule: Schedule, times: Sequence[int] | None) -> Iterator[tuple[int, int, float, float]]:
    """(number of the evaluation from 1, step, A, A') for every step of the chain."""
    kept = schedule.alpha_bar.tolist()
    steps = range(len(kept) - 1, -1, -1) if times is None else times
    ends = [kept[step] for step in steps[1:]] + [1.0]
    for evaluation, (step, ahead) in enumerate(zip(steps, ends, strict=True), start=1):
        yield evaluation, step, kept[step], ahead


def _log_ratio(kept: float) -> float:
    return (log(kept) - log(1 - kept)) / 2
