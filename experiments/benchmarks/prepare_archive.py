"""How long it takes, and how much memory, to prepare a data set of the size of Human3.6M.

    python -m posegrid.experiments.benchmarks.prepare_archive --folder FOLDER --processes 2

makes `data_3d_h36m.npz` and `data_2d_h36m_cpn_ft_h36m_dbb.npz` in FOLDER, of the published layout and frame counts but
with made-up motion, unless they are there; prepares them with the source h36m; prints where time and memory went.
FOLDER needs 4 GB. Nothing is asserted: figures depend on the machine, see README.md.
"""

import argparse
import resource
import shutil
import threading
import time
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

import numpy as np

from posegrid.datasets.cameras import h36m_cameras, project, screen_to_pixels, world_to_camera
from posegrid.datasets.prepare import Progress, prepare
from posegrid.datasets.skeletons import H36M_17, H36M_32_TO_17

_POSES = {"S1": 62_094, "S5": 99_079, "S6": 62_466, "S7": 83_061, "S8": 83_238, "S9": 80_447, "S11": 57_214}
"""Frames of each subject as the motion-capture system counts them; S7 with S8, and S9 with S11, as published."""
_DAMAGED = 1_825
"""Frames of S11's first Directions, which the protocol leaves out."""
_ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Waiting", "WalkDog", "WalkTogether", "Walking",
)  # fmt: skip
_FILES = ("data_3d_h36m.npz", "data_2d_h36m_cpn_ft_h36m_dbb.npz")


def make(folder: Path, share: float) -> None:
    """Write both files; `share` of the published frames in every recording."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    poses: dict[str, dict[str, np.ndarray]] = {}
    keypoints: dict[str, dict[str, list[np.ndarray]]] = {"S2": {}}
    for subject, total in _POSES.items():
        lengths = _lengths(generator, total, subject)
        names = [name for number, action in enumerate(_ACTIONS) for name in (action, f"{action} {1 + number % 3}")]
        poses[subject], keypoints[subject] = {}, {}
        for name, frames in zip(names, lengths, strict=True):
            world = _motion(generator, max(int(frames * share), 2))
            poses[subject][name] = world
            keypoints[subject][name] = [_seen(generator, world, camera) for camera in h36m_cameras()[subject]]
    # detections exist for subjects whose 3D is not public
    keypoints["S2"] = dict(list(keypoints["S1"].items())[:2])
    metadata: Any = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": [H36M_17.left, H36M_17.right]}
    np.savez_compressed(folder / _FILES[0], positions_3d=np.array(poses, dtype=object))
    del poses
    np.savez_compressed(folder / _FILES[1], positions_2d=np.array(keypoints, dtype=object), metadata=metadata)


def _lengths(generator: np.random.Generator, total: int, subject: str) -> list[int]:
    """Frames of 30 recordings."""
    fixed = [_DAMAGED] if subject == "S11" else []
    shares = generator.uniform(0.5, 2.0, 30 - len(fixed))
    ends = np.round(np.cumsum(shares) / shares.sum() * (total - sum(fixed))).astype(int)
    return fixed + np.diff(ends, prepend=0).tolist()


def _motion(generator: np.random.Generator, frames: int) -> np.ndarray:
    """(F, 32, 3) float32 world metres: limbs that sway about a person who wanders."""
    time_s = np.arange(frames)[:, None, None] / 50
    rest = np.random.default_rng(1).normal([0, 0, 0.9], [0.2, 0.2, 0.45], (32, 3))
    speed, phase = generator.uniform(0.2, 1.5, (32, 3)), generator.uniform(0, 1, (32, 3))
    sway = 0.1 * np.sin(2 * np.pi * (time_s * speed + phase))
    wander = 0.8 * np.sin(2 * np.pi * (time_s * generator.uniform(0.01, 0.05, 3) + generator.uniform(0, 1, 3)))
    # noise below the accuracy of the capture: real files do not compress well either
    noise = generator.normal(0, 2e-4, (frames, 32, 3))
    return (rest + sway + wander * [1, 1, 0.02] + noise).astype(np.float32)


def _seen(generator: np.random.Generator, world: np.ndarray, camera: Any) -> np.ndarray:
    """(F', 17, 2) float32 pixels with some noise; videos are a little longer than the motion."""
    screen = project(world_to_camera(world[:, H36M_32_TO_17], camera), camera)
    pixels = screen_to_pixels(screen, camera.width, camera.height) + generator.normal(0, 3, screen.shape)
    longer = np.pad(pixels, ((0, int(generator.integers(0, 4))), (0, 0), (0, 0)), mode="edge")
    return longer.astype(np.float32)


def _prepare(raw: Path, target: Path, processes: int, told: connection.Connection) -> None:
    """In a process of its own, so that what is measured is the preparation alone."""
    states: list[Progress] = []
    began = time.monotonic()
    store = prepare("h36m", raw, target, processes=processes, progress=lambda state: states.append(state))
    wall_s = time.monotonic() - began
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = {"user": sum(each.ru_utime for each in used), "system": sum(each.ru_stime for each in used)}
    megabytes = sum(file.stat().st_size for file in target.iterdir()) / 1e6
    frames = {split: 0 for split in ("train", "held_out", "test")}
    for sequence in store.sequences:
        frames[sequence.split] += sequence.frames
    told.send({"wall_s": wall_s, "cpu_s": cpu_s, "seconds": states[-1].seconds, "MB": megabytes, "frames": frames})


class _Memory:
    """Watches a process and its children until told to stop; Linux only."""

    def __init__(self, pid: int) -> None:
        self.peak_mb = {"Pss": 0.0, "Rss": 0.0}
        self.largest_mb = 0.0
        self._pid, self._stop = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End watching."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            each = [found for pid in _family(self._pid) if (found := _resident_mb(pid))]
            for kind in self.peak_mb:
                self.peak_mb[kind] = max(self.peak_mb[kind], sum(found[kind] for found in each))
            self.largest_mb = max([self.largest_mb, *(found["Rss"] for found in each)])


def _family(pid: int) -> list[int]:
    """The process, its children and theirs."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(found for child in children for found in _family(child))]


def _resident_mb(pid: int) -> dict[str, float] | None:
    """Resident memory: "Rss" counts a shared page in every process, "Pss" divides it among them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines[1:] if ":" in line)
    return {kind: int(values[kind].split()[0]) / 1000 * 1.024 for kind in ("Pss", "Rss") if kind in values} or None


def main() -> None:
    """Make the archive if it is not there, prepare it, print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the archive and the store are written")
    parser.add_argument("--processes", type=int, default=2, help="processes that read recordings")
    parser.add_argument("--share", type=float, default=1.0, help="share of the published frames, to try it out")
    parser.add_argument("--keep", action="store_true", help="keep archive and store")
    arguments = parser.parse_args()
    context = get_context("spawn")
    raw, target = arguments.folder / "raw", arguments.folder / "store"
    if not all((raw / name).is_file() for name in _FILES):
        began = time.monotonic()
        maker = context.Process(target=make, args=(raw, arguments.share))
        maker.start()
        maker.join()
        print(f"archive made in {time.monotonic() - began:.0f} s")
    size = sum((raw / name).stat().st_size for name in _FILES) / 1e6
    shutil.rmtree(target, ignore_errors=True)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_prepare, args=(raw, target, arguments.processes, there))
    process.start()
    there.close()
    memory = _Memory(process.pid or 0)
    result = here.recv()
    memory.stop()
    process.join()
    frames, seconds = result["frames"], result["seconds"]
    print(f"archive {size:.0f} MB -> store {result['MB']:.0f} MB, frames {frames}, {sum(frames.values()):,} in all")
    print(f"wall time {result['wall_s']:.1f} s, {result['MB'] / result['wall_s']:.0f} MB/s of store")
    print(
        f"peak memory of all processes: {memory.peak_mb['Pss']:.0f} MB (PSS), {memory.peak_mb['Rss']:.0f} MB (RSS); "
        f"largest process {memory.largest_mb:.0f} MB"
    )
    print(f"CPU time of all processes: {_line(result['cpu_s'], 'user', 'system')}")
    print(f"passed: {_line(seconds, 'list', 'check', 'parts', 'store')}")
    print(f"summed over {arguments.processes} processes within parts: {_line(seconds, 'read', 'hash', 'write')}")
    if not arguments.keep:
        shutil.rmtree(raw)
        shutil.rmtree(target)


def _line(seconds: dict[str, float], *names: str) -> str:
    return ", ".join(f"{name} {seconds.get(name, 0.0):.1f} s" for name in names)


if __name__ == "__main__":
    main()
