"""AMASS (Mahmood et al., 2019): motion capture of many data sets as one body model, filmed by simulated cameras.

Files as distributed become Human3.6M's 17 joints with the user's own SMPL+H models and joint regressor, as Uplift and
Upsample (Einfalt et al., 2023) pre-train with them: all 16 shape coefficients, soft tissue (DMPL) if its models are
there, joints in the motion's own frame rate, then interpolated linearly down to 50 Hz (floor(frames / rate * 50)
frames; slower motions keep their rate). The files that their script makes are read as well, those of one data set in
place of its folder (`readers.amass_files`). Heights are those of the files.

What they do differently: they draw a camera of Human3.6M at random for each sample and use exact projections, also of
people who leave the image; `data.cameras = "random"` trains like that. Here, as for all motion without footage,
`filming.place` puts a recording where the cameras of one Human3.6M subject see it, `views` of its four cameras film it,
and 2D is the projection with the stated detector model. Results on this data are comparable with one another only.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from posegrid.datasets.cameras import Camera, h36m_cameras
from posegrid.datasets.detector import Config as DetectorConfig
from posegrid.datasets.detector import noise_generator
from posegrid.datasets.filming import film, place
from posegrid.datasets.options import unknown
from posegrid.datasets.readers.amass_files import WHERE, Take, find_takes, read_converted, read_motion, same_name
from posegrid.datasets.readers.body_model import (
    SOFT_TISSUE,
    body_model_of,
    find_body_models,
    find_soft_tissue,
    gender_of,
)
from posegrid.datasets.readers.joint_regressor import ORDERS, regressed_joints
from posegrid.datasets.resample import resample
from posegrid.datasets.schema import CameraSequence, Protocol, Recording
from posegrid.datasets.skeletons import H36M_17

DESCRIPTION = "AMASS (amass.is.tue.mpg.de, own licence), with one's own SMPL+H models, seen by the Human3.6M cameras."
SKELETON = H36M_17

TRAIN = (
    "CMU", "DanceDB", "MPILimits", "TotalCapture", "EyesJapanDataset", "HUMAN4D", "KIT", "BMLhandball", "BMLmovi",
    "BMLrub", "EKUT", "TCDhandMocap", "ACCAD", "Transitionsmocap",
)  # fmt: skip
HELD_OUT = ("MPIHDM05", "SFU", "MPImosh")
"""The split of Uplift and Upsample: training and validation, no test."""

_TRAIN_CAMERAS, _TEST_CAMERAS = ("S1", "S5", "S6", "S7", "S8"), ("S9", "S11")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Split by data set, body models, cameras and detector noise. Spelling and underscores of names do not matter."""

    train: tuple[str, ...] = TRAIN
    """Data sets that train; those that are not there are left away."""
    held_out: tuple[str, ...] = HELD_OUT
    """Data sets kept for selection."""
    test: tuple[str, ...] = ()
    """Data sets that test. Those in none of the three lists are not read."""
    excluded: tuple[str, ...] = ()
    """Recordings ("DATASET_SUBJECT/SEQUENCE") that are left out, such as damaged files."""
    body_models: str = "body_models"
    """Folder with the SMPL+H models, such as smplh/male/model.npz, and dmpls/male/model.npz; relative to raw."""
    regressor: str = "J_regressor_h36m.npy"
    """File with the 17 x 6890 weights of Human3.6M's joints; relative to the raw folder."""
    regressor_order: str = "spin"
    """Order of its rows: "spin" (left leg first) or "h36m" (right leg first)."""
    dmpls: bool = True
    """Soft tissue, as Uplift and Upsample have it; False needs no dmpls models and no such entry in the files."""
    frame_rate: float = 50.0
    """Highest number of frames per second of the prepared sequences, as Human3.6M has them."""
    views: int = 4
    """How many of the four cameras film each recording; drawn if fewer."""
    seed: int = 0
    """Seed of placement, cameras and detector noise."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """How the simulated keypoint detector errs."""

    def __post_init__(self) -> None:
        if self.regressor_order not in ORDERS:
            raise unknown("regressor_order", self.regressor_order, "options of data source amass", list(ORDERS))
        if not 1 <= self.frame_rate <= 1000 or not 1 <= self.views <= 4:
            raise ValueError(
                f"frame_rate = {self.frame_rate}, views = {self.views} in the options of data source amass: expected "
                "1 to 1000 Hz and 1 to 4 cameras. Correct them."
            )
        names = [same_name(name) for name in (*self.train, *self.held_out, *self.test)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise ValueError(
                f"train, held_out and test in the options of data source amass name {', '.join(twice) or 'nothing'}"
                f"{' more than once' if twice else ''}; each data set belongs to one of them. Correct the lists."
            )


PROTOCOL = Protocol(
    train=(),
    test=(),
    keypoints="simulated detector",
    note=(
        "For pre-training, split by data set as Uplift and Upsample do. Simulated cameras and detections: not "
        "comparable with Human3.6M. CMU is part of the CMU database of the source cmu: do not test on one and train on "
        "the other."
    ),
)
"""`protocol` adds the subjects, named DATASET_SUBJECT."""


def protocol(config: Config, recordings: list[Recording]) -> Protocol:
    """Subjects by the data set that they are of. Raises ValueError for excluded recordings that do not exist."""
    known = {f"{recording.subject}/{recording.name}" for recording in recordings}
    wrong = sorted(set(config.excluded) - known)
    if wrong:
        raise ValueError(
            f'excluded = {wrong} in the options of data source amass: expected "DATASET_SUBJECT/SEQUENCE" of what is '
            f"there, such as {min(known, default='nothing')}. Correct the names."
        )
    split_of = {same_name(name): split for split in ("train", "held_out", "test") for name in getattr(config, split)}
    of: dict[str, set[str]] = {"train": set(), "held_out": set(), "test": set()}
    for recording in recordings:
        of[split_of[same_name(recording.action)]].add(recording.subject)
    return Protocol(
        train=tuple(sorted(of["train"] | of["held_out"])),
        test=tuple(sorted(of["test"])),
        held_out=tuple(sorted(of["held_out"])),
        excluded=config.excluded,
        keypoints=PROTOCOL.keypoints,
        note=PROTOCOL.note,
    )


def list_recordings(config: Config, raw: Path | None) -> list[Recording]:
    """All takes of the data sets of the options, by data set, subject and name; the action is the data set.

    Raises ValueError if there are none, or body models or regressor are missing though files as distributed are there.
    """
    if raw is None or not raw.is_dir():
        raise ValueError(f"data source amass: the raw folder {raw} does not exist. {WHERE}")
    wanted = {same_name(name) for name in (*config.train, *config.held_out, *config.test)}
    takes = find_takes(raw, wanted)
    if not takes:
        there = sorted({path.stem for path in raw.iterdir() if path.is_dir() or path.suffix == ".npz"})
        raise ValueError(
            f"data source amass: no *_poses.npz in folders of {raw} named like the data sets of the options train, "
            f"held_out and test, and no converted files (found: {', '.join(there) or 'nothing'}). {WHERE}"
        )
    beside = _models(config, raw) if not all(take.converted for take in takes) else ()
    takes.sort(key=lambda take: (same_name(take.dataset), take.subject, take.name))
    return [_recording(take, () if take.converted else beside) for take in takes]


def read_recording(config: Config, recording: Recording) -> list[CameraSequence]:
    """Read one take and film it. Raises ValueError naming the file that is damaged, or the body model that is missing
    or does not fit."""
    world, rate = read_body(config, recording)
    generator = noise_generator(config.seed, f"{recording.subject}/{recording.name}")
    cameras = _cameras_of(config, recording, generator)
    return film(
        place(world, cameras, SKELETON.root, generator),
        cameras,
        recording,
        skeleton=SKELETON,
        frame_rate=rate,
        noise=config.detector,
        seed=config.seed,
    )


def read_body(config: Config, recording: Recording) -> tuple[np.ndarray, float]:
    """(F, 17, 3) world positions of one take, metres, z up, and their frame rate.

    Raises ValueError as `read_recording`, and if fewer than two frames are left.
    """
    file = Path(recording.files[0])
    if len(recording.files) == 1:
        subject = recording.subject.removeprefix(f"{recording.action}_")
        points, rate = read_converted(file, subject, recording.name)
    else:
        motion = read_motion(file, soft=config.dmpls)
        regressor, *rest = (Path(name) for name in recording.files[1:])
        soft_tissue = {path.parent.name: path for path in rest if SOFT_TISSUE in path.parts}
        models = {gender: path for path in rest if (gender := gender_of(path, "smplh"))}
        model = body_model_of(models, motion.gender, "smplh", str(file))
        joints = regressed_joints(
            model, regressor, config.regressor_order, soft_tissue[motion.gender] if config.dmpls else None
        )
        points, rate = joints.positions(motion.poses, motion.betas, motion.translation, motion.soft), motion.frame_rate
    if rate > config.frame_rate:
        # the number of frames of Uplift and Upsample, one fewer than fit in if the last one falls on the end
        frames = int(len(points) * config.frame_rate / rate + 1e-9)
        points, rate = resample(points, rate, config.frame_rate)[:frames], config.frame_rate
    if len(points) < 2:
        raise ValueError(
            f"{file}: {recording.subject}/{recording.name} has fewer than two frames at {rate:g} Hz, which is no "
            f'recording. Leave it out: --option excluded=["{recording.subject}/{recording.name}"].'
        )
    return points, rate


def _recording(take: Take, beside: tuple[Path, ...]) -> Recording:
    return Recording(
        subject=f"{take.dataset}_{take.subject}",
        action=take.dataset,
        name=take.name,
        files=tuple(str(path.absolute()) for path in (take.file, *beside)),
    )


def _models(config: Config, raw: Path) -> tuple[Path, ...]:
    """The regressor, then all SMPL+H and soft tissue models that are there: which gender needs one say the files."""
    regressor, folder = raw / config.regressor, raw / config.body_models
    models = find_body_models(folder, "smplh")
    if not models:
        raise ValueError(
            f"data source amass: no SMPL+H models in {folder} (option body_models); expected smplh/female/model.npz, "
            "smplh/male/model.npz, ... Get them from mano.is.tue.mpg.de (after registration)."
        )
    if not regressor.is_file():
        raise ValueError(
            f"data source amass: the joint regressor {regressor} (option regressor) is missing; expected 17 x 6890 "
            "weights. Get J_regressor_h36m.npy with the data of SPIN."
        )
    soft_tissue = find_soft_tissue(folder) if config.dmpls else {}
    without = sorted(set(models) - set(soft_tissue)) if config.dmpls else []
    if without:
        raise ValueError(
            f"data source amass: no soft tissue models for {', '.join(without)} in {folder}; expected "
            f"{SOFT_TISSUE}/{without[0]}/model.npz (DMPL, from smpl.is.tue.mpg.de after registration). Get them or set "
            "--option dmpls=false."
        )
    return (regressor, *models.values(), *soft_tissue.values())


def _cameras_of(config: Config, recording: Recording, generator: np.random.Generator) -> list[Camera]:
    """Those of a Human3.6M subject, the same for all recordings of a subject: of S9 or S11 for who tests."""
    tests = same_name(recording.action) in {same_name(name) for name in config.test}
    subjects = _TEST_CAMERAS if tests else _TRAIN_CAMERAS
    filmed_by = h36m_cameras()[subjects[noise_generator(0, recording.subject).integers(len(subjects))]]
    return [filmed_by[index] for index in sorted(generator.permutation(len(filmed_by))[: config.views])]
