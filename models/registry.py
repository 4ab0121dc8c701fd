"""Models by name: the name is the file of this folder that defines `Config` and `build`.

Files are listed and parsed when asked, and imported when used, so a new model needs no entry anywhere.
"""

import ast
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_type_hints

from posegrid.models.interface import Lifter, PoseShape

if TYPE_CHECKING:
    from posegrid.models.image_encoder import Encoding


@cache
def _names() -> tuple[str, ...]:
    def defines_build(path: Path) -> bool:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        return any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in body)

    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if defines_build(path)))


def model_names() -> list[str]:
    """Names of all models, sorted."""
    return list(_names())


def config_class(name: str) -> type:
    """The `Config` dataclass of a model. Raises ValueError for an unknown name."""
    return _module(name).Config


def lifter_class(name: str) -> type[Lifter]:
    """What `build` of a model returns. Raises ValueError for an unknown name."""
    return get_type_hints(_module(name).build)["return"]


def needs_conditioner(name: str, config: Any) -> bool:
    """True if a model with this configuration reads the features of a trained lifter."""
    decide = getattr(_module(name), "needs_conditioner", None)
    return bool(decide(config)) if decide else False


def crop_size(name: str, config: Any) -> tuple[int, int] | None:
    """Height and width in pixels of the person crops (`Batch.images`) that a model reads; None if it reads none."""
    decide = getattr(_module(name), "crop_size", None)
    return decide(config) if decide else None


def image_encoding(name: str, config: Any) -> "Encoding | None":
    """Size of the image encoder of a model; None if it reads no crops."""
    return _module(name).encoding(config) if crop_size(name, config) else None


def reads_errors(name: str, config: Any) -> bool:
    """True if a model with this configuration is a `Refiner`, which must know its lifter's errors before it trains."""
    decide = getattr(_module(name), "reads_errors", None)
    return bool(decide(config)) if decide else False


def build_model(name: str, config: Any, pose: PoseShape, conditioner: Lifter | None = None) -> Lifter:
    """The model with fresh weights from torch's default generator. `conditioner` is given if and only if it needs one.

    The conditioner becomes part of the model and is frozen: evaluation mode, no gradients.
    """
    module = _module(name)
    if not isinstance(config, module.Config):
        raise ValueError(
            f"model {name!r} was given a {type(config).__module__}.{type(config).__qualname__}; "
            f"it needs a {module.Config.__module__}.Config. Make one with config_class({name!r})."
        )
    needed = needs_conditioner(name, config)
    if needed and conditioner is None:
        raise ValueError(
            f"model {name!r} was given no conditioner, but its configuration is conditioned on a trained lifter: "
            f"{config}. Pass a lifter with token features, or choose another conditioning."
        )
    if not needed and conditioner is not None:
        raise ValueError(
            f"model {name!r} was given a {type(conditioner).__name__} as conditioner, which its configuration does not "
            f"read: {config}. Leave the conditioner out, or choose a conditioning that reads it."
        )
    return module.build(config, pose, conditioner)


def _module(name: str) -> ModuleType:
    if name not in _names():
        near = get_close_matches(name, _names(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(
            f"model {name!r} is unknown{hint} Known: {', '.join(_names())}. "
            "A new model is a file of the models folder that defines Config and build."
        )
    return import_module(f"posegrid.models.{name}")
