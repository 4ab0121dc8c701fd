"""Finished runs as lifters of others: found by run id or by name."""

from dataclasses import dataclass

from posegrid.orchestration import checkpoint
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import MODEL_ARTIFACT, Tracking, Trial


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run that holds a trained model."""

    trial: Trial
    settings: Settings
    """What it was trained with."""
    skeleton: str
    """Name of the skeleton of its data."""

    @property
    def key(self) -> str:
        """Its training fingerprint; the run id of a model that was not trained here."""
        return self.trial.key or f"run {self.trial.run_id}"


def finished_run(tracking: Tracking, name: str) -> FinishedRun:
    """The run with that id, or the trained one of that name. Raises ValueError if there is none, or several."""
    named = [
        trial for trial in tracking.trials().values() if trial.trained and trial.tags.get("mlflow.runName") == name
    ]
    if len(named) > 1:
        raise ValueError(
            f'conditioner.run = "{name}" names {len(named)} trained runs: {", ".join(one.run_id for one in named)}. '
            "Give the id of one of them."
        )
    trial = named[0] if named else tracking.trial(name)
    if not trial.trained:
        raise ValueError(
            f'conditioner.run = "{name}" is a run without a trained model (status {trial.status}). Allowed are runs '
            "that hold model/model.pt: finish its training, or give another run."
        )
    with tracking.fetched(trial.run_id, MODEL_ARTIFACT) as file:
        _, settings, data = checkpoint.load_model(file)
    return FinishedRun(trial=trial, settings=settings, skeleton=str(data.get("skeleton", "")))
