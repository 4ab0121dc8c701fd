"""Whether a trial's workers fit: arithmetic over nodes that are there and nodes that may come."""

from pathlib import Path

import pytest

from posegrid.orchestration.launch.capacity import check_fits, startable, trials_on, workers_on
from posegrid.orchestration.launch.resources import Resources

HEAD = {"CPU": 0.0, "GPU": 0.0, "trial_slot": 64.0}
SPOT = {"CPU": 8.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("resources", "workers"),
    [
        (Resources(), 8),
        (Resources(cpus=3), 2),
        (Resources(cpus=9), 0),
        (Resources(gpus=1), 1),
        (Resources(gpus=0.3), 3),
        (Resources(gpus=0.1), 8),  # the cores run out first
        (Resources(gpus=2), 0),
    ],
)
def test_workers_on_a_node(resources: Resources, workers: int) -> None:
    assert workers_on(SPOT, resources) == workers


def test_thirds_of_a_gpu_are_not_lost_to_rounding() -> None:
    assert workers_on({"CPU": 8.0, "GPU": 0.9}, Resources(gpus=0.3)) == 3


def test_workers_of_a_trial_may_lie_on_several_nodes_but_no_worker_does() -> None:
    nodes = [HEAD, SPOT, SPOT, SPOT]
    assert trials_on(nodes, Resources(workers=2, gpus=1)) == 1
    assert trials_on(nodes, Resources(workers=3, gpus=1)) == 1
    assert trials_on(nodes, Resources(workers=1, cpus=5)) == 3  # 24 cores would make 4


def test_nodes_that_may_come_count() -> None:
    assert check_fits(Resources(workers=4, gpus=1), [HEAD], [SPOT] * 8, "here") == 2
    assert check_fits(Resources(workers=1, gpus=1), [HEAD, SPOT], [], "here") == 1


def test_refusal_shows_the_arithmetic() -> None:
    with pytest.raises(ValueError, match=r"3 workers x 1 GPUs = 3, but here has 2; .*--gpus-per-worker.*at most 2 in"):
        check_fits(Resources(workers=3, gpus=1), [HEAD, SPOT, SPOT], [], "here")
    with pytest.raises(ValueError, match=r"9 workers x 1 GPUs = 9, but here has 8 at its largest \(1 now\)"):
        check_fits(Resources(workers=9, gpus=1), [HEAD, SPOT], [SPOT] * 8, "here")
    with pytest.raises(ValueError, match=r"1 workers x 1 CPU cores = 1, but here has 0"):
        check_fits(Resources(), [HEAD], [], "here")


def test_refusal_when_only_the_sum_is_enough() -> None:
    """Two nodes of eight cores are sixteen, and yet no worker of nine fits: Ray would wait without a word."""
    with pytest.raises(
        ValueError, match=r"room for 0: .*the largest of 2 has 8 CPU cores and 1 GPUs.*Allowed: at most 0"
    ):
        check_fits(Resources(workers=1, cpus=9), [SPOT, SPOT], [], "here")


CONFIG = """
head_node_type: head
max_workers: {bound}
available_node_types:
  head: {{resources: {{CPU: 0, trial_slot: 64}}, max_workers: 0}}
  small: {{resources: {{CPU: 4}}, min_workers: 0, max_workers: 3}}
  gpu: {{resources: {{CPU: 8, GPU: 1}}, min_workers: 0, max_workers: 2}}
"""


def test_the_autoscaler_may_start_what_its_file_says(tmp_path: Path) -> None:
    assert startable(tmp_path) == []
    (tmp_path / "ray_bootstrap_config.yaml").write_text(CONFIG.format(bound=10))
    assert startable(tmp_path) == [{"CPU": 8, "GPU": 1}] * 2 + [{"CPU": 4}] * 3
    (tmp_path / "ray_bootstrap_config.yaml").write_text(CONFIG.format(bound=3))
    assert startable(tmp_path) == [{"CPU": 8, "GPU": 1}] * 2 + [{"CPU": 4}]


def test_machines_given_one_by_one_join_by_themselves(tmp_path: Path) -> None:
    kinds = "{local.cluster.node: {resources: {}, min_workers: 2, max_workers: 2}}"
    (tmp_path / "ray_bootstrap_config.yaml").write_text(f"head_node_type: x\navailable_node_types: {kinds}\n")
    assert startable(tmp_path) == []
