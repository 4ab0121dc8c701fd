"""Body models in the form of SMPL (Loper et al., 2015) and SMPL+H (Romero et al., 2017): one's own model files.

A model file is an `.npz`, or a `.pkl` as it is distributed (read by `restricted_pickle`, nothing in it is run), with
`v_template` (V, 3), `shapedirs` (V, 3, S), `posedirs` (V, 3, 9 (J - 1)), `J_regressor` (J, V), `weights` (V, J) and
`kintree_table` (2, J). V is 6890 in both models, J is 24 or 52; all of them are properties of the file here.

Legend: V vertices, J joints of the model, S shape coefficients, K joints that are regressed, F frames. Metres, in the
model's axes: y up, z forward, the left side at positive x.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posegrid.datasets.readers.arrays import kind
from posegrid.datasets.unpickling.restricted_pickle import read_npz, read_pickle

GENDERS = ("female", "male", "neutral")
SOFT_TISSUE = "dmpls"
"""Folder of the soft tissue shapes, as it is distributed."""

_ADVICE = "Use the file of the body model as it is distributed, or the same arrays as npz."
_PARTS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
_FILES = {
    "smpl": r"smpl_{gender}\.(npz|pkl)|basicmodel_({letter}|{gender})_lbs_10_207_0_v[0-9.]+\.(npz|pkl)",
    "smplh": r"smplh_{gender}\.(npz|pkl)",
}
"""Names of model files in lower case; AMASS's SMPL+H is a `model.npz` in a folder of the gender's name instead."""
_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class BodyModel:
    """The arrays of a model file, float64."""

    file: Path
    template: np.ndarray
    """(V, 3) vertices of the mean body in the zero pose."""
    shapes: np.ndarray
    """(V, 3, S) displacement per unit of each shape coefficient; those of soft tissue follow, if asked for."""
    poses: np.ndarray
    """(V, 3, 9 (J - 1)) displacement per unit of each entry of (rotation - identity), row by row, without the root."""
    joints: np.ndarray
    """(J, V) weights that make the joints of the shaped body."""
    weights: np.ndarray
    """(V, J) skinning weights, each row sums to 1."""
    parents: tuple[int, ...]
    """Parent of each joint, -1 for the first one; parents come before their children."""
    soft: int = 0
    """How many of the shapes are soft tissue coefficients."""


def find_body_models(folder: Path, family: str) -> dict[str, Path]:
    """Gender -> model file of the family "smpl" or "smplh" in a folder or below it; those that are there.

    Raises ValueError if the folder does not exist or has several files for one gender.
    """
    if not folder.is_dir():
        raise ValueError(
            f"the folder of body models {folder} (option body_models) does not exist; it must hold the model files of "
            f"{family}, one for each gender. Get them from {_origin(family)}."
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        gender = gender_of(path, family)
        if gender in found:
            raise ValueError(
                f"the folder of body models {folder} has several {family} models for {gender}: {found[gender]} and "
                f"{path}. Keep one of them."
            )
        if gender:
            found[gender] = path
    return dict(sorted(found.items()))


def gender_of(file: Path, family: str) -> str | None:
    """The gender that a model file of the family is for, by its name; None for other files."""
    name, folder = file.name.lower(), file.parent.name.lower()
    if family == "smplh" and name == "model.npz":
        return folder if folder in GENDERS and SOFT_TISSUE not in file.parts else None
    for gender in GENDERS:
        if re.fullmatch(_FILES[family].format(gender=gender, letter=gender[0]), name):
            return gender
    return None


def find_soft_tissue(folder: Path) -> dict[str, Path]:
    """Gender -> file of the soft tissue shapes (DMPL), `dmpls/GENDER/model.npz` in a folder or below it."""
    files = [path for path in sorted(folder.rglob("model.npz")) if SOFT_TISSUE in path.parts]
    return {gender: path for path in files for gender in GENDERS if path.parent.name == gender}


def body_model_of(models: dict[str, Path], gender: str, family: str, where: str) -> Path:
    """The model file for a gender. Raises ValueError naming `where` it is needed if there is none."""
    if gender not in models:
        raise ValueError(
            f"{where} needs the {family} model for {gender}, found are those for {', '.join(models) or 'nobody'} "
            f"(option body_models). Get it from {_origin(family)}."
        )
    return models[gender]


def read_body_model(file: Path, soft_tissue: Path | None = None) -> BodyModel:
    """Read a model file; `soft_tissue` (DMPL, `eigvec` (V, 3, D)) adds D shapes behind the others.

    Raises ValueError if a file is damaged, holds anything but plain data, or its arrays do not fit each other.
    """
    raw = read_pickle(file, _PARTS) if file.suffix.lower() == ".pkl" else read_npz(file, _PARTS)
    template = _floats(file, "v_template", raw, (None, 3))
    vertices = len(template)
    weights = _floats(file, "weights", raw, (vertices, None))
    joints = weights.shape[1]
    shapes = _floats(file, "shapedirs", raw, (vertices, 3, None))
    poses = _floats(file, "posedirs", raw, (vertices, 3, 9 * (joints - 1)))
    regressor = _floats(file, "J_regressor", raw, (joints, vertices))
    for name, sums in (("weights", weights.sum(axis=1)), ("J_regressor", regressor.sum(axis=1))):
        if np.abs(sums - 1).max() > _TOLERANCE:
            raise ValueError(
                f"{file}: the rows of {name} sum to {sums.min():.4g} to {sums.max():.4g}, must sum to 1. {_ADVICE}"
            )
    soft = np.zeros((vertices, 3, 0))
    if soft_tissue:
        soft = _floats(soft_tissue, "eigvec", read_npz(soft_tissue, ["eigvec"]), (vertices, 3, None))
    return BodyModel(
        file=file,
        template=template,
        shapes=np.concatenate([shapes, soft], axis=2) if soft_tissue else shapes,
        poses=poses,
        joints=regressor,
        weights=weights,
        parents=_parents(file, raw["kintree_table"], joints),
        soft=soft.shape[2],
    )


def rotations(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors (..., 3), axis times angle in radians -> matrices (..., 3, 3), by Rodrigues' formula."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    across = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vectors.shape, 3)
    # sin(a)/a and (1 - cos(a))/a^2, both also right at 0
    return np.eye(3) + np.sinc(angle / np.pi) * across + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (across @ across)


def _floats(file: Path, name: str, raw: dict[str, Any], shape: tuple[int | None, ...]) -> np.ndarray:
    value = raw[name]
    fits = isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim == len(shape) and value.size
    if not fits or any(wanted not in (None, size) for wanted, size in zip(shape, value.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{file}: {name} is {kind(value)}, expected floats of shape ({wanted}). {_ADVICE}")
    if not np.isfinite(value).all():
        raise ValueError(f"{file}: {name} holds NaN or infinite values; every value must be finite. {_ADVICE}")
    return np.asarray(value, dtype=np.float64)


def _parents(file: Path, table: Any, joints: int) -> tuple[int, ...]:
    """The tree of `kintree_table`: parents in its first row; that of the root is whatever the type makes of -1."""
    if not isinstance(table, np.ndarray) or table.dtype.kind not in "iuf" or table.shape != (2, joints):
        raise ValueError(f"{file}: kintree_table is {kind(table)}, expected whole numbers (2, {joints}). {_ADVICE}")
    parents = (-1, *(int(parent) for parent in table[0, 1:]))
    ordered = all(0 <= parent < joint for joint, parent in enumerate(parents[1:], start=1))
    if not ordered or not np.array_equal(table[1], np.arange(joints)):
        raise ValueError(
            f"{file}: kintree_table is no tree of joints 0 to {joints - 1} in which parents come before their children "
            f"(parents {parents}). {_ADVICE}"
        )
    return parents


def _origin(family: str) -> str:
    return {
        "smpl": "smpl.is.tue.mpg.de (after registration; SMPL_FEMALE.pkl, basicModel_f_lbs_10_207_0_v1.0.0.pkl, ...)",
        "smplh": "mano.is.tue.mpg.de (after registration; Extended SMPL+H model, smplh/female/model.npz, ...)",
    }[family]
