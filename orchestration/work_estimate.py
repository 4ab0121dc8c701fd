"""How long a stage takes: how much there is to compute, over what a device is assumed to do or was measured to do.

Estimated are, for every step, the operations of matrix products over the device's sustained rate, plus the bytes of all
else over its memory's, or the time to start all kernels where that is longer; loading of windows and the measures of
scored poses are added, as nothing overlaps them. Steps are taken as they are without a compiler, which saves traffic.
N workers are taken to be N times as fast, apart from starting kernels. Not counted: gradients sent between workers,
pictures that are read, checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from posegrid.orchestration.amounts import Amounts
from posegrid.orchestration.measured_rates import MeasuredRates
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.step_cost import Cost, NetworkCost

MEASURED, ESTIMATED = "measured", "estimate"
_VALIDATION_BATCH = 256
"""Windows of a step of validation, as in the loop."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one device (a GPU, or one core of a CPU) is assumed to do."""

    tflops_float32: float
    """Sustained rate of float32 matrix products, 10^12 operations a second."""
    tflops_bf16: float
    """The same of bfloat16 products."""
    memory_gb_per_s: float
    """Bytes that other operations read and write, 10^9 a second."""
    launch_us: float
    """Microseconds below which no operation falls."""
    loaded_frames_per_s: float
    """Frames of training windows that a worker gathers, hides and sends to the device, a second."""
    scored_frames_per_s: float
    """Poses that all measures are taken of, a second."""
    start_s: float
    """Seconds from the start of a stage to its first step: processes, data, compiler."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0 and name != "start_s":
                raise ValueError(f"{name} = {value} must be above 0.")


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """How long a stage takes, as a whole: from its first epoch to its last scored pattern."""

    start_s: float
    """Before its first step."""
    epoch_s: float
    """One epoch, with its share of the validations."""
    epochs: int
    """Epochs of the training."""
    once_s: float
    """Once, before the first epoch."""
    pattern_s: float
    """Scoring one pattern."""
    training: str
    """"measured" or "estimate"."""
    scoring: str
    """"measured" or "estimate"."""
    runs: int
    """Runs that the measured rates come from."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What a stage runs on."""

    rates: Rates
    """Of one device."""
    workers: int
    """Processes that share the batch."""
    each: float
    """Devices of a worker: GPUs, or cores where there are none."""

    def seconds(self, cost: Cost, windows: int, batch: int, low: bool = False, update: float = 0.0) -> float:
        """Time of one pass over some windows in batches. low: products of bfloat16 numbers. update: bytes beside."""
        if not windows:
            return 0.0
        rates, number = self.rates, self.workers * self.each
        rate = (rates.tflops_bf16 if low else rates.tflops_float32) * 1e12 * number
        memory = rates.memory_gb_per_s * 1e9
        steps = ceil(windows / batch)
        computed = (
            windows * (cost.flops / rate + cost.traffic / (memory * number)) + steps * (cost.fixed + update) / memory
        )
        return max(computed, steps * cost.kernels * rates.launch_us * 1e-6)


def stage_time(
    settings: Settings,
    amounts: Amounts,
    cost: Callable[[], NetworkCost],
    devices: Devices,
    measured: MeasuredRates | None,
) -> StageTime:
    """How long a stage takes, from measured rates where there are any; else the network is counted, by `cost`."""
    low = settings.compute.precision == "bf16"
    rates = devices.rates
    if measured is None:
        epoch = devices.seconds(cost().step, amounts.windows, amounts.batch, low, cost().update)
        epoch += amounts.windows * amounts.frames / (rates.loaded_frames_per_s * devices.workers)
    else:
        epoch = amounts.windows / measured.windows_per_s
    if amounts.validations:
        if measured is not None and measured.validated_per_s:
            validation = amounts.validated / measured.validated_per_s
        else:
            passes = cost().loss + cost().lift_once if settings.training.select_by == "mpjpe" else cost().loss
            validation = devices.seconds(passes, amounts.validated, _VALIDATION_BATCH)
        epoch += validation * amounts.validations / amounts.epochs
    if measured is not None and measured.lifted_per_s:
        pattern, scoring = amounts.lifted / measured.lifted_per_s, MEASURED
    else:
        pattern = devices.seconds(cost().lift, amounts.lifted, amounts.lifted_at_once)
        pattern += amounts.scored / (rates.scored_frames_per_s * devices.workers)
        scoring = ESTIMATED
    return StageTime(
        start_s=rates.start_s,
        epoch_s=epoch,
        epochs=amounts.epochs,
        once_s=devices.seconds(cost().loss, amounts.learned, amounts.batch) if amounts.learned else 0.0,
        pattern_s=pattern,
        training=ESTIMATED if measured is None else MEASURED,
        scoring=scoring,
        runs=0 if measured is None else measured.runs,
    )
