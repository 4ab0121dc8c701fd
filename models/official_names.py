"""Weights as the authors released them: their key names and layouts translated into ours.

A released file is read elsewhere; here its dictionary of tensors becomes a state dict of one of our models. Nothing is
skipped silently: keys that are missing, unexpected or of another shape are all listed in the error.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posegrid.models.diffhpe import DiffHPE
from posegrid.models.interface import Lifter
from posegrid.models.mixste import MixSTE

# Pattern of our key -> official key; the first match decides. `\1` is the rest that both share.
_MIXSTE_RULES = (
    (r"embed\.(.*)", r"Spatial_patch_to_embedding.\1"),
    (r"joint_position", r"Spatial_pos_embed"),
    (r"frame_position", r"Temporal_pos_embed"),
    (r"spatial\.(\d+)\.(.*)", r"STEblocks.\1.\2"),
    (r"temporal\.(\d+)\.(.*)", r"TTEblocks.\1.\2"),
    (r"spatial_norm\.(.*)", r"Spatial_norm.\1"),
    (r"temporal_norm\.(.*)", r"Temporal_norm.\1"),
    (r"head_norm\.(.*)", r"head.0.\1"),
    (r"head\.(.*)", r"head.1.\1"),
)
_BLOCK_PARTS = {
    "attention_norm": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.project": "attn.proj",
    "mlp_norm": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}
_DIFFHPE_RULES = (
    (r"embed_pose\.(.*)", r"conditioning.data_enc.\1"),
    (r"predictor\.input\.(.*)", r"diffmodel.input_projection.\1"),
    (r"predictor\.step_embedding\.first\.(.*)", r"diffmodel.diffusion_embedding.projection1.\1"),
    (r"predictor\.step_embedding\.second\.(.*)", r"diffmodel.diffusion_embedding.projection2.\1"),
    (r"predictor\.hidden\.(.*)", r"diffmodel.output_projection1.\1"),
    (r"predictor\.output\.(.*)", r"diffmodel.output_projection2.\1"),
    (r"predictor\.blocks\.(\d+)\.step\.(.*)", r"diffmodel.residual_layers.\1.diffusion_projection.\2"),
    (r"predictor\.blocks\.(\d+)\.gate\.(.*)", r"diffmodel.residual_layers.\1.mid_projection.\2"),
    (r"predictor\.blocks\.(\d+)\.output\.(.*)", r"diffmodel.residual_layers.\1.output_projection.\2"),
    (
        r"predictor\.blocks\.(\d+)\.(time|feature)\.convolution\.weight",
        r"diffmodel.residual_layers.\1.\2_layer.gconv.W",
    ),
    (
        r"predictor\.blocks\.(\d+)\.(time|feature)\.convolution\.bias",
        r"diffmodel.residual_layers.\1.\2_layer.gconv.bias",
    ),
    (r"predictor\.blocks\.(\d+)\.(time|feature)\.norm\.(.*)", r"diffmodel.residual_layers.\1.\2_layer.bn.\3"),
    (r"predictor\.blocks\.(\d+)\.non_local\.(.*)", r"diffmodel.residual_layers.\1.non_local.non_local.\2"),
)
_NON_LOCAL_PARTS = {
    "theta": "theta",
    "phi": "phi.0",
    "value": "g.0",
    "score": "concat_project.0",
    "output": "W.0",
    "norm": "W.1",
}


def official_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights inside a released checkpoint, without container and without the prefixes of training wrappers."""
    weights = dict(checkpoint.get("model_pos", checkpoint))
    for prefix in ("module.", "model."):
        if weights and all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def from_official(model: Lifter, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Complete state dict for `model` from weights under official names (see `official_weights`).

    Raises ValueError listing missing keys, unexpected keys and shapes that differ. What the released model does not
    have (the last linear layer of a frozen conditioner, which is never used) keeps the model's own value.
    """
    state, used, missing, misshaped = {}, set(), [], []
    for key, ours in model.state_dict().items():
        name = official_name(model, key)
        if name is None:
            state[key] = ours
        elif name not in official:
            missing.append(name)
        else:
            used.add(name)
            value = official[name]
            if value.numel() == ours.numel():
                value = _in_our_layout(model, key, value)
            if value.shape != ours.shape:
                misshaped.append(f"{name} {tuple(official[name].shape)}, here {tuple(ours.shape)}")
            state[key] = value
    unexpected = sorted(set(official) - used)
    if missing or unexpected or misshaped:
        lists = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
        raise ValueError(
            f"official weights with {len(official)} keys do not fit this {type(model).__name__}. "
            + " ".join(f"{what}: {', '.join(keys)}." for what, keys in lists if keys)
            + " Keys and shapes must match one to one: build the model with the configuration of the released file."
        )
    return state


def official_name(model: Lifter, key: str) -> str | None:
    """Name in the authors' release of our state-dict key; None if the release has no such weight."""
    if isinstance(model, MixSTE):
        return _mixste_name(key)
    if not isinstance(model, DiffHPE):
        raise ValueError(
            f"no official names are known for {type(model).__name__}. Known: MixSTE, DiffHPE. "
            "Add rules to models/official_names.py."
        )
    if key.startswith("conditioner."):
        name = _mixste_name(key.removeprefix("conditioner."))
        if name.startswith("head.1."):
            return None
        return "conditioning." + name.replace("head.0.", "head.")
    name = _first_match(_DIFFHPE_RULES, key)
    return _with_part(name, r"(.*\.non_local\.non_local\.)", _NON_LOCAL_PARTS)


def _mixste_name(key: str) -> str:
    return _with_part(_first_match(_MIXSTE_RULES, key), r"((?:STE|TTE)blocks\.\d+\.)", _BLOCK_PARTS)


def _first_match(rules: tuple[tuple[str, str], ...], key: str) -> str:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    raise AssertionError(f"no rule for {key}")


def _with_part(name: str, prefix: str, parts: dict[str, str]) -> str:
    """`name` with the part that follows `prefix` renamed; unchanged without that prefix."""
    match = re.match(prefix, name)
    if not match:
        return name
    part, weight = name[match.end() :].rsplit(".", 1)
    return f"{match.group()}{parts[part]}.{weight}"


def _in_our_layout(model: Lifter, key: str, value: Tensor) -> Tensor:
    """Without the singleton axes of tables and 1 x 1 convolutions; rows of a projection ordered as in `Attention`."""
    if key.endswith("_position"):
        return value.squeeze(0)
    if ".qkv." in key:
        attention = model.get_submodule(key.rsplit(".", 2)[0])
        rows = value.unflatten(0, (3, attention.heads, -1))
        return rows.transpose(0, 1).flatten(0, 2)
    while value.ndim > 2 and value.shape[-1] == 1:
        value = value.squeeze(-1)
    return value
