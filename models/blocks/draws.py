"""Random numbers of one step that do not depend on the number of workers.

Layers that drop receive a `Draws` while training and None otherwise, so the generator alone decides what is dropped.
"""

import torch
from torch import Tensor

from posegrid.models.interface import Batch


class Draws:
    """Draws for the windows of this worker: made for the global batch, of which this worker's rows are kept.

    Numbers are made where the generator lives and moved to the device of the batch.
    """

    def __init__(self, batch: Batch, generator: torch.Generator):
        self.batch = batch
        self.generator = generator

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers (B, *shape)."""
        return self._placed(
            self.batch.draw(
                lambda n: torch.randn(n, *shape, generator=self.generator, device=self.generator.device),
            )
        )

    def integers(self, high: int) -> Tensor:
        """One integer of 0 .. high - 1 per window, (B,)."""
        return self._placed(
            self.batch.draw(
                lambda n: torch.randint(high, (n,), generator=self.generator, device=self.generator.device),
            )
        )

    def kept(self, drop_rate: float, *shape: int, window_axis: int = 0) -> Tensor:
        """Bool mask, False with probability `drop_rate`; the windows are axis `window_axis`, inserted into `shape`."""

        def sample(n: int) -> Tensor:
            full = (*shape[:window_axis], n, *shape[window_axis:])
            mask = torch.empty(full, dtype=torch.bool, device=self.generator.device)
            return mask.bernoulli_(1 - drop_rate, generator=self.generator).movedim(window_axis, 0)

        return self._placed(self.batch.draw(sample)).movedim(0, window_axis)

    def _placed(self, numbers: Tensor) -> Tensor:
        return numbers.to(self.batch.keypoints.device)
