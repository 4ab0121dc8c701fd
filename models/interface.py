"""What every model is: two faces, one batch.

Legend: B windows, H hypotheses, L frames, J joints, C coordinates, D features. Poses are metres, camera frame,
root-relative; keypoints are normalised screen coordinates, zero where hidden.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from posegrid.models.diffusion.chain import Chain


@dataclass(frozen=True, kw_only=True)
class PoseShape:
    """What a model must know of the data: window length and the skeleton's tree as plain numbers."""

    frames: int
    """Window length L."""
    joints: int
    """Number of joints J."""
    parents: tuple[int, ...]
    """Parent of each joint, -1 for the root."""
    left: tuple[int, ...]
    """Left joints, mirrored by `right` in the same order."""
    right: tuple[int, ...]
    """Right joints."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows of one optimisation or evaluation step, on one worker."""

    keypoints: Tensor
    """(B, L, J, 2) normalised screen coordinates, hidden ones set to 0."""
    visible: Tensor
    """(B, L, J) bool, False where occluded. Kept beside the input; the published models do not read it."""
    poses: Tensor | None = None
    """(B, L, J, 3) target, metres, root-relative; None when only lifting."""
    images: Tensor | None = None
    """(B, L, height, width, 3) uint8 RGB person crops; None unless the model reads pictures."""
    rank: int = 0
    """This worker holds rows rank, rank + world, rank + 2 world, ... of the global batch."""
    world: int = 1
    """Number of workers that share the global batch."""
    total: int | None = None
    """Windows in the global batch; None means len(keypoints) * world. Needed where the last batch divides unevenly."""
    rows: Tensor | None = None
    """(B,) rows of the global batch that this worker holds, where they are not those of rank and world."""
    subject: Tensor | None = None
    """(B,) int64 number of the person in each window, the same throughout a data set; None where nobody asks."""
    piece: bool = False
    """One of several batches whose gradients are added up; see `Lifter.square_gradient`."""

    def where(self, mask_B: Tensor) -> "Batch":
        """The windows of `mask_B` (bool), which see the draws that they would see in the whole batch."""
        total = len(self.keypoints) * self.world if self.total is None else self.total
        rows = torch.arange(self.rank, total, self.world, device=mask_B.device) if self.rows is None else self.rows
        return replace(
            self,
            keypoints=self.keypoints[mask_B],
            visible=self.visible[mask_B],
            poses=None if self.poses is None else self.poses[mask_B],
            images=None if self.images is None else self.images[mask_B],
            rows=rows[mask_B],
            total=total,
            subject=None if self.subject is None else self.subject[mask_B],
        )

    def draw(self, sample: Callable[[int], Tensor]) -> Tensor:
        """Random numbers for the windows of this worker that do not depend on the number of workers.

        `sample(n)` draws for n windows (leading dimension n); it is called for the global batch and this worker's rows
        are kept. The draws are small beside the network's work, and any number of workers sees the same noise.
        """
        total = len(self.keypoints) * self.world if self.total is None else self.total
        return sample(total)[self.rank :: self.world] if self.rows is None else sample(total)[self.rows]


class Lifter(nn.Module, ABC):
    """A model that lifts windows of 2D keypoints to 3D poses.

    `forward` is `loss`, so that a wrapper such as DistributedDataParallel sees the training call.
    """

    feature_width: int | None = None
    """Width D of `features`, None if the model cannot serve as a conditioner."""
    low_precision: bool = False
    """Claims that it trains as well when matrix products are made of bfloat16 numbers: loss, gradient and lifted poses
    stay within the tolerances of `tests/models/test_speed_options.py`, which tests claims. A class sets it to False
    with the reason beside it."""
    compiles: bool = False
    """Claims that torch.compile returns the same loss and gradient, tested there too."""
    splits: bool = False
    """Claims that a batch may be computed in pieces: `loss` is a mean over windows of which each counts by itself, and
    training moves nothing but weights. Tested in `tests/models/test_pieces.py`. Batch norms deny it."""
    square_gradient: bool = False
    """Training descends loss^2 / 2: the gradient of `loss` is multiplied by its value over the whole batch. A piece
    does not know that value: of pieces, `loss` gives its own gradient, and whoever adds them up multiplies."""
    output_frame: int | None = None
    """None: `lift` returns all frames of a window. Else the index of the one frame that it returns, (B, H, 1, J, 3),
    and that `loss` compares."""
    chain: Chain | None = None
    """How `lift` samples, set by models that do: sampler, steps, eta. May be exchanged before lifting."""

    @abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean training loss over this worker's windows (scalar). Random draws use `generator` through `batch.draw`."""

    @abstractmethod
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """Poses (B, H, L, J, 3) in metres, root-relative. Regressors return H = 1 whatever is asked.

        (B, H, 1, J, 3) if the model predicts only `output_frame`.
        """

    def at_output(self, poses_BLJC: Tensor) -> Tensor:
        """Of target poses (B, L, J, 3) the frames that `lift` predicts: all, or (B, 1, J, 3) at `output_frame`."""
        if self.output_frame is None:
            return poses_BLJC
        return poses_BLJC[:, self.output_frame : self.output_frame + 1]

    def features(self, keypoints_BLJC: Tensor) -> Tensor:
        """Token features (B, L, J, D) for a model that is conditioned on this one. Raises ValueError if it has none."""
        raise ValueError(
            f"{type(self).__name__} gives no features, so it cannot be a conditioner. "
            "Use a lifter with token features, for instance mixste."
        )

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The training face: `loss`."""
        return self.loss(batch, generator)


class Refiner(Lifter):
    """A lifter that corrects the poses of another one, whose errors on people it has not seen it must know to train.

    Before training: `use_folds`, then `settle` with the `error_sums` of all training windows of all workers.
    """

    @abstractmethod
    def use_folds(self, lifters: dict[int, Lifter]) -> None:
        """Lift windows of a subject (its number in `Batch.subject`) by a lifter that was trained without it.

        Holds for `error_sums` and `loss`. The lifters stay outside of the model's state.
        """

    @abstractmethod
    def error_sums(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Statistics of the lifter's errors in this worker's windows, float64 (V,), to be added up."""

    @abstractmethod
    def settle(self, sums: Tensor) -> None:
        """Take over the statistics of all training windows, float64 (V,)."""
