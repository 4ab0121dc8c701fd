"""Whether a trial's workers fit: arithmetic over nodes that are there and nodes that may come."""

from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize(
    ("gpus", "node", "workers"),
    [
        (0.4, {"CPU": 8.0, "GPU": 2.0}, 4),  # two on each: the fifth would lie on both
        (0.25, {"CPU": 8.0, "GPU": 2.0}, 8),
        (0.25, {"CPU": 3.0, "GPU": 2.0}, 3),
        (0.6, {"CPU": 8.0, "GPU": 4.0}, 4),
        (1.0, {"CPU": 8.0, "GPU": 2.0}, 2),
        (2.0, {"CPU": 8.0, "GPU": 3.0}, 1),
    ],
)
def test_shares_of_a_gpu_lie_on_one_gpu(gpus: float, node: dict[str, float], workers: int) -> None:
    assert workers_on(node, Resources(gpus=gpus)) == workers


def test_trials_that_are_let_in_always_find_room() -> None:
    """No deadlock: drivers take slots alone, and the workers of all trials fit in whatever order they come, on whatever
    node takes them; those of one trial more do not."""
    draw = np.random.default_rng(0)
    for _ in range(200):
        nodes = [
            {"CPU": float(draw.integers(0, 17)), "GPU": float(draw.integers(0, 5))} for _ in range(draw.integers(1, 5))
        ]
        gpus = float(draw.choice([0, 0.1, 0.25, 0.3, 0.4, 1, 2]))
        resources = Resources(workers=int(draw.integers(1, 5)), cpus=int(draw.integers(1, 4)), gpus=gpus)
        trials = trials_on(nodes, resources)
        placed = placed_at_random(nodes, resources, draw)
        assert trials * resources.workers <= placed < (trials + 1) * resources.workers


def placed_at_random(nodes: list[dict[str, float]], resources: Resources, draw: np.random.Generator) -> int:
    """Workers that are placed one by one, on a random node and random GPUs with room, until none has any."""
    cores = [int(node["CPU"]) for node in nodes]
    left = [np.full(int(node["GPU"]), 100) for node in nodes]  # hundredths of each GPU
    need = round(100 * resources.gpus)
    placed = 0
    while True:
        possible = []
        for index, gpus in enumerate(left):
            whole, share = divmod(need, 100)
            free = np.flatnonzero(gpus >= (share or 100)) if need else np.zeros(1, int)
            if cores[index] >= resources.cpus and len(free) >= max(whole, 1 if need else 0):
                possible.append((index, free))
        if not possible:
            return placed
        index, free = possible[draw.integers(len(possible))]
        cores[index] -= resources.cpus
        if need:
            chosen = draw.permutation(free)[: max(need // 100, 1)]
            left[index][chosen] -= need % 100 or 100
        placed += 1


def test_elastic_trials_fit_with_their_fewest_workers() -> None:
    elastic = Resources.asked("2-8", gpus=1)
    assert (elastic.fewest, elastic.workers, elastic.least, elastic.fixed) == (2, 8, 2, False)
    gpus = [{"CPU": 4.0, "GPU": 1.0}]
    assert [trials_on(gpus * number, elastic) for number in (1, 2, 8, 9, 10, 18)] == [0, 1, 1, 1, 2, 3]
    with pytest.raises(ValueError, match=r"at least 2 workers x 1 GPUs = 2, but here has 1"):
        check_fits(elastic, gpus, [], "here")
    same = Resources.asked("4-4")
    assert same.fixed
    assert Resources(**elastic.plain()) == elastic
    assert Resources.asked("3", cpus=2) == Resources(workers=3, cpus=2)
    assert Resources.asked("0", cpus=2) == Resources(workers=1, cpus=2, inside=True)


@pytest.mark.parametrize(
    ("workers", "gpus", "said"),
    [
        ("two", 0, "--workers two: allowed are a number"),
        ("2-", 0, "--workers 2-: allowed are a number"),
        ("-2", 0, "--workers -2: allowed are a number"),
        ("0-2", 0, "--workers 0-2: at least one worker"),
        ("8-2", 0, "--workers 8-2: allowed are .* smaller number first"),
        ("1-2", 0.5, "--workers 1-2 with --gpus-per-worker 0.5: .* whole GPUs"),
        ("1", 1.5, "gpus = 1.5 .* whole numbers, and shares below 1"),
        ("0", 1, "--workers 0 with --gpus-per-worker 1: .* use CPUs"),
    ],
)
def test_what_cannot_be_asked(workers: str, gpus: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Resources.asked(workers, gpus=gpus)
