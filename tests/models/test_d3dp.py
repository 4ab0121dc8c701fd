"""What is particular to D3DP, without the released numbers."""

from dataclasses import replace

import pytest
import torch

from posegrid.models import losses
from posegrid.models.blocks.draws import Draws
from posegrid.models.d3dp import D3DP, Config
from posegrid.models.diffusion.chain import Chain

SMALL = {"width": 16, "depth": 1, "heads": 2, "drop_path": 0.0}


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_loss_is_the_mpjpe_at_the_drawn_steps(pose, batch_of, shaken):
    batch = batch_of(6, pose)
    model = shaken(D3DP(Config(**SMALL, steps=50), pose)).eval()
    draws = Draws(batch, _seeded())
    step, noise = draws.integers(50), draws.normal(5, 17, 3)
    kept = model.diffusion.schedule.alpha_bar[step].float()[:, None, None, None]
    noisy = (kept.sqrt() * batch.poses + (1 - kept).sqrt() * noise).clamp(-1.1, 1.1)
    predicted = model.predict_clean(noisy, step, batch.keypoints)
    expected = (predicted - batch.poses).square().sum(-1).sqrt().mean()
    torch.testing.assert_close(model.loss(batch, _seeded()), expected)


def test_square_gradient_scales_the_gradient_by_the_loss(pose, batch_of, shaken):
    batch = batch_of(3, pose)
    found = {}
    for squared in (False, True):
        torch.manual_seed(0)
        model = shaken(D3DP(Config(**SMALL, square_gradient=squared), pose)).eval()
        loss = model.loss(batch, _seeded())
        loss.backward()
        found[squared] = loss.item(), model.denoiser.head.weight.grad
    assert found[True][0] == found[False][0]
    torch.testing.assert_close(found[True][1], found[False][0] * found[False][1])


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_network_that_knows_the_poses_returns_them_for_any_chain(scale, pose, batch_of, monkeypatch):
    batch = batch_of(2, pose)
    batch = replace(batch, poses=0.7 * batch.poses)
    model = D3DP(Config(**SMALL, scale=scale, flip=False), pose).eval()
    poses = batch.poses.repeat_interleave(3, dim=0)
    assert poses.abs().max() < 1.1
    seen = []

    def knows(noisy, step, keypoints, draws=None):
        seen.append(noisy.abs().max().item())
        return poses

    monkeypatch.setattr(model, "predict_clean", knows)
    for chain in (Chain(sampler="ddim", steps=7, eta=1.0), Chain(sampler="dpm_solver", steps=4), Chain(steps=12)):
        model.chain = chain
        lifted = model.lift(batch, _seeded(), 3)
        torch.testing.assert_close(lifted, batch.poses[:, None].expand(-1, 3, -1, -1, -1), rtol=0, atol=1e-4)
    assert max(seen) == pytest.approx(1.1)
    assert losses.mpjpe(lifted[:, 0], batch.poses) < 1e-4


def test_root_is_zero_and_hypotheses_differ(pose, batch_of, shaken):
    model = shaken(D3DP(Config(**SMALL), pose)).eval()
    model.chain = Chain(sampler="ddim", steps=3, eta=1.0)
    lifted = model.lift(batch_of(2, pose), _seeded(), 4)
    assert not lifted[:, :, :, 0].any()
    assert lifted[:, :, :, 1:].std(dim=1).min() > 0
    with pytest.raises(ValueError, match="at least 1"):
        model.lift(batch_of(2, pose), _seeded(), 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 15, "heads": 3}, "even number"),
        ({"width": 16, "heads": 3}, "cannot be shared"),
        ({"steps": 0}, "steps of at least 1"),
        ({"beta_cap": 1.0}, "0 < beta_cap < 1"),
        ({"scale": 0.0}, "scale and bound above 0"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**wrong)
