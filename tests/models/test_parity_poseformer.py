"""PoseFormer returns the numbers of the released network for the same weights."""

import json

import pytest
import torch

from posegrid.models.flip import lift_flip_averaged
from posegrid.models.interface import Batch
from posegrid.models.official_names import from_official, official_weights
from posegrid.models.poseformer import Config, PoseFormer


def _config(options: dict) -> Config:
    return Config(
        joint_width=options["embed_dim_ratio"],
        depth=options["depth"],
        heads=options["num_heads"],
        mlp_ratio=options["mlp_ratio"],
        drop_path=options["drop_path_rate"],
    )


@pytest.mark.parametrize("name", ["poseformer_small", "poseformer_scaled", "poseformer_eps"])
def test_poses_and_layers(name, parity_file, shape_of):
    file = parity_file(name)
    pose = shape_of(file.constructor["num_frame"])
    model = PoseFormer(_config(file.constructor), pose).eval()
    model.load_state_dict(from_official(model, official_weights({"model_pos": file.weights()})))
    seen = {}
    for layer in ("spatial.0", "temporal.0", "temporal_norm", "head_norm"):
        module = model.get_submodule(layer)
        module.register_forward_hook(lambda _m, inputs, out, layer=layer: seen.update({layer: (inputs[0], out)}))
    keypoints = file["input_keypoints"]
    batch = Batch(keypoints=keypoints, visible=torch.ones(keypoints.shape[:-1], dtype=torch.bool))

    file.check_output("poses", model.lift(batch, torch.Generator())[:, 0])
    file.check_middle("spatial_embedding", seen["spatial.0"][0].flatten(0, 1))
    file.check_middle("spatial_block_0", seen["spatial.0"][1].flatten(0, 1))
    file.check_middle("temporal_embedding", seen["temporal.0"][0].squeeze(2))
    file.check_middle("temporal_block_0", seen["temporal.0"][1].squeeze(2))
    file.check_middle("temporal_norm", seen["temporal_norm"][1].squeeze(2))
    file.check_middle("weighted_mean", seen["head_norm"][0])
    file.check_output("poses_flip_averaged", lift_flip_averaged(model, batch, torch.Generator(), pose)[:, 0])


def test_published_checkpoints_match_key_for_key(parity_folder, shape_of):
    entries = json.loads((parity_folder / "official_keys.json").read_text(encoding="utf-8"))["configurations"]
    entries = [entry for entry in entries if entry["model"] == "PoseFormer"]
    assert len(entries) == 3
    for entry in entries:
        with torch.device("meta"):
            model = PoseFormer(_config(entry["constructor"]), shape_of(entry["constructor"]["num_frame"]))
            released = {entry["prefix"] + key: torch.empty(shape) for key, shape in entry["keys"].items()}
        from_official(model, official_weights({"model_pos": released, "epoch": 3}))
        assert sum(p.numel() for p in model.parameters()) == entry["parameters"]
