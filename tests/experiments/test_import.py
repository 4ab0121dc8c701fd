"""`posegrid import-checkpoint`, `evaluate --log` and `export-model`: from a released file to a program elsewhere."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_layout import mixste_weights, training_file, uplift_layers, write_keras
from torch import Tensor

from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store
from posegrid.experiments import catalogue
from posegrid.experiments.cli import main
from posegrid.models.diffusion.chain import Chain
from posegrid.models.interface import Batch, Lifter
from posegrid.models.official.uplift_upsample import JOINT_ORDER
from posegrid.orchestration import checkpoint
from posegrid.orchestration.released import window_shape
from posegrid.orchestration.tracking import MODEL_ARTIFACT, UPSTREAM, Tracking, Trial, sqlite_uri

PARITY = Path(__file__).parents[3] / "shared" / "parity"
TINY = ("model.width=16", "model.depth=1", "model.heads=2", "data.frames=9", "evaluation.batch=16")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all tests of this file: making one takes seconds."""
    return tmp_path_factory.mktemp("runs")


def works(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must succeed; returns what it prints."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert stopped.value.code == 0, said.err
    return said.out


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must end with status 2; returns what it says on standard error."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    return said


def sets(*values: str) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def run_of(said: str) -> str:
    return said.split(" is run ")[1].split()[0]


def tracked(home: Path) -> Tracking:
    return Tracking.existing(sqlite_uri(home / "mlflow.db"))


def logged(home: Path, run: str) -> tuple[Lifter, Trial]:
    """The model that the run holds, and the run."""
    tracking = tracked(home)
    with tracking.fetched(run, MODEL_ARTIFACT) as file:
        model, _, _ = checkpoint.load_model(file)
    return model, tracking.trial(run)


def tiny(seed: int = 0) -> Lifter:
    """What `mixste_27` describes with the values of TINY."""
    torch.manual_seed(seed)
    settings = catalogue.recipe("mixste_27", list(TINY))
    model = checkpoint.build(settings, window_shape(H36M_17, 9))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture
def released(tmp_path: Path) -> Path:
    file = tmp_path / "best_epoch.bin"
    torch.save(training_file(mixste_weights(tiny(), 2, "module.")), file)
    return file


def windows(keypoints: Tensor, visible: Tensor | None = None) -> Batch:
    everything = torch.ones(keypoints.shape[:-1], dtype=torch.bool)
    return Batch(keypoints=keypoints, visible=everything if visible is None else visible)


# ---- the authors' weights and outputs ----------------------------------------------------------------------------


class Fixture:
    """Official weights, inputs and outputs of one file."""

    def __init__(self, name: str):
        path = PARITY / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"parity fixture {name}.npz is not beside the repository")
        self.arrays = np.load(path)
        described = json.loads(str(self.arrays["config_json"]))
        self.options: dict[str, Any] = described["constructor"]
        self.tolerance = described["tolerance"]

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def weights(self) -> dict[str, Tensor]:
        return {key[8:]: self[key] for key in self.arrays.files if key.startswith("weights/")}

    def check(self, name: str, found: Tensor) -> None:
        torch.testing.assert_close(
            found, self[f"output_{name}"], rtol=self.tolerance["rtol"], atol=self.tolerance["atol"][name]
        )


def channels_last(array: Tensor) -> Tensor:
    """(..., C, J, L) -> (..., L, J, C)."""
    return array.transpose(-1, -3).contiguous()


def lift(model: Lifter, keypoints: Tensor) -> Tensor:
    return model.lift(windows(keypoints), torch.Generator())[:, 0]


def regressor(output: str, keypoints: str = "input_keypoints") -> Callable[[Fixture, Lifter], None]:
    return lambda file, model: file.check(output, lift(model, file[keypoints]))


def check_lifter(file: Fixture, model: Lifter) -> None:
    file.check("poses", channels_last(lift(model, channels_last(file["input_keypoints"]))))


def check_diffhpe(file: Fixture, model: Any) -> None:
    noise = channels_last(file["input_chain_noise"])
    found = model.sample(channels_last(file["input_keypoints"]), lambda draw: noise[:, draw].transpose(0, 1))
    file.check("samples", channels_last(found))


def check_d3dp(file: Fixture, model: Any) -> None:
    noise = file["input_chain_noise"]
    model.chain = Chain(sampler="ddim", steps=len(noise), eta=1.0)
    found = model.sample(file["input_keypoints"], lambda draw: noise[draw])
    expected, atol = file["output_samples_flip"][:, -1], file.tolerance["atol"]["samples_flip"]
    torch.testing.assert_close(found, expected, rtol=file.tolerance["rtol"], atol=atol)


def check_uplift(file: Fixture, model: Lifter) -> None:
    ours = [JOINT_ORDER.index(joint) for joint in range(17)]
    seen = file["input_mask"].bool()[..., None].expand(-1, -1, 17)
    found = model.lift(windows(file["input_keypoints"][:, :, ours], seen), torch.Generator())
    file.check("poses_centre", found[:, 0, 0, list(JOINT_ORDER)])


def lines(name: str, options: dict[str, Any]) -> list[str]:
    """What a released constructor's arguments are in our recipes."""
    diffusion = options.get("diffusion", {})
    table = {
        "mixste": {"width": "embed_dim_ratio", "depth": "depth", "heads": "num_heads"},
        "diffhpe_lifter": {"width": "embed_dim", "depth": "depth", "heads": "num_heads"},
        "stcformer": {"width": "d_hid", "depth": "layers"},
        "videopose3d": {"filter_widths": "filter_widths", "channels": "channels"},
        "poseformer": {"joint_width": "embed_dim_ratio", "depth": "depth", "heads": "num_heads"},
        "strided": {"width": "channel", "hidden": "d_hid", "depth": "layers", "strides": "stride_num"},
        "diffhpe": {"channels": "channels", "blocks": "layers", "step_embedding": "diffusion_embedding_dim"},
        "d3dp": {"width": "cs", "depth": "dep"},
        "uplift": {
            "width": "temporal_d_model",
            "spatial_width": "spatial_d_model",
            "spatial_depth": "spatial_depth",
            "temporal_depth": "temporal_depth",
            "heads": "num_heads",
            "strides": "strides",
        },
    }
    kind = next(kind for kind in sorted(table, key=len, reverse=True) if name.startswith(kind))
    counts = ("num_frame", "num_frames", "frames", "number_of_frames", "seq_len")
    frames = next((options[key] for key in counts if key in options), 27)
    values = {f"model.{ours}": (diffusion or options)[theirs] for ours, theirs in table[kind].items()}
    values["data.frames"] = frames
    if kind == "uplift":
        values["model.paddings"] = [left for left, _ in options["paddings"]]
    if diffusion.get("conditioning") == "pt_mixste":
        inside = {"width": "cond_channels", "depth": "cond_layers", "heads": "cond_nheads"}
        values |= {f"mixste_27:model.{ours}": diffusion[theirs] for ours, theirs in inside.items()}
        values["mixste_27:data.frames"] = frames
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


CHECKS: dict[str, tuple[str, Callable[[Fixture, Any], None]]] = {
    "mixste_scaled": ("mixste_27", regressor("poses")),
    "stcformer_scaled": ("stcformer_27", regressor("poses")),
    "stcformer_3dhp_scaled": ("stcformer_3dhp_81", regressor("poses")),
    "videopose3d_scaled": ("videopose3d_27", regressor("poses_exact_strided", "input_keypoints_exact")),
    "poseformer_scaled": ("poseformer_27", regressor("poses")),
    "strided_scaled": ("strided_transformer_351", regressor("poses_centre")),
    "diffhpe_lifter_scaled": ("mixste_27", check_lifter),
    "diffhpe_2d_scaled": ("diffhpe_2d", check_diffhpe),
    "diffhpe_wrapper_scaled": ("diffhpe_wrapper", check_diffhpe),
    "d3dp_scaled": ("d3dp_27", check_d3dp),
    "uplift_scaled": ("uplift_upsample_81", check_uplift),
}
BARE = ("stcformer", "strided", "diffhpe_2d", "diffhpe_wrapper")
"""Released as state dicts without anything beside them."""


@pytest.mark.parametrize("name", CHECKS)
def test_the_logged_model_returns_the_released_outputs(
    name: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixture = Fixture(name)
    recipe, check = CHECKS[name]
    file, weights = tmp_path / f"{name}.pth", fixture.weights()
    if name.startswith("uplift"):
        write_keras(file, uplift_layers(weights))
    elif name.startswith(BARE):
        torch.save(weights, file)
    else:
        torch.save(training_file({f"module.{key}": value for key, value in weights.items()}), file)
    said = works(capsys, "import-checkpoint", recipe, file, "--home", home, *sets(*lines(name, fixture.options)))
    model, trial = logged(home, run_of(said))
    check(fixture, model)
    assert trial.tags["imported_from"] == file.name


# ---- what happens everywhere -------------------------------------------------------------------------------------


def test_imported_twice_is_one_run(home: Path, released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("import-checkpoint", "mixste_27", released, "--home", home, *sets(*TINY))
    first, second = (works(capsys, *command) for _ in range(2))
    assert run_of(first) == run_of(second)
    model, trial = logged(home, run_of(first))
    batch = windows(torch.rand(2, 9, 17, 2))
    assert model.lift(batch, torch.Generator()).equal(tiny().lift(batch, torch.Generator()))
    weights = sum(parameter.numel() for parameter in tiny().parameters())
    assert trial.status == "FINISHED"
    assert trial.trained
    assert trial.params["parameters"] == str(weights)
    assert f"{weights:,} parameters" in first
    assert trial.params["model.width"] == "16"
    assert trial.tags["model"] == "mixste"
    assert len(trial.tags["imported_sha256"]) == 64
    assert not any(str(released.parent) in str(value) for value in (*trial.tags.values(), *trial.params.values()))
    tracking = tracked(home)
    parent = tracking.study("imported")
    assert trial.tags["mlflow.parentRunId"] == parent
    assert tracking.trial(parent).status == "FINISHED"
    with tracking.fetched(run_of(first), "config.json") as file:
        assert json.loads(file.read_text())["model"]["width"] == 16


def test_scored_and_logged_like_any_run(
    home: Path, released: Path, toy_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("import-checkpoint", "mixste_27", released, "--home", home, "--study", "scored", *sets(*TINY))
    said = works(capsys, *command, "--data", toy_store.path, "--occlusion", "none")
    run = run_of(said)
    again = works(capsys, "evaluate", run, "--data", toy_store.path, "--home", home)
    table = again[again.index("action,") :].strip()
    assert table in said
    mpjpe = float(table.splitlines()[-2].split(",")[table.splitlines()[0].split(",").index("mpjpe_mm")])
    trial = tracked(home).trial(run)
    assert trial.metrics["test none/mpjpe_mm"] == pytest.approx(mpjpe, abs=1e-3)
    settings = catalogue.recipe("mixste_27", list(TINY))
    expected = settings.evaluation_fingerprint({"pattern": "none"}, toy_store.content_hash)
    assert trial.evaluated == {"none": expected}

    works(capsys, "evaluate", run, "--data", toy_store.path, "--home", home, "--occlusion", "arm_leg")
    assert list(tracked(home).trial(run).evaluated) == ["none"]
    works(capsys, "evaluate", run, "--data", toy_store.path, "--home", home, "--occlusion", "arm_leg", "--log")
    trial = tracked(home).trial(run)
    assert sorted(trial.evaluated) == ["arm_leg", "none"]
    assert trial.metrics["test arm_leg/mpjpe_mm"] > 0
    assert "test/arm_leg/per_action.csv" in tracked(home).artifacts(run, "test/arm_leg")
    other = works(capsys, "evaluate", run, "--data", toy_store.path, "--home", home, "--hypotheses", 2, "--log")
    assert "had scores of none from other data or settings: they are replaced" in other

    assert "leave out --log" in fails(capsys, "evaluate", "model.pt", "--data", toy_store.path, "--log")
    assert "split train" in fails(
        capsys, "evaluate", run, "--data", toy_store.path, "--home", home, "--split", "train", "--log"
    )


def test_wrapper_around_an_imported_lifter(
    home: Path, released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lifter = run_of(works(capsys, "import-checkpoint", "mixste_27", released, "--home", home, *sets(*TINY)))
    small = ("channels=8", "blocks=2", "steps=4", "step_embedding=16", 'non_local="none"')
    values = [*(f"model.{value}" for value in small), "data.frames=9"]
    settings = catalogue.recipe("diffhpe_wrapper", values)
    torch.manual_seed(4)
    model = checkpoint.build(settings, window_shape(H36M_17, 9), tiny()).eval()
    weights = {
        key: value
        for key, value in mixste_weights(model, 2).items()
        if not key.startswith("conditioning.") or ".data_enc." in key
    }
    torch.save(weights, tmp_path / "model.pth")
    command = ("import-checkpoint", "diffhpe", tmp_path / "model.pth", "--recipe", "diffhpe_wrapper", "--home", home)
    assert "needs --conditioner RUN" in fails(capsys, *command, *sets(*values, "mixste_27:data.frames=9"))
    said = works(capsys, *command, *sets(*values), "--conditioner", lifter)
    found, trial = logged(home, run_of(said))
    batch = windows(torch.rand(2, 9, 17, 2))
    expected = model.lift(batch, torch.Generator().manual_seed(3), 2)
    assert found.lift(batch, torch.Generator().manual_seed(3), 2).equal(expected)
    assert trial.tags[UPSTREAM] == lifter
    assert "has no conditioner" in fails(
        capsys, "import-checkpoint", "mixste_27", released, "--conditioner", lifter, "--home", home
    )
    assert "draws poses" in fails(capsys, "export-model", run_of(said), "--out", tmp_path / "m.pt2", "--home", home)
    assert not list(tmp_path.glob("*.pt2"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mixste",), "mixste_27, mixste_81"),
        (("mixste_27b",), 'did you mean "mixste_27"'),
        (("stcformer", "--recipe", "mixste_27"), "--recipe mixste_27 describes a mixste"),
        (("mixste_27",), "of another shape: "),
        (("stcformer_27",), "missing: pose_emb.weight"),
        (("simple_baseline",), "no official names are known for SimpleBaseline"),
        (("mixste_27", "--set", "model.widht=3"), 'did you mean "width"'),
        (("mixste_27", "--skeleton", "h36m"), "skeleton 'h36m' is unknown"),
        (("mixste_27", "--occlusion", "none"), "--occlusion was given without --data"),
        (("mixste_27", "--study", "a/b"), "--study 'a/b': allowed are"),
        (("mixste_27", "--entry", "model_traj"), "no weights under 'model_traj'"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], message: str, released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what, *options = arguments
    said = fails(capsys, "import-checkpoint", what, released, *options, "--home", tmp_path / "none")
    assert message in said
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_program_runs_without_posegrid(
    home: Path, released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(works(capsys, "import-checkpoint", "mixste_27", released, "--home", home, *sets(*TINY)))
    program = tmp_path / "mixste.pt2"
    assert "visible" not in works(capsys, "export-model", run, "--out", program, "--home", home)
    keypoints = torch.rand(5, 9, 17, 2)
    torch.save(keypoints, tmp_path / "keypoints.pt")
    code = (
        "import sys, json, torch; sys.modules['posegrid'] = None; about = {'posegrid.json': ''};"
        "run = torch.export.load('mixste.pt2', extra_files=about).module();"
        "torch.save(run(keypoints=torch.load('keypoints.pt')), 'poses.pt');"
        "about = json.loads(about['posegrid.json']); assert about['joints'][0] == 'Hip', about;"
        "assert about['output_frames'] == 'all' and list(about['inputs']) == ['keypoints'], about"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    expected = lift(tiny(), keypoints)
    torch.testing.assert_close(torch.load(tmp_path / "poses.pt"), expected, rtol=1e-4, atol=1e-5)
    before = program.read_bytes()
    assert "have the ending .pt2" in fails(capsys, "export-model", run, "--out", tmp_path / "a.onnx", "--home", home)
    assert sorted(path.name for path in tmp_path.glob("*.pt2")) == ["mixste.pt2"]
    assert program.read_bytes() == before
