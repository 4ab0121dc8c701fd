"""The errors of a lifter as a Gaussian, given what it read and what it returned: D3PRefiner's noise distribution.

For each frame a = e (the error, J*3 numbers) and b = [y, x] (keypoints and lifted pose, J*5) are taken as jointly
Gaussian; then e given b is N(mu, S) with mu = mu_a + S_ab S_bb^-1 (b - mu_b) and S = S_aa - S_ab S_bb^-1 S_ba.
The paper leaves the dimension open: one Gaussian of whole poses, the same for all frames, is what errors of joints that
depend on each other need and what the data can settle. Moments are float64.

Legend: N frames, B windows, L frames of a window, E = J*3 numbers of an error, G = J*5 numbers that are given.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from posegrid.models.blocks.draws import Draws

UNSETTLED_DEVIATION = 0.1
"""Metres. Until moments are settled errors are drawn as N(0, 0.1^2) in every coordinate."""
SMALLEST_DEVIATION = 1e-4
"""Metres. Coordinates that never err, such as a root that is always zero, are divided by this instead."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """First and second moments of errors and of what is given, float64."""

    error: Tensor
    """(E,) mean error, metres."""
    given: Tensor
    """(G,) mean of [y, x]."""
    error_error: Tensor
    """(E, E) covariance S_aa."""
    error_given: Tensor
    """(E, G) covariance S_ab."""
    given_given: Tensor
    """(G, G) covariance S_bb."""
    absolute: float
    """Mean absolute error of a coordinate, metres."""


def moment_sums(error_NE: Tensor, given_NG: Tensor) -> Tensor:
    """Sums over frames that add up over batches and workers, float64: count, absolute errors, values, products."""
    values = torch.cat([error_NE, given_NG], dim=1).double()
    count = torch.tensor([len(values)], dtype=torch.float64, device=values.device)
    return torch.cat([count, error_NE.double().abs().sum()[None], values.sum(0), (values.T @ values).flatten()])


def moments_of(sums: Tensor, width: int) -> Moments:
    """Moments from added-up `moment_sums`; `width` is E. Raises ValueError without frames."""
    sums = sums.double()
    count = float(sums[0])
    if count < 1:
        raise ValueError(
            "moments of a lifter's errors were asked of 0 frames; at least one window with a target is needed. Lower "
            "training.batch or data.frames, or give more training recordings."
        )
    size = round(sqrt(len(sums) - 1.75) - 0.5)  # 2 + size + size^2 numbers
    mean = sums[2 : 2 + size] / count
    covariance = sums[2 + size :].view(size, size) / count - torch.outer(mean, mean)
    return Moments(
        error=mean[:width],
        given=mean[width:],
        error_error=covariance[:width, :width],
        error_given=covariance[:width, width:],
        given_given=covariance[width:, width:],
        absolute=float(sums[1]) / (count * width),
    )


def conditional(moments: Moments, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    """Gain S_ab S_bb^-1 (E, G) and covariance S (E, E) of the errors given b.

    ridge: added to the diagonal of S_bb, as a multiple of its mean; S_bb is singular where a coordinate is constant.
    """
    given = moments.given_given
    size = len(given)
    regular = given + torch.eye(size, dtype=given.dtype, device=given.device) * (ridge * given.trace() / size)
    gain = torch.linalg.solve(regular, moments.error_given.T).T
    covariance = moments.error_error - gain @ moments.error_given.T
    return gain, (covariance + covariance.T) / 2


def clipped_root(covariance: Tensor) -> Tensor:
    """R with R R^T = covariance (E, E), eigenvalues below zero (rounding) taken as zero."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()


def over_time(frames: int, correlation: float) -> Tensor:
    """(L, L) matrix that turns independent normal numbers of each frame into z_t = rho z_{t-1} + sqrt(1 - rho^2) w_t.

    Every z_t stays standard normal; 0 leaves the frames independent, 1 draws once for the whole window. float64.
    """
    age = torch.arange(frames, device="cpu")[:, None] - torch.arange(frames, device="cpu")
    decay = torch.where(age >= 0, torch.tensor(correlation, dtype=torch.float64) ** age.clamp_min(0), 0.0)
    decay[:, 1:] *= sqrt(1 - correlation**2)
    return decay


class ConditionalNoise(nn.Module):
    """The settled Gaussian: buffers that are saved with the weights, float32 in use."""

    error: Tensor
    given: Tensor
    gain: Tensor
    root: Tensor
    deviation: Tensor
    absolute: Tensor

    def __init__(self, joints: int):
        super().__init__()
        width, size = 3 * joints, 5 * joints
        self.register_buffer("error", torch.zeros(width))
        self.register_buffer("given", torch.zeros(size))
        self.register_buffer("gain", torch.zeros(width, size))
        self.register_buffer("root", torch.eye(width) * UNSETTLED_DEVIATION)
        self.register_buffer("deviation", torch.full((width,), UNSETTLED_DEVIATION))
        self.register_buffer("absolute", torch.tensor(UNSETTLED_DEVIATION))

    @torch.no_grad()
    def settle(self, moments: Moments, ridge: float) -> None:
        """Take over estimated moments."""
        gain, covariance = conditional(moments, ridge)
        self.error.copy_(moments.error)
        self.given.copy_(moments.given)
        self.gain.copy_(gain)
        self.root.copy_(clipped_root(covariance))
        self.deviation.copy_(moments.error_error.diagonal().clamp_min(0).sqrt().clamp_min(SMALLEST_DEVIATION))
        self.absolute.fill_(max(moments.absolute, SMALLEST_DEVIATION))

    def mean(self, given_BLG: Tensor) -> Tensor:
        """mu(b), (B, L, E) metres."""
        return self.error + (given_BLG - self.given) @ self.gain.T

    def draw(self, given_BLG: Tensor, draws: Draws, correlation: float = 0.0) -> Tensor:
        """One error for each frame, (B, L, E) metres: e ~ N(mu(b), S), frames correlated as `over_time` says."""
        frames, width = given_BLG.shape[1], len(self.error)
        normal = draws.normal(frames, width).to(given_BLG.dtype)
        if correlation:
            normal = over_time(frames, correlation).to(normal) @ normal
        return self.mean(given_BLG) + normal @ self.root.T
