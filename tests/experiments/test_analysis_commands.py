"""The commands that look into networks and runs: what they print, log and refuse."""

import csv
import json
from pathlib import Path

import pytest
import toy

from posegrid.experiments import catalogue
from posegrid.experiments.cli import main
from posegrid.orchestration.tracking import Tracking, sqlite_uri

RECIPE = """
[model]
name = "uplift_upsample"
width = 16
spatial_width = 4
spatial_depth = 1
temporal_depth = 1
heads = 2
strides = [3, 3]
paddings = [0, 0]
[data]
frames = 9
stride = 2
[training]
epochs = 1
batch = 32
lr = 1e-3
select = "last"
[occlusion]
pattern = "sparse_frames"
strides = [4, 8]
[evaluation]
score = "centre"
lift_every = 2
batch = 270
"""
SPARSE = '{pattern="sparse_frames", strides=[8], shift="video"}'


def run(*arguments: object, status: int = 0) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert (stopped.value.code or 0) == status


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a recipe, and a home with one trained run."""
    made = tmp_path_factory.mktemp("analyses")
    toy.write_toy(made / "store")
    (made / "tiny.toml").write_text(RECIPE)
    run(
        "train", made / "tiny.toml", "--data", made / "store", "--home", made / "runs", "--launch", "local",
        "--test", "none",
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def trained(folder: Path) -> str:
    """Run id of the trained run."""
    tracking = Tracking.existing(sqlite_uri(folder / "runs" / "mlflow.db"))
    return next(trial.run_id for trial in tracking.trials().values() if trial.trained)


def cells(said: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line[:1] == "|"]


def test_complexity_of_a_run_and_a_recipe(folder: Path, trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    home = ("--home", folder / "runs", "--repetitions", 1, "--batch", 2)
    capsys.readouterr()
    run("complexity", trained, folder / "tiny.toml", *home, "--occlusion", "none", "--occlusion", SPARSE)
    table = cells(capsys.readouterr().out)
    assert table[0][3:6] == ["parameters", "MFLOPs per pose", "poses/s"]
    rows = table[2:]
    assert [row[1] for row in rows] == ["none", "sparse_frames shift video strides -8-"] * 2
    assert rows[0][:5] == rows[2][:5]  # the run costs what its recipe costs
    assert float(rows[1][4]) < float(rows[0][4])  # the spatial transformer is spared
    tracking = Tracking.existing(sqlite_uri(folder / "runs" / "mlflow.db"))
    values = tracking.trial(trained).metrics
    assert values["complexity none/flops per pose"] / 1e6 == pytest.approx(float(rows[0][4]), abs=0.05)
    assert values["complexity none/poses per s"] > 0
    logged = [trial for trial in tracking.trials().values() if trial.tags["mlflow.runName"].startswith("tiny under")]
    assert {trial.tags["mlflow.runName"] for trial in logged} == {f"tiny under {row[1]}" for row in rows}
    assert all(trial.status == "FINISHED" and len(trial.metrics) == 3 for trial in logged)


def test_speed_of_two_patterns_in_one_figure(folder: Path, trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("analyse", "speed", trained, "--data", folder / "store", "--home", folder / "runs")
    run(*command, "--occlusion", "none", "--occlusion", SPARSE, "--bins", 4, "--out", folder / "speed")
    said = capsys.readouterr().out
    assert "tested on none; centre frame, 1 frame of 2 lifted" in said
    with (folder / "speed" / "speed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 5
    assert (rows[4]["from m/s"], rows[4]["to m/s"], rows[4]["cdf"]) == ("0.4", "", "1.000000")
    assert (folder / "speed" / "speed.png").stat().st_size > 5000
    tracking = Tracking.existing(sqlite_uri(folder / "runs" / "mlflow.db"))
    assert {"analysis/speed.csv", "analysis/speed.png"} <= set(tracking.artifacts(trained, "analysis"))
    study = tracking.study("analysis")
    assert len(tracking.artifacts(study, f"analysis/{trained[:8]}")) >= 2


def test_strides_of_a_run(folder: Path, trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("analyse", "strides", trained, "--data", folder / "store", "--home", folder / "runs")
    capsys.readouterr()
    run(*command, "--short", 4, "--long", 8, "--threshold", 0, "--hold", 12, "--out", folder / "strides", "--json")
    answer = json.loads(capsys.readouterr().out)
    table = cells((folder / "strides" / "strides_4_8_0_12.md").read_text())
    assert [row[0] for row in table[2:]] == ["4", "8", "4 or 8"]
    # recordings of 117 and 124 frames
    assert [row[2] for row in table[2:4]] == [str(30 + 31), str(15 + 16)]
    assert table[3][3] == f"{1 - 31 / 61:.1%}"
    with (folder / "strides" / "strides_4_8_0_12.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 124
    assert rows[-1]["s"] == "2.46"
    assert {row["stride"] for row in rows} <= {"4", "8"}
    metrics = Tracking.existing(sqlite_uri(folder / "runs" / "mlflow.db")).trial(trained).metrics
    assert metrics["strides_4_8_0_12 short/detections"] == 61
    assert metrics["strides_4_8_0_12 long/mpjpe_mm"] == pytest.approx(float(table[3][1]), abs=0.05)

    assert (answer["run"], answer["short_frames"], answer["long_frames"], answer["hold_frames"]) == (trained, 4, 8, 12)
    assert "centre frame" in answer["protocol"]
    for row, (name, found) in zip(table[2:], answer["policies"].items(), strict=True):
        assert found["mpjpe_mm"] == metrics[f"strides_4_8_0_12 {name}/mpjpe_mm"]
        shares = [f"{found[share]:.1%}" for share in ("saved", "short_stride")]
        assert row[1:] == [f"{found['mpjpe_mm']:.1f}", f"{found['detections']:,}", *shares]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("complexity", "mixste27"), 'recipe or run id "mixste27" (command line) is unknown; did you mean "mixste_27"'),
        (("complexity", "mixste_27", "--batch", "0"), "batch and repetitions are at least 1"),
        (("complexity", "mixste_27", "--device", "abacus"), '--device "abacus" cannot be used'),
        (("complexity", "mixste_27", "--occlusion", "{pattern="), "is no TOML table"),
        (("complexity", "mixste_27", "--occlusion", '{pattern="leg_runs"}'), 'did you mean "leg_run"'),
        (("analyse", "speed", "nothing.pt", "--data", "x"), "does not exist"),
        (("analyse", "speed", "nothing.pt", "--data", "x", "--width", "0"), "width is 0"),
        (("analyse", "strides", "nothing.pt", "--data", "x", "--long", "6"), "long is a multiple of short"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*arguments, "--home", tmp_path / "runs", status=2)
    assert expected in capsys.readouterr().err


def test_patterns_of_the_command_line() -> None:
    assert catalogue.pattern("leg_run", "here")["pattern"] == "leg_run"
    assert catalogue.pattern(SPARSE, "here") == {"pattern": "sparse_frames", "strides": [8], "shift": "video"}
