"""Connect to Ray and refuse early: what is asked against what is there, before a trial waits in a silent queue."""

import hashlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from posegrid.orchestration.launch.capacity import Node, check_fits, startable, trials_on
from posegrid.orchestration.launch.resources import Resources

TRIAL_SLOT = "trial_slot"
"""Custom resource of the head node: a trial's driver takes one, so that trials never hold the cores that their own
workers wait for (a nested trial that takes a CPU can deadlock the cluster)."""

_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report waits for one poll of the controller: 2 s by default
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",  # a worker that misses a report is named instead of hanging for ever
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would take a Ctrl-C for the end of the study
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

    address: str
    cpus: int
    gpus: int
    nodes: int
    """Nodes that are there now."""
    concurrent: int
    """Trials that run side by side."""
    grows: bool
    """Whether cores, GPUs and trials are those of the largest cluster that its autoscaler may make."""


@contextmanager
def connected(address: str | None, resources: Resources, cpus: int | None = None) -> Iterator[Connected]:
    """Start Ray on this machine (`address` None) or join a cluster, check the resources, disconnect at the end.

    cpus: cores to use on this machine, all by default. Raises ValueError if what a trial asks is not there.
    """
    with ExitStack() as stack:
        values = _ENVIRONMENT if address else _ENVIRONMENT | _ONE_MACHINE
        stack.enter_context(_environment(values))
        import ray  # reads its environment on import

        ensure_token()
        later = [] if address is None else startable(Path.home())
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
        yield _checked([node["Resources"] for node in ray.nodes() if node["Alive"]], later, resources, address)


@contextmanager
def cluster_environment() -> Iterator[None]:
    """For the time of a block, the environment in which Ray must be imported to talk to a cluster from outside."""
    with _environment(_ENVIRONMENT):
        yield


@contextmanager
def _on_this_machine(resources: Resources, cores: int) -> Iterator[str]:
    """A cluster of one node, bound to localhost; yields its address, which `ray.init` alone would tell too late."""
    from ray.cluster_utils import Cluster

    logging.getLogger("ray._private.utils").setLevel(logging.ERROR)  # it tells that RAY_ADDRESS now means this cluster
    gpus = _gpus_here()
    trials = check_fits(resources, [{"CPU": cores, "GPU": gpus}], [], "this machine")
    head = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": cores,
            "num_gpus": gpus,
            # one more than can train: the next trial's processes start while others train, and wait for their workers
            "resources": {TRIAL_SLOT: trials + 1},
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


def _checked(nodes: list[Node], later: list[Node], resources: Resources, address: str) -> Connected:
    trials = check_fits(resources, nodes, later, f"the cluster at {address}")
    slots = int(sum(node.get(TRIAL_SLOT, 0) for node in nodes))
    if not slots:
        raise ValueError(
            f"the cluster at {address} has no resource {TRIAL_SLOT!r}, which trials take while they wait for their "
            f"""workers. Start its head with `ray start --head --resources='{{"{TRIAL_SLOT}": 64}}'`."""
        )
    grows = trials > trials_on(nodes, resources)
    cpus, gpus = (int(sum(node.get(key, 0) for node in (later if grows else nodes))) for key in ("CPU", "GPU"))
    return Connected(
        address=address, cpus=cpus, gpus=gpus, nodes=len(nodes), concurrent=min(slots, trials), grows=grows
    )


def _gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def _free_port() -> int:
    """A port that nothing listens on: Ray's fixed defaults clash silently with another cluster on the machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mlflow_login() -> tuple[str, str]:
    """User and password of a cluster's MLflow server, made from Ray's token as clusters/environment.sh does.

    Raises ValueError if there is no token here.
    """
    file = _token_file()
    if not file.is_file():
        raise ValueError(
            f"there is no token in {file}, which opens the cluster's doors. Allowed: the file that `ray up` mounted on "
            "its nodes. Copy it from the machine that started the cluster, readable by you alone."
        )
    return "posegrid", hashlib.sha256(file.read_bytes()).hexdigest()[:32]


def _token_file() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))


def ensure_token() -> None:
    """Make Ray's token for this user if there is none, readable by nobody else."""
    file = _token_file()
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
