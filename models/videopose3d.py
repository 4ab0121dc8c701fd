"""VideoPose3D: convolutions over time from a window of keypoints to the pose of one frame.

Pavllo et al., "3D human pose estimation in video with temporal convolutions and semi-supervised training", CVPR 2019.
Legend: B windows, L frames of a window, F frames of a longer sequence, R receptive field, T frames inside, J joints,
C channels, W width of a convolution. Frames lie before channels, (B, T, C): then a convolution whose stride equals its
width is a linear layer on a view.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models import losses
from posegrid.models.blocks.activation import NormReluDropout
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.full_precision import FullPrecisionLinear
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.shapes import require_rates, require_target, require_windows


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published network for 243 frames, whose convolutions are five of width three.

    The released training lets `norm_momentum` fall exponentially from 0.1 to 0.001 over the epochs; a model does not
    know the epoch, so the loop does it (`training.norm_momentum_end`).
    """

    filter_widths: tuple[int, ...] = ()
    """Width of every convolution over time, odd; their product is the window length. Empty: threes (ones for a window
    of one frame)."""
    channels: int = 1024
    """Channels C between the convolutions."""
    dropout: float = 0.25
    """Probability that a value is zeroed after each batch norm and ReLU."""
    causal: bool = False
    """Predict the last frame of the window instead of its centre, so that no later frame is needed."""
    dense: bool = False
    """Convolve over all frames of the same receptive field instead of every W-th (an ablation of the paper)."""
    norm_momentum: float = 0.1
    """Weight of the present batch in the running statistics of the batch norms."""

    def __post_init__(self) -> None:
        require_rates("videopose3d", dropout=self.dropout)
        if any(width < 1 or width % 2 == 0 for width in self.filter_widths):
            raise ValueError(
                f"videopose3d: filter_widths are {self.filter_widths}; every width must be odd, so that the window has "
                "a centre. Use odd widths whose product is the window length."
            )
        if self.channels < 1 or not 0 < self.norm_momentum <= 1:
            raise ValueError(
                f"videopose3d: channels is {self.channels} and norm_momentum {self.norm_momentum}; allowed are at "
                "least 1 and 0 < norm_momentum <= 1. Change the one outside."
            )


def filter_widths(config: Config, frames: int) -> tuple[int, ...]:
    """Widths of the convolutions for a window of `frames`. Raises ValueError if they do not fit the window."""
    widths = config.filter_widths
    if not widths:
        widths = (1, 1, 1) if frames == 1 else ()
        while prod(widths) < frames:
            widths = (*widths, 3)
    if prod(widths) != frames:
        raise ValueError(
            f"videopose3d was asked for windows of {frames} frames, but filter_widths = {list(widths)} cover "
            f"{prod(widths)}. The product must be the window length: set data.frames to {prod(widths)}, or model."
            f"filter_widths to odd numbers whose product is {frames}."
        )
    return widths


class TimeConvolution(nn.Module):
    """A convolution over time without bias, on (B, T, C). The weight is (C out, W, C in)."""

    def __init__(self, channels_in: int, channels_out: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, width, channels_in))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, values_BTC: Tensor, dilation: int) -> Tensor:
        """(B, T, C) -> (B, T - (W - 1) dilation, C out)."""
        return F.conv1d(values_BTC.transpose(1, 2), self.weight.transpose(1, 2), dilation=dilation).transpose(1, 2)

    def strided(self, values_BTC: Tensor) -> Tensor:
        """(B, T, C) -> (B, T / W, C out): every group of W frames becomes one."""
        return F.linear(values_BTC.unflatten(1, (-1, self.weight.shape[1])).flatten(2), self.weight.flatten(1))


class ResidualBlock(nn.Module):
    """A convolution over time and a linear layer, added to those of its input frames that they are centred on."""

    def __init__(self, config: Config, width: int, step: int):
        super().__init__()
        channels, momentum = config.channels, config.norm_momentum
        self.width = width
        self.step = step
        self.causal = config.causal
        self.dense = config.dense
        self.wide = TimeConvolution(channels, channels, (width - 1) * step + 1 if config.dense else width)
        self.wide_activation = NormReluDropout(channels, config.dropout, momentum)
        self.narrow = nn.Linear(channels, channels, bias=False)
        self.narrow_activation = NormReluDropout(channels, config.dropout, momentum)

    def forward(self, values_BTC: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, T, C) -> (B, T - (W - 1) step, C) with frames that lie `step` apart convolved."""
        margin = (self.width - 1) * self.step // 2
        last = values_BTC.shape[1] - (0 if self.causal else margin)
        kept = values_BTC[:, last - values_BTC.shape[1] + 2 * margin : last]
        return kept + self._branch(self.wide(values_BTC, 1 if self.dense else self.step), draws)

    def strided(self, values_BTC: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, T, C) -> (B, T / W, C)."""
        kept = values_BTC[:, self.width - 1 if self.causal else self.width // 2 :: self.width]
        return kept + self._branch(self.wide.strided(values_BTC), draws)

    def _branch(self, convolved: Tensor, draws: Draws | None) -> Tensor:
        return self.narrow_activation(self.narrow(self.wide_activation(convolved, draws)), draws)


class TemporalConvolutions(nn.Module):
    """The network: a convolution, residual blocks whose frames lie further and further apart, a linear layer.

    It has one output joint where released files hold a second network for the root's trajectory.
    """

    def __init__(self, config: Config, widths: tuple[int, ...], joints_in: int, joints_out: int):
        super().__init__()
        self.dense = config.dense
        self.expand = TimeConvolution(joints_in * 2, config.channels, widths[0])
        self.activation = NormReluDropout(config.channels, config.dropout, config.norm_momentum)
        self.blocks = nn.ModuleList(
            ResidualBlock(config, width, prod(widths[:i])) for i, width in enumerate(widths) if i > 0
        )
        self.shrink = FullPrecisionLinear(config.channels, joints_out * 3)

    def forward(self, keypoints_BFJC: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, F, J, 2) -> (B, F - R + 1, J, 3): every frame whose surroundings are there, at once."""
        values = self.activation(self.expand(keypoints_BFJC.flatten(2), 1), draws)
        for block in self.blocks:
            values = block(values, draws)
        return self.shrink(values).unflatten(2, (-1, 3))

    def strided(self, keypoints_BRJC: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, R, J, 2) -> (B, 1, J, 3): the same numbers, computing only what the one output frame reads."""
        if self.dense:
            return self(keypoints_BRJC, draws)
        values = self.activation(self.expand.strided(keypoints_BRJC.flatten(2)), draws)
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            values = block.strided(values, draws)
        return self.shrink(values).unflatten(2, (-1, 3))


class VideoPose3D(Lifter):
    """Regressor of one frame of a window. `lift_sequence` lifts all frames of a video in one pass."""

    low_precision = False  # batch norms subtract what windows share: the rounding of the rest turns the gradient away
    compiles = False  # the momentum of its batch norms may change with the epoch, and all would be compiled anew
    splits = False  # batch norms take statistics of all windows together

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        self.config = config
        self.pose = pose
        self.output_frame = pose.frames - 1 if config.causal else (pose.frames - 1) // 2
        self.network = TemporalConvolutions(config, filter_widths(config, pose.frames), pose.joints, pose.joints)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """MPJPE of the output frame, metres."""
        target = self.at_output(require_target(batch, "videopose3d"))
        require_windows(batch.keypoints, self.pose, "videopose3d")
        return losses.mpjpe(self.network.strided(batch.keypoints, Draws(batch, generator)), target)

    @torch.no_grad()
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, 1, 1, J, 3) metres: the centre of each window, or its last frame if causal."""
        require_windows(batch.keypoints, self.pose, "videopose3d")
        return self.network.strided(batch.keypoints)[:, None]

    @torch.no_grad()
    def lift_sequence(self, keypoints_BFJC: Tensor) -> Tensor:
        """(B, F, J, 2) with F >= L -> (B, F - L + 1, J, 3) metres: frame k is that of the window at k .. k + L - 1.

        Windows share their work, so this is about L times quicker than a window for every frame. Pad a video by its
        first and last frame to get all of its poses. Raises ValueError for fewer than L frames.
        """
        given, joints = tuple(keypoints_BFJC.shape), self.pose.joints
        if len(given) != 4 or given[1] < self.pose.frames or given[2:] != (joints, 2):
            raise ValueError(
                f"videopose3d.lift_sequence was given keypoints of shape {given}; the shape must "
                f"be (B, F, {joints}, 2) with F at least {self.pose.frames}. Pad the sequence by its end frames."
            )
        return self.network(keypoints_BFJC)


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> VideoPose3D:
    """The lifter for this window length and skeleton."""
    return VideoPose3D(config, pose)
