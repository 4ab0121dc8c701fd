"""Dropout and drop-path whose draws come in as an argument."""

from torch import Tensor, nn

from posegrid.models.blocks.draws import Draws


class Dropout(nn.Module):
    """Zero single values with probability `rate` and rescale the others. Does nothing without draws or in eval mode."""

    def __init__(self, rate: float, window_axis: int = 0):
        super().__init__()
        self.rate = rate
        self.window_axis = window_axis

    def forward(self, values: Tensor, draws: Draws | None) -> Tensor:
        """Same shape as `values`, whose axis `window_axis` holds the windows."""
        if draws is None or not self.training or self.rate == 0:
            return values
        shape = list(values.shape)
        del shape[self.window_axis]
        return values * draws.survivors(self.rate, *shape, window_axis=self.window_axis)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class DropPath(nn.Module):
    """Drop a residual branch of (B, L, J, D) tokens for whole sequences with probability `rate`, rescale the others.

    A sequence is what attention sees: the joints of one frame, or the frames of one joint.
    """

    def __init__(self, rate: float, over: str):
        super().__init__()
        self.rate = rate
        self.over = over

    def forward(self, branch: Tensor, draws: Draws | None) -> Tensor:
        """Same shape as `branch`."""
        if draws is None or not self.training or self.rate == 0:
            return branch
        _, frames, joints, _ = branch.shape
        shape = (frames, 1, 1) if self.over == "joints" else (1, joints, 1)
        return branch * draws.survivors(self.rate, *shape)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
