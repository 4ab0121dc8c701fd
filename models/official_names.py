"""Weights as the authors released them: their key names and layouts translated into ours.

A released file is read elsewhere; here its dictionary of tensors becomes a state dict of one of our models. Nothing is
skipped silently: keys that are missing, unexpected or of another shape are all listed in the error. What is particular
to a model is in `official/<name of the model>.py`.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

CONTAINERS = ("model_pos", "state_dict", "model_state_dict", "model", "denoiser", "network")
"""Where released files hold their weights, beside optimizer state and the like; the first that is there counts."""
_WRAPPERS = ("module.", "model.", "_orig_mod.")
"""What DataParallel, a module around the network and torch.compile put before every key."""


def official_weights(checkpoint: Any, entry: str | None = None) -> dict[str, Tensor]:
    """The weights inside a released checkpoint, without container and without the prefixes of training wrappers.

    checkpoint: weights by name, a dictionary that holds them in one of `CONTAINERS`, or a list that begins with them
    (DiffPose). `entry` names another container: a semi-supervised VideoPose3D has a second network under "model_traj".
    Raises ValueError that lists what there is if weights are not found.
    """
    held = checkpoint[0] if isinstance(checkpoint, list | tuple) and checkpoint else checkpoint
    if isinstance(held, Mapping):
        found = [name for name in CONTAINERS if isinstance(held.get(name), Mapping)] if entry is None else [entry]
        held = held.get(found[0]) if found else held
    weights = dict(held) if isinstance(held, Mapping) else {}
    if not weights or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()):
        raise ValueError(
            f"the checkpoint has no weights {f'under {entry!r}' if entry else 'where they are looked for'}: it is "
            f"{_outline(checkpoint)}. Allowed are tensors by name, at the top or under {', '.join(CONTAINERS)}. Say "
            "under which name this file has them."
        )
    while prefix := next((one for one in _WRAPPERS if all(key.startswith(one) for key in weights)), ""):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _outline(checkpoint: Any) -> str:
    if not isinstance(checkpoint, Mapping):
        return f"a {type(checkpoint).__name__}"
    kinds = [f"{key} ({type(value).__name__})" for key, value in checkpoint.items()]
    return f"a dictionary of {', '.join(kinds[:20])}{', ...' if len(kinds) > 20 else ''}" if kinds else "empty"


def skeleton_of_release(name: str, config: Any) -> str:
    """Name of the skeleton whose joints the released weights of a model are for, in our order: Human3.6M's 17 unless
    the release has another."""
    if name not in _known():
        return "h36m_17"
    find = getattr(import_module(f"posegrid.models.official.{name}"), "skeleton", None)
    return find(config) if find else "h36m_17"


def named_layers(model: nn.Module, layers: Mapping[str, Sequence[tuple[str, Tensor]]]) -> dict[str, Tensor]:
    """Weights under official names from those of a Keras file: for every layer (name, tensor) in the file's order.

    Raises ValueError if the model was not released as such a file, or if its weights are in another order.
    """
    family = _family(model)
    if not hasattr(family, "named_layers"):
        raise ValueError(
            f"the file is one of Keras, but {type(model).__name__} was released as a file of PyTorch. Give that one, "
            "or the recipe of a model that Keras files are read for: uplift_upsample."
        )
    return family.named_layers(layers)


def from_official(model: nn.Module, official: Mapping[str, Tensor], kept: str = "") -> dict[str, Tensor]:
    """Complete state dict for `model` from weights under official names (see `official_weights`).

    kept: prefix of our keys that keep the model's own values if the release has none of them, such as "conditioner.".
    Raises ValueError listing missing keys, unexpected keys and shapes that differ. What the released model does not
    have (the last linear layer of a frozen conditioner, which is never used) keeps the model's own value; what only the
    released model has and never reads (norms and tables of StridedTransformer) is checked for its shape and left out.
    """
    family = _family(model)
    if hasattr(family, "joined"):  # what the release has in pieces and we in one
        official = family.joined(official)
    unread = family.unread(model) if hasattr(family, "unread") else {}
    names = {key: family.official_name(model, key) for key in model.state_dict()}
    own = [key for key in names if kept and key.startswith(kept)]
    if not any(names[key] in official for key in own):
        names.update(dict.fromkeys(own))
    state, used, missing, misshaped = {}, set(unread), [], []
    for key, ours in model.state_dict().items():
        name = names[key]
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
    if name not in _known():
        raise ValueError(
            f"no official names are known for {type(model).__name__} (models/{name}.py). Known: {', '.join(_known())}. "
            f"Write models/official/{name}.py."
        )
    return import_module(f"posegrid.models.official.{name}")


def _known() -> list[str]:
    shared = ("__init__", "patterns")
    return sorted(path.stem for path in (Path(__file__).parent / "official").glob("*.py") if path.stem not in shared)
