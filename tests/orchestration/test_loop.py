"""The loop: it learns, resumes with the same bits, and does not care how many workers share a batch."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import gang
import pytest
import torch

from posegrid.datasets.store import Store
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.loop import train
from posegrid.orchestration.recipe_tables import ComputeSettings
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


def run(
    store: Store, settings: Settings, resume: dict[str, Any] | None = None
) -> tuple[list[dict[str, float]], list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Train from a fresh model; returns metrics and states of each epoch, and the selected weights."""
    torch.manual_seed(settings.training.seed)
    model = checkpoint.build(settings, pose_shape(store, settings.data))
    metrics: list[dict[str, float]] = []
    states: list[dict[str, Any]] = []

    def report(found: dict[str, float], state: Any) -> None:
        metrics.append(found)
        states.append(copy.deepcopy(state()))

    weights = train(model, model, store, settings, Workers(), report, resume)
    return metrics, states, weights


def test_loss_falls(toy_store: Store, lifter_settings: Settings) -> None:
    settings = replace(lifter_settings, training=replace(lifter_settings.training, epochs=15, lr=3e-3))
    metrics, _, _ = run(toy_store, settings)
    assert metrics[-1]["train/loss"] < 0.5 * metrics[0]["train/loss"]


@pytest.mark.parametrize("killed_after", [0, 2])
def test_resumed_run_repeats_the_undisturbed_one_bit_by_bit(
    toy_store: Store, trained_settings: Settings, killed_after: int, tmp_path: Path
) -> None:
    metrics, states, weights = run(toy_store, trained_settings)
    checkpoint.write(tmp_path / "state.pt", states[killed_after])
    again, _, resumed = run(toy_store, trained_settings, checkpoint.read(tmp_path / "state.pt"))
    losses = [epoch["train/loss"] for epoch in metrics[killed_after + 1 :]]
    assert [epoch["train/loss"] for epoch in again] == losses
    assert [epoch["train/lr"] for epoch in again] == [epoch["train/lr"] for epoch in metrics[killed_after + 1 :]]
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_finished_run_trains_nothing(toy_store: Store, lifter_settings: Settings) -> None:
    _, states, weights = run(toy_store, lifter_settings)
    metrics, _, again = run(toy_store, lifter_settings, states[-1])
    assert metrics == []
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_any_number_of_workers_gives_the_curve_and_metrics_of_one(
    toy_store: Store, trained_settings: Settings, wrapper_settings: Settings, tmp_path: Path
) -> None:
    # a random conditioner does: what counts is that batch statistics, dropout and noise are shared
    upstream = replace(wrapper_settings, model=trained_settings.model, conditioner=None).plain()
    wrapper = replace(wrapper_settings, upstream=upstream, model={**wrapper_settings.model, "dropout": 0.1})
    # a gradient that scales with the loss of the whole batch, which neither workers nor pieces know alone
    model = {**trained_settings.model, "square_gradient": True, "loss": "weighted"}
    # few steps: processes that exchange something for every layer are slow where cores are few
    lifter = replace(trained_settings, model=model, training=replace(trained_settings.training, epochs=2, steps=2))
    wrapper = replace(wrapper, training=replace(wrapper.training, epochs=2, steps=2))
    pieces, auto = (replace(lifter, compute=ComputeSettings(micro_batch=size)) for size in (1, "auto"))
    one = {"wrapper": gang.trained(Workers(), wrapper, toy_store), "lifter": gang.trained(Workers(), lifter, toy_store)}
    # 3 workers have unequal shares of the batch of 8: rows 0, 3, 6, rows 1, 4, 7 and rows 2, 5
    runs = {"wrapper on two": (2, wrapper), "wrapper": (4, wrapper), "lifter": (3, lifter), "pieces": (3, pieces)}
    for name, other in gang.run(toy_store, {**runs, "short": (2, auto)}, tmp_path).items():
        expected = one["wrapper" if "wrapper" in name else "lifter"]
        # float32 sums in another order: 1e-4 relative after a few dozen steps
        assert other["losses"] == pytest.approx(expected["losses"], rel=1e-4), name
        assert other["metrics"] == pytest.approx(expected["metrics"], rel=1e-3), name


def test_more_workers_than_windows_are_refused(toy_store: Store, lifter_settings: Settings) -> None:
    model = checkpoint.build(lifter_settings, pose_shape(toy_store, lifter_settings.data))
    with pytest.raises(ValueError, match=r"training.batch = 8 .* 9 workers"):
        train(model, model, toy_store, lifter_settings, Workers(world=9), lambda *_: None)


def test_infinite_loss_stops_with_advice(toy_store: Store, lifter_settings: Settings) -> None:
    settings = replace(lifter_settings, training=replace(lifter_settings.training, lr=1e30))
    with pytest.raises(FloatingPointError, match=r"lower training.lr"):
        run(toy_store, settings)


def test_selection_keeps_the_best_epoch(toy_store: Store, lifter_settings: Settings) -> None:
    settings = replace(lifter_settings, training=replace(lifter_settings.training, select_by="mpjpe", lr=0.05))
    metrics, states, weights = run(toy_store, settings)
    scores = [epoch["validation/mpjpe_mm"] for epoch in metrics]
    best = scores.index(min(scores))
    assert states[-1]["best"]["epoch"] == best
    assert all(torch.equal(weights[name], states[best]["model"][name]) for name in weights)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [1e-3] * 3), ("exponential", [1e-3, 5e-4, 2.5e-4])],
)
def test_schedules(toy_store: Store, lifter_settings: Settings, schedule: str, expected: list[float]) -> None:
    settings = replace(lifter_settings, training=replace(lifter_settings.training, schedule=schedule, decay=0.5))
    metrics, _, _ = run(toy_store, settings)
    assert [epoch["train/lr"] for epoch in metrics] == pytest.approx(expected)
