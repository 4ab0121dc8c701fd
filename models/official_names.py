"""Weights as the authors released them: their key names and layouts translated into ours.

A released file is read elsewhere; here its dictionary of tensors becomes a state dict of one of our models. Nothing is
skipped silently: keys that are missing, unexpected or of another shape are all listed in the error. What is particular
to a model is in `official/<name of the model>.py`.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn


def official_weights(checkpoint: Mapping[str, Any], entry: str = "model_pos") -> dict[str, Tensor]:
    """The weights inside a released checkpoint, without container and without the prefixes of training wrappers.

    `entry` is where the container holds them: a semi-supervised VideoPose3D has a second network under "model_traj".
    """
    weights = dict(checkpoint.get(entry, checkpoint))
    for prefix in ("module.", "model."):
        if weights and all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def from_official(model: nn.Module, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Complete state dict for `model` from weights under official names (see `official_weights`).

    Raises ValueError listing missing keys, unexpected keys and shapes that differ. What the released model does not
    have (the last linear layer of a frozen conditioner, which is never used) keeps the model's own value; what only the
    released model has and never reads (norms and tables of StridedTransformer) is checked for its shape and left out.
    """
    family = _family(model)
    if hasattr(family, "joined"):  # what the release has in pieces and we in one
        official = family.joined(official)
    unread = family.unread(model) if hasattr(family, "unread") else {}
    state, used, missing, misshaped = {}, set(unread), [], []
    for key, ours in model.state_dict().items():
        name = family.official_name(model, key)
        if name is None:
            state[key] = ours
        elif name not in official:
            missing.append(name)
        else:
            used.add(name)
            value = official[name]
            if value.numel() == ours.numel():
                value = family.in_our_layout(model, key, value)
            if value.shape != ours.shape:
                misshaped.append(f"{name} {tuple(official[name].shape)}, here {tuple(ours.shape)}")
            state[key] = value
    for name, shape in unread.items():
        if name in official and official[name].shape != shape:
            misshaped.append(f"{name} {tuple(official[name].shape)}, here {shape}")
    unexpected = sorted(set(official) - used)
    if missing or unexpected or misshaped:
        lists = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
        raise ValueError(
            f"official weights with {len(official)} keys do not fit this {type(model).__name__}. "
            + " ".join(f"{what}: {', '.join(keys)}." for what, keys in lists if keys)
            + " Keys and shapes must match one to one: build the model with the configuration of the released file."
        )
    return state


def official_name(model: nn.Module, key: str) -> str | None:
    """Name in the authors' release of our state-dict key; None if the release has no such weight."""
    return _family(model).official_name(model, key)


def _family(model: nn.Module) -> ModuleType:
    """The translation of this model: the file of `official` with the name of the file that defines the model."""
    name = type(model).__module__.rpartition(".")[2]
    folder = Path(__file__).parent / "official"
    if not (folder / f"{name}.py").exists():
        known = sorted(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "patterns"))
        raise ValueError(
            f"no official names are known for {type(model).__name__} (models/{name}.py). Known: {', '.join(known)}. "
            f"Write models/official/{name}.py."
        )
    return import_module(f"posegrid.models.official.{name}")
