"""Connect to Ray and refuse early: what is asked against what is there, before a trial waits in a silent queue."""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from posegrid.orchestration.launch.resources import Resources

TRIAL_SLOT = "trial_slot"
"""Custom resource of the head node: a trial's driver takes one, so that trials never hold the cores that their own
workers wait for (a nested trial that takes a CPU can deadlock the cluster)."""

_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report waits for one poll of the controller: 2 s by default
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",  # a worker that misses a report is named instead of hanging for ever
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # metrics go to MLflow, not into CSV, JSON and TensorBoard files
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # without it anyone who reaches Ray's port runs code
}

_ONE_MACHINE = {
    # Ray's own switch for single-machine use: all its ports then listen on 127.0.0.1, not on every interface
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # a process for each training that waits for a cloud to take the machine away
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@dataclass(frozen=True, kw_only=True)
class Connected:
    """A connected cluster."""

    cpus: int
    gpus: int
    nodes: int
    concurrent: int
    """Trials that run side by side."""


@contextmanager
def connected(address: str | None, resources: Resources, cpus: int | None = None) -> Iterator[Connected]:
    """Start Ray on this machine (`address` None) or join a cluster, check the resources, disconnect at the end.

    cpus: cores to use on this machine, all by default. Raises ValueError if what a trial asks is not there.
    """
    with ExitStack() as stack:
        values = _ENVIRONMENT if address else _ENVIRONMENT | _ONE_MACHINE
        stack.enter_context(_environment(values))
        import ray  # reads its environment on import

        _ensure_token()
        if address is None:
            cores = cpus or len(os.sched_getaffinity(0))
            address = stack.enter_context(_on_this_machine(resources, cores))
        environment = dict(values)
        if address != "auto":
            # whoever asks the state service must ask this cluster: on a machine with another one, workers would be
            # freed or kept by mistake
            environment["RAY_ADDRESS"] = address
        stack.callback(ray.shutdown)
        _check_answers(address)
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env={"env_vars": environment},
        )
        alive = sum(node["Alive"] for node in ray.nodes())
        yield _checked(ray.cluster_resources(), alive, resources, address)


@contextmanager
def _on_this_machine(resources: Resources, cores: int) -> Iterator[str]:
    """A cluster of one node, bound to localhost; yields its address, which `ray.init` alone would tell too late."""
    from ray.cluster_utils import Cluster

    logging.getLogger("ray._private.utils").setLevel(logging.ERROR)  # it tells that RAY_ADDRESS now means this cluster
    gpus = _gpus_here()
    _refuse_if_too_small(resources, cores, gpus, "this machine")
    head = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": cores,
            "num_gpus": gpus,
            "resources": {TRIAL_SLOT: concurrent_trials(resources, cores, gpus)},
            "object_store_memory": 200 * 2**20,  # data are read from mapped files, not from Ray's store
            "include_dashboard": True,  # trials that end early free their workers through its state service
            "dashboard_host": "127.0.0.1",
            "dashboard_port": _free_port(),
            "dashboard_agent_listen_port": _free_port(),
        },
    )
    try:
        yield head.address
    finally:
        head.shutdown()


def concurrent_trials(resources: Resources, cpus: int, gpus: int) -> int:
    """How many trials fit side by side."""
    by_cpu = cpus // (resources.workers * resources.cpus)
    return by_cpu if not resources.gpus else min(by_cpu, int(gpus / (resources.workers * resources.gpus)))


def _checked(present: dict[str, float], nodes: int, resources: Resources, address: str) -> Connected:
    cpus, gpus = int(present.get("CPU", 0)), int(present.get("GPU", 0))
    _refuse_if_too_small(resources, cpus, gpus, f"the cluster at {address}")
    slots = int(present.get(TRIAL_SLOT, 0))
    if not slots:
        raise ValueError(
            f"the cluster at {address} has no resource {TRIAL_SLOT!r}, which trials take while they wait for their "
            f"""workers. Start its head with `ray start --head --resources='{{"{TRIAL_SLOT}": 64}}'`."""
        )
    return Connected(cpus=cpus, gpus=gpus, nodes=nodes, concurrent=min(slots, concurrent_trials(resources, cpus, gpus)))


def _refuse_if_too_small(resources: Resources, cpus: int, gpus: int, where: str) -> None:
    for what, each, have in (("CPU cores", resources.cpus, cpus), ("GPUs", resources.gpus, gpus)):
        need = resources.workers * each
        if need > have:
            raise ValueError(
                f"a trial asks for {resources.workers} workers x {each:g} {what} = {need:g}, but {where} has {have}; "
                f"it was set with --workers, --cpus-per-worker and --gpus-per-worker. Allowed: at most {have} in all. "
                "Ask for fewer workers or join a larger cluster with --address."
            )


def _gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def _free_port() -> int:
    """A port that nothing listens on: Ray's fixed defaults clash silently with another cluster on the machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ensure_token() -> None:
    """Make Ray's token for this user if there is none, readable by nobody else."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if "RAY_AUTH_TOKEN" in os.environ:
        return
    if not file.exists():
        command = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"]
        subprocess.run(command, check=True, capture_output=True, umask=0o077)
    file.chmod(0o600)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the time of a block; those the user has set are kept."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _check_answers(address: str) -> None:
    """Ray retries an address that does not answer for minutes; a plain connection tells at once."""
    host, _, port = address.rpartition(":")
    if address == "auto" or not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ValueError(
            f"no Ray cluster answers at {address} ({error}); it was set with --address or RAY_ADDRESS. "
            "Start one with `ray up cluster.yaml`, correct the address, or leave it out to use this machine."
        ) from None
