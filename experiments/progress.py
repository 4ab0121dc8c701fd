"""What a person sees while a study runs."""

import time
from collections.abc import Callable

from posegrid.orchestration.grid import Work

Say = Callable[[str], None]


class Progress:
    """One line now and then: stages trained, where each one is, estimated time left."""

    def __init__(self, left: list[Work], say: Say, every_s: float = 10.0) -> None:
        self._work = {item.stage.key: item for item in left}
        self._epoch = dict.fromkeys(self._work, 0)
        self._seconds: dict[str, float] = {}  # mean seconds of an epoch, by member or recipe
        self.say = say
        self.concurrent = 1
        self._every = every_s
        self._said = 0.0

    def __call__(self, key: str, metrics: dict[str, float]) -> None:
        """A stage finished an epoch."""
        settings, kind = self._work[key].stage.settings, self._work[key].stage.kind
        self._epoch[key] = int(metrics["epoch"]) + 1
        seconds = metrics.get("time/epoch_s", 0.0)
        before = self._seconds.get(kind, seconds)
        self._seconds[kind] = 0.7 * before + 0.3 * seconds
        last = self._epoch[key] == settings.training.epochs
        if not last and time.monotonic() - self._said < self._every:
            return
        self._said = time.monotonic()
        trained = sum(self._epoch[k] >= w.stage.settings.training.epochs for k, w in self._work.items())
        loss = metrics.get("validation/loss", metrics.get("train/loss", float("nan")))
        self.say(
            f"[{trained}/{len(self._work)} trained] {self._work[key].stage.name}: epoch {self._epoch[key]}/"
            f"{settings.training.epochs}, loss {loss:.5g}, about {self._left_minutes():.0f} min of training left"
        )

    def _left_minutes(self) -> float:
        typical = sum(self._seconds.values()) / len(self._seconds)
        total = 0.0
        for key, item in self._work.items():
            settings = item.stage.settings
            epochs = settings.training.epochs - self._epoch[key] if item.train else 0
            total += epochs * self._seconds.get(item.stage.kind, typical)
        return total / self.concurrent / 60
