"""A local server that breaks connections, forgets ranges, changes files and sends pages instead; time that only sleeps.

Its fixtures are made known to the tests of downloads by tests/datasets/conftest.py.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from posegrid.datasets.fetching.transfer import Downloader, Manners

AMC = b"#!OML:ASF made up\r\n:FULLY-SPECIFIED\r\n:DEGREES\r\n" + b"".join(
    b"%d\r\nroot 1 2 3 4 5 6\r\n" % frame for frame in range(1, 9000)
)
ASF = b"# made up\r\n:version 1.10\r\n:root\r\n  order TX TY TZ RX RY RZ\r\n"


@dataclass
class Request:
    path: str
    headers: dict[str, str]


@dataclass
class Server:
    """A server whose answers are played from a list; what the list does not cover is answered well."""

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = '"one"'
    plan: list[Callable[[BaseHTTPRequestHandler, bytes], None]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    address: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        self.requests.append(Request(handler.path, dict(handler.headers)))
        try:
            content = self.files.get(handler.path)
            if self.plan:
                self.plan.pop(0)(handler, content or b"")
            elif content is None:
                handler.send_error(404)
            else:
                self.send(handler, content)
        finally:
            self.busy -= 1

    def send(self, handler, content: bytes, *, cut: int | None = None, ranges: bool = True, kind: str = "text/plain"):
        """Answer as a web server does: ranges under If-Range, and the connection broken after `cut` bytes."""
        asked, start = handler.headers.get("Range", ""), 0
        if ranges and asked and handler.headers.get("If-Range") == self.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(content)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content) - start))
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        handler.wfile.write(content[start : None if cut is None else start + cut])

    def cut(self, size: int, **options):
        return lambda handler, content: self.send(handler, content, cut=size, **options)

    def status(self, code: int, **headers: str):
        def play(handler, content: bytes) -> None:
            handler.send_response(code)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        return play


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds, self.slept = 0.0, []

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.seconds += seconds

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def downloader(clock: Clock, say=lambda line: None, **manners) -> Downloader:
    manners = {"pause_s": 1.0, "connect_s": 5.0, "read_s": 5.0, **manners}
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Downloader(Manners(**manners), say=say, sleep=clock.sleep, clock=clock, now=lambda: now)


def get(server: Server, clock: Clock, target: Path, **manners) -> list[str]:
    said: list[str] = []
    with downloader(clock, said.append, **manners) as loader:
        loader.file(f"{server.address}/file", target)
    return said


def leftovers(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.fixture
def target(tmp_path: Path, server: Server) -> Path:
    server.files["/file"] = AMC
    return tmp_path / "file"
