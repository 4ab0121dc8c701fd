"""Run a function on several gloo processes of this machine, as Ray Train would, without Ray."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.nn.parallel import DistributedDataParallel

from posegrid.datasets.store import open_store
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.evaluation import evaluate
from posegrid.orchestration.loop import train
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


def run(world: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(workers, *arguments)` on `world` processes and wait for all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(_enter, (world, port, work, arguments), nprocs=world)


def _enter(rank: int, world: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        work(Workers(rank=rank, world=world), *arguments)
    finally:
        dist.destroy_process_group()


def train_and_score(workers: Workers, store_path: str, plain: dict[str, Any], out: str) -> None:
    """Train, score one pattern, and let the first worker write losses and metrics."""
    settings, store = Settings.from_plain(plain), open_store(Path(store_path), verify=False)
    torch.manual_seed(settings.training.seed)
    model = checkpoint.build(settings, pose_shape(store, settings.data))
    losses: list[float] = []
    wrapped = DistributedDataParallel(model) if workers.world > 1 else model
    weights = train(model, wrapped, store, settings, workers, lambda m, _: losses.append(m["train/loss"]))
    model.load_state_dict(weights)
    scores = evaluate(model, store, settings, settings.occlusion, workers)
    if workers.first:
        torch.save({"losses": losses, "metrics": scores.sums.action_wise()}, out)
