"""Released names and layouts of Uplift and Upsample, whose weights come from Keras.

Names are attribute paths of the released network. Kernels are (in, out) and (width, in, out); query, key and value have
kernels of their own. The release orders joints in its own way, the network here in the data's: rows, columns and
blocks of rows that belong to joints are permuted, so that nothing is left to do when it runs.
"""

from collections.abc import Mapping

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
