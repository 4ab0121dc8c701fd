"""Diffusion of tokens: against products of matrices and Bayes' rule for few categories, and the released numbers."""

import math

import numpy as np
import pytest
import torch

from posegrid.models.diffusion.discrete import (
    OccludeAndReplace,
    TokenSchedule,
    divergence,
    draw,
    log_probabilities,
    proportional,
    vq_diffusion,
)

SCHEDULES = {
    "published": proportional(100),
    "replace": proportional(100, 0.0),
    "occlude": proportional(100, 1.0),
    "vq-diffusion": vq_diffusion(100),
    "short": proportional(4, 0.6),
}
FEW = 5


@pytest.fixture(params=SCHEDULES.values(), ids=SCHEDULES.keys())
def schedule(request) -> TokenSchedule:
    return request.param


def matrix(schedule: TokenSchedule, step: int, categories: int) -> np.ndarray:
    """One noising step, columns from, rows to, from the recursion of single rates (fact sheet, 4.1) in float64."""
    kept, hidden = schedule.kept.numpy(), schedule.occluded.numpy()
    alpha = kept[step] / kept[step - 1]
    gamma = 1 - (1 - hidden[step]) / (1 - hidden[step - 1])
    beta = (1 - alpha - gamma) / categories
    found = np.full((categories + 1, categories + 1), beta)
    found[:categories, :categories] += alpha * np.eye(categories)
    found[categories, :categories] = gamma
    found[:, categories] = 0
    found[categories, categories] = 1
    return found


def product(schedule: TokenSchedule, first: int, last: int, categories: int) -> np.ndarray:
    """All steps after `first` up to `last`."""
    found = np.eye(categories + 1)
    for step in range(first + 1, last + 1):
        found = matrix(schedule, step, categories) @ found
    return found


def steps(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def every_token(categories: int) -> torch.Tensor:
    return torch.arange(categories + 1)[None]


def test_published_schedule():
    schedule = proportional(100)
    assert len(schedule) == 100
    whole = schedule.kept + schedule.occluded + schedule.replaced
    torch.testing.assert_close(whole, torch.ones_like(whole), rtol=0, atol=1e-15)
    assert schedule.kept[[0, 50]].tolist() == [1.0, 0.5]
    assert schedule.kept[100].item() == 1e-5
    assert schedule.occluded[100].item() == pytest.approx(0.9, abs=1e-15)
    # the table of the fact sheet
    for step, (alpha, gamma, replace) in {
        1: (0.99, 0.009, 0.001),
        50: (0.98039, 0.01610, 0.00351),
        100: (0.001, 0.08257, 0.91643),
    }.items():
        one = matrix(schedule, step, FEW)
        rates = OccludeAndReplace(schedule, FEW).rates(steps(step), steps(step - 1))
        expected = torch.tensor([alpha, gamma, replace])
        found = torch.cat([rates.keep[0], rates.occlude[0], rates.replace[0]])
        torch.testing.assert_close(found, expected, rtol=0, atol=6e-6)
        assert one[FEW, 0] == pytest.approx(gamma, abs=6e-6)
    replaced = [FEW * matrix(schedule, step, FEW)[0, 1] for step in range(1, 101)]
    assert min(replaced) == pytest.approx(0.001, abs=1e-9)
    closed = [0.1 * 100 / ((101 - s) * (100 - 0.9 * s + 0.9)) for s in range(1, 100)]
    np.testing.assert_allclose(replaced[:99], closed, rtol=1e-9)


def test_matrices_are_stochastic_and_multiply_to_the_closed_form(schedule):
    categories = 50 if len(schedule) == 100 else FEW
    found = np.eye(categories + 1)
    for step in range(1, len(schedule) + 1):
        one = matrix(schedule, step, categories)
        assert one.min() >= -1e-15
        np.testing.assert_allclose(one.sum(0), 1, atol=1e-12)
        found = one @ found
        kept, hidden = schedule.kept[step].item(), schedule.occluded[step].item()
        each = (1 - kept - hidden) / categories
        np.testing.assert_allclose(found[:, 0], [kept + each, *[each] * (categories - 1), hidden], atol=1e-9)
        np.testing.assert_array_equal(found[:, categories], [*[0] * categories, 1])


def test_transitions_are_the_matrices(schedule):
    process = OccludeAndReplace(schedule, FEW)
    last = len(schedule)
    for first, step in ((0, 1), (0, last), (1, 2), (last // 2, last), (last - 1, last)):
        found = process.log_transition(every_token(FEW), steps(step), steps(first)).exp()[0]
        np.testing.assert_allclose(found.numpy().T, product(schedule, first, step, FEW), atol=2e-6)


@pytest.mark.parametrize(("before", "step"), [(0, 1), (1, 2), (1, 3), (0, 3), (49, 50), (25, 75), (96, 100), (99, 100)])
def test_posterior_is_bayes_rule_and_its_mixture_the_full_sum(schedule, before, step):
    step = min(step, len(schedule))
    before = min(before, step - 1)
    process = OccludeAndReplace(schedule, FEW)
    to_before, on, to_step = (product(schedule, *ends, FEW) for ends in ((0, before), (before, step), (0, step)))
    chances = torch.rand(FEW, generator=torch.Generator().manual_seed(step)).softmax(0)
    for token in range(FEW + 1):
        mixture = np.zeros(FEW + 1)
        possible = 0.0
        for start in range(FEW):
            if to_step[token, start] < 1e-12:
                continue
            exact = on[token] * to_before[:, start] / to_step[token, start]
            known = torch.eye(FEW)[start][None, None]
            found = process.posterior(steps(token)[None], known, steps(step), steps(before))[0, 0]
            np.testing.assert_allclose(found.numpy(), exact, atol=2e-5)
            assert found.sum().item() == pytest.approx(1, abs=2e-5)
            if before == 0:
                np.testing.assert_allclose(found.numpy(), np.eye(FEW + 1)[start], atol=2e-5)
            if token < FEW:
                assert found[FEW] == 0  # never occluded again
            mixture += chances[start].item() * exact
            possible += chances[start].item()
        if possible == 0:
            continue
        found = process.posterior(steps(token)[None], chances[None, None], steps(step), steps(before))[0, 0]
        # where nothing is replaced, a visible token has one possible start
        np.testing.assert_allclose(found.numpy(), mixture / possible, atol=2e-5)


def test_many_categories_keep_their_digits():
    """4,375 categories, one of them almost certain: float32 against the full sum in float64."""
    categories, step = 4375, 2
    process = OccludeAndReplace(proportional(100), categories)
    logits = torch.zeros(1, 1, categories)
    logits[..., 7] = 25.0
    for token in (7, 8, categories):
        found = process.posterior(steps(token)[None], log_probabilities(logits).exp(), steps(step))[0, 0].double()
        chances = logits[0, 0].double().softmax(0)
        each = [proportional(100).replaced[s].item() / categories for s in (1, 2)]
        kept = [proportional(100).kept[s].item() for s in (1, 2)]
        hidden = [proportional(100).occluded[s].item() for s in (1, 2)]
        alpha = kept[1] / kept[0]
        gamma = (hidden[1] - hidden[0]) / (1 - hidden[0])
        beta = (1 - alpha - gamma) / categories
        eye = torch.eye(categories, dtype=torch.float64)
        if token == categories:
            expected = gamma / hidden[1] * (each[0] + kept[0] * chances)
            last = hidden[0] / hidden[1]
        else:
            forward = beta + alpha * eye[token]
            weight = chances / (each[1] + kept[1] * eye[token])
            expected = forward * (each[0] * weight.sum() + kept[0] * weight)
            last = 0.0
        torch.testing.assert_close(found[:-1], expected, rtol=2e-5, atol=0)
        assert found[-1].item() == pytest.approx(last, rel=1e-5)


def test_simulated_single_steps_match_the_closed_form():
    """20,000 tokens noised step by step through `log_transition`, against `noised` and the probabilities."""
    process = OccludeAndReplace(proportional(20), FEW)
    generator = torch.Generator().manual_seed(0)
    count, step = 20_000, 12
    tokens = torch.full((1, count), 2)
    for one in range(1, step + 1):
        chances = process.log_transition(tokens, steps(one), steps(one - 1)).exp()
        tokens = torch.multinomial(chances[0], 1, generator=generator).T
    at_once = process.noised(torch.full((1, count), 2), steps(step), torch.rand(1, count, 2, generator=generator))
    expected = process.log_transition(torch.tensor([[2]]), steps(step)).exp()[0, 0]
    deviation = (expected * (1 - expected) / count).sqrt()
    for sample in (tokens, at_once):
        share = torch.bincount(sample[0], minlength=FEW + 1) / count
        assert ((share - expected).abs() < 5 * deviation).all()
    prior = torch.bincount(process.prior(torch.rand(1, count, 2, generator=generator))[0], minlength=FEW + 1) / count
    assert prior[FEW].item() == pytest.approx(0.9, abs=5 * (0.09 / count) ** 0.5)
    assert (prior[:FEW] - 0.1 / FEW).abs().max() < 5 * (0.02 / count) ** 0.5


@pytest.mark.parametrize(("before", "step"), [(3, 4), (2, 9), (0, 6)])
def test_stepping_back_draws_from_the_posterior(schedule, before, step):
    """A grid of uniform numbers gives the probabilities of `previous` without chance."""
    step = min(step, len(schedule))
    before = min(before, step - 1)
    process = OccludeAndReplace(schedule, FEW)
    fine, coarse = 4000, 2 * FEW
    first = (torch.arange(fine) + 0.5) / fine
    second = (torch.arange(coarse) + 0.5) / coarse
    uniform = torch.stack(torch.meshgrid(first, second, indexing="ij"), dim=-1).view(1, -1, 2)
    to_step = product(schedule, 0, step, FEW)
    for token in range(FEW + 1):
        for start in range(FEW):
            if to_step[token, start] < 1e-12:
                continue  # cannot happen
            tokens = torch.full((1, fine * coarse), token)
            found = process.previous(tokens, torch.full_like(tokens, start), uniform, steps(step), steps(before))
            share = torch.bincount(found[0], minlength=FEW + 1) / found.numel()
            known = torch.eye(FEW)[start][None, None]
            exact = process.posterior(steps(token)[None], known, steps(step), steps(before))[0, 0]
            torch.testing.assert_close(share, exact, rtol=0, atol=3 / fine)


@pytest.mark.parametrize("times", [range(100, 0, -1), (100, 75, 50, 25), (100,), (100, 99, 3, 1)], ids=len)
def test_a_perfect_prediction_is_reached_in_any_number_of_steps(times, schedule):
    if times[0] > len(schedule):
        times = range(len(schedule), 0, -1)
    process = OccludeAndReplace(schedule, 30)
    generator = torch.Generator().manual_seed(1)
    truth = torch.randint(30, (3, 40), generator=generator)
    # what can happen: noise of this start
    state = process.noised(truth, torch.full((3,), times[0]), torch.rand(3, 40, 2, generator=generator))
    seen = state != process.occluded_token
    for step, before in zip(times, [*times[1:], 0], strict=True):
        uniform = torch.rand(3, 40, 2, generator=generator)
        state = process.previous(state, truth, uniform, steps(*[step] * 3), steps(*[before] * 3))
        shown = state != process.occluded_token
        assert (shown | ~seen).all()  # an ordinary token is never occluded again
        seen = shown
    assert state.equal(truth)


def test_losses():
    process = OccludeAndReplace(proportional(100), 4375)
    start = torch.randint(4375, (3, 6), generator=torch.Generator().manual_seed(0))
    step = steps(1, 2, 60)
    noisy = process.noised(start, step, torch.rand(3, 6, 2, generator=torch.Generator().manual_seed(1)))
    bound, auxiliary = process.losses(torch.zeros(3, 6, 4375), noisy, start, step)
    torch.testing.assert_close(auxiliary, torch.full((3,), 8.38366), rtol=0, atol=1e-4)
    assert math.log(4375) == pytest.approx(8.38366, abs=1e-5)
    assert bound[0] == auxiliary[0]  # the decoder's term
    assert (bound[1:] < auxiliary[1:]).all()
    perfect = torch.nn.functional.one_hot(start, 4375) * 200.0
    bound, auxiliary = process.losses(perfect, noisy, start, step)
    torch.testing.assert_close(torch.stack([bound, auxiliary]), torch.zeros(2, 3), rtol=0, atol=1e-5)
    logits = torch.zeros(3, 6, 4375, requires_grad=True)
    process.losses(logits, noisy, start, step)[0].sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad != 0).any()


def test_draws_never_have_probability_zero():
    logits = torch.full((1, 3, 7), -1e4)
    logits[..., 2] = 0.0
    logits[..., 4] = 0.5
    uniform = torch.tensor([[0.0, 1 - 2**-24, 0.3]])
    assert draw(logits, uniform).tolist() == [[2, 4, 2]]
    assert draw(logits.expand(1, 3, 7).contiguous(), torch.tensor([[0.38, 0.37, 0.9]])).tolist() == [[4, 2, 4]]


@pytest.mark.parametrize(("count", "occluded"), [(0, 0.9), (10, -0.1), (10, 1.1)])
def test_wrong_schedules_are_refused(count, occluded):
    with pytest.raises(ValueError, match=r"allowed are at least 1 step, 0 <= occluded <= 1"):
        proportional(count, occluded)


# ---- the released numbers --------------------------------------------------------------------------------------------


def _process(file) -> OccludeAndReplace:
    options = file.constructor
    made = vq_diffusion if options["schedule"] == "alpha1" else proportional
    return OccludeAndReplace(made(options["steps"]), options["classes"])


def _same(file, name: str, found: torch.Tensor, where: torch.Tensor | None = None) -> None:
    """`found` is (B, N, K + 1); logarithms below -60 are compared as probabilities."""
    expected = file[f"output_{name}"].transpose(1, 2)
    if where is not None:
        found, expected = found[where], expected[where]
    deep = expected < -60
    torch.testing.assert_close(found.exp()[deep], expected.exp()[deep], rtol=0, atol=1e-25)
    torch.testing.assert_close(
        found[~deep], expected[~deep], rtol=file.tolerance["rtol"], atol=file.tolerance["atol"][name]
    )


def _gumbel(log_chances: torch.Tensor, uniform_BKN: torch.Tensor) -> torch.Tensor:
    noise = -(-(uniform_BKN + 1e-30).log() + 1e-30).log()
    return (log_chances.transpose(1, 2) + noise).argmax(1)


def _log(chances: torch.Tensor) -> torch.Tensor:
    return chances.clamp_min(1e-38).log().clamp_min(-70)


@pytest.mark.parametrize("name", ["vqdiffusion_small", "vqdiffusion_scaled", "vqdiffusion_replace"])
def test_transitions_and_posteriors_of_vq_diffusion(name, parity_file):
    file = parity_file(name)
    process = _process(file)
    start, tokens, step = file["input_start_tokens"], file["input_tokens"], file["input_step"] + 1
    kept = file.weights()["log_cumprod_at"].exp()
    torch.testing.assert_close(process.table[0, 1:].float(), kept[:-1], rtol=1e-5, atol=1e-9)
    assert kept[-1] == 1

    one = process.log_transition(tokens, step, step - 1)
    hidden = tokens == process.occluded_token
    # the released function has no column for occluded tokens; its posterior sets theirs by hand
    _same(file, "log_one_step", one, ~hidden)
    assert one[hidden].exp().round().eq(torch.eye(process.categories + 1)[-1]).all()
    marginal = process.log_transition(start, step)
    _same(file, "log_marginal", marginal)
    known = torch.nn.functional.one_hot(start, process.categories).float()
    predicted = file["input_start_log_probabilities"].transpose(1, 2).exp()
    posterior = _log(process.posterior(tokens, known, step))
    mixture = _log(process.posterior(tokens, predicted, step))
    # that an ordinary token was occluded before has probability 0, of which the released floors leave a little
    never = torch.zeros_like(posterior, dtype=torch.bool)
    never[..., -1] = ~hidden
    assert posterior[never].eq(-70).all()
    assert (file["output_log_posterior"].transpose(1, 2)[never] < -40).all()
    _same(file, "log_posterior", posterior, ~never)
    _same(file, "log_posterior_mixture", mixture, ~never)
    file.check_output("kl", divergence(posterior, mixture))
    assert _gumbel(marginal, file["input_uniform"]).equal(file["output_sampled_tokens"])
