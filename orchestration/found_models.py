"""A trained model by whatever names it: model file, run id, run name, recipe, or registered model with its alias."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posegrid.models.interface import Lifter
from posegrid.orchestration import checkpoint
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import MODEL_ARTIFACT, STAGE, Tracking, Trial

REGISTERED = "models:/"
"""What the names of registered models begin with, as MLflow writes them."""
_HUMAN36M_HZ = 50.0


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A trained model and where it comes from."""

    model: Lifter
    settings: Settings
    """What it was trained with."""
    data: dict[str, Any]
    """What its file says of the data that it was trained on."""
    run: str
    """Its run id; empty for a file."""
    digest: str
    """sha256 of its file."""

    @property
    def skeleton(self) -> str:
        """Name of the skeleton that it lifts."""
        return str(self.data["skeleton"])

    @property
    def frame_rate(self) -> float | None:
        """Frames per second of the windows that it was trained on, None if nothing says it."""
        said = self.settings.data.frame_rate or self.data.get("frame_rate")
        human36m = str(self.data.get("source", "")).startswith(("h36m", "released"))
        return float(said) if said else _HUMAN36M_HZ if human36m else None


def find_model(name: str, tracking: Callable[[], Tracking]) -> FoundModel:
    """The model that is called so; `tracking` opens the store of runs, which a model file does not need.

    A recipe's name means its only trained run. Raises ValueError if there is none, or if the name fits several.
    """
    if name.endswith(".pt"):
        return _loaded(Path(name), "")
    opened = tracking()
    run = trained_run(name, opened)
    with opened.fetched(run, MODEL_ARTIFACT) as file:
        return _loaded(file, run)


def _loaded(file: Path, run: str) -> FoundModel:
    model, settings, data = checkpoint.load_model(file)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FoundModel(model=model, settings=settings, data=data, run=run, digest=digest)


def trained_run(name: str, tracking: Tracking, said: str = "--model") -> str:
    """Run id of the trained model that is called so; `said`: what gave the name, for messages.

    Raises ValueError if there is none, or if the name fits several.
    """
    if name.startswith(REGISTERED):
        return tracking.registered_run(name)
    trained = [trial for trial in tracking.trials().values() if trial.trained]
    for called in ("mlflow.runName", STAGE):
        found = [trial for trial in trained if trial.tags.get(called) == name]
        if len(found) > 1:
            raise ValueError(
                f'{said} "{name}" fits {len(found)} trained runs: {_list(found)}. Give the id of one of them.'
            )
        if found:
            return found[0].run_id
    try:
        trial = tracking.trial(name)
    except ValueError:
        raise ValueError(
            f'{said} "{name}" is no trained run in {tracking.uri}. Allowed are a model file (model.pt), a registered '
            f"model (models:/NAME@ALIAS), and run ids, run names and recipes of trained runs: "
            f"{_list(trained) or 'none'}. Give one of them, or say with --home or --tracking where the runs are."
        ) from None
    if not trial.trained:
        raise ValueError(
            f'{said} "{name}" is a run without a trained model (status {trial.status}). Allowed are runs that hold '
            f"{MODEL_ARTIFACT}: finish its training, or give another run."
        )
    return trial.run_id


def _list(trials: list[Trial], most: int = 12) -> str:
    shown = [f"{trial.run_id} ({trial.tags.get('mlflow.runName', 'no name')})" for trial in trials[:most]]
    return ", ".join([*shown, f"and {len(trials) - most} more"] if len(trials) > most else shown)
