"""The workers of one run, as the plain-torch code sees them: a rank, a count, a device, a sum."""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist


@dataclass(frozen=True, kw_only=True)
class Workers:
    """This process among those that share a run. Alone by default."""

    rank: int = 0
    """Which of them this is, 0 to world - 1."""
    world: int = 1
    """How many there are."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where this one computes."""
    gpus: float = 0.0
    """GPUs that each of them holds; below 1 where several share one."""

    @property
    def first(self) -> bool:
        """True for the one that talks to the tracking server."""
        return self.rank == 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Element-wise float64 sum over all workers; every worker must call it."""
        if self.world == 1:
            return values
        # NCCL reduces device tensors only; float64 keeps metrics equal for any number of workers
        tensor = torch.as_tensor(np.asarray(values, dtype=np.float64), device=self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def share(self, count: int) -> slice:
        """Rows of a global batch of `count` windows that belong to this worker."""
        return slice(self.rank, count, self.world)
