"""Invariants of PoseFormer."""

import pytest
import torch
from torch import nn

from posegrid.models.interface import Batch
from posegrid.models.poseformer import Config, PoseFormer

SMALL = Config(joint_width=8, depth=2, heads=2)


def _lift(model: PoseFormer, keypoints: torch.Tensor) -> torch.Tensor:
    batch = Batch(keypoints=keypoints, visible=torch.ones(keypoints.shape[:-1], dtype=torch.bool))
    return model.eval().lift(batch, torch.Generator())[:, 0]


@pytest.mark.parametrize(("frames", "count"), [(9, 9_563_645), (27, 9_573_455), (81, 9_602_885)])
def test_parameter_counts(frames, count, shape_of):
    with torch.device("meta"):
        model = PoseFormer(Config(), shape_of(frames))
    assert sum(p.numel() for p in model.parameters()) == count
    assert model.head.in_features == 544
    assert count - 9_563_645 == (frames - 9) * (544 + 1)  # a row of the table and a weight of the mean per frame


def test_tables_start_at_zero_and_epsilons(pose):
    model = PoseFormer(SMALL, pose)
    assert model.joint_position.abs().max() == 0
    assert model.frame_position.abs().max() == 0
    assert [m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)].count(1e-5) == 1
    assert model.head_norm.eps == 1e-5


def test_centre_of_the_window(shape_of):
    assert [PoseFormer(SMALL, shape_of(frames)).output_frame for frames in (1, 4, 5, 81)] == [0, 1, 2, 40]


def test_frames_are_told_apart_by_table_and_mean_only(pose, shaken):
    torch.manual_seed(0)
    model = shaken(PoseFormer(SMALL, pose))
    keypoints, frames = torch.randn(2, 5, 17, 2), torch.tensor([3, 0, 4, 1, 2])
    assert not _lift(model, keypoints[:, frames]).allclose(_lift(model, keypoints), atol=1e-3)
    nn.init.zeros_(model.frame_position)
    assert not _lift(model, keypoints[:, frames]).allclose(_lift(model, keypoints), atol=1e-3)
    nn.init.constant_(model.frame_mean.weight, 0.2)
    torch.testing.assert_close(_lift(model, keypoints[:, frames]), _lift(model, keypoints), rtol=1e-5, atol=1e-5)


def test_every_frame_counts(pose, shaken):
    model = shaken(PoseFormer(SMALL, pose))
    keypoints = torch.randn(1, 5, 17, 2)
    for frame in range(5):
        changed = keypoints.clone()
        changed[:, frame] += 1
        assert not _lift(model, changed).allclose(_lift(model, keypoints), atol=1e-4)


def test_window_length_is_fixed(pose):
    with pytest.raises(ValueError, match="built for windows of 5 frames"):
        PoseFormer(SMALL, pose).centre(torch.zeros(1, 6, 17, 2))


def test_drop_path_rates_and_sequences(pose, batch_of):
    model = PoseFormer(Config(joint_width=8, depth=3, heads=2, drop_path=0.4), pose).train()
    for blocks in (model.spatial, model.temporal):
        assert [block.drop_path.rate for block in blocks] == pytest.approx([0.0, 0.2, 0.4])
    seen = {}
    for name in ("spatial", "temporal"):
        drop = getattr(model, name)[2].drop_path
        drop.register_forward_hook(lambda _m, inputs, out, name=name: seen.update({name: out / inputs[0]}))
    model.loss(batch_of(8, pose), torch.Generator().manual_seed(0))
    # A sequence is the joints of one frame, or all frames: (8, 5, 17, 8) and (8, 5, 1, 136).
    for name, sequence in (("spatial", (2, 3)), ("temporal", (1, 2, 3))):
        assert {round(x, 3) for x in seen[name].unique().tolist()} == {0.0, 1.667}
        assert seen[name].std(dim=sequence).max() < 1e-5


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="multiple of heads"):
        Config(joint_width=30)
    with pytest.raises(ValueError, match="drop_path is 1"):
        Config(drop_path=1)
    with pytest.raises(ValueError, match="depth is 0"):
        Config(depth=0)
