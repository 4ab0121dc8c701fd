"""Released names of MixSTE."""

from torch import Tensor, nn

from posegrid.models.blocks.attention import Attention
from posegrid.models.official.patterns import BLOCK_PARTS, Rules, first_match, heads_first, with_part

_RULES: Rules = (
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


def official_name(model: nn.Module, key: str) -> str:
    """Released name of our key."""
    return with_part(first_match(_RULES, key), r"((?:STE|TTE)blocks\.\d+\.)", BLOCK_PARTS)


def in_our_layout(model: nn.Module, key: str, value: Tensor) -> Tensor:
    """Tables without their leading axis, rows of a projection ordered by head."""
    if key.endswith("_position"):
        return value.squeeze(0)
    if ".qkv." in key:
        attention = model.get_submodule(key.rsplit(".", 2)[0])
        assert isinstance(attention, Attention)
        return heads_first(value, attention.heads)
    return value
