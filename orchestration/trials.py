"""What a run in the tracking store says of itself, and the tags that say it."""

from dataclasses import dataclass

KEY, STUDY, STAGE, UPSTREAM, TRAINED = (f"posegrid.{name}" for name in ("key", "study", "stage", "upstream", "trained"))
FOLDS = "posegrid.folds"
DESCRIPTION = "mlflow.note.content"
"""Tag of a run whose text MLflow's UI shows as its description."""
DIVERGED = "posegrid.diverged"
"""Tag of a run whose loss stopped being finite, with what the loop said of it."""
OUT_OF_MEMORY = "posegrid.out_of_memory"
"""Tag of a run that did not fit into the memory of a worker, with its attempt and what would fit."""
FAILURE = "failure"
"""Tag of a run that failed, with the reason; gone once the run is tried again."""
VERSIONS = "posegrid.versions"
"""Tag of a run: what trained it, the digest of posegrid's sources among it."""
EVALUATED = "posegrid.evaluated."
MODEL_ARTIFACT = "model/model.pt"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a child run says of itself."""

    run_id: str
    key: str
    status: str
    """MLflow's status: RUNNING, FINISHED, FAILED, KILLED, SCHEDULED."""
    tags: dict[str, str]
    metrics: dict[str, float]
    """Last value of each metric."""
    params: dict[str, str]
    started_ms: int | None = None
    """Milliseconds since 1970."""
    ended_ms: int | None = None

    @property
    def trained(self) -> bool:
        """True once the model file is logged."""
        return self.tags.get(TRAINED) == "true"

    @property
    def diverged(self) -> bool:
        """True if its loss stopped being finite."""
        return not self.trained and DIVERGED in self.tags

    @property
    def evaluated(self) -> dict[str, str]:
        """Scored test patterns: label -> evaluation fingerprint."""
        return {tag[len(EVALUATED) :]: value for tag, value in self.tags.items() if tag.startswith(EVALUATED)}
