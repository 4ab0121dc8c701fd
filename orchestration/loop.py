"""Train one stage: plain torch, read downwards. No Ray, no MLflow, no files.

Everything random is a function of (seed, epoch, step), so the state of a run is weights, optimiser, schedule and epoch;
no generator state has to survive, and a resumed run repeats what an undisturbed one would have done.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posegrid.datasets.metrics.position import mpjpe
from posegrid.datasets.store import Store
from posegrid.datasets.windows import epoch_seed
from posegrid.models.interface import Batch, Lifter
from posegrid.orchestration.batches import Masks, scoring_batches, steps_per_epoch, training_batches
from posegrid.orchestration.compiled_step import CompiledStep
from posegrid.orchestration.optimisation import Schedule, make_optimizer, set_norm_momentum
from posegrid.orchestration.pieces import Pieces
from posegrid.orchestration.recipe_tables import TrainingSettings
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


class DivergenceError(FloatingPointError):
    """The loss stopped being finite. Every worker raises it at the same place, and would do so again."""


Report = Callable[[dict[str, float], Callable[[], dict[str, Any]] | None], None]
"""Called once per epoch by every worker: metrics, and what makes the state to save (None: do not save now)."""


def train(
    model: Lifter,
    wrapped: nn.Module,
    store: Store,
    settings: Settings,
    workers: Workers,
    report: Report,
    resume: dict[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Train to the last epoch and return the selected weights.

    `wrapped` is the model as the optimisation calls it: the model itself, or DistributedDataParallel around it.
    `resume` is a state that an earlier call gave to `report`; a finished one returns at once.
    Raises DivergenceError when the loss stops being finite, BatchTooLargeError when a step does not fit into the
    memory, ValueError when there are more workers than windows in a batch, or pieces are asked of a model that denies
    them.
    """
    training = settings.training
    _check_sharing(training, workers)
    masks = Masks(store, settings.occlusion)
    compute = settings.compute.resolved(model, gpu=workers.device.type != "cpu")
    loss_of = CompiledStep(wrapped) if compute.compile == "on" else wrapped
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = make_optimizer(training, model, fused=compute.fused == "on")
    momentum = {module: module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm1d)}
    schedule = Schedule(training, optimizer, steps_per_epoch(store, settings))
    average = [weight.detach().clone() for weight in weights] if training.ema else None
    pieces = Pieces(
        model, loss_of, optimizer, settings, compute, workers, 0 if resume is None else resume.get("at_once", 0)
    )
    best: dict[str, Any] = {"score": float("inf"), "epoch": -1, "weights": None, "loss": float("inf")}
    start = 0

    # ---- resume ------------------------------------------------------------------------------------------------
    if resume is not None:
        model.load_state_dict(resume["model"])
        optimizer.load_state_dict(resume["optimizer"])
        schedule.load(resume["schedule"])
        best, start = resume["best"], resume["epoch"] + 1
        if average is not None:
            for mean, saved in zip(average, resume["average"], strict=True):
                mean.copy_(saved)

    for epoch in range(start, training.epochs):
        # ---- one pass over the training windows ---------------------------------------------------------------
        began = time.perf_counter()
        wrapped.train()
        set_norm_momentum(momentum, training, epoch)
        total, steps = torch.zeros((), device=workers.device), 0
        for step, batch in enumerate(training_batches(store, settings, masks, epoch, workers)):
            total += pieces.backward(batch, epoch_seed(epoch_seed(training.seed, epoch), step))
            if training.gradient_clip:
                nn.utils.clip_grad_norm_(weights, training.gradient_clip)
            schedule.before_step()
            optimizer.step()
            if average is not None:
                _update_average(average, weights, training.ema, schedule.steps)
            steps += 1
        # ---- what the epoch came to -----------------------------------------------------------------------------
        mean_loss = float(workers.sum(np.array([float(total) / steps]))[0]) / workers.world
        if not np.isfinite(mean_loss):
            raise DivergenceError(
                f"the training loss of {settings.name} is {mean_loss} in epoch {epoch}; lower training.lr "
                f"(now {training.lr}) or set training.gradient_clip."
            )
        seconds = time.perf_counter() - began
        metrics = {
            "train/loss": mean_loss,
            "train/lr": schedule.lr,
            "time/epoch_s": seconds,
            "time/windows_per_s": steps * training.batch / seconds,
        }
        if pieces.at_once:
            metrics["train/windows_at_once"] = pieces.at_once
        last = epoch + 1 == training.epochs
        if last or (epoch + 1) % training.validate_every == 0:
            evaluated = _weights_of(model, weights, average)
            if training.select != "last":
                metrics |= _validate(model, evaluated, store, settings, masks, workers, pieces)
                score = metrics[f"validation/{_SCORE[training.select_by]}"]
                best["loss"] = min(best["loss"], metrics["validation/loss"])
                schedule.after_validation(best["loss"])
                if score < best["score"]:
                    best |= {"score": score, "epoch": epoch, "weights": evaluated}
            if training.select == "last":
                best |= {"score": 0.0, "epoch": epoch, "weights": evaluated}
        schedule.after_epoch(epoch)
        save = last or (epoch + 1) % training.checkpoint_every == 0

        def state(epoch: int = epoch, best: dict[str, Any] = best) -> dict[str, Any]:
            return {
                "epoch": epoch,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.plain(),
                "average": average,
                "best": best,
                "at_once": pieces.at_once,
            }

        report({**metrics, "epoch": epoch}, state if save else None)
    if best["weights"] is None:
        raise DivergenceError(
            f"no epoch of {settings.name} gave a finite validation {training.select_by}; lower training.lr "
            f"(now {training.lr})."
        )
    return best["weights"]


_VALIDATION_BATCH = 256
"""Windows in a validation step, over all workers."""
_SCORE = {"loss": "loss", "mpjpe": "mpjpe_mm"}


@torch.no_grad()
def _validate(
    model: Lifter,
    evaluated: dict[str, Tensor],
    store: Store,
    settings: Settings,
    masks: Masks,
    workers: Workers,
    pieces: Pieces,
) -> dict[str, float]:
    """Loss (and MPJPE if it selects) on the split that selects, under the training pattern and fixed noise."""
    current = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(evaluated)
    model.eval()
    began = time.perf_counter()
    generator = torch.Generator(device=workers.device)
    sums = np.zeros(4)  # loss total and windows, error total and joints
    training = settings.training
    # masks and noise follow the training settings alone: how a model is scored later must not change what is selected
    batches = scoring_batches(
        store, settings, masks, training.select, workers, mask_seed=training.seed, batch=_VALIDATION_BATCH
    )
    for step, (_, batch) in enumerate(batches):

        def of(part: Batch, step: int = step) -> np.ndarray:
            generator.manual_seed(epoch_seed(training.seed, step))
            count = len(part.keypoints)
            total = float(model.loss(part, generator)) * count
            if training.select_by != "mpjpe":
                return np.array([total, count, 0, 0])
            lifted = model.lift(part, generator).mean(1)
            assert part.poses is not None
            errors = mpjpe(lifted.double().cpu().numpy(), model.at_output(part.poses).double().cpu().numpy())
            return np.array([total, count, errors.sum(), errors.size])

        sums += pieces.sums(batch, of)
    model.load_state_dict(current)
    loss, windows, error, joints = workers.sum(sums)
    found = {
        "validation/loss": float(loss / windows),
        "time/validation_windows_per_s": float(windows / (time.perf_counter() - began)),
    }
    if joints:
        found["validation/mpjpe_mm"] = float(1000 * error / joints)
    return found


def _check_sharing(training: TrainingSettings, workers: Workers) -> None:
    if training.batch < workers.world:
        raise ValueError(
            f"training.batch = {training.batch} windows cannot be shared by {workers.world} workers, of which each "
            f"needs one. Use a batch of at least {workers.world}, or fewer workers."
        )


def _weights_of(model: nn.Module, weights: list[nn.Parameter], average: list[Tensor] | None) -> dict[str, Tensor]:
    """A copy of the weights to evaluate: the average where one is kept, the buffers as they are."""
    means = {} if average is None else {id(weight): mean for weight, mean in zip(weights, average, strict=True)}
    owners = dict(model.named_parameters())
    return {name: means.get(id(owners.get(name)), value).detach().clone() for name, value in model.state_dict().items()}


def _update_average(average: list[Tensor], weights: list[nn.Parameter], decay: float, step: int) -> None:
    decay = min(decay, (1 + step) / (10 + step))  # the first steps would otherwise dominate for long
    with torch.no_grad():
        torch._foreach_lerp_(average, [weight.detach() for weight in weights], 1 - decay)
