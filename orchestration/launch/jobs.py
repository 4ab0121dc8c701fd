"""Submit a command to a cluster as a job, follow its log, come back to it later.

To be used within `cluster.cluster_environment`: Ray reads the token's mode when it is imported.
"""

import asyncio
import shlex
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

_PATIENCE_S = 120.0
"""How long the dashboard may stay away before following gives up; the job goes on anyway."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a job ended."""

    job: str
    status: str
    """Ray's status: SUCCEEDED, FAILED or STOPPED."""
    exit_status: int
    """Exit status of its command; 1 if it had none."""
    message: str


class Jobs:
    """The jobs of the cluster whose dashboard answers at an address such as http://127.0.0.1:8265."""

    def __init__(self, address: str) -> None:
        """Connect. Raises ValueError if no dashboard answers there, or it refuses the token."""
        from ray.job_submission import JobSubmissionClient

        self._address = address
        try:
            self._client = JobSubmissionClient(address)
        except Exception as error:  # Ray passes on whatever requests and its token check raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(
                f"no Ray dashboard can be used at {address} ({reason}); it was set with --address or --cluster. "
                "Allowed: the address of a dashboard, whose token lies in ~/.ray/auth_token here too. Start the "
                "cluster with `ray up`, or open a tunnel to it (`posegrid ui --cluster cluster.yaml`)."
            ) from None

    def submit(self, arguments: list[str], folder: Path) -> str:
        """Run `posegrid ARGUMENTS` on the head, with a folder (see `wheel.pack`) that all its processes get.

        Returns the id of the job.
        """
        entrypoint = shlex.join(["python", "-m", "posegrid.experiments.cli", *arguments])
        return self._client.submit_job(
            entrypoint=entrypoint,
            runtime_env={"working_dir": str(folder)},
            metadata={"posegrid": " ".join(arguments)},
        )

    def stop(self, job: str) -> None:
        """Ask a job to end."""
        self._known(job)
        self._client.stop_job(job)

    def follow(self, job: str, show: Callable[[str], None]) -> Ended:
        """Show the log of a job from its beginning until the job ends; a connection that breaks is made again.

        Raises ValueError for an unknown job, ConnectionError if the cluster stays away.
        """
        self._known(job)
        log = _Log(show)
        lost: float | None = None
        while True:
            try:
                asyncio.run(self._tail(job, log))
                info = self._client.get_job_info(job)
                lost = None
            except (RuntimeError, OSError) as error:  # requests' and aiohttp's errors are OSErrors
                lost = lost or time.monotonic()
                if time.monotonic() - lost > _PATIENCE_S:
                    raise ConnectionError(
                        f"the dashboard at {self._address} has not answered for {_PATIENCE_S:g} s ({error})"
                    ) from None
                time.sleep(2)
                continue
            if info.status.is_terminal():
                status = str(info.status.value)
                code = _exit_status(status, info.driver_exit_code)
                return Ended(job=job, status=status, exit_status=code, message=info.message or "")
            time.sleep(1)

    async def _tail(self, job: str, log: "_Log") -> None:
        log.begin()
        lines = cast("AsyncGenerator[str, None]", self._client.tail_job_logs(job))
        async with aclosing(lines) as following:
            async for text in following:
                log.take(text)

    def _known(self, job: str) -> None:
        try:
            self._client.get_job_info(job)
        except RuntimeError as error:
            known = sorted(one.submission_id or "" for one in self._client.list_jobs())
            raise ValueError(
                f"the cluster at {self._address} has no job {job} ({str(error).splitlines()[0]}); it was set with "
                f"--attach or --stop. Known: {', '.join(filter(None, known)) or 'none'}. Jobs are forgotten when the "
                "head restarts: submit the command again, it continues where it was."
            ) from None


class _Log:
    """Shows a log once, although it is read from its beginning after every lost connection."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._shown = 0
        self._passed = 0

    def begin(self) -> None:
        self._passed = 0

    def take(self, text: str) -> None:
        new = text[max(0, self._shown - self._passed) :]
        self._passed += len(text)
        if new:
            self._shown = self._passed
            self._show(new)


def _exit_status(status: str, code: int | None) -> int:
    if status == "SUCCEEDED":
        return 0
    return code if code is not None and 0 < code < 256 else 1
