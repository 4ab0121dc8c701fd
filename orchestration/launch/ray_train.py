"""One stage as a Ray Train run: 1..N workers, on GPUs or CPUs, resumed from the last registered checkpoint."""

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
from posegrid.orchestration.task import StageTask, within

STATE = "state.pt"


def fit(task: StageTask, resources: Resources, storage: str, callbacks: list[Any]) -> None:
    """Run a stage to its end. The name holds the run id: a run that was deleted never continues from old state.

    Raises FloatingPointError if its loss stopped being finite.
    """
    name = f"{task.key}-{task.run_id[:8]}"
    trainer: Any = TorchTrainer  # its types know of no function that returns something
    result = trainer(
        _worker,
        train_loop_config={"task": task.plain(), "state": within(storage, name)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
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
        raise FloatingPointError(result.return_value)


def _worker(config: dict[str, Any]) -> str | None:
    """What every Ray Train worker runs. Returns what the loop said if the loss stopped being finite."""
    # imported here: the processes of driver and controller load this file too, and need neither MLflow nor the models
    from posegrid.datasets.addresses import shown
    from posegrid.orchestration import checkpoint
    from posegrid.orchestration.loop import DivergenceError
    from posegrid.orchestration.stage import run_stage
    from posegrid.orchestration.workers import Workers

    context = ray.train.get_context()
    workers = Workers(
        rank=context.get_world_rank(), world=context.get_world_size(), device=ray.train.torch.get_device()
    )
    resume = None
    registered = ray.train.get_checkpoint()
    if registered is not None:
        with registered.as_directory() as folder:
            resume = checkpoint.read(Path(folder) / STATE, workers.device)

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
        run_stage(StageTask(**config["task"]), workers, save, resume=resume, wrap=wrap, state=config["state"])
    except DivergenceError as error:
        return str(error)  # returned, not raised: Ray would start the workers again, and they would come to the same
    return None
