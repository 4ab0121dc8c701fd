"""Batch norm, ReLU and dropout: what follows every layer of the older lifters."""

from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models.blocks.batch_norm import BatchNorm1d
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.drop import Dropout


class NormReluDropout(nn.Module):
    """Of values (B, ..., C), normalised per channel over all other axes and all workers."""

    def __init__(self, channels: int, dropout: float, momentum: float = 0.1, epsilon: float = 1e-5):
        super().__init__()
        self.norm = BatchNorm1d(channels, momentum=momentum, eps=epsilon)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, ..., C) -> (B, ..., C)."""
        normalised = self.norm(values.flatten(0, -2)).view(values.shape)
        return self.dropout(F.relu(normalised, inplace=True), draws)
