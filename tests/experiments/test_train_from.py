"""`posegrid train --from` and members of a grid that start from the weights of another run."""

from pathlib import Path

import pytest
import toy

from posegrid.experiments import catalogue
from posegrid.experiments.cli import main
from posegrid.experiments.planning import plan
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.initial import INITIAL, digest
from posegrid.orchestration.tracking import Tracking, sqlite_uri

RECIPE = """
[model]
name = "mlp"
width = 8
depth = {depth}
[data]
frames = 9
[training]
epochs = 1
batch = 8
lr = 1e-3
[evaluation]
batch = 64
"""
GRID = """
title = "toy"
train = ["none"]
test = ["none"]
[[members]]
recipe = "{recipe}"
label = "fresh"
[[members]]
recipe = "{recipe}"
label = "pre-trained"
set = ["initial.source={source}", "training.lr=1e-4"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recipes, a store, and a model file that fits the first recipe."""
    for depth in (1, 2):
        (tmp_path / f"depth_{depth}.toml").write_text(RECIPE.format(depth=depth))
    store = toy.write_toy(tmp_path / "store", 40)
    settings = catalogue.recipe(str(tmp_path / "depth_1.toml"))
    pose = pose_shape(store, settings.data)
    weights = checkpoint.build(settings, pose).state_dict()
    data = {"skeleton": store.skeleton.name}
    checkpoint.write(tmp_path / "model.pt", checkpoint.model_file(settings, pose, weights, data))
    return tmp_path


def posegrid(folder: Path, *arguments: object) -> int:
    """Exit status of a command on the store, in this process."""
    command = [*arguments, "--data", folder / "store", "--home", folder / "runs", "--launch", "local"]
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in command])
    return int(stopped.value.code or 0)


def test_training_starts_from_a_model_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert posegrid(folder, "train", folder / "depth_1.toml", "--from", folder / "model.pt") == 0
    tracking = Tracking.existing(sqlite_uri(folder / "runs" / "mlflow.db"))
    (started,) = tracking.trials().values()
    assert started.tags[INITIAL] == str(folder / "model.pt")

    capsys.readouterr()
    for arguments, message in (
        (("depth_2.toml", "--from", folder / "model.pt"), "has other weights than this recipe's network - missing: "),
        (("depth_1.toml", "--from", folder / "none.pt"), "none.pt does not exist"),
        (("depth_1.toml", "--from", "0123"), "run '0123' is not in"),
    ):
        assert posegrid(folder, "train", folder / arguments[0], *arguments[1:]) == 2
        assert message in capsys.readouterr().err
    assert len(tracking.trials()) == 1


def test_a_member_of_a_grid_may_start_from_a_model_file(folder: Path) -> None:
    (folder / "grid.toml").write_text(GRID.format(recipe=folder / "depth_1.toml", source=folder / "model.pt"))
    planned = plan("s", catalogue.load_grid(str(folder / "grid.toml")), folder / "store")
    starts = {stage.member: stage.settings.initial for stage in planned.stages.values()}
    assert starts.keys() == {"fresh", "pre-trained"}
    assert starts["fresh"] is None
    assert starts["pre-trained"] is not None
    assert starts["pre-trained"].digest == digest(checkpoint.load_model(folder / "model.pt")[0].state_dict())
