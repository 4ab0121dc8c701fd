"""The metrics of a run's epochs on their way to the tracking store, also while it does not answer.

What cannot be delivered is kept in a file beside the run's state, one epoch a line, and delivered later: in order, with
the steps and times of their epochs. Training goes on meanwhile. Whoever continues the run - a restarted worker, the
repeated command - finds the file and delivers it first.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from posegrid.datasets.addresses import is_address, remote_folder, shown
from posegrid.orchestration.outages import NoAnswerError
from posegrid.orchestration.tracking import Tracking

FILE = "undelivered.jsonl"
AGAIN_S = 10.0
"""Seconds from a failed attempt to the next one: a server that hangs costs an attempt's few seconds each time."""
_ALWAYS = "train/loss"
"""The metric that every epoch has: its last step is the last epoch that was delivered."""
_TOGETHER = 900
"""Values delivered in one call, which MLflow keeps all or none of: an epoch is never delivered in part."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The metrics of one epoch."""

    step: int
    time_ms: int
    """Milliseconds since 1970 at which they were measured."""
    metrics: dict[str, float]


@dataclass(kw_only=True)
class Delivery:
    """Delivers the epochs of one run. An epoch that is repeated after a kill is delivered once."""

    tracking: Tracking
    run_id: str
    folder: str = ""
    """Folder or address of the run's state, where the file is kept; empty keeps what is undelivered in memory."""
    clock: Callable[[], float] = time.monotonic
    _waiting: list[Epoch] = field(default_factory=list, init=False)
    _reached: int | None = field(default=None, init=False)  # last delivered step; unknown before the store answers
    _not_before: float = field(default=-math.inf, init=False)
    _kept: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._waiting = _read(self.folder) if self.folder else []
        self._kept = bool(self._waiting)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Deliver an epoch, or keep it for later; returns within seconds. What is not finite is left out."""
        last = self._waiting[-1].step if self._waiting else self._reached
        if last is not None and step <= last:
            return
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        self._waiting.append(Epoch(step=step, time_ms=int(time.time() * 1000), metrics=finite))
        if self.clock() >= self._not_before:
            try:
                with self.tracking.at_once():
                    self._deliver()
                return
            except NoAnswerError as error:
                if self._not_before == -math.inf:
                    logging.getLogger("posegrid").warning(f"{error} Training goes on; epochs are kept until then.")
                self._not_before = self.clock() + AGAIN_S
        self._keep()

    def finish(self) -> None:
        """Deliver everything; waits for the store as its patience has it. Raises NoAnswerError."""
        self._deliver()

    def _deliver(self) -> None:
        if self._waiting and self._reached is None:
            self._reached = self.tracking.last_step(self.run_id, _ALWAYS)
        while self._waiting:
            some = self._waiting[:1]
            while len(some) < len(self._waiting) and sum(len(epoch.metrics) for epoch in some) < _TOGETHER // 2:
                some.append(self._waiting[len(some)])
            points = [
                (name, value, epoch.time_ms, epoch.step)
                for epoch in some
                if self._reached is None or epoch.step > self._reached
                for name, value in epoch.metrics.items()
            ]
            self.tracking.log_points(self.run_id, points)
            self._reached = max(self._reached or 0, some[-1].step)
            del self._waiting[: len(some)]
        self._not_before = -math.inf
        if self._kept:
            _write(self.folder, [])
            self._kept = False

    def _keep(self) -> None:
        if not self.folder:
            return
        try:
            _write(self.folder, self._waiting)
            self._kept = True
        except (pa.ArrowException, OSError) as error:
            # they are still in memory; training must not end for it
            logging.getLogger("posegrid").warning(f"epochs cannot be kept in {shown(self.folder)} ({error})")


def _read(folder: str) -> list[Epoch]:
    if is_address(folder):
        place = remote_folder(folder)
        if place.filesystem.get_file_info(place.file(FILE)).type != fs.FileType.File:
            return []
        with place.filesystem.open_input_stream(place.file(FILE)) as stream:
            text = stream.read().decode()
    else:
        file = Path(folder) / FILE
        text = file.read_text() if file.is_file() else ""
    epochs = []
    for line in text.splitlines():
        try:
            epochs.append(Epoch(**json.loads(line)))
        except (ValueError, TypeError):  # nothing here writes such a line; one must not cost the others
            logging.getLogger("posegrid").warning(f"{FILE} in {shown(folder)} has a line that is no epoch: {line[:80]}")
    return epochs


def _write(folder: str, epochs: list[Epoch]) -> None:
    """Replace the file as a whole, so that it is never half of one; remove it if nothing is left."""
    content = "".join(json.dumps(asdict(epoch)) + "\n" for epoch in epochs).encode()
    if is_address(folder):
        place = remote_folder(folder)
        if not epochs:
            place.filesystem.delete_file(place.file(FILE))
            return
        with place.filesystem.open_output_stream(place.file(FILE)) as stream:  # appears when it is closed
            stream.write(content)
        return
    file = Path(folder) / FILE
    if not epochs:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{FILE}.partial-{os.getpid()}")
    try:
        with aside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)
