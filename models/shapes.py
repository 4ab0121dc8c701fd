"""Checks at the border of the room: windows that do not fit the model are named before a matrix product fails."""

from torch import Tensor

from posegrid.models.interface import Batch, PoseShape


def require_windows(keypoints: Tensor, pose: PoseShape, model: str) -> None:
    """Raise ValueError unless `keypoints` is (B, L, J, 2) for this model."""
    expected = (pose.frames, pose.joints, 2)
    if keypoints.ndim != 4 or tuple(keypoints.shape[1:]) != expected:
        raise ValueError(
            f"{model} was given keypoints of shape {tuple(keypoints.shape)}; it was built for windows of {pose.frames} "
            f"frames and {pose.joints} joints, so the shape must be (B, {', '.join(map(str, expected))}). "
            "Cut or pad the sequence into such windows, or build the model for this length and skeleton."
        )


def require_target(batch: Batch, model: str) -> Tensor:
    """The target poses (B, L, J, 3) of a training batch. Raises ValueError if there are none or their shape differs."""
    expected = (*batch.keypoints.shape[:-1], 3)
    if batch.poses is None or tuple(batch.poses.shape) != expected:
        given = "no poses" if batch.poses is None else f"poses of shape {tuple(batch.poses.shape)}"
        raise ValueError(
            f"the loss of {model} was given a batch with {given}; poses must have shape {expected}. "
            "Use `lift` for windows without a target."
        )
    return batch.poses


def require_divisible(width: int, heads: int, model: str) -> None:
    """Raise ValueError unless the heads share the width evenly."""
    if heads < 1 or width % heads:
        raise ValueError(
            f"{model}: width {width} cannot be shared by {heads} heads; width must be a multiple of heads. "
            "Change one of the two settings."
        )


def require_rates(model: str, **rates: float) -> None:
    """Raise ValueError unless every given drop rate is in [0, 1)."""
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f"{model}: {name} is {rate}; it is a probability in [0, 1). Lower it below 1.")
