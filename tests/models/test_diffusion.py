"""Schedules, the forward process and the samplers, which must agree where the exact answer is known."""

import pytest
import torch

from posegrid.models.diffusion.gaussian import GaussianDiffusion
from posegrid.models.diffusion.samplers import ancestral
from posegrid.models.diffusion.schedules import cosine

SAMPLERS = [ancestral]


@pytest.mark.parametrize(("steps", "cap"), [(50, 0.5), (50, 0.999), (1, 0.5), (7, 0.2)])
def test_schedule_identities(steps, cap):
    schedule = cosine(steps, cap)
    assert len(schedule) == steps
    assert schedule.beta.dtype == torch.float64
    assert schedule.beta.max() <= cap
    torch.testing.assert_close(schedule.alpha + schedule.beta, torch.ones(steps, dtype=torch.float64))
    assert (schedule.alpha_bar.diff() < 0).all()
    assert schedule.alpha_bar[0] == schedule.alpha[0]
    assert schedule.sigma[0] == 0
    assert (schedule.sigma.square() <= schedule.beta + 1e-15).all()


def test_last_step_with_the_true_noise_returns_the_clean_signal():
    schedule = cosine(1, 0.5)
    clean, noise = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    noisy = GaussianDiffusion(schedule).noised(clean, noise, torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(ancestral(lambda _x, _t: noise, schedule, lambda _k: noisy), clean)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_exact_noise_of_a_gaussian_gives_that_gaussian(sampler):
    mean, deviation, count = 0.7, 0.5, 20_000
    schedule = cosine(200)
    generator = torch.Generator().manual_seed(0)

    def exact_noise(noisy: torch.Tensor, step: int) -> torch.Tensor:
        kept = schedule.alpha_bar[step].item()
        return (1 - kept) ** 0.5 * (noisy - kept**0.5 * mean) / (kept * deviation**2 + 1 - kept)

    samples = sampler(exact_noise, schedule, lambda _k: torch.randn(count, generator=generator))
    # Standard errors: deviation / sqrt(n) = 0.0035 and deviation / sqrt(2 n) = 0.0025; tolerances are 4 of them plus
    # 0.01 for 200 finite steps.
    assert samples.mean().item() == pytest.approx(mean, abs=0.024)
    assert samples.std().item() == pytest.approx(deviation, abs=0.02)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_are_asked_for_in_order_and_once(sampler):
    asked = []

    def noise_at(draw: int) -> torch.Tensor:
        asked.append(draw)
        return torch.zeros(2)

    sampler(lambda x, _t: x, cosine(5), noise_at)
    assert asked == [0, 1, 2, 3, 4]
