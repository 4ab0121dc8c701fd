"""Amounts against what is really iterated over, seconds against arithmetic, measured rates before estimates."""

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor
from untrained import Untrained

from posegrid.datasets.store import Store
from posegrid.models.interface import Batch
from posegrid.orchestration.amounts import Amounts, amounts_of, scoring_amounts
from posegrid.orchestration.batches import Masks, training_batches
from posegrid.orchestration.evaluation import evaluate
from posegrid.orchestration.grid import build_stages, open_study, remaining_work
from posegrid.orchestration.measured_rates import (
    DEVICE,
    LIFTED_PER_S,
    TRAINED_PER_S,
    VALIDATED_PER_S,
    WORKERS,
    MeasuredRates,
    measured_rates,
    speed_identity,
)
from posegrid.orchestration.settings import Settings, occlusion_values
from posegrid.orchestration.step_cost import Cost, NetworkCost
from posegrid.orchestration.tracking import Tracking
from posegrid.orchestration.work_estimate import Devices, Rates, stage_time
from posegrid.orchestration.workers import Workers

NONE = occlusion_values("none", "test")
RATES = Rates(
    tflops_float32=1e-3,
    tflops_bf16=4e-3,
    memory_gb_per_s=2.0,
    launch_us=100.0,
    loaded_frames_per_s=1000.0,
    scored_frames_per_s=500.0,
    start_s=30.0,
)
COST = NetworkCost(
    step=Cost(flops=1e7, traffic=2e6, kernels=50),
    loss=Cost(flops=3e6, traffic=0.0, kernels=10),
    lift_once=Cost(flops=2e6, traffic=0.0, kernels=10),
    lift=Cost(flops=8e6, traffic=0.0, kernels=10),
    update=4e6,
    parameters=1,
)
AMOUNTS = Amounts(
    epochs=10, steps=5, batch=8, frames=9, validations=2, validated=100, learned=0, lifted=60, lifted_at_once=30,
    scored=540,
)  # fmt: skip


class Counting(Untrained):
    """Notes how many windows it lifts."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = 0

    def lift(self, batch: Batch, generator: Generator, hypotheses: int = 1) -> Tensor:
        self.windows += len(batch.keypoints)
        return torch.zeros(*batch.keypoints.shape[:3], 3)[:, None]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"every": 3},
        {"score": "centre"},
        {"score": "centre", "lift_every": 4},
        {"score": "overlap", "shift": 3},
    ],
)
def test_windows_that_are_lifted(toy_store: Store, lifter_settings: Settings, changes: dict) -> None:
    settings = replace(lifter_settings, evaluation=replace(lifter_settings.evaluation, batch=2000, **changes))
    model = Counting()
    evaluate(model, toy_store, settings, NONE, Workers())
    # frames that are lifted to interpolate towards those after the last scored window come on top
    assert scoring_amounts(toy_store, settings)[0] == pytest.approx(model.windows, rel=0.06)


def test_windows_that_train(toy_store: Store, lifter_settings: Settings) -> None:
    for changes in ({}, {"grid": 2, "flip": True}, {"grid": 1, "steps": 3}):
        settings = replace(lifter_settings, training=replace(lifter_settings.training, **changes))
        batches = list(training_batches(toy_store, settings, Masks(toy_store, NONE), 0, Workers()))
        amounts = amounts_of(toy_store, settings, scored=False)
        assert (amounts.steps, amounts.windows) == (len(batches), sum(len(batch.keypoints) for batch in batches))
        assert (amounts.lifted, amounts.scored) == (0, 0)


def test_validations(toy_store: Store, lifter_settings: Settings) -> None:
    training = replace(lifter_settings.training, epochs=7, validate_every=3, select="test")
    amounts = amounts_of(toy_store, replace(lifter_settings, training=training), scored=True)
    assert amounts.validations == 3  # after epochs 3, 6 and 7
    assert amounts.validated == amounts.lifted == scoring_amounts(toy_store, lifter_settings)[0]
    last = replace(lifter_settings, training=replace(training, select="last"))
    assert amounts_of(toy_store, last, scored=True).validations == 0


def test_a_step_takes_its_operations_or_its_kernels(lifter_settings: Settings) -> None:
    devices = Devices(rates=RATES, workers=1, each=1)
    # 16 windows in 2 steps: 16 x (1e7 / 1e9 + 2e6 / 2e9) + 2 x 4e6 / 2e9
    assert devices.seconds(COST.step, 16, 8, update=COST.update) == pytest.approx(0.16 + 0.016 + 0.004)
    assert devices.seconds(COST.step, 16, 8, low=True) == pytest.approx(0.04 + 0.016)
    assert Devices(rates=RATES, workers=2, each=2).seconds(COST.step, 16, 8) == pytest.approx((0.16 + 0.016) / 4)
    assert devices.seconds(replace(COST.step, fixed=4e6), 16, 8) == pytest.approx(0.16 + 0.016 + 0.004)
    many = Cost(flops=0.0, traffic=0.0, kernels=1000)
    assert devices.seconds(many, 17, 8) == pytest.approx(3 * 1000 * 1e-4)
    assert devices.seconds(many, 0, 8) == 0


def test_the_time_of_a_stage(lifter_settings: Settings) -> None:
    devices = Devices(rates=RATES, workers=1, each=1)
    found = stage_time(lifter_settings, AMOUNTS, lambda: COST, devices, None)
    epoch = 40 * (0.01 + 0.001) + 5 * 0.002 + 40 * 9 / 1000
    assert found.epoch_s == pytest.approx(epoch + 2 * 100 * 0.003 / 10)
    assert found.pattern_s == pytest.approx(60 * 0.008 + 540 / 500)
    assert (found.start_s, found.once_s, found.epochs) == (30.0, 0.0, 10)
    assert (found.training, found.scoring, found.runs) == ("estimate", "estimate", 0)
    by_error = replace(lifter_settings, training=replace(lifter_settings.training, select_by="mpjpe"))
    longer = stage_time(by_error, AMOUNTS, lambda: COST, devices, None)
    assert longer.epoch_s == pytest.approx(epoch + 2 * 100 * 0.005 / 10)


def test_measured_rates_come_first(lifter_settings: Settings) -> None:
    devices = Devices(rates=RATES, workers=1, each=1)
    measured = MeasuredRates(windows_per_s=20.0, validated_per_s=50.0, lifted_per_s=None, runs=3)
    found = stage_time(lifter_settings, AMOUNTS, lambda: COST, devices, measured)
    assert found.epoch_s == pytest.approx(40 / 20 + 2 * 100 / 50 / 10)
    assert (found.training, found.scoring, found.runs) == ("measured", "estimate", 3)
    whole = stage_time(lifter_settings, AMOUNTS, lambda: COST, devices, replace(measured, lifted_per_s=6.0))
    assert (whole.pattern_s, whole.scoring) == (pytest.approx(10.0), "measured")


def test_rates_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="memory_gb_per_s = 0 must be above 0"):
        replace(RATES, memory_gb_per_s=0)


def test_rates_of_runs_are_found_for_the_same_recipe_device_and_workers(
    toy_store: Store, tracking: Tracking, lifter_settings: Settings, wrapper_settings: Settings
) -> None:
    """What identifies the speed of a run is read from its parameters, as a study logs them."""
    stages = build_stages(
        [lifter_settings, wrapper_settings], [NONE], [NONE], [0, 1], lambda _: lifter_settings, toy_store
    )
    study = open_study("s", toy_store, tracking, {}, "")
    rates = iter([10.0, 30.0, 7.0, 9.0])
    for work in remaining_work(stages, {}, toy_store.content_hash):
        run = study.task(work).run_id
        tracking.set_tags(run, {DEVICE: "CPU, 1 thread", WORKERS: "2"})
        tracking.log_metrics(run, {TRAINED_PER_S: next(rates), LIFTED_PER_S: 5.0})
    trials = list(tracking.trials().values())
    found = measured_rates(trials, "CPU", 2)
    names = {stage.settings.name: speed_identity(stage.settings) for stage in stages.values()}
    wanted = {"windows_per_s": 20.0, "validated_per_s": None, "lifted_per_s": 5.0, "runs": 2}
    assert found == {
        names["tiny"]: MeasuredRates(**wanted),
        names["tiny wrapper"]: MeasuredRates(**{**wanted, "windows_per_s": 8.0}),
    }
    assert measured_rates(trials, "NVIDIA", 2) == measured_rates(trials, "CPU", 1) == {}
    larger = replace(lifter_settings, training=replace(lifter_settings.training, batch=16))
    assert speed_identity(larger) not in found
    other_lr = replace(lifter_settings, training=replace(lifter_settings.training, lr=1.0, seed=9))
    assert speed_identity(other_lr) in found


def test_runs_tell_how_fast_they_were(
    toy_store: Store, tracking: Tracking, lifter_settings: Settings, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    from posegrid.orchestration.launch.local import run_local

    stages = build_stages([lifter_settings], [NONE], [NONE], [0], lambda _: lifter_settings, toy_store)
    study = open_study("s", toy_store, tracking, {}, "")
    run_local(study, remaining_work(stages, {}, toy_store.content_hash), tmp_path, lambda key, metrics: None)
    (trial,) = tracking.trials().values()
    assert {TRAINED_PER_S, VALIDATED_PER_S, LIFTED_PER_S} <= trial.metrics.keys()
    assert trial.tags[DEVICE] == "CPU, 1 thread"
    assert measured_rates([trial], "CPU", 1).keys() == {speed_identity(lifter_settings)}
