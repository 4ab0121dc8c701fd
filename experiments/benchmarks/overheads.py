"""What a study costs beside its training steps: start, trials, writes, memory of the command.

    python -m posegrid.experiments.benchmarks.overheads --trials 20 --folder FOLDER
    python -m posegrid.experiments.benchmarks.overheads --recipe small_lifter --epochs 300 --cells 2 --folder FOLDER

The first command runs two studies as anybody would run them, each as a process of its own, on Ray on this machine: a
grid of one trivial cell (a small perceptron, one epoch of few windows) and one of as many cells as asked. The second
runs real cells; what it says of each holds where they run one after another (`--option=--cpus-per-worker=2` on two
cores). Times of runs are those in MLflow; the memory of the command is read from the operating system
while it runs. FOLDER keeps the data that were made up; the studies start anew. `--option=--workers=0` is passed on.
"""

import argparse
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from posegrid.experiments.benchmarks.plan_thousand import made_up_store
from posegrid.orchestration.expenses import OUTSIDE
from posegrid.orchestration.tracking import Tracking, Trial, sqlite_uri

TRIVIAL = """
[model]
name = "mlp"
width = 8
[data]
frames = 27
[training]
epochs = 1
batch = 64
lr = 1e-3
[evaluation]
every = 8
"""
GRID = """
title = "Overheads"
train = ["none"]
test = ["none"]
seeds = {seeds}
[[members]]
recipe = "{recipe}"
label = "cell"
"""
_POLL_S = 0.5
_EPOCH_S, _LOSS = "time/epoch_s", "train/loss"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One study."""

    seconds: float
    """From the start of the command to its end."""
    first_step_s: float
    """From the start of the command to the first training step of all."""
    starts_s: list[float]
    """From the opening of a run to its first training step."""
    steps_s: list[float]
    """Of each run, in the order of their ends, in training steps."""
    lasted_s: list[float]
    """Of each, from the end of the one before it (of the first: from its opening) to its own."""
    runs_s: float
    """Of all runs, from their opening to their end."""
    outside: list[float]
    """What the runs themselves say of the time outside training steps."""
    trials: int
    failed: int
    peak_mib: float
    """Largest resident memory of the command."""
    written: int
    """Parameters, tags, points of metrics and artifacts of the runs."""
    busy_s: float
    """From the opening of the first run to the end of the last."""
    complaints: list[str]
    """What the command said of a tracking store that refused or did not answer."""


def measured(folder: Path, name: str, recipe: str, seeds: int, more: list[str], command: list[str]) -> Measured:
    """Run a grid of one recipe with so many seeds, and read what it left."""
    home = folder / name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    grid = home / "grid.toml"
    grid.write_text(GRID.format(seeds=list(range(seeds)), recipe=recipe))
    code = "from posegrid.experiments.cli import main; main()"
    said = home / "said.txt"
    began = time.time()
    with said.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "grid", str(grid), "--home", str(home), "--study", "s", *command, *more],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, resident_peak_mib(process.pid))
            time.sleep(_POLL_S)
    seconds = time.time() - began
    if process.returncode:
        raise RuntimeError(f"the study ended with exit status {process.returncode}: {said.read_text()[-2000:]}")
    tracking = Tracking(sqlite_uri(home / "mlflow.db"))
    trials = sorted(tracking.trials().values(), key=lambda trial: trial.ended_ms or 0)
    lines = said.read_text().splitlines()
    first = {trial.run_id: first_step(home, trial) for trial in trials}
    opened = min(trial.started_ms or 0 for trial in trials) / 1000
    ends = [(trial.ended_ms or 0) / 1000 for trial in trials]
    return Measured(
        seconds=seconds,
        first_step_s=min(first.values()) - began,
        starts_s=[first[trial.run_id] - (trial.started_ms or 0) / 1000 for trial in trials],
        steps_s=[sum(value for _, value in tracking.history(trial.run_id, _EPOCH_S)) for trial in trials],
        lasted_s=[
            end - before for before, end in pairwise([opened, *((trial.ended_ms or 0) / 1000 for trial in trials)])
        ],
        runs_s=sum(lasted_s(trial) for trial in trials),
        outside=[trial.metrics[OUTSIDE] for trial in trials],
        trials=len(trials),
        failed=sum(trial.status != "FINISHED" for trial in trials),
        peak_mib=peak,
        written=written(home),
        busy_s=max(ends) - opened,
        complaints=[line for line in lines if "does not answer" in line or "refuses" in line or "locked" in line],
    )


def lasted_s(trial: Trial) -> float:
    """From the opening of a run to its end."""
    assert trial.started_ms is not None
    assert trial.ended_ms is not None
    return (trial.ended_ms - trial.started_ms) / 1000


def first_step(home: Path, trial: Trial) -> float:
    """Seconds since 1970: the end of the first epoch's training, less what it took."""
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        query = "SELECT timestamp, value FROM metrics WHERE run_uuid = ? AND key = ? AND step = 0"
        # logged after the validation of the epoch, which takes milliseconds here
        ended_ms, took = database.execute(query, (trial.run_id, _EPOCH_S)).fetchone()
    return float(ended_ms / 1000 - took)


def written(home: Path) -> int:
    """Rows and files that the runs hold."""
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        rows = sum(
            database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("metrics", "params", "tags", "inputs", "runs")
        )
    return int(rows) + sum(1 for file in (home / "artifacts").rglob("*") if file.is_file())


def resident_peak_mib(pid: int) -> float:
    """Largest resident memory of a process so far; 0 when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--recipe", help="instead: one real cell of a recipe")
    parser.add_argument("--epochs", type=int, default=10, help="with --recipe")
    parser.add_argument("--cells", type=int, default=1, help="with --recipe, one after another")
    parser.add_argument("--data", help="with --recipe: data store; default: made up")
    parser.add_argument("--option", action="append", default=[], help="passed on to the command (repeatable)")
    given = parser.parse_args()
    store = given.data or str(made_up_store(given.folder))
    command = ["--data", store, *given.option]
    if given.recipe:
        more = ["--set", f"training.epochs={given.epochs}"]
        real = measured(given.folder, "real", given.recipe, given.cells, more, command)
        for number, (whole, steps) in enumerate(zip(real.lasted_s, real.steps_s, strict=True), start=1):
            print(f"cell {number}: {whole:.1f} s, {steps:.1f} s in training steps; outside {1 - steps / whole:.1%}")
        share = 1 - sum(real.steps_s) / real.busy_s
        print(f"all: {real.busy_s:.1f} s, outside {share:.1%} (the runs themselves: {max(real.outside):.1%} at most)")
        return
    recipe = given.folder / "trivial.toml"
    recipe.write_text(TRIVIAL)
    one = measured(given.folder, "one", str(recipe), 1, [], command)
    many = measured(given.folder, "many", str(recipe), given.trials, [], command)
    print(
        f"first training step: {one.first_step_s:.1f} s after the command, {one.starts_s[0]:.1f} s after its run opened"
    )
    print(f"one cell: {one.seconds:.1f} s, of which {sum(one.steps_s):.2f} s in training steps")
    each = (many.seconds - one.seconds) / (many.trials - 1)
    print(f"{many.trials} cells: {many.seconds:.1f} s; {each:.2f} s for each more")
    print(f"{60 * many.trials / many.busy_s:.1f} trials a minute, from the first run's opening to the last one's end")
    print(f"a run: {many.runs_s / many.trials:.1f} s, until its first step {median(many.starts_s):.1f} s (median)")
    print(f"command: at most {many.peak_mib:.0f} MiB ({one.peak_mib:.0f} MiB for one cell)")
    print(f"MLflow: {many.written} values and files, {many.written / many.busy_s:.1f} a second")
    print(f"failed runs: {many.failed}; complaints about the tracking store: {len(many.complaints)}")


if __name__ == "__main__":
    main()
