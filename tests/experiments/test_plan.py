"""`posegrid plan`: what is done, what is left, what it costs, when it ends; prices that users edit; mistakes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import toy

from posegrid.datasets.outline import outline
from posegrid.datasets.store import Store
from posegrid.experiments import catalogue
from posegrid.experiments.cli import main
from posegrid.experiments.costing.machines import MACHINES, machine
from posegrid.experiments.costing.plan_table import plan_lines
from posegrid.experiments.costing.study_cost import SearchRounds, StudyCost, study_cost
from posegrid.experiments.planning import Plan, plan
from posegrid.orchestration.grid import Study, open_study, remaining_work
from posegrid.orchestration.launch.local import run_local
from posegrid.orchestration.launch.resources import Resources
from posegrid.orchestration.step_cost import Cost, NetworkCost
from posegrid.orchestration.tracking import Tracking

GRID = """
title = "toy"
train = ["none", "leg_run"]
test = ["none", "leg_run"]
[[members]]
recipe = "{folder}/lifter.toml"
label = "lifter"
[[members]]
recipe = "{folder}/wrapper.toml"
label = "wrapper"
"""
WRAPPER = """
[model]
name = "diffhpe"
conditioning = "lifter"
channels = 8
blocks = 2
steps = 4
step_embedding = 16
[conditioner]
recipe = "{folder}/lifter.toml"
[data]
frames = 9
[training]
epochs = 3
batch = 8
lr = 1e-3
[evaluation]
hypotheses = 2
"""
COST = NetworkCost(
    step=Cost(flops=1e6, traffic=1e5, kernels=100),
    loss=Cost(flops=4e5, traffic=4e4, kernels=40),
    lift_once=Cost(flops=3e5, traffic=3e4, kernels=30),
    lift=Cost(flops=9e5, traffic=9e4, kernels=30),
    update=1e5,
    parameters=1000,
)
"""Of every network: how they are counted is tested elsewhere."""
ONE = Resources()
GPU = Resources(gpus=1)


@pytest.fixture
def grid_file(tmp_path: Path) -> str:
    """A lifter and a wrapper on two patterns."""
    (tmp_path / "lifter.toml").write_text(toy.LIFTER_RECIPE + "epochs = 2\n")
    (tmp_path / "wrapper.toml").write_text(WRAPPER.format(folder=tmp_path))
    (tmp_path / "grid.toml").write_text(GRID.format(folder=tmp_path))
    return str(tmp_path / "grid.toml")


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that need no counting."""
    monkeypatch.setattr("posegrid.experiments.costing.study_cost.network_cost", lambda settings, shape: COST)


def planned(grid_file: str, store: Store, *, gpu: bool = False) -> Plan:
    return plan("s", catalogue.load_grid(grid_file), store, gpu=gpu)


def cost(grid_file: str, store: Store, tracking: Tracking | None = None, **changes: object) -> StudyCost:
    return study_cost(planned(grid_file, store), machine(None, gpu=False), ONE, tracking, **changes)  # type: ignore[arg-type]


@pytest.mark.usefixtures("uncounted")
def test_states_follow_what_was_run(grid_file: str, toy_store: Store, tracking: Tracking, tmp_path: Path) -> None:
    def states() -> list[tuple[str, int, int]]:
        return [
            (part.state, part.epochs_left, part.patterns_left) for part in cost(grid_file, toy_store, tracking).parts
        ]

    fresh = [("to train", 2, 2), ("to train", 2, 2), ("to train", 3, 2), ("to train", 3, 2)]
    assert states() == fresh
    stages = planned(grid_file, toy_store).stages
    study: Study = open_study("s", toy_store, tracking, {}, "")
    epochs = 0

    def stop(key: str, metrics: dict[str, float]) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == 5:  # the first epoch of the first wrapper
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_local(study, remaining_work(stages, {}, toy_store.content_hash), tmp_path / "state", stop)
    assert states() == [("done", 0, 0), ("done", 0, 0), ("resumable", 2, 2), ("to train", 3, 2)]
    found = cost(grid_file, toy_store, tracking)
    assert [part.time.training for part in found.parts] == ["measured", "measured", "measured", "measured"]
    assert [part.time.scoring for part in found.parts] == ["measured", "measured", "estimate", "estimate"]
    assert [part.seconds for part in found.parts[:2]] == [0, 0]
    (tmp_path / "grid.toml").write_text(
        Path(grid_file).read_text().replace('test = ["none"', 'test = ["arm_leg", "none"')
    )
    assert states()[:2] == [("to score only", 0, 1)] * 2
    # a deleted lifter is trained again, and so is what was built on it
    tracking.delete(tracking.trials()[next(iter(stages))].run_id)
    assert [state for state, _, _ in states()] == ["to train", "to score only", "to train", "to train"]


@pytest.mark.usefixtures("uncounted")
def test_hours_add_up(grid_file: str, toy_store: Store) -> None:
    found = cost(grid_file, toy_store)
    part = found.parts[2]
    assert part.training_s == pytest.approx(30 + 3 * part.time.epoch_s)
    assert part.scoring_s == pytest.approx(2 * part.time.pattern_s)
    assert found.device_hours == pytest.approx(sum(one.training_s + one.scoring_s for one in found.parts) / 3600)
    lifters, wrappers = found.parts[:2], found.parts[2:]
    assert [part.needs for part in wrappers] == [(part.key,) for part in lifters]
    assert found.critical_path_s == pytest.approx(lifters[0].seconds + wrappers[0].seconds)
    clocks = [found.on(devices) for devices in (1, 2, 64)]
    assert clocks[0].seconds == pytest.approx(3600 * found.device_hours)
    assert clocks[1].seconds == clocks[2].seconds == pytest.approx(found.critical_path_s)


@pytest.mark.usefixtures("uncounted")
def test_searches_come_before_the_stages_of_their_recipe(grid_file: str, toy_store: Store) -> None:
    plain, found = (
        cost(grid_file, toy_store),
        cost(grid_file, toy_store, searches=[SearchRounds(recipe="wrapper", rounds=((4, 1.0),))]),
    )
    trials = [part for part in found.parts if part.kind == "search of wrapper"]
    assert len(trials) == 4
    assert {part.needs for part in trials} == {(found.parts[0].key,)}
    one = plain.parts[2]
    assert found.device_hours - plain.device_hours == pytest.approx(4 * one.training_s / 3600)
    assert found.critical_path_s == pytest.approx(plain.critical_path_s + one.training_s)
    rounds = SearchRounds(recipe="wrapper", rounds=((6, 1 / 3), (2, 1.0)))
    found = cost(grid_file, toy_store, searches=[rounds])
    trials = [part for part in found.parts if part.kind.startswith("search of wrapper")]
    assert [part.epochs_left for part in trials] == [1] * 6 + [3] * 2
    assert set(trials[6].needs) == {part.key for part in trials[:6]}
    for wrong in (SearchRounds(recipe="lifterr", rounds=((4, 1.0),)), SearchRounds(recipe="lifter", rounds=())):
        with pytest.raises(ValueError, match=r"--search of lifter.*: allowed are .*lifter, wrapper"):
            cost(grid_file, toy_store, searches=[wrong])


@pytest.mark.usefixtures("uncounted")
def test_several_workers_and_shared_gpus(grid_file: str, toy_store: Store) -> None:
    prepared = planned(grid_file, toy_store, gpu=True)
    chosen = machine("p4d.24xlarge", gpu=True)
    pair = study_cost(prepared, chosen, Resources(workers=2, gpus=1), None)
    assert [pair.on(devices).side_by_side for devices in (2, 3, 8)] == [1, 1, 4]
    assert pair.device_hours == pytest.approx(2 * sum(part.seconds for part in pair.parts) / 3600)
    assert pair.usd == pytest.approx(pair.device_hours / 8 * chosen.usd_per_hour)
    assert pair.on(9).usd == pytest.approx(2 * pair.on(9).seconds / 3600 * chosen.usd_per_hour)
    shared = study_cost(prepared, chosen, Resources(gpus=0.25), None)
    assert shared.on(1).side_by_side == 4
    with pytest.raises(ValueError, match=r"--gpus 1: a training asks for 2 workers x 1 devices = 2"):
        pair.on(1)


@pytest.mark.usefixtures("uncounted")
def test_tables_say_what_is_measured_and_what_is_not(grid_file: str, toy_store: Store) -> None:
    found = cost(grid_file, toy_store)
    text = "\n".join(plan_lines(found, [found.on(1)], every_stage=False))
    assert "4 stages (4 to train), 8 scored cells" in text
    assert "1 lifter" in text  # what a wrapper waits for
    assert " e\n" in text or " e " in text
    assert "0 of 4 stages" in text
    assert "check them before use" in text
    assert text.count("leg_run") == 2  # stage by stage
    many = replace(found, parts=[replace(part, key=f"{part.key} {n}") for n in range(20) for part in found.parts])
    assert "leg_run" not in "\n".join(plan_lines(many, [], every_stage=False))
    assert "leg_run" in "\n".join(plan_lines(many, [], every_stage=True))


def test_plans_before_there_are_data() -> None:
    """Recipes that read cameras or train folds of a refiner."""
    for name, source, stages in (
        ("small_uplift_pretrain", "amass", 1),
        ("small_refiner", "h36m", 7),
    ):
        grid = catalogue.Grid(
            title="x", train=("none",), test=("none",), members=(catalogue.Member(recipe=name, label="x"),)
        )
        prepared = plan("s", grid, outline(source), decides=False, gpu=True)
        found = study_cost(prepared, machine(None, gpu=True), GPU, None)
        assert len(found.parts) == stages
        assert all(part.seconds > 0 for part in found.parts)
        assert not found.recognised


def command(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["plan", *(str(argument) for argument in arguments)])
    said = capsys.readouterr()
    assert (stopped.value.code or 0) == status, said.err
    return said.out if not status else said.err


@pytest.mark.usefixtures("uncounted")
def test_from_the_command_line(
    grid_file: str, toy_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ("--home", tmp_path / "none")
    plain = json.loads(command(capsys, grid_file, "--data", toy_store.path, *home, "--json", "--gpus", 1, "--gpus", 2))
    assert [stage["state"] for stage in plain["stages"]] == ["to train"] * 4
    assert [clock["devices"] for clock in plain["wall_clock"]] == [1, 2]
    assert plain["cells"] == 8
    assert not (tmp_path / "none").exists()  # nothing is written
    said = command(capsys, grid_file, "--data", toy_store.path, *home, "--axis", "training.lr=1e-3,1e-4")
    assert "8 stages (8 to train), 16 scored cells" in said
    said = command(capsys, tmp_path / "lifter.toml", "--as", "h36m", *home)
    assert "what is done already is not known" in said
    assert "lifter-h36m: 1 stages" in said or "1 stages (1 to train), 1 scored cells" in said


def test_mistakes(grid_file: str, toy_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data", toy_store.path, "--home", tmp_path)
    for arguments, expected in (
        ((grid_file,), "a plan needs one of them"),
        ((grid_file, *data, "--as", "h36m"), "a plan needs one of them"),
        ((grid_file, "--as", "h36"), 'did you mean "h36m"'),
        ((grid_file, *data, "--machine", "g5.2xlarg"), 'did you mean "g5.2xlarge"'),
        ((grid_file, *data, "--machine", "g5.2xlarge"), "--gpus-per-worker asks for none. Machines that fit: cpu"),
        ((grid_file, *data, "--search", "wrapper=x"), "is neither the name of a search nor of the form RECIPE=TRIALS"),
        (("smalll", *data), 'did you mean "small'),
    ):
        assert expected in command(capsys, *arguments, status=2)


def test_prices_are_the_users_to_edit(tmp_path: Path) -> None:
    text = MACHINES.read_text()
    file = tmp_path / "mine.toml"
    file.write_text(text.replace("usd_per_hour = 1.212", "usd_per_hour = 2"))
    assert machine("g5.2xlarge", gpu=True, file=file).usd_per_hour == 2
    for old, new, expected in (
        ("gpus = 1\nusd_per_hour = 1.212", "gpus = 1\nusd_per_hour = -1", "None can be below 0"),
        ("launch_us = 8.0", "launch_us = 0.0", "launch_us = 0.0 must be above 0"),
        ("launch_us = 8.0", "launch = 8.0", "lacks the key launch_us"),
        ("launch_us = 8.0", "launch_us = 8.0\nwatts = 300", 'key "watts"'),
        ("default_gpu = ", "default = ", 'key "default"'),
    ):
        file.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=expected):
            machine("g5.2xlarge", gpu=True, file=file)


def test_every_shipped_machine_is_read_and_explained() -> None:
    import tomllib

    text = MACHINES.read_text()
    for name in tomllib.loads(text)["machines"]:
        gpu = name != "cpu"
        assert machine(name, gpu=gpu).gpus == (0 if not gpu else machine(name, gpu=gpu).gpus)
    for block in text.split("[machines.")[1:]:
        assert block.splitlines()[1].startswith("# "), block.splitlines()[0]
    assert "check before use" in text
