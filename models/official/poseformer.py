"""Released names of PoseFormer."""

from torch import Tensor

from posegrid.models.official.patterns import BLOCK_PARTS, Rules, first_match, heads_first, with_part
from posegrid.models.poseformer import PoseFormer

_RULES: Rules = (
    (r"embed\.(.*)", r"Spatial_patch_to_embedding.\1"),
    (r"joint_position", r"Spatial_pos_embed"),
    (r"frame_position", r"Temporal_pos_embed"),
    (r"spatial\.(\d+)\.(.*)", r"Spatial_blocks.\1.\2"),
    (r"temporal\.(\d+)\.(.*)", r"blocks.\1.\2"),
    (r"spatial_norm\.(.*)", r"Spatial_norm.\1"),
    (r"temporal_norm\.(.*)", r"Temporal_norm.\1"),
    (r"frame_mean\.(.*)", r"weighted_mean.\1"),
    (r"head_norm\.(.*)", r"head.0.\1"),
    (r"head\.(.*)", r"head.1.\1"),
)


def official_name(model: PoseFormer, key: str) -> str:
    """Released name of our key."""
    return with_part(first_match(_RULES, key), r"((?:Spatial_)?blocks\.\d+\.)", BLOCK_PARTS)


def in_our_layout(model: PoseFormer, key: str, value: Tensor) -> Tensor:
    """Tables without their leading axis, the weighted mean as a linear layer, rows of projections ordered by head."""
    if key.endswith("_position"):
        return value.squeeze(0)
    if key == "frame_mean.weight":
        return value.squeeze(2)
    return heads_first(value, model.config.heads) if ".qkv." in key else value
