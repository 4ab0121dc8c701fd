"""Poses per second, peak memory and the network's share of the time when long clips of own keypoints are lifted.

    python -m posegrid.experiments.benchmarks.lifting_throughput --recipes lifters_mlp small_d3dp
    python -m posegrid.experiments.benchmarks.lifting_throughput --frames 180000 --people 3 --input table

The second lifts an hour at 50 frames per second. Networks have random weights, the keypoints are made up: neither
changes what is computed. Each network lifts in a process of its own, from a file to a file as `posegrid lift` does, and
the peak resident memory of that process is reported. `--input store` makes a prepared store, which is read in place;
`table` a Parquet table, `json` COCO results, which are read whole. "before" is the memory of that process with network
and libraries loaded. With `--files N --workers 1 2` the clip is lifted N times as a folder, on Ray. Nothing is
asserted; see README.md.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from posegrid.datasets.schema import CameraSequence, Protocol
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store_writer import write_store
from posegrid.experiments import catalogue
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import shape_of
from posegrid.orchestration.settings import Settings

RATE, SIDE = 50.0, 1000


def write_model(folder: Path, name: str) -> Path:
    """A model file of a recipe with random weights, its lifter too if it has one."""
    settings = catalogue.recipe(name)
    if settings.conditioner is not None:
        lifter = catalogue.recipe(settings.conditioner.recipe)
        settings = Settings.from_plain(settings.plain() | {"upstream": lifter.plain()}, "benchmark")
    torch.manual_seed(0)
    shape = shape_of(H36M_17, settings.data)
    model = checkpoint.build(settings, shape)
    about = {"hash": "", "source": "benchmark", "skeleton": H36M_17.name, "frame_rate": RATE}
    checkpoint.write(folder / f"{name}.pt", checkpoint.model_file(settings, shape, model.state_dict(), about))
    return folder / f"{name}.pt"


def made_up(frames: int, person: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (F, 17, 2) and confidence (F, 17), of which 2 % are 0."""
    generator = np.random.default_rng(person)
    points = generator.uniform(300, 700, (1, 17, 2)) + generator.normal(0, 3, (frames, 17, 2))
    confidence = generator.uniform(0.5, 1, (frames, 17))
    confidence[generator.random((frames, 17)) < 0.02] = 0
    return points.round(2), confidence.round(2)


def write_input(folder: Path, kind: str, frames: int, people: int) -> Path:
    """A video of several people as a store, a table or COCO results."""
    made = [made_up(frames, person) for person in range(people)]
    if kind == "store":
        sequences = [
            CameraSequence(
                subject=f"person_{person}",
                action="own",
                recording="hour",
                camera="own",
                frame_rate=RATE,
                width=SIDE,
                height=SIDE,
                keypoints=(points * 2 / SIDE - 1).astype(np.float32),
                confidence=confidence.astype(np.float32),
                poses=None,
            )
            for person, (points, confidence) in enumerate(made)
        ]
        protocol = Protocol(train=(), test=tuple(sequence.subject for sequence in sequences))
        write_store(
            folder / "hour", sequences, source="benchmark", source_config={}, skeleton=H36M_17, protocol=protocol
        )
        return folder / "hour"
    if kind == "table":
        file = folder / "hour.parquet"
        (folder / "hour.toml").write_text(
            f'skeleton = "h36m_17"\nwidth = {SIDE}\nheight = {SIDE}\nframe_rate = {RATE}\n'
        )
        tables = [
            pa.table(
                {
                    "sequence": pa.repeat("hour", 17 * frames),
                    "frame": np.repeat(np.arange(frames), 17),
                    "person": pa.repeat(str(person), 17 * frames),
                    "joint": pa.DictionaryArray.from_arrays(
                        pa.array(np.tile(np.arange(17, dtype=np.int8), frames)), pa.array(H36M_17.joints)
                    ).cast(pa.string()),
                    "x": points[..., 0].ravel(),
                    "y": points[..., 1].ravel(),
                    "confidence": confidence.ravel(),
                }
            )
            for person, (points, confidence) in enumerate(made)
        ]
        pq.write_table(pa.concat_tables(tables), file, write_page_checksum=True)
        return file
    rows = [
        {"image_id": frame, "category_id": 1, "track_id": person, "score": 1.0}
        | {"keypoints": np.concatenate([points[frame], confidence[frame, :, None]], -1).ravel().tolist()}
        for person, (points, confidence) in enumerate(made)
        for frame in range(frames)
    ]
    (folder / "hour.json").write_text(json.dumps(rows))
    return folder / "hour.json"


def measure(model: str, given: str, out: str, options: dict[str, Any], threads: int, queue: Any) -> None:
    """Lift in this process, which does nothing else; puts what it took into the queue."""
    from posegrid.orchestration.clip_sources import clip_sources
    from posegrid.orchestration.found_models import find_model
    from posegrid.orchestration.own_keypoints import lift_sources, reading_and_choices
    from posegrid.orchestration.tracking import Tracking

    torch.set_num_threads(threads)
    reading, choices = reading_and_choices(options)
    found = find_model(model, lambda: Tracking.existing(""))
    before = _peak_mb()
    lifted = lift_sources(found, clip_sources([given]), Path(out), reading, choices)
    queue.put(
        {
            "poses": lifted.frames,
            "seconds": lifted.seconds,
            "network": lifted.network_s / lifted.seconds,
            "before_mb": before,
            "peak_mb": _peak_mb(),
            "file_mb": Path(out).stat().st_size / 1e6,
        }
    )


def _peak_mb() -> float:
    # what getrusage tells would count the parent's memory at the start of this process too
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _alone(*arguments: Any) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measure, args=(*arguments, queue))
    process.start()
    while process.is_alive() and queue.empty():
        process.join(0.2)
    if queue.empty():
        raise RuntimeError(f"the measured process ended with status {process.exitcode}, see above")
    found = queue.get()
    process.join()
    return found


def folders(given: argparse.Namespace, folder: Path, model: Path, options: dict[str, Any]) -> None:
    """Print wall seconds of a folder of equal files for each number of workers."""
    from posegrid.orchestration.clip_sources import clip_sources
    from posegrid.orchestration.launch.ray_lift import run_on_ray
    from posegrid.orchestration.lifting_jobs import jobs_for
    from posegrid.orchestration.own_keypoints import reading_and_choices

    raw = folder / "raw"
    for number in range(given.files):
        (raw / f"{number}").mkdir(parents=True)
        write_input(raw / f"{number}", "table", given.frames, given.people)
    reading, choices = reading_and_choices(options)
    for workers in given.workers:
        out = folder / f"out {workers}"
        jobs = jobs_for(str(model), "", clip_sources([raw]), out, reading, choices)
        began, done, inside = time.perf_counter(), 0, 0.0
        for _, outcome in run_on_ray(jobs, workers, None):
            assert outcome.lifted is not None, outcome.error
            done, inside = done + outcome.lifted.frames, inside + outcome.lifted.seconds
        seconds = time.perf_counter() - began
        print(
            f"{model.stem}, {given.files} files, {workers} workers: {seconds:.1f} s with Ray's start and end, {done:,} "
            f"poses; {inside:.1f} s within tasks",
            flush=True,
        )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["lifters_mlp", "lifters_videopose3d", "lifters_mixste"])
    parser.add_argument("--frames", type=int, default=10_000, help="frames of the video; an hour is 180000")
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--input", choices=("store", "table", "json"), default="store")
    parser.add_argument("--hypotheses", type=int, default=None, help="default: the recipe's")
    parser.add_argument("--score", default=None, help="window, overlap or centre; default: the recipe's")
    parser.add_argument("--batch", type=int, default=0, help="windows at once; 0: as posegrid lift chooses")
    parser.add_argument("--threads", type=int, default=1, help="threads of the network")
    parser.add_argument("--files", type=int, default=0, help="lift a folder of so many copies on Ray instead")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="with --files")
    given = parser.parse_args()
    options: dict[str, Any] = {"hypotheses": given.hypotheses, "batch": given.batch}
    if given.score:
        options["changes"] = (f"evaluation.score={given.score}",)
    with tempfile.TemporaryDirectory(prefix="posegrid-lifting-") as scratch:
        folder = Path(scratch)
        if given.files:
            for name in given.recipes:
                folders(given, folder, write_model(folder, name), options)
            return
        source = write_input(folder, given.input, given.frames, given.people)
        if given.input == "json":
            options |= {"width": SIDE, "height": SIDE, "frame_rate": RATE}
            options["joints"] = "h36m_17"
        print(f"{given.frames:,} frames x {given.people} people as {given.input}, {given.threads} threads", flush=True)
        for name in given.recipes:
            model = write_model(folder, name)
            found = _alone(str(model), str(source), str(folder / "poses.parquet"), options, given.threads)
            print(
                f"{name}: {found['poses'] / found['seconds']:,.0f} poses/s ({found['seconds']:.1f} s, "
                f"{found['network']:.0%} in the network), peak {found['peak_mb']:,.0f} MB, before "
                f"{found['before_mb']:,.0f} MB; output {found['file_mb']:.1f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
