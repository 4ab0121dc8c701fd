"""Two workers train exactly as one with the whole batch: losses, weights, running statistics, with dropout on."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from posegrid.models.blocks.batch_norm import BatchNorm1d


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> tuple[dict, list[dict]]:
    """What one worker computed, and what each of two computed."""
    folder = tmp_path_factory.mktemp("workers")
    script = Path(__file__).with_name("two_workers.py")
    processes = [subprocess.Popen([sys.executable, script, str(rank), "2", folder]) for rank in range(2)]
    runpy.run_path(str(script))["main"](0, 1, folder)
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    alone, *pair = (torch.load(folder / name) for name in ("0-of-1.pt", "0-of-2.pt", "1-of-2.pt"))
    return alone, pair


def test_importing_the_registry_imports_no_model(results):
    assert [worker["imported"] for worker in results[1]] == [[], []]


@pytest.mark.parametrize("name", ["flat", "grid"])
def test_batch_norm_over_unequal_shares(results, name):
    alone, pair = (
        results[0]["batch_norm"],
        [worker["batch_norm"] for worker in results[1]],
    )
    for what in ("output", "input_gradient"):
        joined = torch.cat([worker[f"{name}.{what}"] for worker in pair])
        torch.testing.assert_close(joined, alone[f"{name}.{what}"], rtol=1e-4, atol=1e-5)
    for what in (
        "weight_gradient",
        "bias_gradient",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ):
        for worker in pair:
            torch.testing.assert_close(worker[f"{name}.{what}"], alone[f"{name}.{what}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        "mixste",
        "diffhpe",
        "d3dp",
        "stcformer",
        "videopose3d",
        "poseformer",
        "simple_baseline",
        "strided_transformer",
        "uplift_upsample",
    ],
)
def test_training_curve_and_final_state(results, name):
    alone, pair = results[0][name], [worker[name] for worker in results[1]]
    assert alone["losses"].std() > 0
    for worker in pair:
        for key, value in alone.items():
            torch.testing.assert_close(
                worker[key], value, rtol=1e-3, atol=2e-5, msg=lambda m, key=key: f"{name} {key}: {m}"
            )


def test_batch_norm_of_one_worker_is_torch_batch_norm():
    ours, theirs = BatchNorm1d(3), nn.BatchNorm1d(3)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    values = torch.randn(8, 3, 5)
    assert ours(values).equal(theirs(values))
    assert all(a.equal(b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    assert ours.eval()(values).equal(theirs.eval()(values))
