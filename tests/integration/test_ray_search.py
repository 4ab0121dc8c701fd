"""A search on Ray: two trials side by side, of which one diverges without its workers being started again."""

import os
import shutil
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
epochs = 2
batch = 16
lr = 1e-3
"""
SEARCH = """
title = "toy"
recipe = "{recipe}"
trials = 2
method = "random"
replicates = [0]
[space."training.lr"]
values = [1e-3, 1e30]
"""


def test_two_trials_of_which_one_diverges(tmp_path: Path, empty_database: Path) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_database, tmp_path / "runs")
    toy.write_toy(tmp_path / "store")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    (tmp_path / "two.toml").write_text(SEARCH.format(recipe=tmp_path / "tiny.toml"))
    code = "from posegrid.experiments.cli import main; main()"
    command = [sys.executable, "-c", code, "search", str(tmp_path / "two.toml"), "--data", str(tmp_path / "store")]
    command += ["--home", str(tmp_path / "runs"), "--study", "s", "--out", str(tmp_path / "best.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr
    trials = Tracking(sqlite_uri(tmp_path / "runs" / "mlflow.db")).trials().values()
    by_rate = {float(trial.params["training.lr"]): trial for trial in trials}
    assert by_rate.keys() == {1e-3, 1e30}
    lost, best = by_rate[1e30], by_rate[1e-3]
    assert (lost.status, best.status) == ("FAILED", "FINISHED")
    assert "lower training.lr" in lost.tags[DIVERGED]
    assert lost.tags["failure"].startswith("FloatingPointError: the training loss")
    assert "test none/mpjpe_mm" in best.metrics
    assert "lr = 0.001" in (tmp_path / "best.toml").read_text()
