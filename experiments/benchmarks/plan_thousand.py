"""How long `posegrid plan` takes for a thousand finished cells: a store and a tracking database are made, then planned.

    python -m posegrid.experiments.benchmarks.plan_thousand --folder FOLDER

Two recipes (a lifter, and a wrapper on it), five patterns, a hundred seeds: 1,000 stages, each with a finished run that
has the parameters, tags and metrics of a real one. The command itself is timed, from its start to its last line, as a
process of its own. FOLDER is kept: a second call plans what the first one made.
"""

import argparse
import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path

import numpy as np

from posegrid.datasets.schema import CameraSequence, Protocol
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store_writer import write_store
from posegrid.experiments.catalogue import load_grid
from posegrid.experiments.planning import Plan, plan
from posegrid.orchestration.grid import Study, Work, open_study, remaining_work
from posegrid.orchestration.measured_rates import DEVICE, LIFTED_PER_S, TRAINED_PER_S, VALIDATED_PER_S, WORKERS
from posegrid.orchestration.settings import occlusion_label
from posegrid.orchestration.tracking import EVALUATED, KEY, TRAINED, Tracking, sqlite_uri

GRID = """title = "A thousand cells"
train = ["none", "random_joints", "arm_leg", "leg_run", "frame_run"]
test = ["none", "random_joints", "arm_leg", "leg_run", "frame_run"]
seeds = {seeds}
[[members]]
recipe = "small_lifter"
label = "lifter"
[[members]]
recipe = "small_wrapper"
label = "wrapper"
"""
_EPOCHS = 3
"""Epochs whose history is written for each run."""


def made_up_store(folder: Path) -> Path:
    """A small store with all splits."""
    target = folder / "store"
    if target.exists():
        return target
    generator = np.random.default_rng(0)
    sequences = []
    for subject, split in (("A", "train"), ("B", "train"), ("C", "test")):
        for take in range(4):
            poses = generator.normal(0, 0.3, (400, 17, 3)).astype(np.float32) + np.array([0, 0, 4], np.float32)
            sequences.append(
                CameraSequence(
                    subject=subject,
                    action=split,
                    recording=f"take {take}",
                    camera="0",
                    frame_rate=50.0,
                    width=1000,
                    height=1000,
                    keypoints=poses[..., :2] / poses[..., 2:],
                    confidence=np.ones((400, 17), np.float32),
                    poses=poses,
                )
            )
    protocol = Protocol(train=("A", "B"), test=("C",), held_out=("B/take 3",))
    write_store(target, sequences, source="toy", source_config={}, skeleton=H36M_17, protocol=protocol)
    return target


def finish_all(planned: Plan, home: Path) -> None:
    """A finished run for each stage: the first of each recipe through the tracking layer, the others as its copies."""
    tracking = Tracking.open(sqlite_uri(home / "mlflow.db"))
    study = open_study(planned.name, planned.store, tracking, {"grid": planned.grid.title}, "")
    first: dict[str, str] = {}
    every = remaining_work(planned.stages, {}, planned.store.content_hash)
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        for work in every:
            stage = work.stage
            if stage.settings.name not in first:
                database.commit()  # the tracking layer writes by a connection of its own
                first[stage.settings.name] = _finished(work, study, tracking)
                continue
            run = uuid.uuid4().hex
            _copy(database, first[stage.settings.name], run, {KEY: stage.key, **stage.lineage(study.runs)})
            study.runs[stage.key] = run
        database.commit()


def _finished(work: Work, study: Study, tracking: Tracking) -> str:
    """Run id of a stage that has all that its workers would log."""
    stage, run = work.stage, study.task(work).run_id
    names = ("mpjpe_mm", "p_mpjpe_mm", "n_mpjpe_mm", "mpjve_mm", "symmetry_gap_mm", "segment_std_mm")
    metrics = [f"test {occlusion_label(pattern)}/{name}" for pattern in stage.patterns for name in names]
    metrics += ["train/loss", "train/lr", "validation/loss", "time/epoch_s"]
    for epoch in range(_EPOCHS):
        values = dict.fromkeys([*metrics, TRAINED_PER_S, VALIDATED_PER_S, LIFTED_PER_S], 100.0 + epoch)
        tracking.log_metrics(run, values, epoch)
    scores = stage.score_fingerprints(study.store.content_hash)
    tags = {EVALUATED + label: value for label, value in scores.items()}
    tracking.set_tags(run, {**tags, DEVICE: "CPU, 1 thread", WORKERS: "1", TRAINED: "true"})
    study.finish(stage.key)
    return run


def _copy(database: sqlite3.Connection, source: str, run: str, tags: dict[str, str]) -> None:
    """Another run with the same rows, apart from these tags."""
    for table in ("runs", "params", "tags", "metrics", "latest_metrics"):
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        others = ", ".join(column for column in columns if column != "run_uuid")
        database.execute(
            f"INSERT INTO {table} (run_uuid, {others}) SELECT ?, {others} FROM {table} WHERE run_uuid = ?",
            (run, source),
        )
    for name, value in tags.items():
        database.execute("UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?", (value, run, name))


def main() -> None:
    """Make what is not there yet, then time the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    store, home, file = made_up_store(asked.folder), asked.folder / "runs", asked.folder / "thousand.toml"
    file.write_text(GRID.format(seeds=list(range(asked.seeds))))
    if not (home / "mlflow.db").exists():
        began = time.perf_counter()
        finish_all(plan("thousand", load_grid(str(file)), store), home)
        print(f"made {10 * asked.seeds} finished runs in {time.perf_counter() - began:.0f} s")
    command = [sys.executable, "-m", "posegrid.experiments.cli", "plan", str(file), "--data", str(store)]
    for _ in range(asked.rounds):
        began = time.perf_counter()
        done = subprocess.run([*command, "--home", str(home)], check=True, capture_output=True, text=True)
        print(f"{time.perf_counter() - began:.1f} s: {done.stdout.splitlines()[0]}")


if __name__ == "__main__":
    main()
