"""Run a function over many items, one after another or in processes, with few results waiting at any time.

An executor takes `(function, items)` and yields `(index, result)` as results become ready, in any order. A function and
its items must be picklable. `orchestration.launch.ray_prepare` makes one that runs on a cluster.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from typing import Any

Execute = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[tuple[int, Any]]]

WAITING_EACH = 2
"""Items given out for each worker: the one it works on and the next, so that it never idles and memory is bounded."""


def in_turn(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """In this process, one after another."""
    for index, item in enumerate(items):
        yield index, function(item)


@contextmanager
def in_processes(count: int) -> Iterator[Execute]:
    """Processes on this machine for the time of a block; this one with `count` 1.

    An exception in a function ends the iteration; what was given out is finished first. Raises ValueError if a process
    is killed. The processes end with this one, however it ends.
    """
    if count <= 1:
        yield in_turn
        return
    # spawn: this process may hold threads (Ray, torch) that must not be forked
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_parent)

    def execute(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        left = iter(enumerate(items))
        waiting: dict[Future, int] = {}
        try:
            while True:
                for index, item in islice(left, count * WAITING_EACH - len(waiting)):
                    waiting[pool.submit(function, item)] = index
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool:
            raise ValueError(
                f"one of {count} processes was ended from outside, mostly because memory ran out. Give fewer with "
                "--processes, or end what else runs here."
            ) from None

    try:
        yield execute
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Watch the parent: a pool's processes do not notice when it is killed, and would wait for work for ever."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
