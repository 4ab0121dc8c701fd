"""Released names and layouts of Uplift and Upsample, whose weights come from Keras.

Names are attribute paths of the released network. Kernels are (in, out) and (width, in, out); query, key and value have
kernels of their own. The release orders joints in its own way, the network here in the data's: rows, columns and
blocks of rows that belong to joints are permuted, so that nothing is left to do when it runs.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from posegrid.models.official.patterns import Rules, first_match, heads_first
from posegrid.models.uplift_upsample import UpliftUpsample

JOINT_ORDER = (3, 2, 1, 4, 5, 6, 0, 8, 7, 9, 10, 16, 15, 14, 11, 12, 13)
"""Joint of Human3.6M-17 at every place of the release: its root is the seventh."""

_JOINED = ".attn.wq,wk,wv."
_RULES: Rules = (
    (r"upsampling", "learnable_strided_input_token_layer.learnable_masked_token"),
    (r"table", "temporal_pos_encoding.positional_encoding_weights"),
    (r"spatial\.table", "spatial_pos_encoding.positional_encoding_weights"),
    (r"strided\.(\d+)\.table", r"strided_temporal_pos_encodings.\1.positional_encoding_weights"),
    (r"spatial\.embed\.(.*)", r"keypoint_embedding.\1"),
    (r"spatial\.norm\.(.*)", r"spatial_norm.\1"),
    (r"spatial\.project\.(.*)", r"spatial_to_temporal_mapping.\1"),
    (r"sequence_head\.(.*)", r"head1.0.\1"),
    (r"centre_head\.(.*)", r"head2.0.\1"),
    (r"spatial\.blocks\.(.*)", r"spatial_blocks.\1"),
    (r"blocks\.(.*)", r"temporal_blocks.\1"),
    (r"strided\.(.*)", r"strided_temporal_blocks.\1"),
)
_PARTS = (
    (".attention_norm.", ".norm1."),
    (".attention.qkv.", _JOINED),
    (".attention.project.", ".attn.projection."),
    (".mlp_norm.", ".norm2."),
    (".mlp.0.", ".mlp.fc1."),
    (".mlp.2.", ".mlp.fc2."),
    (".widen.", ".mlp.fc1."),
    (".join.", ".mlp.strided_conv."),
)
_DENSE, _NORM = ("kernel", "bias"), ("gamma", "beta")
_BLOCK = (
    *(f"norm1.{weight}" for weight in _NORM),
    *(f"attn.{layer}.{weight}" for layer in ("wq", "wk", "wv", "projection") for weight in _DENSE),
    *(f"norm2.{weight}" for weight in _NORM),
)
_FIRST, _SECOND = (tuple(f"mlp.{layer}.{weight}" for weight in _DENSE) for layer in ("fc1", "fc2"))
_STRIDED = tuple(f"mlp.strided_conv.{weight}" for weight in _DENSE)
_LAYERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (r"keypoint_embedding", "keypoint_embedding", _DENSE),
    (r"spatial_pe", "spatial_pos_encoding", ("positional_encoding_weights",)),
    (r"temporal_pe", "temporal_pos_encoding", ("positional_encoding_weights",)),
    (r"strided_temporal_pe_(\d+)", "strided_temporal_pos_encodings", ("positional_encoding_weights",)),
    (r"strided_input_token_layer", "learnable_strided_input_token_layer", ("learnable_masked_token",)),
    (r"spatial_block_(\d+)", "spatial_blocks", _BLOCK + _FIRST + _SECOND),
    (r"spatial_norm", "spatial_norm", _NORM),
    (r"spatial_to_temporal_fc", "spatial_to_temporal_mapping", _DENSE),
    (r"temporal_block_(\d+)", "temporal_blocks", _BLOCK + _FIRST + _SECOND),
    (r"strided_temporal_block_(\d+)", "strided_temporal_blocks", _BLOCK + _FIRST + _STRIDED),
    (r"temporal_fc", "head1.0", _DENSE),
    (r"strided_temporal_fc", "head2.0", _DENSE),
)
"""Layer of a Keras file (numbered from 1) -> attribute of the network, and the order of the layer's weights."""


def official_name(model: UpliftUpsample, key: str) -> str:
    """Released name of our key."""
    name = first_match(_RULES, key)
    for ours, theirs in _PARTS:
        name = name.replace(ours, theirs)
    start, _, weight = name.rpartition(".")
    norm = start.endswith(("norm", "norm1", "norm2"))
    if weight == "weight":
        weight = "gamma" if norm else "kernel"
    elif weight == "bias" and norm:
        weight = "beta"
    return f"{start}.{weight}"


def joined(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With query, key and value side by side, (in, 3 out), where all three are there and of one shape."""
    found = dict(official)
    for name in official:
        if ".attn.wq." not in name:
            continue
        names = [name.replace(".wq.", f".w{role}.") for role in "qkv"]
        if all(one in official and official[one].shape == official[name].shape for one in names):
            found[name.replace(".attn.wq.", _JOINED)] = torch.cat([found.pop(one) for one in names], dim=-1)
    return found


def in_our_layout(model: UpliftUpsample, key: str, value: Tensor) -> Tensor:
    """Kernels transposed, roles of a head side by side, joints in the order of Human3.6M-17."""
    ours = [JOINT_ORDER.index(joint) for joint in range(len(JOINT_ORDER))]
    if key == "spatial.table":
        return value[ours]
    if key.endswith("_head.weight") or key.endswith("_head.bias"):
        value = value.unflatten(-1, (len(ours), 3))[..., ours, :].flatten(-2)
    elif key == "spatial.project.weight":
        value = value.unflatten(0, (len(ours), -1))[ours].flatten(0, 1)
    if ".join.weight" in key:
        return value.flatten(0, 1).T
    if key.endswith("weight") and value.ndim > 1:
        value = value.flatten(0, -2).T
    return heads_first(value, model.config.heads) if ".qkv." in key else value


def named_layers(layers: Mapping[str, Sequence[tuple[str, Tensor]]]) -> dict[str, Tensor]:
    """Attribute paths for the weights of a Keras file, which gives a layer's weights by their order.

    The released network reads them in that order too; the names inside a layer are only looked at for what kind of
    weight it is. Raises ValueError if a kind is not the one whose turn it is.
    """
    found: dict[str, Tensor] = {}
    for layer, weights in layers.items():
        match, start, names = next(
            ((match, start, names) for pattern, start, names in _LAYERS if (match := re.fullmatch(pattern, layer))),
            (None, layer, ()),
        )
        if match is not None and match.groups():
            start = f"{start}.{int(match[1]) - 1}"
        for index, (name, value) in enumerate(weights):
            if index >= len(names):
                found[f"{layer}/{name}"] = value  # comes out as unexpected
                continue
            kind = name.rpartition("/")[2].partition(":")[0]
            if kind != names[index].rpartition(".")[2]:
                raise ValueError(
                    f"weight {index + 1} of layer {layer} is {name} in the file, but {names[index]} in the released "
                    "network: the order is another one. Use the released file."
                )
            found[f"{start}.{names[index]}"] = value
    return found
