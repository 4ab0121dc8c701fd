"""Di2Pose's second stage: sizes, sampling, and what it learns of the tokeniser's tokens."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from posegrid.models import di2pose, di2pose_tokens
from posegrid.models.blocks.token_transformer import Block
from posegrid.models.interface import PoseShape
from posegrid.models.registry import build_model, config_class

TOKENS = di2pose_tokens.Config(tokens=6, levels=(5, 3), encoder_width=12, encoder_blocks=1, decoder_width=9)
SMALL = di2pose.Config(condition_width=16, layers=1, heads=2, width=16, steps=8)


def small(pose: PoseShape, **changes) -> di2pose.Di2Pose:
    torch.manual_seed(0)
    return di2pose.build(replace(SMALL, **changes), pose, di2pose_tokens.build(TOKENS, pose))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_published_parameter_counts(shape_of):
    def count(module: nn.Module) -> int:
        return sum(weight.numel() for weight in module.parameters())

    pose = shape_of(1)
    with torch.device("meta"):
        assert count(Block(1024, 768, 16, 4, 100)) == 20_671_488
        for width, published in ((768, 443.2), (1024, 454.2), (1280, 465.2)):
            config = di2pose.Config(condition_width=width)
            model = di2pose.build(config, pose, di2pose_tokens.build(di2pose_tokens.Config(), pose))
            assert round(count(model.transformer) / 1e6, 1) == published
        assert count(model.conditioner) == 68_258_757


def test_the_prior_predicts_as_a_loss_says(pose, batch_of):
    """Fresh weights spread over all categories: the auxiliary loss is about log K."""
    model = small(pose, auxiliary=1.0)
    with_it = model.loss(batch_of(16, pose), seeded())
    model.config = replace(model.config, auxiliary=0.0)
    bound = model.loss(batch_of(16, pose), seeded())
    assert (with_it - bound).item() == pytest.approx(torch.tensor(15.0).log().item(), abs=0.05)


class Oracle(nn.Module):
    """A network that knows the tokens of every pose, which its condition names."""

    def __init__(self, tokens_PN: torch.Tensor, categories: int):
        super().__init__()
        self.tokens, self.categories = tokens_PN, categories

    def forward(self, state, step, condition):
        return nn.functional.one_hot(self.tokens[condition[:, 0, 0].long()], self.categories) * 200.0


@pytest.mark.parametrize("steps", [0, 3, 1])
def test_a_perfect_network_lifts_what_the_tokeniser_can_say(steps, pose, batch_of, monkeypatch):
    model = small(pose).eval()
    batch = batch_of(3, pose)
    truth = model.conditioner.encode(batch.poses.flatten(0, 1))
    model.transformer = Oracle(truth, model.conditioner.categories)
    numbers = torch.arange(len(truth)).float()[:, None, None]
    monkeypatch.setattr(model.condition, "forward", lambda batch: numbers)
    model.chain = replace(model.chain, steps=steps)
    monkeypatch.setattr(di2pose, "_LOGITS", 4 * 6 * 15)  # four poses at a time
    lifted = model.lift(batch, seeded(), 2)
    expected = model.conditioner.lift(batch, seeded())
    torch.testing.assert_close(lifted, expected.expand_as(lifted))
    assert model.loss(batch, seeded()).abs() < 1e-5


def test_chunks_change_nothing(pose, batch_of, monkeypatch):
    model = small(pose).eval()
    batch = batch_of(3, pose)
    with torch.no_grad():
        whole, loss = model.lift(batch, seeded(), 2), model.loss(batch, seeded())
        monkeypatch.setattr(di2pose, "_LOGITS", 1)
        torch.testing.assert_close(model.lift(batch, seeded(), 2), whole)
        torch.testing.assert_close(model.loss(batch, seeded()), loss)


def test_hidden_keypoints_are_told_from_zero_ones(pose, batch_of):
    model = small(pose).eval()
    batch = batch_of(1, pose)
    zero = replace(batch, keypoints=torch.zeros_like(batch.keypoints))
    hidden = replace(zero, visible=torch.zeros_like(batch.visible))
    assert not model.condition(zero).allclose(model.condition(hidden), atol=1e-3)


def test_drawing_the_last_step(pose, batch_of):
    model = small(pose, last="draw").eval()
    likeliest = small(pose).eval()
    batch = batch_of(2, pose)
    assert not model.lift(batch, seeded()).equal(likeliest.lift(batch, seeded()))


def test_the_tokeniser_stays_as_it_is(pose):
    model = small(pose).train()
    assert not model.conditioner.training
    assert not any(weight.requires_grad for weight in model.conditioner.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditioning": "sound"}, "conditioning 'sound' is unknown"),
        ({"last": "mean"}, "last 'mean' is unknown"),
        ({"heads": 3}, "must be a multiple of heads"),
        ({"layers": 0}, "layers is 0"),
        ({"auxiliary": -1.0}, "auxiliary is -1.0"),
        ({"occluded": 2.0}, "occluded = 2.0"),
        ({"steps": 0}, "0 steps"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_what_it_cannot_use_is_refused(pose, batch_of):
    lifter = build_model("mlp", config_class("mlp")(), pose)
    with pytest.raises(ValueError, match="diffuses the tokens of a trained di2pose_tokens"):
        build_model("di2pose", SMALL, pose, lifter)
    model = small(pose)
    with pytest.raises(ValueError, match="asked for 0 hypotheses"):
        model.lift(batch_of(1, pose), seeded(), 0)
    model.chain = replace(model.chain, sampler="ddim")
    with pytest.raises(ValueError, match=r'sample with "ddim" \(evaluation\.sampler\)'):
        model.lift(batch_of(1, pose), seeded())
