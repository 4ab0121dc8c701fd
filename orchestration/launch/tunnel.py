"""A way from this machine to the head of a cluster: ssh forwards ports of localhost, and ends with the command.

To be used within `cluster.cluster_environment`, as everything that imports Ray.
"""

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

DASHBOARD, MLFLOW = 8265, 5000
"""Ports of the head, which the shipped cluster files use."""
_OPENS_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Head:
    """How to reach the head by ssh."""

    address: str
    user: str
    key: str
    """Path of a private key; empty leaves the choice to ssh."""
    options: tuple[str, ...] = ()
    """Further arguments for ssh, from the cluster file's `ssh_proxy_command`."""


def head_of(cluster: Path) -> Head:
    """The head of a running cluster, from its file. Raises ValueError if the file is wrong or no head is known."""
    if not cluster.is_file():
        raise ValueError(
            f"cluster file {cluster} is missing; it was set with --cluster. Allowed: the file that `ray up` was given. "
            "Correct the path."
        )
    from ray.autoscaler._private import commands
    from ray.autoscaler._private.cli_logger import cli_logger

    for name in ("ray", "boto3", "botocore"):
        logging.getLogger(name).setLevel(logging.ERROR)
    cli_logger.configure(log_style="record", verbosity=0)
    try:
        # Ray's own reading: it fills in the user and key that it made for a cloud, and finds the head's address
        auth = commands._bootstrap_config(yaml.safe_load(cluster.read_text()))["auth"]
        address = commands.get_head_node_ip(str(cluster))
    except (Exception, SystemExit) as error:  # whatever the provider raises
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"the head of {cluster} cannot be found ({reason}); it was set with --cluster. Allowed: the file of a "
            f"cluster that is up. Start it with `ray up {cluster}`."
        ) from None
    proxy = auth.get("ssh_proxy_command")
    return Head(
        address=address,
        user=auth["ssh_user"],
        key=os.path.expanduser(auth.get("ssh_private_key", "")),
        options=("-o", f"ProxyCommand={proxy}") if proxy else (),
    )


def free_port(wanted: int = 0) -> int:
    """A port of localhost that nothing listens on: the wanted one if it is free, else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def private_address(head: Head) -> str:
    """The head's address within its cluster, where MLflow listens. Raises ValueError if the head lets nobody in."""
    command = [*_ssh(head), f"{head.user}@{head.address}", "hostname -I"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode or not done.stdout.split():
        raise _refused(head, done.stderr)
    return done.stdout.split()[0]


@contextmanager
def tunnel(head: Head, ports: dict[int, tuple[str, int]]) -> Iterator[subprocess.Popen[bytes]]:
    """Forward ports of localhost (keys) to what the head sees as (host, port), for the time of a block.

    Yields the process of ssh, which ends with the block. Raises ValueError if ssh is missing or the head refuses.
    """
    command = [*_ssh(head), "-N", "-T"]
    for here, (host, port) in ports.items():
        command += ["-L", f"127.0.0.1:{here}:{host}:{port}"]
    process = subprocess.Popen(
        [*command, f"{head.user}@{head.address}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C at the terminal is for the command, which ends the tunnel itself
    )
    try:
        _wait(process, head, list(ports))
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ssh(head: Head) -> list[str]:
    """As Ray itself connects; without its shared connection, which would outlive this process."""
    if shutil.which("ssh") is None:
        raise ValueError("the program ssh is missing, which --cluster needs. Install it, or give --address instead.")
    options = {
        "StrictHostKeyChecking": "no",  # nodes of a cloud are new machines behind old addresses
        "UserKnownHostsFile": os.devnull,
        "LogLevel": "ERROR",
        "BatchMode": "yes",
        "ExitOnForwardFailure": "yes",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "ConnectTimeout": "15",
        "ControlMaster": "no",
        "ControlPath": "none",
    }
    if head.key:
        options["IdentitiesOnly"] = "yes"
    key = ["-i", head.key] if head.key else []
    given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    return ["ssh", *key, *given, *head.options]


def _wait(process: subprocess.Popen[bytes], head: Head, ports: list[int]) -> None:
    deadline = time.monotonic() + _OPENS_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            for port in ports:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.2)
    if process.poll() is None:
        raise _refused(head, f"nothing after {_OPENS_S:g} s")
    assert process.stderr is not None
    raise _refused(head, process.stderr.read().decode(errors="replace"))


def _refused(head: Head, said: str) -> ValueError:
    reason = (said.strip().splitlines() or ["no reason given"])[-1]
    return ValueError(
        f"no tunnel to {head.user}@{head.address} ({reason}); user and key come from the cluster file. Allowed: a head "
        "that this key opens on port 22. Check that the cluster is up, the key, and who its security group lets in."
    )
