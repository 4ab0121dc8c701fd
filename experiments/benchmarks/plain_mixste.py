"""MixSTE as one writes it first: explicit softmax attention, a copy for every change of axes, float32, no compiler.

The yardstick of `training_step.py`. It has the parameters of `models/mixste.py` and returns the same poses.
Legend: B windows, L frames, J joints, S tokens of a sequence, D width, H heads.
"""

import torch
from torch import Tensor, nn

from posegrid.models.mixste import MixSTE


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, drop_path: float):
        super().__init__()
        self.heads = heads
        self.drop_path = drop_path
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.widen = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.narrow = nn.Linear(hidden, width)

    def forward(self, tokens_NSD: Tensor) -> Tensor:
        tokens = tokens_NSD + self._dropped(self._attended(self.attention_norm(tokens_NSD)))
        return tokens + self._dropped(self.narrow(self.activation(self.widen(self.mlp_norm(tokens)))))

    def _attended(self, tokens_NSD: Tensor) -> Tensor:
        count, length, width = tokens_NSD.shape
        each = width // self.heads
        qkv = self.qkv(tokens_NSD).reshape(count, length, 3, self.heads, each).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0], qkv[1], qkv[2]
        weights = ((query @ key.transpose(-2, -1)) * each**-0.5).softmax(dim=-1)
        return self.project((weights @ value).transpose(1, 2).reshape(count, length, width))

    def _dropped(self, branch_NSD: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch_NSD
        kept = torch.rand(len(branch_NSD), 1, 1, device=branch_NSD.device) >= self.drop_path
        return branch_NSD * kept / (1 - self.drop_path)


class PlainMixSTE(nn.Module):
    """Keypoints (B, L, J, 2) -> poses (B, L, J, 3), with the weights of a `MixSTE`."""

    def __init__(self, model: MixSTE):
        super().__init__()
        config, pose, width = model.config, model.pose, model.config.width
        self.embed = nn.Linear(2, width)
        self.joint_position = nn.Parameter(torch.zeros(1, pose.joints, width))
        self.frame_position = nn.Parameter(torch.zeros(1, pose.frames, width))
        hidden, last = int(width * config.mlp_ratio), max(config.depth - 1, 1)
        rates = [config.drop_path * index / last for index in range(config.depth)]
        self.spatial = nn.ModuleList(_Block(width, config.heads, hidden, rate) for rate in rates)
        self.temporal = nn.ModuleList(_Block(width, config.heads, hidden, rate) for rate in rates)
        self.spatial_norm = nn.LayerNorm(width, eps=1e-6)
        self.temporal_norm = nn.LayerNorm(width, eps=1e-6)
        self.head_norm = nn.LayerNorm(width, eps=1e-5)
        self.head = nn.Linear(width, 3)
        self.load_state_dict(_plain_weights(model))

    def forward(self, keypoints_BLJC: Tensor) -> Tensor:
        """See the class."""
        windows, frames, joints, _ = keypoints_BLJC.shape
        tokens = self.embed(keypoints_BLJC.reshape(windows * frames, joints, 2)) + self.joint_position
        for depth, (spatial, temporal) in enumerate(zip(self.spatial, self.temporal, strict=True)):
            tokens = self.spatial_norm(spatial(tokens))
            tokens = tokens.reshape(windows, frames, joints, -1).permute(0, 2, 1, 3)
            tokens = tokens.reshape(windows * joints, frames, -1)
            if depth == 0:
                tokens = tokens + self.frame_position
            tokens = self.temporal_norm(temporal(tokens))
            tokens = tokens.reshape(windows, joints, frames, -1).permute(0, 2, 1, 3)
            tokens = tokens.reshape(windows * frames, joints, -1)
        return self.head(self.head_norm(tokens)).reshape(windows, frames, joints, 3)


def _plain_weights(model: MixSTE) -> dict[str, Tensor]:
    """Our weights under the names above; rows of qkv from (head, role, E) to (role, head, E)."""
    heads = model.config.heads
    found = {}
    for name, weight in model.state_dict().items():
        plain = name.replace(".attention.", ".").replace(".mlp.0.", ".widen.").replace(".mlp.2.", ".narrow.")
        if ".qkv." in plain:
            weight = weight.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
        elif plain.endswith("_position"):
            weight = weight[None]
        found[plain] = weight.detach().clone()
    return found
