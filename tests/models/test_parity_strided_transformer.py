"""StridedTransformer returns the numbers of the released network for the same weights."""

import json

import pytest
import torch

from posegrid.models.interface import Batch
from posegrid.models.official_names import from_official, official_weights
from posegrid.models.strided_transformer import Config, StridedTransformer


def _config(options: dict) -> Config:
    return Config(
        width=options["channel"],
        hidden=options["d_hid"],
        depth=options["layers"],
        strides=tuple(options["stride_num"]),
    )


@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
@pytest.mark.parametrize("name", ["strided_small", "strided_scaled"])
def test_poses_and_layers(name, fused, monkeypatch, parity_file, shape_of):
    file = parity_file(name)
    if fused:
        monkeypatch.setattr("posegrid.models.blocks.attention.LONG_SEQUENCE", 1)
    model = StridedTransformer(_config(file.constructor), shape_of(file.constructor["frames"])).eval()
    model.load_state_dict(from_official(model, official_weights(file.weights())))
    seen = {}
    for layer in ("blocks.0", "strided.0"):
        module = model.get_submodule(layer)
        module.register_forward_hook(lambda _m, inputs, out, layer=layer: seen.update({layer: (inputs[0], out)}))
    keypoints = file["input_keypoints"]
    batch = Batch(keypoints=keypoints, visible=torch.ones(keypoints.shape[:-1], dtype=torch.bool))

    file.check_output("poses_centre", model.lift(batch, torch.Generator())[:, 0])
    file.check_output("poses_sequence", model.sequence_head(model.encoded(keypoints)))
    file.check_middle("encoder_embedding", seen["blocks.0"][0])
    file.check_middle("encoder_layer_0", seen["blocks.0"][1])
    file.check_middle("reduce_embedding", seen["strided.0"][0] + model.strided[0].table)
    file.check_middle("reduce_layer_0", seen["strided.0"][1])


def test_published_checkpoints_match_key_for_key(parity_folder, shape_of):
    entries = json.loads((parity_folder / "official_keys.json").read_text(encoding="utf-8"))["configurations"]
    entries = [entry for entry in entries if entry["model"] == "StridedTransformer"]
    assert len(entries) == 2
    for entry in entries:
        frames = entry["constructor"]["frames"]
        with torch.device("meta"):
            model = StridedTransformer(Config(), shape_of(frames))
            released = {entry["prefix"] + key: torch.empty(shape) for key, shape in entry["keys"].items()}
        assert Config(strides=tuple(block.stride for block in model.strided)) == _config(entry["constructor"])
        from_official(model, official_weights(released))
        unused = 2 * 2 * 256  # the norms behind both encoders
        assert sum(p.numel() for p in model.parameters()) + unused == entry["parameters"]


def test_pieces_that_are_missing_or_misshaped_are_named(parity_file, shape_of):
    file = parity_file("strided_scaled")
    model = StridedTransformer(_config(file.constructor), shape_of(9))
    weights = file.weights()
    key = weights.pop("Transformer.model.layers.1.self_attn.linears.1.bias")
    with pytest.raises(ValueError, match=r"missing: Transformer\.model\.layers\.1\.self_attn\.linears\.0,1,2\.bias"):
        from_official(model, weights)
    weights["Transformer.model.layers.1.self_attn.linears.1.bias"] = key[:3]
    with pytest.raises(ValueError, match=r"unexpected: Transformer\.model\.layers\.1\.self_attn\.linears\.0\.bias"):
        from_official(model, weights)
