"""Invariants of VideoPose3D."""

import pytest
import torch

from posegrid.models.interface import Batch
from posegrid.models.videopose3d import Config, VideoPose3D, filter_widths


def _batch(keypoints: torch.Tensor, poses: torch.Tensor | None = None) -> Batch:
    return Batch(keypoints=keypoints, visible=torch.ones(keypoints.shape[:-1], dtype=torch.bool), poses=poses)


def _lift(model: VideoPose3D, keypoints: torch.Tensor) -> torch.Tensor:
    return model.eval().lift(_batch(keypoints), torch.Generator())[:, 0]


@pytest.fixture(params=[False, True], ids=["centred", "causal"])
def model(request, shape_of, shaken) -> VideoPose3D:
    """A small network for 15 frames with weights and running statistics off their initial values."""
    torch.manual_seed(0)
    model = shaken(VideoPose3D(Config(filter_widths=(3, 5), channels=16, causal=request.param), shape_of(15)))
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(("frames", "count"), [(27, 8_555_571), (81, 12_753_971), (243, 16_952_371), (1, 4_291_635)])
def test_parameter_counts(frames, count, shape_of):
    with torch.device("meta"):
        model = VideoPose3D(Config(), shape_of(frames))
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ("widths", "frames", "expected"),
    [((), 243, (3, 3, 3, 3, 3)), ((), 1, (1, 1, 1)), ((), 9, (3, 3)), ((5, 3), 15, (5, 3)), ((1, 1), 1, (1, 1))],
)
def test_receptive_field_is_the_product_of_the_widths(widths, frames, expected):
    assert filter_widths(Config(filter_widths=widths), frames) == expected


def test_sequence_and_window_forms_give_the_same(model):
    keypoints = torch.randn(2, 22, 17, 2)
    lifted = model.lift_sequence(keypoints)
    assert lifted.shape == (2, 8, 17, 3)
    windows = keypoints.unfold(1, 15, 1).permute(0, 1, 4, 2, 3)  # (2, 8, 15, 17, 2)
    torch.testing.assert_close(_lift(model, windows.flatten(0, 1)).view(2, 8, 17, 3), lifted, rtol=1e-5, atol=1e-5)


def test_both_forms_have_the_same_gradient(model):
    keypoints = torch.randn(4, 15, 17, 2)
    gradients = []
    for form in (model.network, model.network.strided):
        model.zero_grad()
        form(keypoints).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_shifted_in_time_with_its_input(model):
    keypoints = torch.randn(2, 30, 17, 2)
    lifted = model.lift_sequence(keypoints)
    torch.testing.assert_close(model.lift_sequence(keypoints[:, 4:]), lifted[:, 4:], rtol=1e-5, atol=1e-5)


def test_a_frame_depends_on_exactly_its_receptive_field(model):
    keypoints = torch.randn(1, 45, 17, 2)
    lifted = model.lift_sequence(keypoints)
    changed = keypoints.clone()
    changed[:, 20] += 1
    differs = ((model.lift_sequence(changed) - lifted).abs().amax((2, 3)) > 1e-6)[0]
    # Output k reads frames k .. k + 14, whichever of them it stands for.
    assert differs.nonzero().flatten().tolist() == list(range(6, 21))


def test_which_frame_is_lifted(model):
    assert model.output_frame == (14 if model.config.causal else 7)
    # The residual path carries the output frame's own keypoints: without the branches nothing else is left of the
    # frames outside the first convolution's reach around it.
    for block in model.network.blocks:
        torch.nn.init.zeros_(block.narrow.weight)
    keypoints = torch.randn(1, 15, 17, 2)
    lifted, reached = _lift(model, keypoints), []
    for frame in range(15):
        changed = keypoints.clone()
        changed[:, frame] += 1
        if not _lift(model, changed).equal(lifted):
            reached.append(frame)
    assert reached == ([12, 13, 14] if model.config.causal else [6, 7, 8])


def test_the_dense_form_reads_the_frames_between(shape_of):
    torch.manual_seed(0)
    model = VideoPose3D(Config(filter_widths=(3, 3), channels=8, dense=True), shape_of(9)).eval()
    assert model.network.blocks[0].wide.weight.shape == (8, 7, 8)
    with torch.no_grad():  # zero what lies between every third frame: the dilated network
        keep = torch.zeros(7, 1)
        keep[::3] = 1
        model.network.blocks[0].wide.weight.mul_(keep)
    sparse = VideoPose3D(Config(filter_widths=(3, 3), channels=8), shape_of(9)).eval()
    state = model.state_dict()
    state["network.blocks.0.wide.weight"] = state["network.blocks.0.wide.weight"][:, ::3]
    sparse.load_state_dict(state)
    keypoints = torch.randn(3, 9, 17, 2)
    torch.testing.assert_close(_lift(sparse, keypoints), _lift(model, keypoints), rtol=1e-5, atol=1e-6)


def test_running_statistics_follow_with_the_configured_momentum(shape_of, batch_of):
    pose = shape_of(3)
    batch = batch_of(4, pose)
    means = []
    for momentum in (0.1, 1.0):
        torch.manual_seed(0)
        model = VideoPose3D(Config(channels=8, norm_momentum=momentum), pose).train()
        model.loss(batch, torch.Generator().manual_seed(0))
        means.append(model.network.activation.norm.running_mean)
    torch.testing.assert_close(means[0], 0.1 * means[1])


def test_sequences_and_settings_that_cannot_be(shape_of):
    model = VideoPose3D(Config(channels=8), shape_of(9))
    with pytest.raises(ValueError, match="F at least 9"):
        model.lift_sequence(torch.zeros(1, 8, 17, 2))
    with pytest.raises(ValueError, match="must be odd"):
        Config(filter_widths=(3, 2))
    with pytest.raises(ValueError, match=r"windows of 10 frames, but filter_widths = \[3, 3, 3\] cover 27"):
        VideoPose3D(Config(channels=8), shape_of(10))
    with pytest.raises(ValueError, match=r"filter_widths = \[3, 3\] cover 9"):
        VideoPose3D(Config(channels=8, filter_widths=(3, 3)), shape_of(27))
    with pytest.raises(ValueError, match="norm_momentum 0"):
        Config(norm_momentum=0)
