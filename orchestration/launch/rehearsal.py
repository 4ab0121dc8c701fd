"""A cluster of several nodes on this machine whose parts can be killed: to rehearse what happens then.

Only processes that were started here are ever named: those of the nodes, and what these have started.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from posegrid.orchestration.launch.cluster import TRIAL_SLOT, cluster_environment, ensure_token
from posegrid.orchestration.outages import environment

_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # no cloud takes these nodes
    "RAY_agent_register_timeout_ms": "120000",  # several nodes that start on one machine are slow
}
TRAINING = "TrainWorker"
"""Part of the title of a process that trains."""


class Rehearsal:
    """A head without cores, and nodes of one core each that may be lost."""

    def __init__(self, address: str, log: IO[bytes]) -> None:
        self.address = address
        """Where commands join it."""
        self._log = log
        self._nodes: list[subprocess.Popen[bytes]] = []

    def add_node(self) -> None:
        """Start a node; it joins some seconds later."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--address", self.address, "--block"]
        command += ["--num-cpus", "1", "--object-store-memory", str(150 * 2**20), "--disable-usage-stats"]
        command += ["--dashboard-agent-listen-port", str(_free_port()), "--min-worker-port", "0"]
        command += ["--max-worker-port", "0"]
        self._nodes.append(subprocess.Popen(command, stdout=self._log, stderr=self._log))

    def lose_node(self, number: int) -> bool:
        """End a node without notice, with all that runs on it; True if something was being trained there."""
        node = self._nodes.pop(number % len(self._nodes))
        busy = bool(_training(node.pid))
        _end(node)
        return busy

    def keep(self) -> None:
        """Start nodes again that ended by themselves, as those do that are too slow to join."""
        for node in [node for node in self._nodes if node.poll() is not None]:
            self._nodes.remove(node)
            self.add_node()

    def workers(self) -> list[int]:
        """Process ids of all that train now."""
        return sorted(pid for node in self._nodes for pid in _training(node.pid))

    def end(self) -> None:
        """End all nodes."""
        while self._nodes:
            _end(self._nodes.pop())


@contextmanager
def rehearsal(nodes: int, slots: int, log: Path) -> Iterator[Rehearsal]:
    """A head for so many trials at a time, and so many nodes, which write to `log`; all are ended with the block."""
    with ExitStack() as stack:
        # not the switch that keeps Ray to localhost, which forbids other nodes: the token guards the ports
        stack.enter_context(cluster_environment())
        stack.enter_context(environment(_ENVIRONMENT))
        import ray
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
        made = Rehearsal(head.address, stack.enter_context(log.open("ab")))
        stack.callback(made.end)
        for _ in range(nodes):
            made.add_node()
        for _ in range(300):
            if sum(node["Alive"] for node in head.global_state.node_table()) > nodes:
                break
            made.keep()
            time.sleep(1)
        else:
            raise RuntimeError(f"{nodes} nodes of Ray {ray.__version__} did not join {head.address} within 300 s")
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


def _end(process: subprocess.Popen[bytes]) -> None:
    kill([process.pid, *descendants(process.pid)])
    process.wait()


def _training(node: int) -> list[int]:
    return [pid for pid in descendants(node) if TRAINING in _title(pid)]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # ended meanwhile
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
