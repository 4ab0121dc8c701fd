"""Transformer that reads discrete tokens and a condition: VQ-Diffusion's, as Di2Pose uses it.

Gu et al., "Vector Quantized Diffusion Model for Text-to-Image Synthesis", CVPR 2022. Each block:
x + SelfAttention(AdaLN(x, s)), x + CrossAttention(AdaLN(x, s), y), x + MLP(LN(x)).
Legend: B sequences, N tokens, K categories, M tokens of the condition, D width, E width of the condition.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models.blocks.attention import Attention, attend
from posegrid.models.shapes import require_divisible


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x)."""

    def forward(self, values: Tensor) -> Tensor:
        """Any shape."""
        return values * torch.sigmoid(1.702 * values)


class StepNorm(nn.Module):
    """AdaLN: layer norm without weights, times 1 + scale plus shift, both read from the diffusion step.

    [scale, shift] = Linear(SiLU(table[step])); every such norm has a table of its own.
    """

    def __init__(self, width: int, steps: int):
        super().__init__()
        self.table = nn.Embedding(steps, width)
        self.linear = nn.Linear(width, 2 * width)

    def forward(self, tokens_BND: Tensor, index: Tensor) -> Tensor:
        """(B, N, D) and step indices (B,) of 0 .. S - 1 -> (B, N, D)."""
        scale, shift = self.linear(F.silu(self.table(index)))[:, None].chunk(2, dim=-1)
        return F.layer_norm(tokens_BND, tokens_BND.shape[-1:]) * (1 + scale) + shift


class CrossAttention(nn.Module):
    """Tokens read a condition of another width; projections with biases."""

    def __init__(self, width: int, condition_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(condition_width, width)
        self.value = nn.Linear(condition_width, width)
        self.project = nn.Linear(width, width)

    def forward(self, tokens_BND: Tensor, condition_BME: Tensor) -> Tensor:
        """(B, N, D) and (B, M, E) -> (B, N, D)."""
        query, key, value = (
            layer(values).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, values in ((self.query, tokens_BND), (self.key, condition_BME), (self.value, condition_BME))
        )
        return self.project(attend(query, key, value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Self-attention, cross-attention and MLP; the first two are normalised according to the step."""

    def __init__(self, width: int, condition_width: int, heads: int, mlp_ratio: float, steps: int):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.self_norm = StepNorm(width, steps)
        self.self_attention = Attention(width, heads, "joints")
        self.cross_norm = StepNorm(width, steps)
        self.cross_attention = CrossAttention(width, condition_width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), QuickGELU(), nn.Linear(hidden, width))

    def forward(self, tokens_BND: Tensor, index: Tensor, condition_BME: Tensor) -> Tensor:
        """(B, N, D), steps (B,) and condition (B, M, E) -> (B, N, D)."""
        tokens = tokens_BND + self.self_attention(self.self_norm(tokens_BND, index)[:, None])[:, 0]
        tokens = tokens + self.cross_attention(self.cross_norm(tokens, index), condition_BME)
        return tokens + self.mlp(self.mlp_norm(tokens))


class TokenTransformer(nn.Module):
    """Noisy tokens, a step and a condition to logits of the tokens without noise.

    Weights start as N(0, 0.02^2), biases at 0, tables of positions included.
    """

    def __init__(
        self,
        tokens: int,
        categories: int,
        width: int,
        condition_width: int,
        layers: int,
        heads: int,
        mlp_ratio: float,
        steps: int,
    ):
        super().__init__()
        require_divisible(width, heads, "di2pose")
        self.embed = nn.Embedding(categories + 1, width)
        self.position = nn.Parameter(torch.empty(tokens, width))
        self.blocks = nn.ModuleList(Block(width, condition_width, heads, mlp_ratio, steps) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, categories)
        self.apply(_initialise)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, tokens_BN: Tensor, step: Tensor, condition_BME: Tensor) -> Tensor:
        """Tokens (B, N) of 0 .. K (K is occluded) after `step` = 1 .. S steps (B,) -> logits (B, N, K)."""
        hidden = self.embed(tokens_BN) + self.position
        for block in self.blocks:
            hidden = block(hidden, step - 1, condition_BME)
        return self.head(self.norm(hidden))


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear | nn.Embedding):
        nn.init.normal_(layer.weight, std=0.02)
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
