"""STCFormer: one half of the channels attends over the joints of a frame, the other over the frames of a joint.

Tang et al., "3D Human Pose Estimation with Spatio-Temporal Criss-cross Attention", CVPR 2023. Follows the released
network. No position tables: a depthwise convolution over the grid of frames and joints tells places apart, so that the
weights serve windows of any length. Legend: B windows, L frames, J joints, D width, H heads, E = D / (2 H).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models import losses
from posegrid.models.blocks.attention import attend
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.drop import Dropout
from posegrid.models.blocks.full_precision import FullPrecisionLinear
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.joint_order import body_parts
from posegrid.models.shapes import require_divisible, require_rates, require_target, require_windows

OLDER_TABLE_ROWS = 20
"""Rows of the part table in the network released for MPI-INF-3DHP; as many as there are parts are read."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published network; the large one is 512 wide."""

    width: int = 256
    """Width D of every token."""
    depth: int = 6
    """Number of blocks."""
    heads: int = 8
    """Attention heads H of each half; both halves together share the width. 4 in the "mpi_inf_3dhp" release."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP as a multiple of the width."""
    dropout: float = 0.1
    """Probability that a value is zeroed after either layer of an MLP."""
    part_spatial: float = 1e-4
    """Factor of the part table in the half that attends over joints. The paper's text reads as 1."""
    part_temporal: float = 1e-9
    """Factor of the part table in the half that attends over frames. The paper's text reads as 1."""
    part_drop: float = 0.5
    """Probability that a block leaves out the part table for a whole step, doubling it (at 0.5) otherwise."""
    release: Literal["human36m", "mpi_inf_3dhp"] = "human36m"
    """"mpi_inf_3dhp": the older network behind the checkpoint for that data. It divides logits by sqrt(D), not by
    sqrt(D / 2), stores a part table of 20 rows and has none in the half that attends over frames."""

    def __post_init__(self) -> None:
        require_divisible(self.width, 2 * self.heads, "stcformer (two halves of heads)")
        require_rates("stcformer", dropout=self.dropout, part_drop=self.part_drop)
        if self.depth < 1:
            raise ValueError(f"stcformer: depth is {self.depth}; it must be at least 1. Raise it.")
        if self.release not in ("human36m", "mpi_inf_3dhp"):
            raise ValueError(
                f'stcformer: release {self.release!r} is unknown. Known: "human36m", "mpi_inf_3dhp". Choose one.'
            )


class CrissCross(nn.Module):
    """Attention over joints and over frames side by side, with local and part terms.

    The rows of `qkv` are ordered (head, half, role, E): both kinds of attention are views of one projection, and heads
    come out in the order in which `project` reads them.
    """

    parts: Tensor

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        width = config.width
        parts = body_parts(pose)
        older = config.release == "mpi_inf_3dhp"
        self.heads = config.heads
        self.each = width // (2 * config.heads)
        self.scale = (width if older else width // 2) ** -0.5
        self.part_factors = (config.part_spatial, 0.0 if older else config.part_temporal)
        self.part_drop = config.part_drop
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.local_joints = nn.Conv2d(width // 2, width // 2, 3, padding=1, groups=width // 2)
        self.local_frames = nn.Conv2d(width // 2, width // 2, 3, padding=1, groups=width // 2)
        self.part = nn.Embedding(OLDER_TABLE_ROWS if older else max(parts) + 1, self.each)
        self.register_buffer("parts", torch.tensor(parts, device="cpu"), persistent=False)

    def forward(self, tokens_BLJD: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, L, J, D) -> (B, L, J, D), the input added."""
        windows, frames, joints, _ = tokens_BLJD.shape
        grid = self.qkv(self.norm(tokens_BLJD)).view(windows, frames, joints, self.heads, 2, 3, self.each)
        among_joints, among_frames = grid.unbind(4)
        query, key, value = among_joints.flatten(0, 1).transpose(1, 2).unbind(3)
        spatial = attend(query, key, value, self.scale).view(windows, frames, self.heads, joints, self.each)
        query, key, value = among_frames.flatten(2, 3).transpose(1, 2).unbind(3)
        temporal = attend(query, key, value, self.scale).view(windows, joints, self.heads, frames, self.each)
        mixed = torch.stack([spatial.transpose(2, 3), temporal.permute(0, 3, 1, 2, 4)], dim=4).flatten(3)
        mixed = mixed + self._local(grid[..., 2, :].flatten(3)) + self._part(draws)
        return tokens_BLJD + self.project(mixed)

    def _local(self, value_BLJD: Tensor) -> Tensor:
        """Every channel's 3 x 3 convolution over frames and joints; neighbours are joints of neighbouring index."""
        convolved = F.conv2d(
            value_BLJD.permute(0, 3, 1, 2),
            self._by_head(self.local_joints.weight, self.local_frames.weight),
            self._by_head(*map(_required, (self.local_joints.bias, self.local_frames.bias))),
            padding=1,
            groups=value_BLJD.shape[-1],
        )
        return convolved.permute(0, 2, 3, 1)

    def _by_head(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Weights of both halves, (D / 2, ...) each, in the order (head, half, E)."""
        return torch.stack([half.unflatten(0, (self.heads, -1)) for half in (spatial, temporal)], dim=1).flatten(0, 2)

    def _part(self, draws: Draws | None) -> Tensor:
        """The part term of every joint, (J, D); the same for all heads."""
        table = self.part(self.parts)[:, None, None]
        if draws is not None and self.training and self.part_drop > 0:
            table = table * draws.shared_survivor(self.part_drop)
        both = torch.cat([table * factor for factor in self.part_factors], dim=2)
        return both.expand(-1, self.heads, -1, -1).flatten(1)


class Block(nn.Module):
    """Criss-cross attention, then y + MLP(LN(y)) with exact GELU and no biases."""

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.attention = CrissCross(config, pose)
        self.norm = nn.LayerNorm(config.width)
        self.widen = nn.Linear(config.width, hidden, bias=False)
        self.narrow = nn.Linear(hidden, config.width, bias=False)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens_BLJD: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, L, J, D) -> (B, L, J, D)."""
        tokens = self.attention(tokens_BLJD, draws)
        hidden = self.dropout(F.gelu(self.widen(self.norm(tokens))), draws)
        return tokens + self.dropout(self.narrow(hidden), draws)


class STCFormer(Lifter):
    """Regressor of all poses of a window in one pass.

    The published numbers score the centre frame of one window per frame; that is a protocol, not a property of the
    network. The refine network of the released code, off by default there, is `blocks/refinement.py`.
    """

    low_precision = True
    compiles = True
    splits = True

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        self.config = config
        self.pose = pose
        self.feature_width = config.width
        self.embed = nn.Linear(2, config.width, bias=False)
        self.blocks = nn.ModuleList(Block(config, pose) for _ in range(config.depth))
        self.head = FullPrecisionLinear(config.width, 3, bias=False)

    def features(self, keypoints_BLJC: Tensor, draws: Draws | None = None) -> Tensor:
        """Tokens after the last block, (B, L, J, D): what the last linear layer would read."""
        require_windows(keypoints_BLJC, self.pose, "stcformer")
        tokens = F.gelu(self.embed(keypoints_BLJC))
        for block in self.blocks:
            tokens = block(tokens, draws)
        return tokens

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """MPJPE over all frames and joints, the root included, metres."""
        target = require_target(batch, "stcformer")
        return losses.mpjpe(self.head(self.features(batch.keypoints, Draws(batch, generator))), target)

    @torch.no_grad()
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, 1, L, J, 3) metres. The released evaluation zeroes the predicted root; here it is left as it is."""
        return self.head(self.features(batch.keypoints))[:, None]


def _required(bias: Tensor | None) -> Tensor:
    assert bias is not None
    return bias


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> STCFormer:
    """The lifter for this window length and skeleton."""
    return STCFormer(config, pose)
