"""SimpleBaseline: a residual perceptron from the keypoints of one frame to its pose.

Martinez et al., "A simple yet effective baseline for 3d human pose estimation", ICCV 2017. Follows the released code.
Legend: B windows, L frames, J joints, I joints read, O joints predicted, D width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models import losses
from posegrid.models.blocks.activation import NormReluDropout
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.standardisation import Standardisation
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.joint_order import MARTINEZ_UNREAD, require_h36m_17
from posegrid.models.shapes import require_rates, require_target, require_windows


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published network: 16 joints without Neck/Nose to 16 joints without the root.

    Every frame of a window is lifted on its own; with windows of one frame a batch is one of frames, as published.
    """

    width: int = 1024
    """Width D of the hidden layers."""
    blocks: int = 2
    """Number of residual blocks of two layers."""
    dropout: float = 0.5
    """Probability that a value is zeroed after each batch norm and ReLU."""
    max_norm: bool = True
    """Scale every weight matrix whose Frobenius norm is above 1 to 1, in each pass."""
    standardise: bool = True
    """z-score keypoints and poses, and train on z-scored poses. The released code takes the statistics from a pass over
    the training data; here they gather while training (`blocks/standardisation.py`). False: normalised screen
    coordinates to metres."""
    reads: Literal["published", "all"] = "published"
    """Joints that are read: those of Human3.6M-17 without Neck/Nose, or all of any skeleton."""
    root: Literal["zero", "predicted"] = "zero"
    """Whether the root is left out of the prediction and set to zero, or predicted like the other joints."""
    norm_momentum: float = 0.01
    """Weight of the present batch in the running statistics of the batch norms (TensorFlow's default, as released)."""
    norm_epsilon: float = 1e-3
    """Added to the variance in the batch norms (TensorFlow's default, as released)."""

    def __post_init__(self) -> None:
        require_rates("simple_baseline", dropout=self.dropout)
        for field, value, allowed in (
            ("reads", self.reads, ("published", "all")),
            ("root", self.root, ("zero", "predicted")),
        ):
            if value not in allowed:
                raise ValueError(
                    f"simple_baseline: {field} {value!r} is unknown. Known: {', '.join(allowed)}. Use one."
                )
        if self.width < 1 or self.blocks < 0 or not 0 < self.norm_momentum <= 1 or self.norm_epsilon <= 0:
            raise ValueError(
                f"simple_baseline: width is {self.width}, blocks {self.blocks}, norm_momentum {self.norm_momentum} and "
                f"norm_epsilon {self.norm_epsilon}; allowed are width >= 1, blocks >= 0, 0 < norm_momentum <= 1 and "
                "norm_epsilon > 0. Change the one outside."
            )


class MaxNormLinear(nn.Linear):
    """A linear layer whose weight matrix counts as w / max(1, |w|), with |w| its Frobenius norm, if `limited`."""

    def __init__(self, width_in: int, width_out: int, limited: bool):
        super().__init__(width_in, width_out)
        self.limited = limited
        # As released: truncated normals times sqrt(2 / n), for biases too, with n the first axis of the tensor there.
        for tensor, count in ((self.weight, width_in), (self.bias, width_out)):
            nn.init.trunc_normal_(tensor, std=(2 / count) ** 0.5, a=-2 * (2 / count) ** 0.5, b=2 * (2 / count) ** 0.5)

    def forward(self, input: Tensor) -> Tensor:
        """(..., D in) -> (..., D out)."""
        if not self.limited:
            return super().forward(input)
        return F.linear(input, self.weight / torch.linalg.matrix_norm(self.weight).clamp_min(1), self.bias)


class Layer(nn.Module):
    """A linear layer, batch norm, ReLU and dropout."""

    def __init__(self, config: Config, width_in: int):
        super().__init__()
        self.linear = MaxNormLinear(width_in, config.width, config.max_norm)
        self.activation = NormReluDropout(config.width, config.dropout, config.norm_momentum, config.norm_epsilon)

    def forward(self, values: Tensor, draws: Draws | None = None) -> Tensor:
        """(..., D in) -> (..., D)."""
        return self.activation(self.linear(values), draws)


class Block(nn.Module):
    """x plus two layers of x."""

    def __init__(self, config: Config):
        super().__init__()
        self.first = Layer(config, config.width)
        self.second = Layer(config, config.width)

    def forward(self, values: Tensor, draws: Draws | None = None) -> Tensor:
        """(..., D) -> (..., D)."""
        return values + self.second(self.first(values, draws), draws)


class SimpleBaseline(Lifter):
    """Regressor of every frame by itself."""

    low_precision = False  # batch norms subtract what windows share: the rounding of the rest turns the gradient away
    compiles = True
    splits = False  # batch norms take statistics of all windows together

    read: Tensor
    predicted: Tensor

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        if config.reads == "published":
            require_h36m_17(pose, 'reads = "published" of simple_baseline', 'Use reads = "all" for other skeletons.')
        self.config = config
        self.pose = pose
        unread = MARTINEZ_UNREAD if config.reads == "published" else ()
        read = [joint for joint in range(pose.joints) if joint not in unread]
        predicted = [joint for joint, parent in enumerate(pose.parents) if parent >= 0 or config.root == "predicted"]
        self.register_buffer("read", torch.tensor(read, device="cpu"), persistent=False)
        self.register_buffer("predicted", torch.tensor(predicted, device="cpu"), persistent=False)
        self.keypoint_scores = Standardisation(len(read) * 2)
        self.pose_scores = Standardisation(len(predicted) * 3)
        self.embed = Layer(config, len(read) * 2)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.head = MaxNormLinear(config.width, len(predicted) * 3, config.max_norm)

    def scores(self, keypoints_BLN: Tensor, draws: Draws | None = None) -> Tensor:
        """Flat keypoints of the joints read (B, L, 2 I) -> z-scored poses of those predicted (B, L, 3 O).

        Without `standardise` both are plain coordinates.
        """
        values = self.embed(self.keypoint_scores(keypoints_BLN), draws)
        for block in self.blocks:
            values = block(values, draws)
        return self.head(values)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean square error of the z-scored coordinates (m^2 without `standardise`)."""
        target = require_target(batch, "simple_baseline").index_select(2, self.predicted).flatten(2)
        keypoints = self._read(batch.keypoints)
        if self.training and self.config.standardise:
            self.keypoint_scores.observe(keypoints)
            self.pose_scores.observe(target)
        return losses.mse(self.scores(keypoints, Draws(batch, generator)), self.pose_scores(target))

    @torch.no_grad()
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, 1, L, J, 3) metres."""
        lifted = self.pose_scores.undone(self.scores(self._read(batch.keypoints))).unflatten(2, (-1, 3))
        poses = lifted.new_zeros(*batch.keypoints.shape[:-1], 3)
        return poses.index_copy_(2, self.predicted, lifted)[:, None]

    def _read(self, keypoints_BLJC: Tensor) -> Tensor:
        require_windows(keypoints_BLJC, self.pose, "simple_baseline")
        return keypoints_BLJC.index_select(2, self.read).flatten(2)


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> SimpleBaseline:
    """The lifter for this window length and skeleton."""
    return SimpleBaseline(config, pose)
