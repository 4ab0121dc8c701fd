"""3DPW (von Marcard et al., 2018): people outdoors, seen by a moving phone, with 3D from cameras and inertial sensors.

Read is `sequenceFiles/{train,validation,test}/NAME.pkl` (pickles of Python 2; nothing in them is run). joints = "h36m"
poses the SMPL mesh of each person with the user's own model files and takes Human3.6M's 17 joints with the user's own
regressor (`readers.joint_regressor`), as evaluations of lifters do; joints = "smpl" takes the 24 joints of
`jointPositions`, which need no model and are not comparable with Human3.6M's.

World positions become those of each frame's camera with `cam_poses`. The phone moves, so the stored camera has
intrinsics only and stands at the origin: world coordinates cannot be had back from a store. Image sizes are not in the
files: all videos have 1920 x 1080 pixels, landscape or portrait, and the one whose middle is nearest to the principal
point is taken.

keypoints = "projected": the poses through the pinhole camera, without distortion, confidence 1. "openpose": `poses2d`,
18 joints of OpenPose, of which Hip, Spine, Neck and Head are approximate in Human3.6M's skeleton (`conversions`); what
was not detected is interpolated in time with confidence 0.

A frame counts where `campose_valid` says that the camera is aligned, and the whole body is in front of it; whether
something was detected does not matter. Test sequences keep the other frames, marked as not valid and with projected
keypoints of confidence 0; the others are cut into runs of valid frames. A recording is one file and its subject the
name of the file: people are not named across files, so the split is by sequence, as published.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posegrid.datasets.cameras import Camera, normalise_screen, project_linear
from posegrid.datasets.conversions import convert
from posegrid.datasets.images.places import ImageFiles
from posegrid.datasets.keypoints.gaps import fill_gaps
from posegrid.datasets.options import unknown
from posegrid.datasets.readers.body_model import body_model_of, find_body_models
from posegrid.datasets.readers.joint_regressor import ORDERS, regressed_joints
from posegrid.datasets.readers.threedpw_file import SMPL_ENTRIES, Person, read_sequence
from posegrid.datasets.schema import CameraSequence, Protocol, Recording
from posegrid.datasets.skeletons import H36M_17, OPENPOSE_18, SMPL_24, Skeleton

DESCRIPTION = "3DPW (virtualhumans.mpi-inf.mpg.de/3DPW, own licence), with one's own SMPL models and joint regressor."
SKELETON = H36M_17
FRAME_RATE = 30.0
FOLDERS = ("train", "validation", "test")

_BETAS = 10
"""Shape coefficients that everybody takes, also of files that have more."""
_NEAREST = 0.01
"""Metres before the camera within which nothing can be projected."""
_GENDERS = ("female", "male")
_WHERE = "Get sequenceFiles.zip at virtualhumans.mpi-inf.mpg.de/3DPW and pass the folder that holds sequenceFiles."


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which joints and keypoints, where the body models are."""

    joints: str = "h36m"
    """ "h36m": 17 joints regressed from the SMPL mesh. "smpl": the 24 joints of the files."""
    keypoints: str = "projected"
    """ "projected": the poses without distortion. "openpose": the detections of the files, for the 17 joints only."""
    body_models: str = "body_models"
    """Folder with the SMPL models for male and female, such as SMPL_MALE.pkl; relative to the raw folder."""
    regressor: str = "J_regressor_h36m.npy"
    """File with the 17 x 6890 weights of Human3.6M's joints; relative to the raw folder."""
    regressor_order: str = "spin"
    """Order of its rows: "spin" (left leg first) or "h36m" (right leg first)."""
    cut_test: bool = False
    """Cut test sequences into runs of valid frames, too, for protocols that train on them."""

    def __post_init__(self) -> None:
        for key, known in (
            ("joints", ("h36m", "smpl")),
            ("keypoints", ("projected", "openpose")),
            ("regressor_order", tuple(ORDERS)),
        ):
            if getattr(self, key) not in known:
                raise unknown(key, getattr(self, key), f"options of data source threedpw, key {key}", list(known))
        if (self.joints, self.keypoints) == ("smpl", "openpose"):
            raise ValueError(
                'joints = "smpl" with keypoints = "openpose" in the options of data source threedpw: OpenPose sees '
                "neither the spine, collars, toes nor hands of SMPL. "
                'Choose keypoints = "projected" or joints = "h36m".'
            )


PROTOCOL = Protocol(
    train=(),
    test=(),
    note=(
        "3DPW's own split by sequence; its validation sequences are held out for selection. The same people appear in "
        "sequences of different splits."
    ),
)
"""`protocol` adds the sequences, which take the place of subjects, and the keypoints."""


def skeleton(config: Config) -> Skeleton:
    """The skeleton of the store."""
    return SMPL_24 if config.joints == "smpl" else H36M_17


def protocol(config: Config, recordings: list[Recording]) -> Protocol:
    """The split of the folders; sequences of validation train, too, but are held out."""
    folder_of = {recording.subject: Path(recording.files[0]).parent.name for recording in recordings}
    train, validation, test = (
        tuple(sorted(name for name, found in folder_of.items() if found == folder)) for folder in FOLDERS
    )
    return Protocol(
        train=tuple(sorted(train + validation)),
        test=test,
        held_out=validation,
        keypoints=config.keypoints,
        note=PROTOCOL.note,
    )


def list_recordings(config: Config, raw: Path | None) -> list[Recording]:
    """One recording per sequence file, in the order of folders and names; files are not opened.

    Raises ValueError if there are none, a name is in two folders, or body models or regressor are missing.
    """
    if raw is None or not (raw / "sequenceFiles").is_dir():
        raise ValueError(f"data source threedpw: the folder sequenceFiles is missing in the raw folder {raw}. {_WHERE}")
    beside = _models(config, raw) if config.joints == "h36m" else []
    recordings: dict[str, Recording] = {}
    for folder in FOLDERS:
        for file in sorted((raw / "sequenceFiles" / folder).glob("*.pkl")):
            if file.stem in recordings:
                raise ValueError(
                    f"data source threedpw: {file} and {recordings[file.stem].files[0]} are the same sequence; each "
                    "belongs to one split. Remove one of the files."
                )
            images = raw / "imageFiles" / file.stem
            files = (file, *beside, *([images] if images.is_dir() else []))
            recordings[file.stem] = Recording(
                subject=file.stem,
                action=_action(file.stem),
                name="sequence",
                files=tuple(str(path.absolute()) for path in files),
            )
    if not recordings:
        raise ValueError(f"data source threedpw: no .pkl files in the folders of {raw / 'sequenceFiles'}. {_WHERE}")
    return list(recordings.values())


def read_recording(config: Config, recording: Recording) -> list[CameraSequence]:
    """Everybody in one sequence: recordings `person 0`, ..., with ` part k` where they are cut; none of a person whose
    camera is never aligned in a sequence that is cut.

    Raises ValueError as `threedpw_file.read_sequence` does, if a body model is damaged or does not fit, or a person
    whose detections are asked for was never detected.
    """
    file = Path(recording.files[0])
    entries = SMPL_ENTRIES if config.joints == "h36m" else ("jointPositions",)
    read = read_sequence(file, (*entries, *(["poses2d"] if config.keypoints == "openpose" else [])))
    whole = file.parent.name == "test" and not config.cut_test
    has_images = Path(recording.files[-1]).parent.name == "imageFiles"
    sequences = []
    for number, person in enumerate(read.people):
        world = _world(config, recording, person)
        poses = np.einsum("fab,fjb->fja", read.rotation, world) + read.shift[:, None]
        valid = person.aligned & (poses[..., 2] > _NEAREST).all(axis=1)
        if config.keypoints == "openpose":
            keypoints, confidence = _detected(person, read.camera, f"{file}: person {number}")
        else:
            # frames that do not count may have anything before or behind the camera
            seen = np.where(valid[:, None, None], poses, [0.0, 0.0, 1.0])
            keypoints = project_linear(seen, read.camera)
            confidence = np.broadcast_to(valid[:, None], keypoints.shape[:2])
        runs = [slice(0, len(poses))] if whole else _runs(valid)
        for part, run in enumerate(runs, start=1):
            sequences.append(
                CameraSequence(
                    subject=recording.subject,
                    action=recording.action,
                    recording=f"person {number}" + (f" part {part}" if len(runs) > 1 else ""),
                    camera=read.camera.id,
                    frame_rate=FRAME_RATE,
                    width=read.camera.width,
                    height=read.camera.height,
                    keypoints=keypoints[run].astype(np.float32),
                    confidence=confidence[run].astype(np.float32),
                    poses=poses[run].astype(np.float32),
                    valid=valid if whole else None,
                    camera_parameters=read.camera.to_plain(),
                    images=_images(recording.subject, run.start) if has_images else {},
                )
            )
    return sequences


def _models(config: Config, raw: Path) -> list[Path]:
    """Regressor and models for female and male, in this order."""
    regressor = raw / config.regressor
    models = find_body_models(raw / config.body_models, "smpl")
    found = [body_model_of(models, gender, "smpl", "data source threedpw") for gender in _GENDERS]
    if not regressor.is_file():
        raise ValueError(
            f"data source threedpw: the joint regressor {regressor} (option regressor) is missing; expected 17 x 6890 "
            'weights. Get J_regressor_h36m.npy with the data of SPIN, or choose joints = "smpl".'
        )
    return [regressor, *found]


def _world(config: Config, recording: Recording, person: Person) -> np.ndarray:
    """(F, J, 3) float64 metres, world."""
    if config.joints == "smpl":
        positions = person.arrays["jointPositions"]
        return positions.reshape(len(positions), len(SMPL_24), 3).astype(np.float64)
    regressor, *models = (Path(name) for name in recording.files[1 : 2 + len(_GENDERS)])
    assert person.gender is not None
    joints = regressed_joints(models[_GENDERS.index(person.gender)], regressor, config.regressor_order)
    arrays = person.arrays
    return joints.positions(arrays["poses"], arrays["betas"][:_BETAS], arrays["trans"])


def _detected(person: Person, camera: Camera, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (F, 17, 2) in screen coordinates and confidence (F, 17)."""
    detected = person.arrays["poses2d"].astype(np.float64)
    pixels, confidence = detected[:, :2].transpose(0, 2, 1), np.clip(detected[:, 2], 0, 1)
    if not confidence.any():
        raise ValueError(
            f'{where} was not detected in any frame (poses2d is 0 throughout). Set keypoints = "projected", or leave '
            "this sequence out."
        )
    filled, confidence_17 = convert(
        fill_gaps(pixels, confidence), OPENPOSE_18.name, H36M_17.name, confidence=confidence
    )
    assert confidence_17 is not None
    return normalise_screen(filled, camera.width, camera.height), confidence_17


def _images(name: str, start: int) -> dict:
    return ImageFiles(template=f"imageFiles/{name}/image_{{frame:05d}}.jpg", first=start).to_plain()


def _runs(valid: np.ndarray) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], valid, [False]])))
    return [slice(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _action(name: str) -> str:
    """ "arguing" of "downtown_arguing_00"."""
    return re.sub(r"_\d+$", "", name).split("_", 1)[-1]
