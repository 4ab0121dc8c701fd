"""Released names of ViTPose's backbone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from posegrid.models.blocks.attention import Attention
from posegrid.models.official.patterns import BLOCK_PARTS, Rules, first_match, heads_first, with_part

_RULES: Rules = (
    (r"embed\.(.*)", r"patch_embed.proj.\1"),
    (r"position", r"pos_embed"),
    (r"norm\.(.*)", r"last_norm.\1"),
    (r"(blocks\..*)", r"\1"),
)


def joined(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The table of positions (1, 1 + M, E) has a row for a class token, which is added to all others."""
    weights = dict(official)
    table = weights.get("pos_embed")
    if table is not None and table.ndim == 3:
        weights["pos_embed"] = table[0, 1:] + table[0, :1]
    return weights


def official_name(model: nn.Module, key: str) -> str:
    """Released name of our key."""
    return with_part(first_match(_RULES, key), r"(blocks\.\d+\.)", BLOCK_PARTS)


def in_our_layout(model: nn.Module, key: str, value: Tensor) -> Tensor:
    """Rows of a projection ordered by head."""
    if ".qkv." in key:
        attention = model.get_submodule(key.rsplit(".", 2)[0])
        assert isinstance(attention, Attention)
        return heads_first(value, attention.heads)
    return torch.as_tensor(value)
