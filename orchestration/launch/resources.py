"""What one trial asks of the machine or cluster."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial gets."""

    workers: int = 1
    """Ray Train workers; the batch is shared among them."""
    gpus: float = 0
    """GPUs for each worker; 0 trains on CPUs."""
    cpus: int = 1
    """CPU cores for each worker."""
    max_failures: int = 3
    """Worker failures of a trial that are answered by a restart from the last checkpoint."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.cpus < 1 or self.gpus < 0:
            raise ValueError(
                f"workers = {self.workers}, cpus = {self.cpus}, gpus = {self.gpus}: "
                "at least one worker and one core are needed, and GPUs cannot be negative."
            )

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)
