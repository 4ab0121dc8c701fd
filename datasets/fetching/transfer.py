"""Polite, resumable download of single files over HTTP.

A file is written to `NAME.part` and renamed when its length is what the server said, its content is what was expected
and its checksum is written down. `NAME.part.json` beside it holds what the server calls this version of the file (ETag
or date of change), so that a continued download never mixes two versions. One connection, one request after the other,
with a pause between them. Names of files come from the caller, never from a server.
"""

import email.utils
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

USER_AGENT = "posegrid (research software, one connection at a time)"

_PIECE = 4096
"""Bytes written at a time; a connection that breaks within a piece loses what came of it, so it is small."""
_RETRIED = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How hard a server may be asked."""

    pause_s: float = 1.0
    """Least time between the end of a request and the begin of the next."""
    attempts: int = 5
    """Requests without progress before giving up."""
    requests: int = 30
    """Requests for one file, however much each of them brings."""
    first_wait_s: float = 2.0
    """Wait after the first failure; doubled after each further one."""
    longest_wait_s: float = 120.0
    """Longest wait; a server that asks for a longer one is left alone."""
    connect_s: float = 15.0
    """Seconds until a connection must stand."""
    read_s: float = 60.0
    """Seconds without a byte until a connection counts as broken."""
    largest_file: int = 256 << 20
    """Bytes of a single file beyond which it is refused."""
    largest_total: int = 8 << 30
    """Bytes of all files of one `Downloader` beyond which no more are fetched."""

    def __post_init__(self) -> None:
        for name in ("pause_s", "first_wait_s", "longest_wait_s"):
            if not 0 <= getattr(self, name) <= 3600:
                raise ValueError(f"{name} = {getattr(self, name)} of a download: expected 0 to 3600 s. Correct it.")


class NotThereError(ValueError):
    """The server answers, and does not have this address."""


class _BrokenError(Exception):
    """A request that failed in a way that may pass; `wait_s` is what the server asked for."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Downloader:
    """One connection to servers that are asked politely. `sleep` and `clock` are arguments for tests."""

    def __init__(
        self,
        manners: Manners | None = None,
        *,
        say: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.manners, self.say = manners or Manners(), say
        self.total = 0
        """Bytes received so far."""
        self._sleep, self._clock, self._now = sleep, clock, now
        self._ended: float | None = None
        self._session = requests.Session()
        self._session.max_redirects = 5
        # identity: lengths, ranges and checksums are about the file's own bytes
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})

    def __enter__(self) -> "Downloader":
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def text(self, url: str, *, limit: int = 4 << 20) -> str:
        """A page as text. Raises ValueError like `file`, and if it is longer than `limit` bytes."""

        def once() -> str:
            with self._request(url, {}) as response:
                _refuse_unless(response, url, 200)
                content = bytearray()
                for piece in self._pieces(response):
                    content += piece
                    if len(content) > limit:
                        raise ValueError(f"{url} is longer than {limit:,} bytes, which no list of files is.")
                return content.decode("utf-8", errors="replace")

        return self._stubbornly(url, once, lambda: 0)

    def file(
        self,
        url: str,
        target: Path,
        *,
        check: Callable[[Path], None] = lambda path: None,
        record: Callable[[str], None] = lambda digest: None,
    ) -> None:
        """Download `url` to `target`, continuing what an earlier attempt left.

        check: called with the finished file under its temporary name; raises ValueError if the content is not what was
        wanted, and the file is discarded. record: called with its sha256 before it gets its name.
        Raises ValueError if the server cannot be reached, refuses, sends a page instead of a file, something else than
        the length that it announced, or more than allowed. What was received is kept for the next attempt, unless it
        is known to be wrong.
        """
        part = part_of(target)
        part.parent.mkdir(parents=True, exist_ok=True)
        self._stubbornly(url, lambda: self._fetch(url, part), lambda: _size(part))
        try:
            check(part)
        except ValueError:  # it is whole and wrong: nothing of it is worth keeping
            _discard(part)
            raise
        record(sha256(part))
        os.replace(part, target)
        _state_file(part).unlink(missing_ok=True)

    def _fetch(self, url: str, part: Path) -> None:
        """One request for what is missing of a file. Returns when `part` is complete."""
        known = _state(part) if part.exists() else {}
        have, validator = _size(part), known.get("validator", "")
        if have and known.get("url") == url and have == known.get("length"):
            return
        if not have or not validator or known.get("url") != url:
            have = 0
        headers = {"Range": f"bytes={have}-", "If-Range": validator} if have else {}
        with self._request(url, headers) as response:
            if response.status_code == 416:
                _discard(part)
                raise _BrokenError("the server does not have the part that is missing; starting over")
            _refuse_unless(response, url, 200, 206)
            kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
            if kind in ("text/html", "application/xhtml+xml"):
                raise ValueError(
                    f"{url}: the server sent a web page ({kind}) instead of the file. A login page of the network may "
                    "stand in between, or the address is wrong: open it in a browser, or give another --mirror."
                )
            length = self._length(url, response, have if response.status_code == 206 else 0)
            if response.status_code == 206:
                start, total = _range(response.headers.get("Content-Range", ""))
                if start != have or total != known.get("length") or _validator(response) not in ("", validator):
                    _discard(part)
                    raise _BrokenError("the server continued another version of the file; starting over")
            else:
                have = 0
                _discard(part)
                state = {"url": url, "validator": _validator(response), "length": length}
                write_whole(_state_file(part), json.dumps(state))
            self._append(url, response, part, have, length)

    def _append(self, url: str, response: requests.Response, part: Path, have: int, length: int | None) -> None:
        limit = self.manners.largest_file
        with part.open("ab" if have else "wb") as stream:
            for piece in self._pieces(response):
                have += len(piece)
                if have > limit or (length is not None and have > length):
                    stream.close()
                    _discard(part)
                    allowed = f"{limit:,} bytes are allowed" if have > limit else f"{length:,} bytes were announced"
                    raise ValueError(f"{url}: the server sends more than {have:,} bytes, {allowed}. Nothing was kept.")
                if self.total > self.manners.largest_total:
                    raise ValueError(
                        f"{url}: more than {self.manners.largest_total:,} bytes were received, the limit of one "
                        "command. Repeat it to go on, or raise the limit."
                    )
                stream.write(piece)
        if length is not None and have != length:
            raise _BrokenError(f"the connection ended after {have:,} of {length:,} bytes")

    def _length(self, url: str, response: requests.Response, have: int) -> int | None:
        """Length of the whole file in bytes; None if it comes in chunks, which tell their end themselves."""
        text = response.headers.get("Content-Length", "")
        if not text.isdecimal():
            if response.headers.get("Transfer-Encoding", "").lower() == "chunked":
                return None
            raise ValueError(
                f"{url}: the server does not say how long the file is, so nobody could tell whether it arrived whole. "
                "Give another --mirror."
            )
        length = have + int(text)
        if length > self.manners.largest_file:
            raise ValueError(
                f"{url} has {length:,} bytes, {self.manners.largest_file:,} are allowed for one file. It is not what "
                "was looked for: check the address."
            )
        return length

    def _request(self, url: str, headers: dict[str, str]) -> requests.Response:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"{url}: only http and https addresses are fetched. Correct it.")
        if self._ended is not None:
            self._wait(self._ended + self.manners.pause_s - self._clock())
        try:
            response = self._session.get(
                url, headers=headers, stream=True, timeout=(self.manners.connect_s, self.manners.read_s)
            )
        except (requests.exceptions.InvalidSchema, requests.exceptions.TooManyRedirects) as error:
            raise ValueError(f"{url}: the server redirects to where we do not go ({error}). Check it.") from None
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema) as error:
            raise ValueError(f"{url} is no address ({error}). Correct it.") from None
        except requests.exceptions.RequestException as error:
            raise _BrokenError(_short(error)) from None
        finally:
            self._ended = self._clock()
        if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            response.close()
            raise ValueError(f"{url}: the server sends it packed, though it was asked not to. Give another --mirror.")
        if response.status_code in _RETRIED:
            wait = self._retry_after(response.headers.get("Retry-After", ""))
            response.close()
            raise _BrokenError(f"the server answered {response.status_code} {response.reason}", wait)
        return response

    def _pieces(self, response: requests.Response) -> Any:
        """The body; a connection that breaks is a `_BrokenError`."""
        try:
            for piece in response.iter_content(_PIECE):
                self.total += len(piece)
                yield piece
        except requests.exceptions.RequestException as error:
            raise _BrokenError(_short(error)) from None
        finally:
            self._ended = self._clock()

    def _stubbornly(self, url: str, once: Callable[[], Any], progress: Callable[[], int]) -> Any:
        """Repeat `once` while it fails in ways that may pass: at most `attempts` times without progress."""
        manners, futile, best = self.manners, 0, progress()
        for number in range(1, manners.requests + 1):
            try:
                return once()
            except _BrokenError as error:
                failure = error
            # beginning again is no progress: only what exceeds the most that there ever was counts
            futile, best = (0, progress()) if progress() > best else (futile + 1, best)
            if futile >= manners.attempts or number == manners.requests:
                break
            wait = min(manners.first_wait_s * 2 ** max(futile - 1, 0), manners.longest_wait_s)
            if failure.wait_s is not None:
                if failure.wait_s > manners.longest_wait_s:
                    raise ValueError(
                        f"{url}: {failure}, and asks to come back in {failure.wait_s:.0f} s. Repeat the command then: "
                        "what was received is kept."
                    )
                wait = max(wait, failure.wait_s)
            self.say(f"  {failure}; again in {wait:.0f} s")
            self._wait(wait)
        raise ValueError(
            f"{url} cannot be fetched: {failure} (asked {number} times). Check the network and the address, give a "
            "--mirror, or repeat the command later: what was received is kept."
        )

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)

    def _retry_after(self, text: str) -> float | None:
        """Seconds that a Retry-After header asks for, which holds seconds or a date."""
        if text.strip().isdecimal():
            return float(text)
        try:
            return max((email.utils.parsedate_to_datetime(text) - self._now()).total_seconds(), 0.0)
        except (ValueError, TypeError):
            return None


def sha256(file: Path) -> str:
    """Digest of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def part_of(target: Path) -> Path:
    """Where an unfinished download of `target` lies."""
    return target.with_name(f"{target.name}.part")


def _discard(part: Path) -> None:
    """Remove a part and its description, the part first: alone the description is harmless."""
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)


def _state_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _state(part: Path) -> dict[str, Any]:
    try:
        state = json.loads(_state_file(part).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def write_whole(file: Path, text: str) -> None:
    """Replace a small file at once: it holds the old text or the new one, whatever happens."""
    aside = file.with_name(f"{file.name}.new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, file)


def _refuse_unless(response: requests.Response, url: str, *allowed: int) -> None:
    if response.status_code in allowed:
        return
    kind = NotThereError if response.status_code in (404, 410) else ValueError
    raise kind(
        f"{url}: the server answered {response.status_code} {response.reason}, expected {allowed[0]}. Check the name, "
        "or give another --mirror."
    )


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _validator(response: requests.Response) -> str:
    """What If-Range may hold: a strong ETag or the date of the last change; empty if there is neither."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _range(text: str) -> tuple[int, int]:
    """First byte and length of the whole from a Content-Range header; -1 where it says neither."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", text.strip())
    return (int(found[1]), int(found[2])) if found else (-1, -1)


def _short(error: Exception) -> str:
    """The innermost reason of an error of the HTTP library, without its wrapping."""
    text = re.sub(r"<[^>]*>|\w*\(host=|HTTPConnectionPool|\bobject at 0x\w+", "", str(error))
    reason = re.search(r"\[Errno[^\]]*\] ([^'\")]+)", text)
    return f"no connection ({reason[1].strip()})" if reason else f"the connection broke ({type(error).__name__})"
