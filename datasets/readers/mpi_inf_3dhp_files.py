"""The files of MPI-INF-3DHP (Mehta et al., 2017): those of its authors, and those that P-STMO and D3DP made of them.

Both give views: pixels, positions in millimetres in the camera's frame, and which frames count, in the order of joints
of `skeletons.MPI_INF_3DHP_17`. Legend: F frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from posegrid.datasets.cameras import Camera
from posegrid.datasets.readers.arrays import checked_floats, kind
from posegrid.datasets.readers.hdf5 import read_hdf5
from posegrid.datasets.readers.matlab import read_mat
from posegrid.datasets.unpickling.restricted_pickle import read_npz

FROM_28 = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)
"""Which of the 28 joints of a raw training file are kept, in the order of `MPI_INF_3DHP_17`."""

_JOINTS = 17
_RAW_NAMES = {"metric": "annot3", "universal": "univ_annot3"}
_ADVICE = "Use the file as it was published, or fetch it again."


@dataclass(frozen=True, kw_only=True)
class View:
    """What one camera sees of one sequence."""

    camera: str
    pixels: np.ndarray
    """(F, 17, 2)."""
    millimetres: np.ndarray
    """(F, 17, 3), camera frame."""
    valid: np.ndarray | None = None
    """(F,) bool, None: all frames count."""


def npz_sequences(file: Path) -> dict[str, Any]:
    """Content of an npz file, kept per process: sequence -> what is known of it. Raises ValueError if it is damaged or
    holds anything else."""
    return _npz(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _npz(file: Path, changed: int) -> dict[str, Any]:
    """`changed` is the file's time."""
    content = read_npz(file, ["data"])["data"]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{file}: data is {kind(content)}, expected a dictionary of sequences. {_ADVICE}")
    return content


def npz_training(file: Path, name: str, cameras: Sequence[str]) -> tuple[list[View], float]:
    """Views of the sequence `name` ("S1 Seq1") and its frames per second.

    Raises ValueError for another layout, a missing camera or damaged values.
    """
    entry = npz_sequences(file)[name]
    if not isinstance(entry, list | tuple | np.ndarray) or len(entry) != 2 or not isinstance(entry[0], dict):
        raise ValueError(
            f"{file}: {name} is {kind(entry)}, expected a list of a dictionary of cameras and the frame rate. {_ADVICE}"
        )
    by_camera, rate = {str(camera): view for camera, view in entry[0].items()}, entry[1]
    missing = [camera for camera in cameras if camera not in by_camera]
    if missing:
        raise ValueError(
            f"{file}: {name} lacks the cameras {', '.join(missing)} (it has {', '.join(by_camera) or 'none'}). Choose "
            "others with the option cameras, or use another file."
        )
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number):
        raise ValueError(f"{file}: {name} has the frame rate {rate!r}, expected a number. {_ADVICE}")
    views = [_npz_view(file, f"{name}, camera {camera}", by_camera[camera], camera) for camera in cameras]
    return views, float(rate)


def npz_test(file: Path, name: str, camera: str) -> View:
    """The view of the test sequence `name` ("TS1"). Raises ValueError for another layout or damaged values."""
    entry = npz_sequences(file)[name]
    view = _npz_view(file, name, entry, camera)
    valid = entry.get("valid")
    return View(
        camera=camera,
        pixels=view.pixels,
        millimetres=view.millimetres,
        valid=_valid(file, name, valid, len(view.pixels)),
    )


def _npz_view(file: Path, where: str, entry: Any, camera: str) -> View:
    if not isinstance(entry, dict):
        raise ValueError(f"{file}: {where} is {kind(entry)}, expected a dictionary with data_2d and data_3d. {_ADVICE}")
    return _view(file, where, camera, entry.get("data_2d"), entry.get("data_3d"), ("data_2d", "data_3d"))


def raw_training(file: Path, cameras: Sequence[str], annotation: str) -> list[View]:
    """Views of an `annot.mat`; annotation is "metric" or "universal".

    Raises ValueError if the file is damaged, lacks a camera or has another layout.
    """
    name = _RAW_NAMES[annotation]
    content = read_mat(file, ["annot2", name])
    for variable, cells in content.items():
        if cells.dtype != np.dtype(object):
            raise ValueError(f"{file}: {variable} is {kind(cells)}, expected a cell per camera. {_ADVICE}")
    flat = {variable: cells.ravel() for variable, cells in content.items()}
    views = []
    for camera in cameras:
        arrays = []
        for variable, coordinates in (("annot2", 2), (name, 3)):
            found = flat[variable][int(camera)] if int(camera) < len(flat[variable]) else None
            if not isinstance(found, np.ndarray) or not found.size:
                raise ValueError(
                    f"{file}: {variable} has nothing for camera {camera} ({len(flat[variable])} cells). Choose other "
                    "cameras with the option cameras, or fetch the file again."
                )
            if found.ndim != 2 or found.shape[1] != 28 * coordinates:
                raise ValueError(
                    f"{file}: {variable} of camera {camera} is {found.shape}, expected (frames, {28 * coordinates}) of "
                    f"28 joints. {_ADVICE}"
                )
            arrays.append(found.reshape(len(found), 28, coordinates)[:, FROM_28])
        views.append(_view(file, f"camera {camera}", camera, arrays[0], arrays[1], ("annot2", name)))
    if len(flat["annot2"]) != len(flat[name]):
        # cameras are told by their places alone
        raise ValueError(
            f"{file}: annot2 has {len(flat['annot2'])} cells and {name} {len(flat[name])}; both must have one for each "
            f"camera. {_ADVICE}"
        )
    return views


def raw_test(file: Path, camera: str, annotation: str) -> View:
    """The view of an `annot_data.mat`; annotation is "metric" or "universal".

    Raises ValueError if the file is damaged or has another layout.
    """
    name = _RAW_NAMES[annotation]
    content = read_hdf5(file, ["annot2", name, "valid_frame"])
    arrays = []
    for variable in ("annot2", name):
        array = content[variable]
        if array.ndim != 4 or array.shape[1] != 1:
            raise ValueError(f"{file}: {variable} is {kind(array)}, expected (frames, 1, {_JOINTS}, ...). {_ADVICE}")
        arrays.append(array[:, 0])
    view = _view(file, "the sequence", camera, arrays[0], arrays[1], ("annot2", name))
    valid = _valid(file, "valid_frame", content["valid_frame"], len(view.pixels))
    return View(camera=camera, pixels=view.pixels, millimetres=view.millimetres, valid=valid)


def _view(file: Path, where: str, camera: str, pixels: Any, millimetres: Any, names: tuple[str, str]) -> View:
    pixels = checked_floats(file, f"{where}, {names[0]}", pixels, (_JOINTS, 2), _ADVICE)
    millimetres = checked_floats(file, f"{where}, {names[1]}", millimetres, (_JOINTS, 3), _ADVICE)
    if len(pixels) != len(millimetres):
        raise ValueError(
            f"{file}: {where} has {len(pixels)} frames in {names[0]} and {len(millimetres)} in {names[1]}; both must "
            f"have the same. {_ADVICE}"
        )
    return View(camera=camera, pixels=pixels, millimetres=millimetres)


def _valid(file: Path, where: str, value: Any, frames: int) -> np.ndarray:
    if (
        not isinstance(value, np.ndarray)
        or value.shape not in ((frames,), (frames, 1))
        or value.dtype.kind not in "biuf"
    ):
        raise ValueError(f"{file}: valid frames of {where} are {kind(value)}, expected ({frames},). {_ADVICE}")
    if not np.isin(value, (0, 1)).all() or not value.any():
        raise ValueError(f"{file}: valid frames of {where} must be 0 or 1, and 1 somewhere. {_ADVICE}")
    return value.reshape(-1).astype(np.bool_)


def read_calibration(file: Path) -> dict[str, Camera]:
    """Intrinsics of the cameras in a `camera.calibration` (Skeletool's text format, version 1.0) by name.

    Orientation and position are left out: poses are in each camera's frame already. Raises ValueError if the file is
    cut or damaged, or if a lens has distortion, of which the format does not say how it works.
    """
    cameras = {}
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if lines[0][:3] != ["Skeletool", "Camera", "Calibration"]:
            raise ValueError("its first line is not that of a calibration")
        starts = [number for number, line in enumerate(lines) if line[0] == "name"]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            values = {line[0]: line[1:] for line in lines[start:end]}
            if len(values) < end - start:
                raise ValueError(f"camera {values['name'][0]} has an entry twice, or the next camera's name is missing")
            matrix = np.array([float(number) for number in values["intrinsic"]]).reshape(4, 4)
            if float(values["radial"][0]) != 0:
                raise ValueError(
                    f"camera {values['name'][0]} has lens distortion {values['radial'][0]}, only 0 is known"
                )
            width, height = (int(number) for number in values["size"])
            cameras[values["name"][0]] = Camera(
                id=values["name"][0],
                width=width,
                height=height,
                focal_px=(matrix[0, 0], matrix[1, 1]),
                centre_px=(matrix[0, 2], matrix[1, 2]),
            )
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"{file} cannot be read ({type(error).__name__}: {error}); expected Skeletool's camera calibration. Fetch "
            "it again, or remove it to go without the cameras' parameters."
        ) from None
    return cameras
