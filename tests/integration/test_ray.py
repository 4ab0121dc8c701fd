"""Ray for real: a grid on two CPU workers, one against two workers, a killed study, a repeated one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy

from posegrid.orchestration.tracking import Tracking, Trial, sqlite_uri

pytestmark = pytest.mark.ray

LIFTER = """
[model]
name = "mixste"
width = 16
depth = 1
heads = 2
[data]
frames = 9
[training]
epochs = {epochs}
batch = 8
lr = 1e-3
schedule = "cosine"
[evaluation]
batch = 16
"""
WRAPPER = """
[model]
name = "diffhpe"
conditioning = "lifter"
channels = 8
blocks = 2
steps = 4
step_embedding = 16
dropout = 0.1
[conditioner]
recipe = "{lifter}"
[data]
frames = 9
[training]
epochs = {epochs}
batch = 8
lr = 1e-3
[evaluation]
batch = 16
hypotheses = 2
"""


GRID = """
title = "toy"
train = ["leg_run"]
test = ["leg_run"]
[[members]]
recipe = "{lifter}"
label = "lifter"
"""
WITH_WRAPPER = """
[[members]]
recipe = "{wrapper}"
label = "wrapper"
"""


def command(folder: Path, home: str, grid: str, *more: str) -> list[str]:
    code = "from posegrid.experiments.cli import main; main()"
    base = [sys.executable, "-c", code, "grid", str(folder / f"{grid}.toml"), "--data", str(folder / "store")]
    return [*base, "--study", "s", "--home", str(folder / home), *more]


def run(folder: Path, home: str, grid: str, *more: str) -> str:
    """Run a study to its end; returns what it printed."""
    done = subprocess.run(command(folder, home, grid, *more), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def results(folder: Path, home: str) -> dict[str, Trial]:
    """Trial name -> trial."""
    trials = Tracking(sqlite_uri(folder / home / "mlflow.db")).trials().values()
    return {trial.tags["mlflow.runName"]: trial for trial in trials}


def curve(folder: Path, home: str, run_id: str) -> list[tuple[int, float]]:
    history = Tracking(sqlite_uri(folder / home / "mlflow.db"))._client.get_metric_history(run_id, "train/loss")
    return [(point.step, point.value) for point in history]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    made = tmp_path_factory.mktemp("ray")
    for home in ("one", "two", "killed"):
        (made / home).mkdir()
        shutil.copy(empty_database, made / home)
    lifter = made / "lifter.toml"
    lifter.write_text(LIFTER.format(epochs=4))
    wrapper = made / "wrapper.toml"
    wrapper.write_text(WRAPPER.format(lifter=lifter, epochs=4))
    (made / "chain.toml").write_text(GRID.format(lifter=lifter) + WITH_WRAPPER.format(wrapper=wrapper))
    (made / "alone.toml").write_text(GRID.format(lifter=lifter))
    toy.write_toy(made / "store")
    return made


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Trial]:
    """The study on one worker."""
    said = run(folder, "one", "chain")
    assert "2 stages, 0 done, 2 to run" in said
    return results(folder, "one")


def test_chain_on_ray(folder: Path, undisturbed: dict[str, Trial]) -> None:
    assert set(undisturbed) == {"lifter on leg_run", "wrapper on leg_run"}
    wrapper, lifter = undisturbed["wrapper on leg_run"], undisturbed["lifter on leg_run"]
    assert wrapper.tags["posegrid.upstream"] == lifter.run_id
    assert {trial.status for trial in undisturbed.values()} == {"FINISHED"}
    assert "test leg_run/mpjpe_mm" in wrapper.metrics
    assert [step for step, _ in curve(folder, "one", wrapper.run_id)] == [0, 1, 2, 3]


def test_repetition_trains_nothing(folder: Path, undisturbed: dict[str, Trial]) -> None:
    began = time.monotonic()
    assert "2 stages, 2 done, 0 to run" in run(folder, "one", "chain")
    assert time.monotonic() - began < 60
    assert {name: trial.run_id for name, trial in results(folder, "one").items()} == {
        name: trial.run_id for name, trial in undisturbed.items()
    }


def test_two_workers_give_the_curve_and_metrics_of_one(folder: Path, undisturbed: dict[str, Trial]) -> None:
    run(folder, "two", "alone", "--workers", "2")
    found = results(folder, "two")
    assert set(found) == {"lifter on leg_run"}
    for name, trial in found.items():
        one = curve(folder, "one", undisturbed[name].run_id)
        two = curve(folder, "two", trial.run_id)
        assert [step for step, _ in two] == [step for step, _ in one]
        assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-4)
        tested = {key: value for key, value in undisturbed[name].metrics.items() if key.startswith("test ")}
        assert {key: trial.metrics[key] for key in tested} == pytest.approx(tested, rel=1e-3)


@pytest.mark.slow
def test_what_is_only_scored_anew_is_not_trained(folder: Path, undisturbed: dict[str, Trial]) -> None:
    assert "2 stages, 1 done, 1 to run" in run(folder, "one", "chain", "--set", "lifter:evaluation.every=2")
    after = results(folder, "one")["lifter on leg_run"]
    before = undisturbed["lifter on leg_run"]
    assert (after.run_id, after.status) == (before.run_id, "FINISHED")
    assert after.evaluated != before.evaluated
    assert [step for step, _ in curve(folder, "one", after.run_id)] == [0, 1, 2, 3]


def test_killed_study_continues_without_duplicates(folder: Path, undisturbed: dict[str, Trial]) -> None:
    process = subprocess.Popen(
        command(folder, "killed", "alone"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    run(folder, "killed", "alone")
    after = results(folder, "killed")
    assert set(after) == {"lifter on leg_run"}
    for name, trial in after.items():
        assert trial.status == "FINISHED"
        assert curve(folder, "killed", trial.run_id) == curve(folder, "one", undisturbed[name].run_id)
        tested = {key: value for key, value in undisturbed[name].metrics.items() if key.startswith("test ")}
        assert {key: trial.metrics[key] for key in tested} == tested
