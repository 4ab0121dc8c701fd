"""What the translations share: rules of renaming, the usual transformer block, rows of a projection."""

import re

from torch import Tensor

Rules = tuple[tuple[str, str], ...]
"""Pattern of our key -> official key; the first match decides. `\\1` is the first group of the pattern."""

BLOCK_PARTS = {
    "attention_norm": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.project": "attn.proj",
    "mlp_norm": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}
"""Parts of `blocks.attention.TransformerBlock` under the names of the vision transformers it follows."""


def first_match(rules: Rules, key: str) -> str:
    """`key` translated by the first rule that matches all of it."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    raise AssertionError(f"no rule for {key}")


def with_part(name: str, prefix: str, parts: dict[str, str]) -> str:
    """`name` with the part that follows `prefix` renamed; unchanged without that prefix."""
    match = re.match(prefix, name)
    if not match:
        return name
    part, weight = name[match.end() :].rsplit(".", 1)
    return f"{match.group()}{parts[part]}.{weight}"


def heads_first(value: Tensor, heads: int) -> Tensor:
    """Rows ordered (role, head, E) reordered to (head, role, E), as `blocks.attention.Attention` has them."""
    return value.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)


def without_last_singletons(value: Tensor) -> Tensor:
    """A 1 x 1 convolution's weight as that of a linear layer."""
    while value.ndim > 2 and value.shape[-1] == 1:
        value = value.squeeze(-1)
    return value
