"""Transformer blocks that shorten their sequence, until one token is left.

Li et al., "Exploiting Temporal Contexts with Strided Transformer for 3D Human Pose Estimation", 2022, in the form of
Uplift and Upsample (WACV 2023). Legend: B windows, L tokens, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models.blocks.attention import Attention

KERNEL = 3
"""Neighbouring tokens that the second layer of the MLP joins."""


def strided_lengths(tokens: int, strides: tuple[int, ...], paddings: tuple[int, ...]) -> list[int]:
    """Tokens before the first block and after each one: ceil((length + 2 padding - 2) / stride), not below 0."""
    lengths = [tokens]
    for stride, padding in zip(strides, paddings, strict=True):
        lengths.append(max(-(-(lengths[-1] + 2 * padding - KERNEL + 1) // stride), 0))
    return lengths


class StridedBlock(nn.Module):
    """Adds a table of its own, attends, then joins three tokens for every `stride` of them.

    y = x + Attention(LN(x)); out = y subsampled + Conv(ReLU(Linear(LN(y)))). The subsampled tokens are those on which
    the convolution is centred.
    """

    def __init__(self, tokens: int, width: int, heads: int, mlp_ratio: float, stride: int, padding: int):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.stride = stride
        self.padding = padding
        self.table = nn.Parameter(torch.empty(tokens, width))
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, "frames")
        self.mlp_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        # (D, token and hidden channel): as a linear layer, on windows of three tokens
        self.join = nn.Linear(KERNEL * hidden, width)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """(B, L, D) -> (B, fewer, D)."""
        tokens = tokens_BLD + self.table
        tokens = tokens + self.attention(self.attention_norm(tokens)[:, :, None])[:, :, 0]
        hidden = F.relu(self.widen(self.mlp_norm(tokens)))
        if self.padding:
            hidden = F.pad(hidden, (0, 0, self.padding, self.padding))
        joined = self.join(hidden.unfold(1, KERNEL, self.stride).transpose(2, 3).flatten(2))
        cut = 1 - self.padding
        return tokens[:, cut : tokens.shape[1] - cut : self.stride] + joined

    def extra_repr(self) -> str:
        return f"stride={self.stride}, padding={self.padding}"
