"""Small models, smooth synthetic windows and the loader of the numerical parity fixtures."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.joint_order import H36M_17_PARENTS
from posegrid.models.registry import build_model, config_class

PARITY = Path(__file__).parents[3] / "shared" / "parity"

CONDITIONERS: dict[str, dict[str, Any]] = {
    "mixste": {"width": 16, "depth": 2, "heads": 4},
    "di2pose_tokens": {"tokens": 8, "levels": (5, 5), "encoder_width": 16, "encoder_blocks": 1, "decoder_width": 16},
}
SMALL_UPLIFT = {"width": 24, "spatial_width": 8, "spatial_depth": 1, "temporal_depth": 2, "heads": 2, "drop_path": 0.0}
SMALL_REFINER = {"width": 32, "depth": 1, "heads": 2, "dropout": 0.0}
SMALL_TOKENS = {"tokens": 16, "levels": (5, 5, 5), "encoder_width": 32, "encoder_blocks": 1, "decoder_width": 32}
SMALL_DIFFHPE = {"channels": 32, "blocks": 2, "step_embedding": 16, "steps": 20, "dropout": 0.0}


@dataclass(frozen=True)
class Case:
    """One small model of the battery."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    overfit_mm: float = 5.0
    """Error that training on eight windows must reach (regressors)."""
    overfit_steps: int = 130
    """Steps of that training."""
    overfit_frames: int = 2
    """Frames of those windows."""
    overfit_copies: int = 1
    """Times each of them stands in the batch. Running variances are unbiased: of n values, 1 + 1/n too large."""
    frames: int = 5
    """Frames of all other windows of the battery."""
    seen_every: int = 1
    """Only every n-th frame of a window has keypoints, the second one first: the others are hidden."""
    any_skeleton: dict[str, Any] = field(default_factory=dict)
    """Options that free the model from the joint order of Human3.6M-17."""
    conditioned: bool = False
    conditioner: str = "mixste"
    """Model that it is conditioned on."""
    quantised: bool = False
    """Its poses can be no others than its conditioner, a tokeniser, can say."""
    images: bool = False
    """Reads crops; they are of 32 x 24 pixels here."""
    diffusion: bool = False
    """Lifts by sampling."""
    noise_loss: bool = True
    """A diffusion model whose loss is that of the noise, 1 for predicting nothing; else it is an error of poses."""

    def config(self) -> Any:
        return config_class(self.name)(**self.options)

    def build(self, pose: PoseShape, seed: int = 0) -> Lifter:
        torch.manual_seed(seed)
        conditioner = None
        if self.conditioned:
            options = CONDITIONERS[self.conditioner]
            conditioner = build_model(self.conditioner, config_class(self.conditioner)(**options), pose)
        return build_model(self.name, self.config(), pose, conditioner)


CASES = {
    "mlp": Case("mlp", overfit_steps=300),
    "mlp-window": Case("mlp", {"sees": "window", "dropout": 0.1}, overfit_steps=300),
    "mixste": Case("mixste", {"width": 32, "depth": 2, "heads": 4, "drop_path": 0.0}, overfit_steps=320),
    # The smoothness term pulls against the target's motion, so the error stays a little higher.
    "mixste-weighted": Case(
        "mixste",
        {"width": 32, "depth": 2, "heads": 4, "loss": "weighted"},
        40.0,
        150,
        any_skeleton={"loss": "mse"},
    ),
    "diffhpe-2d": Case("diffhpe", SMALL_DIFFHPE, any_skeleton={"non_local": "none"}, diffusion=True),
    "diffhpe-wrapper": Case(
        "diffhpe",
        {**SMALL_DIFFHPE, "conditioning": "lifter", "dropout": 0.05},
        any_skeleton={"non_local": "none"},
        conditioned=True,
        diffusion=True,
    ),
    # Some 800 mm of error, of an untrained lifter. Steps of little noise learn slowly, so there are few.
    "d3prefiner": Case(
        "d3prefiner", {**SMALL_REFINER, "noise": "lifter", "loss": "mse", "steps": 4}, 40.0, 250, conditioned=True
    ),
    "d3prefiner-one-step": Case(
        "d3prefiner",
        {**SMALL_REFINER, "noise": "lifter", "diffusion": False, "normalise": "absolute", "loss": "mse"},
        20.0,
        250,
        conditioned=True,
    ),
    "d3dp": Case(
        "d3dp",
        # mirror images are no part of these eight windows, and some joints lie beyond the usual bound
        {"width": 32, "depth": 1, "heads": 4, "drop_path": 0.0, "steps": 100, "flip": False, "bound": 2.0},
        overfit_mm=50.0,
        overfit_steps=250,
        diffusion=True,
        noise_loss=False,
    ),
    "stcformer": Case("stcformer", {"width": 32, "depth": 2, "heads": 2, "dropout": 0.0}, overfit_steps=250),
    "stcformer-3dhp": Case(
        "stcformer", {"width": 32, "depth": 2, "heads": 1, "dropout": 0.0, "release": "mpi_inf_3dhp"}, overfit_steps=250
    ),
    # Their windows must be odd, or powers of three: three frames to overfit.
    "videopose3d": Case("videopose3d", {"channels": 64, "dropout": 0.0}, 5.0, 500, 3, 64, frames=9),
    "videopose3d-causal": Case("videopose3d", {"channels": 64, "dropout": 0.0, "causal": True}, 5.0, 500, 3, 64, 9),
    "poseformer": Case("poseformer", {"joint_width": 8, "depth": 2, "heads": 2, "drop_path": 0.0}, overfit_steps=350),
    "simple-baseline": Case(
        "simple_baseline",
        {"width": 64, "dropout": 0.0, "norm_momentum": 0.1},
        overfit_steps=400,
        overfit_copies=32,
        any_skeleton={"reads": "all"},
    ),
    "simple-baseline-plain": Case(
        "simple_baseline",
        {"width": 64, "dropout": 0.0, "norm_momentum": 0.1, "standardise": False, "reads": "all", "root": "predicted"},
        overfit_steps=400,
        overfit_copies=32,
    ),
    "uplift-upsample": Case(
        "uplift_upsample",
        {**SMALL_UPLIFT, "strides": (3, 3), "paddings": (0, 0)},
        overfit_steps=300,
        overfit_frames=9,
        frames=9,
        seen_every=2,
    ),
    "uplift-upsample-sequence": Case(
        "uplift_upsample",
        {**SMALL_UPLIFT, "strided": False, "output": "sequence", "spatial_depth": 0},
        overfit_steps=450,
        overfit_frames=5,
        seen_every=2,
    ),
    "strided-transformer": Case(
        "strided_transformer",
        {
            "width": 16,
            "hidden": 32,
            "depth": 1,
            "heads": 2,
            "embed_dropout": 0.0,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
        overfit_steps=400,
        overfit_frames=3,
        overfit_copies=16,
        frames=9,
    ),
    # Codes are steps apart: the nearest pose that tokens can say is some millimetres away.
    "di2pose-tokens": Case("di2pose_tokens", SMALL_TOKENS, overfit_mm=20.0, overfit_steps=300),
    "di2pose-tokens-pct": Case(
        "di2pose_tokens",
        {**SMALL_TOKENS, "mixing": "tokens", "token_hidden": 16, "quantiser": "codebook", "codes": 16, "code_width": 8},
        overfit_mm=30.0,
        overfit_steps=300,
    ),
    "di2pose": Case(
        "di2pose",
        {"condition_width": 16, "layers": 2, "heads": 2, "width": 32, "steps": 10},
        overfit_steps=300,
        conditioned=True,
        conditioner="di2pose_tokens",
        quantised=True,
        diffusion=True,
        noise_loss=False,
    ),
    "di2pose-image": Case(
        "di2pose",
        {
            "conditioning": "image",
            **{"condition_width": 16, "encoder_depth": 1, "encoder_heads": 2, "patch": 8},
            **{"image_height": 32, "image_width": 24, "layers": 1, "heads": 2, "width": 32, "steps": 6},
        },
        overfit_mm=10.0,
        overfit_steps=300,
        conditioned=True,
        conditioner="di2pose_tokens",
        quantised=True,
        images=True,
        diffusion=True,
        noise_loss=False,
    ),
    "image-regressor": Case(
        "image_regressor",
        {"height": 32, "width_px": 24, "patch": 8, "width": 32, "depth": 1, "heads": 2},
        overfit_steps=400,
        images=True,
    ),
}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request) -> Case:
    """Each small model in turn."""
    return request.param


@pytest.fixture
def cases() -> dict[str, Case]:
    return CASES


@pytest.fixture
def shape_of():
    """PoseShape of Human3.6M-17 for a number of frames."""

    def make(frames: int) -> PoseShape:
        return PoseShape(
            frames=frames,
            joints=17,
            parents=H36M_17_PARENTS,
            left=(4, 5, 6, 11, 12, 13),
            right=(1, 2, 3, 14, 15, 16),
        )

    return make


@pytest.fixture
def pose(request, shape_of) -> PoseShape:
    """Windows of five frames, or as many as the case of the battery needs."""
    return shape_of(request.getfixturevalue("case").frames if "case" in request.fixturenames else 5)


@pytest.fixture
def batch_of(request):
    """Function (windows, pose, seed) -> one body turning at various angles, seen by a camera four metres away."""
    case = request.getfixturevalue("case") if "case" in request.fixturenames else Case("")
    every = case.seen_every

    def make(windows: int, pose: PoseShape, seed: int = 0) -> Batch:
        body = torch.randn(pose.joints, 3, generator=torch.Generator().manual_seed(0)) * 0.3
        body = body - body[0]
        start, speed = torch.rand(2, windows, 1, generator=torch.Generator().manual_seed(seed))
        angle = 0.5 * start + 0.05 * speed * torch.arange(pose.frames)
        sin, cos, zero, one = angle.sin(), angle.cos(), torch.zeros_like(angle), torch.ones_like(angle)
        turn = torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], dim=-1).unflatten(-1, (3, 3))
        poses = body @ turn
        keypoints = 2.0 * poses[..., :2] / (poses[..., 2:] + 4)
        visible = (torch.arange(pose.frames) % every == every // 2)[:, None].expand(windows, -1, pose.joints)
        images = spots(keypoints) if case.images else None
        return Batch(keypoints=keypoints * visible[..., None], visible=visible, poses=poses, images=images)

    return make


def spots(keypoints: torch.Tensor, height: int = 32, width: int = 24) -> torch.Tensor:
    """Crops (B, L, height, width, 3) uint8 with a soft spot at every joint, whose number gives its colour."""
    rows, columns = torch.linspace(-0.6, 0.6, height), torch.linspace(-0.6, 0.6, width)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)
    near = torch.exp(-(grid[:, :, None] - keypoints[:, :, None, None]).square().sum(-1) / 0.005)
    colours = torch.rand(keypoints.shape[2], 3, generator=torch.Generator().manual_seed(0))
    return (near @ colours * 255).clamp(0, 255).to(torch.uint8)


@pytest.fixture
def shaken():
    """Function that moves every parameter off its initial value, so that layers that start at zero take part."""

    def shake(model: Lifter, scale: float = 0.1, seed: int = 1) -> Lifter:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
        return model

    return shake


class ParityFile:
    """One file of inputs, official weights and outputs."""

    def __init__(self, name: str):
        path = PARITY / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"parity fixture {name}.npz is not beside the repository")
        self.arrays = np.load(path)
        config = json.loads(str(self.arrays["config_json"]))
        self.constructor: dict[str, Any] = config["constructor"]
        self.tolerance: dict[str, Any] = config["tolerance"]

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def weights(self, prefix: str = "") -> dict[str, torch.Tensor]:
        start = f"weights/{prefix}"
        return {key.removeprefix(start): self[key] for key in self.arrays.files if key.startswith(start)}

    def check_output(self, name: str, actual: torch.Tensor) -> None:
        """Equal to output_<name> within the tolerance that the file states."""
        torch.testing.assert_close(
            actual, self[f"output_{name}"], rtol=self.tolerance["rtol"], atol=self.tolerance["atol"][name]
        )

    def check_middle(self, name: str, actual: torch.Tensor) -> None:
        """Equal to mid_<name> within 1e-4 and 1e-5 of the largest value."""
        expected = self[f"mid_{name}"]
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * max(1.0, expected.abs().max().item()))


@pytest.fixture
def parity_file():
    return ParityFile


@pytest.fixture
def parity_folder() -> Path:
    if not PARITY.exists():
        pytest.skip("the folder of parity fixtures is not beside the repository")
    return PARITY
