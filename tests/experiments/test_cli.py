"""The command line: a mistake ends with status 2, a message that helps, and earlier results intact."""

import hashlib
from pathlib import Path

import pytest
import torch
import toy
from filelock import FileLock

from posegrid.datasets.store import FRAMES, Store
from posegrid.experiments.cli import main
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.settings import Settings

LIFTER = toy.LIFTER_RECIPE + "epochs = 2\n[evaluation]\nbatch = 16\n"
WRAPPER = """
[model]
name = "diffhpe"
conditioning = "lifter"
channels = 8
blocks = 2
steps = 4
step_embedding = 16
[conditioner]
recipe = "{lifter}"
[data]
frames = 9
[training]
epochs = 2
batch = 8
lr = 1e-3
[evaluation]
batch = 16
hypotheses = 2
"""
GRID = """
title = "toy"
train = ["none", "leg_run"]
test = ["none", "leg_run"]
published = "diffhpe_table4"
[[members]]
recipe = "{lifter}"
label = "lifter"
[[members]]
recipe = "{wrapper}"
label = "wrapper"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recipes, a grid and a store of a user."""
    lifter, wrapper = tmp_path / "lifter.toml", tmp_path / "wrapper.toml"
    lifter.write_text(LIFTER)
    wrapper.write_text(WRAPPER.format(lifter=lifter))
    (tmp_path / "grid.toml").write_text(GRID.format(lifter=lifter, wrapper=wrapper))
    toy.write_toy(tmp_path / "store")
    return tmp_path


def one_cell(folder: Path) -> Path:
    """The grid with one pattern, for what does not depend on their number."""
    grid = folder / "grid.toml"
    grid.write_text(grid.read_text().replace('"none", "leg_run"', '"leg_run"'))
    return grid


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must end with status 2; returns what it says on standard error."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    assert "Traceback" not in said
    return said


def works(*arguments: object) -> None:
    """Run a command that must succeed."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert not stopped.value.code


def content(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_grid_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("grid", folder / "grid.toml", "--data", folder / "store", "--home", folder / "runs", "--launch", "local")
    works(*command)
    said = capsys.readouterr().out
    assert "4 stages, 0 done, 4 to run" in said
    assert "wrapper minus lifter, MPJPE (mm): lower in" in said
    assert "| leg_run |" in said
    works("report", "grid-toy", "--home", folder / "runs", "--out", folder / "report")
    assert "measured what a pose costs" in said
    assert "measured what a pose costs" not in capsys.readouterr().out  # it is kept on the runs
    made = {file.name for file in (folder / "report").iterdir()}
    assert {"wrapper_minus_lifter_mpjpe_mm.png", "lifter_mpjpe_mm.csv", "occlusion_table.md", "models.csv"} <= made
    assert "(published)" in (folder / "report" / "occlusion_table.md").read_text()
    models = (folder / "report" / "models.md").read_text()
    assert models.count("Tested on") == 2
    assert "Tested on leg_run; whole windows, tails dropped; one seed:" in models

    before = content(folder / "runs")
    said = fails(capsys, "report", "grid-cmu", "--home", folder / "runs")
    assert "Known: grid-toy" in said
    said = fails(capsys, *command, "--set", "training.learning_rate=1")
    assert '"learning_rate"' in said
    assert content(folder / "runs") == before


def test_unknown_recipe_key_names_the_nearest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = folder / "lifter.toml"
    recipe.write_text(LIFTER.replace("epochs = 2", "epoch = 2"))
    said = fails(capsys, "train", recipe, "--data", folder / "store", "--home", folder / "runs")
    assert 'key "epoch" (recipes/lifter.toml, key training) is unknown; did you mean "epochs"?' in said
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train", "mixste27"), 'recipe "mixste27"'),
        (("grid", "demos"), 'did you mean "demo"'),
        (("prepare", "cmuu", "--out", "x"), 'did you mean "cmu"'),
        (("check", "recipes", "x"), "Known: recipe, grid, search, data, keypoints, setup"),
        (("evaluate", "nothing.pt"), "does not exist"),
    ],
)
def test_unknown_names(
    arguments: tuple[str, ...], expected: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", folder / "store") if arguments[0] in ("train", "grid", "evaluate") else ()
    assert expected in fails(capsys, *arguments, *data)


def test_store_that_is_missing_or_damaged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ("grid", folder / "grid.toml", "--home", folder / "runs", "--launch", "local")
    assert "posegrid prepare" in fails(capsys, *grid, "--data", folder / "nowhere")
    frames = folder / "store" / FRAMES
    damaged = bytearray(frames.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    frames.write_bytes(damaged)
    assert "does not match" in fails(capsys, *grid, "--data", folder / "store")
    assert "does not match" in fails(capsys, "check", "data", folder / "store")
    assert not (folder / "runs" / "mlflow.db").exists()


def test_checkpoint_of_another_architecture(
    folder: Path, toy_store: Store, lifter_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    pose = pose_shape(toy_store, lifter_settings.data)
    model = checkpoint.build(lifter_settings, pose)
    claimed = Settings.from_plain({**lifter_settings.plain(), "model": {"name": "mlp"}})
    written = checkpoint.model_file(claimed, pose, model.state_dict(), {"skeleton": "h36m_17"})
    checkpoint.write(folder / "model.pt", written)
    said = fails(capsys, "evaluate", folder / "model.pt", "--data", folder / "store")
    assert "another architecture" in said
    assert "missing:" in said


def test_model_file_is_scored(
    folder: Path, toy_store: Store, lifter_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    pose = pose_shape(toy_store, lifter_settings.data)
    model = checkpoint.build(lifter_settings, pose)
    checkpoint.write(
        folder / "model.pt",
        checkpoint.model_file(lifter_settings, pose, model.state_dict(), {"skeleton": "h36m_17"}),
    )
    works("evaluate", folder / "model.pt", "--data", folder / "store", "--occlusion", "leg_run")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("action,mpjpe_mm,mpjpe_mm/occluded")
    assert [line.split(",")[0] for line in lines[2:6]] == ["sit", "walk", "action-wise", "frame-wise"]


def test_unreachable_tracking_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = "http://127.0.0.1:9"
    said = fails(capsys, "grid", folder / "grid.toml", "--data", folder / "store", "--tracking", address)
    assert f"tracking server {address} does not answer" in said


def test_more_workers_than_the_machine_has(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("grid", folder / "grid.toml", "--data", folder / "store", "--home", folder / "runs")
    said = fails(capsys, *command, "--workers", 8, "--cpus-per-worker", 50)
    assert "8 workers x 50 CPU cores = 400" in said
    assert "--workers" in said
    assert not (folder / "runs" / "artifacts").exists()


def test_ray_cluster_that_does_not_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("grid", folder / "grid.toml", "--data", folder / "store", "--home", folder / "runs")
    assert "no Ray cluster answers at 127.0.0.1:9" in fails(capsys, *command, "--address", "127.0.0.1:9")


def test_batch_that_workers_cannot_share(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("grid", folder / "grid.toml", "--data", folder / "store", "--home", folder / "runs")
    for workers in ("9", "2-9"):
        said = fails(capsys, *command, "--workers", workers, "--address", "127.0.0.1:9")
        assert "training.batch = 8" in said
        assert "by 9 workers" in said


def test_refused_command_leaves_the_finished_study_as_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("grid", one_cell(folder), "--data", folder / "store", "--home", folder / "runs", "--launch")
    works(*command, "local")
    before = content(folder / "runs" / "artifacts")
    for wrong in (("--workers", 8, "--cpus-per-worker", 50), ("--address", "127.0.0.1:9")):
        # a changed rate is new work, so the refusal comes after the plan
        fails(capsys, *command, "ray", "--set", "training.lr=3e-3", "--study", "grid-toy", *wrong)
    capsys.readouterr()
    assert content(folder / "runs" / "artifacts") == before
    works(*command, "local")
    said = capsys.readouterr().out
    assert "2 stages, 2 done, 0 to run" in said
    assert "nan" not in said


def test_other_scoring_of_the_same_model_does_not_leak_into_a_report(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("grid", one_cell(folder), "--data", folder / "store", "--home", folder / "runs", "--launch", "local")
    works(*command)
    works(*command, "--set", "evaluation.every=2")
    assert "no scored cell" in fails(capsys, "report", "grid-toy", "--home", folder / "runs")
    works(*command)
    assert "2 to run" in capsys.readouterr().out


def test_overrides_reach_a_conditioner_that_is_a_member(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("grid", one_cell(folder), "--data", folder / "store", "--home", folder / "runs", "--launch", "local")
    works(*command, "--set", "training.epochs=1", "--set", "wrapper:model.channels=4")
    assert "2 stages, 0 done" in capsys.readouterr().out
    assert "the grid decides both" in fails(capsys, *command, "--set", "training.seed=3")


def test_same_training_scored_twice_in_a_grid_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = folder / "again.toml"
    again.write_text(LIFTER.replace("batch = 16", "batch = 32"))
    with (folder / "grid.toml").open("a") as grid:
        grid.write(f'\n[[members]]\nrecipe = "{again}"\nlabel = "again"\n')
    said = fails(capsys, "grid", folder / "grid.toml", "--data", folder / "store", "--home", folder / "runs")
    assert "scored differently" in said


def test_windows_that_do_not_fit_are_refused_before_training(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("grid", folder / "grid.toml", "--data", folder / "store", "--home", folder / "runs")
    assert "Lower data.frames" in fails(capsys, *command, "--set", "data.frames=500")
    assert "rate" in fails(capsys, *command, "--set", "data.frames=2")
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("broken", [[1, 2], {"format": checkpoint.MODEL_FORMAT}])
def test_foreign_checkpoints(broken: object, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(broken, folder / "model.pt")
    assert "no posegrid model file" in fails(capsys, "evaluate", folder / "model.pt", "--data", folder / "store")


@pytest.mark.parametrize("address", ["foo://bar", "sqlite:////dev/null/x.db"])
def test_tracking_addresses_that_are_none(address: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("grid", folder / "grid.toml", "--data", folder / "store")
    assert "--tracking" in fails(capsys, *command, "--tracking", address)


def test_study_that_another_command_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs" / "state").mkdir(parents=True)
    command = ("grid", folder / "grid.toml", "--data", folder / "store", "--home", folder / "runs", "--launch", "local")
    with FileLock(folder / "runs" / "state" / "grid-toy.lock"):
        assert "being run by another command" in fails(capsys, *command)
