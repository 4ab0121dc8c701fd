"""How a model samples: which sampler, in how many steps. Chosen when scoring, no part of what is trained."""

from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import Literal

from torch import Tensor

from posegrid.models.diffusion.gaussian import Predict
from posegrid.models.diffusion.samplers import SAMPLERS, NoiseAt
from posegrid.models.diffusion.schedules import Schedule, sampling_times


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The reverse chain of one hypothesis."""

    sampler: str = "ddpm"
    """Name in `samplers.SAMPLERS`."""
    steps: int = 0
    """Evaluations of the network; 0: all steps of the schedule."""
    eta: float = 0.0
    """"ddim": 0 is deterministic, 1 adds the noise of DDPM. The others do not read it."""
    spacing: Literal["ends", "skip"] = "ends"
    """Which steps are visited when there are fewer than the schedule has; see `schedules.sampling_times`."""

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            near = get_close_matches(self.sampler, SAMPLERS, 1)
            hint = f'; did you mean "{near[0]}"?' if near else "."
            raise ValueError(
                f'sampler "{self.sampler}" (evaluation.sampler) is unknown{hint} Known: {", ".join(SAMPLERS)}. '
                "Choose one of them."
            )
        if self.steps < 0 or not isfinite(self.eta) or self.eta < 0:
            raise ValueError(
                f"sampling was asked for with {self.steps} steps and eta = {self.eta} (evaluation.steps, "
                "evaluation.eta); both must be at least 0. Change the one below."
            )

    def times(self, schedule: Schedule) -> list[int]:
        """Steps of the schedule that the chain visits, highest first. Raises ValueError if there are not so many."""
        return sampling_times(len(schedule), self.steps or len(schedule), self.spacing)

    def run(self, predict: Predict, schedule: Schedule, noise_at: NoiseAt) -> Tensor:
        """A clean signal of the shape of `noise_at(0)`."""
        return SAMPLERS[self.sampler](predict, schedule, noise_at, self.times(schedule), self.eta)
