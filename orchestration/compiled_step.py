"""The training step as torch.compile sees it: it reads random numbers that are drawn before it."""

from typing import Any

import torch
from torch import Tensor, nn

from posegrid.models.blocks.draws import NotedDraws, drawn_ahead
from posegrid.models.interface import Batch


class CompiledStep:
    """Loss of a batch, compiled. The numbers are those that a step that is not compiled would draw.

    A generator inside would cut the graph at every layer that drops. The first step is not compiled: it notes what is
    drawn. All batches must have one shape.
    """

    def __init__(self, wrapped: nn.Module) -> None:
        # compiled around the wrapper for several workers, so that the graph is cut where gradients are exchanged
        self._compiled: Any = torch.compile(wrapped, dynamic=False)
        self.wrapped = wrapped
        self._calls: list[tuple[Any, ...]] | None = None

    def __call__(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The loss, with gradient."""
        if self._calls is None:
            noted = NotedDraws(generator)
            loss = self.wrapped(batch, noted)
            self._calls = noted.calls
            return loss
        return self._compiled(batch, drawn_ahead(self._calls, batch, generator))
