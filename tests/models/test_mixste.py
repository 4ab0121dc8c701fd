"""Invariants of MixSTE."""

import numpy as np
import pytest
import torch
from torch import nn

from posegrid.models import losses
from posegrid.models.flip import flip, lift_flip_averaged
from posegrid.models.interface import Batch, PoseShape
from posegrid.models.mixste import Config, MixSTE

SMALL = Config(width=16, depth=2, heads=4)


def _lift(model: MixSTE, keypoints: torch.Tensor) -> torch.Tensor:
    batch = Batch(keypoints=keypoints, visible=torch.ones(keypoints.shape[:-1], dtype=torch.bool))
    return model.eval().lift(batch, torch.Generator())[:, 0]


@pytest.mark.parametrize(
    ("width", "frames", "count"),
    [
        (512, 27, 33_673_219),
        (512, 81, 33_700_867),
        (512, 243, 33_783_811),
        (64, 27, 539_139),
        (64, 81, 542_595),
        (64, 243, 552_963),
    ],
)
def test_parameter_counts(width, frames, count, shape_of):
    with torch.device("meta"):
        model = MixSTE(Config(width=width), shape_of(frames))
    assert sum(p.numel() for p in model.parameters()) == count
    formula = 3 * width + (17 + frames) * width + 16 * (8 * width**2 + 11 * width) + 9 * width + 3
    assert formula == count


def test_two_norms_are_shared_by_all_depths(shape_of):
    model = MixSTE(Config(width=16, depth=5, heads=4), shape_of(5))
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 5 * 2 * 2 + 2 + 1
    assert [m.eps for m in norms].count(1e-5) == 1
    assert model.head_norm.eps == 1e-5


def test_initial_network_is_equivariant_to_joint_and_frame_order(pose):
    torch.manual_seed(0)
    model = MixSTE(SMALL, pose)
    keypoints = torch.randn(2, 5, 17, 2)
    lifted = _lift(model, keypoints)
    joints, frames = torch.randperm(17), torch.randperm(5)
    torch.testing.assert_close(_lift(model, keypoints[:, :, joints]), lifted[:, :, joints], rtol=0, atol=2e-6)
    torch.testing.assert_close(_lift(model, keypoints[:, frames]), lifted[:, frames], rtol=0, atol=2e-6)


def test_only_the_frame_table_knows_time(pose, shaken):
    model = shaken(MixSTE(SMALL, pose))
    keypoints, frames = torch.randn(2, 5, 17, 2), torch.tensor([3, 0, 4, 1, 2])
    lifted = _lift(model, keypoints)
    assert not _lift(model, keypoints[:, frames]).allclose(lifted[:, frames], atol=1e-3)
    nn.init.zeros_(model.frame_position)
    lifted = _lift(model, keypoints)
    torch.testing.assert_close(_lift(model, keypoints[:, frames]), lifted[:, frames], rtol=1e-5, atol=1e-5)
    still = _lift(model, keypoints[:, :1].expand(-1, 5, -1, -1))
    torch.testing.assert_close(still, still[:, :1].expand_as(still), rtol=1e-5, atol=1e-5)


def test_window_length_is_fixed(pose):
    with pytest.raises(ValueError, match="built for windows of 5 frames"):
        MixSTE(SMALL, pose).features(torch.zeros(1, 6, 17, 2))


def test_drop_path_rates_and_sequences(pose, batch_of):
    model = MixSTE(Config(width=16, depth=3, heads=4, drop_path=0.4), pose).train()
    assert [block.drop_path.rate for block in model.temporal] == pytest.approx([0.0, 0.2, 0.4])
    seen = {}
    for name in ("spatial", "temporal"):
        drop = getattr(model, name)[2].drop_path
        drop.register_forward_hook(lambda _m, inputs, out, name=name: seen.update({name: out / inputs[0]}))
    batch = batch_of(4, pose)
    model.loss(batch, torch.Generator().manual_seed(0))
    for name, sequence in (("spatial", (2, 3)), ("temporal", (1, 3))):
        ratio = seen[name]
        assert {round(x, 3) for x in ratio.unique().tolist()} <= {0.0, 1.667}
        assert ratio.std(dim=sequence).max() < 1e-5
        assert ratio.std() > 0
    assert _lift(model, batch.keypoints).equal(_lift(model, batch.keypoints))


def test_loss_identities(pose, batch_of):
    model = MixSTE(Config(width=16, depth=1, heads=4, loss="weighted"), pose)
    target = batch_of(3, pose).poses
    moving = losses.smoothness(target, model.joint_weights)
    assert moving > 0
    torch.testing.assert_close(model.weighted_loss(target, target), 0.5 * moving)
    offset = model.weighted_loss(target + 0.1, target) - model.weighted_loss(target, target)
    expected = model.joint_weights.mean() * 0.1 * 3**0.5
    torch.testing.assert_close(offset, expected, rtol=1e-4, atol=1e-6)
    still = target[:, :1].expand_as(target)
    assert model.weighted_loss(still, still) == 0


def test_loss_terms_by_hand():
    """Two frames of two joints: errors 0.5, 0, 0 and 0.1 m; the joints move by 0.1 and 0.2 m, and should rest."""
    target = torch.tensor([[[[0.0, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 1]]]])
    error = torch.tensor([[[[0.3, 0.4, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0.1]]]])
    weights = torch.tensor([1.0, 4.0])
    assert losses.weighted_mpjpe(target + error, target, weights).item() == pytest.approx((0.5 + 4 * 0.1) / 4)
    assert losses.velocity(target + error, target).item() == pytest.approx((0.5 + 0.1) / 2)
    moving = torch.tensor([[[[0.0, 0, 0], [0, 0, 0]], [[0.1, 0, 0], [0, 0.2, 0]]]])
    assert losses.smoothness(moving, weights).item() == pytest.approx((1 * 0.1**2 + 4 * 0.2**2) / 6)


def test_weighted_loss_is_the_published_sum(pose, batch_of):
    legs, arms = {2, 3, 5, 6}, {12, 13, 15, 16}
    middle = {10, 11, 14}  # the head's top and the shoulders
    weight = np.array([2.5 if j in legs else 4.0 if j in arms else 1.5 if j in middle else 1.0 for j in range(17)])
    predicted, target = batch_of(2, pose, 1).poses, batch_of(2, pose, 2).poses
    a, b = predicted.double().numpy(), target.double().numpy()
    distance = weight * np.sqrt(((a - b) ** 2).sum(-1))
    motion, wanted = a[:, 1:] - a[:, :-1], b[:, 1:] - b[:, :-1]
    smooth = weight[:, None] * motion**2
    velocity = np.sqrt(((motion - wanted) ** 2).sum(-1))
    expected = distance.mean() + 0.5 * smooth.mean() + 2.0 * velocity.mean()
    model = MixSTE(Config(width=16, depth=1, heads=4, loss="weighted"), pose)
    assert model.weighted_loss(predicted, target).item() == pytest.approx(expected, rel=1e-5)


def test_flip_averaging_is_exactly_flip_equivariant(pose, batch_of, shaken):
    model = shaken(MixSTE(SMALL, pose)).eval()
    batch = batch_of(2, pose)
    mirrored = Batch(keypoints=flip(batch.keypoints, pose), visible=batch.visible)
    generator = torch.Generator()
    assert flip(flip(batch.keypoints, pose), pose).equal(batch.keypoints)
    lifted = lift_flip_averaged(model, batch, generator, pose)
    assert lift_flip_averaged(model, mirrored, generator, pose).equal(flip(lifted, pose))
    assert not lifted.equal(model.lift(batch, generator))


def test_square_gradient_squares_the_scale():
    values = torch.tensor([0.3, -2.0, 1.0], requires_grad=True)

    def gradient(scale: float) -> torch.Tensor:
        loss = losses.with_square_gradient(scale * values.abs().mean())
        assert loss.item() == pytest.approx(scale * 1.1)
        return torch.autograd.grad(loss, values)[0]

    torch.testing.assert_close(gradient(2.0), 4 * gradient(1.0))
    torch.testing.assert_close(gradient(1.0), 1.1 * values.detach().sign() / 3)


def test_settings_that_cannot_be(pose):
    with pytest.raises(ValueError, match="multiple of heads"):
        Config(width=30, heads=8)
    with pytest.raises(ValueError, match="loss 'l1' is unknown"):
        Config(loss="l1")
    with pytest.raises(ValueError, match="probability"):
        Config(drop_path=1.0)
    chain = PoseShape(frames=5, joints=3, parents=(-1, 0, 1), left=(), right=())
    with pytest.raises(ValueError, match='Use loss = "mse"'):
        MixSTE(Config(loss="weighted"), chain)
