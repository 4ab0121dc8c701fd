"""Do a trial's workers fit on the nodes there are, or on those that the autoscaler may start? Plain arithmetic.

A node is a mapping from resource to amount, as Ray tells it: {"CPU": 8.0, "GPU": 1.0, "trial_slot": 64.0}.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from posegrid.orchestration.launch.resources import Resources

Node = Mapping[str, float]

BOOTSTRAP = "ray_bootstrap_config.yaml"
"""Where `ray up` leaves the cluster's description in the home folder of the head."""


def workers_on(node: Node, resources: Resources) -> int:
    """How many workers a node has room for."""
    by_cpu = int(node.get("CPU", 0) / resources.cpus)
    if not resources.gpus:
        return by_cpu
    have, each = node.get("GPU", 0), resources.gpus
    if each >= 1:
        return min(by_cpu, int(have / each))
    # a share is of one GPU: of 0.4, two fit on each, and the fifth that two of them leave together is of no use.
    # a little more than nothing: 0.3 three times must fit on 0.9
    by_gpu = int(have) * int(1 / each + 1e-9) + int((have - int(have)) / each + 1e-9)
    return min(by_cpu, by_gpu)


def trials_on(nodes: Iterable[Node], resources: Resources) -> int:
    """How many trials fit side by side on nodes; the workers of one may lie on several.

    Elastic ones come in turn and take as many as they may: the last one may have to do with fewer.
    """
    trials, left = divmod(sum(workers_on(node, resources) for node in nodes), resources.workers)
    return trials + (not resources.fixed and left >= resources.least)


def startable(folder: Path) -> list[Node]:
    """The nodes that the autoscaler of the cluster whose head this is may run at most, heads left out.

    folder: the home folder, where `ray up` leaves the description. Empty if there is none, as on a worker, on a laptop
    or in Kubernetes, or if its machines are given one by one (`provider: local`) and all join by themselves.
    """
    file = folder / BOOTSTRAP
    if not file.is_file():
        return []
    config: dict[str, Any] = yaml.safe_load(file.read_text()) or {}
    kinds: dict[str, dict[str, Any]] = config.get("available_node_types") or {}
    nodes: list[Node] = []
    for name, kind in kinds.items():
        if name != config.get("head_node_type") and kind.get("resources"):
            nodes += [kind["resources"]] * int(kind.get("max_workers", 0))
    # the bound on all types together: which of them will run is not known, the roomiest are hoped for
    nodes.sort(key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), reverse=True)
    return nodes[: int(config.get("max_workers", len(nodes)))]


def check_fits(resources: Resources, present: list[Node], later: list[Node], where: str) -> int:
    """Trials that will fit side by side, on the nodes there are or on those that may be started.

    Raises ValueError with the arithmetic if not even one will: Ray would wait for ever, without a word.
    """
    trials = max(trials_on(present, resources), trials_on(later, resources))
    if trials:
        return trials
    best = later if _total(later, resources) > _total(present, resources) else present
    for what, key, each in (("CPU cores", "CPU", resources.cpus), ("GPUs", "GPU", resources.gpus)):
        have, need = sum(node.get(key, 0) for node in best), resources.least * each
        if need > have:
            raise ValueError(
                f"a trial asks for {_words(resources)} workers x {each:g} {what} = {need:g}, but {where} has "
                f"{_counted(have, present, later, key)}; it was set with --workers, --cpus-per-worker and "
                f"--gpus-per-worker. Allowed: at most {have:g} in all. Ask for fewer workers or join a larger cluster "
                "with --address."
            )
    largest = max(best, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={})
    fit = _total(best, resources)
    raise ValueError(
        f"a trial asks for {_words(resources)} workers of {resources.cpus} CPU cores and {resources.gpus:g} GPUs each, "
        f"but {where} has room for {fit}: a worker cannot be shared by nodes, and the largest of {len(best)} has "
        f"{largest.get('CPU', 0):g} CPU cores and {largest.get('GPU', 0):g} GPUs. It was set with --workers, "
        f"--cpus-per-worker and --gpus-per-worker. Allowed: at most {fit} such workers. Ask for smaller or fewer ones."
    )


def _words(resources: Resources) -> str:
    return f"{resources.workers}" if resources.fixed else f"at least {resources.least}"


def _total(nodes: list[Node], resources: Resources) -> int:
    return sum(workers_on(node, resources) for node in nodes)


def _counted(have: float, present: list[Node], later: list[Node], key: str) -> str:
    """What there is, and of a cluster that grows also what there is now."""
    now = sum(node.get(key, 0) for node in present)
    return f"{have:g}" if not later else f"{have:g} at its largest ({now:g} now)"
