"""What a run costs: sums over workers and restarts, energy where a GPU tells it."""

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from posegrid.datasets.store import Store
from posegrid.orchestration import stage
from posegrid.orchestration.expenses import ENERGY_WH, GPU_S, OUTSIDE, WORKER_S, Expenses, energy_counter
from posegrid.orchestration.pieces import BatchTooLargeError
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.task import StageTask
from posegrid.orchestration.tracking import Tracking
from posegrid.orchestration.workers import Workers


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Pair(Workers):
    """The first of two workers, of which the other uses as much energy."""

    def sum(self, values: np.ndarray) -> np.ndarray:
        return 2 * values


def test_sums_go_on_where_a_restart_has_other_workers() -> None:
    clock = Clock()
    first = Expenses(workers=Pair(world=2, gpus=0.25), clock=clock)
    clock.now += 10
    first.add_steps(6)
    assert first.metrics() == {WORKER_S: 20, GPU_S: 5, OUTSIDE: pytest.approx(0.4)}
    kept = first.plain()
    clock.now += 1000  # killed, and waited for
    second = Expenses(workers=Workers(world=1, gpus=0), before=kept, clock=clock)
    clock.now += 5
    second.add_steps(3)
    assert second.metrics() == {WORKER_S: 25, GPU_S: 5, OUTSIDE: pytest.approx(0.4)}


def test_energy_of_a_share_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML counts millijoules since the driver was loaded."""
    used = [5_000_000]
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID={b"GPU-abc": "handle"}.__getitem__,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: used[0],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    module = SimpleNamespace(get_device_properties=lambda device: SimpleNamespace(uuid="abc"))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    expenses = Expenses(workers=Pair(world=2, gpus=0.5), before={ENERGY_WH: 1.0})
    used[0] += 7_200_000  # 7200 J: 2 Wh of the GPU, 1 of its half, as much of the other worker
    assert expenses.metrics()[ENERGY_WH] == pytest.approx(3.0)
    assert expenses.plain()[ENERGY_WH] == pytest.approx(3.0)
    module.get_device_properties = lambda device: SimpleNamespace(uuid="another")
    assert energy_counter(torch.device("cpu")) is None
    assert ENERGY_WH not in Expenses(workers=Workers(gpus=1)).metrics()


def test_a_cpu_tells_no_energy() -> None:
    assert energy_counter(torch.device("cpu")) is None


def run(
    tracking: Tracking, store: Store, settings: Settings, run_id: str, resume: Any = None, **more: Any
) -> list[Any]:
    """Run a stage; returns the states of its epochs."""
    states: list[Any] = []
    pattern = {"pattern": "none"}
    task = StageTask(
        key="key",
        run_id=run_id,
        settings=settings.plain(),
        patterns=[pattern],
        store=str(store.path),
        data_hash=store.content_hash,
        tracking=tracking.uri,
        **more,
    )

    def save(metrics: dict[str, float], state: Any) -> None:
        states.append(state())

    stage.run_stage(task, Workers(gpus=0.5), save, resume=resume)
    return states


def test_costs_are_logged_with_every_epoch_and_after_the_scores(
    toy_store: Store, lifter_settings: Settings, tracking: Tracking
) -> None:
    settings = replace(lifter_settings, training=replace(lifter_settings.training, epochs=2))
    run_id = tracking.open_trial("key", "tiny", tracking.open_study("s", {}, ""), {}, {})
    states = run(tracking, toy_store, settings, run_id)
    steps, seconds = zip(*tracking.history(run_id, WORKER_S), strict=True)
    assert steps == (0, 1, 2)
    assert list(seconds) == sorted(seconds)
    assert [value for _, value in tracking.history(run_id, GPU_S)] == pytest.approx([s / 2 for s in seconds])
    assert 0 < tracking.trial(run_id).metrics[OUTSIDE] < 1
    assert states[1]["cost"][WORKER_S] == pytest.approx(seconds[1], abs=0.2)
    # continued from the first epoch, in a run of its own
    other = tracking.open_trial("other", "tiny", tracking.open_study("s", {}, ""), {}, {})
    kept = {**states[0], "cost": {**states[0]["cost"], WORKER_S: 1000.0}}
    run(tracking, toy_store, settings, other, kept)
    assert min(value for _, value in tracking.history(other, WORKER_S)) > 1000
    # scored anew: the sums go on
    run(tracking, toy_store, settings, other, None, trained=True)
    assert [step for step, _ in tracking.history(other, WORKER_S)] == [1, 2, 3]
    assert tracking.trial(other).metrics[WORKER_S] > tracking.history(other, WORKER_S)[-2][1]


def test_scoring_that_does_not_fit(
    toy_store: Store, lifter_settings: Settings, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(stage, "evaluate", full)
    settings = replace(lifter_settings, training=replace(lifter_settings.training, epochs=1))
    run_id = tracking.open_trial("key", "tiny", tracking.open_study("s", {}, ""), {}, {})
    with pytest.raises(BatchTooLargeError, match=r"evaluation.batch = 16 .* 2 GiB .*--set evaluation.batch=8 "):
        run(tracking, toy_store, settings, run_id)
