"""Invariants of STCFormer."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from posegrid.models.interface import Batch, PoseShape
from posegrid.models.joint_order import body_parts
from posegrid.models.stcformer import Config, STCFormer

SMALL = Config(width=16, depth=2, heads=2)


def _lift(model: STCFormer, keypoints: torch.Tensor) -> torch.Tensor:
    batch = Batch(keypoints=keypoints, visible=torch.ones(keypoints.shape[:-1], dtype=torch.bool))
    return model.eval().lift(batch, torch.Generator())[:, 0]


def _local_off(model: STCFormer) -> STCFormer:
    """Without the convolutions and the part table, the only things that know where a token is."""
    for block in model.blocks:
        attention = block.attention
        for weight in (*attention.local_joints.parameters(), *attention.local_frames.parameters()):
            nn.init.zeros_(weight)
        nn.init.zeros_(attention.part.weight)
    return model


@pytest.mark.parametrize("frames", [27, 81, 243])
@pytest.mark.parametrize(
    ("width", "depth", "count"),
    [(256, 6, 4_748_000), (512, 6, 18_933_184), (256, 4, 3_165_760), (256, 8, 6_330_240)],
)
def test_parameter_counts(width, depth, count, frames, shape_of):
    with torch.device("meta"):
        model = STCFormer(Config(width=width, depth=depth), shape_of(frames))
    assert sum(p.numel() for p in model.parameters()) == count


def test_parameters_of_the_parts(shape_of):
    with torch.device("meta"):
        model = STCFormer(Config(), shape_of(27))

    def size(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    block = model.blocks[0]
    assert [size(block), size(block.attention), size(block.norm)] == [791_120, 266_320, 512]
    assert size(block.widen) + size(block.narrow) == 524_288
    assert [size(model.embed), size(model.head)] == [512, 768]
    parts = (block.attention.qkv, block.attention.project, block.attention.part, block.attention.local_joints)
    assert [size(part) for part in parts] == [197_376, 65_792, 80, 1_280]


def test_operations_of_the_linear_layers(shape_of):
    with torch.device("meta"):
        model = STCFormer(Config(), shape_of(27)).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.features(torch.empty(1, 27, 17, 2))
    counts = counter.get_flop_counts()["Global"]
    linear = sum(count for name, count in counts.items() if str(name) in ("aten.mm", "aten.addmm"))
    assert linear / 2 == pytest.approx(2.17e9, rel=3e-3)  # published as multiply-adds, three digits


def test_one_set_of_weights_serves_every_length(shape_of, shaken):
    state = shaken(STCFormer(SMALL, shape_of(9))).state_dict()
    for frames in (1, 27, 50):
        model = STCFormer(SMALL, shape_of(frames))
        model.load_state_dict(state)
        assert _lift(model, torch.randn(2, frames, 17, 2)).shape == (2, frames, 17, 3)


def test_without_local_terms_it_knows_neither_joints_nor_frames(pose, shaken):
    torch.manual_seed(0)
    model = shaken(STCFormer(SMALL, pose))
    keypoints, joints, frames = torch.randn(2, 5, 17, 2), torch.randperm(17), torch.tensor([3, 0, 4, 1, 2])
    lifted = _lift(model, keypoints)
    assert not _lift(model, keypoints[:, :, joints]).allclose(lifted[:, :, joints], atol=1e-3)
    assert not _lift(model, keypoints[:, frames]).allclose(lifted[:, frames], atol=1e-3)
    lifted = _lift(_local_off(model), keypoints)
    torch.testing.assert_close(_lift(model, keypoints[:, :, joints]), lifted[:, :, joints], rtol=0, atol=2e-6)
    torch.testing.assert_close(_lift(model, keypoints[:, frames]), lifted[:, frames], rtol=0, atol=2e-6)


def test_time_may_be_reversed_if_and_only_if_the_kernels_are_symmetric(pose, shaken):
    torch.manual_seed(0)
    model, keypoints = shaken(STCFormer(SMALL, pose)), torch.randn(2, 5, 17, 2)

    def reversal_error() -> float:
        return (_lift(model, keypoints.flip(1)) - _lift(model, keypoints).flip(1)).abs().max().item()

    assert reversal_error() > 1e-3
    with torch.no_grad():
        for block in model.blocks:
            for layer in (block.attention.local_joints, block.attention.local_frames):
                layer.weight.copy_((layer.weight + layer.weight.flip(2)) / 2)
    assert reversal_error() < 2e-6


def test_a_still_input_is_marked_at_the_borders_only(shape_of, shaken):
    model = shaken(STCFormer(SMALL, shape_of(9)))  # two blocks: two frames at either end
    lifted = _lift(model, torch.randn(2, 1, 17, 2).expand(-1, 9, -1, -1))
    torch.testing.assert_close(lifted[:, 2:7], lifted[:, 2:3].expand(-1, 5, -1, -1), rtol=0, atol=2e-6)
    assert (lifted[:, 1] - lifted[:, 2]).abs().max() > 1e-4
    assert (lifted[:, 7] - lifted[:, 6]).abs().max() > 1e-4


def test_the_half_over_joints_reads_neighbouring_frames_through_the_convolution_only(pose, shaken):
    model = shaken(STCFormer(SMALL, pose)).eval()
    attention = model.blocks[0].attention
    seen = {}
    attention.project.register_forward_pre_hook(lambda _m, inputs: seen.update(mixed=inputs[0]))

    def spatial_half(tokens: torch.Tensor) -> torch.Tensor:
        attention(tokens)
        return seen["mixed"].unflatten(-1, (2, 2, 4))[..., 0, :].detach()

    tokens = torch.randn(1, 5, 17, 16)
    changed = tokens.clone()
    changed[:, 1] += torch.randn(17, 16)
    differs = (spatial_half(changed) != spatial_half(tokens)).flatten(2).any(-1)[0]
    assert differs.tolist() == [True, True, True, False, False]
    nn.init.zeros_(attention.local_joints.weight)
    differs = (spatial_half(changed) != spatial_half(tokens)).flatten(2).any(-1)[0]
    assert differs.tolist() == [False, True, False, False, False]


def test_training_noise_comes_from_dropout_and_the_part_term(pose, batch_of, shaken):
    batch = batch_of(2, pose)

    def losses(config: Config) -> list[float]:
        model = shaken(STCFormer(config, pose)).train()
        return [model.loss(batch, torch.Generator().manual_seed(seed)).item() for seed in range(8)]

    assert len(set(losses(SMALL))) == 8
    # The part term is kept or dropped for the whole step: two values, and three or more are impossible in one block.
    parts_only = Config(width=16, depth=1, heads=2, dropout=0.0, part_spatial=1.0)
    assert len(set(losses(parts_only))) == 2
    silent = Config(width=16, depth=2, heads=2, dropout=0.0, part_drop=0.0)
    assert len(set(losses(silent))) == 1


def test_scoring_a_zeroed_root_costs_16_of_17_joints(batch_of, pose):
    poses = batch_of(3, pose).poses
    predicted = poses + torch.randn(poses.shape, generator=torch.Generator().manual_seed(0)) * 0.01
    predicted[..., 0, :] = 0
    distance = (predicted - poses).norm(dim=-1)
    assert distance[..., 0].max() == 0
    torch.testing.assert_close(distance.mean(), distance[..., 1:].mean() * 16 / 17)


def test_parts_of_released_skeletons_and_of_others(pose):
    assert body_parts(pose) == (0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 3, 3, 3, 4, 4, 4)
    chain = PoseShape(frames=1, joints=4, parents=(-1, 0, 1, 2), left=(), right=())
    assert body_parts(chain) == (0, 0, 0, 0)
    spider = PoseShape(frames=1, joints=5, parents=(-1, 0, 0, 1, 2), left=(2, 4), right=(1, 3))
    assert body_parts(spider) == (0, 1, 2, 1, 2)


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="multiple of heads"):
        Config(width=24, heads=8)
    with pytest.raises(ValueError, match="release 'h36m' is unknown"):
        Config(release="h36m")
    with pytest.raises(ValueError, match="dropout is 1"):
        Config(dropout=1)
    with pytest.raises(ValueError, match="depth is 0"):
        Config(depth=0)
