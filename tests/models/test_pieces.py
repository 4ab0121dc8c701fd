"""Claims of models that gradients of pieces of a batch add up to that of the whole."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from posegrid.models.interface import Batch, Lifter
from posegrid.models.registry import lifter_class, model_names

WINDOWS, CUT = 5, 2
"""Windows of the batch, and of its first piece."""


def results(model: Lifter, batches: list[Batch]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss and flat gradient of batches, weighted by their windows; what training has moved beside weights."""
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.zero_grad()
    total = torch.zeros(())
    for batch in batches:
        loss = model(batch, torch.Generator().manual_seed(3)) * (len(batch.keypoints) / WINDOWS)
        loss.backward()
        total += loss.detach()
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    if batches[0].piece and model.square_gradient:
        gradient = gradient * total
    moved = {name: value for name, value in model.named_buffers() if not value.equal(before[name])}
    return total, gradient, moved


def pieces_of(batch: Batch) -> list[Batch]:
    rows = torch.arange(WINDOWS)
    return [
        replace(batch.where(part), piece=True, total=WINDOWS, rows=rows[part]) for part in (rows < CUT, rows >= CUT)
    ]


def adds_up(model: Lifter, batch: Batch) -> bool:
    """Whether pieces have the loss and gradient of the whole, and move no statistics."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    loss, gradient, _ = results(model, [batch])
    model.load_state_dict(state)
    summed, added, moved = results(model, pieces_of(batch))
    tolerance = 1e-5 * gradient.abs().max().item()
    same = torch.allclose(summed, loss, rtol=1e-5) and torch.allclose(added, gradient, rtol=1e-3, atol=tolerance)
    return same and not moved


def test_pieces_of_models_that_claim_it_add_up(case, pose, batch_of, shaken):
    if not lifter_class(case.name).splits:
        pytest.skip(f"{case.name} does not claim it")
    assert adds_up(shaken(case.build(pose), 0.03).train(), batch_of(WINDOWS, pose))


@pytest.mark.parametrize("name", [name for name in model_names() if not lifter_class(name).splits])
def test_those_that_deny_it_have_a_reason(name, cases, shape_of, batch_of, shaken):
    found = {
        label: adds_up(
            shaken(case.build(shape_of(case.frames)), 0.03).train(), batch_of(WINDOWS, shape_of(case.frames))
        )
        for label, case in cases.items()
        if case.name == name
    }
    assert not all(found.values()), found


def test_a_loss_that_scales_with_itself_is_scaled_by_the_whole(cases, shape_of, batch_of, shaken):
    for label in ("mixste-weighted", "d3dp"):
        case = replace(cases[label], options={**cases[label].options, "square_gradient": True})
        pose = shape_of(5)
        model, batch = shaken(case.build(pose)).train(), batch_of(WINDOWS, pose)
        whole, added = results(model, [batch])[1], results(model, pieces_of(batch))[1]
        torch.testing.assert_close(added, whole, rtol=1e-3, atol=1e-5 * whole.abs().max().item())
        plain = replace(case, options={**case.options, "square_gradient": False})
        other = results(shaken(plain.build(pose)).train(), [batch])[1]
        assert not torch.allclose(other, whole, rtol=0.1)
