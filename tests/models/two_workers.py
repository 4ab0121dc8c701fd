"""One worker of two, run as a script by test_two_workers.py: python two_workers.py RANK WORLD FOLDER.

Trains small models for a few steps on its rows of fixed batches and saves what it got in FOLDER/RANK-of-WORLD.pt.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from posegrid.models.blocks.batch_norm import BatchNorm1d
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.joint_order import H36M_17_PARENTS
from posegrid.models.registry import build_model, config_class, model_names

MODELS_IMPORTED_WITH_THE_REGISTRY = sorted(name for name in model_names() if f"posegrid.models.{name}" in sys.modules)
POSE = PoseShape(frames=4, joints=17, parents=H36M_17_PARENTS, left=(4, 5, 6, 11, 12, 13), right=(1, 2, 3, 14, 15, 16))
MIXSTE = {"width": 16, "depth": 2, "heads": 2, "drop_path": 0.3, "loss": "weighted", "square_gradient": True}
DIFFHPE = {"channels": 16, "blocks": 2, "step_embedding": 16, "dropout": 0.3, "conditioning": "lifter"}
OTHERS = {
    "mlp": {"width": 16, "dropout": 0.3},
    "d3dp": {"width": 16, "depth": 2, "heads": 2, "drop_path": 0.3, "square_gradient": True},
    "stcformer": {"width": 16, "depth": 2, "heads": 2, "dropout": 0.3, "part_spatial": 1.0},
    "videopose3d": {"channels": 16, "dropout": 0.3},
    "poseformer": {"joint_width": 4, "depth": 2, "heads": 2, "drop_path": 0.3},
    "simple_baseline": {"width": 16, "blocks": 1, "dropout": 0.3},
    "strided_transformer": {"width": 8, "hidden": 16, "depth": 1, "heads": 2, "dropout": 0.3, "attention_dropout": 0.3},
    "uplift_upsample": {
        "width": 32,
        "spatial_width": 16,
        "spatial_depth": 2,
        "temporal_depth": 2,
        "heads": 2,
        "drop_path": 0.3,
        "strides": (2,),
        "paddings": (0,),
    },
}
FRAMES = {"videopose3d": 3, "strided_transformer": 3}
"""Window lengths of those that cannot have four frames."""


def batch_norm_results(rank: int, world: int) -> dict[str, torch.Tensor]:
    """Outputs, gradients and running statistics of one training step; the workers hold unequal shares."""
    results = {}
    for name, shape in (("flat", (10, 3)), ("grid", (10, 3, 4))):
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(shape, generator=generator) * 2 + 30
        weights = torch.randn(shape, generator=generator)
        share = slice(None) if world == 1 else (slice(0, 3) if rank == 0 else slice(3, None))
        layer = BatchNorm1d(3)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
            layer.bias.copy_(torch.tensor([1.0, -1.0, 0.0]))
        inputs = values[share].clone().requires_grad_()
        outputs = layer(inputs)
        # The loss of a run is the mean of the workers' losses: the sum of theirs is world times that.
        (outputs * weights[share]).sum().backward()
        results |= {f"{name}.output": outputs.detach(), f"{name}.input_gradient": inputs.grad}
        for parameter in ("weight", "bias"):
            gradient = getattr(layer, parameter).grad
            if world > 1:
                dist.all_reduce(gradient)
            results[f"{name}.{parameter}_gradient"] = gradient
        results |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}
    return results


def trained(rank: int, world: int, model: Lifter) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Global losses and final state after four steps."""
    call: nn.Module = DistributedDataParallel(model) if world > 1 else model
    generator = torch.Generator().manual_seed(3)
    data = torch.Generator().manual_seed(4)
    losses = []
    for _ in range(4):
        poses = torch.randn(6, model.pose.frames, 17, 3, generator=data) * 0.3
        keypoints = torch.randn(6, model.pose.frames, 17, 2, generator=data)
        rows = slice(rank, None, world)
        batch = Batch(
            keypoints=keypoints[rows],
            visible=torch.ones(keypoints[rows].shape[:-1], dtype=torch.bool),
            poses=poses[rows],
            rank=rank,
            world=world,
        )
        model.zero_grad()
        loss = call(batch, generator)
        loss.backward()
        with torch.no_grad():  # gradient descent by hand: importing the optimizers would double the time of this script
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.05 * parameter.grad)
        value = loss.detach().clone()
        if world > 1:
            dist.all_reduce(value)
        losses.append(value.item() / world)
    return losses, model.state_dict()


def small_models() -> dict[str, Lifter]:
    torch.manual_seed(0)
    lifter = build_model("mixste", config_class("mixste")(**MIXSTE), POSE)
    conditioner = build_model("mixste", config_class("mixste")(**MIXSTE), POSE)
    wrapper = build_model("diffhpe", config_class("diffhpe")(**DIFFHPE), POSE, conditioner)
    with torch.no_grad():
        for parameter in wrapper.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)  # layers that start at zero take part
    models = {"mixste": lifter, "diffhpe": wrapper}
    for name, options in OTHERS.items():
        pose = replace(POSE, frames=FRAMES.get(name, POSE.frames))
        models[name] = build_model(name, config_class(name)(**options), pose)
    return models


def main(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=world)
    results = {"batch_norm": batch_norm_results(rank, world), "imported": MODELS_IMPORTED_WITH_THE_REGISTRY}
    for name, model in small_models().items():
        losses, state = trained(rank, world, model.train())
        results[name] = {"losses": torch.tensor(losses), **state}
    torch.save(results, folder / f"{rank}-of-{world}.pt")
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
