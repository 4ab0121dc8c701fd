"""Preflight: ask every node of a connected cluster what a study needs of it. A refusal costs seconds, not a night."""

import secrets
import time
from collections.abc import Callable
from typing import Any

from posegrid.datasets.store import Store
from posegrid.orchestration.launch.cluster import Connected
from posegrid.orchestration.launch.resources import Resources
from posegrid.orchestration.preflight import (
    Answer,
    Question,
    answer,
    clean_up,
    compare,
    installed,
    refusal,
    unseen,
    unshared,
)

Say = Callable[[str], None]
_WAIT_S = 120.0
"""A node that has not answered by then is named and refused."""
_STARTING_S = 900.0
"""How long the first node of a cluster that grows may take: machine, set-up, driver."""
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # here a refusal is an answer
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def preflight(
    cluster: Connected,
    resources: Resources,
    *,
    tracking: str,
    storage: str,
    store: Store | None = None,
    every_byte: bool = False,
    say: Say,
) -> None:
    """Ask all nodes, and where none is there yet that could train, start the first one and wait for it.

    Storage is written by every node and read by every other; runs and artifacts go through the tracking store; versions
    and the data store, if one is given, are compared. every_byte: recompute its hash on every node, instead of reading
    it from the description. Raises ValueError with all findings.
    """
    import ray

    began = time.monotonic()
    question = Question(
        tracking=tracking,
        storage=storage,
        data="" if store is None else store.address,
        data_hash="" if store is None else store.content_hash,
        every_byte=every_byte,
        probe=f"preflight-{secrets.token_hex(6)}",
    )
    if cluster.grows and not _room(resources):
        _start_first(resources, say)
    nodes = {node["NodeID"]: _name(node) for node in ray.nodes() if node["Alive"]}
    answers, findings = _ask(nodes, answer, lambda node: (question, node), _WAIT_S)
    said: list[Answer] = list(answers.values())
    findings += compare(installed(), said)
    if not findings:
        names = list(nodes.values())
        missing, silent = _ask(nodes, unseen, lambda node: (question, names), _WAIT_S)
        findings += silent + unshared(question, {nodes[node]: others for node, others in missing.items()})
        findings += _state_service(nodes)
    one = next(iter(nodes))
    _ask({one: nodes[one]}, clean_up, lambda node: (question,), _WAIT_S)
    if findings:
        raise refusal(findings, len(nodes))
    say(
        f"preflight: {len(nodes)} node(s) share versions, storage, tracking store"
        f"{' and data' if store is not None else ''}; {time.monotonic() - began:.1f} s"
    )


def _ask(
    nodes: dict[str, str], function: Callable[..., Any], arguments: Callable[[str], tuple[Any, ...]], wait_s: float
) -> tuple[dict[str, Any], list[str]]:
    """Call a function on every node at once: node id -> result, and what is to be said of nodes that gave none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node, name in nodes.items():
        task = ray.remote(function).options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            runtime_env={"env_vars": _ENVIRONMENT},
        )
        asked[task.remote(*arguments(name))] = node
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=wait_s)
    results: dict[str, Any] = {}
    findings = [
        f"{nodes[asked[reference]]}: no answer within {wait_s:g} s. Every node must run a task when asked; look at "
        "`ray status`, wait for a node that is just starting, or take it out of the cluster."
        for reference in late
    ]
    for reference in ready:
        try:
            results[asked[reference]] = ray.get(reference)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            findings.append(
                f"{nodes[asked[reference]]}: the check could not run there ({type(error).__name__}: {reason}). Every "
                "node needs this posegrid and its packages: run `ray up` with the same wheel, or use `posegrid submit`."
            )
    return results, findings


def _state_service(nodes: dict[str, str]) -> list[str]:
    """Ray frees the workers of trials that are stopped through its state service, asked from the head.

    On a machine with two clusters the wrong one may answer, and workers would be freed or kept by mistake.
    """
    import ray

    found, findings = [], []
    task = ray.remote(_nodes_by_state_service).options(num_cpus=0, resources={"node:__internal_head__": 0.001})
    try:
        found = ray.get(task.remote(), timeout=_WAIT_S)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
        reason = str(error).strip().splitlines()[-1]
        findings.append(
            f"Ray's state service did not answer on the head ({reason}). It is part of the dashboard: start the head "
            "with it (`ray start --head --dashboard-host=127.0.0.1`), else trials that end early keep their workers."
        )
    if not findings and not set(nodes) <= set(found):
        findings.append(
            f"Ray's state service tells of another cluster ({len(found)} nodes, none or few of them ours). Run one "
            "cluster on a machine, or set RAY_ADDRESS to the one that is meant."
        )
    return findings


def _nodes_by_state_service() -> list[str]:
    from ray.util.state import list_nodes

    return [str(node.node_id) for node in list_nodes(limit=10_000, timeout=20)]


def _room(resources: Resources) -> bool:
    """Whether any node could hold a worker."""
    import ray

    from posegrid.orchestration.launch.capacity import workers_on

    return any(workers_on(node["Resources"], resources) for node in ray.nodes() if node["Alive"])


def _start_first(resources: Resources, say: Say) -> None:
    """Ask for one worker's share, so that the autoscaler starts a node, and wait for it."""
    import ray

    began = time.monotonic()
    say("no node is there yet that could train: asking the autoscaler for the first (minutes)")
    share = ray.remote(_nothing).options(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=0)
    try:
        ray.get(share.remote(), timeout=_STARTING_S)
    except ray.exceptions.GetTimeoutError:
        raise ValueError(
            f"no node for a worker of {resources.cpus} CPU cores and {resources.gpus:g} GPUs came up within "
            f"{_STARTING_S:g} s. The cluster file allows one; the cloud may have none to give, or its set-up fails. "
            "Look at `ray exec cluster.yaml 'tail -n 100 /tmp/ray/session_latest/logs/monitor*'`, then repeat."
        ) from None
    say(f"the first node came up in {time.monotonic() - began:.0f} s")


def _nothing() -> None:
    """Takes the share of a worker for an instant."""


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
