"""Training that starts from the weights of another run: found and checked when it is planned, loaded when it starts.

What identifies such a run is the sha256 of the weights that it started from. So a model file and the run it was taken
from are the same start, and a source that was trained anew with another outcome is another one.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from posegrid.datasets.options import from_values
from posegrid.datasets.store import Store
from posegrid.models.image_encoder import VisionTransformer, encoder_of, vitpose_weights
from posegrid.models.interface import Lifter
from posegrid.models.registry import config_class, image_encoding
from posegrid.orchestration import checkpoint, released_files
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.recipe_tables import InitialSettings
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import Tracking

INITIAL = "posegrid.initial"
"""Tag of a run: run id or file whose weights it started from."""
_ARTIFACT = "model/model.pt"


def with_initial(settings: Settings, store: Store, tracking: Callable[[], Tracking] | None) -> Settings:
    """The settings with what identifies their initial weights, which fit; the same ones if they start from none.

    Raises ValueError if the source is not there, has another skeleton or other weights than the recipe's network, or
    if the recipe has a conditioner.
    """
    initial = settings.initial
    if initial is None:
        return settings
    where = f'initial.source = "{initial.source}" (recipe {settings.name})'
    if not initial.source:
        raise ValueError(
            f"{where} is empty: this recipe starts from the weights of another run. Give its run id or a model file "
            "(model.pt): --set initial.source=RUN, or --from RUN with `posegrid train`."
        )
    if initial.part == "encoder":
        return replace(settings, initial=_of_encoder(settings, where))
    if settings.conditioner is not None:
        raise ValueError(
            f"{where}: this model holds a frozen conditioner, which other weights would replace. Allowed for recipes "
            "without [conditioner]: remove [initial], or give it to the conditioner's recipe (--set "
            f"{settings.conditioner.recipe or 'RECIPE'}:initial.source=...)."
        )
    is_file = initial.source.endswith(".pt")
    if not is_file and tracking is None:
        raise ValueError(f"{where} is a run, but no runs are looked up here. Give a model file (model.pt).")
    opened = None if is_file or tracking is None else tracking()
    with _model_file(initial.source, opened) as file:
        found, _, trained_on = checkpoint.load_model(file)
    if trained_on.get("skeleton") != store.skeleton.name:
        raise ValueError(
            f"{where} was trained on skeleton {trained_on.get('skeleton')}, the store {store.path} has "
            f"{store.skeleton.name}. Use a store or a source with the same skeleton."
        )
    wrong = checkpoint.misfits(checkpoint.build(settings, pose_shape(store, settings.data)), found.state_dict())
    if wrong:
        raise ValueError(
            f"{where} has other weights than this recipe's network - {wrong}. [model], data.frames and the skeleton "
            "must be those that the source was trained with: change them, or the source."
        )
    return replace(
        settings,
        initial=replace(
            initial,
            source=str(Path(initial.source).resolve()) if is_file else initial.source,
            key="" if opened is None else opened.trial(initial.source).key,
            digest=digest(found.state_dict()),
        ),
    )


def load_initial(model: Lifter, settings: Settings, tracking: Tracking) -> None:
    """Load the initial weights into a fresh model. Raises ValueError if they changed since the run was planned."""
    initial = settings.initial
    assert initial is not None
    encoder = encoder_of(model) if initial.part == "encoder" else None
    if encoder is not None:
        weights = _encoder_weights(encoder, initial.source)
    else:
        with _model_file(initial.source, tracking) as file:
            weights = checkpoint.load_model(file)[0].state_dict()
    if digest(weights) != initial.digest:
        raise ValueError(
            f"initial.source = {initial.source} (recipe {settings.name}) holds other weights on this worker than when "
            "the run was planned. Give every node the same file, and repeat the command if it was meant to change."
        )
    if encoder is not None:
        encoder.load_state_dict(weights)
    else:
        checkpoint.load_weights(model, weights, initial.source)


def _of_encoder(settings: Settings, where: str) -> InitialSettings:
    """[initial] of a recipe whose image encoder starts from a released ViTPose, with what identifies its weights.

    Raises ValueError if the model has no image encoder, or the file is missing, unsafe or of another size.
    """
    initial, name = settings.initial, settings.model["name"]
    assert initial is not None
    values = {key: value for key, value in settings.model.items() if key != "name"}
    size = image_encoding(name, from_values(config_class(name), values, f"recipe {settings.name}, table [model]"))
    if size is None:
        raise ValueError(
            f'{where} has part = "encoder", but model {name} as configured reads no pictures. Allowed for models with '
            'an image encoder: leave part out, or choose such a model (di2pose with conditioning = "image").'
        )
    source = str(Path(initial.source).resolve())
    try:
        with torch.device("meta"):
            empty = VisionTransformer(size)
        weights = _encoder_weights(empty, source)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return replace(initial, source=source, digest=digest(weights))


def _encoder_weights(encoder: VisionTransformer, source: str) -> dict[str, Tensor]:
    """State dict of an encoder from a released checkpoint. Raises ValueError."""
    released_files.sha256(Path(source))  # refuses a file that is not there
    content = released_files.read_released(Path(source))
    if not isinstance(content, Mapping):
        raise ValueError(f"{source} holds {type(content).__name__}; expected are the weights of a ViTPose (PyTorch).")
    return vitpose_weights(encoder, content)


def digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, whatever file they lie in."""
    total = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.numpy().tobytes())
    return total.hexdigest()


@contextmanager
def _model_file(source: str, tracking: Tracking | None) -> Iterator[Path]:
    """The model file of a run or the file itself. Raises ValueError if the run does not exist or is not trained."""
    if tracking is None or source.endswith(".pt"):
        yield Path(source)
        return
    trial = tracking.trial(source)
    if not trial.trained:
        raise ValueError(
            f"initial.source = {source} is a run without a trained model (status {trial.status}). Finish its training, "
            "or give another run."
        )
    with tracking.fetched(source, _ARTIFACT) as file:
        yield file
