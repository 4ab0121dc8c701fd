"""Released names of VideoPose3D, and of the trajectory network in semi-supervised files."""

import re

from torch import Tensor

from posegrid.models.videopose3d import TemporalConvolutions, VideoPose3D


def official_name(model: VideoPose3D | TemporalConvolutions, key: str) -> str:
    """Released name of our key. Released lists hold the two convolutions of a block side by side."""
    key = key.removeprefix("network.")
    block = re.fullmatch(r"blocks\.(\d+)\.(wide|narrow)(_activation\.norm)?\.(.*)", key)
    if block:
        index, layer, norm, weight = block.groups()
        return f"layers_{'bn' if norm else 'conv'}.{2 * int(index) + (layer == 'narrow')}.{weight}"
    return key.replace("activation.norm.", "expand_bn.").replace("expand.", "expand_conv.")


def in_our_layout(model: VideoPose3D | TemporalConvolutions, key: str, value: Tensor) -> Tensor:
    """Convolutions over time as (C out, W, C in), those of width one within a block as linear layers."""
    if value.ndim < 3:
        return value
    return value.squeeze(-1) if "narrow." in key or "shrink." in key else value.transpose(1, 2)
