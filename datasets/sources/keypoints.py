"""Keypoint files of one's own: what a detector wrote for one's own videos, to be lifted.

Read are the formats of `readers.keypoint_json`, `readers.openpose`, `readers.custom_npz` and `keypoint_table`. Every
person of a video becomes one recording: subject `person_1`, ... (or the name that the file gives), named like the
video, with ` from frame N` added where the person comes later than its first frame. Joints and frames without a
detection are interpolated in time with confidence 0 (`gaps.fill_gaps`, `tracks.tracks_of`), then the joints become
those of the target skeleton (`conversions`). Stores hold keypoints only, unless tables give 3D: frames whose 3D is not
complete are then cut out, which leaves ` part 1`, ` part 2`, ... All subjects test; a protocol file may let some train.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from posegrid.datasets.cameras import normalise_screen
from posegrid.datasets.conversions import convert
from posegrid.datasets.keypoints.tracks import Detections, Track, tracks_of
from posegrid.datasets.options import unknown
from posegrid.datasets.readers.keypoint_files import FORMATS, KeypointFile, keypoint_files
from posegrid.datasets.schema import CameraSequence, Protocol, Recording
from posegrid.datasets.skeletons import H36M_17, SKELETONS, Skeleton, skeleton_named

DESCRIPTION = "Keypoints of one's own videos: COCO, AlphaPose, MMPose and OpenPose JSON, VideoPose3D npz, tables."
SKELETON = H36M_17
PROTOCOL = Protocol(
    train=(), test=(), keypoints="own detections", note="Own keypoints; joints that were not seen are interpolated."
)
"""`protocol` adds the subjects."""

_LARGEST = 100_000
"""Pixels of an image's side."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How files are read, and what they do not say."""

    format: str = "auto"
    """Format of the files: auto (by name and content), coco, alphapose, mmpose, openpose, videopose3d or table."""
    joints: str = "auto"
    """Skeleton of the files' keypoints by name; auto: by what a file says, or by the number of its keypoints."""
    skeleton: str = "h36m_17"
    """Skeleton of the store by name; that of the files keeps their joints."""
    width: int | None = None
    """Image width in pixels, for files that do not say it."""
    height: int | None = None
    """Image height in pixels, for files that do not say it."""
    frame_rate: float | None = None
    """Frames per second, for files that do not say it."""
    gaps: str = "interpolate"
    """What is done about joints that were not seen: interpolate, or refuse the file."""
    people: str = "all"
    """all, or main: of each video the person with the largest sum of confidences."""
    shortest: int = 1
    """People who are seen in fewer frames are left out."""

    def __post_init__(self) -> None:
        for key, known in (
            ("format", FORMATS),
            ("joints", ("auto", *SKELETONS)),
            ("skeleton", tuple(SKELETONS)),
            ("gaps", ("interpolate", "refuse")),
            ("people", ("all", "main")),
        ):
            if getattr(self, key) not in known:
                raise unknown(key, getattr(self, key), f"options of data source keypoints, key {key}", list(known))
        for key in ("width", "height", "frame_rate", "shortest"):
            value = getattr(self, key)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(
                    f"{key} = {value} in the options of data source keypoints must be positive. Correct it."
                )


def skeleton(config: Config) -> Skeleton:
    """The skeleton of the store."""
    return skeleton_named(config.skeleton)


def protocol(config: Config, recordings: list[Recording]) -> Protocol:
    """Everybody tests."""
    return Protocol(
        train=(),
        test=tuple(sorted({recording.subject for recording in recordings})),
        keypoints=PROTOCOL.keypoints,
        note=PROTOCOL.note,
    )


def list_recordings(config: Config, raw: Path | None) -> list[Recording]:
    """One recording per person and video, in the order of files, videos and first frames.

    Raises ValueError if there are no keypoint files, one is damaged, or two give the same person and video.
    """
    recordings: dict[tuple[str, str], Recording] = {}
    for file in keypoint_files(raw, config.format):
        names = tuple(str(path.absolute()) for path in file.files)
        for subject, name in _people(file.kind, names, _stamp(file.files), file.video, config):
            again = recordings.setdefault(
                (subject, name),
                Recording(subject=subject, action="own", name=name, files=names),
            )
            if again.files != names:
                raise ValueError(
                    f"{names[0]} and {again.files[0]} both hold {subject} in the video {name}; names must be unique. "
                    "Rename one of the videos (files)."
                )
    if not recordings:
        raise ValueError(
            f"nobody in {raw} is seen in {config.shortest} or more frames. Lower --option shortest, or look at the "
            "detections with `posegrid check keypoints`."
        )
    return list(recordings.values())


def read_recording(config: Config, recording: Recording) -> list[CameraSequence]:
    """One person, seen by one camera (by several in files of VideoPose3D's script).

    Raises ValueError if image size or frame rate are not known, the keypoints cannot be converted to the target
    skeleton, joints are missing though gaps are refused, or no frame has complete 3D.
    """
    files = tuple(Path(name) for name in recording.files)
    file = KeypointFile.of(files, config.format)
    people = _people(file.kind, recording.files, _stamp(files), file.video, config)
    sequences = []
    if (recording.subject, recording.name) not in people:
        raise ValueError(f"{files[0]} changed while it was read. Repeat the command when it is complete.")
    for found, track in people[recording.subject, recording.name]:
        sequences += _sequences(config, recording, found, track)
    return sequences


def _sequences(config: Config, recording: Recording, found: Detections, track: Track) -> list[CameraSequence]:
    known = {key: getattr(config, key) or getattr(found, key) for key in ("width", "height", "frame_rate")}
    unsaid = [key for key, value in known.items() if value is None]
    if unsaid:
        raise ValueError(
            f"{found.file} does not say the {', '.join(unsaid)} of the video {found.video}. Give "
            f"{' '.join(f'--option {key}=...' for key in unsaid)} (pixels, frames per second)."
        )
    for key in ("width", "height"):
        if not isinstance(known[key], int | np.integer) or not 0 < known[key] <= _LARGEST:
            raise ValueError(
                f"{found.file}: the {key} of the video {found.video} is {known[key]!r}, expected whole pixels up to "
                f"{_LARGEST}. Correct the file, or give --option {key}=..."
            )
    source = found.skeleton.name
    points, confidence = convert(track.filled, source, config.skeleton, track.confidence)
    assert confidence is not None
    if config.gaps == "refuse" and (confidence == 0).any():
        frame, joint = np.argwhere(confidence == 0)[0]
        raise ValueError(
            f"{found.file}: {recording.subject} in the video {found.video}: joint "
            f"{skeleton_named(config.skeleton).joints[joint]} was not seen in frame {track.first + frame} "
            f"({(confidence == 0).mean():.1%} of all joints are missing), and gaps = refuse. Complete the detections "
            "or set --option gaps=interpolate."
        )
    keypoints = normalise_screen(points, known["width"], known["height"]).astype(np.float32)
    poses, runs = None, [slice(0, len(keypoints))]
    if track.poses is not None:
        poses = convert(track.poses, source, config.skeleton)[0].astype(np.float32)
        runs = _runs(np.asarray(np.isfinite(poses).all(axis=(1, 2))))
        if not runs:
            raise ValueError(
                f"{found.file}: {recording.subject} in the video {found.video} has no frame with X, Y, Z of all "
                "joints. Complete them, or leave the columns X, Y, Z out."
            )
    return [
        CameraSequence(
            subject=recording.subject,
            action=recording.action,
            recording=recording.name if len(runs) == 1 else f"{recording.name} part {number}",
            camera=found.camera,
            frame_rate=float(known["frame_rate"]),
            width=known["width"],
            height=known["height"],
            keypoints=keypoints[run],
            confidence=confidence[run].astype(np.float32),
            poses=None if poses is None else poses[run],
        )
        for number, run in enumerate(runs, start=1)
    ]


def _runs(whole: np.ndarray) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], whole, [False]])))
    return [slice(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _stamp(files: tuple[Path, ...]) -> tuple[int, ...]:
    """Times of the files and of what may lie beside them."""
    beside = [files[0].with_suffix(suffix) for suffix in (".toml", ".json")]
    return tuple(path.stat().st_mtime_ns for path in (*files, *beside) if path.is_file())


@lru_cache(maxsize=2)
def _people(
    kind: str, files: tuple[str, ...], changed: tuple[int, ...], video: str, config: Config
) -> dict[tuple[str, str], list[tuple[Detections, Track]]]:
    """Subject and recording name -> detections and track of each camera. Kept per process: every person asks for it;
    `changed` is the time of the files."""
    people: dict[tuple[str, str], list[tuple[Detections, Track]]] = {}
    file = KeypointFile(kind=kind, files=tuple(map(Path, files)), video=video)
    for found in file.read(config.format, config.joints):
        tracks = tracks_of(found)
        if config.people == "main" and tracks:
            tracks = [max(tracks, key=lambda track: track.confidence.sum())]
        for track in tracks:
            if (track.confidence > 0).any(axis=1).sum() < config.shortest:
                continue
            later = "" if track.first == found.extent[0] else f" from frame {track.first}"
            subject = f"person_{track.person}" if track.person.isdecimal() else track.person.replace("/", "_")
            people.setdefault((subject, found.video.replace("/", "_") + later), []).append((found, track))
    return people
