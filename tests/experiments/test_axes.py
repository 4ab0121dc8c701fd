"""Axes of a grid: every combination, labels, what reaches a conditioner, errors that name the axis."""

from pathlib import Path

import pytest
import toy

from posegrid.datasets.store import Store
from posegrid.experiments import catalogue, checks
from posegrid.experiments.axes import given_axes, points
from posegrid.experiments.planning import plan

LIFTER = toy.LIFTER_RECIPE + "epochs = 2\n"
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
"""
GRID = """
title = "toy"
train = ["none"]
test = ["none"]
{axes}
[[members]]
recipe = "{folder}/lifter.toml"
label = "lifter"
[[members]]
recipe = "{folder}/wrapper.toml"
label = "wrapper"
"""


def written(folder: Path, axes: str) -> str:
    """A grid of a lifter and a wrapper on it, with axes."""
    (folder / "lifter.toml").write_text(LIFTER)
    (folder / "wrapper.toml").write_text(WRAPPER.format(lifter=folder / "lifter.toml"))
    file = folder / "grid.toml"
    file.write_text(GRID.format(folder=folder, axes=f"[axes]\n{axes}\n"))
    return str(file)


def test_all_combinations_with_all_members(tmp_path: Path) -> None:
    grid = catalogue.load_grid(
        written(tmp_path, '"training.lr" = [1e-3, 2e-4]\ntraining.seed = [0]\n"data.tail" = ["keep"]')
    )
    assert [member.label for member in grid.members] == [
        "lifter, lr 0.001, seed 0, tail keep",
        "lifter, lr 0.0002, seed 0, tail keep",
        "wrapper, lr 0.001, seed 0, tail keep",
        "wrapper, lr 0.0002, seed 0, tail keep",
    ]
    second = catalogue.member_recipe(grid, grid.members[1], [])
    assert (second.training.lr, second.data.tail) == (2e-4, "keep")
    assert catalogue.member_recipe(grid, grid.members[1], ["training.lr=0.5"]).training.lr == 0.5


def test_windows_of_a_conditioner_follow_and_are_shared(tmp_path: Path, toy_store: Store) -> None:
    """Both lengths train a lifter each, which is the member and the wrapper's conditioner at once."""
    grid = catalogue.load_grid(written(tmp_path, '"data.frames" = [9, 15]'))
    planned = plan("s", grid, toy_store.path)
    assert [stage.name for stage in planned.stages.values()] == [
        "lifter, frames 9 on none",
        "lifter, frames 15 on none",
        "wrapper, frames 9 on none",
        "wrapper, frames 15 on none",
    ]
    for frames in (9, 15):
        wrapper = planned.stages[planned.members[f"wrapper, frames {frames}"]["none", 0]]
        assert wrapper.settings.data.frames == frames
        assert wrapper.upstream == planned.members[f"lifter, frames {frames}"]["none", 0]


def test_other_values_hold_for_the_member_alone_unless_they_name_a_recipe(tmp_path: Path, toy_store: Store) -> None:
    plain = plan("s", catalogue.load_grid(written(tmp_path, '"training.lr" = [1e-3, 2e-4]')), toy_store.path)
    rates = {label: plain.stages[cells["none", 0]] for label, cells in plain.members.items()}
    assert len({stage.key for stage in rates.values()}) == 4
    conditioners = {rates[label].upstream for label in rates if label.startswith("wrapper")}
    assert conditioners == {rates["lifter, lr 0.001"].key}  # the recipe's own rate
    named = plan("s", catalogue.load_grid(written(tmp_path, '"lifter:training.lr" = [1e-3, 2e-4]')), toy_store.path)
    wrappers = [named.stages[cells["none", 0]] for label, cells in named.members.items() if label.startswith("wrapper")]
    assert [named.stages[wrapper.upstream or ""].settings.training.lr for wrapper in wrappers] == [1e-3, 2e-4]
    assert [wrapper.settings.training.lr for wrapper in wrappers] == [1e-3, 1e-3]


def test_values_that_change_together() -> None:
    found = points(
        {"length": [{"data": {"frames": 27}, "training.batch": 40}, {"data.frames": 81, "training.batch": 12}]}, "x"
    )
    assert [point.label for point in found] == ["frames 27 batch 40", "frames 81 batch 12"]
    assert found[1].values == ("data.frames=81", "training.batch=12")


def test_short_names_that_clash_are_written_out() -> None:
    (found,) = points({"training.lr": [1e-3], "lifter:training.lr": [0.5], "model.strides": [[3, 3]]}, "x")
    assert found.label == "training.lr 0.001, lifter:training.lr 0.5, strides [3, 3]"


def test_axes_of_the_command_line(tmp_path: Path) -> None:
    assert given_axes(["training.lr=1e-3, 2e-4", "data.tail=drop,keep", "model.strides=[3,3],[9]"]) == {
        "training.lr": [1e-3, 2e-4],
        "data.tail": ["drop", "keep"],
        "model.strides": [[3, 3], [9]],
    }
    grid = catalogue.load_grid(written(tmp_path, '"training.lr" = [1e-3]'), given_axes(["data.tail=drop,keep"]))
    assert [member.label for member in grid.members][:2] == [
        "lifter, lr 0.001, tail drop",
        "lifter, lr 0.001, tail keep",
    ]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ('"training.lr" = []', 'axis "training.lr" = .* is no list of values'),
        ('"training.lr" = 1e-3', 'axis "training.lr" = 0.001 is no list of values'),
        ('"training.lr" = [1e-3, 0.001]', 'axis "training.lr" has a value twice'),
        (
            '"data.frames" = [9]\nlength = [{data.frames = 15}]',
            '"data.frames" is in the axes "data.frames" and "length"',
        ),
    ],
)
def test_wrong_axes_are_refused(tmp_path: Path, axes: str, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"grids/grid.toml, table \[axes\]: .*{expected}"):
        catalogue.load_grid(written(tmp_path, axes))


def test_wrong_keys_name_the_member(tmp_path: Path) -> None:
    grid = catalogue.load_grid(written(tmp_path, '"training.lrr" = [1e-3]'))
    with pytest.raises(ValueError, match=r'^member "lifter, lrr 0.001" with set = .*did you mean "lr"'):
        catalogue.member_recipe(grid, grid.members[0], [])


@pytest.mark.parametrize("text", ["training.lr", "=1", "training.lr="])
def test_wrong_axes_of_the_command_line(text: str) -> None:
    with pytest.raises(ValueError, match="is not of the form key=value,value"):
        given_axes([text])
    with pytest.raises(ValueError, match=r'names "training.lr" twice'):
        given_axes(["training.lr=1", "training.lr=2"])


def test_check_reads_axes(tmp_path: Path) -> None:
    said: list[str] = []
    checks.check("grid", written(tmp_path, '"data.frames" = [9, 15]'), said.append)
    assert "4 members" in said[0]
    with pytest.raises(ValueError, match=r'did you mean "frames"'):
        checks.check("grid", written(tmp_path, '"data.frame" = [9]'), said.append)
