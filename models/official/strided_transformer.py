"""Released names of StridedTransformer."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from posegrid.models.official.patterns import Rules, first_match, heads_first, with_part, without_last_singletons
from posegrid.models.strided_transformer import StridedTransformer

_RULES: Rules = (
    (r"embed\.(.*)", r"encoder.0.\1"),
    (r"activation\.norm\.(.*)", r"encoder.1.\1"),
    (r"table", r"Transformer.pos_embedding"),
    (r"strided\.(\d+)\.table", r"Transformer_reduce.model.pos_embedding_\1"),
    (r"blocks\.(\d+)\.(.*)", r"Transformer.model.layers.\1.\2"),
    (r"strided\.(\d+)\.(.*)", r"Transformer_reduce.model.layers.\1.\2"),
    (r"sequence_head\.norm\.(.*)", r"fcn_1.0.\1"),
    (r"sequence_head\.linear\.(.*)", r"fcn_1.1.\1"),
    (r"centre_head\.norm\.(.*)", r"fcn.0.\1"),
    (r"centre_head\.linear\.(.*)", r"fcn.1.\1"),
)
_JOINED = "self_attn.linears.0,1,2"
_PARTS = {
    "attention_norm": "sublayer.0.norm",
    "attention.qkv": _JOINED,
    "attention.project": "self_attn.linears.3",
    "mlp_norm": "sublayer.1.norm",
    "widen": "feed_forward.w_1",
    "narrow": "feed_forward.w_2",
}
_TABLES = 3
"""Tables of strided blocks in the release, however many blocks there are; counted from 1."""


def official_name(model: StridedTransformer, key: str) -> str:
    """Released name of our key."""
    name = with_part(first_match(_RULES, key), r"(Transformer(?:_reduce)?\.model\.layers\.\d+\.)", _PARTS)
    name = re.sub(r"(pos_embedding_)(\d+)", lambda found: f"{found[1]}{int(found[2]) + 1}", name)
    return name.replace("norm.weight", "norm.a_2").replace("norm.bias", "norm.b_2") if "sublayer" in name else name


def joined(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With query, key and value one below the other, (3 D, D), where all three are there and of one shape."""
    found = dict(official)
    for name in official:
        if ".self_attn.linears.0." not in name:
            continue
        names = [name.replace("linears.0.", f"linears.{role}.") for role in range(3)]
        if all(one in official and official[one].shape == official[name].shape for one in names):
            found[name.replace("self_attn.linears.0", _JOINED)] = torch.cat([found.pop(one) for one in names])
    return found


def in_our_layout(model: StridedTransformer, key: str, value: Tensor) -> Tensor:
    """Tables without their leading axis, convolutions as linear layers, rows of projections ordered by head."""
    if key.endswith("table"):
        return value.squeeze(0)
    if ".qkv." in key:
        return heads_first(value, model.config.heads)
    if key.startswith("strided.") and key.endswith("narrow.weight"):
        return value.transpose(1, 2).flatten(1)
    return without_last_singletons(value)


def unread(model: StridedTransformer) -> dict[str, tuple[int, ...]]:
    """Norms behind the encoders, which are never applied, and tables of blocks that are not there."""
    width = model.config.width
    norms = {
        f"{encoder}.model.norm.{weight}": (width,)
        for encoder in ("Transformer", "Transformer_reduce")
        for weight in ("a_2", "b_2")
    }
    tables = {
        f"Transformer_reduce.model.pos_embedding_{block + 1}": (1, model.pose.frames, width)
        for block in range(len(model.strided), _TABLES)
    }
    return {**norms, **tables}
