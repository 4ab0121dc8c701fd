"""How much a stage computes: steps, windows that are validated, lifted and scored."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from posegrid.datasets.options import from_values
from posegrid.datasets.overlapping_windows import overlapping_windows
from posegrid.datasets.store import Store
from posegrid.datasets.windows import consecutive_windows
from posegrid.models.registry import config_class, reads_errors
from posegrid.orchestration.batches import cut_of, scoring_windows, steps_per_epoch
from posegrid.orchestration.protocol import overlap_shift
from posegrid.orchestration.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much a stage computes."""

    epochs: int
    """Passes over the training windows."""
    steps: int
    """Optimisation steps of an epoch."""
    batch: int
    """Windows of a step."""
    frames: int
    """Frames of a window."""
    validations: int
    """How often it validates."""
    validated: int
    """Windows of a validation."""
    learned: int
    """Windows that a refiner looks at before it trains."""
    lifted: int
    """Windows that are lifted to score a pattern."""
    lifted_at_once: int
    """Windows of a step of scoring."""
    scored: int
    """Frames that are scored of a pattern."""

    @property
    def windows(self) -> int:
        """Training windows of an epoch."""
        return self.steps * self.batch


def amounts_of(store: Store, settings: Settings, *, scored: bool) -> Amounts:
    """How much a stage computes on a store. scored: whether it has test patterns. Raises ValueError if a split is
    empty or no window fits."""
    store = store.leaving_out(settings.data.leave_out)
    training, data = settings.training, settings.data
    steps = steps_per_epoch(store, settings)
    validations = validated = lifted = frames = 0
    if training.select != "last":
        validations = ceil(training.epochs / training.validate_every)
        validated = len(scoring_windows(store, settings, training.select))
    if scored:
        lifted, frames = scoring_amounts(store, settings)
    name = settings.model["name"]
    values: Any = from_values(config_class(name), {k: v for k, v in settings.model.items() if k != "name"}, name)
    return Amounts(
        epochs=training.epochs,
        steps=steps,
        batch=training.batch,
        frames=data.frames,
        validations=validations,
        validated=validated,
        learned=steps * training.batch if reads_errors(name, values) else 0,
        lifted=lifted,
        lifted_at_once=settings.evaluation.batch,
        scored=frames,
    )


def scoring_amounts(store: Store, settings: Settings) -> tuple[int, int]:
    """Windows that are lifted to score one pattern, and frames that are scored. Raises what `amounts_of` does."""
    chosen, data = settings.evaluation, settings.data
    if chosen.score == "centre":
        windows = consecutive_windows(store, "test", data.frames, data.tail)[:: chosen.every]
        return ceil(windows.weight.sum() / chosen.lift_every), windows.weight.size
    windows = scoring_windows(store, settings, "test")[:: chosen.every]
    lifted = len(windows)
    if chosen.score == "overlap":
        every = overlapping_windows(store, "test", data.frames, overlap_shift(settings), **cut_of(data))
        lifted = ceil(len(every) / chosen.every)
    return lifted, windows.weight.size
