"""Files of AMASS (Mahmood et al., 2019): body parameters as distributed, or the joints that others made of them.

As distributed: `DATASET/SUBJECT/SEQUENCE_poses.npz`, the folder of the data set perhaps twice in one another, with
`poses` (F, 156) rotation vectors of SMPL+H, `trans` (F, 3) metres, `betas` (16,), `dmpls` (F, 8), `gender` and
`mocap_framerate`; z is up. `shape.npz` is no motion. Converted by the script of Uplift and Upsample (Einfalt et al.,
2023): `DATASET.npz` with `positions_3d`, subject -> sequence -> `positions_3d` (F, 17, 3) in the order of SPIN's
regressor and `frame_rate`.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from posegrid.datasets.readers.arrays import checked_floats, kind
from posegrid.datasets.readers.body_model import GENDERS
from posegrid.datasets.readers.joint_regressor import to_h36m
from posegrid.datasets.unpickling.restricted_pickle import read_npz

WHERE = "Get AMASS (SMPL+H G, body data) at amass.is.tue.mpg.de, one folder per data set, and pass the folder of them."

_ENDING = "_poses"
_OTHER_NAMES = {"biomotionlabntroje": "bmlrub", "dfaust67": "dfaust", "ssmsynced": "ssm"}
"""Folders that are called otherwise than their archives."""
_ADVICE = "Fetch it again, or leave it out with the option excluded."


@dataclass(frozen=True, kw_only=True)
class Take:
    """One motion, by where it is."""

    dataset: str
    """As it is called in the folder of the data sets."""
    subject: str
    name: str
    """Without the ending `_poses`."""
    file: Path
    converted: bool


@dataclass(frozen=True, kw_only=True)
class BodyMotion:
    """Body parameters of one take."""

    poses: np.ndarray
    """(F, 156) rotation vectors, radians."""
    translation: np.ndarray
    """(F, 3) metres."""
    betas: np.ndarray
    """(16,) shape coefficients."""
    soft: np.ndarray | None
    """(F, 8) soft tissue coefficients, if asked for."""
    gender: str
    frame_rate: float


def same_name(name: str) -> str:
    """What two spellings of a data set's name have in common: `MPI_HDM05` and `MPIHDM05`."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return _OTHER_NAMES.get(plain, plain)


def find_takes(raw: Path, wanted: set[str]) -> list[Take]:
    """All takes of the wanted data sets (as `same_name` gives them), sorted; only converted files are opened.

    Raises ValueError if a data set is there in both forms, a converted file is damaged, or a take is there twice.
    """
    found: dict[tuple[str, str, str], Take] = {}
    folders = {same_name(path.name): path for path in sorted(raw.iterdir()) if path.is_dir()}
    files = {same_name(path.stem): path for path in sorted(raw.glob("*.npz"))}
    both = sorted(set(folders) & set(files) & wanted)
    if both:
        raise ValueError(
            f"{folders[both[0]]} and {files[both[0]]} are the same data set, as distributed and converted. Remove one."
        )
    takes = [
        Take(
            dataset=path.name,
            subject=file.parent.name,
            name=file.stem.removesuffix(_ENDING),
            file=file,
            converted=False,
        )
        for key, path in folders.items()
        if key in wanted
        for file in sorted(path.rglob(f"*{_ENDING}.npz"))
    ]
    takes += [
        Take(dataset=path.stem, subject=subject, name=name.removesuffix(_ENDING), file=path, converted=True)
        for key, path in files.items()
        if key in wanted
        for subject, names in sorted(_converted(path).items())
        for name in sorted(names)
    ]
    for take in takes:
        again = found.setdefault((same_name(take.dataset), take.subject, take.name), take)
        if again is not take:
            raise ValueError(f"{take.file} and {again.file} are the same take of {take.subject}. Remove one.")
    return takes


def read_motion(file: Path, *, soft: bool) -> BodyMotion:
    """Body parameters of a file as distributed. soft: whether `dmpls` is needed.

    Raises ValueError if the file is damaged, lacks an entry, or has other shapes or values than documented.
    """
    names = ["poses", "trans", "betas", "gender", "mocap_framerate", *(["dmpls"] if soft else [])]
    raw = read_npz(file, names)
    poses = checked_floats(file, "poses", raw["poses"], (156,), _ADVICE)
    arrays = {"trans": checked_floats(file, "trans", raw["trans"], (3,), _ADVICE)}
    betas = checked_floats(file, "betas", raw["betas"], (), _ADVICE)
    if soft:
        arrays["dmpls"] = checked_floats(file, "dmpls", raw["dmpls"], (8,), _ADVICE)
    for name, value in arrays.items():
        if len(value) != len(poses):
            raise ValueError(f"{file}: {name} has {len(value)} frames, poses {len(poses)}; must be as many. {_ADVICE}")
    return BodyMotion(
        poses=poses,
        translation=arrays["trans"],
        betas=betas,
        soft=arrays.get("dmpls"),
        gender=_gender(file, raw["gender"]),
        frame_rate=_rate(file, "mocap_framerate", raw["mocap_framerate"]),
    )


def read_converted(file: Path, subject: str, name: str) -> tuple[np.ndarray, float]:
    """(F, 17, 3) metres, z up, in the order of `H36M_17`, and frames per second, of a converted file.

    Raises ValueError if the take is not there or no array (F, 17, 3) of finite numbers.
    """
    takes = _converted(file).get(subject, {})
    take = next((value for key, value in takes.items() if key.removesuffix(_ENDING) == name), None)
    where = f"{subject}/{name}"
    if not isinstance(take, dict) or not {"positions_3d", "frame_rate"} <= set(take):
        raise ValueError(
            f"{file}: {where} is {kind(take)}, expected a dictionary with positions_3d and frame_rate. {_ADVICE}"
        )
    positions = checked_floats(file, where, take["positions_3d"], (17, 3), _ADVICE)
    return positions[:, to_h36m("spin")].astype(np.float64), _rate(file, f"{where}, frame_rate", take["frame_rate"])


def _converted(file: Path) -> dict[str, dict[str, Any]]:
    return _loaded(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _loaded(file: Path, changed: int) -> dict[str, dict[str, Any]]:
    """The content of a converted file, kept per process: every take asks for it. `changed` is the file's time."""
    content = read_npz(file, ["positions_3d"])["positions_3d"]
    nested = isinstance(content, dict) and all(isinstance(takes, dict) for takes in content.values())
    names = (
        [name for takes in content.values() for name in (takes if isinstance(takes, dict) else ())] if nested else []
    )
    if not nested or not all(isinstance(name, str) for name in (*content, *names)):
        raise ValueError(
            f"{file}: positions_3d is {kind(content)}, expected a dictionary of subjects that hold one of sequences, "
            "as the script of Uplift and Upsample writes it. Make it again, or pass AMASS as it is distributed."
        )
    return content


def _gender(file: Path, value: Any) -> str:
    text = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    text = text.decode("latin1") if isinstance(text, bytes) else text
    # some writers keep the quotes of Python 2's bytes in the text
    text = re.sub(r"^b'(.*)'$", r"\1", text).lower() if isinstance(text, str) else text
    if not isinstance(text, str) or text not in GENDERS:
        raise ValueError(f"{file}: gender is {text!r}, expected one of {', '.join(GENDERS)}. {_ADVICE}")
    return text


def _rate(file: Path, what: str, value: Any) -> float:
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "iuf" or not 1 <= float(number.item()) <= 1000:
        raise ValueError(f"{file}: {what} is {value!r}, expected 1 to 1000 frames per second. {_ADVICE}")
    return float(number.item())
