"""A regressor as a program: the network with its weights, which runs where posegrid is not installed.

Legend: B windows (any number), L frames, J joints.
"""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from posegrid.models.interface import Batch, Lifter, PoseShape


class Program(nn.Module):
    """(B, L, J, 2) keypoints, and (B, L, J) bool visibility if the model reads it -> (B, L or 1, J, 3) metres."""

    def __init__(self, model: Lifter):
        super().__init__()
        self.model = model

    def forward(self, keypoints: Tensor, visible: Tensor | None = None) -> Tensor:
        """`Lifter.lift` of a regressor, its axis of hypotheses left out."""
        if visible is None:
            visible = torch.ones_like(keypoints[..., 0], dtype=torch.bool)
        return self.model.lift(Batch(keypoints=keypoints, visible=visible), torch.Generator())[:, 0]


def exported(model: Lifter, pose: PoseShape) -> ExportedProgram:
    """The program of a regressor, on the CPU. Inputs are named as those of `Program.forward`.

    Raises ValueError if the model draws its poses, or reads more than keypoints: then there is no such program.
    """
    _check_regressor(model, pose)
    inputs = example(pose, 2)
    if not reads_visibility(model, pose):
        inputs.pop("visible")
    windows = Dim("windows", min=1)
    with torch.no_grad():  # else the program switches gradients on and off itself
        program = Program(model.eval())
        return torch.export.export(program, (), inputs, dynamic_shapes={name: {0: windows} for name in inputs})


def example(pose: PoseShape, windows: int) -> dict[str, Tensor]:
    """Inputs of a program: random keypoints, with every second frame hidden."""
    visible = torch.ones(windows, pose.frames, pose.joints, dtype=torch.bool)
    visible[:, 1::2] = False
    keypoints = torch.rand(windows, pose.frames, pose.joints, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return {"keypoints": keypoints * visible[..., None], "visible": visible}


@torch.no_grad()
def _check_regressor(model: Lifter, pose: PoseShape) -> None:
    inputs = example(pose, 1)
    batch = Batch(keypoints=inputs["keypoints"], visible=inputs["visible"])
    advice = "Allowed are regressors of keypoints: export a lifter, or use `posegrid evaluate` for this model."
    try:
        draws = model.chain is not None or model.eval().lift(batch, torch.Generator().manual_seed(0), 2).shape[1] > 1
    except ValueError as error:
        raise ValueError(
            f"{type(model).__name__} was given to export, which lifts no keypoints on their own: {error} {advice}"
        ) from None
    if draws:
        raise ValueError(
            f"{type(model).__name__} was given to export, which draws poses by a chain of random steps: that is no "
            f"function of the keypoints. {advice}"
        )


@torch.no_grad()
def reads_visibility(model: Lifter, pose: PoseShape) -> bool:
    """Whether a regressor's result depends on what is said to be visible, beside the keypoints."""
    program, inputs = Program(model.eval()), example(pose, 2)
    return not program(**inputs).equal(program(inputs["keypoints"]))
