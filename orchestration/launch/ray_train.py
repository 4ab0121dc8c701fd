"""One stage as a Ray Train run: 1..N workers, on GPUs or CPUs, resumed from the last registered checkpoint."""

import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.train
import ray.train.torch
import torch
from ray.train.torch import TorchTrainer

from posegrid.orchestration.launch.resources import Resources
from posegrid.orchestration.outages import not_written
from posegrid.orchestration.saved_states import STATE, furthest, mend_list
from posegrid.orchestration.task import StageTask, within


def fit(task: StageTask, resources: Resources, storage: str, callbacks: list[Any]) -> None:
    """Run a stage to its end. The name holds the run id: a run that was deleted never continues from old state.

    Raises FloatingPointError if its loss stopped being finite, MemoryError if it does not fit into the memory.
    """
    name = f"{task.key}-{task.run_id[:8]}"
    mend_list(within(storage, name))
    trainer: Any = TorchTrainer  # its types know of no function that returns something
    number: Any = resources.workers if resources.fixed else (resources.fewest, resources.workers)
    result = trainer(
        _worker,
        train_loop_config={
            "task": task.plain(),
            "state": within(storage, name),
            "gpus": resources.gpus,
            "attempt": secrets.token_hex(4),
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=number,
            use_gpu=resources.gpus > 0,
            resources_per_worker={"CPU": resources.cpus, **({"GPU": resources.gpus} if resources.gpus else {})},
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=resources.max_failures),
            callbacks=callbacks,
        ),
    ).fit()
    if result.return_value is not None:
        kind, reason = result.return_value
        raise (FloatingPointError if kind == _DIVERGED else MemoryError)(reason)


_DIVERGED, _TOO_LARGE = "diverged", "too large"


def _worker(config: dict[str, Any]) -> tuple[str, str] | None:
    """What every Ray Train worker runs.

    Returns why, and what was said, if it failed in a way that would repeat itself: what is raised, Ray starts again.
    """
    # imported here: the processes of driver and controller load this file too, and need neither MLflow nor the models
    from posegrid.datasets.addresses import shown
    from posegrid.orchestration import checkpoint
    from posegrid.orchestration.loop import DivergenceError
    from posegrid.orchestration.pieces import BatchTooLargeError
    from posegrid.orchestration.stage import run_stage
    from posegrid.orchestration.tracking import Tracking
    from posegrid.orchestration.trials import OUT_OF_MEMORY
    from posegrid.orchestration.workers import Workers

    context = ray.train.get_context()
    workers = Workers(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=ray.train.torch.get_device(),
        gpus=config["gpus"],
    )
    _keep_to_share(workers.device, config["gpus"])
    task = StageTask(**config["task"])
    tracking = Tracking(task.tracking, wait_s=task.tracking_wait_s)
    if workers.world > 1:
        attempt, _, reason = tracking.trial(task.run_id).tags.get(OUT_OF_MEMORY, "").partition(": ")
        if attempt == config["attempt"]:
            return _TOO_LARGE, reason
    handed = None
    registered = ray.train.get_checkpoint()
    if registered is not None:
        with registered.as_directory() as folder:
            handed = checkpoint.read(Path(folder) / STATE, workers.device)
    resume = furthest(config["state"], workers.device, handed)

    def save(metrics: dict[str, float], state: Callable[[], dict[str, Any]] | None) -> None:
        # every worker must report equally often; only the first brings the state
        if state is None or not workers.first:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory(prefix="posegrid-") as folder:
            checkpoint.write(Path(folder) / STATE, state())
            try:
                ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
            except (pa.ArrowException, OSError) as error:
                raise not_written("the state of this run", shown(config["state"]), error) from error

    def wrap(model: torch.nn.Module) -> torch.nn.Module:
        return ray.train.torch.prepare_model(model, move_to_device=False)

    try:
        run_stage(task, workers, save, resume=resume, wrap=wrap, state=config["state"])
    except DivergenceError as error:
        return _DIVERGED, str(error)  # all workers come to it together
    except BatchTooLargeError as error:
        tracking.set_tags(task.run_id, {OUT_OF_MEMORY: f"{config['attempt']}: {error}"[:4000]})
        if workers.world == 1:
            return _TOO_LARGE, str(error)
        raise  # the others wait for this one: Ray ends them, and when it starts them again, they find the tag
    return None


def _keep_to_share(device: torch.device, gpus: float) -> None:
    """Of a GPU that several workers share, none takes more memory than its share: the others would fail for it."""
    if 0 < gpus < 1 and device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(gpus, device)
