"""Train and score on several gloo processes of this machine, as Ray Train would, without Ray."""

import socket
from contextlib import ExitStack
from multiprocessing import set_forkserver_preload
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.nn.parallel import DistributedDataParallel

from posegrid.datasets.store import Store, open_store
from posegrid.models.interface import Batch, Lifter
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.evaluation import evaluate
from posegrid.orchestration.loop import train
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers

Results = dict[str, Any]
"""Training loss of every epoch ("losses") and test metrics ("metrics")."""


def run(store: Store, runs: dict[str, tuple[int, Settings]], folder: Path) -> dict[str, Results]:
    """Name -> results of training and scoring settings by a number of workers.

    Of the name "short", the last worker has memory for two windows in a training step.
    """
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in runs]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
    most = max(world for world, _ in runs.values())
    plain = [
        (name, world, settings.plain(), port)
        for (name, (world, settings)), port in zip(runs.items(), ports, strict=True)
    ]
    # torch is imported once, by a process of which the others are forks
    set_forkserver_preload(["posegrid.orchestration.loop", "posegrid.orchestration.evaluation"])
    arguments = (plain, str(store.path), str(folder))
    multiprocessing.start_processes(_enter, arguments, nprocs=most, start_method="forkserver")
    return {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in runs}


def _enter(rank: int, runs: list[tuple[str, int, dict[str, Any], int]], store: str, folder: str) -> None:
    torch.set_num_threads(1)
    for name, world, plain, port in runs:
        if rank >= world:
            continue
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
        try:
            workers, short = Workers(rank=rank, world=world), name == "short" and rank == world - 1
            results = trained(workers, Settings.from_plain(plain), open_store(Path(store), verify=False), short=short)
        finally:
            dist.destroy_process_group()
        if rank == 0:
            torch.save(results, Path(folder) / f"{name}.pt")


def trained(workers: Workers, settings: Settings, store: Store, *, short: bool = False) -> Results:
    """What one worker returns."""
    torch.manual_seed(settings.training.seed)
    model = checkpoint.build(settings, pose_shape(store, settings.data))
    if short:
        model.register_forward_pre_hook(_has_room_for_two)
    losses: list[float] = []
    wrapped = DistributedDataParallel(model) if workers.world > 1 else model
    weights = train(model, wrapped, store, settings, workers, lambda m, _: losses.append(m["train/loss"]))
    model.load_state_dict(weights)
    scores = evaluate(model, store, settings, settings.occlusion, workers)
    return {"losses": losses, "metrics": scores.sums.action_wise()}


def _has_room_for_two(model: Lifter, given: tuple[Batch, Any]) -> None:
    if model.training and len(given[0].keypoints) > 2:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")
