"""D3DP: diffusion over windows of 3D poses with a MixSTE that predicts the clean poses.

Shan et al., "Diffusion-Based 3D Human Pose Estimation with Multi-Hypothesis Aggregation", ICCV 2023. Follows the
released code, from which the published numbers come. How its hypotheses become one pose is in `aggregation.py`.

Legend: B windows, H hypotheses, N = B or B * H, L frames, J joints, C coordinates, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posegrid.models import losses, mixste
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.embedding import TransformerStepEmbedding
from posegrid.models.diffusion.chain import Chain
from posegrid.models.diffusion.gaussian import GaussianDiffusion, predicting_clean
from posegrid.models.diffusion.samplers import NoiseAt
from posegrid.models.diffusion.schedules import cosine
from posegrid.models.flip import flip
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.shapes import require_divisible, require_rates, require_target, require_windows


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published network."""

    width: int = 512
    """Width D of every token, even."""
    depth: int = 8
    """Number of spatial blocks, and of temporal blocks."""
    heads: int = 8
    """Attention heads, which share the width."""
    mlp_ratio: float = 2.0
    """Hidden width of a block's MLP as a multiple of the width."""
    drop_path: float = 0.1
    """Probability that the last block drops a residual branch; rises linearly from 0 at the first block."""
    steps: int = 1000
    """Number of diffusion steps S in training."""
    beta_cap: float = 0.999
    """Largest variance of one step."""
    scale: float = 1.0
    """Poses are multiplied by it before noise is added, so it sets the ratio of signal to noise."""
    bound: float = 1.1
    """Noisy poses that the network reads, and poses that it predicts while sampling, are cut off at plus and minus this
    (metres, times the scale)."""
    flip: bool = True
    """Average with the mirrored input inside every step of a chain; then `evaluation.flip` is not needed."""
    square_gradient: bool = False
    """True: the gradient of loss^2 / 2, as the released training does, which is MixSTE's."""

    def __post_init__(self) -> None:
        require_divisible(self.width, self.heads, "d3dp")
        require_rates("d3dp", drop_path=self.drop_path)
        if self.width < 4 or self.width % 2:
            raise ValueError(f"d3dp: width is {self.width}; it must be an even number of at least 4. Change it.")
        if self.steps < 1 or not 0 < self.beta_cap < 1 or self.scale <= 0 or self.bound <= 0:
            raise ValueError(
                f"d3dp: steps is {self.steps}, beta_cap {self.beta_cap}, scale {self.scale} and bound {self.bound}; "
                "allowed are steps of at least 1, 0 < beta_cap < 1, scale and bound above 0. Change the one outside."
            )


class D3DP(Lifter):
    """Conditional diffusion model whose network sees keypoints and noisy pose side by side."""

    low_precision = True
    compiles = True
    splits = True

    # The release validates with one step; how many a test takes is said where it is scored.
    chain = Chain(sampler="ddim", steps=1, eta=1.0)

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        self.config = config
        self.square_gradient = config.square_gradient
        self.pose = pose
        inside = mixste.Config(
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            drop_path=config.drop_path,
        )
        self.denoiser = mixste.MixSTE(inside, pose, channels=5)
        self.step_embedding = TransformerStepEmbedding(config.width)
        self.diffusion = GaussianDiffusion(cosine(config.steps, config.beta_cap))

    def predict_clean(
        self, noisy_NLJC: Tensor, step_N: Tensor, keypoints_NLJC: Tensor, draws: Draws | None = None
    ) -> Tensor:
        """Clean poses (N, L, J, 3) of noisy ones at steps (N,), both metres; neither is cut off here."""
        denoiser = self.denoiser
        tokens = denoiser.embed(torch.cat([keypoints_NLJC, noisy_NLJC], dim=-1)) + denoiser.joint_position
        tokens = tokens + self.step_embedding(step_N)[:, None, None]
        return denoiser.head(denoiser.encoded(tokens, draws))

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """MPJPE of the clean poses predicted at a step drawn uniformly for each window, metres.

        The root joint is diffused, predicted and compared like any other.
        """
        target = require_target(batch, "d3dp")
        require_windows(batch.keypoints, self.pose, "d3dp")
        draws = Draws(batch, generator)
        step = draws.integers(self.config.steps)
        noise = draws.normal(self.pose.frames, self.pose.joints, 3).to(target.dtype)
        noisy = self._cut(self.diffusion.noised(target * self.config.scale, noise, step)) / self.config.scale
        value = losses.mpjpe(self.predict_clean(noisy, step, batch.keypoints, draws), target)
        return losses.with_square_gradient(value) if self.square_gradient and not batch.piece else value

    @torch.no_grad()
    def sample(self, keypoints_BLJC: Tensor, noise_at: NoiseAt) -> Tensor:
        """Poses (B, H, L, J, 3), metres times the scale, from explicit noise: `noise_at(k)` is (B, H, L, J, 3), see
        `samplers`. The root is what the network says."""
        require_windows(keypoints_BLJC, self.pose, "d3dp")
        first = noise_at(0)
        keypoints = keypoints_BLJC.repeat_interleave(first.shape[1], dim=0)
        if self.config.flip:
            keypoints = torch.cat([keypoints, flip(keypoints, self.pose)])
        schedule = self.diffusion.schedule

        def network(state: Tensor, step: int) -> Tensor:
            return self.denoised(state, step, keypoints)

        def flat_noise_at(draw: int) -> Tensor:
            return (noise_at(draw) if draw else first).flatten(0, 1)

        sampled = self.chain.run(predicting_clean(network, schedule), schedule, flat_noise_at)
        return sampled.unflatten(0, first.shape[:2])

    def denoised(self, state_NLJC: Tensor, step: int, keypoints: Tensor) -> Tensor:
        """What a chain takes as clean poses (N, L, J, 3): input and result cut off, averaged over mirror images.

        keypoints: (N, L, J, 2), with `Config.flip` followed by their N mirror images.
        """
        noisy = self._cut(state_NLJC) / self.config.scale
        if self.config.flip:
            noisy = torch.cat([noisy, flip(noisy, self.pose)])
        clean = self.predict_clean(noisy, torch.full((len(noisy),), step, device=noisy.device), keypoints)
        if self.config.flip:
            plain, mirrored = clean.chunk(2)
            clean = (plain + flip(mirrored, self.pose)) / 2
        return self._cut(clean * self.config.scale)

    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, H, L, J, 3) metres: one chain per hypothesis, as `chain` says, with the root set to zero."""
        if hypotheses < 1:
            raise ValueError(f"d3dp.lift was asked for {hypotheses} hypotheses; at least 1 is needed. Ask for more.")
        draws = Draws(batch, generator)
        shape = (hypotheses, self.pose.frames, self.pose.joints, 3)
        poses = self.sample(batch.keypoints, lambda _: draws.normal(*shape).to(batch.keypoints.dtype))
        root = torch.tensor([parent < 0 for parent in self.pose.parents], device=poses.device)
        return (poses / self.config.scale).masked_fill(root[:, None], 0.0)

    def _cut(self, poses: Tensor) -> Tensor:
        limit = self.config.bound * self.config.scale
        return poses.clamp(-limit, limit)


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> D3DP:
    """The model for this window length and skeleton."""
    return D3DP(config, pose)
