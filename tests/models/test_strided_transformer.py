"""Invariants of StridedTransformer, its norm and its dropout of attention weights."""

import pytest
import torch
from torch import nn

from posegrid.models import losses
from posegrid.models.blocks.attention import Attention
from posegrid.models.blocks.deviation_norm import DeviationNorm
from posegrid.models.blocks.draws import Draws
from posegrid.models.interface import Batch
from posegrid.models.strided_transformer import Config, StridedTransformer, strides

QUIET = {"embed_dropout": 0.0, "dropout": 0.0, "attention_dropout": 0.0}
SMALL = Config(width=16, hidden=32, depth=1, heads=2, **QUIET)


def _lift(model: StridedTransformer, keypoints: torch.Tensor) -> torch.Tensor:
    batch = Batch(keypoints=keypoints, visible=torch.ones(keypoints.shape[:-1], dtype=torch.bool))
    return model.eval().lift(batch, torch.Generator())[:, 0]


@pytest.mark.parametrize(("frames", "count"), [(351, 4_345_190), (27, 4_013_414)])
def test_parameter_counts(frames, count, shape_of):
    with torch.device("meta"):
        model = StridedTransformer(Config(), shape_of(frames))
    assert sum(p.numel() for p in model.parameters()) == count
    assert 4_345_190 - 4_013_414 == (351 - 27) * 256 * 4  # a table for the first encoder, three for the second


@pytest.mark.parametrize(
    ("given", "frames", "expected"),
    [((), 351, (3, 9, 13)), ((), 27, (3, 3, 3)), ((), 9, (3, 3)), ((1, 3, 3), 9, (1, 3, 3)), ((3, 2), 5, (3, 2))],
)
def test_strides_leave_one_token(given, frames, expected, shape_of):
    assert strides(Config(strides=given), frames) == expected
    model = StridedTransformer(Config(width=16, hidden=32, depth=1, heads=2, strides=given), shape_of(frames))
    assert _lift(model, torch.zeros(2, frames, 17, 2)).shape == (2, 1, 17, 3)
    assert model.output_frame == (frames - 1) // 2


def test_norm_is_that_of_the_unbiased_deviation():
    torch.manual_seed(0)
    norm = DeviationNorm(8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    values = torch.randn(3, 5, 8) * torch.tensor([0.1, 1.0, 30.0])[:, None, None]
    centred = values - values.mean(-1, keepdim=True)
    expected = norm.weight * centred / (values.std(-1, keepdim=True) + 1e-6) + norm.bias
    torch.testing.assert_close(norm(values), expected, rtol=1e-4, atol=1e-5)
    assert norm(torch.full((2, 8), 3.0)).equal(norm.bias.expand(2, 8))


def test_only_the_first_frame_passes_by_the_layers(shape_of):
    """With all branches silent, the one token left is that of frame 0: as released, not the centre frame's."""
    torch.manual_seed(0)
    model = StridedTransformer(SMALL, shape_of(9))
    for block in (*model.blocks, *model.strided):
        for layer in (block.attention.project, block.narrow):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    keypoints = torch.randn(1, 9, 17, 2)
    lifted, reached = _lift(model, keypoints), []
    for frame in range(9):
        changed = keypoints.clone()
        changed[:, frame] += 1
        if not _lift(model, changed).equal(lifted):
            reached.append(frame)
    assert reached == [0]


def test_a_strided_block_is_a_convolution(shape_of):
    torch.manual_seed(0)
    block = StridedTransformer(SMALL, shape_of(9)).strided[0].eval()
    tokens = torch.randn(2, 9, 16)
    attended = tokens + block.table
    attended = attended + block.attention(block.attention_norm(attended)[:, :, None])[:, :, 0]
    hidden = block.widen(block.mlp_norm(attended)).relu().transpose(1, 2)
    kernel = block.narrow.weight.unflatten(1, (3, 32)).transpose(1, 2)
    joined = nn.functional.conv1d(hidden, kernel, block.narrow.bias, stride=3, padding=1).transpose(1, 2)
    torch.testing.assert_close(block(tokens), attended[:, ::3] + joined, rtol=1e-5, atol=1e-5)


def test_rows_of_a_table_beyond_the_tokens_are_not_read(shape_of):
    torch.manual_seed(0)
    model, keypoints = StridedTransformer(SMALL, shape_of(9)), torch.randn(2, 9, 17, 2)
    lifted = _lift(model, keypoints)
    with torch.no_grad():
        model.strided[1].table[3:] += 1  # three tokens reach the second block
    assert _lift(model, keypoints).equal(lifted)
    with torch.no_grad():
        model.strided[1].table[2] += 1
    assert not _lift(model, keypoints).equal(lifted)


def test_loss_supervises_the_centre_and_the_sequence(shape_of, batch_of):
    pose = shape_of(9)
    batch, generator = batch_of(3, pose), torch.Generator()
    values = []
    for weight in (0.0, 1.0, 2.0):
        torch.manual_seed(0)
        model = StridedTransformer(
            Config(width=16, hidden=32, depth=1, heads=2, sequence_weight=weight, **QUIET), pose
        ).eval()
        values.append(model.loss(batch, generator))
    centre = losses.mpjpe(_lift(model, batch.keypoints), batch.poses[:, 4:5])
    sequence = losses.mpjpe(model.sequence_head(model.encoded(batch.keypoints)), batch.poses)
    torch.testing.assert_close(torch.stack(values), torch.stack([centre + w * sequence for w in (0, 1, 2)]))


def test_attention_weights_are_dropped_with_the_configured_rate(pose, batch_of):
    """With values that are all one, a query's output is the sum of its surviving weights, rescaled."""
    torch.manual_seed(0)
    attention = Attention(16, 2, "frames", dropout=0.25).train()
    with torch.no_grad():
        attention.qkv.weight.view(2, 3, 8, 16)[:, :2].zero_()  # equal weights: 1 / L each
        attention.qkv.weight.view(2, 3, 8, 16)[:, 2].zero_()
        attention.qkv.bias.view(2, 3, 8)[:, 2] = 1
        attention.project.weight.copy_(torch.eye(16))
        attention.project.bias.zero_()
    batch = batch_of(200, pose)
    draws = Draws(batch, torch.Generator().manual_seed(0))
    tokens = torch.randn(200, 5, 1, 16)
    sums = attention(tokens, draws=draws)
    survivors = (sums * 5 * 0.75).round(decimals=4)
    assert set(survivors.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    # 200 windows x 5 queries x 2 heads of 5 weights: 10,000 draws, five standard deviations.
    assert 1 - survivors[..., ::8].mean().item() / 5 == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 10_000) ** 0.5)
    ones = torch.ones(200, 5, 1, 16)
    torch.testing.assert_close(attention(tokens), ones)
    torch.testing.assert_close(attention.eval()(tokens, draws=draws), ones)


def test_settings_that_cannot_be(shape_of):
    with pytest.raises(ValueError, match=r"windows of 9 frames, of which strides = \[3\] leave 3 tokens"):
        StridedTransformer(Config(strides=(3,)), shape_of(9))
    with pytest.raises(ValueError, match="multiple of heads"):
        Config(width=20)
    with pytest.raises(ValueError, match="attention_dropout is 1"):
        Config(attention_dropout=1.0)
    with pytest.raises(ValueError, match=r"strides \(3, 0\)"):
        Config(strides=(3, 0))
