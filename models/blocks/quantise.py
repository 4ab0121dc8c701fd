"""Quantisers: features to whole numbers and back, with a gradient that passes straight through the rounding.

Legend: features and codes are (..., D), tokens (...) int64 of 0 .. K - 1.
"""

from math import atanh, prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models.collectives import sum_over_workers

_EDGE = 1e-3
"""Even numbers of levels: by how much the range of tanh is pulled in, so that its ends round inside."""


class FiniteScalar(nn.Module):
    """Finite scalar quantisation: every channel is rounded to one of a few levels, and there is nothing to learn.

    Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", ICLR 2024. Odd numbers of levels as Di2Pose writes
    it, round(floor(L / 2) tanh q); its formula would give L + 1 values for an even L, where the original rule holds.
    Codes are divided by floor(L / 2) and so lie in [-1, 1].
    """

    reach: Tensor
    shift: Tensor
    offset: Tensor
    scale: Tensor
    basis: Tensor
    levels: Tensor

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        if not levels or min(levels) < 3:
            raise ValueError(
                f"quantiser: levels are {list(levels)}; every channel needs at least 3, and there must be a channel. "
                "Change them, for instance to [7, 5, 5, 5, 5]."
            )
        self.width = len(levels)
        self.categories = prod(levels)
        reach = [(count - 1) / 2 * (1 if count % 2 else 1 - _EDGE) for count in levels]
        offset = [0.0 if count % 2 else 0.5 for count in levels]
        shift = [atanh(off / far) for off, far in zip(offset, reach, strict=True)]
        self.register_buffer("reach", torch.tensor(reach), persistent=False)
        self.register_buffer("offset", torch.tensor(offset), persistent=False)
        self.register_buffer("shift", torch.tensor(shift), persistent=False)
        self.register_buffer("scale", torch.tensor([float(count // 2) for count in levels]), persistent=False)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        basis = [prod(levels[:place]) for place in range(len(levels))]
        self.register_buffer("basis", torch.tensor(basis), persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (..., D) with gradient, tokens (...), and the penalty of this quantiser, which is 0."""
        bounded = self.reach * torch.tanh(features.float() + self.shift) - self.offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / self.scale, self.tokens(rounded.detach().round()), features.new_zeros(())

    def tokens(self, rounded: Tensor) -> Tensor:
        """sum of (value + floor(L / 2)) basis, basis = 1, L_1, L_1 L_2, ... of whole values (..., D)."""
        return ((rounded + self.scale).long() * self.basis).sum(-1)

    def codes(self, tokens: Tensor) -> Tensor:
        """Codes (..., D) of tokens: the inverse of numbering them."""
        return (tokens[..., None] // self.basis % self.levels - self.scale) / self.scale

    def extra_repr(self) -> str:
        return f"levels={self.levels.tolist()}"


class Codebook(nn.Module):
    """The nearest of K learned codes, which follow the means of the features that choose them.

    Van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017, appendix A.1, as in PCT (Geng et al.,
    CVPR 2023): moving averages, and a penalty that holds features near their code. Averages are taken over all workers.
    """

    codebook: Tensor
    sizes: Tensor
    sums: Tensor

    def __init__(self, categories: int, width: int, decay: float = 0.9):
        super().__init__()
        self.width = width
        self.categories = categories
        self.decay = decay
        start = torch.randn(categories, width)
        self.register_buffer("codebook", start)
        self.register_buffer("sizes", torch.zeros(categories))
        self.register_buffer("sums", start.clone())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (..., D) with gradient, tokens (...), and the mean square distance of features from their codes.

        While training, codes move; those returned are from before.
        """
        flat = features.flatten(0, -2)
        # |f|^2 is the same for all codes
        tokens = (self.codebook.square().sum(-1) - 2 * flat @ self.codebook.T).argmin(-1)
        nearest = self.codebook[tokens]
        if self.training and torch.is_grad_enabled():
            self._follow(flat.detach(), tokens)
        penalty = F.mse_loss(flat, nearest)
        codes = flat + (nearest - flat).detach()
        return codes.view(features.shape), tokens.view(features.shape[:-1]), penalty

    def codes(self, tokens: Tensor) -> Tensor:
        """Codes (..., D) of tokens."""
        return self.codebook[tokens]

    @torch.no_grad()
    def _follow(self, flat: Tensor, tokens: Tensor) -> None:
        chosen = F.one_hot(tokens, self.categories).to(flat.dtype)
        found = sum_over_workers(torch.cat([chosen.sum(0)[:, None], chosen.T @ flat], dim=1))
        self.sizes.lerp_(found[:, 0], 1 - self.decay)
        self.sums.lerp_(found[:, 1:], 1 - self.decay)
        total = self.sizes.sum()
        smooth = (self.sizes + 1e-5) / (total + self.categories * 1e-5) * total
        self.codebook.copy_(self.sums / smooth[:, None])

    def extra_repr(self) -> str:
        return f"{self.categories} codes of width {self.width}"
