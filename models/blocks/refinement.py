"""Refine head of StridedTransformer, STCFormer and P-STMO: image coordinates between lifted and back-projected pose.

Off in every published recipe we ship. It needs the camera and the root's true depth, which lifters here do not get, so
no model uses it; with the released weights it returns the released numbers. From Cai et al., "Exploiting
Spatial-temporal Relationships for 3D Pose Estimation via Graph Convolutional Networks", ICCV 2019.
"""

import torch
from torch import Tensor, nn

from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.drop import Dropout


class PoseRefinement(nn.Module):
    """x and y of every joint become s lifted + (1 - s) back-projected with s in (0, 1) from both poses; z stays."""

    def __init__(self, joints: int, width: int = 1024, dropout: float = 0.5):
        super().__init__()
        self.hidden = nn.Linear(2 * joints * 3, width)
        self.score = nn.Linear(width, joints * 2)
        self.dropout = Dropout(dropout)

    def forward(self, lifted_BLJC: Tensor, back_projected_BLJC: Tensor, draws: Draws | None = None) -> Tensor:
        """Root-relative (B, L, J, 3) from the lifter, and from keypoints with the lifted depth -> (B, L, J, 3)."""
        both = torch.cat([lifted_BLJC, back_projected_BLJC], dim=-1).flatten(-2)
        score = self.score(self.dropout(self.hidden(both).relu(), draws)).sigmoid().unflatten(-1, (-1, 2))
        return torch.cat([lifted_BLJC[..., :2].lerp(back_projected_BLJC[..., :2], 1 - score), lifted_BLJC[..., 2:]], -1)
