"""A checkpoint as its authors released it becomes a run like any other: tracked, scored, conditioned on, exported.

Nothing is trained, so no data are needed. What identifies such a run is the content of the file, the settings and the
skeleton: the same import twice is one run.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from posegrid.datasets.skeletons import Skeleton, skeleton_named
from posegrid.models.interface import Lifter, PoseShape
from posegrid.models.official_names import from_official, named_layers, official_weights
from posegrid.orchestration import checkpoint
from posegrid.orchestration.grid import check_same_windows
from posegrid.orchestration.released_files import KerasLayers, read_released, sha256
from posegrid.orchestration.settings import Settings, fingerprint
from posegrid.orchestration.stage import log_model
from posegrid.orchestration.tracking import MODEL_ARTIFACT, STAGE, UPSTREAM, Tracking

IMPORTED_FROM, IMPORTED_SHA256 = "imported_from", "imported_sha256"
"""Tags of an imported run: name of the file and what identifies its content."""
_CONDITIONER = "conditioner."
_REFINE_HEAD = "post_refine."


@dataclass(frozen=True, kw_only=True)
class Conditioner:
    """The lifter inside a wrapper: only its settings, where the released file has its weights."""

    settings: Settings
    model: Lifter | None = None
    """With its weights, if they come from elsewhere."""
    key: str = ""
    """What identifies those weights."""
    run: str = ""
    """Run that holds them, if they come from one."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """A released file that fits a recipe."""

    file: Path
    settings: Settings
    """What the model is, its conditioner included."""
    skeleton: Skeleton
    model: Lifter
    """With the released weights, in evaluation mode."""
    digest: str
    """sha256 of the file."""
    key: str
    """Identity of the run."""
    upstream: str = ""
    """Run that the conditioner was taken from."""


def window_shape(skeleton: Skeleton, frames: int) -> PoseShape:
    """What a model must know of data with this skeleton, in windows of so many frames."""
    return PoseShape(
        frames=frames, joints=len(skeleton), parents=skeleton.parents, left=skeleton.left, right=skeleton.right
    )


def conditioner_from(source: str, skeleton: str, tracking: Callable[[], Tracking]) -> Conditioner:
    """The lifter of a run (its id) or of a model file (its path).

    Raises ValueError if it is not there, or lifts another skeleton.
    """
    if source.endswith(".pt"):
        model, settings, data = checkpoint.load_model(Path(source))
        found = Conditioner(settings=settings, model=model, key=sha256(Path(source)))
    else:
        opened = tracking()
        trial = opened.trial(source)
        with opened.fetched(source, MODEL_ARTIFACT) as file:
            model, settings, data = checkpoint.load_model(file)
        found = Conditioner(settings=settings, model=model, key=trial.key or f"run {source}", run=source)
    if data.get("skeleton") != skeleton:
        raise ValueError(
            f"--conditioner {source} lifts skeleton {data.get('skeleton')}, the model to import {skeleton}. Use a "
            "conditioner for the same skeleton, or another --skeleton."
        )
    return found


def read_as(
    file: Path, settings: Settings, skeleton: str, *, entry: str | None = None, conditioner: Conditioner | None = None
) -> Released:
    """A released file as the model of a recipe.

    entry: where in the file the weights are, if not in a usual place. Raises ValueError if the file cannot be read, or
    if its weights are not those of the recipe's network on this skeleton: what is missing, unexpected and of another
    shape is listed.
    """
    digest = sha256(file)
    settings = replace(settings, initial=None)
    if conditioner is not None:
        check_same_windows(settings, conditioner.settings)
        settings = replace(settings, upstream=conditioner.settings.plain(), upstream_key=conditioner.key)
    body = skeleton_named(skeleton)
    given = None if conditioner is None else conditioner.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a weight that no release has, because nothing reads it, is the same in every import
        model = checkpoint.build(settings, window_shape(body, settings.data.frames), given)
    try:
        state = _fitted(model, read_released(file), entry, "" if given is None else _CONDITIONER)
    except ValueError as error:
        more = " A file without its conditioner needs --conditioner RUN." if conditioner and given is None else ""
        raise ValueError(f"{file.name} with recipe {settings.name} on {skeleton}: {error}{more}") from None
    if given is not None:
        _check_same_conditioner(file, model, state)
    model.load_state_dict(state)
    return Released(
        file=file,
        settings=settings,
        skeleton=body,
        model=model.eval(),
        digest=digest,
        key=_identity(settings, skeleton, digest, entry or ""),
        upstream="" if conditioner is None else conditioner.run,
    )


def _identity(settings: Settings, skeleton: str, digest: str, entry: str) -> str:
    """Key of an import. It is made of fingerprints, which stay when settings get further fields."""
    scoring = settings.evaluation_fingerprint({}, skeleton)
    return fingerprint([settings.name, settings.training_fingerprint(digest), scoring, entry])


def _fitted(model: Lifter, content: object, entry: str | None, kept: str) -> dict[str, Tensor]:
    """The weights of a file's content under our names. Raises ValueError if they do not fit."""
    if isinstance(content, KerasLayers):
        weights = named_layers(model, content.layers)
    else:
        weights = official_weights(content, entry)
    strange = [
        name
        for name, value in weights.items()
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.isnan().any()
    ]
    if strange:
        raise ValueError(
            f"{', '.join(strange[:5])}{', ...' if len(strange) > 5 else ''} ({len(strange)} of {len(weights)} weights) "
            "are no plain numbers: sparse, quantised, empty or NaN. The training that made them broke off, or the file "
            "is damaged: use another one."
        )
    if all(name.startswith(_REFINE_HEAD) for name in weights):
        raise ValueError(
            "the file holds a refine head, the second network of a refined release. It reads the camera and the true "
            "depth of the root, which no model here gets. Import the other file (no_refine_...), and score it without."
        )
    return from_official(model, weights, kept)


def _check_same_conditioner(file: Path, model: Lifter, state: dict[str, Tensor]) -> None:
    own = model.state_dict()
    other = [name for name in own if name.startswith(_CONDITIONER) and not state[name].equal(own[name])]
    if other:
        raise ValueError(
            f"{file.name} holds a conditioner of its own, which is another one than that of --conditioner "
            f"({len(other)} weights differ, first {other[0]}). The released weights belong together: leave "
            "--conditioner out."
        )


def log_released(released: Released, study: str, tracking: Tracking) -> str:
    """Run id of the import under a study: a new run with its model, or the one that is there already."""
    settings, name = released.settings, released.file.name
    tags = {
        STAGE: settings.name,
        "model": settings.model["name"],
        "trained_on": "released",
        "selection": "released",
        IMPORTED_FROM: name,
        IMPORTED_SHA256: released.digest,
        f"posegrid.member.{study}": "true",
        **({UPSTREAM: released.upstream} if released.upstream else {}),
    }
    plain = settings.plain()
    params = {"recipe": settings.name, **{table: plain[table] for table in ("model", "data", "evaluation")}}
    parent = tracking.open_study(study, {}, "Checkpoints as their authors released them")
    run_id = tracking.open_trial(released.key, f"{settings.name} from {name}", parent, params, tags)
    try:
        if not tracking.trial(run_id).trained:
            data = {"hash": "", "source": "released", "skeleton": released.skeleton.name}
            pose = window_shape(released.skeleton, settings.data.frames)
            log_model(tracking, run_id, settings, pose, released.model, data)
    except BaseException:
        tracking.finish(run_id, "FAILED")
        tracking.finish(parent, "FAILED")
        raise
    tracking.finish(run_id, "FINISHED")
    tracking.finish(parent, "FINISHED")
    return run_id
