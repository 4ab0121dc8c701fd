"""`posegrid evaluate`: any trained model on any store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from posegrid.datasets.addresses import shown
from posegrid.datasets.store import Store, open_store
from posegrid.models.interface import Lifter
from posegrid.orchestration import checkpoint
from posegrid.orchestration.evaluation import evaluate
from posegrid.orchestration.settings import Settings, occlusion_label, occlusion_values
from posegrid.orchestration.stage import per_action_csv, per_joint_csv
from posegrid.orchestration.tracking import MODEL_ARTIFACT, Tracking
from posegrid.orchestration.workers import Workers


def trained(run: str, data: Path | str, tracking: Callable[[], Tracking]) -> tuple[Lifter, Settings, Store]:
    """The model of a run (its id) or of a model file (its path), what it was trained with, the store to score it on.

    Raises ValueError if the model or the store cannot be used, or if their skeletons differ.
    """
    if run.endswith(".pt"):
        model, settings, trained_on = checkpoint.load_model(Path(run))
    else:
        opened = tracking()
        opened.trial(run)
        with opened.fetched(run, MODEL_ARTIFACT) as file:
            model, settings, trained_on = checkpoint.load_model(file)
    store = open_store(data)
    if trained_on["skeleton"] != store.skeleton.name:
        raise ValueError(
            f"{run} was trained on skeleton {trained_on['skeleton']}, the store {shown(data)} has "
            f"{store.skeleton.name}. Use a store with the same skeleton."
        )
    return model, settings, store


def score(
    run: str,
    data: Path | str,
    patterns: list[str],
    split: str,
    hypotheses: int | None,
    tracking: Callable[[], Tracking],
    say: Callable[[str], None],
) -> None:
    """Print the per-action table of a model under each pattern; nothing is logged. Raises what `trained` raises."""
    resolved = [occlusion_values(pattern, "--occlusion") for pattern in patterns]
    model, settings, store = trained(run, data, tracking)
    settings = replace(settings, evaluation=replace(settings.evaluation, every=1))  # all windows, also of a demo recipe
    if hypotheses is not None:
        settings = replace(settings, evaluation=replace(settings.evaluation, hypotheses=hypotheses))
    for pattern in resolved:
        scores = evaluate(model, store, settings, pattern, Workers(), split=split)
        say(f"# {settings.name} on {store.source} ({split}), {occlusion_label(pattern)}; mm")
        say(per_action_csv(scores))
        if scores.sets is not None:
            say(f"# sets of {settings.evaluation.hypotheses} hypotheses, by joint")
            say(per_joint_csv(scores))
