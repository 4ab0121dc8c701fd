"""A plain regressor of poses from person crops: the control for models that are conditioned on the same encoder.

Encoder, one query per joint that reads the patches, a layer norm and a linear layer; not a published network.
Legend: B windows, L frames, P = B L crops, J joints, E width of the encoder.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posegrid.models import losses
from posegrid.models.blocks.token_transformer import CrossAttention
from posegrid.models.image_encoder import Encoding, VisionTransformer, require_images
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.shapes import require_target, require_windows


@dataclass(frozen=True, kw_only=True)
class Config:
    """An encoder small enough to train here."""

    height: int = 256
    """Height of a crop in pixels."""
    width_px: int = 192
    """Width of a crop in pixels."""
    patch: int = 16
    """Side of a patch in pixels."""
    width: int = 192
    """Width E of a token."""
    depth: int = 6
    """Number of blocks of the encoder."""
    heads: int = 3
    """Attention heads, which share the width."""
    frozen_encoder: bool = False
    """The encoder keeps the weights that training starts from (a recipe's [initial] with part = "encoder")."""

    def __post_init__(self) -> None:
        encoding(self)


def encoding(config: Config) -> Encoding:
    """Size of the encoder."""
    return Encoding(**{key: value for key, value in vars(config).items() if key != "frozen_encoder"})


def crop_size(config: Config) -> tuple[int, int]:
    """Height and width of the crops, which are all that it reads."""
    return config.height, config.width_px


class ImageRegressor(Lifter):
    """Poses of single frames from crops; keypoints are not read."""

    splits = True

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        self.config = config
        self.pose = pose
        self.encoder = VisionTransformer(encoding(config)).requires_grad_(not config.frozen_encoder)
        self.joint = nn.Parameter(torch.randn(pose.joints, config.width) * 0.02)
        self.query_norm = nn.LayerNorm(config.width)
        self.read = CrossAttention(config.width, config.width, config.heads)
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, 3)

    def poses(self, batch: Batch) -> Tensor:
        """(B, L, J, 3) metres."""
        require_windows(batch.keypoints, self.pose, "image_regressor")
        patches = self.encoder(require_images(batch, self.pose, self.encoder.size, "image_regressor"))
        joints = self.joint + self.read(self.query_norm(self.joint).expand(len(patches), -1, -1), patches)
        return self.head(self.norm(joints)).view(*batch.keypoints.shape[:-1], 3)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """MPJPE, metres."""
        require_windows(batch.keypoints, self.pose, "image_regressor")
        return losses.mpjpe(self.poses(batch), require_target(batch, "image_regressor"))

    @torch.no_grad()
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, 1, L, J, 3) metres."""
        return self.poses(batch)[:, None]


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> ImageRegressor:
    """The regressor for this skeleton."""
    return ImageRegressor(config, pose)
