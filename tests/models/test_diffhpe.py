"""Invariants of DiffHPE."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from posegrid.models.blocks.graph import GraphConv, NonLocal, row_normalised_adjacency
from posegrid.models.diffhpe import Config, DiffHPE, non_local_groups
from posegrid.models.interface import PoseShape
from posegrid.models.joint_order import H36M_17_PARENTS, NON_LOCAL_GROUPS
from posegrid.models.mixste import Config as MixSTEConfig
from posegrid.models.mixste import MixSTE

SMALL = Config(channels=16, blocks=2, step_embedding=16, steps=8, dropout=0.0)


def _size(module) -> int:
    return sum(p.numel() for p in module.parameters())


def _wrapper(pose, config=SMALL) -> DiffHPE:
    conditioner = MixSTE(MixSTEConfig(width=16, depth=2, heads=4), pose)
    return DiffHPE(replace(config, conditioning="lifter"), pose, conditioner)


@pytest.mark.parametrize(
    ("frames", "two_d", "wrapper", "block", "time"),
    [
        (27, 3_201_971, 3_209_843, 197_763, 24_867),
        (81, 6_377_171, 6_385_043, 396_213, 223_317),
        (243, 34_938_419, 34_946_291, 2_181_291, 2_008_395),
    ],
)
def test_parameter_counts(frames, two_d, wrapper, block, time, shape_of):
    pose = shape_of(frames)
    with torch.device("meta"):
        model = DiffHPE(Config(), pose)
        wrapped = DiffHPE(Config(conditioning="lifter"), pose, MixSTE(MixSTEConfig(width=64), pose))
    assert _size(model) == _size(model.predictor) == two_d
    assert _size(wrapped.predictor) == wrapper
    first = model.predictor.blocks[0]
    assert (_size(first), _size(first.time)) == (block, time)
    assert [_size(part) for part in (first.step, first.feature, first.non_local, first.gate, first.output)] == [
        8_256,
        139_456,
        8_544,
        8_320,
        8_320,
    ]
    assert _size(model.predictor.step_embedding) == 33_024
    assert [_size(part.input) for part in (model.predictor, wrapped.predictor)] == [384, 8_256]
    assert _size(model.predictor.hidden) + _size(model.predictor.output) == 4_160 + 195
    trainable = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert trainable == wrapper + 256
    if frames == 27:
        # 539,200 counts the conditioner without its last linear layer, plus the embedding of the noisy pose.
        assert _size(wrapped.conditioner) - _size(wrapped.conditioner.head) + 256 == 539_200


def test_initial_output_is_the_last_bias(pose, batch_of):
    torch.manual_seed(0)
    for model in (DiffHPE(SMALL, pose), _wrapper(pose)):
        batch = batch_of(40, pose)
        noise = torch.randn(40, 5, 17, 3)
        step = torch.randint(8, (40,))
        predicted = model.predict_noise(noise, step, model.condition(batch.keypoints))
        bias = model.predictor.output.bias
        assert predicted.equal(bias.expand_as(predicted))
        assert bias.abs().max() <= 1 / 16**0.5
        # Mean of 40 * 5 * 17 * 3 squared normal numbers: deviation sqrt(2 / n) = 0.014; tolerance 5 deviations.
        loss = model.noise_loss(batch.keypoints, batch.poses, step, noise)
        assert loss.item() == pytest.approx(1 + bias.square().mean().item(), abs=0.07)


def test_initial_bounds_of_the_graph_layers(shape_of):
    torch.manual_seed(0)
    model = DiffHPE(replace(SMALL, channels=64, blocks=1, non_local="none"), shape_of(27))
    block = model.predictor.blocks[0]
    for layer, bound in ((block.time, 0.02943), (block.feature, 0.01241)):
        assert layer.convolution.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert layer.convolution.bias.abs().max() <= layer.convolution.bias.numel() ** -0.5


def test_adjacency():
    adjacency = row_normalised_adjacency(H36M_17_PARENTS)
    torch.testing.assert_close(adjacency.sum(1), torch.ones(17))
    assert adjacency[0].nonzero().flatten().tolist() == [0, 1, 4, 7]
    assert adjacency[0, 0] == 0.25
    assert adjacency[8].nonzero().flatten().tolist() == [7, 8, 9, 11, 14]
    assert adjacency[8, 14] == pytest.approx(0.2)
    assert not adjacency.equal(adjacency.T)


@pytest.mark.parametrize("mixes", ["frames", "channels"])
def test_graph_convolution_against_its_formula(mixes):
    torch.manual_seed(0)
    adjacency = row_normalised_adjacency((-1, 0, 1, 1))
    joints, frames, windows, channels = 4, 5, 3, 6
    layer = GraphConv(frames if mixes == "frames" else channels, adjacency, mixes)
    grid = torch.randn(joints, frames, windows, channels)
    actual = layer(grid).view_as(grid)
    rows = grid.movedim(1, -1) if mixes == "frames" else grid
    expected = torch.zeros_like(rows)
    for j in range(joints):
        for k in range(joints):
            expected[j] += adjacency[j, k] * (rows[k] @ layer.weight[0 if j == k else 1, k])
    expected = expected + layer.bias
    torch.testing.assert_close(actual, expected.movedim(-1, 1) if mixes == "frames" else expected)


def test_non_local_layer_is_the_identity_at_first(pose):
    layer = NonLocal(8, NON_LOCAL_GROUPS)
    grid = torch.randn(17, 5, 2, 8)
    assert layer(grid).equal(grid)


def _reached(kind: str, pose, joint: int) -> list[int]:
    """Joints whose value changes through the non-local layer when one joint's input does."""
    torch.manual_seed(0)
    layer = NonLocal(8, non_local_groups(replace(SMALL, non_local=kind), pose)).eval()
    torch.nn.init.ones_(layer.norm.weight)
    layer.score.weight.data.abs_()
    layer.theta.bias.data.fill_(5.0)  # all scores positive, so that no attention is cut off
    grid = torch.randn(17, 3, 2, 8)
    moved = grid.clone()
    moved[joint] += 3.0
    change = (layer(moved) - layer(grid)).abs().amax(dim=(1, 2, 3))
    return change.gt(1e-6).nonzero().flatten().tolist()


def test_published_pooling_leaves_out_the_right_shoulder(pose):
    groups = non_local_groups(SMALL, pose)
    assert groups == ((2, 3), (5, 6), (1, 4), (0, 7), (8, 9), (10, 15), (16, 12), (13, 11))
    assert _reached("published", pose, 14) == [14]
    assert _reached("published", pose, 9) == list(range(17))
    assert _reached("aligned", pose, 14) == list(range(17))
    assert sorted(joint for group in NON_LOCAL_GROUPS for joint in group) == list(range(17))


def test_root_is_diffused_and_true_noise_returns_the_clean_pose(pose, batch_of):
    model = DiffHPE(SMALL, pose)
    clean, noise, step = batch_of(4, pose).poses, torch.randn(4, 5, 17, 3), torch.tensor([0, 3, 6, 7])
    noisy = model.diffusion.noised(clean, noise, step)
    assert noisy[:, :, 0].abs().min() > 0
    torch.testing.assert_close(model.diffusion.clean(noisy, noise, step), clean, rtol=1e-4, atol=1e-5)


def test_features_of_the_conditioner_are_normalised(pose, batch_of):
    features = _wrapper(pose).conditioner.features(batch_of(3, pose).keypoints)
    assert features.mean(-1).abs().max() < 1e-6
    torch.testing.assert_close(features.var(-1, correction=0), torch.ones(3, 5, 17), rtol=0, atol=2e-3)


def test_conditioner_stays_frozen_and_in_evaluation_mode(pose, batch_of):
    model = _wrapper(pose).train()
    assert model.predictor.training
    assert not any(module.training for module in model.conditioner.modules())
    before = {name: value.clone() for name, value in model.conditioner.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(batch_of(3, pose), torch.Generator().manual_seed(0)).backward()
    optimizer.step()
    assert all(p.grad is None for p in model.conditioner.parameters())
    assert all(before[name].equal(value) for name, value in model.conditioner.state_dict().items())


def test_conditioner_runs_once_and_the_result_is_that_of_running_it_every_step(pose, batch_of, shaken):
    model = shaken(_wrapper(pose)).eval()
    calls = []
    model.conditioner.embed.register_forward_hook(lambda *_: calls.append(1))
    batch = batch_of(2, pose)
    noise = torch.randn(8, 2, 3, 5, 17, 3)
    cached = model.sample(batch.keypoints, lambda draw: noise[draw])
    assert len(calls) == 1

    plain_prediction = model.predict_noise

    def uncached(noisy, step, _condition, draws=None):
        return plain_prediction(noisy, step, model.condition(batch.keypoints), draws)

    model.predict_noise = uncached
    assert model.sample(batch.keypoints, lambda draw: noise[draw]).equal(cached)
    assert len(calls) == 1 + 1 + 8  # `sample` itself, then every step


def test_hypotheses_are_chains_of_their_own(pose, batch_of, shaken):
    model = shaken(DiffHPE(SMALL, pose)).eval()
    batch = batch_of(2, pose)
    noise = torch.randn(8, 2, 3, 5, 17, 3)
    together = model.sample(batch.keypoints, lambda draw: noise[draw])
    for h in range(3):
        alone = model.sample(batch.keypoints, lambda draw, h=h: noise[draw][:, h : h + 1])
        torch.testing.assert_close(together[:, h : h + 1], alone, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="at least 1"):
        model.lift(batch, torch.Generator(), 0)


def test_averaging_hypotheses(pose, batch_of, shaken):
    model = shaken(DiffHPE(SMALL, pose), scale=0.02).eval()
    batch = batch_of(8, pose)
    lifted = model.lift(batch, torch.Generator().manual_seed(0), 32)
    errors = (lifted - batch.poses[:, None]).norm(dim=-1)
    mean_error = (lifted.mean(1) - batch.poses).norm(dim=-1)
    assert (mean_error <= errors.mean(1) + 1e-5).all()

    def squared(hypotheses: int) -> float:
        """Expected squared error of means over this many hypotheses, from disjoint groups of the 32."""
        groups = lifted.unflatten(1, (-1, hypotheses)).mean(2)
        return (groups - batch.poses[:, None]).square().mean().item()

    bias_squared_and_variance = [squared(h) for h in (1, 2, 4, 8, 16)]
    assert all(more < fewer for fewer, more in pairwise(bias_squared_and_variance))
    # bias^2 + var / H: the drop from 1 to 2 is twice that from 2 to 4; 8160 chains' coordinates leave about 3 %.
    first, second = (fewer - more for fewer, more in pairwise(bias_squared_and_variance[:3]))
    assert first / second == pytest.approx(2, rel=0.15)


def test_training_depends_on_the_batch_and_evaluation_does_not(pose, batch_of, shaken):
    model = shaken(DiffHPE(SMALL, pose))
    batch = batch_of(4, pose)
    noisy, step = torch.randn(4, 5, 17, 3), torch.tensor([1, 2, 3, 4])

    def predicted(rows: slice) -> torch.Tensor:
        return model.predict_noise(noisy[rows], step[rows], model.condition(batch.keypoints[rows]))[0]

    with torch.no_grad():
        model.train()
        assert not predicted(slice(0, 2)).allclose(predicted(slice(None)), atol=1e-3)
        model.eval()
        torch.testing.assert_close(predicted(slice(0, 2)), predicted(slice(None)), rtol=1e-4, atol=1e-5)


def test_sum_of_pose_and_condition(pose, batch_of, shaken):
    model = shaken(_wrapper(pose, replace(SMALL, condition_mix="sum", conditioning="lifter"))).eval()
    assert model.predictor.input.in_features == 16
    batch, noisy = batch_of(2, pose), torch.randn(2, 5, 17, 3)
    seen = []
    model.predictor.blocks[0].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    model.predict_noise(noisy, torch.tensor([3]), model.condition(batch.keypoints))
    mixed = model.embed_pose(noisy) + model.conditioner.features(batch.keypoints)
    expected = torch.relu(model.predictor.input(mixed)).permute(2, 1, 0, 3)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)


def test_settings_that_cannot_be(pose):
    with pytest.raises(ValueError, match="non_local 'all' is unknown"):
        Config(non_local="all")
    with pytest.raises(ValueError, match="even number"):
        Config(channels=15)
    with pytest.raises(ValueError, match="cannot be added to 3"):
        Config(condition_mix="sum")
    chain = PoseShape(frames=5, joints=17, parents=(-1, *range(16)), left=(), right=())
    with pytest.raises(ValueError, match='Use non_local = "none"'):
        DiffHPE(SMALL, chain)
    with pytest.raises(ValueError, match="has no features"):
        DiffHPE(replace(SMALL, conditioning="lifter"), pose, DiffHPE(SMALL, pose))
