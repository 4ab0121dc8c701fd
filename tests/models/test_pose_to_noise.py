"""The process of D3PRefiner: every identity of the paper, with exact and with absent predictions of the error."""

from math import cos, pi, sqrt

import pytest
import torch

from posegrid.models.diffusion.pose_to_noise import PoseToNoise, alpha_bars, uniform_steps


@pytest.fixture
def process() -> PoseToNoise:
    """The published 50 steps."""
    return PoseToNoise(alpha_bars(50))


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Clean poses and errors of 4 windows, float64."""
    generator = torch.Generator().manual_seed(0)
    clean, error = torch.randn(2, 4, 3, 17, 3, generator=generator, dtype=torch.float64)
    return clean * 0.4, error * 0.05


def closed_form(step: int) -> float:
    """Cosine schedule without the cap, which acts on the last step only."""
    return (cos((step / 50 + 0.008) / 1.008 * pi / 2) / cos(0.008 / 1.008 * pi / 2)) ** 2


def test_schedule():
    bars = alpha_bars(50)
    assert bars[0] == 1
    assert bars[25].item() == pytest.approx(0.493844, abs=5e-7)
    assert bars[50].item() == pytest.approx(9.71e-7, rel=1e-3)
    assert bars[:50].tolist() == pytest.approx([closed_form(k) for k in range(50)], rel=1e-12)
    assert bars[50].item() == pytest.approx(closed_form(49) * 0.001, rel=1e-12)
    assert alpha_bars(50, exact_end=True)[50] == 0


def test_magnification(process):
    scales = process.pose_scale
    published = {0: 1.0, 1: 1.0409, 12: 1.3031, 25: 1.41419, 37: 1.3132, 50: 1.00099}
    for step, value in published.items():
        assert scales[step].item() == pytest.approx(value, abs=6e-5), step
    bars = alpha_bars(50)
    torch.testing.assert_close(scales**2, 1 + 2 * (bars * (1 - bars)).sqrt(), rtol=1e-14, atol=0)
    assert scales.max() <= sqrt(2)
    assert PoseToNoise(torch.tensor([1.0, 0.5], dtype=torch.float64)).pose_scale[1].item() == pytest.approx(sqrt(2))
    assert process.noise_scale[0] == 0


def test_both_forms_of_the_forward_process_agree(process, pair):
    clean, error = pair
    bars = alpha_bars(50)
    for step in range(51):
        noisy_pose = clean + error
        other = bars[step].sqrt() * clean + (1 - bars[step]).sqrt() * noisy_pose
        torch.testing.assert_close(process.noised(clean, error, torch.tensor([step])), other, rtol=0, atol=1e-15)


def test_each_window_has_a_step_of_its_own(process, pair):
    clean, error = pair
    steps = torch.tensor([0, 7, 25, 50])
    together = process.noised(clean, error, steps)
    for row, step in enumerate(steps):
        assert together[row].equal(process.noised(clean[row : row + 1], error[row : row + 1], step[None])[0])
    torch.testing.assert_close(process.clean(together, error, steps), clean, rtol=0, atol=1e-15)


@pytest.mark.parametrize("evaluations", [1, 2, 3, 10, 50])
def test_perfect_prediction_recovers_the_clean_pose(process, pair, evaluations):
    clean, error = pair
    start = process.noised(clean, error, torch.tensor([50]))
    found = process.denoised(start, lambda _pose, _step: error, uniform_steps(50, evaluations))
    assert (found - clean).abs().max() < 1e-14


def test_any_subset_of_steps_recovers_it(process, pair):
    clean, error = pair
    start = process.noised(clean, error, torch.tensor([50]))
    found = process.denoised(start, lambda _pose, _step: error, [50, 49, 31, 3, 0])
    assert (found - clean).abs().max() < 1e-14


def test_steps_are_visited_in_order(process, pair):
    clean, error = pair
    seen = []

    def predict(pose: torch.Tensor, step: int) -> torch.Tensor:
        seen.append(step)
        torch.testing.assert_close(pose, process.noised(clean, error, torch.tensor([step])), rtol=0, atol=1e-14)
        return error

    process.denoised(process.noised(clean, error, torch.tensor([50])), predict, uniform_steps(50, 2))
    assert seen == [50, 25]
    assert uniform_steps(50, 2) == [50, 25, 0]
    assert uniform_steps(50, 1) == [50, 0]
    assert uniform_steps(1, 1) == [1, 0]


def test_without_error_the_chain_only_undoes_the_last_magnification(process, pair):
    noisy = pair[0]
    found = process.denoised(noisy, lambda pose, _step: torch.zeros_like(pose), [50, 25, 0])
    torch.testing.assert_close(found, noisy / 1.0009854, rtol=1e-6, atol=0)


def test_the_lifted_pose_in_place_of_the_last_state_costs_a_thousandth(process, pair):
    clean, error = pair
    found = process.denoised(clean + error, lambda _pose, _step: error, [50, 25, 0])
    bias = (found - clean).norm(dim=-1) / (clean + error).norm(dim=-1)
    assert 5e-4 < bias.median() < 1.5e-3
    exact = PoseToNoise(alpha_bars(50, exact_end=True))
    found = exact.denoised(clean + error, lambda _pose, _step: error, [50, 25, 0])
    assert (found - clean).abs().max() < 1e-14


def test_one_step_subtracts_the_prediction(process, pair):
    noisy, predicted = pair
    found = process.denoised(noisy, lambda _pose, _step: predicted, [50, 0])
    last = alpha_bars(50)[50].item()
    scale = sqrt(last) + sqrt(1 - last)
    torch.testing.assert_close(found, (noisy - sqrt(1 - last) * predicted) / scale, rtol=1e-12, atol=0)
    assert (found - (noisy - predicted)).abs().max() < 2e-3


def test_error_is_recoverable_from_the_clean_pose_and_its_state(process, pair):
    clean, error = pair
    for step in (1, 12, 25, 50):
        k = torch.tensor([step])
        pose_scale, noise_scale = process.at(k, clean)
        state = process.noised(clean, error, k)
        torch.testing.assert_close((state - pose_scale * clean) / noise_scale, error, rtol=0, atol=1e-14)


def test_jump_keeps_the_error(process, pair):
    clean, error = pair
    state = process.noised(clean, error, torch.tensor([40]))
    moved = process.jump(state, error, torch.tensor([40]), torch.tensor([13]))
    torch.testing.assert_close(moved, process.noised(clean, error, torch.tensor([13])), rtol=0, atol=1e-14)


def test_bayes_optimal_prediction_is_linear_and_beats_its_neighbours(process):
    # x_0 and e independent scalars: E[e | x_k] = B s_e^2 / (C^2 s_x^2 + B^2 s_e^2) x_k
    generator = torch.Generator().manual_seed(1)
    clean, error = torch.randn(2, 200_000, 1, generator=generator, dtype=torch.float64)
    clean, error = clean * 0.3, error * 0.05
    for step in (10, 25, 50):
        state = process.noised(clean, error, torch.tensor([step]))
        fitted = (state * error).sum() / state.square().sum()
        scale, noise = (float(part) for part in process.at(torch.tensor([step]), clean))
        wanted = noise * 0.05**2 / (scale**2 * 0.3**2 + noise**2 * 0.05**2)
        assert fitted.item() == pytest.approx(wanted, abs=4e-4)
