"""How fast random windows come out of a store of the size of Human3.6M, and what memory that takes.

    python -m posegrid.experiments.benchmarks.read_windows --folder FOLDER

makes two stores in FOLDER, unless they are there: one of 2.1 million made-up frames (860 MB) and one of a tenth of it.
Compares `windows.gather`, which also makes poses root-relative, with a plain NumPy fancy index into copies of the same
two arrays in memory (rows known beforehand): bare, and with the subtraction that gives the same result. Also compares
it with data sets that make one window at a time for torch's `default_collate`: windows known beforehand; drawn by each
item as here from a generator of its own; drawn and occluded, as training needs them. Rounds are interleaved; medians of
processor seconds are reported, so that other programs of the machine count little. Time to the first batch and memory
are measured in fresh processes.
Nothing is asserted: figures depend on the machine, see README.md.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from posegrid.datasets.occlusions import leg_run
from posegrid.datasets.schema import CameraSequence, Protocol
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store, open_store
from posegrid.datasets.store_writer import write_store
from posegrid.datasets.windows import Windows, gather, gather_column, random_windows
from posegrid.orchestration.batches import Masks, make_batch
from posegrid.orchestration.workers import Workers

_LENGTHS = (27, 81, 243)
_FRAMES_EACH = 2_500


def made_up(frames: int) -> Iterator[CameraSequence]:
    """Sequences of 2,500 frames: a body of fixed bones that sways, with noise, so that no two frames are equal."""
    generator = np.random.default_rng(0)
    body = generator.normal(0, 0.25, (17, 3))
    body[:, 2] += 4.0
    block = (body + generator.normal(0, 0.02, (4 * _FRAMES_EACH, 17, 3))).astype(np.float32)
    for number in range(frames // _FRAMES_EACH):
        first = int(generator.integers(3 * _FRAMES_EACH))
        poses = block[first : first + _FRAMES_EACH] + np.float32(0.001 * (number % 97))
        yield CameraSequence(
            subject="S1",
            action="Walking",
            recording=f"Walking {number}",
            camera="0",
            frame_rate=50.0,
            width=1000,
            height=1000,
            keypoints=2.2 * poses[..., :2] / poses[..., 2:],
            confidence=np.ones(poses.shape[:2], dtype=np.float32),
            poses=poses,
        )


def store_of(folder: Path, frames: int) -> Path:
    """The folder of a store of that many frames, made if it is not there."""
    target = folder / f"made_up_{frames}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        protocol = Protocol(train=("S1",), test=("S2",))
        write_store(target, made_up(frames), source="made up", source_config={}, skeleton=H36M_17, protocol=protocol)
    return target


class OneByOne(Dataset[dict[str, Any]]):
    """The usual design: an item is a window, made in Python."""

    def __init__(self, store: Store, windows: Windows) -> None:
        self._store, self._windows = store, windows

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, item: int) -> dict[str, Any]:
        sequence = self._store.sequences[self._windows.sequence[item]]
        first = sequence.offset + int(self._windows.start[item])
        rows = slice(first, first + self._windows.weight.shape[1])
        poses = self._store.poses[rows]
        return {
            "keypoints": torch.from_numpy(self._store.keypoints[rows].copy()),
            "poses": torch.from_numpy(poses - poses[:, :1]),
            "sequence": int(self._windows.sequence[item]),
            "start": int(self._windows.start[item]),
        }


class DrawnOneByOne(OneByOne):
    """The same with a random window for each item, a function of (seed, item)."""

    def __getitem__(self, item: int) -> dict[str, Any]:
        generator = np.random.default_rng([0, 0, item])
        length = self._windows.weight.shape[1]
        self._windows.sequence[item] = index = int(generator.integers(len(self._store.sequences)))
        self._windows.start[item] = generator.integers(self._store.sequences[index].frames - length + 1)
        return super().__getitem__(item)


class OccludedOneByOne(DrawnOneByOne):
    """A whole training item: its window drawn, the right leg hidden for a run of frames, root-relative."""

    def __init__(self, store: Store, windows: Windows, pattern: leg_run.Config) -> None:
        super().__init__(store, windows)
        self._hidden = [store.skeleton.joints.index(name) for name in pattern.joints]
        self._run = int(pattern.rate * windows.weight.shape[1])

    def __getitem__(self, item: int) -> dict[str, Any]:
        found = super().__getitem__(item)
        visible = np.ones(found["keypoints"].shape[:2], dtype=bool)
        first = int(np.random.default_rng([1, 0, item]).integers(len(visible) - self._run))
        visible[first : first + self._run, self._hidden] = False
        found["visible"] = torch.from_numpy(visible)
        found["keypoints"] *= found["visible"][..., None]
        return found


def speed(store: Store, length: int, batch: int, rounds: int, in_memory: tuple[np.ndarray, np.ndarray]) -> None:
    """Print windows/s, GB/s and ratios for one window length."""

    def drawn(epoch: int) -> Windows:
        return random_windows(store, ("train",), length, batch, seed=0, epoch=epoch)

    def collated(items: OneByOne) -> object:
        return default_collate([items[item] for item in range(batch)])

    def plain(rows: np.ndarray, subtract: bool) -> list[np.ndarray]:
        keypoints, poses = (array[rows] for array in in_memory)
        return [keypoints, poses - poses[:, :, :1] if subtract else poses]

    masks = Masks(store, {"pattern": "leg_run"})
    workers = Workers()

    def training_batch(epoch: int) -> object:
        windows = drawn(epoch)
        return make_batch(store, windows, masks.visible(windows, epoch), workers, batch)

    seconds: dict[str, list[float]] = {}
    for epoch in range(rounds + 1):
        windows = drawn(epoch)
        rows = (store.offsets[windows.sequence] + windows.start)[:, None] + np.arange(length)
        ways: dict[str, Callable[[], object]] = {
            "gather": partial(gather, store, windows),
            "gather, root kept": lambda windows=windows: [  # type: ignore[misc]
                gather_column(store, windows, column) for column in (store.keypoints, store.poses)
            ],
            "plain": partial(plain, rows, False),
            "plain, same result": partial(plain, rows, True),
            "one by one": partial(collated, OneByOne(store, windows)),
            "draw and gather": lambda epoch=epoch: gather(store, drawn(epoch)),  # type: ignore[misc]
            "draw one by one": partial(collated, DrawnOneByOne(store, drawn(epoch))),
            "training batch": partial(training_batch, epoch),
            "training one by one": partial(collated, OccludedOneByOne(store, drawn(epoch), leg_run.Config())),
        }
        for way, run in ways.items():
            began = time.process_time()
            run()
            if epoch:  # the first round warms up
                seconds.setdefault(way, []).append(time.process_time() - began)
    median = {way: float(np.median(times)) for way, times in seconds.items()}
    print(f"L = {length}")
    for way, took in median.items():
        rate, size = batch / took, batch * length * 17 * 5 * 4
        ours = median[{"draw": "draw and gather", "training": "training batch"}.get(way.split()[0], "gather")]
        print(
            f"  {way:<20}{rate:>10,.0f} windows/s {size / took / 1e9:>6.2f} GB/s, "
            f"ours is {took / ours:.2f} times as fast",
            flush=True,
        )


def measured_alone(path: Path, verify: bool, batch: int, batches: int) -> dict[str, float]:
    """`alone` in a fresh process."""
    command = [sys.executable, "-m", __spec__.name, "--alone", str(path), "--batch", str(batch)]
    command += ["--batches", str(batches), *(["--verify"] if verify else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def alone(path: Path, verify: bool, batch: int, batches: int) -> None:
    """Print seconds from opening to the first batch, and memory in MB before and after many batches, as JSON."""
    before = _memory_mb()
    began, busy = time.perf_counter(), time.process_time()
    store = open_store(path, verify=verify)
    gather(store, random_windows(store, ("train",), 27, batch, seed=0, epoch=0))
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    for epoch in range(1, batches + 1):
        gather(store, random_windows(store, ("train",), 243, batch, seed=0, epoch=epoch))
    after = _memory_mb()
    own = after["RssAnon"] - before["RssAnon"]
    print(json.dumps({"seconds": seconds, "busy": busy, "own": own, "mapped": after["RssFile"]}))


def _memory_mb() -> dict[str, float]:
    """Resident memory of this process: its own, and pages of files; zeros where the system does not tell."""
    status = Path("/proc/self/status")
    lines = [line.split() for line in status.read_text().splitlines()] if status.exists() else []
    told = {words[0].rstrip(":"): float(words[1]) / 1024 for words in lines if words[-1] == "kB"}
    return {name: told.get(name, 0.0) for name in ("RssAnon", "RssFile")}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the stores are made or found")
    parser.add_argument("--frames", type=int, default=2_100_000, help="frames of the large store")
    parser.add_argument("--batch", type=int, default=1024, help="windows of a batch")
    parser.add_argument("--rounds", type=int, default=21, help="rounds of each measurement")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--verify", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        alone(given.alone, given.verify, given.batch, given.batches)
        return
    if not given.folder:
        parser.error("--folder is missing: where the stores are made or found")
    torch.set_num_threads(1)
    large, small = (store_of(given.folder, frames) for frames in (given.frames, given.frames // 10))
    store = open_store(large)
    print(f"{given.frames:,} frames, {sum(array.nbytes for array in store.columns) / 1e6:,.0f} MB, batch {given.batch}")
    in_memory = np.array(store.keypoints), np.array(store.poses)
    for length in _LENGTHS:
        speed(store, length, given.batch, given.rounds, in_memory)
    for verify in (False, True):
        times = [measured_alone(large, verify, given.batch, 0) for _ in range(5)]
        seconds, busy = (np.median([run[name] for run in times]) for name in ("seconds", "busy"))
        print(f"from opening to the first batch, verify={verify}: {seconds:.3f} s, {busy:.3f} s of the processor")
    for path in (small, large):
        found = measured_alone(path, False, given.batch, 100)
        size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
        print(
            f"store of {size:,.0f} MB after 100 batches of L = 243: {found['own']:.0f} MB of its own, "
            f"{found['mapped']:.0f} MB shared pages of files"
        )


if __name__ == "__main__":
    main()
