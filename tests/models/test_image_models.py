"""Models that read person crops: the encoder's layout and the weights of a ViTPose file."""

from dataclasses import replace

import pytest
import torch
from official_layout import vitpose
from torch.nn import functional as F

from posegrid.models import di2pose, di2pose_tokens, image_regressor
from posegrid.models.image_encoder import DEVIATION, MEAN, Encoding, VisionTransformer, vitpose_weights
from posegrid.models.registry import crop_size

SMALL = Encoding(height=32, width_px=24, patch=8, width=12, depth=2, heads=3)


def by_hand(weights: dict[str, torch.Tensor], images: torch.Tensor, size: Encoding) -> torch.Tensor:
    """The encoder written out over the released names, one head at a time."""

    def of(key: str) -> torch.Tensor:
        return weights[f"backbone.{key}"]

    def linear(values: torch.Tensor, key: str) -> torch.Tensor:
        return values @ of(f"{key}.weight").T + of(f"{key}.bias")

    def norm(values: torch.Tensor, key: str) -> torch.Tensor:
        return F.layer_norm(values, values.shape[-1:], of(f"{key}.weight"), of(f"{key}.bias"), 1e-6)

    pixels = (images.double() / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    patches = F.conv2d(
        pixels.permute(0, 3, 1, 2).float(),
        of("patch_embed.proj.weight"),
        of("patch_embed.proj.bias"),
        stride=size.patch,
        padding=2,
    )
    tokens = patches.flatten(2).transpose(1, 2) + of("pos_embed")[:, 1:] + of("pos_embed")[:, :1]
    each = size.width // size.heads
    for block in range(size.depth):
        query, key, value = linear(norm(tokens, f"blocks.{block}.norm1"), f"blocks.{block}.attn.qkv").chunk(3, -1)
        heads = []
        for head in range(size.heads):
            part = slice(head * each, (head + 1) * each)
            scores = query[..., part] @ key[..., part].transpose(1, 2) / each**0.5
            heads.append(scores.softmax(-1) @ value[..., part])
        tokens = tokens + linear(torch.cat(heads, -1), f"blocks.{block}.attn.proj")
        hidden = F.gelu(linear(norm(tokens, f"blocks.{block}.norm2"), f"blocks.{block}.mlp.fc1"))
        tokens = tokens + linear(hidden, f"blocks.{block}.mlp.fc2")
    return norm(tokens, "last_norm")


def test_a_vitpose_file_gives_the_same_tokens():
    weights = vitpose(SMALL)
    encoder = VisionTransformer(SMALL).eval()
    encoder.load_state_dict(vitpose_weights(encoder, {"state_dict": weights, "meta": {}}))
    images = torch.randint(0, 256, (2, 32, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    tokens = encoder(images)
    assert tokens.shape == (2, 12, 12)
    torch.testing.assert_close(tokens, by_hand(weights, images, SMALL), rtol=1e-4, atol=1e-4)


def test_a_file_of_another_size_is_refused():
    encoder = VisionTransformer(SMALL)
    weights = vitpose(replace(SMALL, depth=1))
    with pytest.raises(ValueError, match=r"missing: blocks\.1\."):
        vitpose_weights(encoder, weights)
    with pytest.raises(ValueError, match="of another shape"):
        vitpose_weights(encoder, vitpose(replace(SMALL, height=64)))


def test_vitpose_b_has_its_size():
    with torch.device("meta"):
        encoder = VisionTransformer(Encoding())
    blocks = 12 * (4 * 768 * 768 + 4 * 768 + 8 * 768 * 768 + 5 * 768 + 4 * 768)
    assert sum(weight.numel() for weight in encoder.parameters()) == blocks + 3 * 256 * 768 + 768 + 192 * 768 + 2 * 768


def test_batches_without_crops_are_refused(pose, batch_of):
    batch, generator = batch_of(2, pose), torch.Generator()
    small = {"height": 32, "width_px": 24, "patch": 8, "width": 12, "depth": 1}
    regressor = image_regressor.build(image_regressor.Config(**small), pose)
    with pytest.raises(ValueError, match=r"no images; it reads crops of shape \(2, 5, 32, 24, 3\)"):
        regressor.lift(batch, generator)
    wrong = replace(batch, images=torch.zeros(2, 5, 24, 32, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"images of shape \(2, 5, 24, 32, 3\)"):
        regressor.loss(wrong, generator)


def test_who_reads_crops():
    assert crop_size("image_regressor", image_regressor.Config(height=128)) == (128, 192)
    assert crop_size("di2pose", di2pose.Config(conditioning="image")) == (256, 192)
    assert crop_size("di2pose", di2pose.Config()) is None
    assert crop_size("di2pose_tokens", di2pose_tokens.Config()) is None


@pytest.mark.parametrize("changes", [{"depth": 0}, {"patch": 7}, {"height": 30}, {"heads": 5}])
def test_wrong_sizes_are_refused(changes):
    with pytest.raises(ValueError, match=r"image encoder"):
        replace(SMALL, **changes)
