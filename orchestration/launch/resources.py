"""What one trial asks of the machine or cluster."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial gets."""

    workers: int = 1
    """Ray Train workers; the batch is shared among them. Of elastic trials: the most."""
    gpus: float = 0
    """GPUs for each worker; 0 trains on CPUs."""
    cpus: int = 1
    """CPU cores for each worker."""
    max_failures: int = 3
    """Worker failures of a trial that are answered by a restart from the last checkpoint."""
    fewest: int = 0
    """Workers with which an elastic trial starts and goes on, where there is no room for all; 0: not elastic."""
    inside: bool = False
    """Trials train in their own processes, without Ray Train: one worker on CPUs of this machine."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.cpus < 1 or self.gpus < 0:
            raise ValueError(
                f"workers = {self.workers}, cpus = {self.cpus}, gpus = {self.gpus}: "
                "at least one worker and one core are needed, and GPUs cannot be negative."
            )
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(
                f"gpus = {self.gpus:g} for each worker, set with --gpus-per-worker: allowed are whole numbers, and "
                "shares below 1 of a GPU that several workers use, such as 0.25. Choose one."
            )
        if self.fewest and not 1 <= self.fewest <= self.workers:
            raise ValueError(
                f"--workers {self.fewest}-{self.workers}: allowed are a number, or the fewest and the most, such as "
                "2-8. Put the smaller number first; at least one is needed."
            )
        if not self.fixed and 0 < self.gpus < 1:
            raise ValueError(
                f"--workers {self.fewest}-{self.workers} with --gpus-per-worker {self.gpus:g}: Ray counts room for "
                "elastic workers in whole GPUs. Allowed are whole GPUs, or a fixed number of workers: change one."
            )

    @property
    def fixed(self) -> bool:
        """Whether a trial always has the same number of workers."""
        return self.fewest in (0, self.workers)

    @property
    def least(self) -> int:
        """Workers that a trial cannot do without."""
        return self.fewest or self.workers

    @classmethod
    def asked(cls, workers: str, *, gpus: float = 0, cpus: int = 1) -> "Resources":
        """As the options of commands say: workers "4", "2-8" for as many as there is room for, or "0" for trainings
        inside the processes of the trials.

        Raises ValueError for anything else.
        """
        fewest, dash, most = workers.partition("-")
        if not (fewest.isdigit() and (most.isdigit() or not dash)):
            raise ValueError(
                f"--workers {workers}: allowed are a number such as 4, or the fewest and the most such as 2-8. "
                "Give one."
            )
        if not dash and int(fewest) == 0:
            if gpus:
                raise ValueError(
                    f"--workers 0 with --gpus-per-worker {gpus:g}: trainings inside the processes of trials use CPUs. "
                    "Allowed are GPUs with at least one worker: --workers 1."
                )
            return cls(inside=True, cpus=cpus)
        if not dash:
            return cls(workers=int(fewest), gpus=gpus, cpus=cpus)
        if int(fewest) < 1:
            raise ValueError(f"--workers {workers}: at least one worker is needed. Start at 1, such as 1-{most}.")
        return cls(workers=int(most), fewest=int(fewest), gpus=gpus, cpus=cpus)

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)
