"""Learning rates and momenta over steps and epochs, against their formulas."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from posegrid.datasets.store import Store
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape, steps_per_epoch
from posegrid.orchestration.loop import train
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


def run(
    store: Store, settings: Settings, resume: Any = None
) -> tuple[list[dict[str, float]], list[dict[str, Any]], list[float]]:
    """Metrics and states of the epochs, and the momentum of the first batch norm in every step."""
    torch.manual_seed(0)
    model = checkpoint.build(settings, pose_shape(store, settings.data))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta: list[float] = []
    if norms:
        model.register_forward_pre_hook(lambda *_: momenta.append(norms[-1].momentum))
    metrics: list[dict[str, float]] = []
    states: list[dict[str, Any]] = []

    def report(found: dict[str, float], state: Any) -> None:
        metrics.append(found)
        states.append(state())

    train(model, model, store, settings, Workers(), report, resume)
    return metrics, states, momenta


def with_training(settings: Settings, **values: Any) -> Settings:
    return replace(settings, training=replace(settings.training, **values))


def test_a_large_decay_takes_the_place_of_every_nth(toy_store: Store, lifter_settings: Settings) -> None:
    settings = with_training(
        lifter_settings, epochs=5, schedule="exponential", decay=0.9, large_decay=0.5, large_decay_every=2
    )
    expected = [1e-3, 0.9e-3, 0.45e-3, 0.405e-3, 0.2025e-3]
    metrics, states, _ = run(toy_store, settings)
    assert [epoch["train/lr"] for epoch in metrics] == pytest.approx(expected)
    resumed, _, _ = run(toy_store, settings, states[1])
    assert [epoch["train/lr"] for epoch in resumed] == pytest.approx(expected[2:])


def test_steps_alone(toy_store: Store, lifter_settings: Settings) -> None:
    settings = with_training(
        lifter_settings, epochs=5, schedule="exponential", decay=1.0, large_decay=0.1, large_decay_every=2
    )
    assert [epoch["train/lr"] for epoch in run(toy_store, settings)[0]] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5])


def test_continuous_decay_counts_steps(toy_store: Store, lifter_settings: Settings) -> None:
    settings = with_training(lifter_settings, epochs=2, schedule="exponential", decay=0.96, decay_steps=50)
    steps = steps_per_epoch(toy_store, settings)
    last = [steps - 1, 2 * steps - 1]  # the reported rate is that of an epoch's last step; the first step has lr
    assert [epoch["train/lr"] for epoch in run(toy_store, settings)[0]] == pytest.approx(
        [1e-3 * 0.96 ** (step / 50) for step in last]
    )


def test_momentum_of_batch_norms_falls_and_resumes(toy_store: Store, lifter_settings: Settings) -> None:
    model = {"name": "simple_baseline", "width": 8, "blocks": 1, "norm_momentum": 0.1}
    settings = Settings.from_plain({**lifter_settings.plain(), "model": model})
    steps = steps_per_epoch(toy_store, settings)

    def epochs(momenta: list[float]) -> list[float]:
        assert all(len(set(momenta[at : at + steps])) == 1 for at in range(0, len(momenta), steps))
        return momenta[::steps]

    assert epochs(run(toy_store, settings)[2]) == [0.1] * 3
    falling = with_training(settings, norm_momentum_end=0.001)
    expected = [0.1, 0.1 * 0.01 ** (1 / 3), 0.1 * 0.01 ** (2 / 3)]
    _, states, momenta = run(toy_store, falling)
    assert epochs(momenta) == pytest.approx(expected)
    assert epochs(run(toy_store, falling, states[0])[2]) == pytest.approx(expected[1:])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"large_decay": 0.5}, "large_decay_every = 0: allowed"),
        ({"large_decay_every": 5}, "large_decay = 0.0 with"),
        ({"large_decay": 1.5, "large_decay_every": 5}, "at most 1"),
        ({"large_decay": 0.5, "large_decay_every": 5, "decay_steps": 9}, "falls with steps or with epochs"),
        ({"schedule": "cosine", "decay_steps": 9}, "does not read decay_steps = 9"),
        ({"schedule": "constant", "large_decay": 0.5, "large_decay_every": 5}, 'need schedule = "exponential"'),
        ({"norm_momentum_end": 2.0}, "norm_momentum_end = 2.0 must be at least 0 and at most 1"),
        ({"decay_steps": -1}, "decay_steps = -1 must be at least 0"),
    ],
)
def test_schedules_that_cannot_be(lifter_settings: Settings, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_training(lifter_settings, **{"schedule": "exponential", **values})


def test_new_keys_leave_fingerprints_alone_until_used(lifter_settings: Settings) -> None:
    plain = lifter_settings.plain()
    older = {key: value for key, value in plain["training"].items() if "decay_" not in key and "_end" not in key}
    assert len(older) < len(plain["training"])
    settings = Settings.from_plain({**plain, "training": older})
    assert settings.training_fingerprint("data") == lifter_settings.training_fingerprint("data")
    for used in ({"decay_steps": 7}, {"large_decay": 0.5, "large_decay_every": 5}, {"norm_momentum_end": 0.01}):
        changed = with_training(lifter_settings, schedule="exponential", **used)
        usual = with_training(lifter_settings, schedule="exponential")
        assert changed.training_fingerprint("data") != usual.training_fingerprint("data")


@pytest.mark.parametrize("schedule", ["constant", "plateau", "exponential", "cosine"])
def test_states_of_every_schedule_are_plain(
    toy_store: Store, lifter_settings: Settings, tmp_path: Path, schedule: str
) -> None:
    """They are read back without unpickling objects, so nothing of NumPy may be in them."""
    settings = with_training(lifter_settings, epochs=2, schedule=schedule, warmup=3)
    metrics: list[dict[str, float]] = []
    file = tmp_path / "state.pt"

    def report(found: dict[str, float], state: Any) -> None:
        metrics.append(found)
        if not file.exists():
            checkpoint.write(file, state())

    for resume in (False, True):
        torch.manual_seed(0)
        model = checkpoint.build(settings, pose_shape(toy_store, settings.data))
        train(model, model, toy_store, settings, Workers(), report, checkpoint.read(file) if resume else None)
    _, undisturbed, resumed = metrics
    assert resumed["train/loss"] == undisturbed["train/loss"]
    assert resumed["train/lr"] == undisturbed["train/lr"]
