"""Uplift and Upsample: poses for all frames from 2D poses of every s-th frame only.

Einfalt, Ludwig and Lienhart, "Uplift and Upsample: Efficient 3D Human Pose Estimation with Uplifting Transformers",
WACV 2023. Follows the released network. A frame none of whose joints is visible has no 2D pose; its token is a learned
one, and the network predicts its pose all the same. `datasets/occlusions/sparse_frames.py` hides the frames.
Legend: B windows, L tokens (frames of a window), J joints, S width of a joint's token, D width of a frame's token.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from posegrid.models import losses
from posegrid.models.blocks.attention import TransformerBlock
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.full_precision import FullPrecisionLinear
from posegrid.models.blocks.strided import KERNEL, StridedBlock, strided_lengths
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.shapes import require_divisible, require_rates, require_target, require_windows


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published network for 41 tokens (81 frames, every second one); that for 71 has other strides, no paddings.

    The component ablation (supplement, Table 3) is `spatial_depth = 0`, `temporal_depth = 0` or `strided = false`. What
    takes a part's place is our reading, its text names none: without the spatial transformer a linear layer embeds the
    keypoints of a frame; without the temporal one its blocks are left out; without the strided one the centre token of
    the sequence is the centre pose, in the loss and in the result.
    """

    width: int = 384
    """Width D of a frame's token."""
    spatial_width: int = 32
    """Width S of a joint's token in the spatial transformer."""
    spatial_depth: int = 4
    """Blocks of the spatial transformer, among the joints of a frame; 0 replaces it by a linear layer."""
    temporal_depth: int = 4
    """Blocks of the temporal transformer, among the frames; 0 leaves it out (then defer_attention is 0 too)."""
    heads: int = 8
    """Attention heads, everywhere."""
    mlp_ratio: float = 2.0
    """Hidden width of a block's MLP as a multiple of its width."""
    drop_path: float = 0.1
    """Rate of the last block of the spatial and of the temporal transformer at which whole branches are dropped; it
    rises linearly from 0 at the first."""
    defer_attention: int = 1
    """First blocks of the temporal transformer in which no token reads those of frames without a 2D pose. The paper
    defers by one block; 0 does not defer."""
    strided: bool = True
    """Whether the strided transformer shortens the sequence to the centre pose."""
    strides: tuple[int, ...] = (4, 4, 3)
    """Stride of each block of the strided transformer: [4, 4, 3] for 41 tokens, [3, 10, 3] for 71."""
    paddings: tuple[int, ...] = (1, 0, 0)
    """Zeros at either end of each block's convolution, 0 or 1: [1, 0, 0] for 41 tokens, [0, 0, 0] for 71."""
    output: Literal["centre", "sequence"] = "centre"
    """What is lifted: the "centre" frame of a window (as published), or its whole "sequence" by the other head."""
    centre_weight: float = 0.5
    """Weight w of the centre frame in the loss, w * centre + (1 - w) * sequence."""

    def __post_init__(self) -> None:
        require_divisible(self.width, self.heads, "uplift_upsample")
        require_divisible(self.spatial_width, self.heads, "uplift_upsample (spatial_width)")
        require_rates("uplift_upsample", drop_path=self.drop_path)
        if min(self.spatial_depth, self.temporal_depth) < 0 or not 0 <= self.defer_attention <= self.temporal_depth:
            raise ValueError(
                f"uplift_upsample: defer_attention is {self.defer_attention}, temporal_depth {self.temporal_depth} and "
                f"spatial_depth {self.spatial_depth}; depths are at least 0, and attention is deferred by 0 to "
                "temporal_depth blocks. Change the one outside."
            )
        if len(self.strides) != len(self.paddings) or min(self.strides, default=1) < 1 or set(self.paddings) - {0, 1}:
            raise ValueError(
                f"uplift_upsample: strides are {list(self.strides)} and paddings {list(self.paddings)}; each stride is "
                "at least 1 and has a padding of 0 or 1. Give both lists the same length."
            )
        if self.output not in ("centre", "sequence") or not 0 <= self.centre_weight <= 1:
            raise ValueError(
                f'uplift_upsample: output is "{self.output}" and centre_weight {self.centre_weight}; allowed are '
                '"centre" and "sequence", and weights from 0 to 1. Change the one outside.'
            )


def check_lengths(config: Config, tokens: int) -> list[int]:
    """Tokens before the first strided block and after each. Raises ValueError unless the last number is 1."""
    lengths = strided_lengths(tokens, config.strides, config.paddings)
    if lengths[-1] != 1 or 0 in lengths:
        raise ValueError(
            f"uplift_upsample was asked for windows of {tokens} tokens (data.frames), which strides = "
            f"{list(config.strides)} and paddings = {list(config.paddings)} shorten to "
            f"{' -> '.join(map(str, lengths))}; the last length must be 1. A block leaves ceil((length + 2 padding - "
            "2) / stride) tokens: change model.strides and model.paddings, or data.frames."
        )
    return lengths


class SpatialTransformer(nn.Module):
    """Attention among the joints of a frame; their tokens side by side become the token of the frame."""

    def __init__(self, config: Config, joints: int):
        super().__init__()
        width = config.spatial_width
        self.embed = nn.Linear(2, width)
        self.table = nn.Parameter(torch.empty(joints, width))
        self.blocks = nn.ModuleList(_blocks(config, width, config.spatial_depth, "joints"))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.project = nn.Linear(joints * width, config.width)

    def forward(self, keypoints_BLJC: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, L, J, 2) -> (B, L, D)."""
        tokens = self.embed(keypoints_BLJC) + self.table
        for block in self.blocks:
            tokens = block(tokens, draws)
        return self.project(self.norm(tokens).flatten(2))


class FlatEmbedding(nn.Module):
    """A linear layer of all keypoints of a frame, in place of the spatial transformer."""

    def __init__(self, config: Config, joints: int):
        super().__init__()
        self.embed = nn.Linear(2 * joints, config.width)

    def forward(self, keypoints_BLJC: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, L, J, 2) -> (B, L, D)."""
        return self.embed(keypoints_BLJC.flatten(2))


class UpliftUpsample(Lifter):
    """Regressor of the centre frame of a window, trained with all of its frames.

    Windows are sequences of tokens: `data.frames` counts tokens, `data.stride` the frames from one to the next. Any
    pattern of missing frames may be fed; accuracy is to be expected for strides it was trained with.
    """

    low_precision = True
    compiles = True
    splits = True

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        self.config = config
        self.pose = pose
        self.centre = (pose.frames - 1) // 2
        self.output_frame = self.centre if config.output == "centre" else None
        width, coordinates = config.width, 3 * pose.joints
        self.spatial = (SpatialTransformer if config.spatial_depth else FlatEmbedding)(config, pose.joints)
        self.upsampling = nn.Parameter(torch.empty(width))
        self.table = nn.Parameter(torch.empty(pose.frames, width))
        self.blocks = nn.ModuleList(_blocks(config, width, config.temporal_depth, "frames"))
        self.sequence_head = FullPrecisionLinear(width, coordinates)
        if config.strided:
            lengths = check_lengths(config, pose.frames)
            self.strided = nn.Sequential(
                *(
                    StridedBlock(length, width, config.heads, config.mlp_ratio, stride, padding)
                    for length, stride, padding in zip(lengths, config.strides, config.paddings, strict=False)
                )
            )
            self.centre_head = FullPrecisionLinear(width, coordinates)
        _initialise(self)

    def tokens(self, batch: Batch, draws: Draws | None = None) -> Tensor:
        """(B, L, D) after the temporal transformer, which both heads read."""
        require_windows(batch.keypoints, self.pose, "uplift_upsample")
        seen_BL = batch.visible.any(-1)
        tokens = (self._embedded(batch.keypoints, seen_BL, draws) + self.table)[:, :, None]
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, draws, seen_BL if index < self.config.defer_attention else None)
        return tokens[:, :, 0]

    def _embedded(self, keypoints_BLJC: Tensor, seen_BL: Tensor, draws: Draws | None) -> Tensor:
        """(B, L, D): tokens of the frames with a pose, the learned token elsewhere."""
        if self.training or torch.compiler.is_compiling():
            return torch.where(seen_BL[..., None], self.spatial(keypoints_BLJC, draws), self.upsampling)
        # the spatial transformer is spared for frames without a pose; how many there are decides a shape
        embedded = self.spatial(keypoints_BLJC[seen_BL][None])
        learned = self.upsampling.to(embedded.dtype).expand(*seen_BL.shape, -1)
        return learned.masked_scatter(seen_BL[..., None], embedded)

    def sequence(self, tokens_BLD: Tensor) -> Tensor:
        """(B, L, J, 3): the pose of every token."""
        return self.sequence_head(tokens_BLD).unflatten(-1, (-1, 3))

    def centre_pose(self, tokens_BLD: Tensor) -> Tensor:
        """(B, 1, J, 3): the pose of the centre."""
        if not self.config.strided:
            return self.sequence(tokens_BLD[:, self.centre, None])
        return self.centre_head(self.strided(tokens_BLD)).unflatten(-1, (-1, 3))

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """w * MPJPE of the centre + (1 - w) * MPJPE of all tokens, those without a 2D pose included, metres."""
        target = require_target(batch, "uplift_upsample")
        tokens, weight = self.tokens(batch, Draws(batch, generator)), self.config.centre_weight
        centre = losses.mpjpe(self.centre_pose(tokens), target[:, self.centre, None])
        return weight * centre + (1 - weight) * losses.mpjpe(self.sequence(tokens), target)

    @torch.no_grad()
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, 1, 1, J, 3) metres, the centre of each window, or (B, 1, L, J, 3) with `output = "sequence"`."""
        face = self.sequence if self.output_frame is None else self.centre_pose
        return face(self.tokens(batch))[:, None]


def _blocks(config: Config, width: int, depth: int, over: Literal["frames", "joints"]) -> list[TransformerBlock]:
    """Blocks with a rising rate of drop-path; exact GELU among joints and ReLU among frames, as released."""
    rates = torch.linspace(0, config.drop_path, depth, device="cpu").tolist()
    activation = nn.GELU if over == "joints" else nn.ReLU
    return [TransformerBlock(width, config.heads, config.mlp_ratio, rate, over, 1e-5, activation) for rate in rates]


def _initialise(model: UpliftUpsample) -> None:
    """Keras's defaults: Glorot uniform for every matrix of the released network, zero biases, normal tables."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            fans = layer.in_features + layer.out_features
            if name.endswith(".qkv"):  # three square matrices there
                fans = 2 * layer.in_features
            elif name.endswith(".join"):  # a convolution there, each of whose taps counts for both fans
                fans = layer.in_features + KERNEL * layer.out_features
            nn.init.uniform_(layer.weight, -sqrt(6 / fans), sqrt(6 / fans))
            nn.init.zeros_(layer.bias)
    for name, weight in model.named_parameters():
        if name.endswith(("table", "upsampling")):
            nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> UpliftUpsample:
    """The lifter for this window length and skeleton."""
    return UpliftUpsample(config, pose)
