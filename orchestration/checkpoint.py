"""Files of a run: the whole state (to resume) and the model (to use). Written aside, renamed, never unpickled."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posegrid.datasets.options import from_values
from posegrid.models.interface import Lifter, PoseShape
from posegrid.models.registry import build_model, config_class
from posegrid.orchestration.outages import full, not_written
from posegrid.orchestration.settings import Settings

MODEL_FORMAT = "posegrid-model-1"


def write(file: Path, content: dict[str, Any]) -> None:
    """Save tensors and plain data; `file` appears whole or not at all. Raises OSError where the disk takes no more."""
    aside = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        with aside.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())  # or a machine that loses its power may keep the name and lose the content
        os.replace(aside, file)
    except (OSError, RuntimeError) as error:
        if full(error):
            raise not_written(file.name, str(file.parent), error) from error
        raise
    finally:
        aside.unlink(missing_ok=True)


def read(file: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load what `write` saved; no code of the file runs. Raises ValueError if the file is damaged or foreign."""
    if not file.is_file():
        raise ValueError(f"checkpoint {file} does not exist.")
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"checkpoint {file} cannot be read ({reason}). Use a file that posegrid wrote.") from None


def model_file(settings: Settings, pose: PoseShape, weights: dict[str, Tensor], data: dict[str, Any]) -> dict[str, Any]:
    """Content of a model file: all that is needed to build and use the model. `data` says what it was trained on."""
    return {
        "format": MODEL_FORMAT,
        "settings": settings.plain(),
        "pose": {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(pose).items()},
        "weights": {name: value.detach().cpu() for name, value in weights.items()},
        "data": data,
    }


def build(settings: Settings, pose: PoseShape, conditioner: Lifter | None = None) -> Lifter:
    """The network that settings describe, with fresh weights.

    A wrapper takes `conditioner`; without one, the network of its conditioner is built inside it, to be loaded over.
    """
    if conditioner is None and settings.upstream is not None:
        conditioner = build(Settings.from_plain(settings.upstream), pose)
    name = settings.model["name"]
    values = {key: value for key, value in settings.model.items() if key != "name"}
    config: Any = from_values(config_class(name), values, f"recipe {settings.name}, table [model]")
    return build_model(name, config, pose, conditioner)


def misfits(model: Lifter, weights: dict[str, Tensor]) -> str:
    """What keeps weights from being loaded into a model: names that are missing or too many, other shapes; "" if
    nothing does."""
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & weights.keys())
        if own[name].shape != weights[name].shape
    ]
    return "; ".join(
        f"{what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("other shape", shapes))
        if names
    )


def load_weights(model: Lifter, weights: dict[str, Tensor], where: str) -> None:
    """Load weights of the same architecture. Raises ValueError that lists what differs."""
    wrong = misfits(model, weights)
    if wrong:
        raise ValueError(
            f"{where} holds the weights of another architecture than its recipe describes - {wrong}. "
            "Use the recipe that the checkpoint was trained with."
        )
    model.load_state_dict(weights)


def load_model(file: Path) -> tuple[Lifter, Settings, dict[str, Any]]:
    """Build the model of a file: (model in evaluation mode, its settings, what it was trained on).

    Raises ValueError if the file is damaged, no model file, or of another architecture than it claims.
    """
    content = read(file)
    needed = {"settings", "pose", "weights", "data"}
    if not isinstance(content, dict) or content.get("format") != MODEL_FORMAT or not needed <= content.keys():
        raise ValueError(
            f"{file} is no posegrid model file ({MODEL_FORMAT}). Use model/model.pt of a run, or train a model first."
        )
    settings = Settings.from_plain(content["settings"], f"settings in {file}")
    model = build(settings, from_values(PoseShape, content["pose"], f"pose shape in {file}"))
    load_weights(model, content["weights"], str(file))
    return model.eval(), settings, content["data"]
