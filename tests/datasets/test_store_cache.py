"""Stores behind an address: fetched once by each node, verified, shared, never half finished, no secret told."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import toy

from posegrid.datasets import store_cache
from posegrid.datasets.addresses import remote_folder, shown
from posegrid.datasets.store import DESCRIPTION, FRAMES, SEQUENCES, Store, open_store
from posegrid.datasets.store_cache import local_store, publish
from posegrid.datasets.windows import consecutive_windows, gather

SECRET = "wJalrXUtnFEMI"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return toy.write_toy(tmp_path_factory.mktemp("prepared") / "store", frames=300)


@pytest.fixture
def address(store: Store, tmp_path: Path) -> str:
    """A store on a shared disk."""
    where = (tmp_path / "shared" / "toy").as_uri()
    publish(store.path, where)
    return where


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


class ObjectStore:
    """A local S3 server that counts what is asked of it and may answer slowly."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.asked: Counter[str] = Counter()
        self.frames_wait = threading.Event()
        self.frames_wait.set()
        self._count = threading.Lock()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.endpoint = f"127.0.0.1:{self._server.server_port}"

    def _answer(self, environment: dict[str, Any], respond: Callable[..., Any]) -> Any:
        name = environment["PATH_INFO"].rpartition("/")[2]
        if environment["REQUEST_METHOD"] == "GET":
            with self._count:
                self.asked[name] += 1
            if name == FRAMES:
                self.frames_wait.wait(60)
        return self._app(environment, respond)

    def address(self, bucket: str) -> str:
        sign = {"Authorization": "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request"}
        urlopen(Request(f"http://{self.endpoint}/{bucket}", method="PUT", headers=sign)).close()
        place = f"{bucket}/data/toy?endpoint_override={self.endpoint}&scheme=http&region=us-east-1"
        return f"s3://identity:{SECRET}@{place}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def objects() -> Iterator[ObjectStore]:
    pytest.importorskip("moto", reason="moto, the local S3 server of the tests, is not installed")
    server = ObjectStore()
    yield server
    server.close()


WORKER = """
import sys
from pathlib import Path
import numpy as np
from posegrid.datasets.store import open_store
from posegrid.datasets.windows import consecutive_windows, gather
store = open_store(sys.argv[1], verify=False)
keypoints, poses = gather(store, consecutive_windows(store, "test", 27))
print(store.content_hash, store.path.stat().st_ino, float(np.abs(poses).sum()))
"""


def started(cache: Path, *arguments: str, code: str = WORKER) -> subprocess.Popen[str]:
    """A process of the node whose disk holds `cache`."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "POSEGRID_CACHE": str(cache)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> list[str]:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out.split()


def test_two_nodes_fill_their_caches_at_once(objects: ObjectStore, store: Store, tmp_path: Path) -> None:
    address = objects.address("two-nodes")
    assert publish(store.path, address) == store.content_hash
    objects.asked.clear()
    nodes = [tmp_path / "node a", tmp_path / "node b"]
    processes = [(node, started(node, address)) for _ in range(3) for node in nodes]
    answers = [(node, *finished(process)) for node, process in processes]
    assert {content_hash for _, content_hash, _, _ in answers} == {store.content_hash}
    assert len({total for *_, total in answers}) == 1
    # one folder a node, and each was fetched once
    assert len({(node, inode) for node, _, inode, _ in answers}) == 2
    assert objects.asked[FRAMES] == objects.asked[SEQUENCES] == 2
    for node in nodes:
        assert [entry.name for entry in node.iterdir() if not entry.name.startswith(".")] == [store.content_hash]
        assert open_store(node / store.content_hash).content_hash == store.content_hash


def test_killed_fetch_leaves_nothing_that_looks_finished(objects: ObjectStore, store: Store, tmp_path: Path) -> None:
    address, cache = objects.address("killed"), tmp_path / "cache"
    publish(store.path, address)
    objects.asked.clear()
    objects.frames_wait.clear()
    process = started(cache, address)
    try:
        for _ in range(1200):
            if objects.asked[FRAMES]:
                break
            time.sleep(0.05)
        assert objects.asked[FRAMES], process.poll()
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        objects.frames_wait.set()
        process.communicate()
    left = sorted(entry.name for entry in cache.iterdir())
    assert [name.rpartition("-")[0] for name in left] == ["", f".{store.content_hash}.partial"]
    assert open_store(local_store(address, cache)).content_hash == store.content_hash
    assert not list(cache.glob(".*partial*"))


def test_a_store_is_published_description_last(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    half = (tmp_path / "half").as_uri()
    monkeypatch.setattr(store_cache, "_FILES", (FRAMES, "not there"))
    with pytest.raises(ValueError, match="cannot be read or written"):
        publish(store.path, half)
    assert (tmp_path / "half" / FRAMES).exists()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="its upload is not finished"):
        local_store(half, tmp_path / "cache")
    publish(store.path, half)
    assert open_store(local_store(half, tmp_path / "cache")).content_hash == store.content_hash
    other = toy.write_toy(tmp_path / "other", frames=30)
    with pytest.raises(ValueError, match="holds another store"):
        publish(other.path, address)
    flip(other.path / FRAMES)
    with pytest.raises(ValueError, match="does not match"):
        publish(other.path, (tmp_path / "new").as_uri())
    assert not (tmp_path / "new").exists()


def test_folder_is_used_as_it_is(store: Store, tmp_path: Path) -> None:
    assert local_store(store.path, tmp_path / "cache") == store.path
    assert local_store("data/toy", tmp_path / "cache") == Path("data/toy")
    assert not (tmp_path / "cache").exists()


def test_opened_address_gives_the_same_windows(
    store: Store, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSEGRID_CACHE", str(tmp_path / "cache"))
    opened = open_store(address)
    assert opened.address == address
    assert opened.path == tmp_path / "cache" / store.content_hash
    windows = consecutive_windows(store, "test", 27)
    for found, expected in zip(gather(opened, windows), gather(store, windows), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_known_hash_needs_no_second_look(address: str, store: Store, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    local_store(address, cache)
    (tmp_path / "shared" / "toy" / DESCRIPTION).unlink()
    assert local_store(address, cache, content_hash=store.content_hash) == cache / store.content_hash
    with pytest.raises(ValueError, match="no data store at file:///"):
        local_store(address, cache)


def test_another_store_than_planned_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"wanted is 000000000000: it was replaced"):
        local_store(address, tmp_path / "cache", content_hash="0" * 64)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "unseal"])
@pytest.mark.parametrize("name", [FRAMES, SEQUENCES, DESCRIPTION])
def test_damaged_copy_is_fetched_again(address: str, store: Store, tmp_path: Path, damage: str, name: str) -> None:
    cache = tmp_path / "cache"
    file = local_store(address, cache) / name
    if damage == "flip":
        flip(file)
    elif damage == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "remove":
        file.unlink()
    else:
        (file.parent / "fetched.json").unlink()
    assert open_store(local_store(address, cache)).content_hash == store.content_hash
    assert not list(cache.glob(".*partial*"))


def test_damage_that_keeps_size_and_time_is_found_when_asked(address: str, store: Store, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    file = local_store(address, cache) / FRAMES
    before, whole = file.stat(), file.read_bytes()
    flip(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (local_store(address, cache) / FRAMES).read_bytes() != whole
    mended = local_store(address, cache, verify=True)
    assert (mended / FRAMES).read_bytes() == whole
    assert open_store(mended).content_hash == store.content_hash


def test_touched_copy_is_verified_and_kept(address: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    file = local_store(address, cache) / FRAMES
    os.utime(file)
    inode = file.stat().st_ino
    assert (local_store(address, cache) / FRAMES).stat().st_ino == inode


@pytest.mark.parametrize("name", [FRAMES, SEQUENCES, DESCRIPTION])
def test_damaged_source_is_refused(address: str, tmp_path: Path, name: str) -> None:
    flip(tmp_path / "shared" / "toy" / name)
    with pytest.raises(ValueError, match=r"does not match its hash|is damaged|cannot be used|schema version"):
        local_store(address, tmp_path / "cache")
    assert not [entry for entry in (tmp_path / "cache").iterdir() if not entry.name.endswith(".lock")]


def test_source_replaced_while_it_is_copied_is_refused(
    address: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = toy.write_toy(tmp_path / "other", frames=30)
    copy = store_cache._copy

    def copy_then_replace(remote: Any, name: str, target: Path) -> None:
        copy(remote, name, target)
        for file in (FRAMES, SEQUENCES, DESCRIPTION):
            (tmp_path / "shared" / "toy" / file).write_bytes((other.path / file).read_bytes())

    monkeypatch.setattr(store_cache, "_copy", copy_then_replace)
    with pytest.raises(ValueError, match="was replaced while it was copied"):
        local_store(address, tmp_path / "cache")
    monkeypatch.undo()
    assert open_store(local_store(address, tmp_path / "cache")).content_hash == other.content_hash


def test_full_disk_and_unwritable_cache_say_what_to_do(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(ValueError, match=r"GiB left. Make room, or set POSEGRID_CACHE"):
        local_store(address, tmp_path / "cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written .* set POSEGRID_CACHE"):
        local_store(address, tmp_path / "file")


@pytest.mark.parametrize(
    "wrong",
    [
        f"s3://identity:{SECRET}@bucket/toy?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1",
        f"s3://identity:{SECRET}/x@bucket/toy",
        f"s3://identity:{SECRET}@bucket/toy?token={SECRET}",
        f"abfs://box@account.invalid/toy?sas={SECRET}",
        f"ftp://identity:{SECRET}@host/toy",
        f"gs://bucket/toy?other={SECRET}",
    ],
)
def test_what_cannot_be_reached_is_told_without_secrets(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be used|cannot be read or written") as raised:
        local_store(wrong, tmp_path / "cache")
    text = str(raised.value) + shown(wrong)
    assert SECRET not in text
    assert "identity" not in text
    assert wrong.split("://")[0] in text
    assert raised.value.__cause__ is None


def test_secrets_stay_out_of_a_folder_s_name(objects: ObjectStore) -> None:
    address = objects.address("names")
    assert SECRET not in repr(remote_folder(address))
    assert "127.0.0.1" in shown(address)


SHARING = """
import sys
import numpy as np
from posegrid.datasets.store import open_store
store = open_store(sys.argv[1], verify=False)
total = float(sum(array.sum(dtype=np.float64) for array in store.columns))
print(total, flush=True)
sys.stdin.readline()
"""


def test_eight_processes_share_one_copy_of_the_pages(tmp_path: Path) -> None:
    if not Path("/proc/self/smaps").exists():
        pytest.skip("this system does not tell how processes share pages (/proc/PID/smaps)")
    store = toy.write_toy(tmp_path / "store", frames=6000)
    size = (store.path / FRAMES).stat().st_size
    processes = [started(tmp_path, str(store.path), code=SHARING) for _ in range(8)]
    try:
        totals = {process.stdout.readline() for process in processes if process.stdout}
        assert len(totals) == 1
        resident, shared = zip(*(mapped(process.pid, store.path / FRAMES) for process in processes), strict=True)
    finally:
        for process in processes:
            process.communicate("\n")
    # each sees all of the file, all of them together hold it once; the pytest process maps some of it too
    assert min(resident) > 0.95 * size
    assert 0.8 * size < sum(shared) < 1.05 * size


def mapped(process: int, file: Path) -> tuple[int, int]:
    """Resident bytes of a mapped file in a process, and its proportional share of them."""
    resident = shared = 0
    inside = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(file))
        elif inside and line.startswith("Rss:"):
            resident += 1024 * int(line.split()[1])
        elif inside and line.startswith("Pss:"):
            shared += 1024 * int(line.split()[1])
    return resident, shared
