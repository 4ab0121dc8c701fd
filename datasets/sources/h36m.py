"""Human3.6M (Ionescu et al., 2014) from the three files the lifting community exchanges.

`data_3d_h36m.npz` holds 32 motion-capture points per frame in world coordinates, `data_2d_h36m_cpn_ft_h36m_dbb.npz`
the keypoints of a fine-tuned cascaded pyramid network, `data_2d_h36m_gt.npz` projected points. They are made with the
preparation script of VideoPose3D (Pavllo et al., 2019) from the data set, which needs a licence of its owners. Of the
32 points 17 are kept (`skeletons.H36M_32_TO_17`, shoulders hanging on the thorax); poses are transformed into each
camera; 2D arrays that are longer than the motion are cut to its length, as everybody does. The files hold no
confidences: they are stored as ones.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from posegrid.datasets.cameras import h36m_cameras, normalise_screen
from posegrid.datasets.readers import h36m_recordings
from posegrid.datasets.readers.arrays import checked_floats, kind
from posegrid.datasets.schema import CameraSequence, Protocol, Recording
from posegrid.datasets.skeletons import H36M_17, H36M_32_TO_17
from posegrid.datasets.unpickling.restricted_pickle import read_npz

DESCRIPTION = "Human3.6M (vision.imar.ro/human3.6m, licence needed) from the npz files of VideoPose3D's script."
SKELETON = H36M_17

_POSES_FILE = "data_3d_h36m.npz"
_KEYPOINT_FILES = {"cpn": "data_2d_h36m_cpn_ft_h36m_dbb.npz", "gt": "data_2d_h36m_gt.npz"}
_WHERE = (
    "Get the data set at vision.imar.ro/human3.6m and make the file with data/prepare_data_h36m.py of VideoPose3D "
    "(its DATASETS.md also says where the CPN detections are)."
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which keypoints, and whether recordings are held out of training."""

    keypoints: str = "cpn"
    """ "cpn": detections. "gt": projected ground truth."""
    hold_out: bool = True
    """Keep 15 of the 150 training recordings for selection. False trains on all, as the papers do, which then select
    on the test subjects."""
    images: str = ""
    """Where frames of the videos are, relative to the folder that is given when images are read, such as
    {subject}/{recording}.{camera}/{frame:06d}.jpg (fields in `images.places.fill_template`; the first image of a
    recording has number 1, as ffmpeg counts). Empty: no images."""

    def __post_init__(self) -> None:
        h36m_recordings.check_images(self.images)
        if self.keypoints not in _KEYPOINT_FILES:
            raise ValueError(
                f'keypoints = "{self.keypoints}" in the options of data source h36m is unknown. '
                f"Known: {', '.join(_KEYPOINT_FILES)}. Choose one of them."
            )


PROTOCOL = h36m_recordings.PROTOCOL
"""Subjects and exclusions; `protocol` adds the held-out recordings."""


def protocol(config: Config, recordings: list[Recording]) -> Protocol:
    """`PROTOCOL`, with the held-out recordings of `h36m_recordings.with_held_out` unless the option says no."""
    return h36m_recordings.with_held_out(PROTOCOL, recordings) if config.hold_out else PROTOCOL


def list_recordings(config: Config, raw: Path | None) -> list[Recording]:
    """All recordings of the seven subjects, by subject and name.

    Raises ValueError if a file is missing or damaged, if subjects are missing, or keypoints of a recording.
    """
    poses_file, keypoints_file = (_file(raw, name) for name in (_POSES_FILE, _KEYPOINT_FILES[config.keypoints]))
    poses, keypoints = _poses(poses_file), _keypoints(keypoints_file)
    subjects = (*PROTOCOL.train, *PROTOCOL.test)
    for file, content in ((poses_file, poses), (keypoints_file, keypoints)):
        missing = [subject for subject in subjects if subject not in content]
        if missing:
            raise ValueError(
                f"{file} lacks the subjects {', '.join(missing)}; the protocol needs {', '.join(subjects)}. {_WHERE}"
            )
    recordings = [
        Recording(
            subject=subject,
            action=h36m_recordings.action_of(name),
            name=name,
            files=(str(poses_file), str(keypoints_file)),
        )
        for subject in subjects
        for name in sorted(poses[subject])
    ]
    without = [
        f"{found.subject}/{found.name}"
        for found in recordings
        if found.name not in keypoints[found.subject] and f"{found.subject}/{found.name}" not in PROTOCOL.excluded
    ]
    if without:
        raise ValueError(
            f"{keypoints_file} lacks {len(without)} recordings that {_POSES_FILE} has, such as {without[0]}; both must "
            f"come from the same preparation. {_WHERE}"
        )
    return recordings


def read_recording(config: Config, recording: Recording) -> list[CameraSequence]:
    """One recording in all four cameras. Raises ValueError if its arrays have other shapes than documented, or NaN."""
    poses_file, keypoints_file = (Path(file) for file in recording.files)
    where = f"{recording.subject}/{recording.name}"
    world = _array(poses_file, where, _poses(poses_file)[recording.subject][recording.name], (32, 3))
    world = world[:, H36M_32_TO_17].astype(np.float64)
    cameras = h36m_cameras()[recording.subject]
    views = _keypoints(keypoints_file)[recording.subject][recording.name]
    if not isinstance(views, list | tuple | np.ndarray) or len(views) != len(cameras):
        raise ValueError(
            f"{keypoints_file}: {where} has no list of {len(cameras)} cameras but {kind(views)}. Make the file again."
        )
    keypoints = []
    for camera, view in zip(cameras, views, strict=True):
        pixels = _array(keypoints_file, f"{where}, camera {camera.id}", view, (len(SKELETON), 2))
        if len(pixels) < len(world):
            raise ValueError(
                f"{keypoints_file}: {where}, camera {camera.id} has {len(pixels)} frames, fewer than the {len(world)} "
                f"of {poses_file.name}; it must have at least as many. Make both files again from the same data."
            )
        keypoints.append(normalise_screen(pixels[: len(world)], camera.width, camera.height))
    return h36m_recordings.camera_sequences(recording, world, keypoints, config.images)


def _file(raw: Path | None, name: str) -> Path:
    if raw is None or not (raw / name).is_file():
        raise ValueError(f"data source h36m: {name} is missing in the raw folder {raw}. {_WHERE}")
    return (raw / name).resolve()


def _poses(file: Path) -> dict[str, dict[str, Any]]:
    return _loaded(file, file.stat().st_mtime_ns)["positions_3d"]


def _keypoints(file: Path) -> dict[str, dict[str, Any]]:
    return _loaded(file, file.stat().st_mtime_ns)["positions_2d"]


@lru_cache(maxsize=2)
def _loaded(file: Path, changed: int) -> dict[str, Any]:
    """The content of an archive, kept per process: every recording asks for it. `changed` is the file's time."""
    is_poses = file.name == _POSES_FILE
    content = read_npz(file, ["positions_3d"] if is_poses else ["positions_2d", "metadata"])
    for name, value in content.items():
        nested = isinstance(value, dict) and (name == "metadata" or all(isinstance(v, dict) for v in value.values()))
        if not nested:
            raise ValueError(
                f"{file}: {name} is {kind(value)}, expected a dictionary of subjects that hold one of recordings. "
                f"{_WHERE}"
            )
    if not is_poses:
        _check_layout(file, content["metadata"])
    return content


def _check_layout(file: Path, metadata: dict[str, Any]) -> None:
    """Other 2D files have 17 joints too, of COCO for one; their mirror pairs tell them apart."""
    wanted = [list(SKELETON.left), list(SKELETON.right)]
    joints, symmetry = (_plain(metadata.get(key)) for key in ("num_joints", "keypoints_symmetry"))
    if joints != len(SKELETON) or symmetry != wanted:
        raise ValueError(
            f"{file} describes {joints} joints with mirror pairs {symmetry}, expected "
            f"{len(SKELETON)} with {wanted}: its keypoints are not in Human3.6M's order. {_WHERE}"
        )


def _plain(value: Any) -> Any:
    """Lists in place of arrays and tuples: they can be compared whatever is in them."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _array(file: Path, where: str, value: Any, shape: tuple[int, int]) -> np.ndarray:
    return checked_floats(file, where, value, shape, _WHERE)
