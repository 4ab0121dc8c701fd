"""Di2Pose's tokeniser: levels, shifts, sizes, and what it makes of poses."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from posegrid.models.blocks.joint_mixing import LocalMLP, MixerMLP, joint_shift
from posegrid.models.blocks.quantise import Codebook, FiniteScalar
from posegrid.models.di2pose_tokens import Config, Decoder, Encoder, PoseTokeniser

SMALL = Config(tokens=6, levels=(5, 3), encoder_width=12, encoder_blocks=2, decoder_width=9)
PUBLISHED = (7, 5, 5, 5, 5)


def test_published_parameter_counts(shape_of):
    with torch.device("meta"):
        model = PoseTokeniser(Config(), shape_of(1))

    def count(module: nn.Module) -> int:
        return sum(weight.numel() for weight in module.parameters())

    assert count(model.encoder.blocks[0]) == 16_793_600
    assert round(count(model.encoder) / 1e6, 1) == 67.2
    assert round(count(model.decoder) / 1e6, 2) == 1.06
    assert count(model) == 68_258_757
    assert model.categories == 4375
    assert model.tokens == 100


# ---- levels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [PUBLISHED, (8, 5, 5, 5), (8, 8, 8, 6, 5), (3, 4)])
def test_numbers_and_codes_are_a_bijection(levels):
    quantiser = FiniteScalar(levels)
    assert quantiser.categories == torch.tensor(levels).prod()
    tokens = torch.arange(quantiser.categories)
    codes = quantiser.codes(tokens)
    assert quantiser.tokens(codes * quantiser.scale).equal(tokens)
    assert len(codes.unique(dim=0)) == quantiser.categories
    assert codes.min() == -1
    assert codes.max() <= 1


def test_centre_code():
    quantiser = FiniteScalar(PUBLISHED)
    codes, tokens, penalty = quantiser(torch.zeros(2, 5))
    assert tokens.tolist() == [2187, 2187]
    assert codes.abs().max() == 0
    assert penalty == 0
    assert quantiser.codes(torch.tensor(2187)).tolist() == [0] * 5


@pytest.mark.parametrize("levels", range(3, 10))
def test_a_channel_takes_exactly_its_levels(levels):
    quantiser = FiniteScalar((levels,))
    features = torch.linspace(-30, 30, 60_001)[:, None]
    codes, tokens, _ = quantiser(features)
    values = (codes * quantiser.scale).round().unique()
    assert values.tolist() == list(range(-(levels // 2), levels - levels // 2))
    assert tokens.min() == 0
    assert tokens.max() == levels - 1
    assert (tokens.diff() >= 0).all()


def test_boundaries_between_levels():
    for levels, boundaries in ((7, (0.1682, 0.5493, 1.1989)), (5, (0.2554, 0.9730))):
        quantiser = FiniteScalar((levels,))
        for number, at in enumerate(boundaries):
            for side, sign in product((-1e-4, 1e-4), (-1, 1)):
                token = quantiser(torch.tensor([sign * (at + side)]))[1].item()
                assert token == levels // 2 + sign * (number + (side > 0))


@pytest.mark.parametrize("levels", [PUBLISHED, (8, 6)])
def test_codes_quantise_to_themselves(levels):
    quantiser = FiniteScalar(levels)
    tokens = torch.arange(quantiser.categories)
    inside = (quantiser.codes(tokens) * quantiser.scale + quantiser.offset) / quantiser.reach
    # the outermost levels are reached at infinity: slightly inside of them
    features = torch.atanh(inside.clamp(-0.99, 0.99)) - quantiser.shift
    assert quantiser(features)[1].equal(tokens)


def test_the_gradient_passes_through_the_rounding():
    quantiser = FiniteScalar((7, 8))
    features = torch.tensor([[0.3, -0.4]], requires_grad=True)
    quantiser(features)[0].sum().backward()
    expected = (quantiser.reach * (1 - torch.tanh(features + quantiser.shift).square()) / quantiser.scale).detach()
    torch.testing.assert_close(features.grad, expected)


def test_codebook_follows_the_means_of_its_features():
    torch.manual_seed(0)
    quantiser = Codebook(2, 3, decay=0.5).train()
    quantiser.codebook.copy_(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]))
    features = torch.tensor([[2.0, 1, 0], [4.0, 3, 0], [-2.0, 0, 1]])
    codes, tokens, penalty = quantiser(features)
    assert tokens.tolist() == [0, 0, 1]
    assert codes[:, 0].tolist() == [1, 1, -1]
    assert penalty.item() == pytest.approx((1 + 1 + 9 + 9 + 1 + 1) / 9)
    for _ in range(40):
        assert quantiser(features)[1].tolist() == [0, 0, 1]
    torch.testing.assert_close(quantiser.codebook, torch.tensor([[3.0, 2, 0], [-2.0, 0, 1]]), rtol=1e-3, atol=1e-3)
    before = quantiser.codebook.clone()
    quantiser.eval()(features + 1)
    with torch.no_grad():
        quantiser.train()(features + 1)
    assert quantiser.codebook.equal(before)


# ---- joints --------------------------------------------------------------------------------------------------------


def test_an_impulse_moves_by_its_group_and_falls_off_the_ends():
    width, joints = 7, 5
    for joint in range(joints):
        pulse = torch.zeros(1, joints, width)
        pulse[0, joint] = 1
        moved = joint_shift(pulse, 3)[0]
        for channel in range(width):
            to = joint + (-1 if channel < 3 else 0 if channel < 6 else 1)  # groups of 3, 3 and 1
            expected = torch.zeros(joints)
            if 0 <= to < joints:
                expected[to] = 1
            assert moved[:, channel].equal(expected)


def test_groups_of_the_published_widths():
    for width, sizes in ((2048, [683, 683, 682]), (512, [171, 171, 170])):
        ones = torch.zeros(1, 3, width)
        ones[:, 1] = 1
        moved = joint_shift(ones, 3)[0]
        assert [int(moved[0].sum()), int(moved[1].sum()), int(moved[2].sum())] == sizes


def test_shift_is_linear_and_one_group_stays():
    x, y = torch.randn(2, 4, 6, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(joint_shift(2 * x - y, 3), 2 * joint_shift(x, 3) - joint_shift(y, 3))
    assert joint_shift(x, 1).equal(x)


@pytest.mark.parametrize("groups", [1, 3, 5])
def test_a_block_sees_as_far_as_it_shifts(groups):
    torch.manual_seed(0)
    block = LocalMLP(10, groups)
    tokens = torch.randn(1, 9, 10)
    changed = tokens.clone()
    changed[0, 4] += 1
    moved = (block(changed) - block(tokens)).abs().amax((0, 2)) > 0
    assert moved.nonzero().flatten().tolist() == list(range(4 - groups // 2, 5 + groups // 2))


# ---- poses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"mixing": "tokens", "quantiser": "codebook", "codes": 8, "code_width": 4}])
def test_lifting_is_decoding_what_was_encoded(changes, pose, batch_of):
    torch.manual_seed(0)
    model = PoseTokeniser(replace(SMALL, **changes), pose).eval()
    batch = batch_of(3, pose)
    tokens = model.encode(batch.poses.flatten(0, 1))
    assert tokens.shape == (15, 6)
    assert tokens.min() >= 0
    assert tokens.max() < model.categories
    lifted = model.lift(batch, torch.Generator())
    torch.testing.assert_close(lifted[:, 0].flatten(0, 1), model.decode(tokens))
    blind = replace(batch, keypoints=torch.zeros_like(batch.keypoints), visible=torch.zeros_like(batch.visible))
    assert model.lift(blind, torch.Generator()).equal(lifted)
    if not changes:
        distance = (lifted[:, 0] - batch.poses).abs().mean()
        torch.testing.assert_close(model.loss(batch, torch.Generator()), distance)
    with pytest.raises(ValueError, match="reconstructs poses and lifts no keypoints"):
        model.lift(replace(batch, poses=None), torch.Generator())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixing": "mlp"}, "mixing 'mlp' is unknown"),
        ({"quantiser": "none"}, "quantiser 'none' is unknown"),
        ({"levels": ()}, "at least 3"),
        ({"levels": (2, 5)}, "at least 3"),
        ({"groups": 2}, "odd numbers of groups"),
        ({"groups": 7}, "none is empty"),
        ({"tokens": 0}, "tokens is 0"),
        ({"commitment": -1.0}, "commitment is -1.0"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


# ---- the released numbers of PCT, whose layout the tokeniser has ---------------------------------------------------


PCT_NAMES = {
    "encoder.embed": "start_embed",
    "encoder.norm": "encoder_layer_norm",
    "encoder.to_tokens": "token_mlp",
    "encoder.to_features": "feature_embed",
    "decoder.to_joints": "decoder_token_mlp",
    "decoder.embed": "decoder_start",
    "decoder.norm": "decoder_layer_norm",
    "decoder.head": "recover_embed",
}
PCT_PARTS = {
    "joint_norm": "layernorm1",
    "joint_mlp.0": "MLP_token.ff.0",
    "joint_mlp.2": "MLP_token.ff.3",
    "channel_norm": "layernorm2",
    "channel_mlp.0": "MLP_channel.ff.0",
    "channel_mlp.2": "MLP_channel.ff.3",
}


def _pct_name(key: str) -> str:
    layer, weight = key.rsplit(".", 1)
    if ".blocks." not in layer:
        return f"{PCT_NAMES[layer]}.{weight}"
    side, _, number, part = layer.split(".", 3)
    return f"{side}.{number}.{PCT_PARTS[part]}.{weight}"


@pytest.mark.parametrize("name", ["pct_tokenizer_small", "pct_tokenizer_scaled"])
def test_layout_and_codebook_of_pct(name, parity_file):
    file = parity_file(name)
    released = file.weights()
    options = file.constructor["tokenizer"]
    joints, codes = file.constructor["num_joints"], options["codebook"]
    sides = {side: options[side] for side in ("encoder", "decoder")}
    config = Config(
        tokens=codes["token_num"],
        encoder_width=sides["encoder"]["hidden_dim"],
        decoder_width=sides["decoder"]["hidden_dim"],
        mixing="tokens",
    )
    model = nn.ModuleDict()
    for side, kind in (("encoder", Encoder), ("decoder", Decoder)):
        model[side] = kind(config, joints, 2, codes["token_dim"])
        inner = sides[side]
        model[side].blocks = nn.Sequential(
            *(
                MixerMLP(joints, inner["hidden_dim"], inner["token_inter_dim"], inner["hidden_inter_dim"])
                for _ in range(inner["num_blocks"])
            )
        )
    model["encoder"].embed = nn.Linear(2, len(released["start_embed.weight"]))  # an image may fill the other half
    model.load_state_dict({key: released[_pct_name(key)] for key in model.state_dict()})
    quantiser = Codebook(codes["token_class_num"], codes["token_dim"]).eval()
    quantiser.codebook.copy_(released["codebook"])

    embedded = file["mid_encoder_input"]
    seen = file["input_joints"][..., 2] > 0
    if not file.constructor["guide_ratio"]:
        plain = model["encoder"].embed(file["input_joints"][..., :2])
        torch.testing.assert_close(plain[seen], embedded[seen], rtol=1e-4, atol=1e-5)
        assert (embedded[~seen] == released["invisible_token"].flatten()).all()
    file.check_middle("encoder_0", model["encoder"].blocks[0](embedded))
    features = model["encoder"].of_embedded(embedded)
    file.check_middle("features", features)
    found, tokens, _ = quantiser(features)
    assert tokens.flatten().equal(file["output_indices"])
    file.check_output("recovered", model["decoder"](found))
    file.check_output("recovered", model["decoder"](quantiser.codes(tokens)))
