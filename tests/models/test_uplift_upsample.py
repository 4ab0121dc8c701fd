"""Invariants of Uplift and Upsample."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from posegrid.models.blocks.attention import attend
from posegrid.models.blocks.strided import StridedBlock, strided_lengths
from posegrid.models.flip import flip, lift_flip_averaged
from posegrid.models.interface import Batch
from posegrid.models.uplift_upsample import Config, UpliftUpsample

SMALL = Config(width=16, spatial_width=8, spatial_depth=2, temporal_depth=3, heads=2, strides=(3, 3), paddings=(0, 0))
LONG = {"strides": (3, 10, 3), "paddings": (0, 0, 0)}


def _windows(mask: list[list[int]], seed: int = 0) -> Batch:
    """Random keypoints, 0 in the frames without a pose."""
    seen = torch.tensor(mask, dtype=torch.bool)
    keypoints = torch.randn(*seen.shape, 17, 2, generator=torch.Generator().manual_seed(seed))
    visible = seen[..., None].expand(-1, -1, 17)
    poses = torch.randn(*seen.shape, 17, 3, generator=torch.Generator().manual_seed(seed + 1))
    return Batch(keypoints=keypoints * visible[..., None], visible=visible, poses=poses)


SPARSE = [[0, 1, 0, 1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 1, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0, 1, 0, 0]]


def _lift(model: UpliftUpsample, batch: Batch) -> Tensor:
    return model.eval().lift(batch, torch.Generator())[:, 0]


@pytest.mark.parametrize(("tokens", "options", "count"), [(71, LONG, 10_404_902), (41, {}, 10_377_254)])
def test_parameter_counts(tokens, options, count, shape_of):
    with torch.device("meta"):
        model = UpliftUpsample(Config(**options), shape_of(tokens))

    def size(*names: str) -> int:
        return sum(p.numel() for name, p in model.named_parameters() if name.startswith(names))

    assert size("") == count
    assert size("spatial.embed", "spatial.table") == 96 + 544
    assert [size("spatial.blocks"), size("spatial.norm"), size("spatial.project")] == [34_176, 64, 209_280]
    assert [size("blocks"), size("upsampling"), size("table")] == [4_735_488, 384, tokens * 384]
    tables = sum(block.table.numel() for block in model.strided)
    assert tables == {71: 37_248, 41: 21_120}[tokens]
    assert size("strided") - tables == 5_321_088
    assert [size("sequence_head"), size("centre_head")] == [19_635, 19_635]


@pytest.mark.parametrize(
    ("tokens", "options", "counts"),
    [(71, LONG, {1: 1051, 2: 992, 4: 962}), (41, {}, {2: 561, 5: 541, 10: 534})],
)
def test_operations_follow_the_input_stride(tokens, options, counts, shape_of, monkeypatch):
    """Expected: counted by hand for the released network, both heads, 2 per multiply-add, in millions."""
    monkeypatch.setattr("posegrid.models.blocks.attention.LONG_SEQUENCE", 1000)  # the fused kernel is not counted
    model = UpliftUpsample(Config(**options), shape_of(tokens)).eval()
    for every, millions in counts.items():
        centre = (tokens - 1) // 2
        mask = [[int((k - centre) % every == 0) for k in range(tokens)]]
        batch = _windows(mask)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            found = model.tokens(batch)
            model.sequence(found)
            model.centre_pose(found)
        assert counter.get_total_flops() / 1e6 == pytest.approx(millions, rel=2e-3)


def test_lengths_of_the_strided_blocks():
    assert strided_lengths(71, (3, 10, 3), (0, 0, 0)) == [71, 23, 3, 1]
    assert strided_lengths(41, (4, 4, 3), (1, 0, 0)) == [41, 11, 3, 1]
    for tokens in range(3, 40):
        for stride in (1, 2, 3, 5):
            for padding in (0, 1):
                block = StridedBlock(tokens, 4, 2, 2.0, stride, padding)
                length = strided_lengths(tokens, (stride,), (padding,))[1]
                assert block(torch.zeros(1, tokens, 4)).shape == (1, length, 4)


@pytest.mark.parametrize(("stride", "padding"), [(3, 0), (4, 1), (2, 1), (1, 0)])
def test_a_strided_block_is_a_convolution_and_what_it_is_centred_on(stride, padding):
    torch.manual_seed(0)
    block = StridedBlock(11, 8, 2, 2.0, stride, padding)
    torch.nn.init.zeros_(block.table)
    torch.nn.init.zeros_(block.attention.project.weight)
    torch.nn.init.zeros_(block.attention.project.bias)
    tokens = torch.randn(2, 11, 8)
    hidden = F.relu(block.widen(F.layer_norm(tokens, (8,))))
    kernel = block.join.weight.unflatten(1, (3, 16)).transpose(1, 2)  # (D, hidden, 3)
    convolved = F.conv1d(hidden.transpose(1, 2), kernel, block.join.bias, stride, padding).transpose(1, 2)
    centres = range(1 - padding, 11 - (1 - padding), stride)
    torch.testing.assert_close(block(tokens), tokens[:, list(centres)] + convolved, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_what_is_hidden_cannot_leak(training, shape_of, shaken):
    model = shaken(UpliftUpsample(replace(SMALL, drop_path=0.0), shape_of(9))).train(training)
    batch = _windows(SPARSE)
    changed = torch.where(batch.visible[..., None], batch.keypoints, torch.full((), 1e3))
    for face in (model.tokens, lambda batch: model.loss(batch, torch.Generator())):
        assert face(replace(batch, keypoints=changed)).equal(face(batch))
    moved = replace(batch, keypoints=batch.keypoints + 0.1 * batch.visible[..., None])
    assert not model.tokens(moved).allclose(model.tokens(batch), atol=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_keys_that_may_not_be_read_weigh_nothing(fused, monkeypatch):
    monkeypatch.setattr("posegrid.models.blocks.attention.LONG_SEQUENCE", 1 if fused else 1000)
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 4, 9, 8) * 3
    read = torch.tensor([[1, 0, 0, 1, 0, 0, 1, 0, 0], [1] * 9, [0] * 9], dtype=torch.bool)
    weights = attend(query, key, torch.eye(9).expand(3, 4, -1, -1), read=read)
    assert (weights[0][..., ~read[0]] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 9), rtol=0, atol=1e-5)
    logits = (query[0] @ key[0].transpose(-1, -2) / 8**0.5).masked_fill(~read[0], -torch.inf)
    torch.testing.assert_close(weights[0], logits.softmax(-1), rtol=1e-4, atol=1e-6)
    assert weights[1].equal(attend(query, key, torch.eye(9).expand(3, 4, -1, -1))[1])  # all ones change nothing
    torch.testing.assert_close(weights[2], torch.full((4, 9, 9), 1 / 9))  # nothing to read: all alike, no NaN


def test_deferring_changes_nothing_where_all_frames_have_a_pose(shape_of, shaken):
    deferred = shaken(UpliftUpsample(SMALL, shape_of(9)))
    plain = UpliftUpsample(replace(SMALL, defer_attention=0), shape_of(9))
    plain.load_state_dict(deferred.state_dict())
    dense, sparse = _windows([[1] * 9] * 2), _windows(SPARSE)
    assert _lift(deferred, dense).equal(_lift(plain, dense))
    assert not _lift(deferred, sparse).allclose(_lift(plain, sparse), atol=1e-4)


def test_deferred_blocks_read_frames_with_a_pose_only(shape_of, shaken):
    """The learned token is seen by the others from the second block on, or never if all blocks defer."""
    batch = _windows(SPARSE)
    seen = batch.visible.any(-1)
    for blocks in (1, 3):
        model = shaken(UpliftUpsample(replace(SMALL, defer_attention=blocks), shape_of(9))).eval()

        def tokens_of(model: UpliftUpsample) -> list[Tensor]:
            after = []
            hooks = [b.register_forward_hook(lambda _m, _i, out: after.append(out[:, :, 0])) for b in model.blocks]
            model.tokens(batch)
            for hook in hooks:
                hook.remove()
            return after

        with torch.no_grad():
            before = tokens_of(model)
            model.upsampling += 1
            same = [(a[seen] == b[seen]).all().item() for a, b in zip(before, tokens_of(model), strict=True)]
        assert same == [index < blocks for index in range(3)]


def test_a_window_without_any_pose_gives_numbers(shape_of, shaken):
    model = shaken(UpliftUpsample(SMALL, shape_of(9)))
    batch = _windows([[0] * 9, SPARSE[0]])
    assert _lift(model, batch).isfinite().all()
    alone = _windows([[0] * 9])
    torch.testing.assert_close(_lift(model, alone), _lift(model, batch)[:1], rtol=1e-4, atol=1e-5)
    loss = model.train().loss(alone, torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_half_the_digits_give_nearly_the_same(training, shape_of, shaken):
    model = shaken(UpliftUpsample(replace(SMALL, drop_path=0.0), shape_of(9))).train(training)
    batch = _windows([*SPARSE, [0] * 9])
    exact = model.loss(batch, torch.Generator())
    with torch.autocast("cpu", torch.bfloat16):
        assert model.loss(batch, torch.Generator()).item() == pytest.approx(exact.item(), rel=0.05)


def test_without_the_table_learned_tokens_stay_alike(shape_of, shaken):
    model = shaken(UpliftUpsample(SMALL, shape_of(9))).eval()
    batch = _windows(SPARSE)
    hidden = ~batch.visible.any(-1)

    def spreads() -> list[float]:
        found = []
        hooks = [b.register_forward_hook(lambda _m, _i, out: found.append(out[:, :, 0])) for b in model.blocks]
        with torch.no_grad():
            model.tokens(batch)
        for hook in hooks:
            hook.remove()
        return [
            max((row[mask] - row[mask][0]).abs().max().item() for row, mask in zip(out, hidden, strict=True))
            for out in found
        ]

    assert min(spreads()) > 1e-2
    torch.nn.init.zeros_(model.table)
    assert max(spreads()) < 1e-6


def test_flip_averaging_is_equivariant(shape_of, shaken):
    pose = shape_of(9)
    model, batch, generator = shaken(UpliftUpsample(SMALL, pose)).eval(), _windows(SPARSE), torch.Generator()
    assert flip(flip(batch.poses, pose), pose).equal(batch.poses)
    averaged = lift_flip_averaged(model, batch, generator, pose)
    mirrored = lift_flip_averaged(model, replace(batch, keypoints=flip(batch.keypoints, pose)), generator, pose)
    torch.testing.assert_close(mirrored, flip(averaged, pose), rtol=0, atol=1e-6)


def test_loss_is_half_centre_and_half_sequence(shape_of, shaken):
    model, batch = shaken(UpliftUpsample(SMALL, shape_of(9))).eval(), _windows(SPARSE)
    with torch.no_grad():
        sequence = model.sequence(model.tokens(batch))
    error = (sequence - batch.poses).square().sum(-1).sqrt().mean()
    centre = (_lift(model, batch)[:, 0] - batch.poses[:, 4]).square().sum(-1).sqrt().mean()
    torch.testing.assert_close(model.loss(batch, torch.Generator()), (error + centre) / 2)


def test_the_sequence_may_be_lifted_instead(shape_of, shaken):
    centre = shaken(UpliftUpsample(SMALL, shape_of(9))).eval()
    whole = UpliftUpsample(replace(SMALL, output="sequence"), shape_of(9)).eval()
    whole.load_state_dict(centre.state_dict())
    batch = _windows(SPARSE)
    assert whole.output_frame is None
    assert centre.output_frame == 4
    with torch.no_grad():
        assert _lift(whole, batch).equal(centre.sequence(centre.tokens(batch)))


@pytest.mark.parametrize(
    "changes", [{"spatial_depth": 0}, {"temporal_depth": 0, "defer_attention": 0}, {"strided": False}]
)
def test_components_can_be_left_out(changes, shape_of, shaken):
    model, batch = shaken(UpliftUpsample(replace(SMALL, **changes), shape_of(9))), _windows(SPARSE)
    model.loss(batch, torch.Generator()).backward()
    assert all((p.grad != 0).any() for p in model.parameters())
    lifted = _lift(model, batch)
    assert lifted.shape == (3, 1, 17, 3)
    if not model.config.strided:
        with torch.no_grad():
            torch.testing.assert_close(lifted[:, 0], model.sequence(model.tokens(batch))[:, 4])


def test_weights_start_as_keras_starts_them(shape_of):
    torch.manual_seed(0)
    model = UpliftUpsample(Config(), shape_of(41))

    def bound(layer: torch.nn.Linear) -> float:
        assert not layer.bias.any()
        return layer.weight.abs().max().item()

    block, strided = model.blocks[0], model.strided[0]
    for layer, fans in (
        (block.attention.qkv, 384 + 384),
        (block.mlp[0], 384 + 768),
        (strided.attention.qkv, 384 + 384),
        (strided.join, 3 * 768 + 3 * 384),
        (model.spatial.project, 544 + 384),
        (model.sequence_head, 384 + 51),
    ):
        assert bound(layer) == pytest.approx((6 / fans) ** 0.5, rel=2e-3)
    for table in (model.table, model.strided[1].table, model.spatial.table, model.upsampling):
        assert table.abs().max() <= 0.04
        assert table.std().item() == pytest.approx(0.0176, rel=0.15)  # 0.02, cut at two deviations


def test_torch_adamw_makes_the_published_update():
    """TensorFlow-Addons: p <- p - decay * p - lr * adam, where lr and decay fall together, decay = lr / 10."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(50, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=4e-5, weight_decay=0.1)
    expected, first, second = weight.detach().clone(), torch.zeros(50), torch.zeros(50)
    for step in range(1, 21):
        rate, decay = 4e-5 * 0.99 ** (step // 5), 4e-6 * 0.99 ** (step // 5)
        gradient = torch.randn(50, dtype=torch.float64)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        adam = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        expected = expected - decay * expected - rate * adam
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = gradient
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-10, atol=1e-12)


def test_settings_that_cannot_be(shape_of):
    with pytest.raises(
        ValueError, match=r"windows of 27 tokens \(data.frames\), .* 27 -> 7 -> 2 -> 0; the last length"
    ):
        UpliftUpsample(Config(heads=8), shape_of(27))
    for changes, message in (
        ({"width": 20}, "width 20 cannot be shared by 8 heads"),
        ({"spatial_width": 20}, r"\(spatial_width\): width 20"),
        ({"defer_attention": 5}, "defer_attention is 5, temporal_depth 4"),
        ({"temporal_depth": 0}, "defer_attention is 1, temporal_depth 0"),
        ({"paddings": (0, 0)}, r"paddings \[0, 0\]; each stride"),
        ({"paddings": (2, 0, 0)}, r"a padding of 0 or 1"),
        ({"output": "all"}, 'output is "all"'),
        ({"centre_weight": 1.5}, "centre_weight 1.5"),
        ({"drop_path": 1.0}, "drop_path is 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Config(**changes)
