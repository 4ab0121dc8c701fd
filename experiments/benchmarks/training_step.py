"""How long a training step of MixSTE takes, against the network written plainly, and what memory a window needs.

    python -m posegrid.experiments.benchmarks.training_step

compares steps (gradients to zero, forward, backward, AdamW) of the published network, 512 wide and 8 deep, with those
of `plain_mixste.py`: the same weights, explicit softmax attention, float32, no compiler. The two must return the same
poses and gradients, or nothing is measured. Steps of all contenders and a large matrix product take turns in every
round, so that what else the machine does meets them alike; medians are printed, in wall time and in processor time.
On an accelerator, where there is one, the contenders are also bfloat16, and bfloat16 compiled.

The share of the matrix-product rate is FLOPs of the plain network (forward and backward, counted by torch) over time,
divided by the rate of a large product of numbers of the same kind in the same rounds. Activation memory is what
autograd saves for the backward pass, without weights. Nothing but equality is asserted: figures depend on the machine,
see README.md.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from posegrid.experiments.benchmarks.plain_mixste import PlainMixSTE
from posegrid.models import losses
from posegrid.models.interface import Batch, PoseShape
from posegrid.models.joint_order import H36M_17_PARENTS
from posegrid.models.mixste import Config, MixSTE
from posegrid.orchestration.compiled_step import CompiledStep

_TOLERANCE = 2e-4
"""Largest difference of poses in metres, and of gradients relative to the largest, that counts as equal."""


@dataclass(kw_only=True)
class Contender:
    """One way to compute a training step."""

    name: str
    step: Callable[[], object]
    kind: torch.dtype
    """Numbers of its matrix products."""
    wall: list[float] = field(default_factory=list)
    """Seconds of every round."""
    busy: list[float] = field(default_factory=list)
    """Seconds of the processor in every round, over all threads."""


def made_up(frames: int, windows: int, device: torch.device) -> Batch:
    """Windows of noise: the time of a step does not depend on the values."""
    generator = torch.Generator().manual_seed(0)
    keypoints, poses = (torch.randn(windows, frames, 17, width, generator=generator) * 0.3 for width in (2, 3))
    visible = torch.ones(keypoints.shape[:-1], dtype=torch.bool)
    return Batch(keypoints=keypoints.to(device), visible=visible.to(device), poses=poses.to(device))


def network(frames: int, config: Config, device: torch.device) -> MixSTE:
    """The network with tables that are not zero."""
    torch.manual_seed(0)
    shape = PoseShape(frames=frames, joints=17, parents=H36M_17_PARENTS, left=(), right=())
    model = MixSTE(config, shape)
    for table in (model.joint_position, model.frame_position):
        nn.init.normal_(table, std=0.02)
    return model.to(device)


def plain_loss(model: nn.Module, batch: Batch) -> Tensor:
    """What `MixSTE.loss` computes."""
    assert batch.poses is not None
    return losses.mse(model(batch.keypoints), batch.poses)


def check_equal(ours: MixSTE, plain: PlainMixSTE, batch: Batch) -> None:
    """Raises RuntimeError unless both return the same poses and the same gradients of the first and last weights."""
    generator = torch.Generator(device=batch.keypoints.device)
    ours.eval(), plain.eval()
    poses = ours.lift(batch, generator)[:, 0] - plain(batch.keypoints)
    found = [poses.abs().max().item()]
    wanted = torch.autograd.grad(plain_loss(plain, batch), [plain.embed.weight, plain.head.weight])
    given = torch.autograd.grad(ours.loss(batch, generator), [ours.embed.weight, ours.head.weight])
    found += [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(given, wanted, strict=True)]
    if max(found) > _TOLERANCE:
        raise RuntimeError(f"the networks differ: poses by {found[0]:.1e} m, gradients by {max(found[1:]):.1e}")
    print(f"  same weights, same results: poses within {found[0]:.1e} m, gradients within {max(found[1:]):.1e}")


def activation_bytes(loss: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes that autograd saves for the backward pass: every storage once, weights not at all."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    saved: dict[int, int] = {}
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # alive, so that no address serves twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    return sum(saved.values())


def contenders(frames: int, batch: Batch, config: Config, variants: list[str]) -> list[Contender]:
    """Plain first; then ours in every variant: "float32", "bf16", "float32 compiled", "bf16 compiled"."""
    device = batch.keypoints.device
    ours = network(frames, config, device)
    plain = PlainMixSTE(ours).to(device)
    check_equal(ours, plain, batch)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=4e-5, weight_decay=0.1)
    found = [
        Contender(
            name="plain float32",
            step=partial(_step, partial(plain_loss, plain.train(), batch), optimizer),
            kind=torch.float32,
        )
    ]
    _print_memory("plain float32", partial(plain_loss, plain, batch), plain, len(batch.keypoints))
    generator = torch.Generator(device=device)
    for variant in variants:
        model = copy.deepcopy(ours).train()
        low = variant.startswith("bf16")
        called = CompiledStep(model) if variant.endswith("compiled") else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-5, weight_decay=0.1, fused=True)
        loss = partial(_loss, called, batch, generator, low)
        kind = torch.bfloat16 if low else torch.float32
        found.append(Contender(name=f"ours {variant}", step=partial(_step, loss, optimizer), kind=kind))
        if called is model:
            _print_memory(f"ours {variant}", loss, model, len(batch.keypoints))
    return found


def _loss(model: Callable[..., Tensor], batch: Batch, generator: torch.Generator, low: bool) -> Tensor:
    generator.manual_seed(0)
    with torch.autocast(batch.keypoints.device.type, torch.bfloat16, enabled=low):
        return model(batch, generator)


def _step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss().backward()
    optimizer.step()


def _print_memory(name: str, loss: Callable[[], Tensor], model: nn.Module, windows: int) -> None:
    print(f"  {name}: {activation_bytes(loss, model) / windows / 1e6:,.0f} MB of activations for a window")


def measure(every: list[Contender], rounds: int, device: torch.device) -> None:
    """Take turns for some rounds, after two that do not count: a compiled step notes its draws, then compiles."""
    for turn in range(-1, rounds + 1):
        for contender in every:
            wait(device)
            wall, busy = time.perf_counter(), time.process_time()
            contender.step()
            wait(device)
            if turn > 0:
                contender.wall.append(time.perf_counter() - wall)
                contender.busy.append(time.process_time() - busy)


def wait(device: torch.device) -> None:
    """Until the device has done its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def compare(frames: int, windows: int, rounds: int, config: Config, variants: list[str], device: torch.device) -> None:
    """Print times, ratios and shares of the matrix-product rate for one length of windows."""
    print(f"{frames} frames, {windows} windows, on {device.type}:")
    batch = made_up(frames, windows, device)
    every = contenders(frames, batch, config, variants)
    with FlopCounterMode(display=False) as counter:
        plain_loss(PlainMixSTE(network(frames, config, device)), made_up(frames, 1, device)).backward()
    flops = counter.get_total_flops() * windows
    size = 2048 if device.type == "cpu" else 8192
    products = []
    for kind in sorted({one.kind for one in every}, key=str):
        square = torch.randn(size, size, device=device).to(kind)
        step = partial(torch.mm, square, square, out=torch.empty_like(square))
        products.append(Contender(name=f"{size} x {size} product, {kind}", step=step, kind=kind))
    measure(every + products, rounds, device)
    rates = {product.kind: 2 * size**3 / np.median(product.wall) for product in products}
    print(f"  a step is {flops / 1e9:,.0f} GFLOPs")
    for product in products:
        print(f"  {product.name}: {rates[product.kind] / 1e9:,.1f} GFLOP/s")
    first = every[0]
    for one in every:
        wall, busy = np.median(one.wall), np.median(one.busy)
        print(
            f"  {one.name}: {wall:.3f} s ({np.min(one.wall):.3f}-{np.max(one.wall):.3f}), "
            f"{busy:.3f} s of the processor; {np.median(first.wall) / wall:.2f} times as fast as plain "
            f"(by the processor {np.median(first.busy) / busy:.2f}); "
            f"{100 * flops / wall / rates[one.kind]:.0f} % of the product's rate"
        )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[27, 81], help="lengths of windows")
    parser.add_argument("--tokens", type=int, default=81, help="frames in a step, over all of its windows")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--width", type=int, default=512, help="width of the network")
    parser.add_argument("--depth", type=int, default=8, help="depth of the network")
    parser.add_argument("--threads", type=int, help="threads of the CPU; all cores if not given")
    parser.add_argument("--variants", nargs="+", help='of ours: "float32", "bf16", "float32 compiled", "bf16 compiled"')
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = device or torch.device("cpu")
    standard = ["float32"] if device.type == "cpu" else ["float32", "bf16", "bf16 compiled"]
    config = Config(width=given.width, depth=given.depth)
    print(f"torch {torch.__version__}, {device.type}, {torch.get_num_threads()} threads")
    for frames in given.frames:
        windows = max(given.tokens // frames, 1)
        compare(frames, windows, given.rounds, config, given.variants or standard, device)


if __name__ == "__main__":
    main()
