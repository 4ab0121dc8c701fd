"""Released names of the refine head."""

from torch import Tensor, nn

from posegrid.models.official.patterns import Rules, first_match

_RULES: Rules = ((r"hidden\.(.*)", r"post_refine.0.\1"), (r"score\.(.*)", r"post_refine.3.\1"))


def official_name(model: nn.Module, key: str) -> str:
    """Released name of our key."""
    return first_match(_RULES, key)


def in_our_layout(model: nn.Module, key: str, value: Tensor) -> Tensor:
    """As released."""
    return value
