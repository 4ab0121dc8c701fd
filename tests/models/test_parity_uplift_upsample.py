"""Uplift and Upsample returns the numbers of the released network for the same weights."""

import json

import pytest
import torch

from posegrid.models.blocks.attention import attend
from posegrid.models.interface import Batch
from posegrid.models.official.uplift_upsample import JOINT_ORDER
from posegrid.models.official_names import from_official
from posegrid.models.uplift_upsample import Config, UpliftUpsample

OURS = [JOINT_ORDER.index(joint) for joint in range(17)]
"""Place in the release of each of our joints."""


def _config(options: dict) -> Config:
    # the released constructor reads no paddings as one zero at either end of every block
    paddings = options["paddings"] or [[1, 1]] * len(options["strides"])
    assert all(left == right for left, right in paddings)
    return Config(
        width=options["temporal_d_model"],
        spatial_width=options["spatial_d_model"],
        spatial_depth=options["spatial_depth"],
        temporal_depth=options["temporal_depth"],
        heads=options["num_heads"],
        mlp_ratio=options["mlp_ratio"],
        defer_attention=options["first_strided_token_attention_layer"],
        strides=tuple(options["strides"]),
        paddings=tuple(left for left, _ in paddings),
    )


def _loaded(file, shape_of) -> UpliftUpsample:
    options = file.constructor
    model = UpliftUpsample(_config(options), shape_of(options["num_frames"])).eval()
    model.load_state_dict(from_official(model, file.weights()))
    return model


def _batch(file) -> Batch:
    """The inputs in our joint order; what the mask hides is left in the keypoints where the file has it."""
    seen = file["input_mask"].bool()
    return Batch(keypoints=file["input_keypoints"][:, :, OURS], visible=seen[..., None].expand(-1, -1, 17))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["uplift_small", "uplift_scaled", "uplift_plain"])
def test_poses_and_features(name, fused, parity_file, shape_of, monkeypatch):
    monkeypatch.setattr("posegrid.models.blocks.attention.LONG_SEQUENCE", 1 if fused else 1000)
    file = parity_file(name)
    model, batch = _loaded(file, shape_of), _batch(file)
    seen = {}
    model.blocks[0].attention.qkv.register_forward_hook(lambda _m, _i, out: seen.update(qkv=out))
    with torch.no_grad():
        tokens = model.tokens(batch)
        file.check_middle("temporal_features", tokens)
        real = batch.visible.any(-1)
        expected = file["mid_spatial_features"]
        torch.testing.assert_close(
            model.spatial(batch.keypoints)[real], expected[real], rtol=1e-4, atol=1e-5 * expected.abs().max().item()
        )
        file.check_output("poses_sequence", model.sequence(tokens)[:, :, list(JOINT_ORDER)])
    centre = model.lift(batch, torch.Generator())
    assert centre.shape == (len(tokens), 1, 1, 17, 3)
    file.check_output("poses_centre", centre[:, 0, 0, list(JOINT_ORDER)])
    # Values that are the unit matrix make attention return its weights.
    heads, length = model.config.heads, model.pose.frames
    query, key, _ = seen["qkv"][:, :, 0].view(len(tokens), length, heads, 3, -1).transpose(1, 2).unbind(3)
    weights = attend(query, key, torch.eye(length).expand(len(tokens), heads, -1, -1), read=real)
    file.check_middle("attention_first_temporal_block", weights)


def test_training_computes_the_same_without_dropped_paths(parity_file, shape_of):
    """While training the spatial transformer runs for all frames, otherwise for those with a pose only."""
    file = parity_file("uplift_scaled")
    model = _loaded(file, shape_of).train()
    with torch.no_grad():
        file.check_output("poses_sequence", model.sequence(model.tokens(_batch(file)))[:, :, list(JOINT_ORDER)])


def test_published_checkpoints_match_key_for_key(parity_folder, shape_of):
    entries = json.loads((parity_folder / "official_keys.json").read_text(encoding="utf-8"))["configurations"]
    entries = [entry for entry in entries if entry["model"] == "Uplift and Upsample"]
    assert len(entries) == 2
    for entry in entries:
        with torch.device("meta"):
            model = UpliftUpsample(_config(entry["constructor"]), shape_of(entry["constructor"]["num_frames"]))
            released = {key: torch.empty(shape) for key, shape in entry["keys"].items()}
        from_official(model, released)
        assert sum(p.numel() for p in model.parameters()) == entry["parameters"]
        lacking = {key: value for key, value in released.items() if key != "temporal_blocks.0.attn.wk.bias"}
        with pytest.raises(
            ValueError, match=r"missing: temporal_blocks\.0\.attn\.wq,wk,wv\.bias\. unexpected: temporal"
        ):
            from_official(model, lacking)
        with pytest.raises(ValueError, match=r"of another shape: head1\.0\.kernel \(384, 48\), here \(51, 384\)"):
            from_official(model, {**released, "head1.0.kernel": torch.empty(384, 48, device="meta")})


def test_the_joint_order_of_the_release_is_the_documented_one():
    names = (
        "Hip RHip RKnee RFoot LHip LKnee LFoot Spine Thorax Neck Head LShoulder LElbow LWrist RShoulder RElbow RWrist"
    )
    released = (
        "RFoot RKnee RHip LHip LKnee LFoot Hip Thorax Spine Neck Head RWrist RElbow RShoulder LShoulder LElbow LWrist"
    )
    assert [names.split()[joint] for joint in JOINT_ORDER] == released.split()
