"""Image encoders: person crops to tokens that a model can be conditioned on.

Any module with the face of `ImageEncoder` serves. The one here is a plain vision transformer in the layout of ViTPose
(Xu et al., "ViTPose: Simple Vision Transformer Baselines for Human Pose Estimation", NeurIPS 2022), so that it can be
trained here or take the weights of a released ViTPose (`vitpose_weights`). Legend: P crops, M patches, E width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from posegrid.models.blocks.attention import TransformerBlock
from posegrid.models.interface import Batch, PoseShape
from posegrid.models.official_names import from_official, official_weights
from posegrid.models.shapes import require_divisible

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, by which released encoders expect pictures to be normalised."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Size of an encoder and of the crops it reads. The defaults are ViTPose-B's."""

    height: int = 256
    """Height of a crop in pixels."""
    width_px: int = 192
    """Width of a crop in pixels."""
    patch: int = 16
    """Side of a patch in pixels."""
    width: int = 768
    """Width E of a token."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads, which share the width."""

    def __post_init__(self) -> None:
        require_divisible(self.width, self.heads, "image encoder")
        if self.depth < 1 or self.patch < 4 or self.height % self.patch or self.width_px % self.patch:
            raise ValueError(
                f"image encoder: depth {self.depth}, patches of {self.patch} px and crops of {self.height} x "
                f"{self.width_px} px; allowed are at least one block and patches of at least 4 px that divide both "
                "sides. Change the one that does not fit."
            )


class ImageEncoder(nn.Module, ABC):
    """What conditions on pictures: uint8 crops in, tokens of a known width out."""

    width: int
    """Width E of a token."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(P, height, width, 3) uint8 RGB -> (P, M, E)."""


class VisionTransformer(ImageEncoder):
    """Patches, a table of positions, transformer blocks and a last norm. Patches overlap the border by two pixels."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: Encoding):
        super().__init__()
        self.size = size
        self.width = size.width
        self.embed = nn.Conv2d(3, size.width, size.patch, stride=size.patch, padding=2)
        count = (size.height // size.patch) * (size.width_px // size.patch)
        self.position = nn.Parameter(torch.randn(count, size.width) * 0.02)
        self.blocks = nn.ModuleList(
            TransformerBlock(size.width, size.heads, 4.0, 0.0, "joints") for _ in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.width, eps=1e-6)
        self.register_buffer("mean", torch.tensor(MEAN), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(P, height, width, 3) uint8 RGB -> (P, M, E)."""
        pixels = ((images.float() / 255 - self.mean) / self.deviation).movedim(-1, 1)
        tokens = (self.embed(pixels).flatten(2).transpose(1, 2) + self.position)[:, None]
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


def vitpose_weights(encoder: VisionTransformer, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict for `encoder` from a loaded ViTPose checkpoint, whose head is left out.

    Raises ValueError listing what is missing, unexpected or of another shape.
    """
    weights = official_weights(checkpoint)
    if any(key.startswith("backbone.") for key in weights):
        weights = {key.removeprefix("backbone."): value for key, value in weights.items() if "backbone." in key[:9]}
    return from_official(encoder, weights)


def encoder_of(model: nn.Module) -> VisionTransformer | None:
    """The image encoder inside a model; None if it has none."""
    return next((part for part in model.modules() if isinstance(part, VisionTransformer)), None)


def require_images(batch: Batch, pose: PoseShape, size: Encoding, model: str) -> Tensor:
    """The crops (P, height, width, 3) of a batch. Raises ValueError if there are none or they have another size."""
    expected = (len(batch.keypoints), pose.frames, size.height, size.width_px, 3)
    if batch.images is None or tuple(batch.images.shape) != expected:
        given = "no images" if batch.images is None else f"images of shape {tuple(batch.images.shape)}"
        raise ValueError(
            f"{model} was given a batch with {given}; it reads crops of shape {expected}. Lift from a store with poses "
            "or image files, whose crops are read along, and set the size of crops to that of the model."
        )
    return batch.images.flatten(0, 1)
