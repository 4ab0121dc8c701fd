"""The table [compute]: what "auto" comes to, what it changes, and that finished runs keep their identity."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from posegrid.datasets.store import Store
from posegrid.models.mixste import MixSTE
from posegrid.models.mlp import MLP
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.loop import train
from posegrid.orchestration.recipe_tables import ComputeSettings
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers

PLAIN = ComputeSettings(precision="float32", compile="off", fused="on")


class Claims(MLP):
    low_precision = True
    compiles = True


class Nothing(MLP):
    low_precision = False
    compiles = False


@pytest.mark.parametrize(
    ("given", "model", "gpu", "expected"),
    [
        ({}, Claims, False, PLAIN),
        ({}, Nothing, True, PLAIN),
        ({}, Claims, True, ComputeSettings(precision="bf16", compile="on", fused="on")),
        ({"precision": "float32", "compile": "off", "fused": "off"}, Claims, True, replace(PLAIN, fused="off")),
        ({"precision": "bf16"}, Nothing, False, replace(PLAIN, precision="bf16")),
        ({"compile": "on"}, Nothing, False, replace(PLAIN, compile="on")),
    ],
)
def test_what_auto_comes_to(given: dict[str, str], model: Any, gpu: bool, expected: ComputeSettings) -> None:
    resolved = ComputeSettings(**given).resolved(model, gpu=gpu)
    assert resolved == expected
    assert resolved.resolved(model, gpu=not gpu) == expected


@pytest.mark.parametrize("key", ["precision", "compile", "fused"])
def test_other_values_are_named(lifter_settings: Settings, key: str) -> None:
    with pytest.raises(ValueError, match=rf'"sometimes" \(key {key}\).*Known: auto'):
        Settings.from_plain({**lifter_settings.plain(), "compute": {key: "sometimes"}}, "test")


def test_runs_made_before_the_table_keep_their_fingerprint() -> None:
    plain = {"name": "x", "model": {"name": "mlp"}, "training": {"epochs": 1, "batch": 2, "lr": 1e-3}}
    assert Settings.from_plain(plain).training_fingerprint("data") == "f1d4318c38f060dd"


def test_only_the_precision_that_changes_weights_enters_the_fingerprint(
    lifter_settings: Settings, wrapper_settings: Settings
) -> None:
    def print_of(**values: str) -> str:
        return replace(lifter_settings, compute=ComputeSettings(**values)).training_fingerprint("data")

    same = {print_of(), print_of(precision="float32"), print_of(compile="on"), print_of(fused="off")}
    assert same == {lifter_settings.training_fingerprint("data")}
    assert print_of(precision="bf16") not in same
    on_gpu = lifter_settings.resolved(gpu=True)
    assert on_gpu.compute.precision == "bf16"
    assert on_gpu.training_fingerprint("data") == print_of(precision="bf16")
    assert lifter_settings.resolved(gpu=False).training_fingerprint("data") in same
    wrappers = [replace(wrapper_settings, upstream=one.plain()) for one in (lifter_settings, on_gpu)]
    assert len({one.training_fingerprint("data") for one in wrappers}) == 2


def losses_of(store: Store, settings: Settings, watch: Any = None) -> tuple[list[float], list[float], nn.Module]:
    """Training and validation loss of every epoch, and the model."""
    torch.manual_seed(0)
    model = checkpoint.build(settings, pose_shape(store, settings.data))
    if watch is not None:
        model.register_forward_pre_hook(lambda *_: watch.append(torch.is_autocast_enabled("cpu")))
    found: list[dict[str, float]] = []
    train(model, model, store, settings, Workers(), lambda metrics, _: found.append(metrics))
    return [one["train/loss"] for one in found], [one["validation/loss"] for one in found], model


def test_low_precision_trains_nearly_the_same(toy_store: Store, lifter_settings: Settings) -> None:
    low = replace(lifter_settings, compute=ComputeSettings(precision="bf16"))
    seen: list[bool] = []
    exact_train, exact_validation, _ = losses_of(toy_store, lifter_settings)
    low_train, low_validation, model = losses_of(toy_store, low, seen)
    assert low_train != exact_train
    assert low_train == pytest.approx(exact_train, rel=0.05)
    assert low_validation == pytest.approx(exact_validation, rel=0.05)
    assert set(seen) == {True}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_validation_keeps_all_digits(toy_store: Store, lifter_settings: Settings, monkeypatch: Any) -> None:
    settings = replace(lifter_settings, compute=ComputeSettings(precision="bf16"))
    seen: list[tuple[bool, bool]] = []
    loss = MixSTE.loss

    def watched(self: MixSTE, *arguments: Any) -> Any:
        seen.append((self.training, torch.is_autocast_enabled("cpu")))
        return loss(self, *arguments)

    monkeypatch.setattr(MixSTE, "loss", watched)
    losses_of(toy_store, settings)
    assert set(seen) == {(True, True), (False, False)}


def test_unfused_updates_are_the_same_to_rounding(toy_store: Store, lifter_settings: Settings) -> None:
    fused = losses_of(toy_store, lifter_settings)[0]
    other = losses_of(toy_store, replace(lifter_settings, compute=ComputeSettings(fused="off")))[0]
    assert other == pytest.approx(fused, rel=1e-5)


def test_the_compiler_takes_the_wrapped_model(toy_store: Store, lifter_settings: Settings, monkeypatch: Any) -> None:
    taken = []

    def compiled(module: nn.Module, **options: Any) -> nn.Module:
        taken.append((module, options))
        return module

    class Wrapped(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.module = model

        def forward(self, *arguments: Any) -> Any:
            return self.module(*arguments)

    monkeypatch.setattr(torch, "compile", compiled)
    model = checkpoint.build(lifter_settings, pose_shape(toy_store, lifter_settings.data))
    wrapped = Wrapped(model)
    for choice, expected in (("auto", []), ("on", [(wrapped, {"dynamic": False})])):
        settings = replace(lifter_settings, compute=ComputeSettings(compile=choice))
        train(model, wrapped, toy_store, settings, Workers(), lambda *_: None)
        assert taken == expected
