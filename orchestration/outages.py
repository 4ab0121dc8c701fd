"""When something that a study needs does not answer, or refuses: how long to wait for it, and what to tell.

Every call of the tracking layer is one attempt. What follows a failed one is decided here, so that a call that is not
harmless to repeat is never repeated by a library underneath.
"""

import errno
import logging
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

WAIT = "POSEGRID_TRACKING_WAIT"
"""Environment variable: seconds to wait for a tracking server that went away."""
WAIT_S = 600.0
REFUSED_S = 30.0
"""Seconds to go on asking a server that answers, but with an error of its own: a full disk rarely passes by itself."""
_TELL_EVERY_S = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_FULL_WORDS: tuple[str, ...] = (
    "no space left",
    "disk is full",
    "disk quota",
    "file too large",
    "disk i/o error",
    "read-only",
    "readonly",
)
_FULL_WORDS += ("file write failed", "unexpected pos")  # how torch tells of a disk that takes no more

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why a call did not get through although nothing is wrong with what it asked."""

    reason: str
    refused: bool = False
    """Somebody answered, with an error of its own."""


class NoAnswerError(RuntimeError):
    """The tracking store did not take or give what was asked, for as long as it was waited for."""

    def __init__(self, message: str, why: Trouble | None = None) -> None:
        super().__init__(message)
        self.why = why or Trouble(reason=message)


def tracking_wait() -> float:
    """Seconds to wait for a tracking server that went away: POSEGRID_TRACKING_WAIT, by default 600.

    Raises ValueError if that is no number of seconds.
    """
    given = os.environ.get(WAIT, "")
    try:
        seconds = float(given) if given else WAIT_S
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(
            f"{WAIT} = {given!r}, set in the environment, is no time. Allowed: seconds from 0 (give up at once) "
            f"upwards; by default {WAIT_S:g}. Correct it, or unset it."
        )
    return seconds


def check_answers(uri: str) -> None:
    """Fail within seconds where no tracking server listens. Raises ValueError."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=10):
            return
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ValueError(
            f"tracking server {uri} does not answer ({getattr(error, 'reason', error)}); it was set with --tracking or "
            "MLFLOW_TRACKING_URI. Start it, correct the address, or leave both out to use a local SQLite file."
        ) from None


def full(error: BaseException | str) -> bool:
    """True if a disk took no more: full, over its quota, read-only or broken."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(words in str(error).lower() for words in _FULL_WORDS)


def not_written(what: str, where: str, error: BaseException) -> OSError:
    """The error that says that the state of a run could not be kept, and what to do."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return OSError(
        f"{what} could not be written to {where} ({reason}); the place was set with --storage, or lies under --home. "
        "Allowed: a folder or address that takes it whole; nothing half-written was kept. Free space there or give "
        "another place, then repeat the command: it continues from the last epoch that was saved."
    )


@dataclass(kw_only=True)
class Patience:
    """Makes a call again until it gets through or has been waited for long enough."""

    where: str
    """Address of what is called, for messages."""
    wait_s: float
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    hasty: bool = False
    """Give up after the first attempt."""
    _since: float | None = field(default=None, init=False)

    def insist(self, attempt: Callable[[], T], trouble: Callable[[Exception], Trouble | None]) -> T:
        """What `attempt` returns. `trouble` says of an exception whether another attempt may help; others pass.

        Calls within `attempt` may insist too: the time is that since the first of them failed. Raises NoAnswerError.
        """
        tell_at = 0.0
        while True:
            try:
                found = attempt()
            except Exception as error:
                why = trouble(error)
                if why is None:
                    raise
                waited, limit = self._waited(), min(self.wait_s, REFUSED_S) if why.refused else self.wait_s
                if self.hasty or waited >= limit:
                    raise NoAnswerError(self._given_up(why, waited), why) from error
                if waited >= tell_at:
                    logging.getLogger("posegrid").warning(
                        f"{self.where} {'refuses' if why.refused else 'does not answer'} since {waited:.0f} s "
                        f"({why.reason}); waiting for up to {limit - waited:.0f} s more"
                    )
                    tell_at = waited + _TELL_EVERY_S
                self.sleep(min(1 + waited / 10, 10, limit - waited))
            else:
                if not self.hasty:
                    self._since = None
                return found

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For the time of a block, one attempt for each call."""
        before, self.hasty = self.hasty, True
        try:
            yield
        finally:
            self.hasty = before

    def _waited(self) -> float:
        if self.hasty:
            return 0.0
        now = self.clock()
        self._since = now if self._since is None else self._since
        return now - self._since

    def _given_up(self, why: Trouble, waited: float) -> str:
        for_long = f" for {waited:.0f} s" if waited else ""
        if full(why.reason):
            return (
                f"{self.where} could not write{for_long} ({why.reason}); it was set with --tracking or --home. Its "
                "disk, or that of its artifacts, takes no more. Free space there, then repeat the command: what is "
                "done is kept, unfinished runs continue."
            )
        if why.refused:
            return (
                f"{self.where} answered with an error of its own{for_long} ({why.reason}); it was set with --tracking. "
                "Its log names the cause; often the disk or bucket of its artifacts takes nothing more. Mend that, "
                "then repeat the command: what is done is kept, unfinished runs continue."
            )
        return (
            f"{self.where} does not answer{for_long} ({why.reason}); it was set with --tracking, and {WAIT} sets how "
            f"many seconds to wait for it (now {self.wait_s:g}). Start it, then repeat the command: what is done is "
            "kept, unfinished runs continue."
        )


class PatientCalls:
    """The methods of a client, each call made again as patience has it."""

    def __init__(
        self,
        client: Any,
        patience: Patience,
        trouble: Callable[[Exception], Trouble | None],
        settings: dict[str, str],
        hasty_settings: dict[str, str],
        once: tuple[str, ...],
    ) -> None:
        """settings: environment variables for the time of a call, which the client reads then; `hasty_settings` as well
        where patience is hasty. once: methods that are never called again, because it would matter.
        """
        self._client, self._patience, self._trouble = client, patience, trouble
        self._settings, self._hasty_settings, self._once = settings, hasty_settings, once

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)

        def insisting(*given: Any, **named: Any) -> Any:
            settings = self._settings | (self._hasty_settings if self._patience.hasty else {})

            def attempt() -> Any:
                with environment(settings):
                    return call(*given, **named)

            with self._patience.at_once() if name in self._once else nullcontext():
                return self._patience.insist(attempt, self._trouble)

        return insisting


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the time of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)  # threads end this in any order
            else:
                os.environ[name] = value
