"""`posegrid fetch cmu` against a local copy of the database's pages."""

import hashlib
import json
from pathlib import Path

import pytest
from download_server import AMC, ASF, Clock, Server, downloader, leftovers

from posegrid.datasets.fetching import cmu as fetch_cmu
from posegrid.datasets.fetching.cmu import fetch, numbers_of

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "cmu" / "asfamc"


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
