"""Lifting a folder as Ray tasks of one CPU, one file each."""

from collections.abc import Iterator, Sequence

from posegrid.orchestration.launch.ray_prepare import on_cluster
from posegrid.orchestration.lifting_jobs import LiftJob, LiftOutcome, run_job


def run_on_ray(jobs: Sequence[LiftJob], workers: int, address: str | None) -> Iterator[tuple[int, LiftOutcome]]:
    """(index of the job, what became of it) as tasks finish.

    `workers` run at once on this machine, or as many as the cluster at `address` has cores. Raises ValueError if there
    is no cluster, or if tasks are lost.
    """
    with on_cluster(address, cpus=None if address else workers) as execute:
        yield from execute(run_job, jobs)
