"""Mirroring of poses and keypoints, and test-time averaging with the mirrored input."""

from dataclasses import replace

import torch
from torch import Tensor

from posegrid.models.interface import Batch, Lifter, PoseShape


def mirrored(pose: PoseShape) -> list[int]:
    """Joint order that swaps left and right."""
    order = list(range(pose.joints))
    for left, right in zip(pose.left, pose.right, strict=True):
        order[left], order[right] = right, left
    return order


def flip(coordinates: Tensor, pose: PoseShape) -> Tensor:
    """Mirror image of (..., J, C): first coordinate negated, left and right joints swapped. An involution."""
    flipped = coordinates[..., mirrored(pose), :]
    flipped[..., 0].neg_()
    return flipped


@torch.no_grad()
def lift_flip_averaged(
    model: Lifter, batch: Batch, generator: torch.Generator, pose: PoseShape, hypotheses: int = 1
) -> Tensor:
    """Mean of the lifted windows and the un-mirrored lift of their mirror images, (B, H, L, J, 3), metres."""
    mirror_batch = replace(
        batch, keypoints=flip(batch.keypoints, pose), visible=batch.visible[..., mirrored(pose)], poses=None
    )
    plain = model.lift(batch, generator, hypotheses)
    return (plain + flip(model.lift(mirror_batch, generator, hypotheses), pose)) / 2
