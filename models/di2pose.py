"""Di2Pose: discrete diffusion of the tokens of a pose, conditioned on an image or on keypoints.

Wang et al., "Di2Pose: Discrete Diffusion Model for Occluded 3D Human Pose Estimation", NeurIPS 2024, stage 2, with the
transformer of VQ-Diffusion (CVPR 2022). No code is known to be released. A single-frame method: every frame of a window
is a pose of its own. The conditioner is a trained `di2pose_tokens`, which makes and decodes the tokens.

Legend: B windows, H hypotheses, L frames, P = B L poses, J joints, N tokens, K categories, M tokens of the condition,
E its width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.token_transformer import TokenTransformer
from posegrid.models.di2pose_tokens import PoseTokeniser
from posegrid.models.diffusion.chain import Chain
from posegrid.models.diffusion.discrete import OccludeAndReplace, draw, proportional
from posegrid.models.diffusion.schedules import sampling_times
from posegrid.models.image_encoder import Encoding, VisionTransformer, require_images
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.shapes import require_divisible, require_target, require_windows

_LOGITS = 2**26
"""Logits that are held at once while nothing is trained: more poses go through the network in turns."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published network on keypoints, which is not the published condition."""

    conditioning: Literal["keypoints", "image"] = "keypoints"
    """What the network reads beside the tokens. "keypoints": a token per joint, of its coordinates and whether it is
    visible; no published setting. "image": a token per patch of the person's crop, from an image encoder."""
    frozen_encoder: bool = False
    """With images: the encoder keeps the weights that training starts from, those of a ViTPose as published (a recipe's
    [initial] with part = "encoder"). False: it is trained along."""
    condition_width: int = 768
    """Width E of the condition's tokens; 768 are those of ViTPose-B."""
    encoder_depth: int = 12
    """With images: number of blocks of the encoder."""
    encoder_heads: int = 12
    """With images: attention heads of the encoder."""
    patch: int = 16
    """With images: side of a patch in pixels."""
    image_height: int = 256
    """With images: height of a crop in pixels."""
    image_width: int = 192
    """With images: width of a crop in pixels."""
    layers: int = 21
    """Blocks of the transformer."""
    heads: int = 16
    """Attention heads, which share the width."""
    width: int = 1024
    """Width of every token."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP as a multiple of the width."""
    steps: int = 100
    """Number of noising steps S."""
    occluded: float = 0.9
    """Probability that a token is occluded at the last step; it is replaced otherwise. 0: replace only, 1: occlude
    only."""
    auxiliary: float = 5e-4
    """Weight of the cross entropy of the tokens beside the bound."""
    last: Literal["argmax", "draw"] = "argmax"
    """What the last step of sampling takes of the predicted tokens: the likeliest, or a draw."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("conditioning", self.conditioning, ("keypoints", "image")),
            ("last", self.last, ("argmax", "draw")),
        ):
            if value not in known:
                raise ValueError(f"di2pose: {name} {value!r} is unknown. Known: {', '.join(known)}. Choose one.")
        require_divisible(self.width, self.heads, "di2pose")
        for name in ("condition_width", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"di2pose: {name} is {getattr(self, name)}; it must be at least 1. Raise it.")
        if self.auxiliary < 0:
            raise ValueError(f"di2pose: auxiliary is {self.auxiliary}; it must be at least 0. Raise it.")
        if self.frozen_encoder and self.conditioning != "image":
            raise ValueError(
                f'di2pose: frozen_encoder = true with conditioning = "{self.conditioning}", which has no image '
                'encoder. Allowed with conditioning = "image": set it, or leave frozen_encoder out.'
            )
        proportional(self.steps, self.occluded)  # refuses what is no schedule
        if self.conditioning == "image":
            encoding(self)  # refuses what is no encoder


def encoding(config: Config) -> Encoding:
    """Size of the image encoder."""
    return Encoding(
        height=config.image_height,
        width_px=config.image_width,
        patch=config.patch,
        width=config.condition_width,
        depth=config.encoder_depth,
        heads=config.encoder_heads,
    )


def needs_conditioner(config: Config) -> bool:
    """It reads and writes the tokens of a trained tokeniser."""
    return True


def crop_size(config: Config) -> tuple[int, int] | None:
    """Height and width of the crops that it is conditioned on; None without."""
    return (config.image_height, config.image_width) if config.conditioning == "image" else None


class KeypointCondition(nn.Module):
    """Keypoints as M = J tokens: Linear([u, v, visible]) plus a table over joints."""

    def __init__(self, joints: int, width: int):
        super().__init__()
        self.embed = nn.Linear(3, width)
        self.joint = nn.Parameter(torch.randn(joints, width) * 0.02)

    def forward(self, batch: Batch) -> Tensor:
        """(P, J, E)."""
        seen = batch.visible[..., None].to(batch.keypoints.dtype)
        return (self.embed(torch.cat([batch.keypoints, seen], dim=-1)) + self.joint).flatten(0, 1)


class ImageCondition(nn.Module):
    """Crops as M tokens, one per patch."""

    def __init__(self, size: Encoding, pose: PoseShape, *, frozen: bool):
        super().__init__()
        self.pose = pose
        self.encoder = VisionTransformer(size).requires_grad_(not frozen)

    def forward(self, batch: Batch) -> Tensor:
        """(P, M, E)."""
        return self.encoder(require_images(batch, self.pose, self.encoder.size, "di2pose"))


class Di2Pose(Lifter):
    """Diffusion model over tokens; lifting draws one reverse chain per hypothesis and frame."""

    splits = True
    chain = Chain(sampler="ddpm")

    def __init__(self, config: Config, pose: PoseShape, conditioner: PoseTokeniser):
        super().__init__()
        self.config = config
        self.pose = pose
        self.conditioner = conditioner.requires_grad_(False).eval()
        self.process = OccludeAndReplace(proportional(config.steps, config.occluded), conditioner.categories)
        self.condition: nn.Module = (
            KeypointCondition(pose.joints, config.condition_width)
            if config.conditioning == "keypoints"
            else ImageCondition(encoding(config), pose, frozen=config.frozen_encoder)
        )
        self.transformer = TokenTransformer(
            conditioner.tokens,
            conditioner.categories,
            config.width,
            config.condition_width,
            config.layers,
            config.heads,
            config.mlp_ratio,
            config.steps,
        )

    def train(self, mode: bool = True) -> "Di2Pose":
        """As usual, but the tokeniser stays in evaluation mode."""
        super().train(mode)
        self.conditioner.eval()
        return self

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Bound plus weighted auxiliary loss, nats per token, at a step drawn uniformly from 1 .. S for every pose."""
        require_windows(batch.keypoints, self.pose, "di2pose")
        target = require_target(batch, "di2pose")
        draws = Draws(batch, generator)
        step = draws.integers(self.config.steps, self.pose.frames).flatten() + 1
        uniform = draws.uniform(self.pose.frames, self.conditioner.tokens, 2).flatten(0, 1)
        with torch.no_grad():
            start = self.conditioner.encode(target.flatten(0, 1))
            noisy = self.process.noised(start, step, uniform)
        condition = self.condition(batch)
        total = condition.new_zeros((), dtype=torch.float32)
        for part in self._parts(len(start)):
            logits = self.transformer(noisy[part], step[part], condition[part])
            bound, auxiliary = self.process.losses(logits, noisy[part], start[part], step[part])
            total = total + (bound + self.config.auxiliary * auxiliary).sum()
        return total / len(start)

    @torch.no_grad()
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, H, L, J, 3) metres: every frame's tokens from pure noise in the steps of `chain`, then decoded."""
        require_windows(batch.keypoints, self.pose, "di2pose")
        if hypotheses < 1:
            raise ValueError(f"di2pose.lift was asked for {hypotheses} hypotheses; at least 1 is needed. Ask for more.")
        assert self.chain is not None
        if self.chain.sampler != "ddpm":
            raise ValueError(
                f'di2pose was asked to sample with "{self.chain.sampler}" (evaluation.sampler), which is made for '
                'continuous signals. Allowed is "ddpm", with any number of steps: leave the sampler out.'
            )
        draws, frames, tokens = Draws(batch, generator), self.pose.frames, self.conditioner.tokens

        def uniform(each: int) -> Tensor:
            return draws.uniform(hypotheses, frames, tokens, each).flatten(0, 2)

        condition = self.condition(batch)
        windows = len(batch.keypoints)
        rows = torch.arange(windows * frames, device=condition.device).view(windows, 1, frames)
        rows = rows.expand(-1, hypotheses, -1).flatten()
        state = self.process.prior(uniform(2))
        steps = self.config.steps
        times = [time + 1 for time in sampling_times(steps, self.chain.steps or steps, self.chain.spacing)]
        for step, before in zip(times, [*times[1:], 0], strict=True):
            numbers = uniform(3)
            state = torch.cat(
                [
                    self._before(state[part], condition[rows[part]], numbers[part], step, before)
                    for part in self._parts(len(state))
                ]
            )
        poses = torch.cat([self.conditioner.decode(state[part]) for part in self._parts(len(state))])
        return poses.view(windows, hypotheses, frames, self.pose.joints, 3)

    def _before(self, state_BN: Tensor, condition_BME: Tensor, uniform_BN3: Tensor, step: int, before: int) -> Tensor:
        """Tokens (B, N) at `before` from those at `step`: a start drawn from the prediction, then noised anew."""
        at = torch.full((len(state_BN),), step, device=state_BN.device)
        logits = self.transformer(state_BN, at, condition_BME)
        likeliest = before == 0 and self.config.last == "argmax"
        start = logits.argmax(-1) if likeliest else draw(logits, uniform_BN3[..., 2])
        return self.process.previous(state_BN, start, uniform_BN3[..., :2], at, torch.full_like(at, before))

    def _parts(self, count: int) -> Iterator[slice]:
        """Poses that go through the network together: all of them while training."""
        size = max(_LOGITS // (self.conditioner.tokens * self.conditioner.categories), 1)
        if torch.is_grad_enabled():
            size = max(count, 1)
        return (slice(first, first + size) for first in range(0, count, size))


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> Di2Pose:
    """The model for this window length and skeleton. The tokeniser is frozen in place and becomes part of it.

    Raises ValueError if the conditioner is no tokeniser.
    """
    if not isinstance(conditioner, PoseTokeniser):
        raise ValueError(
            f"di2pose was given a {type(conditioner).__name__} as conditioner; it diffuses the tokens of a trained "
            'di2pose_tokens. Name its recipe in [conditioner], for instance recipe = "di2pose_tokens".'
        )
    return Di2Pose(config, pose, conditioner)
