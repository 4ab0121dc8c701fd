"""The life of one trial on one worker: open the data, build the model, train, score, log.

Called by every worker of a run, with or without Ray. Worker 0 talks to the tracking server; the terminal status of the
run is not set here but by the driver, which outlives the workers.
"""

import csv
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posegrid.datasets.addresses import shown
from posegrid.datasets.store import Store, open_store
from posegrid.datasets.store_cache import local_store
from posegrid.models.aggregation import AGGREGATIONS
from posegrid.models.interface import Lifter, PoseShape, Refiner
from posegrid.orchestration import checkpoint
from posegrid.orchestration.amounts import scoring_amounts
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.complexity import device_name
from posegrid.orchestration.delivery import Delivery
from posegrid.orchestration.evaluation import Scores, evaluate
from posegrid.orchestration.expenses import WORKER_S, Expenses, logged_before
from posegrid.orchestration.initial import INITIAL, load_initial
from posegrid.orchestration.lifter_errors import learn_errors
from posegrid.orchestration.loop import DivergenceError, train
from posegrid.orchestration.measured_rates import DEVICE, LIFTED_PER_S, WORKERS
from posegrid.orchestration.pieces import BatchTooLargeError
from posegrid.orchestration.preflight import installed
from posegrid.orchestration.score_tables import (
    ACTIONS,
    BREAKDOWN,
    LOGGED_TABLES,
    RECORDINGS,
    actions_table,
    breakdown_csv,
    with_table,
)
from posegrid.orchestration.settings import Settings, occlusion_label
from posegrid.orchestration.task import StageTask
from posegrid.orchestration.tracking import DIVERGED, EVALUATED, MODEL_ARTIFACT, TRAINED, VERSIONS, Tracking
from posegrid.orchestration.workers import Workers

Save = Callable[[dict[str, float], Callable[[], dict[str, Any]] | None], None]


def run_stage(
    task: StageTask,
    workers: Workers,
    save: Save,
    *,
    resume: dict[str, Any] | None = None,
    wrap: Callable[[Lifter], nn.Module] = lambda model: model,
    state: str = "",
) -> None:
    """Train (or continue, or skip) and score one trial.

    `save(metrics, make_state)` receives each epoch's metrics and keeps the state where the run can find it again.
    `state` is the folder or address where it does, for metrics that the tracking store does not take in time.
    Raises ValueError if the data differ from what was planned, DivergenceError if the loss stops being finite (the run
    then has a tag that says so), BatchTooLargeError if training or scoring does not fit into the memory.
    """
    settings = Settings.from_plain(task.settings)
    store = open_store(local_store(task.store, content_hash=task.data_hash), verify=False)
    if store.content_hash != task.data_hash:
        raise ValueError(
            f"the store at {shown(task.store)} has hash {store.content_hash[:12]} on this worker, but the study was "
            f"planned with {task.data_hash[:12]}. Give every node the same store."
        )
    store = store.leaving_out(settings.data.leave_out)
    tracking = Tracking(task.tracking, wait_s=task.tracking_wait_s)
    before = logged_before(tracking.trial(task.run_id).metrics) if task.trained else (resume or {}).get("cost", {})
    expenses = Expenses(workers=workers, before=before)
    if task.trained:
        model = _finished_model(task, tracking).to(workers.device)
    else:
        model = _new_model(task, settings, store, tracking).to(workers.device)
        if settings.initial is not None and resume is None:
            load_initial(model, settings, tracking)
            if workers.first:
                tracking.set_tags(task.run_id, {INITIAL: settings.initial.source})
        if isinstance(model, Refiner):
            learn_errors(model, task.fold_runs, settings, store, tracking, workers, settled=resume is not None)
        if workers.first:
            where = {DEVICE: device_name(workers.device), WORKERS: str(workers.world)}
            tracking.set_tags(task.run_id, where)
        delivery = Delivery(tracking=tracking, run_id=task.run_id, folder=state) if workers.first else None
        weights = _train(task, model, wrap, store, settings, workers, save, tracking, delivery, expenses, resume)
        model.load_state_dict(weights)
        if workers.first:
            data: dict[str, Any] = {"hash": store.content_hash, "source": store.source, "skeleton": store.skeleton.name}
            rates = {one.frame_rate for one in store.sequences if one.split == "train"}
            data |= {"frame_rate": rates.pop()} if len(rates) == 1 else {}  # whoever lifts a video asks for it
            log_model(tracking, task.run_id, settings, pose_shape(store, settings.data), model, data)
    lifted, seconds = scoring_amounts(store, settings)[0] if task.patterns else 0, 0.0
    for number, pattern in enumerate(task.patterns, start=1):
        began = time.perf_counter()
        try:
            scores = evaluate(model, store, settings, pattern, workers)
        except torch.OutOfMemoryError as error:
            raise _too_many_scored(settings, error) from None
        seconds += time.perf_counter() - began
        # with the last scores, or they would be missing if the run is killed in between
        last = number == len(task.patterns)
        rate, cost = ({LIFTED_PER_S: lifted * number / seconds}, expenses.metrics()) if last else ({}, {})
        if workers.first:
            log_scores(tracking, task.run_id, settings, pattern, store.content_hash, scores, rate, cost)


def _new_model(task: StageTask, settings: Settings, store: Store, tracking: Tracking) -> Lifter:
    conditioner = None
    if task.upstream_run is not None:
        with tracking.fetched(task.upstream_run, MODEL_ARTIFACT) as file:
            conditioner, _, _ = checkpoint.load_model(file)
    torch.manual_seed(settings.training.seed)  # after loading, which draws weights too
    return checkpoint.build(settings, pose_shape(store, settings.data), conditioner)


def _too_many_scored(settings: Settings, error: torch.OutOfMemoryError) -> BatchTooLargeError:
    batch = settings.evaluation.batch
    return BatchTooLargeError(
        f"scoring of {settings.name} ran out of memory with evaluation.batch = {batch} windows over all workers, of "
        f"{settings.evaluation.hypotheses} hypotheses each: {' '.join(str(error).split())[:300]} Allowed are fewer: "
        f"--set evaluation.batch={max(batch // 2, 1)} and repeat the command, which keeps what is trained."
    )


def _finished_model(task: StageTask, tracking: Tracking) -> Lifter:
    with tracking.fetched(task.run_id, MODEL_ARTIFACT) as file:
        return checkpoint.load_model(file)[0]


def _train(
    task: StageTask,
    model: Lifter,
    wrap: Callable[[Lifter], nn.Module],
    store: Store,
    settings: Settings,
    workers: Workers,
    save: Save,
    tracking: Tracking,
    delivery: Delivery | None,
    expenses: Expenses,
    resume: dict[str, Any] | None,
) -> dict[str, Tensor]:
    def report(metrics: dict[str, float], state: Callable[[], dict[str, Any]] | None) -> None:
        expenses.add_steps(metrics["time/epoch_s"])
        cost = expenses.metrics()  # on every worker
        if delivery is not None:
            delivery.log({k: v for k, v in (metrics | cost).items() if k != "epoch"}, int(metrics["epoch"]))
        kept = None if state is None else lambda: {**state(), "cost": expenses.plain()}
        save(metrics, kept)  # last: an epoch that is not repeated must have been logged or kept

    try:
        weights = train(model, wrap(model), store, settings, workers, report, resume)
    except DivergenceError as error:
        if delivery is not None:
            delivery.finish()
            tracking.set_tags(task.run_id, {DIVERGED: str(error)})
        raise
    if delivery is not None:
        delivery.finish()
    return weights


def log_model(
    tracking: Tracking, run_id: str, settings: Settings, pose: PoseShape, model: Lifter, data: dict[str, Any]
) -> None:
    """Log a trained model: its file, configuration, versions, number of weights; the tag that says so comes last.

    data: hash, source and name of the skeleton of what it was trained on, and its frames per second if they are one
    number.
    """
    content = checkpoint.model_file(settings, pose, model.state_dict(), data)
    folder, name = MODEL_ARTIFACT.split("/")
    with tempfile.TemporaryDirectory(prefix="posegrid-") as scratch:
        file = Path(scratch) / name
        checkpoint.write(file, content)
        tracking.log_file(run_id, file, folder)
    tracking.log_plain(run_id, settings.plain(), "config.json")
    weights = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    tracking.log_params(run_id, {"parameters": weights, "parameters_trained": trained})
    versions = ", ".join(f"{package} {version}" for package, version in installed().items())
    tracking.set_tags(run_id, {VERSIONS: versions, TRAINED: "true"})


def log_scores(
    tracking: Tracking,
    run_id: str,
    settings: Settings,
    pattern: dict[str, Any],
    data_hash: str,
    scores: Scores,
    more: dict[str, float] | None = None,
    cost: dict[str, float] | None = None,
) -> None:
    """Log one scored pattern: tables, examples; then its metrics, `more` metrics and the tag that says so in one call,
    so that whoever is killed before scores everything again and whoever is killed after repeats nothing.

    cost: what the run came to, a step after the last epoch's.
    """
    label = occlusion_label(pattern)
    action_wise, frame_wise = scores.sums.action_wise(), scores.sums.frame_wise()
    if scores.sets is not None:
        action_wise, frame_wise = action_wise | scores.sets.action_wise(), frame_wise | scores.sets.frame_wise()
        tracking.log_text(run_id, per_joint_csv(scores), f"test/{label}/hypotheses_per_joint.csv")
    metrics = {f"test {label}/{name.replace('/', ' ')}": v for name, v in action_wise.items()}
    metrics |= {f"test {label} frame-wise/{name.replace('/', ' ')}": v for name, v in frame_wise.items()}
    tracking.log_text(run_id, per_action_csv(scores), f"test/{label}/per_action.csv")
    rows = scores.sums.per_action() | {"action-wise": action_wise, "frame-wise": frame_wise}
    table = f"test/{label}/{ACTIONS}"
    tracking.log_text(run_id, actions_table(rows, label), table)
    tracking.log_text(run_id, scores.recordings.csv(), f"test/{label}/{RECORDINGS}")
    tracking.log_text(run_id, breakdown_csv(scores.breakdown), f"test/{label}/{BREAKDOWN}")
    with tempfile.TemporaryDirectory(prefix="posegrid-") as folder:
        file = Path(folder) / "examples.npz"
        np.savez_compressed(file, **scores.examples)  # type: ignore[arg-type]
        tracking.log_file(run_id, file, f"test/{label}")
    listed = with_table(tracking.trial(run_id).tags.get(LOGGED_TABLES), table)
    tags = {EVALUATED + label: settings.evaluation_fingerprint(pattern, data_hash), LOGGED_TABLES: listed}
    if scores.sets is not None:
        name = settings.evaluation.aggregation
        read = AGGREGATIONS[name]
        tags["aggregation"] = f"{name}, an oracle: reads {read}" if read else name
    step, now = tracking.last_step(run_id, WORKER_S) + 1 if cost else 0, int(time.time() * 1000)
    spent = [(name, value, now, step) for name, value in (cost or {}).items()]
    tracking.log_metrics(run_id, metrics | (more or {}), tags=tags, later=spent)


def per_action_csv(scores: Scores) -> str:
    """Per-action table: one row an action, then "action-wise" (mean of the rows) and "frame-wise" (all windows)."""
    rows = {
        **scores.sums.per_action(),
        "action-wise": scores.sums.action_wise(),
        "frame-wise": scores.sums.frame_wise(),
    }
    columns = list(scores.sums.frame_wise())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["action", *columns])
    for action, values in rows.items():
        writer.writerow([action, *(f"{values[column]:.4f}" if column in values else "" for column in columns)])
    return text.getvalue()


def per_joint_csv(scores: Scores) -> str:
    """Metrics of the sets of hypotheses, one row a joint, all windows pooled."""
    assert scores.sets is not None
    columns = list(scores.sets.frame_wise())
    lines = ["joint," + ",".join(columns)]
    for joint, values in zip(scores.sums.skeleton.joints, scores.sets.per_joint(), strict=True):
        lines.append(",".join([joint, *(f"{values[column]:.4f}" if column in values else "" for column in columns)]))
    return "\n".join(lines) + "\n"
