"""Downloads against a local server that breaks connections, forgets ranges, changes files and sends pages instead."""

import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
from download_server import AMC, Clock, Server, downloader, get, leftovers

from posegrid.datasets.fetching.transfer import Manners, NotThereError


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
