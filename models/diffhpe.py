"""DiffHPE: diffusion over windows of 3D poses with a graph network that predicts the noise.

Rommel et al., "DiffHPE: Robust, Coherent 3D Human Pose Lifting with Diffusion", ICCV Workshops 2023. DiffHPE-2D reads
the keypoints (`conditioning = "keypoints"`), DiffHPE-Wrapper the features of a frozen lifter (`"lifter"`). Where code
and paper differ the released code is followed, since the published numbers come from it.

Legend: B windows, H hypotheses, N = B or B * H, L frames, J joints, C coordinates, D features. Faces are (B, L, J, C);
inside, grids are (J, L, N, D), see `blocks/graph.py`.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.embedding import StepEmbedding
from posegrid.models.blocks.graph import GraphLayer, NonLocal, row_normalised_adjacency
from posegrid.models.diffusion.chain import Chain
from posegrid.models.diffusion.gaussian import GaussianDiffusion, predicting_noise
from posegrid.models.diffusion.samplers import NoiseAt
from posegrid.models.diffusion.schedules import cosine
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.joint_order import NON_LOCAL_GROUPS, require_h36m_17
from posegrid.models.shapes import require_target, require_windows


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published DiffHPE-2D; the Wrapper sets `conditioning = "lifter"` and `dropout = 0.27`."""

    conditioning: Literal["keypoints", "lifter"] = "keypoints"
    """What the network reads beside the noisy pose: keypoints (DiffHPE-2D) or a frozen lifter's features (Wrapper)."""
    condition_mix: Literal["concat", "sum"] = "concat"
    """How the embedded noisy pose joins the lifter's features. "sum" needs conditioning = "lifter"."""
    channels: int = 64
    """Width D of the residual blocks, even."""
    blocks: int = 16
    """Number of residual blocks."""
    step_embedding: int = 128
    """Width of the embedding of the diffusion step, even."""
    steps: int = 50
    """Number of diffusion steps S, in training and, unless scored otherwise, in sampling."""
    beta_cap: float = 0.5
    """Largest variance of one step; binds for the last 3 of 50. The cosine schedule's usual value is 0.999."""
    dropout: float = 0.03
    """Probability that a value is zeroed after each graph layer."""
    non_local: Literal["published", "aligned", "none"] = "published"
    """Joints pooled by the non-local layer: pairs shifted by the group of three, as released; the groups; no layer."""

    def __post_init__(self) -> None:
        for field, value, allowed in (
            ("conditioning", self.conditioning, ("keypoints", "lifter")),
            ("condition_mix", self.condition_mix, ("concat", "sum")),
            ("non_local", self.non_local, ("published", "aligned", "none")),
        ):
            if value not in allowed:
                raise ValueError(f"diffhpe: {field} {value!r} is unknown. Known: {', '.join(allowed)}. Choose one.")
        for field, number in (("channels", self.channels), ("step_embedding", self.step_embedding)):
            if number < 4 or number % 2:
                raise ValueError(f"diffhpe: {field} is {number}; it must be an even number of at least 4. Change it.")
        for field, number in (("blocks", self.blocks), ("steps", self.steps)):
            if number < 1:
                raise ValueError(f"diffhpe: {field} is {number}; it must be at least 1. Raise it.")
        if not 0 < self.beta_cap < 1 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"diffhpe: beta_cap is {self.beta_cap} and dropout {self.dropout}; allowed are 0 < beta_cap < 1 and "
                "0 <= dropout < 1. Change the one outside."
            )
        if self.condition_mix == "sum" and self.conditioning == "keypoints":
            raise ValueError(
                'diffhpe: condition_mix = "sum" was given with conditioning = "keypoints", whose 2 coordinates cannot '
                'be added to 3. Allowed is "concat": use it, or condition on a lifter.'
            )


def needs_conditioner(config: Config) -> bool:
    """DiffHPE-Wrapper reads a trained lifter."""
    return config.conditioning == "lifter"


class ResidualBlock(nn.Module):
    """Step embedding, graph layer over frames, graph layer over channels, non-local layer, gate, residual and skip."""

    def __init__(self, config: Config, pose: PoseShape, groups: tuple[tuple[int, ...], ...] | None):
        super().__init__()
        adjacency = row_normalised_adjacency(pose.parents)
        self.step = nn.Linear(config.step_embedding, config.channels)
        self.time = GraphLayer(pose.frames, adjacency, "frames", config.dropout)
        self.feature = GraphLayer(config.channels, adjacency, "channels", config.dropout)
        self.non_local = NonLocal(config.channels, groups) if groups else None
        self.gate = _pointwise(config.channels, 2 * config.channels)
        self.output = _pointwise(config.channels, 2 * config.channels)

    def forward(self, grid_JLND: Tensor, embedding: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """(J, L, N, D) and the step embedding (N or 1, E) -> next grid and skip, both (J, L, N, D)."""
        grid = grid_JLND + self.step(embedding)
        grid = self.feature(self.time(grid, draws), draws)
        if self.non_local is not None:
            grid = self.non_local(grid)
        gate, value = self.gate(grid).chunk(2, dim=-1)
        residual, skip = self.output(gate.sigmoid() * value.tanh()).chunk(2, dim=-1)
        return (grid_JLND + residual) * sqrt(0.5), skip


class NoisePredictor(nn.Module):
    """Residual network from a noisy pose, a condition and a step to the noise in the pose.

    `pose_width` and `condition_width` are the channels that noisy pose and condition bring; they are concatenated, or
    summed if `summed`. The first layer is linear in both, so the condition's part is computed once (`condition`).
    """

    def __init__(self, config: Config, pose: PoseShape, pose_width: int, condition_width: int, summed: bool = False):
        super().__init__()
        self.pose_width = 0 if summed else pose_width
        groups = non_local_groups(config, pose)
        self.input = _pointwise(self.pose_width + condition_width, config.channels)
        self.step_embedding = StepEmbedding(config.steps, config.step_embedding)
        self.blocks = nn.ModuleList(ResidualBlock(config, pose, groups) for _ in range(config.blocks))
        self.hidden = _pointwise(config.channels, config.channels)
        self.output = _pointwise(config.channels, 3)
        nn.init.zeros_(self.output.weight)

    def condition(self, condition_BLJD: Tensor) -> Tensor:
        """The condition's part of the first layer, (J, L, B, D)."""
        weight = self.input.weight[:, self.pose_width :]
        return F.linear(condition_BLJD, weight, self.input.bias).permute(2, 1, 0, 3).contiguous()

    def forward(self, pose_JLND: Tensor, step: Tensor, condition_JLBD: Tensor, draws: Draws | None = None) -> Tensor:
        """Noise (J, L, N, 3). N is B * H with the hypotheses of a window side by side; `step` is (N,) or (1,)."""
        weight = self.input.weight[:, : self.pose_width] if self.pose_width else self.input.weight
        grid = F.linear(pose_JLND, weight).unflatten(2, (condition_JLBD.shape[2], -1))
        grid = F.relu(grid + condition_JLBD[:, :, :, None]).flatten(2, 3)
        embedding = self.step_embedding(step)
        skips = None
        for block in self.blocks:
            grid, skip = block(grid, embedding, draws)
            skips = skip if skips is None else skips + skip
        assert skips is not None
        return self.output(F.relu(self.hidden(skips / sqrt(len(self.blocks)))))


class DiffHPE(Lifter):
    """Conditional diffusion model; lifting draws one reverse chain per hypothesis."""

    splits = False  # batch norms take statistics of all windows together
    chain = Chain(sampler="ddpm")

    def __init__(self, config: Config, pose: PoseShape, conditioner: Lifter | None = None):
        super().__init__()
        self.config = config
        self.pose = pose
        self.diffusion = GaussianDiffusion(cosine(config.steps, config.beta_cap))
        self.conditioner: Lifter | None = None
        self.embed_pose: nn.Module = nn.Identity()
        if conditioner is None:
            self.predictor = NoisePredictor(config, pose, 3, 2)
            return
        width = conditioner.feature_width
        if width is None:
            raise ValueError(
                f"diffhpe was given a {type(conditioner).__name__} as conditioner, which has no features. "
                "A conditioner is a lifter with a feature_width; use one, for instance mixste."
            )
        self.conditioner = conditioner.requires_grad_(False).eval()
        self.embed_pose = nn.Linear(3, width)
        self.predictor = NoisePredictor(config, pose, width, width, summed=config.condition_mix == "sum")

    def train(self, mode: bool = True) -> "DiffHPE":
        """As usual, but the conditioner stays in evaluation mode."""
        super().train(mode)
        if self.conditioner is not None:
            self.conditioner.eval()
        return self

    def condition(self, keypoints_BLJC: Tensor) -> Tensor:
        """What the network reads of the keypoints, (J, L, B, D). Computed once per window, for all steps."""
        require_windows(keypoints_BLJC, self.pose, "diffhpe")
        if self.conditioner is None:
            return self.predictor.condition(keypoints_BLJC)
        with torch.no_grad():
            features = self.conditioner.features(keypoints_BLJC)
        return self.predictor.condition(features)

    def predict_noise(
        self, noisy_NLJC: Tensor, step: Tensor, condition_JLBD: Tensor, draws: Draws | None = None
    ) -> Tensor:
        """Predicted noise (N, L, J, 3) in noisy poses at steps (N,) or (1,), given `condition(keypoints)`."""
        inside = self.embed_pose(noisy_NLJC.permute(2, 1, 0, 3))
        return self.predictor(inside, step, condition_JLBD, draws).permute(2, 1, 0, 3)

    def noise_loss(
        self, keypoints_BLJC: Tensor, poses_BLJC: Tensor, step: Tensor, noise_BLJC: Tensor, draws: Draws | None = None
    ) -> Tensor:
        """Mean square of (noise - predicted noise) at the given steps (B,); without draws nothing is dropped."""
        noisy = self.diffusion.noised(poses_BLJC, noise_BLJC, step)
        return F.mse_loss(self.predict_noise(noisy, step, self.condition(keypoints_BLJC), draws), noise_BLJC)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """`noise_loss` at a step drawn uniformly for each window. The root joint is diffused like any other."""
        target = require_target(batch, "diffhpe")
        draws = Draws(batch, generator)
        step = draws.integers(self.config.steps)
        noise = draws.normal(self.pose.frames, self.pose.joints, 3).to(target.dtype)
        return self.noise_loss(batch.keypoints, target, step, noise, draws)

    @torch.no_grad()
    def sample(self, keypoints_BLJC: Tensor, noise_at: NoiseAt) -> Tensor:
        """Poses (B, H, L, J, 3), metres, from explicit noise: `noise_at(k)` is (B, H, L, J, 3), see `samplers`."""
        condition = self.condition(keypoints_BLJC)
        first = noise_at(0)

        def flat_noise_at(draw: int) -> Tensor:
            return (noise_at(draw) if draw else first).flatten(0, 1)

        def predict(noisy: Tensor, step: int) -> Tensor:
            return self.predict_noise(noisy, torch.tensor([step], device=noisy.device), condition)

        schedule = self.diffusion.schedule
        return self.chain.run(predicting_noise(predict, schedule), schedule, flat_noise_at).unflatten(
            0, first.shape[:2]
        )

    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, H, L, J, 3) metres: one reverse chain per hypothesis, as `chain` says. The paper's has all steps, and it
        averages 5."""
        if hypotheses < 1:
            raise ValueError(f"diffhpe.lift was asked for {hypotheses} hypotheses; at least 1 is needed. Ask for more.")
        draws = Draws(batch, generator)
        shape = (hypotheses, self.pose.frames, self.pose.joints, 3)
        return self.sample(batch.keypoints, lambda draw: draws.normal(*shape).to(batch.keypoints.dtype))


def non_local_groups(config: Config, pose: PoseShape) -> tuple[tuple[int, ...], ...] | None:
    """Joints that each node of the non-local layer pools; None without the layer.

    The released pooling walks over the reordered joints in pairs although one group has three members: from there on
    the pairs straddle the groups, and the right shoulder (14) is in none.
    """
    if config.non_local == "none":
        return None
    require_h36m_17(pose, f'non_local = "{config.non_local}" of diffhpe', 'Use non_local = "none" for other skeletons.')
    if config.non_local == "aligned":
        return NON_LOCAL_GROUPS
    order = [joint for group in NON_LOCAL_GROUPS for joint in group]
    return tuple(zip(order[:-1:2], order[1::2], strict=True))


def _pointwise(channels_in: int, channels_out: int) -> nn.Linear:
    """A 1 x 1 convolution: Kaiming normal weights, default bias."""
    layer = nn.Linear(channels_in, channels_out)
    nn.init.kaiming_normal_(layer.weight)
    return layer


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> DiffHPE:
    """The model for this window length and skeleton. The conditioner is frozen in place and becomes part of it."""
    return DiffHPE(config, pose, conditioner)
