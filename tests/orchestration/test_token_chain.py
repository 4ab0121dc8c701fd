"""A tokeniser and the model of its tokens as a chain of runs: the tokeniser is trained once, without occlusion."""

from pathlib import Path

import torch

from posegrid.datasets.store import Store
from posegrid.models.di2pose import Di2Pose
from posegrid.orchestration import checkpoint
from posegrid.orchestration.grid import build_stages, open_study, remaining_work
from posegrid.orchestration.launch.local import run_local
from posegrid.orchestration.settings import Settings, occlusion_values
from posegrid.orchestration.stage import MODEL_ARTIFACT
from posegrid.orchestration.tracking import UPSTREAM, Tracking

PATTERNS = [occlusion_values(name, "test") for name in ("none", "leg_run")]
COMMON = {"data": {"frames": 9}, "evaluation": {"batch": 16, "hypotheses": 2, "every": 2}}


def recipes() -> tuple[Settings, Settings]:
    tokens = {"name": "di2pose_tokens", "tokens": 6, "levels": [5, 4], "encoder_width": 16, "encoder_blocks": 1}
    model = {"name": "di2pose", "condition_width": 16, "layers": 1, "heads": 2, "width": 16, "steps": 6}
    training = {"epochs": 2, "batch": 8, "lr": 1e-3}
    first = {"name": "tokens", "model": {**tokens, "decoder_width": 16}, "training": training, **COMMON}
    conditioner = {"recipe": "tokens", "occlusion": "none"}
    second = {"name": "poses", "model": model, "training": training, "conditioner": conditioner, **COMMON}
    return Settings.from_plain(first, "test"), Settings.from_plain(second, "test")


def test_chain_runs_and_its_model_file_holds_both(toy_store: Store, tracking: Tracking, tmp_path: Path) -> None:
    tokens, poses = recipes()
    stages = build_stages([poses], PATTERNS, PATTERNS, [0], lambda _: tokens, toy_store)
    work = remaining_work(stages, {}, toy_store.content_hash)
    assert [(item.stage.settings.name, item.stage.trained_on) for item in work] == [
        ("tokens", "none"),
        ("poses", "none"),
        ("poses", "leg_run"),
    ]
    study = open_study("s", toy_store, tracking, {}, "")
    assert not run_local(study, work, tmp_path / "state", lambda key, metrics: None)
    trials = tracking.trials()
    first, _, occluded = (trials[item.stage.key] for item in work)
    assert occluded.tags[UPSTREAM] == first.run_id
    assert {"test none/mpjpe_mm", "test leg_run/mpjpe_mm"} <= occluded.metrics.keys()
    assert occluded.metrics["train/loss"] > 0

    with tracking.fetched(first.run_id, MODEL_ARTIFACT) as file:
        tokeniser = checkpoint.load_model(file)[0]
    with tracking.fetched(occluded.run_id, MODEL_ARTIFACT) as file:
        model = checkpoint.load_model(file)[0]
    assert isinstance(model, Di2Pose)
    # what was frozen did not move
    for name, value in tokeniser.state_dict().items():
        torch.testing.assert_close(model.conditioner.state_dict()[name], value, rtol=0, atol=0)
