"""Occlusion patterns by name: every other file of this folder that is not listed in `_PARTS` is one.

A pattern `<name>.py` holds `Config`, a frozen keyword-only dataclass, and
`masks(config, draws, frames, skeleton) -> (N, L, J) bool`, True = visible. Nothing else needs to be edited.
"""

from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.skeletons import Skeleton

_PARTS = ("draws", "hiding", "registry")
"""Files of this folder that are no patterns."""


def occlusion_names() -> tuple[str, ...]:
    """Names of all patterns, sorted."""
    return tuple(sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem not in _PARTS))


def occlusion_config(name: str, values: dict[str, Any]) -> Any:
    """The pattern's `Config` from plain values; lists become tuples. Raises ValueError naming the nearest valid key."""
    config_class = _pattern(name).Config
    known = [field.name for field in fields(config_class)]
    for key in values:
        if key not in known:
            settings = f"Settings: {', '.join(sorted(known))}." if known else "It has no settings."
            raise ValueError(f'occlusion "{name}" has no setting "{key}"; {_hint(key, known)}{settings}')
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    if "joints" in plain:
        _check_joint_names(name, plain["joints"])
    return config_class(**plain)


def masks(name: str, config: Any, draws: WindowDraws, frames: int, skeleton: Skeleton) -> np.ndarray:
    """(N, L, J) bool, True = visible: the masks of the windows of `draws` by the pattern of that name."""
    pattern = _pattern(name)
    if not isinstance(config, pattern.Config):
        raise ValueError(
            f'occlusion "{name}" got the settings of {type(config).__module__}, expected its own: '
            f'make them with occlusion_config("{name}", ...).'
        )
    if frames < 1:
        raise ValueError(f'occlusion "{name}": windows of {frames} frames; at least one frame is needed.')
    return pattern.masks(config, draws, frames, skeleton)


def _pattern(name: str) -> ModuleType:
    names = occlusion_names()
    if name not in names:
        raise ValueError(f'occlusion "{name}" is unknown; {_hint(name, names)}Known: {", ".join(names)}.')
    return import_module(f"posegrid.datasets.occlusions.{name}")


def _hint(given: str, known: Sequence[str]) -> str:
    """Text "did you mean ...? ", or nothing. The words of a name count in any order: leg-arm means arm_leg."""
    given_words = sorted(given.replace("-", "_").split("_"))
    near = [name for name in known if sorted(name.split("_")) == given_words] or get_close_matches(given, known, 1)
    return f'did you mean "{near[0]}"? ' if near else ""


def _check_joint_names(name: str, joints: Any) -> None:
    if not isinstance(joints, tuple) or not joints or not all(isinstance(joint, str) for joint in joints):
        raise ValueError(
            f'occlusion "{name}": joints is {joints!r}, allowed is a list of joint names, such as ["RKnee"].'
        )
