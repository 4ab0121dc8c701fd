"""Human3.6M's joints on a body model: one's own regressor file, folded with the model so that no mesh is ever made.

A regressor makes each joint a weighted mean of vertices, and linear blend skinning makes each vertex a weighted mean of
rigid motions. Both being linear, a regressed joint k is a sum over the model's joints j of

    R_j (T_kj + S_kj shape + P_kj pose) + m_kj t_j,   X_kj = sum over vertices v of r_kv w_vj X_v,  m_kj = r_k w_j,

with (R_j, t_j) the motion of joint j from the zero pose, T the template, S and P the shape and pose displacements. T, S
and P are folded once per file; pairs (k, j) without a common vertex are left out. The result equals that of the full
mesh up to rounding.

Legend as in `body_model`: V vertices, J joints of the model, S shape coefficients, K regressed joints, F frames, N
pairs (k, j).
"""

import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from posegrid.datasets.readers.arrays import kind
from posegrid.datasets.readers.body_model import BodyModel, read_body_model, rotations
from posegrid.datasets.skeletons import H36M_17, SMPL_24
from posegrid.datasets.unpickling.restricted_pickle import read_npy, read_npz

SPIN_JOINTS = (
    "Hip", "LHip", "LKnee", "LFoot", "RHip", "RKnee", "RFoot", "Spine", "Thorax", "Neck", "Head",
    "LShoulder", "LElbow", "LWrist", "RShoulder", "RElbow", "RWrist",
)  # fmt: skip
"""Rows of `J_regressor_h36m.npy` as SPIN (Kolotouros et al., 2019) distributes it: the left leg comes first. AMASS
converted by Uplift and Upsample (Einfalt et al., 2023) has this order, too."""

ORDERS = {"spin": SPIN_JOINTS, "h36m": H36M_17.joints}
"""Orders that regressor files have; "h36m" (right leg first) is that of `J_regressor_h36m_correct.npy` of Pose2Mesh."""

_WHERE = "Get J_regressor_h36m.npy with the data of SPIN (github.com/nkolot/SPIN, fetch_data.sh)."
_NAMES = ("J_regressor_h36m", "J_regressor")
_COMPARED = ("Hip", "Knee", "Foot", "Shoulder", "Elbow", "Wrist")
_TOLERANCE = 0.01
_CHUNK = 512
"""Frames computed at once: some tens of megabytes."""


def to_h36m(order: str) -> list[int]:
    """Where each joint of `H36M_17` is in an order of `ORDERS`: `joints[:, to_h36m("spin")]` is in `H36M_17`'s."""
    return [ORDERS[order].index(joint) for joint in H36M_17.joints]


def read_regressor(file: Path, order: str) -> np.ndarray:
    """(17, V) float64 weights in the order of `H36M_17`, from an `.npy` or `.npz` file whose rows have `order`.

    An npz file holds one array or one named J_regressor_h36m or J_regressor. Raises ValueError if the file is missing
    or damaged, has another shape, or its rows do not sum to 1.
    """
    if not file.is_file():
        raise ValueError(
            f"the joint regressor {file} (option regressor) is missing; expected 17 x 6890 weights. {_WHERE}"
        )
    value = read_npz(file, [_entry(file)]).popitem()[1] if file.suffix.lower() == ".npz" else read_npy(file)
    joints = len(H36M_17)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim != 2 or len(value) != joints:
        raise ValueError(
            f"{file}: the joint regressor is {kind(value)}, expected floats of shape ({joints}, vertices). {_WHERE}"
        )
    sums = value.sum(axis=1)
    # written so that NaN does not pass
    if not (np.abs(sums - 1) <= _TOLERANCE).all():
        row = int(np.argmax(~(np.abs(sums - 1) <= _TOLERANCE)))
        raise ValueError(
            f"{file}: row {row} of the joint regressor sums to {sums[row]:.4g}, must sum to 1: it is a weighted mean "
            f"of vertices. {_WHERE}"
        )
    return value[to_h36m(order)].astype(np.float64)


def _entry(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            present = sorted(Path(member).stem for member in archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged ({error}); expected a whole npz file. {_WHERE}") from None
    named = [name for name in _NAMES if name in present] or (present if len(present) == 1 else [])
    if not named:
        raise ValueError(
            f"{file} has the entries {', '.join(present) or 'nothing'}; expected one array, or one of "
            f"{', '.join(_NAMES)}. {_WHERE}"
        )
    return named[0]


@dataclass(frozen=True, kw_only=True)
class RegressedJoints:
    """A regressor folded with a body model; without the model's own large arrays."""

    file: Path
    """The model's file."""
    parents: np.ndarray
    """(J,) parent of each joint of the model, -1 for the first."""
    soft: int
    """How many of the shapes are soft tissue coefficients; they come last."""
    rest: np.ndarray
    """(J, 3) joints of the model's mean body in the zero pose."""
    rest_shapes: np.ndarray
    """(S, J * 3) their displacement per unit of shape."""
    row: np.ndarray
    """(N,) joint k of each pair, ascending."""
    column: np.ndarray
    """(N,) joint j of the model of each pair."""
    template: np.ndarray
    """(N, 3)"""
    shapes: np.ndarray
    """(S, N * 3)"""
    poses: np.ndarray
    """(9 (J - 1), N * 3)"""
    mass: np.ndarray
    """(N,) m_kj; those of a row sum to what the row of the regressor sums to."""

    def positions(
        self, poses: np.ndarray, betas: np.ndarray, translation: np.ndarray, soft: np.ndarray | None = None
    ) -> np.ndarray:
        """(F, K, 3) regressed joints in metres.

        poses: (F, J * 3) rotation vectors, radians. betas: shape coefficients (at most S), 0 where there are fewer.
        translation: (F, 3). soft: (F, D) soft tissue coefficients of a model that has them; None: 0. Computes 512
        frames at a time. Raises ValueError if shapes do not fit the model.
        """
        joints, rigid = len(self.parents), len(self.shapes) - self.soft
        if poses.shape != (len(poses), joints * 3) or translation.shape != (len(poses), 3) or len(betas) > rigid:
            raise ValueError(
                f"{self.file} got poses {poses.shape}, {len(betas)} shape coefficients and translations "
                f"{translation.shape}; it has {joints} joints and {rigid} shapes, so expected are (frames, "
                f"{joints * 3}), at most {rigid} and (frames, 3). Choose the model that belongs to this data."
            )
        shape = np.zeros((1 if soft is None else len(poses), len(self.shapes)))
        shape[:, : len(betas)] = betas
        if soft is not None:
            if len(soft) != len(poses) or soft.shape[1] > self.soft:
                raise ValueError(
                    f"{self.file} got soft tissue coefficients {soft.shape}, expected ({len(poses)}, at most "
                    f"{self.soft}). Give the soft tissue model (DMPL) that belongs to this data."
                )
            shape[:, rigid : rigid + soft.shape[1]] = soft
        result = np.empty((len(poses), int(self.row[-1]) + 1, 3))
        for start in range(0, len(poses), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            result[chunk] = self._chunk(
                poses[chunk].reshape(-1, joints, 3).astype(np.float64), shape if soft is None else shape[chunk]
            )
        return result + self._row_sums()[:, None] * translation[:, None]

    def _chunk(self, poses: np.ndarray, shape: np.ndarray) -> np.ndarray:
        frames = len(poses)
        turn = rotations(poses)
        # one row where the shape is the same in all frames
        rest = self.rest + (shape @ self.rest_shapes).reshape(len(shape), -1, 3)
        pose = (turn[:, 1:] - np.eye(3)).reshape(frames, -1)
        turned, moved = turn.copy(), np.repeat(rest, frames // len(rest), axis=0)
        for level in _levels(self.parents):
            parents = self.parents[level]
            turned[:, level] = turned[:, parents] @ turn[:, level]
            bone = (rest[:, level] - rest[:, parents])[..., None]
            moved[:, level] = moved[:, parents] + (turned[:, parents] @ bone)[..., 0]
        offset = moved - (turned @ rest[..., None])[..., 0]
        still = self.template + (shape @ self.shapes).reshape(len(shape), -1, 3)
        still = still + (pose @ self.poses).reshape(frames, -1, 3)
        parts = np.einsum("fnab,fnb->fna", turned[:, self.column], still)
        parts += self.mass[:, None] * offset[:, self.column]
        return np.add.reduceat(parts, self._starts(), axis=1)

    def _starts(self) -> np.ndarray:
        return np.searchsorted(self.row, np.arange(self.row[-1] + 1))

    def _row_sums(self) -> np.ndarray:
        return np.add.reduceat(self.mass, self._starts())


def _levels(parents: np.ndarray) -> list[np.ndarray]:
    """Joints by their distance from the root, without the root: what can be computed at once."""
    depth = np.zeros(len(parents), dtype=np.int64)
    for joint, parent in enumerate(parents[1:], start=1):
        depth[joint] = depth[parent] + 1
    return [np.flatnonzero(depth == level) for level in range(1, depth.max() + 1)]


def fold(model: BodyModel, regressor: np.ndarray, where: Path) -> RegressedJoints:
    """Fold a regressor (K, V) with a model. `where` names its file.

    If the regressor has the rows of `H36M_17` and the model the joints of SMPL, left and right must agree on the
    template. Raises ValueError if they do not, or the numbers of vertices differ.
    """
    if regressor.shape[1] != len(model.template):
        raise ValueError(
            f"{where}: the joint regressor is for {regressor.shape[1]} vertices, {model.file} has "
            f"{len(model.template)}. Use a regressor and a model that belong together (SMPL and SMPL+H: 6890)."
        )
    if len(regressor) == len(H36M_17) and len(model.parents) >= len(SMPL_24) - 2:
        _check_sides(model, regressor, where)
    touched = (regressor != 0).astype(np.float64) @ (model.weights != 0)
    row, column = np.nonzero(touched)
    if len(np.unique(row)) != len(regressor):
        raise ValueError(f"{where}: a row of the joint regressor is 0 throughout, must be a mean of vertices. {_WHERE}")
    mix = regressor[row] * model.weights.T[column]
    vertices = len(model.template)

    def mixed(basis: np.ndarray) -> np.ndarray:
        return (mix @ basis.reshape(vertices, -1)).reshape(len(row) * 3, -1).T.copy()

    return RegressedJoints(
        file=model.file,
        parents=np.array(model.parents),
        soft=model.soft,
        rest=model.joints @ model.template,
        rest_shapes=(model.joints @ model.shapes.reshape(vertices, -1)).reshape(len(model.parents) * 3, -1).T.copy(),
        row=row,
        column=column,
        template=mix @ model.template,
        shapes=mixed(model.shapes),
        poses=mixed(model.poses),
        mass=mix.sum(axis=1),
    )


def regressed_joints(model: Path, regressor: Path, order: str, soft_tissue: Path | None = None) -> RegressedJoints:
    """Read a model and a regressor and fold them; kept per process, because every recording asks for it."""
    files = [file for file in (model, regressor, soft_tissue) if file is not None and file.is_file()]
    return _regressed_joints(model, regressor, order, soft_tissue, tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=3)
def _regressed_joints(
    model: Path, regressor: Path, order: str, soft_tissue: Path | None, changed: tuple[int, ...]
) -> RegressedJoints:
    return fold(read_body_model(model, soft_tissue), read_regressor(regressor, order), regressor)


def _check_sides(model: BodyModel, regressor: np.ndarray, where: Path) -> None:
    """Files with the same shape differ in whether the left or the right leg comes first."""
    regressed, own = regressor @ model.template, model.joints @ model.template
    for name in _COMPARED:
        left, right = (regressed[H36M_17.index(f"{side}{name}")] for side in "LR")
        same, other = (own[SMPL_24.index(f"{side}{name}")] for side in "LR")
        straight = np.linalg.norm(left - same) + np.linalg.norm(right - other)
        if straight > np.linalg.norm(left - other) + np.linalg.norm(right - same):
            raise ValueError(
                f"{where}: L{name} of the joint regressor lies at R{name} of {model.file}, so its rows have another "
                f"order than the option regressor_order says. Choose another of {', '.join(ORDERS)}."
            )
