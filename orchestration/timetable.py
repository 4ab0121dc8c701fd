"""When jobs that depend on one another are done, if so many run side by side: list scheduling."""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Job:
    """Something that occupies one slot."""

    key: str
    """Unique name."""
    seconds: float
    """How long it takes."""
    needs: tuple[str, ...] = ()
    """Keys of the jobs that must be done before; keys of no job count as done."""


def wall_clock(jobs: Sequence[Job], side_by_side: int) -> float:
    """Seconds until all are done: a free slot takes the first job, in the given order, that waits for nothing.

    This is how a study hands out its stages. Raises ValueError if jobs wait for one another in a circle.
    """
    waits, unlocks = _graph(jobs)
    ready = [index for index, job in enumerate(jobs) if not waits[job.key]]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now, done = 0.0, 0
    while ready or running:
        while ready and len(running) < side_by_side:
            index = heapq.heappop(ready)
            heapq.heappush(running, (now + jobs[index].seconds, index))
        now = running[0][0]
        while running and running[0][0] == now:  # all that end now free their slots before one is taken
            done += 1
            for later in unlocks[jobs[heapq.heappop(running)[1]].key]:
                waits[jobs[later].key] -= 1
                if not waits[jobs[later].key]:
                    heapq.heappush(ready, later)
    if done < len(jobs):
        raise ValueError(f"{len(jobs) - done} of {len(jobs)} jobs wait for one another in a circle.")
    return now


def critical_path(jobs: Sequence[Job]) -> float:
    """Seconds of the longest chain of jobs: no number of slots is faster."""
    return wall_clock(jobs, max(len(jobs), 1))


def _graph(jobs: Sequence[Job]) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Key -> number of jobs that it waits for; key -> indices of the jobs that wait for it."""
    known = {job.key for job in jobs}
    waits: dict[str, int] = {}
    unlocks: dict[str, list[int]] = defaultdict(list)
    for index, job in enumerate(jobs):
        needs = known.intersection(job.needs)
        waits[job.key] = len(needs)
        for key in needs:
            unlocks[key].append(index)
    return waits, unlocks
