"""Differentiable twins of the position and coherence metrics, used as training losses.

Legend: B windows, L frames, J joints. Poses are (..., L, J, 3) in metres; every loss is a scalar.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from posegrid.models.collectives import mean_over_workers


def mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of the squared differences over all coordinates, m^2. DiffHPE trains its lifter with it."""
    return F.mse_loss(predicted, target)


def mpjpe(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean Euclidean distance over all joints, metres."""
    return torch.linalg.vector_norm(predicted - target, dim=-1).mean()


def weighted_mpjpe(predicted: Tensor, target: Tensor, weights_J: Tensor) -> Tensor:
    """Mean of w_j times the Euclidean distance, metres. The weights are used as they are, not normalised."""
    return (torch.linalg.vector_norm(predicted - target, dim=-1) * weights_J).mean()


def velocity(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean Euclidean distance between the frame-to-frame motions (MPJVE), metres per frame."""
    return torch.linalg.vector_norm((predicted - target).diff(dim=-3), dim=-1).mean()


def smoothness(predicted: Tensor, weights_J: Tensor) -> Tensor:
    """Mean of w_j times the squared frame-to-frame motion of the prediction itself, m^2 per frame^2."""
    return (predicted.diff(dim=-3).square() * weights_J[:, None]).mean()


def with_square_gradient(loss: Tensor) -> Tensor:
    """The same value with the gradient of loss^2 / 2.

    The released MixSTE hands the detached loss to `backward` as the incoming gradient. With several workers the factor
    is the loss of the global batch, so that their number does not change the gradient.
    """
    value = loss.detach()
    if not loss.requires_grad:
        return value  # validation: workers may have unequal numbers of batches, so none may wait for another
    return value + mean_over_workers(value) * (loss - value)
