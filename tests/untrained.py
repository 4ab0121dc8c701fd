"""A lifter for tests of what lifts and never trains."""

from torch import Generator, Tensor

from posegrid.models.interface import Batch, Lifter


class Untrained(Lifter):
    """Subclasses say what they lift; that nothing asks for a loss is part of what their tests hold."""

    def loss(self, batch: Batch, generator: Generator) -> Tensor:
        raise AssertionError("scoring asked for a training loss")
