"""What it saves to compute DiffHPE-Wrapper's condition once and to sample its hypotheses side by side.

    python -m posegrid.experiments.benchmarks.sampling
    python -m posegrid.experiments.benchmarks.sampling --run RUN --data STORE [--every 10]

The first compares `DiffHPE.sample` with a sampler that runs the frozen conditioner again at every step and takes one
hypothesis after the other, as the released code does: same weights (random ones, of the published size), same noise,
results compared. Conditioners of 64 and of 512 channels; 5 hypotheses and 50 steps unless told otherwise. Rounds are
interleaved, medians of wall seconds reported. The second says the fewest steps of each sampler whose error exceeds that
of the full chain by 0.5 mm at most, for a trained run given by its id or as a model file. Nothing is asserted about
time: figures depend on the machine, see README.md.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from posegrid.datasets.skeletons import H36M_17
from posegrid.experiments.scoring import trained
from posegrid.models.diffhpe import Config, DiffHPE
from posegrid.models.diffusion.gaussian import predicting_noise
from posegrid.models.interface import PoseShape
from posegrid.models.mixste import Config as LifterConfig
from posegrid.models.mixste import MixSTE
from posegrid.orchestration.sampler_study import fewest_steps, study_samplers, usual_choices
from posegrid.orchestration.settings import occlusion_values
from posegrid.orchestration.tracking import Tracking, sqlite_uri

_WITHIN_MM = 0.5


def wrapper(width: int, steps: int, frames: int) -> DiffHPE:
    """DiffHPE-Wrapper of the published size around a lifter of that width, with random weights, none of them zero."""
    pose = PoseShape(
        frames=frames,
        joints=len(H36M_17),
        parents=H36M_17.parents,
        left=H36M_17.left,
        right=H36M_17.right,
    )
    torch.manual_seed(0)
    lifter = MixSTE(LifterConfig(width=width), pose)
    model = DiffHPE(Config(conditioning="lifter", dropout=0.27, steps=steps), pose, lifter)
    torch.nn.init.normal_(model.predictor.output.weight, std=0.1)  # it starts at zero and would hide every difference
    return model.eval()


@torch.no_grad()
def one_by_one(model: DiffHPE, keypoints: Tensor, noise: Tensor) -> Tensor:
    """(B, H, L, J, 3) from noise (draws, B, H, L, J, 3): hypothesis by hypothesis, the condition anew at every step."""
    schedule = model.diffusion.schedule

    def network(noisy: Tensor, step: int) -> Tensor:
        return model.predict_noise(noisy, torch.tensor([step], device=noisy.device), model.condition(keypoints))

    def chain(hypothesis: int) -> Tensor:
        return model.chain.run(
            predicting_noise(network, schedule), schedule, lambda draw: noise[draw, :, hypothesis].clone()
        )

    return torch.stack([chain(hypothesis) for hypothesis in range(noise.shape[2])], dim=1)


def compare(width: int, given: argparse.Namespace) -> None:
    """Print seconds of both ways and their ratio."""
    device = torch.device(given.device)
    model = wrapper(width, given.steps, given.frames).to(device)
    generator = torch.Generator().manual_seed(0)
    shape = (given.windows, given.hypotheses, given.frames, len(H36M_17), 3)
    noise = torch.randn(given.steps, *shape, generator=generator).to(device)
    keypoints = torch.randn(given.windows, given.frames, len(H36M_17), 2, generator=generator).to(device)
    ways: dict[str, Callable[[], Tensor]] = {
        "once, side by side": lambda: model.sample(keypoints, lambda draw: noise[draw]),
        "every step, one by one": lambda: one_by_one(model, keypoints, noise),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    results = {}
    for number in range(given.rounds + given.warm):
        for way, run in ways.items():
            began = time.perf_counter()
            results[way] = run().cpu()  # waits for the device
            if number >= given.warm:
                seconds[way].append(time.perf_counter() - began)
    first, second = results.values()
    apart = (first - second).abs().max().item() / first.abs().max().item()
    fast, slow = (float(np.median(times)) for times in seconds.values())
    print(
        f"conditioner {width} wide, {given.windows} windows of {given.frames} frames, {given.hypotheses} hypotheses, "
        f"{given.steps} steps, {given.device}, {torch.get_num_threads()} threads: {fast:.2f} s against {slow:.2f} s, "
        f"ratio {slow / fast:.2f}; results differ by {apart:.1e} of the largest value",
        flush=True,
    )


def fewest(given: argparse.Namespace) -> None:
    """Print the study of a trained run, mean of the hypotheses, and which few steps serve."""
    model, settings, store = trained(
        given.run, given.data, lambda: Tracking.existing(sqlite_uri(given.home / "mlflow.db"))
    )
    settings = replace(settings, evaluation=replace(settings.evaluation, every=given.every))
    choices = replace(usual_choices(model, settings), hypotheses=(given.hypotheses,), aggregations=("mean",))
    points = study_samplers(model, store, settings, occlusion_values(given.occlusion, "--occlusion"), choices)
    for point in points:
        print(f"{point.sampler} {point.steps} steps: {point.mpjpe_mm:.2f} mm, {point.ms_per_window:.2f} ms per window")
    for name, point in fewest_steps(points, _WITHIN_MM).items():
        print(f"within {_WITHIN_MM} mm of the full chain with {name}: {point.steps} steps")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 512], help="channels of the conditioner")
    parser.add_argument("--windows", type=int, default=4, help="windows sampled together")
    parser.add_argument("--frames", type=int, default=27, help="frames of a window")
    parser.add_argument("--hypotheses", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50, help="steps of the chain")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds")
    parser.add_argument("--warm", type=int, default=1, help="rounds before them that do not count")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--run", help="run id of a trained diffusion model, or path of a model file")
    parser.add_argument("--data", help="store to score it on")
    parser.add_argument("--home", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--occlusion", default="none", help="test pattern")
    parser.add_argument("--every", type=int, default=1, help="score every n-th window")
    given = parser.parse_args()
    if given.run:
        if not given.data:
            parser.error("--data is missing: the store on which the run is scored")
        fewest(given)
        return
    for width in given.widths:
        compare(width, given)


if __name__ == "__main__":
    main()
