"""Random numbers of one step that do not depend on the number of workers.

Layers that drop receive a `Draws` while training and None otherwise, so the generator alone decides what is dropped.
"""

from collections.abc import Callable
from functools import wraps
from math import prod
from typing import Any

import torch
from torch import Tensor

from posegrid.models.interface import Batch


class NotedDraws:
    """A generator whose draws are noted, so that later steps can make theirs ahead (`drawn_ahead`)."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator
        self.calls: list[tuple[Any, ...]] = []


class DrawnAhead:
    """Numbers in the order in which a step asks for them. A compiled step reads them, as it cannot draw."""

    def __init__(self, calls: list[tuple[Any, ...]], numbers: list[Tensor]):
        self.calls = calls
        self.numbers = numbers
        self.at = 0

    def next(self, call: tuple[Any, ...]) -> Tensor:
        """The next numbers. Raises ValueError if the noted step asked for others here."""
        noted = self.calls[self.at] if self.at < len(self.calls) else None
        if noted != call:
            raise ValueError(
                f"a compiled training step asks for random numbers {call} where the first step asked for {noted}; all "
                'steps must draw alike. Set compute.compile = "off" for this model.'
            )
        self.at += 1
        return self.numbers[self.at - 1]


def drawn_ahead(calls: list[tuple[Any, ...]], batch: Batch, generator: torch.Generator) -> DrawnAhead:
    """What a step that draws like the noted one would draw for this batch."""
    draws = Draws(batch, generator)
    return DrawnAhead(calls, [getattr(draws, name)(*shape, **dict(options)) for name, shape, options in calls])


def _noted(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(method)
    def draw(self: "Draws", *arguments: Any, **options: Any) -> Tensor:
        call = (method.__name__, arguments, tuple(options.items()))
        if self.ahead is not None:
            return self.ahead.next(call)
        if self.notes is not None:
            self.notes.append(call)
        return method(self, *arguments, **options)

    return draw


class Draws:
    """Draws for the windows of this worker: made for the global batch, of which this worker's rows are kept.

    Numbers are made where the generator lives and moved to the device of the batch.
    """

    def __init__(self, batch: Batch, generator: torch.Generator | NotedDraws | DrawnAhead):
        self.batch = batch
        self.ahead = generator if isinstance(generator, DrawnAhead) else None
        self.notes = generator.calls if isinstance(generator, NotedDraws) else None
        # with numbers drawn ahead nothing is drawn
        self.generator: Any = generator.generator if isinstance(generator, NotedDraws) else generator

    @_noted
    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers (B, *shape)."""
        return self._placed(
            self.batch.draw(
                lambda n: torch.randn(n, *shape, generator=self.generator, device=self.generator.device),
            )
        )

    @_noted
    def uniform(self, *shape: int) -> Tensor:
        """Numbers of [0, 1), (B, *shape)."""
        return self._placed(
            self.batch.draw(
                lambda n: torch.rand(n, *shape, generator=self.generator, device=self.generator.device),
            )
        )

    @_noted
    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers of 0 .. high - 1, (B, *shape): one per window unless a shape is given."""
        return self._placed(
            self.batch.draw(
                lambda n: torch.randint(high, (n, *shape), generator=self.generator, device=self.generator.device),
            )
        )

    @_noted
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

    @_noted
    def shared_survivor(self, drop_rate: float) -> Tensor:
        """One number for all windows: 0 with probability `drop_rate`, else 1 / (1 - drop_rate); a scalar."""
        survived = torch.rand((), generator=self.generator, device=self.generator.device) >= drop_rate
        return self._placed(survived / (1 - drop_rate))

    def _placed(self, numbers: Tensor) -> Tensor:
        return numbers.to(self.batch.keypoints.device)
