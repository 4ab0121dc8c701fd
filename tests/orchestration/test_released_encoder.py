"""Models that read pictures start from the encoder of a released ViTPose, frozen as published or trained along."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from official_layout import vitpose

from posegrid.datasets.store import Store
from posegrid.models import di2pose
from posegrid.models.image_encoder import Encoding, encoder_of, vitpose_weights
from posegrid.models.interface import Lifter
from posegrid.models.registry import build_model, config_class
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.initial import digest, load_initial, with_initial
from posegrid.orchestration.loop import train
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import Tracking
from posegrid.orchestration.workers import Workers

MODEL = {"name": "image_regressor", "height": 32, "width_px": 24, "patch": 8, "width": 12, "depth": 2, "heads": 3}
SIZE = Encoding(height=32, width_px=24, patch=8, width=12, depth=2, heads=3)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A file in the layout of a released ViTPose."""
    file = tmp_path / "vitpose.pth"
    torch.save({"state_dict": vitpose(SIZE), "meta": {"epoch": 210}}, file)
    return file


def recipe(source: Path, **model: object) -> Settings:
    return Settings.from_plain(
        {
            "name": "pictures",
            "model": {**MODEL, **model},
            "initial": {"source": str(source), "part": "encoder"},
            "data": {"frames": 1},
            "training": {"epochs": 1, "batch": 16, "lr": 1e-2, "grid": 25, "select": "last"},
        },
        "test",
    )


def encoder_state(model: Lifter) -> dict[str, torch.Tensor]:
    encoder = encoder_of(model)
    assert encoder is not None
    return {name: value.clone() for name, value in encoder.state_dict().items()}


@pytest.mark.parametrize("frozen", [True, False])
def test_training_starts_from_its_encoder(frozen: bool, released: Path, toy_store: Store, tracking: Tracking) -> None:
    settings = with_initial(recipe(released, frozen_encoder=frozen), toy_store, None)
    model = checkpoint.build(settings, pose_shape(toy_store, settings.data))
    encoder = encoder_of(model)
    assert encoder is not None
    expected = vitpose_weights(encoder, torch.load(released, weights_only=True))
    assert settings.initial is not None
    assert settings.initial.digest == digest(expected)
    load_initial(model, settings, tracking)
    head = model.head.weight.clone()  # type: ignore[operator,union-attr]
    assert all(torch.equal(value, expected[name]) for name, value in encoder_state(model).items())
    model.load_state_dict(train(model, model, toy_store, settings, Workers(), lambda *_: None))
    assert not torch.equal(head, model.head.weight)  # type: ignore[arg-type,union-attr]
    kept = [torch.equal(value, expected[name]) for name, value in encoder_state(model).items()]
    assert all(kept) if frozen else not any(kept)


def test_the_weights_identify_the_training(released: Path, toy_store: Store, tracking: Tracking) -> None:
    settings = with_initial(recipe(released), toy_store, None)
    torch.save(vitpose(SIZE, seed=1), released)
    other = with_initial(recipe(released), toy_store, None)
    keys = {one.training_fingerprint(toy_store.content_hash) for one in (settings, other)}
    assert len(keys) == 2
    model = checkpoint.build(settings, pose_shape(toy_store, settings.data))
    with pytest.raises(ValueError, match="holds other weights on this worker"):
        load_initial(model, settings, tracking)


def test_the_published_model_freezes_it_beside_its_tokeniser() -> None:
    small = {"conditioning": "image", "image_height": 32, "image_width": 24, "patch": 8, "condition_width": 12}
    small |= {"encoder_depth": 2, "encoder_heads": 3, "layers": 1, "heads": 2, "width": 16, "steps": 4}
    from posegrid.datasets.skeletons import H36M_17
    from posegrid.orchestration.batches import shape_of

    shape = shape_of(H36M_17, recipe(Path("x")).data)
    tokens = build_model("di2pose_tokens", config_class("di2pose_tokens")(tokens=24, levels=(7, 5, 5), groups=3), shape)
    model = build_model("di2pose", di2pose.Config(**small, frozen_encoder=True), shape, tokens)  # type: ignore[arg-type]
    encoder = encoder_of(model)
    assert encoder is not None
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert any(weight.requires_grad for weight in model.parameters())
    with pytest.raises(ValueError, match=r'frozen_encoder = true with conditioning = "keypoints"'):
        di2pose.Config(frozen_encoder=True)


def test_what_does_not_fit_is_refused(released: Path, toy_store: Store, tmp_path: Path) -> None:
    code = tmp_path / "code.pth"
    torch.save({"state_dict": Evil(str(tmp_path / "executed"))}, code)
    perceptron = replace(recipe(released), model={"name": "mlp", "width": 8})
    for settings, expected in (
        (recipe(tmp_path / "absent.pth"), r"initial.source = .*absent\.pth does not exist"),
        (recipe(released, width=24), "of another shape"),
        (recipe(released, depth=3), r"missing: blocks\.2\."),
        (recipe(code), "Nothing of it was run"),
        (perceptron, "model mlp as configured reads no pictures"),
    ):
        with pytest.raises(ValueError, match=expected):
            with_initial(settings, toy_store, None)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(ValueError, match="part"):
        Settings.from_plain({**recipe(released).plain(), "initial": {"source": "x", "part": "decoder"}}, "test")


class Evil:
    """Unpickling an object of this class would write a file."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.target, "w")
