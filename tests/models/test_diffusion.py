"""Schedules, the forward process and the samplers, which must agree where the exact answer is known."""

import inspect
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from posegrid.models.diffusion import samplers
from posegrid.models.diffusion.chain import Chain
from posegrid.models.diffusion.gaussian import (
    GaussianDiffusion,
    Predict,
    Prediction,
    guided,
    predicting_clean,
    predicting_noise,
)
from posegrid.models.diffusion.samplers import SAMPLERS
from posegrid.models.diffusion.schedules import Schedule, cosine, from_betas, linear, sampling_times

SCHEDULES = {"cosine": cosine(200), "cosine-capped": cosine(200, 0.5), "linear": linear(200, 1e-4, 0.1)}
WAYS = [(name, eta) for name in SAMPLERS for eta in ((0.0, 0.5, 1.0) if name == "ddim" else (0.0,))]


@dataclass
class Gaussian:
    """Data from N(mean, deviation^2): the expected clean signal and noise given a noisy one are known."""

    schedule: Schedule
    mean: float = 0.7
    deviation: float = 0.5

    def clean(self, noisy: Tensor, step: int) -> Tensor:
        kept = self.schedule.alpha_bar[step].item()
        gain = kept**0.5 * self.deviation**2 / (kept * self.deviation**2 + 1 - kept)
        return self.mean + gain * (noisy - kept**0.5 * self.mean)

    def noise(self, noisy: Tensor, step: int) -> Tensor:
        kept = self.schedule.alpha_bar[step].item()
        return (1 - kept) ** 0.5 * (noisy - kept**0.5 * self.mean) / (kept * self.deviation**2 + 1 - kept)

    def predict(self, noisy: Tensor, step: int) -> Prediction:
        return Prediction(self.clean(noisy, step), self.noise(noisy, step))

    def flowed(self, start: Tensor) -> Tensor:
        """Where the probability flow carries a state of the last step: it keeps the number of deviations."""
        kept = self.schedule.alpha_bar[-1].item()
        spread = (kept * self.deviation**2 + 1 - kept) ** 0.5
        return self.mean + self.deviation * (start - kept**0.5 * self.mean) / spread


def drawn(*shape: int, seed: int = 0):  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(seed)
    return lambda _k: torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("steps", "cap"), [(50, 0.5), (50, 0.999), (1, 0.5), (7, 0.2), (1000, 0.999)])
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


def test_linear_schedule_of_diffpose():
    schedule = linear(51, 1e-4, 1e-3)
    assert schedule.beta[0] == 1e-4
    assert schedule.beta[-1] == pytest.approx(1e-3)
    assert schedule.alpha_bar[-1].item() == pytest.approx(0.9723, abs=1e-4)


def test_sampling_times():
    assert sampling_times(1000, 5) == [999, 799, 599, 399, 199]
    assert sampling_times(1000, 1) == [999]
    assert sampling_times(50, 50) == sampling_times(50, 50, "skip") == list(range(49, -1, -1))
    assert sampling_times(51, 4, "skip") == [36, 24, 12, 0]
    for steps in range(1, 51):
        for spacing in ("ends", "skip"):
            times = sampling_times(50, steps, spacing)
            assert len(times) == steps
            assert all(later < earlier for earlier, later in pairwise(times))
    with pytest.raises(ValueError, match=r"51 steps was asked for \(evaluation.steps\).*trained with 50"):
        sampling_times(50, 51)
    with pytest.raises(ValueError, match=r'spacing "even".*Known: ends, skip'):
        sampling_times(50, 5, "even")  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_noise_and_clean_signal_are_two_sides_of_one_statement(schedule):
    diffusion = GaussianDiffusion(schedule).double()
    clean, noise = torch.randn(2, 200, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    steps = torch.arange(200)
    noisy = diffusion.noised(clean, noise, steps)
    # the coefficients are stored as float32 beside the weights, so inverses return what went in up to the scale
    scale = diffusion.signal_scale.reciprocal().max().item()
    torch.testing.assert_close(diffusion.clean(noisy, noise, steps), clean, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(diffusion.noise(noisy, clean, steps), noise, rtol=0, atol=1e-12 * 200)
    for step in (0, 100, 199):
        exact = schedule.alpha_bar[step].sqrt() * clean + (1 - schedule.alpha_bar[step]).sqrt() * noise
        for said in (
            predicting_noise(lambda _x, _t: noise, schedule)(exact, step),
            predicting_clean(lambda _x, _t: clean, schedule)(exact, step),
        ):
            torch.testing.assert_close(said.clean, clean, rtol=0, atol=1e-9)
            torch.testing.assert_close(said.noise, noise, rtol=0, atol=1e-9)


def test_every_sampler_is_listed_and_has_the_signature():
    defined = {
        name
        for name, function in vars(samplers).items()
        if inspect.isfunction(function) and function.__module__ == samplers.__name__ and not name.startswith("_")
    }
    assert defined == set(SAMPLERS)
    signatures = {str(inspect.signature(sampler)) for sampler in SAMPLERS.values()}
    assert len(signatures) == 1


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(("name", "eta"), WAYS)
def test_the_exact_denoiser_of_a_gaussian_gives_that_gaussian(name, eta, schedule):
    count, data = 20_000, Gaussian(schedule)
    # starts at what the schedule ends with, which for the capped one is not N(0, 1)
    kept = schedule.alpha_bar[-1].item()
    noise = drawn(count)

    def noise_at(draw: int) -> Tensor:
        if draw:
            return noise(draw)
        return kept**0.5 * data.mean + (kept * data.deviation**2 + 1 - kept) ** 0.5 * noise(0)

    samples = SAMPLERS[name](data.predict, schedule, noise_at, eta=eta)
    # Standard errors: deviation / sqrt(n) = 0.0035 and deviation / sqrt(2 n) = 0.0025; tolerances are 4 of them plus
    # 0.01 for 200 finite steps.
    assert samples.mean().item() == pytest.approx(data.mean, abs=0.024)
    assert samples.std().item() == pytest.approx(data.deviation, abs=0.02)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm_solver", 2)])
def test_deterministic_samplers_converge_to_the_probability_flow(name, order):
    schedule = linear(1600, 1e-5, 0.01)
    data = Gaussian(schedule)
    start = torch.linspace(-2, 2, 5, dtype=torch.float64)
    # dense where little noise is left, as the ratio of signal to noise changes fastest there

    def error(steps: int) -> float:
        times = [round((step / (steps - 1)) ** 2 * 1599) for step in reversed(range(steps))]
        return (SAMPLERS[name](data.predict, schedule, lambda _k: start, times) - data.flowed(start)).abs().max().item()

    errors = [error(steps) for steps in (10, 20, 40)]
    for coarse, fine in pairwise(errors):
        assert coarse / fine > 1.6 * 2 ** (order - 1)
    assert errors[-1] < (0.06, 0.01)[order - 1]


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("spacing", ["ends", "skip"])
@pytest.mark.parametrize(("name", "eta"), WAYS)
def test_a_perfect_prediction_returns_the_clean_signal_for_any_number_of_steps(name, eta, spacing, steps):
    schedule = cosine(50)
    clean = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    calls = []

    def network(_x: Tensor, step: int) -> Tensor:
        calls.append(step)
        return clean

    chain = Chain(sampler=name, eta=eta, steps=steps, spacing=spacing)
    sampled = chain.run(predicting_clean(network, schedule), schedule, drawn(4, 3))
    torch.testing.assert_close(sampled, clean, rtol=0, atol=1e-9)
    assert calls == chain.times(schedule)


@pytest.mark.parametrize("steps", [50, 5])
def test_ddim_with_eta_one_is_the_posterior_of_ddpm(steps):
    schedule = cosine(50, 0.5)
    network = torch.nn.Linear(3, 3).double().requires_grad_(False)
    times = sampling_times(50, steps)
    found = [
        SAMPLERS[name](predicting_noise(lambda x, t: network(x) * (1 + t / 50), schedule), schedule, noise, times, eta)
        for name, eta, noise in (("ddpm", 0.0, drawn(6, 3)), ("ddim", 1.0, drawn(6, 3)))
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_a_step_of_ddpm_is_the_posterior_of_the_forward_process():
    """q(x_{t-1} | x_t, x_0) by Bayes' rule from q(x_t | x_{t-1}) and q(x_{t-1} | x_0), two Gaussians."""
    schedule, clean, noisy = cosine(20), 0.4, -0.3
    step, unit = 12, torch.ones(1, dtype=torch.float64)
    before, beta = schedule.alpha_bar[step - 1].item(), schedule.beta[step].item()
    precision = 1 / (1 - before) + (1 - beta) / beta
    mean = (before**0.5 * clean / (1 - before) + (1 - beta) ** 0.5 * noisy / beta) / precision
    states = []

    def predict(x: Tensor, t: int) -> Prediction:
        states.append(x)
        return predicting_clean(lambda _x, _t: clean * unit, schedule)(x, t)

    for shock in (0.0, 1.0):
        SAMPLERS["ddpm"](predict, schedule, lambda k, s=shock: (s if k else noisy) * unit, [step, step - 1])
    assert states[1].item() == pytest.approx(mean, abs=1e-12)
    assert (states[3] - states[1]).item() == pytest.approx(precision**-0.5, abs=1e-12)
    assert schedule.sigma[step].item() == pytest.approx(precision**-0.5, abs=1e-12)


def test_last_step_with_the_true_noise_returns_the_clean_signal():
    schedule = cosine(1, 0.5)
    clean, noise = torch.randn(2, 4, 3)
    noisy = GaussianDiffusion(schedule).noised(clean, noise, torch.zeros(4, dtype=torch.long))
    for sampler in SAMPLERS.values():
        predict = predicting_noise(lambda _x, _t: noise, schedule)
        torch.testing.assert_close(sampler(predict, schedule, lambda _k: noisy), clean)


@pytest.mark.parametrize(("name", "eta"), WAYS)
def test_draws_are_asked_for_in_order_and_once(name, eta):
    asked = []

    def noise_at(draw: int) -> torch.Tensor:
        asked.append(draw)
        return torch.zeros(2)

    schedule = cosine(5)
    SAMPLERS[name](predicting_noise(lambda x, _t: x, schedule), schedule, noise_at, eta=eta)
    assert asked == ([0, 1, 2, 3, 4] if name == "ddpm" or eta else [0])


@pytest.mark.parametrize("kind", [predicting_noise, predicting_clean])
def test_guidance_is_the_same_rule_for_noise_and_clean_signal(kind):
    schedule = cosine(10)
    noisy, with_, without = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def says(value: Tensor) -> Predict:
        return kind(lambda _x, _t: value, schedule)

    for weight, expected in ((0.0, with_), (-1.0, without), (2.0, 3 * with_ - 2 * without)):
        said = guided(says(with_), says(without), weight)(noisy, 7)
        direct = says(expected)(noisy, 7)
        torch.testing.assert_close(said.clean, direct.clean)
        torch.testing.assert_close(said.noise, direct.noise)


def test_chain_errors_say_what_is_known():
    with pytest.raises(ValueError, match=r'sampler "dim".*did you mean "ddim".*Known: ddpm, ddim, dpm_solver'):
        Chain(sampler="dim")
    for wrong in ({"steps": -1}, {"eta": -0.1}, {"eta": float("nan")}):
        with pytest.raises(ValueError, match="both must be at least 0"):
            Chain(**wrong)
    schedule = from_betas([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="4 steps was asked for"):
        Chain(steps=4).times(schedule)
    with pytest.raises(ValueError, match="ddim was given eta = 3"):
        Chain(sampler="ddim", eta=3.0).run(predicting_noise(lambda x, _t: x, schedule), schedule, drawn(2))
    assert Chain().times(schedule) == [2, 1, 0]
