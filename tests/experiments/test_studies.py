"""A study that ends early: what its runs say then, and when it is repeated."""

from pathlib import Path

import pytest
import toy

from posegrid.datasets.store import Store
from posegrid.experiments import catalogue
from posegrid.experiments.planning import Plan, plan
from posegrid.experiments.studies import Where, launcher, run
from posegrid.orchestration.tracking import Tracking, sqlite_uri

GRID = """
title = "toy"
train = ["none", "leg_run"]
test = ["none"]
[[members]]
recipe = "{folder}/lifter.toml"
label = "lifter"
"""


@pytest.fixture
def study(tmp_path: Path, toy_store: Store) -> Plan:
    """Two trainings of two epochs."""
    (tmp_path / "lifter.toml").write_text(toy.LIFTER_RECIPE + "epochs = 2\n")
    (tmp_path / "grid.toml").write_text(GRID.format(folder=tmp_path))
    return plan("s", catalogue.load_grid(str(tmp_path / "grid.toml")), toy_store)


def test_ctrl_c_leaves_runs_that_say_so_and_that_are_continued(tmp_path: Path, study: Plan) -> None:
    where = Where(tracking=sqlite_uri(tmp_path / "mlflow.db"), storage=str(tmp_path / "state"), launch="local")

    def statuses() -> dict[str, str]:
        tracking = Tracking.existing(where.tracking)
        runs = [tracking.trial(tracking.study("s")), *tracking.trials().values()]
        return {one.tags["mlflow.runName"]: one.status for one in runs}

    def interrupt(line: str) -> None:
        if line.startswith("[2/2 trained] lifter on leg_run"):  # before it is scored
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, where, interrupt)
    assert statuses() == {"s": "KILLED", "lifter on none": "FINISHED", "lifter on leg_run": "KILLED"}
    run(study, where, lambda line: None)
    assert set(statuses().values()) == {"FINISHED"}


def test_a_training_without_ray_keeps_its_state_on_this_machine() -> None:
    where = Where(tracking="sqlite:///x.db", storage="s3://bucket/state", launch="local")
    wrong = r"--launch local with --storage s3://bucket/state.*Give a folder"
    with pytest.raises(ValueError, match=wrong), launcher(where, print):
        pass
