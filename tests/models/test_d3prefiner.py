"""D3PRefiner: sizes, what it does before and with perfect training, what it trains on, any kind of lifter."""

from dataclasses import replace

import pytest
import torch
from untrained import Untrained

from posegrid.models import d3prefiner, mixste
from posegrid.models.d3prefiner import Config, D3PRefiner, PoseDenoiser, build
from posegrid.models.interface import Batch, Lifter
from posegrid.models.registry import build_model, config_class, needs_conditioner, reads_errors

SMALL = {"width": 16, "depth": 1, "heads": 2, "dropout": 0.0}


class Wrong(Untrained):
    """A lifter that errs by known amounts: the target of the batch it was made for, and an error."""

    def __init__(self, poses: torch.Tensor, error: torch.Tensor, output_frame: int | None = None):
        super().__init__()
        self.poses, self.error, self.output_frame = poses, error, output_frame
        self.asked: list[tuple[int, int]] = []

    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> torch.Tensor:
        self.asked.append((len(batch.keypoints), hypotheses))
        return self.at_output(self.poses + self.error)[: len(batch.keypoints), None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def refiner(lifter: Lifter, pose, **options) -> D3PRefiner:
    torch.manual_seed(0)
    return build(Config(**{**SMALL, **options}), pose, lifter)


def settled(model: D3PRefiner, batch: Batch) -> D3PRefiner:
    model.settle(model.error_sums(batch, seeded()))
    return model


@pytest.mark.parametrize(("depth", "parameters"), [(8, 9_513_731), (4, 5_020_803)])
def test_parameters(shape_of, depth, parameters):
    with torch.device("meta"):
        network = PoseDenoiser(Config(depth=depth), shape_of(27))
        longer = PoseDenoiser(Config(depth=depth), shape_of(243))
    block = 2 * 266_320 + 524_800 + (256 * 256 + 256)  # two STC modules, an MLP with its norm, the step's projection
    step = (256 * 1024 + 1024) + (1024 * 256 + 256)
    assert parameters == depth * block + step + (5 * 256 + 256) + (256 * 3 + 3)
    for one in (network, longer):
        assert sum(weight.numel() for weight in one.parameters()) == parameters
    assert sum(weight.numel() for weight in network.blocks[0].parameters()) == block


def test_it_needs_a_lifter_and_its_errors(shape_of):
    assert needs_conditioner("d3prefiner", Config())
    assert reads_errors("d3prefiner", Config())
    assert not reads_errors("mixste", mixste.Config())
    with pytest.raises(ValueError, match="was given no conditioner"):
        build_model("d3prefiner", Config(**SMALL), shape_of(5))
    with pytest.raises(ValueError, match=r"without a lifter; .* Pass a trained lifter"):
        build(Config(**SMALL), shape_of(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "test"}, r"noise 'test' is unknown. Known: conditional, lifter"),
        ({"normalise": "none"}, "normalise 'none' is unknown"),
        ({"loss": "l1"}, "loss 'l1' is unknown"),
        ({"depth": 0}, "depth is 0; it must be at least 1"),
        ({"hypotheses": 0}, "hypotheses is 0"),
        ({"evaluations": 51}, "evaluations is 51 with steps = 50; allowed are 1 to 50"),
        ({"correlation": 1.5}, "correlation is 1.5"),
        ({"ridge": -1.0}, "ridge -1.0"),
        ({"width": 20}, "must be a multiple of heads"),
        ({"dropout": 1.0}, "probability"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options)


@pytest.mark.parametrize("diffusion", [True, False])
def test_untrained_it_subtracts_the_mean_error(shape_of, batch_of, diffusion):
    pose = shape_of(5)
    batch = batch_of(6, pose)
    error = torch.randn(6, 5, 17, 3, generator=seeded()) * 0.03 + 0.02
    lifter = Wrong(batch.poses, error)
    model = settled(refiner(lifter, pose, diffusion=diffusion, exact_end=True), batch).eval()
    lifted = model.lift(batch, seeded())
    assert lifted.shape == (6, 1, 5, 17, 3)
    wanted = batch.poses + error - error.mean(dim=(0, 1))
    torch.testing.assert_close(lifted[:, 0], wanted, rtol=0, atol=1e-6)


def test_without_exact_end_the_start_is_a_thousandth_off(shape_of, batch_of):
    pose = shape_of(5)
    batch = batch_of(6, pose)
    model = refiner(Wrong(batch.poses, torch.zeros(())), pose).eval()
    lifted = model.lift(batch, seeded())[:, 0]
    torch.testing.assert_close(lifted, batch.poses / 1.0009854, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rescale", [False, True])
def test_perfect_prediction_of_scaled_errors_recovers_the_target(shape_of, batch_of, monkeypatch, rescale):
    pose = shape_of(5)
    batch = batch_of(6, pose)
    error = torch.randn(6, 5, 17, 3, generator=seeded()) * 0.05
    model = settled(refiner(Wrong(batch.poses, error), pose, exact_end=True, rescale=rescale), batch).eval()
    seen = []

    def perfect(read, keypoints, step, draws=None):
        seen.append((int(step), read))
        assert keypoints.equal(batch.keypoints)
        return model.scaled(error)

    monkeypatch.setattr(model.denoiser, "forward", perfect)
    torch.testing.assert_close(model.lift(batch, seeded())[:, 0], batch.poses, rtol=0, atol=1e-6)
    assert [step for step, _ in seen] == [50, 25]
    magnified = torch.tensor([1.0, 1.41419])
    for (_, read), scale in zip(seen, magnified, strict=True):
        share = model.process.noise_scale[25].item() if scale > 1 else 1.0
        state = scale * batch.poses + share * error
        torch.testing.assert_close(read, state / scale if rescale else state, rtol=1e-4, atol=1e-5)


def test_loss_of_a_perfect_and_of_an_empty_prediction(shape_of, batch_of):
    pose = shape_of(5)
    batch = batch_of(64, pose)
    error = torch.randn(64, 5, 17, 3, generator=seeded()) * torch.linspace(0.02, 0.1, 51).view(17, 3)
    model = settled(refiner(Wrong(batch.poses, error), pose, noise="lifter", loss="mse"), batch)
    # nothing is predicted, and every scaled coordinate has mean 0 and variance 1 over the batch
    assert model.loss(batch, seeded()).item() == pytest.approx(1.0, abs=1e-3)
    distance = refiner(Wrong(batch.poses, error), pose, noise="lifter")
    settled(distance, batch)
    wanted = ((error - error.mean((0, 1))) / error.std((0, 1), correction=0)).norm(dim=-1).mean()
    assert distance.loss(batch, seeded()).item() == pytest.approx(wanted.item(), rel=1e-4)
    absolute = settled(refiner(Wrong(batch.poses, error), pose, noise="lifter", normalise="absolute"), batch)
    assert absolute.loss(batch, seeded()).item() == pytest.approx((error / error.abs().mean()).norm(dim=-1).mean())


def test_drawn_errors_resemble_those_of_the_lifter(shape_of, batch_of, monkeypatch):
    pose = shape_of(5)
    batch = batch_of(800, pose)
    # poses that keypoints do not tell: else the lifted pose would give its own error away
    batch = replace(batch, poses=torch.randn(800, 5, 17, 3, generator=seeded(9)) * 0.3)
    error = torch.randn(800, 5, 17, 3, generator=seeded()) * torch.linspace(0.02, 0.1, 51).view(17, 3) + 0.01
    model = settled(refiner(Wrong(batch.poses, error), pose), batch)
    drawn = []
    monkeypatch.setattr(model, "scaled", lambda given: drawn.append(given) or given)
    model.loss(batch, seeded(3))
    spread = drawn[0].std((0, 1), correction=0) / error.std((0, 1), correction=0)
    assert (spread - 1).abs().max() < 0.06
    assert (drawn[0].mean((0, 1)) - error.mean((0, 1))).abs().max() < 0.005
    assert not drawn[0].allclose(error, atol=1e-2)


def test_draws_do_not_depend_on_the_number_of_workers(shape_of, batch_of, shaken):
    pose = shape_of(5)
    batch = batch_of(6, pose)
    model = shaken(refiner(mixste.build(mixste.Config(width=16, depth=1, heads=2), pose), pose, correlation=0.5)).eval()
    whole = model.loss(batch, seeded(2))
    rows = (slice(0, None, 2), slice(1, None, 2))
    parts = [
        model.loss(
            replace(
                batch,
                keypoints=batch.keypoints[share],
                visible=batch.visible[share],
                poses=batch.poses[share],
                rank=rank,
                world=2,
                total=6,
            ),
            seeded(2),
        )
        for rank, share in enumerate(rows)
    ]
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-5)


def test_a_window_is_lifted_by_the_lifter_that_has_not_seen_its_subject(shape_of, batch_of):
    pose = shape_of(5)
    batch = replace(batch_of(5, pose), subject=torch.tensor([4, 7, 4, 9, 7]))

    def constant(value: float) -> Wrong:
        return Wrong(torch.zeros(5, 5, 17, 3), torch.tensor(value))

    full, without_4, without_7 = constant(0.0), constant(4.0), constant(7.0)
    model = refiner(full, pose)
    assert not model.unseen(batch, seeded()).any()
    model.use_folds({4: without_4, 7: without_7})
    assert model.unseen(batch, seeded())[:, 0, 0, 0].tolist() == [4.0, 7.0, 4.0, 0.0, 7.0]
    assert (without_4.asked, without_7.asked) == ([(2, 1)], [(2, 1)])
    assert not model.lift(batch, seeded()).any(), "lifting uses the lifter itself"
    assert not [name for name in model.state_dict() if "fold" in name]


def test_sampling_lifters_see_the_same_draws_when_windows_are_shared_out(shape_of, batch_of):
    pose = shape_of(5)
    options = {"channels": 8, "blocks": 1, "step_embedding": 16, "steps": 3, "dropout": 0.0}
    lifter = build_model("diffhpe", config_class("diffhpe")(**options), pose)
    model = refiner(lifter, pose, hypotheses=2)
    batch = replace(batch_of(4, pose), subject=torch.tensor([0, 1, 0, 1]))
    wanted = lifter.lift(batch, seeded(1), 2).mean(1)
    torch.testing.assert_close(model.unseen(batch, seeded(1)), wanted)
    first = batch.where(batch.subject == 0)
    torch.testing.assert_close(lifter.lift(first, seeded(1), 2).mean(1), wanted[[0, 2]])


@pytest.mark.parametrize("name", ["videopose3d", "poseformer"])
def test_lifters_of_one_frame_are_refined_in_that_frame(shape_of, batch_of, name):
    pose = shape_of(9)
    options = {"videopose3d": {"channels": 16}, "poseformer": {"joint_width": 4, "depth": 1, "heads": 2}}[name]
    lifter = build_model(name, config_class(name)(**options), pose)
    batch = batch_of(4, pose)
    model = settled(refiner(lifter, pose), batch).eval()
    assert model.output_frame == lifter.output_frame
    lifted = model.lift(batch, seeded())
    assert lifted.shape == (4, 1, 1, 17, 3)
    plain = lifter.eval().lift(batch, seeded())
    mean_error = (plain - model.at_output(batch.poses)[:, None]).mean(0)
    torch.testing.assert_close(lifted, (plain - mean_error), rtol=0, atol=2e-3)
    assert model.loss(batch, seeded()).isfinite()


def test_mirrored_lifting_reaches_the_refiner(shape_of, batch_of):
    from posegrid.models.flip import lift_flip_averaged

    pose = shape_of(5)
    lifter = mixste.build(mixste.Config(width=16, depth=1, heads=2), pose).eval()
    batch = batch_of(3, pose)
    model = refiner(lifter, pose, flip_lifter=True)
    wanted = lift_flip_averaged(lifter, batch, seeded(), pose)[:, 0]
    assert model.unseen(batch, seeded()).equal(wanted)
    assert not wanted.allclose(lifter.lift(batch, seeded())[:, 0], atol=1e-3)


def test_training_on_drawn_errors_corrects_the_lifter(shape_of, batch_of):
    # an error that follows from the pose and some noise: the Gaussian knows it, the network must learn it
    pose = shape_of(3)
    batch = batch_of(32, pose)
    lifter = Wrong(batch.poses, 0.2 * batch.poses.roll(1, dims=2) + 0.02)
    model = settled(refiner(lifter, pose, width=32, exact_end=True), batch).train()
    before = (lifter.error.norm(dim=-1)).mean()
    optimizer = torch.optim.Adam(model.denoiser.parameters(), 5e-3)
    for step in range(150):
        optimizer.zero_grad()
        model.loss(batch, seeded(step)).backward()
        optimizer.step()
    after = (model.eval().lift(batch, seeded())[:, 0] - batch.poses).norm(dim=-1).mean()
    assert after < 0.35 * before, f"{before:.4f} -> {after:.4f}"


def test_step_table():
    table = d3prefiner._sinusoids(51, 8)
    assert table.shape == (51, 8)
    assert table[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert table[:, 0].tolist() == pytest.approx(torch.arange(51.0).sin().tolist(), abs=1e-6)
    assert len({tuple(row.tolist()) for row in table}) == 51
