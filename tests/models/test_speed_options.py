"""Claims of models about faster ways to compute a training step: half the digits, and compiled."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from posegrid.models.blocks.draws import NotedDraws, drawn_ahead
from posegrid.models.interface import Batch, Lifter
from posegrid.models.registry import lifter_class, model_names

LOSS = 0.02
"""Largest relative difference of the loss."""
DIRECTION = 0.98
"""Smallest cosine between both gradients of all weights. 0.98: a fifth of the gradient's length stands across it."""
POSES = 0.03
"""Largest mean distance of lifted joints, as a share of their mean distance from the root of their pose."""


def computed(model: Lifter, batch: Batch, *, low: bool, called: Any = None) -> tuple[Tensor, Tensor]:
    """Loss and flat gradient of a training step whose draws are the same in every call."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        loss = (called or model)(batch, torch.Generator().manual_seed(3))
    assert loss.dtype == torch.float32
    loss.backward()
    model.load_state_dict(state)  # running statistics moved
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    return loss.detach(), gradient


def lifted(model: Lifter, batch: Batch, *, low: bool) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        return model.eval().lift(batch, torch.Generator().manual_seed(3), 2)


def differences(model: Lifter, batch: Batch) -> tuple[float, float, float]:
    """Relative difference of the loss, cosine of the gradients, relative distance of the lifted poses."""
    loss, gradient = computed(model.train(), batch, low=False)
    low_loss, low_gradient = computed(model, batch, low=True)
    cosine = torch.cosine_similarity(gradient.double(), low_gradient.double(), dim=0)
    poses, low_poses = lifted(model, batch, low=False), lifted(model, batch, low=True).float()
    size = (poses - poses[..., :1, :]).norm(dim=-1).mean()
    change = (poses - low_poses).norm(dim=-1).mean() / size
    return abs(low_loss / loss - 1).item(), cosine.item(), change.item()


@pytest.mark.parametrize("name", model_names())
def test_claims_of_low_precision_hold(name, cases, shape_of, batch_of, shaken):
    """A model that claims it passes in all cases, one that denies it fails in one at least."""
    if "low_precision" not in vars(lifter_class(name)):
        pytest.skip(f"{name} claims nothing")
    found = {}
    for label, case in cases.items():
        if case.name == name:
            pose = shape_of(case.frames)
            found[label] = differences(shaken(case.build(pose), 0.03), batch_of(8, pose))
    passes = [loss < LOSS and cosine > DIRECTION and poses < POSES for loss, cosine, poses in found.values()]
    assert lifter_class(name).low_precision == all(passes), found


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in model_names() if lifter_class(name).compiles])
def test_claims_to_compile_hold(name, cases, shape_of, batch_of, shaken):
    """The step is one graph, with its gradient; kernels are not generated, which takes minutes."""
    *_, case = (case for case in cases.values() if case.name == name)
    pose = shape_of(case.frames)
    model = shaken(case.build(pose), 0.03).train()
    torch.compiler.reset()
    batch = batch_of(4, pose)
    loss, gradient = computed(model, batch, low=False)
    noted = NotedDraws(torch.Generator().manual_seed(8))
    model(batch, noted)
    compiled = torch.compile(model, dynamic=False, fullgraph=True, backend="aot_eager")

    def step(batch: Batch, generator: torch.Generator) -> Tensor:
        return compiled(batch, drawn_ahead(noted.calls, batch, generator))

    same_loss, same_gradient = computed(model, batch, low=False, called=step)
    torch.testing.assert_close(same_loss, loss, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(same_gradient, gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item())
    mirrored = replace(batch, keypoints=-batch.keypoints)
    other, expected = (computed(model, mirrored, low=False, called=called)[0] for called in (step, model))
    torch.testing.assert_close(other, expected, rtol=1e-5, atol=1e-7)
    assert not other.allclose(loss)  # input and draws are read anew


def test_the_class_of_a_model_is_what_it_builds(case, pose):
    assert type(case.build(pose)) is lifter_class(case.name)


def test_every_model_has_a_class():
    assert all(issubclass(lifter_class(name), Lifter) for name in model_names())
