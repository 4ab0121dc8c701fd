"""What is left of a planned study, what each part takes, and when all is done on so many GPUs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from posegrid.datasets.outline import is_outline
from posegrid.experiments.costing.machines import Machine
from posegrid.experiments.planning import Plan
from posegrid.orchestration.amounts import Amounts, amounts_of
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.grid import Stage, Work, remaining_work
from posegrid.orchestration.launch.resources import Resources
from posegrid.orchestration.measured_rates import MeasuredRates, measured_rates, speed_identity
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.step_cost import NetworkCost, network_cost, network_key
from posegrid.orchestration.timetable import Job, critical_path, wall_clock
from posegrid.orchestration.tracking import Tracking, Trial
from posegrid.orchestration.work_estimate import Devices, StageTime, stage_time

DONE, TO_TRAIN, TO_SCORE, RESUMABLE, GIVEN, DIVERGED = (
    "done", "to train", "to score only", "resumable", "given", "diverged",
)  # fmt: skip
STATES = (DONE, RESUMABLE, TO_TRAIN, TO_SCORE, GIVEN, DIVERGED)
"""What can be said of a stage: "given" is a finished run taken as it is, a resumable one has epochs behind it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stage, or a trial of a search, and what is left of it."""

    key: str
    kind: str
    """What parts that take equally long share."""
    name: str
    """What people read."""
    recipe: str
    """Its recipe."""
    pattern: str
    """Label of the training pattern."""
    seed: int
    state: str
    """One of `STATES`."""
    needs: tuple[str, ...]
    """Keys of the parts that must be done before."""
    epochs_left: int
    patterns_left: int
    """Test patterns that are still to be scored."""
    cells: int
    """Test patterns in all."""
    windows: int
    """Training windows of an epoch."""
    time: StageTime

    @property
    def training_s(self) -> float:
        """Seconds of training that are left."""
        return self.time.start_s + self.time.once_s + self.epochs_left * self.time.epoch_s if self.epochs_left else 0.0

    @property
    def scoring_s(self) -> float:
        """Seconds of scoring that are left."""
        start = self.time.start_s if self.patterns_left and not self.epochs_left else 0.0
        return start + self.patterns_left * self.time.pattern_s

    @property
    def seconds(self) -> float:
        """Seconds that it still occupies its workers."""
        return self.training_s + self.scoring_s


@dataclass(frozen=True, kw_only=True)
class SearchRounds:
    """A search of a recipe's values that comes before the recipe's own stages."""

    recipe: str
    """Name of the recipe."""
    rounds: tuple[tuple[int, float], ...]
    """Of each round, which waits for the one before: trainings, and the share of the recipe's epochs they take."""


@dataclass(frozen=True, kw_only=True)
class WallClock:
    """A study on so many devices."""

    devices: int
    """GPUs, or cores where there are none."""
    side_by_side: int
    """Parts that run at once."""
    seconds: float
    """Until all is done."""
    usd: float
    """For all machines, on demand, from the first to the last minute."""
    usd_spot: float
    """The same at the spot price."""


@dataclass(frozen=True, kw_only=True)
class StudyCost:
    """What a study costs from now on."""

    study: str
    source: str
    """Name of the data set."""
    recognised: bool
    """Whether runs that are done were looked for: not without data, whose hash is part of what identifies a run."""
    machine: Machine
    resources: Resources
    parts: list[Part]
    """Each after those that it needs."""

    @property
    def device_hours(self) -> float:
        """GPU-hours that are left, or core-hours."""
        return sum(part.seconds for part in self.parts) * self._each / 3600

    @property
    def usd(self) -> float:
        """Cost of these on demand, if nothing stands idle."""
        return self.device_hours / max(self.machine.gpus, 1) * self.machine.usd_per_hour

    @property
    def usd_spot(self) -> float:
        """The same at the spot price."""
        return self.device_hours / max(self.machine.gpus, 1) * self.machine.usd_per_hour_spot

    @property
    def critical_path_s(self) -> float:
        """Seconds of the longest chain of parts that wait for one another."""
        return critical_path(self._jobs())

    @property
    def _each(self) -> float:
        return self.resources.workers * (self.resources.gpus or self.resources.cpus)

    def on(self, devices: int) -> WallClock:
        """The study on so many devices. Raises ValueError if not even one part fits."""
        side_by_side = int(devices / self._each + 1e-9)
        if side_by_side < 1:
            raise ValueError(
                f"--gpus {devices}: a training asks for {self.resources.workers} workers x "
                f"{self.resources.gpus or self.resources.cpus:g} devices = {self._each:g}. Give at least as many, or "
                "fewer workers."
            )
        seconds = wall_clock(self._jobs(), side_by_side)
        machines = ceil(devices / self.machine.gpus) if self.machine.gpus else 1
        hours = machines * seconds / 3600
        return WallClock(
            devices=devices,
            side_by_side=side_by_side,
            seconds=seconds,
            usd=hours * self.machine.usd_per_hour,
            usd_spot=hours * self.machine.usd_per_hour_spot,
        )

    def _jobs(self) -> list[Job]:
        return [Job(key=part.key, seconds=part.seconds, needs=part.needs) for part in self.parts]


def study_cost(
    planned: Plan,
    machine: Machine,
    resources: Resources,
    tracking: Tracking | None,
    searches: Sequence[SearchRounds] = (),
) -> StudyCost:
    """What is left of a plan. `tracking`: where runs are looked up, if there are any yet. `searches` are trained before
    the stages of their recipes. Raises ValueError for one whose recipe does not take part."""
    trials = {} if tracking is None else tracking.trials()
    recognised = not is_outline(planned.store)
    work = remaining_work(planned.stages, trials if recognised else {}, planned.store.content_hash)
    measured = measured_rates(trials.values(), machine.device, resources.workers)
    clock = _Clock(planned, machine, resources, measured)
    epochs = _epochs_done(work, tracking)
    parts = [_part(item, epochs.get(item.stage.key, 0), clock) for item in work]
    for search in searches:
        parts = _with_search(parts, search)
    return StudyCost(
        study=planned.name,
        source=planned.store.source,
        recognised=recognised,
        machine=machine,
        resources=resources,
        parts=parts,
    )


class _Clock:
    """How long stages take; what many of them share is counted once."""

    def __init__(
        self, planned: Plan, machine: Machine, resources: Resources, measured: dict[str, MeasuredRates]
    ) -> None:
        each = resources.gpus or resources.cpus
        self._devices = Devices(rates=machine.rates, workers=resources.workers, each=each)
        self._store = planned.store
        self._measured = measured
        self._networks: dict[str, NetworkCost] = {}
        self._amounts: dict[Any, Amounts] = {}

    def time(self, stage: Stage) -> tuple[StageTime, Amounts]:
        """How long a stage takes as a whole, and how much it computes."""
        settings = stage.settings
        amounts = self._amount(settings, scored=bool(stage.patterns))
        measured = self._measured.get(speed_identity(settings))
        return stage_time(settings, amounts, lambda: self._network(settings), self._devices, measured), amounts

    def _amount(self, settings: Settings, *, scored: bool) -> Amounts:
        key = (settings.data, replace(settings.training, seed=0), settings.evaluation, settings.model["name"], scored)
        if key not in self._amounts:
            self._amounts[key] = amounts_of(self._store, settings, scored=scored)
        return self._amounts[key]

    def _network(self, settings: Settings) -> NetworkCost:
        key = network_key(settings)
        if key not in self._networks:
            self._networks[key] = network_cost(settings, pose_shape(self._store, settings.data))
        return self._networks[key]


def _part(work: Work, epochs_done: int, clock: _Clock) -> Part:
    stage = work.stage
    state = _state(work, epochs_done)
    idle = state in (GIVEN, DIVERGED)
    time, amounts = clock.time(stage)
    return Part(
        key=stage.key,
        kind=f"{stage.kind}, one subject left out" if stage.settings.data.leave_out else stage.kind,
        name=stage.name,
        recipe=stage.settings.name,
        pattern=stage.trained_on,
        seed=stage.settings.training.seed,
        state=state,
        needs=stage.needs,
        epochs_left=0 if idle or not work.train else time.epochs - epochs_done,
        patterns_left=0 if idle else len(work.patterns),
        cells=len(stage.patterns),
        windows=amounts.windows,
        time=time,
    )


def _state(work: Work, epochs_done: int) -> str:
    if work.stage.given is not None:
        return GIVEN
    if getattr(work, "diverged", False):
        return DIVERGED
    if work.train:
        return RESUMABLE if epochs_done else TO_TRAIN
    return TO_SCORE if work.patterns else DONE


def _epochs_done(work: Iterable[Work], tracking: Tracking | None) -> dict[str, int]:
    """Stage key -> epochs behind it, of stages that would continue: begun, on what they still build on."""
    found: dict[str, int] = {}
    runs: dict[str, Trial] = {}
    for item in work:
        trial = item.trial
        if trial is not None and not item.train:
            runs[item.stage.key] = trial
        if tracking is None or trial is None or trial.trained or "train/loss" not in trial.metrics:
            continue
        above = {key: runs[key].run_id for key in item.stage.needs if key in runs}
        if len(above) < len(item.stage.needs):
            continue
        if all(trial.tags.get(tag) == value for tag, value in item.stage.lineage(above).items()):
            done = tracking.last_step(trial.run_id, "train/loss") + 1
            found[item.stage.key] = min(done, item.stage.settings.training.epochs)
    return found


def _with_search(parts: list[Part], search: SearchRounds) -> list[Part]:
    """Trials before the stages of their recipe: trainings that are not scored. They need what its first stage needs,
    and all its stages wait for the last round, as they take the winner's values."""
    recipe = search.recipe
    own = [part for part in parts if part.recipe == recipe and part.cells]
    if not own or not sum(number for number, _ in search.rounds):
        known = sorted({part.recipe for part in parts if part.cells})
        raise ValueError(
            f"--search of {recipe}: allowed are recipes that take part in the study ({', '.join(known)}), and at least "
            "one trial. Correct it, or leave it out."
        )
    first, trials = own[0], list[Part]()
    before = first.needs
    for number, (count, share) in enumerate(search.rounds):
        made = [
            replace(
                first,
                key=f"search {recipe} {number} {trial}",
                kind=f"search of {recipe}" + (f", round {number + 1}" if share < 1 else ""),
                name=f"trial {trial} of {recipe}",
                state=TO_TRAIN,
                needs=before,
                epochs_left=max(1, ceil(share * first.time.epochs - 1e-9)),
                patterns_left=0,
                cells=0,
            )
            for trial in range(count)
        ]
        trials += made
        before = tuple(part.key for part in made)
    mine = {part.key for part in own}
    later = [replace(part, needs=(*part.needs, *before)) if part.key in mine else part for part in parts]
    place = next(index for index, part in enumerate(later) if part.key == first.key)
    return [*later[:place], *trials, *later[place:]]
