"""The token transformer returns the numbers of VQ-Diffusion's released network for the same weights."""

import pytest
import torch

from posegrid.models.blocks.token_transformer import TokenTransformer
from posegrid.models.diffusion.discrete import OccludeAndReplace, log_probabilities, proportional, vq_diffusion
from posegrid.models.official.patterns import heads_first

PARTS = {
    "self_norm.table": "ln1.emb",
    "self_norm.linear": "ln1.linear",
    "cross_norm.table": "ln1_1.emb",
    "cross_norm.linear": "ln1_1.linear",
    "self_attention.project": "attn1.proj",
    "cross_attention.query": "attn2.query",
    "cross_attention.key": "attn2.key",
    "cross_attention.value": "attn2.value",
    "cross_attention.project": "attn2.proj",
    "mlp_norm": "ln2",
    "mlp.0": "mlp.0",
    "mlp.2": "mlp.2",
}
TOP = {"embed": "content_emb.emb", "norm": "to_logits.0", "head": "to_logits.1"}


def _loaded(file) -> TokenTransformer:
    options = file.constructor
    released = file.weights("transformer.")
    model = TokenTransformer(
        options["tokens"],
        options["classes"],
        options["width"],
        options["condition_dim"],
        options["layers"],
        options["heads"],
        options["mlp_hidden_times"],
        options["steps"],
    ).eval()
    state = {}
    for key in model.state_dict():
        if key == "position":
            grid = released["content_emb.height_emb.weight"][:, None] + released["content_emb.width_emb.weight"]
            state[key] = grid.flatten(0, 1)
            continue
        layer, weight = key.rsplit(".", 1)
        if layer in TOP:
            state[key] = released[f"{TOP[layer]}.{weight}"]
            continue
        _, number, part = layer.split(".", 2)
        if part == "self_attention.qkv":
            three = [released[f"blocks.{number}.attn1.{role}.{weight}"] for role in ("query", "key", "value")]
            state[key] = heads_first(torch.cat(three), options["heads"])
        else:
            state[key] = released[f"blocks.{number}.{PARTS[part]}.{weight}"]
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("name", ["vqdiffusion_small", "vqdiffusion_scaled", "vqdiffusion_replace"])
def test_logits_and_reverse_step(name, parity_file):
    file = parity_file(name)
    options = file.constructor
    model = _loaded(file)
    tokens, step = file["input_tokens"], file["input_step"] + 1
    seen = {}
    for layer in ("self_norm", "self_attention", "cross_attention"):
        model.blocks[0].get_submodule(layer).register_forward_hook(
            lambda _m, _i, out, layer=layer: seen.update({layer: out.squeeze(1) if out.ndim == 4 else out})
        )
    model.blocks[0].register_forward_hook(lambda _m, _i, out: seen.update(block=out))
    model.blocks[0].register_forward_pre_hook(lambda _m, args: seen.update(embedding=args[0]))
    with torch.no_grad():
        logits = model(tokens, step, file["input_condition"])
    file.check_middle("embedding", seen["embedding"])
    file.check_middle("ada_norm_0", seen["self_norm"])
    file.check_middle("self_attention_0", seen["self_attention"])
    file.check_middle("cross_attention_0", seen["cross_attention"])
    file.check_middle("block_0", seen["block"])
    file.check_output("logits", logits.transpose(1, 2))

    start = log_probabilities(logits)
    occluded = start.new_full((*tokens.shape, 1), -70)
    file.check_output("log_start", torch.cat([start, occluded], -1).transpose(1, 2))
    made = vq_diffusion if options["schedule"] == "alpha1" else proportional
    process = OccludeAndReplace(made(options["steps"]), options["classes"])
    back = process.posterior(tokens, start.exp(), step).clamp_min(1e-38).log().clamp_min(-70).transpose(1, 2)
    expected = file["output_log_model"]
    tolerance = {"rtol": file.tolerance["rtol"], "atol": file.tolerance["atol"]["log_model"]}
    # that an ordinary token was occluded before has probability 0, of which the released floors leave a little
    never = torch.zeros_like(expected, dtype=torch.bool)
    never[:, -1] = tokens != options["classes"]
    assert (back[never] == -70).all()
    assert (expected[never] < -40).all()
    torch.testing.assert_close(back[~never].exp(), expected[~never].exp(), rtol=1e-3, atol=1e-25)
    shallow = ~never & (expected > -60)
    torch.testing.assert_close(back[shallow], expected[shallow], **tolerance)
    noise = -(-(file["input_uniform"] + 1e-30).log() + 1e-30).log()
    assert (back + noise).argmax(1).equal(file["output_reverse_tokens"])
