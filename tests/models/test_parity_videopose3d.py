"""VideoPose3D returns the numbers of the released network for the same weights, in both of its forms."""

import json

import pytest
import torch

from posegrid.models.interface import Batch, PoseShape
from posegrid.models.official_names import from_official, official_weights
from posegrid.models.videopose3d import Config, TemporalConvolutions, VideoPose3D


def _config(options: dict) -> Config:
    return Config(
        filter_widths=tuple(options["filter_widths"]),
        channels=options["channels"],
        dropout=options["dropout"],
        causal=options["causal"],
        dense=options["dense"],
    )


@pytest.mark.parametrize("name", ["small", "scaled", "causal", "dense"])
def test_poses_and_layers(name, parity_file, shape_of):
    file = parity_file(f"videopose3d_{name}")
    model = VideoPose3D(_config(file.constructor), shape_of(int(file["output_receptive_field"]))).eval()
    model.load_state_dict(from_official(model, official_weights({"model_pos": file.weights()})))
    assert model.output_frame == (8 if name == "causal" else (model.pose.frames - 1) // 2)
    seen = {}
    for layer in ("expand", "blocks.0.wide", "shrink"):
        module = model.network.get_submodule(layer)
        module.register_forward_hook(lambda _m, inputs, out, layer=layer: seen.update({layer: (inputs[0], out)}))

    file.check_output("poses", model.lift_sequence(file["input_keypoints"]))
    file.check_middle("expand_conv", seen["expand"][1].transpose(1, 2))
    file.check_middle("layer_conv_0", seen["blocks.0.wide"][1].transpose(1, 2))
    file.check_middle("before_shrink", seen["shrink"][0].transpose(1, 2))
    exact = file["input_keypoints_exact"]
    file.check_output("poses_exact", model.lift_sequence(exact))
    batch = Batch(keypoints=exact, visible=torch.ones(exact.shape[:-1], dtype=torch.bool))
    lifted = model.lift(batch, torch.Generator())[:, 0]
    file.check_output("poses_exact" if name == "dense" else "poses_exact_strided", lifted)


def test_published_checkpoints_match_key_for_key(parity_folder, shape_of):
    entries = json.loads((parity_folder / "official_keys.json").read_text(encoding="utf-8"))["configurations"]
    entries = [entry for entry in entries if entry["model"] == "VideoPose3D"]
    assert len(entries) == 6
    for entry in entries:
        options, held = entry["constructor"], entry["container"]["weights_key"]
        frames = 3 ** options["filter_widths"].count(3)
        joints, outputs = options["num_joints_in"], options["num_joints_out"]
        pose = (
            shape_of(frames)
            if joints == 17
            else PoseShape(frames=frames, joints=joints, parents=tuple(range(-1, joints - 1)), left=(), right=())
        )
        with torch.device("meta"):
            model = VideoPose3D(_config(options), pose)
            if held == "model_traj":
                model = TemporalConvolutions(_config(options), tuple(options["filter_widths"]), joints, outputs)
            released = {entry["prefix"] + key: torch.empty(shape) for key, shape in entry["keys"].items()}
        from_official(model, official_weights({held: released, "epoch": 80}, held))
        assert sum(p.numel() for p in model.parameters()) == entry["parameters"]
        buffers = {key for key, value in model.state_dict().items() if key not in dict(model.named_parameters())}
        assert len(buffers) == len(entry["buffers"])
