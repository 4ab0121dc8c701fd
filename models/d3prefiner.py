"""D3PRefiner: diffusion from a lifter's noisy pose to a clean one, by a network that predicts the lifter's error.

"D3PRefiner: A Diffusion-based Denoise Method for 3D Human Pose Refinement"; no code is known to be released, so what
the paper leaves open is a field of `Config` with our reading as the default. Training draws errors from a Gaussian that
is conditioned on what the lifter read and returned (`diffusion/conditional_noise.py`); lifting starts from the lifter's
output as it is. The root is an ordinary joint: it has an error wherever the lifter gives it one.

Legend: B windows, L frames, J joints, C coordinates, D width. A lifter of one frame gives L = 1 here.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models import stcformer
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.drop import Dropout
from posegrid.models.diffusion.conditional_noise import ConditionalNoise, moment_sums, moments_of
from posegrid.models.diffusion.pose_to_noise import PoseToNoise, alpha_bars, uniform_steps
from posegrid.models.flip import lift_flip_averaged
from posegrid.models.interface import Batch, Lifter, PoseShape, Refiner
from posegrid.models.shapes import require_rates, require_target, require_windows


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published method; `depth = 4` is the light one (the paper names both 4 and 8)."""

    width: int = 256
    """Width D of every token."""
    depth: int = 8
    """Number of denoising blocks."""
    heads: int = 8
    """Attention heads of each half, as in stcformer."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP, and of the step's, as a multiple of the width."""
    dropout: float = 0.1
    """Probability that a value is zeroed after either layer of an MLP."""
    noise: Literal["conditional", "lifter"] = "conditional"
    """Errors that are trained on: drawn given keypoints and lifted pose, or the lifter's own (the paper's ablation)."""
    correlation: float = 0.0
    """Correlation of drawn errors from frame to frame, 0 (independent) to 1 (one draw a window)."""
    ridge: float = 1e-6
    """Added to the variances of keypoints and lifted poses, as a multiple of their mean, where they are inverted."""
    diffusion: bool = True
    """False: one step, in which the error is predicted from the noisy pose directly (the paper's ablation)."""
    steps: int = 50
    """Number of diffusion steps T in training."""
    evaluations: int = 2
    """Evaluations K of the network when lifting, evenly spaced from T down."""
    exact_end: bool = False
    """Let the last step hold the noisy pose exactly, rather than magnified by a thousandth."""
    rescale: bool = False
    """Divide the pose that the network reads by C_k, which otherwise tells it the step by a magnification of up to 41
    per cent."""
    normalise: Literal["deviation", "absolute"] = "deviation"
    """How errors are scaled for the network: less mean, by deviation, of each coordinate; or all by the mean absolute
    error. The paper says "by its average value"."""
    loss: Literal["norm", "mse"] = "norm"
    """Of scaled errors: mean distance of a joint, or mean square of a coordinate."""
    hypotheses: int = 1
    """Poses drawn from a lifter that samples, whose mean is refined; others give one."""
    flip_lifter: bool = False
    """Refine the mean of the lifter's pose and the mirrored one of the mirrored input, as published lifters are run."""

    def __post_init__(self) -> None:
        stcformer.Config(width=self.width, heads=self.heads)  # refuses what cannot be shared
        require_rates("d3prefiner", dropout=self.dropout)
        for field, value, allowed in (
            ("noise", self.noise, ("conditional", "lifter")),
            ("normalise", self.normalise, ("deviation", "absolute")),
            ("loss", self.loss, ("norm", "mse")),
        ):
            if value not in allowed:
                raise ValueError(f"d3prefiner: {field} {value!r} is unknown. Known: {', '.join(allowed)}. Choose one.")
        for field, number in (("depth", self.depth), ("steps", self.steps), ("hypotheses", self.hypotheses)):
            if number < 1:
                raise ValueError(f"d3prefiner: {field} is {number}; it must be at least 1. Raise it.")
        if not 1 <= self.evaluations <= self.steps:
            raise ValueError(
                f"d3prefiner: evaluations is {self.evaluations} with steps = {self.steps}; allowed are 1 to "
                f"{self.steps}. Change one of the two."
            )
        if not 0 <= self.correlation <= 1 or not 0 <= self.ridge < 1:
            raise ValueError(
                f"d3prefiner: correlation is {self.correlation} and ridge {self.ridge}; allowed are 0 <= correlation "
                "<= 1 and 0 <= ridge < 1. Change the one outside."
            )
        if self.width % 2:
            raise ValueError(f"d3prefiner: width is {self.width}; it must be even. Change it.")


def needs_conditioner(config: Config) -> bool:
    """It refines the poses of a trained lifter."""
    return True


def reads_errors(config: Config) -> bool:
    """Its noise is estimated from the lifter's errors before it trains."""
    return True


class DenoisingBlock(nn.Module):
    """h + STC(h), then h + STC(h + step), then h + MLP(LN(h)); STC as in stcformer."""

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        criss_cross = stcformer.Config(width=config.width, heads=config.heads)
        hidden = int(config.width * config.mlp_ratio)
        self.data = stcformer.CrissCross(criss_cross, pose)
        self.step = nn.Linear(config.width, config.width)
        self.data_and_step = stcformer.CrissCross(criss_cross, pose)
        self.norm = nn.LayerNorm(config.width)
        self.widen = nn.Linear(config.width, hidden, bias=False)
        self.narrow = nn.Linear(hidden, config.width, bias=False)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens_BLJD: Tensor, embedding_BD: Tensor, draws: Draws | None = None) -> Tensor:
        """Tokens (B, L, J, D) and the embedded step (B or 1, D) -> tokens."""
        step = self.step(F.silu(embedding_BD))[:, None, None]
        tokens = self.data(tokens_BLJD, draws)
        tokens = self.data_and_step(tokens + step, draws) - step  # the module adds its input, of which the step goes
        hidden = self.dropout(F.gelu(self.widen(self.norm(tokens))), draws)
        return tokens + self.dropout(self.narrow(hidden), draws)


class PoseDenoiser(nn.Module):
    """(pose at step k, keypoints, k) -> scaled error. Its last layer starts at zero: the mean error is predicted."""

    steps: Tensor

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.register_buffer("steps", _sinusoids(config.steps + 1, width), persistent=False)
        self.embed = nn.Linear(5, width)
        self.embed_step = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width))
        self.blocks = nn.ModuleList(DenoisingBlock(config, pose) for _ in range(config.depth))
        self.head = nn.Linear(width, 3)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, pose_BLJC: Tensor, keypoints_BLJC: Tensor, step: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, L, J, 3) and (B, L, J, 2) at steps (B,) or (1,) -> (B, L, J, 3)."""
        tokens = self.embed(torch.cat([pose_BLJC, keypoints_BLJC], dim=-1))
        embedding = self.embed_step(self.steps[step])
        for block in self.blocks:
            tokens = block(tokens, embedding, draws)
        return self.head(tokens)


class D3PRefiner(Refiner):
    """Refiner of any lifter. Without settled moments of the lifter's errors it trains on errors of ten centimetres."""

    splits = True

    def __init__(self, config: Config, pose: PoseShape, conditioner: Lifter):
        super().__init__()
        self.config = config
        self.pose = pose
        self.output_frame = conditioner.output_frame
        self.conditioner = conditioner.requires_grad_(False).eval()
        bars = alpha_bars(config.steps, config.exact_end)
        if not config.diffusion:
            bars = torch.tensor([1.0, 0.0], dtype=torch.float64, device="cpu")
        self.process = PoseToNoise(bars)
        self.noise = ConditionalNoise(pose.joints)
        self.denoiser = PoseDenoiser(config, pose)
        self._folds: dict[int, Lifter] = {}

    def train(self, mode: bool = True) -> "D3PRefiner":
        """As usual, but the lifter stays in evaluation mode."""
        super().train(mode)
        self.conditioner.eval()
        return self

    # ---- the lifter and its errors ---------------------------------------------------------------------------------

    def use_folds(self, lifters: dict[int, Lifter]) -> None:
        """See `Refiner`. They are no part of the model: neither saved with it nor used to lift."""
        self._folds = {subject: lifter.requires_grad_(False).eval() for subject, lifter in lifters.items()}

    def error_sums(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """See `Refiner`: `moment_sums` of this batch."""
        target = self.at_output(require_target(batch, "d3prefiner"))
        noisy = self.unseen(batch, generator)
        given = _given(self.at_output(batch.keypoints), noisy)
        return moment_sums((noisy - target).flatten(0, 1).flatten(1), given.flatten(0, 1))

    def settle(self, sums: Tensor) -> None:
        """See `Refiner`."""
        self.noise.settle(moments_of(sums, 3 * self.pose.joints), self.config.ridge)

    @torch.no_grad()
    def lifted(self, lifter: Lifter, batch: Batch, generator: torch.Generator) -> Tensor:
        """A lifter's poses (B, L, J, 3): the mean of its hypotheses, and of the mirrored input if so configured."""
        plain = replace(batch, poses=None)
        if self.config.flip_lifter:
            return lift_flip_averaged(lifter, plain, generator, self.pose, self.config.hypotheses).mean(1)
        return lifter.lift(plain, generator, self.config.hypotheses).mean(1)

    @torch.no_grad()
    def unseen(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Lifted poses (B, L, J, 3), each by the lifter that was not trained on its subject, where there is one."""
        require_windows(batch.keypoints, self.pose, "d3prefiner")
        if not self._folds or batch.subject is None:
            return self.lifted(self.conditioner, batch, generator)
        shares = [(lifter, batch.subject == subject) for subject, lifter in self._folds.items()]
        shares.append((self.conditioner, ~torch.stack([mine for _, mine in shares]).any(0)))
        keypoints = self.at_output(batch.keypoints)
        poses = keypoints.new_zeros(*keypoints.shape[:-1], 3)
        for lifter, mine in shares:
            if mine.any():
                poses[mine] = self.lifted(lifter, batch.where(mine), generator)
        return poses

    # ---- both faces ------------------------------------------------------------------------------------------------

    def scaled(self, error_BLJC: Tensor) -> Tensor:
        """Errors in metres as the network predicts them."""
        flat = error_BLJC.flatten(2)
        if self.config.normalise == "absolute":
            return error_BLJC / self.noise.absolute
        return ((flat - self.noise.error) / self.noise.deviation).view_as(error_BLJC)

    def predict_error(
        self, pose_BLJC: Tensor, keypoints_BLJC: Tensor, step: Tensor, draws: Draws | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predicted error of poses at steps (B,) or (1,): as scaled, and in metres, both (B, L, J, 3)."""
        read = pose_BLJC / self.process.at(step, pose_BLJC)[0] if self.config.rescale else pose_BLJC
        scaled = self.denoiser(read, keypoints_BLJC, step, draws)
        if self.config.normalise == "absolute":
            return scaled, scaled * self.noise.absolute
        metres = torch.addcmul(self.noise.error, scaled.flatten(2), self.noise.deviation)
        return scaled, metres.view_as(scaled)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Distance of scaled errors at a step drawn from 1 .. T for each window; see `Config.loss`."""
        target = self.at_output(require_target(batch, "d3prefiner"))
        keypoints = self.at_output(batch.keypoints)
        draws = Draws(batch, generator)
        noisy = self.unseen(batch, generator)
        if self.config.noise == "lifter":
            error = noisy - target
        else:
            error = self.noise.draw(_given(keypoints, noisy), draws, self.config.correlation).view_as(target)
        step = draws.integers(self.process.steps) + 1
        state = self.process.noised(target, error, step)
        predicted, _ = self.predict_error(state, keypoints, step, draws)
        if self.config.loss == "mse":
            return F.mse_loss(predicted, self.scaled(error))
        return torch.linalg.vector_norm(predicted - self.scaled(error), dim=-1).mean()

    @torch.no_grad()
    def refined(self, noisy_BLJC: Tensor, keypoints_BLJC: Tensor) -> Tensor:
        """Poses (B, L, J, 3) walked from the lifted ones to clean ones; nothing is drawn."""

        def predict(state: Tensor, step: int) -> Tensor:
            return self.predict_error(state, keypoints_BLJC, torch.tensor([step], device=state.device))[1]

        evaluations = self.config.evaluations if self.config.diffusion else 1
        return self.process.denoised(noisy_BLJC, predict, uniform_steps(self.process.steps, evaluations))

    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, 1, L, J, 3) metres, or (B, 1, 1, J, 3) for a lifter of one frame. `generator` serves the lifter."""
        require_windows(batch.keypoints, self.pose, "d3prefiner")
        noisy = self.lifted(self.conditioner, batch, generator)
        return self.refined(noisy, self.at_output(batch.keypoints))[:, None]


def _given(keypoints_BLJC: Tensor, noisy_BLJC: Tensor) -> Tensor:
    """b = [y, x], (B, L, J * 5)."""
    return torch.cat([keypoints_BLJC.flatten(2), noisy_BLJC.flatten(2)], dim=-1)


def _sinusoids(steps: int, width: int) -> Tensor:
    """[sin(k f_i), cos(k f_i)] with width / 2 frequencies from 1 down to almost 1e-4, (steps, width)."""
    half = width // 2
    frequencies = 10_000.0 ** (-torch.arange(half, device="cpu", dtype=torch.float64) / half)
    angles = torch.arange(steps, device="cpu")[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> D3PRefiner:
    """The refiner for this window length and skeleton. The lifter is frozen in place and becomes part of it."""
    if conditioner is None:
        raise ValueError(
            "d3prefiner was built without a lifter; it refines the poses of one. Pass a trained lifter as conditioner."
        )
    return D3PRefiner(config, pose, conditioner)
