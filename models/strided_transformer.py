"""StridedTransformer: attention over frames, then over fewer and fewer of them, for the pose of the centre frame.

Li et al., "Exploiting Temporal Contexts with Strided Transformer for 3D Human Pose Estimation", IEEE Transactions on
Multimedia 2022. Follows the released network. A first encoder keeps all frames; in a second one strided convolutions
take the place of the MLPs' last layer, until one token is left. Both are supervised. Legend: B windows, L frames,
T tokens inside, J joints, D width.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models import losses
from posegrid.models.blocks.activation import NormReluDropout
from posegrid.models.blocks.attention import Attention
from posegrid.models.blocks.batch_norm import BatchNorm1d
from posegrid.models.blocks.deviation_norm import DeviationNorm
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.drop import Dropout
from posegrid.models.blocks.full_precision import FullPrecisionLinear
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.shapes import require_divisible, require_rates, require_target, require_windows

KERNEL = 3
"""Neighbouring tokens that a strided convolution joins."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published network; its windows have 27 or 351 frames."""

    width: int = 256
    """Width D of a frame's token."""
    hidden: int = 512
    """Hidden width of a block's MLP."""
    depth: int = 3
    """Number of blocks that keep all frames."""
    strides: tuple[int, ...] = ()
    """Stride of every block that shortens the window, until one token is left. Empty: (3, 9, 13) for 351 frames,
    threes for others."""
    heads: int = 8
    """Attention heads, which share the width."""
    embed_dropout: float = 0.25
    """Probability that a value of an embedded frame is zeroed."""
    dropout: float = 0.1
    """Probability that a value is zeroed after each attention, within and after each MLP."""
    attention_dropout: float = 0.1
    """Probability that an attention weight is zeroed. 0 uses the fused kernel in training too, which does not hold the
    weights (B x heads x T x T in every block) in memory."""
    sequence_weight: float = 1.0
    """Weight of the first encoder's poses of all frames in the loss, beside 1 for the centre frame."""

    def __post_init__(self) -> None:
        require_divisible(self.width, self.heads, "strided_transformer")
        require_rates(
            "strided_transformer",
            embed_dropout=self.embed_dropout,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
        )
        if self.depth < 1 or self.hidden < 1 or min(self.strides, default=1) < 1 or self.sequence_weight < 0:
            raise ValueError(
                f"strided_transformer: depth is {self.depth}, hidden {self.hidden}, strides {self.strides} and "
                f"sequence_weight {self.sequence_weight}; allowed are at least 1 for all, 0 for the weight. Raise it."
            )


def strides(config: Config, frames: int) -> tuple[int, ...]:
    """Strides for a window of `frames`. Raises ValueError unless they leave a single token."""
    found = config.strides
    if not found:
        found = (3, 9, 13) if frames == 351 else ()
        while prod(found) < frames:
            found = (*found, 3)
    length = frames
    for stride in found:
        length = -(-length // stride)
    if length != 1 or not found:
        raise ValueError(
            f"strided_transformer was asked for windows of {frames} frames, of which strides = {list(found)} leave "
            f"{length} tokens; exactly 1 must be left after at least one stride. Set model.strides so that their "
            "product is data.frames."
        )
    return found


class Block(nn.Module):
    """x + Attention(N(x)), then y subsampled + MLP(N(y)), whose last layer is a convolution if strided.

    Subsampling keeps the first of every `stride` tokens, and the convolution is centred on it. So the path without
    layers carries frame 0 to the end, not the centre frame: as released. A strided block adds a table of its own; of
    its L rows only as many as there are tokens are read.
    """

    def __init__(self, config: Config, stride: int | None = None, frames: int = 0):
        super().__init__()
        self.stride = stride
        self.table = nn.Parameter(torch.randn(frames, config.width)) if stride else None
        self.attention_norm = DeviationNorm(config.width)
        self.attention = Attention(config.width, config.heads, "frames", config.attention_dropout)
        self.mlp_norm = DeviationNorm(config.width)
        self.widen = nn.Linear(config.width, config.hidden)
        self.narrow = nn.Linear((KERNEL if stride else 1) * config.hidden, config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens_BTD: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, ceil(T / stride), D)."""
        tokens = tokens_BTD if self.table is None else tokens_BTD + self.table[: tokens_BTD.shape[1]]
        attended = self.attention(self.attention_norm(tokens)[:, :, None], draws=draws)[:, :, 0]
        tokens = tokens + self.dropout(attended, draws)
        hidden = self.dropout(F.relu(self.widen(self.mlp_norm(tokens)), inplace=True), draws)
        if self.stride:
            # (B, T', hidden, KERNEL): as a linear layer on windows of three tokens, zero beyond the ends
            hidden = F.pad(hidden, (0, 0, 1, 1)).unfold(1, KERNEL, self.stride).transpose(2, 3).flatten(2)
            tokens = tokens[:, :: self.stride]
        return tokens + self.dropout(self.narrow(hidden), draws)


class Head(nn.Module):
    """Batch norm and a linear layer from tokens to poses."""

    def __init__(self, width: int, joints: int):
        super().__init__()
        self.norm = BatchNorm1d(width)
        self.linear = FullPrecisionLinear(width, joints * 3)

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, J, 3)."""
        normalised = self.norm(tokens_BTD.flatten(0, 1))
        return self.linear(normalised).view(*tokens_BTD.shape[:2], -1, 3)


class StridedTransformer(Lifter):
    """Regressor of the centre frame of a window.

    The released code can train a refine head afterwards (`blocks/refinement.py`), which needs the camera.
    """

    low_precision = False  # batch norms subtract what windows share: the rounding of the rest turns the gradient away
    compiles = True
    splits = False  # batch norms take statistics of all windows together

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        self.config = config
        self.pose = pose
        self.output_frame = (pose.frames - 1) // 2
        self.embed = nn.Linear(pose.joints * 2, config.width)
        self.activation = NormReluDropout(config.width, config.embed_dropout)
        self.table = nn.Parameter(torch.randn(pose.frames, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.strided = nn.ModuleList(Block(config, stride, pose.frames) for stride in strides(config, pose.frames))
        self.sequence_head = Head(config.width, pose.joints)
        self.centre_head = Head(config.width, pose.joints)

    def encoded(self, keypoints_BLJC: Tensor, draws: Draws | None = None) -> Tensor:
        """Tokens of all frames after the first encoder, (B, L, D)."""
        require_windows(keypoints_BLJC, self.pose, "strided_transformer")
        tokens = self.activation(self.embed(keypoints_BLJC.flatten(2)), draws) + self.table
        for block in self.blocks:
            tokens = block(tokens, draws)
        return tokens

    def centre(self, tokens_BLD: Tensor, draws: Draws | None = None) -> Tensor:
        """Tokens after the first encoder -> (B, 1, J, 3)."""
        for block in self.strided:
            tokens_BLD = block(tokens_BLD, draws)
        return self.centre_head(tokens_BLD)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """MPJPE of the centre frame plus `sequence_weight` times that of all frames from the first encoder, metres."""
        target = require_target(batch, "strided_transformer")
        draws = Draws(batch, generator)
        tokens = self.encoded(batch.keypoints, draws)
        sequence = losses.mpjpe(self.sequence_head(tokens), target)
        return losses.mpjpe(self.centre(tokens, draws), self.at_output(target)) + self.config.sequence_weight * sequence

    @torch.no_grad()
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, 1, 1, J, 3) metres."""
        return self.centre(self.encoded(batch.keypoints))[:, None]


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> StridedTransformer:
    """The lifter for this window length and skeleton."""
    return StridedTransformer(config, pose)
