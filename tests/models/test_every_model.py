"""What every model must do, checked on a small one of each kind (see CASES in conftest.py)."""

from dataclasses import fields, is_dataclass, replace

import pytest
import torch

from posegrid.models.export import exported
from posegrid.models.interface import PoseShape
from posegrid.models.registry import build_model, config_class, model_names, needs_conditioner

SUPERVISES_ALL_FRAMES = {"strided_transformer", "uplift_upsample"}
"""Models that lift one frame of the window and train with all."""


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _rows(values: torch.Tensor | None, rows: slice) -> torch.Tensor | None:
    return None if values is None else values[rows]


def test_the_battery_covers_every_model(cases):
    assert {case.name for case in cases.values()} == set(model_names()), (
        "give the new model a small case in conftest.py"
    )


def test_config_is_frozen_and_documented(case):
    config = case.config()
    assert is_dataclass(config)
    with pytest.raises(AttributeError):
        config.__setattr__(fields(config)[0].name, 1)
    assert all(field.kw_only for field in fields(config))
    assert needs_conditioner(case.name, config) == case.conditioned


def test_shapes(case, pose, batch_of):
    model = case.build(pose).eval()
    batch = batch_of(3, pose)
    hypotheses = 2 if case.diffusion else 1
    lifted = model.lift(batch, _seeded(), 2)
    assert lifted.shape == (3, hypotheses, case.frames if model.output_frame is None else 1, 17, 3)
    assert model.at_output(batch.poses).shape == (3, *lifted.shape[2:])
    loss = model(batch, _seeded())
    assert loss.shape == ()
    assert loss.isfinite()
    if model.feature_width is None:
        with pytest.raises(ValueError, match="cannot be a conditioner"):
            model.features(batch.keypoints)
    else:
        assert model.features(batch.keypoints).shape == (3, case.frames, 17, model.feature_width)


def test_gradient_reaches_every_trainable_weight(case, pose, batch_of, shaken):
    # Evaluation mode: batch statistics would cancel the bias in front of a batch norm.
    model = shaken(case.build(pose)).eval()
    model.loss(batch_of(3, pose), _seeded()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and not (p.grad != 0).any()]
    assert not without
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert all(name.startswith("conditioner.") for name in frozen)
    assert bool(frozen) == case.conditioned


@pytest.mark.slow
def test_overfits_eight_windows(case, shape_of, batch_of):
    pose = shape_of(case.overfit_frames)
    model = case.build(pose).train()
    eight = batch_of(8, pose)
    copies = (case.overfit_copies, 1, 1)
    batch = replace(
        eight,
        keypoints=eight.keypoints.repeat(*copies, 1),
        visible=eight.visible.repeat(copies),
        poses=eight.poses.repeat(*copies, 1),
        images=None if eight.images is None else eight.images.repeat(*copies, 1, 1),
    )
    by_noise = case.diffusion and case.noise_loss
    steps, rate = case.overfit_steps, 2e-2 if by_noise else 1e-2
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    generator = _seeded()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(batch, generator)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    if by_noise:
        # Predicting nothing costs 1. Steps with little noise stay hard, so the loss must fall by 40 %, not to zero.
        assert losses[0] > 0.9
        assert sum(losses[-20:]) / 20 < 0.6
        return
    lifted = model.eval().lift(eight, generator)[:, 0]
    aim = model.conditioner.lift(eight, generator)[:, 0] if case.quantised else model.at_output(eight.poses)
    error_mm = 1000 * (lifted - aim).norm(dim=-1).mean().item()
    assert error_mm < case.overfit_mm, f"{error_mm:.1f} mm"


def test_saved_and_loaded_model_lifts_the_same(case, pose, batch_of, shaken):
    batch = batch_of(3, pose)
    model = shaken(case.build(pose)).train()
    model.loss(batch, _seeded())  # moves running statistics
    copy = case.build(pose, seed=7).eval()
    copy.load_state_dict(model.state_dict())
    assert copy.lift(batch, _seeded(3), 2).equal(model.eval().lift(batch, _seeded(3), 2))


def test_the_generator_alone_decides(case, pose, batch_of, shaken):
    batch = batch_of(4, pose)
    model = shaken(case.build(pose)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def results(seed: int):
        model.load_state_dict(state)
        loss = model.train().loss(batch, _seeded(seed)).item()
        return loss, model.eval().lift(batch, _seeded(seed), 2)

    torch.manual_seed(1)
    loss, lifted = results(5)
    torch.manual_seed(2)
    again, lifted_again = results(5)
    assert loss == again
    assert lifted.equal(lifted_again)
    if case.diffusion:
        other_loss, other_lifted = results(6)
        assert other_loss != loss
        assert not other_lifted.allclose(lifted, atol=1e-3)


def test_two_workers_lift_the_rows_of_one(case, pose, batch_of, shaken):
    model = shaken(case.build(pose)).eval()
    whole = batch_of(5, pose)  # divides unevenly
    expected = model.lift(whole, _seeded(), 2)
    for rank in range(2):
        rows = slice(rank, None, 2)
        mine = {name: _rows(getattr(whole, name), rows) for name in ("keypoints", "visible", "poses", "images")}
        half = replace(whole, **mine, rank=rank, world=2, total=5)
        torch.testing.assert_close(model.lift(half, _seeded(), 2), expected[rows], rtol=1e-4, atol=1e-5)


def test_a_window_does_not_depend_on_its_neighbours_in_evaluation(case, pose, batch_of, shaken):
    model = shaken(case.build(pose)).eval()
    batch = batch_of(4, pose)
    changed = replace(batch, keypoints=torch.cat([batch.keypoints[:1], -batch.keypoints[1:]]))
    before, after = (model.lift(b, _seeded(), 1)[0] for b in (batch, changed))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)


def test_wrong_windows_are_named(case, pose, batch_of, shape_of):
    model = case.build(pose)
    with pytest.raises(ValueError, match=rf"windows of {case.frames} frames and 17 joints"):
        model.lift(batch_of(2, shape_of(case.frames + 1)), _seeded())
    with pytest.raises(ValueError, match="no poses"):
        model.loss(replace(batch_of(2, pose), poses=None), _seeded())


def test_any_skeleton(case, batch_of):
    frames = case.frames
    chain = PoseShape(frames=frames, joints=6, parents=(-1, 0, 1, 2, 0, 4), left=(2,), right=(4,))
    config = replace(case.config(), **case.any_skeleton)
    other = case.conditioner if case.quantised else "mlp"
    conditioner = build_model(other, config_class(other)(), chain) if case.conditioned else None
    model = build_model(case.name, config, chain, conditioner).eval()
    batch = batch_of(2, chain)
    assert model.loss(batch, _seeded()).isfinite()
    assert model.lift(batch, _seeded()).shape == (2, 1, *model.at_output(batch.poses).shape[1:])


def test_the_loss_compares_the_frames_that_are_lifted(case, pose, batch_of, shaken):
    model = shaken(case.build(pose)).eval()
    batch = batch_of(3, pose)
    before = model.loss(batch, _seeded())
    compared = []
    for frame in range(pose.frames):
        moved = batch.poses.clone()
        moved[:, frame] += 1
        if model.loss(replace(batch, poses=moved), _seeded()) != before:
            compared.append(frame)
    all_frames = model.output_frame is None or case.name in SUPERVISES_ALL_FRAMES
    assert compared == (list(range(pose.frames)) if all_frames else [model.output_frame])


@pytest.mark.slow
def test_exported_program_lifts_the_same(case, pose, batch_of, shaken):
    """Any number of windows, also one; visibility is an input if and only if the model reads it."""
    model = shaken(case.build(pose)).eval()
    if case.diffusion or case.images or case.name == "di2pose_tokens":
        with pytest.raises(ValueError, match=r"draws poses by a chain of random steps|lifts no keypoints"):
            exported(model, pose)
        return
    program = exported(model, pose)
    names = program.graph_signature.user_inputs
    assert names == (("keypoints", "visible") if case.seen_every > 1 else ("keypoints",))
    for windows in (1, 4):
        batch = batch_of(windows, pose, seed=2)
        found = program.module()(**{name: getattr(batch, name) for name in names})
        torch.testing.assert_close(found, model.lift(batch, _seeded())[:, 0], rtol=1e-4, atol=1e-5)
