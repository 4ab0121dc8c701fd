"""A training step whose share of the batch is computed at once, or in pieces whose gradients add up to the whole's.

Loss and gradient of a step do not depend on the number of workers and pieces: workers and pieces may hold unequal
numbers of windows and are weighted by them, and all random numbers are drawn for the global batch, of which every piece
keeps its rows. What differs is the order in which float32 numbers are added up.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posegrid.models.collectives import mean_over_workers
from posegrid.models.interface import Batch, Lifter
from posegrid.orchestration.memory_fit import FITS_NOTHING, Fit, fitting, free_unused
from posegrid.orchestration.recipe_tables import ComputeSettings
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


class BatchTooLargeError(RuntimeError):
    """A training step does not fit into the memory of the device, and would not when it is tried again."""


class Pieces:
    """Gradients of batches, on one worker."""

    def __init__(
        self,
        model: Lifter,
        loss_of: Callable[[Batch, torch.Generator], Tensor],
        optimizer: torch.optim.Optimizer,
        settings: Settings,
        compute: ComputeSettings,
        workers: Workers,
        at_once: int = 0,
    ) -> None:
        """model: the network itself. loss_of: the network as training calls it, perhaps compiled, perhaps wrapped so
        that workers exchange gradients; a wrapper has `no_sync`. compute: with "auto" resolved. at_once: what an
        earlier run came to. Raises ValueError if pieces are asked of a model that denies them.
        """
        check_pieces(model, settings)
        self._model, self._loss_of, self._optimizer = model, loss_of, optimizer
        self._settings, self._workers = settings, workers
        self._low = compute.precision == "bf16"
        self._auto = compute.micro_batch == "auto"
        self._halves = self._auto and model.splits
        self._rehearsed = not self._halves or workers.world == 1
        self._generator = torch.Generator(device=workers.device)
        self.at_once = compute.micro_batch if isinstance(compute.micro_batch, int) else at_once
        """Windows that this worker computes at once; 0: its whole share."""
        self._validated_at_once = 0

    def backward(self, batch: Batch, seed: int) -> Tensor:
        """Put the gradient of this worker's share into the weights; the mean over the workers is that of the batch.

        Returns the loss (scalar, without gradient), of which the same holds. seed: of the step's random numbers.
        Raises BatchTooLargeError if it does not fit into the memory; with `micro_batch = "auto"` pieces are halved
        first, down to one window, and the step is repeated with the same numbers.
        """
        if not self._rehearsed:
            self._rehearse(batch, seed)
        while True:
            try:
                return self._backward(batch, seed)
            except torch.OutOfMemoryError as error:
                told = str(error)
            # out of the handler, whose traceback holds on to what the step has computed
            self._optimizer.zero_grad(set_to_none=True)
            free_unused(self._workers.device)
            if self._workers.world > 1 and self._halves:
                # it fitted in the rehearsal; the others wait in an exchange, so only a new start can go on
                raise torch.OutOfMemoryError(told)
            if not self._halve(batch):
                raise BatchTooLargeError(self._advice(batch, seed, told))

    def sums(self, batch: Batch, of: Callable[[Batch], np.ndarray]) -> np.ndarray:
        """Sum over the pieces of a batch of what is computed without gradients, for any model in evaluation mode.

        Raises BatchTooLargeError if it does not fit into the memory; with "auto" pieces are halved first.
        """
        while True:
            try:
                return np.sum(
                    [of(part) for part in self._parts(batch, self._validated_at_once or self.at_once)], axis=0
                )
            except torch.OutOfMemoryError as error:
                told = " ".join(str(error).split())[:300]
            free_unused(self._workers.device)
            now = min(self._validated_at_once or self.at_once or len(batch.keypoints), len(batch.keypoints))
            if now == 1 or not self._auto:
                raise BatchTooLargeError(
                    f"validation of {self._settings.name} ran out of memory with {now} windows of "
                    f"{self._settings.data.frames} frames at once: {told} Allowed are fewer windows at once, with the "
                    "same results: --set compute.micro_batch=auto and repeat the command."
                )
            self._validated_at_once = ceil(now / 2)

    def parts(self, batch: Batch) -> list[Batch]:
        """The pieces of this worker's share, as equal as can be: at most two shapes, for those who compile."""
        return self._parts(batch, self.at_once)

    def _parts(self, batch: Batch, at_once: int) -> list[Batch]:
        total, largest = _sizes(batch)
        at_once = min(at_once or largest, largest)
        if at_once == largest and (total % batch.world == 0 or not self._model.square_gradient):
            return [batch]
        rows = torch.arange(batch.rank, total, batch.world) if batch.rows is None else batch.rows
        # all workers have pieces as soon as one has, as whoever multiplies the sum must do so on all of them
        number = min(ceil(largest / at_once), len(batch.keypoints))
        bounds = np.linspace(0, len(batch.keypoints), number + 1).round().astype(int)
        return [_rows_of(batch, slice(int(first), int(last)), rows, total) for first, last in pairwise(bounds)]

    def _backward(self, batch: Batch, seed: int) -> Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        parts = self.parts(batch)
        total = torch.zeros((), device=self._workers.device)
        for number, part in enumerate(parts):
            with nullcontext() if number == len(parts) - 1 else self._unshared():
                loss = self._weighted(part, seed, self._loss_of)
                loss.backward()
            total += loss.detach()
        if parts[0].piece and self._model.square_gradient:
            gradients = [weight.grad for weight in self._model.parameters() if weight.grad is not None]
            torch._foreach_mul_(gradients, mean_over_workers(total))
        return total

    def _weighted(self, part: Batch, seed: int, loss_of: Callable[[Batch, torch.Generator], Tensor]) -> Tensor:
        """Loss of a piece, times its share of the batch in units of that of an average worker."""
        self._generator.manual_seed(seed)
        with torch.autocast(self._workers.device.type, torch.bfloat16, enabled=self._low):
            loss = loss_of(part, self._generator)
        mine, all_ = len(part.keypoints) * part.world, _sizes(part)[0]
        return loss if mine == all_ else loss * (mine / all_)

    def _unshared(self) -> AbstractContextManager[Any]:
        """For pieces before the last: workers exchange the sum of the gradients, once."""
        wrapper: Any = getattr(self._loss_of, "wrapped", self._loss_of)
        return wrapper.no_sync() if hasattr(wrapper, "no_sync") else nullcontext()

    def _halve(self, batch: Batch) -> bool:
        """False if there is nothing to halve."""
        largest = _sizes(batch)[1]
        now = min(self.at_once or largest, largest)
        if not self._halves or now == 1:
            return False
        self.at_once = ceil(now / 2)
        return True

    def _rehearse(self, batch: Batch, seed: int) -> None:
        """Several workers find a size that fits all of them before they exchange anything.

        Whoever ran out of memory in the middle of an exchange would leave the others waiting in it. So the largest
        piece is computed by each on its own, next to room for what the optimizer will keep, and thrown away.
        """
        weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        while True:
            failed, told = 0.0, ""
            try:
                kept = [] if self._optimizer.state else [torch.empty_like(w) for w in weights for _ in range(2)]
                largest = max(self.parts(batch), key=lambda part: len(part.keypoints))
                # a piece, even if it is all of the share: no loss asks the others for theirs
                loss = self._weighted(replace(largest, piece=True), seed, self._model)
                torch.autograd.grad(loss, weights, allow_unused=True)  # no hooks of a wrapper: nothing is exchanged
                del loss, kept
            except torch.OutOfMemoryError as error:
                failed, told = 1.0, str(error)
            free_unused(self._workers.device)
            if not self._workers.sum(np.array([failed]))[0]:
                self._rehearsed = True
                return
            if not self._halve(batch):
                raise BatchTooLargeError(self._advice(batch, seed, told or "another worker ran out of memory"))

    def _advice(self, batch: Batch, seed: int, told: str) -> str:
        training, world = self._settings.training, self._workers.world
        now = min(self.at_once or _sizes(batch)[1], len(batch.keypoints))
        said = (
            f"training of {self._settings.name} ran out of memory with {now} windows of {self._settings.data.frames} "
            f"frames at once (training.batch = {training.batch}, {world} worker(s), compute.micro_batch = "
            f"{self._settings.compute.micro_batch}): {' '.join(told.split())[:300].rstrip('.')}. "
        )
        if not self._model.splits:
            return said + (
                f'A batch of model "{self._settings.model["name"]}" cannot be computed in pieces, as its batch norms '
                "need all windows together. Give it more workers (--workers) or larger GPUs, or --set a smaller "
                "training.batch or data.frames, which gives other results."
            )
        fit = self._fit(batch, seed, now)
        if fit.windows == FITS_NOTHING:
            return said + f"{fit.how} Not even one window fits: use a larger GPU, or a smaller model or data.frames."
        return said + (
            f"{fit.how} So {fit.windows} windows at once should fit: --set compute.micro_batch={fit.windows} keeps the "
            "batch and its results, or --set compute.micro_batch=auto to have it found. Repeat the command: it "
            "continues from the last checkpoint."
        )

    def _fit(self, batch: Batch, seed: int, failed: int) -> Fit:
        weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        total, _ = _sizes(batch)
        rows = torch.arange(batch.rank, total, batch.world) if batch.rows is None else batch.rows

        def step(windows: int) -> None:
            part = _rows_of(batch, slice(0, windows), rows, total)
            torch.autograd.grad(self._weighted(part, seed, self._model), weights, allow_unused=True)

        held = sum(weight.numel() * weight.element_size() for weight in weights)
        # gradients are as large as the weights, and Adam keeps two numbers of each, which may not be there yet
        later = held if self._optimizer.state else 3 * held
        return fitting(step, failed, self._workers.device, later, min(self._workers.gpus or 1.0, 1.0))


def check_pieces(model: Lifter | type[Lifter], settings: Settings) -> None:
    """Raises ValueError if settings ask for pieces of a model whose batches have none."""
    asked = settings.compute.micro_batch
    if isinstance(asked, int) and asked and not model.splits:
        raise ValueError(
            f'compute.micro_batch = {asked} (recipe {settings.name}), but model "{settings.model["name"]}" has batch '
            "norms or a codebook, which see all windows of a batch together: computed in pieces it would train "
            'differently. Allowed are 0 and "auto" (which then leaves it whole): set one, or use more --workers.'
        )


def _sizes(batch: Batch) -> tuple[int, int]:
    """Windows of the global batch, and of the largest share of a worker."""
    total = len(batch.keypoints) * batch.world if batch.total is None else batch.total
    return total, ceil(total / batch.world)


def _rows_of(batch: Batch, part: slice, rows: Tensor, total: int) -> Batch:
    """Some windows of a share, which see the draws that they would see in the whole batch."""
    return replace(
        batch,
        keypoints=batch.keypoints[part],
        visible=batch.visible[part],
        poses=None if batch.poses is None else batch.poses[part],
        images=None if batch.images is None else batch.images[part],
        subject=None if batch.subject is None else batch.subject[part],
        rows=rows[part].to(batch.keypoints.device),
        total=total,
        piece=True,
    )
