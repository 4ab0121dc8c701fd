"""Run stages one after another in this process: no Ray, one worker. For tests, debugging and small machines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from posegrid.orchestration import checkpoint
from posegrid.orchestration.grid import Study, Work
from posegrid.orchestration.saved_states import STATE, furthest
from posegrid.orchestration.stage import run_stage
from posegrid.orchestration.task import StageTask
from posegrid.orchestration.workers import Workers


def run_local(
    study: Study, work: list[Work], storage: Path, progress: Callable[[str, dict[str, float]], None]
) -> dict[str, str]:
    """Run everything that is left of a study. `progress(stage key, metrics)` is called after each epoch.

    Killed at any moment, the same call continues from the last saved epoch. Returns stage key -> reason for every stage
    that failed or could not start because its conditioner failed.
    """
    failed: dict[str, str] = {}
    for item in work:
        if not failed.keys().isdisjoint(item.stage.needs):
            failed[item.stage.key] = "its conditioner failed"
            continue
        task = study.task(item)
        try:
            run_task(task, storage, progress)
        except Exception as error:  # one stage must not end the study
            failed[task.key] = f"{type(error).__name__}: {error}"
        study.finish(task.key, failed=failed.get(task.key))
    return failed


def run_task(task: StageTask, storage: Path, progress: Callable[[str, dict[str, float]], None]) -> None:
    """Run one stage with its state under `storage`, continuing from the state that lies there."""
    folder = storage / f"{task.key}-{task.run_id[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / STATE

    def save(metrics: dict[str, float], state: Callable[[], dict[str, Any]] | None) -> None:
        if state is not None:
            checkpoint.write(file, state())
        progress(task.key, metrics)

    run_stage(task, Workers(device=torch.device("cpu")), save, resume=furthest(str(folder)), state=str(folder))
