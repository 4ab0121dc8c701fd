"""What the commands of the documents find on a reader's machine, small: raw files of every source, a store, keypoint
files, released checkpoints, and trained runs."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import h36m_files
import mpi_inf_3dhp_files
import numpy as np
import torch
from document_commands import ROOT
from keypoint_files import coco_results, made_up
from official_layout import mixste_weights, training_file, vitpose

from posegrid.datasets.skeletons import COCO_17, H36M_17
from posegrid.experiments import catalogue
from posegrid.models.registry import config_class, image_encoding
from posegrid.orchestration import checkpoint
from posegrid.orchestration.released import window_shape

CLIP_FRAMES = 120
EVERY_STAGE = (
    *("training.epochs=1", "training.steps=2", "training.batch=8", "training.warmup=0"),
    *("evaluation.every=20", "evaluation.batch=64"),
)
SIZES: dict[str, tuple[str, ...]] = {
    "d3dp": ("model.width=16", "model.depth=1", "model.heads=2", "evaluation.hypotheses=2", "evaluation.steps=2"),
    "d3prefiner": ("model.width=16", "model.depth=1", "model.heads=2", "model.steps=4"),
    "di2pose": (
        *("model.condition_width=24", "model.encoder_depth=1", "model.encoder_heads=2", "model.patch=64"),
        *("model.layers=1", "model.heads=2", "model.width=16", "model.steps=4"),
    ),
    "di2pose_tokens": (
        *("model.tokens=8", "model.encoder_width=48", "model.encoder_blocks=1", "model.decoder_width=48"),
    ),
    "diffhpe": (
        *("model.channels=8", "model.blocks=1", "model.steps=3", "model.step_embedding=16"),
        "evaluation.hypotheses=2",
    ),
    "image_regressor": ("model.width=24", "model.depth=1", "model.heads=2", "model.patch=64"),
    "mixste": ("model.width=16", "model.depth=1", "model.heads=2"),
    "mlp": ("model.width=16",),
    "poseformer": ("model.joint_width=8", "model.depth=1", "model.heads=2"),
    "simple_baseline": ("model.width=16",),
    "stcformer": ("model.width=16", "model.depth=1", "model.heads=2"),
    "strided_transformer": ("model.width=16", "model.hidden=16", "model.heads=2"),
    "uplift_upsample": (
        *("model.width=16", "model.spatial_width=4", "model.spatial_depth=1", "model.temporal_depth=1"),
        "model.heads=2",
    ),
    "videopose3d": ("model.channels=16",),
}
"""Values of recipes by their model, so that a stage takes about a second."""


def sizes_of(recipe: str, taken: frozenset[str] = frozenset()) -> list[str]:
    """Values that make a recipe and its conditioners small, as "RECIPE:key=value"; keys that are taken stay."""
    settings = catalogue.recipe(recipe)
    name = Path(recipe).stem
    changes = (*EVERY_STAGE, *SIZES[settings.model["name"]])
    found = [f"{name}:{change}" for change in changes if change.partition("=")[0] not in taken]
    inner = settings.conditioner
    return [*found, *(sizes_of(inner.recipe, taken) if inner is not None and inner.recipe else [])]


def settings_of(recipe: str) -> Any:
    """Settings of a recipe at its small size."""
    return catalogue.recipe(recipe, catalogue.overrides_for(recipe, sizes_of(recipe), member=True))


# ---- raw files ----------------------------------------------------------------------------------------------------


def _of(file: str) -> ModuleType:
    """A test file whose made-up files are needed here too."""
    path = ROOT / "tests" / "datasets" / f"{file}.py"
    described = importlib.util.spec_from_file_location(f"files_of_{file}", path)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


def raw_cmu(folder: Path) -> None:
    figure = _of("test_source_cmu").figure
    for take in ("01_01", "01_02", "02_01", "60_03"):
        file = folder / take.split("_")[0] / f"{take}.bvh"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(figure(100))


def raw_h36m(folder: Path) -> None:
    h36m_files.write(folder)


def raw_h36m_archive(folder: Path) -> None:
    theirs = _of("test_source_h36m_archive")
    for subject in h36m_files.SUBJECTS:
        positions = folder / "h36m" / subject / "MyPoses" / "3D_positions"
        detections = folder / "h36m" / subject / "StackedHourglass"
        positions.mkdir(parents=True)
        detections.mkdir()
        for name, world in h36m_files.POSE_DATA[subject].items():
            theirs.write_positions(positions / f"{name}.h5", world)
            for camera, view in zip(theirs.cameras.H36M_CAMERA_IDS, theirs.hourglass(subject, name), strict=True):
                with h5py.File(detections / f"{name.replace(' ', '_')}.{camera}.h5", "w") as stream:
                    stream["poses"] = view[:, theirs.MPII_OF_17]


def raw_h36m_official(folder: Path) -> None:
    theirs = _of("test_source_h36m_official")
    for subject in h36m_files.SUBJECTS:
        place = folder / subject / "MyPoseFeatures" / "D3_Positions"
        place.mkdir(parents=True)
        for name, world in h36m_files.POSE_DATA[subject].items():
            theirs.write_mat(place / f"{theirs.official(name)}.cdf.mat", theirs.flat(world))


def raw_mpi_inf_3dhp(folder: Path) -> None:
    mpi_inf_3dhp_files.write_npz(folder)


def raw_amass(folder: Path) -> None:
    theirs = _of("test_source_amass")
    theirs.write(folder, theirs.TAKES)


def raw_threedpw(folder: Path) -> None:
    theirs = _of("test_source_threedpw")
    theirs.write(folder, theirs.CONTENT)


RAW: dict[str, Callable[[Path], None]] = {
    name.removeprefix("raw_"): made for name, made in list(globals().items()) if name.startswith("raw_")
}


# ---- keypoints and checkpoints ------------------------------------------------------------------------------------


def write_keypoints(folder: Path) -> None:
    """walk.csv with its description, walk.json of a COCO tool, and a folder of detections: ann in the video walk."""
    points, scores = made_up(17, CLIP_FRAMES)
    rows = [
        f"walk,{frame},ann,{joint},{points[frame, number, 0]},{points[frame, number, 1]},{scores[frame, number]}"
        for frame in range(CLIP_FRAMES)
        for number, joint in enumerate(COCO_17.joints)
        if not (10 <= frame < 20 and joint == "RWrist")
    ]
    about = 'skeleton = "coco_17"\nwidth = 640\nheight = 480\nframe_rate = 30.0\n'
    (folder / "detections").mkdir()
    for name in ("walk", "detections/first", "detections/second"):
        (folder / f"{name}.csv").write_text("\n".join(["sequence,frame,person,joint,x,y,confidence", *rows, ""]))
        (folder / f"{name}.toml").write_text(about)
    (folder / "walk.json").write_text(json.dumps(coco_results(points, scores)))


def write_released(folder: Path) -> None:
    """A released MixSTE for mixste_27 at its small size, and a ViTPose for di2pose_images."""
    settings = settings_of("mixste_27")
    torch.manual_seed(0)
    model = checkpoint.build(settings, window_shape(H36M_17, settings.data.frames))
    torch.save(training_file(mixste_weights(model, settings.model["heads"], "module.")), folder / "best_epoch.bin")
    reads = settings_of("di2pose_images")
    values = {key: value for key, value in reads.model.items() if key != "name"}
    size = image_encoding("di2pose", config_class("di2pose")(**values))
    assert size is not None
    torch.save({"state_dict": vitpose(size)}, folder / "vitpose.pth")


def request_keypoints() -> np.ndarray:
    """`keypoints` of a request: (30, 17, 3) pixels and confidences, some not seen."""
    points, scores = made_up(17, 30)
    array = np.concatenate([points, scores[..., None]], axis=-1)
    array[3:6, 4] = np.nan
    return array
