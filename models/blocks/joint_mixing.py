"""Blocks of perceptrons that mix the joints of one pose: by shifting channels along the joints, or along tokens.

Legend: P poses, J joints or tokens, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def joint_shift(tokens_PJD: Tensor, groups: int) -> Tensor:
    """Channels in `groups` contiguous groups, of which number g moves by g - floor(groups / 2) joints; zeros move in.

    Where the width does not divide, groups are as `Tensor.chunk` makes them, the last one smaller. Joints are
    neighbours in their own order, whatever the skeleton. 1 group shifts nothing.
    """
    if groups == 1:
        return tokens_PJD
    joints, reach = tokens_PJD.shape[-2], groups // 2
    padded = F.pad(tokens_PJD, (0, 0, reach, reach))
    parts = padded.chunk(groups, dim=-1)
    return torch.cat([part.narrow(-2, 2 * reach - g, joints) for g, part in enumerate(parts)], dim=-1)


class LocalMLP(nn.Module):
    """Di2Pose's Local-MLP block, in AS-MLP's form: x + JS(LN(x)), then x + MLP(LN(x)).

    JS: linear, GELU, joint shift, linear. The MLP keeps the width.
    """

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.groups = groups
        self.shift_norm = nn.LayerNorm(width)
        self.before_shift = nn.Linear(width, width)
        self.after_shift = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, tokens_PJD: Tensor) -> Tensor:
        """(P, J, D) -> (P, J, D). A joint reads its neighbours up to floor(groups / 2) away."""
        hidden = F.gelu(self.before_shift(self.shift_norm(tokens_PJD)))
        tokens = tokens_PJD + self.after_shift(joint_shift(hidden, self.groups))
        return tokens + self.mlp(self.mlp_norm(tokens))


class MixerMLP(nn.Module):
    """MLP-Mixer block, as PCT's tokeniser has it: x + MLP over joints (LN(x)), then x + MLP over channels (LN(x))."""

    def __init__(self, joints: int, width: int, joint_hidden: int, channel_hidden: int):
        super().__init__()
        self.joint_norm = nn.LayerNorm(width)
        self.joint_mlp = nn.Sequential(nn.Linear(joints, joint_hidden), nn.GELU(), nn.Linear(joint_hidden, joints))
        self.channel_norm = nn.LayerNorm(width)
        self.channel_mlp = nn.Sequential(nn.Linear(width, channel_hidden), nn.GELU(), nn.Linear(channel_hidden, width))

    def forward(self, tokens_PJD: Tensor) -> Tensor:
        """(P, J, D) -> (P, J, D). Every joint reads every other one."""
        tokens = tokens_PJD + self.joint_mlp(self.joint_norm(tokens_PJD).transpose(-1, -2)).transpose(-1, -2)
        return tokens + self.channel_mlp(self.channel_norm(tokens))
