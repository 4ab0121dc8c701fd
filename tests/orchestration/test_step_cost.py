"""Costs that are counted without computing, against counts by hand and against steps that are really taken."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from posegrid.datasets.skeletons import H36M_17
from posegrid.models.interface import Batch
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import shape_of
from posegrid.orchestration.lifting import sampling_as_chosen
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.step_cost import NetworkCost, network_cost, network_key


def counted(settings: Settings) -> NetworkCost:
    return network_cost(settings, shape_of(H36M_17, settings.data))


def really(settings: Settings, *, step: bool) -> float:
    """Operations that one more window costs in a step or a lift that is computed.

    Not those of a batch divided by its windows: the step of a diffusion process is embedded once for all of them.
    """
    model = checkpoint.build(settings, shape_of(H36M_17, settings.data))
    totals = []
    for windows in (2, 3):
        grid = (windows, settings.data.frames, 17)
        batch = Batch(
            keypoints=torch.rand(*grid, 2), visible=torch.ones(grid, dtype=torch.bool), poses=torch.rand(*grid, 3)
        )
        with FlopCounterMode(display=False) as counter, sampling_as_chosen(model, settings):
            if step:
                model.train().loss(batch, torch.Generator()).backward()
            else:
                with torch.no_grad():
                    model.eval().lift(batch, torch.Generator(), settings.evaluation.hypotheses)
        totals.append(counter.get_total_flops())
    return totals[1] - totals[0]


def test_a_perceptron_by_hand(lifter_settings: Settings) -> None:
    model = {"name": "mlp", "width": 32, "depth": 3, "feature_width": 8}
    cost = counted(Settings.from_plain(lifter_settings.plain() | {"model": model}, "test"))
    first, rest = 34 * 32, 3 * 32 * 32 + 32 * 17 * 8 + 17 * 8 * 3  # multiply-adds of one frame
    assert cost.lift.flops == cost.loss.flops == 9 * 2 * (first + rest)
    assert cost.step.flops == 9 * 2 * (2 * first + 3 * rest)  # no gradient of the keypoints is asked
    assert cost.parameters == 34 * 32 + 3 * 32 * 32 + 32 * 17 * 8 + 8 * 3 + 32 + 3 * 32 + 17 * 8 + 3
    assert cost.update == 28 * cost.parameters
    assert cost.step.traffic > cost.loss.traffic > 4 * 9 * 17 * 3
    assert cost.step.kernels > 2 * cost.loss.kernels
    assert 0 <= cost.loss.fixed < 100  # nothing is done to weights when the loss is computed


def test_steps_and_lifts_cost_what_computing_them_costs(lifter_settings: Settings, wrapper_settings: Settings) -> None:
    wrapper = replace(wrapper_settings, upstream=lifter_settings.plain())
    fewer = replace(wrapper, evaluation=replace(wrapper.evaluation, hypotheses=3, sampler="ddim", steps=2))
    cost = counted(fewer)
    assert cost.step.flops == really(fewer, step=True)
    assert cost.lift.flops == really(fewer, step=False)


@pytest.mark.parametrize("steps", [1, 2])
def test_chains_of_few_steps(lifter_settings: Settings, wrapper_settings: Settings, steps: int) -> None:
    plain = replace(wrapper_settings, upstream=lifter_settings.plain()).plain()
    short = Settings.from_plain(plain | {"model": plain["model"] | {"steps": steps}}, "test")
    assert counted(short).lift.flops == really(short, step=False)


def test_keys_tell_networks_apart_that_cost_differently(lifter_settings: Settings, wrapper_settings: Settings) -> None:
    wrapper = replace(wrapper_settings, upstream=lifter_settings.plain())
    deeper = replace(lifter_settings, model={**lifter_settings.model, "depth": 2})
    others = [lifter_settings, deeper, wrapper, replace(wrapper, upstream=deeper.plain())]
    assert len({network_key(settings) for settings in others}) == 4
    slower = replace(lifter_settings, training=replace(lifter_settings.training, lr=1e-5, seed=3))
    assert network_key(slower) == network_key(lifter_settings)
