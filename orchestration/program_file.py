"""Writes a regressor as a file that torch.export loads without this package, and checks what was written."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from posegrid.models.export import Program, example, exported
from posegrid.models.interface import Lifter, PoseShape

DESCRIPTION = "posegrid.json"
"""Extra file inside: what goes in, what comes out, of which recipe."""


def write_program(file: Path, model: Lifter, pose: PoseShape, about: dict[str, Any]) -> dict[str, Any]:
    """Export a regressor to `file`, which appears whole or not at all; returns the description inside it.

    Raises ValueError if the model cannot be exported or the file's name does not end with .pt2, RuntimeError if the
    program that was read back returns other poses than the model.
    """
    if file.suffix != ".pt2":
        raise ValueError(f"--out {file}: programs of torch.export have the ending .pt2. Name the file so.")
    program = exported(model, pose)
    inputs = [name for name in example(pose, 1) if name in program.graph_signature.user_inputs]
    frames = "all" if model.output_frame is None else [model.output_frame]
    lifted = pose.frames if model.output_frame is None else 1
    described = {
        **about,
        "inputs": {
            name: {
                "keypoints": f"float32 (windows, {pose.frames}, {pose.joints}, 2), normalised screen coordinates, "
                "hidden ones 0",
                "visible": f"bool (windows, {pose.frames}, {pose.joints})",
            }[name]
            for name in inputs
        },
        "output": f"float32 (windows, {lifted}, {pose.joints}, 3), metres, root-relative",
        "output_frames": frames,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.stem}.partial-{os.getpid()}.pt2")
    try:
        torch.export.save(program, aside, extra_files={DESCRIPTION: json.dumps(described, indent=1)})
        _check(aside, model, pose, inputs)
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)
    return described


@torch.no_grad()
def _check(file: Path, model: Lifter, pose: PoseShape, inputs: list[str]) -> None:
    read_back = torch.export.load(file).module()
    for windows in (1, 3):
        given = {name: value for name, value in example(pose, windows).items() if name in inputs}
        expected, found = Program(model)(**given), read_back(**given)
        if not found.allclose(expected, rtol=1e-4, atol=1e-5):
            raise RuntimeError(
                f"the exported program returns other poses than the model (up to {(found - expected).abs().max():.1e} "
                "m); nothing was written."
            )
