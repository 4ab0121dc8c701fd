"""How long the report of a study of 200 trials takes: a tracking store is made up, then `build_report` is timed.

    python -m posegrid.experiments.benchmarks.report_two_hundred [--layout grid|axes] [--runs 200]

grid: 4 members x 5 patterns x 10 seeds, each tested on the 5 patterns. axes: 200 members of one pattern and one seed,
as a grid crossed with values makes. Runs hold scores, histories of 60 epochs, tables, examples and a small model, so
that nothing is skipped; costs are not logged before, so that they are measured.
"""

import argparse
import io
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from posegrid.datasets.metrics.summary import METRICS, SPLITS
from posegrid.datasets.skeletons import H36M_17
from posegrid.experiments.reports.grid_report import build_report
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import shape_of
from posegrid.orchestration.protocol import scoring_protocol
from posegrid.orchestration.score_tables import BREAKDOWN, RECORDINGS
from posegrid.orchestration.settings import Settings, occlusion_values
from posegrid.orchestration.tracking import EVALUATED, MODEL_ARTIFACT, TRAINED, Tracking, sqlite_uri

PATTERNS = ("none", "random_joints", "arm_leg", "leg_run", "frame_run")
_EPOCHS, _RECORDINGS, _ACTIONS = 60, 60, 15
_CURVES = ("train/loss", "validation/loss", "train/lr")


def main() -> None:
    """Make up a store, time the report, print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=("grid", "axes"), default="grid")
    parser.add_argument("--runs", type=int, default=200, help="a multiple of 20 for the layout grid")
    parser.add_argument(
        "--keep", type=Path, help="folder for the store and a copy of the report; default: none is kept"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="posegrid-") as scratch:
        home = given.keep or Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        tracking = Tracking.open(sqlite_uri(home / "mlflow.db"))
        make_study(tracking, home, given.layout, given.runs)
        print(f"made up {given.runs} runs in {time.perf_counter() - began:.1f} s", flush=True)
        for turn in ("first", "second"):
            fresh = Tracking.existing(tracking.uri)
            said: list[str] = []
            began, used = time.perf_counter(), time.process_time()
            build_report(fresh, "made-up", said.append, home / "report")
            size = (home / "report" / "report.html").stat().st_size / 1e6
            print(
                f"{turn} report of {given.runs} runs ({given.layout}): {time.perf_counter() - began:.1f} s, "
                f"{time.process_time() - used:.1f} s of it computing; page {size:.2f} MB",
                flush=True,
            )


def make_study(tracking: Tracking, home: Path, layout: str, runs: int) -> None:
    """A study as `posegrid grid` leaves it, with numbers that are made up."""
    random = np.random.default_rng(0)
    settings = _settings()
    parent = tracking.open_study("made-up", {"data": "made up"}, "A made-up study")
    rows: tuple[str, ...]
    if layout == "grid":
        labels = [f"model {number}" for number in range(4)]
        rows, seeds = PATTERNS, range(runs // (len(labels) * len(PATTERNS)))
    else:
        labels = [f"lr {number}" for number in range(runs)]
        rows, seeds = PATTERNS[:1], range(1)
    model = _model_file(settings)
    cells: dict[str, list[dict[str, Any]]] = {}
    for place, label in enumerate(labels):
        for row in rows:
            for seed in seeds:
                key = f"{place} {row} {seed}"
                _make_run(tracking, home, parent, key, label, row, rows, model, random)
                scores = dict.fromkeys(rows, "f")
                cells.setdefault(label, []).append({"trained_on": row, "seed": seed, "key": key, "scores": scores})
    scored = settings.plain()
    described = {
        "title": "A made-up study of many runs",
        "source": "made up",
        "skeleton": H36M_17.name,
        "tests": {row: occlusion_values(row, "benchmark") for row in rows},
        "scoring": {
            label: {
                "protocol": scoring_protocol(settings),
                "window": "9",
                "evaluation": scored["evaluation"],
                "data": scored["data"],
            }
            for label in labels
        },
        "members": cells,
    }
    tracking.log_plain(parent, described, "study.json")
    tracking.log_metrics(parent, {"control mean pose/mpjpe_mm": 215.0})
    tracking.finish(parent, "FINISHED")


def _settings() -> Settings:
    plain = {
        "name": "made up",
        "model": {"name": "mixste", "width": 16, "depth": 1, "heads": 2, "drop_path": 0.0},
        "data": {"frames": 9},
        "training": {"epochs": _EPOCHS, "batch": 8, "lr": 1e-3},
        "evaluation": {"batch": 16},
    }
    return Settings.from_plain(plain, "benchmark")


def _model_file(settings: Settings) -> dict[str, Any]:
    pose = shape_of(H36M_17, settings.data)
    model = checkpoint.build(settings, pose)
    return checkpoint.model_file(settings, pose, model.state_dict(), {"skeleton": H36M_17.name})


def _make_run(
    tracking: Tracking,
    home: Path,
    parent: str,
    key: str,
    label: str,
    row: str,
    columns: tuple[str, ...],
    model: dict[str, Any],
    random: np.random.Generator,
) -> None:
    # models of a study differ: each label is a network of its own, but seeds and values of the learning rate are not
    params = {"model": {"name": "mixste", "kind": label if label.startswith("model") else "one"}, "parameters": 1234}
    tags = {"model": "mixste", "trained_on": row, "selection": "held_out", "data": "made up"}
    run = tracking.open_trial(key, f"{label} on {row}", parent, params, tags)
    losses = np.exp(-np.arange(_EPOCHS) / 20) + random.uniform(0, 0.05, _EPOCHS)
    values = {name: float(losses[-1]) for name in _CURVES}
    # files where the store keeps them: to log 4,000 of them would take minutes
    folder = home / "artifacts" / run / "artifacts"
    checkpoint.write(_place(folder / MODEL_ARTIFACT), model)
    examples = _examples(random)
    for column in columns:
        level = 70 + 60 * random.random() * (row != column)
        names = [f"{metric}{split.replace('/', ' ')}" for metric in METRICS for split in SPLITS]
        values |= {f"test {column}/{name}": float(level + random.normal(0, 3)) for name in names}
        values |= {f"test {column} frame-wise/{name}": level for name in names}
        own = folder / "test" / column
        _place(own / "per_action.csv").write_text(_per_action(level, random))
        (own / RECORDINGS).write_text(_per_recording(level, random))
        (own / BREAKDOWN).write_text(_breakdown(level, random))
        (own / "examples.npz").write_bytes(examples)
    tracking.log_metrics(run, values, _EPOCHS - 1)
    _add_histories(home / "mlflow.db", run, losses)
    tracking.set_tags(run, {TRAINED: "true", **{EVALUATED + column: "f" for column in columns}})
    tracking.finish(run, "FINISHED")


def _place(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _add_histories(database: Path, run: str, losses: np.ndarray) -> None:
    """Earlier steps straight into the table: to log 12,000 of them one by one would take minutes."""
    rows = [(name, float(value), step, run, step) for name in _CURVES for step, value in enumerate(losses[:-1])]
    connection = sqlite3.connect(database, timeout=60)
    with connection:
        connection.executemany(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)", rows
        )
    connection.close()


def _per_action(level: float, random: np.random.Generator) -> str:
    lines = ["action," + ",".join(METRICS)]
    for action in range(_ACTIONS):
        lines.append(f"action {action}," + ",".join(f"{level + random.normal(0, 9):.4f}" for _ in METRICS))
    return "\n".join(lines) + "\n"


def _per_recording(level: float, random: np.random.Generator) -> str:
    lines = ["subject,recording,camera,action,frames,pairs,windows," + ",".join(METRICS)]
    for recording in range(_RECORDINGS):
        for camera in range(4):
            values = ",".join(f"{level + random.normal(0, 9):.6f}" for _ in METRICS)
            action = f"action {recording % _ACTIONS}"
            lines.append(f"S9,take {recording},{camera},{action},900,800,100,{values}")
    return "\n".join(lines) + "\n"


def _breakdown(level: float, random: np.random.Generator) -> str:
    lines = ["by,of,split,entries,mpjpe_mm"]
    for joint in H36M_17.joints:
        lines += [f"joint,{joint},{split},9,{level + random.normal(0, 9):.4f}" for split in ("all", "occluded")]
    lines += [f"gap,{gap},occluded,9,{level + random.normal(0, 9):.4f}" for gap in ("1", "2", "3-4", "5-8")]
    lines += [f"speed,{low / 10:g}-{(low + 1) / 10:g},all,9,{level + random.normal(0, 9):.4f}" for low in range(15)]
    return "\n".join(lines) + "\n"


def _examples(random: np.random.Generator) -> bytes:
    pose = random.normal(0, 0.3, (3, 27, 17, 3)).astype(np.float32)
    visible = random.random((3, 27, 17)) < 0.8
    file = io.BytesIO()
    np.savez_compressed(file, keypoints=pose[..., :2], visible=visible, predicted=pose * 1.1, target=pose)
    return file.getvalue()


if __name__ == "__main__":
    main()
