"""Occlusion patterns by name: every other file of this folder that is not listed in `_PARTS` is one.

A pattern `<name>.py` holds `Config`, a frozen keyword-only dataclass, and
`masks(config, draws, frames, skeleton) -> (N, L, J) bool`, True = visible. Nothing else needs to be edited.
"""

from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.options import from_values
from posegrid.datasets.skeletons import Skeleton

_PARTS = ("draws", "hiding", "registry")
"""Files of this folder that are no patterns."""


@cache
def occlusion_names() -> tuple[str, ...]:
    """Names of all patterns, sorted; the folder is listed once."""
    return tuple(sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem not in _PARTS))


def occlusion_config(name: str, values: dict[str, Any]) -> Any:
    """The pattern's `Config` from plain values. Raises ValueError naming the nearest valid key, or the wrong type."""
    config_class = _pattern(name).Config
    if values and not fields(config_class):
        raise ValueError(f'occlusion "{name}" has no settings, got {", ".join(values)}. Remove them.')
    return from_values(config_class, values, f'occlusion "{name}"')


def masks(name: str, config: Any, draws: WindowDraws, frames: int, skeleton: Skeleton) -> np.ndarray:
    """(N, L, J) bool, True = visible: the masks of the windows of `draws` by the pattern of that name.

    Raises ValueError where the windows are too short for the rate or the skeleton lacks a joint of the settings.
    """
    pattern = _pattern(name)
    if not isinstance(config, pattern.Config):
        raise ValueError(
            f'occlusion "{name}" got the settings of {type(config).__module__}, expected its own: '
            f'make them with occlusion_config("{name}", ...).'
        )
    if frames < 1:
        raise ValueError(f'occlusion "{name}": windows of {frames} frames; at least one frame is needed.')
    try:
        return pattern.masks(config, draws, frames, skeleton)
    except ValueError as error:
        raise ValueError(f'occlusion "{name}": {error}') from None


def _pattern(name: str) -> ModuleType:
    names = occlusion_names()
    if name not in names:
        # Words count in any order: leg-arm means arm_leg, although leg_run has more letters in common.
        words = sorted(name.replace("-", "_").split("_"))
        near = [known for known in names if sorted(known.split("_")) == words] or get_close_matches(name, names, 1)
        hint = f'did you mean "{near[0]}"? ' if near else ""
        raise ValueError(f'occlusion "{name}" is unknown; {hint}Known: {", ".join(names)}.')
    return import_module(f"posegrid.datasets.occlusions.{name}")
