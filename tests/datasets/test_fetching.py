"""Downloads against a local server that breaks connections, forgets ranges, changes files and sends pages instead."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets.fetching import cmu as fetch_cmu
from posegrid.datasets.fetching.cmu import fetch, numbers_of
from posegrid.datasets.fetching.transfer import Downloader, Manners, NotThereError

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "cmu" / "asfamc"
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


def test_one_request_for_a_whole_file(server: Server, clock: Clock, target: Path) -> None:
    get(server, clock, target)
    assert target.read_bytes() == AMC
    assert leftovers(target.parent) == {"file"}
    [request] = server.requests
    assert request.headers["User-Agent"].startswith("posegrid")
    assert request.headers["Accept-Encoding"] == "identity"
    assert "Range" not in request.headers
    assert clock.slept == []


def test_broken_connections_are_continued(server: Server, clock: Clock, target: Path) -> None:
    server.plan = [server.cut(49_152), server.cut(20_480), server.cut(5_000)]
    said = get(server, clock, target)
    assert target.read_bytes() == AMC
    # whole pieces of 4 KiB are kept
    assert [request.headers.get("Range") for request in server.requests] == [
        None, "bytes=49152-", "bytes=69632-", "bytes=73728-",
    ]  # fmt: skip
    assert {request.headers.get("If-Range") for request in server.requests[1:]} == {'"one"'}
    assert len(said) == 3
    # every request brought something, so each wait is the first one
    assert clock.slept == [2.0, 2.0, 2.0]


def test_random_breaks_give_the_same_bytes(server: Server, clock: Clock, target: Path) -> None:
    generator = np.random.default_rng(5)
    kinds = generator.integers(0, 4, 12)
    sizes = generator.integers(0, 30_000, 12)
    server.plan = [
        [
            server.cut(int(size)),
            server.cut(int(size), ranges=False),
            server.status(503),
            lambda handler, content: handler.connection.close(),
        ][kind]
        for kind, size in zip(kinds, sizes, strict=True)
    ]
    get(server, clock, target, attempts=15)
    assert target.read_bytes() == AMC
    assert len(server.requests) <= 13
    assert server.most_busy == 1


def test_server_without_ranges_starts_over(server: Server, clock: Clock, target: Path) -> None:
    server.plan = [server.cut(50_000), lambda handler, content: server.send(handler, content, ranges=False)]
    get(server, clock, target)
    assert target.read_bytes() == AMC
    assert len(server.requests) == 2


def test_without_a_validator_nothing_is_continued(server: Server, clock: Clock, target: Path) -> None:
    server.etag = ""
    server.plan = [server.cut(50_000)]
    get(server, clock, target)
    assert target.read_bytes() == AMC
    assert "Range" not in server.requests[1].headers
    server.etag = 'W/"weak"'
    server.plan = [server.cut(50_000)]
    get(server, clock, target.with_name("second"))
    assert "Range" not in server.requests[3].headers


def test_file_that_changed_meanwhile_is_fetched_anew(server: Server, clock: Clock, target: Path) -> None:
    def changes(handler, content: bytes) -> None:
        server.send(handler, content, cut=50_000)
        server.etag, server.files["/file"] = '"two"', b":new" + AMC

    server.plan = [changes]
    get(server, clock, target)
    assert target.read_bytes() == b":new" + AMC


@pytest.mark.parametrize("lie", ["etag", "start", "length"])
def test_server_that_ignores_if_range_cannot_mix_versions(server: Server, clock: Clock, target: Path, lie: str) -> None:
    def foreign(handler, content: bytes) -> None:
        start = {"start": 45_056}.get(lie, 49_152)
        total = len(content) + (5 if lie == "length" else 0)
        body = b"x" * (total - start)
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", '"two"' if lie == "etag" else server.etag)
        handler.end_headers()
        handler.wfile.write(body)

    server.plan = [server.cut(49_152), foreign]
    get(server, clock, target)
    assert target.read_bytes() == AMC
    assert len(server.requests) == 3


def test_a_later_command_continues(server: Server, clock: Clock, target: Path) -> None:
    server.plan = [server.cut(69_632), *[server.status(500)] * 9]
    with pytest.raises(ValueError, match=r"500 .*asked \d+ times.*what was received is kept"):
        get(server, clock, target)
    assert not target.exists()
    assert leftovers(target.parent) == {"file.part", "file.part.json"}
    asked = len(server.requests)
    server.plan = []
    get(server, clock, target)
    assert target.read_bytes() == AMC
    assert [request.headers["Range"] for request in server.requests[asked:]] == ["bytes=69632-"]
    assert leftovers(target.parent) == {"file"}


def test_interruption_and_kill_leave_what_can_be_continued(server: Server, clock: Clock, target: Path) -> None:
    with downloader(clock) as loader:
        pieces = loader._pieces

        def interrupted(response):
            yield next(pieces(response))
            raise KeyboardInterrupt

        loader._pieces = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            loader.file(f"{server.address}/file", target)
    assert not target.exists()
    part = target.with_name("file.part")
    assert 0 < part.stat().st_size < len(AMC)
    # a kill loses what was not written yet: any shorter prefix continues as well
    part.write_bytes(part.read_bytes()[:1234])
    get(server, clock, target)
    assert target.read_bytes() == AMC
    assert server.requests[-1].headers["Range"] == "bytes=1234-"


def test_process_that_is_killed(server: Server, clock: Clock, target: Path) -> None:
    hold = threading.Event()

    def stalls(handler, content: bytes) -> None:
        server.send(handler, content, cut=80_000)
        handler.wfile.flush()
        hold.wait(30)

    server.plan = [stalls]
    code = (
        "from pathlib import Path; from posegrid.datasets.fetching.transfer import Downloader\n"
        f"Downloader().file({server.address + '/file'!r}, Path({str(target)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    part = target.with_name("file.part")
    try:
        for _ in range(600):
            if part.exists() and part.stat().st_size:
                break
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
        hold.set()
    have = part.stat().st_size
    assert 0 < have <= 80_000
    assert part.read_bytes() == AMC[:have]
    get(server, clock, target)
    assert target.read_bytes() == AMC
    assert server.requests[-1].headers["Range"] == f"bytes={have}-"


def test_complete_part_needs_no_request(server: Server, clock: Clock, target: Path) -> None:
    state = {"url": f"{server.address}/file", "validator": '"one"', "length": len(AMC)}
    target.with_name("file.part").write_bytes(AMC)
    target.with_name("file.part.json").write_text(json.dumps(state))
    get(server, clock, target)
    assert target.read_bytes() == AMC
    assert not server.requests


@pytest.mark.parametrize("state", [None, "", "[]", "{}", '{"url": "http://elsewhere/file", "validator": "\\"one\\""}'])
def test_part_of_unknown_origin_is_not_continued(server: Server, clock: Clock, target: Path, state: str | None) -> None:
    target.with_name("file.part").write_bytes(b"something else")
    if state is not None:
        target.with_name("file.part.json").write_text(state)
    get(server, clock, target)
    assert target.read_bytes() == AMC
    assert "Range" not in server.requests[0].headers


def test_part_that_is_longer_than_the_file(server: Server, clock: Clock, target: Path) -> None:
    state = {"url": f"{server.address}/file", "validator": '"one"', "length": len(AMC)}
    target.with_name("file.part").write_bytes(AMC + b"more")
    target.with_name("file.part.json").write_text(json.dumps(state))
    get(server, clock, target)
    assert target.read_bytes() == AMC
    assert len(server.requests) == 2  # 416, then the whole file


def test_waits_double_and_requests_are_bounded(server: Server, clock: Clock, target: Path) -> None:
    server.plan = [server.status(503)] * 100
    with pytest.raises(ValueError, match=r"503 Service Unavailable.*asked 5 times"):
        get(server, clock, target)
    assert len(server.requests) == 5
    assert clock.slept == [2.0, 4.0, 8.0, 16.0]
    server.requests.clear()
    clock.slept.clear()
    server.plan = [server.cut(5_000)] * 100
    with pytest.raises(ValueError, match="asked 7 times"):
        get(server, clock, target, requests=7)
    assert len(server.requests) == 7
    server.plan = [server.cut(5_000, ranges=False)] * 100
    with pytest.raises(ValueError, match="asked"):
        get(server, clock, target.with_name("other"), attempts=3)
    assert len(server.requests) <= 7 + 4  # beginning again and again is no progress


def test_retry_after_is_obeyed(server: Server, clock: Clock, target: Path) -> None:
    later = format_datetime(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=45), usegmt=True)
    server.plan = [
        server.status(429, Retry_After="33"),
        server.status(503, Retry_After=later),
        server.status(503, Retry_After="soon"),
        server.status(503, Retry_After="0"),
    ]
    get(server, clock, target)
    assert clock.slept == [33.0, 45.0, 8.0, 16.0]
    server.plan = [server.status(429, Retry_After="7200")]
    with pytest.raises(ValueError, match="come back in 7200 s"):
        get(server, clock, target.with_name("other"))
    assert len(server.requests) == 6


def test_pauses_between_files(server: Server, clock: Clock, target: Path) -> None:
    with downloader(clock, pause_s=1.5) as loader:
        for number in range(4):
            loader.file(f"{server.address}/file", target.with_name(f"file{number}"))
            clock.seconds += 0.5 if number == 1 else 0.0  # time that passed otherwise counts
    assert clock.slept == [1.5, 1.0, 1.5]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_refusals_are_not_repeated(server: Server, clock: Clock, target: Path, code: int) -> None:
    server.plan = [server.status(code)]
    with pytest.raises(ValueError, match=f"answered {code} ") as caught:
        get(server, clock, target)
    assert isinstance(caught.value, NotThereError) == (code in (404, 410))
    assert len(server.requests) == 1
    assert not leftovers(target.parent)


def test_pages_sizes_packing_and_unknown_lengths_are_refused(server: Server, clock: Clock, target: Path) -> None:
    def answer(length: int | None, body: bytes, **headers: str):
        def play(handler, content: bytes) -> None:
            handler.send_response(200)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            if length is not None:
                handler.send_header("Content-Length", str(length))
            handler.end_headers()
            handler.wfile.write(body)

        return play

    for play, expected in (
        (answer(5, b"<html", Content_Type="text/html; charset=utf-8"), "sent a web page"),
        (answer(None, b"123"), "does not say how long"),
        (answer(5_000, b"1" * 5_000), "5,000 bytes, 4,096 are allowed"),
        (answer(None, b"1388\r\n" + b"1" * 5_000 + b"\r\n0\r\n\r\n", Transfer_Encoding="chunked"), "4,096 bytes"),
        (answer(3, b"123", Content_Encoding="gzip"), "packed"),
    ):
        server.plan = [play]
        with pytest.raises(ValueError, match=expected):
            get(server, clock, target, largest_file=4096)
        assert not target.exists()
        assert not target.with_name("file.part").exists()
    assert len(server.requests) == 5


def test_chunks_tell_their_end(server: Server, clock: Clock, target: Path) -> None:
    def chunked(complete: bool):
        def play(handler, content: bytes) -> None:
            handler.protocol_version = "HTTP/1.1"
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.wfile.write(b"4\r\nhead\r\n" + (b"4\r\ntail\r\n0\r\n\r\n" if complete else b""))

        return play

    server.plan = [chunked(False), chunked(True)]
    get(server, clock, target)
    assert target.read_bytes() == b"headtail"
    assert len(server.requests) == 2


def test_limit_of_all_bytes(server: Server, clock: Clock, target: Path) -> None:
    with downloader(clock, largest_total=len(AMC) + 10) as loader:
        loader.file(f"{server.address}/file", target)
        with pytest.raises(ValueError, match="limit of one command"):
            loader.file(f"{server.address}/file", target.with_name("second"))


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/file", "gopher://x/1"])
def test_redirects_stay_with_http(server: Server, clock: Clock, target: Path, to: str) -> None:
    server.plan = [server.status(302, Location=to)]
    with pytest.raises(ValueError, match="redirects to where we do not go"):
        get(server, clock, target)
    assert not leftovers(target.parent)
    with pytest.raises(ValueError, match="only http and https"), downloader(clock) as loader:
        loader.file(to, target)
    server.plan = [server.status(302, Location="/moved")]
    server.files["/moved"] = AMC
    get(server, clock, target)
    assert target.read_bytes() == AMC
    server.plan = [server.status(302, Location="/file")] * 50
    with pytest.raises(ValueError, match="redirects"):
        get(server, clock, target.with_name("circle"))
    assert len(server.requests) < 12


def test_server_that_is_not_there(clock: Clock, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no connection \(Connection refused\).*asked 5 times.*--mirror"):
        get(Server(address="http://127.0.0.1:9"), clock, tmp_path / "file")
    with pytest.raises(ValueError, match="is no address"), downloader(clock) as loader:
        loader.file("http://", tmp_path / "file")
    with pytest.raises(ValueError, match="pause_s = -1"):
        Manners(pause_s=-1)


# --------------------------------------------------------------------------------------------------------------------
# The CMU database
# --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(server: Server) -> Server:
    """Subject 07 with three takes; a page that links to them and to much else."""
    for name, content in (("07.asf", ASF), ("07_01.amc", AMC), ("07_02.amc", AMC[:5000]), ("07_12.amc", AMC[:700])):
        server.files[f"/subjects/07/{name}"] = content
    links = [
        "subjects/07/07.asf", "/subjects/07/07_01.amc", f"{server.address}/subjects/07/07_02.AMC", "07_12.amc?x=1",
        "subjects/07/07_01.amc", "subjects/07/07_01.c3d", "subjects/08/08_01.amc", "../../../etc/07_99.amc.exe",
        "subjects/07/07_00.amc", "javascript:void(0)", "..%2f..%2f07_4444.amc",
    ]  # fmt: skip
    page = "<html><body><a name=top><p>&nbsp;<A HREF='" + "'>x</a><br><a href='".join(links) + "'>last</a><a"
    server.files["/search.php?subjectnumber=7"] = page.encode()
    return server


def fetched(server: Server, clock: Clock, out: Path, *which, **manners):
    with downloader(clock, **manners) as loader:
        return fetch(loader, out, *which, mirror=server.address + "/")


def test_takes_are_read_from_the_subjects_page(database: Server, clock: Clock, tmp_path: Path) -> None:
    done = fetched(database, clock, tmp_path / "raw", [7])
    assert (done.fetched, done.there) == (4, 0)
    got = {file.name: file.read_bytes() for file in (tmp_path / "raw" / "07").iterdir()}
    assert got == {"07.asf": ASF, "07_01.amc": AMC, "07_02.amc": AMC[:5000], "07_12.amc": AMC[:700]}
    assert len(database.requests) == 5
    assert clock.slept == [1.0] * 4
    assert done.received == sum(len(content) for content in database.files.values())
    lines = (tmp_path / "raw" / "SHA256SUMS").read_text().splitlines()
    assert lines == [f"{hashlib.sha256(content).hexdigest()}  07/{name}" for name, content in sorted(got.items())]


def test_repetition_verifies_without_requests_for_files(database: Server, clock: Clock, tmp_path: Path) -> None:
    fetched(database, clock, tmp_path, [7], [1, 2])
    before = len(database.requests)
    done = fetched(database, clock, tmp_path, [7], [1, 2])
    assert (done.fetched, done.there, done.received) == (0, 3, 0)
    assert len(database.requests) == before
    file = tmp_path / "07" / "07_02.amc"
    file.write_bytes(AMC[:4000])
    with pytest.raises(ValueError, match=r"07_02\.amc is not what was fetched.*Remove the file"):
        fetched(database, clock, tmp_path, [7], [1, 2])
    assert file.read_bytes() == AMC[:4000]
    file.unlink()
    assert fetched(database, clock, tmp_path, [7], [1, 2]).fetched == 1
    assert file.read_bytes() == AMC[:5000]


def test_a_broken_command_is_continued_by_the_next(database: Server, clock: Clock, tmp_path: Path) -> None:
    takes = ([7], [1])
    database.plan = [lambda handler, content: database.send(handler, content), database.cut(61_440)]
    database.plan += [database.status(503)] * 9
    with pytest.raises(ValueError, match=r"07_01\.amc cannot be fetched: the server answered 503"):
        fetched(database, clock, tmp_path, *takes)
    database.plan = []
    assert fetched(database, clock, tmp_path, *takes).fetched == 1
    assert (tmp_path / "07" / "07_01.amc").read_bytes() == AMC
    assert database.requests[-1].headers["Range"] == "bytes=61440-"
    assert leftovers(tmp_path / "07") == {"07.asf", "07_01.amc"}


def test_kill_between_record_and_rename(
    database: Server, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment at which the checksum is written and the file has not got its name."""

    def killed(*arguments) -> None:
        record(*arguments)
        raise KeyboardInterrupt

    record = fetch_cmu._record
    monkeypatch.setattr(fetch_cmu, "_record", killed)
    with pytest.raises(KeyboardInterrupt):
        fetched(database, clock, tmp_path, [7], [1])
    assert not (tmp_path / "07" / "07.asf").exists()
    monkeypatch.setattr(fetch_cmu, "_record", record)
    assert fetched(database, clock, tmp_path, [7], [1]).fetched == 2
    assert len(database.requests) == 2  # the skeleton was complete
    assert (tmp_path / "07" / "07.asf").read_bytes() == ASF


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\r\n <!DOCTYPE html><html>please log in</html>", "text/plain"),
        (b"<html>please log in</html>", "text/html"),
        (b"\x1f\x8b\x08\x00packed", "application/octet-stream"),
        (ASF, "text/plain"),
        (b"", "text/plain"),
    ],
)
def test_something_else_than_motion(database: Server, clock: Clock, tmp_path: Path, content: bytes, kind: str) -> None:
    database.plan = [
        lambda handler, right: database.send(handler, right),
        lambda handler, right: database.send(handler, content, kind=kind),
    ]
    with pytest.raises(ValueError, match=r"sent a web page|is no AMC file"):
        fetched(database, clock, tmp_path, [7], [1])
    assert leftovers(tmp_path / "07") == {"07.asf"}
    assert len(database.requests) == 2


def test_files_that_are_known_must_be_those(
    database: Server, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "known.json"
    unix = hashlib.sha256(AMC.replace(b"\r\n", b"\n")).hexdigest()
    known.write_text(json.dumps({"07/07_01.amc": unix, "07/07_02.amc": unix}))
    monkeypatch.setattr(fetch_cmu, "_KNOWN", known)
    database.files["/subjects/07/07_01.amc"] = AMC.replace(b"\r\n", b"\n")
    assert fetched(database, clock, tmp_path / "a", [7], [1]).fetched == 2
    with pytest.raises(ValueError, match=r"07_02\.amc: .*differs from the file of the database"):
        fetched(database, clock, tmp_path / "a", [7], [2])
    assert leftovers(tmp_path / "a" / "07") == {"07.asf", "07_01.amc"}
    # files that somebody put there: known ones are taken over, others not
    mine = tmp_path / "b" / "07"
    mine.mkdir(parents=True)
    (mine / "07_01.amc").write_bytes(AMC)
    assert fetched(database, clock, tmp_path / "b", [7], [1]).there == 1
    assert hashlib.sha256(AMC).hexdigest() in (tmp_path / "b" / "SHA256SUMS").read_text()
    (mine / "07_12.amc").write_bytes(AMC[:100])
    with pytest.raises(ValueError, match=r"07_12\.amc was not fetched by this command"):
        fetched(database, clock, tmp_path / "b", [7], [12])


def test_lists_of_takes(database: Server, clock: Clock, tmp_path: Path) -> None:
    database.files["/subjects/07/"] = database.files.pop("/search.php?subjectnumber=7")
    assert fetched(database, clock, tmp_path / "a", [7]).fetched == 4  # a mirror without the page
    database.files["/subjects/07/"] = b"<html><a href='08_01.amc'>another</a>"
    with pytest.raises(ValueError, match=r"no link to an AMC file of subject 07.*--takes 1,2"):
        fetched(database, clock, tmp_path / "b", [7])
    database.files["/subjects/07/"] = b"x" * (5 << 20)
    with pytest.raises(ValueError, match="which no list of files is"):
        fetched(database, clock, tmp_path / "b", [7])
    assert not (tmp_path / "b" / "07").exists()


def test_one_command_at_a_time_and_places_that_cannot_be_written(
    database: Server, clock: Clock, tmp_path: Path
) -> None:
    with fetch_cmu.FileLock(tmp_path / ".fetch.lock"), pytest.raises(ValueError, match="another command is fetching"):
        fetched(database, clock, tmp_path, [7], [1])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot be written"):
        fetched(database, clock, tmp_path / "file", [7], [1])
    (tmp_path / "SHA256SUMS").write_text("nonsense\n")
    with pytest.raises(ValueError, match=r"SHA256SUMS, line 1: 'nonsense' is no checksum"):
        fetched(database, clock, tmp_path, [7], [1])
    assert not database.requests


def test_numbers_on_the_command_line() -> None:
    assert numbers_of("01, 2,135,2", "--subjects") == [1, 2, 135]
    for wrong in ("", "0", "1-5", "../1", "1,,2", "-1", "1234", "\u0661"):
        with pytest.raises(ValueError, match=r"--subjects .*expected numbers"):
            numbers_of(wrong, "--subjects")


@pytest.mark.skipif(not REAL.is_dir(), reason="shared/data/cmu is not there")
def test_shipped_checksums_are_those_of_the_real_files(server: Server, clock: Clock, tmp_path: Path) -> None:
    shipped = json.loads(Path(fetch_cmu.__file__).with_name("cmu_checksums.json").read_text())
    real = {str(file.relative_to(REAL)): file for file in REAL.rglob("*.a??")}
    assert {name: hashlib.sha256(b"\n".join(file.read_bytes().split(b"\r\n"))).hexdigest()
            for name, file in real.items()} == shipped  # fmt: skip
    server.files = {f"/subjects/{name}": real[name].read_bytes() for name in ("02/02.asf", "02/02_03.amc")}
    server.plan = [server.cut(5000), server.cut(2000), server.cut(50_000)]
    assert fetched(server, clock, tmp_path, [2], [3]).fetched == 2
    assert (tmp_path / "02" / "02_03.amc").read_bytes() == real["02/02_03.amc"].read_bytes()
