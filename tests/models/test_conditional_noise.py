"""Errors given what was read and returned: against least squares, and the identities of conditional Gaussians."""

import numpy as np
import pytest
import torch

from posegrid.models.blocks.draws import Draws
from posegrid.models.diffusion.conditional_noise import (
    ConditionalNoise,
    Moments,
    clipped_root,
    conditional,
    moment_sums,
    moments_of,
    over_time,
)
from posegrid.models.interface import Batch

FRAMES, WIDTH, GIVEN = 3000, 6, 10


def correlated(seed: int = 0, joints: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors (N, 3 J) that depend on what is given (N, 5 J), and noise of its own that joints share."""
    generator = torch.Generator().manual_seed(seed)
    given = torch.randn(FRAMES, 5 * joints, generator=generator, dtype=torch.float64)
    given = given @ torch.randn(5 * joints, 5 * joints, generator=generator, dtype=torch.float64) + 0.7
    own = torch.randn(FRAMES, 3 * joints, generator=generator, dtype=torch.float64)
    own = own @ torch.randn(3 * joints, 3 * joints, generator=generator, dtype=torch.float64)
    gain = torch.randn(5 * joints, 3 * joints, generator=generator, dtype=torch.float64) * 0.3
    return given @ gain + own - 0.2, given


def estimated(error: torch.Tensor, given: torch.Tensor) -> Moments:
    return moments_of(moment_sums(error, given), error.shape[1])


def draws(windows: int, seed: int = 0) -> Draws:
    empty = Batch(keypoints=torch.zeros(windows, 1, 1, 2), visible=torch.ones(windows, 1, 1, dtype=torch.bool))
    return Draws(empty, torch.Generator().manual_seed(seed))


def test_moments_are_those_of_numpy_and_add_up():
    error, given = correlated()
    parts = [moment_sums(error[first : first + 700], given[first : first + 700]) for first in range(0, FRAMES, 700)]
    moments = moments_of(torch.stack(parts).sum(0), WIDTH)
    covariance = np.cov(np.concatenate([error, given], 1), rowvar=False, ddof=0)
    np.testing.assert_allclose(moments.error, error.mean(0), rtol=1e-10)
    np.testing.assert_allclose(moments.given, given.mean(0), rtol=1e-10)
    np.testing.assert_allclose(moments.error_error, covariance[:WIDTH, :WIDTH], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.error_given, covariance[:WIDTH, WIDTH:], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.given_given, covariance[WIDTH:, WIDTH:], rtol=1e-9, atol=1e-9)
    assert moments.absolute == pytest.approx(float(np.abs(error).mean()))
    with pytest.raises(ValueError, match=r"0 frames; at least one window .* Lower training.batch"):
        moments_of(torch.zeros_like(parts[0]), WIDTH)


def test_conditional_mean_is_the_regression_and_the_rest_its_residuals():
    error, given = correlated()
    gain, covariance = conditional(estimated(error, given))
    design = np.concatenate([given, np.ones((FRAMES, 1))], 1)
    fitted, *_ = np.linalg.lstsq(design, error.numpy(), rcond=None)
    np.testing.assert_allclose(gain, fitted[:-1].T, rtol=1e-8, atol=1e-10)
    residual = error.numpy() - design @ fitted
    np.testing.assert_allclose(covariance, residual.T @ residual / FRAMES, rtol=1e-8, atol=1e-9)
    noise = ConditionalNoise(2).double()
    noise.settle(estimated(error, given), 0.0)
    np.testing.assert_allclose(noise.mean(given[None])[0], design @ fitted, rtol=1e-7, atol=1e-8)


def test_total_variance():
    error, given = correlated()
    moments = estimated(error, given)
    gain, covariance = conditional(moments)
    explained = gain @ moments.given_given @ gain.T
    torch.testing.assert_close(covariance + explained, moments.error_error, rtol=1e-10, atol=1e-10)
    assert covariance.trace() < moments.error_error.trace()


def test_independent_errors_keep_their_moments():
    error, given = correlated()
    moments = estimated(error, given)
    apart = Moments(**{**vars(moments), "error_given": torch.zeros_like(moments.error_given)})
    gain, covariance = conditional(apart, 1e-6)
    assert not gain.any()
    assert covariance.equal(moments.error_error)


def test_perfect_linear_relation_leaves_nothing():
    _, given = correlated()
    error = given @ torch.arange(60, dtype=torch.float64).view(10, 6).sin() + 3
    _, covariance = conditional(estimated(error, given))
    assert covariance.abs().max() < 1e-9
    assert clipped_root(covariance).abs().max() < 1e-4


def test_mean_does_not_depend_on_the_coordinates_of_what_is_given():
    error, given = correlated()
    generator = torch.Generator().manual_seed(5)
    turn = torch.randn(GIVEN, GIVEN, generator=generator, dtype=torch.float64)
    means = []
    for read in (given, given @ turn + 4):
        noise = ConditionalNoise(2).double()
        noise.settle(estimated(error, read), 0.0)
        means.append(noise.mean(read[None]))
    torch.testing.assert_close(means[0], means[1], rtol=1e-6, atol=1e-7)


def test_constant_coordinates_need_the_ridge_only():
    error, given = correlated()
    given[:, 3], error[:, 0] = 0.25, 0.0  # a root that is always at the origin
    noise = ConditionalNoise(2)
    noise.settle(estimated(error, given), 1e-6)
    drawn = noise.draw(given[None].float(), draws(1))
    assert drawn.isfinite().all()
    assert drawn[..., 0].abs().max() < 1e-6
    assert noise.deviation[0] == pytest.approx(1e-4)


def test_clipped_root_squares_to_the_covariance():
    error, given = correlated()
    _, covariance = conditional(estimated(error, given))
    root = clipped_root(covariance)
    torch.testing.assert_close(root @ root.T, covariance, rtol=1e-10, atol=1e-10)
    rank_one = torch.outer(covariance[0], covariance[0])
    rank_one[1, 1] -= 1e-12
    clipped = clipped_root(rank_one)
    assert clipped.isfinite().all()
    torch.testing.assert_close(clipped @ clipped.T, rank_one, rtol=1e-6, atol=1e-9)


def test_draws_have_the_settled_moments():
    error, given = correlated()
    noise = ConditionalNoise(2).double()
    noise.settle(estimated(error, given), 0.0)
    at = given[:1].expand(40_000, GIVEN)[:, None]
    drawn = noise.draw(at, draws(40_000))[:, 0]
    _, covariance = conditional(estimated(error, given))
    deviation = covariance.diagonal().sqrt()
    assert ((drawn.mean(0) - noise.mean(at[:1])[0, 0]) / deviation).abs().max() < 5 / 40_000**0.5
    sampled = torch.from_numpy(np.cov(drawn.numpy(), rowvar=False))
    assert ((sampled - covariance) / torch.outer(deviation, deviation)).abs().max() < 6 / 40_000**0.5


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9, 1.0])
def test_frames_follow_the_recursion(correlation):
    independent = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = [independent[0]]
    for frame in range(1, 9):
        wanted.append(correlation * wanted[-1] + (1 - correlation**2) ** 0.5 * independent[frame])
    matrix = over_time(9, correlation)
    torch.testing.assert_close(matrix @ independent, torch.stack(wanted), rtol=1e-12, atol=1e-14)
    lags = (torch.arange(9)[:, None] - torch.arange(9)).abs()
    wanted_covariance = torch.tensor(correlation, dtype=torch.float64) ** lags
    torch.testing.assert_close(matrix @ matrix.T, wanted_covariance, rtol=1e-12, atol=1e-14)


def test_unsettled_errors_are_ten_centimetres():
    drawn = ConditionalNoise(2).draw(torch.zeros(20_000, 1, 10), draws(20_000))
    assert drawn.std(0).tolist()[0] == pytest.approx([0.1] * 6, rel=0.03)
    assert drawn.mean(0).abs().max() < 0.004


def test_correlated_frames_share_the_draw():
    noise = ConditionalNoise(2)
    drawn = noise.draw(torch.zeros(3, 5, 10), draws(3), correlation=1.0)
    torch.testing.assert_close(drawn, drawn[:, :1].expand_as(drawn))
    assert not drawn[0, 0].allclose(drawn[1, 0])
