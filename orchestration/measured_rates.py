"""How fast runs were: read from the metrics that every run logs, for runs of the same network on the same device."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import Trial

DEVICE, WORKERS = "posegrid.device", "posegrid.workers"
"""Tags: what a run was trained on (such as "NVIDIA A10G" or "CPU, 1 thread"), and how many workers shared it."""
TRAINED_PER_S, VALIDATED_PER_S, LIFTED_PER_S = (
    f"time/{name}_per_s" for name in ("windows", "validation_windows", "lifted_windows")
)
"""Metrics: windows a second in training, in validation, and lifted for scoring."""
_DECIDES = ("model.", "compute.", "conditioner.")
_DECIDES_TOO = ("data.frames", "training.batch", "training.ema")


@dataclass(frozen=True, kw_only=True)
class MeasuredRates:
    """Medians over the runs of a recipe."""

    windows_per_s: float
    """Training windows."""
    validated_per_s: float | None
    """Windows of validation; None if no run says so."""
    lifted_per_s: float | None
    """Windows lifted for scoring, with all that is measured of them; None if no run says so."""
    runs: int
    """Number of runs."""


def measured_rates(trials: Iterable[Trial], device: str, workers: int) -> dict[str, MeasuredRates]:
    """Speed identity -> rates, of runs on devices whose name starts so, with so many workers."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        on = trial.tags.get(DEVICE, "")
        if on and on.startswith(device) and trial.tags.get(WORKERS) == str(workers) and TRAINED_PER_S in trial.metrics:
            for name in (TRAINED_PER_S, VALIDATED_PER_S, LIFTED_PER_S):
                if name in trial.metrics:
                    found[_identity(trial.params)][name].append(trial.metrics[name])
    return {
        identity: MeasuredRates(
            windows_per_s=median(values[TRAINED_PER_S]),
            validated_per_s=median(values[VALIDATED_PER_S]) if VALIDATED_PER_S in values else None,
            lifted_per_s=median(values[LIFTED_PER_S]) if LIFTED_PER_S in values else None,
            runs=len(values[TRAINED_PER_S]),
        )
        for identity, values in found.items()
    }


def speed_identity(settings: Settings) -> str:
    """What decides how fast a step is, as text; that of a run's parameters equals that of its settings."""
    return _identity({name: str(value) for name, value in _flat(settings.plain())})


def _identity(params: Mapping[str, str]) -> str:
    kept = (
        f"{key}={params[key]}"
        for key in sorted(params)
        # runs made before batches had pieces are as fast as those that have none
        if (key.startswith(_DECIDES) or key in _DECIDES_TOO) and (key, params[key]) != ("compute.micro_batch", "0")
    )
    return ";".join(kept)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """As parameters are logged."""
    for name, value in values.items():
        if isinstance(value, dict):
            if name != "upstream":
                yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value
