"""A cluster of several nodes on this machine whose parts can be killed: to rehearse what happens then.

Only processes that were started here are ever named: those of the nodes, and what these have started.
"""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from posegrid.orchestration.launch.cluster import TRIAL_SLOT, cluster_environment, ensure_token
from posegrid.orchestration.outages import environment

ON_LOCALHOST = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""Environment of whoever joins such a cluster: all ports are on 127.0.0.1."""
TRAINING = "TrainWorker"
"""Part of the title of a process that trains."""


class Rehearsal:
    """A head without cores, and nodes of one core each that may be lost."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    @property
    def address(self) -> str:
        """Where commands join it."""
        return self._cluster.address

    def add_node(self) -> None:
        """Start a node. To be called on the main thread, as Ray sets signal handlers."""
        self._cluster.add_node(num_cpus=1, dashboard_agent_listen_port=_free_port())

    def lose_node(self, number: int) -> bool:
        """End a node without notice; True if something was being trained on it."""
        node = sorted(self._cluster.worker_nodes, key=_raylet)[number % self.nodes]
        busy = bool(_training(_raylet(node)))
        self._cluster.remove_node(node, allow_graceful=False)
        return busy

    @property
    def nodes(self) -> int:
        """Nodes that may be lost."""
        return len(self._cluster.worker_nodes)

    def workers(self) -> list[int]:
        """Process ids of all that train now."""
        return sorted(pid for node in self._cluster.list_all_nodes() for pid in _training(_raylet(node)))


@contextmanager
def rehearsal(nodes: int, slots: int) -> Iterator[Rehearsal]:
    """A head for so many trials at a time, and so many nodes; all ended at the end of the block."""
    with ExitStack() as stack:
        stack.enter_context(environment(ON_LOCALHOST))
        stack.enter_context(cluster_environment())
        from ray.cluster_utils import Cluster  # reads its environment on import

        ensure_token()
        head = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "resources": {TRIAL_SLOT: slots},
                "object_store_memory": 150 * 2**20,
                "include_dashboard": True,  # trials that end early free their workers through its state service
                "dashboard_host": "127.0.0.1",
                "dashboard_port": _free_port(),
                "dashboard_agent_listen_port": _free_port(),
            },
        )
        stack.callback(head.shutdown)
        made = Rehearsal(head)
        for _ in range(nodes):
            made.add_node()
        yield made


def descendants(pid: int) -> list[int]:
    """Process ids of all that a process has started, directly or not."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # ended meanwhile
                continue
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found, left = [], [pid]
    while left:
        own = parents.get(left.pop(), [])
        found += own
        left += own
    return found


def kill(pids: list[int]) -> None:
    """SIGKILL, to those that are still there."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _training(raylet: int) -> list[int]:
    return [pid for pid in descendants(raylet) if TRAINING in _title(pid)]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # ended meanwhile
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
