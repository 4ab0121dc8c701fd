"""The command line trains a refiner with its lifters, and refines a finished run."""

from pathlib import Path

import pytest
import toy

from posegrid.experiments.cli import main
from posegrid.orchestration.tracking import Tracking, sqlite_uri

LIFTER = toy.LIFTER_RECIPE + 'epochs = 1\nselect = "last"\n[evaluation]\nbatch = 64\n'
REFINER = LIFTER.replace('name = "mixste"', 'name = "d3prefiner"').replace("drop_path", "dropout")
CONDITIONER = """
[conditioner]
recipe = "{lifter}"
folds = true
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recipes and a store of a user."""
    lifter = tmp_path / "lifter.toml"
    lifter.write_text(LIFTER)
    (tmp_path / "refiner.toml").write_text(REFINER + CONDITIONER.format(lifter=lifter))
    toy.write_toy(tmp_path / "store")
    return tmp_path


def status(*arguments: object) -> int:
    """Exit status of a command."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def test_refiner_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--data", folder / "store", "--home", folder / "runs", "--launch", "local")
    command = ("train", folder / "refiner.toml", *where)
    assert status(*command) == 0
    assert "4 stages, 0 done, 4 to run" in capsys.readouterr().out
    assert status(*command) == 0
    assert "4 stages, 4 done, 0 to run" in capsys.readouterr().out
    trials = Tracking.existing(sqlite_uri(folder / "runs" / "mlflow.db")).trials().values()
    runs = {trial.tags["mlflow.runName"]: trial.run_id for trial in trials}
    assert sorted(runs) == [
        "lifter on none",
        "lifter without A on none",
        "lifter without B on none",
        "refiner on none",
    ]
    assert status("evaluate", runs["refiner on none"], "--data", folder / "store", "--home", folder / "runs") == 0
    assert "action-wise" in capsys.readouterr().out

    # the same lifter as a run is the same training; a fold as the lifter is another one
    of_run = ("--set", f"conditioner.run={runs['lifter on none']}")
    assert status(*command, *of_run) == 0
    assert "4 stages, 4 done, 0 to run" in capsys.readouterr().out
    of_fold = ("--set", "conditioner.run=lifter without A on none", "--set", "conditioner.folds=false")
    assert status(*command, *of_fold) == 0
    assert "2 stages, 1 done, 1 to run" in capsys.readouterr().out
    assert status(*command, "--set", "conditioner.run=nothing") == 2
    assert "run 'nothing' is not in" in capsys.readouterr().err
    assert status("train", folder / "refiner.toml", "--data", folder / "store", "--set", "conditioner.run=x",
                  "--home", folder / "elsewhere", "--launch", "local") == 2  # fmt: skip
    assert "Run a study first" in capsys.readouterr().err


def test_subject_is_left_out_by_a_setting(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--data", folder / "store", "--home", folder / "runs", "--launch", "local")
    assert status("train", folder / "lifter.toml", *where, "--set", 'data.leave_out=["A"]') == 0
    assert "1 stages, 0 done" in capsys.readouterr().out
    assert status("train", folder / "lifter.toml", *where, "--set", 'data.leave_out=["Z"]') == 2
    assert "Allowed: A, B" in capsys.readouterr().err
