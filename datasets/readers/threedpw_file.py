"""One sequence file of 3DPW: a pickle of Python 2 with a dictionary of lists, one entry per person.

Keys that are read: `cam_poses` (F, 4, 4) world to camera, `cam_intrinsics` (3, 3), `campose_valid` [(F,)], `poses`
[(F, 72)] rotation vectors of SMPL, `trans` [(F, 3)] metres, `betas` [(10,)], `genders` ["m" or "f"] (the data set's
readme calls it `gender`), `jointPositions` [(F, 72)] metres in the world, `poses2d` [(F, 3, 18)] pixels and
confidence. F counts images, 30 per second; the entries at 60 Hz are not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posegrid.datasets.cameras import Camera
from posegrid.datasets.readers.arrays import checked_floats, kind
from posegrid.datasets.unpickling.restricted_pickle import read_pickle

SMPL_ENTRIES = ("poses", "trans", "betas")

_SHAPES = {"poses": (72,), "trans": (3,), "jointPositions": (72,), "poses2d": (3, 18)}
_SIZES = ((1920, 1080), (1080, 1920))
_OFF_CENTRE = 0.15
"""How far a principal point may lie from the middle of the image, as a share of its longer side."""
_RIGID = 1e-3
_GENDERS = {"m": "male", "f": "female"}
_ADVICE = "Get sequenceFiles.zip at virtualhumans.mpi-inf.mpg.de/3DPW again; do not convert its files."


@dataclass(frozen=True, kw_only=True)
class Person:
    """What a file says about one person."""

    aligned: np.ndarray
    """(F,) bool, whether the camera's pose fits this person's image."""
    arrays: dict[str, np.ndarray]
    """The entries that were asked for; `betas` (S,), the others one row per frame."""
    gender: str | None
    """ "male" or "female"; None if no SMPL entry was asked for."""


@dataclass(frozen=True, kw_only=True)
class SequenceFile:
    """What a file says about one sequence."""

    rotation: np.ndarray
    """(F, 3, 3) float64, world to camera; no rotation in frames in which nobody is aligned."""
    shift: np.ndarray
    """(F, 3) float64 metres, added after the rotation."""
    camera: Camera
    """Intrinsics; at the origin, because the phone moves."""
    people: list[Person]


def read_sequence(file: Path, entries: Sequence[str]) -> SequenceFile:
    """Read a sequence file with the given entries of each person.

    Raises ValueError if the file is damaged or names what is no plain data, if arrays have other shapes or lengths than
    documented or hold NaN, if a camera is no pinhole or an aligned one no rigid motion.
    """
    raw = read_pickle(file, ["cam_poses", "cam_intrinsics", "campose_valid", *entries], ["genders", "gender"])
    motion = checked_floats(file, "cam_poses", raw["cam_poses"], (4, 4), _ADVICE).astype(np.float64)
    number = len(_people(file, raw, "campose_valid"))
    people = [_person(file, raw, entries, person, len(motion)) for person in range(number)]
    aligned = np.any([person.aligned for person in people], axis=0)
    _check_rigid(file, motion, aligned)
    return SequenceFile(
        rotation=motion[:, :3, :3],
        shift=motion[:, :3, 3],
        camera=_camera(file, raw["cam_intrinsics"]),
        people=people,
    )


def _person(file: Path, raw: dict[str, Any], entries: Sequence[str], person: int, frames: int) -> Person:
    aligned = np.asarray(_of(file, raw, "campose_valid", person))
    if aligned.shape != (frames,) or aligned.dtype.kind not in "biuf" or not np.isin(aligned, (0, 1)).all():
        raise ValueError(
            f"{file}: campose_valid of person {person} is {kind(aligned)}, expected 0 or 1 for each of {frames} frames "
            f"of cam_poses. {_ADVICE}"
        )
    arrays = {}
    for name in entries:
        value = _of(file, raw, name, person)
        arrays[name] = checked_floats(file, f"{name} of person {person}", value, _SHAPES.get(name, ()), _ADVICE)
        if name in _SHAPES and len(value) != frames:
            raise ValueError(
                f"{file}: {name} of person {person} has {len(value)} frames, cam_poses {frames}; they must be as many. "
                f"{_ADVICE}"
            )
    gender = None
    if "betas" in entries:
        key = "genders" if "genders" in raw else "gender"
        said = _of(file, raw, key, person) if key in raw else None
        gender = _GENDERS.get(said[:1].lower()) if isinstance(said, str) else None
        if gender is None:
            raise ValueError(f"{file}: gender of person {person} is {said!r}, expected m or f. {_ADVICE}")
    return Person(aligned=aligned.astype(np.bool_), arrays=arrays, gender=gender)


def _people(file: Path, raw: dict[str, Any], name: str) -> Sequence[Any]:
    value = raw[name]
    # one array for all would be read as one person per frame
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{file}: {name} is {kind(value)}, expected a list with an entry per person. {_ADVICE}")
    return value


def _of(file: Path, raw: dict[str, Any], name: str, person: int) -> Any:
    people, wanted = _people(file, raw, name), len(_people(file, raw, "campose_valid"))
    if len(people) != wanted:
        raise ValueError(
            f"{file}: {name} has {len(people)} entries, campose_valid {wanted}; expected one for each person. {_ADVICE}"
        )
    return people[person]


def _check_rigid(file: Path, motion: np.ndarray, aligned: np.ndarray) -> None:
    """Cameras of frames in which nobody is aligned may be anything."""
    rotation = motion[:, :3, :3]
    off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    off = np.maximum(off, np.abs(np.linalg.det(rotation) - 1))
    off = np.maximum(off, np.abs(motion[:, 3] - [0, 0, 0, 1]).max(axis=1))
    off[~aligned] = 0
    if off.max() > _RIGID:
        raise ValueError(
            f"{file}: cam_poses is no rotation and shift in frame {int(off.argmax())} (off by {off.max():.3g}), though "
            f"campose_valid is 1 there; expected world-to-camera matrices whose last row is 0 0 0 1. {_ADVICE}"
        )


def _camera(file: Path, matrix: Any) -> Camera:
    pinhole = isinstance(matrix, np.ndarray) and matrix.dtype.kind in "iuf" and matrix.shape == (3, 3)
    if pinhole:
        fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
        pinhole = (
            np.allclose(matrix, np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), atol=1e-6)
            and min(fx, fy) > 0
        )
    if not pinhole:
        raise ValueError(
            f"{file}: cam_intrinsics is {kind(matrix)}, expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with positive "
            f"focal lengths in pixels. {_ADVICE}"
        )
    width, height = min(_SIZES, key=lambda size: np.hypot(cx - size[0] / 2, cy - size[1] / 2))
    if np.hypot(cx - width / 2, cy - height / 2) > _OFF_CENTRE * max(width, height):
        raise ValueError(
            f"{file}: the principal point ({cx:.6g}, {cy:.6g}) is far from the middle of images of 1920 x 1080 and of "
            f"1080 x 1920 pixels, which 3DPW has. {_ADVICE}"
        )
    return Camera(id="phone", width=width, height=height, focal_px=(fx, fy), centre_px=(cx, cy))
