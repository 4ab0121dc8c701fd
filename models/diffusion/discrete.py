"""Diffusion of tokens that are occluded or replaced, with posteriors that cost O(K) a token.

Gu et al., "Vector Quantized Diffusion Model for Text-to-Image Synthesis", CVPR 2022, as used by Di2Pose (NeurIPS 2024,
equations 6 to 9). Nothing here holds a matrix of K x K.

Legend: B sequences, N tokens, K categories; K is the occluded token. s = 0 .. S counts noising steps, 0 is without
noise. After s steps a token is itself with probability a_s + b_s, one particular other category with b_s, and occluded
with g_s; K b_s = 1 - a_s - g_s. Between steps r < s the same holds with a = a_s / a_r and g = (g_s - g_r) / (1 - g_r).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOWEST = -70.0
"""Floor of logarithms of probabilities (VQ-Diffusion)."""


@dataclass(frozen=True, kw_only=True)
class TokenSchedule:
    """Cumulative probabilities after s = 0 .. S steps, each (S + 1,) float64 on the CPU; together 1 everywhere."""

    kept: Tensor
    """a_s: the token was never touched."""
    occluded: Tensor
    """g_s."""
    replaced: Tensor
    """K b_s: redrawn from all categories, its own among them."""

    def __len__(self) -> int:
        return len(self.kept) - 1


def proportional(steps: int, occluded: float = 0.9, kept: float = 1e-5) -> TokenSchedule:
    """Di2Pose: g_s = occluded s / S, K b_s = (1 - occluded) s / S, the rest is kept; at s = S at least `kept` is.

    The text of the paper gives these as rates of single steps; they can only be the cumulative ones. occluded = 0
    replaces only, 1 occludes only. Raises ValueError for fewer than one step or a rate outside [0, 1].
    """
    if steps < 1 or not 0 <= occluded <= 1 or not 0 < kept < 1 / steps:
        raise ValueError(
            f"a token schedule was asked for with {steps} steps, occluded = {occluded} and kept = {kept}; allowed are "
            "at least 1 step, 0 <= occluded <= 1 and 0 < kept < 1 / steps. Change the one outside."
        )
    share = torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps
    left = (1 - share).clamp_min(kept)
    hidden = torch.minimum(occluded * share, 1 - left)
    # exactly none where nothing is to be replaced, not what rounding leaves
    replaced = torch.zeros_like(left) if occluded == 1 else (1 - left - hidden).clamp_min(0)
    return TokenSchedule(kept=left, occluded=hidden, replaced=replaced)


def vq_diffusion(steps: int) -> TokenSchedule:
    """VQ-Diffusion's released schedule: kept from 0.99999 to 9e-6 and occluded the reverse way, in equal steps, so that
    hardly anything is replaced."""
    high, low = 0.99999, 0.000009
    start = torch.zeros(1, dtype=torch.float64, device="cpu")
    kept = torch.cat([start + 1, torch.linspace(high, low, steps, dtype=torch.float64, device="cpu")])
    hidden = torch.cat([start, torch.linspace(low, high, steps, dtype=torch.float64, device="cpu")])
    return TokenSchedule(kept=kept, occluded=hidden, replaced=(1 - kept - hidden).clamp_min(0))


@dataclass(frozen=True)
class _Rates:
    """Probabilities between two steps r < s and up to each of them, all (B, 1)."""

    keep: Tensor
    occlude: Tensor
    replace: Tensor  # K b, all categories together
    kept: Tensor  # up to s
    occluded: Tensor
    replaced: Tensor
    kept_before: Tensor  # up to r
    occluded_before: Tensor
    replaced_before: Tensor


class OccludeAndReplace(nn.Module):
    """The forward process, its posteriors and what is trained on them.

    Steps are (B,) integers of 0 .. S; `before` is the step to go back to, step - 1 unless steps are skipped.
    """

    table: Tensor

    def __init__(self, schedule: TokenSchedule, categories: int):
        super().__init__()
        self.categories = categories
        self.steps = len(schedule)
        # float64: rates of single steps are differences of cumulative ones
        table = torch.stack([schedule.kept, schedule.occluded, schedule.replaced])
        self.register_buffer("table", table, persistent=False)

    @property
    def occluded_token(self) -> int:
        """Number of the occluded token, K."""
        return self.categories

    def rates(self, step: Tensor, before: Tensor) -> _Rates:
        """What happens between `before` and `step`, and up to each; (B, 1) float32."""
        kept, hidden, replaced = self.table[:, step, None]
        kept_before, hidden_before, replaced_before = self.table[:, before, None]
        keep = kept / kept_before
        occlude = (hidden - hidden_before) / (1 - hidden_before)
        replace = torch.where(replaced > 0, (1 - keep - occlude).clamp_min(0), 0.0)
        every = (keep, occlude, replace, kept, hidden, replaced, kept_before, hidden_before, replaced_before)
        return _Rates(*(rate.float() for rate in every))

    # ---- forward ---------------------------------------------------------------------------------------------------

    def noised(self, start_BN: Tensor, step: Tensor, uniform_BN2: Tensor) -> Tensor:
        """Tokens (B, N) after `step` steps from k_0 = start, by two uniform numbers of [0, 1) a token (equation 7)."""
        rates = self.rates(step, torch.zeros_like(step))
        first, second = uniform_BN2.unbind(-1)
        drawn = self._any(second)
        tokens = torch.where(first < rates.occluded + rates.replaced, drawn, start_BN)
        return torch.where(first < rates.occluded, self.occluded_token, tokens)

    def prior(self, uniform_BN2: Tensor) -> Tensor:
        """Tokens (B, N) at s = S: occluded with probability g_S, else any category."""
        first, second = uniform_BN2.unbind(-1)
        return torch.where(first < self.table[1, -1], self.occluded_token, self._any(second))

    def log_transition(self, tokens_BN: Tensor, step: Tensor, before: Tensor | None = None) -> Tensor:
        """log q(k_step | k_before = tokens), (B, N, K + 1); `before` is 0 unless given. Not below `LOWEST`."""
        rates = self.rates(step, torch.zeros_like(step) if before is None else before)
        same = F.one_hot(tokens_BN, self.categories + 1).float()
        spread = (rates.replace / self.categories)[..., None] + rates.keep[..., None] * same[..., :-1]
        chances = torch.cat([spread, rates.occlude[..., None].expand(*tokens_BN.shape, 1)], dim=-1)
        return _log(torch.where((tokens_BN == self.occluded_token)[..., None], same, chances))

    # ---- backward --------------------------------------------------------------------------------------------------

    def posterior(self, tokens_BN: Tensor, start_BNK: Tensor, step: Tensor, before: Tensor | None = None) -> Tensor:
        """q(k_before | k_step = tokens), (B, N, K + 1), where k_0 has the probabilities start_BNK.

        One-hot probabilities give the posterior of a known start, those of a network the reverse step: the sum over k_0
        of q(k_before | k_step, k_0) p(k_0), which is linear in p and so costs O(K). Where nothing is ever replaced, a
        token that is not occluded is the start itself, whatever `start_BNK` says.
        """
        rates = self.rates(step, step - 1 if before is None else before)
        each, each_before = rates.replaced / self.categories, rates.replaced_before / self.categories
        hidden = (tokens_BN == self.occluded_token)[..., None]
        spread = each_before[..., None] + rates.kept_before[..., None] * start_BNK
        shown = F.one_hot(tokens_BN.masked_fill(hidden[..., 0], 0), self.categories).to(start_BNK.dtype)
        # q(k_0 | k_step) up to a factor; the sum has no cancellation, which 1 - p would have
        weight = start_BNK / (each[..., None] + rates.kept[..., None] * shown).clamp_min(1e-30)
        whole = weight.sum(-1, keepdim=True)
        jump = (rates.replace / self.categories)[..., None] + rates.keep[..., None] * shown
        from_shown = jump * (each_before[..., None] * whole + rates.kept_before[..., None] * weight)
        from_shown = torch.where((rates.replaced > 0)[..., None], from_shown, shown)
        from_hidden = spread * (rates.occlude / rates.occluded.clamp_min(1e-30))[..., None]
        stays = (rates.occluded_before / rates.occluded.clamp_min(1e-30))[..., None].expand_as(hidden)
        ordinary = torch.where(hidden, from_hidden, from_shown)
        return torch.cat([ordinary, torch.where(hidden, stays, torch.zeros_like(stays))], dim=-1)

    def previous(
        self, tokens_BN: Tensor, start_BN: Tensor, uniform_BN2: Tensor, step: Tensor, before: Tensor | None = None
    ) -> Tensor:
        """Tokens (B, N) at `before` drawn from q(. | k_step = tokens, k_0 = start) by two uniform numbers, in O(1).

        With a start drawn from a network's p(k_0) this draws from the reverse step of `posterior`.
        """
        rates = self.rates(step, step - 1 if before is None else before)
        first, second = uniform_BN2.unbind(-1)
        drawn, same = self._any(second), (tokens_BN == start_BN).float()
        # occluded: stays so, or becomes its start, or any category
        stays = rates.occluded_before / rates.occluded.clamp_min(1e-30)
        starts = rates.occlude * rates.kept_before / rates.occluded.clamp_min(1e-30)
        shown = torch.where(first < stays + starts, start_BN, drawn)
        from_hidden = torch.where(first < stays, tokens_BN, shown)
        # ordinary: was any category, or its start, or what it is
        each_before = rates.replaced_before / self.categories
        anything = rates.replace * each_before
        start = rates.replace / self.categories * rates.kept_before
        itself = rates.keep * (each_before + rates.kept_before * same)
        at = first * (anything + start + itself)
        from_shown = torch.where(at < anything, drawn, torch.where(at < anything + start, start_BN, tokens_BN))
        return torch.where(tokens_BN == self.occluded_token, from_hidden, from_shown)

    # ---- what is trained -------------------------------------------------------------------------------------------

    def losses(self, logits_BNK: Tensor, tokens_BN: Tensor, start_BN: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Bound and auxiliary loss of a prediction of k_0, each (B,), means over tokens (section 4.3, equation 8).

        The bound is KL[q(k_{s-1} | k_s, k_0) || p(k_{s-1} | k_s)] for s >= 2 and -log p(k_0) at s = 1; the sum over
        steps in the paper leaves out s = S. The auxiliary loss is -log p(k_0) at every step.
        """
        log_start = log_probabilities(logits_BNK)
        surprise = -log_start.gather(-1, start_BN[..., None])[..., 0]
        known = F.one_hot(start_BN, self.categories).to(log_start.dtype)
        distance = divergence(
            _log(self.posterior(tokens_BN, known, step)), _log(self.posterior(tokens_BN, log_start.exp(), step))
        )
        return torch.where((step == 1)[:, None], surprise, distance).mean(-1), surprise.mean(-1)

    def _any(self, uniform: Tensor) -> Tensor:
        return (uniform * self.categories).long().clamp_max(self.categories - 1)


def log_probabilities(logits: Tensor) -> Tensor:
    """Logarithms of softmax over the last axis in float32, not below `LOWEST`."""
    return F.log_softmax(logits.float(), dim=-1).clamp_min(LOWEST)


def divergence(log_first: Tensor, log_second: Tensor) -> Tensor:
    """Kullback-Leibler divergence over the last axis."""
    return (log_first.exp() * (log_first - log_second)).sum(-1)


def draw(logits_BNK: Tensor, uniform_BN: Tensor) -> Tensor:
    """Categories (B, N) drawn from softmax(logits) by one uniform number of [0, 1) per token (inverse distribution).

    Never one of probability 0, whatever is rounded.
    """
    heights = F.softmax(logits_BNK.float(), dim=-1).cumsum(-1)
    top = heights[..., -1]
    below = torch.nextafter(top, torch.zeros_like(top))
    at = torch.minimum(uniform_BN.to(top.dtype) * top, below)
    return torch.searchsorted(heights, at[..., None], right=True)[..., 0]


def _log(chances: Tensor) -> Tensor:
    return chances.clamp_min(1e-38).log().clamp_min(LOWEST)
