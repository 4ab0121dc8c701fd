"""Hypotheses -> one pose: means, medians, choice by reprojection, and the oracles that bound what a choice can reach.

Legend: B windows, H hypotheses, L frames, J joints. Hypotheses are (B, H, L, J, 3), results (B, L, J, 3); metres,
root-relative. With H = 1 all of them return the one hypothesis. Oracles read the truth and say so in their names: they
are bounds, not results. From Shan et al., "D3DP", ICCV 2023, section 3.3, unless a docstring says otherwise; there the
mean is called P-Agg, the oracles P-Best and J-Best, choice by reprojection PPMA (poses) and JPMA or J-Agg (joints).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Project = Callable[[Tensor], Tensor]
"""Poses (B, H, L, J, 3) in the camera's frame, metres, absolute -> normalised screen coordinates (B, H, L, J, 2)."""
Span = Literal["pose", "window", "batch"]
"""What is chosen at once: one frame's pose, a whole window, or one hypothesis number for all windows given."""


def mean(hypotheses_BHLJC: Tensor) -> Tensor:
    """Mean of every coordinate."""
    return hypotheses_BHLJC.mean(1)


def geometric_median(hypotheses_BHLJC: Tensor, rounds: int = 64) -> Tensor:
    """The point of each joint and frame whose summed distance to its hypotheses is smallest.

    It does not depend on the axes, as a median of coordinates would. Weiszfeld's iteration from the mean, with Vardi
    and Zhang's step (PNAS 2000) where the estimate falls on a hypothesis.
    """
    points = hypotheses_BHLJC
    spread = (points - points.mean(1, keepdim=True)).norm(dim=-1).amax(1, keepdim=True)
    tiny = 1e-9 * spread + torch.finfo(points.dtype).tiny
    centre = points.mean(1, keepdim=True)
    for _ in range(rounds):
        away = (points - centre).norm(dim=-1)
        at = away <= tiny
        weight = torch.where(at, 0.0, 1 / away.clamp_min(tiny))[..., None]
        total = weight.sum(1, keepdim=True)
        pull = (weight * (points - centre)).sum(1, keepdim=True)
        strength = pull.norm(dim=-1, keepdim=True)
        # a hypothesis on the estimate holds it back by its number; it stays if the others pull less than that
        held = at.sum(1, keepdim=True)[..., None] / strength.clamp_min(torch.finfo(points.dtype).tiny)
        share = (1 - held).clamp_min(0) / total.clamp_min(torch.finfo(points.dtype).tiny)
        centre = centre + share * pull
    return centre[:, 0]


def best_pose(hypotheses_BHLJC: Tensor, target_BLJC: Tensor, span: Span = "pose") -> Tensor:
    """Oracle: the hypothesis nearest to the truth by MPJPE, for each frame, each window, or the whole batch at once.

    The released P-Best is that of a batch, so it depends on how windows are batched; DiffHPE's is that of a window.
    """
    errors = (hypotheses_BHLJC - target_BLJC[:, None]).norm(dim=-1).mean(-1)
    if span != "pose":
        errors = errors.mean(-1, keepdim=True).expand_as(errors)
    if span == "batch":
        errors = errors.mean(0, keepdim=True).expand_as(errors)
    return _chosen(hypotheses_BHLJC, errors.argmin(1)[..., None])


def best_joint(hypotheses_BHLJC: Tensor, target_BLJC: Tensor) -> Tensor:
    """Oracle: for each joint of each frame the hypothesis nearest to the truth (J-Best)."""
    return _chosen(hypotheses_BHLJC, (hypotheses_BHLJC - target_BLJC[:, None]).norm(dim=-1).argmin(1))


def by_reprojection(
    hypotheses_BHLJC: Tensor,
    keypoints_BLJC: Tensor,
    visible_BLJ: Tensor,
    root_BLC: Tensor,
    project: Project,
    level: Literal["joint", "pose"] = "joint",
) -> Tensor:
    """The hypotheses whose projections lie nearest to the 2D input: for each joint (JPMA), or for each frame's pose.

    keypoints: (B, L, J, 2) input, normalised screen coordinates. visible: (B, L, J) bool. root: (B, L, 3) position of
    the root in the camera's frame, metres; the release takes the true one. A hidden joint has no 2D input: it becomes
    the mean of the hypotheses, and is not compared when poses are chosen. (The release knows no hidden joints.)
    """
    projected = project(hypotheses_BHLJC + root_BLC[:, None, :, None])
    errors = (projected - keypoints_BLJC[:, None]).norm(dim=-1)
    if level == "joint":
        found = _chosen(hypotheses_BHLJC, errors.argmin(1))
        seen = visible_BLJ
    else:
        found = _chosen(hypotheses_BHLJC, (errors * visible_BLJ[:, None]).sum(-1).argmin(1)[..., None])
        seen = visible_BLJ.any(-1, keepdim=True)
    return torch.where(seen[..., None], found, mean(hypotheses_BHLJC))


def _chosen(hypotheses_BHLJC: Tensor, index_BLJ: Tensor) -> Tensor:
    """hypotheses[b, index[b, l, j], l, j]; the index broadcasts over joints."""
    shape = (*hypotheses_BHLJC.shape[:1], 1, *hypotheses_BHLJC.shape[2:])
    return hypotheses_BHLJC.gather(1, index_BLJ[:, None, :, :, None].expand(shape))[:, 0]


AGGREGATIONS = {
    "mean": "",
    "median": "",
    "jpma_fitted_root": "",
    "ppma_fitted_root": "",
    "jpma_true_root": "the true root trajectory",
    "ppma_true_root": "the true root trajectory",
    "best_joint_oracle": "the true poses",
    "best_pose_oracle": "the true poses",
    "best_window_oracle": "the true poses",
}
"""Names that a recipe may give, and what each reads of the truth ("": nothing, so it can be used on new videos)."""


def aggregate(
    name: str,
    hypotheses_BHLJC: Tensor,
    *,
    target_BLJC: Tensor | None = None,
    keypoints_BLJC: Tensor | None = None,
    visible_BLJ: Tensor | None = None,
    root_BLC: Tensor | None = None,
    project: Project | None = None,
) -> Tensor:
    """One pose (B, L, J, 3) by the name of an aggregation, which must be given what it reads (see the functions).

    Raises ValueError for an unknown name.
    """
    if name not in AGGREGATIONS:
        raise ValueError(
            f'aggregation "{name}" (evaluation.aggregation) is unknown. Known: {", ".join(AGGREGATIONS)}. Choose one.'
        )
    if name == "mean":
        return mean(hypotheses_BHLJC)
    if name == "median":
        return geometric_median(hypotheses_BHLJC)
    if name.endswith("_oracle"):
        assert target_BLJC is not None
        if name == "best_joint_oracle":
            return best_joint(hypotheses_BHLJC, target_BLJC)
        return best_pose(hypotheses_BHLJC, target_BLJC, "pose" if name == "best_pose_oracle" else "window")
    assert keypoints_BLJC is not None
    assert visible_BLJ is not None
    assert root_BLC is not None
    assert project is not None
    level: Literal["joint", "pose"] = "joint" if name.startswith("jpma") else "pose"
    return by_reprojection(hypotheses_BHLJC, keypoints_BLJC, visible_BLJ, root_BLC, project, level)
