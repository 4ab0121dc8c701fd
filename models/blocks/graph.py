"""Graph layers over a skeleton, in joint-major layout.

Legend: J joints, L frames, B windows (times hypotheses), D channels. Grids are (J, L, B, D) in memory: then every
joint's own weight matrix is one batched matrix product over frames or over channels, and mixing joints is one product
with the adjacency matrix, all without copies.
"""

from functools import reduce
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models.blocks.batch_norm import BatchNorm1d
from posegrid.models.blocks.draws import Draws
from posegrid.models.blocks.drop import Dropout


def row_normalised_adjacency(parents: tuple[int, ...]) -> Tensor:
    """Adjacency plus identity of the skeleton's tree with rows summing to one, (J, J). Not symmetric."""
    graph = torch.eye(len(parents), device="cpu")
    for child, parent in enumerate(parents):
        if parent >= 0:
            graph[child, parent] = graph[parent, child] = 1
    return graph / graph.sum(1, keepdim=True)


class GraphConv(nn.Module):
    """Graph convolution with a weight matrix per joint, one for a joint's own share and one for its neighbours' shares.

    out_j = a_jj x_j W0_j + sum_{k != j} a_jk x_k W1_k + b ("pre-aggregation, decoupled self-connection",
    Liu et al., ECCV 2020). `mixes` says which axis of the grid the weight matrices act on.
    """

    own: Tensor
    others: Tensor

    def __init__(self, width: int, adjacency: Tensor, mixes: Literal["frames", "channels"]):
        super().__init__()
        self.mixes = mixes
        self.weight = nn.Parameter(torch.empty(2, len(adjacency), width, width))
        self.bias = nn.Parameter(torch.empty(width))
        self.register_buffer("own", adjacency.diagonal()[:, None, None].clone(), persistent=False)
        self.register_buffer("others", adjacency - adjacency.diagonal().diag(), persistent=False)
        # The fan is that of the four-dimensional tensor, as published: (J + 2) width^2 in the denominator.
        nn.init.xavier_uniform_(self.weight, gain=1.414)
        nn.init.uniform_(self.bias, -1 / sqrt(width), 1 / sqrt(width))

    def forward(self, grid_JLBD: Tensor) -> Tensor:
        """(J, L, B, D) -> (J, L * B, D) if it mixes channels, (J, L, B * D) if it mixes frames."""
        joints = len(grid_JLBD)
        own, others = self.weight[0] * self.own, self.weight[1]
        if self.mixes == "frames":
            flat = grid_JLBD.flatten(2)
            share = torch.bmm(others.transpose(1, 2), flat)
            bias = self.bias[:, None].expand(flat.shape[1:])
        else:
            flat = grid_JLBD.flatten(1, 2)
            share = torch.bmm(flat, others)
            bias = self.bias.expand(flat.shape[1:])
        mixed = torch.addmm(bias.reshape(1, -1), self.others, share.view(joints, -1)).view_as(flat)
        if self.mixes == "frames":
            return torch.baddbmm(mixed, own.transpose(1, 2), flat)
        return torch.baddbmm(mixed, flat, own)


class GraphLayer(nn.Module):
    """Graph convolution, batch norm over the mixed axis, ReLU, dropout."""

    def __init__(self, width: int, adjacency: Tensor, mixes: Literal["frames", "channels"], dropout: float):
        super().__init__()
        self.convolution = GraphConv(width, adjacency, mixes)
        self.norm = BatchNorm1d(width)
        self.dropout = Dropout(dropout, window_axis=2)

    def forward(self, grid_JLBD: Tensor, draws: Draws | None) -> Tensor:
        """(J, L, B, D) -> (J, L, B, D)."""
        mixed = self.convolution(grid_JLBD)
        if self.convolution.mixes == "channels":
            mixed = mixed.flatten(0, 1)
        return self.dropout(F.relu(self.norm(mixed), inplace=True).view_as(grid_JLBD), draws)


class NonLocal(nn.Module):
    """Every joint attends to groups of joints; the concatenation form of Wang et al., "Non-local Neural Networks".

    y_i = (1 / G) sum_g ReLU(w . [theta_i; phi_g]) value_g with phi and value max-pooled over the joints of group g.
    `groups` lists the joints of each group. The identity at initialisation.
    """

    members: Tensor

    def __init__(self, width: int, groups: tuple[tuple[int, ...], ...]):
        super().__init__()
        inner = width // 2
        self.theta = nn.Linear(width, inner)
        self.phi = nn.Linear(width, inner)
        self.value = nn.Linear(width, inner)
        self.score = nn.Linear(2 * inner, 1, bias=False)
        self.output = nn.Linear(inner, width)
        self.norm = BatchNorm1d(width)
        # Groups of unequal size are padded by repeating a member, which a maximum does not notice.
        longest = max(map(len, groups))
        padded = [[group[min(i, len(group) - 1)] for group in groups] for i in range(longest)]
        self.register_buffer("members", torch.tensor(padded, device="cpu"), persistent=False)
        for layer in (self.theta, self.phi, self.value, self.score, self.output):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.norm.weight)

    def forward(self, grid_JLBD: Tensor) -> Tensor:
        """(J, L, B, D) -> (J, L, B, D)."""
        tokens = grid_JLBD.flatten(1, 2)
        score_theta, score_phi = self.score.weight.chunk(2, dim=1)
        # theta is read through w only, so both linear maps are applied as one: (J, T) instead of (J, T, inner).
        query = F.linear(tokens, score_theta @ self.theta.weight, score_theta @ self.theta.bias)
        # phi and value are pooled alike, so one map and one pooling serve both.
        weight = torch.cat([self.phi.weight, self.value.weight])
        pooled = self._pooled(F.linear(tokens, weight, torch.cat([self.phi.bias, self.value.bias])))
        phi, value = pooled.chunk(2, dim=-1)
        key = F.linear(phi, score_phi)
        # Token-major from here, so that the sum over groups is one batched product: (T, J, G) @ (T, G, inner).
        attention = F.relu(query.transpose(0, 1).contiguous() + key.permute(1, 2, 0).contiguous()) / len(value)
        gathered = torch.bmm(attention, value.transpose(0, 1))
        change = self.norm(self.output(gathered).flatten(0, 1)).view(len(gathered), len(tokens), -1)
        return (tokens + change.transpose(0, 1)).view_as(grid_JLBD)

    def _pooled(self, tokens_JTD: Tensor) -> Tensor:
        """Maximum over the joints of each group, (G, T, D)."""
        return reduce(torch.maximum, (tokens_JTD.index_select(0, members) for members in self.members))
