"""Which weights decay, and with which betas."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from posegrid.orchestration.optimisation import make_optimizer
from posegrid.orchestration.settings import Settings


class Parts(nn.Module):
    """One of each kind of weight; the last is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.convolution, self.norm = nn.Linear(2, 3), nn.Conv1d(3, 2, 1), nn.LayerNorm(3)
        self.embedding, self.token = nn.Embedding(4, 3), nn.Parameter(torch.ones(2, 2))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


@pytest.mark.parametrize("fused", [True, False])
def test_only_layers_decay(lifter_settings: Settings, fused: bool) -> None:
    """Without a gradient AdamW only decays: w (1 - lr decay)."""
    training = replace(lifter_settings.training, optimizer="adamw", weight_decay=0.5, lr=0.1, beta2=0.96)
    for decay_all in (True, False):
        model = Parts()
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        optimizer = make_optimizer(replace(training, decay_all=decay_all), model, fused=fused)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
        decaying = (
            set(before) - {"frozen.weight", "frozen.bias"} if decay_all else {"linear.weight", "convolution.weight"}
        )
        for name, weight in model.named_parameters():
            torch.testing.assert_close(weight.detach(), before[name] * (0.95 if name in decaying else 1.0))
        assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.96)}


def test_usual_values_keep_fingerprints(lifter_settings: Settings) -> None:
    key = lifter_settings.training_fingerprint("data")
    plain = lifter_settings.plain()
    del plain["training"]["beta2"], plain["training"]["decay_all"]
    assert Settings.from_plain(plain).training_fingerprint("data") == key
    for change in ({"beta2": 0.96}, {"decay_all": False}):
        changed = replace(lifter_settings, training=replace(lifter_settings.training, **change))
        assert changed.training_fingerprint("data") != key


@pytest.mark.parametrize("beta2", [-0.1, 1.0])
def test_betas_out_of_range(lifter_settings: Settings, beta2: float) -> None:
    with pytest.raises(ValueError, match="beta2"):
        replace(lifter_settings.training, beta2=beta2)
