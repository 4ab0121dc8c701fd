"""A small perceptron over one frame or one window: the quickest lifter, for tests and for a first run.

After Martinez et al., "A simple yet effective baseline for 3d human pose estimation", ICCV 2017, without its batch
norm. Legend: B windows, L frames, J joints, D feature width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models import losses
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.drop import Dropout
from posegrid.models.blocks.full_precision import FullPrecisionLinear
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.shapes import require_target, require_windows


@dataclass(frozen=True, kw_only=True)
class Config:
    """Small enough to train in seconds on one core."""

    width: int = 128
    """Width of the hidden layers."""
    depth: int = 2
    """Number of residual hidden layers."""
    feature_width: int = 16
    """Width D of the features of each joint, from which its position is read."""
    sees: Literal["frame", "window"] = "frame"
    """What one prediction reads: its own frame, or the flattened window."""
    dropout: float = 0.0
    """Probability that a hidden value is zeroed while training."""

    def __post_init__(self) -> None:
        if self.sees not in ("frame", "window"):
            raise ValueError(f'mlp: sees = {self.sees!r} is unknown. Known: "frame", "window". Choose one of them.')


class MLP(Lifter):
    """Regressor: keypoints -> hidden layers -> features of every joint -> positions."""

    low_precision = True
    compiles = True
    splits = True

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        self.pose = pose
        self.feature_width = config.feature_width
        self.flattened = -3 if config.sees == "window" else -2
        frames = pose.frames if config.sees == "window" else 1
        self.embed = nn.Linear(frames * pose.joints * 2, config.width)
        self.hidden = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.depth))
        self.dropout = Dropout(config.dropout)
        self.spread = nn.Linear(config.width, frames * pose.joints * config.feature_width)
        self.head = FullPrecisionLinear(config.feature_width, 3)

    def features(self, keypoints_BLJC: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, L, J, D), each joint's features normalised to mean 0 and variance 1."""
        require_windows(keypoints_BLJC, self.pose, "mlp")
        hidden = self.embed(keypoints_BLJC.flatten(self.flattened))
        for layer in self.hidden:
            hidden = hidden + self.dropout(F.gelu(layer(hidden)), draws)
        grid = self.spread(hidden).view(*keypoints_BLJC.shape[:-1], -1)
        return F.layer_norm(grid, grid.shape[-1:])

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """MPJPE, metres."""
        target = require_target(batch, "mlp")
        return losses.mpjpe(self.head(self.features(batch.keypoints, Draws(batch, generator))), target)

    @torch.no_grad()
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, 1, L, J, 3) metres."""
        return self.head(self.features(batch.keypoints))[:, None]


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> MLP:
    """The lifter for this window length and skeleton."""
    return MLP(config, pose)
