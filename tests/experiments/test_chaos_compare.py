"""The comparison of two tracking stores names what differs, and nothing else."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from posegrid.experiments.benchmarks.chaos_compare import differences, read
from posegrid.orchestration.tracking import Tracking, sqlite_uri


def write(home: Path) -> None:
    """A study of one trial, as a run leaves it."""
    tracking = Tracking.open(sqlite_uri(home / "mlflow.db"))
    parent = tracking.open_study("s", {"data": "toy"}, "")
    run = tracking.open_trial("key", "trial", parent, {"lr": 0.1}, {"model": "mlp"})
    for epoch in range(3):
        tracking.log_metrics(run, {"train/loss": 1 / (epoch + 1), "time/epoch_s": np.random.rand()}, epoch)
    torch.save({"weights": torch.ones(2)}, home / "model.pt")
    tracking.log_file(run, home / "model.pt", "model")
    tracking.log_text(run, "a,b\n", "test/none/per_action.csv")
    tracking.finish(run, "FINISHED")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("one") / "home"
    home.mkdir()
    write(home)
    return home


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("", ""),
        ("UPDATE metrics SET value = value + 1, timestamp = timestamp + 1 WHERE key = 'time/epoch_s'", ""),
        ("UPDATE metrics SET value = 0.25 WHERE key = 'train/loss' AND step = 2", "metric train/loss: "),
        ("DELETE FROM metrics WHERE key = 'time/epoch_s' AND step = 1", "metric time/epoch_s: "),
        (
            "INSERT INTO metrics SELECT key, value, timestamp + 1, run_uuid, step, is_nan FROM metrics WHERE step = 2 "
            "AND key = 'train/loss'",
            "steps of train/loss do not rise: [0, 1, 2, 2]",
        ),
        ("UPDATE params SET value = '0.2' WHERE key = 'lr'", "param lr: 0.1 against 0.2"),
        ("UPDATE tags SET value = 'x' WHERE key = 'model'", "tag model: mlp against x"),
        ("UPDATE runs SET status = 'RUNNING' WHERE name = 'trial'", "status FINISHED against RUNNING"),
        ("UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'trial'", "run trial (key) is only in the first"),
        ("table", "artifact test/none/per_action.csv: "),
        ("model", "artifact model/model.pt: "),
        ("lost", "artifact model/model.pt is only in the first"),
    ],
)
def test_differences_are_named(made: Path, tmp_path: Path, change: str, told: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(made, other)
    model = next(other.rglob("artifacts/model/model.pt"))
    if change == "table":
        next(other.rglob("per_action.csv")).write_text("a,c\n")
    elif change == "model":
        torch.save({"weights": torch.tensor([1.0, 1.0 + 1e-7])}, model)
    elif change == "lost":
        model.unlink()
    elif change:
        with closing(sqlite3.connect(other / "mlflow.db")) as database:
            assert database.execute(change).rowcount > 0
            database.commit()
    found = list(differences(read(made), read(other)))
    assert any(told in line for line in found) if told else not found
