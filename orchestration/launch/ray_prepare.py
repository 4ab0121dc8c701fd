"""Reading recordings as Ray tasks of one CPU: an executor for `datasets.prepare`."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from posegrid.datasets.executors import WAITING_EACH, Execute
from posegrid.orchestration.launch.cluster import connected
from posegrid.orchestration.launch.resources import Resources


@contextmanager
def on_cluster(address: str | None, cpus: int | None = None) -> Iterator[Execute]:
    """Tasks on the cluster at `address` for the time of a block; None starts Ray on this machine with `cpus` cores.

    Raises ValueError, also while running, if no cluster answers, a task raises ValueError, or tasks are lost.
    """
    with connected(address, Resources(workers=1, cpus=1), cpus) as cluster:
        yield partial(_run, cluster.cpus * WAITING_EACH)


def _run(limit: int, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """`(index, result)` as tasks finish; at most `limit` of them wait, run, or have a result that nobody took yet.

    What is left when this ends early runs to its end, or until the driver leaves the cluster. It is not cancelled: a
    `ray.cancel` that meets a task just ending can abort the driver (ray-project/ray, pull request 54798).
    """
    import ray

    task = ray.remote(num_cpus=1)(_guarded)
    left = iter(enumerate(items))
    waiting: dict[Any, int] = {}
    try:
        while True:
            for index, item in islice(left, limit - len(waiting)):
                waiting[task.remote(function, item)] = index
            if not waiting:
                return
            (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
            result, refusal = ray.get(ready)
            if refusal:
                raise ValueError(refusal)
            yield waiting.pop(ready), result
            del ready, result  # the cluster's copy of a result is freed once nobody here refers to it
    except ray.exceptions.RayError as error:
        raise ValueError(
            f"a task on the cluster was lost ({type(error).__name__}: {str(error).splitlines()[-1]}). Every node needs "
            "this posegrid installed and memory for what a recording holds; repeat the command to continue."
        ) from None


def _guarded(function: Callable[[Any], Any], item: Any) -> tuple[Any, str]:
    """The result and no text, or no result and what was wrong: Ray wraps exceptions in types of its own."""
    try:
        return function(item), ""
    except ValueError as error:
        return None, f"{error} (read by node {socket.gethostname()})"
