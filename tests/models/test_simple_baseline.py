"""Invariants of SimpleBaseline, of max-norm and of the statistics it gathers."""

import pytest
import torch
from torch import nn

from posegrid.models.blocks.standardisation import Standardisation
from posegrid.models.interface import Batch, PoseShape
from posegrid.models.simple_baseline import Config, MaxNormLinear, SimpleBaseline

SMALL = Config(width=16, blocks=1)


def _lift(model: SimpleBaseline, keypoints: torch.Tensor) -> torch.Tensor:
    batch = Batch(keypoints=keypoints, visible=torch.ones(keypoints.shape[:-1], dtype=torch.bool))
    return model.eval().lift(batch, torch.Generator())[:, 0]


@pytest.mark.parametrize(
    ("options", "count"), [({}, 4_291_632), ({"reads": "all", "root": "predicted"}, 4_296_755)], ids=["16", "17"]
)
def test_parameter_counts(options, count, shape_of):
    with torch.device("meta"):
        model = SimpleBaseline(Config(**options), shape_of(1))
    assert sum(p.numel() for p in model.parameters()) == count


def test_neck_is_not_read_and_the_root_is_zero(pose, batch_of, shaken):
    model = shaken(SimpleBaseline(SMALL, pose))
    keypoints = batch_of(3, pose).keypoints
    lifted = _lift(model, keypoints)
    assert lifted[..., 0, :].abs().max() == 0
    assert (lifted[..., 1:, :].abs().amax((0, 1, 3)) > 0).all()
    for joint in range(17):
        changed = keypoints.clone()
        changed[:, :, joint] += 1
        assert _lift(model, changed).equal(lifted) == (joint == 9)


def test_a_frame_depends_on_itself_alone(pose, batch_of, shaken):
    model = shaken(SimpleBaseline(SMALL, pose))
    keypoints = batch_of(3, pose).keypoints
    changed = keypoints.clone()
    changed[:, 2] += 1
    differs = (_lift(model, changed) - _lift(model, keypoints)).abs().amax((0, 2, 3)) > 1e-6
    assert differs.tolist() == [False, False, True, False, False]


def test_max_norm_limits_the_frobenius_norm_of_every_weight_matrix():
    torch.manual_seed(0)
    layer, values = MaxNormLinear(6, 4, limited=True), torch.randn(5, 6)
    with torch.no_grad():
        layer.weight.mul_(10 / layer.weight.square().sum().sqrt())
        expected = values @ (layer.weight / 10).T + layer.bias
        torch.testing.assert_close(layer(values), expected)
        layer.weight.mul_(0.05)  # norm 0.5: below the limit nothing changes
        torch.testing.assert_close(layer(values), values @ layer.weight.T + layer.bias)
    free = MaxNormLinear(6, 4, limited=False)
    torch.testing.assert_close(free(values), values @ free.weight.T + free.bias)


def test_every_weight_matrix_is_limited_unless_told_otherwise(pose, batch_of):
    keypoints = batch_of(2, pose).keypoints
    for limited in (True, False):
        model = SimpleBaseline(Config(width=16, blocks=1, max_norm=limited), pose)
        before = _lift(model, keypoints)
        matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
        assert len(matrices) == 4
        for matrix in matrices:
            with torch.no_grad():
                assert matrix.square().sum() > 1
                matrix.mul_(2)
            assert _lift(model, keypoints).allclose(before, rtol=1e-4, atol=1e-6) == limited
            with torch.no_grad():
                matrix.mul_(0.5)


def test_initial_weights_are_truncated_normals():
    torch.manual_seed(0)
    layer = MaxNormLinear(1024, 1024, limited=True)
    unit = (2 / 1024) ** 0.5
    assert layer.weight.abs().max() <= 2 * unit
    # A normal distribution cut at two deviations has the deviation 0.8796.
    assert layer.weight.std().item() == pytest.approx(0.8796 * unit, rel=0.005)
    assert layer.bias.std().item() == pytest.approx(0.8796 * unit, rel=0.1)


def test_statistics_are_those_of_everything_seen():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(100, 3, 4, generator=generator) * torch.tensor([0.1, 1.0, 5.0, 0.0]) + 20
    scores = Standardisation(4)
    for part in values.split([1, 9, 40, 50]):
        scores.observe(part)
    flat = values.flatten(0, 1).double()
    torch.testing.assert_close(scores.mean, flat.mean(0).float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.variance, flat.var(0, correction=0).float(), rtol=1e-4, atol=1e-6)
    assert scores.count == 300
    z = scores(values)
    torch.testing.assert_close(z[..., :3].flatten(0, 1).std(0, correction=0), torch.ones(3), rtol=1e-3, atol=0)
    assert z[..., 3].abs().max() < 0.1  # never varied: divided by the smallest deviation, not by zero
    torch.testing.assert_close(scores.undone(z), values, rtol=1e-5, atol=1e-4)


def test_it_predicts_the_mean_pose_when_it_knows_nothing(pose, batch_of):
    model = SimpleBaseline(SMALL, pose).train()
    batch = batch_of(6, pose)
    first = model.loss(batch, torch.Generator().manual_seed(0))
    assert first.isfinite()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    mean = batch.poses.flatten(0, 1).mean(0)
    torch.testing.assert_close(_lift(model, batch.keypoints), mean.expand(6, 5, -1, -1), rtol=1e-4, atol=1e-5)
    # The mean square of z-scores is one where coordinates vary: predicting their mean costs as much.
    varying = (batch.poses.flatten(0, 1)[:, 1:].var(0, correction=0).sqrt() > 1e-4).float().mean()
    torch.testing.assert_close(model.loss(batch, torch.Generator()), varying, rtol=1e-3, atol=0)


def test_validation_does_not_move_the_statistics(pose, batch_of):
    model = SimpleBaseline(SMALL, pose).eval()
    model.loss(batch_of(2, pose), torch.Generator())
    assert model.pose_scores.count == 0
    assert model.keypoint_scores.mean.abs().max() == 0


def test_without_standardising_it_maps_coordinates_to_metres(pose, batch_of):
    model = SimpleBaseline(Config(width=16, blocks=1, standardise=False), pose).train()
    batch = batch_of(2, pose)
    model.loss(batch, torch.Generator().manual_seed(0))
    assert model.pose_scores.count == 0
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    expected = batch.poses[:, :, 1:].square().mean()
    torch.testing.assert_close(model.loss(batch, torch.Generator()), expected)


def test_settings_that_cannot_be(pose):
    with pytest.raises(ValueError, match="reads 'some' is unknown"):
        Config(reads="some")
    with pytest.raises(ValueError, match="norm_epsilon 0"):
        Config(norm_epsilon=0)
    with pytest.raises(ValueError, match="dropout is 1"):
        Config(dropout=1)
    chain = PoseShape(frames=5, joints=3, parents=(-1, 0, 1), left=(), right=())
    with pytest.raises(ValueError, match='Use reads = "all"'):
        SimpleBaseline(SMALL, chain)
