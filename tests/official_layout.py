"""Released checkpoints for tests: weights of our models under their authors' names and layouts, and what lies beside
them in the files. The layouts are written here a second time, as the authors' networks have them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from posegrid.models.image_encoder import Encoding
from posegrid.models.official_names import official_name


def mixste_weights(model: nn.Module, heads: int, prefix: str = "") -> dict[str, Tensor]:
    """A MixSTE's, or a DiffHPE's with one inside: tables have a leading axis, rows of projections are ordered (role,
    head, E), not (head, role, E)."""
    released = {}
    for key, value in model.state_dict().items():
        name = official_name(model, key)
        if name is None:
            continue
        if key.endswith("_position"):
            value = value[None]
        if ".qkv." in key:
            each = len(value) // (3 * heads)
            rows = [(head * 3 + role) * each + e for role in range(3) for head in range(heads) for e in range(each)]
            value = value[rows]
        released[prefix + name] = value.detach().clone()
    return released


def training_file(weights: dict[str, Tensor]) -> dict[str, Any]:
    """What VideoPose3D and its descendants save: weights, and the state of their training."""
    trained = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(trained.parameters(), amsgrad=True)
    trained(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "epoch": np.int64(7),
        "lr": np.float64(3e-5),
        "random_state": np.random.RandomState(5),
        "optimizer": optimizer.state_dict(),
        "model_pos": weights,
        "min_loss": np.float32(40.6),
        "wandb_id": None,
    }


def write_keras(file: Path, layers: dict[str, list[tuple[str, Tensor]]]) -> None:
    """A file as Keras's `save_weights` writes it."""
    with h5py.File(file, "w") as root:
        root.attrs["layer_names"] = [name.encode() for name in layers]
        root.attrs["backend"] = b"tensorflow"
        for layer, weights in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name, _ in weights], dtype="S200")
            for name, value in weights:
                group.create_dataset(name, data=value.numpy())


def uplift_layers(released: dict[str, Tensor]) -> dict[str, list[tuple[str, Tensor]]]:
    """Attribute paths of the released Uplift and Upsample as layers of a Keras file: the order in a layer is that in
    which the network makes its parts."""
    blocks = ["norm1.gamma", "norm1.beta"]
    blocks += [f"attn.{layer}.{kind}" for layer in ("wq", "wk", "wv", "projection") for kind in ("kernel", "bias")]
    blocks += ["norm2.gamma", "norm2.beta", "mlp.fc1.kernel", "mlp.fc1.bias"]
    called = {
        "keypoint_embedding": "keypoint_embedding",
        "spatial_pos_encoding": "spatial_pe",
        "temporal_pos_encoding": "temporal_pe",
        "strided_temporal_pos_encodings": "strided_temporal_pe",
        "learnable_strided_input_token_layer": "strided_input_token_layer",
        "spatial_blocks": "spatial_block",
        "spatial_norm": "spatial_norm",
        "spatial_to_temporal_mapping": "spatial_to_temporal_fc",
        "temporal_blocks": "temporal_block",
        "strided_temporal_blocks": "strided_temporal_block",
        "head1": "temporal_fc",
        "head2": "strided_temporal_fc",
    }
    last = ["mlp.fc2.kernel", "mlp.fc2.bias", "mlp.strided_conv.kernel", "mlp.strided_conv.bias"]
    order = [*blocks, *last, "kernel", "gamma", "beta", "bias", "positional_encoding_weights", "learnable_masked_token"]
    layers: dict[str, list[tuple[str, Tensor]]] = {}
    for place in order:
        for key, value in released.items():
            attribute, _, rest = key.partition(".")
            number, _, inner = rest.partition(".")
            if (inner if number.isdigit() else rest) != place:
                continue
            layer = called[attribute]
            if number.isdigit() and not attribute.startswith("head"):
                layer += f"_{int(number) + 1}"
            layers.setdefault(layer, []).append((f"{layer}/{place.replace('.', '/')}:0", value))
    assert sum(map(len, layers.values())) == len(released)
    return layers


def vitpose(size: Encoding, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of a released ViTPose, head included."""
    width, hidden = size.width, 4 * size.width
    patches = size.height * size.width_px // size.patch**2
    shapes = {
        "patch_embed.proj.weight": (width, 3, size.patch, size.patch),
        "patch_embed.proj.bias": (width,),
        "pos_embed": (1, patches + 1, width),
        "last_norm.weight": (width,),
        "last_norm.bias": (width,),
    }
    for block in range(size.depth):
        for part, (rows, columns) in {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (hidden, width),
            "mlp.fc2": (width, hidden),
        }.items():
            shapes[f"blocks.{block}.{part}.weight"] = (rows, columns)
            shapes[f"blocks.{block}.{part}.bias"] = (rows,)
        for part in ("norm1", "norm2"):
            shapes[f"blocks.{block}.{part}.weight"] = shapes[f"blocks.{block}.{part}.bias"] = (width,)
    generator = torch.Generator().manual_seed(seed)
    weights = {f"backbone.{key}": torch.randn(shape, generator=generator) * 0.3 for key, shape in shapes.items()}
    return {**weights, "keypoint_head.final_layer.weight": torch.zeros(17, 4)}
