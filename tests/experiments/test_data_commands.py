"""`posegrid check data` and `posegrid fetch` as a person at a terminal meets them."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import toy

from posegrid.datasets.fetching import transfer
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store_writer import write_store
from posegrid.experiments.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, output and errors of a command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_warnings_do_not_fail_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.write_toy(tmp_path / "store")
    status, out, err = run(capsys, "check", "data", tmp_path / "store")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].endswith("matches")
    assert ["train", "2", "5", "445", "0.1"] in [line.split() for line in lines]
    # limbs that swing on their own are no bones
    assert any(line.startswith("bones over time") and "warning" in line for line in lines)
    assert any(line.startswith("reprojection") and "skipped" in line for line in lines)
    counts = dict(reversed(part.split()) for part in lines[-1].split(", "))
    assert set(counts) == {"ok", "warning", "skipped"}


def test_failed_checks_end_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = toy.sequences()
    poses = sequences[5].poses.copy()
    poses[31, :, 2] *= -1
    sequences[5] = replace(sequences[5], poses=np.ascontiguousarray(poses))
    write_store(tmp_path / "store", sequences, source="toy", source_config={}, skeleton=H36M_17, protocol=toy.PROTOCOL)
    status, out, err = run(capsys, "check", "data", tmp_path / "store")
    assert status == 2
    assert "1 checks failed: depth (" in err
    assert "B/walk 2/0, frame 31, Hip" in err
    assert "1 FAILED" in out


class Quiet(BaseHTTPRequestHandler):
    """Two files and a page, as the database has them."""

    def do_GET(self) -> None:
        content = {
            "/search.php?subjectnumber=5": b"<a href='subjects/05/05_02.amc'>amc</a>",
            "/subjects/05/05.asf": b"# made up\n:root\n",
            "/subjects/05/05_02.amc": b"#!OML\n:FULLY-SPECIFIED\n:DEGREES\n1\n",
        }.get(self.path)
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_fetch(mirror: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("fetch", "cmu", "--subjects", "05", "--out", tmp_path / "raw", "--mirror", mirror, "--pause", "0.01")
    status, out, _ = run(capsys, *command)
    assert status == 0
    assert "05/05_02.amc: 34 bytes (2 of 2)" in out
    assert "2 files fetched, 0 were there" in out
    assert "not to be resold" in out
    assert {file.name for file in (tmp_path / "raw" / "05").iterdir()} == {"05.asf", "05_02.amc"}
    status, out, _ = run(capsys, *command, "--takes", "2")
    assert (status, "0 files fetched, 2 were there and are unchanged; 0 bytes" in out) == (0, True)
    status, _, err = run(capsys, *command, "--takes", "3")
    assert (status, "05_03.amc: the server answered 404" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("cmuu", "--subjects", "1"), 'did you mean "cmu"'),
        (("cmu", "--subjects", "../1"), "expected numbers from 1 to 999"),
        (("cmu", "--subjects", "1", "--takes", "x"), "--takes x: expected numbers"),
        (("cmu", "--subjects", "1", "--pause", "0"), "at least 0.5 s"),
        (("cmu", "--subjects", "1", "--mirror", "file:///data"), "only http and https"),
        (("cmu", "--subjects", "1", "--mirror", "http://127.0.0.1:9"), "no connection (Connection refused)"),
    ],
)
def test_fetch_that_cannot_be(
    arguments: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "Downloader", partial(transfer.Downloader, sleep=lambda seconds: None))
    status, _, err = run(capsys, "fetch", *arguments, "--out", tmp_path / "raw")
    assert status == 2
    assert expected in err
    assert not list(tmp_path.rglob("*.a*"))
