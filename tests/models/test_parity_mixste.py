"""MixSTE returns the numbers of the released network for the same weights."""

import json

import pytest
import torch

from posegrid.models import losses
from posegrid.models.flip import lift_flip_averaged
from posegrid.models.interface import Batch
from posegrid.models.mixste import Config, MixSTE
from posegrid.models.official_names import from_official, official_weights


def _batch(keypoints: torch.Tensor) -> Batch:
    return Batch(keypoints=keypoints, visible=torch.ones(keypoints.shape[:-1], dtype=torch.bool))


def _loaded(file, pose, width: str) -> MixSTE:
    options = file.constructor
    config = Config(width=options[width], depth=options["depth"], heads=options["num_heads"])
    model = MixSTE(config, pose).eval()
    model.load_state_dict(from_official(model, official_weights(file.weights())))
    return model


@pytest.mark.parametrize("name", ["mixste_small", "mixste_scaled", "mixste_eps"])
def test_poses_and_first_layers(name, parity_file, shape_of):
    file = parity_file(name)
    pose = shape_of(file.constructor["num_frame"])
    model = _loaded(file, pose, "embed_dim_ratio")
    batch = _batch(file["input_keypoints"])
    seen = {}
    for norm in ("spatial_norm", "temporal_norm"):
        seen[norm] = []
        model.get_submodule(norm).register_forward_hook(lambda _m, _i, out, norm=norm: seen[norm].append(out))
    for layer in ("embed", "spatial.0", "temporal.0", "spatial.0.attention"):
        model.get_submodule(layer).register_forward_hook(lambda _m, _i, out, layer=layer: seen.update({layer: out}))
    generator = torch.Generator()

    file.check_output("poses", model.lift(batch, generator)[:, 0])
    by_frame = {name: seen[name].flatten(0, 1) for name in ("spatial.0", "spatial.0.attention")}
    file.check_middle("spatial_attention_0", by_frame["spatial.0.attention"])
    file.check_middle("spatial_block_0", by_frame["spatial.0"])
    file.check_middle("temporal_block_0", seen["temporal.0"].transpose(1, 2).flatten(0, 1))
    file.check_middle("spatial_norm", torch.stack([x.flatten(0, 1) for x in seen["spatial_norm"]]))
    file.check_middle("temporal_norm", torch.stack([x.transpose(1, 2).flatten(0, 1) for x in seen["temporal_norm"]]))
    file.check_output("poses_flip_averaged", lift_flip_averaged(model, batch, generator, pose)[:, 0])


@pytest.mark.parametrize("name", ["diffhpe_lifter_small", "diffhpe_lifter_scaled"])
def test_diffhpe_lifter_and_its_features(name, parity_file, shape_of):
    file = parity_file(name)
    model = _loaded(file, shape_of(file.constructor["num_frame"]), "embed_dim")
    keypoints = file["input_keypoints"].permute(0, 3, 2, 1).contiguous()
    file.check_output("features", model.features(keypoints).permute(0, 3, 2, 1))
    file.check_output("poses", model.lift(_batch(keypoints), torch.Generator())[:, 0].permute(0, 3, 2, 1))


def test_long_sequences_use_the_fused_kernel_with_the_same_result(monkeypatch, parity_file, shape_of):
    monkeypatch.setattr("posegrid.models.blocks.attention.LONG_SEQUENCE", 1)
    file = parity_file("mixste_scaled")
    model = _loaded(file, shape_of(file.constructor["num_frame"]), "embed_dim_ratio")
    file.check_output("poses", model.lift(_batch(file["input_keypoints"]), torch.Generator())[:, 0])


def test_names_of_every_released_configuration(parity_folder, shape_of):
    entries = json.loads((parity_folder / "official_keys.json").read_text(encoding="utf-8"))["configurations"]
    tested = 0
    for entry in entries:
        if entry["model"] not in ("MixSTE", "DiffHPE supervised MixSTE"):
            continue
        options = entry["constructor"]
        width = options.get("embed_dim_ratio", options.get("embed_dim"))
        with torch.device("meta"):
            config = Config(width=width, depth=options["depth"], heads=options["num_heads"])
            model = MixSTE(config, shape_of(options["num_frame"]))
            released = {entry["prefix"] + key: torch.empty(shape) for key, shape in entry["keys"].items()}
        from_official(model, official_weights({"model_pos": released, "epoch": 3}))
        assert sum(p.numel() for p in model.parameters()) == entry["parameters"]
        tested += 1
    assert tested >= 4


def test_weighted_loss_and_its_gradient(parity_file, shape_of):
    file = parity_file("metrics_lifting")
    model = MixSTE(Config(width=8, depth=1, heads=2, loss="weighted"), shape_of(file.constructor["frames"]))
    predicted, target = file["input_predicted"].requires_grad_(), file["input_target"]
    weights = file["input_joint_weights"]
    torch.testing.assert_close(model.joint_weights, weights)

    file.check_output("mpjpe", losses.mpjpe(predicted, target))
    file.check_output("weighted_mpjpe_joints", losses.weighted_mpjpe(predicted, target, weights))
    file.check_output("velocity_within_windows", losses.velocity(predicted, target))
    file.check_output("mixste_loss_smoothness", losses.smoothness(predicted, weights))
    loss = losses.with_square_gradient(model.weighted_loss(predicted, target))
    file.check_output("mixste_loss", loss)
    file.check_output("mixste_loss_gradient", torch.autograd.grad(loss, predicted)[0])
