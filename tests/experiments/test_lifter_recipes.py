"""The published recipes of the regressing lifters build networks of the published size, scored as published."""

from dataclasses import replace

import pytest
import torch

from posegrid.datasets.metrics.summary import METRICS
from posegrid.datasets.store import Store
from posegrid.experiments import catalogue
from posegrid.models.interface import PoseShape
from posegrid.models.joint_order import H36M_17_PARENTS
from posegrid.models.registry import build_model, config_class
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.evaluation import evaluate
from posegrid.orchestration.loop import train
from posegrid.orchestration.recipe_files import load_recipe
from posegrid.orchestration.workers import Workers

PUBLISHED = {
    "stcformer_27": 4_748_000,
    "stcformer_81": 4_748_000,
    "stcformer_243": 4_748_000,
    "stcformer_large_243": 18_933_184,
    "stcformer_3dhp_81": 4_754_432 - 6 * 512,  # without a norm in every block that is never read
    "videopose3d_27": 8_555_571,
    "videopose3d_81": 12_753_971,
    "videopose3d_243": 16_952_371,
    "poseformer_27": 9_573_455,
    "poseformer_81": 9_602_885,
    "simple_baseline": 4_291_632,
    "strided_transformer_351": 4_346_214 - 1_024,  # without two norms that are never read
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_and_protocol(name: str) -> None:
    settings = catalogue.recipe(name)
    pose = PoseShape(
        frames=settings.data.frames,
        joints=17,
        parents=H36M_17_PARENTS,
        left=(4, 5, 6, 11, 12, 13),
        right=(1, 2, 3, 14, 15, 16),
    )
    options = {key: value for key, value in settings.model.items() if key != "name"}
    for key, value in options.items():
        if isinstance(value, list):  # plain data has no tuples
            options[key] = tuple(value)
    with torch.device("meta"):
        model = build_model(settings.model["name"], config_class(settings.model["name"])(**options), pose)
    assert sum(weight.numel() for weight in model.parameters()) == PUBLISHED[name]
    assert settings.data.tail == "keep"  # all frames are scored
    assert settings.evaluation.score == ("window" if settings.data.frames == 1 else "centre")


SCALED_DOWN = {
    "stcformer_27": ["model.width=16", "model.depth=1", "model.heads=2", "data.frames=9", "model.dropout=0"],
    "videopose3d_27": ["model.channels=32", "data.frames=9", "model.filter_widths=[3,3]"],
    "poseformer_27": ["model.joint_width=4", "model.depth=1", "model.heads=2", "data.frames=9"],
    "simple_baseline": ["model.width=32", "model.norm_momentum=0.1", "model.dropout=0.1"],
    "strided_transformer_351": [
        "model.width=16",
        "model.hidden=32",
        "model.depth=1",
        "model.heads=2",
        "data.frames=9",
        "model.strides=[3,3]",
    ],
}


@pytest.mark.parametrize("name", SCALED_DOWN)
def test_scaled_down_it_trains_and_is_scored_on_every_frame(name: str, toy_store: Store) -> None:
    shorter = ["training.epochs=3", "training.batch=32", "training.grid=2", "training.lr=3e-3", "training.decay=0.9"]
    settings = load_recipe(catalogue.RECIPES / f"{name}.toml", [*SCALED_DOWN[name], *shorter])
    settings = replace(settings, evaluation=replace(settings.evaluation, batch=512))
    torch.manual_seed(0)
    model = checkpoint.build(settings, pose_shape(toy_store, settings.data))
    seen: list[float] = []
    train(model, model, toy_store, settings, Workers(), lambda found, _state: seen.append(found["train/loss"]), None)
    assert seen[-1] < seen[0]
    scores = evaluate(model, toy_store, settings, settings.occlusion, Workers())
    frames = sum(sequence.frames for sequence in toy_store.sequences if sequence.split == "test")
    counted = scores.sums.to_array().reshape(len(toy_store.actions), len(METRICS), -1, 2)  # split "all" first
    assert counted[:, METRICS.index("mpjpe_mm"), 0, 1].sum() == frames * 17
