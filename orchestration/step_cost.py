"""What a training step and a lift cost, counted by torch without computing anything.

Networks are run with torch's fake tensors, which have shapes and no values: the largest published recipe is counted in
seconds, without its memory. Operations are those of matrix products and convolutions, 2 for each
multiply-add, forward and backward; everything else (norms, activations, drops, copies) is counted by the bytes that it
reads and writes, each operation as a kernel of its own. Frozen parts are counted forward only. A network whose shapes
depend on values (Uplift and Upsample when it lifts) is really run, on a few windows.

Legend: N windows, L frames, J joints.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from posegrid.datasets.options import from_values
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.registry import config_class, crop_size
from posegrid.orchestration import checkpoint
from posegrid.orchestration.lifting import chosen_chain
from posegrid.orchestration.settings import Settings

_WINDOWS = (2, 4)
"""Windows of the two steps that are counted: what does not grow with them belongs to the weights. Batch norms need more
than one."""
_OPTIMIZER_BYTES = 28
"""Of a weight in a step of Adam: four float32 numbers read (weight, gradient, two moments), three written."""
_AVERAGE_BYTES = 12
"""Of a weight whose average is kept: two numbers read, one written."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one pass over a batch costs."""

    flops: float = 0.0
    """Floating-point operations of matrix products and convolutions, for each window."""
    traffic: float = 0.0
    """Bytes that all other operations read and write, for each window."""
    kernels: float = 0.0
    """Operations that a device starts, whatever the number of windows."""
    fixed: float = 0.0
    """Bytes that they read and write whatever the number of windows, such as those of weights."""

    def __add__(self, other: "Cost") -> "Cost":
        mine, theirs = asdict(self), asdict(other)
        return Cost(**{name: mine[name] + theirs[name] for name in mine})

    def times(self, number: float) -> "Cost":
        """The cost of that many; negative numbers subtract."""
        return Cost(**{name: number * value for name, value in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """What the passes of a network cost under a recipe."""

    step: Cost
    """Forward and backward pass of the loss, in training mode."""
    loss: Cost
    """The loss alone, as validation computes it."""
    lift_once: Cost
    """A lift of one hypothesis, as validation by MPJPE does it."""
    lift: Cost
    """A lift as the recipe scores: all hypotheses, and the mirrored input if it asks for that."""
    update: float
    """Bytes that the optimizer reads and writes in a step."""
    parameters: int
    """Weights that are trained."""


def network_cost(settings: Settings, shape: PoseShape) -> NetworkCost:
    """Count the passes of the network that settings describe (a conditioner: their resolved `upstream`).

    Raises ValueError if the network cannot be built.
    """
    with torch.device("meta"):  # but tables that say "cpu", such as schedules, are made as they are
        model = checkpoint.build(settings, shape)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            return _counted(model.to_empty(device="cpu"), settings, shape)
    except (DataDependentOutputException, DynamicOutputShapeException, NotImplementedError):
        return _counted(checkpoint.build(settings, shape), settings, shape)


def network_key(settings: Settings) -> str:
    """Settings with equal keys cost the same."""
    chosen = settings.evaluation
    scoring = [chosen.hypotheses, chosen.sampler, chosen.steps, chosen.flip]
    return json.dumps(
        [settings.model, _models_above(settings), settings.data.frames, scoring, settings.training.ema > 0]
    )


def _models_above(settings: Settings) -> list[dict[str, Any]]:
    models, above = [], settings.upstream
    while above is not None:
        models.append(above["model"])
        above = above["upstream"]
    return models


def _counted(model: Lifter, settings: Settings, shape: PoseShape) -> NetworkCost:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    batches, generator = [_batch(settings, shape, windows) for windows in _WINDOWS], torch.Generator()
    model.train()
    step = _count(lambda batch: model.loss(batch, generator).backward(), batches)
    model.eval()
    with torch.no_grad():
        loss = _count(lambda batch: model.loss(batch, generator), batches)
        once, lift = _lifts(model, settings, batches, generator)
    number = sum(weight.numel() for weight in weights)
    return NetworkCost(
        step=step,
        loss=loss,
        lift_once=once,
        lift=lift.times(2 if settings.evaluation.flip else 1),
        update=number * (_OPTIMIZER_BYTES + (_AVERAGE_BYTES if settings.training.ema else 0)),
        parameters=number,
    )


def _lifts(model: Lifter, settings: Settings, batches: list[Batch], generator: torch.Generator) -> tuple[Cost, Cost]:
    """A lift of one hypothesis in the model's own way, and one as the recipe scores.

    Of a diffusion model two and three evaluations are counted (one and two where it has two steps): the rest is a
    multiple of the difference.
    """

    def lifted(hypotheses: int = 1) -> Cost:
        return _count(lambda batch: model.lift(batch, generator, hypotheses), batches)

    own = model.chain
    if own is None:
        whole = lifted()
        return whole, whole
    most = settings.model.get("steps", 1)
    if settings.model.get("steps") == 1:  # the difference of a step is that of a hypothesis
        whole = lifted()
        each = lifted(2) + whole.times(-1)
        return whole, whole + replace(each.times(settings.evaluation.hypotheses - 1), kernels=0.0, fixed=0.0)
    few = 1 if settings.model.get("steps") == 2 else 2
    found = []
    for steps in (few, few + 1):
        model.chain = replace(own, steps=steps)
        found.append(lifted())
    model.chain = own
    each = found[1] + found[0].times(-1)
    fixed = found[0] + each.times(-few)
    chain = chosen_chain(model, settings)
    assert chain is not None
    # hypotheses are sampled side by side: more windows in the same number of kernels
    one, all_of = (fixed + each.times(chosen.steps or most) for chosen in (own, chain))
    extra = each.times((settings.evaluation.hypotheses - 1) * (chain.steps or most))
    return one, all_of + replace(extra, kernels=0.0, fixed=0.0)


def _batch(settings: Settings, shape: PoseShape, windows: int) -> Batch:
    """Windows that hold zeros, of which everything is seen: costs hardly depend on it."""
    grid = (windows, shape.frames, shape.joints)
    name = settings.model["name"]
    values = {key: value for key, value in settings.model.items() if key != "name"}
    size = crop_size(name, from_values(config_class(name), values, f"recipe {settings.name}, table [model]"))
    images = None if size is None else torch.zeros(*grid[:2], *size, 3, dtype=torch.uint8)
    return Batch(
        keypoints=torch.zeros(*grid, 2),
        visible=torch.ones(grid, dtype=torch.bool),
        poses=torch.zeros(*grid, 3),
        images=images,
    )


def _count(run: Callable[[Batch], object], batches: list[Batch]) -> Cost:
    found = []
    for batch in batches:
        with _Operations() as seen:
            run(batch)
        found.append(seen)
    few, many = found
    more = _WINDOWS[1] - _WINDOWS[0]
    traffic = (many.bytes - few.bytes) / more
    return Cost(
        flops=(many.flops - few.flops) / more,
        traffic=traffic,
        kernels=float(many.kernels),
        fixed=few.bytes - _WINDOWS[0] * traffic,
    )


_FREE = frozenset(
    f"aten::{name}" for name in ("_unsafe_view", "_reshape_alias", "detach", "empty", "empty_like", "empty_strided")
) | {"prim::device"}
"""Operations that move nothing."""


class _Operations(TorchDispatchMode):
    """Sees all operations: those of products by torch's own formulas, the others by their bytes.

    torch's counter knows the same formulas; it also tells which module they belong to, which takes most of its time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.bytes = 0
        self.kernels = 0
        self._formulas = {**flop_registry, **_fused_on_cpu()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.is_view or func._schema.name in _FREE:
            return out
        self.kernels += 1
        formula = self._formulas.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        else:
            tensors = [value for value in tree_leaves((args, kwargs, out)) if isinstance(value, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


def _fused_on_cpu() -> dict[Any, Callable[..., int]]:
    """Formulas of fused attention on a CPU, which torch does not have."""

    def forward(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> int:
        return sdpa_flop_count(query.shape, key.shape, value.shape)

    def backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> int:
        return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)

    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
