"""Trials that train in their own processes: as Ray Train would, killed ones continue, hopeless ones end once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import toy

from posegrid.orchestration.tracking import DIVERGED, Tracking, sqlite_uri

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RECIPE = """
[model]
name = "mlp"
width = 8
[data]
frames = 9
[training]
epochs = 40
batch = 8
lr = 1e-3
"""
GRID = """
title = "toy"
train = ["none"]
test = ["none"]
[[members]]
recipe = "{recipe}"
label = "mlp"
[[members]]
recipe = "{recipe}"
label = "lost"
set = ["training.lr=1e30"]
"""


def test_killed_trials_continue_and_hopeless_ones_end_once(tmp_path: Path) -> None:
    toy.write_toy(tmp_path / "store")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    (tmp_path / "two.toml").write_text(GRID.format(recipe=tmp_path / "tiny.toml"))
    code = "from posegrid.experiments.cli import main; main()"
    command = [sys.executable, "-c", code, "grid", str(tmp_path / "two.toml"), "--data", str(tmp_path / "store")]

    def study(home: str, workers: str, *, kill: bool = False) -> tuple[str, dict[str, object]]:
        more = ["--home", str(tmp_path / home), "--study", "s", "--workers", workers]
        process = subprocess.Popen(
            command + more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if kill and "epoch" in line:
                kill = False
                found = trial_processes(process.pid)
                assert found
                for pid in found:
                    os.kill(pid, signal.SIGKILL)
        assert process.wait(timeout=300) == 1, said  # one of the two diverges
        tracking = Tracking(sqlite_uri(tmp_path / home / "mlflow.db"))
        found = {trial.tags["mlflow.runName"]: trial for trial in tracking.trials().values()}
        good = found["mlp on none"]
        lost = found["lost on none"]
        assert (good.status, lost.status) == ("FINISHED", "FAILED")
        assert "lower training.lr" in lost.tags[DIVERGED]
        assert tracking.history(lost.run_id, "train/loss") == []
        tested = {name: value for name, value in good.metrics.items() if name.startswith("test ")}
        assert tested
        return said, {"curve": tracking.history(good.run_id, "train/loss"), **tested}

    _, usual = study("train", "1")
    _, inside = study("inside", "0", kill=True)
    assert inside == usual


def trial_processes(command: int) -> list[int]:
    """Processes of trials of the Ray that a command has started: they carry the trial's function in their name."""
    parents, trials = {}, []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if (folder / "cmdline").read_bytes().startswith(b"ray::ImplicitFunc"):
                trials.append(int(folder.name))
        except OSError:  # it has just ended
            continue

    def below(pid: int) -> bool:
        return pid == command or (pid in parents and below(parents[pid]))

    return [pid for pid in trials if below(pid)]
