"""Data sets by their published sizes: a store without frames, to plan with before anything is prepared.

It has the sequences, lengths, frame rates and splits of the prepared data set; all its keypoints and poses are zero,
and its hash is none. Lengths of single recordings are not published for every data set: where only a subject's total is
known, its recordings are taken to be equally long.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posegrid.datasets.options import unknown
from posegrid.datasets.readers import h36m_recordings
from posegrid.datasets.schema import Protocol, Recording
from posegrid.datasets.skeletons import H36M_17, MPI_INF_3DHP_17, Skeleton
from posegrid.datasets.sources import amass, mpi_inf_3dhp
from posegrid.datasets.store import Sequence, Store

OUTLINES = ("h36m", "mpi_inf_3dhp", "amass")
"""Data sets whose sizes are known."""
NO_HASH = "no data"
"""What stands in place of a content hash: no run was ever made with it."""

H36M_FRAMES = {"S1": 248_376, "S5": 396_316, "S6": 249_864, "S7": 332_600, "S8": 332_596}
"""Frames of each training subject over four cameras (counts of VideoPose3D's files). Published for S7 and S8 together;
of S9 and S11 the sum `_H36M_TEST`, without S11's first Directions."""
_H36M_TEST = 543_344

AMASS_MINUTES = {
    "ACCAD": 26.74, "BMLrub": 522.69, "CMU": 543.49, "EKUT": 30.74, "EyesJapanDataset": 363.64, "KIT": 661.84,
    "MPIHDM05": 144.54, "MPILimits": 20.82, "MPImosh": 16.53, "SFU": 15.23, "TCDhandMocap": 8.05,
    "TotalCapture": 41.10, "Transitionsmocap": 15.10,
}  # fmt: skip
"""Minutes of motion (Mahmood et al., 2019, Table 1; quoted from memory: check before use). Data sets that joined later
are left out, so there is more to train on than this."""
_AMASS_RATE = 50.0


@dataclass(frozen=True, kw_only=True)
class _View:
    """One recording in one camera."""

    recording: Recording
    camera: str
    frames: int
    frame_rate: float


def outline(name: str) -> Store:
    """The data set of that name as a store of its published size. Raises ValueError for an unknown name."""
    if name not in OUTLINES:
        raise unknown("data set", name, "option --as", list(OUTLINES))
    views, protocol, skeleton = {"h36m": _h36m, "mpi_inf_3dhp": _mpi_inf_3dhp, "amass": _amass}[name]()
    return _store(name, views, protocol, skeleton)


def is_outline(store: Store) -> bool:
    """Whether a store has no frames."""
    return store.content_hash == NO_HASH


def _h36m() -> tuple[list[_View], Protocol, Skeleton]:
    recordings = [
        Recording(subject=subject, action=action, name=f"{action}{take}")
        for subject in h36m_recordings.SUBJECTS
        for action in h36m_recordings.ACTIONS
        for take in ("", " 1")
    ]
    protocol = h36m_recordings.with_held_out(h36m_recordings.PROTOCOL, recordings)
    kept = [one for one in recordings if not protocol.excludes(one.subject, one.name)]
    lengths: dict[str, int] = {}
    for subjects, total in (*(((one,), H36M_FRAMES[one]) for one in protocol.train), (protocol.test, _H36M_TEST)):
        own = [f"{one.subject}/{one.name}" for one in kept if one.subject in subjects]
        lengths |= dict(zip(own, _shared(total // 4, len(own)), strict=True))
    views = [
        _View(recording=one, camera=str(camera), frames=lengths[f"{one.subject}/{one.name}"], frame_rate=50.0)
        for one in kept
        for camera in range(4)
    ]
    return views, protocol, H36M_17


def _mpi_inf_3dhp() -> tuple[list[_View], Protocol, Skeleton]:
    table = json.loads((Path(__file__).parent / "checks" / "published_counts.json").read_text())
    views = []
    for entry in (entry for entry in table if entry["source"] == "mpi_inf_3dhp"):
        tests = "test" in entry["splits"]
        for name, frames in entry["recordings"].items():
            subject, recording = name.split("/")
            rate = 25.0 if tests else float(mpi_inf_3dhp.FRAME_RATES[name.replace("/", " ")])
            one = Recording(subject=subject, action=name.replace("/", " "), name=recording)
            cameras = ("test",) if tests else mpi_inf_3dhp.CAMERAS
            views += [_View(recording=one, camera=camera, frames=frames, frame_rate=rate) for camera in cameras]
    config = mpi_inf_3dhp.Config()
    return views, mpi_inf_3dhp.protocol(config, [view.recording for view in views]), MPI_INF_3DHP_17


def _amass() -> tuple[list[_View], Protocol, Skeleton]:
    """As the recipes that pre-train say it is prepared: one view, and the validation sets as test."""
    views = []
    for name, minutes in AMASS_MINUTES.items():
        count = max(round(minutes * 2), 1)  # recordings of half a minute
        for number, frames in enumerate(_shared(round(minutes * 60 * _AMASS_RATE), count)):
            one = Recording(subject=name, action=name, name=str(number))
            views.append(_View(recording=one, camera="0", frames=frames, frame_rate=_AMASS_RATE))
    train = tuple(name for name in AMASS_MINUTES if name in amass.TRAIN)
    return views, Protocol(train=train, test=amass.HELD_OUT), H36M_17


def _shared(total: int, parts: int) -> list[int]:
    """`total` in parts that differ by one at most."""
    return [total // parts + (number < total % parts) for number in range(parts)]


def _store(name: str, views: list[_View], protocol: Protocol, skeleton: Skeleton) -> Store:
    sequences, offset = [], 0
    for view in views:
        one = view.recording
        sequences.append(
            Sequence(
                subject=one.subject,
                action=one.action,
                recording=one.name,
                camera=view.camera,
                split=protocol.split_of(one.subject, one.name),
                offset=offset,
                frames=view.frames,
                frame_rate=view.frame_rate,
                width=1000,
                height=1000,
                camera_parameters="{}",
                images="{}",
                sha256="",
            )
        )
        offset += view.frames

    def zeros(*shape: int) -> np.ndarray:
        """One zero, seen as many: an outline takes no memory."""
        return np.broadcast_to(np.float32(0), (offset, len(skeleton), *shape))

    return Store(
        path=Path(name),
        address="",
        content_hash=NO_HASH,
        skeleton=skeleton,
        source=name,
        description={},
        sequences=tuple(sequences),
        keypoints=zeros(2),
        confidence=zeros(),
        valid=np.broadcast_to(np.True_, (offset,)),
        poses_if_any=zeros(3),
    )
