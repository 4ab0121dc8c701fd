"""Random numbers of one step that do not depend on the number of workers.

Layers that drop receive a `Draws` while training and None otherwise, so the generator alone decides what is dropped.
"""

from math import prod

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

    def survivors(self, drop_rate: float, *shape: int, window_axis: int = 0) -> Tensor:
        """0 with probability `drop_rate`, else 1 / (1 - drop_rate), float32; the windows become axis `window_axis`."""

        def sample(n: int) -> Tensor:
            full = (*shape[:window_axis], n, *shape[window_axis:])
            # 16 random bits decide a value, cut from 64-bit draws: many times quicker than Bernoulli draws on a CPU.
            words = torch.empty((prod(full) + 3) // 4, dtype=torch.int64, device=self.generator.device)
            bits = words.random_(-(2**63), None, generator=self.generator).view(torch.int16)
            return bits[: prod(full)].view(full).movedim(window_axis, 0)

        bits = self._placed(self.batch.draw(sample)).movedim(0, window_axis)
        survived = torch.empty(bits.shape, device=bits.device)
        return torch.ge(bits, round(drop_rate * 2**16) - 2**15, out=survived).mul_(1 / (1 - drop_rate))

    def shared_survivor(self, drop_rate: float) -> Tensor:
        """One number for all windows: 0 with probability `drop_rate`, else 1 / (1 - drop_rate); a scalar."""
        survived = torch.rand((), generator=self.generator, device=self.generator.device) >= drop_rate
        return self._placed(survived / (1 - drop_rate))

    def _placed(self, numbers: Tensor) -> Tensor:
        return numbers.to(self.batch.keypoints.device)
