"""PoseFormer: attention over the joints of each frame, then over whole frames, for the pose of the centre frame.

Zheng et al., "3D Human Pose Estimation with Spatial and Temporal Transformers", ICCV 2021. Follows the released
network. Legend: B windows, L frames, J joints, E width of a joint's token, D = J E width of a frame's token.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posegrid.models import losses
from posegrid.models.blocks.attention import TransformerBlock
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.full_precision import FullPrecisionLinear
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.shapes import require_divisible, require_rates, require_target, require_windows


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published network; windows have 9, 27 or 81 frames."""

    joint_width: int = 32
    """Width E of a joint's token; a frame's token concatenates those of all joints."""
    depth: int = 4
    """Number of spatial blocks, and of temporal blocks."""
    heads: int = 8
    """Attention heads, which share the width of either kind of token."""
    mlp_ratio: float = 2.0
    """Hidden width of a block's MLP as a multiple of the width."""
    drop_path: float = 0.1
    """Probability that the last block drops a residual branch; rises linearly from 0 at the first block."""

    def __post_init__(self) -> None:
        require_divisible(self.joint_width, self.heads, "poseformer")
        require_rates("poseformer", drop_path=self.drop_path)
        if self.depth < 1:
            raise ValueError(f"poseformer: depth is {self.depth}; it must be at least 1. Raise it.")


class PoseFormer(Lifter):
    """Regressor of the centre frame of a window."""

    low_precision = True
    compiles = True
    splits = True

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        self.config = config
        self.pose = pose
        self.output_frame = (pose.frames - 1) // 2
        narrow, wide = config.joint_width, pose.joints * config.joint_width
        rates = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.embed = nn.Linear(2, narrow)
        self.joint_position = nn.Parameter(torch.zeros(pose.joints, narrow))
        self.frame_position = nn.Parameter(torch.zeros(pose.frames, wide))
        self.spatial = nn.ModuleList(
            TransformerBlock(narrow, config.heads, config.mlp_ratio, rate, "joints") for rate in rates
        )
        self.temporal = nn.ModuleList(
            TransformerBlock(wide, config.heads, config.mlp_ratio, rate, "frames") for rate in rates
        )
        self.spatial_norm = nn.LayerNorm(narrow, eps=1e-6)
        self.temporal_norm = nn.LayerNorm(wide, eps=1e-6)
        self.frame_mean = nn.Linear(pose.frames, 1)
        self.head_norm = nn.LayerNorm(wide, eps=1e-5)
        self.head = FullPrecisionLinear(wide, pose.joints * 3)

    def centre(self, keypoints_BLJC: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, L, J, 2) -> (B, 1, J, 3)."""
        require_windows(keypoints_BLJC, self.pose, "poseformer")
        tokens = self.embed(keypoints_BLJC) + self.joint_position
        for block in self.spatial:
            tokens = block(tokens, draws)
        # Tokens stay (B, L, ?, width): a frame is a single token for the blocks that attend over frames.
        tokens = (self.spatial_norm(tokens).flatten(2) + self.frame_position)[:, :, None]
        for block in self.temporal:
            tokens = block(tokens, draws)
        mean = torch.matmul(self.frame_mean.weight, self.temporal_norm(tokens)[:, :, 0]) + self.frame_mean.bias
        return self.head(self.head_norm(mean)).unflatten(2, (-1, 3))

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """MPJPE of the centre frame, metres. Drop-path draws come from `generator`."""
        target = self.at_output(require_target(batch, "poseformer"))
        return losses.mpjpe(self.centre(batch.keypoints, Draws(batch, generator)), target)

    @torch.no_grad()
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, 1, 1, J, 3) metres."""
        return self.centre(batch.keypoints)[:, None]


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> PoseFormer:
    """The lifter for this window length and skeleton."""
    return PoseFormer(config, pose)
