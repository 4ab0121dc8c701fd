"""Settings: recipes, overrides, fingerprints."""

from dataclasses import replace
from pathlib import Path

import pytest

from posegrid.orchestration.recipe_files import load_recipe
from posegrid.orchestration.settings import Settings, occlusion_label, occlusion_values

RECIPE = """
[model]
name = "mixste"
width = 32
heads = 4
[training]
epochs = 2
batch = 8
lr = 1e-3
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(RECIPE)
    return file


def test_recipe_is_complete_plain_data(recipe: Path) -> None:
    settings = load_recipe(recipe)
    assert settings.name == "mine"
    assert settings.model["depth"] == 8
    assert Settings.from_plain(settings.plain()) == settings


def test_overrides(recipe: Path) -> None:
    overrides = ["training.lr=2e-4", "model.depth=3", "training.schedule=cosine", "occlusion.pattern=leg_run"]
    settings = load_recipe(recipe, overrides)
    assert (settings.training.lr, settings.model["depth"], settings.training.schedule) == (2e-4, 3, "cosine")
    assert settings.occlusion["pattern"] == "leg_run"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.lrr=1", r'"lrr" \(recipes/mine.toml, key training\).*did you mean "lr"'),
        ("model.widht=8", r'"widht".*did you mean "width"'),
        ("modle.width=8", r'"modle".*did you mean "model"'),
        ("model.name=mixst", r"mixste"),
        ("model.heads=5", r"5"),
        ("occlusion.pattern=leg-arm", r'"arm_leg"'),
        ("training.epochs=0", r"epochs = 0 must be at least 1"),
        ("training.lr=fast", r"lr = 'fast' is a str, expected float"),
        ("training.select=tests", r'did you mean "test"'),
        ("nonsense", r"not of the form"),
        ("model.name.x=1", r"name is a value, not a table"),
        ("conditioner.recipe=mixste_27", r"does not use one"),
    ],
)
def test_mistakes_name_the_nearest_key(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(recipe, [override])


def test_wrapper_without_conditioner_is_refused(recipe: Path) -> None:
    recipe.write_text(
        RECIPE.replace('name = "mixste"\nwidth = 32\nheads = 4', 'name = "diffhpe"\nconditioning = "lifter"')
    )
    with pytest.raises(ValueError, match=r"no table \[conditioner\]"):
        load_recipe(recipe)


def test_broken_toml_gives_the_line(recipe: Path) -> None:
    recipe.write_text(RECIPE + "\nlr = = 1\n")
    with pytest.raises(ValueError, match=r"mine.toml is not valid TOML.*line 11"):
        load_recipe(recipe)


def test_fingerprint_follows_what_training_computes(recipe: Path) -> None:
    settings = load_recipe(recipe)
    same = [replace(settings, name="other"), replace(settings, evaluation=replace(settings.evaluation, hypotheses=9))]
    different = [
        replace(settings, training=replace(settings.training, seed=1)),
        settings.with_occlusion({"pattern": "leg_run"}),
        replace(settings, data=replace(settings.data, frames=9)),
        replace(settings, model={**settings.model, "width": 64}),
    ]
    print_ = settings.training_fingerprint("data")
    assert all(other.training_fingerprint("data") == print_ for other in same)
    assert len({print_, *(other.training_fingerprint("data") for other in different)}) == 5
    assert settings.training_fingerprint("other data") != print_


def test_fingerprint_follows_the_conditioner(lifter_settings: Settings, wrapper_settings: Settings) -> None:
    first = replace(wrapper_settings, upstream=lifter_settings.plain())
    second = replace(wrapper_settings, upstream=lifter_settings.with_occlusion({"pattern": "arm_leg"}).plain())
    assert first.training_fingerprint("data") != second.training_fingerprint("data")


def test_evaluation_fingerprint(lifter_settings: Settings) -> None:
    pattern, other = occlusion_values("leg_run", "test"), occlusion_values("frame_run", "test")
    first = lifter_settings.evaluation_fingerprint(pattern, "data")
    again = replace(lifter_settings, evaluation=replace(lifter_settings.evaluation, every=2))
    assert first == lifter_settings.evaluation_fingerprint(pattern, "data")
    assert first != lifter_settings.evaluation_fingerprint(other, "data")
    assert first != again.evaluation_fingerprint(pattern, "data")


def test_labels_are_unique_and_legal_in_metric_names() -> None:
    assert occlusion_label(occlusion_values("leg_run", "test")) == "leg_run"
    label = occlusion_label(occlusion_values({"pattern": "random_joints", "rate": 0.3}, "test"))
    assert label == "random_joints rate 0.3"
