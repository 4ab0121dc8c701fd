"""`posegrid evaluate`: any trained model on any store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from posegrid.datasets.addresses import shown
from posegrid.datasets.store import Store, open_store
from posegrid.experiments.answers import say
from posegrid.models.interface import Lifter
from posegrid.orchestration import checkpoint
from posegrid.orchestration.evaluation import Scores, evaluate
from posegrid.orchestration.protocol import scoring_protocol
from posegrid.orchestration.recipe_files import parse_overrides
from posegrid.orchestration.settings import Settings, occlusion_label, occlusion_values
from posegrid.orchestration.stage import log_scores, per_action_csv, per_joint_csv
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
    show: Callable[[str], None],
    *,
    changes: list[str] | None = None,
    log: bool = False,
) -> dict[str, Any]:
    """Print the per-action table of a model under each pattern with `show`; returns the scores as plain data.

    changes: another protocol than the recipe's, such as "evaluation.score=overlap". log: log the scores in the run too,
    as its own stage does: as many windows as its recipe says, metrics, table, examples and the tag. Raises what
    `trained` raises, and ValueError if there is no run, nothing that it logs, or a change of what was trained.
    """
    resolved = [occlusion_values(pattern, "--occlusion") for pattern in patterns]
    if log and (run.endswith(".pt") or split != "test"):
        raise ValueError(
            f"--log was given for {run} and split {split}, but scores are logged in a run, and for the split test. "
            "Give the id of a run and leave out --split, or leave out --log."
        )
    if log and changes:
        raise ValueError(
            f"--log was given with --set {changes[0]}, but the scores that a run logs follow its recipe: another "
            "protocol would stand in the same column. Leave out one of them."
        )
    model, settings, store = trained(run, data, tracking)
    settings = with_protocol(settings, changes or [])
    if not log:  # all windows, also of a demo recipe
        settings = replace(settings, evaluation=replace(settings.evaluation, every=1))
    if hypotheses is not None:
        settings = replace(settings, evaluation=replace(settings.evaluation, hypotheses=hypotheses))
    found = []
    for pattern in resolved:
        scores = evaluate(model, store, settings, pattern, Workers(), split=split)
        label, protocol = occlusion_label(pattern), scoring_protocol(settings)
        show(f"# {settings.name} on {store.source} ({split}), {label}; {protocol}; mm")
        show(per_action_csv(scores))
        if scores.sets is not None:
            show(f"# sets of {settings.evaluation.hypotheses} hypotheses, by joint")
            show(per_joint_csv(scores))
        if log:
            _log(tracking(), run, settings, store, pattern, scores)
        found.append({"occlusion": label, **_plain_scores(scores)})
    return {
        **about(run, settings, store, split),
        "protocol": scoring_protocol(settings),
        "hypotheses": settings.evaluation.hypotheses,
        "scores": found,
        "logged": log,
    }


def about(run: str, settings: Settings, store: Store, split: str) -> dict[str, Any]:
    """What was looked at, as plain data: the model and where it comes from, the data and which part of them."""
    origin = {"run": None, "file": run} if run.endswith(".pt") else {"run": run, "file": None}
    return {**origin, "recipe": settings.name, "data": store.source, "data_hash": store.content_hash, "split": split}


def _plain_scores(scores: Scores) -> dict[str, Any]:
    """The rows of the tables by their keys, not rounded."""
    plain: dict[str, Any] = {
        "action_wise": scores.sums.action_wise(),
        "frame_wise": scores.sums.frame_wise(),
        "per_action": scores.sums.per_action(),
    }
    if scores.sets is not None:
        plain["sets_per_joint"] = dict(zip(scores.sums.skeleton.joints, scores.sets.per_joint(), strict=True))
    return plain


def with_protocol(settings: Settings, changes: list[str]) -> Settings:
    """A trained model's settings, scored otherwise. Raises ValueError for keys that are not about scoring."""
    plain = settings.plain()
    for table, values in parse_overrides(changes).items():
        if table != "evaluation" and (table, list(values)) != ("data", ["tail"]):
            raise ValueError(
                f"--set {table} was given for a trained model, but training settled it. Allowed are the keys of "
                "[evaluation] and data.tail, which say how it is scored."
            )
        plain[table] |= values
    return Settings.from_plain(plain, "--set")


def _log(
    tracking: Tracking,
    run: str,
    settings: Settings,
    store: Store,
    pattern: dict[str, Any],
    scores: Scores,
) -> None:
    label = occlusion_label(pattern)
    before = tracking.trial(run).evaluated.get(label)
    if before not in (None, settings.evaluation_fingerprint(pattern, store.content_hash)):
        say(f"run {run} had scores of {label} from other data or settings: they are replaced")
    tracking.log_data(run, store.source, store.content_hash, shown(store.address), "evaluation")
    log_scores(tracking, run, settings, pattern, store.content_hash, scores)
    say(f"logged in run {run}: test {label}")
