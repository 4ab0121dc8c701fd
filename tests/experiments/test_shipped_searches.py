"""Every shipped search loads, tries keys that its recipe has, and holds the published values."""

import pytest

from posegrid.experiments import catalogue
from posegrid.experiments.search_commands import resolved_search
from posegrid.experiments.search_files import SEARCHES
from posegrid.models.registry import model_names
from posegrid.orchestration.recipe_files import load_recipe
from posegrid.orchestration.recipe_text import recipe_text
from posegrid.orchestration.search import next_round

LR, DROPOUT, DROP_PATH, DECAY = "training.lr", "model.dropout", "model.drop_path", "training.weight_decay"
PUBLISHED = {
    "mixste": {LR: [4e-5], DROP_PATH: [0.1]},
    "diffhpe_2d": {LR: [8.0e-4, 8.083e-4], DROPOUT: [0.03, 0.032]},
    "diffhpe_wrapper": {LR: [2.7e-4, 2.7014e-4], DROPOUT: [0.27, 0.27038]},
    "d3dp": {LR: [6e-5], DROP_PATH: [0.1]},
    "d3prefiner": {LR: [1e-3], DROPOUT: [0.1]},
    "stcformer": {LR: [1e-3], DROPOUT: [0.1]},
    "videopose3d": {LR: [1e-3], DROPOUT: [0.25]},
    "poseformer": {LR: [4e-5, 1e-4], DROP_PATH: [0.1]},
    "simple_baseline": {LR: [1e-3], DROPOUT: [0.5]},
    "strided_transformer": {LR: [1e-3], DROPOUT: [0.1]},
    "uplift_upsample": {LR: [4e-5, 2e-5], DROP_PATH: [0.1]},
    "di2pose": {LR: [5.5e-4], DECAY: [4.5e-2]},
    "di2pose_tokens": {LR: [1e-3], DECAY: [0.15]},
}
"""What papers and released code train with; where they differ, both. D3PRefiner's dropout is our reading."""
OWN = {"image_regressor", "mlp", "small_wrapper"}
"""Searches of networks that nobody published."""


@pytest.mark.parametrize("name", catalogue.names(SEARCHES))
def test_search_resolves_and_proposes(name: str) -> None:
    resolved = resolved_search(name, {}, [])
    proposals = next_round(resolved.strategy, [])
    assert proposals
    settings = resolved.settings(proposals[-1])
    assert settings.training.select == "held_out"
    header = (SEARCHES / f"{name}.toml").read_text().split("\n\n")[0]
    assert f"posegrid search {name} --data" in header
    assert "published" in header


def test_all_searches_are_known() -> None:
    assert set(catalogue.names(SEARCHES)) == PUBLISHED.keys() | OWN


@pytest.mark.parametrize("name", PUBLISHED)
def test_ranges_hold_the_published_values(name: str) -> None:
    space = resolved_search(name, {}, []).search.parameters
    assert space.keys() == PUBLISHED[name].keys()
    for key, values in PUBLISHED[name].items():
        low, high = space[key].extremes
        for value in values:
            assert space[key].contains(value), key
            assert low < value < high, f"{key} = {value} is an end of its range"


def test_every_model_has_a_search() -> None:
    searched = {resolved_search(name, {}, []).base.model["name"] for name in catalogue.names(SEARCHES)}
    assert searched == set(model_names())


@pytest.mark.parametrize("name", catalogue.names(catalogue.RECIPES))
def test_settings_written_as_a_recipe_are_the_same(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    settings = catalogue.recipe(name)
    occluded = settings.with_occlusion({"pattern": "sparse_frames", "strides": [4, 10]})
    for place, one in enumerate((settings, occluded)):
        file = tmp_path / str(place) / f"{name}.toml"
        file.parent.mkdir()
        file.write_text(recipe_text(one, ['a comment with "quotes" and = signs', ""]))
        assert load_recipe(file) == one
