"""Every shipped recipe and grid is read and checked (cluster files: tests/cluster)."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets.centred_windows import windows_around
from posegrid.datasets.skeletons import H36M_17
from posegrid.experiments import catalogue
from posegrid.experiments.costing.expected import published_recipes
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import Masks, pose_shape, shape_of, steps_per_epoch
from posegrid.orchestration.recipe_files import read_toml
from posegrid.orchestration.settings import Settings, occlusion_label

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", catalogue.names(catalogue.RECIPES))
def test_recipe_builds_its_model(name: str, toy_store) -> None:  # type: ignore[no-untyped-def]
    settings = catalogue.recipe(name)
    if settings.conditioner is not None:
        lifter = catalogue.recipe(settings.conditioner.recipe)
        settings = Settings.from_plain({**settings.plain(), "upstream": lifter.plain()})
    model = checkpoint.build(settings, pose_shape(toy_store, settings.data))
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) > 0


@pytest.mark.parametrize("name", catalogue.names(catalogue.RECIPES))
def test_recipe_header_gives_command_and_run(name: str) -> None:
    header = "".join(line for line in (catalogue.RECIPES / f"{name}.toml").read_text().splitlines() if line[:1] == "#")
    assert f"posegrid train {name}" in header or "posegrid grid" in header
    assert "run" in header


@pytest.mark.parametrize(
    ("name", "parameters", "trained"),
    [
        ("mixste_27", 539_139, 539_139),
        ("diffhpe_2d", 3_201_971, 3_201_971),
        ("diffhpe_wrapper", None, 3_210_099),
        ("uplift_upsample_351", 10_404_902, 10_404_902),
        ("uplift_upsample_81", 10_377_254, 10_377_254),
    ],
)
def test_published_recipes_have_the_published_size(name: str, parameters: int | None, trained: int, toy_store) -> None:  # type: ignore[no-untyped-def]
    settings = catalogue.recipe(name)
    if settings.conditioner is not None:
        settings = Settings.from_plain({**settings.plain(), "upstream": catalogue.recipe("mixste_27").plain()})
    model = checkpoint.build(settings, pose_shape(toy_store, settings.data))
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == trained
    if parameters is not None:
        assert sum(weight.numel() for weight in model.parameters()) == parameters


@pytest.mark.parametrize("name", catalogue.names(catalogue.GRIDS))
def test_grid_resolves(name: str) -> None:
    grid = catalogue.load_grid(name)
    for patterns in (grid.train, grid.test):
        labels = [occlusion_label(pattern) for pattern in catalogue.resolve(patterns, "patterns")]
        assert len(set(labels)) == len(labels)
    frames = {catalogue.member_recipe(grid, member, []).data.frames for member in grid.members}
    assert len(frames) == 1


@pytest.mark.parametrize("name", ["demo", "small", "diffhpe_cross_domain"])
def test_cross_domain_grids_cross_all_five_patterns(name: str) -> None:
    grid = catalogue.load_grid(name)
    assert grid.train == grid.test == ("none", "random_joints", "arm_leg", "leg_run", "frame_run")


@pytest.mark.parametrize("name", [name for name in catalogue.names(catalogue.GRIDS) if "uplift" in name])
def test_grids_of_sparse_frames_fit_the_windows_of_their_recipes(name: str, toy_store) -> None:  # type: ignore[no-untyped-def]
    grid = catalogue.load_grid(name)
    for member in grid.members:
        settings = catalogue.member_recipe(grid, member, [])
        data, every = settings.data, settings.evaluation.lift_every
        windows = windows_around(
            toy_store, np.full(9, 6), np.arange(9) * every, data.frames, (data.frames - 1) // 2, stride=data.stride
        )
        for pattern in catalogue.resolve(grid.train + grid.test, "patterns"):
            seen = Masks(toy_store, pattern).visible(windows, 0).any(axis=(1, 2))
            assert seen.all()


def test_published_numbers_have_source_and_protocol() -> None:
    for table in read_toml(ROOT / "experiments" / "published.toml").values():
        assert table["source"]
        assert table["protocol"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"].values())


def test_published_recipes_say_what_they_may_cost() -> None:
    """A line of `experiments.costing.expected`, after what was published."""
    named = published_recipes()
    assert len(named) > 25
    for name in named:
        text = (ROOT / "experiments" / "recipes" / f"{name}.toml").read_text()
        assert re.search(r"^# expected   about [\d.]+ GPU-hours on \S+ \(estimate: posegrid plan", text, re.M), name


def test_component_ablation_leaves_out_one_transformer_each() -> None:
    """The sizes are the published parts (fact sheets), less what takes their place."""
    grid = catalogue.load_grid("uplift_upsample_components")
    sizes = {}
    for member in grid.members:
        settings = catalogue.member_recipe(grid, member, [])
        model = checkpoint.build(settings, shape_of(H36M_17, settings.data))
        sizes[member.label] = sum(weight.numel() for weight in model.parameters())
    whole = sizes.pop("whole network")
    spatial = 96 + 544 + 34_176 + 64 + 209_280
    assert {label: whole - size for label, size in sizes.items()} == {
        "without spatial transformer": spatial - (34 * 384 + 384),
        "without temporal transformer": 4_735_488,
        "without strided transformer": 5_321_088 + 21_120 + 19_635,
    }
    labels = {label.replace(" ", "_") for label in sizes}
    assert labels == set(read_toml(ROOT / "experiments" / "published.toml")["uplift_upsample_components"]["rows"])


def test_within_batch_augmentation_is_the_only_difference_of_its_grid(toy_store) -> None:  # type: ignore[no-untyped-def]
    grid = catalogue.load_grid("uplift_upsample_wba")
    pairs, apart = (catalogue.member_recipe(grid, member, []) for member in grid.members)
    assert pairs.training.flip_pairs
    assert apart.training == replace(pairs.training, flip_pairs=False, flip=True)
    assert replace(apart, training=pairs.training) == pairs
    few = [replace(one, training=replace(one.training, batch=16)) for one in (pairs, apart)]
    assert steps_per_epoch(toy_store, few[0]) == steps_per_epoch(toy_store, few[1]) > 1
