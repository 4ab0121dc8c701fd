"""Preparation: the same store from any number of processes, in any order, after any interruption."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import h36m_files
import numpy as np
import pytest
from filelock import FileLock

from posegrid.datasets import store_writer
from posegrid.datasets.executors import WAITING_EACH, in_processes
from posegrid.datasets.prepare import Progress, prepare
from posegrid.datasets.sources import h36m, synthetic
from posegrid.datasets.store import open_store

OPTIONS = {"seconds": 1.0, "actions": ["walk", "wave"], "train_subjects": 2, "test_subjects": 1}
RECORDINGS = 6


@pytest.fixture(autouse=True)
def bare_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """New processes import the main module, which would be pytest."""
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))


def beside(target: Path) -> list[str]:
    """What lies beside a store, hidden."""
    return sorted(entry.name for entry in target.parent.iterdir() if entry.name.startswith("."))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Hash of the small synthetic store."""
    return prepare("synthetic", None, tmp_path_factory.mktemp("undisturbed") / "store", options=OPTIONS).content_hash


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the recordings that were read in this process."""
    names: list[str] = []
    read = synthetic.read_recording

    def counted(config, recording):
        names.append(f"{recording.subject}/{recording.name}")
        return read(config, recording)

    monkeypatch.setattr(synthetic, "read_recording", counted)
    return names


def interrupt(target: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Prepare until `after` recordings are read; the next one fails."""
    read, done = synthetic.read_recording, []

    def failing(config, recording):
        if len(done) == after:
            raise ValueError("this recording is broken")
        done.append(recording)
        return read(config, recording)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "read_recording", failing)
        with pytest.raises(ValueError, match=f"is broken.*{after} of 6 recordings are read and kept"):
            prepare("synthetic", None, target, options=OPTIONS)


def parts(target: Path) -> list[Path]:
    """Finished parts beside a target."""
    return sorted(target.parent.glob(f".{target.name}.work-*/parts/*.part"))


def test_store_holds_what_the_source_reads(tmp_path):
    store = prepare("synthetic", None, tmp_path / "store", options=OPTIONS)
    config = synthetic.Config(seconds=1.0, actions=("walk", "wave"), train_subjects=2, test_subjects=1)
    expected = [
        sequence
        for recording in synthetic.list_recordings(config, None)
        for sequence in synthetic.read_recording(config, recording)
    ]
    assert [row.name for row in store.sequences] == [sequence.name for sequence in expected]
    assert [row.offset for row in store.sequences] == [50 * number for number in range(len(expected))]
    np.testing.assert_array_equal(store.poses, np.concatenate([sequence.poses for sequence in expected]))
    np.testing.assert_array_equal(store.keypoints, np.concatenate([sequence.keypoints for sequence in expected]))
    assert open_store(tmp_path / "store").content_hash == store.content_hash
    assert beside(tmp_path / "store") == []


def test_processes_and_order_change_nothing(tmp_path, undisturbed):
    three = prepare("synthetic", None, tmp_path / "three", options=OPTIONS, processes=3)
    order = []

    def shuffled(function, items):
        """As a cluster: results of other machines in any order."""
        for index in random.Random(4).sample(range(len(items)), len(items)):
            order.append(index)
            yield index, function(items[index])

    elsewhere = prepare("synthetic", None, tmp_path / "elsewhere", options=OPTIONS, elsewhere=shuffled)
    assert sorted(order[1 : RECORDINGS + 1]) == list(range(RECORDINGS)) != order[1 : RECORDINGS + 1]
    assert three.content_hash == elsewhere.content_hash == undisturbed
    assert beside(tmp_path / "three") == []


def test_finished_recordings_are_not_read_again(tmp_path, undisturbed, reads, monkeypatch):
    target = tmp_path / "store"
    interrupt(target, monkeypatch, after=4)
    assert len(parts(target)) == 4
    assert not target.exists()
    first = list(reads)
    reads.clear()
    states: list[tuple[str, int, int, int]] = []
    store = prepare(
        "synthetic",
        None,
        target,
        options=OPTIONS,
        progress=lambda state: states.append((state.stage, state.done, state.kept, state.frames)),
    )
    assert store.content_hash == undisturbed
    assert len(first) == 4
    assert len(reads) == 2
    assert not set(first) & set(reads)
    assert beside(target) == []
    frames = [200 * done for done in (4, 5, 6)]
    assert states == [
        *[("reading", done, 4, count) for done, count in zip((4, 5, 6), frames, strict=True)],
        ("writing", 6, 4, 1200),
        ("finished", 6, 4, 1200),
    ]


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda part, other: b"",
        lambda part, other: part[:40],
        lambda part, other: part[:-1],
        lambda part, other: part + b"\0",
        lambda part, other: flipped(part, 3),
        lambda part, other: flipped(part, 70),
        lambda part, other: flipped(part, 200),
        lambda part, other: flipped(part, len(part) // 2),
        lambda part, other: flipped(part, len(part) - 1),
        lambda part, other: other,
        lambda part, other: b"\xff" * 500,
    ],
)
def test_damaged_parts_are_read_again(tmp_path, undisturbed, reads, monkeypatch, damage):
    target = tmp_path / "store"
    interrupt(target, monkeypatch, after=4)
    first, second, *_ = parts(target)
    first.write_bytes(damage(first.read_bytes(), second.read_bytes()))
    broken = reads[0]
    reads.clear()
    assert prepare("synthetic", None, target, options=OPTIONS).content_hash == undisturbed
    assert len(reads) == 3
    assert broken in reads


def test_parts_of_other_settings_are_not_used_and_go(tmp_path, undisturbed, reads, monkeypatch):
    target = tmp_path / "store"
    interrupt(target, monkeypatch, after=4)
    reads.clear()
    other = prepare("synthetic", None, target, options={**OPTIONS, "seed": 1})
    assert len(reads) == RECORDINGS
    assert other.content_hash != undisturbed
    assert beside(target) == []


def test_raw_files_that_change_are_read_again(tmp_path, monkeypatch):
    raw, target = tmp_path / "raw", tmp_path / "store"
    raw.mkdir()
    h36m_files.write(raw)
    listed = h36m.list_recordings
    monkeypatch.setattr(h36m, "list_recordings", lambda config, folder: listed(config, folder)[:5])
    before = prepare("h36m", raw, target).content_hash
    done = []

    def changes_files(state: Progress):
        done.append(state.recording)
        if state.stage == "reading" and state.done == state.total:
            os.utime(raw / h36m_files.POSES, ns=(0, 10**18))

    with pytest.raises(ValueError, match="changed while they were read"):
        prepare("h36m", raw, tmp_path / "changed", progress=changes_files)
    kept = []
    again = prepare("h36m", raw, tmp_path / "changed", progress=lambda state: kept.append(state.kept))
    assert again.content_hash == before
    assert set(kept) == {0}


def test_two_preparations_of_one_target_are_refused(tmp_path):
    target = tmp_path / "store"
    with FileLock(tmp_path / ".store.lock"), pytest.raises(ValueError, match=r"another process is preparing .*store"):
        prepare("synthetic", None, target, options=OPTIONS)
    prepare("synthetic", None, target, options=OPTIONS)


def test_folder_that_is_no_store_is_refused_before_anything_is_read(tmp_path, reads):
    (tmp_path / "thesis").mkdir()
    with pytest.raises(ValueError, match="is no store"):
        prepare("synthetic", None, tmp_path / "thesis", options=OPTIONS)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"is no store|cannot be written"):
        prepare("synthetic", None, tmp_path / "file", options=OPTIONS)
    with pytest.raises(ValueError, match="cannot be written"):
        prepare("synthetic", None, tmp_path / "file" / "below", options=OPTIONS)
    assert reads == []


def test_replacement_killed_half_way_is_healed(tmp_path, undisturbed, monkeypatch):
    target = tmp_path / "store"
    prepare("synthetic", None, target, options=OPTIONS)
    rename, calls = os.rename, []

    def killed(origin, goal):
        calls.append(goal)
        if len(calls) == 2:
            os._exit(9)
        rename(origin, goal)

    child = os.fork()
    if not child:
        store_writer.os.rename = killed
        prepare("synthetic", None, target, options={**OPTIONS, "seed": 1})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (old,) = tmp_path.glob(".store.old-*")
    assert not target.exists()
    with pytest.raises(ValueError, match=f"killed half-way.*mv {old} {target}"):
        open_store(target)
    # an attempt that fails puts the old store back first
    interrupt(target, monkeypatch, after=1)
    assert open_store(target).content_hash == undisturbed
    assert prepare("synthetic", None, target, options={**OPTIONS, "seed": 1}).content_hash != undisturbed
    assert beside(target) == []


def test_few_items_are_given_out_at_a_time():
    class Counted(Sequence):
        taken = 0

        def __len__(self):
            return 20

        def __getitem__(self, index):
            if index >= len(self):
                raise IndexError
            self.taken = max(self.taken, index + 1)
            return index

    items, most = Counted(), 0
    with in_processes(2) as execute:
        for number, (index, result) in enumerate(execute(abs, items)):
            assert index == result
            most = max(most, items.taken - number)
    assert most <= 2 * WAITING_EACH + 1


def test_killed_worker_is_explained():
    with pytest.raises(ValueError, match=r"memory ran out.*--processes"), in_processes(2) as execute:
        list(execute(os._exit, [3, 3, 3]))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_with_a_killed_parent():
    code = (
        "from posegrid.datasets.executors import in_processes\n"
        "import os, time\n"
        "with in_processes(2) as execute:\n"
        "    list(execute(abs, [1, 2]))\n"
        "    import multiprocessing\n"
        "    print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert workers
        assert all(map(alive, workers))
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path):
    """At least 24 kills, of preparations that replace one store by another and back; then a resume of each."""
    options = [{**OPTIONS, "seconds": 0.5, "seed": seed} for seed in (0, 1)]
    began = time.monotonic()
    expected = [prepare("synthetic", None, tmp_path / f"whole{o['seed']}", options=o).content_hash for o in options]
    whole_s = (time.monotonic() - began) / 2
    target, draw, context = tmp_path / "store", random.Random(1), get_context("forkserver")
    context.set_forkserver_preload(["posegrid.datasets.prepare", "posegrid.datasets.sources.synthetic"])
    kills = finished = wanted = resumed = 0
    for attempt in range(200):
        if kills >= 24 and finished >= 2:
            break
        processes = 2 if attempt % 12 == 5 else 1
        resumed += bool(parts(target))
        process = context.Process(
            target=prepare,
            args=("synthetic", None, target),  # found by its module: a function of this file would not be
            kwargs={"options": options[wanted], "processes": processes},
        )
        process.start()
        process.join(draw.uniform(0, whole_s) + (processes - 1) * 0.5)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
        assert process.exitcode in (0, -signal.SIGKILL)
        if target.exists():  # whatever was going on, a store that exists is whole
            assert open_store(target).content_hash in expected
        if process.exitcode == 0:
            assert open_store(target).content_hash == expected[wanted]
            assert [name for name in beside(target) if "whole" not in name] == []
            finished, wanted = finished + 1, 1 - wanted
    assert kills >= 24
    assert resumed >= 3
    for number in (wanted, 1 - wanted):
        assert prepare("synthetic", None, target, options=options[number]).content_hash == expected[number]
    assert beside(target) == []
    shutil.rmtree(target)
