"""Members of a grid: values of their own, names that tell two members of one recipe apart, errors that name them."""

from pathlib import Path

import pytest
import toy

from posegrid.datasets.store import Store
from posegrid.experiments import catalogue, checks
from posegrid.experiments.planning import plan

RECIPE = toy.LIFTER_RECIPE + "epochs = 2\n"
GRID = """
title = "toy"
train = ["none"]
test = ["none"]
[[members]]
recipe = "{recipe}"
label = "plain"
[[members]]
recipe = "{recipe}"
label = "in pairs"
set = {changes}
"""


def written(folder: Path, changes: str = '["training.flip_pairs=true", "model.depth=2"]') -> str:
    """A grid of two members of one recipe, of which the second changes it."""
    (folder / "lifter.toml").write_text(RECIPE)
    file = folder / "grid.toml"
    file.write_text(GRID.format(recipe=folder / "lifter.toml", changes=changes))
    return str(file)


def test_values_of_a_member_come_after_the_recipe_and_before_the_command_line(tmp_path: Path, toy_store: Store) -> None:
    grid = catalogue.load_grid(written(tmp_path))
    planned = plan("s", grid, toy_store.path, ["model.depth=3"])
    plain, pairs = (planned.stages[planned.members[label]["none", 0]] for label in ("plain", "in pairs"))
    assert not plain.settings.training.flip_pairs
    assert pairs.settings.training.flip_pairs
    assert [stage.settings.model["depth"] for stage in (plain, pairs)] == [3, 3]
    assert catalogue.member_recipe(grid, grid.members[1], []).model["depth"] == 2


def test_runs_are_named_by_the_members_label(tmp_path: Path, toy_store: Store) -> None:
    planned = plan("s", catalogue.load_grid(written(tmp_path)), toy_store.path)
    assert [stage.name for stage in planned.stages.values()] == ["plain on none", "in pairs on none"]
    assert [stage.kind for stage in planned.stages.values()] == ["plain", "in pairs"]
    assert {stage.settings.name for stage in planned.stages.values()} == {"lifter"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ('["training.flip_pair=true"]', 'did you mean "flip_pairs"'),
        ('["training.flip_pairs"]', "not of the form key=value"),
        ('["training.batch=7", "training.flip_pairs=true"]', "pairs need an even batch"),
    ],
)
def test_wrong_values_name_the_member(tmp_path: Path, toy_store: Store, changes: str, expected: str) -> None:
    grid = catalogue.load_grid(written(tmp_path, changes))
    with pytest.raises(ValueError, match=f'^member "in pairs" with set = .*{expected}'):
        plan("s", grid, toy_store.path)


def test_check_reads_the_values_of_members(tmp_path: Path) -> None:
    said: list[str] = []
    checks.check("grid", written(tmp_path), said.append)
    assert "2 members" in said[0]
    with pytest.raises(ValueError, match='member "in pairs" with set'):
        checks.check("grid", written(tmp_path, '["model.heads=3"]'), said.append)


def test_a_wrong_recipe_is_not_blamed_on_a_member_without_values(tmp_path: Path) -> None:
    grid = catalogue.load_grid(written(tmp_path))
    with pytest.raises(ValueError, match=r'^recipe "lifterr"'):
        catalogue.member_recipe(grid, catalogue.Member(recipe="lifterr", label="plain"), [])


def test_values_of_a_grid_reach_conditioners_and_come_before_those_of_members(tmp_path: Path, toy_store: Store) -> None:
    file = Path(written(tmp_path, '["training.epochs=4"]'))
    wrapper = tmp_path / "wrapper.toml"
    diffusion = '[model]\nname = "diffhpe"\nconditioning = "lifter"\nchannels = 8\nblocks = 1\nsteps = 4\n'
    rest = RECIPE[RECIPE.index("[data]") :]
    wrapper.write_text(f'{diffusion}[conditioner]\nrecipe = "{tmp_path / "lifter.toml"}"\n{rest}')
    text = file.read_text().replace(
        "[[members]]", 'set = ["lifter:training.epochs=3", "training.lr=0.5"]\n[[members]]', 1
    )
    file.write_text(f'{text}[[members]]\nrecipe = "{wrapper}"\nlabel = "wrapper"\n')
    planned = plan("s", catalogue.load_grid(str(file)), toy_store.path, ["lifter:model.depth=2"])
    plain, longer, wrapped = (planned.stages[planned.members[label]["none", 0]] for label in planned.members)
    assert [stage.settings.training.epochs for stage in (plain, longer, wrapped)] == [3, 4, 2]
    assert wrapped.upstream == plain.key
    assert [stage.settings.training.lr for stage in (plain, longer, wrapped)] == [0.5] * 3
    assert plain.settings.model["depth"] == longer.settings.model["depth"] == 2


def test_labels_must_not_be_empty(tmp_path: Path) -> None:
    file = Path(written(tmp_path))
    file.write_text(file.read_text().replace('"in pairs"', '" "'))
    with pytest.raises(ValueError, match="label is empty"):
        catalogue.load_grid(str(file))


def test_single_patterns_have_further_seeds(tmp_path: Path, toy_store: Store) -> None:
    file = Path(written(tmp_path))
    more = 'seeds = [4]\nmore_seeds = [{ train = "none", seeds = [1, 2] }]\n[[members]]'
    text = file.read_text().replace('train = ["none"]', 'train = ["leg_run", "none"]').replace("[[members]]", more, 1)
    file.write_text(text)
    planned = plan("s", catalogue.load_grid(str(file)), toy_store.path)
    wanted = {("none", 4), ("none", 1), ("none", 2), ("leg_run", 4)}
    assert {label: set(found) for label, found in planned.members.items()} == {"plain": wanted, "in pairs": wanted}
    assert len(planned.stages) == 8
    for wrong in ('train = "arm_leg", seeds = [1]', 'train = "none", seeds = [4]'):
        file.write_text(text.replace('train = "none", seeds = [1, 2]', wrong))
        with pytest.raises(ValueError, match="more_seeds names the pattern"):
            catalogue.load_grid(str(file))
