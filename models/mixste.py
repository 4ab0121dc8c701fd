"""MixSTE: attention over the joints of each frame and over the frames of each joint, in turn.

Zhang et al., "MixSTE: Seq2seq Mixed Spatio-Temporal Encoder for 3D Human Pose Estimation in Video", CVPR 2022.
Follows the released network where the paper leaves room: two layer norms shared by all depths, position tables added
once. Legend: B windows, L frames, J joints, D width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from posegrid.models import losses
from posegrid.models.blocks.attention import TransformerBlock
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.full_precision import FullPrecisionLinear
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.joint_order import MIXSTE_JOINT_WEIGHTS, require_h36m_17
from posegrid.models.shapes import require_divisible, require_target, require_windows


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published network; DiffHPE's retrained baseline and conditioner is 64 wide with the loss "mse"."""

    width: int = 512
    """Width D of every token."""
    depth: int = 8
    """Number of spatial blocks, and of temporal blocks."""
    heads: int = 8
    """Attention heads, which share the width."""
    mlp_ratio: float = 2.0
    """Hidden width of a block's MLP as a multiple of the width."""
    drop_path: float = 0.1
    """Probability that the last block drops a residual branch; rises linearly from 0 at the first block."""
    loss: Literal["mse", "weighted"] = "mse"
    """"mse": mean square over coordinates (DiffHPE). "weighted": MixSTE's own, L_w + 0.5 L_smooth + 2 L_velocity."""
    square_gradient: bool = False
    """True: the gradient of loss^2 / 2, as the released MixSTE training does unawares."""

    def __post_init__(self) -> None:
        require_divisible(self.width, self.heads, "mixste")
        if self.loss not in ("mse", "weighted"):
            raise ValueError(f'mixste: loss {self.loss!r} is unknown. Known: "mse", "weighted". Choose one of them.')
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"mixste: drop_path is {self.drop_path}; it is a probability in [0, 1). Lower it below 1.")


class MixSTE(Lifter):
    """Regressor of all poses of a window in one pass."""

    low_precision = True
    compiles = True
    splits = True

    joint_weights: Tensor

    def __init__(self, config: Config, pose: PoseShape, channels: int = 2):
        """channels: numbers that the first layer reads of each joint."""
        super().__init__()
        if config.loss == "weighted":
            require_h36m_17(pose, 'loss = "weighted" of mixste', 'Use loss = "mse" for other skeletons.')
        self.config = config
        self.square_gradient = config.square_gradient
        self.pose = pose
        self.feature_width = width = config.width
        rates = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.embed = nn.Linear(channels, width)
        self.joint_position = nn.Parameter(torch.zeros(pose.joints, width))
        self.frame_position = nn.Parameter(torch.zeros(pose.frames, width))
        self.spatial = nn.ModuleList(
            TransformerBlock(width, config.heads, config.mlp_ratio, rate, "joints") for rate in rates
        )
        self.temporal = nn.ModuleList(
            TransformerBlock(width, config.heads, config.mlp_ratio, rate, "frames") for rate in rates
        )
        self.spatial_norm = nn.LayerNorm(width, eps=1e-6)
        self.temporal_norm = nn.LayerNorm(width, eps=1e-6)
        self.head_norm = nn.LayerNorm(width, eps=1e-5)
        self.head = FullPrecisionLinear(width, 3)
        self.register_buffer("joint_weights", torch.tensor(MIXSTE_JOINT_WEIGHTS), persistent=False)

    def features(self, keypoints_BLJC: Tensor, draws: Draws | None = None) -> Tensor:
        """Tokens after the head's layer norm, (B, L, J, D): what the last linear layer would read."""
        require_windows(keypoints_BLJC, self.pose, "mixste")
        return self.encoded(self.embed(keypoints_BLJC) + self.joint_position, draws)

    def encoded(self, tokens: Tensor, draws: Draws | None = None) -> Tensor:
        """Embedded tokens (B, L, J, D) through all blocks and the head's layer norm, same shape."""
        for depth, (spatial, temporal) in enumerate(zip(self.spatial, self.temporal, strict=True)):
            tokens = self.spatial_norm(spatial(tokens, draws))
            if depth == 0:
                tokens = tokens + self.frame_position[:, None]
            tokens = self.temporal_norm(temporal(tokens, draws))
        return self.head_norm(tokens)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """See `Config.loss`. Drop-path draws come from `generator`."""
        target = require_target(batch, "mixste")
        predicted = self.head(self.features(batch.keypoints, Draws(batch, generator)))
        value = losses.mse(predicted, target) if self.config.loss == "mse" else self.weighted_loss(predicted, target)
        return losses.with_square_gradient(value) if self.square_gradient and not batch.piece else value

    def weighted_loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """L_w + 0.5 L_smooth + 2 L_velocity of (B, L, J, 3) poses, with the joint weights of the released training."""
        return (
            losses.weighted_mpjpe(predicted, target, self.joint_weights)
            + 0.5 * losses.smoothness(predicted, self.joint_weights)
            + 2.0 * losses.velocity(predicted, target)
        )

    @torch.no_grad()
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, 1, L, J, 3) metres. The root joint is predicted like any other and left as it is."""
        return self.head(self.features(batch.keypoints))[:, None]


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> MixSTE:
    """The lifter for this window length and skeleton."""
    return MixSTE(config, pose)
