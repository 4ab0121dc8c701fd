"""Self-attention over one axis of a grid of tokens, and the pre-norm transformer block around it.

Legend: B windows, L frames, J joints, D width, H heads, E width of one head.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.drop import Dropout, DropPath

Axis = Literal["frames", "joints"]
LONG_SEQUENCE = 64
"""From this length on the fused kernel is used on a CPU too, and for shorter sequences of heads as wide as:"""
WIDE_HEAD = 64
"""Short sequences of narrow heads take up to half as long again with its backward pass (E = 4 and 8 measured)."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float | None = None,
    read: Tensor | None = None,
    drop: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """softmax(scale q k^T) v over sequences, all (..., H, S, E); the scale is 1 / sqrt(E) unless given.

    read: (..., S) bool, keys that may be read, the same for all heads and queries; None: all.
    drop: what is applied to the weights (..., H, S, S), keys by queries. They are then held in memory.
    """
    bias = None if read is None else _bias(read, query.dtype)
    fused = query.device.type != "cpu" or query.shape[-2] >= LONG_SEQUENCE or query.shape[-1] >= WIDE_HEAD
    if drop is None and fused:
        mask = None if bias is None else bias[..., None, None, :]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    # Keys by queries: a softmax over an axis that is not the last one is vectorised for short sequences as well.
    scores = torch.matmul(key, (query * (scale or query.shape[-1] ** -0.5)).transpose(-1, -2))
    if bias is not None:
        scores = scores + bias[..., None, :, None]
    weights = scores.softmax(-2) if drop is None else drop(scores.softmax(-2))
    return torch.matmul(weights.transpose(-1, -2), value)


def _bias(read: Tensor, kind: torch.dtype) -> Tensor:
    """What is added to the logits: a number so low that weights become exactly 0, and so large that logits are rounded
    away where no key may be read: all weights are alike there, where minus infinity would give NaN."""
    return torch.zeros_like(read, dtype=kind).masked_fill_(~read, torch.finfo(kind).min / 2)


class Attention(nn.Module):
    """Multi-head self-attention among the joints of each frame, or among the frames of each joint.

    Tokens stay (B, L, J, D) in memory. The rows of `qkv` are ordered (head, role, E), not (role, head, E): so joints
    and heads of the projection merge into one axis as a view, and attention over frames needs no copy either.
    """

    def __init__(self, width: int, heads: int, over: Axis, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.over = over
        self.dropout = Dropout(dropout)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, tokens_BLJD: Tensor, read_BL: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """(B, L, J, D) -> (B, L, J, D). With attention over frames, read_BL (bool) are those that may be read.

        With draws and a dropout rate, single attention weights are dropped while training.
        """
        windows, frames, joints, width = tokens_BLJD.shape
        each = width // self.heads
        qkv = self.qkv(tokens_BLJD)
        if self.over == "joints":
            grid = qkv.view(windows * frames, joints, self.heads, 3, each)
        else:
            grid = qkv.view(windows, frames, joints * self.heads, 3, each)
        query, key, value = grid.transpose(1, 2).unbind(3)
        drops = self.training and draws is not None and self.dropout.rate > 0

        def drop(weights: Tensor) -> Tensor:
            return self.dropout(weights.unflatten(0, (windows, -1)), draws).view_as(weights)

        mixed = attend(query, key, value, read=read_BL, drop=drop if drops else None)
        return self.project(mixed.transpose(1, 2).reshape(windows, frames, joints, width))


class TransformerBlock(nn.Module):
    """x + DropPath(Attention(LN(x))), then x + DropPath(MLP(LN(x))), with exact GELU unless told otherwise."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        drop_path: float,
        over: Axis,
        epsilon: float = 1e-6,
        activation: Callable[[], nn.Module] = nn.GELU,
    ):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.attention = Attention(width, heads, over)
        self.mlp_norm = nn.LayerNorm(width, eps=epsilon)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), activation(), nn.Linear(hidden, width))
        self.drop_path = DropPath(drop_path, over)

    def forward(self, tokens_BLJD: Tensor, draws: Draws | None = None, read_BL: Tensor | None = None) -> Tensor:
        """(B, L, J, D) -> (B, L, J, D). Branches are dropped only while training and with draws. `read_BL` as above."""
        tokens = tokens_BLJD + self.drop_path(self.attention(self.attention_norm(tokens_BLJD), read_BL), draws)
        return tokens + self.drop_path(self.mlp(self.mlp_norm(tokens)), draws)
