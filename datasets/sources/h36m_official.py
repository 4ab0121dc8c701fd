"""Human3.6M (Ionescu et al., 2014) as its owners publish it: one file per recording, no conversion script needed.

`S*/MyPoseFeatures/D3_Positions/NAME.cdf` (variable `Pose`) or the same as `NAME.cdf.mat` (variable `data`, a cell),
MATLAB's version 5 to 7.3: 96 numbers per frame, 32 points in millimetres in world coordinates. Where both are there the
second is read, because the first needs a library more. TakingPhoto and WalkingDog become Photo and WalkDog, as
everywhere. 2D is the projection of the 17 joints with lens distortion: the owners publish no detections. Positions are
rounded to single precision in metres before anything else, as in the community's npz files, so that both give the same
poses.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from posegrid.datasets.readers import h36m_recordings
from posegrid.datasets.readers.arrays import checked_floats, kind, metres
from posegrid.datasets.readers.cdf import read_cdf, require_cdflib
from posegrid.datasets.readers.matlab import read_mat
from posegrid.datasets.schema import CameraSequence, Protocol, Recording
from posegrid.datasets.skeletons import H36M_17, H36M_32_TO_17

DESCRIPTION = (
    "Human3.6M (vision.imar.ro/human3.6m, licence needed) from the owners' D3_Positions files (.cdf, .cdf.mat)."
)
SKELETON = H36M_17

_PLACE = Path("MyPoseFeatures") / "D3_Positions"
_ENDINGS = (".cdf.mat", ".cdf")
"""In order of preference."""
_RENAMED = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}
_WHERE = (
    "Get the 3D positions of S1, S5, S6, S7, S8, S9 and S11 (D3_Positions) at vision.imar.ro/human3.6m, and pass the "
    "folder into which they were extracted."
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Whether recordings are held out of training, and where images are."""

    hold_out: bool = True
    """Keep 15 of the 150 training recordings for selection. False trains on all, as the papers do, which then select
    on the test subjects."""
    images: str = ""
    """Where frames of the videos are, as in source h36m. Empty: no images."""

    def __post_init__(self) -> None:
        h36m_recordings.check_images(self.images)


PROTOCOL = replace(h36m_recordings.PROTOCOL, keypoints="projected")
"""Subjects and exclusions; `protocol` adds the held-out recordings."""


def protocol(config: Config, recordings: list[Recording]) -> Protocol:
    """`PROTOCOL`, with the held-out recordings of source h36m unless the option says no."""
    return h36m_recordings.with_held_out(PROTOCOL, recordings) if config.hold_out else PROTOCOL


def list_recordings(config: Config, raw: Path | None) -> list[Recording]:
    """All recordings of the seven subjects, by subject and name.

    Raises ValueError if subjects or recordings are missing, or the library that files need.
    """
    recordings = []
    for subject in h36m_recordings.SUBJECTS:
        folder = (raw / subject / _PLACE).resolve() if raw else None
        files = _files(folder) if folder else {}
        if not files:
            raise ValueError(
                f"data source h36m_official: no {subject}/{_PLACE.as_posix()}/*.cdf or *.cdf.mat in the raw folder "
                f"{raw}; the protocol needs the subjects {', '.join(h36m_recordings.SUBJECTS)}. {_WHERE}"
            )
        h36m_recordings.check_complete(folder, subject, sorted(files), _WHERE)
        for name in sorted(files):
            if files[name].suffix == ".cdf":
                require_cdflib(files[name])
            action = h36m_recordings.action_of(name)
            recordings.append(Recording(subject=subject, action=action, name=name, files=(str(files[name]),)))
    return recordings


def read_recording(config: Config, recording: Recording) -> list[CameraSequence]:
    """One recording in all four cameras. Raises ValueError if its file is damaged or has another layout, unit, NaN."""
    file = Path(recording.files[0])
    flat = _flat(file)
    points = flat.reshape(-1, 32, 3)[:, H36M_32_TO_17].astype(np.float64)
    points = checked_floats(file, "the positions", points, (len(SKELETON), 3), _WHERE)
    world = metres(file, "the positions", points, SKELETON).astype(np.float32).astype(np.float64)
    return h36m_recordings.camera_sequences(recording, world, None, config.images)


def _files(folder: Path) -> dict[str, Path]:
    """Recording under its usual name -> file. Names that begin with an underscore are collections of several."""
    found: dict[str, Path] = {}
    for ending in _ENDINGS:
        for file in sorted(folder.glob(f"[!_]*{ending}")):
            action, *take = file.name.removesuffix(ending).split(" ")
            found.setdefault(" ".join([_RENAMED.get(action, action), *take]), file)
    return found


def _flat(file: Path) -> np.ndarray:
    """(F, 96) floats. Raises ValueError for anything else."""
    if file.suffix == ".mat":
        value = read_mat(file, ["data"])["data"]
        if value.dtype == np.dtype(object) and value.size == 1:
            value = value.item()
    else:
        value = read_cdf(file, "Pose")
        if value.ndim == 3 and len(value) == 1:
            value = value[0]
    if value.ndim != 2 or value.shape[1] != 96 or value.dtype.kind != "f":
        raise ValueError(f"{file} holds {kind(value)}, expected floats of shape (frames, 96). {_WHERE}")
    return value
