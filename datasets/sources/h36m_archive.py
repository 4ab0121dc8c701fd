"""Human3.6M (Ionescu et al., 2014) from the archive `h36m.zip` of Martinez et al. (2017), packed or extracted.

Positions are `h36m/S*/MyPoses/3D_positions/NAME.h5`: dataset `3D_positions` (96, frames), 32 points in millimetres in
world coordinates. Detections of a stacked hourglass network are `h36m/S*/StackedHourglass/NAME.CAMERA.h5`: dataset
`poses` (frames, 16, 2), pixels, MPII's 16 joints, blanks of NAME as underscores. MPII has no `Neck` (the face), so
detections come with the 16 joints of `H36M_16`; projected ground truth comes with 16 or 17. Positions are rounded to
single precision in metres before anything else, as in the community's npz files, so that both give the same poses.

Detections must have as many frames as the motion. They are compared with the projected positions: a median distance
that no detector has means another recording, camera or order of joints, and is refused.
"""

import re
import zipfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from posegrid.datasets.cameras import H36M_CAMERA_IDS, Camera, h36m_cameras, normalise_screen, project, world_to_camera
from posegrid.datasets.readers import h36m_recordings
from posegrid.datasets.readers.arrays import checked_floats, metres
from posegrid.datasets.readers.hdf5 import read_hdf5
from posegrid.datasets.schema import CameraSequence, Protocol, Recording
from posegrid.datasets.skeletons import H36M_16, H36M_17, H36M_32_TO_17, Skeleton

DESCRIPTION = "Human3.6M (licence needed) from the archive h36m.zip of Martinez et al.: positions, stacked hourglass."
SKELETON = H36M_16

MPII_16 = (
    "RFoot", "RKnee", "RHip", "LHip", "LKnee", "LFoot", "Hip", "Spine", "Thorax", "Head",
    "RWrist", "RElbow", "RShoulder", "LShoulder", "LElbow", "LWrist",
)  # fmt: skip
"""Order of the joints in the detections."""

_KEYPOINTS = {"stacked_hourglass": "stacked hourglass", "gt": "projected"}
_FOUND = re.compile(r"(?:.*/)?(S\d+/(?:MyPoses/3D_positions|StackedHourglass)/[^/]+\.h5)")
_MOST_BYTES = 2**30
_FARTHEST_PX, _MOST_BENT_PX = 200.0, 40.0
"""Medians over a view beyond which detections are not of this motion: distance to the projection, and the same after
both are centred in each frame. Detectors have about 10; of joints in another order the latter is 50 and more."""
_WHERE = (
    "Get the archive h36m.zip (github.com/una-dinosauria/3d-pose-baseline says how; Human3.6M needs a licence) and "
    "pass the folder in which it lies, packed or extracted."
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which keypoints and joints, and whether recordings are held out of training."""

    keypoints: str = "stacked_hourglass"
    """ "stacked_hourglass": detections, 16 joints. "gt": projected positions."""
    joints: int = 16
    """16 (`H36M_16`), or with keypoints "gt" also 17 (`H36M_17`)."""
    hold_out: bool = True
    """Keep 15 of the 150 training recordings for selection. False trains on all, as the papers do, which then select
    on the test subjects."""
    images: str = ""
    """Where frames of the videos are, as in source h36m. Empty: no images."""

    def __post_init__(self) -> None:
        h36m_recordings.check_images(self.images)
        if self.keypoints not in _KEYPOINTS:
            raise ValueError(
                f'keypoints = "{self.keypoints}" in the options of data source h36m_archive is unknown. '
                f"Known: {', '.join(_KEYPOINTS)}. Choose one of them."
            )
        if self.joints not in (16, 17) or (self.joints == 17 and self.keypoints != "gt"):
            raise ValueError(
                f'joints = {self.joints} with keypoints = "{self.keypoints}" in the options of data source '
                "h36m_archive: allowed are 16, and 17 with gt only, because the detector has no joint at the face. "
                "Change one of the two."
            )


PROTOCOL = h36m_recordings.PROTOCOL
"""Subjects and exclusions; `protocol` adds the held-out recordings and the kind of keypoints."""


def skeleton(config: Config) -> Skeleton:
    """The skeleton of the store."""
    return H36M_17 if config.joints == 17 else H36M_16


def protocol(config: Config, recordings: list[Recording]) -> Protocol:
    """The protocol of source h36m, with the held-out recordings unless the option says no."""
    base = replace(PROTOCOL, keypoints=_KEYPOINTS[config.keypoints])
    return h36m_recordings.with_held_out(base, recordings) if config.hold_out else base


def list_recordings(config: Config, raw: Path | None) -> list[Recording]:
    """All recordings of the seven subjects, by subject and name.

    Raises ValueError if there is no archive, or if a subject, a recording or a camera's detections are missing.
    """
    archive = _archive(raw)
    files = _files(archive)
    recordings = []
    for subject in h36m_recordings.SUBJECTS:
        folder = f"{subject}/MyPoses/3D_positions/"
        names = sorted(file.removeprefix(folder).removesuffix(".h5") for file in files if file.startswith(folder))
        if not names:
            raise ValueError(
                f"{archive} has no positions of subject {subject} ({folder}*.h5); the protocol needs "
                f"{', '.join(h36m_recordings.SUBJECTS)}. {_WHERE}"
            )
        h36m_recordings.check_complete(archive, subject, names, _WHERE)
        for name in names:
            wanted = _wanted(config, subject, name)
            # the recording that is left out lacks a camera in the archive
            if f"{subject}/{name}" in PROTOCOL.excluded:
                wanted = wanted[:1]
            missing = [file for file in wanted if file not in files]
            if missing:
                raise ValueError(f"{archive} lacks {', '.join(missing)}; expected one file per camera. {_WHERE}")
            recordings.append(
                Recording(
                    subject=subject,
                    action=h36m_recordings.action_of(name),
                    name=name,
                    files=tuple(dict.fromkeys(str(files[file][0]) for file in wanted)),
                )
            )
    return recordings


def read_recording(config: Config, recording: Recording) -> list[CameraSequence]:
    """One recording in all four cameras.

    Raises ValueError if a file is damaged, has another layout or unit than documented, or NaN, or if detections do not
    belong to the motion.
    """
    kept = skeleton(config)
    contents = _contents(config, recording)
    where, content = contents[0]
    flat = read_hdf5(content, ["3D_positions"], where)["3D_positions"]
    if flat.ndim != 2 or flat.shape[0] != 96:
        raise ValueError(f"{where}: 3D_positions is {flat.shape}, expected (96, frames). {_WHERE}")
    points = np.moveaxis(flat.reshape(32, 3, -1), -1, 0)[
        :, [H36M_32_TO_17[H36M_17.index(name)] for name in kept.joints]
    ]
    points = checked_floats(where, "3D_positions", points, (len(kept), 3), _WHERE).astype(np.float64)
    world = metres(where, "3D_positions", points, kept).astype(np.float32).astype(np.float64)
    if config.keypoints == "gt":
        return h36m_recordings.camera_sequences(recording, world, None, config.images)
    keypoints = []
    for camera, (where, content) in zip(h36m_cameras()[recording.subject], contents[1:], strict=True):
        pixels = read_hdf5(content, ["poses"], where)["poses"]
        pixels = checked_floats(where, "poses", pixels, (len(MPII_16), 2), _WHERE)
        if len(pixels) != len(world):
            raise ValueError(
                f"{where} has {len(pixels)} frames, {contents[0][0]} has {len(world)}; both must have the same number. "
                f"{_WHERE}"
            )
        pixels = pixels[:, [MPII_16.index(name) for name in kept.joints]]
        seen = normalise_screen(pixels, camera.width, camera.height)
        _refuse_other_motion(where, seen, project(world_to_camera(world, camera), camera), camera)
        keypoints.append(seen)
    return h36m_recordings.camera_sequences(recording, world, keypoints, config.images)


def _refuse_other_motion(where: str, seen: np.ndarray, expected: np.ndarray, camera: Camera) -> None:
    """seen, expected: (F, J, 2) screen coordinates of detections and of projected positions."""
    apart = (seen - expected) * camera.width / 2
    bent = apart - apart.mean(axis=1, keepdims=True)
    distance, shape = (float(np.median(np.linalg.norm(error, axis=-1))) for error in (apart, bent))
    if distance > _FARTHEST_PX or shape > _MOST_BENT_PX:
        raise ValueError(
            f"{where}: keypoints lie {distance:.0f} px from the projected positions in the median ({shape:.0f} px with "
            f"both centred), at most {_FARTHEST_PX:.0f} and {_MOST_BENT_PX:.0f} are plausible. They are of another "
            f"recording or camera, or their joints are not in MPII's order. {_WHERE}"
        )


def _wanted(config: Config, subject: str, name: str) -> list[str]:
    """The files of a recording within the archive: positions, then detections by camera."""
    files = [f"{subject}/MyPoses/3D_positions/{name}.h5"]
    if config.keypoints == "stacked_hourglass":
        take = name.replace(" ", "_")
        files += [f"{subject}/StackedHourglass/{take}.{camera}.h5" for camera in H36M_CAMERA_IDS]
    return files


def _archive(raw: Path | None) -> Path:
    """The zip file, or the folder that holds those of the subjects."""
    if raw and raw.is_file():
        return raw.resolve()
    for place in (raw / "h36m", raw, raw / "h36m.zip") if raw else ():
        if place.is_file() or any((place / subject).is_dir() for subject in h36m_recordings.SUBJECTS):
            return place.resolve()
    raise ValueError(
        f"data source h36m_archive: neither h36m.zip nor a folder h36m with S1 to S11 is in the raw folder {raw}. "
        f"{_WHERE}"
    )


def _files(archive: Path) -> dict[str, tuple[Path, str]]:
    """Path within the archive from the subject on -> file on disk, and member of it if that is a zip file."""
    if archive.is_dir():
        found = archive.glob("S*/*/**/*.h5")
        return {file.relative_to(archive).as_posix(): (file, "") for file in found}
    try:
        members = _opened(archive, archive.stat().st_mtime_ns).namelist()
    except Exception as error:  # damaged zip files raise more than their documentation lists
        raise ValueError(
            f"{archive} is damaged or cut ({type(error).__name__}: {error}); expected a whole zip file. Fetch it again."
        ) from None
    matches = [_FOUND.fullmatch(member) for member in members]
    return {match.group(1): (archive, match.group()) for match in matches if match}


@lru_cache(maxsize=1)
def _opened(archive: Path, changed: int) -> zipfile.ZipFile:
    """A zip file, kept open per process: its table of thousands of members is read once. `changed` is its time."""
    return zipfile.ZipFile(archive)


def _contents(config: Config, recording: Recording) -> list[tuple[str, Path | bytes]]:
    """Name for messages, and file or content of each file of a recording, in the order of `_wanted`."""
    if recording.files[0].endswith(".h5"):
        return [(file, Path(file)) for file in recording.files]
    archive = Path(recording.files[0])
    files = _files(archive)
    contents: list[tuple[str, Path | bytes]] = []
    for name in _wanted(config, recording.subject, recording.name):
        where = f"{archive}, member {name}"
        try:
            packed = _opened(archive, archive.stat().st_mtime_ns)
            member = packed.getinfo(files[name][1])
            if member.file_size > _MOST_BYTES:
                raise zipfile.BadZipFile(f"it is said to have {member.file_size} bytes")
            contents.append((where, packed.read(member)))
        except Exception as error:
            raise ValueError(
                f"{where} is damaged, cut or gone ({type(error).__name__}: {error}). Fetch the archive again."
            ) from None
    return contents
